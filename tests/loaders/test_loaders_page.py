"""docs/loaders.md: what it tells one to type runs, and its figures are those of the measurement."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import bench_dali, bench_jpeg_parts, bench_loader, bench_loader_peers, bench_loader_shapes
from tests.test_docs import ROOT, figures_of, run_blocks

PAGE = ROOT / "docs" / "loaders.md"


@pytest.mark.slow
def test_its_commands_and_code_run_in_order_as_they_stand(tmp_path: Path) -> None:
    assert run_blocks(PAGE, tmp_path) == {"sh", "python"}
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("dali", bench_dali.table),
        ("jpeg_parts", bench_jpeg_parts.table),
        ("loader", bench_loader.table),
        ("loader_peers", bench_loader_peers.table),
        ("loader_shapes", bench_loader_shapes.table),
    ],
)
def test_its_tables_are_made_from_the_results(name: str, table: Callable[[dict[str, Any]], str]) -> None:
    assert f"<!-- {name}.json -->\n{table(figures_of(name))}<!-- end -->" in PAGE.read_text()


def test_every_file_that_it_names_exists() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text()):
        assert (PAGE.parent / link).exists(), link
    for name in re.findall(r"`(tests/[\w/.]+)`", PAGE.read_text()):
        assert (ROOT / name).exists(), name
