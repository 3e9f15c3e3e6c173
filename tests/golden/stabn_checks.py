"""ST-ABN against the authors' code. Indices and boxes exactly."""

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

from loaders.padded_order import group_order, padded, ranks_in_turn
from loaders.sampling import (
    Box,
    SegmentClips,
    centre_crop,
    crop_grid,
    multi_scale_crop,
    rescaled,
    ten_crops,
    three_crops,
)
from tests.golden.engine_checks import class_metrics, mmcv_rates
from tests.golden.rngs import PythonRng, TorchRng
from tests.golden.vectors import close, filled_input, from_json, no_unknown, read

Cases = Iterable[tuple[str, Callable[[], None]]]

# Frame numbers of training, validation and test: sampling.npz


def _sampling(path: Path) -> Cases:
    data = read(path)
    settings = from_json(data["cases"])
    modes = "(train|val|test)/(offsets|skip|frames)"
    yield (
        "keys",
        partial(no_unknown, data, "num_frames|cases|seed0", *(f"case{i}/{modes}" for i in range(len(settings)))),
    )
    for i, cfg in enumerate(settings):
        for mode in ("train", "val", "test"):
            if f"case{i}/{mode}/frames" in data:
                yield f"case{i}/{mode}", partial(_sampled, data, cfg, f"case{i}/{mode}")


def _sampled(data: Mapping[str, np.ndarray], cfg: dict[str, Any], case: str) -> None:
    no_unknown(cfg, "num_segments|new_length|new_step|temporal_jitter")
    sampler = SegmentClips(
        cfg.get("num_segments", 3),
        cfg.get("new_length", 1),
        cfg.get("new_step", 1),
        end="stay",
        short="spread" if case.endswith("test") else "first",
        jitter="step" if cfg.get("temporal_jitter", False) else "none",
    )
    for i, video_frames in enumerate(data["num_frames"].tolist()):
        rng = np.random.RandomState(int(data["seed0"]) + i)
        if case.endswith("train"):
            starts = sampler.random_starts(video_frames, rng)
        else:
            starts = sampler.middle_starts(video_frames)
        shifts = sampler.shifts(rng)
        skips = np.zeros(sampler.segment_frames, int) if shifts is None else shifts[: sampler.segment_frames]
        frames = sampler.indices(starts, video_frames, shifts)
        # Theirs count from 1.
        assert (starts + 1).tolist() == data[f"{case}/offsets"][i].tolist(), f"offsets of {video_frames} frames"
        assert skips.tolist() == data[f"{case}/skip"][i].tolist(), f"skips of {video_frames} frames"
        assert (frames + 1).tolist() == data[f"{case}/frames"][i].tolist(), f"frames of {video_frames}"


# Which items each rank gets: samplers.npz


def _samplers(path: Path) -> Cases:
    data = read(path)
    kinds = "(group/n[0-9]+_spg[0-9]+|dist/n[0-9]+_spg[0-9]+_w[0-9]+_e[0-9]+|distseq/n[0-9]+_spg[0-9]+_w[0-9]+)"
    yield "keys", partial(no_unknown, data, "seed0", kinds)
    for key in data:
        if re.fullmatch(kinds, key):
            yield key, partial(_order, data, key)


def _order(data: Mapping[str, np.ndarray], key: str) -> None:
    kind, _, name = key.partition("/")
    n, spg, w, e = (
        int(found[1]) if (found := re.search(rf"(?:^|_){letter}([0-9]+)", name)) else None
        for letter in ("n", "spg", "w", "e")
    )
    assert n is not None and spg is not None

    def ours() -> np.ndarray:
        if kind == "group":
            return group_order(n, spg, np.random.RandomState(int(data["seed0"]) + n))[0]
        if kind == "dist":
            return group_order(n, spg, TorchRng(e), world_size=w)
        return ranks_in_turn(padded(np.arange(n), spg * w), w)

    if data[key].dtype.kind == "U":  # What the authors' code raised.
        with pytest.raises(ValueError, match="cannot be padded"):
            ours()
    else:
        assert ours().tolist() == data[key].tolist()


