"""Which way ingest gets its frames: ffmpeg's command line or its libraries. Decode, scale, encode as JPEG.

    command, JPEG     ffmpeg decodes, scales and writes MJPEG into a pipe; we cut it into pictures
    command, raw      ffmpeg decodes, scales and writes full-range planes into a pipe; simplejpeg encodes
    libraries         PyAV decodes, swscale scales (ingest.video), simplejpeg encodes
    convert_video     the same, and all the rest: source hash, checksums, SQLite, fsync, rename

Two processes at once, one decoder thread each, the ways in turns, median of the rounds. JPEG quality 90 (ffmpeg: -q:v 2,
its best without being forced). The command runs beside the process that reads its pipe and so takes more cores when some
are idle, or a larger share of a busy machine: what a frame costs is told by the processor time of all of them together.

    python -m tests.benchmarks.bench_decode_path [FILE ...] [--short-side 224 128] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from typing import IO

import cv2
import ffmpeg
import numpy as np
import simplejpeg

from ingest.catalog import VideoKey
from ingest.convert_video import convert_video
from ingest.errors import VideoError
from ingest.executors import run_jobs
from ingest.ffmpeg import ffmpeg_exe
from ingest.options import ConvertOptions
from ingest.plan import Job
from ingest.scaling import Scaler
from ingest.sinks import Target
from ingest.stores.frames_db import plan_levels
from ingest.video import Clock, Video, probe
from tests.benchmarks._common import write_result
from tests.ingest.videos import make_video

NUM_VIDEOS, NUM_FRAMES, SIZE = 16, 300, (340, 256)
PROCESSES, QUALITY, MJPEG_QUALITY = 2, 90, 2


@dataclass(frozen=True)
class Task:
    """One video to go through; `scratch` is a folder for what is written."""

    path: Path
    short_side: int
    scratch: Path

    @property
    def size(self) -> tuple[int, int]:
        info = probe(self.path)
        level = plan_levels(info.width, info.height, (self.short_side,))[0]
        return level.width, level.height


Done = tuple[int, int]
"""Frames, and bytes of their JPEGs."""


@dataclass(frozen=True)
class Pass:
    """All videos once, one way: wall time, processor time with that of child processes, frames, bytes of JPEGs."""

    seconds: float
    cpu_s: float
    frames: int
    num_bytes: int


# The ways


def command_jpeg(task: Task) -> Done:
    frames = num_bytes = 0
    pending = b""
    with _ffmpeg(task, vcodec="mjpeg", format="image2pipe", **{"q:v": MJPEG_QUALITY}) as pipe:
        while chunk := pipe.read(1 << 16):
            *pictures, pending = (pending + chunk).split(b"\xff\xd9\xff\xd8")  # the end of one, the start of the next
            frames += len(pictures)
            num_bytes += sum(len(picture) + 4 for picture in pictures)
    return frames + bool(pending), num_bytes + len(pending)


def command_raw(task: Task) -> Done:
    width, height = task.size
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    ends = np.cumsum([width * height, half_width * half_height, half_width * half_height])
    frames = num_bytes = 0
    with _ffmpeg(task, format="rawvideo") as pipe:
        while len(data := pipe.read(int(ends[-1]))) == ends[-1]:
            y, u, v = np.split(np.frombuffer(data, np.uint8), ends[:-1])
            planes = y.reshape(height, width), u.reshape(half_height, half_width), v.reshape(half_height, half_width)
            num_bytes += len(simplejpeg.encode_jpeg_yuv_planes(*planes, QUALITY))
            frames += 1
    return frames, num_bytes


def libraries(task: Task) -> Done:
    frames = num_bytes = 0
    with Video(task.path) as video:
        clock, scaler = Clock(video), Scaler(task.size)
        for frame in video.frames():
            clock.read(frame)
            num_bytes += len(simplejpeg.encode_jpeg_yuv_planes(*scaler(frame), QUALITY))
            frames += 1
    return frames, num_bytes


def whole_conversion(task: Task) -> Done:
    with tempfile.TemporaryDirectory(dir=task.scratch) as root:
        options = ConvertOptions((task.short_side,), QUALITY)
        record = convert_video(Target(Path(root)), options, Job(VideoKey("", task.path.stem), task.path))
    if record.state != "ok":
        raise VideoError(record.reason, record.message)
    return record.num_frames, record.outputs[0].num_bytes


WAYS: dict[str, Callable[[Task], Done]] = {
    "command, JPEG": command_jpeg,
    "command, raw": command_raw,
    "libraries": libraries,
    "convert_video": whole_conversion,
}
TRAITS = {
    "command, JPEG": {"time_stamps": False, "crash_costs": "the video"},
    "command, raw": {"time_stamps": False, "crash_costs": "the video"},
    "libraries": {"time_stamps": True, "crash_costs": "the worker, which is started anew"},
    "convert_video": {"time_stamps": True, "crash_costs": "the worker, which is started anew"},
}


class _ffmpeg:
    """The command with one thread, its output as a file; frames as they are, none doubled or dropped."""

    def __init__(self, task: Task, **output: object) -> None:
        width, height = task.size
        stream = ffmpeg.input(str(task.path), threads=1).video.filter(
            "scale", width, height, flags="area", out_range="pc"
        )
        graph = stream.output("pipe:", pix_fmt="yuvj420p", fps_mode="passthrough", threads=1, **output)
        command = graph.global_args("-v", "error", "-nostdin").compile(cmd=ffmpeg_exe())
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=1 << 20)

    def __enter__(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def __exit__(self, *_: object) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._process.wait() != 0:
            raise RuntimeError(f"ffmpeg ended with code {self._process.returncode}")


# What a crash costs


def nothing(task: int) -> int:
    return task


def worker_start_s() -> float:
    """A worker process with all that ingest imports, up to its first answer."""
    started = time.perf_counter()
    list(run_jobs(nothing, [0], num_workers=1))
    return time.perf_counter() - started


def command_start_s() -> float:
    started = time.perf_counter()
    subprocess.run([ffmpeg_exe(), "-version"], capture_output=True, check=True)
    return time.perf_counter() - started


# The data


def textured(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Frames uint8 (H, W, 3): detail of several sizes that pans, a disc that crosses it, and grain."""
    width, height = SIZE
    shape = (SIZE[0] * 2, SIZE[1] * 2)
    layers = []
    for _ in range(2):
        layer = np.full((shape[1], shape[0], 3), 128, np.float32)
        for cells, contrast in ((8, 45), (40, 20), (160, 9)):
            coarse = rng.normal(0, contrast, (cells, cells, 3)).astype(np.float32)
            layer += cv2.resize(coarse, shape, interpolation=cv2.INTER_CUBIC)
        layers.append(np.clip(layer, 0, 255).astype(np.int16))
    grain = rng.normal(0, 3, (16, height, width, 1)).astype(np.int16)
    y, x = np.mgrid[:height, :width]
    for t in range(NUM_FRAMES):
        left, top = t * width // NUM_FRAMES, t * height // (2 * NUM_FRAMES)
        picture = layers[0][top : top + height, left : left + width].copy()
        disc = (y - height / 2) ** 2 + (x - 2 * t % width) ** 2 < 60**2
        picture[disc] = layers[1][:height, :width][disc]
        yield np.clip(picture + grain[t * 7 % 16], 0, 255).astype(np.uint8)


