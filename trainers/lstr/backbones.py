"""Frozen networks that make features: by name, with weights of a file, pooled to one vector per image or clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ingest.errors import ClipmillError
from trainers.backbones.bn_inception import BNInception
from trainers.backbones.resnet import DEPTHS, ResNet, load_resnet
from trainers.backbones.swin_weights import load_video_swin
from trainers.backbones.video_swin import SIZES, VideoSwin, swin_settings
from trainers.engine.weights import LoadReport, load_matching, read_checkpoint
from trainers.srtg.checkpoints import load_published as load_srtg
from trainers.srtg.network import NETWORKS, build

IMAGE_NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    **{f"resnet{depth}": partial(ResNet, depth) for depth in DEPTHS},
    "bn_inception": BNInception,
}
"""2D: maps (B, size, H', W') of images (B, 3, H, W)."""

SWINS = {f"video_swin_{size}": size for size in SIZES}


class Pooled(nn.Module):
    """A backbone, and the mean over the places (and times) of what it gives: (B, size)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, frames: Tensor) -> Tensor:
        return self.backbone(frames).flatten(2).mean(2)


def backbone_names() -> list[str]:
    return [*IMAGE_NETWORKS, *SWINS, *NETWORKS]


def takes_clips(name: str) -> bool:
    """Whether the backbone is a 3D one."""
    return name not in IMAGE_NETWORKS


def build_backbone(name: str, weights: Path | None, *, width: int = 64, seed: int = 0) -> nn.Module:
    """A frozen backbone by name (`backbone_names`); without `weights` drawn from `seed`. `width` is for networks of SRTG.

    Weights: files of our runs; MMAction2's and torchvision's for ResNets and BN-Inception, MMAction2's and SBP's for Swin, the
    authors' for SRTG. Raises: ClipmillError for a name that does not exist, or a file of which nothing fits.
    """
    if name not in backbone_names():
        raise ClipmillError(
            f"there is no backbone {name!r}.", "No features were made.", f"Take one of: {', '.join(backbone_names())}"
        )
    torch.manual_seed(seed)
    load: Callable[[nn.Module, Any], LoadReport]
    try:
        if name in IMAGE_NETWORKS:
            network, load = IMAGE_NETWORKS[name](), load_resnet
            model: nn.Module = Pooled(network)
        elif name in SWINS:
            network, load = VideoSwin(**swin_settings(SWINS[name])), load_video_swin
            model = Pooled(network)
        else:
            network, load = build(name, 2, width=width), load_srtg
            network.fc = nn.Identity()  # type: ignore[assignment]  # What the classifier would be given.
            model = network
        if weights is not None:
            content = read_checkpoint(weights)
            ours = content.get("models", {}).get("model") if isinstance(content, Mapping) else None
            if ours is not None:
                load = load if name in SWINS else load_matching
            report = load(network, content if ours is None else ours)
            if report.missing or report.mismatched:
                print(f"{weights.name}: {report}")
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ClipmillError(f"{weights}: {error}", "No features were made.", "Give weights of that backbone.") from None
    return model.eval().requires_grad_(False)
