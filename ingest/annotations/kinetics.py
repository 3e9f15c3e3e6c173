"""Kinetics-400/600/700: csv `label,youtube_id,time_start,time_end,split[,is_cc]`, and the json of the same release."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ingest.annotations._reading import (
    broken,
    finish,
    guess_split,
    member,
    numbered_lines,
    read_json,
    span,
    split_of,
    use_class_list,
)
from ingest.annotations.labels_csv import read_labels_table
from ingest.annotations.rows import Annotations, LabelRow

_COLUMNS = ["label", "youtube_id", "time_start", "time_end", "split"]


def read_kinetics(path: Path, *, split: str | None = None, class_list: Path | None = None) -> Annotations:
    """A Kinetics file by its ending: .json, or else csv (see `read_kinetics_csv`)."""
    if path.suffix == ".json":
        return read_kinetics_json(path, class_list=class_list)
    return read_kinetics_csv(path, split=split, class_list=class_list)


def read_kinetics_csv(path: Path, *, split: str | None = None, class_list: Path | None = None) -> Annotations:
    """A csv of any Kinetics: names quoted or not, with or without `is_cc`, the old test file without a label column.

    `split` holds for rows whose file has no split column; otherwise `validate` becomes `val`. Ids are the sorted names
    unless `class_list` says otherwise. The complete lists of Kinetics-600 end in .txt; their layout is unverified, so
    the delimiter is looked for, and a file without a header is read as the five columns of the csv.
    """
    first = next((text for _, text in numbered_lines(path)), "")
    delimiter = max(",\t;", key=first.count)
    names = [name.strip().strip('"').lower() for name in first.split(delimiter)]
    has_header = any(re.fullmatch(r"(youtube_|video[-_]?)?id|video", name) for name in names)
    found = read_labels_table(
        path,
        guess_split(path, split),
        delimiter=delimiter,
        header=None if has_header or path.suffix == ".csv" else _COLUMNS[: len(names)],
        label_needed=not has_header or bool({"label", "label-name", "classname", "class"} & set(names)),
    )
    # Some copies quote names twice, so that quotes are left after csv reading.
    found.rows = [replace(row, label=row.label.strip('"')) for row in found.rows]
    use_class_list(found, class_list)
    return finish(found)


def read_kinetics_json(path: Path, *, class_list: Path | None = None) -> Annotations:
    """`{id: {"annotations": {"label", "segment": [start, end]}, "subset", "duration", "url"}}`.

    One entry per id: a video used for two clips is in the csv twice and here once. `annotations` may be missing in
    test sets.
    """
    found = Annotations(str(path))
    for place, (video_id, item) in enumerate(read_json(path, dict, found).items(), start=1):
        where = f"key {video_id!r}"
        split = split_of(member(item, "subset", str, path, where), path, where)
        if "annotations" not in item:
            found.rows.append(LabelRow(video_id, "", split, line=place))
            continue
        label = member(item["annotations"], "label", str, path, where).strip()
        start_s, end_s = span(member(item["annotations"], "segment", list, path, where), path, where)
        if not label:
            raise broken(path, where, "the label is empty")
        found.rows.append(LabelRow(video_id, label, split, start_s, end_s, place))
    use_class_list(found, class_list)
    return finish(found)
