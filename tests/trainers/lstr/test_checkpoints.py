"""The authors' files load, and ours are files that they could load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainers.lstr.networks import SMALL, make
from trainers.lstr.checkpoints import load_published, save_published
from trainers.lstr.network import LSTR


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    model = make(SMALL, seed=1)
    save_published(tmp_path / "epoch-3.pth", model, 3)
    content = torch.load(tmp_path / "epoch-3.pth", weights_only=True)
    assert sorted(content) == ["epoch", "model_state_dict", "optimizer_state_dict"] and content["epoch"] == 3
    other = make(SMALL, seed=2)
    assert load_published(other, content).complete
    for name, value in model.state_dict().items():
        assert (other.state_dict()[name] == value).all(), name


def test_a_bare_state_dict_with_the_prefix_of_data_parallel_loads() -> None:
    state = {f"module.{name}": value for name, value in make(SMALL, seed=1).state_dict().items()}
    assert load_published(make(SMALL, seed=2), state).complete


def test_a_table_of_positions_of_another_length_is_no_obstacle() -> None:
    longer = LSTR(replace(SMALL, max_positions=200))
    model = make(SMALL)
    before = model.pos_encoding.pe.clone()
    assert load_published(model, {"model_state_dict": longer.state_dict()}).complete
    assert (model.pos_encoding.pe == before).all() and (longer.pos_encoding.pe[:64] == before).all()


def test_another_number_of_classes_loads_all_but_the_classifier() -> None:
    report = load_published(make(SMALL), {"model_state_dict": make(replace(SMALL, num_classes=9)).state_dict()})
    assert [each.name for each in report.mismatched] == ["classifier.weight", "classifier.bias"]


def test_names_are_the_published_ones() -> None:
    names = list(LSTR(SMALL).state_dict())
    assert names[:5] == [
        "feature_head_long.input_linear.0.weight",
        "feature_head_long.input_linear.0.bias",
        "feature_head_work.input_linear.0.weight",
        "feature_head_work.input_linear.0.bias",
        "pos_encoding.pe",
    ]
    assert "enc_modules.1.layers.1.multihead_attn.out_proj.bias" in names and names[-1] == "classifier.bias"


def test_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing in the checkpoint fits"):
        load_published(make(SMALL), {"model_state_dict": {"weight": torch.zeros(2)}})
