"""What a worker of `clipmill ingest convert` takes in memory with every output on, and whether it grows with the video.

Each video is converted by a fresh worker process, as a run starts them, to three levels of frames.db, the 4 fps array and
raw frames. Told is the most that ever was resident of that process (VmHWM of Linux, which counts shared libraries too),
and the same before the first video: Python and the libraries alone.

    python -m tests.benchmarks.bench_ingest_memory [FILE ...]
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ingest.catalog import VideoKey, VideoRecord
from ingest.convert_video import convert_video
from ingest.executors import run_jobs
from ingest.options import STORES, ConvertOptions
from ingest.plan import Job
from ingest.sinks import Target
from ingest.video import probe
from tests.benchmarks._common import write_result
from tests.ingest.videos import make_video

SIZE, LENGTHS = (1920, 1080), (600, 1800)
OPTIONS = ConvertOptions((256, 160, 112), stores=STORES)


@dataclass(frozen=True)
class Measured:
    """How a conversion ended, and the peak of its process in bytes before and after it."""

    record: VideoRecord
    before_bytes: int
    peak_bytes: int
    seconds: float


def peak_bytes() -> int:
    """The most memory that was ever resident of this process."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def convert_and_measure(work: tuple[Path, Job]) -> Measured:
    """Body of the worker. The libraries are loaded by now: it has unpickled this function."""
    root, job = work
    before, started = peak_bytes(), time.perf_counter()
    record = convert_video(Target(root), OPTIONS, job)
    return Measured(record, before, peak_bytes(), time.perf_counter() - started)


def make_long_video(path: Path, num_frames: int) -> Path:
    """1080p with motion and grain, two passes of the same scene; small enough in memory to make anywhere."""
    rng = np.random.default_rng(0)
    width, height = SIZE
    coarse = rng.integers(0, 255, (18, 64, 3), np.uint8)
    scene = cv2.resize(coarse, (2 * width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    scene += rng.normal(0, 6, (height, 1, 1)).astype(np.int16) + rng.normal(0, 6, (1, 2 * width, 1)).astype(np.int16)
    frames = np.stack([np.clip(scene[:, t * 64 : t * 64 + width], 0, 255).astype(np.uint8) for t in range(30)])
    options = ["-vf", f"loop=loop={num_frames // 30 - 1}:size=30", "-preset", "ultrafast", "-crf", "23"]
    return make_video(path, frames, fps=30, options=options)


def measure(path: Path, name: str, folder: Path) -> dict:
    info = probe(path)
    with tempfile.TemporaryDirectory(dir=folder) as root:
        work = Path(root), Job(VideoKey("", path.stem), path)
        (outcome,) = (done for done in run_jobs(convert_and_measure, [work], num_workers=1) if done is not None)
    if outcome.result is None or outcome.result.record.state != "ok":
        raise RuntimeError(f"{path.name}: {outcome}")
    done = outcome.result
    return {
        "video": name,
        "codec": info.codec,
        "width": info.width,
        "height": info.height,
        "frames": done.record.num_frames,
        "libraries_mb": round(done.before_bytes / 1e6, 1),
        "peak_mb": round(done.peak_bytes / 1e6, 1),
        "seconds": round(done.seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="videos, beside the self-made ones")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        made = [make_long_video(folder / f"long{length}.mp4", length) for length in LENGTHS]
        rows = [measure(path, "self-made", folder) for path in made]
        rows += [measure(path, path.name, folder) for path in options.files]
    print("video                 size       frames  libraries   peak MB (goal: under 400)")
    for r in rows:
        print(
            f"{r['video'][:20]:20} {r['width']:5}x{r['height']:<5} {r['frames']:7} {r['libraries_mb']:10} {r['peak_mb']:9}"
        )
    if not options.no_write:
        write_result("ingest_memory", {"settings": OPTIONS.settings, "rows": rows})


if __name__ == "__main__":
    main()
