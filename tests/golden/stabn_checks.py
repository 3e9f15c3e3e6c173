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

from loaders.padded_order import group_order, padded, ranks_in_turn
from loaders.sampling import SegmentClips
from tests.golden.rngs import TorchRng
from tests.golden.vectors import from_json, no_unknown, read

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


CHECKERS = MappingProxyType({"sampling": _sampling, "samplers": _samplers})
