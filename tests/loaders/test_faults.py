"""What happens to data under a loader: databases that go, frames that are damaged, errors that reach the user."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from ingest.catalog import Catalog
from ingest.errors import ClipmillError
from loaders import ClipDataset, ClipError, ClipLoader
from loaders.order import epoch_order
from tests.loaders.conftest import MakeLoader
from tests.loaders.samples import evaluation_spec, training_spec

VIDEO, NAME = "wide4", "pear tree/wide4"


def database(root: Path, video_id: str = VIDEO) -> Path:
    dataset = ClipDataset(root)
    return dataset.path(dataset.video_ids.index(video_id))


def change(path: Path, statement: str, *values) -> None:
    db = sqlite3.connect(path)
    assert db.execute(statement, values).rowcount > 0
    db.commit()
    db.close()


def run_to_the_error(loader: ClipLoader) -> ClipError:
    with pytest.raises(ClipError) as caught:
        for _ in range(30):
            for _ in loader:
                pass
    return caught.value


def test_a_database_deleted_in_mid_epoch_is_an_error_that_names_the_video(root_copy: Path, make_loader: MakeLoader):
    loader = make_loader(at=root_copy, batch_size=1, depth=0)
    order = epoch_order(loader.num_items, 0, 0).tolist()
    batches = iter(loader)
    next(batches)
    gone = order[8]  # far beyond what is read ahead
    loader.dataset.path(gone).unlink()
    good = 1
    with pytest.raises(ClipError, match=r"unreadable: .*unable to open database file") as caught:
        for _ in batches:
            good += 1
    assert loader.dataset.name(gone) in str(caught.value) and str(loader.dataset.path(gone)) in str(caught.value)
    assert good == 8 == loader.state_dict()["position"]


@pytest.mark.parametrize(
    "damage", [b"no jpeg", b"", "text", b"\xff\xd8\xff\xd9"], ids=["garbage", "empty", "text", "jpeg without a picture"]
)
@pytest.mark.parametrize("spec", [training_spec(), evaluation_spec()], ids=["training", "evaluation"])
def test_a_damaged_frame_is_an_error_that_names_video_level_and_frame(root_copy, make_loader, damage, spec):
    for table in ("Images", "Images_36"):
        change(database(root_copy), f"UPDATE {table} SET frames = ? WHERE frame >= 15", damage)
    error = run_to_the_error(make_loader(spec, at=root_copy))
    assert f"undecodable: {NAME}: level " in str(error)
    assert error.frame >= 15 and str(error).endswith(f"(frame {error.frame})")


def test_a_truncated_frame_is_an_error_and_not_a_grey_picture(root_copy: Path, make_loader: MakeLoader):
    change(database(root_copy), "UPDATE Images_36 SET frames = substr(frames, 1, length(frames) / 2)")
    error = run_to_the_error(make_loader(training_spec(short_side=(36, 36)), at=root_copy))
    assert f"undecodable: {NAME}: level 36" in str(error)


def test_a_missing_frame_is_an_error_that_names_video_level_and_frame(root_copy: Path, make_loader: MakeLoader):
    change(database(root_copy), "DELETE FROM Images WHERE frame = 7")
    spec = evaluation_spec(views=(12, 1))
    error = run_to_the_error(make_loader(spec, at=root_copy))
    assert str(error) == f"missing frame: {NAME}: level 72 has no such frame (frame 7)"
    assert error.frame == 7


def test_a_missing_level_is_an_error_that_names_the_video(root_copy: Path, make_loader: MakeLoader):
    db = sqlite3.connect(database(root_copy))
    db.execute("DROP TABLE Images_36")
    db.close()
    error = run_to_the_error(make_loader(training_spec(short_side=(32, 36)), at=root_copy))
    assert NAME in str(error) and "Images_36" in str(error)


def test_a_file_that_is_no_database_is_an_error_that_names_the_video(root_copy: Path, make_loader: MakeLoader):
    path = database(root_copy)
    path.write_bytes(os.urandom(path.stat().st_size))
    assert f"unreadable: {NAME}: file is not a database" in str(run_to_the_error(make_loader(at=root_copy)))


def test_a_database_cut_short_is_an_error_that_names_the_video(root_copy: Path, make_loader: MakeLoader):
    path = database(root_copy)
    os.truncate(path, path.stat().st_size // 3)
    assert f"unreadable: {NAME}: " in str(run_to_the_error(make_loader(at=root_copy)))


def test_once_mended_the_loader_goes_on_with_the_batch_that_failed(root_copy: Path, make_loader: MakeLoader):
    whole = [batch.video_ids for batch in make_loader(batch_size=3, drop_last=False)]
    path = database(root_copy)
    path.rename(path.with_name("aside"))
    loader = make_loader(at=root_copy, batch_size=3, drop_last=False, num_workers=1)
    run_to_the_error(loader)
    done = loader.state_dict()["position"] // 3
    assert VIDEO in whole[done]
    assert loader._engine.free.qsize() == 4  # depth + 2
    path.with_name("aside").rename(path)
    assert [batch.video_ids for batch in loader] == whole[done:]


def test_after_an_error_close_is_clean(root_copy: Path, make_loader: MakeLoader):
    shutil.rmtree(database(root_copy).parent)
    loader = make_loader(at=root_copy)
    run_to_the_error(loader)
    loader.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("clipmill-decode")]


def test_a_video_listed_as_failed_or_pending_is_not_drawn(root_copy: Path):
    with Catalog.create(root_copy) as catalog, catalog.transaction():
        catalog.db.execute("UPDATE videos SET state = 'failed' WHERE video_id = 'wide3'")
        catalog.db.execute("UPDATE videos SET state = 'pending' WHERE video_id = 'wide5'")
    dataset = ClipDataset(root_copy)
    assert len(dataset) == 11 and not {"wide3", "wide5", "broken"} & set(dataset.video_ids)


def test_a_root_without_any_finished_video_is_an_error(root_copy: Path):
    with Catalog.create(root_copy) as catalog, catalog.transaction():
        catalog.db.execute("UPDATE videos SET state = 'failed'")
    with pytest.raises(
        ClipmillError, match=r"holds no finished video. Nothing can be loaded. .*clipmill ingest status"
    ):
        ClipDataset(root_copy)
