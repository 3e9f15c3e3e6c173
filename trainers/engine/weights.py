"""Weights from elsewhere: load what fits a model by name and shape, and say plainly what did not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ShapeMismatch:
    """A tensor that both sides have, in different shapes."""

    name: str
    checkpoint: tuple[int, ...]
    model: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} (checkpoint {list(self.checkpoint)}, model {list(self.model)})"


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a model and of a checkpoint."""

    loaded: tuple[str, ...]
    """In both, same shape: copied into the model."""
    missing: tuple[str, ...]
    """In the model alone: left as they were."""
    unexpected: tuple[str, ...]
    """In the checkpoint alone: not used."""
    mismatched: tuple[ShapeMismatch, ...]
    """In both, different shape: left as they were."""

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model was loaded and none of the checkpoint is left over."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        num_model = len(self.loaded) + len(self.missing) + len(self.mismatched)
        lines = [f"loaded {len(self.loaded)} of {num_model} tensors"]
        lines += _listed("missing in the checkpoint", self.missing)
        lines += _listed("unexpected in the checkpoint", self.unexpected)
        lines += _listed("of another shape", map(str, self.mismatched))
        return "\n".join(lines)


def _listed(title: str, names: Iterable[str], most: int = 8) -> list[str]:
    names = list(names)
    if not names:
        return []
    more = [f"    and {len(names) - most} more"] if len(names) > most else []
    return [f"  {title}: {len(names)}", *(f"    {name}" for name in names[:most]), *more]


def read_checkpoint(path: str | PathLike[str]) -> Any:
    """The object saved in a checkpoint file, on the CPU. Tensors and plain containers only: no code in it is run."""
    return torch.load(path, map_location="cpu", weights_only=True)


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same tensors with `prefix` taken off the names that have it (`module.` is what DataParallel leaves)."""
    return {name.removeprefix(prefix): value for name, value in state.items()}


def load_matching(model: nn.Module, state: Mapping[str, Tensor]) -> LoadReport:
    """Copy the tensors of `state` into `model` that fit it by name and shape; leave the others alone.

    Raises: TypeError if an entry is no tensor; ValueError if not a single one fits (another network, or a prefix).
    """
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name!r} in the checkpoint is {type(value).__name__}, not a tensor: not a state dict")
    own = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    report = LoadReport(
        loaded=tuple(fitting),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own),
        mismatched=tuple(
            ShapeMismatch(name, tuple(state[name].shape), tuple(value.shape))
            for name, value in own.items()
            if name in state and name not in fitting
        ),
    )
    if not fitting:
        raise ValueError(f"nothing in the checkpoint fits the model: {report}")
    model.load_state_dict(fitting, strict=False)
    return report
