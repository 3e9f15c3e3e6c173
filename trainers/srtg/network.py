"""The networks of SRTG: 3D, (2+1)D and channel-separated ResNets for clips, with or without squeeze and recursion.

One table, `NETWORKS`, says what each network is made of; `build` makes one by name. Everything is named and
initialised as in the authors' code, so their files load. Source: SRTG (arXiv 2006.08247) and its released code.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from trainers.srtg.recursion import Gates, SqueezeRecursion

PUBLISHED_WIDTH = 64
"""Channels of the stem and of the first stage in every published network."""

ConvBuilder = Callable[[int, int, int, int], nn.Module]
"""(in, out, middle, stride) -> a 3 x 3 (x 3) convolution that keeps T, H, W at stride 1."""


# Convolutions. No bias anywhere: a batch norm follows each of them.


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
    """ir-CSN: 3 x 3 x 3 inside each channel; `out_planes` must be a multiple of `in_planes`."""
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


# Blocks. Neither expands: a stage of `planes` channels gives `planes` channels. (The first release of the authors' code
# expanded bottlenecks four times; files of that time do not fit.)


class Block(nn.Module):
    """What both blocks share: the shortcut, the sum, the last ReLU and, after it, squeeze and recursion.

    `gates` is None in a network without recursion. Only the authors' place "final" is built: all their networks use it.
    """

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _finish(self, in_planes: int, planes: int, conv: ConvBuilder, stride: int, gates: Gates | None) -> None:
        """Add the shortcut and the recursion, in the order of the authors' state dicts: after the convolutions."""
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_planes != planes:
            strides = (1 if conv is notemporal else stride, stride, stride)
            self.downsample = nn.Sequential(
                nn.Conv3d(in_planes, planes, 1, strides, bias=False),
                nn.BatchNorm3d(planes),
            )
        self.sar = None if gates is None else SqueezeRecursion(planes, gates=gates)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.residual(x) + shortcut)
        return x if self.sar is None else self.sar(x)


def mid_planes(in_planes: int, planes: int) -> int:
    """Channels between the two halves of a (2+1)D convolution that has about the weights of a 3 x 3 x 3 one.

    Source: R(2+1)D (arXiv 1711.11248, section 3.5).
    """
    return (in_planes * planes * 27) // (in_planes * 9 + 3 * planes)


class BasicBlock(Block):
    """Two convolutions. Groups and base width do not touch it."""

    def __init__(
        self,
        in_planes: int,
        planes: int,
        conv: ConvBuilder,
        stride: int,
        spec: NetworkSpec,
        gates: Gates | None,
    ) -> None:
        super().__init__()
        mid = mid_planes(in_planes, planes)
        self.conv1 = nn.Sequential(conv(in_planes, planes, mid, stride), nn.BatchNorm3d(planes), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(conv(planes, planes, mid, 1), nn.BatchNorm3d(planes))
        self._finish(in_planes, planes, conv, stride, gates)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class Bottleneck(Block):
    """1 x 1 x 1 to the inner width, a convolution there, 1 x 1 x 1 back. `groups` only widens: nothing is grouped."""

    def __init__(
        self,
        in_planes: int,
        planes: int,
        conv: ConvBuilder,
        stride: int,
        spec: NetworkSpec,
        gates: Gates | None,
    ) -> None:
        super().__init__()
        inner = spec.inner(planes)
        mid = spec.inner(mid_planes(in_planes, planes))
        self.conv1 = nn.Sequential(
            nn.Conv3d(in_planes, inner, 1, bias=False), nn.BatchNorm3d(inner), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(conv(inner, inner, mid, stride), nn.BatchNorm3d(inner), nn.ReLU(inplace=True))
        self.conv3 = nn.Sequential(nn.Conv3d(inner, planes, 1, bias=False), nn.BatchNorm3d(planes))
        self._finish(in_planes, planes, conv, stride, gates)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.conv1(x)))


# The network.


@dataclass(frozen=True)
class NetworkSpec:
    """What one network is made of. `layers` and `convs` go stage by stage."""

    block: type[BasicBlock] | type[Bottleneck]
    layers: tuple[int, int, int, int]
    convs: tuple[ConvBuilder, ConvBuilder, ConvBuilder, ConvBuilder] = (simple, simple, simple, simple)
    stem: Callable[[int, int], nn.Sequential] = basic_stem
    groups: int = 1
    base_width: int = 64
    recursion: bool = False

    def inner(self, planes: int) -> int:
        """Channels inside a bottleneck that gives `planes` channels."""
        return int(planes * self.base_width / 64) * self.groups


