"""SRTG on the synthetic motion set: gates, no gates and the plain network; multigrid against a fixed shape. Makes the tables
of docs/methods/srtg.md.

    python -m tests.benchmarks.srtg_motion --work DIR [--arms gates,plain] [--seeds 0 1 2] [--epochs 40]
    python -m tests.benchmarks.srtg_motion --work DIR --core 0 [--seeds 0]
    python -m tests.benchmarks.srtg_motion --work DIR --table

With `--core`, a run has that core alone, for one thread and one decoder: as many calls as there are cores may go on at once,
once the data are made (`--data`).
Every finished run is a line of results/srtg_motion.jsonl; a call makes those that are missing, one after the other, and an
interrupted one goes on where it stood. A run trains for two to six minutes. Else time one thing at a time.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tests.benchmarks._common import RESULTS, commit, machine
from tests.benchmarks._page import put_table

PAGE = Path(__file__).parents[2] / "docs" / "methods" / "srtg.md"
LINES = RESULTS / "srtg_motion.jsonl"
NUM_VIDEOS, NUM_VIDEOS_ON_A_CORE, SHORT_SIDE_PX = 320, 960, 96

STEPWISE = (
    "model.name=r3d_18",
    "model.gates=off",
    "schedule.name=multistep",
    "schedule.milestones=[24,32]",
    "schedule.gamma=0.2",
    "schedule.warmup_epochs=2",
    "train.validate_every=2",
)
"""What a fixed shape and multigrid share: Wu's schedule needs drops of the rate. The plain network, which learns at once; else
one would compare for how long the recursion hesitates."""

WU = (
    *STEPWISE,
    "data.batch_size=4",
    "optimizer.lr=0.0008",
    "multigrid.name=wu",
    "multigrid.short=false",
    "model.norm=sub",
    "model.norm_clips=16",
    "train.precise_bn_batches=10",
)

ONE_DROP = (*STEPWISE, "schedule.gamma=0.1", "train.validate_every=1")
"""The same with one drop of the rate, after two thirds of the epochs: what both kinds have on one core."""

ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gates": ("SRTG, gates cycle", ("model.gates=cycle",)),
    "no_gates": ("SRTG, gates off", ("model.gates=off",)),
    "plain": ("3D ResNet", ("model.name=r3d_18", "model.gates=off")),
    "fixed": ("fixed shape, 16 clips, 40 epochs", (*STEPWISE, "data.batch_size=16", "optimizer.lr=0.005")),
    "multigrid": ("multigrid, 32 to 4 clips, 60 epochs", (*WU, "multigrid.epoch_factor=1.5", "train.validate_every=3")),
    "multigrid_1": ("multigrid, 32 to 4 clips, 40 epochs", (*WU, "multigrid.epoch_factor=1")),
    "fixed_core": ("fixed shape, 16 clips, 27 epochs", (*ONE_DROP, "data.batch_size=16", "optimizer.lr=0.005")),
    "fixed_core_short": ("fixed shape, 16 clips, 12 epochs", (*ONE_DROP, "data.batch_size=16", "optimizer.lr=0.005")),
    "multigrid_core": (
        "multigrid, 64 to 8 clips, 27 epochs",
        (*WU, *ONE_DROP, "data.batch_size=8", "optimizer.lr=0.003", "multigrid.epoch_factor=1"),
    ),
}
"""Arm -> (what the table calls it, overrides of configs/srtg/demo.yaml)."""

RECURSION, SHAPES = ("gates", "no_gates", "plain"), ("fixed", "multigrid", "multigrid_1")
ON_A_CORE = ("fixed_core", "fixed_core_short", "multigrid_core")
"""Made with `--core`: there a step costs as much per clip in every shape, or nearly."""
SHARES = {"fixed_core_short": 4 / 9}
"""Arm -> which part of `--epochs` it has: what a fixed shape learns in the time that multigrid takes."""


def make_data(work: Path, num_videos: int) -> Path:
    """The motion set of `clipmill demo`, once; three quarters for training, a tenth for validation, the rest for the test."""
    root = work / f"motion{num_videos}"
    if not (root / "catalog.db").exists():
        source = work / f"source{num_videos}"
        _clipmill("ingest", "demo-videos", source, "--num-videos", num_videos)
        _clipmill(
            "ingest", "convert", source / "videos", root, "--labels", source / "labels.csv",
            "--short-side", SHORT_SIDE_PX, "--workers", 2,
        )  # fmt: skip
    return root


def run(arm: str, seed: int, epochs: int, work: Path) -> dict[str, Any]:
    """Train and test one arm with one seed. What it took and gave."""
    out = work / "runs" / f"{arm}-seed{seed}-epochs{epochs}"
    given, epochs = epochs, round(epochs * SHARES.get(arm, 1))
    drops = [round(2 / 3 * epochs)] if arm in ON_A_CORE else [round(0.6 * epochs), round(0.8 * epochs)]
    milestones = f"schedule.milestones={json.dumps(drops)}"
    stepwise = (milestones, f"schedule.warmup_epochs={epochs / 20:g}") if arm in SHAPES + ON_A_CORE else ()
    root = make_data(work, NUM_VIDEOS_ON_A_CORE if arm in ON_A_CORE else NUM_VIDEOS)
    before = _cpu_s()
    _clipmill(
        "train", "srtg", "--config", "demo", "--out", out, "--resume", "auto", f"data.root={root}",
        f"seed={seed}", f"train.epochs={epochs}", "train.report=false", *ARMS[arm][1], *stepwise,
    )  # fmt: skip
    cpu_s = _cpu_s() - before
    # Both kinds of arms are tested the same way; `best.pt` is the best by validation.
    _clipmill("test", "srtg", "--checkpoint", out / "checkpoints" / "best.pt")
    test = json.loads((out / "test.json").read_text())
    with (out / "epochs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    training = [row for row in rows if row["split"] == "train"]
    seconds, curve = 0.0, []
    for row in rows:
        if row["split"] == "train":
            seconds += float(row["seconds"])
        else:
            curve.append((round(seconds, 1), float(row["top1"])))
    waits = [float(row["wait_share"]) for row in training if row["wait_share"]]
    return {
        "arm": arm,
        "seed": seed,
        "epochs": given,
        "test_top1": test["top1"],
        "train_s": round(seconds, 1),
        "cpu_s": round(cpu_s, 1),
        "cores": len(os.sched_getaffinity(0)),
        "wait_share": round(fmean(waits), 4) if waits else None,
        "curve": curve,
        "machine": machine(),
        "commit": commit(),
    }


def _cpu_s() -> float:
    """CPU seconds of all finished child processes and theirs: unlike the clock's, other programs hardly change them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _clipmill(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "clipmill", *map(str, words)], check=True)


