"""The spatial model of the end-to-end detector: a backbone over every frame, then global average pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from trainers.backbones.bn_inception import BNInception
from trainers.backbones.resnet import DEPTHS, ResNet, fix_statistics

BACKBONES: Mapping[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(ResNet, depth) for depth in DEPTHS},
    "bn_inception": BNInception,
}
"""Name -> maker of a backbone; `in_channels` is 3 for RGB, 10 for a stack of optical flow."""


class SpatialModel(nn.Module):
    """Frames (..., C, H, W) to features (..., `num_features`), every frame by itself.

    `frozen_bn`: batch norms keep their statistics and are not trained, so a frame's features do not depend on the frames
    beside it. Partial feedback equals the whole only so.
    """

    def __init__(self, backbone: nn.Module, *, frozen_bn: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen_bn = frozen_bn
        self.num_features: int = backbone.num_features  # type: ignore[assignment]
        if frozen_bn:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.requires_grad_(False)
        self.train()

    def forward(self, frames: Tensor) -> Tensor:
        lead = frames.shape[:-3]
        return self.backbone(frames.flatten(0, -4)).mean((-2, -1)).unflatten(0, lead)

    def train(self, mode: bool = True) -> SpatialModel:
        super().train(mode)
        if self.frozen_bn:
            fix_statistics(self)
        return self


def build_spatial(
    name: str, *, in_channels: int = 3, frozen_bn: bool = True, checkpointing: bool = False
) -> SpatialModel:
    """A spatial model by the name of its backbone; `checkpointing` computes its blocks again in the backward pass (ResNets).

    Raises: ValueError for a name that does not exist, or a backbone that cannot do it.
    """
    if name not in BACKBONES:
        raise ValueError(f"there is no backbone {name!r}; there are {', '.join(BACKBONES)}")
    if checkpointing and not name.startswith("resnet"):
        raise ValueError(f"{name} has no checkpointing; the ResNets have it")
    settings = {"checkpointing": True} if checkpointing else {}
    return SpatialModel(BACKBONES[name](in_channels=in_channels, **settings), frozen_bn=frozen_bn)
