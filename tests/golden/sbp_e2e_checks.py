"""LSTR end to end with partial feedback against the authors' code: oad_e2e*.npz."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.golden.fill import fill_parameter
from tests.golden.rngs import TorchRng
from tests.golden.sbp_model_checks import fill, gradient, gradient_norms, near, summary, value
from tests.golden.vectors import filled_input, from_json, no_unknown, read
from trainers.lstr.losses import mce
from trainers.lstr.network import LSTR, LstrSpec, Module
from trainers.sbp.feedback import frozen_features, partial_features
from trainers.sbp.spatial import SpatialModel, build_spatial
from trainers.sbp_e2e.temporal import our_name

Cases = Iterable[tuple[str, Callable[[], None]]]

_SETTINGS = "num_classes|ignore_index|d_model|heads|ff|long|work_module|long_module|size|batch|masked|salt|runs|backbone|feature_size"
_ARRAYS = "grad_idx|no_grad_idx|logits|loss|(spatial|temporal)/(grad/.+|grad_norms|total_grad_norm)"
_FILE = (
    "settings|inputs|target|memory_key_padding_mask|(spatial|temporal)/(names|param_names)|shapes_(spatial|temporal)"
)


def cases(path: Path) -> Cases:
    """Every run of a file, whole: forward, loss, gradients of both models."""
    data = read(path)
    settings = from_json(data["settings"])
    tags = "|".join(run["tag"] for run in settings["runs"])
    yield "keys", lambda: no_unknown(data, rf"({tags})/({_ARRAYS})|{_FILE}|features/.+")
    yield "settings", lambda: no_unknown(settings, _SETTINGS)
    for run in settings["runs"]:
        yield f"{run['tag']}/model", partial(_run, data, settings, run)


def _models(data: Mapping[str, np.ndarray], settings: dict[str, Any]) -> tuple[SpatialModel, nn.Module]:
    name = settings["backbone"]
    if not name.startswith("mmaction2 ResNet-"):
        pytest.fail(f"the backbone {name!r} is not known here")
    spatial = build_spatial(f"resnet{name.rpartition('-')[2]}").train()
    assert spatial.num_features == settings["feature_size"]
    fill(spatial, data["spatial/names"], from_json(data["shapes_spatial"]), settings["salt"])
    queries = settings["work_module"][0]
    spec = LstrSpec(
        settings["num_classes"],
        visual_size=settings["feature_size"],
        modality="visual",
        width=settings["d_model"],
        num_long=settings["long"],
        num_work=queries,
        encoder=tuple(Module(*each) for each in settings["long_module"]),
        decoder=Module(-1, *settings["work_module"][1:]),
        num_heads=settings["heads"],
        hidden=settings["ff"],
        dropout=0.0,
    )
    temporal = LSTR(spec).train()
    shapes = from_json(data["shapes_temporal"])
    filled = {
        our_name(str(name)): torch.from_numpy(np.asarray(fill_parameter(str(name), tuple(shape), settings["salt"])))
        for name, shape in zip(data["temporal/names"], shapes, strict=True)
        if str(name) != "pos_encoding.pe"
    }
    missing, unexpected = temporal.load_state_dict(filled, strict=False)
    assert not unexpected and set(missing) <= {"pos_encoding.pe"}
    return spatial, temporal


def _run(data: Mapping[str, np.ndarray], settings: dict[str, Any], run: dict[str, Any]) -> None:
    no_unknown(run, "tag|mode|rate|strategy|seed")
    tag, mode = run["tag"], run["mode"]
    spatial, temporal = _models(data, settings)
    total = settings["long"] + settings["work_module"][0]
    size = settings["size"]
    frames = filled_input("frames", (settings["batch"], total, 3, size, size), settings["salt"])
    if mode == "full":
        features = spatial(frames)
    elif mode == "frozen":
        features = frozen_features(spatial, frames)
    elif mode == "sbp":
        jitter = TorchRng(run["seed"]) if run.get("strategy", "uniform") == "uniform_jitter" else None
        features = partial_features(spatial, frames, run["rate"], jitter=jitter)
    else:
        pytest.fail(f"runs of the mode {mode!r} are not known here")
    if "features/shape" in data:
        summary("features", features, data, "features", 1e-3, 2e-5)
    mask = torch.from_numpy(data["memory_key_padding_mask"])
    logits = temporal(features, None, mask)
    target = torch.from_numpy(data["target"])
    loss = mce(logits.flatten(0, 1), target.flatten(0, 1), ignore_index=settings["ignore_index"])
    value("logits", logits, data[f"{tag}/logits"])
    value("loss", loss, data[f"{tag}/loss"])
    loss.backward()
    own = {
        "spatial": dict(spatial.named_parameters()),
        "temporal": {str(name): temporal.get_parameter(our_name(str(name))) for name in data["temporal/param_names"]},
    }
    for part, parameters in own.items():
        if f"{tag}/{part}/grad_norms" in data:
            _gradients(data, f"{tag}/{part}", parameters, data[f"{part}/param_names"])


def _gradients(data: Mapping[str, np.ndarray], where: str, parameters: Mapping[str, Tensor], names: np.ndarray) -> None:
    gradient_norms(parameters, names, data[f"{where}/grad_norms"])
    for key in (key for key in data if key.startswith(f"{where}/grad/")):
        gradient(key, parameters[key.removeprefix(f"{where}/grad/")].grad, data[key])
    total = nn.utils.clip_grad_norm_(list(parameters.values()), 20.0)
    near(f"{where}: total norm", total, data[f"{where}/total_grad_norm"], 1e-3, 1e-5)
