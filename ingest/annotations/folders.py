"""A folder per class, `<root>[/<split>]/<class>/<file>`, and ImageNet-1k, which is one with wnids for names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from ingest.annotations._reading import (
    NOTHING_DONE,
    beside,
    broken,
    finish,
    numbered_lines,
    read_text,
    use_class_list,
)
from ingest.annotations.labels_csv import csv_records
from ingest.annotations.rows import SPLITS, Annotations, LabelRow
from ingest.errors import ClipmillError
from ingest.video import is_video_name

_SPLIT_FOLDERS = SPLITS | {"eval": "val", "evaluation": "val"}
_WNID = re.compile(r"n\d{8}")
_IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})


def read_class_folders(path: Path, *, split: str = "train", class_list: Path | None = None) -> Annotations:
    """Videos below `path`, the class being their folder; ids are the sorted names (by code points) of all splits.

    Folders named train, val, test and the like right below `path` are splits when all folders there are. Without
    them, every video is in `split`. An empty class keeps its id and is reported as skipped.
    """
    found = _read(path, split, is_video_name)
    use_class_list(found, class_list)
    return finish(found)


def read_imagenet(path: Path, *, class_list: Path | None = None) -> Annotations:
    """The folder with train/<wnid>/ and val/<wnid>/, or Kaggle's `LOC_val_solution.csv` for the flat val folder.

    Ids are the sorted wnids (n01440764 = 0). With the csv they come from `class_list` or `LOC_synset_mapping.txt`
    beside it, one wnid per line with or without names. The 1-based ids of ILSVRC2012_validation_ground_truth.txt are
    another order, told only by meta.mat, and are refused.
    """
    if path.is_dir():
        found = _read(path, "train", lambda name: Path(name).suffix.lower() in _IMAGE_SUFFIXES)
        for name in found.classes:
            if not _WNID.fullmatch(name):
                raise broken(path, f"folder {name!r}", "the name is no wnid such as n01440764", "Move it elsewhere.")
    else:
        found = _read_val_solution(path)
    mapping = class_list or beside(path, "LOC_synset_mapping.txt")
    if mapping:
        found.classes = [text.split()[0] for _, text in numbered_lines(mapping)]
        found.class_order = f"order of {mapping.name}"
        known = set(found.classes)
        for row in found.rows:
            if row.label not in known:
                raise broken(path, row.path, f"the class {row.label} is not in {mapping}")
    return finish(found)


def _read_val_solution(path: Path) -> Annotations:
    """`ImageId,PredictionString`, the latter `<wnid> x y x y` once per object; all objects are of one class."""
    found = Annotations(str(path))
    for number, cells in csv_records(read_text(path), path):
        if number == 1 and [cell.strip() for cell in cells] == ["ImageId", "PredictionString"]:
            continue
        words = cells[1].split() if len(cells) == 2 else []
        if not words or not _WNID.fullmatch(words[0]) or not cells[0].strip():
            raise broken(
                path,
                f"line {number}",
                f"{','.join(cells)[:80]!r} is not `<image id>,<wnid> <box> ...`",
                "Give LOC_val_solution.csv: the numbers of the ground truth file are ids of another order.",
            )
        image = cells[0].strip()
        found.rows.append(LabelRow(image, words[0], "val", line=number, path=f"{image}.JPEG"))
    return found


def _read(path: Path, split: str, wanted: Callable[[str], bool]) -> Annotations:
    if not path.is_dir():
        raise ClipmillError(f"{path} is not a folder.", NOTHING_DONE, "Give the folder that holds the classes.")
    found = Annotations(str(path), class_order="sorted folder names")
    top = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    splits = {name: _SPLIT_FOLDERS[name.lower()] for name in top if name.lower() in _SPLIT_FOLDERS}
    roots = [(path / name, splits[name]) for name in top] if top and len(splits) == len(top) else [(path, split)]
    names: set[str] = set()
    for root, split_name in roots:
        for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            names.add(folder.name)
            before = len(found.rows)
            for place, _, files in os.walk(folder):
                for name in sorted(files):
                    if wanted(name) and not name.startswith("."):
                        file = Path(place, name)
                        row_path = str(file.relative_to(path))
                        found.rows.append(LabelRow(file.stem, folder.name, split_name, path=row_path))
            if len(found.rows) == before:
                found.skip(0, str(folder.relative_to(path)), "is an empty class folder")
    found.classes = sorted(names)
    return found
