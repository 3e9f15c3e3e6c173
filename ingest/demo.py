"""Synthetic demo sets, as real videos: eight classes of motion, trimmed (as Kinetics) or untrimmed (as THUMOS14).

What is drawn, and why no single frame tells the class, stands in `_motion.py`. A set is a pure function of its
arguments: every video draws from a generator of its own, seeded by (seed, index). Each file is written in a
temporary folder and renamed, annotations last, so a killed run is completed by the next call. One process at a time per
folder.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import string
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingest._motion import MOTIONS, Span, draw, poses, random_scene
from ingest.errors import ClipmillError
from ingest.ffmpeg import encode_h264

MANIFEST = "demo.json"
_DRAWING = 1  # goes up when the same arguments give other videos, so that an older set is not taken for a present one
_ID_ALPHABET = string.ascii_letters + string.digits + "-_"
_MIN_SIDE_PX = 32

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DemoSet:
    """A set on disk: its videos in order, its annotations (labels.csv, or the folder annotation/), its sorted classes.

    `num_made` says how many videos the call had to make; 0 if all were there.
    """

    root: Path
    videos: tuple[Path, ...]
    annotations: Path
    classes: tuple[str, ...]
    num_made: int


@dataclass(frozen=True)
class Segment:
    """An action in an untrimmed video: a name from MOTIONS, start and end in tenths of a second."""

    motion: str
    start_ds: int
    end_ds: int


@dataclass(frozen=True)
class _Video:
    """One video to be drawn: its path below the root, and what happens in it."""

    path: str
    spans: tuple[Span, ...]


def make_trimmed(
    out: Path,
    *,
    num_videos: int = 320,
    seed: int = 0,
    size: tuple[int, int] = (160, 120),
    fps: int = 25,
    seconds: tuple[float, float] = (2.0, 4.0),
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> DemoSet:
    """Trimmed videos of one motion each: `out/videos/<class>/<id>.mp4` and, in Kinetics columns, `out/labels.csv`.

    `size` is (width, height) in pixels, `seconds` the range of durations. About 75/10/15 % of each class are train, val
    and test. `num_workers` threads (default: one per core, at most 8) do not change the result; `progress(done, total)`
    is called from the caller's thread.
    Raises: ClipmillError if `out` holds another demo set, ValueError for arguments out of range, FfmpegError.
    """
    _check(num_videos, seed, size, fps, seconds)
    rng = _rng(seed, 0)
    motions = [MOTIONS[k % len(MOTIONS)] for k in range(num_videos)]
    ids = _youtube_ids(num_videos, rng)
    splits = _stratified_splits(motions, rng)
    shortest, longest = (round(s * fps) for s in seconds)
    num_frames = [int(n) for n in rng.integers(shortest, longest + 1, num_videos)]

    videos = [
        _Video(f"videos/{motion}/{video_id}.mp4", (Span(motion, n),))
        for motion, video_id, n in zip(motions, ids, num_frames, strict=True)
    ]
    rows = [
        (motion, video_id, "0", f"{n / fps:g}", split)
        for motion, video_id, n, split in zip(motions, ids, num_frames, splits, strict=True)
    ]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("label", "youtube_id", "time_start", "time_end", "split"))
    writer.writerows(sorted(rows))

    arguments = {
        "kind": "trimmed",
        "num_videos": num_videos,
        "seed": seed,
        "size": size,
        "fps": fps,
        "seconds": seconds,
    }
    num_made = _complete(out, arguments, videos, {"labels.csv": table.getvalue()}, num_workers, progress)
    classes = tuple(sorted(set(motions)))
    return DemoSet(out, tuple(out / v.path for v in videos), out / "labels.csv", classes, num_made)


def make_untrimmed(
    out: Path,
    *,
    num_videos: int = 24,
    seed: int = 0,
    size: tuple[int, int] = (160, 120),
    fps: int = 25,
    seconds: tuple[float, float] = (20.0, 60.0),
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> DemoSet:
    """Untrimmed videos of several actions of 2 to 6 s, with the object at rest or absent in between for 1 s or more.

    `out/videos/video_<validation|test>_%07d.mp4`, every third one a test video.
    `out/annotation/<Class>_<val|test>.txt`, one action per line: name, two blanks, start, blank, end, in seconds.
    `out/detclasslist.txt`, one class per line: id from 1, class.
    The first frame of an action is the first one shown at or after its start. A class without any action in a subset
    (too few videos) has an empty file. Other arguments and errors: as in `make_trimmed`.
    """
    _check(num_videos, seed, size, fps, seconds)
    if seconds[0] < 5:
        raise ValueError(
            f"an untrimmed video lasts at least 5 s to hold an action and rest around it, got {seconds[0]}"
        )
    rng = _rng(seed, 0)
    streams = {subset: _balanced(rng.spawn(1)[0]) for subset in ("validation", "test")}
    counts = dict.fromkeys(streams, 0)
    lines: dict[str, list[str]] = {
        f"annotation/{_class_name(m)}_{short}.txt": [] for m in sorted(MOTIONS) for short in ("val", "test")
    }
    videos = []
    for k in range(num_videos):
        subset = "test" if k % 3 == 2 else "validation"
        counts[subset] += 1
        name = f"video_{subset}_{counts[subset]:07d}"
        duration_ds = int(rng.integers(round(seconds[0] * 10), round(seconds[1] * 10) + 1))
        segments = _timeline(duration_ds, streams[subset], rng)
        videos.append(_Video(f"videos/{name}.mp4", _spans(segments, duration_ds, fps, rng)))
        for s in segments:
            file = f"annotation/{_class_name(s.motion)}_{'val' if subset == 'validation' else 'test'}.txt"
            lines[file].append(f"{name}  {s.start_ds / 10:.1f} {s.end_ds / 10:.1f}\n")

    classes = tuple(_class_name(m) for m in sorted(MOTIONS))
    texts = {file: "".join(of_file) for file, of_file in lines.items()}
    texts["detclasslist.txt"] = "".join(f"{k} {name}\n" for k, name in enumerate(classes, start=1))
    arguments = {
        "kind": "untrimmed",
        "num_videos": num_videos,
        "seed": seed,
        "size": size,
        "fps": fps,
        "seconds": seconds,
    }
    num_made = _complete(out, arguments, videos, texts, num_workers, progress)
    return DemoSet(out, tuple(out / v.path for v in videos), out / "annotation", classes, num_made)


# -- the plan: what is in which video ---------------------------------------------------------------------------------


def _rng(seed: int, index: int) -> np.random.Generator:
    """Index 0 plans the set, index k + 1 draws video k."""
    return np.random.default_rng((seed, index))


def _check(num_videos: int, seed: int, size: tuple[int, int], fps: int, seconds: tuple[float, float]) -> None:
    if num_videos < 1:
        raise ValueError(f"a demo set has at least one video, got num_videos={num_videos}")
    if seed < 0:
        raise ValueError(f"a seed is 0 or more, got {seed}")
    if min(size) < _MIN_SIDE_PX or size[0] % 2 or size[1] % 2:
        raise ValueError(f"width and height are even and at least {_MIN_SIDE_PX} px (yuv420p halves them), got {size}")
    if fps < 1:
        raise ValueError(f"fps is 1 or more, got {fps}")
    if not 1 / fps <= seconds[0] <= seconds[1]:
        raise ValueError(f"seconds is (shortest, longest), the shortest at least one frame, got {seconds}")


def _youtube_ids(count: int, rng: np.random.Generator) -> list[str]:
    """`count` different ids of 11 characters; like the real ones, some begin with a dash."""
    ids: dict[str, None] = {}
    while len(ids) < count:
        ids["".join(_ID_ALPHABET[k] for k in rng.integers(len(_ID_ALPHABET), size=11))] = None
    return list(ids)


def _stratified_splits(motions: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Split of every video; a class of three or more has at least one in each of train, val, test."""
    splits = ["train"] * len(motions)
    for motion in sorted(set(motions)):
        members = rng.permutation([k for k, m in enumerate(motions) if m == motion])
        at_least = int(len(members) >= 3)
        num_val = max(round(0.10 * len(members)), at_least)
        num_test = max(round(0.15 * len(members)), at_least)
        for place, k in enumerate(members[: num_val + num_test]):
            splits[k] = "val" if place < num_val else "test"
    return splits


