"""The whole `clipmill ingest convert` against its peers: same videos, same level, same bytes, two processes each.

    clipmill           the command, from its start to its last line: every frame checksummed, fsynced, in the catalog
    clipmill, all      the same with three levels and the 4 fps array
    ffmpeg             one bare ffmpeg process per video: decode, scale, encode, and the JPEGs thrown away (/dev/null)
    dataset2database   version 1.2 of PyPI, from its start to its last line

ffmpeg's encoder gets the quantisation tables of our quality and the standard Huffman tables, which are its fastest: its
-q:v goes in steps too coarse to meet our bytes. dataset2database calls the same ffmpeg; its 360 px and its quality are
fixed in its code, so the call is rewritten on the way, in its own process (see `_PEER`).

Every round runs each way once, in turns, what is compared with ours right before or after it, every second round backwards;
told are medians, of ratios the medians of the rounds' ratios. Wall time depends
on what else the machine does, processor time (with that of all children) much less. So a pass during which other processes
were at work is made once more, and the one that they disturbed least is kept; the result tells how much.

    python -m tests.benchmarks.bench_ingest [FILE ...] [--peer-python VENV/bin/python] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import simplejpeg

from ingest.catalog import Catalog
from ingest.ffmpeg import ffmpeg_exe
from ingest.stores.frames_db import plan_levels
from ingest.video import probe
from tests.benchmarks._common import RESULTS, write_result
from tests.benchmarks.bench_decode_path import make_videos
from tests.ingest.videos import make_video

PROCESSES, QUALITY, SHORT_SIDE = 2, 90, 256
ALL_SIDES = (256, 160, 112)
FRAMES_PER_PASS = 9_600  # Each set is repeated up to about this, under other names: a start counts as in a real run.
PEER = "dataset2database==1.2"

_PEER = """
import multiprocessing, subprocess, sys, types
from functools import partial
import dataset2database.jpgs2singlefile as peer

side, processes, *encode = sys.argv[1:]

def call(command, **rest):
    command[command.index("scale=-1:360")] = f"scale=-1:'min({side},ih)'"
    command[-1:-1] = encode
    return subprocess.call(command, stdin=subprocess.DEVNULL, **rest)

peer.subprocess = types.SimpleNamespace(call=call)
peer.np.fromstring = peer.np.frombuffer  # NumPy 2.3 took the former away.
peer.Pool = partial(multiprocessing.Pool, int(processes))
peer.convert("videos/", "peer/", 0)
"""


@dataclass(frozen=True)
class Pass:
    """All videos once, one way: wall time, processor time of all its processes, frames, bytes of their JPEGs."""

    seconds: float
    cpu_s: float
    frames: int
    num_bytes: int
    others_cores: float
    """Processors that other processes kept busy meanwhile."""


@dataclass(frozen=True)
class Bench:
    """Where a set of videos lies (`folder`/videos/clips) and what is needed to go through it."""

    folder: Path
    peer_python: Path | None

    @property
    def files(self) -> list[Path]:
        return sorted((self.folder / "videos" / "clips").iterdir())


# The ways


def clipmill(bench: Bench, *options: str) -> tuple[int, int]:
    root = bench.folder / "ours"
    command = [sys.executable, "-m", "clipmill", "ingest", "convert", bench.folder / "videos", root]
    _run([*command, "--workers", str(PROCESSES), "--quality", str(QUALITY), *options])
    with Catalog.open(root) as catalog:
        query = (
            "SELECT num_frames, num_bytes FROM outputs WHERE store = 'frames-db' GROUP BY video HAVING MAX(short_side)"
        )
        rows = catalog.db.execute(query).fetchall()
    return sum(frames for frames, _ in rows), sum(num_bytes for _, num_bytes in rows)


def clipmill_one(bench: Bench) -> tuple[int, int]:
    return clipmill(bench, "--short-side", str(SHORT_SIDE))


def clipmill_all(bench: Bench) -> tuple[int, int]:
    return clipmill(bench, "--short-side", *map(str, ALL_SIDES), "--store", "frames-db", "npy")


def bare_ffmpeg(bench: Bench) -> tuple[int, int]:
    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(lambda path: _run(_ffmpeg_command(path, "/dev/null")), bench.files))
    return 0, 0  # What it threw away is counted once, beside the measurement.


def dataset2database(bench: Bench) -> tuple[int, int]:
    assert bench.peer_python is not None
    path = os.pathsep.join([str(bench.folder / "bin"), os.environ["PATH"]])
    command = [bench.peer_python, "-c", _PEER, str(SHORT_SIDE), str(PROCESSES), *encoder_options()]
    _run(command, cwd=bench.folder, env=os.environ | {"PATH": path})
    frames = num_bytes = 0
    for database in (bench.folder / "peer").glob("*/*/frames.db"):
        with closing(sqlite3.connect(database)) as db:
            here = db.execute("SELECT COUNT(*), TOTAL(LENGTH(frames)) FROM Images").fetchone()
        frames, num_bytes = frames + here[0], num_bytes + int(here[1])
    return frames, num_bytes


# In the order of their turns. The machine is not equally fast from one minute to the next: so ours has those beside it that
# count most.
WAYS: dict[str, Callable[[Bench], tuple[int, int]]] = {
    "dataset2database": dataset2database,
    "ffmpeg": bare_ffmpeg,
    "clipmill": clipmill_one,
    "clipmill, all": clipmill_all,
}


def encoder_options() -> list[str]:
    """Options that make ffmpeg's JPEG encoder quantise as ours does at QUALITY. It takes table * q / 8, so q is 8."""
    luma, chroma = (",".join(map(str, table)) for table in quantisation_tables(QUALITY))
    return ["-q:v", "8", "-intra_matrix", luma, "-chroma_intra_matrix", chroma, "-huffman", "default"]


