"""STS against the authors' code. Indices and boxes exactly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from loaders.padded_order import padded, ranks_in_turn, repeated_order
from loaders.sampling import random_resized_crop, three_crops
from tests.golden.engine_checks import class_metrics, mmcv_rates
from tests.golden.fill import fill_labels
from tests.golden.mmaction import sample_frames
from tests.golden.rngs import MixedRng, TorchRng
from tests.golden.vectors import filled_input, from_json, read

Cases = Iterable[tuple[str, Callable[[], None]]]

# Frame indices and crop boxes among other functions: functions.npz


def _functions(path: Path) -> Cases:
    data = read(path)
    if "sampling/settings" in data:
        for i, (settings, indices) in enumerate(
            zip(from_json(data["sampling/settings"]), data["sampling/frame_inds"], strict=True)
        ):
            yield f"sampling/{i}", partial(_sampling, settings, indices)
    for i, row in enumerate(data.get("rrc/seed_h_w_x1_y1_x2_y2", ())):
        yield f"rrc/{i}", partial(_random_resized, row)
    for i, row in enumerate(data.get("threecrop/h_w_c_boxes", ())):
        yield f"threecrop/{i}", partial(_three, row)
    pipes = sorted({key.partition("/")[0] for key in data if key.startswith("pipe")})
    for pipe in pipes:
        yield f"{pipe}/frame_inds", partial(_pipe_frames, data, pipe)
    groups = {key.partition("/")[0] for key in data} - {"sampling", "rrc", "threecrop", *pipes}
    known = {group for group in groups if group.startswith(("lr", "metric"))}
    for group in sorted(known):
        own = {key.partition("/")[2]: value for key, value in data.items() if key.startswith(f"{group}/")}
        yield group, partial(_rates if group.startswith("lr") else _metric, own)
    groups -= known
    pixels = {f"{pipe}/pixels" for pipe in pipes if f"{pipe}/imgs" in data}
    for group in sorted(groups | pixels):
        yield group, partial(pytest.fail, f"not checked by anything here: {group}")


def _sampling(settings: list[Any], indices: np.ndarray) -> None:
    cfg, video_frames, seed = settings
    assert sample_frames(cfg, video_frames, seed).tolist() == indices[indices >= 0].tolist()


def _rates(own: Mapping[str, np.ndarray]) -> None:
    spec = from_json(own["settings"])
    mmcv_rates(spec, own["per_iter"], base_lr=spec["base_lr"], epochs=spec["max_epochs"], steps=spec["iters_per_epoch"])


def _metric(own: Mapping[str, np.ndarray]) -> None:
    spec = from_json(own["settings"])
    scores = filled_input("scores", (spec["n"], spec["K"]), spec["salt"])
    labels = torch.from_numpy(fill_labels("labels", (spec["n"],), spec["label_classes"], spec["salt"]))
    scores[torch.arange(len(labels)), labels] += 0.8
    class_metrics(scores, labels, own["top1_top5"], float(own["mean_class"]), None)


def _random_resized(row: np.ndarray) -> None:
    seed, height, width, *corners = row.tolist()
    assert list(random_resized_crop(height, width, MixedRng(seed)).corners) == corners


def _three(row: np.ndarray) -> None:
    height, width, crop, *corners = row.tolist()
    assert [side for box in three_crops(height, width, crop, crop) for side in box.corners] == corners


def _pipe_frames(data: Mapping[str, np.ndarray], pipe: str) -> None:
    settings = from_json(data[f"{pipe}/settings"])
    frames = sample_frames(settings["sample_frames"], settings["total_frames"], settings["seed"])
    assert frames.tolist() == data[f"{pipe}/frame_inds"].tolist()


# Which items each rank gets in image pre-training and in evaluation: imagenet_recipe.npz


def _imagenet_recipe(path: Path) -> Cases:
    data = read(path)
    for key in data:
        if key.startswith("rasampler"):
            yield key, partial(_repeated, data, key)
        elif key.startswith("ordered"):
            yield key, partial(_ordered, data, key)
    checked = ("rasampler", "ordered")
    for group in sorted({key.partition("/")[0] for key in data if not key.startswith(checked)}):
        yield group, partial(pytest.fail, f"not checked by anything here: {group}")


def _number(letter: str, key: str) -> int:
    found = re.search(rf"[/_]{letter}([0-9]+)", key)
    assert found is not None, f"{key} says nothing about {letter}"
    return int(found[1])


def _repeated(data: Mapping[str, np.ndarray], key: str) -> None:
    ranks = repeated_order(_number("N", key), TorchRng(_number("ep", key)), world_size=_number("R", key))
    assert ranks[_number("rank", key)].tolist() == data[key].tolist()


def _ordered(data: Mapping[str, np.ndarray], key: str) -> None:
    """The first 20 and the last 5 items of a rank in evaluation."""
    world_size = _number("R", key)
    ranks = ranks_in_turn(padded(np.arange(_number("N", key)), world_size), world_size)
    items = ranks[_number("rank", key)].tolist()
    assert items[:20] + items[-5:] == data[key].tolist()


CHECKERS = MappingProxyType({"functions": _functions, "imagenet_recipe": _imagenet_recipe})
