"""What doctor complains of: each fault alone in an otherwise healthy data set, and the command around it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ingest.annotations.labels_csv import read_labels_csv, read_labels_table
from ingest.catalog import Catalog, Output, VideoKey, VideoRecord
from ingest.checks_cli import doctor as command
from ingest.convert import convert
from ingest.doctor import KINDS, Complaint, DoctorReport, doctor
from ingest.errors import ClipmillError
from ingest.options import ConvertOptions
from ingest.plan import plan_labels
from tests.conftest import SmallDataset
from tests.ingest.test_verify import change

SETTINGS = ConvertOptions((64,)).settings


def add(root: Path, name: str, label: str, split: str, times: tuple[float, float] | None = None, **fields) -> None:
    """One stored video of 50 frames at 25 a second, as the catalog has it, with one label; `fields` change its record."""
    class_name, video_id = name.split("/")
    with Catalog.create(root) as catalog, catalog.transaction():
        record = VideoRecord(VideoKey(class_name, video_id), "ok", settings=SETTINGS, num_frames=50, fps=25.0)
        record.duration_s = 2.0
        for field, value in fields.items():
            setattr(record, field, value)
        (count,) = catalog.db.execute("SELECT COUNT(*) FROM videos").fetchone()
        record.outputs = [Output("frames-db", 64, 85, 64, record.num_frames, 1000 + count, 2000)]
        catalog.record(record)
        catalog.add_classes([label] if label else [])
        start_s, end_s = times or (None, None)
        catalog.set_labels([(record.key, label, split, start_s, end_s)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, two splits, one video in each; no database on disk, as none needs to be opened."""
    for i, (name, split) in enumerate((c, s) for c in ("run", "jump") for s in ("train", "val")):
        add(tmp_path / "root", f"{name}/v{i}", name, split)
    return tmp_path / "root"


def complaints(root: Path, labels: str | None = None) -> list[tuple[str, str, str]]:
    """(kind, where, message) of what doctor finds; `labels` are the lines of a csv to compare with."""
    annotations = None
    if labels is not None:
        path = root.parent / "labels.csv"
        path.write_text(labels)
        annotations = read_labels_table(path, "train")
    return [(c.kind, c.where, c.message) for c in doctor(root, annotations).complaints]


