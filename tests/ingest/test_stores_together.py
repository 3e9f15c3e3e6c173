"""One decode for all stores: codecs, pixel aspect, raw frames; what one pass writes equals what several write."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ingest.annotations.read import read_annotations
from ingest.convert import convert
from ingest.errors import ClipmillError
from ingest.options import STORES, ConvertOptions
from ingest.plan import plan_folders, plan_labels
from ingest.scaling import Scaler, to_rgb
from ingest.stores import frames_db, frames_npy, raw_frames
from ingest.verify import verify
from ingest.video import Video
from tests.ingest.videos import make_video, number_of


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in ("one", "two"):
        (folder / name).mkdir()
        make_video(folder / name / f"{name}.mp4", 20, size=(130, 98), seed=len(name))
    return folder


def run(videos: Path, root: Path, *, workers: int = 1, **options) -> Path:
    report = convert(plan_folders(videos), root, ConvertOptions(**options), num_workers=workers)
    assert report.failures == []
    return root


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith("catalog.db")
    }


def blobs(root: Path, level: int = 0) -> list[bytes]:
    with contextlib.closing(frames_db.connect(root / "jpg/one/one/frames.db")) as db:
        meta = frames_db.read_meta(db)
        return frames_db.read_frames(db, meta["levels"][level], np.arange(meta["num_frames"]))


@pytest.mark.parametrize("codec", ["jpeg", "png", "webp"])
def test_one_pass_writes_what_separate_passes_write(videos: Path, tmp_path: Path, codec: str) -> None:
    together = files(run(videos, tmp_path / "all", short_sides=(96, 48), stores=STORES, codec=codec))
    apart: dict[str, bytes] = {}
    for store in STORES:
        apart |= files(run(videos, tmp_path / store, short_sides=(96, 48), stores=(store,), codec=codec))
    assert together == apart
    levels = {side: blobs(run(videos, tmp_path / str(side), short_sides=(side,), codec=codec)) for side in (96, 48)}
    assert [blobs(tmp_path / "all", i) for i in (0, 1)] == [levels[96], levels[48]]


@pytest.mark.parametrize(("codec", "suffix"), [("jpeg", ".jpg"), ("png", ".png"), ("webp", ".webp")])
def test_raw_frames_are_the_files_of_the_largest_level(videos: Path, tmp_path: Path, codec: str, suffix: str) -> None:
    root = run(videos, tmp_path, short_sides=(96, 48), stores=STORES, codec=codec)
    folder = root / "raw_frames/one/one"
    names = [raw_frames.frame_name(i, suffix) for i in range(20)]
    assert sorted(path.name for path in folder.iterdir()) == sorted([raw_frames.MANIFEST, *names])
    assert [(folder / name).read_bytes() for name in names] == blobs(root)
    pictures = [cv2.imread(str(folder / name)) for name in names]
    assert [number_of(picture) for picture in pictures] == list(range(20))
    assert pictures[0].shape == (96, 127, 3)
    meta = raw_frames.read_meta(folder)
    assert (meta["codec"], meta["num_frames"], meta["frames"]["pts_us"][:3]) == (codec, 20, [0, 40_000, 80_000])


def test_png_loses_nothing_of_what_was_scaled(videos: Path, tmp_path: Path) -> None:
    root = run(videos, tmp_path, short_sides=(48,), codec="png")
    with Video(videos / "one/one.mp4") as video:
        frame = next(itertools.islice(video.frames(), 5, None))
        true = to_rgb(*Scaler((64, 48), "4:4:4")(frame))
    picture = cv2.imdecode(np.frombuffer(blobs(root)[5], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (picture == true).all()


def test_webp_holds_the_same_picture_in_fewer_bytes(videos: Path, tmp_path: Path) -> None:
    webp, jpeg = (blobs(run(videos, tmp_path / codec, short_sides=(98,), codec=codec))[5] for codec in ("webp", "jpeg"))
    pictures = [cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR).astype(int) for blob in (webp, jpeg)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 4
    assert len(webp) < len(jpeg)


def test_the_array_holds_the_pixels_of_png_at_full_rate_but_for_chroma(videos: Path, tmp_path: Path) -> None:
    root = run(videos, tmp_path, short_sides=(98,), codec="png", stores=("frames-db", "npy"), npy_fps=25)
    array = frames_npy.open_frames(root / "rgb_npy/one.npy")
    picture = cv2.imdecode(np.frombuffer(blobs(root)[7], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(array[7].astype(int) - picture).mean() < 1.5


@pytest.mark.parametrize(("sar", "size"), [("2/1", (192, 72)), ("1/2", (48, 72)), ("12/11", (105, 72))])
def test_square_pixels_if_asked(tmp_path: Path, sar: str, size: tuple[int, int]) -> None:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in/v.mp4", 4, options=("-vf", f"setsar={sar}"))  # 96x72
    short = min(size)
    for aspect, expected in (("square", size), ("keep", (96, 72))):
        root = tmp_path / aspect
        convert(
            plan_folders(tmp_path / "in"),
            root,
            ConvertOptions((short if aspect == "square" else 72,), stores=STORES, aspect=aspect),
            num_workers=1,
        )
        with contextlib.closing(frames_db.connect(root / "jpg/_/v/frames.db")) as db:
            meta = frames_db.read_meta(db)
        assert (meta["aspect"], meta["sample_aspect"]) == (aspect, sar.removesuffix("/1"))
        (level,) = meta["levels"]
        assert (level.width, level.height) == (meta["width"], meta["height"]) == expected
        assert frames_npy.open_frames(root / "rgb_npy/v.npy").shape[1:3] == expected[::-1]


def test_lists_of_raw_frames_are_read_back_by_our_own_reader(videos: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("label,youtube_id,time_start,time_end,split\nb,one,,,train\na,two,,,val\na,one,,,train\n")
    plan = plan_labels(videos, read_annotations(labels, "labels-csv"))
    convert(plan, tmp_path / "root", ConvertOptions((48,), stores=("raw-frames",)), num_workers=1)
    home = tmp_path / "root/raw_frames"
    assert (home / "train.txt").read_text() == "_/one 20 0 1\n"
    assert (home / "val.txt").read_text() == "a/two 20 0\n"
    rows = read_annotations(home / "train.txt", "frame-list-multilabel").rows
    assert [(row.path, row.frames.num_frames, row.class_index) for row in rows] == [("_/one", 20, 0), ("_/one", 20, 1)]
    # The lists follow the labels: again with others, nothing is decoded.
    labels.write_text("label,youtube_id,time_start,time_end,split\na,one,,,test\na,two,,,test\n")
    plan = plan_labels(videos, read_annotations(labels, "labels-csv"))
    convert(plan, tmp_path / "root", ConvertOptions((48,), stores=("raw-frames",)), num_workers=1)
    assert "a/one 20 0" in (home / "test.txt").read_text()


def test_a_store_that_is_added_later_leaves_the_others_as_they_are(videos: Path, tmp_path: Path) -> None:
    root = run(videos, tmp_path, short_sides=(48,))
    before = (root / "jpg/one/one/frames.db").stat().st_ino
    run(videos, root, short_sides=(48,), stores=("frames-db", "raw-frames"))
    assert (root / "jpg/one/one/frames.db").stat().st_ino == before
    assert verify(root, num_workers=1, deep=True).findings == []
    report = convert(
        plan_folders(videos), root, ConvertOptions((48,), stores=("frames-db", "raw-frames")), num_workers=1
    )
    assert (report.progress.skipped, report.progress.done) == (2, 0)


def test_other_raw_frames_replace_the_old_ones_altogether(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path, short_sides=(48,), stores=("raw-frames",))
    run(videos, tmp_path, short_sides=(48,), stores=("raw-frames",), fps=5, codec="png")
    folder = tmp_path / "raw_frames/one/one"
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", *[".png"] * 4]
    assert [path.name for path in folder.parent.iterdir()] == ["one"]
    assert verify(tmp_path, num_workers=1).findings == []


def test_built_in_a_scratch_folder_the_result_is_the_same_and_nothing_is_left(videos: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    plan, options = plan_folders(videos), ConvertOptions((96, 48), stores=STORES)
    report = convert(plan, tmp_path / "moved", options, num_workers=2, scratch=scratch)
    assert report.failures == []
    assert list(scratch.iterdir()) == []
    assert files(tmp_path / "moved") == files(run(videos, tmp_path / "plain", short_sides=(96, 48), stores=STORES))


def test_a_scratch_folder_that_cannot_be_is_an_error(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClipmillError, match="scratch folder"):
        convert(
            plan_folders(videos), tmp_path / "root", ConvertOptions((48,)), num_workers=1, scratch=tmp_path / "file"
        )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("flip", "checksum of img_00004.jpg differs"),
        ("cut", "img_00004.jpg has"),
        ("remove", "img_00004.jpg is not there"),
        ("add", "1 files more than frames"),
        ("manifest", "frames.json"),
        ("folder", "is not there"),
    ],
)
def test_verify_finds_damage_in_raw_frames_and_repair_mends_them_alone(
    videos: Path, tmp_path: Path, damage: str, message: str
) -> None:
    from ingest.repair import repair

    root = run(videos, tmp_path, short_sides=(48,), stores=STORES)
    whole = files(root)
    folder = root / "raw_frames/one/one"
    file = folder / "img_00004.jpg"
    if damage == "flip":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "remove":
        file.unlink()
    elif damage == "add":
        (folder / "img_00021.jpg").write_bytes(b"x")
    elif damage == "manifest":
        (folder / raw_frames.MANIFEST).write_text("{")
    else:
        folder.rename(tmp_path / "away")
    inodes = {path: path.stat().st_ino for path in (root / "jpg/one/one/frames.db", root / "rgb_npy/one.npy")}
    report = verify(root, num_workers=1)
    assert [(f.video_id, f.kind) for f in report.findings] == [("one", "raw frames")]
    assert message in report.findings[0].message
    mended = repair(root, report.findings, num_workers=1)
    assert [video.video_id for video in mended.mended] == ["one"]
    whole.pop("away", None)
    assert {name: data for name, data in files(root).items() if not name.startswith("away/")} == whole
    assert {path: path.stat().st_ino for path in inodes} == inodes
    assert verify(root, num_workers=1, deep=True).findings == []


def test_frames_json_is_plain_json_with_a_line_at_its_end(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path, short_sides=(48,), stores=("raw-frames",))
    text = (tmp_path / "raw_frames/one/one/frames.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text)["settings"] == ConvertOptions((48,), stores=("raw-frames",)).settings
