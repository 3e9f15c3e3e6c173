"""UCF101: `ucfTrainTestlist/` with classInd.txt, trainlist0{1,2,3}.txt and testlist0{1,2,3}.txt (CRLF line ends)."""

from __future__ import annotations

from pathlib import Path

from ingest.annotations._reading import broken, finish, guess_split, id_of, need_beside, numbered_lines, whole
from ingest.annotations.rows import Annotations, LabelRow
from ingest.errors import ClipmillError


def read_ucf101(path: Path, *, split_number: int = 1, class_list: Path | None = None) -> Annotations:
    """Both lists of one of the three official splits from the folder `ucfTrainTestlist`, or a single list file.

    A line is `<Class>/v_<Class>_gXX_cYY.avi <1-based id>` for training, without the id for testing. Ids here are the
    number in classInd.txt less one: that order is case-insensitive, so sorted folder names swap Hammering with
    HammerThrow and JumpingJack with JumpRope. Files of the folder HandstandPushups are spelt HandStandPushups, in the
    lists as on disk; the class is the folder.
    """
    index_file = need_beside(path, class_list, "classInd.txt", "class_list", "classInd.txt")
    classes = _read_class_index(index_file)
    found = Annotations(str(path), classes=list(classes.values()), class_order=f"order of {index_file.name}")
    # Gaps in classInd.txt are allowed only at excerpts; every id still is the number less one.
    if list(classes) != list(range(len(classes))):
        found.classes = [classes.get(index, str(index)) for index in range(max(classes) + 1)]
    files = [path]
    if path.is_dir():
        files = [path / f"{kind}list{split_number:02d}.txt" for kind in ("train", "test")]
    index_of = {name: index for index, name in classes.items()}
    for file in files:
        split = guess_split(file, None)
        for number, text in numbered_lines(file):
            _add_row(found, file, number, text, split, index_of)
    return finish(found)


def _add_row(found: Annotations, file: Path, number: int, text: str, split: str, index_of: dict[str, int]) -> None:
    where = f"line {number}"
    video, _, given = text.partition(" ")
    folder, slash, _ = video.partition("/")
    if not slash:
        raise broken(file, where, f"{text[:60]!r} is not `Class/video.avi` with or without an id")
    if folder not in index_of:
        raise broken(file, where, f"the class {folder!r} is not in classInd.txt")
    index = index_of[folder]
    if given and whole(given, file, where, "class id") != index + 1:
        raise broken(file, where, f"the id is {given.strip()}, in classInd.txt {folder} is {index + 1}")
    found.rows.append(LabelRow(id_of(video), folder, split, line=number, class_index=index, path=video))


def _read_class_index(path: Path) -> dict[int, str]:
    """0-based id to name from lines `<1-based id> <Name>`."""
    classes: dict[int, str] = {}
    for number, text in numbered_lines(path):
        given, _, name = text.partition(" ")
        index = whole(given, path, f"line {number}", "class id") - 1
        if index < 0 or not name.strip() or index in classes:
            raise broken(path, f"line {number}", f"{text[:60]!r} is not `<id from 1> <Name>` with a new id")
        classes[index] = name.strip()
    if not classes:
        raise ClipmillError(f"the class list {path} is empty.", "Nothing was converted or written.", "Check the file.")
    return classes
