"""How an ingest run shows itself: a live bar on a terminal, a line now and then elsewhere, a table at the end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from ingest.convert import ConvertReport, Progress
from ingest.units import counted, duration

_LINE_EVERY_S = 10.0


class Shown(Protocol):
    def __call__(self, progress: Progress, /) -> None: ...
    def __enter__(self) -> Shown: ...
    def __exit__(self, *_: object) -> None: ...


def shown(verb: str = "ingest") -> Shown:
    """A live bar if standard error is a terminal, else plain lines. `verb` says what goes on."""
    return _Live(verb) if sys.stderr.isatty() else _Lines(verb)


def _rates(p: Progress) -> str:
    seconds = max(p.elapsed_s, 1e-9)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in p.reasons.most_common(3))
    failed = f", {p.failed:,} failed" + (f" ({reasons})" if reasons else "") if p.failed else ""
    rate = f"{p.frames / seconds:,.0f} frames/s, {(p.done + p.failed) / seconds:.1f} videos/s"
    return f"{rate}, {duration(p.time_left_s)} left{failed}"


class _Live:
    def __init__(self, verb: str) -> None:
        columns = (
            TextColumn(verb),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
        )
        self._bar = Bar(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=None)

    def __call__(self, p: Progress, /) -> None:
        self._bar.update(self._task, total=p.total, completed=p.skipped + p.done + p.failed, description=_rates(p))

    def __enter__(self) -> _Live:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


class _Lines:
    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._last_s = time.monotonic()

    def __call__(self, p: Progress, /) -> None:
        now = time.monotonic()
        if now - self._last_s >= _LINE_EVERY_S:
            self._last_s = now
            print(
                f"{self._verb}: {p.skipped + p.done + p.failed} of {p.total} videos, {_rates(p)}",
                file=sys.stderr,
                flush=True,
            )

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def summary_table(report: ConvertReport) -> Table:
    """Counts of the run, then failures by reason."""
    p = report.progress
    table = Table(title="Ingest", show_header=False)
    table.add_row("converted", f"{counted(p.done, 'video')}, {counted(p.frames, 'frame')}")
    table.add_row("already there", f"{p.skipped - p.quarantined:,}")
    if p.quarantined:
        table.add_row("in quarantine", f"{p.quarantined:,} (failed time and again; --retry tries them once more)")
    if p.missing:
        table.add_row("missing", f"{p.missing:,} (named by the labels, no file)")
    for reason, count in Counter(failure[2] for failure in report.failures).most_common():
        table.add_row(f"failed: {reason}", f"{count:,}")
    rate = f", {p.frames / report.seconds:,.0f} frames/s" if p.done else ""
    table.add_row("time", f"{report.seconds:.1f} s{rate}")
    return table
