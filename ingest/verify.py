"""Is what a dataset root holds what the catalog says, and whole? Reads everything, mends nothing.

Two depths. The plain one reads every byte: file sizes, SQLite's own structure, counts, ids, times, and the checksum of
every frame of every level. The deep one also decodes every frame, which finds pictures that were broken before their
checksum was taken (imported ones, for example).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import sqlite_utils

from ingest import layout
from ingest.catalog import Catalog, Output, VideoKey
from ingest.convert import Progress
from ingest.errors import ClipmillError, VideoError
from ingest.executors import run_jobs
from ingest.options import SETTINGS_SEPARATOR
from ingest.stores import frames_db, frames_npy, raw_frames
from ingest.stores.frames_db import Level

_MOST_PER_VIDEO = 20
_VERIFICATIONS = {"id": int, "at": float, "deep": int, "videos": int, "frames": int, "problems": int, "seconds": float}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `kind` is one of a short list:

    no database   the catalog says ok, the file is not there
    damaged       the database is not what was written: structure, counts, ids, times or checksums
    array         the array of a lower rate is not whole, or not as long as the catalog says
    raw frames    a file of the raw frames is not there, not as it was written, or one too many
    n_frames      only the text file beside a whole database is wrong or absent
    catalog       the database is whole, the catalog says something else of it
    undecodable   a frame is no picture of its level's size (deep only)
    extra         a database that the catalog does not count among the finished ones
    crashed, timeout, unreadable    it could not be looked at
    """

    class_name: str
    video_id: str
    kind: str
    message: str

    @property
    def key(self) -> VideoKey:
        return VideoKey(self.class_name, self.video_id)

    @property
    def where(self) -> str:
        return f"{self.class_name or layout.UNCLASSED}/{self.video_id}"


@dataclass(frozen=True)
class Stored:
    """One finished video as the catalog has it: what verify compares the files with, and what repair works from."""

    key: VideoKey
    source: str
    source_bytes: int
    source_mtime_ns: int
    settings: str
    num_frames: int
    fps: float
    duration_s: float
    outputs: tuple[Output, ...]

    def of(self, store: str) -> list[Output]:
        """Outputs in one store, largest level first."""
        return sorted((o for o in self.outputs if o.store == store), key=lambda o: -o.short_side)


