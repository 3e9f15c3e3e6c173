"""What does not show in a few videos but counts in millions: bytes per level, catalog, second run, fsync, verify, merge.

    stores     bytes per frame of every level, and of the 4 fps array per second, of the videos given
    fsync      how often a video is forced to disk, and how long that takes on this disk
    verify     bytes of databases read and checked, and frames decoded (--deep), per second of one core, from the page cache
    rerun      a run that finds everything finished, for two numbers of videos: time, memory, and catalog per video
    merge      the catalog of a shard taken into the one catalog

docs/scale.md multiplies these by 650,000 and ten million, with the rates of bench_ingest; --docs writes its table anew.

    python -m tests.benchmarks.bench_ingest_scale [FILE ...] [--videos 2000 20000] [--rounds 5] [--docs]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest.catalog import Catalog, VideoKey
from ingest.convert import convert
from ingest.executors import Outcome, run_jobs
from ingest.layout import catalog_path
from ingest.merge import merge_shards
from ingest.options import ConvertOptions
from ingest.plan import Job, Plan
from ingest.stores import frames_db, frames_npy
from ingest.verify import stored_videos, verify_video
from tests.benchmarks._common import RESULTS, write_result
from tests.benchmarks.bench_decode_path import make_videos
from tests.benchmarks.bench_ingest import ALL_SIDES
from tests.benchmarks.bench_ingest_memory import peak_bytes
from tests.benchmarks.bench_ingest_rerun import make_finished, run_again

OPTIONS = ConvertOptions(ALL_SIDES, stores=("frames-db", "npy"))
DOCS = Path(__file__).parents[2] / "docs" / "scale.md"
_SECTION = re.compile(r"(<!-- ingest\.json, ingest_scale\.json -->\n).*?(<!-- end -->)", re.S)


# The measurement


def measure_stores(files: list[Path], folder: Path, rounds: int) -> dict:
    """Bytes per level, fsyncs, and the rate of verify, of the videos converted with every level and the array."""
    root = folder / "stores"
    plan = Plan([Job(VideoKey("", path.stem), path) for path in files])
    with fsyncs_timed() as fsyncs:
        report = convert(plan, root, OPTIONS, num_workers=1, executor=in_this_process)
    if report.failures:
        raise RuntimeError(str(report.failures))
    with Catalog.open(root) as catalog:
        stored = stored_videos(catalog)
    outputs = [output for video in stored for output in video.outputs]
    pictures = [output for output in outputs if output.store == frames_db.STORE]
    arrays = [output for output in outputs if output.store == frames_npy.STORE]
    pixels = {side: [o for o in pictures if o.short_side == side] for side in ALL_SIDES}
    database_bytes = sum(
        path.stat().st_size for path in root.rglob("frames.db")
    )  # Of arrays only the size is verified.
    rates: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for deep, found in rates.items():
            started = time.process_time()
            if any(wrong := [verify_video(root, deep, video) for video in stored]):
                raise RuntimeError(str(wrong))
            seconds = time.process_time() - started
            found.append((sum(o.num_frames for o in pictures) if deep else database_bytes) / seconds)
    return {
        "videos": len(files),
        "bytes_per_frame": {
            str(side): round(sum(o.num_bytes for o in level) / sum(o.num_frames for o in level))
            for side, level in pixels.items()
        },
        "array_bytes_per_frame": round(sum(o.num_bytes for o in arrays) / sum(o.num_frames for o in arrays)),
        "file_bytes_over_frame_bytes": round(database_bytes / sum(o.num_bytes for o in pictures), 3),
        "files_per_video": round(sum(path.is_file() for path in root.rglob("*")) / len(files)),
        "fsyncs_per_video": round(len(fsyncs) / len(files), 1),
        "fsync_ms_per_video": round(1e3 * sum(fsyncs) / len(files), 1),
        "verify_mb_per_cpu_s": round(statistics.median(rates[False]) / 1e6),
        "verify_deep_frames_per_cpu_s": round(statistics.median(rates[True])),
    }


def in_this_process(function: Callable, jobs: Iterable, **_: object) -> Iterator[Outcome]:
    """An executor without workers, so that what a worker does can be counted."""
    for job in jobs:
        yield Outcome(job, function(job))


@contextlib.contextmanager
def fsyncs_timed() -> Iterator[list[float]]:
    """Seconds of every os.fsync of this process, while the block runs."""
    true, times = os.fsync, []

    def timed(fd: int) -> None:
        started = time.perf_counter()
        true(fd)
        times.append(time.perf_counter() - started)

    os.fsync = timed
    try:
        yield times
    finally:
        os.fsync = true


def measure_rerun(num_videos: int, folder: Path, rounds: int) -> dict:
    """A run that finds `num_videos` videos finished, in a process of its own; and the merge of their catalog."""
    folder.mkdir()
    videos, labels, root = make_finished(folder, num_videos)
    size_bytes = catalog_path(root).stat().st_size
    runs = [
        outcome.result
        for outcome in run_jobs(_rerun, [(videos, labels, root)] * rounds, num_workers=1)
        if outcome is not None
    ]
    if not all(runs):
        raise RuntimeError("a run failed")
    merges = []
    for turn in range(rounds):
        merged = folder / f"merged{turn}"
        merged.mkdir()
        shutil.copy(catalog_path(root), merged / "catalog.shard-0-of-1.db")
        started = time.perf_counter()
        report = merge_shards(merged)
        merges.append(time.perf_counter() - started)
        if report.videos != num_videos:
            raise RuntimeError(f"{report.videos} of {num_videos} videos merged")
    shutil.rmtree(folder)
    return {
        "videos": num_videos,
        "catalog_bytes_per_video": round(size_bytes / num_videos),
        "ms_per_video": round(1e3 * statistics.median(seconds for seconds, _ in runs) / num_videos, 4),
        "peak_mb": round(runs[0][1] / 1e6, 1),
        "merge_ms_per_video": round(1e3 * statistics.median(merges) / num_videos, 4),
    }


def _rerun(data: tuple[Path, Path, Path]) -> tuple[float, int]:
    seconds, report = run_again(*data)
    if report.progress.done or report.progress.failed:
        raise RuntimeError(str(report))
    return seconds, peak_bytes()


# What it comes to


@dataclass(frozen=True)
class Case:
    """A collection to be taken in: clips of `SECONDS` at `FPS`."""

    name: str
    videos: int

    @property
    def frames(self) -> int:
        return self.videos * SECONDS * FPS


SECONDS, FPS, ARRAY_FPS = 10, 30, 4
CASES = (Case("650,000 videos", 650_000), Case("10,000,000 videos", 10_000_000))
MACHINE_CORES = 64


def table(ingest: dict, scale: dict) -> str:
    """The arithmetic of docs/scale.md from the figures of bench_ingest and of this benchmark."""
    stores, reruns = scale["stores"], scale["reruns"]
    rates = {found["name"]: {r["way"]: r["frames_per_cpu_s"] for r in found["rows"]} for found in ingest["sets"]}
    small, large = rates["real, small"], rates["real, large"]
    largest = reruns[-1]
    memory_per_video = (largest["peak_mb"] - reruns[0]["peak_mb"]) / (largest["videos"] - reruns[0]["videos"])
    base_mb = reruns[0]["peak_mb"] - memory_per_video * reruns[0]["videos"]
    per_frame = sum(stores["bytes_per_frame"].values()) * stores["file_bytes_over_frame_bytes"]

    def databases(case: Case) -> float:
        return case.frames * per_frame

    def arrays(case: Case) -> float:
        return case.videos * SECONDS * ARRAY_FPS * stores["array_bytes_per_frame"]

    def core_hours(case: Case, per_s: float) -> str:
        hours = case.frames / per_s / 3600
        return f"{_rounded(hours)} ({_rounded(hours / MACHINE_CORES, 1)} hours of {MACHINE_CORES} cores)"

    rows: list[tuple[str, Callable[[Case], str]]] = [
        ("frames", lambda case: _rounded(case.frames / 1e6) + " million"),
        ("core-hours, one level, small sources", lambda case: core_hours(case, small["clipmill"])),
        ("core-hours, three levels and arrays, small sources", lambda case: core_hours(case, small["clipmill, all"])),
        ("core-hours, one level, larger sources", lambda case: core_hours(case, large["clipmill"])),
        ("core-hours, three levels and arrays, larger sources", lambda case: core_hours(case, large["clipmill, all"])),
        *(
            (f"bytes of level {side}", lambda case, b=per: _size(case.frames * b))
            for side, per in stores["bytes_per_frame"].items()
        ),
        ("bytes of the arrays", lambda case: _size(arrays(case))),
        ("bytes in all, with SQLite's own", lambda case: _size(databases(case) + arrays(case))),
        ("files", lambda case: _rounded(case.videos * stores["files_per_video"] / 1e6, 1) + " million"),
        ("folders", lambda case: _rounded(case.videos / 1e6, 1) + " million"),
        ("files, were every frame one", lambda case: _rounded(case.frames / 1e6) + " million"),
        ("hours of waiting for fsync, all workers together",
         lambda case: _rounded(case.videos * stores["fsync_ms_per_video"] / 3.6e6)),
        ("catalog.db", lambda case: _size(case.videos * largest["catalog_bytes_per_video"])),
        ("merge of all shards' catalogs, minutes",
         lambda case: _rounded(case.videos * largest["merge_ms_per_video"] / 6e4, 1)),
        ("second run, all finished, minutes", lambda case: _rounded(case.videos * largest["ms_per_video"] / 6e4, 1)),
        ("memory of the run itself (not of its workers)",
         lambda case: _size(1e6 * (base_mb + case.videos * memory_per_video))),
        ("core-hours of verify", lambda case: _rounded(databases(case) / stores["verify_mb_per_cpu_s"] / 3.6e9)),
        ("core-hours of verify --deep",
         lambda case: _rounded(len(ALL_SIDES) * case.frames / stores["verify_deep_frames_per_cpu_s"] / 3600)),
    ]  # fmt: skip
    lines = [f"| | {' | '.join(case.name for case in CASES)} |", "|---|--:|--:|"]
    lines += [f"| {name} | {' | '.join(tell(case) for case in CASES)} |" for name, tell in rows]
    return "\n".join(lines) + "\n"


def _rounded(value: float, digits: int = 0) -> str:
    """Two significant digits: more would claim what no such arithmetic can."""
    if value <= 0:
        return "0"
    return f"{round(value, max(digits, 0) if value < 1 else 1 - math.floor(math.log10(value))):,.{digits if value < 10 else 0}f}"


def _size(num_bytes: float) -> str:
    power = min(4, int(math.log10(max(num_bytes, 1000)) / 3))
    return f"{_rounded(num_bytes / 1000**power, 1)} {('', 'kB', 'MB', 'GB', 'TB')[power]}"


def write_docs() -> None:
    text = DOCS.read_text(encoding="utf-8")
    figures = [json.loads((RESULTS / f"{name}.json").read_text())["figures"] for name in ("ingest", "ingest_scale")]
    DOCS.write_text(_SECTION.sub(lambda found: found[1] + table(*figures) + found[2], text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="videos; default: 16 self-made ones")
    parser.add_argument("--videos", nargs="+", type=int, default=[2000, 20000], help="of the second runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docs", action="store_true", help="write the table of docs/scale.md anew")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        stores = measure_stores(options.files or make_videos(folder), folder, options.rounds)
        print(json.dumps(stores, indent=2), flush=True)
        reruns = [measure_rerun(count, folder / str(count), options.rounds) for count in sorted(options.videos)]
        print(json.dumps(reruns, indent=2))
    if not options.no_write:
        write_result("ingest_scale", {"settings": OPTIONS.settings, "stores": stores, "reruns": reruns})
        if options.docs:
            write_docs()


if __name__ == "__main__":
    main()
