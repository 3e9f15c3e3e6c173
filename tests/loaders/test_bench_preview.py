"""`clipmill loader bench` and `preview`: what they measure, write and say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingest.errors import ClipmillError
from loaders import pictures
from loaders.bench import Measured, Setting, Shape, _advice, bench, write_report
from loaders.dataset import ClipDataset
from loaders.preview import preview
from tests.conftest import Clipmill
from tests.loaders.conftest import MakeLoader
from tests.loaders.samples import digest, evaluation_spec, training_spec


def test_a_shape_is_frames_and_pixels() -> None:
    assert Shape.parse("16x224") == Shape.parse("16x224x224") == Shape(16, 224)
    assert (Shape(16, 224).short_side, Shape(16, 112).short_side) == ((256, 320), (128, 160))
    for wrong in ("16", "16x", "x224", "16x224x112", "axb", "0x16"):
        with pytest.raises(ClipmillError, match="frames x pixels"):
            Shape.parse(wrong)


def test_every_setting_is_measured_in_turns_and_reported(root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    report = bench(
        root,
        [Shape(4, 32)],
        ["frames-db"],
        num_workers=2,
        backends=["cpu"],
        seconds=0.05,
        num_rounds=2,
        on_progress=said.append,
    )
    settings = [str(one.setting) for one in report.measured]
    assert settings == [
        "4x32x32, frames-db, 2 processes",
        "4x32x32, frames-db, 2 threads",
        "4x32x32, frames-db, 1 process",
        "4x32x32, frames-db 36 px, 2 processes",
        "4x32x32, frames-db 72 px, 2 processes",
    ]
    assert [line for line in said if line.startswith("round")] == [
        f"round {number} of 2: {setting}" for number in (1, 2) for setting in settings
    ]
    for one in report.measured:
        assert len(one.rounds) == 2
        assert min(one.rounds) > 0
        assert one.bytes_per_clip > 0
        assert sum(one.shares.values()) == pytest.approx(1, abs=0.01)
    by_level = {one.setting.level: one.bytes_per_clip for one in report.measured if one.setting.level}
    assert by_level[36] < by_level[72]
    files = write_report(report, tmp_path)
    assert json.loads(files[0].read_text())["measured"][0]["setting"]["store"] == "frames-db"
    assert Image.open(files[1]).size[0] > 500


def test_dali_is_measured_beside_the_others(root: Path) -> None:
    pytest.importorskip("nvidia.dali")
    report = bench(root, [Shape(4, 32)], ["frames-db"], num_workers=2, seconds=0.05, num_rounds=1)
    dali = report.measured[-1]
    assert str(dali.setting) == "4x32x32, frames-db, DALI with 2 threads"
    assert dali.clips_per_s > 0


def test_a_backend_that_can_load_nothing_of_it_is_an_error(root: Path, clipmill: Clipmill) -> None:
    done = clipmill("loader", "bench", root, "--backend", "gpu")
    assert done.returncode == 2 and "'gpu'" in done.stderr
    with pytest.raises(ClipmillError, match="load nothing"):
        bench(root, [Shape(4, 32)], [], num_workers=1, backends=["dali"])


def advice_for(root: Path, shape: Shape, **shares: float) -> str:
    one = Measured(Setting(shape, "frames-db", 0, "processes", 2), [10.0, 12.0, 11.0], shares)
    slow = Measured(Setting(shape, "frames-db", 0, "threads", 2), [5.0], shares)
    line, *_ = _advice([one, slow], {"frames-db": ClipDataset(root)})
    return line


def test_the_advice_names_the_best_and_what_would_be_better(root: Path) -> None:
    assert advice_for(root, Shape(4, 32)) == "4x32x32: 11 clips/s from frames-db with 2 processes."
    assert "a level of 11 px would need fewer bytes" in advice_for(root, Shape(4, 8))
    assert "a faster disk pays" in advice_for(root, Shape(4, 32), read=0.6)
    assert "resizing takes long" in advice_for(root, Shape(4, 32), assemble=0.5)


def test_the_advice_tells_of_the_decoder_of_parts_where_it_is_missing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Measured(Setting(Shape(4, 32), "frames-db", 0, "processes", 2), [10.0], {})
    monkeypatch.setattr(pictures, "PARTS", True)
    assert len(list(_advice([one], {"frames-db": ClipDataset(root)}))) == 1
    monkeypatch.setattr(pictures, "PARTS", False)
    assert "libjpeg62-turbo-dev" in list(_advice([one], {"frames-db": ClipDataset(root)}))[1]


def test_the_preview_shows_the_next_clips_and_their_frame_numbers(make_loader: MakeLoader, tmp_path: Path) -> None:
    found = preview(make_loader(batch_size=2), tmp_path, num_clips=5)
    expected = []
    for batch in make_loader(batch_size=2):
        for row in range(2):
            names = ["apple", "pear tree", "plum"]
            expected.append((batch.video_ids[row], names[batch.labels[row]], 0, batch.frame_indices[row].tolist()))
    assert found.clips == expected[:5]
    sheet = np.asarray(Image.open(found.sheet))
    first = next(iter(make_loader(batch_size=2))).frames[0].numpy()
    assert (sheet[16:48, :32] == first[0]).all()  # below the title
    assert (sheet[16:48, 36:68] == first[1]).all()
    animation = Image.open(found.animation)
    assert animation.n_frames == 4  # type: ignore[attr-defined]


def test_views_are_named_and_a_small_data_set_is_shown_once_around(make_loader: MakeLoader, tmp_path: Path) -> None:
    found = preview(make_loader(evaluation_spec(), batch_size=1), tmp_path, num_clips=7)
    assert [view for _, _, view, _ in found.clips] == [0, 1, 2, 3, 4, 5, 0]
    more = preview(make_loader(training_spec(), batch_size=4, drop_last=False), tmp_path, num_clips=30)
    assert len(more.clips) == 30


def test_the_preview_is_what_the_trainer_gets(make_loader: MakeLoader, tmp_path: Path) -> None:
    """Looking moves the stream on, and changes nothing in it."""
    loader = make_loader(batch_size=2)
    preview(loader, tmp_path, num_clips=2)
    rest = [digest(batch) for batch in loader]
    assert rest == [digest(batch) for batch in make_loader(batch_size=2)][1:]


def test_the_commands(root: Path, tmp_path: Path, clipmill: Clipmill) -> None:
    common = (
        "loader",
        "bench",
        root,
        "--shape",
        "4x32",
        "2x32",
        "--workers",
        "1",
        "--seconds",
        "0.05",
        "--rounds",
        "1",
    )
    done = clipmill(*common, "--out", tmp_path / "bench")
    assert done.returncode == 0, done.stderr
    assert "2x32x32: " in done.stdout
    assert (tmp_path / "bench" / "bench.png").exists()
    report = json.loads(clipmill(*common, "--out", tmp_path / "bench", "--json").stdout)
    assert {one["setting"]["shape"]["num_frames"] for one in report["measured"]} == {2, 4}
    shown = ("loader", "preview", root, "--size", "32", "--frames", "4", "--clips", "3", "--out", tmp_path / "preview")
    done = clipmill(*shown, "--recipe", "srtg-code", "--jitter", "36", "40")
    assert done.returncode == 0, done.stderr
    assert "3 clips of 4 frames" in done.stdout
    clips = json.loads(clipmill(*shown, "--views", "2", "3", "--json").stdout)
    assert [clip["view"] for clip in clips] == [0, 1, 2]
    for wrong, message in (
        (("--views", "2"), "take two numbers"),
        (("--recipe", "cake"), "srtg-code"),
        (("--jitter", "8", "9"), "does not fit"),
    ):
        done = clipmill(*shown, *wrong)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
