"""FCVID: `FCVID_VideoName_TrainTestSplit.txt` and, row by row, the 0/1 matrix `FCVID_Label.txt` (239 columns)."""

from __future__ import annotations

from pathlib import Path

from ingest.annotations._reading import (
    broken,
    finish,
    id_of,
    name_by_index,
    need_beside,
    numbered_lines,
    split_of,
)
from ingest.annotations.rows import Annotations, LabelRow

_SPLIT_FILE = "FCVID_VideoName_TrainTestSplit.txt"


def read_fcvid(path: Path, *, labels: Path | None = None, class_list: Path | None = None) -> Annotations:
    """The folder `materials`, or the split file in it: `<category>/<file> train|test`, several labels per video.

    Row i of the matrix belongs to row i of the split file. Ids are the columns; the release file with their names is
    unverified, so names come from `class_list`. Backslashes in paths are accepted.
    """
    split_file = need_beside(path, None, "the list of videos", "path", _SPLIT_FILE) if path.is_dir() else path
    matrix = need_beside(path, labels, "the matrix of labels", "labels", "FCVID_Label.txt")
    videos, rows = list(numbered_lines(split_file)), list(numbered_lines(matrix))
    if len(videos) != len(rows):
        raise broken(
            matrix,
            f"line {rows[-1][0] if rows else 1}",
            f"{len(rows)} rows of labels for {len(videos)} videos of {split_file.name}",
            "Take both files of one release.",
        )
    found = Annotations(str(split_file))
    num_classes = len(rows[0][1].split()) if rows else 0
    for (number, text), (label_line, bits) in zip(videos, rows, strict=True):
        file, _, word = text.rpartition(" ")
        file = file.strip().replace("\\", "/")
        split = split_of(word, split_file, f"line {number}")
        if not file or split not in ("train", "test"):
            raise broken(split_file, f"line {number}", f"{text[:80]!r} is not `<category>/<file> train|test`")
        hot = bits.split()
        if len(hot) != num_classes or set(hot) - {"0", "1"}:
            raise broken(matrix, f"line {label_line}", f"not {num_classes} fields of 0 and 1")
        columns: list[int | None] = [column for column, bit in enumerate(hot) if bit == "1"]
        for index in columns or [None]:
            found.rows.append(LabelRow(id_of(file), "", split, line=number, class_index=index, path=file))
    name_by_index(found, class_list, num_classes)
    return finish(found)
