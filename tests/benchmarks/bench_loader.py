"""How near the loader comes to the limit of JPEG decoding.

The limit: the same JPEG bytes, already in memory, decoded whole by as many threads with the fastest settings into a
reused buffer, and nothing else. Ours: random clips from the databases through ClipLoader, decoded by threads and by
processes. All in one run, in turns, by the clock and in seconds of the processor; where others use the machine too, the
latter is the one to go by.

    python -m tests.benchmarks.bench_loader [--work DIR] [--threads 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import simplejpeg

from ingest import layout
from ingest.catalog import Catalog, Output, VideoKey, VideoRecord
from ingest.stores.frames_db import STORE, FramesDbWriter, plan_levels
from loaders import ClipDataset, ClipLoader, ClipSpec, RandomInterval
from loaders.clips import plan_clip
from loaders.engine import ThreadEngine
from loaders.loader import Workers
from loaders.order import epoch_order
from loaders.processes import ProcessEngine
from loaders.reading import FrameReader
from tests.benchmarks._common import endless, write_result
from tests.benchmarks._page import put_table

PAGE = Path(__file__).parents[2] / "docs" / "loaders.md"
BATCH_BYTES = 8 * 16 * 224 * 224 * 3  # 8 clips of 224 px, 32 of 112 px
NUM_VIDEOS, NUM_FRAMES, SIZE, LEVELS, QUALITY = 60, 300, (340, 256), (256, 128), 90


@dataclass(frozen=True)
class Case:
    """A clip to ask for. `goal` is the share of the limit that it is to reach.

    `many` opens the database of every clip anew, as in a set of more videos than databases are kept open.
    """

    name: str
    crop_px: int
    short_side: tuple[int, int]
    goal: float
    many: bool = False

    @property
    def spec(self) -> ClipSpec:
        sampler = RandomInterval(16, (1, 2))
        return ClipSpec(sampler, self.crop_px, self.crop_px, self.short_side, flip=0.5)


CASES = (
    Case("16x224x224, one size", 224, (256, 256), 0.9),
    Case("16x224x224, jitter 256-320", 224, (256, 320), 0.75),
    Case("16x112x112, one size", 112, (128, 128), 0.9),
    Case("16x112x112, jitter 128-160", 112, (128, 160), 0.75),
    Case("16x224x224, one size, many videos", 224, (256, 256), 0.9, many=True),
    Case("16x112x112, one size, many videos", 112, (128, 128), 0.9, many=True),
)


# The data


def make_root(root: Path) -> None:
    """60 videos of 300 frames, 340x256 and 170x128 at quality 90: textured layers that move, and grain."""
    done = root / "complete"
    if done.exists():
        return
    with ThreadPoolExecutor(2) as pool:
        records = list(pool.map(lambda i: make_video(root, i), range(NUM_VIDEOS)))
    with Catalog.create(root) as catalog, catalog.transaction():
        catalog.add_classes(["texture"])
        for record in records:
            catalog.record(record)
        catalog.set_labels([(record.key, "texture", "train", None, None) for record in records])
    done.touch()


def make_video(root: Path, index: int) -> VideoRecord:
    key = VideoKey("texture", f"video{index:02d}")
    path = layout.frames_db_path(root, key.class_name, key.video_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = plan_levels(*SIZE, LEVELS)
    with FramesDbWriter(path, levels) as writer:
        for frame, picture in enumerate(moving_texture(np.random.default_rng(index))):
            scaled = [cv2.resize(picture, (lv.width, lv.height), interpolation=cv2.INTER_AREA) for lv in levels[1:]]
            blobs = [
                simplejpeg.encode_jpeg(image, QUALITY, colorspace="RGB", colorsubsampling="420")
                for image in (picture, *scaled)
            ]
            writer.add(frame * 40_000, blobs)
        writer.commit({"codec": "jpeg", "quality": QUALITY, "width": SIZE[0], "height": SIZE[1], "fps": 25.0})
    file_bytes = path.stat().st_size
    outputs = [
        Output(STORE, level.short_side, level.width, level.height, NUM_FRAMES, num_bytes, file_bytes)
        for level, num_bytes in zip(levels, writer.num_bytes, strict=True)
    ]
    return VideoRecord(key, "ok", num_frames=NUM_FRAMES, width=SIZE[0], height=SIZE[1], fps=25.0, outputs=outputs)


def moving_texture(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Frames uint8 (H, W, 3): a background that pans, two textured discs that cross it, and grain."""
    width, height = SIZE
    back, *fronts = (texture(rng) for _ in range(3))
    grain = rng.normal(0, rng.uniform(1, 4), (64, height, width, 1)).astype(np.int16)
    y, x = np.mgrid[:height, :width]
    speed = rng.uniform(-2, 2, (3, 2))
    for t in range(NUM_FRAMES):
        picture = np.roll(back, (speed[0] * t).astype(int), axis=(0, 1))[:height, :width].copy()
        for i, front in enumerate(fronts, start=1):
            centre_y, centre_x = (speed[i] * t + 60 * i) % (height, width)
            disc = (y - centre_y) ** 2 + (x - centre_x) ** 2 < (40 + 15 * i) ** 2
            picture[disc] = np.roll(front, (-speed[i] * t).astype(int), axis=(0, 1))[:height, :width][disc]
        yield np.clip(picture + grain[t * 7 % 64], 0, 255).astype(np.uint8)


