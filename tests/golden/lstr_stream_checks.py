"""LSTR's inference against the authors' code: frame by frame and one window per frame (stream.npz)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from tests.golden.lstr_network_checks import MEMORIES, MODEL, build, fill, windows_of
from tests.golden.vectors import close, filled_input, from_json, no_unknown, read
from trainers.lstr.inference import VideoScores, score_video
from trainers.lstr.split import SplitLstr
from trainers.lstr.stream import LSTRStream
from trainers.per_frame_metrics import PostProcessing, per_frame, thumos

Cases = Iterable[tuple[str, Callable[[], None]]]
Data = Mapping[str, np.ndarray]

_ROWS = ("stream_long_indices", "stream_num_masked", "stream_new_long_frames", "batch_long_indices", "batch_num_masked")


def _stream(path: Path) -> Cases:
    data = read(path)
    clip = (
        f"target|(batch|stream)_(scores|mean_AP)|{'|'.join(_ROWS)}|same_window|step\\d+/(compressed_long_memory|logits)"
    )
    for case in sorted({key.partition("/")[0] for key in data}):
        keys = [key.partition("/")[2] for key in data if key.startswith(f"{case}/")]
        yield f"{case}/keys", partial(no_unknown, keys, "settings|inputs|names|shapes", clip, "(target|pred|gt)/.+|log")
        if f"{case}/stream_long_indices" in data:
            yield f"{case}/rows", partial(_rows, data, case)
        if f"{case}/stream_scores" in data:
            yield f"{case}/stream", partial(_clip_stream, data, case)
            yield f"{case}/exact", partial(_clip_exact, data, case)
        if f"{case}/batch_scores" in data:
            yield f"{case}/batch", partial(_clip_batch, data, case)
        if any(key.startswith("pred/") for key in keys):
            yield f"{case}/sessions", partial(_sessions, data, case)


def _rows(data: Data, case: str) -> None:
    """Rows that the stream and the batch inference read."""
    windows = windows_of(from_json(data[f"{case}/settings"]))
    steps = range(len(data[f"{case}/stream_long_indices"]))
    streamed = [windows.long_in_stream(step) for step in steps]
    batched = [windows.long_at_rate(step) for step in steps]
    ours = {
        "stream_long_indices": [rows.tolist() for rows in streamed],
        "stream_num_masked": [windows.num_masked(rows) for rows in streamed],
        "stream_new_long_frames": [windows.new_in_stream(step) for step in steps],
        "batch_long_indices": [rows.tolist() for rows in batched],
        "batch_num_masked": [windows.num_masked(rows) for rows in batched],
        "same_window": [bool((a == b).all()) for a, b in zip(streamed, batched, strict=True)],
    }
    for key, rows in ours.items():
        assert rows == data[f"{case}/{key}"].tolist(), key


def _case(data: Data, case: str) -> tuple[SplitLstr, dict[str, Any], dict[str, Any]]:
    settings, inputs = from_json(data[f"{case}/settings"]), from_json(data[f"{case}/inputs"])
    no_unknown(settings, MODEL, MEMORIES, "sessions|pkl_keys")
    no_unknown(inputs, "salt", r".+\.(visual|motion)")
    model = fill(build(settings), data[f"{case}/names"], data[f"{case}/shapes"], inputs["salt"])
    return SplitLstr(model), settings, inputs


def _clip(inputs: Mapping[str, Any]) -> list[torch.Tensor]:
    return [filled_input(name, inputs[name], inputs["salt"]) for name in ("clip.visual", "clip.motion")]


def _clip_stream(data: Data, case: str) -> None:
    """The published state machine: scores of every frame, and on the way the compressed memory and all logits."""
    split, settings, inputs = _case(data, case)
    visual, motion = _clip(inputs)
    windows = windows_of(settings)
    stream = LSTRStream(split, windows, "reference")
    scores = []
    wanted = {int(key.split("/")[1].removeprefix("step")) for key in data if key.startswith(f"{case}/step")}
    for frame in range(len(visual)):
        score = stream.push(visual[frame], motion[frame])
        assert score is not None
        scores.append(score)
        step = frame - windows.work_length + 1
        if step in wanted:
            key = f"{case}/step{step}"
            assert stream.compressed is not None
            close(f"{key} memory", stream.compressed[:, 0], data[f"{key}/compressed_long_memory"], 1e-5, scale=1.0)
            close(f"{key} logits", stream.window_logits(), data[f"{key}/logits"], 1e-5, scale=1.0)
    close("scores", torch.stack(scores), data[f"{case}/stream_scores"], 1e-5, scale=1.0)
    _mean_ap(data[f"{case}/target"], torch.stack(scores).numpy(), settings, data[f"{case}/stream_mean_AP"])


def _clip_exact(data: Data, case: str) -> None:
    """Our exact stream gives what the authors' batch inference gives, at every frame."""
    split, settings, inputs = _case(data, case)
    stream = LSTRStream(split, windows_of(settings), "exact")
    for _ in range(2):  # A second time after a reset: nothing of the first video is left.
        stream.reset()
        scores = [stream.push(*rows) for rows in zip(*_clip(inputs), strict=True)]
        close(
            "scores", torch.stack([s for s in scores if s is not None]), data[f"{case}/batch_scores"], 1e-5, scale=1.0
        )