def kinds(found: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    return [(kind, where) for kind, where, _ in found]


GOOD = "label,id,split\nrun,v0,train\nrun,v1,val\njump,v2,train\njump,v3,val\n"


def test_a_healthy_data_set_has_nothing_to_complain_of(root: Path) -> None:
    assert complaints(root) == []
    assert complaints(root, GOOD) == []
    report = doctor(root)
    assert (report.videos, report.labels) == (4, 4)


def test_frames_that_were_damaged_in_the_source_are_told(root: Path) -> None:
    add(root, "run/v9", "run", "train", concealed=3)
    ((kind, where, message),) = complaints(root)
    assert (kind, where) == ("damaged frames", "run/v9")
    assert message.startswith("3 of 50 frames")


def test_a_real_conversion_at_a_lower_rate_is_plausible(small_dataset: SmallDataset, tmp_path: Path) -> None:
    annotations = read_labels_csv(small_dataset.labels)
    convert(plan_labels(small_dataset.videos, annotations), tmp_path, ConvertOptions((32,), fps=5), num_workers=2)
    in_step = {"class without videos"}  # classes and splits go in step there: a class is in one split only
    assert {c.kind for c in doctor(tmp_path).complaints} == in_step
    assert {c.kind for c in doctor(tmp_path, annotations).complaints} == in_step


@pytest.mark.parametrize("state", ["missing", "failed", "pending"])
def test_labelled_videos_that_are_not_stored_are_missing(root: Path, state: str) -> None:
    add(root, "run/v9", "run", "train", state=state, reason="truncated")
    assert complaints(root) == [("missing", "run/v9", f"the labels name it, it is {state}, truncated")]
    assert kinds(complaints(root, GOOD)) == []
    assert kinds(complaints(root, GOOD + "run,v9,val\njump,v10,val\n")) == [
        ("missing", "jump/v10"),
        ("missing", "run/v9"),
    ]


def test_stored_videos_without_a_label_are_extra(root: Path) -> None:
    add(root, "run/v9", "run", "train")
    change(root / "catalog.db", "DELETE FROM labels WHERE video = (SELECT id FROM videos WHERE video_id = 'v9')")
    assert kinds(complaints(root)) == [("extra", "run/v9")]
    assert kinds(complaints(root, GOOD)) == [("extra", "run/v9")]
    assert complaints(root, GOOD + "run,v9,val\n") == []


def test_a_video_stored_under_another_class_is_said(root: Path) -> None:
    found = complaints(root, GOOD.replace("run,v1", "jump,v1"))
    assert found[0] == ("other class", "run/v1", "the labels say it is 'jump'")


def test_one_id_in_two_splits_is_said_of_the_catalog_and_of_a_file(root: Path) -> None:
    add(root, "jump/v0", "jump", "val")  # v0 of the class run is in train
    assert kinds(complaints(root)) == [("video in two splits", "run/v0")]
    found = complaints(root, GOOD + "run,v0,val\njump,v0,train\n")
    assert ("video in two splits", "run/v0", "it is in train and in val") in found


def test_clips_of_one_source_in_two_splits_are_said(root: Path) -> None:
    add(root, "run/abc_000001_000003", "run", "train")
    add(root, "run/abc_000007_000009", "run", "train")
    assert complaints(root) == []
    add(root, "run/abc_000004_000006", "run", "val")
    ((kind, where, message),) = complaints(root)
    assert (kind, where) == ("source in two splits", "run/abc")
    assert message.endswith("abc_000001_000003 in train, abc_000004_000006 in val")
    rows = "run,abc,1,3,train\nrun,abc,4.5,6.5,val\nrun,abc,7,9,train\n"
    _, *lines = GOOD.splitlines()
    plain = "".join(f"{label},{name},,,{split}\n" for label, name, split in (line.split(",") for line in lines))
    assert kinds(complaints(root, "label,id,time_start,time_end,split\n" + plain + rows)) == [
        ("source in two splits", "run/abc")
    ]


@pytest.mark.parametrize(
    ("fields", "kind", "word"),
    [
        ({"num_frames": 0, "duration_s": 0.0}, "too short", "0 frames"),
        ({"num_frames": 2, "duration_s": 0.08}, "too short", "2 frames"),
        ({"fps": 0.0}, "implausible fps", "0 frames per second"),
        ({"fps": 0.5, "duration_s": 100.0}, "implausible fps", "0.5"),
        ({"fps": 1000.0, "duration_s": 0.05}, "implausible fps", "1000"),
        ({"duration_s": 2.5}, "implausible duration", "50 frames at 25 a second are 2.00 s"),
        ({"duration_s": 1.5}, "implausible duration", "it lasts 1.50 s"),
        ({"settings": ConvertOptions((64,), fps=5).settings}, "implausible duration", "at 5 a second are 10.00 s"),
    ],
)
def test_implausible_videos_are_said(root: Path, fields: dict, kind: str, word: str) -> None:
    add(root, "run/v9", "run", "train", **fields)
    ((found, where, message),) = complaints(root)
    assert (found, where) == (kind, "run/v9")
    assert word in message


@pytest.mark.parametrize(
    "fields",
    [
        {"num_frames": 3, "duration_s": 0.12},
        {"fps": 240.0, "duration_s": 50 / 240},
        {"fps": 1.0, "duration_s": 50.0},
        {"duration_s": 2.39},
        {"num_frames": 10, "settings": ConvertOptions((64,), fps=5).settings},
        {"num_frames": 8, "settings": ConvertOptions((64,), stores=("npy",)).settings},
    ],
)
def test_what_is_just_plausible_is_left_alone(root: Path, fields: dict) -> None:
    add(root, "run/v9", "run", "train", **fields)
    assert complaints(root) == []


def test_a_class_without_videos_in_a_split_is_said(root: Path) -> None:
    change(root / "catalog.db", "DELETE FROM labels WHERE video = (SELECT id FROM videos WHERE video_id = 'v3')")
    assert kinds(complaints(root)) == [("extra", "jump/v3"), ("class without videos", "jump")]
    found = complaints(root, GOOD + "swim,v7,val\n")
    assert ("class without videos", "swim", "no video in the split val: the labels name some, none is stored") in found
    assert ("class without videos", "swim", "no video in the split train: the labels name none") in found


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        ((0, 1), None),
        ((0.5, 2.4), None),
        ((0, 2.6), "span outside"),
        ((1, 30), "span outside"),
        ((10, 12), None),  # as long as the video: it was cut out before
        ((10, 10.5), "span outside"),
        ((1, 1), "impossible span"),
        ((1.5, 0.5), "impossible span"),
        ((-1, 1), "impossible span"),
    ],
)
def test_times_outside_the_video_are_said(root: Path, times: tuple[float, float], kind: str | None) -> None:
    add(root, "run/v9", "run", "train", times)
    assert kinds(complaints(root)) == ([(kind, "run/v9")] if kind else [])


