"""What the trainer receives, for the eye: a contact sheet of clips with their frame numbers, and the same as an animation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ingest.atomic import replacing
from loaders.loader import ClipBatch, ClipLoader

_TEXT_PX, _GAP_PX = 16, 4
_MOST_ACROSS = 16
_PAPER, _INK = 245, 20


@dataclass(frozen=True)
class Preview:
    """The files that were written, and what they show: (video, label, view, frame numbers) per clip."""

    sheet: Path
    animation: Path
    clips: list[tuple[str, str, int, list[int]]]


def preview(loader: ClipLoader, out: Path, *, num_clips: int = 8, fps: float = 8.0) -> Preview:
    """Write `preview.png` and `preview.webp` into `out` from the next clips of the loader."""
    frames: list[np.ndarray] = []
    about: list[tuple[str, str, int, list[int]]] = []
    for batch in _batches(loader):
        pictures = batch.frames.numpy() if loader.spec.colour == "RGB" else batch.frames.numpy()[..., ::-1]
        for row in range(len(batch)):
            label = int(batch.labels[row])
            name = loader.dataset.class_names[label] if label >= 0 else ""
            about.append((batch.video_ids[row], name, int(batch.view[row]), batch.frame_indices[row].tolist()))
            frames.append(pictures[row].copy())
        if len(frames) >= num_clips:
            break
    frames, about = frames[:num_clips], about[:num_clips]
    out.mkdir(parents=True, exist_ok=True)
    found = Preview(out / "preview.png", out / "preview.webp", about)
    views = loader.spec.num_views > 1
    with replacing(found.sheet) as temporary:
        Image.fromarray(_sheet(frames, about, views)).save(temporary, "PNG")
    shots = [Image.fromarray(shot) for shot in _animation(frames, about, views)]
    with replacing(found.animation) as temporary:
        shots[0].save(
            temporary, "WEBP", save_all=True, append_images=shots[1:], duration=round(1000 / fps), loop=0, quality=90
        )
    return found


def _batches(loader: ClipLoader) -> Iterator[ClipBatch]:
    """Batch after batch, over the ends of epochs; twice nothing is the end."""
    while True:
        before = loader.epoch
        yield from loader
        if loader.epoch > before + 1 or not len(loader):
            return


def _title(about: tuple[str, str, int, list[int]], views: bool) -> str:
    video, label, view, _ = about
    return f"{label}: {video}" + (f", view {view}" if views else "")


def _sheet(frames: Sequence[np.ndarray], about: Sequence[tuple[str, str, int, list[int]]], views: bool) -> np.ndarray:
    """One row per clip: its title, its frames (at most 16, spread over it), and under each its number in the video."""
    rows = []
    for clip, what in zip(frames, about, strict=True):
        chosen = np.unique(np.linspace(0, len(clip) - 1, min(len(clip), _MOST_ACROSS)).round().astype(int))
        tiles = [_under(_boxed(clip[t]), str(what[3][t])) for t in chosen]
        row = np.hstack(tiles)
        rows.append(np.vstack([_text(_title(what, views), row.shape[1]), row]))
    width = max(row.shape[1] for row in rows)
    return np.vstack(
        [np.pad(row, ((0, _GAP_PX), (0, width - row.shape[1]), (0, 0)), constant_values=_PAPER) for row in rows]
    )


def _animation(
    frames: Sequence[np.ndarray], about: Sequence[tuple[str, str, int, list[int]]], views: bool
) -> Iterator[np.ndarray]:
    """All clips side by side, frame after frame."""
    across = min(len(frames), max(1, round(np.sqrt(2 * len(frames)))))
    for t in range(max(map(len, frames))):
        tiles = []
        for clip, what in zip(frames, about, strict=True):
            now = min(t, len(clip) - 1)
            tile = _under(_boxed(clip[now]), f"{what[3][now]}  {_title(what, views)}")
            tiles.append(tile)
        while len(tiles) % across:
            tiles.append(np.full_like(tiles[0], _PAPER))
        yield np.vstack([np.hstack(tiles[i : i + across]) for i in range(0, len(tiles), across)])


def _boxed(frame: np.ndarray) -> np.ndarray:
    return np.pad(frame, ((0, 0), (0, _GAP_PX), (0, 0)), constant_values=_PAPER)


def _under(frame: np.ndarray, words: str) -> np.ndarray:
    return np.vstack([frame, _text(words, frame.shape[1])])


def _text(words: str, width: int) -> np.ndarray:
    strip = np.full((_TEXT_PX, width, 3), _PAPER, np.uint8)
    plain = words.encode("ascii", "replace").decode()  # OpenCV's own font has no other letters.
    return cv2.putText(strip, plain, (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (_INK, _INK, _INK), 1, cv2.LINE_AA)
