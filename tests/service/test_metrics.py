"""/metrics: a text that Prometheus parses, with the numbers of the catalogs and runs."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.settings import Settings

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(client: TestClient) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation and family.type in ("gauge", "counter", "info") for family in families)
    assert all(family.name.startswith("clipmill_") for family in families)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def test_datasets(client: TestClient) -> None:
    samples = scrape(client)
    states = {
        s: value(samples, "clipmill_dataset_videos", dataset="motion", state=s) for s in ("ok", "failed", "missing")
    }
    assert states == {"ok": 4, "failed": 1, "missing": 1}
    assert value(samples, "clipmill_dataset_frames", dataset="motion") == 300
    assert value(samples, "clipmill_dataset_bytes", dataset="motion") == 12000
    assert value(samples, "clipmill_dataset_level_bytes", dataset="motion", store="frames-db", short_side="64") == 1600
    assert value(samples, "clipmill_dataset_unusable_videos", dataset="motion", reason="truncated") == 1
    assert value(samples, "clipmill_ingest_running", dataset="motion") == 1
    assert value(samples, "clipmill_ingest_videos", dataset="motion", outcome="done") == 4


def test_runs(client: TestClient) -> None:
    samples = scrape(client)
    assert value(samples, "clipmill_run_state", run="live", state="running") == 1
    assert value(samples, "clipmill_run_state", run="lost", state="running") == 0
    assert value(samples, "clipmill_run_state", run="lost", state="dead") == 1
    assert value(samples, "clipmill_loader_read_clips_per_second", run="live") == 400
    assert value(samples, "clipmill_loader_wait_ratio", run="live") == 0.05
    assert value(samples, "clipmill_run_batch_clips", run="live") == 16
    assert value(samples, "clipmill_loader_stage_seconds_total", run="live", stage="decode") == 15
    age = value(samples, "clipmill_run_heartbeat_age_seconds", run="lost")
    assert age is not None and age > 3500


def test_a_run_that_does_not_run_has_no_speed(client: TestClient) -> None:
    samples = scrape(client)
    for run in ("done", "lost"):
        assert value(samples, "clipmill_loader_read_clips_per_second", run=run) is None
        assert value(samples, "clipmill_run_up", run=run) == 1
    assert value(samples, "clipmill_run_heartbeat_age_seconds", run="done") is None


def test_what_cannot_be_read_is_down_and_the_rest_is_there(root: Path, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (runs / "half").mkdir()
    (runs / "half" / "telemetry.db").write_bytes(b"x" * 5000)
    settings = Settings({"motion": root, "bad": tmp_path / "bad"}, runs)
    samples = scrape(TestClient(create_app(settings), base_url="http://127.0.0.1"))
    assert value(samples, "clipmill_dataset_up", dataset="bad") == 0
    assert value(samples, "clipmill_dataset_up", dataset="motion") == 1
    assert value(samples, "clipmill_run_up", run="half") == 0
    assert value(samples, "clipmill_run_up", run="live") == 1


def test_awkward_names_are_escaped(root: Path, tmp_path: Path) -> None:
    name = 'a "b"\\c\nd'
    samples = scrape(TestClient(create_app(Settings({name: root}, tmp_path)), base_url="http://127.0.0.1"))
    assert value(samples, "clipmill_dataset_up", dataset=name) == 1


def test_openmetrics_where_asked(client: TestClient) -> None:
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert list(openmetrics.text_string_to_metric_families(answer.text))