def _clip_batch(data: Data, case: str) -> None:
    split, settings, inputs = _case(data, case)
    found = score_video(split, windows_of(settings), *_clip(inputs))
    assert found.decided.all()
    close("scores", found.scores, data[f"{case}/batch_scores"], 1e-5, scale=1.0)
    _mean_ap(data[f"{case}/target"], found.scores, settings, data[f"{case}/batch_mean_AP"])


def _sessions(data: Data, case: str) -> None:
    """Several videos, one of them perhaps too short for a window, as they were written for evaluation."""
    split, settings, inputs = _case(data, case)
    windows = windows_of(settings)
    found: dict[str, VideoScores] = {}
    targets: dict[str, np.ndarray] = {}
    for session, num_rows in settings["sessions"].items():
        streams = [
            filled_input(f"{session}.{name}", (num_rows, settings[f"{name}_feature_size"]), inputs["salt"])
            for name in ("visual", "motion")
        ]
        result = score_video(split, windows, *streams)
        if not result.decided.any():
            assert f"{case}/pred/{session}" not in data
            continue
        found[session] = result
        targets[session] = data[f"{case}/target/{session}"] * result.decided[:, None]
        close(f"scores of {session}", result.scores, data[f"{case}/pred/{session}"], 1e-5, scale=1.0)
        assert (targets[session] == data[f"{case}/gt/{session}"]).all(), session
    line = str(data[f"{case}/log"][0])
    scores = np.concatenate([each.scores for each in found.values()])
    metric = "cAP" if "mcAP" in line else "AP"
    expected = np.array(float(line.rpartition(" ")[2]))
    _mean_ap(np.concatenate(list(targets.values())), scores, settings, expected, metric, 1e-5)


def _mean_ap(
    targets: np.ndarray,
    scores: np.ndarray,
    settings: Mapping[str, Any],
    expected: np.ndarray,
    metric: Any = None,
    tolerance: float = 1e-6,
) -> None:
    process = thumos() if settings["data_name"] == "THUMOS" else PostProcessing()
    names = [str(column) for column in range(settings["num_classes"])]
    found = per_frame(
        *process(targets.astype(np.float64), scores.astype(np.float64)),
        names,
        metric=metric or ("cAP" if settings["data_name"] == "TVSeries" else "AP"),
        ignore_index=settings["ignore_index"],
    )
    close("mean AP", found["mean_AP"], expected, tolerance, scale=1.0)


CHECKERS: Mapping[str, Any] = MappingProxyType({"stream": _stream})
