"""Accuracy under SBP: a small Video Swin on synthetic motion videos, plain and with one gradient in 2, 4 and 8, three seeds.

    python -m tests.benchmarks.sbp_motion --work DIR [--seconds 150]

Every run is `clipmill train sbp` and `clipmill test sbp`, computed in one thread: another number of threads rounds
otherwise, which is enough to change a run. The videos are those of `clipmill demo` (8 classes that differ only by motion).
A finished run is a line of results/sbp_motion.jsonl; runs that are there are not done again. With `--seconds` no run is
begun that would not end within them, going by the longest one. The table goes into docs/methods/sbp.md:
python -m tests.benchmarks.sbp_page
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch

from ingest.annotations.labels_csv import read_labels_csv
from ingest.convert import convert
from ingest.demo import make_trimmed
from ingest.options import ConvertOptions
from ingest.plan import plan_labels
from tests.benchmarks._common import RESULTS, commit, machine
from tests.benchmarks.bench_sbp import saved_bytes
from trainers.config import check
from trainers.sbp.method import MethodConfig, create
from trainers.session import run_test, run_training

SETTINGS = {"plain": 1, "SBP 2": 2, "SBP 4": 4, "SBP 8": 8}
SEEDS = (0, 1, 2)
VIDEOS = 480
OUT = RESULTS / "sbp_motion.jsonl"


def make_root(work: Path) -> Path:
    """The videos as a root, made once."""
    root = work / "root"
    if not (work / "done").exists():
        shutil.rmtree(work, ignore_errors=True)
        made = make_trimmed(work / "source", num_videos=VIDEOS, seed=0, num_workers=os.cpu_count())
        plan = plan_labels(work / "source" / "videos", read_labels_csv(made.annotations))
        report = convert(plan, root, ConvertOptions((64,)), num_workers=os.cpu_count())
        assert not report.failures
        (work / "done").touch()
    return root


def config_of(root: Path, downsample: int, seed: int, epochs: int) -> MethodConfig:
    """Two stages of two blocks; every block but the last has SBP."""
    values: dict[str, Any] = {
        "method": "sbp",
        "seed": seed,
        "data": {"root": str(root), "batch_size": 16, "workers": "threads", "num_workers": 2, "sampling": "dense",
                 "num_frames": 16, "intervals": [2], "size": 32, "short_side": [34, 38], "eval_short_side": 36, "flip": 0.0,
                 "test_views": [4, 1]},
        "model": {"patch_size": [2, 4, 4], "window_size": [8, 4, 4], "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4],
                  "patch_norm": True, "drop_path_rate": 0.0, "dropout": 0.0, "backbone_lr_mult": 1.0},
        "sbp": {"gd_downsample": downsample, "with_gd": [[1, 1], [1, 0]]},
        "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05, "clip_norm": 1.0},
        "schedule": {"name": "cosine", "warmup_epochs": 3},
        "train": {"epochs": epochs, "accelerator": "cpu", "log_every": 1000, "validate_every": epochs, "save_every": epochs,
                  "tensorboard": False, "report": False, "keep": 1},
    }  # fmt: skip
    return check(values, MethodConfig, "sbp_motion")


def run(root: Path, work: Path, setting: str, seed: int, epochs: int) -> dict[str, Any]:
    config, folder = config_of(root, SETTINGS[setting], seed, epochs), work / f"{setting.replace(' ', '')}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    torch.set_num_threads(1)
    started = time.perf_counter()
    run_training(config, folder)
    seconds = time.perf_counter() - started
    figures = run_test(sorted((folder / "checkpoints").glob("*.pt"))[0])
    model = create(config, 8).models["model"].train()
    return {
        "setting": setting,
        "seed": seed,
        "epochs": epochs,
        "top1": figures["top1"],
        "videos": figures["videos"],
        "saved_bytes": saved_bytes(model, lambda: model(torch.randn(1, 3, 16, 32, 32))),
        "train_s": round(seconds, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for videos and runs")
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="every N-th run from I on"
    )
    given = parser.parse_args()
    started, longest = time.perf_counter(), 0.0
    done = [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []
    known = {(each["setting"], each["seed"]) for each in done}
    runs = [(setting, seed) for seed in SEEDS for setting in SETTINGS]
    left = [each for each in runs[given.part[0] :: given.part[1]] if each not in known]
    root = make_root(given.work)
    for setting, seed in left:
        if longest and time.perf_counter() - started + 1.1 * longest > given.seconds:
            print("The next run would not end in time; the same command goes on.")
            break
        found = run(root, given.work, setting, seed, given.epochs)
        with OUT.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        longest = max(longest, found["train_s"])
        print(f"{setting}, seed {seed}: top-1 {found['top1']:.3f}, {found['train_s']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
