"""What the documentation tells one to type runs, word for word; its figures are those of the measurements."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import bench_ingest, bench_ingest_scale, bench_jpeg_quality

ROOT = Path(__file__).parent.parent
_TESTED = re.compile(r"<!-- tested -->\n```(sh|python)\n(.*?)```", re.S)


@pytest.mark.slow
def test_readme_commands_and_code_run_in_order_as_they_stand(tmp_path: Path) -> None:
    assert run_blocks(ROOT / "README.md", tmp_path) == {"sh", "python"}


@pytest.mark.slow
def test_the_commands_for_large_collections_run_in_order_as_they_stand(tmp_path: Path) -> None:
    assert run_blocks(ROOT / "docs" / "scale.md", tmp_path) == {"sh"}


@pytest.mark.slow
def test_the_commands_for_training_run_in_order_as_they_stand(tmp_path: Path) -> None:
    assert run_blocks(ROOT / "docs" / "training.md", tmp_path) == {"sh"}


def run_blocks(page: Path, folder: Path) -> set[str]:
    """Run the blocks of a page that are marked as tested, one after the other in `folder`; the languages they are in."""
    blocks = _TESTED.findall(page.read_text())
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for kind, text in blocks:
        command = ["bash", "-euo", "pipefail", "-c", text] if kind == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return {kind for kind, _ in blocks}


def test_figures_in_the_design_are_those_of_the_measurement() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    per_cpu_s = {
        row["way"]: row["frames_per_cpu_s"] for row in figures_of("decode_path")["rows"] if row["short_side"] == 224
    }
    for way in ("libraries", "command, raw", "command, JPEG"):
        assert f"{per_cpu_s[way]:,.0f}" in text, way
    assert f"keeps {per_cpu_s['convert_video'] / per_cpu_s['libraries']:.2f} of the first" in text


def test_tables_of_measurements_are_made_from_their_results() -> None:
    quality = bench_jpeg_quality.table(figures_of("jpeg_quality"))
    assert f"<!-- jpeg_quality.json -->\n{quality}<!-- end -->" in (ROOT / "docs" / "formats.md").read_text()
    page = (ROOT / "docs" / "scale.md").read_text()
    scale = bench_ingest_scale.table(figures_of("ingest"), figures_of("ingest_scale"))
    assert f"<!-- ingest.json, ingest_scale.json -->\n{scale}<!-- end -->" in page
    assert f"<!-- ingest.json -->\n{bench_ingest.table(figures_of('ingest'))}<!-- end -->" in page


def figures_of(name: str) -> dict:
    return json.loads((ROOT / "tests" / "benchmarks" / "results" / f"{name}.json").read_text())["figures"]


def test_every_file_that_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
