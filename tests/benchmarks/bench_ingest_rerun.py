"""What a second `clipmill ingest convert` costs per finished video: nothing is to be done, and that has to be found out.

A few small videos stand under many names (hard links), with labels. The first run takes them in: databases are converted
once and linked too, so that setting up is quick. Then the second run is measured, in this process (the work per video)
and as the command (with its start).

    python -m tests.benchmarks.bench_ingest_rerun [--videos 2000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ingest import layout
from ingest.annotations.labels_csv import read_labels_csv
from ingest.catalog import Catalog
from ingest.convert import ConvertReport, convert
from ingest.convert_video import convert_video
from ingest.options import ConvertOptions
from ingest.plan import plan_labels
from ingest.sinks import Target
from tests.benchmarks._common import write_result
from tests.ingest.videos import make_video

NUM_SOURCES, NUM_CLASSES = 4, 50
OPTIONS = ConvertOptions((32,))


def make_finished(folder: Path, num_videos: int) -> tuple[Path, Path, Path]:
    """Sources, labels and a root in which every one of them is finished."""
    videos, labels, root = folder / "videos", folder / "labels.csv", folder / "root"
    originals = [make_video(folder / f"original{i}.mp4", 8, size=(48, 32), seed=i) for i in range(NUM_SOURCES)]
    with labels.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("label", "youtube_id", "time_start", "time_end", "split"))
        for i in range(num_videos):
            label, video_id = f"class {i % NUM_CLASSES:02d}", f"video{i:06d}"
            (videos / label).mkdir(parents=True, exist_ok=True)
            os.link(originals[i % NUM_SOURCES], videos / label / f"{video_id}.mp4")
            writer.writerow((label, video_id, 0, 10, ("train", "val", "test")[i % 3]))
    plan = plan_labels(videos, read_labels_csv(labels))
    finished: dict[int, tuple[Path, Path]] = {}
    with Catalog.create(root) as catalog, catalog.transaction():
        catalog.add_classes(plan.class_names)
        for job in plan.jobs:
            source = job.source.stat().st_ino
            stored = layout.frames_db_path(root, job.key.class_name, job.key.video_id)
            if source in finished:
                stored.parent.mkdir(parents=True)
                for name in ("frames.db", "n_frames"):
                    os.link(finished[source][0].with_name(name), stored.with_name(name))
            else:
                finished[source] = (stored, job.source)
            # The database is there: it is taken as it is, which gives the record.
            catalog.record(convert_video(Target(root), OPTIONS, job))
        catalog.set_labels(plan.labels)
    return videos, labels, root


def run_again(videos: Path, labels: Path, root: Path) -> tuple[float, ConvertReport]:
    started = time.perf_counter()
    report = convert(plan_labels(videos, read_labels_csv(labels)), root, OPTIONS, num_workers=2)
    return time.perf_counter() - started, report


def run_command_again(videos: Path, labels: Path, root: Path) -> float:
    command = [sys.executable, "-m", "clipmill", "ingest", "convert", str(videos), str(root), "--labels", str(labels)]
    started = time.perf_counter()
    subprocess.run([*command, "--short-side", "32"], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = make_finished(Path(folder), options.videos)
        inside, command = [], []
        for _ in range(options.rounds):
            seconds, report = run_again(*data)
            if report.progress.skipped != options.videos:
                raise RuntimeError(f"{report.progress.skipped} of {options.videos} videos were finished: {report}")
            inside.append(seconds)
            command.append(run_command_again(*data))
    figures = {
        "videos": options.videos,
        "rounds": options.rounds,
        "ms_per_video": round(1e3 * statistics.median(inside) / options.videos, 4),
        "command_ms_per_video": round(1e3 * statistics.median(command) / options.videos, 4),
        "seconds": [round(s, 4) for s in inside],
        "command_seconds": [round(s, 4) for s in command],
    }
    print(f"{options.videos} finished videos: {figures['ms_per_video']} ms per video in the process,")
    print(f"{figures['command_ms_per_video']} ms with the start of the command (goal: under 2 ms)")
    if not options.no_write:
        write_result("ingest_rerun", figures)


if __name__ == "__main__":
    main()
