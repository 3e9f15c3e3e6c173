"""`clipmill ingest labels`: per-frame targets of an ingested online-detection set, and its data_info.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ingest.annotations.rows import Annotations
from ingest.catalog import Catalog
from ingest.errors import ClipmillError
from ingest.stores import frames_npy
from ingest.targets import (
    DataInfo,
    Rule,
    num_target_rows,
    target_classes,
    video_targets,
    write_data_info,
    write_targets,
)


@dataclass(frozen=True)
class LabelsReport:
    """What was written: target files, rows in all, and videos that the labels name and the root does not hold."""

    num_videos: int
    num_rows: int
    num_classes: int
    clipped: list[str]
    missing: list[str]
    train_sessions: list[str]
    test_sessions: list[str]


def write_labels(
    root: Path, found: Annotations, name: str, *, rate: float = 4.0, rule: Rule = "half-open", exclusive: bool = False
) -> LabelsReport:
    """Write `target_perframe/<id>.npy` (T, C) for every finished video that the labels name, and `data_info.json`.

    T is the length of the video's array where there is one, else what its frames and rate give, so that targets and
    inputs go together. Sessions keep the order of the labels; where there is a test split, training is all the rest
    (THUMOS: its validation set), else training is `train` and testing `val`.

    Raises: ClipmillError when the labels are no segments, or none of their videos is in the root.
    """
    if not any(row.start_s is not None for row in found.rows):
        raise ClipmillError(
            f"{found.source} holds no time segments.", "Nothing was written.", "Give segment annotations."
        )
    stored = _stored_rows(root, rate)
    sessions = {row.video_id: row.split for row in found.rows}
    ids = {session: next((i for i in (session, f"v_{session}") if i in stored), None) for session in sessions}
    here = {session: stored[video_id] for session, video_id in ids.items() if video_id is not None}
    if not here:
        raise ClipmillError(
            f"{root} holds none of the {len(sessions)} videos that {found.source} names.",
            "Nothing was written.",
            f"Ingest them first: clipmill ingest convert SRC {root} --labels ... --store npy",
        )
    clipped = []
    for session, targets in video_targets(found, here, rate=rate, rule=rule, exclusive=exclusive):
        write_targets(root, ids[session] or session, targets.rows)
        clipped += [f"{session}: {segment}" for segment in targets.clipped]
    train, test = _sessions({session: split for session, split in sessions.items() if session in here})
    names = target_classes(found)
    info = DataInfo(".", names, [ids[s] or s for s in train], [ids[s] or s for s in test], fps=rate)
    write_data_info(root / "data_info.json", name, info)
    missing = [session for session in sessions if session not in here]
    return LabelsReport(len(here), sum(here.values()), len(names), clipped, missing, train, test)


def _stored_rows(root: Path, rate: float) -> dict[str, int]:
    """Rows of every finished video, by id."""
    with Catalog.open(root) as catalog:
        rows = catalog.db.execute(
            "SELECT v.video_id, v.num_frames, v.fps, o.num_frames FROM videos v"
            " LEFT JOIN outputs o ON o.video = v.id AND o.store = ? WHERE v.state = 'ok'",
            (frames_npy.STORE,),
        ).fetchall()
    return {
        video_id: in_array if in_array is not None else num_target_rows(num_frames, fps, rate)
        for video_id, num_frames, fps, in_array in rows
        if in_array is not None or fps > 0
    }


def _sessions(splits: dict[str, str]) -> tuple[list[str], list[str]]:
    held_out = "test" if "test" in splits.values() else "val"
    train = [session for session, split in splits.items() if split != held_out]
    return train, [session for session, split in splits.items() if split == held_out]
