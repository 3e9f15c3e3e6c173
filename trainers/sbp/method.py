"""Video Swin with SBP as the loop sees it: one recogniser, cross-entropy.

Source: Cheng et al., Stochastic Backpropagation, CVPR 2022, arXiv 2203.16755; recipes of its Kinetics experiments.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from loaders import ClipBatch
from trainers.backbones.swin_weights import load_image_swin, load_video_swin
from trainers.backbones.video_swin import swin_settings
from trainers.config import Config, DataConfig, Strict
from trainers.engine.weights import LoadReport
from trainers.method import Losses, blaming
from trainers.sbp.kept_tokens import Version
from trainers.sbp.parts import Learning
from trainers.sbp.recognizer import SwinRecognizer
from trainers.sbp.swin import WITH_GD, Sbp, build_swin

__all__ = ["MethodConfig", "SwinSbp", "create", "load_published"]

Sizes = tuple[int, int, int]


class SbpConfig(Strict):
    """Which gradients are dropped. `gd_downsample` 1 without a `keep_ratio` turns SBP off."""

    gd_downsample: int = Field(1, ge=1, description="one token in so many keeps its gradient: 2, 4, 8")
    version: Version = Field(
        "v1",
        description="v1: whole frames; v2: a checkerboard; grid, random: one mask for all frames, as SBP for images",
    )
    keep_ratio: float | None = Field(
        None, gt=0, lt=1, description="instead of gd_downsample in grid and random: which part keeps its gradient"
    )
    with_gd: tuple[tuple[int, ...], ...] | None = Field(
        None, description="flags per stage and block; default: published"
    )
    faithful: bool = Field(False, description="v2 with the published code's wrong roll in shifted blocks")
    random_offset: bool = Field(False, description="another part of the tokens in every step")
    keep_residual: bool = Field(False, description="shortcuts keep their gradient, as in SBP for images")
    attention: Learning = Field(
        "query", description="how it learns: kept queries; qkv: kept tokens alone; head: some heads"
    )


class ModelConfig(Strict):
    """A published size of Video Swin; settings that are given change it."""

    size: Literal["tiny", "small", "base"] = "tiny"
    patch_size: Sizes | None = None
    window_size: Sizes | None = None
    embed_dim: int | None = Field(None, ge=1)
    depths: tuple[int, ...] | None = None
    num_heads: tuple[int, ...] | None = None
    mlp_ratio: float | None = Field(None, gt=0)
    qkv_bias: bool | None = None
    qk_scale: float | None = None
    patch_norm: bool | None = None
    drop_rate: float | None = Field(None, ge=0, lt=1)
    attn_drop_rate: float | None = Field(None, ge=0, lt=1)
    drop_path_rate: float | None = Field(None, ge=0, lt=1)
    frozen_stages: int | None = Field(None, ge=-1)
    init: Literal["trunc_normal", "published"] = "trunc_normal"
    checkpointing: bool = Field(False, description="blocks are computed again in the backward pass")
    dropout: float = Field(0.5, ge=0, lt=1, description="before the classifier")
    pretrained: Path | None = Field(None, description="weights of an image Swin, inflated over time")
    backbone_lr_mult: float = Field(0.1, gt=0)

    @model_validator(mode="after")
    def _depths_go_with_heads(self) -> ModelConfig:
        if (self.depths is None) != (self.num_heads is None):
            raise ValueError("depths and num_heads are given together")
        return self

    def settings(self) -> dict[str, Any]:
        """Arguments of `VideoSwin`."""
        own = {"size", "init", "checkpointing", "dropout", "pretrained", "backbone_lr_mult"}
        changes = {name: value for name, value in self.model_dump(exclude=own).items() if value is not None}
        return swin_settings(self.size, **changes, init=self.init, checkpointing=self.checkpointing)


class MethodConfig(Config):
    model: ModelConfig = ModelConfig()
    sbp: SbpConfig = SbpConfig()


class SwinSbp:
    """The method: see `trainers.method.Method`.

    Image weights are loaded where training begins, in `param_groups`, unless --init came before: a test or a machine that
    resumes from a checkpoint of its own does not need them.
    """

    def __init__(self, config: MethodConfig, num_classes: int) -> None:
        self._config = config.model
        self._data: DataConfig = config.data
        self._needs_weights = config.model.pretrained is not None
        backbone = build_swin(_sbp(config), **config.model.settings())
        self.models: dict[str, nn.Module] = {
            "model": SwinRecognizer(backbone, num_classes, dropout=config.model.dropout)
        }

    def initialised(self, _model: str, _report: LoadReport) -> None:
        """--init gave weights: those of the image model are not asked for."""
        self._needs_weights = False

    def param_groups(self) -> Mapping[str, list[dict[str, Any]]]:
        """Bias tables: full rate, no decay. The rest of the backbone, norms too: a tenth of the rate, with decay. As published."""
        model = self.models["model"]
        if self._needs_weights:
            assert self._config.pretrained is not None
            print(f"{self._config.pretrained.name}: {load_image_swin(model.backbone, self._config.pretrained)}")  # type: ignore[arg-type]
            self._needs_weights = False
        groups: dict[str, list[nn.Parameter]] = {"bias_tables": [], "backbone": [], "head": []}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups[_group(name)].append(parameter)
        return {
            "model": [
                {"name": "bias_tables", "params": groups["bias_tables"], "weight_decay": 0.0},
                {"name": "backbone", "params": groups["backbone"], "lr_mult": self._config.backbone_lr_mult},
                {"name": "head", "params": groups["head"]},
            ]
        }

    def losses(self, batch: ClipBatch, device: torch.device) -> Losses:
        logits = self.predict(batch, device)
        return Losses({"cross_entropy": cross_entropy(logits.float(), batch.labels.to(device))}, logits)

    def predict(self, batch: ClipBatch, device: torch.device) -> Tensor:
        return self.models["model"](batch.normalized(self._data.mean, self._data.std, device))


def create(config: MethodConfig, num_classes: int) -> SwinSbp:
    """The method with fresh weights. Raises: ClipmillError for settings that do not go together, or clips that do not fit."""
    with blaming("model", "sbp"):
        _check_frames(config)
        return SwinSbp(config, num_classes)


def load_published(model: nn.Module, checkpoint: Any) -> LoadReport:
    """A file of the authors (or of MMAction2) into the recogniser, `norm2` spelt either way; the report names what is left.

    Raises: TypeError if it is no state dict, ValueError if nothing fits.
    """
    return load_video_swin(model, checkpoint)


def _group(name: str) -> str:
    if name.endswith("relative_position_bias_table"):
        return "bias_tables"
    return "backbone" if name.startswith("backbone.") else "head"


def _sbp(config: MethodConfig) -> Sbp | None:
    sbp, settings = config.sbp, config.model.settings()
    if sbp.gd_downsample == 1 and sbp.keep_ratio is None:
        return None
    flags = sbp.with_gd
    if flags is None:
        if tuple(settings["depths"]) != tuple(map(len, WITH_GD[config.model.size])):
            raise ValueError("sbp.with_gd is not given, and no published flags go with these depths")
        flags = WITH_GD[config.model.size]
    own = sbp.model_dump(exclude={"gd_downsample", "with_gd"})
    return Sbp(sbp.gd_downsample, flags, **own)


def _check_frames(config: MethodConfig) -> None:
    """What would fail in the first step is said before the data are read."""
    patch, frames = config.model.settings()["patch_size"][0], config.data.num_frames
    tokens = -(-frames // patch)
    if config.sbp.version in ("v1", "v2") and tokens % config.sbp.gd_downsample:
        raise ValueError(
            f"gd_downsample {config.sbp.gd_downsample} does not divide the {tokens} moments that {frames} frames make"
            f" with patches of {patch}"
        )
