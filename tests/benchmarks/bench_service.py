"""The service under load: 100,000 videos, 50 runs with a day of reports each, while a loader reads clips beside it.

    python -m tests.benchmarks.bench_service                     all of it, about three minutes
    python -m tests.benchmarks.bench_service --seconds 5         a quick look

Measured: the time of every endpoint (median and 99th percentile of single requests, none of them shared: each has an
address of its own), status reads per second for a minute (wrk if it is installed, `apt-get install wrk`; else a Python
client, which is slower itself), and the first paint of the dashboard if there is a Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ingest.catalog import Catalog, Output, VideoKey, VideoRecord
from loaders.retention import thin
from loaders.telemetry import SpeedSample, Stage, TelemetryWriter, insert_report, open_for_writing, set_values
from tests.benchmarks._common import write_result
from tests.browser.chromium import Browser, find_chromium

PROJECT = Path(__file__).parents[2]
DAY_S = 86_400
_STATUS = ("/api/datasets", "/api/datasets/big", "/api/loaders", "/api/loaders/run-00")
_LOADER = """
import sys
from loaders import ClipDataset, ClipLoader, ClipSpec, RandomInterval
spec = ClipSpec(RandomInterval(16, intervals=(1, 2)), height=56, width=56, short_side=(60, 64), flip=0.5)
with ClipLoader(ClipDataset(sys.argv[1], split="train"), spec, batch_size=8, seed=0, num_workers=1) as loader:
    while True:
        for batch in loader:
            pass
"""


def make_catalog(root: Path, num_videos: int) -> None:
    """Videos of 400 classes in three splits, one in a hundred of them failed or missing."""
    classes = [f"class {i:03d}" for i in range(400)]
    keys = [VideoKey(classes[i % 400], f"video_{i:06d}") for i in range(num_videos)]
    with Catalog.create(root) as catalog, catalog.transaction():
        catalog.add_classes(classes)
        for i, key in enumerate(keys):
            if i % 100 == 0:
                catalog.record(
                    VideoRecord(key, "failed", f"/v/{key.video_id}.mp4", reason="truncated", message="ends early")
                )
                continue
            outputs = [
                Output("frames-db", side, side * 4 // 3, side, 300, side * 9000, 3_000_000) for side in (256, 128)
            ]
            catalog.record(
                VideoRecord(key, "ok", f"/v/{key.video_id}.mp4", num_frames=300, fps=30, duration_s=10, outputs=outputs)
            )
        splits = ("train",) * 8 + ("val", "test")
        catalog.set_labels([(key, key.class_name, splits[i // 400 % 10], None, None) for i, key in enumerate(keys)])


def make_runs(folder: Path, num_runs: int) -> list[TelemetryWriter]:
    """A day of a report a second, as the writer leaves it; five of the runs are alive. The rest ended."""
    first = folder / "run-00"
    first.mkdir(parents=True)
    now = time.time()
    db = open_for_writing(first / "telemetry.db")
    stages = {name: Stage(160, 0.5, 10_000, 0.003, 0.005, 0.01) for name in ("read", "decode", "assemble", "wait")}
    for begin in range(0, DAY_S, 7200):  # The writer thins about as often.
        db.execute("BEGIN")
        for second in range(begin, begin + 7200):
            at = now - DAY_S + second
            insert_report(
                db,
                SpeedSample(second * 10, second // 600, "train", 16, 16, 112, 112, 400.0, 180.0, 90.0, 60.0, 0.1, 0.01, 1.0,
                            0.5, at, stages, 0.4),
            )  # fmt: skip
        db.execute("COMMIT")
        thin(db)
    about = {"method": "srtg", "dataset": "big", "started_at": now - DAY_S, "heartbeat_at": now, "state": "finished"}
    set_values(db, about | {"ended_at": now, "config": {"data": {"batch_size": 16}}})
    db.close()
    for i in range(1, num_runs):
        shutil.copytree(first, folder / f"run-{i:02d}")
    return [TelemetryWriter(folder / f"run-{i:02d}", {"method": "srtg", "dataset": "big"}) for i in range(5)]


@contextlib.contextmanager
def reporting(writers: list[TelemetryWriter]) -> Iterator[None]:
    """The living runs report once a second."""
    ended = threading.Event()

    def report() -> None:
        step = DAY_S * 10
        while not ended.wait(1):
            step += 10
            for writer in writers:
                writer.report(
                    SpeedSample(step, 144, "train", 16, 16, 112, 112, 400.0, 180.0, 90.0, 60.0, 0.1, 0.01, 1.0, 0.5)
                )

    thread = threading.Thread(target=report)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for writer in writers:
            writer.close("stopped")


@contextlib.contextmanager
def process(*words: str | Path, wait_for: str | None = None) -> Iterator[str]:
    """A program that runs as long as the block; yields the first match of `wait_for` in what it prints."""
    with subprocess.Popen(
        [sys.executable, *map(str, words)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            found = ""
            if wait_for:
                assert running.stdout is not None
                match = next((m for line in running.stdout if (m := re.search(wait_for, line))), None)
                assert match is not None, "it did not start"
                found = match[0]
            yield found
            assert running.poll() is None, "it ended before it was told to"
        finally:
            running.terminate()


def clipmill(*words: str | Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "clipmill", *map(str, words)], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL
    )


def time_endpoints(port: int, times: int, names: dict[str, str]) -> list[dict[str, Any]]:
    """Milliseconds of single requests over one connection, one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    rows = []
    for name, path in names.items():
        took_ms = []
        for i in range(times):
            started = time.perf_counter()
            connection.request("GET", f"{path}{'&' if '?' in path else '?'}mine={i}")
            answer = connection.getresponse()
            body = answer.read()
            took_ms.append(1000 * (time.perf_counter() - started))
            assert answer.status == 200, (path, answer.status, body[:500])
        took_ms.sort()
        row = {"endpoint": name, "median_ms": statistics.median(took_ms), "p99_ms": took_ms[int(0.99 * times)],
               "first_or_slowest_ms": took_ms[-1], "requests": times, "bytes": len(body)}  # fmt: skip
        rows.append({key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()})
        print(rows[-1])
    return rows


