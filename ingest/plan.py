"""Which files are to be converted, under which names: the sources joined with the labels. No file is opened."""

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ingest.annotations.rows import Annotations, LabelRow
from ingest.catalog import VideoKey
from ingest.errors import ClipmillError
from ingest.layout import encode_component, printable, video_dir
from ingest.video import is_video_name


@dataclass(frozen=True)
class Job:
    """One video to convert: a whole file, or the frames shown in `span_s` (start, end) seconds of it, end excluded."""

    key: VideoKey
    source: Path
    span_s: tuple[float, float] | None = None

    def __str__(self) -> str:
        return str(self.source) if self.span_s is None else "{} ({:g} to {:g} s)".format(self.source, *self.span_s)

    @property
    def source_text(self) -> str:
        return printable(str(self.source))


@dataclass(frozen=True)
class Shard:
    """Part `index` (0-based) of `count` of a plan: the videos whose names fall to it, whatever else is in the plan."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ClipmillError(
                f"shard {self.index}/{self.count} is none.",
                "Nothing was converted.",
                f"With {max(self.count, 1)} shards they are 0/{max(self.count, 1)} to {max(self.count, 1) - 1}/{max(self.count, 1)}.",
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, key: VideoKey) -> bool:
        return zlib.crc32(f"{key.class_name}/{key.video_id}".encode()) % self.count == self.index


@dataclass
class Plan:
    """Jobs, labels as (key, label, split, start_s, end_s), and what the labels name but no file has.

    `missing` maps each such video to the ids under which it might have been converted.
    """

    jobs: list[Job] = field(default_factory=list)
    labels: list[tuple[VideoKey, str, str, float | None, float | None]] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    missing: dict[VideoKey, list[str]] = field(default_factory=dict)
    unlisted: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def found_ids(self) -> set[str]:
        """Ids under which a video of this plan may have been recorded as missing before."""
        return {job.key.video_id for job in self.jobs} | {_base_id(job.key.video_id) for job in self.jobs}

    def keep_shard(self, shard: Shard) -> None:
        """Leave only what falls to the shard. Class names stay whole, so that every shard gives them the same index."""
        self.jobs = [job for job in self.jobs if shard.holds(job.key)]
        self.labels = [label for label in self.labels if shard.holds(label[0])]
        self.missing = {key: names for key, names in self.missing.items() if shard.holds(key)}

    def keep(self, finished: Container[VideoKey]) -> None:
        """Take out of `missing` what was converted before: sources may be deleted, their stores and labels stay."""
        stored = {}
        for key, names in self.missing.items():
            known = (VideoKey(class_name, name) for name in names for class_name in (key.class_name, ""))
            if (found := next((other for other in known if other in finished), None)) is not None:
                stored[key] = found
        for key in stored:
            del self.missing[key]
        self.labels = [(stored.get(key, key), *label) for key, *label in self.labels]  # type: ignore[misc]


def plan_folders(source: Path) -> Plan:
    """Every video below `source`; the class is the first folder below it, none for a file right in it.

    Raises: ClipmillError when there is no video, or two in one class with one id.
    """
    plan = Plan()
    seen: dict[VideoKey, Job] = {}
    for path in find_videos(source):
        folders = path.relative_to(source).parts[:-1]
        key = VideoKey(printable(folders[0]) if folders else "", printable(path.stem))
        _add(plan, seen, Job(key, path))
        if key.class_name:
            plan.labels.append((key, key.class_name, "", None, None))
    plan.class_names = sorted({job.key.class_name for job in plan.jobs} - {""})
    return plan


def plan_labels(source: Path, annotations: Annotations, *, cut: bool = False) -> Plan:
    """The videos that the labels name, wherever they lie below `source`, under the label's class.

    A row finds the file at the path that it gives, or called `<id>_<start>_<end>` (six digits each, whole seconds),
    `<id>` or `v_<id>`, or, if nothing else fits, one of these in other capitals; where several folders hold one, the
    folder with the label's name decides. A video with several labels of its own lies in no class, and so do the
    videos of untrimmed sets, whose spans are segments of a video that stays whole.

    With `cut`, a file `<id>` is the untrimmed source of its rows: each time span becomes a clip of its own, called
    `<id>_<start>_<end>` as trimmed copies are.

    Raises: ClipmillError when two files claim one id, or no file is found at all.
    """
    plan = Plan(class_names=annotations.class_names())
    plan.notes += [f"line {line}: {why}" for line, why in annotations.skipped]
    files = _Files(source)
    rows_of: dict[tuple[Path, tuple[float, float] | None], list[LabelRow]] = defaultdict(list)
    for row in annotations.rows:
        names = _names(row, annotations.untrimmed)
        file = files.find(row, names)
        if file is None:
            key = VideoKey("" if annotations.untrimmed else row.label, row.video_id)
            plan.missing.setdefault(key, []).extend(names)
            plan.labels.append((key, row.label, row.split, row.start_s, row.end_s))
        else:
            rows_of[file, _span_to_cut(row, file) if cut else None].append(row)
    seen: dict[VideoKey, Job] = {}
    for (file, span_s), rows in rows_of.items():
        labels = sorted({row.label for row in rows})
        name = _clip_name(rows[0]) if span_s else printable(file.stem)
        own_class = labels[0] if len(labels) == 1 and (span_s or not annotations.untrimmed) else ""
        _add(plan, seen, Job(VideoKey(own_class, name), file, span_s))
        key = plan.jobs[-1].key
        plan.labels += [(key, row.label, row.split, row.start_s, row.end_s) for row in rows]
    used = {file for file, _ in rows_of}
    plan.unlisted = [path for path in files.all if path not in used]
    if not plan.jobs:
        raise ClipmillError(
            f"{annotations.source} lists {len(annotations.rows)} videos, and {source} holds none of them.",
            "Nothing was converted.",
            f"Compare the ids with the file names, for example {annotations.rows[0].video_id!r} with"
            f" {plan.unlisted[0].name!r}.",
        )
    return plan


def find_videos(source: Path) -> list[Path]:
    """Video files below `source` by their suffix, in sorted order; hidden files and folders are left out.

    Raises: ClipmillError when `source` is no folder or holds no video.
    """
    if not source.is_dir():
        raise ClipmillError(
            f"the source {source} is not a folder.", "Nothing was converted.", "Give the folder of videos."
        )
    found = []
    for folder, folders, files in os.walk(source, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(files) if is_video_name(name) and not name.startswith(".")]
    if not found:
        raise ClipmillError(
            f"{source} holds no video file.",
            "Nothing was converted.",
            "Known endings are .mp4, .mkv, .webm, .avi, .mov and others.",
        )
    return found


class _Files:
    """The video files below a source, by path, by name, and by name without regard to capitals."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self.all = find_videos(source)
        self._by_path: dict[str, Path] = {}
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._by_folded: dict[str, list[Path]] = defaultdict(list)
        for path in self.all:
            relative = printable(path.relative_to(source).as_posix())
            self._by_path[relative] = self._by_path[relative.removesuffix(path.suffix)] = path
            self._by_stem[printable(path.stem)].append(path)
            self._by_folded[printable(path.stem).casefold()].append(path)

    def find(self, row: LabelRow, names: list[str]) -> Path | None:
        """The file of a row. Raises: ClipmillError when two fit equally well."""
        if row.path and (file := self._by_path.get(row.path.removeprefix("./"))) is not None:
            return file
        for by_name, spelled in ((self._by_stem, names), (self._by_folded, [name.casefold() for name in names])):
            for name in spelled:
                files = by_name.get(name, [])
                if len(files) > 1:
                    labels = {row.label, row.label.replace(" ", "_"), encode_component(row.label or "-")}
                    files = [file for file in files if labels & set(file.relative_to(self._source).parts[:-1])] or files
                if len(files) > 1:
                    _two_claim(name, str(files[0]), str(files[1]))
                if files:
                    return files[0]
        return None


