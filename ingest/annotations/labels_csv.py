"""The Kinetics-like csv: `label,youtube_id,time_start,time_end,split`, with the other headers seen for these columns."""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingest.annotations._reading import finish, read_text
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
    return finish(read_labels_table(path, default_split))


def read_labels_table(
    path: Path, default_split: str, *, delimiter: str = ",", header: list[str] | None = None, label_needed: bool = True
) -> Annotations:
    """The rows as they stand, of a file with another delimiter, a given header in place of its own, or no labels."""
    found = Annotations(str(path))
    records = csv_records(read_text(path), path, delimiter)
    if header is None:
        _, cells = next(records, (1, []))
        header = [name.strip().lower() for name in cells]
    required = _REQUIRED if label_needed else _REQUIRED[1:]
    columns = _columns(header, path, required)
    for line, cells in records:
        found.rows.append(_row(cells, columns, len(header), path, line, default_split, required))
    return found


def csv_records(text: str, path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Fields of every record that is not blank, with the line on which it begins: a quoted field may go over several."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ClipmillError(
            f"{path}, line {line}: {error}.", "Nothing was converted.", "Look for a quote that is never closed."
        ) from None


def _columns(header: list[str], path: Path, required: Sequence[str]) -> dict[str, int]:
    columns = {}
    for name, synonyms in _HEADERS.items():
        for synonym in synonyms:
            if synonym in header:
                columns[name] = header.index(synonym)
                break
    for name in required:
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


def _row(
    cells: list[str],
    columns: dict[str, int],
    width: int,
    path: Path,
    line: int,
    default_split: str,
    required: Sequence[str],
) -> LabelRow:
    while len(cells) > width and not cells[-1].strip():
        cells.pop()
    if len(cells) != width:
        raise ClipmillError(
            f"{path}, line {line}: {len(cells)} fields where the header has {width}.",
            "Nothing was converted.",
            "Mend that line: a field that holds a comma stands in quotes, and every quote is closed.",
        )
    text = {name: cells[column].strip() for name, column in columns.items()}
    for name in required:
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
    return LabelRow(
        text["video_id"], text.get("label", ""), SPLITS.get(split, split), times["start_s"], times["end_s"], line
    )
