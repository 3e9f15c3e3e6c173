"""SRTG as the loop sees it: one network, cross-entropy, clips as they are.

Source: Stergiou and Poppe, Learn to cycle, Pattern Recognition Letters 141 (2021), arXiv 2006.08247.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from loaders import ClipBatch
from trainers.batch_norm import set_clips_per_statistic, with_sub_batch_norm
from trainers.config import Config, DataConfig, Strict
from trainers.engine.weights import LoadReport
from trainers.method import Losses, blaming
from trainers.srtg.blocks import Place
from trainers.srtg.checkpoints import load_published
from trainers.srtg.groups import fine_tuning_groups, published_groups
from trainers.srtg.network import build
from trainers.srtg.recursion import Gates

__all__ = ["MethodConfig", "Srtg", "create", "load_published"]


class FineTuneConfig(Strict):
    """Rates of a network that begins from trained weights (--init), relative to the run's.

    `parts` has three: convolutions and norms, recurrent nets, and the classifier with whatever else is fresh.
    `published` is what the authors' trainer does: 0.6 for all but LSTMs, the classifier too.
    """

    groups: Literal["off", "parts", "published"] = "off"
    backbone: float = Field(0.6, ge=0)
    recurrent: float = Field(0.5, ge=0)
    head: float = Field(1.0, ge=0)

    @field_validator("groups", mode="before")
    @classmethod
    def _yaml_off(cls, value: Any) -> Any:
        return "off" if value is False else value


class ModelConfig(Strict):
    """A network of `trainers/srtg/network.py`, its width in channels, its recursion, its norms, its rates."""

    name: str = "srtg_r3d_34"
    width: int = Field(64, ge=4, description="channels of the first stage; 64 is published")
    gates: Gates = "off"
    place: Place = Field("final", description="where in every block the recursion sits; final is published")
    norm: Literal["batch", "sub"] = Field("batch", description="batch norm, or one over parts of the batch (multigrid)")
    norm_clips: int = Field(8, ge=1, description="clips under each mean and variance, with norm: sub")
    fine_tune: FineTuneConfig = FineTuneConfig()

    @field_validator("gates", mode="before")
    @classmethod
    def _yaml_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare `off` as false.


class MethodConfig(Config):
    model: ModelConfig = ModelConfig()


class Srtg:
    """The method: see `trainers.method.Method`."""

    def __init__(self, config: MethodConfig, num_classes: int) -> None:
        model = config.model
        self._data: DataConfig = config.data
        self._config: ModelConfig = model
        self._fresh: frozenset[str] = frozenset()
        network: nn.Module = build(model.name, num_classes, width=model.width, gates=model.gates, place=model.place)
        if model.norm == "sub":
            with_sub_batch_norm(network)
        self.models: dict[str, nn.Module] = {"model": network}
        self.stage_changed(config.data.batch_size)

    def initialised(self, name: str, report: LoadReport) -> None:
        """After --init: what the file did not have begins afresh, and learns as the classifier does."""
        self._fresh = frozenset([*report.missing, *(each.name for each in report.mismatched)])

    def stage_changed(self, clips_per_device: int) -> None:
        """The batches have `clips_per_device` clips from now on (a multiple of that in multigrid's short cycle)."""
        if self._config.norm == "sub":
            set_clips_per_statistic(self.models["model"], clips_per_device, self._config.norm_clips)

    def param_groups(self) -> Mapping[str, list[dict[str, Any]]]:
        network, tuning = self.models["model"], self._config.fine_tune
        if tuning.groups == "off":
            return {"model": [{"name": "all", "params": list(network.parameters())}]}
        if tuning.groups == "parts":
            rates = {"backbone": tuning.backbone, "recurrent": tuning.recurrent, "head": tuning.head}
            return {"model": fine_tuning_groups(network, **rates, fresh=self._fresh)}
        parameters = dict(network.named_parameters())
        groups = published_groups(parameters, fine_tune=True).items()
        return {
            "model": [
                {"name": name, "params": [parameters[each] for each in names], "lr_mult": rate}
                for name, (rate, names) in groups
            ]
        }

    def losses(self, batch: ClipBatch, device: torch.device) -> Losses:
        logits = self.predict(batch, device)
        return Losses({"cross_entropy": cross_entropy(logits.float(), batch.labels.to(device))}, logits)

    def predict(self, batch: ClipBatch, device: torch.device) -> Tensor:
        return self.models["model"](batch.normalized(self._data.mean, self._data.std, device))


def create(config: MethodConfig, num_classes: int) -> Srtg:
    """The method with fresh weights. Raises: ClipmillError for a network that does not exist."""
    with blaming("model"):
        return Srtg(config, num_classes)
