"""What README tells a newcomer to type runs, word for word."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_TESTED = re.compile(r"<!-- tested -->\n```(sh|python)\n(.*?)```", re.S)


@pytest.mark.slow
def test_readme_commands_and_code_run_in_order_as_they_stand(tmp_path: Path) -> None:
    blocks = _TESTED.findall((ROOT / "README.md").read_text())
    assert {kind for kind, _ in blocks} == {"sh", "python"}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for kind, text in blocks:
        command = ["bash", "-euo", "pipefail", "-c", text] if kind == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_figures_in_the_design_are_those_of_the_measurement() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    result = json.loads((ROOT / "tests" / "benchmarks" / "results" / "decode_path.json").read_text())
    per_cpu_s = {row["way"]: row["frames_per_cpu_s"] for row in result["figures"]["rows"] if row["short_side"] == 224}
    for way in ("libraries", "command, raw", "command, JPEG"):
        assert f"{per_cpu_s[way]:,.0f}" in text, way
    assert f"keeps {per_cpu_s['convert_video'] / per_cpu_s['libraries']:.2f} of the first" in text


def test_every_file_that_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
