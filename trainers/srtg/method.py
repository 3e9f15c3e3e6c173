"""SRTG as the loop sees it: one network, cross-entropy, clips as they are.

Source: Stergiou and Poppe, Learn to cycle, Pattern Recognition Letters 141 (2021), arXiv 2006.08247.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ingest.errors import ClipmillError
from loaders import ClipBatch
from trainers.config import Config, DataConfig, Strict
from trainers.method import Losses
from trainers.srtg.checkpoints import load_published
from trainers.srtg.network import build
from trainers.srtg.recursion import Gates

__all__ = ["MethodConfig", "Srtg", "create", "load_published"]


class ModelConfig(Strict):
    """A network of `trainers/srtg/network.py`, its width in channels, and its temporal gates."""

    name: str = "srtg_r3d_34"
    width: int = Field(64, ge=4, description="channels of the first stage; 64 is published")
    gates: Gates = "off"

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
        self.models: dict[str, nn.Module] = {
            "model": build(model.name, num_classes, width=model.width, gates=model.gates)
        }

    def param_groups(self) -> Mapping[str, list[dict[str, Any]]]:
        return {"model": [{"name": "all", "params": list(self.models["model"].parameters())}]}

    def losses(self, batch: ClipBatch, device: torch.device) -> Losses:
        logits = self.predict(batch, device)
        return Losses({"cross_entropy": cross_entropy(logits.float(), batch.labels.to(device))}, logits)

    def predict(self, batch: ClipBatch, device: torch.device) -> Tensor:
        return self.models["model"](batch.normalized(self._data.mean, self._data.std, device))


def create(config: MethodConfig, num_classes: int) -> Srtg:
    """The method with fresh weights. Raises: ClipmillError for a network that does not exist."""
    try:
        return Srtg(config, num_classes)
    except ValueError as error:
        raise ClipmillError(
            f"config key 'model': {error}.", "Nothing was trained.", "Mend that key and try again."
        ) from None
