"""What `promtool check metrics` looks for, without promtool: names, units and types after Prometheus' conventions.

Source: prometheus.io/docs/practices/naming and the rules of promlint. With promtool on the path it is asked, too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from loaders.telemetry import SpeedSample, Stage, TelemetryWriter
from service.app import create_app
from service.settings import Settings

_NOT_BASE_UNITS = (
    "milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "kilobytes", "megabytes", "kibibytes",
    "bits", "percent", "ms", "us", "kb", "mb", "gb", "fps", "px",
)  # fmt: skip


@pytest.fixture
def text(root: Path, runs: Path) -> str:
    """Everything there is to say: datasets, an ingest, runs that report all they can."""
    writer = TelemetryWriter(runs / "full", {"method": "srtg"})
    stages = {"decode": Stage(1, 1.0, 1, 0.1, 0.2, 0.3)}
    writer.report(
        SpeedSample(1, 0, "train", 1, 1, 1, 1, 1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 1.0, 0.5, stages=stages, occupancy=0.5)
    )
    app = create_app(Settings({"motion": root}, runs))
    answer = TestClient(app, base_url="http://localhost").get("/metrics").text
    writer.close("finished")
    return answer


@pytest.fixture
def families(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))


def test_names_are_lower_case_words_after_one_prefix(families: list[Metric]) -> None:
    assert [f.name for f in families if not re.fullmatch(r"clipmill(_[a-z][a-z0-9]*)+", f.name)] == []


def test_every_metric_has_one_help_and_one_type(text: str, families: list[Metric]) -> None:
    for word in ("HELP", "TYPE"):
        told = re.findall(rf"(?m)^# {word} (\S+)", text)
        assert len(told) == len(set(told)) == len(families)
    assert [f.name for f in families if not f.documentation or f.documentation.endswith(".")] == []


def test_counters_end_in_total_and_nothing_else_does(text: str) -> None:
    types = dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)", text))
    assert {name for name, kind in types.items() if kind == "counter"} == {n for n in types if n.endswith("_total")}
    assert set(types.values()) <= {"gauge", "counter"}


def test_only_base_units_and_no_type_in_a_name(families: list[Metric]) -> None:
    words = {word for family in families for word in family.name.split("_")}
    assert words & {*_NOT_BASE_UNITS, "gauge", "counter", "metric"} == set()
    shares = [f for f in families if "ratio" in f.name.split("_")]
    assert shares and all(0 <= s.value <= 1 for f in shares for s in f.samples)
    assert all(f.name.endswith("_ratio") for f in shares)


def test_labels_are_words_and_no_series_comes_twice(text: str, families: list[Metric]) -> None:
    for family in families:
        keys = [(s.name, frozenset(s.labels.items())) for s in family.samples]
        assert len(keys) == len(set(keys)), family.name
        labels = {label for s in family.samples for label in s.labels}
        assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in labels - {"le", "quantile"}), family.name
        assert labels & {"le", "quantile", "job", "instance"} == set()


def test_the_samples_of_a_metric_stand_together(text: str) -> None:
    order = [line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    seen: list[str] = []
    for name in order:
        if not seen or seen[-1] != name:
            assert name not in seen, name
            seen.append(name)


def test_promtool_agrees(text: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_promtool_agrees_with_the_alerts() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    folder = Path(__file__).parents[2] / "docker" / "prometheus"
    subprocess.run([promtool, "check", "rules", folder / "alerts.yaml"], check=True, capture_output=True)
