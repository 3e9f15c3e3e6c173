"""Windows in batches: a pure function of seed, epoch and place; resumable; shared among ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ingest.errors import ClipmillError
from loaders.windows import OnlineWindows
from tests.trainers.lstr.conftest import CLASSES, SESSIONS
from trainers.lstr.data import FeatureDataset
from trainers.lstr.loader import WindowBatch, WindowLoader

WINDOWS = OnlineWindows(8, 1, 16, 2)


def dataset(root: Path, sessions: tuple[str, ...] = ("c", "a", "short", "b")) -> FeatureDataset:
    return FeatureDataset(root, sessions, CLASSES, "rgb", "flow", ignore_index=4)


def loader(root: Path, **options) -> WindowLoader:
    return WindowLoader(dataset(root), WINDOWS, **{"batch_size": 4, "training": True, "seed": 3} | options)


def windows_of(batches: list[WindowBatch]) -> list[tuple[int, int]]:
    return [pair for batch in batches for pair in zip(batch.sessions.tolist(), batch.starts.tolist(), strict=True)]


def test_an_epoch_is_a_permutation_of_windows_one_after_the_other(root: Path) -> None:
    with loader(root) as windows:
        epochs = [windows_of(list(windows)) for _ in range(3)]
    for epoch in epochs:
        for session, name in enumerate(("c", "a", "short", "b")):
            starts = sorted(start for number, start in epoch if number == session)
            if name == "short":
                assert not starts
                continue
            assert 0 <= starts[0] < 8 and np.diff(starts).tolist() == [8] * (len(starts) - 1)
            assert starts[-1] + 8 < SESSIONS[name] <= starts[-1] + 16
    assert epochs[0] != sorted(epochs[0]) and sorted(epochs[0]) != sorted(epochs[1])


def test_a_batch_holds_the_rows_of_its_windows(root: Path) -> None:
    with loader(root) as windows:
        batch = next(iter(windows))
    data = dataset(root)
    for i in range(len(batch)):
        visual, motion, targets = data.arrays(int(batch.sessions[i]))
        window = WINDOWS.train(int(batch.starts[i]))
        rows = np.concatenate([window.long, window.work])
        assert (batch.visual[i].numpy() == visual[rows].astype(np.float32)).all()
        assert (batch.motion[i].numpy() == motion[rows].astype(np.float32)).all()
        assert (batch.targets[i].numpy() == targets[window.work]).all()
        assert (batch.mask[i].numpy() == window.mask).all()
    assert batch.shape == (4, 16, 1, 1) and batch.labels.shape == (32, 5)


def test_evaluation_goes_in_order_from_row_0(root: Path) -> None:
    with loader(root, training=False) as windows:
        found = windows_of(list(windows))
        again = windows_of(list(windows))
    expected = [
        (s, start) for s, name in enumerate(("c", "a", "short", "b")) for start in range(0, SESSIONS[name] - 8, 8)
    ]
    assert found == again == expected


@pytest.mark.parametrize("depth", [1, 4])
def test_the_stream_goes_on_from_any_batch(root: Path, depth: int) -> None:
    with loader(root) as windows:
        whole = [windows_of([batch]) for _ in range(2) for batch in windows]
    for stop in range(1, len(whole)):
        with loader(root, depth=depth) as first:
            taken = 0
            while taken < stop:
                for _ in first:
                    taken += 1
                    if taken == stop:
                        break
            state = first.state_dict()
        with loader(root) as second:
            second.load_state_dict(state)
            rest = [windows_of([batch]) for batch in second]
        end = len(whole) if stop > len(whole) // 2 else len(whole) // 2
        assert rest == whole[stop:][: len(rest)] and stop + len(rest) in (len(whole) // 2, len(whole), end)


def test_ranks_share_every_batch(root: Path) -> None:
    with loader(root, batch_size=6) as one:
        together = [windows_of([batch]) for batch in one]
    ranks = []
    for rank in range(3):
        with loader(root, batch_size=2, rank=rank, world_size=3) as part:
            ranks.append([windows_of([batch]) for batch in part])
    assert len({len(each) for each in ranks}) == 1
    for parts, batch in zip(zip(*ranks, strict=True), together, strict=False):
        assert [pair for part in parts for pair in part] == batch


def test_length_is_that_of_the_first_epoch_and_what_is_left_of_this_one(root: Path) -> None:
    with loader(root) as windows:
        length = len(windows)
        assert windows.batches_left == length
        next(iter(windows))
        assert windows.batches_left == length - 1
        for _ in range(6):
            windows.load_state_dict(windows.state_dict() | {"epoch": windows.epoch + 1, "position": 0})
            left, count = windows.batches_left, sum(1 for _ in windows)
            assert left == count and len(windows) == length
            windows.load_state_dict(windows.state_dict() | {"epoch": windows.epoch - 1})


def test_a_state_of_another_seed_is_refused(root: Path) -> None:
    with loader(root) as one, loader(root, seed=4) as other, pytest.raises(ClipmillError, match="seed"):
        other.load_state_dict(one.state_dict())


def test_sessions_that_are_all_too_short_are_an_error(root: Path) -> None:
    with pytest.raises(ClipmillError, match="no session is longer"):
        WindowLoader(dataset(root, ("short",)), WINDOWS, batch_size=1, training=True)


def test_class_numbers_are_targets_too(root: Path, tmp_path: Path) -> None:
    stored = np.load(root / "target_perframe" / "a.npy")
    (tmp_path / "target_perframe").mkdir()
    np.save(tmp_path / "target_perframe" / "a.npy", stored.argmax(1))
    alone = FeatureDataset(tmp_path, ["a"], CLASSES, None, None)
    assert (alone.arrays(0)[2] == stored).all()


def test_features_with_fewer_rows_than_targets_are_an_error(root: Path, tmp_path: Path) -> None:
    for folder in ("rgb", "target_perframe"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "rgb" / "a.npy", np.zeros((5, 6)))
    np.save(tmp_path / "target_perframe" / "a.npy", np.eye(5)[[0] * 6])
    with pytest.raises(ClipmillError, match="targets have 6 rows"):
        FeatureDataset(tmp_path, ["a"], CLASSES, "rgb", None).arrays(0)


def test_without_a_long_memory_there_is_no_mask(root: Path) -> None:
    with WindowLoader(dataset(root), OnlineWindows(8), batch_size=3, training=True) as windows:
        batch = next(iter(windows))
    assert batch.mask is None and batch.visual.shape == (3, 8, 6)
    assert isinstance(batch.targets, torch.Tensor)
