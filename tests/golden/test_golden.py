"""Every case of every file of reference vectors: what the authors' code computed, ours computes."""

from __future__ import annotations

from tests.golden.cases import Case


def test_golden(golden_case: Case) -> None:
    golden_case.check()
