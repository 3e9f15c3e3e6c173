"""What the long memory is for: actions whose class was decided more than 30 s before, with LSTR and without its long memory.

    python -m tests.benchmarks.lstr_memory --work DIR            every run that is not done yet; can be stopped and called again
    python -m tests.benchmarks.lstr_memory --work DIR --runs 2   two of them
    python -m tests.benchmarks.lstr_memory table                 the table of docs/methods/lstr.md from the results

Synthetic untrimmed videos, drawn as those of `clipmill demo`: a cue (the object turns, or it moves to the right) for 4 s, then 32 to 44 s
of rest and of another motion that means nothing, then the object rises for 5 s. The rise is of one class after the one cue
and of the other after the other; it looks the same. A work memory of 8 s cannot know.

Features: a small frozen backbone over clips of six frames at 24 fps, a quarter of a second each: random filters in space and time that
do not answer to what stands still, squared and averaged over the frame (motion energy).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ingest._motion import Span, draw, poses, random_scene
from tests.benchmarks._common import RESULTS, write_result

FPS, CHUNK, SIDE_PX = 24, 6, 40
CUES = ("clockwise", "right")
ACTION, DISTRACTOR = "up", "down"
NUM_TRAIN, NUM_TEST = 120, 40
SEEDS = (0, 1, 2)
VARIANTS = {"LSTR": 64, "without long memory": 0}
"""Seconds of long memory."""

DOCS = Path(__file__).parents[2] / "docs" / "methods" / "lstr.md"
CLASSES = ["Background", "RiseAfterTurn", "RiseAfterRight"]

RECIPE = """
method: lstr
data: {{root: {root}, name: Memory, visual: energy, visual_size: 97, batch_size: 16}}
model:
  {{modality: visual, long_seconds: {long_seconds}, long_rate: 4, work_seconds: 8, width: 64, num_heads: 4, hidden: 64, dropout: 0.1,
  encoder: [[8, 1, true], [8, 1, true]], decoder: [-1, 2, true]}}
optimizer: {{name: adam, lr: 0.001, weight_decay: 0.00005}}
schedule: {{first_step: 1, warmup_epochs: 3, warmup_start: 0.1, warmup_to: multiply, offset_warmup: false}}
train: {{epochs: {epochs}, accelerator: cpu, validate_every: 1000, save_every: 1000, best: mean_average_precision, tensorboard: false,
  report: false, log_every: 1000}}
"""


def timeline(rng: np.random.Generator) -> tuple[list[Span], np.ndarray]:
    """Spans of one video of two cues and two actions, and the class of every row."""
    spans: list[Span] = []
    classes: list[int] = []

    def add(behaviour: str, rows: int, column: int = 0) -> None:
        spans.append(Span(behaviour, rows * CHUNK))
        classes.extend([column] * rows)

    add("static", int(rng.integers(8, 24)))
    for _ in range(2):
        cue = int(rng.integers(2))
        add(CUES[cue], 16)
        rest = int(rng.integers(128, 177))
        while rest:
            rows = min(int(rng.integers(8, 25)), rest)
            add(str(rng.choice(["static", "static", "static", "absent", "absent", DISTRACTOR])), rows)
            rest -= rows
        add(ACTION, 20, 1 + cue)
        add("static", int(rng.integers(8, 17)))
    return spans, np.array(classes)


class MotionEnergy(torch.nn.Module):
    """Clips (B, T, H, W), grey, to (B, 96): amplitudes of random filters whose mean over time is 0."""

    def __init__(self, num_filters: int = 96, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        filters = torch.randn(num_filters, 1, 4, 7, 7, generator=generator)
        filters = filters - filters.mean(2, keepdim=True)
        self.filters = filters - filters.mean((3, 4), keepdim=True)

    @torch.inference_mode()
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        answers = torch.nn.functional.conv3d(clips[:, None], self.filters, stride=(1, 3, 3))
        return answers.square().mean((2, 3, 4)).sqrt()


@dataclass(frozen=True)
class Contrast:
    """What of the amplitudes (T, 96) tells motions apart: how a row departs from the mean pattern of things that move.

    Rows in which nothing moves become 0. Its constants are those of the first videos.
    """

    level: float
    pattern: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, amplitudes: np.ndarray) -> Contrast:
        levels = amplitudes.mean(1)
        moving = levels > 0.25 * levels.max()
        patterns = amplitudes[moving] / levels[moving, None]
        return cls(0.1 * float(np.median(levels[moving])), patterns.mean(0), patterns.std(0))

    def __call__(self, amplitudes: np.ndarray) -> np.ndarray:
        """Float32 (T, 97), the last how much moves."""
        levels = amplitudes.mean(1, keepdims=True)
        share = levels / (levels + self.level)
        departures = (amplitudes / np.maximum(levels, 1e-6) - self.pattern) / self.spread
        return np.concatenate([share**2 * departures, share], 1).astype(np.float32)


def make_video(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes float32 (T, 96) and targets uint8 (T, 3) of one video: a function of its number."""
    rng = np.random.default_rng([17, index])
    spans, classes = timeline(rng)
    scene = random_scene((SIDE_PX, SIDE_PX), rng)
    frames = np.stack([cv2.cvtColor(draw(scene, pose), cv2.COLOR_RGB2GRAY) for pose in poses(spans, FPS, rng)]).astype(
        np.float32
    )
    clips = torch.from_numpy(frames / 64 - 2).unflatten(0, (-1, CHUNK))
    energy = MotionEnergy()
    features = torch.cat([energy(part) for part in clips.split(64)]).numpy()
    return features, np.eye(len(CLASSES), dtype=np.uint8)[classes]


