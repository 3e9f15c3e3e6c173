"""Pictures of a dataset: frames out of its stores, and which clips make up a contact sheet."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import simplejpeg

from ingest import layout
from ingest.errors import ClipmillError, VideoError
from ingest.stores import frames_db, raw_frames
from service.datasets import Datasets, VideoFilter, labels_of
from service.models import Sheet, SheetClip
from service.problems import Problem

_LEAST_SHORT_SIDE_PX = 64
_MOST_SHORT_SIDE_PX = 192  # A larger frame is scaled down: a sheet has dozens of them.
_SUFFIXES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}


@dataclass(frozen=True)
class Image:
    """An encoded image and its media type."""

    blob: bytes
    media_type: str


class Frames:
    """Frames of the registered datasets. Videos are asked for by their number in the catalog, never by a path.

    Methods raise Problem: 404 for what is not there, 503 for what cannot be read.
    """

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets

    def sheet(self, name: str, wanted: VideoFilter, *, count: int, frames_per_clip: int, seed: int) -> Sheet:
        """`count` clips from all over the videos that pass, in the catalog's order; another seed shifts the choice."""
        where, values = wanted.where()
        with self._datasets.reading(name) as catalog:
            ids = [row[0] for row in catalog.db.execute(f"SELECT id FROM videos v WHERE {where} ORDER BY id", values)]
            chosen = [ids[place] for place in spread(len(ids), count, seed)]
            labels = labels_of(catalog, chosen)
            marks = ",".join("?" * len(chosen))
            rows = catalog.db.execute(
                "SELECT id, class_name, video_id, COALESCE(num_frames, 0), duration_s FROM videos"
                f" WHERE id IN ({marks}) ORDER BY id",
                chosen,
            ).fetchall()
        clips = [
            SheetClip(
                id=video,
                class_name=class_name,
                video_id=video_id,
                num_frames=num_frames,
                duration_s=duration_s,
                labels=labels.get(video, []),
                frames=[
                    f"/api/datasets/{quote(name, safe='')}/videos/{video}/frames/{frame}"
                    for frame in middles(num_frames, frames_per_clip)
                ],
            )
            for video, class_name, video_id, num_frames, duration_s in rows
        ]
        return Sheet(total=len(ids), seed=seed, clips=clips)

    def frame(self, name: str, video: int, frame: int) -> Image:
        root = self._datasets.root(name)
        with self._datasets.reading(name) as catalog:
            row = catalog.db.execute("SELECT class_name, video_id FROM videos WHERE id = ?", (video,)).fetchone()
            stores = {s for (s,) in catalog.db.execute("SELECT DISTINCT store FROM outputs WHERE video = ?", (video,))}
        if row is None:
            raise Problem(404, f"Dataset {name!r} has no video number {video}.")
        try:
            if frames_db.STORE in stores:
                return _smaller(_from_database(layout.frames_db_path(root, *row), frame))
            if raw_frames.STORE in stores:
                return _smaller(_from_folder(layout.raw_frames_dir(root, *row), frame))
        except VideoError as error:
            status = 404 if error.reason == "missing frame" else 503
            raise Problem(status, f"Dataset {name!r}, video {video}, frame {frame}: {error.reason}.") from None
        except (sqlite3.Error, OSError, ClipmillError, ValueError):
            raise Problem(503, f"Dataset {name!r}: the frames of video {video} cannot be read.") from None
        raise Problem(404, f"Dataset {name!r} stores no single frames of video {video}.")


def spread(total: int, count: int, seed: int) -> list[int]:
    """`count` places (fewer if there are not so many) spread evenly over 0 ... total - 1, shifted by the seed."""
    if total <= count:
        return list(range(total))
    first = np.random.default_rng(seed).integers(total) if seed else 0
    return sorted(int(first + i * total / count) % total for i in range(count))


def middles(num_frames: int, count: int) -> list[int]:
    """The middle frames of `count` equal parts of a video; each once where the video has fewer frames."""
    return sorted({int((i + 0.5) * num_frames / count) for i in range(count)}) if num_frames > 0 else []


def _from_database(path: Path, frame: int) -> bytes:
    db = frames_db.connect(path)
    try:
        levels: list[Any] = frames_db.read_meta(db)["levels"]
        enough = [level for level in levels if level.short_side >= _LEAST_SHORT_SIDE_PX]
        level = min(enough, key=lambda level: level.short_side) if enough else levels[0]
        return frames_db.read_frames(db, level, np.array([frame]))[0]
    finally:
        db.close()


def _from_folder(folder: Path, frame: int) -> bytes:
    suffix = str(raw_frames.read_meta(folder)["suffix"])
    try:
        return (folder / raw_frames.frame_name(frame, suffix)).read_bytes()
    except FileNotFoundError:
        raise VideoError("missing frame", "the folder has no such frame", frame) from None


def _smaller(blob: bytes) -> Image:
    """The image as it is stored; a large JPEG at half, a quarter or an eighth of its size."""
    media_type = next((kind for start, kind in _SUFFIXES.items() if blob.startswith(start)), None)
    if media_type is None:
        raise ValueError("an unknown kind of image")
    if media_type != "image/jpeg":
        return Image(blob, media_type)
    height, width, *_ = simplejpeg.decode_jpeg_header(blob)
    if min(height, width) <= _MOST_SHORT_SIDE_PX:
        return Image(blob, media_type)
    least = _LEAST_SHORT_SIDE_PX / min(height, width)
    pixels = simplejpeg.decode_jpeg(
        blob, "RGB", fastdct=True, min_height=int(height * least), min_width=int(width * least), min_factor=1
    )
    return Image(simplejpeg.encode_jpeg(pixels, quality=80), media_type)
