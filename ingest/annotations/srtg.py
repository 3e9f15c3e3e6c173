"""The csv of the SRTG code and of dataset2database: `label,youtube_id` or `label,id`, ids by first appearance."""

from __future__ import annotations

import re
from pathlib import Path

from ingest.annotations._reading import NOTHING_DONE, finish, guess_split, read_class_list
from ingest.annotations.labels_csv import read_labels_table
from ingest.annotations.rows import Annotations
from ingest.errors import ClipmillError


def read_srtg_csv(path: Path, *, split: str | None = None, class_list: Path | None = None) -> Annotations:
    """Class ids are the order in which labels appear in the train csv, videos on disk or not.

    The order is kept in `<name up to train, val or test>dictionary.json` beside the csv, `{label: id}`; `class_list`
    names another. For a val or test csv without one, the train csv beside it is read.

    Raises: ClipmillError for a label that the dictionary lacks, and when a val or test csv stands alone.
    """
    found = read_labels_table(path, guess_split(path, split))
    stem = re.split("train|val|test", path.name)[0]
    dictionary = class_list or path.with_name(f"{stem}dictionary.json")
    train = path.with_name(re.sub("val|test", "train", path.name))
    if dictionary.is_file():
        found.classes, found.class_order = read_class_list(dictionary), f"ids of {dictionary.name}"
    elif train.is_file():
        rows = found.rows if train == path else read_labels_table(train, "train").rows
        found.classes = list(dict.fromkeys(row.label for row in rows))
        found.class_order = f"first appearance in {train.name}"
    else:
        raise ClipmillError(
            f"{path} needs the ids of its training set, and neither {dictionary.name} nor {train.name} lies beside it.",
            NOTHING_DONE,
            "Put one of them there: the order of a val file is another order.",
        )
    known = set(found.classes)
    for row in found.rows:
        if row.label not in known:
            raise ClipmillError(
                f"{path}, line {row.line}: the class {row.label!r} is not in {found.class_order}.",
                NOTHING_DONE,
                "Take the dictionary of the same training set.",
            )
    return finish(found)