@dataclass(frozen=True)
class VerifyReport:
    """`videos` and `frames` (of the first level) were looked at; `findings` in the order of class and id."""

    deep: bool
    videos: int
    frames: int
    seconds: float
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Findings per kind, most frequent first."""
        return dict(Counter(finding.kind for finding in self.findings).most_common())

    @property
    def broken(self) -> list[VideoKey]:
        """Videos with a finding that repair can do something about, each once."""
        return list(dict.fromkeys(finding.key for finding in self.findings if finding.kind != "extra"))

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"counts": self.counts}, indent=2)


def findings_from_json(path: Path) -> list[Finding]:
    """The findings of a report that `to_json` wrote. Raises: ClipmillError when the file is no such report."""
    try:
        return [Finding(**row) for row in json.loads(path.read_text(encoding="utf-8"))["findings"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClipmillError(
            f"{path} is no report of clipmill ingest verify --json ({type(error).__name__}: {error}).",
            "Nothing was repaired.",
            f"Write it: clipmill ingest verify ROOT --json > {path}",
        ) from None


def stored_videos(catalog: Catalog) -> list[Stored]:
    """Every finished video of the catalog with its outputs, ordered by class and id."""
    outputs: dict[int, list[Output]] = {}
    for video, *output in catalog.db.execute(
        "SELECT video, store, short_side, width, height, num_frames, num_bytes, file_bytes FROM outputs"
    ):
        outputs.setdefault(video, []).append(Output(*output))
    rows = catalog.db.execute(
        "SELECT id, class_name, video_id, source, source_bytes, source_mtime_ns, settings, num_frames, fps, duration_s"
        " FROM videos WHERE state = 'ok' ORDER BY class_name, video_id"
    )
    return [Stored(VideoKey(c, v), *rest, tuple(outputs.get(i, ()))) for i, c, v, *rest in rows]  # type: ignore[call-arg]


def verify(
    root: Path,
    *,
    num_workers: int,
    deep: bool = False,
    timeout_s: float | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> VerifyReport:
    """Look at every finished video of the root and at what lies there beside. The catalog gets a line on the outcome.

    Raises: ClipmillError when there is no catalog, it cannot be read, or there is nothing at all to look at.
    """
    with Catalog.open(root) as catalog:
        try:
            structure = [row[0] for row in catalog.db.execute("PRAGMA quick_check")]
            stored = stored_videos(catalog)
            states = {
                VideoKey(c, v): state for c, v, state in catalog.db.execute("SELECT class_name, video_id, state FROM videos")
            }  # fmt: skip
        except sqlite3.DatabaseError as error:
            structure = [str(error)]
    if structure != ["ok"]:
        raise ClipmillError(
            f"{catalog.path} is damaged: {'; '.join(structure[:3])}.",
            "Nothing was verified.",
            "Move it away and ingest again; finished videos are taken in again without decoding.",
        )
    findings = list(_extra(root, states))
    if not stored and not findings:
        raise ClipmillError(
            f"{root} holds no finished video.",
            "There is nothing to verify.",
            f"Make some: clipmill ingest convert SRC {root}",
        )
    progress = Progress(len(stored), started_s=time.monotonic())
    outcomes = run_jobs(partial(verify_video, root, deep), stored, num_workers=num_workers, timeout_s=timeout_s)
    with contextlib.closing(outcomes):  # type: ignore[type-var]
        for outcome in outcomes:
            if outcome is not None:
                found = outcome.result
                if found is None:
                    found = [_finding(outcome.job.key, outcome.reason, outcome.message)]
                findings += found
                progress.done += not found
                progress.failed += bool(found)
                progress.frames += outcome.job.num_frames
            on_progress(progress)
    findings.sort(key=lambda f: (f.class_name, f.video_id))  # Stable: within a video as they were found.
    report = VerifyReport(deep, len(stored), progress.frames, progress.elapsed_s, findings, _notes(stored))
    if not _remember(root, report):
        report.notes.append("the catalog cannot be written now, so it does not remember this verification")
    return report


def verify_video(root: Path, deep: bool, stored: Stored) -> list[Finding]:
    """Everything wrong with one finished video, nothing when it is as the catalog says. At most 20 findings and a count."""
    key = stored.key
    found: list[Finding] = []
    if not stored.outputs:
        found.append(_finding(key, "catalog", "the catalog says ok and names no output"))
    try:
        if outputs := stored.of(frames_db.STORE):
            found += _check_frames_db(root, deep, stored, outputs)
        for output in stored.of(frames_npy.STORE):
            found += (_finding(key, "array", line) for line in _check_array(root, key.video_id, output))
        for output in stored.of(raw_frames.STORE):
            found += (_finding(key, "raw frames", line) for line in _check_raw_frames(root, key, output))
            if deep and not any(finding.kind == "raw frames" for finding in found):
                found += (_finding(key, "raw frames", line) for line in _undecodable_files(root, key, output))
    except OSError as error:
        found.append(_finding(key, "unreadable", f"{error.strerror or error}"))
    if len(found) > _MOST_PER_VIDEO:
        more = len(found) - _MOST_PER_VIDEO
        found[_MOST_PER_VIDEO:] = [_finding(key, found[-1].kind, f"... and {more} more of this video")]
    return found


def _check_frames_db(root: Path, deep: bool, stored: Stored, outputs: list[Output]) -> Iterator[Finding]:
    key = stored.key
    path = layout.frames_db_path(root, key.class_name, key.video_id)
    try:
        file_bytes = path.stat().st_size
    except FileNotFoundError:
        yield _finding(key, "no database", "frames.db is not there")
        return
    lines = list(frames_db.check(path))
    if file_bytes % frames_db.PAGE_BYTES:  # SQLite reads what is lost of the last page as zeros.
        lines.append(f"{file_bytes:,} bytes are no whole number of pages of {frames_db.PAGE_BYTES:,}: it was cut")
    counted = all(line.startswith("n_frames says") for line in lines)
    yield from (_finding(key, "n_frames" if counted else "damaged", line) for line in lines)
    if counted and not (lines := list(_check_times(path))):
        yield from (_finding(key, "catalog", line) for line in _disagreements(path, file_bytes, stored, outputs))
        if deep:
            yield from (_finding(key, "undecodable", line) for line in _undecodable(path))
    elif counted:
        yield from (_finding(key, "damaged", line) for line in lines)
    elif file_bytes != outputs[0].file_bytes:
        yield _finding(key, "damaged", f"{file_bytes:,} bytes, written were {outputs[0].file_bytes:,}")


def _check_array(root: Path, video_id: str, output: Output) -> Iterator[str]:
    path = layout.npy_path(root, video_id)
    if not path.exists():
        yield f"{path.name} is not there"
        return
    yield from frames_npy.check(path, output.num_frames)
    frames = frames_npy.open_frames(path) if path.stat().st_size == output.file_bytes else None
    if frames is None:
        yield f"{path.name}: {path.stat().st_size:,} bytes, written were {output.file_bytes:,}"
    elif frames.shape[1:3] != (output.height, output.width):
        yield f"{path.name}: {frames.shape[2]}x{frames.shape[1]} px, not {output.width}x{output.height}"


def _check_raw_frames(root: Path, key: VideoKey, output: Output) -> Iterator[str]:
    folder = layout.raw_frames_dir(root, key.class_name, key.video_id)
    if not folder.is_dir():
        yield f"the folder {folder.name} is not there"
        return
    lines = list(raw_frames.check(folder))
    yield from lines
    if not lines:
        meta = raw_frames.read_meta(folder)
        num_bytes = sum(meta["frames"]["num_bytes"])
        if (meta["num_frames"], num_bytes) != (output.num_frames, output.num_bytes):
            yield (
                f"the catalog says {output.num_frames} frames of {output.num_bytes:,} bytes, {raw_frames.MANIFEST}"
                f" {meta['num_frames']} of {num_bytes:,}"
            )


def _undecodable_files(root: Path, key: VideoKey, output: Output) -> Iterator[str]:
    folder = layout.raw_frames_dir(root, key.class_name, key.video_id)
    suffix = raw_frames.read_meta(folder)["suffix"]
    decode = _decode_jpeg if suffix == ".jpg" else _decode_any
    for frame in range(output.num_frames):
        path = folder / raw_frames.frame_name(frame, suffix)
        try:
            size = decode(path.read_bytes())
        except ValueError as error:
            yield f"frame {frame}: {path.name}: {error}"
            continue
        if size != (output.width, output.height):
            yield f"frame {frame}: {path.name}: {size[0]}x{size[1]} px, not {output.width}x{output.height}"


def _finding(key: VideoKey, kind: str, message: str) -> Finding:
    return Finding(key.class_name, key.video_id, kind, message)


def _check_times(path: Path) -> Iterator[str]:
    """Times have no checksum, but a rule: each is later than the one before."""
    db = frames_db.connect(path)
    try:
        times_us = frames_db.read_pts_us(db)
        meta = frames_db.read_meta(db)
        for level in meta["levels"]:
            (odd,) = db.execute(f"SELECT COUNT(*) FROM {level.table} WHERE size IS NOT ?", (level.width,)).fetchone()
            if odd:
                yield f"level {level.short_side}: the column size of {odd} frames is not its width, {level.width}"
    except (sqlite3.DatabaseError, VideoError, ValueError, TypeError, OverflowError) as error:
        yield f"times: {error}"
        return
    finally:
        db.close()
    steps = np.diff(times_us)
    if (steps <= 0).any():
        frame = int(np.argmax(steps <= 0)) + 1
        yield f"frame {frame} comes at {times_us[frame]} us, the one before it at {times_us[frame - 1]} us"


def _disagreements(path: Path, file_bytes: int, stored: Stored, outputs: list[Output]) -> Iterator[str]:
    """What the catalog says of a whole database, against what the database says."""
    db = frames_db.connect(path)
    try:
        meta = frames_db.read_meta(db)
        num_bytes = [
            db.execute(f"SELECT TOTAL(LENGTH(frames)) FROM {level.table}").fetchone()[0] for level in meta["levels"]
        ]
    finally:
        db.close()
    count = meta["num_frames"]
    pairs: list[tuple[str, Any, Any]] = [
        ("bytes of frames.db", outputs[0].file_bytes, file_bytes),
        ("num_frames", stored.num_frames, count),
        ("duration_s", stored.duration_s, meta.get("duration_s")),
        ("levels", [_shape(output) for output in outputs], [_shape(level) for level in meta["levels"]]),
        ("frames of the levels", [output.num_frames for output in outputs], [count] * len(meta["levels"])),
        ("bytes of the levels", [output.num_bytes for output in outputs], [int(total) for total in num_bytes]),
    ]
    if meta.get("settings") not in stored.settings.split(SETTINGS_SEPARATOR):
        yield f"settings: the catalog says {stored.settings!r}, the database {meta.get('settings')!r}"
    for name, says, is_ in pairs:
        if says != is_:
            yield f"{name}: the catalog says {says}, the database {is_}"


def _shape(level: Output | Level) -> str:
    return f"{level.short_side} ({level.width}x{level.height})"


def _undecodable(path: Path) -> Iterator[str]:
    """Frames that do not decode without a complaint, or not to their level's size."""
    db = frames_db.connect(path)
    try:
        meta = frames_db.read_meta(db)
        decode = _decode_jpeg if meta.get("codec", "jpeg") == "jpeg" else _decode_any
        for level in meta["levels"]:
            for frame, blob in db.execute(f"SELECT frame, frames FROM {level.table} ORDER BY frame"):
                try:
                    width, height = decode(blob)
                except ValueError as error:
                    yield f"level {level.short_side}, frame {frame}: {error}"
                    continue
                if (width, height) != (level.width, level.height):
                    yield (
                        f"level {level.short_side}, frame {frame}: {width}x{height} px,"
                        f" not {level.width}x{level.height}"
                    )
    finally:
        db.close()