def _names(row: LabelRow, untrimmed: bool) -> list[str]:
    """Names, without ending, that the file of a row may have."""
    whole = [row.video_id, f"v_{row.video_id}"]
    return whole if untrimmed or row.start_s is None or row.end_s is None else [_clip_name(row), *whole]


def _clip_name(row: LabelRow) -> str:
    """`<id>_<start>_<end>`, whole seconds of six digits, as trimmed copies are called."""
    return f"{row.video_id}_{int(row.start_s or 0):06d}_{int(row.end_s or 0):06d}"


def _span_to_cut(row: LabelRow, file: Path) -> tuple[float, float] | None:
    """The span of a row whose file is the untrimmed one; None for a file that is the clip already."""
    if row.start_s is None or row.end_s is None or printable(file.stem) == _clip_name(row):
        return None
    if row.end_s <= row.start_s:
        raise ClipmillError(
            f"line {row.line}: video {row.video_id} is to be cut from {row.start_s:g} to {row.end_s:g} s.",
            "Nothing was converted: a clip ends after it starts.",
            "Mend that line.",
        )
    return row.start_s, row.end_s


def _add(plan: Plan, seen: dict[VideoKey, Job], job: Job) -> None:
    video_dir(Path(), job.key.class_name, job.key.video_id)  # Refuses a name that no folder can have.
    if (other := seen.setdefault(job.key, job)) != job:
        _two_claim(job.key.video_id, str(other), str(job))
    plan.jobs.append(job)


def _two_claim(video_id: str, one: str, other: str) -> None:
    raise ClipmillError(
        f"two videos have the id {video_id!r}: {one} and {other}.",
        "Nothing was converted: one would overwrite the other.",
        "Remove or rename one of them.",
    )


def _base_id(video_id: str) -> str:
    """The id without a `_<start>_<end>` suffix."""
    head, _, end = video_id.rpartition("_")
    base, _, start = head.rpartition("_")
    return base if base and start.isdigit() and end.isdigit() else video_id


def describe(paths: Iterable[Path], most: int = 3) -> str:
    names = [printable(path.name) for path in paths]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
