"""Diving48 V1 and V2: json arrays of `{"vid_name", "label", "start_frame", "end_frame"}` and `Diving48_vocab.json`."""

from __future__ import annotations

from pathlib import Path

from ingest.annotations._reading import beside, broken, finish, guess_split, member, name_by_index, name_rows, read_json
from ingest.annotations.rows import Annotations, Frames, LabelRow

_NUM_CLASSES = 48


def read_diving48(path: Path, *, split: str | None = None, class_list: Path | None = None) -> Annotations:
    """`Diving48_V2_train.json` or `Diving48_V2_test.json`; the video is `<vid_name>.mp4`, trimmed already.

    `class_list`, found beside the file as Diving48_vocab.json, holds four words per class, joined here with `+`; its
    order is the id. Without it the classes are named by their ids. Use V2: the labels of V1 are noisy.
    """
    found = Annotations(str(path))
    split = guess_split(path, split)
    for number, item in enumerate(read_json(path, list, found), start=1):
        where = f"item {number}"
        video_id = member(item, "vid_name", str, path, where)
        label = member(item, "label", int, path, where)
        first = member(item, "start_frame", int, path, where)
        end = member(item, "end_frame", int, path, where)
        if not video_id:
            raise broken(path, where, "'vid_name' is empty")
        if not 0 <= label < _NUM_CLASSES:
            raise broken(path, where, f"the label is {label}, the classes go from 0 to {_NUM_CLASSES - 1}")
        if not 0 <= first <= end:
            raise broken(path, where, f"the frames go from {first} to {end}")
        frames = Frames(end - first, first)
        found.rows.append(LabelRow(video_id, "", split, line=number, class_index=label, frames=frames))
    if vocab := class_list or beside(path, "Diving48_vocab.json"):
        name_rows(found, _read_vocab(vocab), f"order of {vocab.name}")
    else:
        name_by_index(found, None, _NUM_CLASSES)
    return finish(found)


def _read_vocab(path: Path) -> list[str]:
    names = []
    for number, words in enumerate(read_json(path, list), start=1):
        if not isinstance(words, list) or len(words) != 4 or not all(isinstance(word, str) for word in words):
            raise broken(path, f"item {number}", "expected four words: take-off, somersaults, twists, position")
        names.append("+".join(words))
    return names
