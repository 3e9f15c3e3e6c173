"""The catalog, where several processes meet at it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ingest.catalog import Catalog

NUM_AT_ONCE, ROUNDS = 4, 60


def test_those_who_make_it_at_once_all_get_it(tmp_path: Path) -> None:
    """SQLite refuses, without waiting, one of two that switch to WAL at once: without a second try 3 % of these fail."""

    def make(root: Path, together: threading.Barrier) -> None:
        together.wait()
        with Catalog.create(root) as catalog:
            assert catalog.db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"

    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        for i in range(ROUNDS):
            together = threading.Barrier(NUM_AT_ONCE)
            for made in [pool.submit(make, tmp_path / str(i), together) for _ in range(NUM_AT_ONCE)]:
                made.result()
