"""The sentence on what limits a run, and who holds the other ranks up."""

from __future__ import annotations

import pytest

from loaders.telemetry import Stage
from service.verdict import Recent, recent, stragglers, verdict

DECODES = {"read": Stage(100, 1.0), "decode": Stage(100, 8.0), "assemble": Stage(100, 1.0), "wait": Stage(100, 500.0)}


@pytest.mark.parametrize(
    ("now", "stages", "words"),
    [
        (Recent(), {}, ["no waiting time yet"]),
        (Recent(wait_share=0.02, forward=100.0, backward=50.0), DECODES, ["keeps up", "2.0 %", "67 % of it the backward"]),
        (Recent(wait_share=0.0), {}, ["keeps up", "0 %"]),
        (Recent(wait_share=0.4), DECODES, ["The loader is the limit", "40 %", "80 % of its work is decode", "threads"]),
        (Recent(wait_share=0.4), {"read": Stage(1, 5.0)}, ["100 % of its work is read", "faster disk"]),
        (Recent(wait_share=0.4), {"teleport": Stage(1, 5.0)}, ["teleport: give the loader more threads"]),
        (Recent(wait_share=0.4), {"wait": Stage(1, 5.0)}, ["The loader is the limit", "Give it more threads"]),
        (Recent(wait_share=0.4), {}, ["The loader is the limit"]),
    ],
)  # fmt: skip
def test_the_sentence(now: Recent, stages: dict[str, Stage], words: list[str]) -> None:
    said = verdict("running", 1.0, now, stages)
    assert [word for word in words if word not in said] == []
    assert said.endswith(".") and "wait" not in said.partition("its work is")[2]


def test_a_dead_run_is_dead_whatever_its_numbers_were() -> None:
    said = verdict("dead", 7200.0, Recent(wait_share=0.9), DECODES)
    assert said.startswith("No sign of life for 2 h") and "--resume" in said


def test_means_pass_over_what_is_unknown() -> None:
    assert recent([{"read": 1.0, "forward": None}, {"read": 3.0, "forward": 4.0}]) == Recent(read=2.0, forward=4.0)
    assert recent([]) == Recent()


@pytest.mark.parametrize(
    ("rates", "slow"),
    [
        ({}, set()),
        ({0: (10.0, 10.0)}, set()),
        ({0: (10.0, 10.0), 1: (10.0, 10.0)}, set()),
        ({0: (100.0, 10.0), 1: (100.0, 10.0), 2: (100.0, 5.0)}, {2}),
        ({0: (100.0, 10.0), 1: (100.0, 10.0), 2: (9.0, 10.0)}, {2}),
        ({0: (100.0, 10.0), 1: (100.0, 10.0), 2: (100.0, 9.0)}, set()),
        ({0: (100.0, 10.0), 1: (None, 10.0), 2: (100.0, None)}, set()),
    ],
)
def test_stragglers(rates: dict[int, tuple[float | None, float | None]], slow: set[int]) -> None:
    assert stragglers({rank: Recent(read=r, forward=f) for rank, (r, f) in rates.items()}) == slow
