"""`clipmill demo`: the whole house, small."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .conftest import clipmill

SMALL = ("--num-videos", 64, "train.epochs=1", "data.test_views=[2,1]")


@pytest.mark.slow
def test_demo_leaves_a_summary_and_a_page_that_needs_no_other_host(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = clipmill("demo", "--out", out, *SMALL, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert {"test_top1", "seconds", "videos", "frames", "clips_per_s", "seed"} <= summary.keys()
    assert summary["videos"] == 64 and summary["frames"] > 64 * 50
    assert summary["clips_per_s"] > 0
    assert {"videos", "ingest", "train", "test", "total"} <= summary["seconds"].keys()
    dataset, speed = summary["service"]["dataset"], summary["service"]["speed"]
    assert dataset["states"]["ok"] == 64
    assert speed["samples"] and speed["samples"][-1]["read"] > 0

    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 4
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    for heading in ("Loss and accuracy", "Confusion matrix", "Clips as the trainer saw them", "Speed", "Ingest"):
        assert heading in page

    before = {path: path.stat().st_mtime_ns for path in out.rglob("frames.db")}
    again = clipmill("demo", "--out", out, *SMALL, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in out.rglob("frames.db")} == before
    assert json.loads((out / "summary.json").read_text())["test_top1"] == summary["test_top1"]


def test_demo_into_a_folder_of_another_demo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo" / "source").mkdir(parents=True)
    (tmp_path / "demo" / "source" / "demo.json").write_text('{"kind": "other"}')
    done = clipmill("demo", "--out", tmp_path / "demo", *SMALL)
    assert done.returncode == 2
    assert "another demo set" in done.stderr and "Traceback" not in done.stderr
