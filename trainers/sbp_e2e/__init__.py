"""LSTR trained end to end from frames with partial feedback: SBP's online action detection.

Source: Cheng et al., Stochastic Backpropagation, CVPR 2022, arXiv 2203.16755.
"""
