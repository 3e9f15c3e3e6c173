"""The variants from SBP for images, against the network written out with `detach` where nothing is learnt: values and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trainers.sbp.test_partial import saved
from tests.trainers.sbp.test_swin_gradients import gradients
from trainers.backbones.video_swin import Factors, SwinBlock
from trainers.backbones.windows3d import shift_mask
from trainers.sbp.masks import grid_keep, random_keep
from trainers.sbp.swin import Sbp, SbpVideoSwin

SETTINGS: dict[str, Any] = {
    "patch_size": (1, 1, 1), "embed_dim": 6, "depths": (2, 2), "num_heads": (3, 6), "window_size": (2, 4, 4),
    "drop_path_rate": 0.0,
}  # fmt: skip
FLAGS = ((1, 1), (1, 0))


def draw(seed: int) -> tuple[Sbp, dict[str, Any], tuple[int, int, int], bool]:
    """A random setting of every option: how it is dropped, the network, the sizes of a clip, whether it trains."""
    rng = np.random.default_rng(seed)
    attention = ("query", "qkv", "head")[seed % 3]
    version = ("grid", "random", "v1", "v2")[seed // 3 % 4]
    downsample, keep_ratio = int(rng.choice((2, 3))), None
    if version in ("grid", "random") and rng.random() < 0.7:
        downsample, keep_ratio = 1, float(rng.choice((0.3, 0.6, 0.75)))
    flags = [[1, int(rng.random() < 0.8)], [int(rng.random() < 0.6), 0]]
    sbp = Sbp(
        downsample,
        flags,
        version,
        random_offset=version != "random" and bool(rng.random() < 0.5),
        keep_residual=attention == "head" or bool(rng.random() < 0.5),
        keep_ratio=keep_ratio,
        attention=attention,
    )
    settings = SETTINGS | {
        "window_size": tuple(int(rng.choice(each)) for each in ((2, 3), (2, 3), (2, 3))),
        "qkv_bias": bool(rng.random() < 0.7),
        "drop_path_rate": float(rng.choice((0, 0.4))),
        "checkpointing": bool(rng.random() < 0.3),
    }
    # Odd sides are padded and leave windows without a kept token; v2 takes no cells that are cut off.
    sides = [int(rng.integers(2, 6)) * 2 if version == "v2" else int(rng.integers(3, 9)) for _ in range(2)]
    return sbp, settings, (6, *sides), bool(rng.random() < 0.8)


def mask_of(sbp: Sbp, stage: int, sizes: tuple[int, ...], offset: int | None) -> Tensor:
    """The mask by its definition, bool (D, H, W)."""
    t, h, w = (torch.arange(size).view([-1 if i == axis else 1 for i in range(3)]) for axis, size in enumerate(sizes))
    if sbp.version == "v1":
        return (t % sbp.downsample == (sbp.downsample // 2 if offset is None else offset)).expand(sizes)
    if sbp.version == "v2":
        cell = 2 ** (len(sbp.with_gd) - 1 - stage)
        return (t + h // cell + w // cell) % sbp.downsample == (offset or 0)
    last = max(i for i, each in enumerate(sbp.with_gd) if any(each))
    cell = 2 ** (last - stage)
    ratio = sbp.keep_ratio or 1 / sbp.downsample
    rows, columns = (-(-size // cell) for size in sizes[1:])
    cells = (grid_keep if sbp.version == "grid" else random_keep)(rows, columns, ratio, offset or 0)
    return cells[h // cell, w // cell].expand(sizes)


def learning(x: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, x, x.detach())


def plain_block(block: SwinBlock, x: Tensor, sbp: Sbp, mask: Tensor, factors: Factors, heads: Tensor) -> Tensor:
    """A block with every step at every token."""
    attn, windows = block.attn, block.windows(x)
    tokens = mask[None, ..., None].expand(len(x), -1, -1, -1, -1)
    places = windows.partition(tokens.double())[..., 0] > 0
    inside = windows.partition(block.norm1(x))
    count, n, dim = inside.shape
    q, k, v = attn.qkv(inside).view(count, n, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    scores = attn.scale * q @ k.transpose(2, 3) + attn.bias(attn.relative_position_bias_table, n)
    shifted = shift_mask(windows, x.device)
    if shifted is not None:
        scores = scores + shifted.repeat(len(x), 1, 1)[:, None]
    if sbp.attention == "qkv":
        scores = scores.masked_fill((places[:, :, None] & ~places[:, None])[:, None], float("-inf"))
    out = scores.softmax(3) @ v
    if sbp.attention == "head":
        out = learning(out, heads[:, None, None])
    branch = attn.proj(out.transpose(1, 2).reshape(count, n, dim))
    if sbp.attention != "head":
        branch = learning(branch, places[..., None])
    branch = windows.reverse(branch)
    x = x + (branch if factors[0] is None else branch * factors[0])
    branch = learning(block.mlp(block.norm2(x)), tokens)
    x = x + (branch if factors[1] is None else branch * factors[1])
    return x if sbp.keep_residual else learning(x, tokens)


class Plain(nn.Module):
    """The same network with plain blocks; what is random is drawn in the same order."""

    def __init__(self, model: SbpVideoSwin, sbp: Sbp) -> None:
        super().__init__()
        self.model, self.sbp = model, sbp

    def forward(self, x: Tensor) -> Tensor:
        model, sbp = self.model, self.sbp
        x, (offset,) = model.patch_embed(x), model.per_forward()
        for i, stage in enumerate(model.layers):
            for block, flag in zip(stage.blocks, sbp.with_gd[i], strict=True):
                if not flag:
                    x = block(x)
                    continue
                factors, heads = block.draw(x), torch.ones(block.attn.num_heads, dtype=torch.bool)
                if sbp.attention == "head":
                    drawn = torch.rand(len(heads)) <= (sbp.keep_ratio or 1 / sbp.downsample)
                    heads = drawn if self.training else heads
                x = plain_block(block, x, sbp, mask_of(sbp, i, tuple(x.shape[1:4]), offset), factors, heads)
            x = x if stage.downsample is None else stage.downsample(x)
        return model.norm(x).permute(0, 4, 1, 2, 3)


def make(sbp: Sbp, settings: dict[str, Any], seed: int = 0) -> SbpVideoSwin:
    torch.manual_seed(seed)
    model = SbpVideoSwin(sbp, **settings).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("seed", range(36))
def test_values_and_gradients_are_those_of_the_network_written_out(seed: int) -> None:
    sbp, settings, sizes, training = draw(seed)
    model = make(sbp, settings, seed).train(training)
    plain = Plain(make(sbp, settings, seed), sbp).train(training)
    clip = torch.randn(2, 3, *sizes, dtype=torch.float64)
    values, found = gradients(model, clip, seed)
    expected_values, expected = gradients(plain, clip, seed)
    torch.testing.assert_close(values, expected_values)
    for name, gradient in found.items():
        wanted = expected[name if name == "clip" else f"model.{name}"]
        error = (gradient - wanted).norm()
        assert error <= 1e-7 * wanted.norm() + 1e-12, f"{name}: off by {error} of {wanted.norm()}"


def clip_of(*sizes: int) -> Tensor:
    return torch.randn(1, 3, *sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def test_only_qkv_changes_what_is_computed_and_it_does_so_in_evaluation_too() -> None:
    clip, outputs = clip_of(4, 8, 8), {}
    for attention in ("query", "head", "qkv"):
        sbp = Sbp(2, FLAGS, "grid", keep_residual=True, attention=attention)
        model = make(sbp, SETTINGS).eval()
        outputs[attention] = model(clip).detach()
        with torch.no_grad():  # Another way through the block: no graph, no saved tokens.
            torch.testing.assert_close(model(clip), outputs[attention], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(model(clip), model(clip), rtol=0, atol=0)
    torch.testing.assert_close(outputs["head"], outputs["query"], rtol=0, atol=0)
    assert (outputs["qkv"] - outputs["query"]).abs().max() > 0.01


def test_qkv_saves_kept_tokens_alone() -> None:
    for downsample in (2, 4):
        model = SbpVideoSwin(Sbp(downsample, FLAGS, "v1", attention="qkv"), **SETTINGS)
        x = torch.randn(1, 4, 8, 8, 6, requires_grad=True)
        assert saved(lambda block=model.layers[0].blocks[1], x=x: block(x), model) == x.numel() // downsample


def test_another_part_learns_in_every_step() -> None:
    clip = clip_of(4, 8, 8)
    for version, settings in (("grid", {"random_offset": True}), ("random", {})):
        model = make(Sbp(1, FLAGS, version, keep_ratio=0.5, **settings), SETTINGS).train()
        found = set()
        for seed in range(12):
            model.zero_grad()
            found.add(gradients(model, clip, seed)[1]["layers.0.blocks.0.mlp.fc1.bias"].sum().item())
        assert len(found) == (2 if version == "grid" else 12)


def test_kept_part_is_that_of_the_ratio() -> None:
    for ratio in (0.25, 0.5, 0.75):
        assert random_keep(8, 8, ratio, 3).sum() == ratio * 64
        assert grid_keep(8, 8, ratio).sum() == ratio * 64
    assert not random_keep(8, 8, 0.5, 3).equal(random_keep(8, 8, 0.5, 4))
    with pytest.raises(ValueError, match="lies between 0 and 1"):
        random_keep(8, 8, 1.0, 0)


def test_no_head_may_be_drawn() -> None:
    """Then attention learns nothing in that step, and the MLP goes on."""
    model = make(Sbp(1, FLAGS, "grid", keep_ratio=0.02, keep_residual=True, attention="head"), SETTINGS).train()
    torch.manual_seed(0)
    model(clip_of(4, 8, 8)).sum().backward()
    block = model.layers[0].blocks[0]
    assert block.attn.qkv.weight.grad is None and block.attn.proj.weight.grad is not None


@pytest.mark.parametrize(
    ("sbp", "message"),
    [
        (Sbp(2, FLAGS, "grid", keep_ratio=0.5), "say the same twice"),
        (Sbp(1, FLAGS, "v1", keep_ratio=0.5), "v1 takes gd_downsample"),
        (Sbp(1, FLAGS, "grid", keep_ratio=1.0), "between 0 and 1"),
        (Sbp(2, FLAGS, "random", random_offset=True), "leave random_offset out"),
        (Sbp(2, FLAGS, "v1", attention="head"), "set keep_residual"),
        (Sbp(2, FLAGS, "v2", faithful=True, attention="qkv"), "v2 with attention query"),
    ],
)
def test_what_does_not_go_together_is_refused(sbp: Sbp, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SbpVideoSwin(sbp, **SETTINGS)


@pytest.mark.parametrize("attention", ["qkv", "head"])
def test_variants_go_with_low_precision(attention: str) -> None:
    model = make(Sbp(2, FLAGS, "grid", keep_residual=True, attention=attention), SETTINGS).float().train()
    found = []
    for low in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            values, gradient = gradients(model, clip_of(4, 8, 8).float(), 0)
        model.zero_grad()
        assert torch.isfinite(values).all()
        found.append(torch.cat([each.flatten().float() for each in gradient.values()]))
    assert (found[0] - found[1]).norm() < 0.1 * found[0].norm()