def quantisation_tables(quality: int) -> Iterator[list[int]]:
    """Luma and chroma table of our encoder, 64 numbers each, row by row; read from a JPEG (ITU-T T.81, B.2.4.1)."""
    blob = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8), quality)
    zigzag = sorted(range(64), key=lambda k: (k // 8 + k % 8, k // 8 if (k // 8 + k % 8) % 2 else k % 8))
    at = 2
    while blob[at + 1] != 0xDA:  # start of scan
        length = int.from_bytes(blob[at + 2 : at + 4], "big")
        if blob[at + 1] == 0xDB:
            for start in range(at + 4, at + 2 + length, 65):
                rows = dict(zip(zigzag, blob[start + 1 : start + 65], strict=True))
                yield [rows[k] for k in range(64)]
        at += 2 + length


def _size(path: Path) -> tuple[int, int]:
    info = probe(path)
    return info.width, info.height


def _ffmpeg_command(path: Path, output: str) -> list[str | Path]:
    level = plan_levels(*_size(path), [SHORT_SIDE])[0]
    scale = f"scale={level.width}:{level.height}:flags=area:out_range=pc"
    return [ffmpeg_exe(), "-v", "error", "-nostdin", "-y", "-threads", "1", "-i", path, "-map", "0:v:0", "-vf", scale,
            "-pix_fmt", "yuvj420p", "-fps_mode", "passthrough", "-c:v", "mjpeg", *encoder_options(), "-threads", "1",
            "-f", "mjpeg", output]  # fmt: skip


def _run(command: list, **rest: object) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False, **rest)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout


# The data


def prepare(folder: Path, sources: list[Path], peer_python: Path | None) -> Bench:
    """The sources as links, repeated under other names up to about FRAMES_PER_PASS frames."""
    clips = folder / "videos" / "clips"
    clips.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "ffmpeg").symlink_to(ffmpeg_exe())
    num_frames = sum(probe(path).num_frames for path in sources)
    for path in sources:
        first = Path(shutil.copy(path, clips / f"{path.stem}_000{path.suffix}"))
        for i in range(1, max(1, round(FRAMES_PER_PASS / max(num_frames, 1)))):
            os.link(first, clips / f"{path.stem}_{i:03d}{path.suffix}")
    return Bench(folder, peer_python)