def make_set(root: Path) -> None:
    """The features and targets of all videos, each written once."""
    for folder in ("energy", "target_perframe"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    contrast = Contrast.of(np.concatenate([make_video(index)[0] for index in range(4)]))
    sessions = [f"video_{index:03}" for index in range(NUM_TRAIN + NUM_TEST)]
    for index, session in enumerate(sessions):
        if not (root / "target_perframe" / f"{session}.npy").exists():
            amplitudes, targets = make_video(index)
            np.save(root / "energy" / f"{session}.npy", contrast(amplitudes))
            np.save(root / "target_perframe" / f"{session}.npy", targets)
    entry = {
        "data_root": ".",
        "class_names": CLASSES,
        "fps": 4,
        "train_session_set": sessions[:NUM_TRAIN],
        "test_session_set": sessions[NUM_TRAIN:],
    }
    (root / "data_info.json").write_text(json.dumps({"Memory": entry}))


def run_one(root: Path, folder: Path, variant: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train and test one network through the engine."""
    from trainers.config import load
    from trainers.lstr.method import MethodConfig
    from trainers.session import run_test, run_training

    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=root, long_seconds=VARIANTS[variant], epochs=epochs))
    run = run_training(load(recipe, [f"seed={seed}"], MethodConfig), folder / "run", resume="auto")
    newest = run.checkpoints.newest()
    assert newest is not None
    found = run_test(newest, [], "lstr")
    return {
        "variant": variant,
        "seed": seed,
        "epochs": epochs,
        "mAP": found["mean_average_precision"],
        "per_class_AP": found["per_class_AP"],
        "rows": found["clips"],
    }


def done(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Mean AP per frame of every seed, in percent."""
    lines = ["| | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean |", "|---|" + "---|" * (len(SEEDS) + 1)]
    for variant in VARIANTS:
        values = [
            100 * row["mAP"] for seed in SEEDS for row in rows if (row["variant"], row["seed"]) == (variant, seed)
        ]
        shown = " | ".join(f"{value:.1f}" for value in [*values, statistics.mean(values)])
        lines.append(f"| {variant} | {shown} |")
    return "\n".join(lines) + "\n"


def fill_docs() -> None:
    rows = json.loads((RESULTS / "lstr_memory.json").read_text())["figures"]["runs"]
    text = DOCS.read_text(encoding="utf-8")
    marked = re.compile(r"(<!-- lstr_memory.json -->\n).*?(<!-- end -->)", re.S)
    DOCS.write_text(marked.sub(lambda found: found[1] + table(rows) + found[2], text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=["run", "table"], default="run")
    parser.add_argument("--work", type=Path, help="folder for features and runs")
    parser.add_argument("--runs", type=int, default=6, help="how many to do now")
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.what == "table":
        fill_docs()
        return
    torch.set_num_threads(1)  # The matrices are small: two threads would mostly wait for each other.
    work = arguments.work.resolve()
    make_set(work / "set")
    lines = work / "runs.jsonl"
    finished = {(row["variant"], row["seed"]) for row in done(lines)}
    todo = [(variant, seed) for seed in SEEDS for variant in VARIANTS if (variant, seed) not in finished]
    for variant, seed in todo[: arguments.runs]:
        folder = work / f"{variant.replace(' ', '_')}_{seed}"
        row = run_one(work / "set", folder, variant, seed, arguments.epochs)
        print(json.dumps(row))
        with lines.open("a") as file:
            file.write(json.dumps(row) + "\n")
    rows = done(lines)
    if len(rows) == len(SEEDS) * len(VARIANTS):
        write_result("lstr_memory", {"runs": rows, "train_videos": NUM_TRAIN, "test_videos": NUM_TEST})


if __name__ == "__main__":
    main()
