"""Per-frame targets for online action detection: segments in seconds -> (T, C) of 0 and 1, at a fixed rate.

<root>/target_perframe/<video_id>.npy    (T, C) int64, row r for the time [r / rate, (r + 1) / rate), column 0 background
<root>/data_info.json                    {dataset: {class_names, sessions, ...}}, what LSTR and SBP read
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ingest.annotations.rows import Annotations
from ingest.atomic import replacing, write_text
from ingest.errors import ClipmillError
from ingest.layout import encode_component

Rule = Literal["half-open", "thumos-reference"]

BACKGROUND = 0
"""Column of rows in which nothing happens."""

NOT_SCORED = "Ambiguous"
"""Name of the class that is annotated, and neither trained nor scored."""

NO_IGNORED_CLASS = -100


@dataclass(frozen=True)
class Segment:
    """From `start_s` up to, not including, `end_s` a thing of class `column` happens."""

    start_s: float
    end_s: float
    column: int


@dataclass
class Targets:
    """Targets (T, C) of one video, and what of its segments lies outside: (segment, what was done)."""

    rows: np.ndarray
    clipped: list[tuple[Segment, str]] = field(default_factory=list)


def num_target_rows(num_frames: int, fps: float, rate: float = 4.0) -> int:
    """Rows for a video of `num_frames` at `fps`: whole ones only.

    The reference (SBP, perframe_label_generation) takes 30 for every fps, which makes a video of 25 short by 17 %.
    """
    return int(num_frames / fps * rate)


def row_span(start_s: float, end_s: float, rate: float = 4.0, rule: Rule = "half-open") -> tuple[int, int]:
    """First row of a segment and the row after its last.

    half-open           floor(start x rate) up to ceil(end x rate): every row the segment touches
    thumos-reference    int(start x rate) to int(end x rate), the last included

    2.0 to 4.5 s at 4 rows per second are the rows 8 to 17; in the reference also row 18, where the segment has ended.
    They differ where the end falls on a border of rows. Sources: the authors of LSTR on their targets; the generator of
    SBP. Times count as the decimal numbers they were written as: 1.1 s x 100 is 110, not a bit more.
    """
    if rule == "thumos-reference":
        return int(start_s * rate), int(end_s * rate) + 1
    return math.floor(_exact(start_s) * _exact(rate)), math.ceil(_exact(end_s) * _exact(rate))


def frame_targets(
    segments: Sequence[Segment],
    num_rows: int,
    num_classes: int,
    *,
    rate: float = 4.0,
    rule: Rule = "half-open",
    exclusive: bool = False,
) -> Targets:
    """Targets int64 (num_rows, num_classes): 1 where a class happens, column 0 where none does.

    Several classes may share a row. With `exclusive` (HDD) they may not: the one that started later keeps the row, and
    the earlier one is reported. Rows before 0 and from `num_rows` on are cut and reported.

    Raises: ValueError for a column that is no class or the background.
    """
    targets = Targets(np.zeros((num_rows, num_classes), dtype=np.int64))
    for segment in sorted(segments, key=lambda segment: segment.start_s) if exclusive else segments:
        if not BACKGROUND < segment.column < num_classes:
            raise ValueError(
                f"column {segment.column}: classes are the columns 1 to {num_classes - 1}, 0 is background"
            )
        first, end = row_span(segment.start_s, segment.end_s, rate, rule)
        if segment.end_s <= segment.start_s:
            targets.clipped.append((segment, "left out, it is empty or reversed"))
            continue
        if end <= 0 or first >= num_rows:
            targets.clipped.append((segment, f"left out, the video has {num_rows} rows"))
            continue
        # The reference's last row can lie past the end although the segment ends in time.
        if first < 0 or segment.end_s * rate > num_rows:
            targets.clipped.append((segment, f"cut to the {num_rows} rows of the video"))
        span = slice(max(first, 0), min(end, num_rows))
        if exclusive:
            if targets.rows[span].any():
                targets.clipped.append((segment, "took rows from a segment that started earlier"))
            targets.rows[span] = 0
        targets.rows[span, segment.column] = 1
    targets.rows[targets.rows.sum(axis=1) == 0, BACKGROUND] = 1
    return targets


def target_classes(found: Annotations) -> list[str]:
    """Names of the columns: the classes, with the background first where the dataset's list does not begin with it."""
    names = found.class_names()
    return names if names and names[0].lower() == "background" else ["Background", *names]


def video_targets(
    found: Annotations,
    num_rows: Mapping[str, int],
    *,
    rate: float = 4.0,
    rule: Rule = "half-open",
    exclusive: bool = False,
) -> Iterator[tuple[str, Targets]]:
    """Targets of every video of `num_rows`, {video id: rows}, from the segments of an untrimmed dataset.

    A video without segments (one that is listed only, or not at all) is background throughout.
    """
    names = target_classes(found)
    shift = len(names) - len(found.class_names())
    segments: dict[str, list[Segment]] = defaultdict(list)
    for row, index in zip(found.rows, found.class_indices(), strict=True):
        if row.start_s is not None and row.end_s is not None and index >= 0:
            segments[row.video_id].append(Segment(row.start_s, row.end_s, index + shift))
    for video_id, rows in num_rows.items():
        yield (
            video_id,
            frame_targets(segments[video_id], rows, len(names), rate=rate, rule=rule, exclusive=exclusive),
        )


def target_path(root: Path, video_id: str) -> Path:
    return root / "target_perframe" / f"{encode_component(video_id)}.npy"


def write_targets(root: Path, video_id: str, rows: np.ndarray) -> Path:
    """Write the targets of one video, whole or not at all."""
    path = target_path(root, video_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows)
    return path


@dataclass(frozen=True)
class DataInfo:
    """One dataset in data_info.json. The order of sessions is part of the recipe: random draws follow it."""

    data_root: str
    class_names: list[str]
    train_session_set: list[str]
    test_session_set: list[str]
    metrics: Literal["AP", "cAP"] = "AP"
    fps: float = 4

    @property
    def ignore_index(self) -> int:
        """The class that is neither trained nor scored, -100 for none."""
        return self.class_names.index(NOT_SCORED) if NOT_SCORED in self.class_names else NO_IGNORED_CLASS


def write_data_info(path: Path, name: str, info: DataInfo) -> None:
    """Write the entry `name` of a data_info.json; other entries of the file stay.

    Raises: ClipmillError when the file is there and holds something else.
    """
    entries: Any = {}
    if path.exists():
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            entries = None
        if not isinstance(entries, dict):
            raise ClipmillError(
                f"{path} is no data_info.json.", "Nothing was written.", "Remove it, or name another file."
            )
    values = asdict(info)
    order = ("data_root", "class_names", "num_classes", "ignore_index", "metrics", "fps")
    values |= {"num_classes": len(info.class_names), "ignore_index": info.ignore_index}
    entries[name] = {key: values[key] for key in (*order, "train_session_set", "test_session_set")}
    write_text(path, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")


def _exact(value: float) -> Fraction:
    return Fraction(repr(float(value)))
