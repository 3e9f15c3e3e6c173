"""The forecast against what the conversion then takes, and that it leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ingest.checks_cli import forecast as command
from ingest.convert import convert
from ingest.errors import ClipmillError
from ingest.forecast import _ratio, _total, forecast
from ingest.options import ConvertOptions
from ingest.plan import Job, plan_folders
from tests.conftest import SmallDataset
from tests.ingest.test_legacy import run_here
from tests.ingest.videos import make_video


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary folders are made."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial conversions run in this process."""
    monkeypatch.setattr("ingest.forecast.run_jobs", run_here)


def stored_bytes(root: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in root.glob(pattern) if path.is_file())


def test_with_every_video_sampled_the_forecast_is_what_comes_out(
    small_dataset: SmallDataset, temporary: Path, tmp_path: Path
) -> None:
    plan = plan_folders(small_dataset.videos)
    options = ConvertOptions((64, 32), stores=("frames-db", "npy"))
    found = forecast(plan.jobs, options, num_workers=2, root=tmp_path / "not" / "there")
    assert list(temporary.iterdir()) == []
    assert (found.videos, found.sampled, found.probed, found.failed) == (12, 12, 12, [])
    assert found.duration_s == pytest.approx(small_dataset.total_frames / 25, rel=0.02)
    assert (found.num_bytes_error, found.seconds_error, found.fits) == (0, 0, True)
    assert not (tmp_path / "not").exists()

    convert(plan, tmp_path / "root", options, num_workers=2)
    real = stored_bytes(tmp_path / "root", "jpg/**/*") + stored_bytes(tmp_path / "root", "rgb_npy/*")
    assert found.num_bytes == pytest.approx(real, rel=0.02)
    assert [(level.store, level.short_side) for level in found.levels] == [
        ("frames-db", 64),
        ("frames-db", 32),
        ("npy", 64),
    ]
    assert found.levels[2].num_bytes == pytest.approx(stored_bytes(tmp_path / "root", "rgb_npy/*"), rel=0.03)
    assert found.levels[0].num_bytes > found.levels[1].num_bytes > 0
    assert all(level.seconds_per_s > 0 for level in found.levels)
    assert 0 < found.seconds == pytest.approx(found.work_per_s * found.duration_s / 2)


@pytest.mark.usefixtures("here")
def test_a_sample_scales_by_duration_with_an_error_and_is_the_same_for_a_seed(
    small_dataset: SmallDataset, temporary: Path
) -> None:
    jobs = plan_folders(small_dataset.videos).jobs
    options = ConvertOptions((32,))
    whole = forecast(jobs, options, num_workers=1)
    part = forecast(jobs, options, num_workers=1, num_sampled=4)
    assert (part.sampled, part.probed) == (4, 12)
    assert part.duration_s == whole.duration_s
    assert 0 < part.num_bytes_error < 0.2 * part.num_bytes
    assert abs(part.num_bytes - whole.num_bytes) < 4 * part.num_bytes_error
    assert forecast(jobs, options, num_workers=1, num_sampled=4).num_bytes == part.num_bytes
    assert forecast(jobs, options, num_workers=1, num_sampled=4, seed=1).num_bytes != part.num_bytes
    assert forecast(jobs, options, num_workers=4, num_sampled=4).workers == 4


@pytest.mark.usefixtures("here")
def test_a_level_above_the_videos_own_size_is_counted_once(small_dataset: SmallDataset, temporary: Path) -> None:
    jobs = plan_folders(small_dataset.videos).jobs[:2]
    found = forecast(jobs, ConvertOptions((512, 256, 32)), num_workers=1)
    assert [level.num_bytes > 0 for level in found.levels] == [True, False, True]


@pytest.mark.usefixtures("here")
def test_only_the_span_of_a_job_counts(small_dataset: SmallDataset, temporary: Path) -> None:
    source = small_dataset.videos / "apple" / "vid00.mp4"  # 1.2 s
    (job,) = [job for job in plan_folders(small_dataset.videos).jobs if job.source == source]
    found = forecast([Job(job.key, source, (0.4, 1.0))], ConvertOptions((32,)), num_workers=1)
    assert found.duration_s == pytest.approx(0.6)


@pytest.mark.usefixtures("here")
def test_videos_that_do_not_convert_are_named_and_not_counted(
    small_dataset: SmallDataset, temporary: Path, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(small_dataset.videos / "apple", videos / "apple")
    (videos / "apple" / "text.mp4").write_text("no video")
    data = make_video(videos / "apple" / "cut.avi", 50, codec="mpeg4").read_bytes()
    good = forecast(plan_folders(small_dataset.videos).jobs[:4], ConvertOptions((32,)), num_workers=1)
    (videos / "apple" / "cut.avi").write_bytes(data[: len(data) // 20])
    found = forecast(plan_folders(videos).jobs, ConvertOptions((32,)), num_workers=1)
    assert {(video, reason) for _, video, reason, _ in found.failed} >= {("text", "not a video")}
    assert found.unreadable >= 1
    assert found.num_bytes == pytest.approx(good.num_bytes, rel=0.35)
    assert found.num_bytes > 0
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "text.mp4").write_text("no video")
    with pytest.raises(ClipmillError, match="text: not a video"):
        forecast(plan_folders(tmp_path / "bad").jobs, ConvertOptions((32,)), num_workers=1)
    assert list(temporary.iterdir()) == []


def test_the_estimators_agree_with_paper() -> None:
    assert _total([2.0, 4.0], 2, 2) == (6.0, 0.0)
    mean, error = _total([2.0, 4.0], 2, 8)
    assert (mean, error) == (24.0, pytest.approx(8 * (2 / 2 * (1 - 2 / 8)) ** 0.5))
    assert _ratio([10.0, 20.0], [1.0, 2.0], 100) == (10.0, 0.0)  # exactly in proportion
    ratio, error = _ratio([10.0, 30.0], [1.0, 1.0], 4)
    assert (ratio, error) == (20.0, pytest.approx((200 / 2 * (1 - 2 / 4)) ** 0.5))
    assert _ratio([5.0], [1.0], 10) == (5.0, 0.0)


@pytest.mark.usefixtures("here")
def test_the_command_says_whether_it_fits(
    small_dataset: SmallDataset, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    app.command("forecast")(command)
    runner = CliRunner()
    arguments = [
        str(small_dataset.videos),
        "--labels",
        str(small_dataset.labels),
        "--short-side",
        "32",
        "--workers",
        "1",
    ]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "From 12 videos converted for trial" in done.output
    assert done.output.splitlines()[-1].startswith(f"Next: clipmill ingest convert {small_dataset.videos} ROOT")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("ingest.forecast.shutil.disk_usage", lambda path: usage)
    done = runner.invoke(app, [*arguments, "--root", str(tmp_path / "root")])
    assert done.exit_code == 1
    assert done.output.splitlines()[-1].startswith("It does not fit")
    done = runner.invoke(app, [*arguments, "--root", str(tmp_path / "root"), "--json"])
    report = json.loads(done.stdout)
    assert (done.exit_code, report["fits"], report["free_bytes"], report["videos"]) == (1, False, 1000, 12)
