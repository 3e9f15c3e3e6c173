"""Does the data set make sense? Labels against store, and what a training run would trip over or learn wrongly.

Nothing is decoded: verify says whether the files are whole, this says whether they are the right ones.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ingest import layout
from ingest.annotations.rows import Annotations
from ingest.catalog import Catalog, VideoKey
from ingest.errors import ClipmillError, VideoError
from ingest.options import parse_settings
from ingest.plan import Job
from ingest.stores import frames_db, frames_npy

MIN_FRAMES = 3
FPS_RANGE = (1.0, 240.0)
DURATION_TOLERANCE = 0.2
_SPAN_TOLERANCE_S = 0.5
_CLIP_ID = re.compile(r"(?P<source>.+)_\d{6,}_\d{6,}", re.DOTALL)

KINDS = (
    "content in two splits", "video in two splits", "source in two splits", "duplicate content", "missing", "other class",
    "extra", "damaged frames", "too short", "implausible fps", "implausible duration", "class without videos",
    "span outside", "impossible span",
)  # fmt: skip
"""Kinds of complaint, the gravest first."""


@dataclass(frozen=True)
class Complaint:
    """One thing to look at. `kind` is one of KINDS; `video_id` is empty where it concerns a class."""

    kind: str
    class_name: str
    video_id: str
    message: str

    @property
    def where(self) -> str:
        return f"{self.class_name or layout.UNCLASSED}/{self.video_id}" if self.video_id else self.class_name


@dataclass(frozen=True)
class DoctorReport:
    """`videos` are stored, `labels` were compared with them."""

    videos: int
    labels: int
    complaints: list[Complaint] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Complaints per kind, the gravest kind first."""
        found = Counter(complaint.kind for complaint in self.complaints)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"counts": self.counts}, indent=2)


@dataclass(frozen=True)
class _Video:
    key: VideoKey
    state: str
    reason: str
    settings: str
    num_frames: int
    num_bytes: int
    fps: float
    duration_s: float
    concealed: int


@dataclass(frozen=True)
class _Label:
    """One label of one item. `key` is the stored video it is about, None if there is none."""

    key: VideoKey | None
    video_id: str
    label: str
    split: str
    start_s: float | None
    end_s: float | None
    untrimmed: bool = False

    @property
    def clip_id(self) -> str:
        """The name of the clip when the times cut one out of its source."""
        if self.start_s is None or self.end_s is None or self.untrimmed:
            return self.video_id
        return f"{self.video_id}_{int(self.start_s):06d}_{int(self.end_s):06d}"


def doctor(root: Path, annotations: Annotations | None = None) -> DoctorReport:
    """Look through the catalog, with the labels it has or with those of a file.

    Raises: ClipmillError when there is no catalog, or nothing in it.
    """
    with Catalog.open(root) as catalog:
        videos = {video.key: video for video in _videos(catalog)}
        labels = list(_labels_of_file(annotations, videos) if annotations else _labels_of_catalog(catalog))
        classes = annotations.class_names() if annotations else catalog.class_names()
    if not videos:
        raise ClipmillError(
            f"{root} holds no video.", "There is nothing to examine.", f"Make some: clipmill ingest convert SRC {root}"
        )
    stored = {key: video for key, video in videos.items() if video.state == "ok"}
    complaints = [
        *_absent(videos, labels),
        *_extra(stored, labels),
        *_splits(labels),
        *_duplicates(root, stored, labels),
        *_implausible(stored.values()),
        *_classes(classes, stored, labels),
        *_spans(stored, labels),
    ]
    complaints.sort(key=lambda c: (KINDS.index(c.kind), c.class_name, c.video_id))
    return DoctorReport(len(stored), len(labels), list(dict.fromkeys(complaints)))


def _videos(catalog: Catalog) -> Iterator[_Video]:
    concealed = "COALESCE(concealed, 0)" if catalog.counts_concealed else "0"
    rows = catalog.db.execute(
        "SELECT class_name, video_id, state, COALESCE(reason, ''), COALESCE(settings, ''), COALESCE(num_frames, 0),"
        " COALESCE((SELECT MAX(num_bytes) FROM outputs WHERE video = videos.id), 0),"
        f" COALESCE(fps, 0), COALESCE(duration_s, 0), {concealed} FROM videos ORDER BY class_name, video_id"
    )
    return (_Video(VideoKey(row[0], row[1]), *row[2:]) for row in rows)


# Labels