def status_reads(port: int, seconds: float, folder: Path) -> dict[str, Any]:
    """As many status reads as go, over 16 connections: requests, errors, requests per second, latencies."""
    if shutil.which("wrk") is None:
        return _python_client(port, seconds)
    script = folder / "status.lua"
    paths = ", ".join(json.dumps(path) for path in _STATUS)
    script.write_text(
        f"local paths, n = {{{paths}}}, 0\n"
        "request = function() n = n + 1; return wrk.format('GET', paths[n % #paths + 1]) end\n"
        "done = function(s, l) io.write(string.format("
        '\'{"requests":%d,"seconds":%.3f,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,'
        '"p50_ms":%.2f,"p99_ms":%.2f,"slowest_ms":%.2f}\\n\', s.requests, s.duration / 1e6, s.errors.connect, s.errors.read,'
        "s.errors.write, s.errors.status, s.errors.timeout, l:percentile(50) / 1e3, l:percentile(99) / 1e3, l.max / 1e3)) end\n"
    )
    words = [
        "wrk",
        "-t1",
        "-c16",
        "--timeout",
        "10s",
        f"-d{int(seconds)}s",
        "-s",
        str(script),
        f"http://127.0.0.1:{port}",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    errors = sum(found.pop(kind) for kind in ("connect", "read", "write", "status", "timeout"))
    return {
        "client": "wrk",
        "errors": errors,
        "requests_per_s": round(found["requests"] / found["seconds"], 1),
        **found,
    }


def _python_client(port: int, seconds: float) -> dict[str, Any]:
    counts, errors, deadline = [0] * 16, [0] * 16, time.monotonic() + seconds

    def ask(i: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while time.monotonic() < deadline:
            connection.request("GET", _STATUS[counts[i] % len(_STATUS)])
            answer = connection.getresponse()
            answer.read()
            counts[i] += 1
            errors[i] += answer.status != 200

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "client": "python",
        "requests": sum(counts),
        "errors": sum(errors),
        "requests_per_s": round(sum(counts) / seconds, 1),
    }


def first_paint(url: str, folder: Path, times: int = 7) -> dict[str, Any] | None:
    """Milliseconds from the request of the page to its first content on the screen; the first visit has no cache."""
    program = find_chromium()
    if program is None:
        return None
    took = []
    for i in range(times):
        with Browser(program, folder / f"profile{i}") as browser:
            browser.open(url)
            entry = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
            took.append(float(browser.wait(entry)))
    return {"median_ms": round(statistics.median(took), 1), "slowest_ms": round(max(took), 1), "visits": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60, help="of status reads")
    parser.add_argument("--times", type=int, default=100, help="requests per endpoint")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_catalog(folder / "big", arguments.videos)
        clipmill("ingest", "demo-videos", folder / "source", "--num-videos", "64")
        clipmill("ingest", "convert", folder / "source/videos", folder / "small", "--labels", folder / "source/labels.csv",
                 "--short-side", "96", "64")  # fmt: skip
        writers = make_runs(folder / "runs", arguments.runs)
        with sqlite3.connect(folder / "runs/run-07/telemetry.db") as db:
            (kept,) = db.execute("SELECT COUNT(*) FROM speed").fetchone()
        size = (folder / "runs/run-07/telemetry.db").stat().st_size
        serve = (
            "-m",
            "clipmill",
            "serve",
            "--root",
            folder / "big",
            "--root",
            folder / "small",
            "--runs",
            folder / "runs",
        )
        with (
            reporting(writers),
            process("-c", _LOADER, folder / "small"),
            process(*serve, "--port", "0", wait_for=r"http://\S+") as url,
        ):
            port = int(re.findall(r":(\d+)", url)[0])
            time.sleep(3)
            names = {
                "healthz": "/healthz", "readyz": "/readyz", "datasets": "/api/datasets", "dataset": "/api/datasets/big",
                "videos, first page": "/api/datasets/big/videos", "videos, last page": "/api/datasets/big/videos?offset=99900",
                "videos, failed": "/api/datasets/big/videos?state=failed&state=missing",
                "videos, class": "/api/datasets/big/videos?class=class%20007",
                "videos, text": "/api/datasets/big/videos?q=video_09999", "contact sheet": "/api/datasets/big/sheet",
                "frame": "/api/datasets/small/videos/1/frames/3", "runs": "/api/loaders", "run": "/api/loaders/run-00",
                "speed, newest": "/api/loaders/run-00/speed?limit=100", "speed, whole": "/api/loaders/run-00/speed?points=1000",
                "speed, whole, ended run": "/api/loaders/run-07/speed?points=1000", "metrics": "/metrics", "page": "/",
            }  # fmt: skip
            endpoints = time_endpoints(port, arguments.times, names)
            paint = first_paint(url, folder)
            print("first paint:", paint)
            reads = status_reads(port, arguments.seconds, folder)
            print("status reads:", reads)
    figures = {
        "videos": arguments.videos, "runs": arguments.runs, "reports_written_per_run": DAY_S, "reports_kept_per_run": kept,
        "telemetry_bytes_per_run": size, "endpoints": endpoints, "first_paint": paint, "status_reads": reads,
    }  # fmt: skip
    write_result("service", figures)


if __name__ == "__main__":
    main()
