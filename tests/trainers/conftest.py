"""A tiny real root of motion videos, and a recipe that trains on it in seconds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ingest.annotations.labels_csv import read_labels_csv
from ingest.convert import convert
from ingest.demo import make_trimmed
from ingest.options import ConvertOptions
from ingest.plan import plan_labels
from trainers.config import load
from trainers.srtg.method import MethodConfig

RECIPE = """
method: srtg
seed: 3
data: {root: ROOT, batch_size: 4, workers: threads, num_workers: 2, num_frames: 4, intervals: [1, 2],
  size: 32, short_side: [36, 40], flip: 0.0, test_views: [2, 1]}
model: {name: srtg_r3d_18, width: 4, gates: cycle}
optimizer: {lr: 0.02}
schedule: {name: cosine, warmup_epochs: 0.5}
train: {epochs: 2, accelerator: cpu, log_every: 2, save_every_steps: 3}
"""


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 videos of 64x48 in 8 classes, ingested at 40 px."""
    folder = tmp_path_factory.mktemp("motion")
    made = make_trimmed(folder / "source", num_videos=32, size=(64, 48), seconds=(0.5, 0.8), seed=1)
    plan = plan_labels(folder / "source" / "videos", read_labels_csv(made.annotations))
    report = convert(plan, folder / "root", ConvertOptions((40,)), num_workers=2)
    assert not report.failures
    return folder / "root"


@pytest.fixture
def recipe(root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.replace("ROOT", str(root)))
    return path


@pytest.fixture
def config_of(recipe: Path) -> Callable[..., MethodConfig]:
    """The tiny recipe with overrides."""
    return lambda *overrides: load(recipe, overrides, MethodConfig)


def clipmill(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(command(arguments), capture_output=True, text=True, timeout=timeout, check=False)


def command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "clipmill", *map(str, arguments)]
