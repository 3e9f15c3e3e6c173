"""STS against the authors' code. Indices and boxes exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from loaders.sampling import random_resized_crop, three_crops
from tests.golden.mmaction import sample_frames
from tests.golden.rngs import MixedRng
from tests.golden.vectors import from_json, read

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
    pixels = {f"{pipe}/pixels" for pipe in pipes if f"{pipe}/imgs" in data}
    for group in sorted(groups | pixels):
        yield group, partial(pytest.fail, f"not checked by anything here: {group}")


def _sampling(settings: list[Any], indices: np.ndarray) -> None:
    cfg, video_frames, seed = settings
    assert sample_frames(cfg, video_frames, seed).tolist() == indices[indices >= 0].tolist()


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


CHECKERS = MappingProxyType({"functions": _functions})
