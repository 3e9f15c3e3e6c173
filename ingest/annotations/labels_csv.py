"""The Kinetics-like csv: `label,youtube_id,time_start,time_end,split`, with the other headers seen for these columns."""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Iterator
from pathlib import Path

from ingest.annotations.rows import SPLITS, Annotations, LabelRow
from ingest.errors import ClipmillError

_HEADERS = {
    "label": ("label", "label-name", "classname", "class"),
    "video_id": ("youtube_id", "video-id", "id", "video", "video_id"),
    "start_s": ("time_start", "start-time", "start"),
    "end_s": ("time_end", "end-time", "end"),
    "split": ("split", "subset"),
}
_REQUIRED = ("label", "video_id")


def read_labels_csv(path: Path, default_split: str = "train") -> Annotations:
    """Rows of a labels csv (UTF-8, with or without byte order mark, RFC 4180 quoting, a header line).

    `label` and `youtube_id` (or a synonym) must be there; times and split may be absent: no split column means
    `default_split` for all. Ids and labels are stripped of blanks. A line given twice is kept once and reported.

    Raises: ClipmillError for a missing file or column, a broken row (with its line), one video in two splits.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ClipmillError(
            f"the labels file {path} cannot be read: {error.strerror}.",
            "Nothing was converted.",
            "Look at the path and the rights of the file.",
        ) from None
    except UnicodeDecodeError as error:
        raise ClipmillError(
            f"the labels file {path} is not UTF-8 (byte {error.start}).",
            "Nothing was converted.",
            f"Convert it first, for example: iconv -f latin1 -t utf-8 {path} > labels.csv",
        ) from None
    records = _records(text, path)
    _, cells = next(records, (1, []))
    header = [name.strip().lower() for name in cells]
    columns = _columns(header, path)
    found = Annotations(str(path))
    splits: dict[str, LabelRow] = {}
    seen: set[tuple[str, str, str, float | None, float | None]] = set()
    for line, cells in records:
        if not any(cell.strip() for cell in cells):
            continue
        row = _row(cells, columns, len(header), path, line, default_split)
        key = (row.video_id, row.label, row.split, row.start_s, row.end_s)
        if key in seen:
            found.skipped.append((row.line, f"{row.video_id} is listed twice with the same label and times"))
            continue
        seen.add(key)
        other = splits.setdefault(row.video_id if row.start_s is None else f"{row.video_id} {row.start_s}", row)
        if other.split != row.split:
            raise ClipmillError(
                f"{path}, line {row.line}: video {row.video_id} is in split {row.split}, on line {other.line} in {other.split}.",
                "Nothing was converted: a video in two splits spoils the evaluation.",
                "Remove one of the two lines.",
            )
        found.rows.append(row)
    if not found.rows:
        raise ClipmillError(f"the labels file {path} lists no video.", "Nothing was converted.", "Check the file.")
    return found


def _records(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Fields of every record, with the line on which it begins: a quoted field may go over several."""
    reader = csv.reader(io.StringIO(text))
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ClipmillError(
            f"{path}, line {line}: {error}.", "Nothing was converted.", "Look for a quote that is never closed."
        ) from None


def _columns(header: list[str], path: Path) -> dict[str, int]:
    columns = {}
    for name, synonyms in _HEADERS.items():
        for synonym in synonyms:
            if synonym in header:
                columns[name] = header.index(synonym)
                break
    for name in _REQUIRED:
        if name not in columns:
            wanted = _HEADERS[name][0]
            near = difflib.get_close_matches(wanted, header, n=1)
            raise ClipmillError(
                f"{path}, line 1: no column {wanted!r} (or {', '.join(_HEADERS[name][1:])}) among"
                f" {', '.join(header) or 'none'}.",
                "Nothing was converted.",
                f"Did you mean to call {near[0]!r} {wanted!r}?"
                if near
                else "Add the header label,youtube_id,time_start,time_end,split.",
            )
    return columns


def _row(cells: list[str], columns: dict[str, int], width: int, path: Path, line: int, default_split: str) -> LabelRow:
    while len(cells) > width and not cells[-1].strip():
        cells.pop()
    if len(cells) != width:
        raise ClipmillError(
            f"{path}, line {line}: {len(cells)} fields where the header has {width}.",
            "Nothing was converted.",
            "Mend that line: a field that holds a comma stands in quotes, and every quote is closed.",
        )
    text = {name: cells[column].strip() for name, column in columns.items()}
    for name in _REQUIRED:
        if not text[name]:
            raise ClipmillError(
                f"{path}, line {line}: the {name} is empty.", "Nothing was converted.", "Mend that line."
            )
    times: dict[str, float | None] = {}
    for name in ("start_s", "end_s"):
        try:
            times[name] = float(text[name]) if text.get(name) else None
            if not math.isfinite(times[name] or 0.0):
                raise ValueError(text[name])
        except ValueError:
            raise ClipmillError(
                f"{path}, line {line}: {text[name]!r} is not a time in seconds.",
                "Nothing was converted.",
                "Mend that line.",
            ) from None
    split = text.get("split", "").lower() or default_split
    return LabelRow(text["video_id"], text["label"], SPLITS.get(split, split), times["start_s"], times["end_s"], line)
