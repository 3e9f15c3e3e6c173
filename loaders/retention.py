"""Keeps a telemetry file small: old reports become averages, so that years of runs take megabytes.

    newest report - 6 h ........ every report as it was written
    newest report - 7 days ..... one row per phase and minute
    before that ................ one row per phase and ten minutes

Ages count from the run's newest report, not from now: a run that has ended stays as it is.
A merged row has the id, step, epoch and shape of its last report, the mean of rates, loss and accuracy, and the sum of
what its stages did; of percentiles it keeps the mean of the medians and the largest of the others.
"""

from __future__ import annotations

import sqlite3

TIERS = ((6 * 3600.0, 60.0), (7 * 86400.0, 600.0))
"""(age in seconds from which reports are merged, seconds that one row then covers)"""
MAX_EVENTS = 1000

MEANS = (
    "read", "forward", "backward", "clips_per_s", "wait_share", "learning_rate", "loss", "top1", "occupancy",
)  # fmt: skip
_STAGE_MERGE = {
    "count": "SUM", "seconds": "SUM", "num_bytes": "SUM", "p50_s": "AVG", "p90_s": "MAX", "p99_s": "MAX",
}  # fmt: skip


def thin(db: sqlite3.Connection) -> int:
    """Merge the old reports of a telemetry file and drop all but its newest events. Returns the rows removed.

    Whole buckets only, so that each report goes into one mean once per tier. Raises: sqlite3.Error.
    """
    newest = db.execute("SELECT at FROM speed ORDER BY id DESC LIMIT 1").fetchone()
    if newest is None:
        return 0
    removed = 0
    db.execute("BEGIN IMMEDIATE")
    try:
        for age_s, bucket_s in TIERS:
            until = (newest[0] - age_s) // bucket_s * bucket_s
            removed += _merge(db, "speed", "id", ("phase",), dict.fromkeys(MEANS, "AVG"), until, bucket_s)
            removed += _merge(db, "stages", "rowid", ("phase", "stage"), _STAGE_MERGE, until, bucket_s)
        removed += db.execute(
            "DELETE FROM events WHERE rowid <= (SELECT MAX(rowid) FROM events) - ?", (MAX_EVENTS,)
        ).rowcount
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
    return removed


def _merge(
    db: sqlite3.Connection,
    table: str,
    key: str,
    groups: tuple[str, ...],
    merged: dict[str, str],
    until: float,
    bucket_s: float,
) -> int:
    """One row per group and bucket for the rows before `until`; the row with the largest key is the one that stays."""
    by = ", ".join((*groups, f"CAST(at / {bucket_s} AS INTEGER)"))
    values = ", ".join(f"{how}({column}) AS {column}" for column, how in merged.items())
    db.execute(
        f"CREATE TEMP TABLE kept AS SELECT MAX({key}) AS kept_key, COUNT(*) AS num, {values} FROM {table}"
        f" WHERE at < ? GROUP BY {by}",
        (until,),
    )
    db.execute("CREATE UNIQUE INDEX temp.kept_by_key ON kept(kept_key)")
    assigned = ", ".join(f"{column} = kept.{column}" for column in merged)
    db.execute(f"UPDATE {table} SET {assigned} FROM kept WHERE {table}.{key} = kept_key AND num > 1")
    removed = db.execute(
        f"DELETE FROM {table} WHERE at < ? AND {key} NOT IN (SELECT kept_key FROM kept)", (until,)
    ).rowcount
    db.execute("DROP TABLE temp.kept")
    return removed
