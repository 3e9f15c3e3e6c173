"""Mini-Kinetics-200, two different subsets of Kinetics-400: AR-Net's lists (also ResKD's), and Xie's lists of ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ingest.annotations._reading import (
    beside,
    broken,
    finish,
    guess_split,
    id_of,
    name_rows,
    numbered_lines,
    read_class_list,
    whole,
)
from ingest.annotations.kinetics import read_kinetics_csv
from ingest.annotations.rows import Annotations, Frames, LabelRow
from ingest.video import is_video_name


def read_mini_kinetics(path: Path, *, split: str | None = None, class_list: Path | None = None) -> Annotations:
    """AR-Net's `images/<split>/<class>/<id>_<start>_<end> <frames> <label>` (or with `;`), ResKD's `<path>.mp4 <label>`.

    Lines are split from the right: most paths hold blanks. Names of the classes come from `minik_classInd.txt` beside
    the list or from `class_list`; without them, from the folders. Frame counts are kept as they stand; one frame is
    possible.
    """
    found = Annotations(str(path))
    split = guess_split(path, split)
    folders: dict[int, str] = {}
    for number, text in numbered_lines(path):
        where = f"line {number}"
        fields = text.rsplit(";", 2) if ";" in text else text.rsplit(None, 2)
        head = text.rpartition(" ")[0].rstrip()
        if ";" not in text and is_video_name(head):
            fields = [head, "", fields[-1]]
        if len(fields) != 3:
            raise broken(path, where, f"{len(fields)} fields, expected `path frames label` or `path.mp4 label`")
        label = whole(fields[2], path, where, "class id")
        frames = Frames(whole(fields[1], path, where, "number of frames")) if fields[1] else None
        folder = fields[0].strip().rpartition("/")[0].rpartition("/")[2]
        if folders.setdefault(label, folder) != folder:
            raise broken(path, where, f"class {label} lies in folder {folder!r}, before in {folders[label]!r}")
        found.rows.append(
            LabelRow(id_of(fields[0]), "", split, line=number, class_index=label, path=fields[0].strip(), frames=frames)
        )
    if names := class_list or beside(path, "minik_classInd.txt"):
        name_rows(found, read_class_list(names), f"order of {names.name}")
    else:
        by_folder = [folders.get(index, str(index)) for index in range(max(folders, default=-1) + 1)]
        name_rows(found, by_folder, "ids of the file, names of its folders")
    return finish(found)


def read_mini_kinetics_ids(
    path: Path, *, split: str | None = None, kinetics_csv: Path | None = None, class_list: Path | None = None
) -> Annotations:
    """Xie's `train_ytid_list.txt`, `val_ytid_list.txt`: one YouTube id per line, no labels.

    Labels and times come from `kinetics_csv`, a Kinetics-400 csv; ids that it does not have are skipped. Without it
    the rows have no label.
    """
    split = guess_split(path, split)
    found = Annotations(str(path))
    known = {}
    if kinetics_csv:
        known = {row.video_id: row for row in read_kinetics_csv(kinetics_csv, class_list=class_list).rows}
    for number, text in numbered_lines(path):
        video_id = text.strip()
        if any(c.isspace() or c in ",;/" for c in video_id):
            raise broken(path, f"line {number}", f"{video_id[:60]!r} is no YouTube id", "Give one id per line.")
        if not known:
            found.rows.append(LabelRow(video_id, "", split, line=number))
        elif video_id in known:
            found.rows.append(replace(known[video_id], split=split, line=number))
        else:
            found.skip(number, video_id, "is not in the Kinetics csv")
    return finish(found)
