"""ResKD's pipelines of transforms against the authors' code: pipelines.npz. The normalised pixels of every view."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from tests.golden.augment_rngs import AuthorsRng
from tests.golden.mmaction_pixels import Config, pixels
from tests.golden.vectors import close, from_json, no_unknown, read

Cases = Iterable[tuple[str, Callable[[], None]]]

_RULE = "round(127.5 + 60 sin(0.13 x + 0.9 c + 0.5 t) + 60 cos(0.17 y - 0.7 c + 0.3 t)), clipped to uint8"


def _pipelines(path: Path) -> Cases:
    data = read(path)
    names = [key.partition("/")[0] for key in data if key.endswith("/spec")]
    yield "keys", partial(no_unknown, data, "frames_rule", *(f"{name}/(spec|out)" for name in names))
    yield "frames_rule", partial(_frames_rule, str(data["frames_rule"]))
    for name in names:
        yield name, partial(_pipeline, from_json(data[f"{name}/spec"]), data[f"{name}/out"])


def _frames_rule(rule: str) -> None:
    assert rule == _RULE


def _frames(t: int, h: int, w: int) -> np.ndarray:
    """uint8 (T, H, W, 3), as the file's rule says."""
    t_, y, x, c = np.ogrid[:t, :h, :w, :3]
    values = 127.5 + 60 * np.sin(0.13 * x + 0.9 * c + 0.5 * t_) + 60 * np.cos(0.17 * y - 0.7 * c + 0.3 * t_)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _pipeline(spec: Config, expected: np.ndarray) -> None:
    no_unknown(spec, "steps|t|h|w|num_clips|clip_len|seed")
    # Reals and the flip come from NumPy, places from Python.
    rng = AuthorsRng(spec["seed"], "uniform random")
    found = pixels(_frames(spec["t"], spec["h"], spec["w"]), spec["steps"], rng, spec["num_clips"], spec["clip_len"])
    close("pixels", found, expected, 1e-5)


CHECKERS = MappingProxyType({"pipelines": _pipelines})
