"""SRTG networks: shapes, sizes, names and the authors' files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainers.srtg.checkpoints import load_published
from trainers.srtg.network import NETWORKS, build, ip_depthwise
from trainers.srtg.recursion import SqueezeRecursion


def _parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(name, 400).parameters())


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("r3d_18", 33_371_472),
        ("srtg_r3d_34", 83_861_072),
        ("r2plus1d_50", 34_863_287),
        ("srtg_r2plus1d_101", 105_293_623),
        ("r3dxt50_32x4d", 140_937_936),
        ("srtg_r2plus1dxt101_32x8d", 1_051_290_369),
        ("wide_r2plus1d101_2", 258_361_837),
        ("srtg_ir_csn_50", 23_054_864),
        ("ip_csn_152", 10_521_488),
    ],
)
def test_published_sizes(name: str, num_parameters: int) -> None:
    assert _parameters(name) == num_parameters


def test_every_layout_comes_with_and_without_recursion() -> None:
    plain = {name for name in NETWORKS if not name.startswith("srtg_")}
    assert {f"srtg_{name}" for name in plain} == set(NETWORKS) - plain
    assert len(plain) == 28


@pytest.mark.parametrize("name", ["srtg_r3d_34", "srtg_r2plus1d_50", "srtg_ip_csn_50"])
def test_shapes_of_the_published_clip(name: str) -> None:
    with torch.device("meta"):
        model, clip = build(name, 400), torch.empty(2, 3, 16, 224, 224)
    shapes: dict[str, tuple[int, ...]] = {}
    for stage in ("stem", "pool", "layer1", "layer2", "layer3", "layer4"):
        model.get_submodule(stage).register_forward_hook(
            lambda _module, _args, output, stage=stage: shapes.update({stage: tuple(output.shape[1:])})
        )
    assert model(clip).shape == (2, 400)
    assert shapes == {
        "stem": (64, 16, 112, 112),
        "pool": (64, 8, 56, 56),
        "layer1": (64, 8, 56, 56),
        "layer2": (128, 4, 28, 28),
        "layer3": (256, 2, 14, 14),
        "layer4": (512, 1, 7, 7),
    }


def test_width_scales_stem_and_planes_together() -> None:
    model = build("srtg_r2plus1d_18", 5, width=16)
    assert [model.stem[index].out_channels for index in (0, 3)] == [11, 16]
    assert model.fc.in_features == 128
    assert model.layer4[1].sar.lstm.hidden_size == 128
    assert model(torch.randn(2, 3, 4, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize("shape", [(1, 3, 1, 64, 64), (1, 3, 8, 16, 16), (1, 3, 5, 40, 33)])
def test_one_frame_one_pixel_maps_and_odd_sizes(shape: tuple[int, ...]) -> None:
    model = build("srtg_r3d_18", 5, width=8, gates="cycle").eval()
    assert model(torch.randn(shape)).isfinite().all()


def test_other_numbers_of_channels() -> None:
    assert build("r3d_18", 5, width=8, in_channels=2).eval()(torch.randn(1, 2, 4, 32, 32)).shape == (1, 5)


def test_channels_last_goes_through_the_stages() -> None:
    model = build("srtg_r3d_18", 5, width=8, gates="cycle").to(memory_format=torch.channels_last_3d).eval()
    kept: dict[str, bool] = {}
    for stage in ("stem", "pool", "layer1", "layer2", "layer3"):
        model.get_submodule(stage).register_forward_hook(
            lambda _module, _args, output, stage=stage: kept.update(
                {stage: output.is_contiguous(memory_format=torch.channels_last_3d)}
            )
        )
    # Two clips: for a single small one PyTorch picks a convolution on the CPU that knows one layout only.
    model(torch.randn(2, 3, 16, 64, 64).to(memory_format=torch.channels_last_3d))
    assert kept == dict.fromkeys(("stem", "pool", "layer1", "layer2", "layer3"), True)


def test_gates_reach_every_block_and_need_recursion() -> None:
    model = build("srtg_r3d_18", 5, width=8, gates="cycle_intersection")
    blocks = [module for module in model.modules() if isinstance(module, SqueezeRecursion)]
    assert [block.gates for block in blocks] == ["cycle_intersection"] * 8
    with pytest.raises(ValueError, match="'cycle' need a network with recursion"):
        build("r3d_18", 5, gates="cycle")


def test_start_values() -> None:
    torch.manual_seed(0)
    model = build("srtg_r3d_18", 100, width=16)
    conv = model.layer2[1].conv1[0][0]
    assert conv.weight.std().item() == pytest.approx((2 / (32 * 27)) ** 0.5, rel=0.05)
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not model.fc.bias.any()
    assert model.layer1[0].sar.lstm.weight_ih_l0.abs().max() <= 16**-0.5
    assert not any(isinstance(module, nn.Conv3d) and module.bias is not None for module in model.modules())


@pytest.mark.parametrize(
    ("wrong", "right"), [("srtg_r3d_50x", "srtg_r3d_50"), ("r2plusd_34", "r2plus1d_34"), ("SRTG_R3D_18", "srtg_r3d_18")]
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(ValueError, match=f"'{wrong}'.*'{right}'"):
        build(wrong, 5)


def test_ip_depthwise_keeps_its_channels() -> None:
    with pytest.raises(ValueError, match="8 -> 16"):
        ip_depthwise(8, 16, 1)


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
