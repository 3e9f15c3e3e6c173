"""What a conversion will take, before it is begun: converts a few videos for trial, and scales up by duration."""

from __future__ import annotations

import contextlib
import json
import math
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from ingest.catalog import VideoRecord
from ingest.convert import Progress
from ingest.convert_video import convert_video
from ingest.errors import ClipmillError, VideoError
from ingest.executors import run_jobs
from ingest.options import ConvertOptions
from ingest.plan import Job
from ingest.sinks import Target
from ingest.stores import frames_db
from ingest.video import probe

NUM_SAMPLED = 20
NUM_PROBED = 400
_NUM_ALONE = 4  # Videos that are converted again for each level alone, to tell the levels' times apart.


@dataclass(frozen=True)
class LevelForecast:
    """One level of one store. `seconds_per_s`: work per second of video when it is made alone, decoding included."""

    store: str
    short_side: int
    bytes_per_s: float
    seconds_per_s: float
    num_bytes: float


@dataclass(frozen=True)
class Forecast:
    """`num_bytes` and `seconds` of the whole set; `*_error`: one standard error of what the sample can tell.

    `duration_s` is that of all videos that open, `work_per_s` the seconds of one worker per second of video. `failed`
    are sampled videos that do not convert, as (class, id, reason, message). `free_bytes` is None without a target.
    """

    videos: int
    probed: int
    unreadable: int
    sampled: int
    duration_s: float
    duration_error_s: float
    num_bytes: float
    num_bytes_error: float
    work_per_s: float
    seconds: float
    seconds_error: float
    workers: int
    levels: list[LevelForecast] = field(default_factory=list)
    failed: list[tuple[str, str, str, str]] = field(default_factory=list)
    free_bytes: int | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the result, two standard errors above the forecast, fits the target; None without a target."""
        return None if self.free_bytes is None else self.num_bytes + 2 * self.num_bytes_error <= self.free_bytes

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"fits": self.fits}, indent=2)


@dataclass(frozen=True)
class _Measured:
    record: VideoRecord
    seconds: float
    file_bytes: int


def forecast(
    jobs: Sequence[Job],
    options: ConvertOptions,
    *,
    num_workers: int,
    root: Path | None = None,
    seed: int = 0,
    num_sampled: int = NUM_SAMPLED,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Forecast:
    """Convert a sample of the jobs into a temporary folder, which is gone afterwards, and scale up.

    The same jobs and seed give the same sample. With `root`, its free space is compared; nothing is written there.

    Raises: ClipmillError when no sampled video converts, or the temporary folder is full.
    """
    rng = random.Random(seed)
    probed = rng.sample(list(jobs), min(NUM_PROBED, len(jobs)))
    lasting = {job: duration for job in probed if (duration := _duration_s(job)) is not None}
    durations = list(lasting.values())
    sample = probed[:num_sampled]
    alone = sample[:_NUM_ALONE] if len(_levels(options)) > 1 else []
    progress = Progress(len(sample) + len(alone) * len(_levels(options)), started_s=time.monotonic())
    measured = _measure(sample, options, num_workers, progress, on_progress)
    good = [one for one in measured if one.record.state == "ok" and one.record.duration_s > 0]
    failed = [
        (one.record.key.class_name, one.record.key.video_id, one.record.reason, one.record.message)
        for one in measured
        if one.record.state != "ok"
    ]
    if not good or not durations:
        raise ClipmillError(
            f"none of {len(sample)} sampled videos converts"
            + (f"; the first one: {failed[0][1]}: {failed[0][2]}: {failed[0][3]}." if failed else "."),
            "There is nothing to forecast from.",
            "Look at that file, or convert all the same: every failure is recorded with its reason.",
        )
    total = len(jobs)
    opened = [one for job, one in zip(sample, measured, strict=True) if job in lasting]
    share = len(durations) / len(probed) * sum(one.record.state == "ok" for one in opened) / max(len(opened), 1)
    duration_s, duration_error_s = _total(durations, len(probed), total)
    duration_s, duration_error_s = duration_s * share, duration_error_s * share
    lengths = [one.record.duration_s for one in good]
    bytes_per_s, bytes_error = _ratio([one.file_bytes for one in good], lengths, total)
    work_per_s, work_error = _ratio([one.seconds for one in good], lengths, total)
    levels = []
    for store, side in _levels(options):
        per_s = sum(_bytes_of(one.record, options, store, side) for one in good) / sum(lengths)
        work = work_per_s
        if alone:
            only = replace(options, short_sides=(side,), stores=(store,))
            again = [
                one for one in _measure(alone, only, num_workers, progress, on_progress) if one.record.state == "ok"
            ]
            length_s = sum(one.record.duration_s for one in again)
            work = sum(one.seconds for one in again) / length_s if length_s else work_per_s
        levels.append(LevelForecast(store, side, per_s, work, per_s * duration_s))
    return Forecast(
        videos=total,
        probed=len(probed),
        unreadable=len(probed) - len(durations),
        sampled=len(sample),
        duration_s=duration_s,
        duration_error_s=duration_error_s,
        num_bytes=bytes_per_s * duration_s,
        num_bytes_error=math.hypot(bytes_error * duration_s, bytes_per_s * duration_error_s),
        work_per_s=work_per_s,
        seconds=work_per_s * duration_s / num_workers,
        seconds_error=math.hypot(work_error * duration_s, work_per_s * duration_error_s) / num_workers,
        workers=num_workers,
        levels=levels,
        failed=failed,
        free_bytes=None if root is None else shutil.disk_usage(_existing(root)).free,
    )


def _levels(options: ConvertOptions) -> list[tuple[str, int]]:
    sides = sorted(set(options.short_sides), reverse=True)
    return [(store, side) for store in options.stores for side in (sides if store == frames_db.STORE else sides[:1])]


def _bytes_of(record: VideoRecord, options: ConvertOptions, store: str, side: int) -> int:
    """Bytes that a record has for a level that was asked for: a video below two of them is stored once, as the larger."""
    own = min(record.width, record.height)
    asked = [
        other for other_store, other in _levels(options) if other_store == store and min(other, own) == min(side, own)
    ]
    if side != max(asked):
        return 0
    return sum(o.num_bytes for o in record.outputs if o.store == store and o.short_side == min(side, own))


def _measure(
    jobs: Sequence[Job],
    options: ConvertOptions,
    num_workers: int,
    progress: Progress,
    on_progress: Callable[[Progress], None],
) -> list[_Measured]:
    """What each job takes, in the order of the jobs."""
    found: dict[Job, _Measured] = {}
    with tempfile.TemporaryDirectory(prefix="clipmill-forecast-") as folder:
        outcomes = run_jobs(partial(_convert_once, Path(folder), options), jobs, num_workers=num_workers)
        with contextlib.closing(outcomes):  # type: ignore[type-var]
            for outcome in outcomes:
                if outcome is not None:
                    job = outcome.job
                    record = VideoRecord(job.key, "failed", reason=outcome.reason, message=outcome.message)
                    one = outcome.result or _Measured(record, 0.0, 0)
                    found[job] = one
                    progress.done += one.record.state == "ok"
                    progress.failed += one.record.state != "ok"
                    progress.frames += one.record.num_frames
                on_progress(progress)
    return [found[job] for job in jobs]


def _convert_once(folder: Path, options: ConvertOptions, job: Job) -> _Measured:
    """In a worker: convert one video, and remove what came of it, so that the folder stays small."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        start_s = time.perf_counter()
        record = convert_video(Target(Path(own)), options, job)
        seconds = time.perf_counter() - start_s
        file_bytes = sum(path.stat().st_size for path in Path(own).rglob("*") if path.is_file())
    return _Measured(record, seconds, file_bytes)