def _balanced(rng: np.random.Generator) -> Iterator[str]:
    """Motions without end: all eight in random order, then all eight again."""
    while True:
        yield from rng.permutation(MOTIONS).tolist()


def _timeline(duration_ds: int, motions: Iterator[str], rng: np.random.Generator) -> list[Segment]:
    """Actions of 2 to 6 s, at least 1 s (and mostly up to 4 s) apart from each other and from both ends."""
    segments: list[Segment] = []
    start = int(rng.integers(10, 21))
    while start + 20 <= duration_ds - 10:
        end = start + int(rng.integers(20, min(60, duration_ds - 10 - start) + 1))
        segments.append(Segment(next(motions), start, end))
        start = end + int(rng.integers(10, 41))
    return segments


def _spans(segments: Sequence[Segment], duration_ds: int, fps: int, rng: np.random.Generator) -> tuple[Span, ...]:
    """The timeline in frames: actions, and at random a resting or an absent object between them."""
    spans: list[Span] = []
    first = 0

    def until(time_ds: int, behaviour: str) -> None:
        nonlocal first
        end = -(-time_ds * fps // 10)  # the first frame shown at or after that time
        spans.append(Span(behaviour, end - first))
        first = end

    for s in segments:
        until(s.start_ds, str(rng.choice(("static", "absent"))))
        until(s.end_ds, s.motion)
    until(duration_ds, str(rng.choice(("static", "absent"))))
    return tuple(spans)


def _class_name(motion: str) -> str:
    return motion.capitalize()


# -- the files --------------------------------------------------------------------------------------------------------


def _complete(
    out: Path,
    arguments: Mapping[str, Any],
    videos: Sequence[_Video],
    texts: Mapping[str, str],
    num_workers: int | None,
    progress: Progress | None,
) -> int:
    """Make what is missing of a set: manifest, then videos, then texts. Returns the number of videos made.

    Without a manifest nothing is known about the videos that are there, so all are made again.
    """
    manifest = {
        **json.loads(json.dumps(arguments)),
        "drawing": _DRAWING,
        "files": [v.path for v in videos] + list(texts),
    }
    known = _read_manifest(out, manifest)
    missing = [k for k, v in enumerate(videos) if not (known and _is_there(out / v.path))]
    done = len(videos) - len(missing)
    if progress:
        progress(done, len(videos))
    if not missing and all((out / path).is_file() for path in texts):
        return 0

    out.mkdir(parents=True, exist_ok=True)
    for left_by_a_killed_run in out.glob(".tmp-*"):
        shutil.rmtree(left_by_a_killed_run, ignore_errors=True)
    # A new folder for each run: the ffmpeg of a killed run may live on for a moment, and must not meet a name of ours.
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out) as folder:
        temporary = Path(folder)
        if not known:
            _write_text(out / MANIFEST, json.dumps(manifest, indent=1) + "\n", temporary)
        with ThreadPoolExecutor(num_workers or min(8, os.cpu_count() or 1)) as pool:
            made = [pool.submit(_write_video, out, videos[k], arguments, k, temporary) for k in missing]
            try:
                for future in as_completed(made):
                    future.result()
                    done += 1
                    if progress:
                        progress(done, len(videos))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for path, text in texts.items():
            _write_text(out / path, text, temporary)
    return len(missing)


