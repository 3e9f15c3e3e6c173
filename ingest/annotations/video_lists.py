"""Lists of video files: `path label`, `path label label ...`, `path`, of mmaction, SlowFast, PyTorchVideo."""

from __future__ import annotations

from pathlib import Path

from ingest.annotations._reading import broken, finish, guess_split, id_of, name_by_index, numbered_lines, whole
from ingest.annotations.rows import Annotations, LabelRow
from ingest.video import is_video_name


def read_video_list(
    path: Path,
    *,
    split: str | None = None,
    class_list: Path | None = None,
    multi_label: bool = False,
    delimiter: str | None = None,
) -> Annotations:
    """One video per line, split from the right, so that a path may hold blanks (SlowFast's own reader loses its tail).

    `delimiter` None stands for any blanks. A line that ends in a video's name has no label, and so has one with the
    label -1. With `multi_label` all whole numbers after the video's name count.
    """
    found = Annotations(str(path))
    split = guess_split(path, split)
    for number, text in numbered_lines(path):
        where = f"line {number}"
        video = text.strip()
        labels: list[int] = []
        while not is_video_name(video) and (multi_label or not labels):
            video, *last = (field.strip() for field in video.rsplit(delimiter, 1))
            if not last:
                video = ""
                break
            labels.insert(0, -1 if last[0] == "-1" else whole(last[0], path, where, "class id"))
        if not video:
            raise broken(path, where, f"{text.strip()[:80]!r} names no video before its labels")
        for label in dict.fromkeys(labels or [-1]):
            index = None if label < 0 else label
            found.rows.append(LabelRow(id_of(video), "", split, line=number, class_index=index, path=video))
    name_by_index(found, class_list)
    return finish(found)
