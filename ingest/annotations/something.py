"""Something-Something V1 (`;` lists, one class per line) and V2 (json, templates with brackets): the same 174 classes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ingest.annotations._reading import (
    NOTHING_DONE,
    broken,
    finish,
    guess_split,
    member,
    need_beside,
    numbered_lines,
    read_json,
    whole,
)
from ingest.annotations.rows import Annotations, Frames, LabelRow
from ingest.errors import ClipmillError


def read_something_v1(
    path: Path,
    *,
    split: str | None = None,
    class_list: Path | None = None,
    class_order: Literal["sorted", "file"] = "sorted",
) -> Annotations:
    """`something-something-v1-{train,validation}.csv`: `<id>;<template>` per line; the test file has the id only.

    The labels file beside it holds one class per line; commas belong to the names, it is no csv. Two id orders are in
    use: `sorted` templates (TRN, TSM, TPN, ST-ABN, and the ids of V2), and `file`, the place in the labels file
    (mmaction2, AdaFuse). A video is a folder `<id>` of jpg files from 00001.jpg, 12 per second.
    """
    if class_order not in ("sorted", "file"):
        raise ClipmillError(f"class_order is {class_order!r}.", NOTHING_DONE, "Take 'sorted' or 'file'.")
    labels = need_beside(path, class_list, "the class list", "class_list", "something-something-v1-labels.csv")
    names = [text.strip() for _, text in numbered_lines(labels)]
    found = Annotations(str(path), classes=sorted(names) if class_order == "sorted" else names)
    found.class_order = "sorted templates" if class_order == "sorted" else f"order of {labels.name}"
    known = set(names)
    split = guess_split(path, split)
    for number, text in numbered_lines(path):
        where = f"line {number}"
        video_id, separator, template = text.partition(";")
        whole(video_id, path, where, "video id")
        if separator and template.strip() not in known:
            raise broken(path, where, f"the class {template.strip()!r} is not in {labels}")
        found.rows.append(
            LabelRow(
                video_id.strip(),
                template.strip(),
                split,
                line=number,
                path=video_id.strip(),
                frames=Frames(template="{:05d}.jpg", start_index=1),
            )
        )
    return finish(found)


def read_something_v2(path: Path, *, split: str | None = None, class_list: Path | None = None) -> Annotations:
    """`something-something-v2-{train,validation,test}.json`: `[{"id", "label", "template", "placeholders"}]`.

    The class is the template without its brackets, looked up in `something-something-v2-labels.json` (or `labels.json`,
    the name in the present package) beside it: `{template: "<id>"}`. Test items have an id only. Free text may hold
    letters of any script. The video is `<id>.webm`.
    """
    labels = need_beside(
        path, class_list, "the class list", "class_list", "something-something-v2-labels.json", "labels.json"
    )
    ids = _read_ids(labels)
    names = {index: name for name, index in ids.items()}
    found = Annotations(str(path), class_order=f"ids of {labels.name}")
    found.classes = [names.get(index, str(index)) for index in range(max(names) + 1)]
    split = guess_split(path, split)
    for number, item in enumerate(read_json(path, list, found), start=1):
        where = f"item {number}"
        video_id = member(item, "id", str, path, where)
        template = ""
        if "template" in item:
            template = member(item, "template", str, path, where).replace("[", "").replace("]", "")
            if template not in ids:
                raise broken(path, where, f"the class {template!r} is not in {labels}")
        found.rows.append(LabelRow(video_id, template, split, line=number, class_index=ids.get(template)))
    return finish(found)


def flip_map(names: list[str]) -> dict[int, int]:
    """Which class a mirrored video belongs to, for those that change: left and right exchanged as whole words.

    Only names whose counterpart is in the list count, so "pulling it right out" stays what it is. Holds for
    Something-Something, HDD and Jester alike.
    """
    index = {name: place for place, name in enumerate(names)}
    swapped = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    pairs = {}
    for name, place in index.items():
        other = index.get(" ".join(swapped.get(word, word) for word in name.split(" ")), place)
        if other != place:
            pairs[place] = other
    return pairs


def _read_ids(path: Path) -> dict[str, int]:
    ids = {}
    for name, value in read_json(path, dict).items():
        ids[name] = whole(str(value), path, f"key {name!r}", "class id")
    if not ids:
        raise ClipmillError(f"the class list {path} is empty.", NOTHING_DONE, "Check the file.")
    return ids
