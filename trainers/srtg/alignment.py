"""Two parts of the authors' release that no network of theirs uses: the convolution of two paces, and its alignment test.

They are here for whoever continues that line, and because the reference vectors hold them.
Source: `network/temporal_alignment.py` of SRTG's released code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.srtg.recursion import squeeze


def channel_distances(a_BCTHW: Tensor, b_BCTHW: Tensor) -> Tensor:
    """Squared Euclidean distances between the channels of two clips, each channel a course over time: (B, C, C)."""
    a, b = squeeze(a_BCTHW), squeeze(b_BCTHW)
    inner = a @ b.mT
    return ((a**2).sum(2)[:, :, None] - 2 * inner + (b**2).sum(2)[:, None, :]).clamp_min(0)


def aligned(distances_BCC: Tensor) -> Tensor:
    """Whether the nearest channels, read row by row, never go back, bool (B,)."""
    nearest = distances_BCC.argmin(2)
    return (nearest.diff(dim=1) >= 0).all(1)


class ShortLongConv(nn.Module):
    """A (2+1)D convolution, temporal part first, after which the authors meant to choose between two paces.

    Their code computes the long pace (half resolution in T, H, W) and throws it away; so the parameters of
    `temporal_conv_long` are kept for their names and get no gradient. Kernel k, H and W as k, all odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, padding: int = 1, groups: int = 1):
        super().__init__()
        k = kernel_size
        mid = k**3 * in_channels * out_channels // (2 * (k * in_channels + k**2 * out_channels))
        mid -= mid % groups
        self.bn1, self.bn2 = nn.BatchNorm3d(mid), nn.BatchNorm3d(out_channels)
        temporal, spatial = ((k, 1, 1), (padding, 0, 0)), ((1, k, k), (0, padding, padding))
        self.temporal_conv_short = nn.Conv3d(in_channels, mid, temporal[0], padding=temporal[1], groups=groups)
        self.temporal_conv_long = nn.Conv3d(in_channels, mid, temporal[0], padding=temporal[1], groups=groups)
        self.spatial_conv = nn.Conv3d(mid, out_channels, spatial[0], padding=spatial[1], groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        short = functional.relu(self.bn1(self.temporal_conv_short(x)))
        return functional.relu(self.bn2(self.spatial_conv(short)))


def aligned_clips(a_BCTHW: Tensor, b_BCTHW: Tensor) -> Tensor:
    """Numbers of the clips that are `aligned`, int64 (n, 1)."""
    return torch.nonzero(aligned(channel_distances(a_BCTHW, b_BCTHW)))
