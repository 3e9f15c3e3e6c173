"""The loader on real videos: right clips, one stream whatever runs it, exact resumption, an end to everything."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from ingest.errors import ClipmillError
from loaders import ClipBatch, ClipDataset, ClipLoader, Segments
from loaders.order import epoch_order
from tests.ingest.videos import number_of
from tests.loaders.conftest import SHORT, TALL, MakeLoader
from tests.loaders.samples import digest, evaluation_spec, training_spec

WHOLE = {"height": 36, "width": 48, "short_side": (36, 36), "flip": 0.0}  # the whole frame of a wide video
NUM_VIDEOS = 13


def digests(batches: Iterable[ClipBatch]) -> list[str]:
    return [digest(batch) for batch in batches]


def two_epochs(loader: ClipLoader) -> list[str]:
    return digests(loader) + digests(loader)


def clips(batch: ClipBatch) -> list[tuple[int, int, bytes, bytes]]:
    """(video, view, frame numbers, pixels) of every clip."""
    rows = zip(batch.videos, batch.view, batch.frame_indices, batch.frames, strict=True)
    return [(int(v), int(w), f.numpy().tobytes(), p.numpy().tobytes()) for v, w, f, p in rows]


def decode_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("clipmill-decode")]


def wait_until(is_so: Callable[[], bool], limit_s: float = 30) -> None:
    for _ in range(round(limit_s / 0.005)):
        if is_so():
            return
        time.sleep(0.005)
    raise AssertionError("it never came to that")


# What is in a batch


def test_a_batch_has_the_documented_shapes_and_types(make_loader: MakeLoader):
    batch = next(iter(make_loader(training_spec(width=40), batch_size=5)))
    assert (batch.frames.shape, batch.frames.dtype) == ((5, 4, 32, 40, 3), torch.uint8)
    assert (batch.labels.shape, batch.labels.dtype) == ((5,), torch.int64)
    assert (batch.videos.shape, batch.videos.dtype) == ((5,), torch.int64)
    assert (batch.view.shape, batch.view.dtype) == ((5,), torch.int64)
    assert (batch.frame_indices.shape, batch.frame_indices.dtype) == ((5, 4), torch.int64)
    assert len(batch) == len(batch.video_ids) == 5
    assert (batch.epoch, batch.position) == (0, 0)


def test_labels_and_ids_are_those_of_the_videos(make_loader: MakeLoader):
    loader = make_loader(evaluation_spec(views=(1, 1)))
    names = loader.dataset.class_names
    seen = {}
    for batch in loader:
        for video, video_id, label in zip(batch.videos, batch.video_ids, batch.labels, strict=True):
            assert loader.dataset.video_ids[video] == video_id
            seen[video_id] = names[label]
    expected = {f"wide{i}": ("apple", "pear tree", "plum")[i % 3] for i in range(10)}
    assert seen == expected | {SHORT: "apple"} | dict.fromkeys(TALL, "plum")


@pytest.mark.parametrize("exact", [False, True])
def test_every_frame_is_the_one_that_frame_indices_names(make_loader: MakeLoader, exact):
    loader = make_loader(training_spec(**WHOLE, exact_resolution=exact))
    for batch in loader:
        for video_id, frames, indices in zip(batch.video_ids, batch.frames, batch.frame_indices, strict=True):
            if video_id not in TALL:
                assert [number_of(frame.numpy()) for frame in frames] == indices.tolist()


def test_a_video_too_short_for_the_clip_repeats_one_frame(make_loader: MakeLoader):
    loader = make_loader(training_spec(**WHOLE, sampler=Segments(12)), batch_size=NUM_VIDEOS)
    batch = next(iter(loader))
    row = batch.video_ids.index(SHORT)
    numbers = [number_of(frame.numpy()) for frame in batch.frames[row]]
    assert numbers == batch.frame_indices[row].tolist() == sorted(numbers)
    assert set(numbers) == set(range(5))


def test_normalized_is_scaled_on_the_way_to_float_with_channels_second(make_loader: MakeLoader):
    batch = next(iter(make_loader()))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    made = batch.normalized(mean, std)
    assert (made.shape, made.dtype) == ((4, 3, 4, 32, 32), torch.float32)
    assert made.is_contiguous(memory_format=torch.channels_last_3d)
    expected = (batch.frames.numpy() / 255 - mean) / std
    np.testing.assert_allclose(made.permute(0, 2, 3, 4, 1).numpy(), expected, atol=1e-5)


def test_every_video_comes_once_an_epoch_and_a_failed_one_never(make_loader: MakeLoader):
    loader = make_loader(batch_size=1)
    for _ in range(2):
        seen = [batch.video_ids[0] for batch in loader]
        assert len(seen) == len(set(seen)) == NUM_VIDEOS
        assert "broken" not in seen


def test_every_view_of_every_video_comes_exactly_once(make_loader: MakeLoader):
    loader = make_loader(evaluation_spec(views=(2, 3)))
    seen = [(int(video), int(view)) for batch in loader for video, view in zip(batch.videos, batch.view, strict=True)]
    assert seen == [(video, view) for video in range(NUM_VIDEOS) for view in range(6)]


def test_evaluation_ends_with_a_smaller_batch_and_training_leaves_it_out(make_loader: MakeLoader):
    evaluation, training = make_loader(evaluation_spec(views=(1, 1)), batch_size=5), make_loader(batch_size=5)
    assert [len(batch) for batch in evaluation] == [5, 5, 3] and len(evaluation) == 3
    assert [len(batch) for batch in training] == [5, 5] and len(training) == 2
    kept = make_loader(batch_size=5, drop_last=False)
    assert [len(batch) for batch in kept] == [5, 5, 3]


def test_a_split_is_all_that_is_drawn(make_loader: MakeLoader):
    loader = make_loader(evaluation_spec(views=(1, 1)), split="val")
    assert {video_id for batch in loader for video_id in batch.video_ids} == {"wide0", "wide1", "wide2", TALL[0]}


def test_an_empty_split_is_an_error_that_names_the_splits(root: Path):
    with pytest.raises(ClipmillError, match=r"no finished video of split 'test'.* Its splits are 'train', 'val'"):
        ClipDataset(root, "test")


def test_a_folder_that_is_no_root_is_an_error_that_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(ClipmillError, match=r"no catalog.db.*clipmill ingest convert"):
        ClipDataset(tmp_path)


def test_a_batch_that_all_clips_cannot_fill_is_an_error(make_loader: MakeLoader):
    with pytest.raises(ClipmillError, match="13 clips do not fill one batch of 14"):
        make_loader(batch_size=7, world_size=2)
    with pytest.raises(ValueError, match="batch_size is 0"):
        make_loader(batch_size=0)
    with pytest.raises(ValueError, match="rank is 2; with a world_size of 2 it is 0 to 1"):
        make_loader(rank=2, world_size=2)


# One stream


def test_the_stream_is_the_same_for_any_number_of_threads_and_any_depth(make_loader: MakeLoader):
    streams = [
        two_epochs(make_loader(num_workers=num_workers, depth=depth))
        for num_workers, depth in ((1, 2), (2, 2), (5, 2), (2, 0), (3, 7))
    ]
    assert all(stream == streams[0] for stream in streams)
    assert len(set(streams[0])) == 6


def test_the_stream_of_views_is_the_same_for_any_number_of_threads(make_loader: MakeLoader):
    one, five = (digests(make_loader(evaluation_spec(), num_workers=n, batch_size=7)) for n in (1, 5))
    assert one == five


def test_seeds_and_epochs_have_streams_of_their_own(make_loader: MakeLoader):
    loader = make_loader(seed=1)
    first, second = digests(loader), digests(loader)
    assert not {*first} & {*second}
    assert not {*first} & {*digests(make_loader(seed=2))}
    assert first == digests(make_loader(seed=1))


def test_epochs_follow_the_published_order(make_loader: MakeLoader):
    loader = make_loader(batch_size=1, seed=4)
    for epoch in range(2):
        batches = [(int(batch.videos[0]), batch.epoch, batch.position) for batch in loader]
        assert batches == [(int(v), epoch, k) for k, v in enumerate(epoch_order(NUM_VIDEOS, 4, epoch))]


def test_without_shuffle_the_videos_come_in_the_order_of_the_dataset(make_loader: MakeLoader):
    loader = make_loader(shuffle=False, drop_last=False)
    assert [int(video) for batch in loader for video in batch.videos] == list(range(NUM_VIDEOS))


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("spec", [training_spec(), evaluation_spec()], ids=["training", "evaluation"])
def test_ranks_share_what_one_rank_would_get(make_loader: MakeLoader, world_size, spec):
    alone = [clips(batch) for batch in make_loader(spec, batch_size=4)]
    ranks = [
        list(map(clips, make_loader(spec, batch_size=4 // world_size, rank=rank, world_size=world_size)))
        for rank in range(world_size)
    ]
    together = [[clip for rank in ranks for clip in (rank[i] if i < len(rank) else [])] for i in range(len(alone))]
    assert together == alone


# Going on where it stopped


def test_a_break_and_a_new_iteration_continue(make_loader: MakeLoader):
    whole = digests(make_loader(batch_size=2))
    loader = make_loader(batch_size=2)
    parts = []
    for batch in loader:
        parts.append(digest(batch))
        if len(parts) == 2:
            break
    parts += digests(islice(loader, 1))
    parts += digests(loader)
    assert parts == whole
    assert loader.state_dict()["epoch"] == 1


def test_the_state_resumes_exactly_at_every_position_on_a_new_loader(make_loader: MakeLoader):
    whole = two_epochs(make_loader(batch_size=2))
    loader = make_loader(batch_size=2)
    states = [loader.state_dict()]
    for _ in range(2):
        states += [loader.state_dict() for _ in loader]
    for done, state in enumerate(states):
        other = make_loader(batch_size=2, num_workers=1 + done % 3, depth=done % 4)
        other.load_state_dict(json.loads(json.dumps(state)))
        assert digests(other) + (digests(other) if done <= 6 else []) == whole[done:], done


def test_a_state_may_be_loaded_in_the_middle_of_an_iteration(make_loader: MakeLoader):
    loader = make_loader(batch_size=2)
    batches = iter(loader)
    first = digest(next(batches))
    state = loader.state_dict()
    rest = digests(islice(batches, 3))
    loader.load_state_dict(state)
    assert digests(islice(loader, 3)) == rest
    loader.load_state_dict(state | {"position": 0})
    assert digests(islice(loader, 1)) == [first]


def test_a_state_may_be_continued_with_another_number_of_ranks(make_loader: MakeLoader):
    whole = list(map(clips, make_loader(batch_size=4)))
    loader = make_loader(batch_size=4)
    next(iter(loader))
    ranks = [make_loader(batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    for rank in ranks:
        rank.load_state_dict(loader.state_dict())
    assert [a + b for a, b in zip(*(map(clips, rank) for rank in ranks), strict=True)] == whole[1:]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 8}, "the loader state has seed 8, this loader 0"),
        ({"num_items": 99}, "the loader state has num_items 99, this loader 13"),
        ({"version": 0}, "the loader state has version 0"),
    ],
)
def test_a_state_of_another_stream_is_refused_and_changes_nothing(make_loader: MakeLoader, other, message):
    loader = make_loader()
    state = loader.state_dict()
    with pytest.raises(ClipmillError, match=message + ".*cannot go on in the same order"):
        loader.load_state_dict(state | {"epoch": 5} | other)
    assert loader.state_dict() == state


def test_a_new_iteration_ends_the_one_before(make_loader: MakeLoader):
    whole = digests(make_loader(batch_size=2))
    loader = make_loader(batch_size=2)
    first = iter(loader)
    got = [digest(next(first))]
    second = iter(loader)
    got += digests(second)
    assert got == whole
    assert list(first) == []


# Memory


def test_memory_is_a_fixed_number_of_batches_used_again_and_again(make_loader: MakeLoader):
    loader = make_loader(batch_size=1, depth=2)
    memory = [batch.frames.data_ptr() for _ in range(3) for batch in loader]
    assert len(memory) == 3 * NUM_VIDEOS
    assert len(set(memory)) == 4  # depth + 2


def test_a_batch_holds_until_the_next_is_asked_for(make_loader: MakeLoader):
    loader = make_loader(batch_size=1, depth=3)
    for batch in loader:
        before = digest(batch)
        wait_until(lambda: loader._engine._pool._work_queue.qsize() == 0)  # All that may be made ahead is begun,
        time.sleep(0.02)  # and made.
        assert digest(batch) == before


def test_slots_come_back_after_every_break(make_loader: MakeLoader):
    loader = make_loader(batch_size=1, depth=1)
    for _ in range(20):
        for _ in loader:
            break
    gc.collect()
    assert loader._engine.free.qsize() == 3


def open_databases(root: Path) -> int:
    """Files called frames.db below `root` that this process holds open."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            file = entry.readlink()
            found += file.name == "frames.db" and file.is_relative_to(root)
    return found


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_the_next_epoch_is_begun_while_this_one_is_used(make_loader: MakeLoader, workers):
    loader = make_loader(workers=workers)
    first = digests(loader)
    ahead = loader._ahead
    assert ahead is not None
    assert [begun.epoch for begun in ahead.batches] == [1] * 3 + [2]  # three batches an epoch, four slots
    wait_until(lambda: all(begun.pending.is_ready() for begun in ahead.batches))
    state = loader.state_dict()
    second = digests(loader)
    fresh = make_loader(workers=workers)
    fresh.load_state_dict(state)
    assert digests(fresh) == second != first


