"""Per-frame targets: both rules against the vectors, and the arithmetic on paper."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ingest.annotations.hacs import read_hacs_segments
from ingest.annotations.hdd import HDD_CLASSES, read_hdd
from ingest.annotations.rows import Annotations, LabelRow
from ingest.annotations.thumos14 import THUMOS_CLASSES, read_thumos14
from ingest.annotations.tvseries import TVSERIES_CLASSES, read_tvseries
from ingest.errors import ClipmillError
from ingest.targets import (
    DataInfo,
    Rule,
    Segment,
    frame_targets,
    num_target_rows,
    row_span,
    target_classes,
    target_path,
    video_targets,
    write_data_info,
    write_targets,
)
from tests.ingest.annotations.cases import EXAMPLES


def columns(rows: np.ndarray) -> list[list[int]]:
    """The columns that are 1, of every row."""
    assert set(np.unique(rows)) <= {0, 1} and rows.dtype == np.int64
    return [np.flatnonzero(row).tolist() for row in rows]


def ones(start_s: float, end_s: float, num_rows: int = 12, rule: Rule = "half-open", rate: float = 4.0) -> list[int]:
    """Rows of one segment of class 1."""
    rows = frame_targets([Segment(start_s, end_s, 1)], num_rows, 2, rate=rate, rule=rule).rows
    assert (rows.sum(axis=1) == 1).all()
    return np.flatnonzero(rows[:, 1]).tolist()


# -- vectors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "key"),
    [("thumos-reference", "inclusive_end_reference"), ("half-open", "half_open_floor_ceil_author_rule")],
)
def test_thumos_excerpt(rule: Rule, key: str) -> None:
    expected = json.loads((EXAMPLES / "thumos14" / "expected_targets_4fps.json").read_text())
    expected = {video: item for video, item in expected.items() if not video.startswith("_")}
    found = read_thumos14(EXAMPLES / "thumos14" / "csv_form" / "val_Annotation.csv")
    num_rows = {video: num_target_rows(item["decoded_frames"], 30) for video, item in expected.items()}
    made = dict(video_targets(found, num_rows, rule=rule))
    assert set(made) == set(expected) and len(expected) == 2
    for video, item in expected.items():
        assert made[video].rows.shape == (item["T"], item["C"])
        wanted = [item[key].get(str(row), [0]) for row in range(item["T"])]
        assert columns(made[video].rows) == wanted
    assert made["video_validation_0000901"].clipped == []
    assert [(segment.column, what) for segment, what in made["video_validation_0000902"].clipped] == [
        (8, "cut to the 40 rows of the video")
    ]


def test_the_generator_of_sbp() -> None:
    vectors = json.loads((EXAMPLES / "thumos14" / "sbp_generator_targets.json").read_text())
    names = vectors["class_names"]
    assert names == list(THUMOS_CLASSES)
    for video, wanted in vectors["rows_of"].items():
        segments = [Segment(row[3], row[4], names.index(row[1])) for row in vectors["rows"] if row[0] == video]
        num_rows = num_target_rows(vectors["video_num_frames"][video], 30)
        made = frame_targets(segments, num_rows, len(names), rule="thumos-reference")
        assert columns(made.rows) == wanted


@pytest.mark.parametrize(("rate", "key", "num_rows"), [(4.0, "class_index_4fps", 40), (3.0, "class_index_3fps", 30)])
def test_hdd_excerpt(rate: float, key: str, num_rows: int) -> None:
    expected = json.loads((EXAMPLES / "hdd" / "expected_targets.json").read_text())
    found = read_hdd(EXAMPLES / "hdd" / "EAF")
    ((session, made),) = video_targets(found, {expected["session_id"]: num_rows}, rate=rate, exclusive=True)
    assert session == "201701011017"
    assert made.rows.argmax(axis=1).tolist() == expected[key] and (made.rows.sum(axis=1) == 1).all()


# -- arithmetic --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_s", "end_s", "half_open", "reference"),
    [
        (0.0, 0.25, [0], [0, 1]),  # ends on a border: the reference takes the row after it
        (0.3, 1.0, [1, 2, 3], [1, 2, 3, 4]),
        (0.3, 1.1, [1, 2, 3, 4], [1, 2, 3, 4]),
        (1.24, 1.26, [4, 5], [4, 5]),  # shorter than a row, over a border
        (1.3, 1.4, [5], [5]),
        (2.5, 9.0, [10, 11], [10, 11]),  # over the end
        (3.0, 4.0, [], []),  # after the end
        (-1.0, 0.5, [0, 1], [0, 1, 2]),  # before the beginning
        (2.0, 2.0, [], []),
        (2.0, 1.0, [], []),
    ],
)
def test_rows_of_a_segment(start_s: float, end_s: float, half_open: list[int], reference: list[int]) -> None:
    assert ones(start_s, end_s) == half_open
    assert ones(start_s, end_s, rule="thumos-reference") == reference


def test_times_count_as_the_decimals_they_were_written_as() -> None:
    assert 0.29 * 100 < 29 and 1.1 * 100 > 110
    assert row_span(0.29, 1.1, rate=100) == (29, 110)
    assert row_span(1.0, 2.5, rate=29.97) == (29, 75)


@pytest.mark.parametrize(
    ("num_frames", "fps", "rows"), [(300, 30, 40), (305, 30, 40), (187, 30, 24), (250, 25, 40), (0, 30, 0)]
)
def test_number_of_rows(num_frames: int, fps: float, rows: int) -> None:
    assert num_target_rows(num_frames, fps) == rows


@pytest.mark.parametrize(
    ("start_s", "end_s", "what"),
    [(2.5, 9.0, "cut to the 12 rows"), (-1.0, 1.0, "cut to the 12 rows"), (3.0, 4.0, "left out, the video has 12 rows"),
     (2.0, 2.0, "left out, it is empty or reversed"), (-2.0, -1.0, "left out, the video")],
)  # fmt: skip
@pytest.mark.parametrize("rule", ["half-open", "thumos-reference"])
def test_what_lies_outside_is_reported(start_s: float, end_s: float, what: str, rule: Rule) -> None:
    segment = Segment(start_s, end_s, 1)
    ((reported, why),) = frame_targets([segment], 12, 2, rule=rule).clipped
    assert reported == segment and why.startswith(what)


@pytest.mark.parametrize("rule", ["half-open", "thumos-reference"])
def test_a_segment_that_ends_with_the_video_is_not_reported(rule: Rule) -> None:
    assert frame_targets([Segment(2.0, 3.0, 1)], 12, 2, rule=rule).clipped == []


def test_classes_share_rows_and_background_is_what_is_left() -> None:
    made = frame_targets([Segment(0, 0.5, 2), Segment(0.25, 0.75, 1)], 4, 3)
    assert columns(made.rows) == [[2], [1, 2], [1], [0]]
    assert columns(frame_targets([], 2, 3).rows) == [[0], [0]]
    assert frame_targets([], 0, 3).rows.shape == (0, 3)


def test_exclusive_rows_belong_to_what_started_later() -> None:
    later, earlier = Segment(0.5, 1.0, 1), Segment(0, 1.25, 2)
    made = frame_targets([later, earlier], 6, 3, exclusive=True)
    assert columns(made.rows) == [[2], [2], [1], [1], [2], [0]]
    assert made.clipped == [(later, "took rows from a segment that started earlier")]


@pytest.mark.parametrize("column", [0, 3, -1])
def test_a_column_that_is_no_class_is_refused(column: int) -> None:
    with pytest.raises(ValueError, match="classes are the columns 1 to 2"):
        frame_targets([Segment(0, 1, column)], 4, 3)


# -- from annotations to files -----------------------------------------------------------------------------------------


def test_a_dataset_without_background_gets_one() -> None:
    found = read_hacs_segments(EXAMPLES / "hacs" / "HACS_segments_v1.1.1.json")
    assert target_classes(found) == ["Background", "Dodgeball", "Horseback riding"]
    made = dict(video_targets(found, {"AbCdEfGhIjK": 60, "--_start_id": 3, "unlisted": 2}))
    assert columns(made["AbCdEfGhIjK"].rows)[20:24] == [[0], [1], [1], [1]]
    assert columns(made["--_start_id"].rows) == [[0]] * 3 and columns(made["unlisted"].rows) == [[0]] * 2


def test_tvseries_targets() -> None:
    made = dict(video_targets(read_tvseries(EXAMPLES / "tvseries"), {"24_ep1": 24}))
    # Get in/out of car 3.2 to 4.9 s, Answer phone 4.1 to 5.0 s.
    assert columns(made["24_ep1"].rows) == [[0]] * 12 + [[18]] * 4 + [[18, 21]] * 4 + [[0]] * 4


def test_targets_are_written_whole_under_a_name_that_a_path_can_hold(tmp_path: Path) -> None:
    rows = frame_targets([Segment(0, 1, 1)], 6, 3).rows
    path = write_targets(tmp_path, "a/b", rows)
    assert path == target_path(tmp_path, "a/b") == tmp_path / "target_perframe" / "a%2Fb.npy"
    assert (np.load(path) == rows).all()
    assert [file.name for file in path.parent.iterdir()] == ["a%2Fb.npy"]


DATA_INFO = json.loads((EXAMPLES / "oad_common" / "data_info.json").read_text())


@pytest.mark.parametrize(
    ("name", "classes", "metrics"), [("THUMOS", THUMOS_CLASSES, "AP"), ("TVSeries", TVSERIES_CLASSES, "cAP"), ("HDD", HDD_CLASSES, "AP")]
)  # fmt: skip
def test_data_info_is_what_lstr_reads(tmp_path: Path, name: str, classes: tuple[str, ...], metrics: str) -> None:
    wanted = DATA_INFO[name]
    path = tmp_path / "data_info.json"
    path.write_text('{"Other": {"fps": 4}}')
    info = DataInfo(f"data/{name}", list(classes), wanted["train_session_set"], wanted["test_session_set"], metrics)  # type: ignore[arg-type]
    write_data_info(path, name, info)
    written = json.loads(path.read_text())
    assert written == {"Other": {"fps": 4}, name: wanted}
    assert list(written[name]) == list(wanted)


def test_data_info_that_holds_something_else_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "data_info.json"
    for content in ("words", "[1]"):
        path.write_text(content)
        with pytest.raises(ClipmillError, match=r"is no data_info\.json"):
            write_data_info(path, "x", DataInfo("data", ["Background", "a"], [], []))
        assert path.read_text() == content


def test_a_given_index_counts_for_more_than_the_name() -> None:
    found = Annotations("x", [LabelRow("v", "b", "train", 0.0, 0.5, class_index=0)], classes=["a", "b"])
    ((_, made),) = video_targets(found, {"v": 3})
    assert columns(made.rows) == [[1], [1], [0]]
