"""The network with what a recipe says of it: parameters to train, loss, predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainers.lstr.config import MethodConfig
from trainers.lstr.loader import WindowBatch
from trainers.lstr.losses import LOSSES
from trainers.lstr.network import LSTR
from trainers.method import Losses


class Lstr:
    """The method: see `trainers.method.Method`. `network` is the model without what devices and precision put around it."""

    def __init__(self, config: MethodConfig, num_classes: int) -> None:
        self.config = config
        self.network = LSTR(config.spec(num_classes))
        self.models: dict[str, nn.Module] = {"model": self.network}
        given = config.data.ignore_index
        self.ignore_index = config.data.entry().ignore_index if given is None else given

    def param_groups(self) -> Mapping[str, list[dict[str, Any]]]:
        return {"model": [{"name": "all", "params": list(self.models["model"].parameters())}]}

    def losses(self, batch: WindowBatch, device: torch.device) -> Losses:
        logits = self.predict(batch, device).flatten(0, 1)
        return Losses({self.config.loss.lower(): self.loss(logits, batch.labels.to(device))}, logits)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of rows (R, C); SCE takes a row's first class."""
        if self.config.loss == "SCE":
            targets = targets.argmax(1)
        return LOSSES[self.config.loss](logits.float(), targets, ignore_index=self.ignore_index)

    def predict(self, batch: WindowBatch, device: torch.device) -> Tensor:
        """Logits (B, W, C)."""
        return self.models["model"](*batch.inputs(device))
