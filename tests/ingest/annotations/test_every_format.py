"""What holds for every reader: real files in excerpts are read, in any encoding dress, and a broken row is named."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import pytest

from ingest.annotations.known_lists import KNOWN_LISTS
from ingest.annotations.read import FORMATS, read_annotations
from ingest.annotations.rows import SPLITS
from ingest.errors import ClipmillError
from tests.ingest.annotations.cases import CASES, EXAMPLES, Case

EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture
def copy(tmp_path: Path, case: Case) -> Path:
    """A copy of the examples of this dataset, to be spoilt."""
    name = Path(case.file).parts[0]
    shutil.copytree(EXAMPLES / name, tmp_path / name)
    return tmp_path


def texts(root: Path) -> list[Path]:
    return [file for file in root.rglob("*") if file.suffix in (".txt", ".csv", ".json", ".jsonl", ".eaf")]


@EACH
def test_the_example_is_read(case: Case) -> None:
    found = read_annotations(case.path(), case.format, **case.settings())
    indices = found.class_indices()
    assert found.rows and len(indices) == len(found.rows)
    names = found.class_names()
    for row, index in zip(found.rows, indices, strict=True):
        assert row.video_id and row.split in SPLITS.values()
        assert (index == -1) == (row.label == "")
        assert index == -1 or names[index] == row.label
    assert len(names) == len(set(names))
    assert found.found["rows"] == len(found.rows)
    assert sum(found.skip_reasons.values()) == found.found["skipped"] == len(found.skipped)


@EACH
@pytest.mark.parametrize("dress", ["BOM and CRLF", "no last line end", "blank lines"])
def test_how_the_file_was_saved_makes_no_difference(case: Case, dress: str, copy: Path) -> None:
    plain = read_annotations(case.path(), case.format, **case.settings())
    for file in texts(copy):
        content = file.read_bytes().replace(b"\r\n", b"\n").rstrip(b"\n")
        if dress == "BOM and CRLF":
            content = b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\n"
        elif dress == "blank lines":
            content += b"\n\n  \n\n"
        file.write_bytes(content)
    again = read_annotations(case.path(copy), case.format, **case.settings(copy))
    assert again.rows == plain.rows
    assert again.class_names() == plain.class_names()


@EACH
def test_a_broken_row_is_named_with_its_place(case: Case, copy: Path) -> None:
    file = copy / (case.broken_file or case.file)
    before = "" if case.replace else file.read_bytes().decode().replace("\r\n", "\n")
    file.write_text(before + case.broken)
    with pytest.raises(ClipmillError, match=case.error) as caught:
        read_annotations(case.path(copy), case.format, **case.settings(copy))
    assert file.name in caught.value.what
    assert "Nothing was converted" in caught.value.consequence
    assert caught.value.next_step


JUNK = ["3", "[]", "{}", "[3]", "[[1]]", '{"a": 3}', '{"database": 3}', '{"database": {"a": {"annotations": 1}}}', "null", "1" * 5000,
        '[{"id": {}, "label": {}, "vid_name": []}]', '{"x": {"annotations": [], "subset": 1}}', "[" * 100_000, "\x00", ",,,,",
        "\t\t\t", ";;;", '"', "-1 -1 -1", "a\n" * 3, "1 2 3 4 5 6", "<a/>", "\u2028\x85", "\ufeff\ufeff", '"a","b"\n"c"']  # fmt: skip


@EACH
def test_junk_is_refused_or_read_and_never_a_crash(case: Case, copy: Path) -> None:
    file = copy / (case.broken_file or case.file)
    for junk in JUNK:
        file.write_text(junk)
        with contextlib.suppress(ClipmillError):
            read_annotations(case.path(copy), case.format, **case.settings(copy))


@EACH
def test_a_file_that_is_not_utf_8_is_refused(case: Case, copy: Path) -> None:
    file = copy / (case.broken_file or case.file)
    file.write_bytes(b"\xff\xfe" + file.read_bytes())
    with pytest.raises(ClipmillError, match=r"is not UTF-8|no valid xml"):
        read_annotations(case.path(copy), case.format, **case.settings(copy))


@EACH
def test_an_empty_file_is_refused(case: Case, copy: Path) -> None:
    if case.path(copy).is_dir():
        shutil.rmtree(case.path(copy))
        case.path(copy).mkdir()
    else:
        case.path(copy).write_text("")
    with pytest.raises(ClipmillError):
        read_annotations(case.path(copy), case.format, **case.settings(copy))


@EACH
def test_a_file_that_is_not_there_is_named(case: Case) -> None:
    with pytest.raises(ClipmillError, match="nowhere"):
        read_annotations(EXAMPLES / "nowhere" / Path(case.file).name, case.format, **case.settings())


def test_every_format_has_a_case() -> None:
    with_own_tests = {"class-folders", "hdd-targets"}
    assert {case.format for case in CASES} == set(FORMATS) - with_own_tests


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("hmdb", "hmdb51"), ("HMDB51", "hmdb51"), ("kinetics400", "kinetics"), ("hacs-clip", "hacs-clips"), ("Thumos", "thumos14")],
)  # fmt: skip
def test_an_unknown_format_names_the_nearest(given: str, nearest: str) -> None:
    with pytest.raises(ClipmillError, match=f"no annotation format '{given}'") as caught:
        read_annotations(EXAMPLES, given)
    assert caught.value.next_step == f"Did you mean '{nearest}'?"


def test_an_unknown_format_that_is_near_to_nothing_lists_all() -> None:
    with pytest.raises(ClipmillError, match=r"Known are kinetics, .*mmaction-json"):
        read_annotations(EXAMPLES, "xyz")


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ClipmillError, match=r"the format ucf101 has no option 'split_numer'.* 'split_number'"):
        read_annotations(EXAMPLES, "ucf101", split_numer=2)


def test_every_format_is_documented_and_every_documented_format_exists() -> None:
    pages = Path(__file__).parents[3] / "docs" / "datasets"
    text = "\n".join(page.read_text() for page in pages.glob("*.md"))
    assert set(re.findall(r"--format ([a-z0-9-]+)", text)) <= set(FORMATS)
    assert [name for name in FORMATS if f"`{name}`" not in text and f"--format {name}\n" not in text] == []
    for hexadecimal in re.findall(r"`([0-9a-f]{16})`", text):
        assert hexadecimal in KNOWN_LISTS
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (pages / link).exists(), link
