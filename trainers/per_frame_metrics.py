"""Figures of online detection, over the rows of all videos together: AP and calibrated AP per frame and per stage.

Scores and targets are (R, C), column 0 background. Source: LSTR's evaluation; calibrated AP: De Geest et al., Online Action
Detection, ECCV 2016, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Metric = Literal["AP", "cAP"]

BACKGROUND = 0
STAGES = 10

_SMOOTHED_OVER = (0, -1, 1, -2, 2)


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under precision over recall without interpolation; equal scores are one threshold. 0 without positives."""
    order = np.argsort(-scores, kind="stable")
    labels, scores = labels[order] == 1, scores[order]
    positives = int(labels.sum())
    if not positives:
        return 0.0
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of every group of equal scores
    hits = np.cumsum(labels)[last]
    gained = np.diff(hits, prepend=0) / positives
    return float((gained * (hits / (last + 1))).sum())


def calibrated_average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean over positives of the precision, as if there were as many negatives as positives. NaN without positives.

    Equal scores keep the order of the rows (in the authors' code their order is not defined).
    """
    labels = labels[np.argsort(-scores, kind="stable")] == 1
    positives = int(labels.sum())
    if not positives:
        return float("nan")
    hits, misses = np.cumsum(labels), np.cumsum(~labels)
    tiny = np.finfo(np.float64).eps
    ratio = (len(labels) - positives) / positives + tiny
    return float((hits / (hits + misses / ratio + tiny))[labels].sum() / positives)


METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "AP": average_precision,
    "cAP": calibrated_average_precision,
}


@dataclass(frozen=True)
class PostProcessing:
    """What is done to scores before they are measured, in this order; nothing by default.

    smooth             every row becomes the maximum of itself and the two rows on either side
    implied            (cause, effect): where the cause scores more than the effect, the effect gets the cause's score
    drop_rows_of       rows whose target is 1 in this column are left out
    """

    smooth: bool = False
    implied: tuple[int, int] | None = None
    drop_rows_of: int | None = None

    def __call__(self, targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Targets and scores of the rows that are left."""
        if self.smooth:
            scores = smoothed(scores)
        if self.implied is not None:
            cause, effect = self.implied
            scores = scores.copy()
            scores[:, effect] = np.maximum(scores[:, effect], scores[:, cause])
        if self.drop_rows_of is not None:
            kept = targets[:, self.drop_rows_of] != 1
            targets, scores = targets[kept], scores[kept]
        return targets, scores


def thumos(ambiguous: int = 21, *, smooth: bool = False, switch: bool = False) -> PostProcessing:
    """THUMOS: ambiguous rows are not measured. `switch`: who dives from a cliff (5) dives (8). Published: neither option."""
    return PostProcessing(smooth, (5, 8) if switch else None, ambiguous)


def smoothed(scores: np.ndarray) -> np.ndarray:
    """Maximum over five rows. At the ends, a neighbour that is missing is the row at the end, a second one the row itself."""
    rows = np.arange(len(scores))
    around = []
    for step in _SMOOTHED_OVER:
        place = rows + step
        inside = (place >= 0) & (place < len(scores))
        instead = np.clip(place, 0, len(scores) - 1) if abs(step) == 1 else rows
        around.append(scores[np.where(inside, place, instead)])
    return np.maximum.reduce(around)


def scored_columns(num_columns: int, ignore_index: int) -> list[int]:
    """Columns that are measured: all but the background and the ignored one."""
    return [column for column in range(num_columns) if column not in (BACKGROUND, ignore_index)]


def per_frame(
    targets: np.ndarray,
    scores: np.ndarray,
    class_names: Sequence[str],
    *,
    metric: Metric = "AP",
    ignore_index: int = -100,
) -> dict[str, Any]:
    """`per_class_AP` {name: value} of the classes that occur, and their `mean_AP`; NaN when none occurs."""
    measure = METRICS[metric]
    found = {
        class_names[column]: measure(targets[:, column], scores[:, column])
        for column in scored_columns(targets.shape[1], ignore_index)
        if (targets[:, column] == 1).any()
    }
    return {"per_class_AP": found, "mean_AP": float(np.mean(list(found.values()))) if found else float("nan")}


def per_stage(
    targets: np.ndarray,
    scores: np.ndarray,
    class_names: Sequence[str],
    *,
    metric: Metric = "AP",
    ignore_index: int = -100,
    skip_absent: bool = False,
) -> dict[str, dict[str, Any]]:
    """For each tenth of an action's length, {` 0%_ 10%`: per_frame's figures}: all its negatives, positives of that tenth.

    As published, a class that does not occur has an AP of 0 and a cAP of NaN; `skip_absent` leaves it out.
    """
    measure = METRICS[metric]
    stages = {}
    for stage in range(STAGES):
        found = {}
        for column in scored_columns(targets.shape[1], ignore_index):
            labels = targets[:, column] == 1
            if skip_absent and not labels.any():
                continue
            rows = stage_rows(labels, stage)
            found[class_names[column]] = measure(labels[rows], scores[rows, column])
        name = f"{stage * 100 // STAGES:2}%_{(stage + 1) * 100 // STAGES:3}%"
        mean = float(np.mean(list(found.values()))) if found else float("nan")
        stages[name] = {"per_class_AP": found, "mean_AP": mean}
    return stages


def stage_rows(labels: np.ndarray, stage: int) -> np.ndarray:
    """Rows of one stage, int64: every negative, then the positives in that tenth of their run.

    As published a run counts one row too short, so its last row is in no stage unless it is the only one; and tenths are
    products of floats: 90 rows x 0.7 begin at 62.
    """
    labels = labels == 1
    low, high = stage / STAGES, (stage + 1) / STAGES
    chosen = [np.flatnonzero(~labels)]
    for first, last in _runs(labels):
        length = last - first
        begin = first + int(length * low)
        chosen.append(np.arange(begin, max(begin + 1, first + int(length * high))))
    return np.concatenate(chosen)


def _runs(labels: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last row of every run of positives."""
    edges = np.diff(np.concatenate([[0], labels.astype(np.int8), [0]]))
    yield from zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) - 1).tolist(), strict=True)