def _decode_jpeg(blob: bytes) -> tuple[int, int]:
    """Width and height. Brightness alone is rebuilt: it takes half the time, and the bits of all planes are read."""
    height, width = simplejpeg.decode_jpeg(blob, colorspace="GRAY", strict=True).shape[:2]
    return width, height


def _decode_any(blob: bytes) -> tuple[int, int]:
    import cv2

    picture = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError("it does not decode")
    return picture.shape[1], picture.shape[0]


def _extra(root: Path, states: dict[VideoKey, str]) -> Iterator[Finding]:
    """Databases on disk that are not of a finished video."""
    known = {os.fspath(layout.video_dir(root, k.class_name, k.video_id)): (k, state) for k, state in states.items()}
    for path in sorted((root / "jpg").glob("*/*/frames.db")):
        key, state = known.get(os.fspath(path.parent), (None, ""))
        if key is None:
            folder, name = (_printable(part) for part in path.parts[-3:-1])
            folder = "" if folder == layout.UNCLASSED else folder
            yield Finding(folder, name, "extra", "a database that the catalog does not know")
        elif state != "ok":
            yield _finding(key, "extra", f"a database is there, the catalog says {state}")


def _printable(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _notes(stored: Iterable[Stored]) -> list[str]:
    """Stores that this module cannot look into: said, never passed over in silence."""
    looked_into = (frames_db.STORE, frames_npy.STORE)
    others = Counter(output.store for video in stored for output in video.outputs if output.store not in looked_into)
    return [f"not looked into: {count} outputs of the store {store}" for store, count in sorted(others.items())]


# What the catalog remembers


@dataclass(frozen=True)
class Verification:
    """A line of the catalog's table `verifications`. `at` in seconds since 1970; `frames` of the first level."""

    at: float
    deep: bool
    videos: int
    frames: int
    problems: int
    seconds: float


def last_verification(catalog: Catalog) -> Verification | None:
    """The newest one, None if the root was never verified."""
    db = catalog.db
    if not db.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name='verifications'").fetchone():
        return None
    row = db.execute(
        "SELECT at, deep, videos, frames, problems, seconds FROM verifications ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    at, deep, *rest = row
    return Verification(at, bool(deep), *rest)


def _remember(root: Path, report: VerifyReport) -> bool:
    """False when the catalog cannot be written: a root on a read-only disk can be verified all the same."""
    try:
        with Catalog.create(root) as catalog, catalog.transaction():
            tables = sqlite_utils.Database(catalog.db)
            tables["verifications"].create(_VERIFICATIONS, pk="id", if_not_exists=True)  # type: ignore[union-attr]
            catalog.db.execute(
                "INSERT INTO verifications(at, deep, videos, frames, problems, seconds) VALUES(?,?,?,?,?,?)",
                (time.time(), int(report.deep), report.videos, report.frames, len(report.findings), report.seconds),
            )
    except (ClipmillError, sqlite3.OperationalError):
        return False
    return True
