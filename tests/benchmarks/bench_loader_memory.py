"""Does a loader's memory grow? 20,000 batches of 2 x 16 x 112 x 112 with scale jitter, by processes and by threads.

Told is what the trainer and its decoders together have written and share with nobody (private dirty pages: those of libraries
are not counted, which are private or shared as other programs come and go), and the slots; after 2,000 batches and then
every 2,000. Linux only.

    python -m tests.benchmarks.bench_loader_memory [--work DIR] [--batches 20000]
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from loaders import ClipDataset, ClipLoader, ClipSpec, RandomInterval
from tests.benchmarks._common import write_result
from tests.benchmarks.bench_loader import make_root

BATCH, FIRST = 2, 2000


def private_bytes(pids: list[int]) -> int:
    """Memory that the processes have written and share with nobody."""
    kib = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kib += sum(int(found) for found in re.findall(r"Private_Dirty:\s+(\d+) kB", text))
    return kib * 1024


def measure(root: Path, workers: str, num_batches: int) -> dict[str, Any]:
    spec = ClipSpec(RandomInterval(16, (1, 2)), 112, 112, (128, 160), flip=0.5)
    with ClipLoader(ClipDataset(root), spec, batch_size=BATCH, workers=workers) as loader:  # type: ignore[arg-type]
        decoders = getattr(loader._engine, "processes", list)
        done, curve, started = 0, [], time.perf_counter()
        while done < num_batches:
            for _ in loader:
                done += 1
                if done % FIRST == 0:
                    gc.collect()
                    curve.append(private_bytes([os.getpid(), *decoders()]))
                if done == num_batches:
                    break
        seconds = time.perf_counter() - started
        slots = 4 * BATCH * spec.clip_bytes
    row = {
        "workers": workers,
        "batches": num_batches,
        "seconds": round(seconds, 1),
        "slot_bytes": slots,
        "private_bytes": curve,
        "growth": round(max(curve) / curve[0] - 1, 4),
    }
    print(
        f"{workers:10} {curve[0] / 1e6:.1f} MB after {FIRST:,} batches, {curve[-1] / 1e6:.1f} MB after {num_batches:,}"
        f" (at most {100 * row['growth']:+.2f} %)"
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keeps the data for the next run; default: a temporary folder")
    parser.add_argument("--batches", type=int, default=20_000)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)) / "loader-root"
        make_root(root)
        cases = [measure(root, workers, options.batches) for workers in ("processes", "threads")]
    if not options.no_write:
        write_result("loader_memory", {"clip": "2 x 16 x 112 x 112, jitter 128 to 160", "cases": cases})


if __name__ == "__main__":
    main()
