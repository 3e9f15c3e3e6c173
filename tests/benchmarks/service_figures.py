"""Writes the figures of results/service.json and results/service_fuzz.json into docs/service.md.

python -m tests.benchmarks.service_figures
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.benchmarks._common import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "service.md"
MARK = "<!-- figures: tests/benchmarks/results/service.json -->\n"


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / name).read_text(encoding="utf-8")))


def paragraph() -> str:
    """The text that follows the mark."""
    result, fuzz = _read("service.json"), _read("service_fuzz.json")["figures"]
    figures, machine = result["figures"], result["machine"]
    rows = "".join(
        f"| {row['endpoint']} | {row['median_ms']:.1f} | {row['p99_ms']:.0f} |\n" for row in figures["endpoints"]
    )
    reads, paint = figures["status_reads"], figures["first_paint"]
    return (
        f"Measured by `python -m tests.benchmarks.bench_service` on {result['date'][:10]}, on {machine['cores']} cores of a"
        f" {machine['cpu']} that other programs shared:\na catalog of {figures['videos']:,} videos, {figures['runs']} runs of a day with a"
        f" report a second ({figures['reports_kept_per_run']:,} kept, {figures['telemetry_bytes_per_run'] / 1e6:.0f} MB"
        " each), a loader reading clips at the same time.\n\n"
        f"- {reads['requests_per_s']:,.0f} status reads a second for {reads['seconds']:.0f} s ({reads['client']}, 16 connections),"
        f" {reads['requests']:,} in all, {reads['errors']} errors; the slowest took {reads['slowest_ms']:.0f} ms.\n"
        f"- First paint of the dashboard after {paint['median_ms']:.0f} ms (median of {paint['visits']} first visits; slowest"
        f" {paint['slowest_ms']:.0f} ms).\n"
        f"- schemathesis ({fuzz['with'].rpartition(' ')[2]}) against the OpenAPI document: {fuzz['cases']:,} cases,"
        f" {sum(fuzz['server_errors'].values())} answers of 500 and above.\n\n"
        f"| Question | Median, ms | 99th percentile, ms |\n|---|---|---|\n{rows}"
    )


def main() -> None:
    before, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(before + mark + paragraph(), encoding="utf-8")


if __name__ == "__main__":
    main()
