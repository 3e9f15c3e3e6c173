"""One interface for every store: the same clips from databases, arrays, raw frames, historical frames and plain videos."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from ingest.annotations.read import read_annotations
from ingest.convert import convert
from ingest.errors import ClipmillError
from ingest.options import ConvertOptions
from ingest.plan import plan_folders
from loaders import ClipDataset, ClipError, ClipLoader, ClipSpec
from loaders.sampling import Dense, RandomInterval
from tests.ingest.videos import make_video, number_of
from tests.loaders.samples import digest

NUM_FRAMES = 20


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(4):
        (folder / f"class{i % 2}").mkdir(exist_ok=True)
        make_video(folder / f"class{i % 2}" / f"v{i}.mp4", NUM_FRAMES, seed=i, options=("-g", "7"))
    return folder


def root_of(videos: Path, root: Path, **options) -> Path:
    options = {"short_sides": (72,), "stores": ("frames-db", "npy", "raw-frames"), "npy_fps": 25.0} | options
    assert convert(plan_folders(videos), root, ConvertOptions(**options), num_workers=1).failures == []
    return root


@pytest.fixture(scope="module")
def root(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root_of(videos, tmp_path_factory.mktemp("root"))


SPEC = ClipSpec(RandomInterval(6, (1, 2)), 72, 96, (72, 72), exact_resolution=True)  # the whole frame


def batches(dataset: ClipDataset, spec: ClipSpec = SPEC, **options) -> list:
    with ClipLoader(dataset, spec, batch_size=2, workers="threads", num_workers=2, max_bad=0.0, **options) as loader:
        return [batch.copied() for batch in loader]


def assert_numbered(found: list) -> None:
    """Every frame shows the number that the batch says."""
    assert len(found) == 2
    for batch in found:
        for clip, indices in zip(batch.frames.numpy(), batch.frame_indices.tolist(), strict=True):
            assert [number_of(frame) for frame in clip] == indices


@pytest.mark.parametrize("store", ["frames-db", "npy", "raw-frames"])
def test_every_store_of_a_root_gives_the_same_stream_of_frames(root: Path, store: str) -> None:
    found = batches(ClipDataset(root, store=store))
    assert_numbered(found)
    reference = batches(ClipDataset(root))
    for one, other in zip(found, reference, strict=True):
        assert (one.video_ids, one.labels.tolist()) == (other.video_ids, other.labels.tolist())
        assert one.frame_indices.equal(other.frame_indices)
        assert np.abs(one.frames.numpy().astype(int) - other.frames.numpy()).mean() < (3 if store == "npy" else 1e-9)


@pytest.mark.parametrize("codec", ["png", "webp"])
@pytest.mark.parametrize("store", ["frames-db", "raw-frames"])
def test_pictures_of_other_codecs(videos: Path, tmp_path: Path, codec: str, store: str) -> None:
    root = root_of(videos, tmp_path, codec=codec, stores=(store,))
    assert_numbered(batches(ClipDataset(root, store=store)))


def test_an_array_at_a_lower_rate_has_its_own_number_of_frames(videos: Path, tmp_path: Path) -> None:
    root = root_of(videos, tmp_path, npy_fps=5.0)
    assert ClipDataset(root, store="npy").num_frames.tolist() == [4] * 4
    assert ClipDataset(root).num_frames.tolist() == [NUM_FRAMES] * 4
    for batch in batches(ClipDataset(root, store="npy"), ClipSpec(Dense(4, 1), 72, 96, (72, 72))):
        assert [[number_of(frame) for frame in clip] for clip in batch.frames.numpy()] == [[2, 7, 12, 17]] * 2


@pytest.mark.parametrize("mirrored", [0.0, 1.0])
def test_mirroring_leaves_an_array_on_disk_as_it_is(root: Path, mirrored: float) -> None:
    spec = ClipSpec(RandomInterval(6, (1,)), 72, 96, (72, 72), flip=mirrored)
    dataset = ClipDataset(root, store="npy")
    before = dataset.path(0).read_bytes()
    first, second = batches(dataset, spec), batches(dataset, spec)
    assert [digest(batch) for batch in first] == [digest(batch) for batch in second]
    assert dataset.path(0).read_bytes() == before


def test_plain_videos_need_no_conversion(videos: Path) -> None:
    dataset = ClipDataset.of_videos(videos)
    assert dataset.class_names == ["class0", "class1"]
    assert dataset.num_frames.tolist() == [NUM_FRAMES] * 4
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert_numbered(batches(dataset))


def test_plain_videos_by_labels_and_split(videos: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("label,youtube_id,time_start,time_end,split\nb,v0,,,train\na,v1,,,train\nb,v2,,,val\n")
    dataset = ClipDataset.of_videos(videos, read_annotations(labels, "labels-csv"), "train")
    assert (dataset.video_ids, dataset.labels.tolist()) == (["v1", "v0"], [0, 1]) or (
        sorted(dataset.video_ids),
        sorted(dataset.labels.tolist()),
    ) == (["v0", "v1"], [0, 1])


def test_plain_videos_that_do_not_open_are_left_out(videos: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(videos, tmp_path / "videos")
    (copy / "class0" / "bad.mp4").write_text("no video")
    assert len(ClipDataset.of_videos(copy)) == 4
    for path in copy.rglob("v*.mp4"):
        path.write_text("no video")
    with pytest.raises(ClipmillError, match="nothing that can be loaded"):
        ClipDataset.of_videos(copy)


@pytest.fixture(scope="module")
def pictures(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of numbered jpg files, as other tools leave them."""
    home = tmp_path_factory.mktemp("pictures")
    for folder in sorted(root.glob("raw_frames/*/*")):
        target = home / folder.parent.name / folder.name
        target.mkdir(parents=True)
        for file in folder.glob("img_*.jpg"):
            shutil.copy(file, target / file.name)
    return home


