"""Our own manifest: one json object per line, or a csv `id,path,split,labels,start,end` with labels joined by `;`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ingest.annotations._reading import (
    add_segment,
    broken,
    finish,
    guess_split,
    member,
    name_by_index,
    name_rows,
    numbered_lines,
    read_text,
    seconds,
    split_of,
    whole,
)
from ingest.annotations.labels_csv import csv_records
from ingest.annotations.rows import Annotations, Frames, LabelRow

_COLUMNS = ("id", "path", "split", "labels", "start", "end")


def read_manifest(path: Path, *, split: str | None = None, class_list: Path | None = None) -> Annotations:
    """A manifest by its ending: .csv, or else json lines.

    An object has `id`; `path` of a video, or `frames` (folder), `template`, `start_index`, `num_frames`; `split`;
    `labels` [int]; and may have `label_names`, `start`, `end`, `segments` [{start, end, label}], `duration`. Other
    keys are left alone. Class names come from `class_list`, else from `label_names` where every id has one.
    """
    found = Annotations(str(path))
    names: dict[int, str] = {}
    if path.suffix == ".csv":
        _read_csv(path, found, guess_split(path, split))
    else:
        for number, text in numbered_lines(path):
            try:
                item = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise broken(path, f"line {number}", f"no valid json ({error})") from None
            _add_item(path, found, item, number, guess_split(path, split), names)
    indices = {row.class_index for row in found.rows if row.class_index is not None}
    if class_list is None and indices and set(names) == set(range(max(indices) + 1)):
        name_rows(found, [names[index] for index in sorted(names)], "label_names of the manifest")
    else:
        name_by_index(found, class_list)
    return finish(found)


def _add_item(path: Path, found: Annotations, item: Any, number: int, split: str, names: dict[int, str]) -> None:
    where = f"line {number}"
    video_id = member(item, "id", str, path, where)
    file = member(item, "frames" if "frames" in item else "path", str, path, where)
    frames = None
    if "frames" in item:
        total, start_index = (
            member(item, name, int, path, where) if name in item else None for name in ("num_frames", "start_index")
        )
        template = member(item, "template", str, path, where) if "template" in item else ""
        frames = Frames(total, 0, template, start_index)
    split = split_of(item["split"], path, where) if "split" in item else split
    start_s, end_s, duration_s = (
        seconds(item[name], path, where) if item.get(name) is not None else None
        for name in ("start", "end", "duration")
    )
    labels = member(item, "labels", list, path, where) if "labels" in item else []
    label_names = member(item, "label_names", list, path, where) if "label_names" in item else []
    segments = member(item, "segments", list, path, where) if "segments" in item else []
    for label, name in zip(labels, label_names, strict=False):
        _index(label, path, where)
        if names.setdefault(label, str(name)) != str(name):
            raise broken(path, where, f"class {label} is called {name!r}, before {names[label]!r}")
    rows = [_index(label, path, where) for label in labels]
    for segment in segments:
        found.untrimmed = True
        start, end = (seconds(member(segment, name, object, path, where), path, where) for name in ("start", "end"))
        index = _index(member(segment, "label", int, path, where), path, where)
        add_segment(found, LabelRow(video_id, "", split, start, end, number, index, file, frames, duration_s))
    if not rows and not segments:
        rows = [None]
    for label_index in dict.fromkeys(rows):
        found.rows.append(LabelRow(video_id, "", split, start_s, end_s, number, label_index, file, frames, duration_s))


def _index(label: object, path: Path, where: str) -> int | None:
    """A class id; -1 stands for none."""
    if isinstance(label, bool) or not isinstance(label, int) or label < -1:
        raise broken(path, where, f"the label {label!r} is no class id")
    return None if label == -1 else label


def _read_csv(path: Path, found: Annotations, split: str) -> None:
    records = csv_records(read_text(path), path)
    _, header = next(records, (1, []))
    header = [name.strip().lower() for name in header]
    if missing := [name for name in ("id", "path", "labels") if name not in header]:
        raise broken(path, "line 1", f"no column {missing[0]!r} among {', '.join(header) or 'none'}")
    for number, cells in records:
        where = f"line {number}"
        if len(cells) != len(header):
            raise broken(path, where, f"{len(cells)} fields where the header has {len(header)}")
        cell = {name: cells[header.index(name)].strip() if name in header else "" for name in _COLUMNS}
        if not cell["id"] or not cell["path"]:
            raise broken(path, where, "the id or the path is empty")
        start_s, end_s = (seconds(cell[name], path, where) if cell[name] else None for name in ("start", "end"))
        labels = [label for label in cell["labels"].split(";") if label.strip() and label.strip() != "-1"]
        indices: list[int | None] = [whole(label, path, where, "class id") for label in labels]
        for index in indices or [None]:
            row_split = split_of(cell["split"], path, where) if cell["split"] else split
            found.rows.append(LabelRow(cell["id"], "", row_split, start_s, end_s, number, index, cell["path"]))
