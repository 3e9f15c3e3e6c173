"""The labels csv: headers as found in the wild, and an error with its line for every kind of broken file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.annotations.labels_csv import read_labels_csv
from ingest.annotations.rows import LabelRow
from ingest.errors import ClipmillError

HEADER = "label,youtube_id,time_start,time_end,split\n"


def rows_of(tmp_path: Path, content: str | bytes) -> list[LabelRow]:
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labels_csv(path).rows


def error_of(tmp_path: Path, content: str | bytes) -> ClipmillError:
    with pytest.raises(ClipmillError) as caught:
        rows_of(tmp_path, content)
    assert "Nothing was converted" in caught.value.consequence
    return caught.value


# -- what is read ----------------------------------------------------------------------------------------------------


def test_a_row_holds_id_label_split_times_and_line(tmp_path: Path) -> None:
    assert rows_of(tmp_path, HEADER + "apple,-abc_DEF123,3,13.5,val\npear,x,,,train\n") == [
        LabelRow("-abc_DEF123", "apple", "val", 3.0, 13.5, 2),
        LabelRow("x", "pear", "train", None, None, 3),
    ]


@pytest.mark.parametrize(
    "header",
    ["label,youtube_id,time_start,time_end,split", "label-name,video-id,start-time,end-time,subset",
     "classname,id,start,end,split", "class,video,time_start,time_end,subset", "Label,YouTube_ID,Time_Start,Time_End,Split",
     " label , video_id , start , end , split "],
)  # fmt: skip
def test_headers_and_their_synonyms(tmp_path: Path, header: str) -> None:
    assert rows_of(tmp_path, f"{header}\napple,x,1,2,test\n") == [LabelRow("x", "apple", "test", 1.0, 2.0, 2)]


def test_columns_in_any_order_others_ignored(tmp_path: Path) -> None:
    content = "is_cc,split,youtube_id,note,label\n0,test,x,hello,apple\n"
    assert rows_of(tmp_path, content) == [LabelRow("x", "apple", "test", None, None, 2)]


@pytest.mark.parametrize(
    ("given", "kept"),
    [("training", "train"), ("validate", "val"), ("Validation", "val"), ("TESTING", "test"), ("", "train"), ("dev", "dev")],
)  # fmt: skip
def test_names_of_splits(tmp_path: Path, given: str, kept: str) -> None:
    assert rows_of(tmp_path, f"label,id,split\napple,x,{given}\n")[0].split == kept


def test_without_split_column_the_default_counts(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("label,id\napple,x\n")
    assert read_labels_csv(path, default_split="test").rows[0].split == "test"


def test_quotes_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    content = (
        HEADER
        + '"eating, slowly","x",0,1,train\n"say ""hi""",y,0,1,train\n"two\nlines",z,0,1,train\npear,w,0,1,train\n'
    )
    rows = rows_of(tmp_path, content)
    assert [row.label for row in rows] == ["eating, slowly", 'say "hi"', "two\nlines", "pear"]
    assert [row.line for row in rows] == [2, 3, 4, 6]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=repr)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
def test_line_ends_and_byte_order_mark(tmp_path: Path, newline: str, mark: bytes) -> None:
    content = mark + (HEADER + "apple,x,0,1,train\n\n  ,,,,\npear,y,0,1,val").replace("\n", newline).encode()
    rows = rows_of(tmp_path, content)
    assert [(row.video_id, row.line) for row in rows] == [("x", 2), ("y", 5)]
    assert rows[0].label == "apple"


def test_unicode_separators_inside_a_name_are_no_line_ends(tmp_path: Path) -> None:
    assert [row.label for row in rows_of(tmp_path, "label,id\na\u2028b\x85c\x0cd,x\n")] == ["a\u2028b\x85c\x0cd"]


def test_blanks_around_names_go_blanks_inside_stay(tmp_path: Path) -> None:
    row = rows_of(tmp_path, "label,id\n  apple  pie , x y \n")[0]
    assert (row.label, row.video_id) == ("apple  pie", "x y")


def test_names_in_any_script(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "label,id\n太極拳,vidéo\n")[0] == LabelRow("vidéo", "太極拳", "train", None, None, 2)


def test_a_row_given_twice_is_kept_once_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(HEADER + "apple,x,0,1,train\napple,x,0,1,train\napple,x,1,2,train\n")
    found = read_labels_csv(path)
    assert [row.line for row in found.rows] == [2, 4]
    assert found.skipped == [(3, "x is listed twice with the same label and times")]