def finished() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


# Tables


def recursion_table(runs: Sequence[dict[str, Any]]) -> str:
    lines = ["| network | seeds | test top-1 | seconds | waiting for data |", "|---|---|---|---|---|"]
    for arm in RECURSION:
        if own := [each for each in runs if each["arm"] == arm]:
            lines.append(f"| {ARMS[arm][0]} | {len(own)} | {_top1(own)} | {_seconds(own)} | {_wait(own)} |")
    return _joined(lines)


def shapes_table(runs: Sequence[dict[str, Any]], arms: Sequence[str] = SHAPES) -> str:
    """Time until the validation reaches what the fixed shape (the first arm) ends with on average, less one deviation."""
    lines = [
        "| batches | seeds | test top-1 | seconds | seconds to the goal | CPU seconds, all | waiting for data |",
        "|---|---|---|---|---|---|---|",
    ]
    goal = goal_of([each for each in runs if each["arm"] == arms[0]])
    for arm in arms:
        own = [each for each in runs if each["arm"] == arm]
        if not own:
            continue
        times = [time_to(goal, each["curve"]) for each in own]
        reached = [time for time in times if time is not None]
        to_goal = f"{fmean(reached):.0f} ({len(reached)} of {len(own)})" if reached else "never"
        cpu = f"{fmean(each['cpu_s'] for each in own):.0f}"
        lines.append(
            f"| {ARMS[arm][0]} | {len(own)} | {_top1(own)} | {_seconds(own)} | {to_goal} | {cpu} | {_wait(own)} |"
        )
    return _joined(lines)


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n" if len(lines) > 2 else "Not measured.\n"


def goal_of(runs: Sequence[dict[str, Any]]) -> float:
    """Validation top-1: mean over these runs of the last five validations, less the deviation between them."""
    ends = [fmean(top1 for _, top1 in each["curve"][-5:]) for each in runs]
    if not ends:
        return 1.0
    return fmean(ends) - (stdev(ends) if len(ends) > 1 else 0.0)


def time_to(goal: float, curve: Sequence[Sequence[float]]) -> float | None:
    """Seconds of training after which validation first reaches `goal`."""
    return next((seconds for seconds, top1 in curve if top1 >= goal), None)


def _top1(runs: Sequence[dict[str, Any]]) -> str:
    values = [100 * each["test_top1"] for each in runs]
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f} %{spread}"


def _seconds(runs: Sequence[dict[str, Any]]) -> str:
    return f"{fmean(each['train_s'] for each in runs):.0f}"


def _wait(runs: Sequence[dict[str, Any]]) -> str:
    shares = [each["wait_share"] for each in runs if each["wait_share"] is not None]
    return f"{100 * fmean(shares):.1f} %" if shares else ""


def write_tables() -> None:
    runs = finished()
    put_table(PAGE, "srtg_motion.jsonl: recursion", recursion_table(runs))
    put_table(PAGE, "srtg_motion.jsonl: shapes", shapes_table(runs))
    put_table(PAGE, "srtg_motion.jsonl: shapes, one core", shapes_table(runs, ON_A_CORE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the data and the runs")
    parser.add_argument("--arms", help=f"some of {', '.join(ARMS)}; default: those for all cores, or those for one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="default: 40, on one core 27, of three times the videos")
    parser.add_argument("--data", action="store_true", help="only make the data")
    parser.add_argument("--table", action="store_true", help="only write the tables of what is finished")
    parser.add_argument("--core", type=int, help="run on this core alone")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    arms = options.arms.split(",") if options.arms else list(RECURSION + SHAPES if options.core is None else ON_A_CORE)
    epochs = options.epochs or (40 if options.core is None else 27)
    if unknown := [arm for arm in arms if arm not in ARMS]:
        parser.error(f"unknown arms {', '.join(unknown)}; there are {', '.join(ARMS)}")
    if wrong := [arm for arm in arms if (arm in ON_A_CORE) != (options.core is not None)]:
        parser.error(f"{', '.join(wrong)}: {', '.join(ON_A_CORE)} need --core, the other arms all cores")
    if options.data:
        for num_videos in (NUM_VIDEOS, NUM_VIDEOS_ON_A_CORE):
            make_data(options.work, num_videos)
        return
    if not options.table:
        done = {(each["arm"], each["seed"], each["epochs"]) for each in finished()}
        for seed in options.seeds:  # All arms of a seed before the next one: a table grows evenly.
            for arm in arms:
                if (arm, seed, epochs) not in done:
                    result = run(arm, seed, epochs, options.work)
                    with LINES.open("a") as file:
                        file.write(json.dumps(result) + "\n")
                    print({key: value for key, value in result.items() if key not in ("curve", "machine")}, flush=True)
    write_tables()


if __name__ == "__main__":
    main()
