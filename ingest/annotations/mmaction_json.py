"""The json lists of mmaction: an array of `{"frame_dir", "total_frames", "label": [..]}` or `{"filename", "label": [..]}`."""

from __future__ import annotations

from pathlib import Path

from ingest.annotations._reading import broken, finish, guess_split, id_of, member, name_by_index, read_json
from ingest.annotations.rows import Annotations, Frames, LabelRow


def read_mmaction_json(path: Path, *, split: str | None = None, class_list: Path | None = None) -> Annotations:
    """Frame folders or videos, each with a list of class ids (a single id is accepted, none means unlabelled)."""
    found = Annotations(str(path))
    split = guess_split(path, split)
    for number, item in enumerate(read_json(path, list, found), start=1):
        where = f"item {number}"
        frames = None
        if isinstance(item, dict) and "frame_dir" in item:
            file = member(item, "frame_dir", str, path, where)
            total = member(item, "total_frames", int, path, where)
            if total < 0:
                raise broken(path, where, f"'total_frames' is {total}")
            frames = Frames(total, item["offset"] if isinstance(item.get("offset"), int) else 0)
        else:
            file = member(item, "filename", str, path, where)
        labels = item.get("label", [])
        labels = labels if isinstance(labels, list) else [labels]
        if not file or any(isinstance(label, bool) or not isinstance(label, int) or label < -1 for label in labels):
            raise broken(path, where, f"'label' is {item.get('label')!r}, expected class ids, and the name not empty")
        for label in dict.fromkeys(labels or [-1]):
            index = None if label < 0 else label
            found.rows.append(
                LabelRow(id_of(file), "", split, line=number, class_index=index, path=file, frames=frames)
            )
    name_by_index(found, class_list)
    return finish(found)
