"""The networks of SRTG: 3D, (2+1)D and channel-separated ResNets for clips, with or without squeeze and recursion; MTNet.

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

from trainers.srtg.blocks import BasicBlock, BlockSpec, Bottleneck, Place
from trainers.srtg.convolutions import (
    PUBLISHED_WIDTH,
    ConvBuilder,
    basic_stem,
    conv2plus1d,
    depthwise,
    initialise,
    ip_depthwise,
    simple,
    stem2plus1d,
)
from trainers.srtg.mtnet import MTNet, MTNetSpec
from trainers.srtg.recursion import Gates


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


class VideoResNet(nn.Module):
    """Clips (B, in_channels, T, H, W) -> logits (B, num_classes).

    Stem, max-pool over T, H and W, four stages of 1, 2, 4 and 8 x `width` planes, global average, linear layer; no
    dropout. 16 x 224 x 224 becomes 16 x 112 x 112 (stem), 8 x 56 x 56 (pool, layer1), 4 x 28 x 28, 2 x 14 x 14,
    1 x 7 x 7. Any T from 1.

    Raises: ValueError if gates are asked of a network without recursion, or a place that its blocks do not have.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        num_classes: int,
        *,
        width: int = PUBLISHED_WIDTH,
        gates: Gates = "off",
        place: Place = "final",
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if not spec.recursion and (gates, place) != ("off", "final"):
            raise ValueError(
                f"gates {gates!r} at the place {place!r} need a network with recursion (srtg_...); this one has none"
            )
        self.stem = spec.stem(in_channels, width)
        self.pool = nn.MaxPool3d(3, stride=2, padding=1)
        block_gates = gates if spec.recursion else None
        stages = [BlockSpec(conv, spec.groups, spec.base_width, block_gates, place) for conv in spec.convs]
        self.layer1 = _stage(spec, 0, width, width, stages[0])
        self.layer2 = _stage(spec, 1, width, 2 * width, stages[1])
        self.layer3 = _stage(spec, 2, 2 * width, 4 * width, stages[2])
        self.layer4 = _stage(spec, 3, 4 * width, 8 * width, stages[3])
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(8 * width, num_classes)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _stage(spec: NetworkSpec, index: int, in_planes: int, planes: int, block: BlockSpec) -> nn.Sequential:
    """The blocks of one stage; the first halves T, H and W in all stages but the first."""
    first = spec.block(in_planes, planes, 1 if index == 0 else 2, block)
    return nn.Sequential(first, *(spec.block(planes, planes, 1, block) for _ in range(spec.layers[index] - 1)))


def _networks() -> dict[str, NetworkSpec | MTNetSpec]:
    """The table: every published layout in 3D and (2+1)D, the CSN ones, each of them with recursion; and MTNet."""
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
    recursive = {f"srtg_{name}": replace(spec, recursion=True) for name, spec in plain.items()}
    depths = {
        "xs": (2, 2, 2, 2),
        "s": (2, 2, 5, 3),
        "m": (3, 4, 6, 3),
        "l": (3, 4, 23, 3),
        "xl": (3, 8, 36, 3),
        "xxl": (3, 24, 36, 3),
    }
    mtnets = {f"mtnet_{size}": MTNetSpec(layers) for size, layers in depths.items()}
    grouped = {f"mtnet_{size}_g8": MTNetSpec(layers, groups=8) for size, layers in depths.items()}
    return {**plain, **recursive, **mtnets, **grouped}


NETWORKS: Mapping[str, NetworkSpec | MTNetSpec] = MappingProxyType(_networks())
"""Name -> what the network is made of."""


def build(
    name: str,
    num_classes: int,
    *,
    width: int = PUBLISHED_WIDTH,
    gates: Gates = "off",
    place: Place = "final",
    in_channels: int = 3,
) -> VideoResNet | MTNet:
    """The network called `name` (a key of `NETWORKS`, such as srtg_r2plus1d_50), freshly initialised.

    `width` is the number of channels of stem and first stage, and scales all others: 64 is published, 16 trains on
    a CPU. `gates` and `place` say on which clips, and where in every block, the recursion acts.

    Raises: ValueError for an unknown name (with the nearest known one), gates or a place on a network without
    recursion, or a place at which nothing would happen.
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(name.lower(), NETWORKS, n=1, cutoff=0.0)
        raise ValueError(f"there is no SRTG network {name!r}; the nearest name is {near[0]!r}")
    spec = NETWORKS[name]
    if isinstance(spec, MTNetSpec):
        if (gates, place) != ("off", "final"):
            raise ValueError(f"MTNet's recursion has no gates ({gates!r}) and one place, not {place!r}")
        return MTNet(spec, num_classes, width=width, in_channels=in_channels)
    if spec.recursion and spec.block is Bottleneck and place in ("skip", "bottom"):
        raise ValueError(f"the place {place!r} of a bottleneck is never reached: the recursion would train nothing")
    return VideoResNet(spec, num_classes, width=width, gates=gates, place=place, in_channels=in_channels)
