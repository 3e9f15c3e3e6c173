"""Files as SRTG's authors saved them: what loads, and what the report says of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trainers.batch_norm import with_sub_batch_norm
from trainers.srtg.checkpoints import load_published
from trainers.srtg.network import build


def _published(num_classes: int) -> dict[str, Any]:
    """A checkpoint laid out as the authors save theirs."""
    state = build("srtg_r3d_18", num_classes, width=8).state_dict()
    return {
        "epoch": 42,
        "state_dict": {f"module.{name}": value for name, value in state.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }


def test_a_published_file_loads_whole(tmp_path: Path) -> None:
    checkpoint = _published(5)
    torch.save(checkpoint, tmp_path / "srtg_ep-0042.pth")
    model = build("srtg_r3d_18", 5, width=8)
    report = load_published(model, tmp_path / "srtg_ep-0042.pth")
    assert report.complete
    assert str(report) == "loaded 186 of 186 tensors"
    for name, value in model.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][f"module.{name}"])


def test_other_classes_load_all_but_the_classifier_and_say_so() -> None:
    model = build("srtg_r3d_18", 5, width=8)
    before = model.fc.weight.clone()
    report = load_published(model, _published(7))
    assert [(each.name, each.checkpoint, each.model) for each in report.mismatched] == [
        ("fc.weight", (7, 64), (5, 64)),
        ("fc.bias", (7,), (5,)),
    ]
    assert not report.complete
    assert "fc.weight (checkpoint [7, 64], model [5, 64])" in str(report)
    assert torch.equal(model.fc.weight, before)


def test_missing_and_unexpected_tensors_are_named() -> None:
    plain, gated = build("r3d_18", 5, width=8), build("srtg_r3d_18", 5, width=8)
    missing = load_published(gated, plain.state_dict())
    assert len(missing.missing) == 64
    assert "missing in the checkpoint: 64\n    layer1.0.sar.lstm.weight_ih_l0" in str(missing)
    assert "and 56 more" in str(missing)
    assert len(load_published(plain, gated.state_dict()).unexpected) == 64


def test_a_file_that_fits_nowhere_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing in the checkpoint fits"):
        load_published(build("r3d_18", 5, width=8), {"state_dict": {"module.other": torch.zeros(1)}})
    with pytest.raises(TypeError, match="'epoch' in the checkpoint is int"):
        load_published(build("r3d_18", 5, width=8), {"epoch": 3})


def test_the_report_explains_what_users_stumble_over() -> None:
    assert "the file has 7 classes, the model 5" in str(load_published(build("srtg_r3d_18", 5, width=8), _published(7)))
    plain = build("r3d_18", 5, width=8).state_dict()
    assert "srtg_r3d_34 gave r3d_34" in str(load_published(build("srtg_r3d_18", 5, width=8), plain))
    assert "take the same name with srtg_" in str(load_published(build("r3d_18", 5, width=8), _published(5)))
    old = build("r3d_50", 5, width=8).state_dict()
    old["layer1.0.conv3.0.weight"] = old["layer1.0.conv3.0.weight"].repeat(4, 1, 1, 1, 1)
    assert "June 2020" in str(load_published(build("r3d_50", 5, width=8), old))


def test_a_published_file_loads_into_a_network_with_sub_batch_norm() -> None:
    model = with_sub_batch_norm(build("srtg_r3d_18", 5, width=8), 4)
    published = _published(5)
    published["state_dict"]["module.stem.1.running_mean"] += 3
    assert load_published(model, published).complete
    assert (model.stem[1].bn.running_mean == 3).all()
    assert (model.stem[1].split_bn.running_mean == 3).all()
