"""Clips cut out of untrimmed sources: frame-exact, whatever the container and the distance between key frames."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from ingest.annotations.labels_csv import read_labels_csv
from ingest.catalog import VideoKey
from ingest.convert import convert
from ingest.errors import ClipmillError, VideoError
from ingest.options import ConvertOptions
from ingest.plan import plan_labels
from ingest.scaling import Scaler
from ingest.stores import frames_db
from ingest.video import Video, timed_frames
from tests.ingest.videos import make_video, number_of

NUM_FRAMES, FPS = 120, 25
CONTAINERS = {
    "key frame every 10": ("long.mp4", {"options": ("-g", "10", "-bf", "2")}),
    "one key frame": ("long.mp4", {"options": ("-g", "1000", "-bf", "3")}),
    "open groups of pictures": ("long.mp4", {"options": ("-g", "12", "-bf", "2", "-x264-params", "open-gop=1")}),
    "matroska": ("long.mkv", {"options": ("-g", "10")}),
    "avi": ("long.avi", {"codec": "mpeg4", "options": ("-g", "10")}),
    "transport stream": ("long.ts", {"options": ("-g", "10", "-bf", "2")}),
}


@pytest.fixture(scope="module", params=CONTAINERS, ids=lambda name: name.replace(" ", "-"))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, how = CONTAINERS[request.param]
    return make_video(tmp_path_factory.mktemp("long") / name, NUM_FRAMES, fps=FPS, **how)


def numbers(path: Path, span_s: tuple[float, float] | None) -> list[int]:
    with Video(path) as video:
        return [
            number_of(Scaler((96, 72))(frame)[0][..., None].repeat(3, 2)) for _, frame in timed_frames(video, span_s)
        ]


def times_us(path: Path, span_s: tuple[float, float] | None) -> list[int]:
    with Video(path) as video:
        return [now_us for now_us, _ in timed_frames(video, span_s)]


@pytest.mark.parametrize("span_s", [(0.0, 0.4), (1.0, 2.2), (0.39, 0.85), (3.0, 4.0), (4.4, 99.0), (0.0, 99.0)])
def test_a_cut_gives_the_frames_that_the_whole_video_shows_in_the_span(
    source: Path, span_s: tuple[float, float]
) -> None:
    all_numbers, all_times = numbers(source, None), times_us(source, None)
    assert all_numbers == list(range(NUM_FRAMES))
    inside = [
        number for number, now in zip(all_numbers, all_times, strict=True) if span_s[0] * 1e6 <= now < span_s[1] * 1e6
    ]
    assert inside
    assert numbers(source, span_s) == inside
    assert times_us(source, span_s) == [now for now in all_times if span_s[0] * 1e6 <= now < span_s[1] * 1e6]


def test_a_span_behind_the_end_is_an_error_that_says_where_the_video_ends(source: Path) -> None:
    with pytest.raises(VideoError, match="begins after the last frame") as error:
        numbers(source, (50.0, 60.0))
    assert error.value.reason == "no frames"


@pytest.fixture(scope="module")
def untrimmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrimmed")
    (folder / "videos").mkdir()
    make_video(folder / "videos" / "abc.mp4", NUM_FRAMES, fps=FPS, options=("-g", "10"))
    make_video(folder / "videos" / "trimmed_000001_000002.mp4", 25, fps=FPS)
    (folder / "labels.csv").write_text(
        "label,youtube_id,time_start,time_end,split\n"
        "apple,abc,1,2,train\nplum,abc,2.5,3.5,train\napple,abc,60,70,train\npear,trimmed,1,2,val\n"
    )
    return folder


def test_cut_makes_a_clip_of_every_span_and_takes_trimmed_files_as_they_are(untrimmed: Path, tmp_path: Path) -> None:
    labels = read_labels_csv(untrimmed / "labels.csv")
    plan = plan_labels(untrimmed / "videos", labels, cut=True)
    report = convert(plan, tmp_path / "root", ConvertOptions((72,)), num_workers=1)
    assert [failure[1:3] for failure in report.failures] == [("abc_000060_000070", "no frames")]
    found = {path.parent.name: path for path in (tmp_path / "root").glob("jpg/*/*/frames.db")}
    assert found.keys() == {"abc_000001_000002", "abc_000002_000003", "trimmed_000001_000002"}
    for name, first in (("abc_000001_000002", 25), ("abc_000002_000003", 63)):  # 2.5 s lies between frames 62 and 63
        assert list(frames_db.check(found[name])) == []
        with contextlib.closing(frames_db.connect(found[name])) as db:
            meta = frames_db.read_meta(db)
            blobs = frames_db.read_frames(db, meta["levels"][0], np.arange(meta["num_frames"]))
            assert [number_of(blob) for blob in blobs] == list(range(first, first + 25))
            assert frames_db.read_pts_us(db)[0] == first * 40_000
            assert meta["span_start_s"] in (1.0, 2.5)
    again = convert(
        plan_labels(untrimmed / "videos", labels, cut=True), tmp_path / "root", ConvertOptions((72,)), num_workers=1
    )
    assert (again.progress.skipped, again.progress.done) == (3, 0)


def test_a_moved_span_is_cut_anew_and_the_others_are_left(untrimmed: Path, tmp_path: Path) -> None:
    def run(text: str) -> int:
        (tmp_path / "labels.csv").write_text(text)
        plan = plan_labels(untrimmed / "videos", read_labels_csv(tmp_path / "labels.csv"), cut=True)
        return convert(plan, tmp_path / "root", ConvertOptions((72,)), num_workers=1).progress.done

    header = "label,youtube_id,time_start,time_end\n"
    assert run(header + "apple,abc,1,2\nplum,abc,2.5,3.5\n") == 2
    assert run(header + "apple,abc,1,2\nplum,abc,2.6,3.5\n") == 1


def test_without_cut_the_whole_file_is_taken_once(untrimmed: Path) -> None:
    plan = plan_labels(untrimmed / "videos", read_labels_csv(untrimmed / "labels.csv"))
    assert {job.key for job in plan.jobs} == {VideoKey("", "abc"), VideoKey("pear", "trimmed_000001_000002")}
    assert all(job.span_s is None for job in plan.jobs)


def test_two_spans_with_one_name_and_a_span_that_ends_before_it_starts_are_refused(
    untrimmed: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("label,youtube_id,time_start,time_end\napple,abc,1.2,3\napple,abc,1.7,3.5\n")
    with pytest.raises(ClipmillError, match=r"1.2 to 3 s.*1.7 to 3.5 s"):
        plan_labels(untrimmed / "videos", read_labels_csv(labels), cut=True)
    labels.write_text("label,youtube_id,time_start,time_end\napple,abc,3,2\n")
    with pytest.raises(ClipmillError, match="line 2"):
        plan_labels(untrimmed / "videos", read_labels_csv(labels), cut=True)
