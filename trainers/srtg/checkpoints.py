"""The authors' published files -> our networks."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from torch import nn

from trainers.engine.weights import LoadReport, load_matching, read_checkpoint, without_prefix


def load_published(model: nn.Module, checkpoint: str | PathLike[str] | Mapping[str, Any]) -> LoadReport:
    """Load a file of the authors, or what it holds, into `model` and report on every tensor.

    They are dicts {epoch, state_dict, optimizer}, with `module.` before every name; a bare state dict is taken too.
    Tensors load by name and shape, so a file with another number of classes loads all but `fc.*`. Read the report:
    users found published files that are not what their table says (classes, network), and bottleneck files from
    before June 2020 may hold stages four times as wide.

    Raises: TypeError if it is no state dict, ValueError if not a single tensor fits the model.
    """
    if isinstance(checkpoint, str | PathLike):
        checkpoint = read_checkpoint(checkpoint)
    if not isinstance(checkpoint, Mapping):
        raise TypeError(f"an SRTG checkpoint is a dict, this one is {type(checkpoint).__name__}")
    return load_matching(model, without_prefix(checkpoint.get("state_dict", checkpoint), "module."))
