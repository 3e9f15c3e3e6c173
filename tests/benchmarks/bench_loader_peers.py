"""Random clips from disk: ours beside what else there is, on the same frames, with as many workers, in one run.

    clipmill            ClipLoader on frames.db (processes)
    historical          torch DataLoader with the reader of the historical databases: one query by names per clip, decoded
                        by OpenCV, resized whole frame by whole frame (as dataset2database's users have it)
    folder              torch DataLoader on folders of jpg files, decoded by OpenCV
    webdataset          tar shards, a video per sample, all of whose frames are read to take a clip
    spdl                the same blobs as ours, read by our reader in SPDL's pipeline, decoded and scaled by spdl.io
    dali                the same blobs, read by our reader, decoded, scaled and cut by a pipeline of DALI on the CPU
    pyav, decord, torchcodec    random clips from H.264 files as ffmpeg makes them (a key frame every 250), seeking
    torchcodec_g60      the same with a key frame every 60, as from a studio that was asked for it

Peers come from PyPI; one that is not installed is left out and named. torchcodec needs ffmpeg's shared libraries besides
(Debian: apt install ffmpeg). Every peer gives uint8 clips of the same frames, scaled and cut at random; crops and mirroring
cost next to nothing, so small differences in them do not matter. Medians of the rounds, all in turns.

    python -m tests.benchmarks.bench_loader_peers [--work DIR] [--threads 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, suppress
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from ingest.stores.video_file import VideoFile
from loaders import ClipDataset, ClipLoader, ClipSpec, RandomInterval
from loaders.clips import plan_clip
from loaders.reading import FrameReader
from tests.benchmarks._common import write_result
from tests.benchmarks._page import put_table
from tests.benchmarks.bench_loader import NUM_FRAMES, NUM_VIDEOS, SIZE, make_root
from tests.ingest.videos import ffmpeg

PAGE = Path(__file__).parents[2] / "docs" / "loaders.md"
NUM_CLIP_FRAMES, BATCH = 16, 8
SHAPES = {"16x224x224": (224, (256, 320)), "16x112x112": (112, (128, 160))}
VIDEO_PEERS = ("pyav", "decord", "torchcodec", "torchcodec_g60")


# The same frames, as the peers want them


def make_copies(root: Path, home: Path) -> None:
    """Historical databases, folders of jpg, tar shards and H.264 files of the frames of the largest level."""
    if (home / "complete").exists():
        return
    dataset, reader = ClipDataset(root), FrameReader(ClipDataset(root))
    for video in range(len(dataset)):
        name = dataset.video_ids[video]
        blobs = list(reader.read(video, dataset.levels(video)[0], np.arange(NUM_FRAMES)))
        folder = home / "jpg" / name
        folder.mkdir(parents=True, exist_ok=True)
        for i, blob in enumerate(blobs):
            (folder / f"img_{i + 1:05d}.jpg").write_bytes(blob)
        (home / "historical" / name).mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(home / "historical" / name / "frames.db")) as db, db:
            db.execute("CREATE TABLE Images(ObjId STRING, frames BLOB, size INT)")
            rows = [(f"{name}/frame_{i + 1:05d}", blob, SIZE[0]) for i, blob in enumerate(blobs)]
            db.executemany("INSERT INTO Images VALUES(?,?,?)", rows)
        (home / "tar").mkdir(exist_ok=True)
        with tarfile.open(home / "tar" / f"{name}.tar", "w") as tar:
            for i, blob in enumerate(blobs):
                entry = tarfile.TarInfo(f"{name}.{i:05d}.jpg")
                entry.size = len(blob)
                tar.addfile(entry, io.BytesIO(blob))
        for kind, interval in (("mp4", 250), ("mp4_g60", 60)):
            (home / kind).mkdir(exist_ok=True)
            ffmpeg("-framerate", "25", "-i", str(folder / "img_%05d.jpg"), "-c:v", "libx264", "-crf", "20",
                   "-g", str(interval), "-pix_fmt", "yuv420p", str(home / kind / f"{name}.mp4"))  # fmt: skip
    (home / "complete").touch()


def drawn(seed: int) -> Iterator[tuple[int, np.ndarray, np.random.Generator]]:
    """Video after video in random order, with the frames of a clip."""
    rng = np.random.default_rng(seed)
    sampler = RandomInterval(NUM_CLIP_FRAMES, (1, 2))
    while True:
        for video in rng.permutation(NUM_VIDEOS):
            yield int(video), sampler.draw(NUM_FRAMES, rng), rng


def cut(frames: Iterator[np.ndarray], size: int, jitter: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Whole frames scaled to one drawn short side, one crop for all: uint8 (T, size, size, 3)."""
    side = int(rng.integers(jitter[0], jitter[1] + 1))
    width, height = round(SIZE[0] * side / SIZE[1]), side
    top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    out = np.empty((NUM_CLIP_FRAMES, size, size, 3), np.uint8)
    for i, frame in enumerate(frames):
        out[i] = cv2.resize(frame, (width, height))[top : top + size, left : left + size]
    return out