class VideoResNet(nn.Module):
    """Clips (B, in_channels, T, H, W) -> logits (B, num_classes).

    Stem, max-pool over T, H and W, four stages of 1, 2, 4 and 8 x `width` planes, global average, linear layer; no
    dropout. 16 x 224 x 224 becomes 16 x 112 x 112 (stem), 8 x 56 x 56 (pool, layer1), 4 x 28 x 28, 2 x 14 x 14,
    1 x 7 x 7. Any T from 1.

    Raises: ValueError if gates are asked of a network without recursion.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        num_classes: int,
        *,
        width: int = PUBLISHED_WIDTH,
        gates: Gates = "off",
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if gates != "off" and not spec.recursion:
            raise ValueError(f"gates {gates!r} need a network with recursion (srtg_...); this one has none to gate")
        self.stem = spec.stem(in_channels, width)
        self.pool = nn.MaxPool3d(3, stride=2, padding=1)
        block_gates = gates if spec.recursion else None
        self.layer1 = _stage(spec, 0, width, width, block_gates)
        self.layer2 = _stage(spec, 1, width, 2 * width, block_gates)
        self.layer3 = _stage(spec, 2, 2 * width, 4 * width, block_gates)
        self.layer4 = _stage(spec, 3, 4 * width, 8 * width, block_gates)
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(8 * width, num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _stage(spec: NetworkSpec, index: int, in_planes: int, planes: int, gates: Gates | None) -> nn.Sequential:
    """The blocks of one stage; the first halves T, H and W in all stages but the first."""
    conv, stride = spec.convs[index], 1 if index == 0 else 2
    first = spec.block(in_planes, planes, conv, stride, spec, gates)
    return nn.Sequential(
        first, *(spec.block(planes, planes, conv, 1, spec, gates) for _ in range(spec.layers[index] - 1))
    )


def _initialise(module: nn.Module) -> None:
    """Kaiming normal (fan out) convolutions, N(0, 0.01) linear layers; norms and LSTMs keep PyTorch's own start."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
        nn.init.zeros_(module.bias)


def _networks() -> dict[str, NetworkSpec]:
    """The table: every published layout in 3D and (2+1)D, the CSN ones, and each of them with recursion."""
    sizes = {
        "{}_18": NetworkSpec(BasicBlock, (2, 2, 2, 2)),
        "{}_34": NetworkSpec(BasicBlock, (3, 4, 6, 3)),
        "{}_50": NetworkSpec(Bottleneck, (3, 4, 6, 3)),
        "{}_101": NetworkSpec(Bottleneck, (3, 4, 23, 3)),
        "{}_152": NetworkSpec(Bottleneck, (3, 8, 36, 3)),
        "{}_200": NetworkSpec(Bottleneck, (3, 24, 36, 3)),
        "{}xt34_32d": NetworkSpec(BasicBlock, (3, 4, 6, 3), groups=32),
        "{}xt50_32x4d": NetworkSpec(Bottleneck, (3, 4, 6, 3), groups=32, base_width=4),
        "{}xt101_32x8d": NetworkSpec(Bottleneck, (3, 4, 23, 3), groups=32, base_width=8),
        "wide_{}50_2": NetworkSpec(Bottleneck, (3, 4, 6, 3), base_width=128),
        "wide_{}101_2": NetworkSpec(Bottleneck, (3, 4, 23, 3), base_width=128),
    }
    plain: dict[str, NetworkSpec] = {}
    for size, spec in sizes.items():
        plain[size.format("r3d")] = spec
        plain[size.format("r2plus1d")] = replace(spec, convs=(conv2plus1d,) * 4, stem=stem2plus1d)
        if size in ("{}_50", "{}_101", "{}_152"):
            plain[size.format("ir_csn")] = replace(spec, convs=(depthwise,) * 4)
            plain[size.format("ip_csn")] = replace(spec, convs=(ip_depthwise,) * 4)
    return plain | {f"srtg_{name}": replace(spec, recursion=True) for name, spec in plain.items()}


NETWORKS: Mapping[str, NetworkSpec] = MappingProxyType(_networks())
"""Name -> what the network is made of."""


def build(
    name: str, num_classes: int, *, width: int = PUBLISHED_WIDTH, gates: Gates = "off", in_channels: int = 3
) -> VideoResNet:
    """The network called `name` (a key of `NETWORKS`, such as srtg_r2plus1d_50), freshly initialised.

    `width` is the number of channels of stem and first stage, and scales all others: 64 is published, 16 trains on
    a CPU.

    Raises: ValueError for an unknown name (with the nearest known one), or gates on a network without recursion.
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(name.lower(), NETWORKS, n=1, cutoff=0.0)
        raise ValueError(f"there is no SRTG network {name!r}; the nearest name is {near[0]!r}")
    return VideoResNet(NETWORKS[name], num_classes, width=width, gates=gates, in_channels=in_channels)
