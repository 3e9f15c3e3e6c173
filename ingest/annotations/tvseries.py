"""TVSeries: `GT-train.txt`, `GT-val.txt`, `GT-test.txt`, tab separated, 16 fields and a comment. Times in seconds."""

from __future__ import annotations

from pathlib import Path

from ingest.annotations._reading import (
    NOTHING_DONE,
    add_segment,
    broken,
    class_key,
    finish,
    guess_split,
    numbered_lines,
    seconds,
)
from ingest.annotations.rows import Annotations, LabelRow
from ingest.errors import ClipmillError

TVSERIES_CLASSES = (
    "Background",
    "Pick something up",
    "Point",
    "Drink",
    "Stand up",
    "Run",
    "Sit down",
    "Read",
    "Smoke",
    "Drive car",
    "Open door",
    "Give something",
    "Use computer",
    "Write",
    "Go down stairway",
    "Close door",
    "Throw something",
    "Go up stairway",
    "Get in/out of car",
    "Hang up phone",
    "Eat",
    "Answer phone",
    "Dress up",
    "Clap",
    "Undress",
    "Kiss",
    "Fall/trip",
    "Wave",
    "Pour",
    "Punch",
    "Fire weapon",
)
"""Columns of the per-frame targets in the order of LSTR and TRN; others sort the names, and their ids differ."""

_BY_KEY = {class_key(name): name for name in TVSERIES_CLASSES[1:]}


def read_tvseries(path: Path, *, split: str | None = None) -> Annotations:
    """One GT file, or the folder with all three.

    Fields: episode, class, start, end, twelve 0/1 remarks (5 only one person ... 16 end missing), comment. Whether a
    header line exists is unverified: line 1 is data when its third field is a number. Class names hold slashes.
    """
    files = [file for name in ("train", "val", "test") if (file := path / f"GT-{name}.txt").is_file()]
    if path.is_dir() and not files:
        raise ClipmillError(
            f"{path} holds no GT-train.txt, GT-val.txt, GT-test.txt.", NOTHING_DONE, "Give their folder."
        )
    found = Annotations(str(path), classes=list(TVSERIES_CLASSES), class_order="order of LSTR", untrimmed=True)
    for file in files if path.is_dir() else [path]:
        for number, text in numbered_lines(file):
            where = f"line {number}"
            fields = [field.strip() for field in text.split("\t")]
            if number == 1 and len(fields) > 2 and not _starts_number(fields[2]):
                continue
            if len(fields) not in (16, 17):
                raise broken(file, where, f"{len(fields)} fields between tabs, expected 16 or 17")
            if not fields[0]:
                raise broken(file, where, "the episode is empty")
            if (label := _BY_KEY.get(class_key(fields[1]))) is None:
                raise broken(file, where, f"{fields[1]!r} is none of the 30 classes")
            if any(remark not in ("0", "1") for remark in fields[4:16]):
                raise broken(file, where, "the fields 5 to 16 are not all 0 or 1")
            start_s, end_s = seconds(fields[2], file, where), seconds(fields[3], file, where)
            add_segment(found, LabelRow(fields[0], label, guess_split(file, split), start_s, end_s, number))
    return finish(found)


def _starts_number(text: str) -> bool:
    return text[:1].isdigit() or text[:1] in ("-", ".", "+")
