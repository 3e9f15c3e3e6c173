"""Does speed depend on the shape of a batch, or on the length of a video?

Shapes of multigrid, in pixels delivered per second, from three stored levels and from one; clips from databases of 300
frames and from one of 9,000. All in turns, medians of the rounds.

    python -m tests.benchmarks.bench_loader_shapes [--work DIR] [--threads 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
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
from loaders.reading import FrameReader
from tests.benchmarks._common import write_result
from tests.benchmarks.bench_loader import NUM_FRAMES, QUALITY, SIZE, make_root

LEVELS, LONG = (256, 181, 128), 9000
SHAPES = tuple(itertools.product((4, 8, 16), ((112, (128, 160)), (158, (181, 226)), (224, (256, 320)))))
BATCH_PIXELS = 8 * 16 * 224 * 224
"""What every batch holds, as in multigrid: 8 clips of the largest shape, 128 of the smallest."""
NUM_VIDEOS = 128
"""As many as the largest batch has clips: the 60 of `make_root`, most of them twice."""


def make_levels(
    source: Path, root: Path, levels: tuple[int, ...], *, copies: int = 1, videos: int = NUM_VIDEOS
) -> None:
    """As many `videos` as asked for, of those of `source`, in other levels, each `copies` times as long."""
    if (root / "complete").exists():
        return
    dataset = ClipDataset(source)
    reader = FrameReader(dataset)
    with Catalog.create(root) as catalog, catalog.transaction():
        catalog.add_classes(["texture"])
        for video in range(videos):
            turn, own = divmod(video, len(dataset))
            key = VideoKey("texture", f"{dataset.video_ids[own]}-{turn}")
            path = layout.frames_db_path(root, key.class_name, key.video_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            planned = plan_levels(*SIZE, levels)
            blobs = list(reader.read(own, dataset.levels(own)[0], np.arange(NUM_FRAMES)))
            rows = [[blob, *_smaller(blob, planned[1:])] for blob in blobs]
            with FramesDbWriter(path, planned) as writer:
                for frame in range(NUM_FRAMES * copies):
                    writer.add(frame * 40_000, rows[frame % NUM_FRAMES])
                writer.commit({"codec": "jpeg", "quality": QUALITY, "width": SIZE[0], "height": SIZE[1], "fps": 25.0})
            size = path.stat().st_size
            count = NUM_FRAMES * copies
            outputs = [
                Output(STORE, level.short_side, level.width, level.height, count, num_bytes, size)
                for level, num_bytes in zip(planned, writer.num_bytes, strict=True)
            ]
            catalog.record(VideoRecord(key, "ok", num_frames=count, fps=25.0, outputs=outputs))
            catalog.set_labels([(key, "texture", "train", None, None)])
    (root / "complete").touch()


def _smaller(blob: bytes, levels: list) -> list[bytes]:
    picture = simplejpeg.decode_jpeg(blob, "RGB")
    return [
        simplejpeg.encode_jpeg(
            cv2.resize(picture, (level.width, level.height), interpolation=cv2.INTER_AREA),
            QUALITY,
            colorspace="RGB",
            colorsubsampling="420",
        )
        for level in levels
    ]


class Stream:
    """A loader that is kept between the rounds."""

    def __init__(self, root: Path, frames: int, size: int, jitter: tuple[int, int], workers: int) -> None:
        spec = ClipSpec(RandomInterval(frames, (1, 2)), size, size, jitter, flip=0.5)
        dataset = ClipDataset(root)
        batch = min(BATCH_PIXELS // (frames * size * size), len(dataset))
        self.loader = ClipLoader(dataset, spec, batch_size=batch, num_workers=workers, drop_last=False)
        self.batches = itertools.chain.from_iterable(itertools.repeat(self.loader))
        self.rates: list[float] = []
        next(self.batches)

    def run(self, seconds: float) -> None:
        """Clips per second."""
        for _ in range(4):
            next(self.batches)
        clips, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            clips += len(next(self.batches))
        self.rates.append(clips / (time.perf_counter() - started))


def measure(home: Path, options: argparse.Namespace) -> dict[str, Any]:
    make_root(home / "loader-root")
    roots = {"three levels": home / "levels3", "one level": home / "levels1"}
    make_levels(home / "loader-root", roots["three levels"], LEVELS)
    make_levels(home / "loader-root", roots["one level"], LEVELS[:1])
    make_levels(home / "loader-root", home / "long", LEVELS[:1], copies=LONG // NUM_FRAMES, videos=1)
    make_levels(home / "loader-root", home / "short", LEVELS[:1], videos=1)
    rows = []
    for name, root in roots.items():
        streams = {shape: Stream(root, shape[0], *shape[1], options.threads) for shape in SHAPES}
        for _ in range(options.rounds):
            for stream in streams.values():
                stream.run(options.seconds)
        for (frames, (size, _)), stream in streams.items():
            stream.loader.close()
            clips = median(stream.rates)
            row = {"stored": name, "frames": frames, "size_px": size, "clips_per_s": round(clips, 1)}
            rows.append(row | {"megapixels_per_s": round(clips * frames * size * size / 1e6, 1)})
            print(rows[-1])
    spread = {}
    for name in roots:
        values = [row["megapixels_per_s"] for row in rows if row["stored"] == name]
        spread[name] = round(max(values) / min(values), 2)
    long, short = (Stream(home / name, 16, 224, (256, 256), options.threads) for name in ("long", "short"))
    for _ in range(options.rounds):
        long.run(options.seconds)
        short.run(options.seconds)
    cost = median(s / v for s, v in zip(short.rates, long.rates, strict=True))
    long.loader.close()
    short.loader.close()
    print(f"fastest over slowest shape: {spread}; a clip of {LONG:,} frames costs {cost:.2f} times one of {NUM_FRAMES}")
    return {
        "workers": options.threads, "shapes": rows, "fastest_over_slowest": spread,
        "long_video": {"frames": LONG, "costs_times": round(cost, 3)},
    }  # fmt: skip


def table(figures: dict[str, Any]) -> str:
    """The table of docs/loaders.md."""
    shapes = figures["shapes"]
    by_shape = {(row["stored"], row["frames"], row["size_px"]): row["megapixels_per_s"] for row in shapes}
    spread = figures["fastest_over_slowest"]
    lines = ["| frames x px | three levels | one level |", "|---|---|---|"]
    for frames, size in dict.fromkeys((row["frames"], row["size_px"]) for row in shapes):
        cells = " | ".join(f"{by_shape[stored, frames, size]:.0f}" for stored in spread)
        lines.append(f"| {frames}x{size}x{size} | {cells} |")
    lines.append(f"| fastest over slowest | {' | '.join(f'{times:.2f}' for times in spread.values())} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="keeps the data (4 GB) for the next run; default: a temporary folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options.work or Path(folder), options)
    if not options.no_write:
        write_result("loader_shapes", report)


if __name__ == "__main__":
    main()
