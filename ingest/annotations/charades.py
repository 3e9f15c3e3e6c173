"""Charades: the csv with its `actions` field, and the list of one line per frame of SlowFast and PyTorchVideo."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ingest.annotations._reading import (
    add_segment,
    beside,
    broken,
    finish,
    guess_split,
    name_by_index,
    name_rows,
    numbered_lines,
    read_text,
    seconds,
    whole,
)
from ingest.annotations.labels_csv import csv_records
from ingest.annotations.rows import Annotations, Frames, LabelRow

_NUM_CLASSES = 157
_ACTION = re.compile(r"c(\d{3})\s+(\S+)\s+(\S+)")
_FRAME_HEADER = ["original_vido_id", "video_id", "frame_id", "path", "labels"]


def read_charades(path: Path, *, split: str | None = None, class_list: Path | None = None) -> Annotations:
    """`Charades_v1_train.csv` or `Charades_v1_test.csv`: actions `c092 11.90 21.20;c147 0.00 12.60`, or none.

    Ids are the numbers after the c; names come from `Charades_v1_classes.txt` beside the file (`c000 Holding some
    clothes`), else they are c000 to c156. Segments are cut to the `length` of the video.
    """
    found = Annotations(str(path), untrimmed=True)
    split = guess_split(path, split)
    records = csv_records(read_text(path), path)
    _, header = next(records, (1, []))
    for name in ("id", "actions", "length"):
        if name not in header:
            raise broken(path, "line 1", f"no column {name!r} among {', '.join(header) or 'none'}")
    for number, cells in records:
        where = f"line {number}"
        if len(cells) != len(header):
            raise broken(path, where, f"{len(cells)} fields where the header has {len(header)}")
        video_id, actions, length = (cells[header.index(name)].strip() for name in ("id", "actions", "length"))
        if not video_id:
            raise broken(path, where, "the id is empty")
        duration_s = seconds(length, path, where, "length in seconds") if length else None
        if not actions:
            found.rows.append(LabelRow(video_id, "", split, line=number, duration_s=duration_s))
        for action in actions.split(";") if actions else []:
            match = _ACTION.fullmatch(action.strip())
            if match is None or int(match[1]) >= _NUM_CLASSES:
                raise broken(path, where, f"the action {action!r} is not `c000 start end` with c000 to c156")
            start_s, end_s = seconds(match[2], path, where), seconds(match[3], path, where)
            row = LabelRow(video_id, "", split, start_s, end_s, number, int(match[1]), duration_s=duration_s)
            add_segment(found, row)
    names = [f"c{index:03d}" for index in range(_NUM_CLASSES)]
    file = class_list or beside(path, "Charades_v1_classes.txt")
    if file:
        for number, text in numbered_lines(file):
            code, _, name = text.partition(" ")
            if code not in names[number - 1 : number] or not name.strip():
                raise broken(file, f"line {number}", f"{text[:60]!r} is not `c{number - 1:03d} <name>`")
            names[number - 1] = name.strip()
    name_rows(found, names, f"order of {file.name}" if file else "c000 to c156")
    return finish(found)


def read_frame_labels(path: Path, *, split: str | None = None, class_list: Path | None = None) -> Annotations:
    """`original_vido_id video_id frame_id path labels`, blank separated, a line per frame, labels `"92,147"` or `""`.

    The header is misspelt in the format itself. Frames of one video stand together, frame_id counting from 0. Every run
    of frames with a class becomes a row with `frames.first` and `frames.num_frames`; a video without any label gets one
    row that spans it. A clip has the labels of all its frames; a whole video, in evaluation, those of all of its.
    """
    found = Annotations(str(path), untrimmed=True)
    split = guess_split(path, split)
    for video_id, line, folder, labels in _videos(path):
        open_runs: dict[int, int] = {}
        runs = []
        for frame, now in enumerate([*labels, frozenset[int]()]):
            for index in [index for index in open_runs if index not in now]:
                runs.append((open_runs.pop(index), index, frame))
            for index in now:
                open_runs.setdefault(index, frame)
        for first, index, end in sorted(runs):
            frames = Frames(end - first, first)
            found.rows.append(LabelRow(video_id, "", split, None, None, line, index, folder, frames))
        if not runs:
            found.rows.append(LabelRow(video_id, "", split, line=line, path=folder, frames=Frames(len(labels))))
    name_by_index(found, class_list)
    return finish(found)


def _videos(path: Path) -> Iterator[tuple[str, int, str, list[frozenset[int]]]]:
    """Id, first line, folder and labels per frame of every video, in file order."""
    lines = numbered_lines(path)
    _, header = next(lines, (1, ""))
    if header.split() != _FRAME_HEADER:
        raise broken(path, "line 1", f"the header is {header[:80]!r}, expected {' '.join(_FRAME_HEADER)!r}")
    video_id, line, folder = "", 0, ""
    labels: list[frozenset[int]] = []
    parsed: dict[str, frozenset[int]] = {'""': frozenset()}
    done: set[str] = set()
    for number, text in lines:
        where = f"line {number}"
        fields = text.split(None, 3)
        file, _, quoted = fields[3].rpartition(" ") if len(fields) == 4 else ("", "", "")
        if not file:
            raise broken(path, where, f"{text[:80]!r} is not `id number frame path labels`")
        if quoted not in parsed:
            if len(quoted) < 3 or quoted[0] != '"' or quoted[-1] != '"':
                raise broken(path, where, f'the labels are {quoted[:40]}, expected "1,2" or ""')
            parsed[quoted] = frozenset(whole(label, path, where, "class id") for label in quoted[1:-1].split(","))
        if fields[0] != video_id:
            if video_id:
                yield video_id, line, folder, labels
            video_id, line, folder, labels = fields[0], number, file.strip().rpartition("/")[0], []
            if video_id in done:
                raise broken(path, where, f"the frames of {video_id} do not stand together")
            done.add(video_id)
        if whole(fields[2], path, where, "frame number") != len(labels):
            raise broken(path, where, f"frame {fields[2]} of {video_id} where {len(labels)} is next")
        labels.append(parsed[quoted])
    if video_id:
        yield video_id, line, folder, labels
