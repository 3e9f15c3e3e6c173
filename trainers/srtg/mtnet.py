"""MTNet: two streams of one clip, a short one with every moment and a long one with the moments that change least.

Each layer has a convolution per stream and carries the short stream over to the long one; GRUs over time rescale both.
Source: Stergiou and Poppe, Multi-Temporal Convolutions, arXiv 2011.03949, and its released code, which pools by maximum
and average where the paper has SoftPool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.srtg.convolutions import PUBLISHED_WIDTH, basic_stem, initialise
from trainers.srtg.recursion import RecurrentScale, squeeze

Streams = tuple[Tensor, Tensor]
"""(short, long), each (B, C, T, H, W) with its own C, T, H, W."""


@dataclass(frozen=True)
class MTNetSpec:
    """Blocks per stage; `groups` of the 3 x 3 x 3 convolutions (above 1 with group norm); share of the short stream."""

    layers: tuple[int, int, int, int]
    groups: int = 1
    base_width: int = 64
    ratio: float = 7 / 8
    cell: Literal["gru", "lstm"] = "gru"


def similarity_pool(x_BCTHW: Tensor) -> Tensor:
    """Half of the frames (rounded down): those most like their neighbours, in their order, chosen per clip.

    Alike is the squared cosine of the spatial means, averaged over the frame's two neighbours, so the first and the
    last frame are never kept. The choice has no gradient, the frames have. Up to two frames pass as they are (the
    authors' code fails on two).
    """
    num_frames = x_BCTHW.shape[2]
    if num_frames < 3:
        return x_BCTHW
    with torch.no_grad():
        mean = squeeze(x_BCTHW)
        alike = functional.cosine_similarity(mean[..., :-1], mean[..., 1:], dim=1, eps=1e-4) ** 2
        score = (alike[:, :-1] + alike[:, 1:]) / 2
        kept = score.topk(num_frames // 2, dim=1).indices.sort(dim=1).values + 1
    return torch.take_along_dim(x_BCTHW, kept[:, None, :, None, None], dim=2)


def resized(x: Tensor, size: torch.Size | tuple[int, int, int]) -> Tensor:
    """Trilinear to (T, H, W); the same tensor where it has that size."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return functional.interpolate(x, tuple(size), mode="trilinear", align_corners=False)


class MTConv(nn.Module):
    """A convolution per stream; with `lateral` the long one also gets the short one's result, pooled.

    Of n channels the short stream has int(n x ratio). Batch norm, or group norm where there are groups. The long norm
    is applied twice, to the long stream and to what is carried over.
    """

    def __init__(
        self,
        in_planes: int,
        planes: int,
        kernel: int | tuple[int, int, int],
        *,
        ratio: float,
        stride: int = 1,
        padding: int | tuple[int, int, int] = 0,
        groups: int = 1,
        lateral: bool = True,
    ) -> None:
        super().__init__()
        short_groups = max(1, int(groups * ratio))
        long_groups = max(1, groups - short_groups)
        in_short, out_short = int(in_planes * ratio) // short_groups * short_groups, int(planes * ratio)
        in_long, out_long = in_planes - in_short, planes - out_short
        self.conv_short = nn.Conv3d(in_short, out_short, kernel, stride, padding, groups=short_groups, bias=False)
        self.conv_long = nn.Conv3d(in_long, out_long, kernel, stride, padding, groups=long_groups, bias=False)
        self.conv_short2long = nn.Conv3d(out_short, out_long, 1, bias=False) if lateral else None
        self.norm_short: nn.Module = nn.BatchNorm3d(out_short)
        self.norm_long: nn.Module = nn.BatchNorm3d(out_long)
        if groups > 1:
            self.norm_short = nn.GroupNorm(short_groups, out_short)
            self.norm_long = nn.GroupNorm(long_groups, out_long)

    def forward(self, streams: Streams) -> Streams:
        short, long = self.conv_short(streams[0]), self.conv_long(streams[1])
        normed_long = self.norm_long(long)  # Before the carried part: running statistics are updated in this order.
        if self.conv_short2long is not None:
            carried = similarity_pool(functional.avg_pool3d(short, (1, 2, 2)))
            normed_long = normed_long + self.norm_long(self.conv_short2long(resized(carried, long.shape[2:])))
        return self.norm_short(short), normed_long


def _relu(streams: Streams) -> Streams:
    return functional.relu(streams[0]), functional.relu(streams[1])


class MTBlock(nn.Module):
    """Four two-stream convolutions, recursion on both streams, then the shortcut's sum and ReLU."""

    def __init__(self, in_planes: int, planes: int, stride: int, spec: MTNetSpec) -> None:
        super().__init__()
        inner, ratio, groups = int(planes * spec.base_width / 64 / spec.groups), spec.ratio, spec.groups
        reshapes = stride != 1 or in_planes != planes
        self.conv1_1 = MTConv(in_planes, inner, 1, ratio=ratio)
        self.conv1_2 = MTConv(inner, in_planes, 1, ratio=ratio)
        self.conv2 = MTConv(in_planes, inner, 3, ratio=ratio, stride=stride, padding=1, groups=groups)
        kernel, padding = (1, 0) if reshapes else ((1, 3, 3), (0, 1, 1))
        self.conv3 = MTConv(inner, planes, kernel, ratio=ratio, padding=padding, groups=groups)
        self.downsample = MTConv(in_planes, planes, 1, ratio=ratio, stride=stride, lateral=False) if reshapes else None
        short = int(planes * ratio)
        self.sr_short = RecurrentScale(short, cell=spec.cell)
        self.sr_long = RecurrentScale(planes - short, cell=spec.cell)

    def forward(self, streams: Streams) -> Streams:
        out = _relu(self.conv2(_relu(self.conv1_2(_relu(self.conv1_1(streams))))))
        short, long = self.conv3(out)
        (short, _), (long, _) = self.sr_short(short), self.sr_long(long)
        skip_short, skip_long = self._shortcut(streams)
        return _relu((short + resized(skip_short, short.shape[2:]), long + resized(skip_long, long.shape[2:])))

    def _shortcut(self, streams: Streams) -> Streams:
        if self.downsample is None:
            return streams
        short, long = streams
        if long.shape[3] < 3:
            long = resized(long, (long.shape[2], 3, 3))
        return self.downsample((short, long))


class MTNet(nn.Module):
    """Clips (B, in_channels, T, H, W) -> logits (B, num_classes).

    Stem and max-pool over H and W, half of the frames, then the channels are shared out: `ratio` of them to the short
    stream, the rest, at half the resolution and half the frames again, to the long one. Four stages, global averages of
    both streams, linear layer. 16 x 224 x 224 becomes 8 x 56 x 56 (short) and 4 x 28 x 28 (long). H and W from about 64.
    """

    def __init__(
        self, spec: MTNetSpec, num_classes: int, *, width: int = PUBLISHED_WIDTH, in_channels: int = 3
    ) -> None:
        super().__init__()
        if int(width * spec.ratio) < 1 or int(width / spec.groups * spec.ratio) < 1:
            raise ValueError(f"a width of {width} in {spec.groups} groups leaves a stream of MTNet without channels")
        self.short_planes = int(width * spec.ratio)
        self.stem = basic_stem(in_channels, width)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.layer1 = _stage(spec, 0, width, width)
        self.layer2 = _stage(spec, 1, width, 2 * width)
        self.layer3 = _stage(spec, 2, 2 * width, 4 * width)
        self.layer4 = _stage(spec, 3, 4 * width, 8 * width)
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(8 * width, num_classes)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if x.shape[3] % 2 or x.shape[4] % 2:
            x = functional.pad(x, (1, 0, 1, 0, 0, 0), mode="replicate")
        x = similarity_pool(self.pool(x))
        short, long = x[:, : self.short_planes], functional.avg_pool3d(x[:, self.short_planes :], (1, 2, 2))
        streams = short, similarity_pool(long)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            streams = stage(streams)
        means = [torch.flatten(self.avgpool(stream), 1) for stream in streams]
        return self.fc(torch.cat(means, dim=1))


def _stage(spec: MTNetSpec, index: int, in_planes: int, planes: int) -> nn.Sequential:
    first = MTBlock(in_planes, planes, 1 if index == 0 else 2, spec)
    return nn.Sequential(first, *(MTBlock(planes, planes, 1, spec) for _ in range(spec.layers[index] - 1)))
