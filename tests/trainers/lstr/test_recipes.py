"""The shipped recipes: they can be built, and say what was published."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

import configs
from ingest.errors import ClipmillError
from trainers.config import find, load
from trainers.engine.optimizers import build_optimizer
from trainers.engine.schedules import lr_factor
from trainers.lstr.data import PUBLISHED_INFO, read_data_info
from trainers.lstr.method import MethodConfig, create
from trainers.lstr.network import LSTR
from trainers.lstr.schedules import LrPlan

RECIPES = sorted(path.stem for path in (Path(configs.__path__[0]) / "lstr").glob("*.yaml"))

CLASSES = {"thumos": 22, "tvseries": 31, "hdd": 12, "hacs": 201, "activitynet": 201}
PARAMETERS = {"thumos": 58_882_070, "tvseries": 58_891_295}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_built(name: str) -> None:
    config = load(find(name, "lstr"), [], MethodConfig)
    with torch.device("meta"):
        method = create(config, CLASSES[name.partition("_")[0]])
    count = sum(each.numel() for each in method.network.parameters())
    if name in PARAMETERS:
        assert count == PARAMETERS[name]
    assert method.network.spec.num_long == 512 and method.network.spec.num_work == 32
    build_optimizer(config.optimizer, method.param_groups()["model"], config.optimizer.lr)


@pytest.mark.parametrize("steps_per_epoch", [1, 13, 1373])
def test_the_rates_are_the_published_ones_to_the_last_iteration(steps_per_epoch: int) -> None:
    config = load(find("thumos", "lstr"), [], MethodConfig)
    plan = LrPlan("warmup_cosine", 7e-5, steps_per_epoch, 25, warmup_epochs=10, warmup_factor=0.3)
    total = 25 * steps_per_epoch
    for k in {1, 2, total // 3, 10 * steps_per_epoch, 10 * steps_per_epoch + 1, total - 1, total} - {0}:
        ours = config.optimizer.lr * lr_factor(config.schedule, k - 1, steps_per_epoch, 25)
        assert ours == pytest.approx(plan.lr(k), abs=1e-15), k
    assert plan.lr(total) == 0


def test_published_classes_and_sessions_are_those_of_the_lists() -> None:
    facts = {"THUMOS": ("865cb01d642e8b21", 200, 213, 21, "AP"), "TVSeries": ("8cd89bfa0d601ca9", 20, 7, -100, "cAP")}
    for name, (digest, train, test, ignore, metric) in facts.items():
        entry = read_data_info(PUBLISHED_INFO, name)
        names = "\n".join(entry.class_names).encode()
        assert hashlib.sha256(names).hexdigest()[:16] == digest
        assert len(set(entry.train_session_set)) == train and len(set(entry.test_session_set)) == test
        assert not set(entry.train_session_set) & set(entry.test_session_set)
        assert (entry.ignore_index, entry.metrics, entry.fps) == (ignore, metric, 4)


def test_ages_are_accepted_and_checked() -> None:
    load(find("thumos", "lstr"), ["model.ages_seconds=8", "model.ages_rate=2"], MethodConfig)
    with pytest.raises(ClipmillError, match="ages"):
        load(find("thumos", "lstr"), ["model.ages_seconds=8", "model.ages_rate=3"], MethodConfig)


def test_features_of_unknown_width_must_say_it() -> None:
    config = load(find("thumos", "lstr"), ["data.visual=my_features"], MethodConfig)
    with pytest.raises(ClipmillError, match=r"data\.visual_size"):
        create(config, 22)
    assert load(
        find("thumos", "lstr"), ["data.visual=my_features", "data.visual_size=77", "model.modality=visual"], MethodConfig
    ).spec(22).row_size == 77  # fmt: skip


def test_positions_may_be_more_than_the_published_5000() -> None:
    from dataclasses import replace

    from tests.trainers.lstr.networks import SMALL

    with pytest.raises(ValueError, match="max_positions"):
        LSTR(replace(SMALL, num_long=60))
    assert LSTR(replace(SMALL, num_long=60, max_positions=66)).pos_encoding.pe.shape[0] == 66
