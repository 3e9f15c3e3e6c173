"""CSV logs of a run that survive a kill and a resume: rows are appended, and rows after a checkpoint are taken back."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ingest.atomic import replacing


class CsvLog:
    """Rows with fixed columns, one of them `step`. Floats are written so that they read back equal."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self._columns = path, list(columns)
        self._waiting: list[list[Any]] = []

    def start(self, *, before_step: int) -> None:
        """Keep the rows of steps below `before_step` (a checkpoint's), drop the others; make the file if need be."""
        kept = [row for row in read_csv(self.path) if int(row["step"]) < before_step] if self.path.exists() else []
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(kept)

    def add(self, row: Mapping[str, Any]) -> None:
        self._waiting.append([row.get(name) for name in self._columns])

    def flush(self) -> None:
        """Append what is waiting, in one write."""
        if self._waiting:
            with self.path.open("a", newline="") as file:
                csv.writer(file).writerows(self._waiting)
            self._waiting.clear()


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a log; a last line that a kill cut short is left out."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if None not in row.values()]