def _duration_s(job: Job) -> float | None:
    """Seconds that a job stores, by the headers; None for a file that does not open or does not say."""
    try:
        whole = probe(job.source).duration_s
    except (VideoError, OSError):
        return None
    if job.span_s is not None:
        start, end = job.span_s
        whole = max(0.0, (min(end, whole) if whole else end) - start)
    return whole or None


def _total(values: Sequence[float], num_asked: int, total: int) -> tuple[float, float]:
    """The sum over all `total` videos, from the values of some, and its standard error (0 when all were asked)."""
    count = len(values)
    mean = sum(values) / count
    if count < 2 or num_asked >= total:
        return mean * total, 0.0
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return mean * total, total * math.sqrt(variance / count * (1 - num_asked / total))


def _ratio(values: Sequence[float], lengths: Sequence[float], total: int) -> tuple[float, float]:
    """Value per length over all, and its standard error: the ratio estimator of survey sampling (Cochran, chapter 6)."""
    count, ratio = len(values), sum(values) / sum(lengths)
    if count < 2 or count >= total:
        return ratio, 0.0
    variance = sum((v - ratio * x) ** 2 for v, x in zip(values, lengths, strict=True)) / (count - 1)
    return ratio, math.sqrt(variance / count * (1 - count / total)) / (sum(lengths) / count)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)
