"""`clipmill demo`: the whole house in a few minutes. Every step is the command a user would run."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ingest.atomic import write_text
from ingest.catalog import Catalog
from ingest.dataset import dataset_status
from ingest.demo import make_trimmed
from ingest.errors import ClipmillError
from trainers import report
from trainers.config import check
from trainers.data import make_loader
from trainers.engine import checkpoints
from trainers.method import find_method

SHORT_SIDE_PX = 96


def run_demo(out: Path, *, seed: int, num_videos: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Videos, ingest, training, test, service, report, below `out`. Returns what `summary.json` holds.

    Interrupted, the same call goes on: videos, ingest and training continue where they stood. A finished demo is
    trained anew only if its folder is removed.

    Raises: ClipmillError when a step fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    root, runs = out / "data", out / "runs"
    run = runs / f"srtg-demo-seed{seed}"
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    with _timed(seconds, "videos"):
        _say("Making videos: 8 classes that differ only by motion")
        made = make_trimmed(out / "source", num_videos=num_videos, seed=seed, num_workers=os.cpu_count())
    with _timed(seconds, "ingest"):
        _say("Ingest")
        _clipmill(
            "ingest", "convert", out / "source" / "videos", root, "--labels", out / "source" / "labels.csv",
            "--short-side", SHORT_SIDE_PX, "--workers", os.cpu_count() or 1,
        )  # fmt: skip
    with _service(root, runs) as url:
        _say(f"The service is at {url} while this runs")
        with _timed(seconds, "train"):
            _say("Training SRTG from scratch on the CPU")
            _clipmill(
                "train", "srtg", "--config", "demo", "--out", run, "--resume", "auto",
                f"data.root={root}", f"seed={seed}", *overrides,
            )  # fmt: skip
        with _timed(seconds, "test"):
            _say("Test on held-out videos")
            best = run / "checkpoints" / checkpoints.BEST
            _clipmill("test", "srtg", "--checkpoint", best)
        _say("Asking the service")
        dataset = _get(f"{url}/api/datasets/{root.name}")
        speed = _get(f"{url}/api/loaders/{run.name}/speed")
    seconds["total"] = time.perf_counter() - started
    test = json.loads((run / "test.json").read_text())
    summary = {
        "test_top1": test["top1"],
        "seed": seed,
        "videos": len(made.videos),
        "frames": _status(root).num_frames,
        "clips_per_s": _clips_per_s(run),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "service": {"dataset": dataset, "speed": speed},
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "torch": str(torch.__version__)},
    }
    write_text(out / "summary.json", json.dumps(summary, indent=2))
    _report(out, root, run, summary, test)
    return summary


def _report(out: Path, root: Path, run: Path, summary: dict[str, Any], test: dict[str, Any]) -> None:
    found = _status(root)
    state = checkpoints.read(run / "checkpoints" / checkpoints.BEST)
    config = check(state["config"], find_method(state["config"]["method"]).MethodConfig, "the demo")
    with make_loader(config, "train") as loader:
        clips = report.clips(loader)
    levels = ", ".join(f"{level.short_side} px: {level.num_bytes / 1e6:.1f} MB" for level in found.levels)
    ingest = report.table({
        "videos": ", ".join(f"{count} {state}" for state, count in found.states.items()),
        "splits": ", ".join(f"{name} {sum(states.values())}" for name, states in found.splits.items()),
        "frames": f"{found.num_frames:,}",
        "stored": levels,
        "time": f"{summary['seconds']['ingest']:.1f} s",
    })  # fmt: skip
    views = " x ".join(map(str, test["views"]))
    lead = (
        f'<p><span class="big">{100 * test["top1"]:.1f} %</span> top-1 on {test["videos"]} held-out videos'
        f" ({views} views each). Eight classes that differ only by motion: chance is 12.5 %.</p>"
        f'<p class="note">SRTG trained from scratch on {summary["machine"]["cores"]} CPU cores, seed {summary["seed"]};'
        f" {summary['seconds']['total']:.0f} s from nothing to this page.</p>"
    )
    steps = {name: f"{value:.1f} s" for name, value in summary["seconds"].items()}
    report.write_report(out / "report.html", "Clipmill demo", lead, [
        report.Section("Loss and accuracy", report.curves(run)),
        report.Section("Confusion matrix (test)", report.confusion(test["confusion"], test["class_names"])),
        report.Section("Clips as the trainer saw them (frame numbers above)", clips),
        report.Section("Speed: clips per second", report.speed(run)),
        report.Section("Ingest", ingest),
        report.Section("Time per step", report.table(steps)),
    ])  # fmt: skip


def _status(root: Path) -> Any:
    with Catalog.open(root) as catalog:
        return dataset_status(catalog)


def _clips_per_s(run: Path) -> float:
    """Clips per second of training, averaged over epochs; the first one, which warms up, counts only if it is alone."""
    from trainers.engine.logs import read_csv

    rates = [float(row["clips_per_s"]) for row in read_csv(run / "epochs.csv") if row["split"] == "train"]
    rates = rates[1:] or rates
    return sum(rates) / len(rates)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def _clipmill(*arguments: object) -> None:
    """Run a command as a user would. Raises: ClipmillError when it fails."""
    words = [str(argument) for argument in arguments]
    done = subprocess.run([sys.executable, "-m", "clipmill", *words], check=False)
    if done.returncode:
        raise ClipmillError(
            f"`clipmill {' '.join(words[:2])}` ended with exit code {done.returncode} (its message is above).",
            "The demo stopped; what is done is kept.",
            "Mend the cause and run `clipmill demo` again.",
        )


@contextlib.contextmanager
def _service(root: Path, runs: Path) -> Iterator[str]:
    """The service on a free port of this machine, for as long as the block runs. Yields its URL."""
    runs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "clipmill", "serve", "--root", str(root), "--runs", str(runs), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = next((text for text in process.stdout if "http://" in text), "")
            match = re.search(r"http://\S+", line)
            if match is None:
                raise ClipmillError("the service did not start.", "The demo stopped; what is done is kept.")
            url = match[0].rstrip("/.")
            _wait_for(lambda: _get(f"{url}/healthz"))
            yield url
        finally:
            process.terminate()


def _wait_for(call: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            call()
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)
