"""The plan: files joined with labels, names that survive as folders, and two videos that must not share one."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from ingest.annotations.rows import Annotations, LabelRow
from ingest.catalog import VideoKey
from ingest.errors import ClipmillError
from ingest.layout import encode_component, frames_db_path, video_dir
from ingest.plan import Plan, describe, plan_folders, plan_labels

NON_UTF8 = os.fsdecode(b"caf\xe9")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def labels(*rows: tuple) -> Annotations:
    """Rows of (label, id[, split[, start_s, end_s]])."""
    found = Annotations("labels.csv")
    for line, row in enumerate(rows, start=2):
        label, video_id, split, start_s, end_s = (*row, *("", "", "train", None, None)[len(row) :])
        found.rows.append(LabelRow(video_id, label, split, start_s, end_s, line))
    return found


def keys(plan: Plan) -> list[tuple[str, str]]:
    return [(job.key.class_name, job.key.video_id) for job in plan.jobs]


# -- names as path components ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("apple", "apple"),
        ("pear tree", "pear tree"),
        ('it\'s "so"', 'it\'s "so"'),
        ("太極拳", "太極拳"),
        ("a/b", "a%2Fb"),
        ("a\\b", "a%5Cb"),
        ("100%", "100%25"),
        ("a\nb\tc\0d\x7f", "a%0Ab%09c%00d%7F"),
        (".", "%2E"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("_", "%5F"),
        ("__", "__"),
        ("-dash", "-dash"),
        ("*?[x]", "*?[x]"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
    ],
)
def test_what_a_path_cannot_hold_is_percent_encoded(name: str, component: str) -> None:
    assert encode_component(name) == component
    assert unquote(component) == name


def test_different_names_never_share_a_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    alphabet = list("ab/%_.2F5\\\n ")
    names = {"".join(rng.choice(alphabet, rng.integers(1, 6))) for _ in range(3000)}
    assert len({encode_component(name) for name in names}) == len(names)
    for name in list(names)[:100]:
        folder = tmp_path / encode_component(name)
        folder.mkdir()
        assert folder.parent == tmp_path


def test_a_name_that_is_empty_or_too_long_is_refused() -> None:
    with pytest.raises(ClipmillError, match="empty name"):
        encode_component("")
    assert len(encode_component("x" * 255)) == 255
    for long in ("x" * 256, "é" * 128, "/" * 86):
        with pytest.raises(ClipmillError, match="at most 255"):
            encode_component(long)


def test_where_a_video_lies(tmp_path: Path) -> None:
    assert frames_db_path(tmp_path, "a/b", "x") == tmp_path / "jpg" / "a%2Fb" / "x" / "frames.db"
    assert video_dir(tmp_path, "", "x") == tmp_path / "jpg" / "_" / "x"
    assert video_dir(tmp_path, "_", "x") == tmp_path / "jpg" / "%5F" / "x"


# -- folders -----------------------------------------------------------------------------------------------------------


def test_the_first_folder_is_the_class(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.mp4", "b/1.mkv", "a/deep/er/3.AVI", "top.webm", "a/notes.txt", "a/.hidden.mp4", ".git/x.mp4")
    plan = plan_folders(tmp_path)
    assert keys(plan) == [("", "top"), ("a", "3"), ("b", "1"), ("b", "2")]
    assert plan.class_names == ["a", "b"]
    assert plan.labels == [(job.key, job.key.class_name, "", None, None) for job in plan.jobs[1:]]


def test_folders_reached_through_a_link_count(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.mp4")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "apple").symlink_to(tmp_path / "elsewhere")
    assert keys(plan_folders(tmp_path / "videos")) == [("apple", "1")]


def test_only_the_last_suffix_is_cut(tmp_path: Path) -> None:
    assert keys(plan_folders(touch(tmp_path, "a/v1.2.final.mp4"))) == [("a", "v1.2.final")]


@pytest.mark.parametrize("other", ["a/x.mkv", "a/sub/x.mp4", "a/x.MP4"])
def test_two_files_with_one_id_in_one_class_are_both_named(tmp_path: Path, other: str) -> None:
    touch(tmp_path, "a/x.mp4", other, "b/x.mp4")
    with pytest.raises(ClipmillError) as caught:
        plan_folders(tmp_path)
    assert str(tmp_path / "a/x.mp4") in caught.value.what
    assert str(tmp_path / other) in caught.value.what


def test_the_same_id_in_two_classes_is_fine(tmp_path: Path) -> None:
    assert keys(plan_folders(touch(tmp_path, "a/x.mp4", "b/x.mp4"))) == [("a", "x"), ("b", "x")]


def test_a_source_that_is_absent_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match="is not a folder"):
        plan_folders(tmp_path / "nowhere")
    with pytest.raises(ClipmillError, match="holds no video file"):
        plan_folders(touch(tmp_path, "a/readme.txt"))


@pytest.mark.parametrize(
    "name", ["with space", "it's", 'a "b"', "日本", "e\u0301", "a;b&c|d$(e)", "*", "x\ny", "-rf", "50%"]
)
def test_any_name_on_disk_becomes_an_id_and_a_class(tmp_path: Path, name: str) -> None:
    plan = plan_folders(touch(tmp_path, f"{name}/{name}.mp4"))
    assert keys(plan) == [(name, name)]
    assert plan.jobs[0].source.exists()
    assert unquote(video_dir(tmp_path, name, name).name) == name


def test_names_that_are_no_utf_8_are_shown_escaped_and_still_found(tmp_path: Path) -> None:
    plan = plan_folders(touch(tmp_path, f"{NON_UTF8}/{NON_UTF8}.mp4"))
    assert keys(plan) == [("caf\\xe9", "caf\\xe9")]
    assert plan.jobs[0].source.exists()
    plan.jobs[0].source_text.encode()  # fit for a database and a terminal
    describe([job.source for job in plan.jobs]).encode()


def test_an_id_too_long_for_a_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    touch(tmp_path, f"a/{'%' * 100}.mp4")
    with pytest.raises(ClipmillError, match="at most 255"):
        plan_folders(tmp_path)


# -- labels ------------------------------------------------------------------------------------------------------------


def test_labels_find_files_wherever_they_lie(tmp_path: Path) -> None:
    touch(tmp_path, "x.mp4", "some/where/y.mkv")
    plan = plan_labels(tmp_path, labels(("apple", "x", "train"), ("pear", "y", "val")))
    assert keys(plan) == [("apple", "x"), ("pear", "y")]
    assert plan.labels == [
        (VideoKey("apple", "x"), "apple", "train", None, None), (VideoKey("pear", "y"), "pear", "val", None, None),
    ]  # fmt: skip
    assert plan.class_names == ["apple", "pear"]


def test_a_time_suffix_is_preferred_and_kept_in_the_id(tmp_path: Path) -> None:
    touch(tmp_path, "a/x_000003_000013.mp4", "a/x.mp4", "a/y.mp4")
    plan = plan_labels(tmp_path, labels(("a", "x", "train", 3.0, 13.7), ("a", "y", "train", 3.0, 13.0)))
    assert keys(plan) == [("a", "x_000003_000013"), ("a", "y")]
    assert plan.unlisted == [tmp_path / "a/x.mp4"]


def test_two_clips_of_one_source_are_two_videos(tmp_path: Path) -> None:
    touch(tmp_path, "a/x_000000_000010.mp4", "a/x_000020_000030.mp4")
    plan = plan_labels(tmp_path, labels(("a", "x", "train", 0.0, 10.0), ("a", "x", "val", 20.0, 30.0)))
    assert keys(plan) == [("a", "x_000000_000010"), ("a", "x_000020_000030")]


@pytest.mark.parametrize("folder", ["pear tree", "pear_tree"])
def test_of_two_files_with_one_id_the_folder_of_the_label_decides(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, f"{folder}/x.mp4", "other/x.mp4")
    plan = plan_labels(tmp_path, labels(("pear tree", "x")))
    assert [job.source for job in plan.jobs] == [tmp_path / folder / "x.mp4"]
    assert plan.unlisted == [tmp_path / "other/x.mp4"]


def test_two_files_with_one_id_are_both_named_where_nothing_decides(tmp_path: Path) -> None:
    touch(tmp_path, "one/x.mp4", "two/x.mkv")
    with pytest.raises(ClipmillError) as caught:
        plan_labels(tmp_path, labels(("apple", "x")))
    assert str(tmp_path / "one/x.mp4") in caught.value.what
    assert str(tmp_path / "two/x.mkv") in caught.value.what


def test_missing_and_unlisted_are_both_told(tmp_path: Path) -> None:
    touch(tmp_path, "x.mp4", "stray.mp4")
    plan = plan_labels(tmp_path, labels(("apple", "x"), ("apple", "gone", "val"), ("pear", "gone", "val")))
    assert list(plan.missing) == [VideoKey("apple", "gone"), VideoKey("pear", "gone")]
    assert (VideoKey("pear", "gone"), "pear", "val", None, None) in plan.labels
    assert plan.unlisted == [tmp_path / "stray.mp4"]


def test_a_video_with_two_labels_lies_in_no_class(tmp_path: Path) -> None:
    plan = plan_labels(touch(tmp_path, "x.mp4"), labels(("pear", "x"), ("apple", "x")))
    assert keys(plan) == [("", "x")]
    assert video_dir(tmp_path, "", "x") == tmp_path / "jpg" / "_" / "x"
    assert [label for _, label, *_ in plan.labels] == ["pear", "apple"]


def test_several_segments_of_one_class_stay_in_that_class(tmp_path: Path) -> None:
    plan = plan_labels(touch(tmp_path, "x.mp4"), labels(("a", "x", "val", 1.0, 2.0), ("a", "x", "val", 5.0, 6.0)))
    assert keys(plan) == [("a", "x")]
    assert [(start, end) for *_, start, end in plan.labels] == [(1.0, 2.0), (5.0, 6.0)]


def test_labels_of_any_spelling_are_kept(tmp_path: Path) -> None:
    plan = plan_labels(touch(tmp_path, "x.mp4"), labels(("push/pull 50%", "x")))
    assert keys(plan) == [("push/pull 50%", "x")]


def test_a_label_too_long_for_a_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match="at most 255"):
        plan_labels(touch(tmp_path, "x.mp4"), labels(("long " * 60, "x")))


def test_labels_that_match_no_file_at_all_are_refused_with_an_example(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError) as caught:
        plan_labels(touch(tmp_path, "stray.mp4"), labels(("apple", "gone")))
    assert "'gone'" in caught.value.next_step
    assert "stray.mp4" in caught.value.next_step


def test_notes_of_the_reader_are_passed_on(tmp_path: Path) -> None:
    found = labels(("apple", "x"))
    found.skipped.append((7, "x is listed twice"))
    assert plan_labels(touch(tmp_path, "x.mp4"), found).notes == ["line 7: x is listed twice"]