def make_videos(folder: Path) -> list[Path]:
    made = []
    for i in range(NUM_VIDEOS):
        frames = np.stack(list(textured(np.random.default_rng(i))))
        made.append(make_video(folder / f"video{i:02d}.mp4", frames, options=["-preset", "medium", "-crf", "23"]))
    return made


# The measurement


def measure(files: list[Path], short_sides: list[int], rounds: int, scratch: Path) -> list[dict]:
    rows = []
    with get_context("spawn").Pool(PROCESSES) as pool:
        for short_side in short_sides:
            tasks = [Task(path, short_side, scratch) for path in files]
            passes: dict[str, list[Pass]] = {name: [] for name in WAYS}
            for turn in range(1 + rounds):
                for name in WAYS:
                    found = one_pass(pool, name, tasks)
                    if turn:  # the first one warms up
                        passes[name].append(found)
            rows += [row(short_side, name, passes[name], passes["libraries"]) for name in WAYS]
    return rows


def row(short_side: int, name: str, passes: list[Pass], libraries: list[Pass]) -> dict:
    def median_ratio(what: Callable[[Pass], float]) -> float:
        return round(statistics.median(what(a) / what(b) for a, b in zip(passes, libraries, strict=True)), 3)

    return {
        "short_side": short_side,
        "way": name,
        "frames_per_s": round(statistics.median(p.frames / p.seconds for p in passes), 1),
        "frames_per_cpu_s": round(statistics.median(p.frames / p.cpu_s for p in passes), 1),
        "speed_of_libraries": median_ratio(lambda p: p.frames / p.seconds),
        "cpu_speed_of_libraries": median_ratio(lambda p: p.frames / p.cpu_s),
        "frames": passes[0].frames,
        "bytes_per_frame": round(passes[0].num_bytes / passes[0].frames),
        **TRAITS[name],
        "rounds": [[round(p.seconds, 3), round(p.cpu_s, 3)] for p in passes],
    }


def one_pass(pool: Pool, name: str, tasks: list[Task]) -> Pass:
    started = time.perf_counter()
    done = pool.map(partial(timed, name), tasks, chunksize=1)
    seconds = time.perf_counter() - started
    return Pass(seconds, *(sum(column) for column in zip(*done, strict=True)))


def timed(name: str, task: Task) -> tuple[float, int, int]:
    """Processor time of this process and of its children that have ended; frames; bytes."""
    before = os.times()
    frames, num_bytes = WAYS[name](task)
    return sum(os.times()[:4]) - sum(before[:4]), frames, num_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="videos; default: 16 self-made ones")
    parser.add_argument("--short-side", nargs="+", type=int, default=[224, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="decode_path", help="of the result")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = options.files or make_videos(Path(folder))
        infos = [probe(path) for path in files]
        rows = measure(files, options.short_side, options.rounds, Path(folder))
    figures = {
        "videos": [f"{info.codec} {info.width}x{info.height}" for info in infos],
        "processes": PROCESSES,
        "worker_start_s": round(statistics.median(worker_start_s() for _ in range(5)), 3),
        "command_start_s": round(statistics.median(command_start_s() for _ in range(5)), 3),
        "rows": rows,
    }
    print("short side, way          frames/s  per cpu-s   of libraries  bytes/frame  times  a crash costs")
    for r in rows:
        print(
            f"{r['short_side']:4} {r['way']:15} {r['frames_per_s']:12.0f} {r['frames_per_cpu_s']:10.0f}"
            f" {r['speed_of_libraries']:7.2f} {r['cpu_speed_of_libraries']:6.2f} {r['bytes_per_frame']:12}"
            f" {'yes' if r['time_stamps'] else 'no':>6}  {r['crash_costs']}"
        )
    print(
        f"start of a worker {figures['worker_start_s']} s, of the command {figures['command_start_s']} s (once per video)"
    )
    if not options.no_write:
        write_result(options.name, figures)


if __name__ == "__main__":
    main()