# Sizes and boxes among the transforms: transforms.npz. What they do to pixels is another matter.


def _transforms(path: Path) -> Cases:
    data = read(path)
    checked = {"sizes_hw", "seed0", "nseed", "rescale_scales"}
    for key in data:
        for pattern, check in _BOXES.items():
            if found := re.fullmatch(pattern, key):
                checked.add(key)
                yield key, partial(check, data, key, found)
    for group in sorted({key.partition("/")[0] for key in set(data) - checked}):
        yield group, partial(pytest.fail, f"not checked by anything here: {group}")


def _frames(data: Mapping[str, np.ndarray]) -> list[tuple[int, int]]:
    return [(height, width) for height, width in data["sizes_hw"].tolist()]


def _seeds(data: Mapping[str, np.ndarray]) -> range:
    return range(int(data["seed0"]), int(data["seed0"]) + int(data["nseed"]))


def _fixed(data: Mapping[str, np.ndarray], key: str, found: re.Match[str]) -> None:
    count, crop_width, crop_height = map(int, found.groups())
    for (height, width), places in zip(_frames(data), data[key].tolist(), strict=True):
        if crop_height > height or crop_width > width:  # Theirs lies outside the frame, ours is an error.
            with pytest.raises(ValueError, match="does not fit"):
                crop_grid(height, width, crop_height, crop_width)
            assert min(min(place) for place in places) < 0
            continue
        boxes = crop_grid(height, width, crop_height, crop_width, more=count > 5)
        assert [[box.left, box.top] for box in boxes] == places


def _multi_scale(data: Mapping[str, np.ndarray], key: str, found: re.Match[str]) -> None:
    tag = found[1]
    options: dict[str, Any] = {}
    if tag.startswith("distort"):
        options["max_distort"] = int(tag.removeprefix("distort"))
    elif tag == "random":
        options["places"] = "anywhere"
    elif tag == "scales":
        options |= {"scales": (1, 0.875, 0.66), "places": "corners"}
    elif tag != "default":
        pytest.fail(f"multi-scale crops of the kind {tag!r} are not known here")
    for (height, width), rows in zip(_frames(data), data[key].tolist(), strict=True):
        # The README: an input size of 224 wide, 200 high.
        boxes = [multi_scale_crop(height, width, 200, 224, PythonRng(seed), **options) for seed in _seeds(data)]
        assert [[box.width, box.height, box.left, box.top] for box in boxes] == rows, f"{height} x {width}"


def _rescaled(data: Mapping[str, np.ndarray], key: str, _: re.Match[str]) -> None:
    for (height, width), rows in zip(_frames(data), data[key].tolist(), strict=True):
        for bounds, row in zip(data["rescale_scales"].tolist(), rows, strict=True):
            scaled = rescaled(height, width, min(bounds), max(bounds))
            factor = min(max(bounds) / max(height, width), min(bounds) / min(height, width))
            assert [*scaled, factor] == [*row[:2], pytest.approx(row[2], rel=1e-7)]


def _centre(data: Mapping[str, np.ndarray], key: str, found: re.Match[str]) -> None:
    crop_width, crop_height = map(int, found.groups())
    for (height, width), row in zip(_frames(data), data[key].tolist(), strict=True):
        box = centre_crop(height, width, min(crop_height, height), min(crop_width, width))
        # The crop as it is asked for, then the first pixel and the size of what comes out.
        if crop_width <= width and crop_height <= height:
            assert [box.left, box.top, box.width, box.height] * 2 == row
        else:
            assert [box.width, box.height] == row[6:]


