"""Residual blocks of SRTG, and the places in them where squeeze and recursion may sit.

Neither block expands: a stage of `planes` channels gives `planes` channels. (The first release of the authors' code
expanded bottlenecks four times; files of that time do not fit.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from trainers.srtg.convolutions import ConvBuilder, mid_planes, notemporal, simple
from trainers.srtg.recursion import Gates, SqueezeRecursion

Place = Literal["start", "top", "mid", "end", "final", "skip", "bottom"]
"""Where in a block squeeze and recursion sits.

start   on the block's input (bottleneck)
top     after the first convolution
mid     after the second convolution; of a basic block that is just before the sum
end     after the third convolution, just before the sum (bottleneck)
final   after the sum and the last ReLU: all published networks
skip    on the shortcut, where the block has a convolution there (basic block)

The authors' bottleneck takes "skip" and "bottom" too, has the parameters, and never applies them. So does ours, that
their files load; `build` refuses both.
"""


@dataclass(frozen=True)
class BlockSpec:
    """What all blocks of a stage share. `gates` is None in a network without recursion."""

    conv: ConvBuilder = simple
    groups: int = 1
    base_width: int = 64
    gates: Gates | None = None
    place: Place = "final"

    def inner(self, planes: int) -> int:
        """Channels inside a bottleneck that gives `planes` channels. `groups` only widens: nothing is grouped."""
        return int(planes * self.base_width / 64) * self.groups


class Block(nn.Module):
    """What both blocks share: the shortcut, the sum, the last ReLU, and recursion at one place."""

    places: tuple[Place, ...] = ()

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _finish(self, in_planes: int, planes: int, stride: int, spec: BlockSpec, sar_planes: int) -> None:
        """Add the shortcut and the recursion, in the order of the authors' state dicts: after the convolutions."""
        if spec.gates is not None and spec.place not in self.places:
            known = ", ".join(self.places)
            raise ValueError(f"a {type(self).__name__} has no place {spec.place!r} for the recursion; it has {known}")
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_planes != planes:
            strides = (1 if spec.conv is notemporal else stride, stride, stride)
            self.downsample = shortcut(in_planes, planes, strides)
        self.sar = None if spec.gates is None else SqueezeRecursion(sar_planes, gates=spec.gates)
        self.place: Place | None = None if spec.gates is None else spec.place

    def at(self, place: Place, x: Tensor) -> Tensor:
        """`x` after the recursion, if it sits at `place`."""
        return self.sar(x) if self.sar is not None and self.place == place else x

    def shortcut_of(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.at("final", self.relu(self.residual(x) + self.shortcut_of(x)))


def shortcut(in_planes: int, planes: int, strides: tuple[int, int, int]) -> nn.Sequential:
    """1 x 1 x 1 convolution and batch norm, for the first block of a stage."""
    return nn.Sequential(nn.Conv3d(in_planes, planes, 1, strides, bias=False), nn.BatchNorm3d(planes))


class BasicBlock(Block):
    """Two convolutions. Groups and base width do not touch it."""

    places = ("top", "mid", "skip", "final")

    def __init__(self, in_planes: int, planes: int, stride: int, spec: BlockSpec) -> None:
        super().__init__()
        mid, conv = mid_planes(in_planes, planes), spec.conv
        self.conv1 = nn.Sequential(conv(in_planes, planes, mid, stride), nn.BatchNorm3d(planes), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(conv(planes, planes, mid, 1), nn.BatchNorm3d(planes))
        self._finish(in_planes, planes, stride, spec, planes)

    def residual(self, x: Tensor) -> Tensor:
        return self.at("mid", self.conv2(self.at("top", self.conv1(x))))

    def shortcut_of(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.at("skip", self.downsample(x))


class Bottleneck(Block):
    """1 x 1 x 1 to the inner width, a convolution there, 1 x 1 x 1 back."""

    places = ("start", "top", "mid", "end", "final", "skip", "bottom")

    def __init__(self, in_planes: int, planes: int, stride: int, spec: BlockSpec) -> None:
        super().__init__()
        inner, mid = spec.inner(planes), spec.inner(mid_planes(in_planes, planes))
        self.conv1 = nn.Sequential(
            nn.Conv3d(in_planes, inner, 1, bias=False), nn.BatchNorm3d(inner), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(spec.conv(inner, inner, mid, stride), nn.BatchNorm3d(inner), nn.ReLU(inplace=True))
        self.conv3 = nn.Sequential(nn.Conv3d(inner, planes, 1, bias=False), nn.BatchNorm3d(planes))
        # The authors build "start" and "top" with `planes` channels, which fits where all three widths are equal.
        sar_planes = {"start": in_planes, "top": inner, "mid": inner}.get(spec.place, planes)
        self._finish(in_planes, planes, stride, spec, sar_planes)

    def residual(self, x: Tensor) -> Tensor:
        x = self.at("top", self.conv1(x))
        return self.at("end", self.conv3(self.at("mid", self.conv2(x))))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.at("start", x))
