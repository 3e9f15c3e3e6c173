"""`clipmill ingest` as a user runs it: exit codes, what is printed, and that an error names the way out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Clipmill, SmallDataset
from tests.ingest.videos import make_video


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def assert_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, nothing on standard output, and three lines: what, the consequence, the next step."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    what, consequence, next_step = done.stderr.rstrip().split("\n")
    assert what.startswith("clipmill: ")
    assert consequence.startswith("  ")
    assert next_step.startswith("  ")
    for word in words:
        assert word in done.stderr


@pytest.fixture(scope="module")
def converted(
    small_dataset: SmallDataset, clipmill: Clipmill, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    root = tmp_path_factory.mktemp("cli") / "root"
    arguments = ("--labels", small_dataset.labels, "--short-side", "64", "32", "--workers", "2")
    return root, clipmill("ingest", "convert", small_dataset.videos, root, *arguments)


# -- convert -----------------------------------------------------------------------------------------------------------


def test_convert_says_what_it_did_and_what_comes_next(
    converted: tuple[Path, subprocess.CompletedProcess[str]], small_dataset: SmallDataset
) -> None:
    root, done = converted
    assert done.returncode == 0, done.stderr
    assert f"12 videos, {small_dataset.total_frames} frames" in done.stdout
    assert done.stdout.rstrip().split("\n")[-1].startswith("All there. Next: clipmill train")
    assert len(list(root.glob("jpg/*/*/frames.db"))) == 12


def test_convert_again_as_json_has_nothing_to_do(
    converted: tuple[Path, subprocess.CompletedProcess[str]], small_dataset: SmallDataset, clipmill: Clipmill
) -> None:
    root, _ = converted
    done = clipmill(
        *("ingest", "convert", small_dataset.videos, root, "--labels", small_dataset.labels, "--json"),
        *("--short-side", "32", "--short-side", "64"),
    )
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert (report["converted"], report["skipped"], report["failures"], report["missing"]) == (0, 12, [], [])


def test_problems_give_exit_code_1_and_are_listed(
    small_dataset: SmallDataset, clipmill: Clipmill, tmp_path: Path
) -> None:
    videos, labels = tmp_path / "videos", tmp_path / "labels.csv"
    shutil.copytree(small_dataset.videos / "plum", videos / "plum")
    (videos / "plum" / "bad.mp4").write_text("text")
    make_video(videos / "plum" / os.fsdecode(b"unlisted-\xe9.mp4"), 2)
    labels.write_text("label,id\nplum,vid02\nplum,bad\nplum,gone\nplum,vid02\n")
    arguments = ("ingest", "convert", videos, tmp_path / "root", "--labels", labels, "--workers", "1")
    done = clipmill(*arguments)
    assert done.returncode == 1, done.stderr
    assert "failed: plum/bad: not a video" in done.stdout
    assert "missing" in done.stdout
    assert "labels: line 5: vid02 is listed twice" in done.stdout
    assert "Not named by the labels and left out:" in done.stdout
    assert "clipmill ingest status" in done.stdout.rstrip().split("\n")[-1]

    done = clipmill(*arguments, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert [failure[:3] for failure in report["failures"]] == [["plum", "bad", "not a video"]]
    assert (report["skipped"], report["missing"]) == (1, [["plum", "gone"]])

    done = clipmill("ingest", "status", tmp_path / "root")
    assert done.returncode == 1
    assert "plum/bad: not a video" in done.stdout
    assert "plum/gone: no file" in done.stdout


def test_a_dry_run_writes_nothing(small_dataset: SmallDataset, clipmill: Clipmill, tmp_path: Path) -> None:
    root = tmp_path / "root"
    arguments = ("ingest", "convert", small_dataset.videos, root, "--labels", small_dataset.labels, "--dry-run")
    before = everything(small_dataset.root)
    done = clipmill(*arguments)
    assert done.returncode == 0
    assert "videos: 12" in done.stdout
    report = json.loads(clipmill(*arguments, "--json").stdout)
    assert {key: report[key] for key in ("videos", "classes", "missing", "unlisted")} == {
        "videos": 12, "classes": 3, "missing": 0, "unlisted": 0,
    }  # fmt: skip
    assert not root.exists()
    assert everything(small_dataset.root) == before


def test_errors_say_what_the_consequence_and_the_next_step(
    small_dataset: SmallDataset, clipmill: Clipmill, tmp_path: Path
) -> None:
    videos, root = small_dataset.videos, tmp_path / "root"
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("lable,youtube_id\na,b\n")
    (tmp_path / "split.csv").write_text("label,id,split\nplum,vid02,train\nplum,vid02,test\n")
    (tmp_path / "none.csv").write_text("label,id\nplum,nothing\n")
    (tmp_path / "double" / "a").mkdir(parents=True)
    for suffix in ("mp4", "mkv"):
        (tmp_path / "double" / "a" / f"x.{suffix}").touch()
    assert_error(clipmill("ingest", "convert", tmp_path / "nowhere", root), "nowhere is not a folder")
    assert_error(clipmill("ingest", "convert", tmp_path / "empty", root), "holds no video file")
    assert_error(clipmill("ingest", "convert", tmp_path / "double", root), "x.mp4", "x.mkv", "Nothing was converted")
    assert_error(
        clipmill("ingest", "convert", videos, root, "--labels", tmp_path / "bad.csv"), "Did you mean", "'lable'"
    )
    assert_error(clipmill("ingest", "convert", videos, root, "--labels", tmp_path / "split.csv"), "line 3", "line 2")
    assert_error(clipmill("ingest", "convert", videos, root, "--labels", tmp_path / "none.csv"), "'nothing'")
    assert not root.exists()


@pytest.mark.parametrize(
    "options", [("--short-side", "4"), ("--quality", "0"), ("--labels", "nowhere.csv")], ids=lambda options: options[0]
)
def test_options_that_cannot_be_are_errors_with_a_next_step(
    small_dataset: SmallDataset, clipmill: Clipmill, tmp_path: Path, options: tuple[str, str]
) -> None:
    assert_error(clipmill("ingest", "convert", small_dataset.videos, tmp_path / "root", *options), options[1])
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("options", [("--workers", "0"), ("--no-such-option",), ("--quality", "high")], ids=str)
def test_a_command_line_that_cannot_be_read_gives_exit_code_2(
    small_dataset: SmallDataset, clipmill: Clipmill, tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = clipmill("ingest", "convert", small_dataset.videos, tmp_path / "root", *options)
    assert done.returncode == 2
    assert options[0] in done.stderr
    assert not (tmp_path / "root").exists()


def test_a_target_that_cannot_be_written_is_an_error(
    small_dataset: SmallDataset, clipmill: Clipmill, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    assert_error(clipmill("ingest", "convert", small_dataset.videos, tmp_path / "file" / "root"), "cannot be written")
    assert_error(clipmill("ingest", "convert", small_dataset.videos, tmp_path / "file"), "cannot be written")
    root = tmp_path / "root"
    root.mkdir()
    (root / "jpg").write_text("no folder")
    assert_error(clipmill("ingest", "convert", small_dataset.videos, root), "cannot be written", "same command again")


def test_a_target_on_a_read_only_mount_is_an_error_and_its_status_can_be_read(
    converted: tuple[Path, subprocess.CompletedProcess[str]],
    small_dataset: SmallDataset,
    clipmill: Clipmill,
    tmp_path: Path,
) -> None:
    mount = ["mount", "--bind", "-o", "ro", str(converted[0]), str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a folder cannot be mounted read-only here")
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("a bind mount cannot be made read-only here")
        assert_error(
            clipmill("ingest", "convert", small_dataset.videos, tmp_path), "cannot be", "Nothing was converted"
        )
        done = clipmill("ingest", "status", tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Everything is there." in done.stdout
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# -- status ------------------------------------------------------------------------------------------------------------


def test_status_counts_what_is_there(
    converted: tuple[Path, subprocess.CompletedProcess[str]], small_dataset: SmallDataset, clipmill: Clipmill
) -> None:
    done = clipmill("ingest", "status", converted[0])
    assert done.returncode == 0
    for words in ("12 ok", f"{small_dataset.total_frames:,}", "frames-db 64 px", "split val", "finished"):
        assert words in done.stdout
    assert done.stdout.rstrip().split("\n")[-1] == "Everything is there."


def test_status_as_json_holds_every_count(
    converted: tuple[Path, subprocess.CompletedProcess[str]], small_dataset: SmallDataset, clipmill: Clipmill
) -> None:
    found = json.loads(clipmill("ingest", "status", converted[0], "--json").stdout)
    assert (found["num_videos"], found["num_frames"]) == (12, small_dataset.total_frames)
    assert found["states"] == {"ok": 12}
    assert found["class_names"] == list(small_dataset.classes)
    assert [level["short_side"] for level in found["levels"]] == [64, 32]
    assert found["failures"] == []
    assert found["run"]["state"] == "finished"


def test_status_of_a_folder_that_is_no_dataset_is_an_error(clipmill: Clipmill, tmp_path: Path) -> None:
    assert_error(clipmill("ingest", "status", tmp_path), "holds no catalog.db", "clipmill ingest convert")
    (tmp_path / "catalog.db").write_text("no database at all, but long enough to be looked at " * 20)
    assert_error(clipmill("ingest", "status", tmp_path), "catalog.db")


def test_a_reader_that_goes_away_gets_no_traceback(converted: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    command = [sys.executable, "-m", "clipmill", "ingest", "status", str(converted[0]), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()  # as `| head -0` does
    _, stderr = process.communicate(timeout=60)
    assert stderr == b""


def test_help_needs_no_heavy_import(clipmill: Clipmill) -> None:
    code = (
        "import sys, clipmill\n"
        "try: clipmill.main(['ingest', 'convert', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'av', 'cv2', 'numpy', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
