"""The page of the method: its commands run, its figures are those of the measurements."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import bench_lstr, lstr_memory
from tests.test_docs import figures_of, run_blocks

PAGE = Path(__file__).parents[3] / "docs" / "methods" / "lstr.md"


@pytest.mark.slow
def test_the_commands_run_in_order_as_they_stand(tmp_path: Path) -> None:
    assert run_blocks(PAGE, tmp_path) == {"sh"}
    figures = json.loads((tmp_path / "runs" / "lstr" / "test.json").read_text())
    assert figures["mode"] == "stream" and figures["mean_average_precision"] > 0


def test_tables_are_made_from_their_results() -> None:
    text = PAGE.read_text()
    assert f"<!-- lstr.json -->\n{bench_lstr.table(figures_of('lstr'))}<!-- end -->" in text
    runs = figures_of("lstr_memory")["runs"]
    assert f"<!-- lstr_memory.json -->\n{lstr_memory.table(runs)}<!-- end -->" in text


def test_the_long_memory_is_worth_having() -> None:
    """As committed: per-frame mAP well above that of the same network without it, in every seed."""
    runs = {(run["variant"], run["seed"]): run["mAP"] for run in figures_of("lstr_memory")["runs"]}
    for seed in lstr_memory.SEEDS:
        assert runs["LSTR", seed] > runs["without long memory", seed] + 0.2


def test_sharing_work_is_worth_five_plain_forwards() -> None:
    figures = figures_of("lstr")["batch"]
    assert figures["whole_times_plain"] >= 5 and figures["largest_difference"] <= 1e-5


def test_the_cue_lies_more_than_30_s_before_its_action() -> None:
    for index in range(20):
        spans, classes = lstr_memory.timeline(np.random.default_rng(index))
        behaviours = [each.behaviour for each in spans for _ in range(each.num_frames // lstr_memory.CHUNK)]
        assert len(behaviours) == len(classes)
        cue, ended = None, 0
        for row, (behaviour, column) in enumerate(zip(behaviours, classes.tolist(), strict=True)):
            if behaviour in lstr_memory.CUES:
                cue, ended = behaviour, row + 1
            assert (column > 0) == (behaviour == lstr_memory.ACTION)
            if column:
                assert lstr_memory.CUES[column - 1] == cue and row - ended >= 30 * 4
