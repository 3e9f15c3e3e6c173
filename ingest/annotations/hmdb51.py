"""HMDB51: `testTrainMulti_7030_splits/<class>_test_split{1,2,3}.txt`, 51 files per split."""

from __future__ import annotations

import re
from pathlib import Path

from ingest.annotations._reading import NOTHING_DONE, broken, finish, id_of, numbered_lines
from ingest.annotations.rows import Annotations, LabelRow
from ingest.errors import ClipmillError

_FILE = re.compile(r"(?P<label>.+)_test_split(?P<number>[123])\.txt")
_SPLITS = {"1": "train", "2": "test"}


def read_hmdb51(path: Path, *, split_number: int = 1) -> Annotations:
    """One of the three official splits from the folder of split files, or a single file of it.

    A line is `<video>.avi <0|1|2>`: 1 training, 2 testing, 0 not used in this split (skipped). The class is the file
    name before `_test_split`; ids are the sorted class names. Video names hold ( ) ! # [ ] & ; and are taken as is.
    """
    files = sorted(path.glob(f"*_test_split{split_number}.txt")) if path.is_dir() else [path]
    if not files:
        raise ClipmillError(
            f"{path} holds no file *_test_split{split_number}.txt.",
            NOTHING_DONE,
            "Give the folder testTrainMulti_7030_splits.",
        )
    found = Annotations(str(path))
    for file in files:
        match = _FILE.fullmatch(file.name)
        if match is None:
            raise broken(file, "its name", "is not `<class>_test_split<1 to 3>.txt`", "Keep the official file names.")
        label = match["label"]
        found.classes.append(label)
        for number, text in numbered_lines(file):
            video, _, use = text.rpartition(" ")
            if not video.strip() or use not in ("0", "1", "2"):
                raise broken(file, f"line {number}", f"{text[:80]!r} is not `<video>.avi <0, 1 or 2>`")
            video_id = id_of(video.strip())
            if use == "0":
                found.skip(number, video_id, "is not used in this split")
                continue
            found.rows.append(LabelRow(video_id, label, _SPLITS[use], line=number, path=f"{label}/{video.strip()}"))
    found.classes.sort()
    return finish(found)
