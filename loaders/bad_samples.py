"""Clips that could not be made: recorded in the catalog, counted, and the end of the run when there are too many."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence

from ingest.errors import ClipmillError
from ingest.layout import catalog_path
from loaders.dataset import ClipDataset
from loaders.making import BadSample

_JUDGED_FROM = 10  # Bad clips: a single one among the first hundred says nothing of a rate.
_NAMED = 10
_LOCKED_FOR_S = 1.0  # Training does not wait for a catalog that somebody else writes to.


class BadSamples:
    """Of one loader. `limit`: share of clips that may be replaced; 0: none."""

    def __init__(self, dataset: ClipDataset, limit: float) -> None:
        if not 0 <= limit <= 1:
            raise ValueError(f"max_bad is {limit}; it is a share of the clips, 0 to 1")
        self._dataset, self.limit = dataset, limit
        self.found: list[BadSample] = []
        self._num_clips = 0

    def add(self, bad: Sequence[BadSample], num_clips: int) -> None:
        """After every batch. Raises: ClipmillError when more than `limit` of all clips so far were bad."""
        self._num_clips += num_clips
        if not bad:
            return
        self.found += bad
        self._record(bad)
        if len(self.found) >= _JUDGED_FROM and len(self.found) > self.limit * self._num_clips:
            per_video = Counter(sample.name for sample in self.found)
            reasons = Counter(sample.reason for sample in self.found)
            named = ", ".join(name for name, _ in per_video.most_common(_NAMED))
            raise ClipmillError(
                f"{len(self.found):,} of {self._num_clips:,} clips could not be made"
                f" ({', '.join(f'{count:,} {reason}' for reason, count in reasons.most_common(3))}): {named}"
                + (f" and {len(per_video) - _NAMED:,} more videos." if len(per_video) > _NAMED else "."),
                f"That is more than {self.limit:.2%}, so the run stopped.",
                f"Mend them: clipmill ingest repair {self._dataset.root}. Then resume; or allow more with max_bad.",
            )

    def _record(self, bad: Sequence[BadSample]) -> None:
        """Into the catalog, if it has one that can be written: a loader may run where nothing can."""
        path = catalog_path(self._dataset.root)
        if not path.exists():
            return
        rows = [
            (
                time.time(),
                self._dataset.class_folder(sample.video),
                self._dataset.video_ids[sample.video],
                sample.reason,
                sample.message,
                sample.frame,
            )
            for sample in bad
        ]
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(path, timeout=_LOCKED_FOR_S)) as db,
            db,
        ):
            db.execute(
                "CREATE TABLE IF NOT EXISTS bad_samples(id INTEGER PRIMARY KEY, at REAL, class_name TEXT,"
                " video_id TEXT, reason TEXT, message TEXT, frame INTEGER)"
            )
            db.executemany(
                "INSERT INTO bad_samples(at, class_name, video_id, reason, message, frame) VALUES(?,?,?,?,?,?)", rows
            )
