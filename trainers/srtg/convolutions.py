"""The convolutions and stems that SRTG's networks are made of, named and ordered as in the authors' code.

A convolution builder takes (in, out, middle, stride) and gives a 3 x 3 (x 3) convolution that keeps T, H, W at stride 1.
No bias anywhere: a batch norm follows each of them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

PUBLISHED_WIDTH = 64
"""Channels of the stem and of the first stage in every published network."""

ConvBuilder = Callable[[int, int, int, int], nn.Module]


def simple(in_planes: int, out_planes: int, mid: int, stride: int = 1) -> nn.Module:
    """3 x 3 x 3."""
    return nn.Sequential(nn.Conv3d(in_planes, out_planes, 3, stride, 1, bias=False))


def conv2plus1d(in_planes: int, out_planes: int, mid: int, stride: int = 1) -> nn.Module:
    """(2+1)D: 1 x 3 x 3 to `mid` channels, batch norm, ReLU, 3 x 1 x 1."""
    return nn.Sequential(
        nn.Conv3d(in_planes, mid, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        nn.BatchNorm3d(mid),
        nn.ReLU(inplace=True),
        nn.Conv3d(mid, out_planes, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
    )


def depthwise(in_planes: int, out_planes: int, mid: int, stride: int = 1) -> nn.Module:
    """ir-CSN: 3 x 3 x 3 inside each channel; `out_planes` must be a multiple of `in_planes` (ValueError by torch)."""
    return nn.Sequential(nn.Conv3d(in_planes, out_planes, 3, stride, 1, groups=in_planes, bias=False))


def ip_depthwise(in_planes: int, out_planes: int, mid: int, stride: int = 1) -> nn.Module:
    """ip-CSN: 1 x 1 x 1 across the channels, batch norm, ReLU, then `depthwise`.

    Raises: ValueError unless `in_planes` equals `out_planes`.
    """
    if in_planes != out_planes:
        raise ValueError(f"ip_depthwise keeps the number of channels, asked for {in_planes} -> {out_planes}")
    return nn.Sequential(
        nn.Conv3d(in_planes, out_planes, 1, bias=False),
        nn.BatchNorm3d(out_planes),
        nn.ReLU(inplace=True),
        depthwise(out_planes, out_planes, mid, stride),
    )


def notemporal(in_planes: int, out_planes: int, mid: int, stride: int = 1) -> nn.Module:
    """1 x 3 x 3, every frame by itself; the stride leaves T alone."""
    return nn.Conv3d(in_planes, out_planes, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)


def mid_planes(in_planes: int, planes: int) -> int:
    """Channels between the two halves of a (2+1)D convolution that has about the weights of a 3 x 3 x 3 one.

    Source: R(2+1)D (arXiv 1711.11248, section 3.5).
    """
    return (in_planes * planes * 27) // (in_planes * 9 + 3 * planes)


# Stems: (B, in, T, H, W) -> (B, width, T, H/2, W/2).


def basic_stem(in_channels: int, width: int) -> nn.Sequential:
    """3 x 7 x 7."""
    return nn.Sequential(
        nn.Conv3d(in_channels, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )


def stem2plus1d(in_channels: int, width: int) -> nn.Sequential:
    """1 x 7 x 7 to 45 channels (of 64, and in proportion for other widths), then 3 x 1 x 1."""
    mid = max(1, 45 * width // PUBLISHED_WIDTH)
    return nn.Sequential(
        nn.Conv3d(in_channels, mid, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
        nn.BatchNorm3d(mid),
        nn.ReLU(inplace=True),
        nn.Conv3d(mid, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )


def initialise(module: nn.Module) -> None:
    """Kaiming normal (fan out) convolutions, N(0, 0.01) linear layers; norms and recurrent nets keep PyTorch's start."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
        nn.init.zeros_(module.bias)
