"""What the loop needs of a method, and the methods there are."""

from __future__ import annotations

import contextlib
import difflib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ingest.errors import ClipmillError
from loaders import ClipBatch

METHODS = ("lstr", "sbp", "sbp_e2e", "srtg")


@dataclass(frozen=True)
class Losses:
    """Named loss terms of one batch, each a scalar, with weights (1 where none is given), and the logits.

    Accuracy is counted where the logits are (B, C) and the batch's labels (B,).
    """

    terms: Mapping[str, Tensor]
    logits: Tensor
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        return torch.stack([self.weights.get(name, 1.0) * term for name, term in self.terms.items()]).sum()


class Method(Protocol):
    """A method: its models by name, how their parameters are grouped, its losses and its predictions.

    The loop replaces the entries of `models` by the same models prepared for devices and precision. It may have besides
        initialised(model, report)         called after --init of a model, before `param_groups`
        stage_changed(clips_per_device)    called before every epoch: batch norm over parts of a batch needs it
    """

    models: dict[str, nn.Module]

    def param_groups(self) -> Mapping[str, list[dict[str, Any]]]:
        """Per trained model, groups for its optimizer: `params`, `name`, and where they differ `lr_mult`, `weight_decay`."""

    def losses(self, batch: ClipBatch, device: torch.device) -> Losses:
        """Forward and losses of one batch, in training mode."""

    def predict(self, batch: ClipBatch, device: torch.device) -> Tensor:
        """Logits (B, C), in evaluation mode."""


def find_method(name: str) -> ModuleType:
    """The module of a method.

    It has `MethodConfig` (its config type), `create(config, num_classes) -> Method`, and
    `load_published(model, checkpoint) -> LoadReport` for the authors' files. It may have, where it does not classify clips,
    `make_loader(config, split, *, rank, world_size)` (trainers/data.py), `evaluate(fabric, method, loader, *, average) ->
    Evaluation` and `save_results(evaluation, folder)` (trainers/engine/evaluation.py).

    Raises: ClipmillError for an unknown name.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.0)
        raise ClipmillError(
            f"there is no method {name!r}; there are: {', '.join(METHODS)}.",
            "Nothing was run.",
            f"Did you mean {near[0]!r}?",
        )
    return importlib.import_module(f"trainers.{name}.method")


@contextlib.contextmanager
def blaming(*keys: str) -> Iterator[None]:
    """Around the making of a method: a ValueError becomes a ClipmillError that names the config keys to mend."""
    try:
        yield
    except ValueError as error:
        named, those = " and ".join(map(repr, keys)), "those keys" if keys[1:] else "that key"
        raise ClipmillError(
            f"config key{'s' * bool(keys[1:])} {named}: {error}.",
            "Nothing was trained.",
            f"Mend {those} and try again.",
        ) from None
