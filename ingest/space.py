"""Is there room for what is to be converted? Asked before the first video is decoded, answered from headers."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from ingest.catalog import Catalog
from ingest.errors import ClipmillError, VideoError
from ingest.options import ConvertOptions
from ingest.pictures import Codec
from ingest.plan import Job
from ingest.stores import frames_db, frames_npy, raw_frames
from ingest.units import size
from ingest.video import VideoInfo, probe

_NUM_PROBED = 50
_NUM_KNOWN = 20

_BYTES_PER_PIXEL: dict[Codec, tuple[float, float]] = {"jpeg": (0.05, 0.25), "webp": (0.02, 0.18), "png": (0.6, 1.5)}
"""(as little as plain pictures take, the usual) at quality 90: the table of docs/formats.md, and up to a fifth more, as
SQLite leaves the ends of pages free.
"""


def check_space(catalog: Catalog, root: Path, options: ConvertOptions, jobs: Sequence[Job]) -> list[str]:
    """Notes for the user, none when there is room or nothing can be said.

    From what finished videos of the same settings have taken per second, if there are enough; else from pixels.

    Raises: ClipmillError when not even the least that the videos can take is free.
    """
    sample = random.Random(0).sample(list(jobs), min(_NUM_PROBED, len(jobs)))
    asked = [(_duration_s(job, info), info) for job in sample if (info := _probe(job)) is not None]
    if not asked:
        return []
    scale = len(jobs) / len(sample)
    known = _known_bytes_per_s(catalog, options)
    if known is not None:
        usual = known * scale * sum(duration_s for duration_s, _ in asked)
        least = usual / 2
    else:
        quality = 1.0 if options.codec == "png" else max(0.3, options.quality / 90)
        low, middle = (quality * per_pixel for per_pixel in _BYTES_PER_PIXEL[options.codec])
        pictures = scale * sum(duration_s * _pixels_per_s(info, options) for duration_s, info in asked)
        arrays = scale * sum(duration_s * _array_bytes_per_s(info, options) for duration_s, info in asked)
        least, usual = low * pictures + arrays, middle * pictures + arrays
    free = shutil.disk_usage(root).free
    if least > free:
        raise ClipmillError(
            f"{len(jobs):,} videos will take some {size(usual)}, at least {size(least)}; {size(free)} are free on {root}.",
            "Nothing was converted.",
            "Make room, or ask for less (--quality, --short-side, --store). clipmill ingest forecast looks closer; with"
            " --ignore-space the run goes on until the disk is full, and stops cleanly.",
        )
    if usual > free:
        return [f"It may not fit: some {size(usual)} are to be expected, {size(free)} are free."]
    return []


def _probe(job: Job) -> VideoInfo | None:
    try:
        return probe(job.source)
    except (VideoError, OSError):
        return None


def _duration_s(job: Job, info: VideoInfo) -> float:
    if job.span_s is None:
        return info.duration_s
    return max(0.0, min(job.span_s[1], info.duration_s or job.span_s[1]) - job.span_s[0])


def _sizes(info: VideoInfo, short_sides: Sequence[int]) -> list[int]:
    """Pixels of the levels."""
    if min(info.width, info.height) < 1:
        return [0]
    return [level.width * level.height for level in frames_db.plan_levels(info.width, info.height, short_sides)]


def _pixels_per_s(info: VideoInfo, options: ConvertOptions) -> float:
    levels = _sizes(info, options.short_sides)
    pixels = sum(levels) if frames_db.STORE in options.stores else 0
    pixels += levels[0] if raw_frames.STORE in options.stores else 0
    return pixels * (options.fps or info.fps)


def _array_bytes_per_s(info: VideoInfo, options: ConvertOptions) -> float:
    return 3 * _sizes(info, options.short_sides)[0] * options.npy_fps if frames_npy.STORE in options.stores else 0.0


def _known_bytes_per_s(catalog: Catalog, options: ConvertOptions) -> float | None:
    """What finished videos of these settings take per second of video, None if there are too few."""
    count, duration_s, num_bytes = catalog.db.execute(
        "SELECT COUNT(*), TOTAL(duration_s), TOTAL(b) FROM (SELECT duration_s, (SELECT SUM(f) FROM (SELECT"
        " MAX(file_bytes, SUM(num_bytes)) f FROM outputs WHERE video = videos.id GROUP BY store)) b"
        " FROM videos WHERE state = 'ok' AND settings = ?)",
        (options.settings,),
    ).fetchone()
    return num_bytes / duration_s if count >= _NUM_KNOWN and duration_s > 0 else None
