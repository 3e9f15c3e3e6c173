"""Reading reference vectors and holding results against them; what the checkers of all methods share."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.golden.fill import fill_input, fill_parameter


@cache
def read(path: Path) -> Mapping[str, np.ndarray]:
    """Every array of an .npz file."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def from_json(array: np.ndarray) -> Any:
    """The object in a JSON string that was stored as a 0-d array."""
    return json.loads(str(array))


def shapes_of(names: np.ndarray, shapes: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Name -> shape, from two parallel arrays of strings."""
    return {str(name): tuple(json.loads(str(shape))) for name, shape in zip(names, shapes, strict=True)}


def filled(
    shapes: Mapping[str, tuple[int, ...]], salt: str, scale_rules: Iterable[dict[str, Any]]
) -> dict[str, Tensor]:
    """The state dict that a file means: filled by name, then by the first matching rule value * factor + add.

    A rule matches by `regex` (searched in the name) and `ndim`, both where both are given. All in float32.
    """
    rules = list(scale_rules)
    state = {}
    for name, shape in shapes.items():
        value = fill_parameter(name, shape, salt)
        for rule in rules:
            if re.search(rule.get("regex", ""), name) and rule.get("ndim", value.ndim) == value.ndim:
                value = value * np.float32(rule.get("factor", 1)) + np.float32(rule.get("add", 0))
                break
        state[name] = torch.from_numpy(np.asarray(value))
    return state


def filled_input(name: str, shape: Iterable[int], salt: str) -> Tensor:
    return torch.from_numpy(fill_input(name, tuple(shape), salt))


def strided(tensor: Tensor) -> Tensor:
    """256 values spread over a tensor: flat[::k][:256], k the smallest integer >= numel // 256 coprime with numel."""
    k = max(1, tensor.numel() // 256)
    while gcd(k, tensor.numel()) != 1:
        k += 1
    return tensor.flatten()[::k][:256]


def no_unknown(keys: Iterable[str], *known: str) -> None:
    """Fail, naming them, if there are keys that none of the regular expressions matches in full."""
    unknown = [key for key in keys if not any(re.fullmatch(pattern, key) for pattern in known)]
    if unknown:
        pytest.fail(f"not checked by anything here: {', '.join(unknown)}")


def close(
    what: str, actual: Tensor | float, expected: np.ndarray, tolerance: float, scale: float | None = None
) -> None:
    """Fail unless max |actual - expected| <= tolerance * scale; the scale is max |expected| unless given."""
    got = actual.detach().numpy() if isinstance(actual, Tensor) else np.asarray(actual)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    if not expected.size:
        return
    largest = float(np.abs(expected).max()) if scale is None else scale
    error = float(np.abs(got.astype(np.float64) - expected).max())
    assert error <= tolerance * largest, f"{what}: off by {error:.3g} of {largest:.3g}, allowed {tolerance:.1g} of that"
