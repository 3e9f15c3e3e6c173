"""What decoding only the part under the crop saves: the same clips made from whole pictures and from parts, in turns.

    python -m tests.benchmarks.bench_jpeg_parts [--work DIR] [--rounds 5]

One thread, in seconds of its processor: reading, planning, decoding, scaling and mirroring, without batches and processes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from loaders import ClipDataset, pictures
from loaders.making import ClipMaker, Place
from loaders.reading import FrameReader
from tests.benchmarks._common import write_result
from tests.benchmarks._page import put_table
from tests.benchmarks.bench_loader import CASES, PAGE, Case, make_root

CLIPS = 240


def table(figures: dict[str, Any]) -> str:
    lines = ["| | whole pictures, ms a clip | parts | of whole |", "|---|---|---|---|"]
    lines += [
        f"| {case['name']} | {case['whole_ms']:.2f} | {case['parts_ms']:.2f} | {case['of_whole']:.2f} |"
        for case in figures["cases"]
    ]
    return "\n".join(lines) + "\n"


def measure(root: Path, case: Case, rounds: int) -> dict[str, Any]:
    dataset, spec = ClipDataset(root), case.spec
    maker = ClipMaker(dataset, FrameReader(dataset))
    out = np.empty((spec.num_frames, spec.height, spec.width, 3), np.uint8)
    items = np.random.default_rng(0).integers(len(dataset), size=CLIPS).tolist()

    def milliseconds(parts: bool) -> float:
        pictures.PARTS = parts
        started = time.thread_time()
        for k, item in enumerate(items):
            maker.make(spec, Place(item, k, 0, 0), out, replace_bad=False)
        return 1e3 * (time.thread_time() - started) / CLIPS

    pairs = [(milliseconds(False), milliseconds(True)) for _ in range(1 + rounds)][1:]  # the first opens the files
    row = {
        "name": case.name,
        "whole_ms": round(median(whole for whole, _ in pairs), 3),
        "parts_ms": round(median(parts for _, parts in pairs), 3),
        "of_whole": round(median(parts / whole for whole, parts in pairs), 3),
    }
    print(row)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, help="keeps the data (0.5 GB) for the next run; default: a temporary folder"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    if not pictures.PARTS:
        parser.error(
            "parts cannot be decoded here: install a C compiler and libjpeg-turbo's headers, and Clipmill again"
        )
    with tempfile.TemporaryDirectory() as folder:
        root = (options.work or Path(folder)) / "loader-root"
        make_root(root)
        report = {"clips": CLIPS, "cases": [measure(root, case, options.rounds) for case in CASES if not case.many]}
    if not options.no_write:
        write_result("jpeg_parts", report)
        put_table(PAGE, "jpeg_parts.json", table(report))


if __name__ == "__main__":
    main()
