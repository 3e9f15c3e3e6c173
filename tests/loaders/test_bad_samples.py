"""Clips that cannot be made: replaced by others that their place determines, recorded, counted, and limited."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ingest.errors import ClipmillError
from loaders import ClipError
from loaders.order import epoch_order, replacements
from tests.loaders.conftest import MakeLoader
from tests.loaders.samples import digest, evaluation_spec
from tests.loaders.test_faults import NAME, VIDEO, change, database


def recorded(root: Path) -> list[tuple]:
    with closing(sqlite3.connect(root / "catalog.db")) as db:
        return db.execute("SELECT class_name, video_id, reason FROM bad_samples").fetchall()


def test_a_bad_clip_gives_way_to_another_and_the_rest_of_the_stream_stays(root_copy: Path, make_loader: MakeLoader):
    whole = [batch.video_ids for batch in make_loader(batch_size=4, drop_last=False)]
    database(root_copy).unlink()
    loader = make_loader(at=root_copy, batch_size=4, drop_last=False, max_bad=0.5)
    mended = [batch.video_ids for batch in loader]
    flat, flat_mended = ([name for names in batches for name in names] for batches in (whole, mended))
    differ = [k for k, (one, other) in enumerate(zip(flat, flat_mended, strict=True)) if one != other]
    assert [flat[k] for k in differ] == [VIDEO]
    (k,) = differ
    order = epoch_order(loader.num_items, 0, 0)
    stand_ins = replacements(int(order[k]), loader.num_items, 0, 0, k)
    next(stand_ins)
    assert flat_mended[k] == loader.dataset.video_ids[next(stand_ins)]
    assert [(sample.name, sample.reason) for sample in loader.bad_samples] == [(NAME, "unreadable")]
    assert recorded(root_copy) == [("pear tree", VIDEO, "unreadable")]


def test_the_stream_with_replacements_is_the_same_for_any_workers_and_ranks(root_copy: Path, make_loader: MakeLoader):
    database(root_copy).unlink()
    options = {"at": root_copy, "max_bad": 0.9, "batch_size": 4}
    expected = [digest(batch) for batch in make_loader(**options)]
    assert expected == [digest(batch) for batch in make_loader(**options, workers="processes", num_workers=3)]
    halves = [make_loader(**options | {"batch_size": 2}, rank=rank, world_size=2) for rank in range(2)]
    parts = [batch.video_ids + other.video_ids for batch, other in zip(*halves, strict=True)]
    assert parts == [batch.video_ids for batch in make_loader(**options)]


def test_the_label_is_that_of_the_clip_that_came(root_copy: Path, make_loader: MakeLoader):
    database(root_copy).unlink()
    loader = make_loader(at=root_copy, batch_size=4, max_bad=0.9)
    for batch in loader:
        labels = [int(loader.dataset.labels[loader.dataset.video_ids.index(name)]) for name in batch.video_ids]
        assert batch.labels.tolist() == labels


def test_too_many_bad_clips_end_the_run_and_are_named(root_copy: Path, make_loader: MakeLoader):
    for video_id in ("wide1", "wide4", "wide7"):
        database(root_copy, video_id).unlink()
    loader = make_loader(at=root_copy, batch_size=2, max_bad=0.05)
    with pytest.raises(ClipmillError, match=r"of \d+ clips could not be made \(1\d unreadable\)") as caught:
        for _ in range(30):
            for _ in loader:
                pass
    for video_id in ("wide1", "wide4", "wide7"):
        assert f"pear tree/{video_id}" in caught.value.what
    assert "clipmill ingest repair" in caught.value.next_step
    assert len(recorded(root_copy)) == len(loader.bad_samples) >= 10


def test_a_rate_below_the_limit_goes_on(root_copy: Path, make_loader: MakeLoader):
    database(root_copy).unlink()  # one of 13
    loader = make_loader(at=root_copy, batch_size=2, max_bad=0.2)
    for _ in range(25):
        for _ in loader:
            pass
    assert 15 < len(loader.bad_samples) <= 25 + 5


def test_a_single_one_says_nothing_of_a_rate(root_copy: Path, make_loader: MakeLoader):
    database(root_copy).unlink()
    loader = make_loader(at=root_copy, batch_size=2, max_bad=0.001)
    for _ in range(5):
        for _ in loader:
            pass
    assert 1 <= len(loader.bad_samples) < 10


def test_when_all_are_bad_it_is_an_error_and_no_endless_search(root_copy: Path, make_loader: MakeLoader):
    for path in root_copy.rglob("frames.db"):
        path.unlink()
    with pytest.raises(ClipError, match="unreadable"):
        next(iter(make_loader(at=root_copy, max_bad=0.9)))


def test_in_evaluation_nothing_is_replaced(root_copy: Path, make_loader: MakeLoader):
    database(root_copy).unlink()
    with pytest.raises(ClipError, match=NAME):
        for _ in make_loader(evaluation_spec(), at=root_copy, max_bad=0.9):
            pass


def test_a_catalog_that_cannot_be_written_does_not_stop_training(root_copy: Path, make_loader: MakeLoader):
    change(database(root_copy), "UPDATE Images_36 SET frames = x'00'")
    change(database(root_copy), "UPDATE Images SET frames = x'00'")
    with closing(sqlite3.connect(root_copy / "catalog.db", isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        loader = make_loader(at=root_copy, batch_size=4, max_bad=0.9, drop_last=False)
        assert sum(len(batch) for batch in loader) == 13
    assert len(loader.bad_samples) == 1


def test_limits_that_are_none_are_refused(make_loader: MakeLoader):
    with pytest.raises(ValueError, match="max_bad is 2"):
        make_loader(max_bad=2)
