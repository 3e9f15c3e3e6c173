"""Trimmed datasets: what the readers make of the excerpts, row by row."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ingest.annotations._reading import class_key, guess_split
from ingest.annotations.diving48 import read_diving48
from ingest.annotations.folders import read_imagenet
from ingest.annotations.hacs import read_hacs_clips
from ingest.annotations.hmdb51 import read_hmdb51
from ingest.annotations.kinetics import read_kinetics, read_kinetics_json
from ingest.annotations.known_lists import known_list
from ingest.annotations.mini_kinetics import read_mini_kinetics, read_mini_kinetics_ids
from ingest.annotations.moments import read_moments, read_multi_moments
from ingest.annotations.rows import Annotations, Frames, LabelRow
from ingest.annotations.something import flip_map, read_something_v1, read_something_v2
from ingest.annotations.ucf101 import read_ucf101
from ingest.errors import ClipmillError
from tests.ingest.annotations.cases import EXAMPLES

KINETICS, MINI, MIT = EXAMPLES / "kinetics", EXAMPLES / "mini_kinetics_200", EXAMPLES / "moments_in_time"
UCF = EXAMPLES / "ucf101" / "ucfTrainTestlist"
HMDB = EXAMPLES / "hmdb51" / "testTrainMulti_7030_splits"
SS1, SS2 = EXAMPLES / "something_v1", EXAMPLES / "something_v2"
HMDB51_CLASSES, UCF101_CLASSES = (
    (EXAMPLES / "class_lists" / f"{name}.txt").read_text().split() for name in ("hmdb51", "ucf101")
)
SS2_LABELS = SS2 / "something-something-v2-labels_excerpt.json"


def ids(found: Annotations) -> dict[str, int]:
    return {row.video_id: index for row, index in zip(found.rows, found.class_indices(), strict=True)}


# -- Kinetics ----------------------------------------------------------------------------------------------------------


def test_kinetics_csv_gives_what_every_naming_scheme_starts_from() -> None:
    rows = []
    for name in ("k400_train_cvdf.csv", "k700_val_deepmind.csv", "k600_val_deepmind.csv"):
        rows += read_kinetics(KINETICS / name).rows
    by_id = {row.video_id: row for row in rows}
    expected = json.loads((KINETICS / "filenames_expected.json").read_text())
    assert expected
    for wanted in expected:
        row = by_id[wanted["youtube_id"]]
        assert (row.label, row.start_s, row.end_s) == (wanted["label"], wanted["time_start"], wanted["time_end"])


def test_kinetics_quotes_and_is_cc_and_splits() -> None:
    found = read_kinetics(KINETICS / "k400_train_cvdf.csv")
    assert found.rows[1] == LabelRow("-a_B1c2D3e4", "air drumming", "train", 26.0, 36.0, 3)
    assert found.class_names()[0] == "abseiling"
    assert {row.split for row in read_kinetics(KINETICS / "k700_val_deepmind.csv").rows} == {"val"}


def test_kinetics_names_quoted_twice(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('label,youtube_id,time_start,time_end,split\n"""air drumming""",x,0,10,train\n')
    assert read_kinetics(path).rows[0].label == "air drumming"


def test_kinetics_old_test_file_has_no_labels() -> None:
    found = read_kinetics(KINETICS / "k400_test_old_nolabel.csv")
    assert found.rows == [
        LabelRow("ZzYyXxWwVv0", "", "test", 84.0, 94.0, 2),
        LabelRow("--_start_id", "", "test", 2.0, 12.0, 3),
    ]
    assert found.class_names() == [] and found.class_indices() == [-1, -1]


def test_kinetics_600_keeps_two_names_that_differ_in_a_capital() -> None:
    assert len(read_kinetics(KINETICS / "k600_val_deepmind.csv").class_names()) == 2


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("header", ["", "label,youtube_id,time_start,time_end,split\n"], ids=["bare", "header"])
def test_kinetics_600_txt_of_unknown_layout(tmp_path: Path, separator: str, header: str) -> None:
    path = tmp_path / "val.txt"
    path.write_text((header + "zumba,-a_B1c2D3e4,26,36,validate\n").replace(",", separator))
    assert read_kinetics(path).rows[0].video_id == "-a_B1c2D3e4"
    assert read_kinetics(path).rows[0].split == "val"


def test_kinetics_json() -> None:
    found = read_kinetics(KINETICS / "k700_train_deepmind.json")
    assert found.rows == [
        LabelRow("AbCdEfGhIjK", "abseiling", "train", 95.0, 105.0, 1),
        LabelRow("-a_B1c2D3e4", "air drumming", "train", 26.0, 36.0, 2),
    ]


def test_kinetics_json_with_an_id_twice_says_so(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    item = '"x": {"annotations": {"label": "zumba", "segment": [0, %d]}, "subset": "train"}'
    path.write_text("{" + item % 5 + ", " + item % 9 + "}")
    found = read_kinetics_json(path)
    assert [row.end_s for row in found.rows] == [9.0]
    assert found.skipped == [(0, "'x' occurs twice in one json object: the last one counts")]


def test_a_class_list_sets_the_ids_and_the_spelling(tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("zumba\npassing American football (in game)\nAir_Drumming\nabseiling\nmassaging person-s head\n"
                     "petting animal -not cat-\n")  # fmt: skip
    found = read_kinetics(KINETICS / "k400_train_cvdf.csv", class_list=names)
    assert found.class_indices() == [3, 2, 4, 5, 1]
    assert found.rows[1].label == "Air_Drumming"
    assert found.class_order == "order of classes.txt"


def test_a_label_that_the_class_list_lacks_is_refused(tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("zumba\n")
    with pytest.raises(ClipmillError, match=r"line 2: the class 'abseiling' is not in .*classes\.txt"):
        read_kinetics(KINETICS / "k400_train_cvdf.csv", class_list=names)


# -- Mini-Kinetics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["arnet_mini_val.txt", "arnet_mini_val_videofolder.txt"])
def test_mini_kinetics_lines_are_split_from_the_right(name: str) -> None:
    found = read_mini_kinetics(MINI / name)
    assert [(row.video_id, row.label, row.class_index, row.num_frames) for row in found.rows] == [
        ("AbCdEfGhIjK_000000_000010", "air drumming", 0, 60),
        ("-a_B1c2D3e4_000007_000017", "hurling (sport)", 87, 300),
        ("_zYxWvUtSrQ_000223_000233", "yoga", 199, 1),
    ]
    assert found.rows[0].path == "images/val/air drumming/AbCdEfGhIjK_000000_000010"
    assert {row.split for row in found.rows} == {"val"} and len(found.class_names()) == 200


def test_mini_kinetics_in_the_form_of_reskd() -> None:
    found = read_mini_kinetics(MINI / "reskd_minik_val_videofolder.txt")
    assert ids(found) == {"AbCdEfGhIjK_000000_000010": 0, "-a_B1c2D3e4_000007_000017": 87}
    assert found.rows[1].path == "hurling_(sport)/-a_B1c2D3e4_000007_000017.mp4"


def test_mini_kinetics_ids_beyond_the_class_list_are_refused() -> None:
    with pytest.raises(ClipmillError, match="line 2: the class id is 87, the classes go from 0 to 3"):
        read_mini_kinetics(MINI / "arnet_mini_val.txt", class_list=MINI / "arnet_minik_classInd_first3_last1.txt")


def test_mini_kinetics_ids_get_their_labels_from_the_kinetics_csv() -> None:
    path = MINI / "xie_train_ytid_list.txt"
    assert [row.label for row in read_mini_kinetics_ids(path).rows] == ["", "", ""]
    found = read_mini_kinetics_ids(path, kinetics_csv=KINETICS / "k400_train_cvdf.csv")
    assert [row.label for row in found.rows] == ["abseiling", "air drumming", "massaging person's head"]
    assert found.rows[2].start_s == 4.0


# -- Moments in Time, HACS clips ---------------------------------------------------------------------------------------


def test_moments_ids_follow_the_categories() -> None:
    found = read_moments(MIT / "v1" / "trainingSet.csv", class_list=MIT / "v1_with_all_names.txt")
    assert ids(found) == {"getty-clapping-invented-id1_4": 0, "yt-AbCdEfGhIjK_35": 5, "flickr-1-2-3-4-5-inventd_5": 1}
    assert found.rows[1].label == "adult+female+singing"
    assert found.rows[1].path == "adult+female+singing/yt-AbCdEfGhIjK_35.mp4"
    assert ids(read_moments(MIT / "v1" / "validationSet.csv")) == {"yt--a_B1c2D3e4_56": 2}
    assert read_moments(MIT / "v1" / "validationSet.csv").rows[0].split == "val"
    assert ids(read_moments(MIT / "v2" / "trainingSet.csv")) == {"yt--a_B1c2D3e4_56": 1}


def test_moments_without_categories_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trainingSet.csv").write_text("a/b.mp4,a,1,0\n")
    with pytest.raises(ClipmillError, match=r"no moments_categories\.txt beside it"):
        read_moments(tmp_path / "trainingSet.csv")


def test_multi_moments_has_a_row_per_label() -> None:
    rows = read_multi_moments(MIT / "mmit_trainingSet.csv").rows
    assert [(row.video_id, row.class_index) for row in rows] == [
        ("clapping-invented-id_1", 12), ("clapping-invented-id_1", 45), ("clapping-invented-id_1", 201), ("other-invented-id_7", 3),
    ]  # fmt: skip


def test_hacs_clips_leave_out_hard_negatives() -> None:
    path = EXAMPLES / "hacs" / "HACS_clips_v1.1.1.csv"
    found = read_hacs_clips(path)
    assert [(row.video_id, row.label, row.split, row.start_s, row.end_s) for row in found.rows] == [
        ("AbCdEfGhIjK", "Archery", "train", 15.5, 17.5),
        ("_zYxWvUtSrQ", "Horseback riding", "val", 0.0, 2.0),
        ("AbCdEfGhIjK", "Blow-drying hair", "train", 40.0, 42.0),
    ]
    assert found.skip_reasons == Counter({"is a hard negative (label -1)": 1})
    assert [row.label for row in read_hacs_clips(path, negatives=True).rows][1] == ""


def test_hacs_testing_rows_may_lack_class_and_label(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_text("classname,youtube_id,subset,start,end,label\n,x,testing,,,\n,y,testing,0.0,2.0,\n")
    assert read_hacs_clips(path).rows[1] == LabelRow("y", "", "test", 0.0, 2.0, 3)


# -- UCF101, HMDB51, Diving48 ------------------------------------------------------------------------------------------


def test_ucf101_ids_are_those_of_classind_less_one() -> None:
    found = read_ucf101(UCF)
    assert ids(found) == {
        "v_ApplyEyeMakeup_g08_c01": 0, "v_HammerThrow_g10_c02": 35, "v_HandStandPushups_g08_c01": 37, "v_YoYo_g25_c05": 100,
        "v_ApplyEyeMakeup_g01_c01": 0, "v_HandStandPushups_g01_c01": 37,
    }  # fmt: skip
    assert Counter(row.split for row in found.rows) == {"train": 4, "test": 2}
    assert found.rows[2].label == "HandstandPushups"
    assert found.rows[2].path == "HandstandPushups/v_HandStandPushups_g08_c01.avi"


def test_ucf101_another_split_number_reads_other_files() -> None:
    with pytest.raises(ClipmillError, match=r"trainlist02\.txt cannot be read"):
        read_ucf101(UCF, split_number=2)


def test_ucf101_class_list_is_the_known_one(tmp_path: Path) -> None:
    assert UCF101_CLASSES[34:36] == ["Hammering", "HammerThrow"] != sorted(UCF101_CLASSES)[34:36]
    (tmp_path / "classInd.txt").write_text("".join(f"{i} {name}\r\n" for i, name in enumerate(UCF101_CLASSES, 1)))
    (tmp_path / "testlist01.txt").write_text("YoYo/v_YoYo_g01_c01.avi\r\n")
    found = read_ucf101(tmp_path / "testlist01.txt")
    assert found.class_hash() == "3ec3894f84996395"
    assert known_list(found.class_names()) == "UCF101, order of classInd.txt"
    assert found.class_indices() == [100]


def test_hmdb51_uses_one_and_two_and_skips_zero() -> None:
    found = read_hmdb51(HMDB)
    assert [(row.video_id, row.label, row.split) for row in found.rows] == [
        ("Invented_Movie_brush_hair_h_cm_np1_le_goo_0", "brush_hair", "train"),
        ("An_Other_09_brush_hair_u_nm_np1_ba_goo_0", "brush_hair", "test"),
        ("(Inv)ented_die_Name!_cartwheel_f_cm_np1_le_med_0", "cartwheel", "train"),
        ("#1_Clip_[x]_&co;_cartwheel_f_cm_np1_le_med_1", "cartwheel", "test"),
    ]
    assert found.class_indices() == [0, 0, 1, 1]
    assert found.skipped == [(3, "Third_one_brush_hair_f_nm_np2_ri_goo_1 is not used in this split")]
    assert found.rows[3].path == "cartwheel/#1_Clip_[x]_&co;_cartwheel_f_cm_np1_le_med_1.avi"


def test_hmdb51_class_list_is_the_known_one(tmp_path: Path) -> None:
    for name in HMDB51_CLASSES:
        (tmp_path / f"{name}_test_split3.txt").write_text(f"x_{name}_f_cm_np1_le_med_0.avi 1 \n")
    found = read_hmdb51(tmp_path, split_number=3)
    assert found.class_hash() == "154ef596b6037121"
    assert sorted(found.class_indices()) == list(range(51))


def test_hmdb51_folder_without_that_split_is_refused() -> None:
    with pytest.raises(ClipmillError, match=r"holds no file \*_test_split2\.txt"):
        read_hmdb51(HMDB, split_number=2)


def test_diving48_labels_and_frames() -> None:
    found = read_diving48(EXAMPLES / "diving48" / "Diving48_V2_train.json")
    assert ids(found) == {"-inventAAAA_00155": 0, "_inventBBBB_00001": 26}
    assert found.rows[0].frames == Frames(48) and found.rows[0].split == "train"
    assert len(found.class_names()) == 48
    assert read_diving48(EXAMPLES / "diving48" / "Diving48_V2_test.json").rows[0].split == "test"


def test_diving48_names_come_from_the_vocabulary(tmp_path: Path) -> None:
    vocab = json.loads((EXAMPLES / "diving48" / "Diving48_vocab_first3.json").read_text())
    (tmp_path / "Diving48_vocab.json").write_text(json.dumps(vocab))
    path = tmp_path / "Diving48_V2_test.json"
    path.write_text('[{"vid_name": "x", "label": 2, "start_frame": 0, "end_frame": 9}]')
    assert read_diving48(path).rows[0].label == "Back+15som+25Twis+FREE"
    with pytest.raises(ClipmillError, match="the class id is 26, the classes go from 0 to 2"):
        read_diving48(EXAMPLES / "diving48" / "Diving48_V2_train.json", class_list=tmp_path / "Diving48_vocab.json")


# -- Something-Something -----------------------------------------------------------------------------------------------


def test_something_v1_has_two_id_orders() -> None:
    path = SS1 / "something-something-v1-train.csv"
    assert read_something_v1(path, class_order="file").class_indices() == [0, 5, 2]
    names = sorted((SS1 / "something-something-v1-labels.csv").read_text().splitlines())
    found = read_something_v1(path)
    assert found.class_names() == names and found.class_order == "sorted templates"
    assert [row.label for row in found.rows][1] == "Putting something, something and something on the table"
    assert found.rows[0].frames == Frames(None, 0, "{:05d}.jpg", 1)


def test_something_v1_validation_and_test() -> None:
    assert read_something_v1(SS1 / "something-something-v1-validation.csv").rows[0].split == "val"
    rows = read_something_v1(SS1 / "something-something-v1-test.csv").rows
    assert [(row.video_id, row.label, row.split) for row in rows] == [("70001", "", "test"), ("70002", "", "test")]


def test_something_v1_order_is_one_of_two() -> None:
    with pytest.raises(ClipmillError, match="class_order is 'alphabetical'"):
        read_something_v1(SS1 / "something-something-v1-train.csv", class_order="alphabetical")  # type: ignore[arg-type]


def test_something_v2_looks_templates_up_without_brackets() -> None:
    found = read_something_v2(SS2 / "something-something-v2-train.json", class_list=SS2_LABELS)
    assert ids(found) == {"900001": 19, "900002": 86, "900003": 102}
    assert found.rows[2].label == "Putting number of something onto something"
    validation = read_something_v2(SS2 / "something-something-v2-validation.json", class_list=SS2_LABELS)
    assert ids(validation) == {"900004": 1} and validation.rows[0].split == "val"
    test = read_something_v2(SS2 / "something-something-v2-test.json", class_list=SS2_LABELS)
    assert ids(test) == {"900005": -1, "900006": -1}


def test_something_v2_without_labels_is_refused() -> None:
    with pytest.raises(ClipmillError, match=r"labels\.json or labels\.json beside it"):
        read_something_v2(SS2 / "something-something-v2-train.json")


def test_flip_map_exchanges_left_and_right() -> None:
    maps = json.loads((SS2 / "flip_maps.json").read_text())
    known = {int(value): name for name, value in json.loads(SS2_LABELS.read_text()).items()}
    names = [known.get(index, f"Doing {index}") for index in range(174)]
    for one, other in maps["templates"]:
        # The excerpt lacks two pairs; their places are those of the whole list.
        if one not in names:
            place = {
                "Pushing something from left to right": 93,
                "Turning the camera left while filming something": 166,
            }[one]
            names[place : place + 2] = [one, other]
    names[50] = "Plugging something into something but pulling it right out as you remove your hand"
    assert {str(one): other for one, other in flip_map(names).items()} == maps["ids_sorted_order_v1_and_v2"]


# -- ImageNet ----------------------------------------------------------------------------------------------------------


def imagenet(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_imagenet_folders(tmp_path: Path) -> None:
    imagenet(tmp_path, "train/n01443537/n01443537_10007.JPEG", "train/n01440764/n01440764_10026.JPEG",
             "val/n01440764/ILSVRC2012_val_00000293.JPEG")  # fmt: skip
    found = read_imagenet(tmp_path)
    assert [(row.video_id, row.label, row.split) for row in found.rows] == [
        ("n01440764_10026", "n01440764", "train"),
        ("n01443537_10007", "n01443537", "train"),
        ("ILSVRC2012_val_00000293", "n01440764", "val"),
    ]
    assert found.class_indices() == [0, 1, 0]


def test_imagenet_refuses_a_folder_that_is_no_wnid(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match="folder 'cats': the name is no wnid"):
        read_imagenet(imagenet(tmp_path, "train/cats/a.JPEG"))


def test_imagenet_flat_val_from_the_solution_csv() -> None:
    folder = EXAMPLES / "imagenet1k"
    found = read_imagenet(folder / "LOC_val_solution_invented.csv", class_list=folder / "LOC_synset_mapping_first3.txt")
    assert ids(found) == {"ILSVRC2012_val_00000001": 0, "ILSVRC2012_val_00000002": 1}
    assert found.rows[0].path == "ILSVRC2012_val_00000001.JPEG"
    same = read_imagenet(folder / "LOC_val_solution_invented.csv", class_list=folder / "timm_class_map.txt")
    assert same.class_names() == found.class_names() == ["n01440764", "n01443537", "n01484850"]


def test_imagenet_ground_truth_numbers_are_refused() -> None:
    with pytest.raises(ClipmillError, match=r"line 1.*ids of another order"):
        read_imagenet(EXAMPLES / "imagenet1k" / "ILSVRC2012_validation_ground_truth_invented.txt")


# -- what they share ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split"),
    [("trainingSet.csv", "train"), ("validationSet.csv", "val"), ("kinetics_val.csv", "val"), ("testlist01.txt", "test"),
     ("GT-val.txt", "val"), ("mini_train_videofolder.txt", "train"), ("latest.txt", "train"), ("values.csv", "train"),
     ("validate.csv", "val"), ("Diving48_V2_test.json", "test"), ("labels.csv", "train"), ("train_val.csv", "val")],
)  # fmt: skip
def test_the_split_is_a_word_of_the_file_name(name: str, split: str) -> None:
    assert guess_split(Path("/data/training/val") / name, None) == split
    assert guess_split(Path(name), "validation") == "val"


def test_class_key() -> None:
    assert class_key("massaging person's head") == class_key("massaging_person-s_head") == "massagingpersonshead"


def test_one_video_in_two_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classInd.txt").write_text("1 YoYo\n")
    (tmp_path / "trainlist01.txt").write_text("YoYo/v_YoYo_g01_c01.avi 1\n")
    (tmp_path / "testlist01.txt").write_text("YoYo/v_YoYo_g01_c01.avi\n")
    with pytest.raises(ClipmillError, match="v_YoYo_g01_c01 is in split test, on line 1 in train"):
        read_ucf101(tmp_path)
