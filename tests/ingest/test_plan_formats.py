"""Annotation files of real data sets joined with the files as their archives name them. No file is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.annotations.read import read_annotations
from ingest.catalog import VideoKey
from ingest.errors import ClipmillError
from ingest.plan import Plan, plan_labels

EXAMPLES = Path(__file__).parent / "examples"


def plan(source: Path, files: list[str], labels: str, label_format: str, **options: bool) -> Plan:
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    return plan_labels(source, read_annotations(EXAMPLES / labels, label_format), **options)


def keys(plan: Plan) -> set[VideoKey]:
    return {job.key for job in plan.jobs}


def test_thumos_videos_stay_whole_in_no_class_with_all_their_segments(tmp_path: Path) -> None:
    names = ["validation/video_validation_0000901.mp4", "validation/video_validation_0000902.mp4"]
    made = plan(tmp_path, names, "thumos14/annotation_val", "thumos14")
    assert keys(made) == {VideoKey("", Path(name).stem) for name in names}
    segments = [label[1:] for label in made.labels if label[0].video_id == "video_validation_0000901"]
    assert ("BaseballPitch", "val", 2.0, 4.5) in segments and ("BaseballPitch", "val", 6.1, 7.3) in segments
    assert made.missing == {}


def test_hacs_segments_find_the_crawlers_v_names(tmp_path: Path) -> None:
    made = plan(tmp_path, ["v_AbCdEfGhIjK.mp4", "v_--_start_id.mp4"], "hacs/HACS_segments_v1.1.1.json", "hacs-segments")
    assert keys(made) == {VideoKey("", "v_AbCdEfGhIjK"), VideoKey("", "v_--_start_id")}
    assert VideoKey("", "_zYxWvUtSrQ") in made.missing


def test_hacs_clips_are_cut_out_of_their_sources(tmp_path: Path) -> None:
    made = plan(tmp_path, ["v_AbCdEfGhIjK.mp4"], "hacs/HACS_clips_v1.1.1.csv", "hacs-clips", cut=True)
    assert made.jobs and all(job.span_s is not None and job.key.class_name for job in made.jobs)
    assert all(job.key.video_id.startswith("AbCdEfGhIjK_0000") for job in made.jobs)


def test_ucf101_names_differ_in_capitals_between_list_and_archive(tmp_path: Path) -> None:
    rows = read_annotations(EXAMPLES / "ucf101" / "ucfTrainTestlist", "ucf101").rows
    files = [f"{row.label.lower()}/{row.video_id.lower()}.avi" for row in rows]
    made = plan(tmp_path, files, "ucf101/ucfTrainTestlist", "ucf101")
    assert len(made.jobs) == len(rows)
    assert made.missing == {}


def test_a_list_with_paths_takes_exactly_these_files(tmp_path: Path) -> None:
    files = ["some/path/000.mp4", "some/path/001.mp4", "other/000.mp4"]
    made = plan(tmp_path, files, "generic/mmaction_videos.txt", "video-list")
    assert [job.source for job in made.jobs] == [tmp_path / "some/path/000.mp4", tmp_path / "some/path/001.mp4"]
    assert made.unlisted == [tmp_path / "other/000.mp4"]


def test_names_that_differ_in_capitals_only_are_told_apart_when_both_are_there(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("label,youtube_id\na,Abc\na,abC\n")
    for name in ("Abc", "abC"):
        (tmp_path / f"{name}.mp4").touch()
    made = plan_labels(tmp_path, read_annotations(labels, "labels-csv"))
    assert [job.source.stem for job in made.jobs] == ["Abc", "abC"]
    labels.write_text("label,youtube_id\na,ABC\n")
    with pytest.raises(ClipmillError, match="two videos have the id"):
        plan_labels(tmp_path, read_annotations(labels, "labels-csv"))


def test_every_label_of_a_missing_video_is_kept(tmp_path: Path) -> None:
    made = plan(tmp_path, ["video_validation_0000902.mp4"], "thumos14/annotation_val", "thumos14")
    gone = VideoKey("", "video_validation_0000901")
    assert gone in made.missing
    assert len([label for label in made.labels if label[0] == gone]) == 3