def test_times_of_a_clip_count_in_its_source(root: Path) -> None:
    add(root, "run/v9_000100_000110", "run", "train", (100, 110))
    add(root, "run/v8", "run", "train", (100, 110), settings=SETTINGS + " span=100-110")
    assert complaints(root) == []


def test_the_same_content_under_two_ids_is_said_across_splits_first(
    small_dataset: SmallDataset, tmp_path: Path
) -> None:
    videos, root = tmp_path / "videos", tmp_path / "root"
    for name in ("apple/a", "apple/b", "plum/c", "plum/d"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        source = "apple/vid00.mp4" if name != "plum/d" else "plum/vid02.mp4"
        shutil.copy(small_dataset.videos / source, videos / f"{name}.mp4")
    (tmp_path / "labels.csv").write_text("label,id,split\napple,a,train\napple,b,train\nplum,c,val\nplum,d,val\n")
    plan = plan_labels(videos, read_labels_csv(tmp_path / "labels.csv"))
    convert(plan, root, ConvertOptions((32,)), num_workers=1)
    found = [c for c in doctor(root).complaints if "content" in c.kind]
    assert found == [
        Complaint("content in two splits", "plum", "c", "same content as apple/a in train; this one is in val"),
        Complaint("duplicate content", "apple", "b", "same content as apple/a in train; this one is in train"),
    ]
    shutil.rmtree(root / "jpg" / "apple" / "a")  # what cannot be read is for verify to say
    assert [c.where for c in doctor(root).complaints if "content" in c.kind] == ["plum/c"]


def test_complaints_come_the_gravest_first_and_are_counted(root: Path) -> None:
    add(root, "run/v9", "run", "train", (9, 1), num_frames=1, fps=0.0)
    add(root, "run/v8", "run", "train", state="failed")
    report = doctor(root)
    assert [c.kind for c in report.complaints] == ["missing", "too short", "implausible fps", "impossible span"]
    assert list(report.counts) == ["missing", "too short", "implausible fps", "impossible span"]
    assert set(report.counts) < set(KINDS)
    assert json.loads(report.to_json())["complaints"][0]["video_id"] == "v8"
    assert DoctorReport(0, 0).counts == {}


def test_an_empty_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match=r"no catalog\.db"):
        doctor(tmp_path)
    Catalog.create(tmp_path).close()
    with pytest.raises(ClipmillError, match="holds no video"):
        doctor(tmp_path)


def test_the_command_prints_kinds_and_places_and_says_what_next(root: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("doctor")(command)
    runner = CliRunner()
    done = runner.invoke(app, [str(root)])
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "4 stored videos, 4 labels")
    assert done.output.splitlines()[-1].endswith(f"clipmill ingest verify {root}")
    (tmp_path / "labels.csv").write_text(GOOD + "run,v0,val\njump,gone,val\n")
    done = runner.invoke(app, [str(root), "--labels", str(tmp_path / "labels.csv")])
    assert done.exit_code == 1
    for line in ("video in two splits: 1", "  run/v0: it is in train and in val", "missing: 1"):
        assert line in done.output.splitlines()
    assert done.output.splitlines()[-1].endswith("--json")
    done = runner.invoke(app, [str(root), "--labels", str(tmp_path / "labels.csv"), "--json"])
    assert (done.exit_code, json.loads(done.output)["counts"]) == (1, {"video in two splits": 1, "missing": 1})
