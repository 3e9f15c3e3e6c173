"""Batches that change their shape by a plan of multigrid: right shapes, one stream, exact resumption."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from ingest.catalog import Catalog, VideoKey, VideoRecord
from ingest.layout import frames_db_path
from ingest.verify import stored_videos
from loaders.clips import ClipSpec
from loaders.multigrid import BatchShape, constant_plan, srtg_plan, wu_plan
from loaders.order import epoch_order
from loaders.sampling import RandomInterval, SegmentClips, Segments, TwiceSample
from tests.loaders.conftest import MakeLoader
from tests.loaders.samples import digest, evaluation_spec, training_spec

NUM_COPIES = 10
NUM_VIDEOS = 13 * NUM_COPIES
BASE = BatchShape(2, 8, 32, 32, (32, 44), (1, 2))


@pytest.fixture(scope="module")
def many(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos of the root ten times over, each under a name of its own: a long cycle takes many clips at once."""
    home = tmp_path_factory.mktemp("many")
    with Catalog.open(root) as catalog:
        stored, names = stored_videos(catalog), catalog.class_names()
    with Catalog.create(home) as catalog, catalog.transaction():
        catalog.add_classes(names)
        for video in stored:
            for copy in range(NUM_COPIES):
                key = VideoKey(video.key.class_name, f"{video.key.video_id}_{copy}")
                target = frames_db_path(home, key.class_name, key.video_id)
                target.parent.mkdir(parents=True)
                target.symlink_to(frames_db_path(root, video.key.class_name, video.key.video_id))
                record = VideoRecord(key, "ok", num_frames=video.num_frames, outputs=list(video.outputs))
                catalog.record(record)
                catalog.set_labels([(key, key.class_name, "train", None, None)])
    return home


@pytest.fixture
def make_loader(make_loader: MakeLoader, many: Path) -> MakeLoader:
    return partial(make_loader, at=many)


def wu(**options):
    options = {"num_items": NUM_VIDEOS, "epochs": 6, "lr_steps": (3, 5), "lr_factors": (1, 0.1, 0.01)} | options
    return wu_plan(BASE, **options)


