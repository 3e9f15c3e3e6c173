"""HDD (Honda): ELAN files, one per session, and the arrays of class ids of the pre-extracted form."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from ingest.annotations._reading import NOTHING_DONE, add_segment, broken, class_key, finish
from ingest.annotations.rows import Annotations, LabelRow
from ingest.errors import ClipmillError

HDD_CLASSES = (
    "background",
    "intersection passing",
    "left turn",
    "right turn",
    "left lane change",
    "right lane change",
    "left lane branch",
    "right lane branch",
    "crosswalk passing",
    "railroad passing",
    "merge",
    "u-turn",
)
"""Columns of the per-frame targets in the order of TRN."""

_TIER = "Operation_Goal-oriented"
_BY_KEY = {class_key(name): name for name in HDD_CLASSES[1:]}


def read_hdd(path: Path, *, split: str = "train") -> Annotations:
    """One .eaf file, or a folder of them: the tier `Operation_Goal-oriented`, times in ms there, in seconds here.

    The session is the file name without its last field: 2017-02-27-10-17-30.eaf is 201702271017. Texts are stripped and
    compared by letters, so that the two spellings of one class meet; park and empty ones are left out, as in the papers.
    Some files of the release cannot be parsed: in a folder they are skipped and reported. The lists of train and test
    sessions are not part of the release, so all rows are in `split`.
    """
    found = Annotations(str(path), classes=list(HDD_CLASSES), class_order="order of TRN", untrimmed=True)
    files = sorted(path.glob("*.eaf")) if path.is_dir() else [path]
    if not files:
        raise ClipmillError(f"{path} holds no .eaf file.", NOTHING_DONE, "Give the folder EAF.")
    for file in files:
        try:
            root = ElementTree.parse(file).getroot()
        except OSError as error:
            raise ClipmillError(
                f"{file} cannot be read: {error.strerror}.", NOTHING_DONE, "Look at the path."
            ) from None
        except ElementTree.ParseError as error:
            if path.is_dir():
                found.skip(error.position[0], file.name, "is no valid xml")
                continue
            raise broken(file, f"line {error.position[0]}", f"no valid xml ({error})") from None
        _add_session(found, file, root, split)
    return finish(found)


def _add_session(found: Annotations, file: Path, root: ElementTree.Element, split: str) -> None:
    session = "".join(file.stem.split("-")[:-1])
    if not session:
        raise broken(file, "its name", "is not <YYYY-MM-DD-HH-MM-SS>.eaf", "Keep the official file names.")
    times = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    tiers = [tier for tier in root.iter("TIER") if tier.get("TIER_ID") == _TIER]
    if not tiers:
        raise broken(file, "its tiers", f"there is no tier {_TIER!r}")
    for number, item in enumerate(tiers[0].iter("ALIGNABLE_ANNOTATION"), start=1):
        where = f"annotation {item.get('ANNOTATION_ID', number)}"
        ends = [times.get(item.get(f"TIME_SLOT_REF{side}")) for side in (1, 2)]
        if any(value is None or not value.isdigit() for value in ends):
            raise broken(file, where, f"its time slots hold {ends}, expected whole milliseconds")
        text = (item.findtext("ANNOTATION_VALUE") or "").strip().lower()
        if not text or set(text.split()) == {"park"}:
            found.skip(number, session, "has an annotation that is empty or parking")
            continue
        if (label := _BY_KEY.get(class_key(text))) is None:
            raise broken(file, where, f"{text!r} is none of the 11 classes")
        start_s, end_s = (int(value or 0) / 1000 for value in ends)
        add_segment(found, LabelRow(session, label, split, start_s, end_s, number))


def read_hdd_targets(path: Path, *, split: str = "train", rate: float = 3.0) -> Annotations:
    """`<session>.npy`, one or a folder: class ids (L,) or multi-hot (L, C), at `rate` rows per second.

    Every run of equal ids becomes a segment; background gives none.
    """
    found = Annotations(str(path), classes=list(HDD_CLASSES), class_order="order of TRN", untrimmed=True)
    for file in sorted(path.glob("*.npy")) if path.is_dir() else [path]:
        hot = load_target_array(file, len(HDD_CLASSES))
        for column in range(1, hot.shape[1]):
            edges = np.flatnonzero(np.diff(hot[:, column], prepend=0, append=0))
            for first, end in edges.reshape(-1, 2):
                row = LabelRow(
                    file.stem, HDD_CLASSES[column], split, float(first / rate), float(end / rate), int(first) + 1
                )
                found.rows.append(row)
    found.rows.sort(key=lambda row: (row.video_id, row.start_s))
    return finish(found)


def load_target_array(path: Path, num_classes: int) -> np.ndarray:
    """Multi-hot int64 (L, C) of a target file that holds it, or class ids (L,).

    Raises: ClipmillError for another shape, and for ids that are no class.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ClipmillError(f"{path} is no array that can be read: {error}.", NOTHING_DONE, "Check the file.") from None
    if array.ndim == 1:
        wrong = np.flatnonzero((array < 0) | (array >= num_classes) | (array != np.floor(array)))
        if wrong.size:
            raise broken(path, f"row {wrong[0]}", f"{array[wrong[0]]} is no class id from 0 to {num_classes - 1}")
        return np.eye(num_classes, dtype=np.int64)[array.astype(np.int64)]
    if array.ndim != 2 or array.shape[1] != num_classes:
        raise broken(path, "its shape", f"is {array.shape}, expected (L,) or (L, {num_classes})")
    wrong = np.flatnonzero(((array != 0) & (array != 1)).any(axis=1))
    if wrong.size:
        raise broken(path, f"row {wrong[0]}", "holds values other than 0 and 1")
    return array.astype(np.int64)
