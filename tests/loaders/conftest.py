"""A small dataset root of real videos: two levels, wide and tall frames, one video that is too short, one that failed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.catalog import Catalog
from ingest.convert import convert
from ingest.options import ConvertOptions
from ingest.plan import plan_folders
from loaders import ClipDataset, ClipLoader, ClipSpec
from tests.ingest.videos import make_video
from tests.loaders.samples import training_spec

LEVELS = (72, 36)
SHORT = "short"  # a video of 5 frames
TALL = ("tall0", "tall1")  # 72x96; all others are 96x72

MakeLoader = Callable[..., ClipLoader]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 videos of three classes in two levels, splits train (9) and val (4), and `broken`, which failed. Read only."""
    folder = tmp_path_factory.mktemp("loaders")
    videos = folder / "videos"
    for class_name in ("apple", "pear tree", "plum"):
        (videos / class_name).mkdir(parents=True)
    for i in range(10):
        make_video(videos / ("apple", "pear tree", "plum")[i % 3] / f"wide{i}.mp4", 30 + i, seed=i)
    for i, name in enumerate(TALL):
        make_video(videos / "plum" / f"{name}.mp4", 32, size=(72, 96), seed=20 + i)
    make_video(videos / "apple" / f"{SHORT}.mp4", 5, seed=30)
    (videos / "apple" / "broken.mp4").write_bytes(b"no video")
    made = folder / "root"
    report = convert(plan_folders(videos), made, ConvertOptions(LEVELS), num_workers=2)
    assert [failure[1] for failure in report.failures] == ["broken"]
    with Catalog.create(made) as catalog, catalog.transaction():
        catalog.db.execute("UPDATE labels SET split = 'train'")
        catalog.db.execute(
            "UPDATE labels SET split = 'val' WHERE video IN"
            " (SELECT id FROM videos WHERE video_id IN ('wide0', 'wide1', 'wide2', 'tall0'))"
        )
    return made


@pytest.fixture
def root_copy(root: Path, tmp_path: Path) -> Path:
    """A root of the test's own, to be damaged."""
    return shutil.copytree(root, tmp_path / "root")


@pytest.fixture
def make_loader(root: Path):
    """`make_loader(spec, batch_size=4, ...)` on all videos of the root; closed at the end of the test."""
    made: list[ClipLoader] = []

    def make(spec: ClipSpec | None = None, *, at: Path = root, split: str | None = None, **options) -> ClipLoader:
        options = {"batch_size": 4, "workers": "threads", "num_workers": 2, "max_bad": 0.0} | options
        made.append(ClipLoader(ClipDataset(at, split), spec or training_spec(), **options))
        return made[-1]

    yield make
    for loader in made:
        loader.close()
