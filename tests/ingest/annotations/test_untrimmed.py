"""Untrimmed datasets: what the readers make of the excerpts, row by row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ingest.annotations.activitynet import read_activitynet
from ingest.annotations.charades import read_charades, read_frame_labels
from ingest.annotations.fcvid import read_fcvid
from ingest.annotations.hacs import read_hacs_segments
from ingest.annotations.hdd import HDD_CLASSES, load_target_array, read_hdd, read_hdd_targets
from ingest.annotations.known_lists import known_list
from ingest.annotations.rows import Annotations, Frames, LabelRow
from ingest.annotations.thumos14 import THUMOS_CLASSES, read_thumos14
from ingest.annotations.tvseries import TVSERIES_CLASSES, read_tvseries
from ingest.errors import ClipmillError
from tests.ingest.annotations.cases import EXAMPLES

ACTIVITYNET, THUMOS, TVSERIES, HDD = (EXAMPLES / name for name in ("activitynet", "thumos14", "tvseries", "hdd"))


def segments(found: Annotations) -> list[tuple[str, str, float | None, float | None]]:
    return [(row.video_id, row.label, row.start_s, row.end_s) for row in found.rows]


@pytest.mark.parametrize(
    ("names", "count", "digest", "known"),
    [(THUMOS_CLASSES, 22, "865cb01d642e8b21", "THUMOS14 with background and ambiguous"),
     (TVSERIES_CLASSES, 31, "8cd89bfa0d601ca9", "TVSeries with background"),
     (HDD_CLASSES, 12, "cbfc761818f8a3fb", "HDD with background")],
)  # fmt: skip
def test_class_lists_are_the_known_ones(names: tuple[str, ...], count: int, digest: str, known: str) -> None:
    found = Annotations("x", classes=list(names))
    assert (len(names), found.class_hash(), known_list(found.class_names())) == (count, digest, known)


def test_class_lists_agree_with_the_files_of_the_datasets() -> None:
    lines = (THUMOS / "detclasslist.txt").read_text().splitlines()
    assert ["Background", *(line.split()[1] for line in lines), "Ambiguous"] == list(THUMOS_CLASSES)
    assert ["Background", *(TVSERIES / "classes.txt").read_text().splitlines()] == list(TVSERIES_CLASSES)


# -- ActivityNet, HACS segments ----------------------------------------------------------------------------------------


def test_activitynet_cuts_segments_to_the_video() -> None:
    found = read_activitynet(ACTIVITYNET / "activity_net.v1-3.min.json")
    assert segments(found) == [
        ("AbCdEfGhIjK", "Drinking coffee", 6.195294851794072, 77.73085420904837),
        ("-a_B1c2D3e4", "Plataform diving", 0.0, 20.5),
        ("-a_B1c2D3e4", "Springboard diving", 60.0, 140.0),
        ("_zYxWvUtSrQ", "", None, None),
    ]
    assert [row.split for row in found.rows] == ["train", "val", "val", "test"]
    assert found.clipped == [(2, "-a_B1c2D3e4 Springboard diving: end 141.2 cut to 140.0 s")]
    assert found.untrimmed and found.rows[3].duration_s == 33.1


def test_activitynet_class_order_is_that_of_action_name_csv(tmp_path: Path) -> None:
    path = tmp_path / "activity_net.v1-3.min.json"
    path.write_text('{"database": {"x": {"annotations": [{"segment": [0, 2], "label": "BMX"}], "subset": "training"}}}')
    assert read_activitynet(path).class_indices() == [0]
    (tmp_path / "action_name.csv").write_bytes((ACTIVITYNET / "action_name_first4.csv").read_bytes())
    found = read_activitynet(path)
    assert found.class_names() == ["Applying sunscreen", "Arm wrestling", "Assembling bicycle", "BMX"]
    assert found.class_indices() == [3] and found.class_order == "order of action_name.csv"


def test_activitynet_in_the_form_of_bsn_has_the_same_ids() -> None:
    found = read_activitynet(ACTIVITYNET / "anet_anno_action_bsn.json", split="validation")
    assert segments(found) == [("AbCdEfGhIjK", "Drinking coffee", 6.19, 77.73)]
    assert found.rows[0].split == "val"


def test_bad_segments_are_skipped_by_reason(tmp_path: Path) -> None:
    path = tmp_path / "database.json"
    items = ", ".join(f'{{"segment": {span}, "label": "BMX"}}' for span in ("[3, 3]", "[5, 4]", "[10, 12]", "[1, 2]"))
    path.write_text(f'{{"database": {{"x": {{"annotations": [{items}], "subset": "training", "duration": "9.5"}}}}}}')
    found = read_hacs_segments(path)
    assert segments(found) == [("x", "BMX", 1.0, 2.0)]
    assert found.skip_reasons == Counter(
        {"has a segment that is empty or reversed": 2, "has a segment after the end of the video": 1}
    )
    assert found.found == {"rows": 1, "videos": 1, "classes": 1, "skipped": 3, "clipped": 0, "rows train": 1}


def test_hacs_segments_have_durations_as_text_and_testing_without_annotations() -> None:
    found = read_hacs_segments(EXAMPLES / "hacs" / "HACS_segments_v1.1.1.json")
    assert segments(found) == [
        ("AbCdEfGhIjK", "Dodgeball", 5.4, 11.6),
        ("AbCdEfGhIjK", "Dodgeball", 12.6, 88.16),
        ("_zYxWvUtSrQ", "Horseback riding", 0.0, 20.5),
        ("--_start_id", "", None, None),
    ]
    assert found.rows[0].duration_s == 92.166667
    assert found.class_names() == ["Dodgeball", "Horseback riding"]


# -- FCVID -------------------------------------------------------------------------------------------------------------


def test_fcvid_row_i_belongs_to_video_i(tmp_path: Path) -> None:
    folder = EXAMPLES / "fcvid" / "materials"
    labels = folder / "FCVID_Label_5cols_instead_of_239.txt"
    found = read_fcvid(folder, labels=labels)
    assert [(row.video_id, row.class_index, row.split) for row in found.rows] == [
        ("AbCdEfGhIjK", 0, "train"), ("-a_B1c2D3e4", 1, "test"), ("-a_B1c2D3e4", 4, "test"),
    ]  # fmt: skip
    assert found.rows[0].path == "accordionPerformance/AbCdEfGhIjK.mp4"
    assert len(found.class_names()) == 5
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\ne\n")
    assert [row.label for row in read_fcvid(folder, labels=labels, class_list=names).rows] == ["a", "b", "e"]


def test_fcvid_backslashes_and_a_matrix_of_another_length(tmp_path: Path) -> None:
    (tmp_path / "FCVID_VideoName_TrainTestSplit.txt").write_text("a b\\x.mp4 train\na b\\y.mp4 test\n")
    (tmp_path / "FCVID_Label.txt").write_text("1 0\n0 0\n")
    found = read_fcvid(tmp_path)
    assert [(row.path, row.class_index) for row in found.rows] == [("a b/x.mp4", 0), ("a b/y.mp4", None)]
    (tmp_path / "FCVID_Label.txt").write_text("1 0\n")
    with pytest.raises(ClipmillError, match="line 1: 1 rows of labels for 2 videos"):
        read_fcvid(tmp_path)


# -- THUMOS14, TVSeries ------------------------------------------------------------------------------------------------


def test_thumos14_folder_and_csv_hold_the_same() -> None:
    folder, table = read_thumos14(THUMOS / "annotation_val"), read_thumos14(THUMOS / "csv_form" / "val_Annotation.csv")
    assert sorted(segments(folder)) == sorted(segments(table))
    assert len(folder.rows) == 7 and {row.split for row in folder.rows + table.rows} == {"val"}
    indices = dict(zip((row.label for row in folder.rows), folder.class_indices(), strict=True))
    assert indices == {"Ambiguous": 21, "BaseballPitch": 1, "CliffDiving": 5, "Diving": 8}


def test_thumos14_csv_without_header(tmp_path: Path) -> None:
    path = tmp_path / "test_Annotation_fixed.csv"
    path.write_text("v,Diving,8,2.0,4.5,60,135\nv,Ambiguous,0,4.5,5,135,150\n")
    assert [(row.label, row.split) for row in read_thumos14(path).rows] == [("Diving", "test"), ("Ambiguous", "test")]


def test_thumos14_folder_one_level_up_other_files_and_odd_rows(tmp_path: Path) -> None:
    (tmp_path / "annotation").mkdir()
    (tmp_path / "annotation" / "readme.txt").write_text("words\n")
    (tmp_path / "annotation" / "Diving_test.txt").write_text(
        "video_test_0000270  9.0 9.0\nvideo_test_0000270  1.0 2.0\n"
    )
    found = read_thumos14(tmp_path)
    assert segments(found) == [("video_test_0000270", "Diving", 1.0, 2.0)]
    assert [why for _, why in found.skipped] == [
        "video_test_0000270 has a segment that is empty or reversed",
        "readme.txt is not a file <Class>_val.txt or <Class>_test.txt",
    ]


def test_thumos14_file_of_an_unknown_class(tmp_path: Path) -> None:
    (tmp_path / "Jumping_val.txt").write_text("v  1 2\n")
    with pytest.raises(ClipmillError, match="'Jumping' is none of the 20 classes"):
        read_thumos14(tmp_path)


def test_tvseries_reads_the_first_line_as_data() -> None:
    found = read_tvseries(TVSERIES)
    assert segments(found) == [
        ("Breaking_Bad_ep1", "Drive car", 12.4, 15.08),
        ("24_ep1", "Get in/out of car", 3.2, 4.9),
        ("24_ep1", "Answer phone", 4.1, 5.0),
        ("Modern_Family_ep6", "Fall/trip", 100.0, 100.8),
        ("Mad_Men_ep3", "Smoke", 0.0, 31.6),
    ]
    assert found.class_indices() == [9, 18, 21, 26, 8]
    assert [row.split for row in found.rows] == ["train", "train", "train", "val", "test"]


def test_tvseries_header_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "GT-train.txt"
    path.write_text("episode\tclass\tstart\tend\n" + (TVSERIES / "GT-train.txt").read_text())
    assert [row.line for row in read_tvseries(path).rows] == [2, 3, 4]


def test_tvseries_comment_in_any_script(tmp_path: Path) -> None:
    path = tmp_path / "GT-val.txt"
    path.write_text("24_ep1\tEat\t1.0\t2.5" + "\t0" * 12 + "\tà côté\n")
    assert read_tvseries(path).rows == [LabelRow("24_ep1", "Eat", "val", 1.0, 2.5, 1)]


# -- HDD ---------------------------------------------------------------------------------------------------------------


def test_hdd_reads_the_goal_oriented_tier_only() -> None:
    found = read_hdd(HDD / "EAF")
    assert segments(found) == [
        ("201701011017", "intersection passing", 1.0, 3.5),
        ("201701011017", "u-turn", 4.0, 6.25),
    ]
    assert found.class_indices() == [1, 11]
    assert found.skipped == [(3, "201701011017 has an annotation that is empty or parking")]


def eaf(folder: Path, *texts: str, times: tuple[str, str] = ("0", "1000")) -> Path:
    """An ELAN file with these annotations, all over the same time."""
    path = folder / "2017-02-27-10-17-30.eaf"
    items = "".join(
        '<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a" TIME_SLOT_REF1="1" TIME_SLOT_REF2="2">'
        f"<ANNOTATION_VALUE>{text}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>"
        for text in texts
    )
    slots = "".join(f'<TIME_SLOT TIME_SLOT_ID="{i}" TIME_VALUE="{time}"/>' for i, time in enumerate(times, 1))
    path.write_text(f'<D><TIME_ORDER>{slots}</TIME_ORDER><TIER TIER_ID="Operation_Goal-oriented">{items}</TIER></D>')
    return path


def test_hdd_texts_are_cleaned(tmp_path: Path) -> None:
    found = read_hdd(eaf(tmp_path, "Intersection Passing", "intersection  passing", " U-Turn", "park", "", "Park park"))
    assert [row.label for row in found.rows] == ["intersection passing", "u-turn"]
    assert found.skip_reasons == Counter(
        {"has an annotation that is empty or parking": 3, "is listed twice with the same label and times": 1}
    )


def test_hdd_unknown_text_and_broken_times(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match="annotation a: 'flying' is none of the 11 classes"):
        read_hdd(eaf(tmp_path, "flying"))
    with pytest.raises(ClipmillError, match=r"annotation a: its time slots hold .*'soon'"):
        read_hdd(eaf(tmp_path, "merge", times=("0", "soon")))
    (tmp_path / "2017-02-27-10-17-30.eaf").write_text("<D></D>")
    with pytest.raises(ClipmillError, match="there is no tier 'Operation_Goal-oriented'"):
        read_hdd(tmp_path)


def test_hdd_a_file_that_does_not_parse_costs_one_session(tmp_path: Path) -> None:
    eaf(tmp_path, "merge")
    (tmp_path / "2017-02-28-10-17-30.eaf").write_text("<broken")
    found = read_hdd(tmp_path)
    assert len(found.rows) == 1 and found.skip_reasons == Counter({"is no valid xml": 1})


def test_hdd_target_arrays_as_ids_and_as_columns(tmp_path: Path) -> None:
    ids = np.array([0, 0, 2, 2, 2, 0, 11, 1])
    np.save(tmp_path / "201702271017.npy", ids)
    np.save(tmp_path / "201702271018.npy", np.eye(12)[ids])
    found = read_hdd_targets(tmp_path)
    wanted = [("left turn", 2 / 3, 5 / 3), ("u-turn", 2.0, 7 / 3), ("intersection passing", 7 / 3, 8 / 3)]
    for session in ("201702271017", "201702271018"):
        assert [(row.label, row.start_s, row.end_s) for row in found.rows if row.video_id == session] == wanted
    assert (load_target_array(tmp_path / "201702271017.npy", 12) == np.eye(12)[ids]).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.array([0, 12]), "row 1: 12 is no class id from 0 to 11"), (np.zeros((3, 4)), r"expected \(L,\) or \(L, 12\)"),
     (np.full((2, 12), 0.5), "row 0: holds values other than 0 and 1"), (np.array([0.0, np.nan]), "row 1: nan is no class")],
)  # fmt: skip
def test_hdd_arrays_of_another_kind_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ClipmillError, match=message):
        read_hdd_targets(tmp_path / "x.npy")


def test_hdd_a_file_that_is_no_array_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_text("words")
    with pytest.raises(ClipmillError, match="is no array that can be read"):
        read_hdd_targets(tmp_path / "x.npy")


# -- Charades ----------------------------------------------------------------------------------------------------------


def test_charades_actions_may_be_empty() -> None:
    found = read_charades(EXAMPLES / "charades" / "Charades_v1_train.csv")
    assert segments(found) == [("AB1C2", "c092", 11.9, 21.2), ("AB1C2", "c147", 0.0, 12.6), ("DE3F4", "", None, None)]
    assert found.class_indices() == [92, 147, -1] and len(found.class_names()) == 157
    assert found.rows[2].duration_s == 31.17


def test_charades_names_of_classes() -> None:
    folder = EXAMPLES / "charades"
    found = read_charades(folder / "Charades_v1_train.csv", class_list=folder / "Charades_v1_classes_first3.txt")
    assert found.class_names()[:4] == [
        "Holding some clothes", "Putting clothes somewhere", "Taking some clothes from somewhere", "c003",
    ]  # fmt: skip


def test_frame_labels_become_runs() -> None:
    found = read_frame_labels(EXAMPLES / "charades" / "slowfast_frame_list_train.csv")
    assert [(row.video_id, row.class_index, row.frames) for row in found.rows] == [
        ("AB1C2", 147, Frames(2, 0)), ("AB1C2", 92, Frames(1, 1)), ("DE3F4", None, Frames(1, 0)),
    ]  # fmt: skip
    assert found.rows[0].path == "AB1C2"
    unlabelled = read_frame_labels(EXAMPLES / "something_v2" / "slowfast_frame_list.csv")
    assert [(row.video_id, row.num_frames) for row in unlabelled.rows] == [("900001", 2), ("900004", 1)]


def test_frame_labels_need_their_misspelt_header_and_frames_in_order(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("original_video_id video_id frame_id path labels\n")
    with pytest.raises(ClipmillError, match="line 1: the header is 'original_video_id"):
        read_frame_labels(path)
    header = "original_vido_id video_id frame_id path labels\n"
    path.write_text(header + 'a 0 0 a/1.jpg "1"\nb 1 0 b/1.jpg "1"\na 0 1 a/2.jpg "1"\n')
    with pytest.raises(ClipmillError, match="line 4: the frames of a do not stand together"):
        read_frame_labels(path)
    path.write_text(header + 'a 0 0 a 1/x y.jpg "1,2"\n')
    assert {row.path for row in read_frame_labels(path).rows} == {"a 1"}
