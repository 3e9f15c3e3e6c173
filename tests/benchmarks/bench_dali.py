"""The two backends of the loader on the same clips: `cpu` in threads, and `dali` on the GPU where there is one, else on the CPU.

Random clips of 16 frames from the data of bench_loader, in turns, by the clock and in seconds of the processor (of the
whole process, so DALI's threads count); where others use the machine too, the latter is the one to go by.

    python -m tests.benchmarks.bench_dali [--work DIR] [--threads 2] [--rounds 5] [--docs]

With --docs the table of docs/loaders.md is written anew from the result.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from loaders import ClipDataset, ClipLoader
from loaders.loader import Backend
from tests.benchmarks._common import endless, write_result
from tests.benchmarks.bench_loader import (
    CASES,
    LEVELS,
    NUM_FRAMES,
    NUM_VIDEOS,
    QUALITY,
    SIZE,
    Case,
    Rate,
    make_root,
    measured,
)

BACKENDS: tuple[Backend, ...] = ("cpu", "dali")
BATCH = 8
DOCS = Path(__file__).parents[2] / "docs" / "loaders.md"
_SECTION = re.compile(r"(<!-- dali\.json -->\n).*?(<!-- end -->)", re.S)


class Running:
    """A loader that is kept between the rounds, as in a training."""

    def __init__(self, root: Path, case: Case, backend: Backend, num_workers: int) -> None:
        self.loader = ClipLoader(
            ClipDataset(root), case.spec, batch_size=BATCH, workers="threads", num_workers=num_workers, backend=backend
        )
        self._batches = endless(self.loader)
        self.rates: list[Rate] = []
        for _ in range(10):
            next(self._batches)

    def run(self, num_batches: int) -> None:
        for _ in range(4):  # What was made ahead while others had their turn is used up first.
            next(self._batches)
        with measured(self.rates) as clips:
            clips.extend(itertools.islice(self._batches, num_batches))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, help="keeps the data (0.5 GB) for the next run; default: a temporary folder"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=25, help=f"of {BATCH} clips, in each measurement")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--docs", action="store_true", help="write the table of docs/loaders.md anew")
    options = parser.parse_args()
    if options.work:
        report = measure(options.work / "loader-root", options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            report = measure(Path(folder), options)
    if not options.no_write:
        path = write_result("dali", report)
        if options.docs:
            made = table(json.loads(path.read_text())["figures"])
            DOCS.write_text(_SECTION.sub(lambda found: found[1] + made + found[2], DOCS.read_text()))


def table(figures: dict[str, Any]) -> str:
    """The figures as a table of docs/loaders.md."""
    lines = [
        f"| clips, {figures['threads']} threads | `cpu`, ms of CPU per clip | `dali`, ms of CPU per clip | `cpu`, clips/s |"
        " `dali`, clips/s |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in figures["cases"]:
        cpu, dali = row["cpu"], row["dali"]
        lines.append(
            f"| {row['name']} | {cpu['cpu_ms']:.1f} | {dali['cpu_ms']:.1f} | {cpu['clips_per_s']:.0f}"
            f" | {dali['clips_per_s']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def measure(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    make_root(root)
    cases = [case for case in CASES if not case.many]
    rows = []
    print(f"{'':30} {'clips/s':>15}   {'CPU ms per clip':>15}\n{'':30} {'cpu':>7} {'dali':>7}   {'cpu':>7} {'dali':>7}")
    for case in cases:
        running = {backend: Running(root, case, backend, options.threads) for backend in BACKENDS}
        for _ in range(options.rounds):
            for each in running.values():
                each.run(options.batches)
        row: dict[str, Any] = {"name": case.name, "crop_px": case.crop_px, "short_side": case.short_side}
        for backend, each in running.items():
            row[backend] = {
                "clips_per_s": round(median(rate.clips_per_s for rate in each.rates), 1),
                "cpu_ms": round(median(rate.cpu_ms for rate in each.rates), 2),
                "rounds": [asdict(rate) for rate in each.rates],
            }
            each.loader.close()
        rows.append(row)
        cpu, dali = (row[backend] for backend in BACKENDS)
        print(
            f"{case.name:30} {cpu['clips_per_s']:7.0f} {dali['clips_per_s']:7.0f}   {cpu['cpu_ms']:7.2f} {dali['cpu_ms']:7.2f}"
        )
    data = {"videos": NUM_VIDEOS, "frames": NUM_FRAMES, "size_px": SIZE, "levels": LEVELS, "quality": QUALITY}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"threads": options.threads, "batch": BATCH, "dali_device": device, "data": data, "cases": rows}


if __name__ == "__main__":
    main()
