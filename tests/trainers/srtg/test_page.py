"""docs/methods/srtg.md says what is so: its tables are those of code and measurements, its recipes exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.benchmarks import bench_srtg_step, srtg_motion, srtg_networks
from tests.benchmarks._common import RESULTS
from tests.benchmarks._page import table_of
from trainers.config import load
from trainers.srtg.method import MethodConfig
from trainers.srtg.network import NETWORKS

PAGE = srtg_networks.PAGE
CONFIGS = Path(__file__).parents[3] / "configs" / "srtg"


def test_the_table_of_networks_is_counted() -> None:
    rows = [line.strip("| ").split(" | ") for line in table_of(PAGE, srtg_networks.MARKER).splitlines()[2:]]
    assert [row[0] for row in rows] == [name for name in NETWORKS if not name.startswith("srtg_")]
    for name, parameters, recursive, _ in rows[::6]:
        assert int(parameters.replace(",", "")) == srtg_networks.num_parameters(name)
        if recursive != "always":
            assert int(recursive.replace(",", "")) == srtg_networks.num_parameters(f"srtg_{name}")


def test_work_is_counted_as_by_hand() -> None:
    # The stem of r3d: 64 x 3 x 3 x 7 x 7 weights at 16 x 112 x 112 places, two operations each; most of the rest is 3 x 3 x 3.
    stem = 2 * 64 * 3 * 3 * 49 * 16 * 112 * 112 / 1e9
    layer1 = 4 * 2 * 64 * 64 * 27 * 8 * 56 * 56 / 1e9
    assert stem + layer1 < srtg_networks.gflops("r3d_18") < 2 * (stem + layer1)


def test_tables_are_those_of_the_measurements() -> None:
    runs = srtg_motion.finished()
    assert table_of(PAGE, "srtg_motion.jsonl: recursion") == srtg_motion.recursion_table(runs)
    assert table_of(PAGE, "srtg_motion.jsonl: shapes") == srtg_motion.shapes_table(runs)
    of_a_core = srtg_motion.shapes_table(runs, srtg_motion.ON_A_CORE)
    assert table_of(PAGE, "srtg_motion.jsonl: shapes, one core") == of_a_core
    step = RESULTS / "srtg_step.json"
    if step.exists():
        figures = json.loads(step.read_text())["figures"]
        assert table_of(PAGE, "srtg_step.json") == bench_srtg_step.table(figures)


def test_recipes_in_its_commands_and_tables_exist() -> None:
    text = PAGE.read_text()
    named = set(re.findall(r"--config (\w+)", text)) | set(re.findall(r"^\| `(\w+)`", text, re.M))
    files = {file.stem for file in CONFIGS.glob("*.yaml")}
    assert {name for name in named if name.startswith(("hacs", "kinetics", "mit", "ucf", "hmdb"))} <= files


def test_every_arm_of_the_motion_runs_is_a_config() -> None:
    for _, overrides in srtg_motion.ARMS.values():
        load(CONFIGS / "demo.yaml", overrides, MethodConfig)


def test_time_to_a_goal() -> None:
    curve = [(10.0, 0.2), (20.0, 0.6), (30.0, 0.5)]
    assert srtg_motion.time_to(0.5, curve) == 20.0
    assert srtg_motion.time_to(0.7, curve) is None