def shapes_of(loader, epochs: int) -> list[tuple[int, tuple[int, ...]]]:
    return [(batch.epoch, tuple(batch.frames.shape)) for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_every_batch_has_the_shape_that_the_plan_says_and_the_clips_that_are_next(make_loader: MakeLoader, workers):
    plan = wu()
    loader = make_loader(batch_size=None, shapes=plan, workers=workers)
    seen = set()
    for epoch in range(plan.num_epochs):
        order = epoch_order(NUM_VIDEOS, 0, epoch)
        batches = 0
        assert len(loader) == plan.num_batches(epoch)
        for batch in loader:
            planned = plan.at(epoch, batches)
            shape = planned.shape
            assert batch.frames.shape == (planned.num_clips, shape.num_frames, shape.height, shape.width, 3)
            assert batch.videos.tolist() == order[planned.start : planned.start + planned.num_clips].tolist()
            assert batch.lr_factor == planned.lr_factor
            assert batch.frame_indices.shape[1] == shape.num_frames
            seen.add(shape)
            batches += 1
        assert batches == plan.num_batches(epoch)
    assert len(seen) > 3


def test_it_resumes_at_any_batch_exactly(make_loader: MakeLoader):
    plan = wu()
    whole, states = [], []
    loader = make_loader(batch_size=None, shapes=plan)
    states.append(loader.state_dict())
    for _ in range(4):
        for batch in loader:
            whole.append(digest(batch))
            states.append(loader.state_dict())
    for done in range(0, len(whole), 3):
        other = make_loader(batch_size=None, shapes=plan, num_workers=1 + done % 3, depth=done % 4)
        other.load_state_dict(states[done])
        rest = [digest(batch) for _ in range(4) for batch in other][: len(whole) - done]
        assert rest == whole[done:]


@pytest.mark.parametrize("world_size", [1, 2])
def test_ranks_share_every_batch(make_loader: MakeLoader, world_size: int):
    plan = wu()
    loaders = [
        make_loader(batch_size=None, shapes=plan, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    whole = [(b.frames.shape[1:], b.video_ids) for _ in range(3) for b in make_loader(batch_size=None, shapes=plan)]
    one = make_loader(batch_size=None, shapes=plan)
    whole = [(b.frames.shape[1:], list(b.video_ids)) for _ in range(3) for b in one]
    parts = []
    for _ in range(3):
        for batches in zip(*loaders, strict=True):
            assert len({batch.frames.shape[1:] for batch in batches}) == 1
            parts.append((batches[0].frames.shape[1:], [name for batch in batches for name in batch.video_ids]))
    assert parts == whole


def test_srtg_cycles_run_too_and_wrap_where_they_ask_for_more_clips_than_there_are(make_loader: MakeLoader):
    for reference in (False, True):
        plan = srtg_plan(
            BatchShape(2, 16, 32, 32, (32, 32)), num_items=NUM_VIDEOS, epochs=4, lr_steps=(2,), gamma=0.1,
            long=True, short=True, reference=reference,
        )  # fmt: skip
        loader = make_loader(batch_size=None, shapes=plan)
        for epoch, shape in shapes_of(loader, 2):
            assert (
                shape in {(s.num_clips, s.num_frames, s.height, s.width, 3) for s in plan.phase_at(epoch).cycle}
                or not reference
            )


def test_after_its_end_the_plan_goes_on_as_in_its_last_epoch(make_loader: MakeLoader):
    plan = constant_plan(BASE, num_items=NUM_VIDEOS, epochs=1)
    assert {epoch for epoch, _ in shapes_of(make_loader(batch_size=None, shapes=plan), 3)} == {0, 1, 2}


def test_memory_is_that_of_the_largest_batch(make_loader: MakeLoader):
    plan = wu()
    loader = make_loader(batch_size=None, shapes=plan, depth=1)
    largest = max(s.num_clips * s.num_frames * s.height * s.width * 3 for p in plan.phases for s in p.cycle)
    slots = [loader._engine.free.get() for _ in range(3)]
    assert {slot.memory.numel() for slot in slots} == {largest}
    for slot in slots:
        loader._engine.free.put(slot)


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (RandomInterval(4, (1,)), RandomInterval(8, (1, 2))),
        (Segments(4), None),
        (SegmentClips(1, 4, 2), None),
    ],
)
def test_samplers_take_the_frames_and_the_interval_of_a_shape(sampler, expected):
    spec = ClipSpec(sampler, 32, 32, (32, 32))
    if expected is None:
        with pytest.raises(ValueError, match="draws from several"):
            spec.shaped(BASE)
        fixed = BatchShape(2, 8, 16, 16, (16, 20), (2, 2)) if not isinstance(sampler, Segments) else None
        if fixed:
            assert (spec.shaped(fixed).sampler.segment_frames, spec.shaped(fixed).sampler.interval) == (8, 2)
    else:
        assert spec.shaped(BASE).sampler == expected
    with pytest.raises(ValueError, match="no number of frames"):
        ClipSpec(TwiceSample(SegmentClips(4)), 32, 32, (32, 32)).shaped(BASE)


def test_what_does_not_fit_together_is_refused(make_loader: MakeLoader):
    plan = wu()
    for options, message in (
        ({"batch_size": 2, "shapes": plan}, "either a batch_size or a plan"),
        ({"batch_size": None}, "either a batch_size or a plan"),
        ({"batch_size": None, "shapes": wu(num_items=300)}, "the plan is for 300 clips, the data set has 130"),
        ({"batch_size": None, "shapes": plan, "world_size": 3}, "has none for some of 3 ranks"),
    ):
        with pytest.raises(ValueError, match=message):
            make_loader(**options)
    views = constant_plan(BASE, num_items=NUM_VIDEOS * 6, epochs=1)
    with pytest.raises(ValueError, match="views are evaluated in one shape"):
        make_loader(evaluation_spec(), batch_size=None, shapes=views)
    assert training_spec().shaped(BASE).num_frames == 8