def _three(data: Mapping[str, np.ndarray], key: str, found: re.Match[str]) -> None:
    height, width = map(int, found.groups())
    side = min(height, width)
    _pixels([(box, False) for box in three_crops(height, width, side, side)], data[key])


def _ten(data: Mapping[str, np.ndarray], key: str, found: re.Match[str]) -> None:
    height, width, crop_width, crop_height = map(int, found.groups())
    _pixels(ten_crops(height, width, crop_height, crop_width), data[key])


def _pixels(crops: list[tuple[Box, bool]], expected: np.ndarray) -> None:
    """(x, y, frame) of the first pixel of every crop of every frame, then of the last pixels; mirrored crops begin on the right."""
    num_frames = len(expected) // (2 * len(crops))
    first, last = [], []
    for box, mirrored in crops:
        left, top, right, bottom = box.corners
        begin, end = (right - 1, left) if mirrored else (left, right - 1)
        first += [[begin, top, frame] for frame in range(num_frames)]
        last += [[end, bottom - 1, frame] for frame in range(num_frames)]
    assert [*first, *last] == expected.tolist()


_BOXES = MappingProxyType(
    {
        "fix_offsets([0-9]+)_crop_w([0-9]+)_h([0-9]+)": _fixed,
        "multiscale/(.+)": _multi_scale,
        "rescale_h_w_factor": _rescaled,
        "center_w([0-9]+)_h([0-9]+)": _centre,
        "three/[a-z]+_h([0-9]+)_w([0-9]+)": _three,
        "ten/h([0-9]+)_w([0-9]+)_crop_w([0-9]+)_h([0-9]+)": _ten,
    }
)

# Rates and figures of merit: schedule.npz, metrics.npz

_LR, _EPOCHS, _STEPS = 0.01, 6, 5
_SHIPPED: Mapping[str, Any] = MappingProxyType({"step": [75, 125]})


def _schedule(path: Path) -> Cases:
    data = read(path)
    no_unknown(data, "shipped_epoch_lr", "cases", r"case\d+_base[\d.]+_\d+epochs_\d+iters")
    if "shipped_epoch_lr" in data:
        shipped = data["shipped_epoch_lr"]
        yield "shipped", partial(mmcv_rates, _SHIPPED, shipped, base_lr=_LR, epochs=len(shipped), steps=1)
    for i, spec in enumerate(from_json(data["cases"]) if "cases" in data else ()):
        name = next(key for key in data if key.startswith(f"case{i}_"))
        base, epochs, steps = re.match(r"case\d+_base([\d.]+)_(\d+)epochs_(\d+)iters", name).groups()  # type: ignore[union-attr]
        yield name, partial(mmcv_rates, spec, data[name], base_lr=float(base), epochs=int(epochs), steps=int(steps))


def _metrics(path: Path) -> Cases:
    data = read(path)
    for tag in sorted({key.partition("/")[0] for key in data} - {"salt"}):
        yield (
            tag,
            partial(
                _scored,
                {key: data[f"{tag}/{key}"] for key in _METRIC_KEYS if f"{tag}/{key}" in data},
                tag,
                str(data["salt"]),
            ),
        )


_METRIC_KEYS = ("labels", "shape", "top1_top5", "softmax_head", "mean_class", "per_class")


def _scored(own: Mapping[str, np.ndarray], tag: str, salt: str) -> None:
    labels = torch.from_numpy(own["labels"])
    scores = filled_input(f"scores_{tag}", own["shape"].tolist(), salt)
    scores[torch.arange(len(labels)), labels] += 0.8
    head = own["softmax_head"]
    close("softmax", scores[: len(head)].softmax(1), head, 1e-5)
    class_metrics(scores, labels, own["top1_top5"], float(own["mean_class"]), own.get("per_class"))


CHECKERS = MappingProxyType(
    {
        "sampling": _sampling,
        "samplers": _samplers,
        "transforms": _transforms,
        "schedule": _schedule,
        "metrics": _metrics,
    }
)
