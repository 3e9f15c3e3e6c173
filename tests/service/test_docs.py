"""docs/service.md: its curl lines run as they stand, its tables name what there is, its figures are those measured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.benchmarks.service_figures import paragraph
from tests.conftest import Clipmill, SmallDataset
from tests.service.conftest import fill_catalog
from tests.service.test_serve import serving

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"<!-- {kind} -->\n```sh\n(.*?)```", TEXT, re.S)


def run_in(folder: Path, url: str, script: str) -> str:
    """Run a block of the page with the address of `url` in place of its own; every curl fails on an error status."""
    here = script.replace("http://127.0.0.1:8000", url.rstrip("/")).replace(
        "curl ", "curl --fail --silent --show-error "
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", here], cwd=folder, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(errors="replace")


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here: apt-get install curl")


@needs_curl
def test_the_questions_run_as_they_stand(
    tmp_path: Path, runs: Path, small_dataset: SmallDataset, clipmill: Clipmill
) -> None:
    done = clipmill("ingest", "convert", small_dataset.videos, tmp_path / "ucf101", "--short-side", "72")
    assert done.returncode == 0, done.stderr
    (runs / "live").rename(runs / "my-run")
    (script,) = blocks("tested")
    assert script.count("curl") == 12
    with serving("--root", tmp_path / "ucf101", "--runs", runs) as (_, url):
        said = run_in(tmp_path, url, script)
    assert '"status":"ok"' in said and '"api_version":1' in said and "event: run" in said and "# TYPE" in said
    assert (tmp_path / "frame.jpg").read_bytes().startswith(b"\xff\xd8\xff")


@needs_curl
def test_the_push_runs_as_it_stands(tmp_path: Path) -> None:
    fill_catalog(tmp_path / "motion")
    (tmp_path / "token").write_text("0123456789abcdef0123\n")
    (script,) = blocks("tested with token")
    with serving("--root", tmp_path / "motion", "--runs", tmp_path / "runs", "--token-file", tmp_path / "token") as (
        _,
        url,
    ):
        assert json.loads(run_in(tmp_path, url, script))["taken"] == 1
        assert json.loads(run_in(tmp_path, url, script))["taken"] == 0


def test_every_address_is_on_the_page(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    listed = {(method.upper(), path) for path, operations in paths.items() for method in operations}
    shown = {
        (method, path.replace("{id}", "{video}").replace("{n}", "{frame}"))
        for method, path in re.findall(r"(?m)^\| `(GET|POST) (/\S*)` \|", TEXT)
    }
    assert listed <= shown
    assert shown - listed == {("GET", "/"), ("GET", "/openapi.json")}


def test_every_operation_and_field_has_words_or_examples(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation.get("description"), path
    told = document["components"]["schemas"]
    for name in (
        "Dataset",
        "Video",
        "Run",
        "SpeedSample",
        "StageSum",
        "RankNow",
        "Push",
        "PushedReport",
        "Receipt",
        "Sheet",
    ):
        bare = [
            field for field, schema in told[name]["properties"].items()
            if not (schema.get("examples") or schema.get("description") or "$ref" in json.dumps(schema))
        ]  # fmt: skip
        assert [field for field in bare if field not in ("ended_at", "source")] == [], name


def test_every_metric_on_the_page_is_exported_and_the_other_way_round(client: TestClient) -> None:
    exported = set(re.findall(r"(?m)^# TYPE (clipmill_\w+)", client.get("/metrics").text))
    table = TEXT.partition("## Metrics")[2].partition("## Safety")[0]
    for name in exported:
        stem = name.removesuffix("_clips_per_second")
        assert any(
            name in row or f"`_{name.rpartition('_')[2]}" in row or stem.rpartition("_")[2] in row
            for row in table.splitlines()
        )
    for name in re.findall(r"`(clipmill_\w+)`", table):
        assert any(found.startswith(name) for found in exported) or "verification" in name or "time_left" in name, name


def test_the_figures_are_those_of_the_measurement() -> None:
    assert paragraph() in TEXT
