"""Moments in Time v1 and v2: csv without header `<class>/<video>.mp4,<class>,<positive>,<negative>`; Multi-Moments."""

from __future__ import annotations

from pathlib import Path

from ingest.annotations._reading import (
    broken,
    finish,
    guess_split,
    id_of,
    name_by_index,
    need_beside,
    numbered_lines,
    read_text,
    whole,
)
from ingest.annotations.labels_csv import csv_records
from ingest.annotations.rows import Annotations, LabelRow


def read_moments(path: Path, *, split: str | None = None, class_list: Path | None = None) -> Annotations:
    """`trainingSet.csv` or `validationSet.csv`; the classes are those of `moments_categories.txt` beside it.

    That file holds `name,id` per line and is not sorted; ids of v1 and v2 differ. `+` in a name stands for a blank and
    is kept. The votes in columns three and four are not used.
    """
    categories = need_beside(path, class_list, "the list of categories", "class_list", "moments_categories.txt")
    found = Annotations(str(path), classes=_read_categories(categories), class_order=f"order of {categories.name}")
    names = set(found.classes)
    split = guess_split(path, split)
    for number, cells in csv_records(read_text(path), path):
        where = f"line {number}"
        if len(cells) != 4:
            raise broken(path, where, f"{len(cells)} fields, expected `file,class,positive,negative`")
        file, label = cells[0].strip(), cells[1].strip()
        if label not in names:
            raise broken(
                path, where, f"the class {label!r} is not in {categories}", "Take the categories of the same version."
            )
        if not file:
            raise broken(path, where, "the file name is empty")
        whole(cells[2], path, where, "number of votes")
        whole(cells[3], path, where, "number of votes")
        found.rows.append(LabelRow(id_of(file), label, split, line=number, path=file))
    return finish(found)


def read_multi_moments(path: Path, *, split: str | None = None, class_list: Path | None = None) -> Annotations:
    """Multi-Moments in Time: `<video>.mp4,<id>,<id>,...` without header, flat folder, several labels per video."""
    found = Annotations(str(path))
    split = guess_split(path, split)
    for number, text in numbered_lines(path):
        where = f"line {number}"
        file, *ids = text.split(",")
        if not ids or not file.strip():
            raise broken(path, where, f"{text[:60]!r} is not `video.mp4,id,id,...`")
        for index in dict.fromkeys(whole(cell, path, where, "class id") for cell in ids):
            row = LabelRow(id_of(file.strip()), "", split, line=number, class_index=index, path=file.strip())
            found.rows.append(row)
    name_by_index(found, class_list)
    return finish(found)


def _read_categories(path: Path) -> list[str]:
    """Names of `name,id` lines in the order of their ids, which are 0, 1, 2, ..."""
    names: list[str] = []
    for number, text in numbered_lines(path):
        name, _, index = text.rpartition(",")
        if not name or whole(index, path, f"line {number}", "class id") != len(names):
            raise broken(path, f"line {number}", f"{text[:60]!r} is not `name,{len(names)}`")
        names.append(name.strip())
    return names
