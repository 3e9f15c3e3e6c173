"""docs/methods/sbp.md: its example runs, its tables are those of the results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import sbp_page
from tests.test_docs import run_blocks

PAGE = Path(__file__).parents[3] / "docs" / "methods" / "sbp.md"


@pytest.mark.slow
def test_the_commands_run_in_order_as_they_stand(tmp_path: Path) -> None:
    assert run_blocks(PAGE, tmp_path) == {"sh"}


def test_the_example_runs_and_learns() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    gradient = names["clip"].grad.abs().sum((0, 2, 3))
    assert (gradient > 0).all()  # keys, values and the shortcut learn everywhere
    assert all(each.grad is not None for each in [*names["mlp"].parameters(), *names["modules"].parameters()])


@pytest.mark.parametrize("name", sbp_page.TABLES)
def test_tables_are_those_of_the_results(name: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert sbp_page.filled(page, name) == page, "python -m tests.benchmarks.sbp_page"