def test_one_video_may_have_several_labels(tmp_path: Path) -> None:
    assert len(rows_of(tmp_path, HEADER + "apple,x,0,1,train\npear,x,0,1,train\n")) == 2


def test_class_names_are_sorted(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("label,id\nplum,x\napple,y\nplum,z\nBanana,w\n")
    assert read_labels_csv(path).class_names() == ["Banana", "apple", "plum"]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "missing", "near"),
    [("lable,youtube_id", "label", "lable"), ("label,youtubeid", "youtube_id", "youtubeid"),
     ("label,yotube-id", "youtube_id", "yotube-id")],
)  # fmt: skip
def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path, header: str, missing: str, near: str) -> None:
    error = error_of(tmp_path, f"{header}\na,b\n")
    assert f"no column '{missing}'" in error.what
    assert "line 1" in error.what
    assert f"'{near}'" in error.next_step


def test_a_missing_column_with_nothing_near_shows_the_whole_header(tmp_path: Path) -> None:
    error = error_of(tmp_path, "apple,x\n")
    assert "label,youtube_id,time_start,time_end,split" in error.next_step


@pytest.mark.parametrize("time", ["soon", "1:30", "nan", "inf", "-inf", "1,5", "--3"])
def test_a_wrong_time_is_named_with_its_line(tmp_path: Path, time: str) -> None:
    error = error_of(tmp_path, HEADER + f'apple,x,0,1,train\npear,y,"{time}",9,train\n')
    assert "line 3" in error.what
    assert repr(time) in error.what


@pytest.mark.parametrize(("row", "name"), [("apple,  ,0,1,train", "video_id"), (",x,0,1,train", "label")])
def test_an_empty_id_or_label_is_named_with_its_line(tmp_path: Path, row: str, name: str) -> None:
    error = error_of(tmp_path, HEADER + f"apple,x,0,1,train\n\n{row}\n")
    assert "line 4" in error.what
    assert name in error.what


def test_too_few_fields_are_named_with_their_line(tmp_path: Path) -> None:
    error = error_of(tmp_path, HEADER + "apple,x,0,1,train\npear,y,0\n")
    assert "line 3: 3 fields where the header has 5" in error.what


def test_a_comma_that_was_not_quoted_is_named_with_its_line(tmp_path: Path) -> None:
    error = error_of(tmp_path, HEADER + "eating, slowly,x,0,1,train\n")
    assert "line 2: 6 fields where the header has 5" in error.what


def test_empty_fields_at_the_end_of_a_line_do_no_harm(tmp_path: Path) -> None:
    assert rows_of(tmp_path, HEADER + "apple,x,0,1,train,,\n")[0].label == "apple"


def test_a_quote_that_is_never_closed_is_named_with_the_line_where_it_opens(tmp_path: Path) -> None:
    error = error_of(tmp_path, HEADER + 'apple,x,0,1,train\n"pear,y,0,1,train\nplum,z,0,1,train\n')
    assert "line 3" in error.what


def test_a_video_in_two_splits_names_both_lines(tmp_path: Path) -> None:
    error = error_of(tmp_path, HEADER + "apple,x,0,1,train\npear,y,0,1,val\nplum,x,0,1,test\n")
    assert "line 4" in error.what
    assert "line 2" in error.what
    assert "video x is in split test" in error.what


def test_a_file_that_is_not_utf_8_names_the_byte_and_the_cure(tmp_path: Path) -> None:
    error = error_of(tmp_path, b"label,id\nfianc\xe9,x\n")
    assert "not UTF-8 (byte 14)" in error.what
    assert "iconv" in error.next_step


def test_a_field_without_end_is_an_error_not_a_crash(tmp_path: Path) -> None:
    assert "line 2" in error_of(tmp_path, HEADER + '"' + "x" * 200_000).what


@pytest.mark.parametrize("content", ["", HEADER, "label,id\n\n\n"], ids=["empty", "header only", "blank lines"])
def test_a_file_without_videos_is_refused(tmp_path: Path, content: str) -> None:
    error_of(tmp_path, content)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match=r"nowhere\.csv cannot be read: No such file"):
        read_labels_csv(tmp_path / "nowhere.csv")
