"""docs/loaders.md: what it tells one to type runs, and its figures are those of the measurement."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.benchmarks import bench_dali
from tests.test_docs import ROOT, figures_of, run_blocks

PAGE = ROOT / "docs" / "loaders.md"


@pytest.mark.slow
def test_its_commands_and_code_run_in_order_as_they_stand(tmp_path: Path) -> None:
    assert run_blocks(PAGE, tmp_path) == {"sh", "python"}
    assert (tmp_path / "checkpoint.pt").exists()


def test_its_table_is_made_from_the_result() -> None:
    assert f"<!-- dali.json -->\n{bench_dali.table(figures_of('dali'))}<!-- end -->" in PAGE.read_text()


def test_every_file_that_it_names_exists() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text()):
        assert (PAGE.parent / link).exists(), link
    for name in re.findall(r"`(tests/[\w/.]+)`", PAGE.read_text()):
        assert (ROOT / name).exists(), name