def make_peer(folder: Path) -> Path:
    """Python of a new environment that holds dataset2database and nothing of ours. Needs a package index."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    _run([python, "-m", "pip", "install", "--quiet", PEER])
    return python


# The measurement


def measure(bench: Bench, rounds: int) -> list[dict]:
    ways = {name: way for name, way in WAYS.items() if name != "dataset2database" or bench.peer_python}
    thrown_away = _count_ffmpeg(bench)
    kept: dict[str, list[Pass]] = {name: [] for name in ways}
    for turn in range(1 + rounds):
        for name, way in list(ways.items())[:: 1 if turn % 2 else -1]:
            passes: list[Pass] = []
            while len(passes) < (_MOST_TRIES if turn else 1) and not any(p.others_cores < _QUIET_CORES for p in passes):
                passes.append(one_pass(way, bench, thrown_away))
            found = min(passes, key=lambda p: p.others_cores)
            if turn:  # the first one warms up
                kept[name].append(found)
            print(
                f"  {turn} {name:17} {found.seconds:6.2f} s {found.cpu_s:6.2f} cpu-s, others {found.others_cores:.2f}"
                f" ({len(passes)} tries)",
                flush=True,
            )
    return [row(name, kept[name], kept["clipmill"]) for name in ways]


def one_pass(way: Callable[[Bench], tuple[int, int]], bench: Bench, thrown_away: tuple[int, int]) -> Pass:
    for output in ("ours", "peer"):
        shutil.rmtree(bench.folder / output, ignore_errors=True)
    os.sync()  # Nobody is to wait for what the way before it wrote.
    started, cpu_before, busy_before = time.perf_counter(), _cpu_s(), _busy_s()
    frames, num_bytes = way(bench)
    seconds, cpu_s = time.perf_counter() - started, _cpu_s() - cpu_before
    others_cores = max(0.0, _busy_s() - busy_before - cpu_s) / seconds
    if not frames:
        frames, num_bytes = thrown_away
    return Pass(seconds, cpu_s, frames, num_bytes, others_cores)


_QUIET_CORES, _MOST_TRIES = 0.15, 2


def _busy_s() -> float:
    """Processor time that all processes of the machine have used since it started; 0 where the system does not tell."""
    try:
        user, nice, system = map(int, Path("/proc/stat").read_text().split(maxsplit=4)[1:4])
    except OSError:
        return 0.0
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _count_ffmpeg(bench: Bench) -> tuple[int, int]:
    """Frames and bytes of what bare ffmpeg encodes."""
    frames = num_bytes = 0
    for path in bench.files:
        data = _run(_ffmpeg_command(path, "-"))
        frames, num_bytes = frames + data.count(b"\xff\xd9\xff\xd8") + 1, num_bytes + len(data)
    return frames, num_bytes


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(name: str, passes: list[Pass], ours: list[Pass]) -> dict:
    def ours_to_this(what: Callable[[Pass], float]) -> float:
        return round(statistics.median(what(b) / what(a) for a, b in zip(passes, ours, strict=True)), 3)

    return {
        "way": name,
        "frames_per_s": round(statistics.median(p.frames / p.seconds for p in passes), 1),
        "frames_per_cpu_s": round(statistics.median(p.frames / p.cpu_s for p in passes), 1),
        "best_frames_per_s": round(max(p.frames / p.seconds for p in passes), 1),
        "clipmill_speed": ours_to_this(lambda p: p.frames / p.seconds),
        "clipmill_cpu_speed": ours_to_this(lambda p: p.frames / p.cpu_s),
        "frames": passes[0].frames,
        "bytes_per_frame": round(passes[0].num_bytes / passes[0].frames),
        "rounds": [[round(p.seconds, 3), round(p.cpu_s, 3)] for p in passes],
        "others_cores": [round(p.others_cores, 2) for p in passes],
    }


def measure_start(folder: Path, rounds: int) -> dict:
    """What the command costs before and after its work, workers included: it converts one tiny video for each of them."""
    clips = folder / "videos" / "clips"
    clips.mkdir(parents=True)
    for i in range(PROCESSES):
        make_video(clips / f"{i}.mp4", 2)
    seconds, cpu_s = [], []
    for _ in range(rounds):
        shutil.rmtree(folder / "ours", ignore_errors=True)
        before, started = _cpu_s(), time.perf_counter()
        clipmill_one(Bench(folder, None))
        seconds.append(time.perf_counter() - started)
        cpu_s.append(_cpu_s() - before)
    return {"seconds": round(statistics.median(seconds), 3), "cpu_s": round(statistics.median(cpu_s), 3)}


# What comes of it


def table(figures: dict[str, Any]) -> str:
    """The table of docs/scale.md."""
    lines = ["| | self-made, 340x256 | real, about 340x256 | real, 640x272 and 1280x720 |", "|---|--:|--:|--:|"]
    sets = {found["name"]: {r["way"]: r for r in found["rows"]} for found in figures["sets"]}
    columns = [sets[name] for name in ("self-made", "real, small", "real, large")]

    def line(label: str, cell: Callable[[dict[str, dict[str, Any]]], str]) -> None:
        lines.append(f"| {label} | {' | '.join(map(cell, columns))} |")

    for way in columns[0]:
        line(f"{way}: frames/s", lambda rows, way=way: f"{rows[way]['frames_per_s']:,.0f}")  # type: ignore[misc]
    for way in (way for way in columns[0] if not way.startswith("clipmill")):
        line(
            f"clipmill's speed, of that of {way} (by CPU time)",
            lambda rows, way=way: f"**{rows[way]['clipmill_speed']:.2f}** ({rows[way]['clipmill_cpu_speed']:.2f})",  # type: ignore[misc]
        )
    line(
        "three levels and the array, times one level (CPU)",
        lambda rows: "**{clipmill_speed:.2f}** ({clipmill_cpu_speed:.2f})".format(**rows["clipmill, all"]),
    )
    line(
        "bytes per frame: clipmill, ffmpeg",
        lambda rows: ", ".join(f"{rows[w]['bytes_per_frame']:,}" for w in ("clipmill", "ffmpeg")),
    )
    return "\n".join(lines) + "\n"


def plot(sets: list[dict], path: Path) -> None:
    """Frames per second of processor time and of wall time, a group of bars per set."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
    for axis, key, title in zip(
        axes, ("frames_per_s", "frames_per_cpu_s"), ("per second, two processes", "per second of CPU"), strict=True
    ):
        for i, found in enumerate(sets):
            rows = found["rows"]
            height = 0.8 / len(sets)
            places = np.arange(len(rows)) + height * (i - (len(sets) - 1) / 2)
            axis.barh(places, [r[key] for r in rows], 0.9 * height, label=found["name"])
        axis.set_yticks(range(len(rows)), [r["way"] for r in rows])
        axis.set_xlabel(f"frames {title}")
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    axes[1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        help="real videos, measured beside 16 self-made ones: those up to the level apart from larger",
    )
    parser.add_argument(
        "--peer-python", type=Path, help="of an environment that has dataset2database 1.2; else one is made"
    )
    parser.add_argument("--without-peer", action="store_true", help="leave dataset2database out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    sets, load_before = [], os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        peer = None if options.without_peer else options.peer_python or make_peer(folder / "venv")
        (folder / "made").mkdir()
        start = measure_start(folder / "start", options.rounds)
        small = [path for path in options.files if min(_size(path)) <= SHORT_SIDE]
        large = [path for path in options.files if path not in small]
        made = make_videos(folder / "made")
        for name, files in (("self-made", made), ("real, small", small), ("real, large", large)):
            if not files:
                continue
            infos = [probe(path) for path in files]
            bench = prepare(folder / name, files, peer and peer.absolute())
            sets.append(
                {
                    "name": name,
                    "videos": [f"{i.codec} {i.width}x{i.height}, {i.num_frames} frames" for i in infos],
                    "files": len(bench.files),
                    "rows": measure(bench, options.rounds),
                }
            )
    figures = {
        "processes": PROCESSES,
        "short_side": SHORT_SIDE,
        "all": {"short_sides": ALL_SIDES, "stores": ["frames-db", "npy"], "npy_fps": 4},
        "quality": QUALITY,
        "ffmpeg_options": "-q:v 8, tables of our quality, -huffman default, -threads 1",
        "peer": PEER + ", its ffmpeg call rewritten to this level and these options, its Pool to these processes,"
        " np.fromstring (gone from NumPy) replaced",
        "start": start,
        "load_before_and_after": [round(load, 2) for load in (load_before, os.getloadavg()[0])],
        "sets": sets,
    }
    for found in sets:
        print(
            f"{found['name']}, {found['files']} files: frames/s  per cpu-s  clipmill is faster by  (CPU)  bytes/frame"
        )
        for r in found["rows"]:
            print(
                f"  {r['way']:17} {r['frames_per_s']:12.0f} {r['frames_per_cpu_s']:10.0f} {r['clipmill_speed']:12.2f}"
                f" {r['clipmill_cpu_speed']:13.2f} {r['bytes_per_frame']:11}"
            )
    if not options.no_write:
        write_result("ingest", json.loads(json.dumps(figures)))
        plot(sets, RESULTS / "ingest.png")


if __name__ == "__main__":
    main()
