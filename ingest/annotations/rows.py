"""What every annotation reader gives: typed rows, the class list they refer to, and a word on what was skipped."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of splits in the wild, and ours."""


@dataclass(frozen=True)
class Frames:
    """Frames of one item, as a list gives them.

    Lists are hints here: some say 300 for every video. None means that the file does not say.
    """

    num_frames: int | None = None
    first: int = 0
    """Frames before the item in its folder or video: the offset of a clip inside a long one."""
    template: str = ""
    """Name of a frame file, such as `img_{:05d}.jpg`; empty when the file does not say."""
    start_index: int | None = None
    """Number in the name of the first frame file."""


@dataclass(frozen=True)
class LabelRow:
    """One label of one item: a video, its class, its split and, if the file says so, its time span in seconds.

    An item with several labels has several rows; one without a label has one row with an empty `label`.
    `line` is the line of a text file, or the place of the item in a json file, from 1.
    """

    video_id: str
    label: str
    split: str
    start_s: float | None = None
    end_s: float | None = None
    line: int = 0
    class_index: int | None = None
    """As the file itself gives it, from 0; None where the file has names only (then `class_indices` knows it)."""
    path: str = ""
    """Where the file says the video or the folder of frames lies, relative to the data."""
    frames: Frames | None = None
    duration_s: float | None = None

    @property
    def num_frames(self) -> int | None:
        return self.frames.num_frames if self.frames else None


@dataclass
class Annotations:
    """Rows of one file or folder, the classes in id order, and what was left out: (line, reason)."""

    source: str
    rows: list[LabelRow] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    """Class names in official id order; empty when the sorted names of the rows are that order."""
    class_order: str = "sorted names"
    """Where the order comes from, in words."""
    clipped: list[tuple[int, str]] = field(default_factory=list)
    """Segments that reached over the end of their video and were cut to it."""
    untrimmed: bool = False
    """Whether times are segments inside videos that stay whole; otherwise a time span is an item of its own."""
    skip_reasons: Counter[str] = field(default_factory=Counter)

    def skip(self, line: int, subject: str, reason: str) -> None:
        """Note that `subject` was left out; reasons are few and counted, subjects are many."""
        self.skipped.append((line, f"{subject} {reason}"))
        self.skip_reasons[reason] += 1

    @property
    def found(self) -> dict[str, int]:
        """Counts: rows, videos, labelled classes, skipped and clipped rows, and rows per split."""
        per_split = Counter(row.split for row in self.rows)
        return {
            "rows": len(self.rows),
            "videos": len({(row.path, row.video_id) for row in self.rows}),
            "classes": len({row.label for row in self.rows} - {""}),
            "skipped": len(self.skipped),
            "clipped": len(self.clipped),
        } | {f"rows {split}": count for split, count in sorted(per_split.items())}

    def class_names(self) -> list[str]:
        """Class names: the place in this list is the class index."""
        return self.classes or sorted({row.label for row in self.rows} - {""})

    def class_hash(self) -> str:
        """A label id is worth its class list: this names the list (see `class_list_hash`)."""
        return class_list_hash(self.class_names())

    def class_indices(self) -> list[int]:
        """Class index of every row, in their order; -1 for a row without a label."""
        index = {name: place for place, name in enumerate(self.class_names())}
        return [index.get(row.label, -1) if row.class_index is None else row.class_index for row in self.rows]


def class_list_hash(names: list[str]) -> str:
    """First 16 hex digits of the SHA-256 of the names joined by line feeds, UTF-8, without a final one."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