def test_a_stream_that_goes_elsewhere_drops_what_was_begun(make_loader: MakeLoader):
    loader = make_loader()
    state = loader.state_dict()
    first, second = digests(loader), digests(loader)
    loader.load_state_dict(state)
    assert (digests(loader), digests(loader)) == (first, second)
    loader.load_state_dict(state)
    for _ in islice(loader, 1):
        pass
    assert digests(loader) == first[1:]
    loader._stop_stream()
    assert len(loader._ahead.batches) + loader._engine.free.qsize() == 4


def test_evaluation_begins_nothing_that_is_not_asked_for(make_loader: MakeLoader):
    loader = make_loader(evaluation_spec())
    first = digests(loader)
    assert loader._engine.free.qsize() == 4
    assert len(digests(loader)) == len(first)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_open_databases_stay_bounded_however_many_videos_there_are(root: Path, tmp_path: Path, monkeypatch):
    from loaders import reading as module

    monkeypatch.setattr(module, "_MOST_OPEN", 6)
    opened = []
    connect = module.frames_db.connect
    monkeypatch.setattr(module.frames_db, "connect", lambda path: opened.append(path) or connect(path))
    with ClipLoader(ClipDataset(root), training_spec(), batch_size=1, workers="threads", num_workers=2) as loader:
        for _ in range(8):
            for _ in loader:
                assert open_databases(root) <= 2 * 4  # while one more is opened, before the oldest is closed
    assert len(opened) > 2 * NUM_VIDEOS
    assert open_databases(root) == 0


