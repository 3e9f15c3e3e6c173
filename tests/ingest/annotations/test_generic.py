"""Lists of many tools, manifests, class folders: what the readers make of the excerpts, row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.annotations.folders import read_class_folders
from ingest.annotations.frame_lists import read_frame_list
from ingest.annotations.manifest import read_manifest
from ingest.annotations.mmaction_json import read_mmaction_json
from ingest.annotations.read import FORMATS, read_annotations, read_several
from ingest.annotations.rows import Annotations, Frames
from ingest.annotations.srtg import read_srtg_csv
from ingest.annotations.video_lists import read_video_list
from ingest.errors import ClipmillError
from tests.ingest.annotations.cases import EXAMPLES

GENERIC, SRTG = EXAMPLES / "generic", EXAMPLES / "generic" / "srtg" / "labels"


def labels_of(found: Annotations) -> dict[str, list[int | None]]:
    labels: dict[str, list[int | None]] = {}
    for row in found.rows:
        labels.setdefault(row.path, []).append(row.class_index)
    return labels


def write(tmp_path: Path, text: str, name: str = "list.txt") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


# -- lists of frame folders --------------------------------------------------------------------------------------------


def test_frame_list() -> None:
    found = read_frame_list(GENERIC / "mmaction_rawframes.txt", template="img_{:05d}.jpg", start_index=1)
    assert labels_of(found) == {"some/directory-1": [1], "some/directory-2": [1]}
    assert found.rows[1].frames == Frames(122, 0, "img_{:05d}.jpg", 1)
    assert (found.rows[0].video_id, found.rows[0].label, found.class_names()) == ("directory-1", "1", ["0", "1"])


def test_frame_list_with_offset_keeps_clips_of_one_video_apart() -> None:
    found = read_annotations(GENERIC / "mmaction_rawframes_with_offset.txt", "frame-list-offset")
    assert [(row.path, row.frames, row.class_index) for row in found.rows] == [
        ("some/long-video-1", Frames(163, 12), 3),
        ("some/long-video-1", Frames(122, 213), 4),
    ]


def test_frame_list_with_several_labels_and_with_none() -> None:
    found = read_annotations(GENERIC / "mmaction_rawframes_multilabel.txt", "frame-list-multilabel")
    assert labels_of(found) == {"some/directory-1": [1, 3, 5], "some/directory-2": [2]}
    found = read_annotations(GENERIC / "mmaction_rawframes_nolabel.txt", "frame-list-nolabel")
    assert labels_of(found) == {"some/directory-1": [None]} and found.rows[0].num_frames == 163


def test_frame_list_of_tsm_of_sbp_and_of_mmaction() -> None:
    tsm = read_frame_list(EXAMPLES / "something_v1" / "tsm_train_videofolder.txt")
    assert [(row.video_id, row.class_index) for row in tsm.rows] == [("100001", 16), ("48002", 120), ("10433", 166)]
    mmaction = read_frame_list(EXAMPLES / "something_v1" / "mmaction_sthv1_train_list_rawframes.txt")
    assert [row.class_index for row in mmaction.rows] == [0, 43, 2]
    sbp = read_frame_list(EXAMPLES / "kinetics" / "sbp_k400_val.txt")
    assert [(row.video_id, row.num_frames, row.class_index) for row in sbp.rows] == [
        ("AbCdEfGhIjK", 300, 0), ("Q1w2E3r4T5-", 300, 161), ("_zYxWvUtSrQ", 300, 196),
    ]  # fmt: skip
    assert sbp.rows[1].path == "hurling_-sport-/Q1w2E3r4T5-.mkv" and sbp.rows[0].split == "val"


def test_frame_list_paths_may_hold_blanks_and_numbers(tmp_path: Path) -> None:
    found = read_frame_list(write(tmp_path, "a b/clip 7 163 1\n"))
    assert labels_of(found) == {"a b/clip 7": [1]}


def test_frame_list_skips_the_line_that_stands_for_an_empty_folder(tmp_path: Path) -> None:
    found = read_frame_list(write(tmp_path, "a/one 12 1\n/data/a/two 1\n"))
    assert labels_of(found) == {"a/one": [1]}
    assert found.skipped[0][0] == 2 and "empty folder" in found.skipped[0][1]


def test_arnet_lists() -> None:
    found = read_annotations(EXAMPLES / "activitynet" / "arnet_actnet_val_split.txt", "arnet")
    assert labels_of(found) == {"v_AbCdEfGhIjK": [100], "v_-a_B1c2D3e4": [178, 159]}
    found = read_annotations(EXAMPLES / "fcvid" / "arnet_fcvid_val_split.txt", "arnet")
    assert labels_of(found) == {"americanFootball/-a_B1c2D3e4": [1, 4]}
    found = read_annotations(EXAMPLES / "activitynet" / "reskd_actnet_png_img_val_split.txt", "frame-list-multilabel")
    assert labels_of(found) == {"v_AbCdEfGhIjK": [100], "v_-a_B1c2D3e4": [178, 159]}


def test_names_come_from_a_class_list(tmp_path: Path) -> None:
    names = write(tmp_path, "apple\npear\n", "classes.txt")
    found = read_frame_list(GENERIC / "mmaction_rawframes.txt", class_list=names)
    assert [row.label for row in found.rows] == ["pear", "pear"]
    with pytest.raises(ClipmillError, match="line 1: the class id is 3, the classes go from 0 to 1"):
        read_annotations(GENERIC / "mmaction_rawframes_with_offset.txt", "frame-list-offset", class_list=names)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [("a\na\n", "c.txt", "line 2: the class 'a' stands on line 1 already"), ("", "c.txt", "is empty"),
     ('{"a": 0, "b": 2}', "c.json", "not 0, 1, 2"), ('{"a": "0"}', "c.json", "key 'a': 'a' is '0', expected int")],
)  # fmt: skip
def test_class_lists_that_are_none(tmp_path: Path, content: str, name: str, message: str) -> None:
    with pytest.raises(ClipmillError, match=message):
        read_frame_list(GENERIC / "mmaction_rawframes.txt", class_list=write(tmp_path, content, name))


# -- lists of videos ---------------------------------------------------------------------------------------------------


def test_video_lists() -> None:
    assert labels_of(read_video_list(GENERIC / "mmaction_videos.txt")) == {
        "some/path/000.mp4": [1],
        "some/path/001.mp4": [2],
    }
    found = read_annotations(GENERIC / "mmaction_videos_multilabel.txt", "video-list-multilabel")
    assert labels_of(found) == {"some/path/000.mp4": [1, 3, 5], "some/path/001.mp4": [2]}
    assert [row.video_id for row in found.rows] == ["000", "000", "000", "001"]


def test_slowfast_csv_is_split_from_the_right() -> None:
    found = read_annotations(GENERIC / "slowfast_kinetics_TRAP_space_in_path.csv", "slowfast")
    assert labels_of(found) == {"/data/k400/val/air drumming/AbCdEfGhIjK_000000_000010.mp4": [1]}
    found = read_annotations(GENERIC / "slowfast_kinetics.csv", "slowfast")
    assert [row.class_index for row in found.rows] == [1, 0]


def test_video_list_without_labels_and_with_minus_one(tmp_path: Path) -> None:
    found = read_video_list(write(tmp_path, "a b/x.mp4\ny.webm -1\nz 3\n"))
    assert labels_of(found) == {"a b/x.mp4": [None], "y.webm": [None], "z": [3]}
    assert found.class_indices() == [-1, -1, 3]


def test_video_list_with_a_delimiter(tmp_path: Path) -> None:
    assert labels_of(read_video_list(write(tmp_path, "a b/x.mp4, 2\n"), delimiter=",")) == {"a b/x.mp4": [2]}


def test_mmaction_json() -> None:
    found = read_mmaction_json(GENERIC / "mmaction_rawframes.json")
    assert labels_of(found) == {"some/directory-1": [1]} and found.rows[0].num_frames == 163
    assert labels_of(read_mmaction_json(GENERIC / "mmaction_videos.json")) == {"some/path/000.mp4": [1]}


# -- manifests ---------------------------------------------------------------------------------------------------------


def test_manifest_jsonl() -> None:
    found = read_manifest(GENERIC / "manifest.jsonl")
    assert [(r.video_id, r.split, r.class_index, r.start_s, r.end_s) for r in found.rows] == [
        ("AbCdEfGhIjK_000095_000105", "train", 0, None, None),
        ("long1#0", "val", 3, 12.0, 22.0),
        ("long1#0", "val", 7, 12.0, 22.0),
        ("frames1", "train", 1, None, None),
        ("video_validation_0000901", "train", 1, 2.0, 4.5),
    ]
    assert found.rows[3].frames == Frames(163, 0, "img_{:05d}.jpg", 1) and found.rows[3].path == "rawframes/frames1"


def test_manifest_csv() -> None:
    found = read_manifest(GENERIC / "manifest.csv")
    assert labels_of(found) == {"abseiling/AbCdEfGhIjK_000095_000105.mp4": [0], "dir, with comma/long1.mp4": [3, 7]}
    assert (found.rows[1].start_s, found.rows[1].end_s, found.rows[1].split) == (12.0, 22.0, "val")


def test_manifest_names_its_classes(tmp_path: Path) -> None:
    text = '{"id": "x", "path": "x.mp4", "labels": [1, 0], "label_names": ["pear", "apple"]}\n'
    assert read_manifest(write(tmp_path, text, "train.jsonl")).class_names() == ["apple", "pear"]
    text += '{"id": "y", "path": "y.mp4", "labels": [1], "label_names": ["plum"]}\n'
    with pytest.raises(ClipmillError, match="line 2: class 1 is called 'plum', before 'pear'"):
        read_manifest(write(tmp_path, text, "train.jsonl"))


@pytest.mark.parametrize(
    ("line", "message"),
    [("[1]", "line 1: .* where an object"), ('{"id": "x"}', "line 1: no 'path' among 'id'"), ("{", "line 1: no valid json"),
     ('{"id": "x", "path": "x", "segments": [3]}', "line 1: 3 where an object"), ('{"id": "x", "path": "x", "start": "b"}', "'b'"),
     ('{"id": "x", "path": "x", "segments": [{"start": 1, "end": 2}]}', "no 'label' among")],
)  # fmt: skip
def test_manifest_lines_that_are_none(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ClipmillError, match=message):
        read_manifest(write(tmp_path, line, "x.jsonl"))


# -- class folders, SRTG -----------------------------------------------------------------------------------------------


def folders(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_class_folders_of_the_example(tmp_path: Path) -> None:
    names = [line.removeprefix("root/") for line in (GENERIC / "folder_per_class.txt").read_text().splitlines()]
    for name in names:
        if name.endswith("/"):
            (tmp_path / name).mkdir(parents=True)
    folders(tmp_path, *(name for name in names if not name.endswith("/")))
    found = read_class_folders(tmp_path)
    assert [(row.path, row.label) for row in found.rows] == [
        ("class a/v1.mp4", "class a"), ("class a/v2.avi", "class a"), ("class_b/v1.mp4", "class_b"),
    ]  # fmt: skip
    assert found.class_names() == ["class a", "class_b", "empty_class"]
    assert found.skipped == [(0, "empty_class is an empty class folder")]


def test_class_folders_below_splits_share_their_ids(tmp_path: Path) -> None:
    found = read_class_folders(folders(tmp_path, "train/pear/x.mp4", "valid/apple/y.mp4", "valid/apple/notes.txt"))
    assert [(row.video_id, row.split) for row in found.rows] == [("x", "train"), ("y", "val")]
    assert found.class_indices() == [1, 0]


def test_a_class_called_test_beside_others_is_a_class(tmp_path: Path) -> None:
    assert read_class_folders(folders(tmp_path, "test/x.mp4", "pear/y.mp4")).class_names() == ["pear", "test"]


def test_class_folders_need_a_folder_and_videos(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match="is not a folder"):
        read_class_folders(tmp_path / "nowhere")
    with pytest.raises(ClipmillError, match=r"lists no video.*empty class folder"):
        read_class_folders(folders(tmp_path, "pear/notes.txt"))


def test_srtg_ids_are_those_of_the_dictionary() -> None:
    found = read_srtg_csv(SRTG / "kinetics-400_train.csv")
    assert found.class_names() == ["air drumming", "abseiling"]
    assert [row.video_id for row in found.rows] == ["-a_B1c2D3e4", "AbCdEfGhIjK", "NotOnDisk00"]


def test_srtg_ids_are_first_seen_without_one_and_val_takes_those_of_train(tmp_path: Path) -> None:
    write(tmp_path, "label,id,split\npear,x,train\napple,y,train\n", "fruit_train.csv")
    val = write(tmp_path, "label,id,split\napple,z,val\n", "fruit_val.csv")
    assert read_srtg_csv(tmp_path / "fruit_train.csv").class_names() == ["pear", "apple"]
    found = read_srtg_csv(val)
    assert found.class_indices() == [1] and found.class_order == "first appearance in fruit_train.csv"
    (tmp_path / "fruit_train.csv").unlink()
    with pytest.raises(ClipmillError, match=r"neither fruit_dictionary\.json nor fruit_train\.csv"):
        read_srtg_csv(val)


def test_srtg_csv_of_other_datasets() -> None:
    rows = read_srtg_csv(SRTG / "HACS_clips_v1.1_train.csv").rows
    assert (rows[0].video_id, rows[0].start_s, rows[0].end_s) == ("AbCdEfGhIjK", 15.5, 17.5)
    assert read_srtg_csv(SRTG / "ucf101_split1_train.csv").rows[0].video_id == "v_ApplyEyeMakeup_g08_c01"


def test_files_of_one_format_are_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "k400_train.txt").write_text("a.mp4 300 0\nb.mp4 300 2\n")
    (tmp_path / "k400_val.txt").write_text("c.mp4 300 1\n")
    files = [tmp_path / "k400_val.txt", tmp_path / "k400_train.txt"]
    found = read_several(files, "frame-list")
    assert [(row.path, row.split, row.label) for row in found.rows] == [
        ("c.mp4", "val", "1"), ("a.mp4", "train", "0"), ("b.mp4", "train", "2")
    ]  # fmt: skip
    assert found.class_names() == ["0", "1", "2"] and found.class_indices() == [1, 0, 2]


def test_files_with_classes_in_another_order_are_not(tmp_path: Path) -> None:
    parts = {"one": ["b", "a"], "two": ["a", "b"]}

    def reader(path: Path) -> Annotations:
        return Annotations(str(path), classes=parts[path.stem])

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, "toy", reader)
        with pytest.raises(ClipmillError, match=r"two\.json has other classes"):
            read_several([tmp_path / "one.json", tmp_path / "two.json"], "toy")
