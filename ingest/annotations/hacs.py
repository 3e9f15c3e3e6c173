"""HACS v1.1: the csv of two-second clips, and the json of segments in untrimmed videos. Classes: ActivityNet 1.3's."""

from __future__ import annotations

from pathlib import Path

from ingest.annotations._reading import (
    add_segment,
    broken,
    finish,
    guess_split,
    member,
    read_json,
    read_text,
    seconds,
    span,
    split_of,
    use_class_list,
)
from ingest.annotations.labels_csv import csv_records
from ingest.annotations.rows import Annotations, LabelRow

_COLUMNS = ("classname", "youtube_id", "subset", "start", "end", "label")


def read_hacs_clips(path: Path, *, negatives: bool = False, class_list: Path | None = None) -> Annotations:
    """`HACS_clips_v1.1.1.csv`: `classname,youtube_id,subset,start,end,label`, label 1 the action, -1 a hard negative.

    Hard negatives are skipped, or kept without a label (`negatives`). Testing rows may lack class and label (unverified,
    accepted); so are they kept without one.
    """
    found = Annotations(str(path))
    records = csv_records(read_text(path), path)
    _, header = next(records, (1, []))
    header = [name.strip().lower() for name in header]
    if missing := [name for name in _COLUMNS if name not in header]:
        raise broken(path, "line 1", f"no column {missing[0]!r} among {', '.join(header) or 'none'}")
    for number, cells in records:
        where = f"line {number}"
        if len(cells) != len(header):
            raise broken(path, where, f"{len(cells)} fields where the header has {len(header)}")
        cell = {name: cells[header.index(name)].strip() for name in _COLUMNS}
        split = split_of(cell["subset"], path, where)
        start_s, end_s = (seconds(cell[name], path, where) if cell[name] else None for name in ("start", "end"))
        if not cell["youtube_id"]:
            raise broken(path, where, "the youtube_id is empty")
        if cell["label"] not in ("1", "-1") and (cell["label"] or split != "test"):
            raise broken(path, where, f"the label is {cell['label']!r}, expected 1 or -1")
        if not cell["classname"] and split != "test":
            raise broken(path, where, "the classname is empty")
        if cell["label"] == "-1" and not negatives:
            found.skip(number, cell["youtube_id"], "is a hard negative (label -1)")
            continue
        label = cell["classname"] if cell["label"] == "1" else ""
        found.rows.append(LabelRow(cell["youtube_id"], label, split, start_s, end_s, number))
    use_class_list(found, class_list)
    return finish(found)


def read_hacs_segments(path: Path, *, class_list: Path | None = None) -> Annotations:
    """`HACS_segments_v1.1.1.json`; the duration is text there, and testing videos have no annotations."""
    return read_segment_database(path, class_list=class_list)


def read_segment_database(path: Path, *, class_list: Path | None = None, split: str | None = None) -> Annotations:
    """`{"database": {id: {"annotations": [{"label", "segment"}], "subset", "duration"}}}`, of HACS and ActivityNet.

    The form of the BSN lists, `{"v_<id>": {"annotations", "duration_second", ...}}`, is read too; it has no subset, so
    `split` or the file name says it. A video without annotations gets one row without a label.
    """
    found = Annotations(str(path), untrimmed=True)
    data = read_json(path, dict, found)
    is_bsn = "database" not in data
    videos = data if is_bsn else member(data, "database", dict, path, "line 1")
    for place, (key, item) in enumerate(videos.items(), start=1):
        where = f"key {key!r}"
        annotations = member(item, "annotations", list, path, where)
        if is_bsn:
            # Only the prefix that BSN adds: an id proper has 11 characters and may begin with v_ itself.
            key = key[2:] if key.startswith("v_") and len(key) == 13 else key
            subset = guess_split(path, split)
        else:
            subset = split_of(member(item, "subset", str, path, where), path, where)
        duration = item.get("duration_second" if is_bsn else "duration")
        duration_s = None if duration is None else seconds(duration, path, where, "duration in seconds")
        if not annotations:
            found.rows.append(LabelRow(key, "", subset, line=place, duration_s=duration_s))
        for annotation in annotations:
            label = member(annotation, "label", str, path, where).strip()
            if not label:
                raise broken(path, where, "a label is empty")
            start_s, end_s = span(member(annotation, "segment", list, path, where), path, where)
            add_segment(found, LabelRow(key, label, subset, start_s, end_s, place, duration_s=duration_s))
    use_class_list(found, class_list)
    return finish(found)
