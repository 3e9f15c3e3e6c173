"""SBP's networks against the authors' code: backbones, Video Swin, the operations, inflation.

Tolerances are those of the vectors: values 2e-5 + 1e-4 of each, gradients 1e-5 + 1e-3 of each, deep features 1e-3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.golden.fill import fill_parameter
from tests.golden.vectors import filled_input, from_json, no_unknown, read
from trainers.sbp.spatial import build_spatial

Cases = Iterable[tuple[str, Callable[[], None]]]

COMPUTED = ("relative_position_index", "pos_encoding.pe")
"""What constructors compute and no file fills."""


def near(what: str, actual: Tensor | float, expected: np.ndarray, rtol: float, atol: float) -> None:
    """Fail unless every |actual - expected| <= atol + rtol * |expected|."""
    got = actual.detach().double().numpy() if isinstance(actual, Tensor) else np.asarray(actual, np.float64)
    expected = np.asarray(expected, np.float64)
    if expected.shape == (1,) and got.shape == ():
        expected = expected[0]
    np.testing.assert_allclose(got, expected, rtol, atol, err_msg=what)


def value(what: str, actual: Tensor | float, expected: np.ndarray) -> None:
    near(what, actual, expected, 1e-4, 2e-5)


def gradient(what: str, actual: Tensor, expected: np.ndarray) -> None:
    near(what, actual, expected, 1e-3, 1e-5)


def summary(what: str, actual: Tensor, data: Mapping[str, np.ndarray], key: str, rtol: float, atol: float) -> None:
    """A tensor too large to store: its shape, first 64 values, and mean, deviation and norm."""
    assert list(actual.shape) == data[f"{key}/shape"].tolist(), what
    near(f"{what}: first values", actual.flatten()[:64], data[f"{key}/first64"], rtol, atol)
    wide = actual.detach().double()
    stats = torch.stack([wide.mean(), wide.std(unbiased=False), wide.norm()])
    near(f"{what}: mean, deviation, norm", stats, data[f"{key}/mean_std_l2"], rtol, atol)


def fill(model: nn.Module, names: np.ndarray, shapes: list[list[int]], salt: str) -> None:
    """Give `model` the values that a file means. Its tensors must be those of the file, but for computed ones."""
    wanted = {str(name): tuple(shape) for name, shape in zip(names, shapes, strict=True)}
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    kept = {name for name in own if name.endswith(COMPUTED)}
    assert {name: shape for name, shape in own.items() if name not in kept} == {
        name: shape for name, shape in wanted.items() if name not in kept
    }
    state = {name: torch.from_numpy(np.asarray(fill_parameter(name, shape, salt))) for name, shape in wanted.items()}
    model.load_state_dict({name: each for name, each in state.items() if name not in kept}, strict=False)


def gradient_norms(model: nn.Module, names: np.ndarray, expected: np.ndarray, rtol: float = 1e-3) -> None:
    """Norms of the gradients of the parameters of a file; NaN and 0 stand for none."""
    own = dict(model.named_parameters())
    for name, norm in zip(map(str, names), expected, strict=True):
        grad = own[name].grad
        near(f"gradient of {name}", 0.0 if grad is None else grad.norm(), np.nan_to_num(norm), rtol, 1e-5)


# Backbones: backbones.npz

_BACKBONES = {"r18": "resnet18", "r34": "resnet34", "r50": "resnet50", "r101": "resnet101", "r152": "resnet152"}


def _backbones(path: Path) -> Cases:
    settings = from_json(read(path)["settings"])
    tags = "|".join(settings["cases"])
    known = rf"({tags})/(features|map/.+|names|param_names|grad_norms)"
    yield "keys", lambda: no_unknown(read(path), "settings|inputs", known)
    for tag, case in settings["cases"].items():
        yield tag, partial(_backbone, read(path), tag, case, settings["salt"])


def _backbone(data: Mapping[str, np.ndarray], tag: str, case: dict[str, Any], salt: str) -> None:
    no_unknown(case, "backbone|input|shapes")
    kind, channels = case["backbone"], case["input"][2]
    if kind not in _BACKBONES and not kind.startswith("bni"):
        pytest.fail(f"backbones of the kind {kind!r} are not known here")
    model = build_spatial(_BACKBONES.get(kind, "bn_inception"), in_channels=channels, frozen_bn=False).eval()
    assert list(model.state_dict()) == [str(name) for name in data[f"{tag}/names"]]
    fill(model, data[f"{tag}/names"], case["shapes"], salt)
    maps: list[Tensor] = []
    model.backbone.register_forward_hook(lambda _module, _args, output: maps.append(output.detach()))
    features = model(filled_input(f"{tag}/frames", case["input"], salt))
    near("features", features, data[f"{tag}/features"], 1e-3, 2e-5)
    summary("map", maps[0], data, f"{tag}/map", 1e-3, 2e-5)
    (features * filled_input(f"{tag}/dy", features.shape, salt)).sum().backward()
    gradient_norms(model, data[f"{tag}/param_names"], data[f"{tag}/grad_norms"])


CHECKERS = MappingProxyType({"backbones": _backbones})
