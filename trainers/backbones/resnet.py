"""2-d residual networks, named as MMAction2 names them: every convolution is a pair `conv`, `bn`.

    stem 7x7/2, pool 3x3/2 -> layer1 -> layer2 -> layer3 -> layer4 (B, F, H/32, W/32)

Source: He et al., Deep Residual Learning, arXiv 1512.03385; the stride sits on the 3x3 convolution of a bottleneck.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainers.engine.weights import LoadReport, load_matching, read_checkpoint, without_prefix


class ConvModule(nn.Module):
    """Convolution without bias, batch norm, and ReLU where `relu`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, dilation: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv: nn.Module = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding, dilation=dilation, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.activate = nn.ReLU(inplace=True) if relu else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.activate is None else self.activate(x)


class _Block(nn.Module):
    """A residual branch (`branch`), its shortcut, and the ReLU after their sum."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.downsample: nn.Module | None = None
        self._build(in_channels, planes, stride)
        if stride != 1 or in_channels != out_channels:
            self.downsample = ConvModule(in_channels, out_channels, 1, stride=stride, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def _build(self, in_channels: int, planes: int, stride: int) -> None:
        raise NotImplementedError

    def branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.branch(x) + shortcut)


class BasicBlock(_Block):
    """3x3 (stride) and 3x3."""

    def _build(self, in_channels: int, planes: int, stride: int) -> None:
        self.conv1 = ConvModule(in_channels, planes, 3, stride=stride)
        self.conv2 = ConvModule(planes, planes, 3, relu=False)

    def branch(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class Bottleneck(_Block):
    """1x1, 3x3 (stride), 1x1 to four times the width."""

    expansion = 4

    def _build(self, in_channels: int, planes: int, stride: int) -> None:
        self.conv1 = ConvModule(in_channels, planes, 1)
        self.conv2 = ConvModule(planes, planes, 3, stride=stride)
        self.conv3 = ConvModule(planes, planes * 4, 1, relu=False)

    def branch(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.conv1(x)))


DEPTHS: Mapping[int, tuple[type[_Block], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """Frames (B, in_channels, H, W) to the last stage's map (B, `num_features`, H/32, W/32).

    `frozen_stages`: -1 none, 0 the stem, n the stem and the first n stages: no gradients, statistics fixed. `norm_eval`
    fixes the statistics of every batch norm, `checkpointing` recomputes every block in the backward pass.
    Raises: ValueError for a depth that does not exist.
    """

    def __init__(
        self,
        depth: int,
        *,
        in_channels: int = 3,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"there is no ResNet of depth {depth}; there are {', '.join(map(str, DEPTHS))}")
        if not -1 <= frozen_stages <= 4:
            raise ValueError(f"frozen_stages is {frozen_stages}; it is -1 (none) to 4 (all)")
        self.depth, self.frozen_stages, self.norm_eval, self.checkpointing = (
            depth,
            frozen_stages,
            norm_eval,
            checkpointing,
        )
        block, counts = DEPTHS[depth]
        self.conv1 = ConvModule(in_channels, 64, 7, stride=2)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = 64
        for i, count in enumerate(counts):
            blocks = []
            for j in range(count):
                blocks.append(block(channels, 64 * 2**i, 2 if i and not j else 1))
                channels = 64 * 2**i * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.num_features = channels
        init_resnet(self)
        self.train()

    @property
    def stages(self) -> list[nn.Sequential]:
        return [self.get_submodule(f"layer{i}") for i in range(1, 5)]  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.conv1(x))
        for stage in self.stages:
            for block in stage:
                if self.checkpointing and self.training and x.requires_grad:
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
        return x

    def train(self, mode: bool = True) -> ResNet:
        super().train(mode)
        frozen = [self.conv1, *self.stages][: self.frozen_stages + 1]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)
        if self.norm_eval:
            fix_statistics(self)
        return self


def init_resnet(model: nn.Module) -> None:
    """Convolutions Kaiming normal by fan out, batch norms 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def fix_statistics(model: nn.Module) -> None:
    """Put every batch norm into evaluation: it uses and keeps its running statistics. Undone by the next `train()`."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a torchvision ResNet under our names; its classifier `fc` is left out."""
    renamed = {}
    for name, value in state.items():
        if name.startswith("fc."):
            continue
        name = re.sub(r"downsample\.0\.", "downsample.conv.", name)
        name = re.sub(r"downsample\.1\.", "downsample.bn.", name)
        name = re.sub(r"(^|\.)conv(\d)\.", r"\1conv\2.conv.", name)
        renamed[re.sub(r"(^|\.)bn(\d)\.", r"\1conv\2.bn.", name)] = value
    return renamed


def load_resnet(model: nn.Module, source: str | PathLike[str] | Mapping[str, Any]) -> LoadReport:
    """Weights of a file, or what it holds, into a backbone; the report names what did not fit.

    Takes MMAction2 recognisers (`state_dict`, `backbone.` before the names, `cls_head.` left out), bare state dicts in our
    names (also below `model_state_dict`), and torchvision's. Raises: TypeError if it is no state dict, ValueError if
    nothing fits.
    """
    found = read_checkpoint(source) if isinstance(source, str | PathLike) else source
    if not isinstance(found, Mapping):
        raise TypeError(f"a backbone checkpoint is a dict, this one is {type(found).__name__}")
    state = found.get("state_dict", found.get("model_state_dict", found))
    state = without_prefix({name: value for name, value in state.items() if "cls_head" not in name}, "module.")
    state = without_prefix(state, "backbone.")
    if isinstance(model, ResNet) and "conv1.weight" in state:
        state = from_torchvision(state)
    return load_matching(model, state)
