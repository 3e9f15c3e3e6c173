"""Video Swin: sizes, what is frozen, weights from elsewhere, and that computing in parts changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ingest.errors import ClipmillError
from trainers.backbones import video_swin
from trainers.backbones.heads import PooledHead
from trainers.backbones.swin_weights import load_image_swin, load_video_swin
from trainers.backbones.video_swin import VideoSwin, swin_settings
from trainers.backbones.windows3d import Windows, shift_mask
from trainers.sbp.recognizer import SwinRecognizer

SMALL: dict[str, Any] = {
    "patch_size": (2, 2, 2), "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": (2, 3, 3),
    "patch_norm": True, "drop_path_rate": 0.0,
}  # fmt: skip


# Parameters with 400 classes, as MMAction2 counts them: the index tables (buffers) are not among them.
@pytest.mark.parametrize(("size", "millions"), [("tiny", 28.158), ("small", 49.817), ("base", 88.049)])
def test_published_sizes(size: str, millions: float) -> None:
    with torch.device("meta"):
        model = SwinRecognizer(VideoSwin(**swin_settings(size)), 400)
    assert round(sum(each.numel() for each in model.parameters()) / 1e6, 3) == millions
    features = model.backbone(torch.empty(1, 3, 32, 112, 112, device="meta"))
    assert features.shape == (1, model.backbone.num_features, 16, 4, 4)


def test_a_size_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="no Video Swin 'huge'; there are tiny, small, base"):
        swin_settings("huge")


def test_an_axis_no_longer_than_the_window_is_one_window() -> None:
    windows = Windows.fit((2, 7, 9), (4, 7, 7), (2, 3, 3))
    assert (windows.window, windows.shift, windows.padded) == ((2, 7, 7), (0, 0, 3), (2, 7, 14))
    assert windows.num_windows == 2


def test_windows_come_back_as_they_were() -> None:
    x = torch.randn(2, 3, 5, 7, 4)
    for shift in ((0, 0, 0), (1, 1, 2)):
        windows = Windows.fit((3, 5, 7), (2, 3, 4), shift)
        torch.testing.assert_close(windows.reverse(windows.partition(x)), x, rtol=0, atol=0)


def test_the_shift_mask_parts_what_was_apart() -> None:
    windows = Windows((4, 1, 1), (2, 1, 1), (1, 0, 0))
    mask = shift_mask(windows, torch.device("cpu"))
    assert mask is not None  # rolled by one: 1 2 | 3 0
    assert mask.tolist() == [[[0, 0], [0, 0]], [[0, -100], [-100, 0]]]
    assert shift_mask(Windows((4, 1, 1), (2, 1, 1), (0, 0, 0)), torch.device("cpu")) is None


@pytest.mark.parametrize("most", [1, 700, 1 << 30])
def test_parts_without_a_graph_are_the_whole(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    torch.manual_seed(0)
    model, clip = VideoSwin(**SMALL).eval(), torch.randn(2, 3, 6, 14, 10)
    expected = model(clip).detach()
    monkeypatch.setattr(video_swin, "_most_values", lambda _: most)
    with torch.no_grad():
        torch.testing.assert_close(model(clip), expected)


def test_checkpointing_changes_no_gradient_and_no_draw() -> None:
    grads = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = VideoSwin(
            **(SMALL | {"drop_path_rate": 0.5, "drop_rate": 0.1, "attn_drop_rate": 0.1}), checkpointing=checkpointing
        )
        model.train()(torch.randn(2, 3, 4, 12, 12)).square().sum().backward()
        grads.append(torch.cat([each.grad.flatten() for each in model.parameters()]))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("stages", [0, 1, 2])
def test_frozen_stages(stages: int) -> None:
    model = VideoSwin(**SMALL, frozen_stages=stages).train()
    trained = {
        name.rpartition(".blocks")[0] or name.split(".")[0]
        for name, each in model.named_parameters()
        if each.requires_grad
    }
    assert "patch_embed" not in trained
    assert {f"layers.{i}" for i in range(2) if i >= stages} == {
        name for name in trained if name.startswith("layers.")
    } - {"layers"}
    assert all(not module.training for module in model.layers[:stages])


def test_initialisation_is_that_intended_or_that_published() -> None:
    intended, published = VideoSwin(**SMALL), VideoSwin(**SMALL, init="published")
    assert intended.layers[0].blocks[0].mlp.fc1.bias.eq(0).all()
    assert not published.layers[0].blocks[0].mlp.fc1.bias.eq(0).all()
    assert published.layers[0].blocks[0].attn.relative_position_bias_table.std() < 0.03


def image_state(model: VideoSwin, window: int = 3) -> dict[str, torch.Tensor]:
    """What an image Swin of the same width holds."""
    state = {}
    for name, each in model.state_dict().items():
        if name.endswith("relative_position_index"):
            continue
        if name.endswith("bias_table"):
            each = torch.randn((2 * window - 1) ** 2, each.shape[1])
        state[name] = torch.randn_like(each[:, :, 0]) if name == "patch_embed.proj.weight" else each.clone()
    return state


def test_image_weights_are_spread_over_time() -> None:
    model = VideoSwin(**SMALL)
    state = image_state(model)
    assert load_image_swin(model, {"model": state | {"head.weight": torch.ones(3, 3)}}).unexpected == ()
    weight = model.patch_embed.proj.weight
    torch.testing.assert_close(weight.sum(2), state["patch_embed.proj.weight"])
    table = model.layers[1].blocks[0].attn.relative_position_bias_table.view(3, 25, 4)
    assert table[0].equal(table[2]) and table[0].equal(state["layers.1.blocks.0.attn.relative_position_bias_table"])


def test_other_windows_resize_the_bias() -> None:
    model = VideoSwin(**SMALL)
    state = image_state(model, window=5)
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    state[name] = torch.full_like(state[name], 0.25)
    load_image_swin(model, {"model": state})
    torch.testing.assert_close(model.get_parameter(name), torch.full((75, 2), 0.25))


@pytest.mark.parametrize("defect", ["missing", "narrow", "heads", "table", "empty", "no tensor"])
def test_image_weights_that_do_not_fit_are_an_error(defect: str) -> None:
    model = VideoSwin(**SMALL)
    state: dict[str, Any] = image_state(model)
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    match defect:
        case "missing":
            del state["layers.1.blocks.1.mlp.fc1.weight"]
        case "narrow":
            state["norm.weight"] = torch.ones(3)
        case "heads":
            state[name] = torch.ones(25, 5)
        case "table":
            state[name] = torch.ones(26, 2)
        case "empty":
            state = {}
        case "no tensor":
            state["norm.weight"] = "text"
    with pytest.raises(ClipmillError, match="the image weights given"):
        load_image_swin(model, {"model": state})


def test_image_weights_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match=r"none\.pth cannot be read"):
        load_image_swin(VideoSwin(**SMALL), tmp_path / "none.pth")


@pytest.mark.parametrize("spelling", ["norm2", "mlp.norm"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_video_weights_load_in_either_spelling(spelling: str, prefix: str) -> None:
    theirs, ours = (SwinRecognizer(VideoSwin(**SMALL), 5) for _ in range(2))
    state = {
        prefix + name.replace(".norm2.", f".{spelling}."): each
        for name, each in theirs.state_dict().items()
        if "position_index" not in name
    }
    assert load_video_swin(ours, {"epoch": 1, "model_state_dict": state}).complete
    bare = VideoSwin(**SMALL)
    assert load_video_swin(bare, {"state_dict": state}).complete
    ours.load_state_dict({name.removeprefix(prefix): each for name, each in state.items()}, strict=False)
    for name, each in theirs.named_parameters():
        assert ours.get_parameter(name).equal(each)


def test_pooled_head() -> None:
    head = PooledHead(4, 3, dropout=0.0)
    x = torch.randn(2, 4, 2, 3, 3)
    torch.testing.assert_close(head(x), head.fc_cls(x.mean((2, 3, 4))))
    assert head.fc_cls.bias.eq(0).all() and head.fc_cls.weight.abs().max() < 0.06
    flat = PooledHead(4, 3, pool=False).eval()
    assert flat(torch.randn(2, 4)).shape == (2, 3)
    assert isinstance(flat.dropout, nn.Dropout) and flat.dropout.p == 0.5
