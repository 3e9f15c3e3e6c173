"""ActivityNet 1.2 and 1.3: one json of segments, and the class order of `action_name.csv`."""

from __future__ import annotations

from pathlib import Path

from ingest.annotations._reading import beside
from ingest.annotations.hacs import read_segment_database
from ingest.annotations.rows import Annotations


def read_activitynet(path: Path, *, class_list: Path | None = None, split: str | None = None) -> Annotations:
    """`activity_net.v1-3.min.json` (or v1-2, or the BSN form `anet_anno_action.json`), ids without `v_`.

    The json has no class order. `action_name.csv` beside it (a header and 200 names, not sorted), or `class_list`, gives
    the ids of mmaction2, BSN and SBP; without it the names are sorted. Misspelt names (Mooping floor) are official.
    Segments are cut to the duration of the video; testing videos have none.
    """
    return read_segment_database(path, class_list=class_list or beside(path, "action_name.csv"), split=split)
