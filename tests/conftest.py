"""Fixtures that several test folders share: a small dataset of real videos, and the `clipmill` command."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ingest.videos import make_video

REPOSITORY = Path(__file__).resolve().parents[1]

Clipmill = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure() -> None:
    """Take Ctrl-C as usual, also where the tests were started in the background with it ignored: children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class SmallDataset:
    """12 videos in 3 classes, 30 to 52 frames of 96x72 at 25 fps; every frame carries its number.

    `videos/<class>/<id>.mp4` and `labels.csv` lie below `root`; `num_frames` by id.
    """

    root: Path
    classes: tuple[str, ...]
    num_frames: dict[str, int]

    @property
    def videos(self) -> Path:
        return self.root / "videos"

    @property
    def labels(self) -> Path:
        return self.root / "labels.csv"

    @property
    def total_frames(self) -> int:
        return sum(self.num_frames.values())

    def class_of(self, video_id: str) -> str:
        return self.classes[int(video_id.removeprefix("vid")) % len(self.classes)]


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> SmallDataset:
    """Made once per session, to be read only: a test that changes a source copies it first."""
    root = tmp_path_factory.mktemp("small")
    made = SmallDataset(root, ("apple", "pear tree", "plum"), {f"vid{i:02d}": 30 + 2 * i for i in range(12)})
    with made.labels.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("label", "youtube_id", "time_start", "time_end", "split"))
        for i, (video_id, num_frames) in enumerate(made.num_frames.items()):
            folder = made.videos / made.class_of(video_id)
            folder.mkdir(parents=True, exist_ok=True)
            make_video(folder / f"{video_id}.mp4", num_frames, seed=i)
            writer.writerow((made.class_of(video_id), video_id, 0, num_frames / 25, ("train", "val", "test")[i % 3]))
    return made


@pytest.fixture(scope="session")
def clipmill() -> Clipmill:
    """`clipmill("ingest", "status", root)` runs the real command in a process of its own and waits for it."""

    def run(
        *arguments: str | Path, timeout_s: float = 120, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "clipmill", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=cwd or REPOSITORY)

    return run
