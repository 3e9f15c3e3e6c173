"""How much faster the `fast` executor augments than imgaug: clips of 16 x 112 x 112, one thread each, in turns.

imgaug is run as its users do it: one augmenter for the whole training, `to_deterministic()` once per clip, so that all
frames of the clip are treated alike, then frame by frame. `augment_images` on all frames at once is timed too, although
it draws anew for every frame, so that the frames of a clip would not match; and our own imgaug executor, which is given
what has been drawn. Ours draws within the time. Each of these has its own stream of random clips; over the clips of a round
the mixtures of operations are alike. Times are seconds of the processor, so that others' work on the machine does not count.

    python -m tests.benchmarks.bench_augment [--rounds 7] [--clips 150]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch

from loaders.augment import ClipShape, Recipe, draw, recipe_by_name, run_fast, run_imgaug
from loaders.augment.imgaug_shim import import_augmenters
from loaders.augment.recipe import Sometimes
from loaders.order import sample_rng
from tests.benchmarks._common import write_result
from tests.loaders.augment.pictures import clip as make_clip

GOAL = 10
SHAPE = ClipShape(16, 112, 112)
RECIPES = ("srtg-readme", "srtg-code")


def imgaug_pipeline(iaa: Any, name: str, always: bool) -> Any:
    """The recipe in imgaug's own words. `always`: every operation in every clip."""
    block, each = (1.0, 1.0) if always else {"srtg-readme": (0.8, 0.4), "srtg-code": (0.9, 0.4)}[name]
    light = {
        "srtg-readme": [
            iaa.AdditiveGaussianNoise(scale=0.03 * 255, per_channel=True),
            iaa.pillike.EnhanceColor((1.2, 1.6)),
            iaa.MotionBlur([3, 5, 7]),
        ],
        "srtg-code": [
            iaa.AverageBlur([1, 2]),
            iaa.Multiply((0.8, 1.2)),
            iaa.GammaContrast((0.85, 1.15), per_channel=True),
        ],
    }[name]
    operations = [
        iaa.GaussianBlur(sigma=[0.1, 0.2, 0.3]),
        iaa.Add((-5, 15), per_channel=True),
        *light,
        iaa.AddToHueAndSaturation((-16, 16), per_channel=True),
        iaa.LinearContrast((0.85, 1.115)),
        iaa.OneOf([iaa.PerspectiveTransform(scale=(0.02, 0.05)), iaa.Rotate((-10, 10))]),
    ]
    inner = iaa.Sequential([iaa.Sometimes(each, operation) for operation in operations])
    return iaa.Sequential([iaa.Sometimes(block, inner), iaa.Fliplr(0.5)])


def with_all(recipe: Recipe) -> Recipe:
    """The recipe with every operation in every clip; the flip keeps its probability."""
    (block, flip) = recipe.ops
    assert isinstance(block, Sometimes)
    inner = tuple(Sometimes(1.0, op.ops) for op in block.ops if isinstance(op, Sometimes))
    return Recipe((Sometimes(1.0, inner), flip), recipe.name)


class Contest:
    """One recipe, and the ways to carry it out."""

    def __init__(self, iaa: Any, name: str, always: bool, frames: np.ndarray) -> None:
        recipe = recipe_by_name(name)
        self.name, self.always = name, always
        self._recipe, self._frames, self._work = with_all(recipe) if always else recipe, frames, frames.copy()
        self._imgaug = imgaug_pipeline(iaa, name, always)
        self._k = 0
        self.ways: dict[str, Callable[[], None]] = {
            "imgaug": self._frame_by_frame,
            "imgaug, frames unlike": self._all_frames,
            "imgaug executor": self._executor,
            "fast": self._fast,
        }
        self.ms: dict[str, list[float]] = {way: [] for way in self.ways}

    def run(self, num_clips: int) -> None:
        for way, work in self.ways.items():
            started = time.process_time()
            for _ in range(num_clips):
                work()
            self.ms[way].append(1000 * (time.process_time() - started) / num_clips)

    def _drawn(self) -> Any:
        self._k += 1
        return draw(self._recipe, sample_rng(0, 0, self._k), SHAPE)

    def _frame_by_frame(self) -> None:
        same = self._imgaug.to_deterministic()
        for frame in self._frames:
            same.augment_image(frame)

    def _all_frames(self) -> None:
        self._imgaug.augment_images(self._frames)

    def _executor(self) -> None:
        run_imgaug(self._frames, self._drawn())

    def _fast(self) -> None:
        np.copyto(self._work, self._frames)
        run_fast(self._work, self._drawn(), self._work)

    def row(self) -> dict[str, Any]:
        ours = self.ms["fast"]
        times = {
            way: round(median(theirs / our for theirs, our in zip(self.ms[way], ours, strict=True)), 1)
            for way in self.ways
        }
        return {
            "recipe": self.name,
            "every_operation_in_every_clip": self.always,
            "ms_per_clip": {way: round(median(found), 3) for way, found in self.ms.items()},
            "times_as_fast": {way: ratio for way, ratio in times.items() if way != "fast"},
            "rounds_ms": {way: [round(each, 3) for each in found] for way, found in self.ms.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clips", type=int, default=150, help="of each measurement")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    iaa = import_augmenters()
    frames = make_clip(SHAPE.frames, SHAPE.height, SHAPE.width)
    contests = [Contest(iaa, name, always, frames) for name in RECIPES for always in (False, True)]
    for contest in contests:
        contest.run(10)
        contest.ms = {way: [] for way in contest.ways}
    for _ in range(options.rounds):
        for contest in contests:
            contest.run(options.clips)
    rows = [contest.row() for contest in contests]
    print(f"{'ms per clip':24}" + "".join(f"{way:>24}" for way in contests[0].ways))
    for row in rows:
        times = row["times_as_fast"] | {"fast": 1}
        name = row["recipe"] + (", all" if row["every_operation_in_every_clip"] else "")
        print(f"{name:24}" + "".join(f"{ms:16.2f} ({times[way]:4.1f}x)" for way, ms in row["ms_per_clip"].items()))
    if not options.no_write:
        shape = [SHAPE.frames, SHAPE.height, SHAPE.width]
        write_result(
            "augment",
            {
                "imgaug": version("imgaug"),
                "shape": shape,
                "threads": 1,
                "clips": options.clips,
                "goal": GOAL,
                "recipes": rows,
            },
        )


if __name__ == "__main__":
    main()
