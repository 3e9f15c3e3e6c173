"""One door to all annotation readers: a format name, as a user types it, and the function that reads it."""

from __future__ import annotations

import difflib
import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ingest.annotations._reading import NOTHING_DONE
from ingest.annotations.activitynet import read_activitynet
from ingest.annotations.charades import read_charades, read_frame_labels
from ingest.annotations.diving48 import read_diving48
from ingest.annotations.fcvid import read_fcvid
from ingest.annotations.folders import read_class_folders, read_imagenet
from ingest.annotations.frame_lists import read_frame_list
from ingest.annotations.hacs import read_hacs_clips, read_hacs_segments
from ingest.annotations.hdd import read_hdd, read_hdd_targets
from ingest.annotations.hmdb51 import read_hmdb51
from ingest.annotations.kinetics import read_kinetics, read_kinetics_csv, read_kinetics_json
from ingest.annotations.labels_csv import read_labels_csv
from ingest.annotations.manifest import read_manifest
from ingest.annotations.mini_kinetics import read_mini_kinetics, read_mini_kinetics_ids
from ingest.annotations.mmaction_json import read_mmaction_json
from ingest.annotations.moments import read_moments, read_multi_moments
from ingest.annotations.rows import Annotations
from ingest.annotations.something import read_something_v1, read_something_v2
from ingest.annotations.srtg import read_srtg_csv
from ingest.annotations.thumos14 import read_thumos14
from ingest.annotations.tvseries import read_tvseries
from ingest.annotations.ucf101 import read_ucf101
from ingest.annotations.video_lists import read_video_list
from ingest.errors import ClipmillError


def _labels_csv(path: Path, *, split: str = "train") -> Annotations:
    return read_labels_csv(path, split)


FORMATS: dict[str, Callable[..., Annotations]] = {
    "kinetics": read_kinetics,
    "kinetics-csv": read_kinetics_csv,
    "kinetics-json": read_kinetics_json,
    "mini-kinetics": read_mini_kinetics,
    "mini-kinetics-ids": read_mini_kinetics_ids,
    "moments-in-time": read_moments,
    "multi-moments": read_multi_moments,
    "hacs-clips": read_hacs_clips,
    "hacs-segments": read_hacs_segments,
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "diving48": read_diving48,
    "something-v1": read_something_v1,
    "something-v2": read_something_v2,
    "activitynet": read_activitynet,
    "fcvid": read_fcvid,
    "thumos14": read_thumos14,
    "tvseries": read_tvseries,
    "hdd": read_hdd,
    "hdd-targets": read_hdd_targets,
    "imagenet": read_imagenet,
    "charades": read_charades,
    "frame-labels": read_frame_labels,
    "labels-csv": _labels_csv,
    "srtg-csv": read_srtg_csv,
    "manifest": read_manifest,
    "class-folders": read_class_folders,
    "video-list": read_video_list,
    "video-list-multilabel": partial(read_video_list, multi_label=True),
    "slowfast": read_video_list,
    "frame-list": read_frame_list,
    "frame-list-offset": partial(read_frame_list, with_offset=True),
    "frame-list-multilabel": partial(read_frame_list, multi_label=True),
    "frame-list-nolabel": partial(read_frame_list, labelled=False),
    "arnet": partial(read_frame_list, multi_label=True, delimiter=","),
    "mmaction-json": read_mmaction_json,
}
"""Format names and their readers; what a reader takes beside the path is its options."""


def read_annotations(path: Path, format: str, **options: Any) -> Annotations:
    """Read an annotation file or folder of a known format.

    Raises: ClipmillError for an unknown format or option (the nearest is named), and all that the reader raises.
    """
    if format not in FORMATS:
        raise ClipmillError(f"there is no annotation format {format!r}.", NOTHING_DONE, _nearest(format, list(FORMATS)))
    reader = FORMATS[format]
    known = [name for name in inspect.signature(reader).parameters if name != "path"]
    for name in options:
        if name not in known:
            raise ClipmillError(f"the format {format} has no option {name!r}.", NOTHING_DONE, _nearest(name, known))
    return reader(path, **options)


def read_several(paths: Sequence[Path], format: str) -> Annotations:
    """Files of one format as one, say a list per split. Classes that are numbers only go up to the largest of all files.

    Raises: ClipmillError as `read_annotations`, and for files whose classes are not in one order.
    """
    parts = [read_annotations(path, format) for path in paths]
    classes = max((part.classes for part in parts), key=len)
    for path, part in zip(paths, parts, strict=True):
        if part.classes != classes[: len(part.classes)] or bool(part.classes) != bool(classes):
            raise ClipmillError(
                f"{path} has other classes than the files beside it, or in another order.",
                NOTHING_DONE,
                "Read it by itself.",
            )
    return replace(
        parts[0],
        source=", ".join(map(str, paths)),
        rows=[row for part in parts for row in part.rows],
        skipped=[each for part in parts for each in part.skipped],
        clipped=[each for part in parts for each in part.clipped],
        skip_reasons=sum((part.skip_reasons for part in parts), Counter()),
        classes=classes,
    )


def _nearest(name: str, known: list[str]) -> str:
    near = (
        difflib.get_close_matches(name.lower(), known, n=1) or [other for other in known if name.lower() in other][:1]
    )
    return f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)}."
