"""`clipmill ingest labels` on the synthetic untrimmed set: targets that go with the arrays, and data_info.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ingest.demo import DemoSet, make_untrimmed
from tests.conftest import Clipmill


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    return make_untrimmed(
        tmp_path_factory.mktemp("untrimmed"), num_videos=4, size=(64, 48), seconds=(12.0, 16.0), seed=2
    )


@pytest.fixture(scope="module")
def root(demo: DemoSet, clipmill: Clipmill, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    done = clipmill(
        "ingest", "convert", demo.root / "videos", root, "--labels", demo.annotations, "--format", "thumos14",
        "--store", "frames-db", "npy", "--short-side", "48",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return root


def segments(demo: DemoSet, video_id: str) -> list[tuple[str, float, float]]:
    found = []
    for file in Path(demo.annotations).glob("*.txt"):
        for line in file.read_text().splitlines():
            name, start, end = line.split()
            if name == video_id:
                found.append((file.stem.rpartition("_")[0], float(start), float(end)))
    return found


def test_targets_have_the_rows_of_the_arrays_and_the_classes_of_the_segments(
    demo: DemoSet, root: Path, clipmill: Clipmill
) -> None:
    done = clipmill("ingest", "labels", root, "--labels", demo.annotations, "--format", "thumos14", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    info = json.loads((root / "data_info.json").read_text())["THUMOS14"]
    assert info["class_names"][0].lower() == "background" and info["num_classes"] == len(info["class_names"])
    sessions = info["train_session_set"] + info["test_session_set"]
    assert report["num_videos"] == len(sessions) == 4
    assert all("test" in name for name in info["test_session_set"]) and info["test_session_set"]
    for session in sessions:
        targets = np.load(root / "target_perframe" / f"{session}.npy")
        frames = np.load(root / "rgb_npy" / f"{session}.npy", mmap_mode="r")
        assert targets.shape == (len(frames), info["num_classes"])
        assert set(targets.sum(1)) == {1}
        for label, start, end in segments(demo, session):
            row = int((start + end) / 2 * 4)
            assert targets[row, info["class_names"].index(label)] == 1


def test_wrong_input_is_an_error_with_a_next_step(
    demo: DemoSet, root: Path, clipmill: Clipmill, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("label,youtube_id\na,b\n")
    for arguments in (
        (root, "--labels", labels, "--format", "labels-csv"),
        (root, "--labels", demo.annotations, "--format", "thumos"),
        (root, "--labels", demo.annotations, "--format", "thumos14", "--rule", "guess"),
        (tmp_path, "--labels", demo.annotations, "--format", "thumos14"),
    ):
        done = clipmill("ingest", "labels", *arguments)
        assert done.returncode == 2, done.stdout
        assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) >= 2


def test_the_trimmed_reader_of_the_root_finds_the_videos_in_no_class(root: Path) -> None:
    assert sorted(path.parent.parent.name for path in root.glob("jpg/*/*/frames.db")) == ["_"] * 4