class Clips(IterableDataset):
    """What a DataLoader's worker goes through: clips by `read(video, frames)`, which gives whole RGB frames."""

    def __init__(self, read: Callable[[int, np.ndarray], Iterator[np.ndarray]], size: int, jitter: tuple[int, int]):
        self.read, self.size, self.jitter = read, size, jitter

    def __iter__(self) -> Iterator[torch.Tensor]:
        cv2.setNumThreads(1)
        info = torch.utils.data.get_worker_info()
        for video, frames, rng in drawn(info.id if info else 0):
            yield torch.from_numpy(cut(self.read(video, frames), self.size, self.jitter, rng))


def data_loader(read: Callable[[int, np.ndarray], Iterator[np.ndarray]]) -> Callable[..., Iterator[int]]:
    def begin(home: Path, root: Path, size: int, jitter: tuple[int, int], workers: int) -> Iterator[int]:
        # Not forked: the threads of peers that began before leave locks behind in a fork, and its workers hang.
        loader = DataLoader(
            Clips(read, size, jitter), batch_size=BATCH, num_workers=workers, multiprocessing_context="forkserver"
        )
        return (len(batch) for batch in loader)

    return begin


# The peers: each begins an endless stream of batch sizes


def clipmill(home: Path, root: Path, size: int, jitter: tuple[int, int], workers: int) -> Iterator[int]:
    spec = ClipSpec(RandomInterval(NUM_CLIP_FRAMES, (1, 2)), size, size, jitter, flip=0.5)
    loader = ClipLoader(ClipDataset(root), spec, batch_size=BATCH, num_workers=workers)
    while True:
        for batch in loader:
            yield len(batch)


class Reader:
    """Whole frames by name, from one of the copies. Opened in the worker that reads."""

    def __init__(self, home: Path, kind: str) -> None:
        self.home, self.kind = home, kind

    def __call__(self, video: int, frames: np.ndarray) -> Iterator[np.ndarray]:
        return getattr(self, self.kind)(f"video{video:02d}", frames)

    def historical(self, name: str, frames: np.ndarray) -> Iterator[np.ndarray]:
        with closing(sqlite3.connect(self.home / "historical" / name / "frames.db")) as db:
            names = [f"{name}/frame_{i + 1:05d}" for i in frames]
            slots = ",".join("?" * len(names))
            found = dict(db.execute(f"SELECT ObjId, frames FROM Images WHERE ObjId IN ({slots})", names))
        for each in names:
            yield decoded(found[each])

    def folder(self, name: str, frames: np.ndarray) -> Iterator[np.ndarray]:
        for i in frames:
            yield decoded((self.home / "jpg" / name / f"img_{i + 1:05d}.jpg").read_bytes())

    def pyav(self, name: str, frames: np.ndarray) -> Iterator[np.ndarray]:
        with VideoFile(self.home / "mp4" / f"{name}.mp4") as video:
            yield from video.read(frames.tolist())

    def decord(self, name: str, frames: np.ndarray) -> Iterator[np.ndarray]:
        import decord

        reader = decord.VideoReader(str(self.home / "mp4" / f"{name}.mp4"), num_threads=1)
        yield from reader.get_batch(frames.tolist()).asnumpy()

    def torchcodec_g60(self, name: str, frames: np.ndarray) -> Iterator[np.ndarray]:
        return self.torchcodec(name, frames, "mp4_g60")

    def torchcodec(self, name: str, frames: np.ndarray, kind: str = "mp4") -> Iterator[np.ndarray]:
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(str(self.home / kind / f"{name}.mp4"), dimension_order="NHWC", num_ffmpeg_threads=1)
        yield from decoder.get_frames_at(frames.tolist()).data.numpy()


