"""SBP against the authors' code. Indices and masks exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from ingest.targets import Segment, frame_targets, num_target_rows
from loaders.sampling import Dense, kept_frames
from loaders.windows import OnlineWindows, Window
from tests.golden import sbp_e2e_checks, sbp_function_checks, sbp_model_checks
from tests.golden.rngs import TorchRng
from tests.golden.vectors import from_json, no_unknown, read

Cases = Iterable[tuple[str, Callable[[], None]]]

# Clips, windows and kept frames among other functions: functions.npz


def _functions(path: Path) -> Cases:
    data = read(path)
    for i, entry in enumerate(from_json(data["kinetics_clip_ids"]) if "kinetics_clip_ids" in data else ()):
        yield f"kinetics_clip_ids/{i}", partial(_clip_ids, entry)
    for i, entry in enumerate(from_json(data["partial_feedback_frames"]) if "partial_feedback_frames" in data else ()):
        yield f"partial_feedback_frames/{i}", partial(_kept, entry)
    if "oad_layers" in data:
        yield from _layers(data)
    if "perframe_label/rows" in data:
        yield from _targets(data)
    yield from sbp_function_checks.functions(data)
    known = {"kinetics_clip_ids", "partial_feedback_frames", "oad_layers", "layers", "perframe_label"}
    known |= sbp_function_checks.KNOWN | {key for key in data if key.startswith("param_groups_")}
    for group in sorted({key.partition("/")[0] for key in data} - known):
        yield group, partial(pytest.fail, f"not checked by anything here: {group}")


def _clip_ids(entry: dict[str, Any]) -> None:
    no_unknown(entry, "video_length|clip_id|num_clips|num_frames|sampling_rate|strategy|torch_seed|ids")
    sampler, length = Dense(entry["num_frames"], entry["sampling_rate"]), entry["video_length"]
    if entry["strategy"] == "random":
        ids = sampler.draw(length, TorchRng(entry["torch_seed"]))
    elif entry["strategy"] == "center":
        ids = sampler.centre(length)
    elif entry["strategy"] == "uniform":
        ids = sampler.uniform(length, entry["num_clips"])[entry["clip_id"]]
    else:
        pytest.fail(f"clips of the strategy {entry['strategy']!r} are not known here")
    assert ids.tolist() == entry["ids"]


def _targets(data: Mapping[str, np.ndarray]) -> Cases:
    """Segments in seconds of 30 fps videos to targets at 4 rows a second, by the rule of the published generator."""
    given = from_json(data["perframe_label/rows"])
    no_unknown(given, "rows|video_num_frames|class_names")
    videos = {key.partition("/")[2] for key in data if key.startswith("perframe_label/")} - {"rows"}
    assert videos == set(given["video_num_frames"])
    for video in sorted(videos):
        yield f"perframe_label/{video}", partial(_target, given, video, data[f"perframe_label/{video}"])


def _target(given: dict[str, Any], video: str, expected: np.ndarray) -> None:
    names = given["class_names"]
    segments = [
        Segment(start_s, end_s, names.index(label))
        for of_video, label, _, start_s, end_s, _, _ in given["rows"]
        if of_video == video
    ]
    num_rows = num_target_rows(given["video_num_frames"][video], 30.0)
    targets = frame_targets(segments, num_rows, len(names), rule="thumos-reference")
    np.testing.assert_array_equal(targets.rows, expected)


def _kept(entry: dict[str, Any]) -> None:
    no_unknown(entry, "T|ratio|strategy|seed|grad|no_grad|jitters")
    if entry["strategy"] not in ("uniform", "uniform_jitter"):
        pytest.fail(f"frames of the strategy {entry['strategy']!r} are not known here")
    jitter = TorchRng(entry["seed"]) if entry["strategy"] == "uniform_jitter" else None
    kept = kept_frames(entry["T"], entry["ratio"], jitter)
    assert kept.tolist() == entry["grad"]
    assert np.setdiff1d(np.arange(entry["T"]), kept).tolist() == entry["no_grad"]


def _layers(data: Mapping[str, np.ndarray]) -> Cases:
    facts = from_json(data["oad_layers"])
    known = "lens|queries|max_length|rate|stride_(train|test)|(train|test)_inputs_seed[0-9]+"
    yield "oad_layers/keys", partial(no_unknown, facts, known)
    layers = [key for key in data if key.startswith("layers/")]
    arrays = "(train|test|batch)_(frame_ids|num_masked_keys)|batch_session_first_last_numframes"
    yield "layers/keys", partial(no_unknown, layers, f"layers/({arrays})")
    for key in (key for key in facts if "_inputs_seed" in key):
        yield f"oad_layers/{key}", partial(_inputs, facts, key)
    for split in ("train", "test", "batch"):
        if f"layers/{split}_frame_ids" in data:
            yield f"layers/{split}", partial(_layer, data, facts, split)


def _windows(facts: dict[str, Any]) -> OnlineWindows:
    return OnlineWindows(facts["queries"], 1, facts["max_length"], facts["rate"])


def _inputs(facts: dict[str, Any], key: str) -> None:
    """Sessions and bounds of all windows after a shuffle with the seed that the key ends with."""
    split, _, seed = key.partition("_inputs_seed")
    windows, stride = _windows(facts), facts[f"stride_{split}"]
    rng = np.random.default_rng(int(seed))
    ours = []
    for session, length in facts["lens"].items():
        training = split == "train"
        offset = int(rng.choice(windows.work_length)) if training else 0
        rest = "drop" if training else "keep"
        for start in windows.starts(length, offset=offset, stride=stride if stride > 0 else None, rest=rest).tolist():
            ours.append([session, start, start + windows.work_length])
    assert ours == facts[key]


def _layer(data: Mapping[str, np.ndarray], facts: dict[str, Any], split: str) -> None:
    windows, sessions = _windows(facts), list(facts["lens"])
    items: list[tuple[int, Window]]
    if split == "batch":
        items = [
            (i, windows.test(start))
            for i, length in enumerate(facts["lens"].values())
            for start in windows.every_start(length).tolist()
        ]
        rows = [[i, item.work[0], item.work[-1], facts["lens"][sessions[i]]] for i, item in items]
        assert rows == data["layers/batch_session_first_last_numframes"].tolist()
    else:
        inputs = next(value for key, value in facts.items() if key.startswith(f"{split}_inputs_seed"))
        make = windows.train if split == "train" else windows.test
        items = [(sessions.index(session), make(start)) for session, start, _ in inputs]
    frames = [[*item.long.tolist(), *item.work.tolist()] for _, item in items]
    assert frames == data[f"layers/{split}_frame_ids"].tolist()
    assert [item.num_masked for _, item in items] == data[f"layers/{split}_num_masked_keys"].tolist()


# Frames with and without a gradient among what the end-to-end model gives: oad_e2e.npz


def _end_to_end(path: Path) -> Cases:
    data = read(path)
    settings = from_json(data["settings"])
    frames = settings["long"] + settings["work_module"][0]
    runs = [run for run in settings["runs"] if run["mode"] == "sbp"]
    for run in runs:
        yield f"{run['tag']}/frames", partial(_run_frames, data, run, frames)
    yield from sbp_e2e_checks.cases(path)


def _run_frames(data: Mapping[str, np.ndarray], run: dict[str, Any], frames: int) -> None:
    jitter = TorchRng(run["seed"]) if run.get("strategy", "uniform") == "uniform_jitter" else None
    kept = kept_frames(frames, run["rate"], jitter)
    assert kept.tolist() == data[f"{run['tag']}/grad_idx"].tolist()
    assert np.setdiff1d(np.arange(frames), kept).tolist() == data[f"{run['tag']}/no_grad_idx"].tolist()


CHECKERS = MappingProxyType({"functions": _functions, "oad_e2e": _end_to_end, **sbp_model_checks.CHECKERS})
