"""ResKD against the authors' code. Indices and boxes exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loaders.sampling import (
    Box,
    centre_crop,
    crop_grid,
    multi_scale_crop,
    multi_scale_sizes,
    random_resized_crop,
    rescaled,
    three_crops,
)
from tests.golden.engine_checks import reskd_functions
from tests.golden.mmaction import sample_frames
from tests.golden.rngs import MixedRng, PythonRng
from tests.golden.vectors import from_json, no_unknown, read

Cases = Iterable[tuple[str, Callable[[], None]]]

# Frame indices and crop boxes: sampling_geometry.npz


def _sampling_geometry(path: Path) -> Cases:
    data = read(path)
    yield "keys", partial(no_unknown, data, "sampling|geometry")
    if "sampling" in data:
        for i, entry in enumerate(from_json(data["sampling"])):
            yield f"sampling/{i}", partial(_sampling, entry)
    if "geometry" in data:
        geometry = from_json(data["geometry"])
        yield "geometry/keys", partial(no_unknown, geometry, *_GEOMETRY)
        for kind in _GEOMETRY.keys() & geometry.keys():
            for i, entry in enumerate(geometry[kind]):
                yield f"geometry/{kind}/{i}", partial(_GEOMETRY[kind], entry)


def _sampling(entry: dict[str, Any]) -> None:
    no_unknown(entry, "cfg|total_frames|start_index|seed|frame_inds")
    frames = sample_frames(entry["cfg"], entry["total_frames"], entry["seed"])
    assert (frames + entry["start_index"]).tolist() == entry["frame_inds"]


def _rescale(entry: dict[str, Any]) -> None:
    no_unknown(entry, "wh|short|out")
    width, height = entry["wh"]
    assert list(rescaled(height, width, entry["short"])[::-1]) == entry["out"]


def _candidates(entry: dict[str, Any]) -> None:
    no_unknown(entry, "hw|input_size|boxes_ij_x1y1x2y2")
    size = entry["input_size"]
    sizes = multi_scale_sizes(*entry["hw"], size, size)
    ours = [
        [i, j, *box.corners]
        for i, (height, width) in enumerate(sizes)
        for j, box in enumerate(crop_grid(*entry["hw"], height, width))
    ]
    assert ours == entry["boxes_ij_x1y1x2y2"]


def _multi_scale(entry: dict[str, Any]) -> None:
    no_unknown(entry, "seed|hw|input_size|bbox")
    size = entry["input_size"]
    _same(multi_scale_crop(*entry["hw"], size, size, PythonRng(entry["seed"])), entry["bbox"])


def _random_resized(entry: dict[str, Any]) -> None:
    no_unknown(entry, "seed|hw|bbox")
    _same(random_resized_crop(*entry["hw"], MixedRng(entry["seed"])), entry["bbox"])


def _centre(entry: dict[str, Any]) -> None:
    no_unknown(entry, "hw|crop|bbox")
    _same(centre_crop(*entry["hw"], entry["crop"], entry["crop"]), entry["bbox"])


def _three(entry: dict[str, Any]) -> None:
    no_unknown(entry, "hw|crop|bboxes_per_crop_times_imgs")
    boxes = entry["bboxes_per_crop_times_imgs"]
    for i, box in enumerate(three_crops(*entry["hw"], entry["crop"], entry["crop"])):
        for other in boxes[i * len(boxes) // 3 : (i + 1) * len(boxes) // 3]:
            _same(box, other)


def _same(box: Box, corners: list[int]) -> None:
    assert list(box.corners) == corners


_GEOMETRY: MappingProxyType[str, Callable[[dict[str, Any]], None]] = MappingProxyType(
    {
        "rescale": _rescale,
        "multiscale_candidates": _candidates,
        "multiscale_seeded": _multi_scale,
        "rrc_seeded": _random_resized,
        "center": _centre,
        "three": _three,
    }
)


def _functions(path: Path) -> Cases:
    return reskd_functions(read(path))


CHECKERS = MappingProxyType({"sampling_geometry": _sampling_geometry, "functions": _functions})