def _read_manifest(out: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether `out` holds (part of) the wanted set. Raises: ClipmillError if it holds another one."""
    try:
        found = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        found = None
    if not isinstance(found, dict):
        found = {}
    differing = [key for key in wanted if key != "files" and found.get(key) != wanted[key]]
    if differing:
        has = ", ".join(f"{key}={found.get(key)}" for key in differing)
        asked = ", ".join(f"{key}={wanted[key]}" for key in differing)
        raise ClipmillError(
            f"{out} holds another demo set: its {MANIFEST} says {has}, asked for is {asked}.",
            "Nothing was written.",
            "Name another folder, or delete this one.",
        )
    return True


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _write_video(out: Path, video: _Video, arguments: Mapping[str, Any], index: int, temporary: Path) -> None:
    rng = _rng(arguments["seed"], index + 1)
    size, fps = arguments["size"], arguments["fps"]
    scene = random_scene(size, rng)
    frames = (draw(scene, pose) for pose in poses(video.spans, fps, rng))
    path = out / video.path
    encode_h264(frames, temporary / path.name, size=size, fps=fps)
    _move(temporary / path.name, path)


def _write_text(path: Path, text: str, temporary: Path) -> None:
    (temporary / path.name).write_text(text, encoding="utf-8")
    _move(temporary / path.name, path)


def _move(temporary: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(path)