def _labels_of_catalog(catalog: Catalog) -> Iterator[_Label]:
    for class_name, video_id, label, split, start_s, end_s in catalog.db.execute(
        "SELECT class_name, video_id, label, split, start_s, end_s FROM labels JOIN videos ON videos.id = labels.video"
    ):
        # A clip's own id holds its times already.
        yield _Label(VideoKey(class_name, video_id), video_id, label, split or "", start_s, end_s, untrimmed=True)


def _labels_of_file(annotations: Annotations, videos: dict[VideoKey, _Video]) -> Iterator[_Label]:
    """Each row with the stored video that it means: the clip of its times, or the bare id; in its class before others."""
    by_id: dict[str, list[VideoKey]] = defaultdict(list)
    for key in videos:
        by_id[key.video_id].append(key)
    for row in annotations.rows:
        bare = _Label(None, row.video_id, row.label, row.split, row.start_s, row.end_s, annotations.untrimmed)
        known = [key for name in (bare.clip_id, row.video_id) for key in by_id.get(name, [])]
        best = next((key for key in known if key.class_name in (row.label, "")), known[0] if known else None)
        yield _Label(best, row.video_id, row.label, row.split, row.start_s, row.end_s, annotations.untrimmed)


def _absent(videos: dict[VideoKey, _Video], labels: Iterable[_Label]) -> Iterator[Complaint]:
    for label in labels:
        video = videos.get(label.key) if label.key else None
        if video is None:
            yield Complaint("missing", label.label, label.clip_id, "the labels name it, the store does not know it")
        elif video.state != "ok":
            why = f"{video.state}, {video.reason}" if video.reason else video.state
            yield Complaint("missing", video.key.class_name, video.key.video_id, f"the labels name it, it is {why}")
        elif video.key.class_name and label.label and video.key.class_name != label.label:
            yield Complaint(
                "other class", video.key.class_name, video.key.video_id, f"the labels say it is {label.label!r}"
            )


def _extra(stored: dict[VideoKey, _Video], labels: Iterable[_Label]) -> Iterator[Complaint]:
    labelled = {label.key for label in labels}
    for key in stored:
        if key not in labelled:
            yield Complaint("extra", key.class_name, key.video_id, "it is stored, no label names it")


def _splits(labels: list[_Label]) -> Iterator[Complaint]:
    """Videos in two splits: under one id, or as two clips of one source."""
    by_clip: dict[str, set[str]] = defaultdict(set)
    by_source: dict[str, dict[str, str]] = defaultdict(dict)
    classes: dict[str, str] = {}
    for label in labels:
        if label.split:
            name = label.key.video_id if label.key else label.clip_id
            by_clip[name].add(label.split)
            by_source[_source_of(name)].setdefault(label.split, name)
            classes.setdefault(name, label.key.class_name if label.key else label.label)
    for name, splits in by_clip.items():
        if len(splits) > 1:
            yield Complaint("video in two splits", classes[name], name, f"it is in {' and in '.join(sorted(splits))}")
    for source, names in by_source.items():
        if len(set(names.values())) > 1:
            places = ", ".join(f"{name} in {split}" for split, name in sorted(names.items()))
            yield Complaint("source in two splits", classes[min(names.values())], source, f"clips of it: {places}")


def _source_of(clip_id: str) -> str:
    """The id without the `_<start>_<end>` of a clip."""
    match = _CLIP_ID.fullmatch(clip_id)
    return match["source"] if match else clip_id


# Content


def _duplicates(root: Path, stored: dict[VideoKey, _Video], labels: Iterable[_Label]) -> Iterator[Complaint]:
    """Videos whose frames come from the same bytes. Only those of equal length and size can be, so few are opened."""
    splits: dict[VideoKey, set[str]] = defaultdict(set)
    for label in labels:
        if label.key and label.split:
            splits[label.key].add(label.split)
    alike: dict[tuple[int, int], list[VideoKey]] = defaultdict(list)
    for key, video in stored.items():
        alike[video.num_frames, video.num_bytes].append(key)
    for keys in alike.values():
        contents: dict[tuple[object, ...], list[VideoKey]] = defaultdict(list)
        for key in keys if len(keys) > 1 else ():
            if content := _content(layout.frames_db_path(root, key.class_name, key.video_id)):
                contents[content].append(key)
        for same in contents.values():
            first, *copies = same
            for copy in copies:
                one, other = splits[first], splits[copy]
                kind = "content in two splits" if one and other and one != other else "duplicate content"
                where = f"{first.class_name or layout.UNCLASSED}/{first.video_id}"
                in_split = f" in {', '.join(sorted(one))}" if one else ""
                own = f"; this one is in {', '.join(sorted(other))}" if other else ""
                yield Complaint(kind, copy.class_name, copy.video_id, f"same content as {where}{in_split}{own}")