def test_folders_of_pictures_and_historical_databases(pictures: Path, root: Path, tmp_path: Path) -> None:
    import sqlite3

    home = shutil.copytree(pictures, tmp_path / "mixed")
    folder = home / "class0" / "v0"
    with sqlite3.connect(folder / "frames.db") as db:  # unordered, without key, as dataset2database wrote them
        db.execute("CREATE TABLE Images(ObjId STRING, frames BLOB, size INT)")
        for file in sorted(folder.glob("img_*.jpg"), reverse=True):
            number = int(file.stem[4:])
            db.execute("INSERT INTO Images VALUES(?,?,?)", (f"v0/frame_{number:05d}", file.read_bytes(), 96))
            file.unlink()
    db.close()
    dataset = ClipDataset.of_historical(home)
    assert dataset.class_names == ["class0", "class1"]
    assert dataset.num_frames.tolist() == [NUM_FRAMES] * 4
    found = batches(dataset)
    assert_numbered(found)
    assert [digest(batch) for batch in found] == [
        digest(batch) for batch in batches(ClipDataset(root, store="raw-frames"))
    ]


def test_a_list_of_raw_frames(pictures: Path, tmp_path: Path) -> None:
    listed = tmp_path / "train.txt"
    listed.write_text(f"class0/v0 {NUM_FRAMES} 1\nclass1/v1 300 0\n")
    dataset = ClipDataset.of_frame_list(pictures, read_annotations(listed, "frame-list"))
    assert dataset.num_frames.tolist() == [NUM_FRAMES] * 2  # counted, not believed
    assert dataset.labels.tolist() == [1, 0]
    (batch,) = batches(dataset)
    assert [[number_of(frame) for frame in clip] for clip in batch.frames.numpy()] == batch.frame_indices.tolist()


@pytest.mark.parametrize("store", ["npy", "raw-frames"])
def test_what_goes_away_is_an_error_that_names_the_video(videos: Path, tmp_path: Path, store: str) -> None:
    root = root_of(videos, tmp_path)
    dataset = ClipDataset(root, store=store)
    path = dataset.path(2)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ClipError, match="class1/v1"):
        batches(dataset)


def test_a_damaged_picture_of_another_codec_names_the_frame(videos: Path, tmp_path: Path) -> None:
    root = root_of(videos, tmp_path, codec="png", stores=("raw-frames",))
    for file in root.glob("raw_frames/class0/v0/img_*.png"):
        file.write_bytes(b"\x89PNG nothing")
    with pytest.raises(ClipError, match="undecodable: class0/v0"):
        batches(ClipDataset(root, store="raw-frames"))


def test_a_store_that_the_root_has_not_is_told(videos: Path, tmp_path: Path) -> None:
    root = root_of(videos, tmp_path, stores=("npy",))
    with pytest.raises(ClipmillError, match="in the store frames-db"):
        ClipDataset(root)
    with pytest.raises(ClipmillError, match="there are frames-db, npy, raw-frames"):
        ClipDataset(root, store="tape")


def test_the_picture_of_a_plain_video_is_that_of_the_array(videos: Path, root: Path) -> None:
    spec = ClipSpec(Dense(3, 2), 72, 96, (72, 72), views=(1, 1))
    plain, array = batches(ClipDataset.of_videos(videos), spec), batches(ClipDataset(root, store="npy"), spec)
    assert [digest(batch) for batch in plain] == [digest(batch) for batch in array]


def test_a_colour_order_of_ones_own(root: Path, videos: Path) -> None:
    for dataset in (ClipDataset(root), ClipDataset(root, store="npy"), ClipDataset.of_videos(videos)):
        rgb, bgr = (
            batches(dataset, ClipSpec(Dense(2, 1), 72, 96, (72, 72), colour=colour))[0].frames.numpy()
            for colour in ("RGB", "BGR")
        )
        assert (rgb == bgr[..., ::-1]).all()
        assert cv2.norm(rgb[0, 0], bgr[0, 0]) > 0
