"""SRTG as the loop sees it: rates of fine-tuning, class counts, batch norm by parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ingest.errors import ClipmillError
from tests.trainers.conftest import clipmill
from trainers.batch_norm import sub_batch_norms
from trainers.srtg.method import MethodConfig, create, load_published
from trainers.srtg.network import build

ConfigOf = Callable[..., MethodConfig]


def _rates(config: MethodConfig, *, init: bool = True) -> dict[str, tuple[float, int]]:
    method = create(config, 8)
    if init:
        report = load_published(method.models["model"], build("srtg_r3d_18", 5, width=4).state_dict())
        method.initialised("model", report)
    (groups,) = method.param_groups().values()
    return {group["name"]: (group.get("lr_mult", 1.0), len(group["params"])) for group in groups}


def test_from_scratch_all_parameters_learn_alike(config_of: ConfigOf) -> None:
    assert _rates(config_of(), init=False) == {"all": (1.0, 62 + 64)}


def test_fine_tuning_slows_convolutions_and_recurrent_nets_not_the_classifier(config_of: ConfigOf) -> None:
    rates = _rates(config_of("model.fine_tune.groups=parts"))
    assert rates == {"backbone": (0.6, 60), "recurrent": (0.5, 64), "head": (1.0, 2)}


def test_fresh_layers_learn_as_the_classifier_does(config_of: ConfigOf) -> None:
    method = create(config_of("model.fine_tune.groups=parts"), 8)
    plain = build("r3d_18", 8, width=4).state_dict()
    method.initialised("model", load_published(method.models["model"], plain))
    (groups,) = method.param_groups().values()
    assert {group["name"]: len(group["params"]) for group in groups} == {"backbone": 60, "recurrent": 0, "head": 66}


def test_published_groups_slow_the_classifier_too(config_of: ConfigOf) -> None:
    rates = _rates(config_of("model.fine_tune.groups=published"))
    assert rates == {"base": (0.6, 62), "new": (1.0, 0), "rec": (0.5, 0), "transpose": (1.0, 64)}


def test_norms_follow_the_clips_of_a_stage(config_of: ConfigOf) -> None:
    method = create(config_of("model.norm=sub", "model.norm_clips=2"), 8)
    norms = sub_batch_norms(method.models["model"])
    assert {norm.num_splits for norm in norms.values()} == {2}  # Batches of 4.
    method.stage_changed(16)
    assert {norm.num_splits for norm in norms.values()} == {8}
    method.models["model"](torch.randn(16, 3, 2, 32, 32))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=srtg_r3d34", "'srtg_r3d34'; the nearest name is 'srtg_r3d_34'"),
        ("model.place=start", "no place 'start'"),
        ("model.name=mtnet_xs", "MTNet's recursion has no gates"),
    ],
)
def test_settings_that_do_not_go_together_are_explained(config_of: ConfigOf, override: str, message: str) -> None:
    with pytest.raises(ClipmillError, match=message):
        create(config_of(override), 8)


def test_weights_of_other_classes_begin_a_training(recipe: Path, tmp_path: Path) -> None:
    """As a user does it: a file in the authors' form, of 5 classes, into a run of 8."""
    state = build("srtg_r3d_18", 5, width=4).state_dict()
    state = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {}}, tmp_path / "authors.pth")
    done = clipmill(
        "train", "srtg", "--config", recipe, "--out", tmp_path / "run", "--init", tmp_path / "authors.pth",
        "train.epochs=1", "train.report=false", "model.fine_tune.groups=parts",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "loaded 184 of 186 tensors" in done.stdout
    assert "the file has 5 classes, the model 8: the classifier keeps its fresh weights" in done.stdout
