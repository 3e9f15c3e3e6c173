"""SRTG networks: names, sizes, shapes, start values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainers.srtg.blocks import BasicBlock, Place
from trainers.srtg.convolutions import ip_depthwise
from trainers.srtg.mtnet import MTNet, MTNetSpec
from trainers.srtg.network import NETWORKS, NetworkSpec, VideoResNet, build
from trainers.srtg.recursion import Gates, SqueezeRecursion


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
        ("mtnet_xs", 21_835_664),
        ("mtnet_l_g8", 24_883_258),
    ],
)
def test_published_sizes(name: str, num_parameters: int) -> None:
    assert _parameters(name) == num_parameters


def test_every_layout_comes_with_and_without_recursion() -> None:
    residual = {name for name, spec in NETWORKS.items() if isinstance(spec, NetworkSpec)}
    plain = {name for name in residual if not name.startswith("srtg_")}
    assert {f"srtg_{name}" for name in plain} == residual - plain
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
    with pytest.raises(ValueError, match=r"'cycle' .* need a network with recursion"):
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


@pytest.mark.parametrize(
    ("name", "place", "planes"),
    [
        ("srtg_r3d_18", "top", 8),
        ("srtg_r3d_18", "skip", 8),
        ("srtg_wide_r3d50_2", "start", 8),
        ("srtg_wide_r3d50_2", "top", 16),
        ("srtg_wide_r3d50_2", "mid", 16),
        ("srtg_wide_r3d50_2", "end", 8),
    ],
)
def test_recursion_sits_where_it_is_told_and_has_the_channels_of_that_place(
    name: str, place: Place, planes: int
) -> None:
    model = build(name, 5, width=8, place=place)
    first = model.layer1[0]
    assert first.sar.lstm.hidden_size == planes
    model(torch.randn(2, 3, 4, 32, 32)).sum().backward()
    gradient = model.layer2[0].sar.lstm.weight_ih_l0.grad  # In a block with a shortcut every place is reached.
    assert gradient is not None and gradient.any()


def test_places_at_which_nothing_would_happen_are_refused() -> None:
    with pytest.raises(ValueError, match="never reached"):
        build("srtg_r3d_50", 5, width=8, place="bottom")
    with pytest.raises(ValueError, match="BasicBlock has no place 'start'"):
        build("srtg_r3d_18", 5, width=8, place="start")
    with pytest.raises(ValueError, match="place 'top' need a network with recursion"):
        build("r3d_18", 5, place="top")


_SMALL = NetworkSpec(BasicBlock, (1, 1, 1, 1), recursion=True)


@pytest.mark.parametrize("gates", ["off", "shipped", "cycle", "cycle_intersection"])
def test_networks_compile_into_one_graph(gates: Gates) -> None:
    model = VideoResNet(_SMALL, 5, width=4, gates=gates).eval()
    clip = torch.randn(2, 3, 16, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(clip), model(clip), atol=1e-5)


@pytest.mark.parametrize(("kind", "backend"), [("srtg", "aot_eager"), ("mtnet", "eager")])
def test_gradients_of_a_compiled_network_are_those_of_the_network(kind: str, backend: str) -> None:
    model: nn.Module = (
        VideoResNet(_SMALL, 5, width=8, gates="cycle") if kind == "srtg" else MTNet(MTNetSpec((1, 1, 1, 1)), 5, width=8)
    ).eval()
    clip = torch.randn(2, 3, 16, 64, 64)
    model(clip).square().sum().backward()
    own = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend=backend)(clip).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name in own:
            assert torch.allclose(parameter.grad, own[name], rtol=1e-3, atol=1e-5 * own[name].abs().max()), name


@pytest.mark.gpu
@pytest.mark.parametrize("gates", ["off", "cycle"])
def test_a_compiled_network_in_bf16_agrees_with_the_network_on_a_gpu(gates: Gates) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.manual_seed(0)
    model = build("srtg_r3d_18", 5, width=16, gates=gates).cuda().to(memory_format=torch.channels_last_3d).eval()
    clip = torch.randn(4, 3, 16, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last_3d)
    expected = model(clip)
    compiled = torch.compile(model, fullgraph=True)
    with torch.autocast("cuda", torch.bfloat16):
        out = compiled(clip)
        out.float().square().sum().backward()
    # Gates decide by nearest frames, which rounding may change where two are about equally near.
    if gates == "off":
        assert (out.float() - expected).abs().max() <= 0.05 * expected.abs().max()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
