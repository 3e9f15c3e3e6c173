"""Files that are brought to disk while they grow: nothing about them changes, and nothing is left open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest import atomic
from ingest.atomic import Writeback
from ingest.stores.frames_db import FramesDbWriter, plan_levels
from ingest.stores.frames_npy import FramesNpyWriter, open_frames


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(atomic._sync_file_range is None, reason="a call of Linux")
def test_the_kernel_is_told_of_a_file_once_a_megabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    real = atomic._sync_file_range

    def spy(fd: int, *rest: int) -> int:
        told.append((str(Path(f"/proc/self/fd/{fd}").readlink()), real(fd, *rest)))
        return told[-1][1]

    monkeypatch.setattr(atomic, "_sync_file_range", spy)
    path = tmp_path / "grows"
    for target in (path.with_name("to be"), tmp_path / "far away" / "to be"):
        with path.open("wb") as file:
            writeback = Writeback(path, target)
            for _ in range(40):
                file.write(bytes(100_000))
                file.flush()
                writeback.grown(100_000)
            writeback.close()
        assert path.read_bytes() == bytes(4_000_000)
    assert told == [(str(path), 0)] * (40 // 11)  # Nothing of what lies in a scratch folder.


@pytest.mark.parametrize("known", [True, False])
def test_stores_are_the_same_with_it_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    if not known:
        monkeypatch.setattr(atomic, "_sync_file_range", None)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 256, 340, 3), np.uint8)
    blobs = [frame.tobytes() for frame in frames]
    before = open_files()
    for run in "ab":
        (tmp_path / run / "v").mkdir(parents=True)
        with FramesNpyWriter(tmp_path / run / "v.npy", 256, 340) as array:
            for frame in frames:
                array.add(frame)
            array.commit()
        with FramesDbWriter(tmp_path / run / "v" / "frames.db", plan_levels(340, 256, (256, 112))) as database:
            for i, blob in enumerate(blobs):
                database.add(i, [blob, blob[:5000]])
            database.commit({})
        monkeypatch.setattr(atomic, "_sync_file_range", None)
    assert (open_frames(tmp_path / "a" / "v.npy") == frames).all()
    for name in ("v.npy", "v/frames.db"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert open_files() == before


def test_a_writer_that_is_given_up_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    before = open_files()
    for writer in (
        FramesNpyWriter(tmp_path / "v.npy", 1, 1),
        FramesDbWriter(tmp_path / "v" / "frames.db", plan_levels(2, 2, (2,))),
    ):
        with pytest.raises(RuntimeError, match="given up"), writer:
            raise RuntimeError("given up")
    assert open_files() == before
    assert not [*tmp_path.glob(".*"), *tmp_path.glob("v/.*")]
