"""What the readers share: text and json files, numbers, class lists, and errors that name the place.

Files come from many hands: UTF-8 with or without byte order mark, LF or CRLF, with or without a last line end, with
blank lines and trailing blanks. All of that is accepted; a field that cannot be understood is an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingest.annotations.rows import SPLITS, Annotations, LabelRow
from ingest.errors import ClipmillError
from ingest.video import is_video_name

NOTHING_DONE = "Nothing was converted or written."
_SPLIT_WORD = re.compile(
    r"(?<![A-Za-z])([Tt]rain(?:ing)?|[Vv]al(?:idat(?:e|ion))?|[Tt]est(?:ing)?)(?=list|Set|[^A-Za-z]|$)"
)


def broken(path: Path, where: str, what: str, next_step: str = "Mend it there.") -> ClipmillError:
    """The error for a row that cannot be understood; `where` is "line 3", "item 3" or "key 'x'"."""
    return ClipmillError(f"{path}, {where}: {what}.", NOTHING_DONE, next_step)


def read_text(path: Path) -> str:
    """A whole text file, without byte order mark. Raises: ClipmillError when it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ClipmillError(
            f"the file {path} cannot be read: {error.strerror}.", NOTHING_DONE, "Look at the path and the rights."
        ) from None
    except UnicodeDecodeError as error:
        raise ClipmillError(
            f"the file {path} is not UTF-8 (byte {error.start}).",
            NOTHING_DONE,
            f"Convert it first, for example: iconv -f latin1 -t utf-8 {path} > converted",
        ) from None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their number from 1, without trailing blanks."""
    # read_text has turned CRLF and CR into LF; splitlines() would also split at U+2028 and the like.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if text := line.rstrip():
            yield number, text


def read_json(path: Path, kind: type, found: Annotations | None = None) -> Any:
    """A json file whose outermost value is a `kind` (dict or list).

    A key that occurs twice in one object loses its first value in every json reader; `found` notes it as skipped.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(items)
        if found is not None and len(value) < len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    found.skip(0, repr(key), "occurs twice in one json object: the last one counts")
                seen.add(key)
        return value

    try:
        value = json.loads(read_text(path), object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise broken(path, f"line {error.lineno}", f"no valid json ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # an endless number, brackets without end
        raise broken(path, "line 1", f"no json that can be read ({error})") from None
    if not isinstance(value, kind):
        wanted = "an object {...}" if kind is dict else "an array [...]"
        raise broken(path, "line 1", f"the file holds {type(value).__name__} where {wanted} is expected")
    return value


def member(item: Any, name: str, kind: type, path: Path, where: str) -> Any:
    """`item[name]`, which must be a `kind`. Raises: ClipmillError that names the place."""
    if not isinstance(item, dict):
        raise broken(path, where, f"{_short(item)} where an object {{...}} is expected")
    if name not in item:
        raise broken(path, where, f"no {name!r} among {', '.join(map(repr, item)) or 'no keys'}")
    value = item[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise broken(path, where, f"{name!r} is {_short(value)}, expected {kind.__name__}")
    return value


def seconds(value: Any, path: Path, where: str, what: str = "time in seconds") -> float:
    """A finite number, from a number or from text (HACS writes durations as text)."""
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except (TypeError, ValueError):
        raise broken(path, where, f"{_short(value)} is not a {what}") from None
    return number


def span(value: Any, path: Path, where: str) -> tuple[float, float]:
    """A json segment `[start, end]` in seconds."""
    if not isinstance(value, list) or len(value) != 2:
        raise broken(path, where, f"the segment is {_short(value)}, expected [start, end]")
    return seconds(value[0], path, where), seconds(value[1], path, where)


def whole(text: str, path: Path, where: str, what: str) -> int:
    """A whole number that is not negative."""
    try:
        if not text.strip().isascii():
            raise ValueError
        number = int(text)
    except ValueError:
        raise broken(path, where, f"{_short(text)} is not a {what}") from None
    if number < 0:
        raise broken(path, where, f"the {what} is {number}, it cannot be negative")
    return number


def split_of(name: Any, path: Path, where: str) -> str:
    """Our name of a split, from the words that files use for it."""
    text = str(name).strip().lower()
    if not text:
        raise broken(path, where, "the split is empty")
    return SPLITS.get(text, text)


def guess_split(path: Path, split: str | None) -> str:
    """`split` where it is given, else the last of the words train, val, test in the file name (not in its folders)."""
    if split:
        return SPLITS.get(split.lower(), split)
    words = _SPLIT_WORD.findall(path.stem)
    return SPLITS[words[-1].lower()] if words else "train"


def id_of(path_text: str) -> str:
    """The last component of a path in a list, without the ending if that is one of videos."""
    name = path_text.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return name.rpartition(".")[0] if is_video_name(name) else name


def class_key(name: str) -> str:
    """What two spellings of one class have in common: letters and digits, without case."""
    return "".join(c for c in name.casefold() if c.isalnum())


def read_class_list(path: Path) -> list[str]:
    """Class names in id order: one per line, a csv headed `action`, or a json object {name: id}.

    Raises: ClipmillError for an empty list, a name given twice, ids with gaps.
    """
    if path.suffix == ".json":
        ids = {
            name: member({name: index}, name, int, path, f"key {name!r}")
            for name, index in read_json(path, dict).items()
        }
        names = sorted(ids, key=lambda name: ids[name])
        if [ids[name] for name in names] != list(range(len(names))):
            raise broken(path, "line 1", "the ids are not 0, 1, 2, ... without gaps", "Give one name for every id.")
    else:
        lines = list(numbered_lines(path))
        if lines and path.suffix == ".csv" and lines[0][1].strip().lower() in ("action", "label", "class", "name"):
            lines = lines[1:]
        names = [text.strip() for _, text in lines]
        numbers: dict[str, int] = {}
        for number, text in lines:
            if (first := numbers.setdefault(text.strip(), number)) != number:
                raise broken(path, f"line {number}", f"the class {text.strip()!r} stands on line {first} already")
    if not names:
        raise ClipmillError(f"the class list {path} is empty.", NOTHING_DONE, "Give one class name per line.")
    return names


def beside(path: Path, *names: str) -> Path | None:
    """The first of the named files that lies in the folder `path`, or next to the file `path`."""
    folder = path if path.is_dir() else path.parent
    return next((folder / name for name in names if (folder / name).is_file()), None)


def need_beside(path: Path, given: Path | None, what: str, option: str, *names: str) -> Path:
    """`given`, or the file of one of these names beside `path`. Raises: ClipmillError when there is none."""
    if (file := given or beside(path, *names)) is None:
        raise ClipmillError(
            f"{path} needs {what}, and there is no {' or '.join(names)} beside it.",
            NOTHING_DONE,
            f"Put the file there, or give its path as {option}.",
        )
    return file


def use_class_list(found: Annotations, class_list: Path | None) -> None:
    """Take the class order from a file; every label must be in it, in any spelling of the same letters and digits.

    Raises: ClipmillError for a label that the list does not have.
    """
    if class_list is None:
        return
    found.classes = read_class_list(class_list)
    found.class_order = f"order of {class_list.name}"
    names = set(found.classes)
    by_key = {class_key(name): name for name in found.classes}
    for place, row in enumerate(found.rows):
        if not row.label or row.label in names:
            continue
        name = by_key.get(class_key(row.label))
        if name is None:
            raise broken(
                Path(found.source),
                f"line {row.line}",
                f"the class {row.label!r} is not in {class_list}",
                "Give the class list of this version of the dataset.",
            )
        found.rows[place] = replace(row, label=name)


def name_by_index(found: Annotations, class_list: Path | None, num_classes: int | None = None) -> None:
    """Name the classes of rows that have an index only: by the list, else by the index itself as text."""
    if class_list is not None:
        name_rows(found, read_class_list(class_list), f"order of {class_list.name}")
        return
    most = max((row.class_index for row in found.rows if row.class_index is not None), default=-1)
    name_rows(found, [str(index) for index in range(num_classes or most + 1)], "ids of the file, names unknown")


def name_rows(found: Annotations, names: list[str], class_order: str) -> None:
    """Take `names` for the classes, in id order. Raises: ClipmillError for a row whose index has no name."""
    found.classes, found.class_order = names, class_order
    for place, row in enumerate(found.rows):
        if row.class_index is None:
            continue
        if row.class_index >= len(names):
            raise broken(
                Path(found.source),
                f"line {row.line}",
                f"the class id is {row.class_index}, the classes go from 0 to {len(names) - 1} ({class_order})",
                "Give the class list that these ids belong to.",
            )
        found.rows[place] = replace(row, label=names[row.class_index])


def add_segment(found: Annotations, row: LabelRow) -> None:
    """Add a segment of an untrimmed video, cut to the duration of the video where that is known.

    Reversed and empty segments, and such that begin after the end, are skipped; files of every dataset hold some.
    """
    assert row.start_s is not None and row.end_s is not None
    if row.end_s <= row.start_s:
        found.skip(row.line, row.video_id, "has a segment that is empty or reversed")
        return
    if row.duration_s is not None and row.start_s >= row.duration_s:
        found.skip(row.line, row.video_id, "has a segment after the end of the video")
        return
    if row.duration_s is not None and row.end_s > row.duration_s:
        found.clipped.append((row.line, f"{row.video_id} {row.label}: end {row.end_s} cut to {row.duration_s} s"))
        row = replace(row, end_s=row.duration_s)
    found.rows.append(row)


def finish(found: Annotations) -> Annotations:
    """Drop rows that are given twice; refuse a file without rows and an item in two splits.

    An item is a video, or a time span or run of frames of it. Raises: ClipmillError.
    """
    seen: set[tuple[object, ...]] = set()
    splits: dict[tuple[object, ...], LabelRow] = {}
    rows = []
    for row in found.rows:
        first = row.frames.first if row.frames else 0
        item = (row.path or row.video_id, None if found.untrimmed else row.start_s, first)
        key = (row.path, row.video_id, row.label, row.split, row.start_s, row.end_s, first)
        if key in seen:
            found.skip(row.line, row.video_id, "is listed twice with the same label and times")
            continue
        seen.add(key)
        other = splits.setdefault(item, row)
        if other.split != row.split:
            raise ClipmillError(
                f"{found.source}, line {row.line}: video {row.video_id} is in split {row.split}, on line {other.line}"
                f" in {other.split}.",
                f"{NOTHING_DONE} A video in two splits spoils the evaluation.",
                "Remove one of the two lines.",
            )
        rows.append(row)
    found.rows = rows
    if not rows:
        why = "; ".join(f"{count} rows: it {reason}" for reason, count in found.skip_reasons.most_common(3))
        raise ClipmillError(
            f"{found.source} lists no video{f' ({why})' if why else ''}.", NOTHING_DONE, "Check the file."
        )
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
