"""Lists of frame folders: `dir [offset] total_frames label [label ...]`, of mmaction, TSM, AR-Net and their kin."""

from __future__ import annotations

from pathlib import Path

from ingest.annotations._reading import broken, finish, guess_split, id_of, name_by_index, numbered_lines, whole
from ingest.annotations.rows import Annotations, Frames, LabelRow


def read_frame_list(
    path: Path,
    *,
    split: str | None = None,
    class_list: Path | None = None,
    with_offset: bool = False,
    labelled: bool = True,
    multi_label: bool = False,
    delimiter: str | None = None,
    template: str = "",
    start_index: int | None = None,
) -> Annotations:
    """One folder per line (or one video, with a frame count that is only a hint), fields split from the right.

    `delimiter` None stands for any blanks. With `multi_label` all whole numbers at the end of the line count, the first
    is the number of frames; a folder name that ends in a number of its own then needs another delimiter. A line of
    folder and label only is what mmaction's list builder writes for a folder without frames: it is skipped. `template`
    and `start_index` tell how the frame files are called, which no list says.
    """
    found = Annotations(str(path))
    split = guess_split(path, split)
    shape = "dir" + " offset" * with_offset + " total_frames" + (" label" + " ..." * multi_label) * labelled
    for number, text in numbered_lines(path):
        where = f"line {number}"
        fields = [field.strip() for field in text.split(delimiter)]
        numbers = _numbers_at_end(fields)
        wanted = 1 + with_offset + labelled
        if labelled and not with_offset and numbers == 1 and len(fields) >= 2:
            found.skip(number, text.strip(), "has no number of frames (list builders write that for an empty folder)")
            continue
        if len(fields) <= wanted or numbers < wanted:
            raise broken(
                path, where, f"{text.strip()[:80]!r} is not `{shape}`", "Mend it there, or name another format."
            )
        count = numbers if multi_label else wanted
        head, tail = _cut(text, delimiter, count)
        values = [whole(field, path, where, "whole number") for field in tail]
        first = values.pop(0) if with_offset else 0
        frames = Frames(values.pop(0), first, template, start_index)
        for label in dict.fromkeys(values) if labelled else [None]:
            row = LabelRow(id_of(head), "", split, line=number, class_index=label, path=head, frames=frames)
            found.rows.append(row)
    name_by_index(found, class_list)
    return finish(found)


def _numbers_at_end(fields: list[str]) -> int:
    """How many fields at the end are whole numbers, the first field never being one of them."""
    count = 0
    for field in reversed(fields[1:]):
        if not (field.isascii() and field.isdigit()):
            break
        count += 1
    return count


def _cut(text: str, delimiter: str | None, count: int) -> tuple[str, list[str]]:
    """The line without its last `count` fields, and those; blanks inside the path stay as they are."""
    head, *tail = text.rsplit(delimiter, count)
    return head.strip(), [field.strip() for field in tail]
