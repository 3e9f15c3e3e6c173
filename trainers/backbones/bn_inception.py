"""BN-Inception under the names of the Caffe model: convolutions with bias, each followed by batch norm and ReLU.

Source: Ioffe and Szegedy, Batch Normalization, arXiv 1502.03167; layer table of the Caffe release that TSN trained from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class _Inception:
    """One block: widths of its branches; 0 leaves a branch out. `stride` sits on the last 3x3 of a branch."""

    name: str
    in_channels: int
    one: int
    three: tuple[int, int]
    double: tuple[int, int, int]
    pool: str
    proj: int
    stride: int = 1


_BLOCKS = (
    _Inception("3a", 192, 64, (64, 64), (64, 96, 96), "avg", 32),
    _Inception("3b", 256, 64, (64, 96), (64, 96, 96), "avg", 64),
    _Inception("3c", 320, 0, (128, 160), (64, 96, 96), "max", 0, stride=2),
    _Inception("4a", 576, 224, (64, 96), (96, 128, 128), "avg", 128),
    _Inception("4b", 576, 192, (96, 128), (96, 128, 128), "avg", 128),
    _Inception("4c", 576, 160, (128, 160), (128, 160, 160), "avg", 128),
    _Inception("4d", 608, 96, (128, 192), (160, 192, 192), "avg", 128),
    _Inception("4e", 608, 0, (128, 192), (192, 256, 256), "max", 0, stride=2),
    _Inception("5a", 1056, 352, (192, 320), (160, 224, 224), "avg", 128),
    _Inception("5b", 1024, 352, (192, 320), (192, 224, 224), "max", 128),
)


class BNInception(nn.Module):
    """Frames (B, in_channels, H, W) to a map (B, 1024, H/32, W/32). Optical flow has 10 channels."""

    num_features = 1024

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self._conv("conv1_7x7_s2", in_channels, 64, 7, stride=2)
        self._conv("conv2_3x3_reduce", 64, 64, 1)
        self._conv("conv2_3x3", 64, 192, 3)
        for block in _BLOCKS:
            self._add(block)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = _max_pool(self._run("conv1_7x7_s2", x), 2)
        x = _max_pool(self._run("conv2_3x3", self._run("conv2_3x3_reduce", x)), 2)
        for block in _BLOCKS:
            x = self._inception(block, x)
        return x

    def _conv(self, name: str, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(out_channels, momentum=0.9))

    def _run(self, name: str, x: Tensor) -> Tensor:
        modules = self._modules
        return nn.functional.relu_(modules[f"{name}_bn"](modules[name](x)))  # type: ignore[misc]

    def _add(self, block: _Inception) -> None:
        name, channels = f"inception_{block.name}", block.in_channels
        if block.one:
            self._conv(f"{name}_1x1", channels, block.one, 1)
        self._conv(f"{name}_3x3_reduce", channels, block.three[0], 1)
        self._conv(f"{name}_3x3", *block.three, 3, stride=block.stride)
        self._conv(f"{name}_double_3x3_reduce", channels, block.double[0], 1)
        self._conv(f"{name}_double_3x3_1", block.double[0], block.double[1], 3)
        self._conv(f"{name}_double_3x3_2", block.double[1], block.double[2], 3, stride=block.stride)
        if block.proj:
            self._conv(f"{name}_pool_proj", channels, block.proj, 1)

    def _inception(self, block: _Inception, x: Tensor) -> Tensor:
        name = f"inception_{block.name}"
        branches = [self._run(f"{name}_1x1", x)] if block.one else []
        branches.append(self._run(f"{name}_3x3", self._run(f"{name}_3x3_reduce", x)))
        double = self._run(f"{name}_double_3x3_1", self._run(f"{name}_double_3x3_reduce", x))
        branches.append(self._run(f"{name}_double_3x3_2", double))
        if block.pool == "avg":
            pooled = nn.functional.avg_pool2d(x, 3, 1, 1, ceil_mode=True)
        else:
            pooled = _max_pool(x, block.stride)
        branches.append(self._run(f"{name}_pool_proj", pooled) if block.proj else pooled)
        return torch.cat(branches, 1)


def _max_pool(x: Tensor, stride: int) -> Tensor:
    """3x3; a stride of 2 is not padded but rounds the size up, a stride of 1 is padded."""
    return nn.functional.max_pool2d(x, 3, stride, 0 if stride == 2 else 1, ceil_mode=True)