def _content(path: Path) -> tuple[object, ...]:
    """What tells one content from another: the source's hash, and the first and last checksum (clips share a source).

    Empty for what cannot be read: that is for verify to say.
    """
    try:
        with contextlib.closing(frames_db.connect(path)) as db:
            meta = frames_db.read_meta(db)
            if "source_sha256" not in meta:
                return ()
            column = meta["levels"][0].crc_column
            ends = db.execute(
                f"SELECT {column} FROM Frames WHERE frame IN (0, ?) ORDER BY frame", (meta["num_frames"] - 1,)
            )
            return meta["source_sha256"], *ends.fetchall()
    except (sqlite3.DatabaseError, VideoError, IndexError):
        return ()


def _implausible(stored: Iterable[_Video]) -> Iterator[Complaint]:
    for video in stored:
        name = video.key.class_name, video.key.video_id
        if video.concealed:
            what = (
                f"{video.concealed} of {video.num_frames} frames are damaged in the source; the decoder patched them up"
            )
            yield Complaint("damaged frames", *name, what)
        if video.num_frames < MIN_FRAMES:
            yield Complaint("too short", *name, f"it has {video.num_frames} frames")
        low, high = FPS_RANGE
        if not low <= video.fps <= high:
            yield Complaint("implausible fps", *name, f"{video.fps:g} frames per second")
            continue
        expected_s = video.num_frames / _stored_rate(video)
        if abs(video.duration_s - expected_s) > DURATION_TOLERANCE * expected_s:
            yield Complaint(
                "implausible duration",
                *name,
                f"it lasts {video.duration_s:.2f} s; {video.num_frames} frames at {_stored_rate(video):g} a second"
                f" are {expected_s:.2f} s",
            )


def _stored_rate(video: _Video) -> float:
    """Frames per second that were stored: the video's own, or those that were asked for."""
    parsed = parse_settings(video.settings, Job(video.key, Path()))
    if parsed is None:
        return video.fps
    options = parsed[0]
    rate = options.npy_fps if options.stores == (frames_npy.STORE,) else options.fps
    return rate or video.fps


def _classes(classes: list[str], stored: dict[VideoKey, _Video], labels: Iterable[_Label]) -> Iterator[Complaint]:
    present: dict[str, set[str]] = defaultdict(set)
    named: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        if label.label:
            named[label.split].add(label.label)
            if label.key in stored:
                present[label.split].add(label.label)
    for split in sorted(named):
        for name in classes:
            if name not in present[split]:
                where = f"the split {split}" if split else "the store"
                why = "the labels name some, none is stored" if name in named[split] else "the labels name none"
                yield Complaint("class without videos", name, "", f"no video in {where}: {why}")


def _spans(stored: dict[VideoKey, _Video], labels: Iterable[_Label]) -> Iterator[Complaint]:
    """Times that cannot be. Those of a clip count in its source, so for a clip only their order is looked at."""
    for label in labels:
        if label.start_s is None or label.end_s is None:
            continue
        name = (label.key.class_name, label.key.video_id) if label.key else (label.label, label.video_id)
        span = f"{label.label!r} from {label.start_s:g} to {label.end_s:g} s"
        if not 0 <= label.start_s < label.end_s:
            yield Complaint("impossible span", *name, span)
            continue
        video = stored.get(label.key) if label.key else None
        if video is None or _is_clip(video, label):
            continue
        if label.end_s > video.duration_s + _SPAN_TOLERANCE_S:
            yield Complaint("span outside", *name, f"{span}; the video ends at {video.duration_s:.2f} s")


def _is_clip(video: _Video, label: _Label) -> bool:
    """Whether the stored video is the label's span already: by its name, its settings, or by being as long."""
    assert label.start_s is not None and label.end_s is not None
    span_s = label.end_s - label.start_s
    return (
        video.key.video_id.endswith(f"_{int(label.start_s):06d}_{int(label.end_s):06d}")
        or " span=" in video.settings
        or abs(video.duration_s - span_s) <= max(_SPAN_TOLERANCE_S, DURATION_TOLERANCE * span_s)
    )
