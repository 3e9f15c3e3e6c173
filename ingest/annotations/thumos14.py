"""THUMOS14, 20 classes: folders of `<Class>_{val,test}.txt`, or the csv form of seven columns. Times in seconds."""

from __future__ import annotations

import re
from pathlib import Path

from ingest.annotations._reading import (
    NOTHING_DONE,
    add_segment,
    broken,
    finish,
    guess_split,
    numbered_lines,
    read_text,
    seconds,
)
from ingest.annotations.labels_csv import csv_records
from ingest.annotations.rows import Annotations, LabelRow
from ingest.errors import ClipmillError

THUMOS_CLASSES = (
    "Background",
    "BaseballPitch",
    "BasketballDunk",
    "Billiards",
    "CleanAndJerk",
    "CliffDiving",
    "CricketBowling",
    "CricketShot",
    "Diving",
    "FrisbeeCatch",
    "GolfSwing",
    "HammerThrow",
    "HighJump",
    "JavelinThrow",
    "LongJump",
    "PoleVault",
    "Shotput",
    "SoccerPenalty",
    "TennisSwing",
    "ThrowDiscus",
    "VolleyballSpiking",
    "Ambiguous",
)
"""Columns of the per-frame targets: background, detclasslist in its order (not its numbers, 7 to 97), ambiguous."""

_CLASS_LIST = "detclasslist.txt"
_FILE = re.compile(r"(?P<label>[A-Za-z]+)_(val|test)\.txt")


def read_thumos14(path: Path, *, split: str | None = None) -> Annotations:
    """The annotation folder of the validation or the test set, or one file of it, or a csv.

    A line of a class file is the video, two blanks, start and end; the class is the name of the file. Ambiguous rows are
    a class of their own, the last. Every CliffDiving is also a Diving: both rows are kept. Splits are `val` (what online
    detection trains on) and `test`. A `detclasslist.txt` in the folder or beside it names the classes of another set
    in this style.
    """
    if path.suffix == ".csv":
        return _read_csv(path, guess_split(path, split))
    folder = path / "annotation" if (path / "annotation").is_dir() else path
    files = sorted(set(folder.glob("*.txt")) - {folder / _CLASS_LIST}) if folder.is_dir() else [path]
    found = _new(path, _class_list(folder if folder.is_dir() else folder.parent))
    for file in files:
        match = _FILE.fullmatch(file.name)
        if match is None:
            found.skip(0, file.name, "is not a file <Class>_val.txt or <Class>_test.txt")
            continue
        _known(match["label"], found.classes, file, "its name")
        for number, text in numbered_lines(file):
            where = f"line {number}"
            words = text.split()
            if len(words) != 3:
                raise broken(file, where, f"{text[:80]!r} is not `video  start end`")
            start_s, end_s = seconds(words[1], file, where), seconds(words[2], file, where)
            add_segment(found, LabelRow(words[0], match["label"], guess_split(file, split), start_s, end_s, number))
    if not files:
        raise ClipmillError(f"{folder} holds no .txt file.", NOTHING_DONE, "Give the folder with <Class>_val.txt.")
    return finish(found)


def _read_csv(path: Path, split: str) -> Annotations:
    """`video,type,typeIdx,start,end,startFrame,endFrame`; the words of the header are unverified, so it is not read.

    The class is told by its name: the index is the THUMOS101 number in one copy, the place among the 20 in another.
    """
    found = _new(path, list(THUMOS_CLASSES))
    for number, cells in csv_records(read_text(path), path):
        where = f"line {number}"
        if len(cells) != 7:
            raise broken(path, where, f"{len(cells)} fields, expected 7: video, class, index, start, end and frames")
        if number == 1 and not _is_number(cells[3]):
            continue
        label = _known(cells[1].strip(), found.classes, path, where)
        start_s, end_s = seconds(cells[3], path, where), seconds(cells[4], path, where)
        add_segment(found, LabelRow(cells[0].strip(), label, split, start_s, end_s, number))
    return finish(found)


def _class_list(folder: Path) -> list[str]:
    """Background, the classes of detclasslist.txt (lines `<number> <class>`) or else the 20 of THUMOS14, Ambiguous."""
    file = next((file for file in (folder / _CLASS_LIST, folder.parent / _CLASS_LIST) if file.is_file()), None)
    if file is None:
        return list(THUMOS_CLASSES)
    names = []
    for number, text in numbered_lines(file):
        words = text.split()
        if len(words) != 2 or not words[0].isdigit():
            raise broken(file, f"line {number}", f"{text[:80]!r} is not `number class`")
        names.append(words[1])
    return [THUMOS_CLASSES[0], *names, THUMOS_CLASSES[-1]]


def _new(path: Path, classes: list[str]) -> Annotations:
    return Annotations(str(path), classes=classes, class_order="background, detclasslist, ambiguous", untrimmed=True)


def _known(label: str, classes: list[str], path: Path, where: str) -> str:
    if label not in classes[1:]:
        raise broken(path, where, f"{label!r} is none of the {len(classes) - 2} classes nor Ambiguous")
    return label


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