def decoded(blob: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


class TarClips:
    """Takes a clip from a sample that holds all frames of a video."""

    def __init__(self, size: int, jitter: tuple[int, int]) -> None:
        self.size, self.jitter, self.rng = size, jitter, np.random.default_rng(0)
        self.sampler = RandomInterval(NUM_CLIP_FRAMES, (1, 2))

    def __call__(self, sample: dict[str, Any]) -> torch.Tensor:
        frames = self.sampler.draw(NUM_FRAMES, self.rng)
        pictures = (decoded(sample[f"{i:05d}.jpg"]) for i in frames)
        return torch.from_numpy(cut(pictures, self.size, self.jitter, self.rng))


def webdataset(home: Path, root: Path, size: int, jitter: tuple[int, int], workers: int) -> Iterator[int]:
    import webdataset as wds

    shards = [str(path) for path in sorted((home / "tar").glob("*.tar"))]
    data = (
        wds.WebDataset(shards, resampled=True, shardshuffle=False, empty_check=False)
        .map(TarClips(size, jitter))
        .batched(BATCH, collation_fn=torch.utils.data.default_collate)
    )
    loader = wds.WebLoader(data, batch_size=None, num_workers=workers, multiprocessing_context="forkserver")
    return (len(batch) for batch in loader)


def spdl(home: Path, root: Path, size: int, jitter: tuple[int, int], workers: int) -> Iterator[int]:
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    dataset = ClipDataset(root)
    reader = FrameReader(dataset, workers)
    spec = ClipSpec(RandomInterval(NUM_CLIP_FRAMES, (1, 2)), size, size, jitter)

    def places() -> Iterator[tuple[int, int]]:
        for k in itertools.count():
            yield k % NUM_VIDEOS, k

    def load(place: tuple[int, int]) -> np.ndarray:
        video, k = place
        plan = plan_clip(spec, video, NUM_FRAMES, dataset.levels(video), seed=0, epoch=0, k=k)
        blobs = list(reader.read(video, plan.level, plan.frames))
        buffer = spdl.io.load_image_batch(blobs, width=plan.scaled[1], height=plan.scaled[0], pix_fmt="rgb24")
        top, left = plan.offset
        return np.ascontiguousarray(spdl.io.to_numpy(buffer)[:, top : top + size, left : left + size])

    pipeline = (
        PipelineBuilder()
        .add_source(places())
        .pipe(load, concurrency=workers)
        .aggregate(BATCH)
        .add_sink(2)
        .build(num_threads=workers)
    )
    with pipeline.auto_stop():
        for batch in pipeline:
            yield len(np.stack(batch))


def dali(home: Path, root: Path, size: int, jitter: tuple[int, int], workers: int) -> Iterator[int]:
    from nvidia.dali import fn, pipeline_def, types

    dataset = ClipDataset(root)
    reader = FrameReader(dataset)
    spec = ClipSpec(RandomInterval(NUM_CLIP_FRAMES, (1, 2)), size, size, jitter)

    def clips() -> Iterator[tuple[list[np.ndarray], ...]]:
        for first in itertools.count(0, BATCH):
            blobs, scaled, places = [], [], []
            for k in range(first, first + BATCH):
                plan = plan_clip(spec, k % NUM_VIDEOS, NUM_FRAMES, dataset.levels(0), seed=0, epoch=0, k=k)
                blobs += [np.frombuffer(b, np.uint8) for b in reader.read(plan.video, plan.level, plan.frames)]
                scaled += [np.array(plan.scaled, np.float32)] * NUM_CLIP_FRAMES
                places += [np.array(plan.offset, np.int32)] * NUM_CLIP_FRAMES
            yield blobs, scaled, places

    @pipeline_def(batch_size=BATCH * NUM_CLIP_FRAMES, num_threads=workers, device_id=None, prefetch_queue_depth=2)
    def pipeline() -> Any:
        blobs, scaled, places = fn.external_source(clips(), num_outputs=3)
        frames = fn.decoders.image(blobs, device="cpu", output_type=types.RGB)
        frames = fn.resize(frames, size=scaled, interp_type=types.INTERP_LINEAR, antialias=False)
        return fn.slice(frames, places, np.array([size, size], np.int32), axes=(0, 1))

    built = pipeline()
    built.build()
    while True:
        (frames,) = built.run()
        yield len(frames.as_array()) // NUM_CLIP_FRAMES


PEERS = ("clipmill", "historical", "folder", "webdataset", "spdl", "dali", *VIDEO_PEERS)


def begin(name: str, home: Path, root: Path, size: int, jitter: tuple[int, int], workers: int) -> Iterator[int]:
    whole = {"clipmill": clipmill, "webdataset": webdataset, "spdl": spdl, "dali": dali}
    if name in whole:
        return whole[name](home, root, size, jitter, workers)
    return data_loader(Reader(home, name))(home, root, size, jitter, workers)


def _wait_until_idle() -> None:
    """Until the peer before has made what it makes ahead: some work on for seconds, at the cost of whoever comes next."""
    busy = _cpu_seconds()
    for _ in range(100):  # Half a minute: who else works in this session does not hold it up for ever.
        time.sleep(0.3)
        busy, before = _cpu_seconds(), busy
        if busy - before < 0.05:
            return


def _cpu_seconds() -> float:
    """Of all living processes of this session: this one, and the workers of all peers."""
    session, seconds = os.getsid(0), 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def measure_shape(
    shape: str, home: Path, root: Path, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """All peers in turns at one shape: their rates, and why some are not there."""
    size, jitter = SHAPES[shape]
    cases: list[dict[str, Any]] = []
    absent: dict[str, str] = {}
    rates: dict[str, list[float]] = {}
    streams: dict[str, Iterator[int]] = {}
    for name in PEERS:
        try:
            streams[name] = begin(name, home / "peers", root, size, jitter, options.threads)
            next(streams[name])
            rates[name] = []
        except Exception as error:
            streams.pop(name, None)
            absent[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    for _ in range(options.rounds):
        for name, stream in streams.items():
            _wait_until_idle()
            for _ in range(3):  # What was made ahead while others had their turn.
                next(stream)
            clips, started = 0, time.perf_counter()
            while time.perf_counter() - started < options.seconds:
                clips += next(stream)
            rates[name].append(clips / (time.perf_counter() - started))
    ours = rates["clipmill"]
    for name, values in rates.items():
        times = median(o / v for o, v in zip(ours, values, strict=True))
        row = {
            "shape": shape,
            "peer": name,
            "clips_per_s": round(median(values), 1),
            "ours_is_times": round(times, 2),
        }
        cases.append(row | {"rounds": [round(value, 1) for value in values]})
        print(f"{shape}  {name:12} {row['clips_per_s']:8.1f} clips/s   ours is {row['ours_is_times']:6.2f} times")
    streams.clear()
    return cases, absent


def measure(home: Path, options: argparse.Namespace) -> dict[str, Any]:
    root = home / "loader-root"
    make_root(root)
    make_copies(root, home / "peers")
    cases: list[dict[str, Any]] = []
    absent: dict[str, str] = {}
    for shape in SHAPES:
        # In a process of its own: peers that fork their workers hang where threads of others are at work already.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            found, missing = process.submit(measure_shape, shape, home, root, options).result()
        cases += found
        absent |= missing
    for name, why in absent.items():
        print(f"{name} was left out: {why}")
    data = {"videos": NUM_VIDEOS, "frames": NUM_FRAMES, "size_px": SIZE, "batch": BATCH}
    return {"workers": options.threads, "seconds": options.seconds, "data": data, "cases": cases, "absent": absent}


def table(figures: dict[str, Any]) -> str:
    """Clips per second, and in brackets how many times as many ours gives."""
    shapes = list(dict.fromkeys(case["shape"] for case in figures["cases"]))
    lines = [f"| | {' | '.join(shapes)} |", "|---|" + "---|" * len(shapes)]
    for peer in dict.fromkeys(case["peer"] for case in figures["cases"]):
        own = {case["shape"]: case for case in figures["cases"] if case["peer"] == peer}
        cells = [
            f"{own[shape]['clips_per_s']:,.0f} ({own[shape]['ours_is_times']:.1f})" if shape in own else ""
            for shape in shapes
        ]
        lines.append(f"| {peer} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="keeps the data (2 GB) for the next run; default: a temporary folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options.work or Path(folder), options)
    if not options.no_write:
        write_result("loader_peers", report)
        put_table(PAGE, "loader_peers.json", table(report))


if __name__ == "__main__":
    main()
