"""Features for online detection: a backbone over the frames of untrimmed videos, one row for every quarter of a second.

    24 fps     0 1 2 3 4 5 | 6 7 8 9 10 11 | ...      chunks of six frames; row r covers [r/4, (r+1)/4) s
    image            x              x                 a 2D backbone sees the fourth frame of a chunk
    clip       x x x x x x    x x x x  x  x           a 3D backbone sees all six

An array at 4 frames per second (clipmill ingest convert --store npy) holds the fourth frames already; from it, a clip is
the row's frame and those before it. Source: the authors of LSTR on their features; MMAction2's TSN test pipeline.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ingest.atomic import remove_leftovers, replacing, write_text
from ingest.errors import ClipmillError, VideoError
from ingest.rates import RateSampler
from ingest.scaling import Scaler, to_rgb
from ingest.stores.frames_npy import open_frames
from ingest.video import Video, displayed_size, file_digest, is_video_name, timed_frames

MANIFEST = "features.json"
ROWS_PER_S = 4
CHUNK = 6

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class FrameSpec:
    """What a backbone is shown: short side and centre crop in pixels (crop 0: the whole frame), colours of 0 to 255.

    `clip_frames` is 0 for a 2D backbone, else the frames of a clip; from videos these are the six of a chunk.
    """

    short_side: int = 256
    crop: int = 224
    clip_frames: int = 0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


class Backbone(Protocol):
    """Frames float (B, 3, H, W), or clips (B, 3, T, H, W), to features (B, size)."""

    def __call__(self, frames: Tensor) -> Tensor: ...


# Frames of every row


def frames_of(path: Path, spec: FrameSpec) -> Iterator[np.ndarray]:
    """What the backbone is shown for every row, uint8 (H, W, 3), or (T, H, W, 3) for clips.

    Raises: VideoError for a video or an array that is not whole.
    """
    return _array_rows(path, spec) if path.suffix == ".npy" else _video_rows(path, spec)


def _array_rows(path: Path, spec: FrameSpec) -> Iterator[np.ndarray]:
    frames = open_frames(path)
    if not spec.clip_frames:
        yield from (_fitted(frame, spec) for frame in frames)
        return
    held: list[np.ndarray] = []
    for frame in frames:
        now = _fitted(frame, spec)
        held = [*(held or [now] * spec.clip_frames), now][-spec.clip_frames :]
        yield np.stack(held)


def _video_rows(path: Path, spec: FrameSpec) -> Iterator[np.ndarray]:
    if not spec.clip_frames:
        yield from video_frames(path, ROWS_PER_S, spec)
        return
    frames = video_frames(path, ROWS_PER_S * CHUNK, spec)
    while len(chunk := list(itertools.islice(frames, CHUNK))) == CHUNK:
        yield np.stack(chunk)


def video_frames(path: Path, fps: float, spec: FrameSpec) -> Iterator[np.ndarray]:
    """Frames of a video at `fps`, upright, scaled and cropped, uint8 (H, W, 3)."""
    with Video(path) as video:
        sampler: RateSampler[np.ndarray | None] = RateSampler(fps)
        step_us = round(1e6 / video.info.fps) if video.info.fps > 0 else 40_000
        scaler: Scaler | None = None
        now_us = 0
        shown = None
        for now_us, frame in timed_frames(video):
            if scaler is None:
                scaler = Scaler(_scaled_size(*displayed_size(frame), spec.short_side))
            for _, ready in sampler.push(now_us, shown := frame):  # type: ignore[arg-type]
                yield _cropped(to_rgb(*scaler(ready)), spec.crop)  # type: ignore[arg-type]
        if scaler is not None and shown is not None:
            for _, ready in sampler.finish(now_us + step_us):
                yield _cropped(to_rgb(*scaler(ready)), spec.crop)  # type: ignore[arg-type]


def _scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    scale = short_side / min(width, height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _fitted(frame: np.ndarray, spec: FrameSpec) -> np.ndarray:
    height, width = frame.shape[:2]
    if min(height, width) != spec.short_side:
        size = _scaled_size(width, height, spec.short_side)
        frame = cv2.resize(np.asarray(frame), size, interpolation=cv2.INTER_AREA)
    return _cropped(np.asarray(frame), spec.crop)


def _cropped(frame: np.ndarray, crop: int) -> np.ndarray:
    """The centre of a frame; 0 keeps all of it."""
    height, width = frame.shape[:2]
    side = min(crop or max(height, width), height, width) if crop else 0
    if not side:
        return frame
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(frame[top : top + side, left : left + side])


# Features


@torch.inference_mode()
def features_of(
    rows: Iterable[np.ndarray], backbone: Backbone, spec: FrameSpec, *, batch_size: int, device: torch.device
) -> np.ndarray:
    """Features float32 (T, size) of the rows, `batch_size` at a time."""
    found = []
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, batch_size)):
        found.append(backbone(normalized(np.stack(batch), spec, device)).float().cpu().numpy())
    if not found:
        raise VideoError("no frames", "the video is shorter than one row of features")
    return np.concatenate(found)


def normalized(frames: np.ndarray, spec: FrameSpec, device: torch.device) -> Tensor:
    """uint8 (B, H, W, 3) or (B, T, H, W, 3) to float (B, 3, [T,] H, W), (x - mean) / std."""
    pixels = torch.from_numpy(frames).to(device).float()
    pixels = (pixels - torch.tensor(spec.mean, device=device)) / torch.tensor(spec.std, device=device)
    return pixels.movedim(-1, 1)


@dataclass
class ExtractReport:
    """Sessions whose features were made now, that were there already, and that could not be made, with why."""

    made: list[str]
    there: list[str]
    failed: dict[str, str]


def sources_of(source: Path) -> list[Path]:
    """The videos and arrays of a folder, by name, or the one file. Raises: ClipmillError when there are none, or two of a name."""
    paths = sorted(p for p in source.rglob("*") if _is_source(p)) if source.is_dir() else [source]
    names = [path.stem for path in paths]
    if not paths:
        raise ClipmillError(f"{source} holds neither videos nor .npy arrays.", "No features were made.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ClipmillError(
            f"{source} holds {twice[0]} twice.", "No features were made.", "Rename one, or give its folder."
        )
    return paths


def _is_source(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and (path.suffix == ".npy" or is_video_name(path.name))


def extract(
    source: Path,
    out: Path,
    backbone: nn.Module,
    spec: FrameSpec,
    about: dict[str, object],
    *,
    batch_size: int = 64,
    device: torch.device | None = None,
    tell: Callable[[str], None] = print,
) -> ExtractReport:
    """Write `<out>/<name>.npy` (T, size) for every video or array of `source`; what is there already is left.

    `about` (backbone, weights) and the spec are kept in `features.json`, so that a folder never holds features of two kinds.
    A source that cannot be read is named in the report, the others go on. Raises: ClipmillError for a folder of other features.
    """
    device = device or torch.device("cpu")
    paths = sources_of(source)
    _claim(out, about | asdict(spec))
    remove_leftovers(out)
    backbone = backbone.to(device)
    report = ExtractReport([], [], {})
    for number, path in enumerate(paths, 1):
        target = out / f"{path.stem}.npy"
        if target.exists():
            report.there.append(path.stem)
            continue
        try:
            rows = features_of(frames_of(path, spec), backbone, spec, batch_size=batch_size, device=device)
        except (VideoError, OSError) as error:
            report.failed[path.stem] = str(error)
            tell(f"{number}/{len(paths)} {path.stem}: {error}")
            continue
        with replacing(target) as temporary, temporary.open("wb") as file:
            np.save(file, rows)
        report.made.append(path.stem)
        tell(f"{number}/{len(paths)} {path.stem}: {rows.shape[0]} rows of {rows.shape[1]}")
    return report


def _claim(out: Path, about: dict[str, object]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    about = json.loads(json.dumps(about))
    path = out / MANIFEST
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != about:
            other = [
                f"{key}: {before.get(key)} there, {about.get(key)} now"
                for key in about
                if before.get(key) != about[key]
            ]
            raise ClipmillError(
                f"{out} holds features of another kind ({'; '.join(other)}).",
                "No features were made.",
                "Write to another folder.",
            )
        return
    write_text(path, json.dumps(about, indent=1) + "\n")


def about_backbone(name: str, weights: Path | None, width: int, seed: int) -> dict[str, object]:
    """What tells one kind of features from another."""
    return {"backbone": name, "weights": file_digest(weights) if weights else f"random, seed {seed}", "width": width}
