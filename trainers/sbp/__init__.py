"""Stochastic Backpropagation: gradients through a part of the activations, for the memory of that part.

Source: Cheng et al., Stochastic Backpropagation, CVPR 2022, arXiv 2203.16755.
"""
