"""What every annotation reader gives: typed rows, and a word on what it found and skipped."""

from __future__ import annotations

from dataclasses import dataclass, field

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of splits in the wild, and ours."""


@dataclass(frozen=True)
class LabelRow:
    """One line of an annotation file: a video, its class, its split and, if the file says so, its time span in seconds."""

    video_id: str
    label: str
    split: str
    start_s: float | None = None
    end_s: float | None = None
    line: int = 0


@dataclass
class Annotations:
    """Rows of one file, and what was left out: (line, reason)."""

    source: str
    rows: list[LabelRow] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)

    def class_names(self) -> list[str]:
        """Class names in sorted order: the place in this list is the class index (specs of Kinetics and most others)."""
        return sorted({row.label for row in self.rows})
