"""`--golden-dir DIR`: run the reference vectors of another folder instead of those in the tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.cases import collect

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir", type=Path, default=None, help="folder of reference vectors (default: tests/golden)"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden_case" in metafunc.fixturenames:
        # Without default: pytest reads this file too late for its options unless tests/golden is on the command line.
        cases = collect(metafunc.config.getoption("--golden-dir", default=None) or HERE)
        metafunc.parametrize("golden_case", [pytest.param(case, id=case.id) for case in cases])
