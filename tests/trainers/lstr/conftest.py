"""A tiny set of feature arrays that a tiny network learns in seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

CLASSES = ["Background", "Run", "Jump", "Wave", "Ambiguous"]
SESSIONS = {"a": 90, "b": 61, "c": 75, "d": 58, "short": 5}

RECIPE = """
method: lstr
seed: 2
data: {root: ROOT, name: Tiny, visual: rgb, motion: flow, visual_size: 6, motion_size: 4, batch_size: 4}
model:
  {long_seconds: 4, long_rate: 2, work_seconds: 2, width: 16, encoder: [[4, 1, true], [3, 1, true]], num_heads: 4,
  hidden: 16, max_positions: 64}
optimizer: {name: adam, lr: 0.01, weight_decay: 0.00005}
schedule: {first_step: 1, warmup_epochs: 1, warmup_start: 0.3, warmup_to: multiply, offset_warmup: false}
train: {epochs: 5, accelerator: cpu, log_every: 4, best: mean_average_precision, tensorboard: false}
"""


def write_set(root: Path, seed: int = 0) -> None:
    """Features that name the class of their row, with noise, and targets; column 4 is not scored."""
    rng = np.random.default_rng(seed)
    for folder in ("rgb", "flow", "target_perframe"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    patterns = rng.standard_normal((len(CLASSES), 10))
    for session, rows in SESSIONS.items():
        classes = np.repeat(rng.integers(0, len(CLASSES), rows // 6 + 1), 6)[:rows]
        features = patterns[classes] + 0.3 * rng.standard_normal((rows, 10))
        np.save(root / "rgb" / f"{session}.npy", features[:, :6].astype(np.float16))
        np.save(root / "flow" / f"{session}.npy", features[:, 6:])
        np.save(root / "target_perframe" / f"{session}.npy", np.eye(len(CLASSES), dtype=np.int64)[classes])
    entry = {
        "data_root": "elsewhere",
        "class_names": CLASSES,
        "num_classes": len(CLASSES),
        "ignore_index": 4,
        "metrics": "AP",
        "fps": 4,
        "train_session_set": ["c", "a", "short"],
        "test_session_set": ["d", "b", "short"],
    }
    (root / "data_info.json").write_text(json.dumps({"Tiny": entry}))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny matrices: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    write_set(folder)
    return folder


@pytest.fixture
def recipe(root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.replace("ROOT", str(root)))
    return path
