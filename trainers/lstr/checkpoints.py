"""The authors' checkpoints: `epoch-N.pth` with `epoch`, `model_state_dict`, `optimizer_state_dict`; names are those of our network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ingest.atomic import replacing
from trainers.engine.weights import LoadReport, load_matching, without_prefix

_POSITIONS = "pos_encoding.pe"


def load_published(model: nn.Module, checkpoint: Mapping[str, Any]) -> LoadReport:
    """Copy an authors' checkpoint, or a bare state dict, into `model`.

    The positions are the same function of the slot in every file: a table of another length is left out. Raises: ValueError or
    TypeError when it is none, or nothing in it fits.
    """
    state = without_prefix(checkpoint.get("model_state_dict", checkpoint), "module.")
    own = model.state_dict()
    if _POSITIONS in state and _POSITIONS in own and state[_POSITIONS].shape != own[_POSITIONS].shape:
        state[_POSITIONS] = own[_POSITIONS]
    return load_matching(model, state)


def save_published(path: Path, model: nn.Module, epoch: int, optimizer: Optimizer | None = None) -> None:
    """Write what the authors' code reads: whole or not at all."""
    content = {
        "epoch": epoch,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": {} if optimizer is None else optimizer.state_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save(content, temporary)