def texture(rng: np.random.Generator) -> np.ndarray:
    """Half again as large as a frame: coarse shapes and finer detail upon them, int16 (H, W, 3)."""
    size = (SIZE[0] * 3 // 2, SIZE[1] * 3 // 2)
    made = np.full((size[1], size[0], 3), 128, np.float32)
    detail = rng.uniform(0.5, 1.0)
    for share, contrast in ((0.02, 45), (0.08, 20 * detail), (0.3, 9 * detail)):
        coarse = rng.normal(0, contrast, (int(size[1] * share), int(size[0] * share), 3)).astype(np.float32)
        made += cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    return made.astype(np.int16)


# What is measured


@dataclass(frozen=True)
class Rate:
    """Clips per second by the clock, and milliseconds of the processor per clip, all threads together."""

    clips_per_s: float
    cpu_ms: float


@contextmanager
def measured(rates: list[Rate], others: Sequence[int] = ()) -> Iterator[list[int]]:
    """Times the block and appends the rate of the clips that the block has added to the list it is given.

    `others`: processes that work for this one.
    """
    clips: list[int] = []
    wall, cpu = time.perf_counter(), time.process_time() + cpu_seconds(others)
    yield clips
    wall, cpu = time.perf_counter() - wall, time.process_time() + cpu_seconds(others) - cpu
    rates.append(Rate(round(sum(clips) / wall, 1), round(1000 * cpu / sum(clips), 3)))


def cpu_seconds(processes: Sequence[int]) -> float:
    """What the processes have used so far."""
    ticks = 0
    for pid in processes:
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Limit:
    """Decodes the encoded frames of the first clips of a case, round and round."""

    def __init__(self, root: Path, case: Case, num_workers: int) -> None:
        dataset, self._num_workers = ClipDataset(root), num_workers
        reader = FrameReader(dataset)
        self._clips = []
        for epoch in range(4):
            for k, item in enumerate(epoch_order(len(dataset), 0, epoch)):
                plan = plan_clip(case.spec, int(item), NUM_FRAMES, dataset.levels(0), seed=0, epoch=epoch, k=k)
                self._clips.append(reader.read(plan.video, plan.level, plan.frames))
        reader.close()
        self.kilobytes_per_clip = sum(len(blob) for clip in self._clips for blob in clip) / len(self._clips) / 1000
        self.rates: list[Rate] = []

    def run(self, seconds: float) -> None:
        turn = itertools.count()
        end = time.perf_counter() + seconds

        def work() -> None:
            buffer = np.empty(SIZE[0] * SIZE[1] * 3, np.uint8)
            while time.perf_counter() < end:
                for blob in self._clips[next(turn) % len(self._clips)]:
                    simplejpeg.decode_jpeg(blob, "RGB", fastdct=True, fastupsample=True, buffer=buffer)
                clips.append(1)

        with measured(self.rates) as clips:
            threads = [threading.Thread(target=work) for _ in range(self._num_workers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


class Ours:
    """A loader that is kept between the rounds, as in a training."""

    def __init__(self, root: Path, case: Case, num_workers: int, workers: Workers) -> None:
        spec = case.spec
        batch = BATCH_BYTES // spec.clip_bytes
        self.loader = ClipLoader(ClipDataset(root), spec, batch_size=batch, workers=workers, num_workers=num_workers)
        engine = self.loader._engine
        self._processes = engine.processes() if isinstance(engine, ProcessEngine) else []
        if case.many:
            assert isinstance(engine, ThreadEngine)
            engine._reader._num_kept = 1
        self._batches = endless(self.loader)
        self.rates: list[Rate] = []
        for _ in range(20):
            next(self._batches)

    def run(self, seconds: float) -> None:
        for _ in range(4):  # What was made ahead while others had their turn is used up first.
            next(self._batches)
        end = time.perf_counter() + seconds
        with measured(self.rates, self._processes) as clips:
            while time.perf_counter() < end:
                clips.append(next(self._batches))

    def us_per_clip(self) -> dict[str, float]:
        """Microseconds of one thread, by stage and by the clock."""
        stages = self.loader.stages()
        return {name: round(1e6 * stage.seconds / max(stage.count, 1), 1) for name, stage in stages.items()}


def table(figures: dict[str, Any]) -> str:
    """The limit, and what comes out of the loader by processes, by the clock and by seconds of the processor."""
    lines = [
        "| | limit, clips/s | ours | share of the limit | by CPU seconds | goal |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {case['name']} | {case['limit_clips_per_s']:,.0f} | {case['clips_per_s']:,.0f} | {case['share_of_limit']:.2f} |"
        f" {case['share_of_limit_by_cpu']:.2f} | {case['goal']:.2f} |"
        for case in figures["cases"]
        if case["workers"] == "processes"
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, help="keeps the data (0.5 GB) for the next run; default: a temporary folder"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    if options.work:
        report = measure(options.work / "loader-root", options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            report = measure(Path(folder), options)
    if not options.no_write:
        write_result("loader", report)
        put_table(PAGE, "loader.json", table(report))


def measure(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    make_root(root)
    limits = [Limit(root, case, options.threads) for case in CASES]
    ways = [
        (case, limit, workers, Ours(root, case, options.threads, workers))
        for case, limit in zip(CASES, limits, strict=True)
        for workers in (("threads",) if case.many else ("threads", "processes"))
    ]
    for _ in range(options.rounds):
        for limit, of_limit in itertools.groupby(ways, key=lambda way: way[1]):
            limit.run(options.seconds)
            for *_, ours in of_limit:
                ours.run(options.seconds)
    print(f"{'':46} {'limit':>6} {'ours':>6} {'share':>6} {'of CPU':>6} {'goal':>5}   us per clip and worker")
    rows = []
    for case, limit, workers, our in ways:
        pairs = list(zip(limit.rates, our.rates, strict=True))
        row = asdict(case) | {
            "workers": workers,
            "kilobytes_per_clip": round(limit.kilobytes_per_clip),
            "limit_clips_per_s": round(median(rate.clips_per_s for rate in limit.rates), 1),
            "clips_per_s": round(median(rate.clips_per_s for rate in our.rates), 1),
            "share_of_limit": round(median(o.clips_per_s / m.clips_per_s for m, o in pairs), 3),
            "share_of_limit_by_cpu": round(median(m.cpu_ms / o.cpu_ms for m, o in pairs), 3),
            "us_per_clip": our.us_per_clip(),
            "rounds": [{"limit": asdict(m), "ours": asdict(o)} for m, o in pairs],
        }
        rows.append(row)
        print(
            f"{case.name:35} {workers:10} {row['limit_clips_per_s']:6.0f} {row['clips_per_s']:6.0f} {row['share_of_limit']:6.2f}"
            f" {row['share_of_limit_by_cpu']:6.2f} {case.goal:5.2f}   "
            + "  ".join(f"{name} {us:.0f}" for name, us in row["us_per_clip"].items())
        )
        our.loader.close()
    data = {
        "batch_bytes": BATCH_BYTES,
        "videos": NUM_VIDEOS,
        "frames": NUM_FRAMES,
        "size_px": SIZE,
        "levels": LEVELS,
        "quality": QUALITY,
    }
    return {"threads": options.threads, "seconds": options.seconds, "data": data, "cases": rows}


if __name__ == "__main__":
    main()