# The end


def test_close_in_mid_epoch_leaves_no_thread_and_may_be_called_twice(make_loader: MakeLoader):
    loader = make_loader(batch_size=2, num_workers=3)
    batches = iter(loader)
    next(batches)
    assert decode_threads()
    loader.close()
    loader.close()
    assert not decode_threads()
    assert list(batches) == []
    with pytest.raises(RuntimeError, match="the loader is closed"):
        iter(loader)


def test_an_iterator_that_outlives_its_loader_does_no_harm(make_loader: MakeLoader):
    loader = make_loader(batch_size=1, num_workers=1, depth=9)  # most clips are still to be made
    batches = iter(loader)
    next(batches)
    loader._engine.close()  # as when the loader is closed from within the wait for a batch
    ended = threading.Thread(target=batches.close, daemon=True)
    ended.start()
    ended.join(20)
    assert not ended.is_alive()


def test_leaving_the_with_block_by_an_exception_closes_the_loader(root: Path):
    with (
        pytest.raises(KeyboardInterrupt),
        ClipLoader(ClipDataset(root), training_spec(), batch_size=2) as loader,
    ):
        for _ in loader:
            raise KeyboardInterrupt
    assert not decode_threads()


# Counting


def test_stages_count_every_clip_and_the_bytes_read(make_loader: MakeLoader):
    loader = make_loader(batch_size=NUM_VIDEOS)
    list(loader)
    stages = loader.stages()
    assert set(stages) == {"read", "decode", "assemble", "wait"}
    assert all(stage.count == NUM_VIDEOS and stage.seconds > 0 for stage in stages.values())
    assert stages["read"].num_bytes > NUM_VIDEOS * 1000
    assert stages["decode"].num_bytes == 0
