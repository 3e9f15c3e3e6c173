"""Video Swin with Stochastic Backpropagation: the forward of Video Swin, gradients through a part of the tokens.

A block with SBP saves its input and nothing else. What the backward pass needs of the dropped tokens, their keys and values,
is computed anew from it; queries, projection, MLP and residual are computed for kept tokens alone. So the memory does not
depend on how much is kept, and the time does. Equal to plain Video Swin in which the gradient of every block's output is
multiplied by the mask; the published code holds more than six times the input per block for the
same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear

from trainers.backbones.video_swin import (
    Factors,
    PatchMerging,
    SwinBlock,
    VideoSwin,
    WindowAttention,
    add_branch,
    attend,
    side_by_side,
)
from trainers.backbones.windows3d import Windows, shift_mask
from trainers.sbp.attention import bias_rows, mask_rows
from trainers.sbp.kept_tokens import KeptTokens, Pattern, Version, kept_tokens
from trainers.sbp.partial import partial_backward, recompute, take_rows

WITH_GD: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "tiny": ((1, 1), (1, 1), (1, 1, 1, 1, 0, 0), (0, 0)),
    "small": ((1, 1), (1, 1), (1,) * 14 + (0,) * 4, (0, 0)),
    "base": ((1, 1), (1, 1), (1,) * 14 + (0,) * 4, (0, 0)),
}
"""Which blocks of the published sizes have SBP (small: as base, which has as many blocks)."""


@dataclass(frozen=True)
class Sbp:
    """How gradients are dropped.

    `downsample`: one token in so many keeps its gradient (1: all). `with_gd`: flags per stage and block. `faithful`: the
    published checkerboard with its wrong roll (v2). `random_offset`: another part is kept in every training step, the same in
    all blocks, instead of always the same one. `keep_residual`: shortcuts pass gradients at dropped tokens too, as in SBP for
    images; only the branches drop theirs.
    """

    downsample: int
    with_gd: Sequence[Sequence[int]]
    version: Version = "v1"
    faithful: bool = False
    random_offset: bool = False
    keep_residual: bool = False


class RecomputedAttention(WindowAttention):
    """Attention that saves queries, keys and values instead of scores and weights."""

    recomputed = True

    def mix(self, qkv: Tensor, table: Tensor, mask: Tensor | None) -> Tensor:
        if not self.recomputed or not torch.is_grad_enabled() or (self.training and self.attn_drop.p):
            return super().mix(qkv, table, mask)
        return recompute(partial(super().mix, mask=mask), qkv, (table,))


class SbpSwinBlock(SwinBlock):
    """A block whose gradient flows through the tokens of `pattern`; None: through all."""

    attention_type = RecomputedAttention
    attn: RecomputedAttention
    pattern: Pattern | None = None
    faithful = keep_residual = False

    def forward(self, x: Tensor, offset: int | None = None) -> Tensor:
        if self.pattern is None or not torch.is_grad_enabled():
            return super().forward(x)
        windows, factors = self.windows(x), self.draw(x)
        pattern = self.pattern if offset is None else _shifted(self.pattern, offset)
        kept = kept_tokens(windows, pattern, self.faithful, x.device)
        names, tensors = zip(*self.named_parameters(), strict=True)
        return partial_backward(
            lambda x, *_: self.body(x, windows, factors),
            lambda x, *values: self._kept(x, dict(zip(names, values, strict=True)), windows, factors, kept),
            lambda dy: dy.flatten(1, 3).index_select(1, kept.tokens),
            x,
            tensors,
            dropped=partial(_without, kept.tokens) if self.keep_residual else None,
        )

    def _kept(self, x: Tensor, p: Mapping[str, Tensor], windows: Windows, factors: Factors, kept: KeptTokens) -> Tensor:
        """What the block gives at kept tokens, (B, K, C)."""
        batch, dim, heads, n = len(x), x.shape[-1], self.attn.num_heads, windows.num_tokens
        weight, bias = p["attn.qkv.weight"], p.get("attn.qkv.bias")
        inside = windows.partition(layer_norm(x, (dim,), p["norm1.weight"], p["norm1.bias"], self.norm1.eps))
        pairs = linear(inside, weight[dim:], None if bias is None else bias[dim:])
        k, v = pairs.view(len(inside), n, 2, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        few = take_rows(inside.view(batch, -1, dim), kept.rows)
        q = linear(few, weight[:dim], None if bias is None else bias[:dim])
        q = q.view(len(inside), -1, heads, dim // heads).transpose(1, 2)
        table, mask = p["attn.relative_position_bias_table"], shift_mask(windows, x.device)
        if len(kept.columns) == 1:
            offsets = table[self.attn.relative_position_index[kept.columns[0], :n]].permute(2, 0, 1)
        else:
            offsets = bias_rows(self.attn.bias(table, n), kept.columns)
        out = attend(q, k, v, offsets, mask_rows(mask, kept.columns), self.attn.scale)
        out = out.transpose(1, 2).reshape(batch, -1, dim)
        if kept.core is not None:
            out = torch.where(kept.core[:, None], out, out.detach())
        if kept.real is not None:
            out = take_rows(out, kept.real)
        first, second = (None if each is None else each.view(batch, 1, 1) for each in factors)
        mid = take_rows(x.reshape(batch, -1, dim), kept.tokens)
        mid = add_branch(mid, linear(out, p["attn.proj.weight"], p["attn.proj.bias"]), first)
        y = layer_norm(mid, (dim,), p["norm2.weight"], p["norm2.bias"], self.norm2.eps)
        y = linear(gelu(linear(y, p["mlp.fc1.weight"], p["mlp.fc1.bias"])), p["mlp.fc2.weight"], p["mlp.fc2.bias"])
        return add_branch(mid, y, second)


class RecomputedMerging(PatchMerging):
    """Patch merging that saves its input alone."""

    def forward(self, x: Tensor) -> Tensor:
        def step(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
            x = side_by_side(x)
            return linear(layer_norm(x, x.shape[-1:], scale, bias, self.norm.eps), weight)

        return recompute(step, x, (self.reduction.weight, self.norm.weight, self.norm.bias))


class SbpVideoSwin(VideoSwin):
    """Video Swin whose blocks drop gradients as `sbp` says. Other arguments, names and values are those of `VideoSwin`.

    Raises: ValueError for settings that do not go together, at construction, or in forward where a clip does not fit the mask.
    """

    def __init__(self, sbp: Sbp, *, depths: Sequence[int] = (2, 2, 6, 2), **settings: Any) -> None:
        flags = [len(stage) for stage in sbp.with_gd]
        if flags != list(depths):
            raise ValueError(f"with_gd has flags for {flags} blocks per stage, the network has {list(depths)}")
        if sbp.downsample < 1:
            raise ValueError(f"gd_downsample is {sbp.downsample}; it is 1 (off) or more")
        if sbp.faithful and sbp.version != "v2":
            raise ValueError("faithful repeats a defect of version v2; the other versions have none")
        if sbp.downsample > 1 and (settings.get("drop_rate") or settings.get("attn_drop_rate")):
            raise ValueError(
                "SBP computes blocks twice and cannot draw the same dropout again: set both dropout rates to 0"
            )
        self._sbp = sbp
        super().__init__(depths=depths, **settings)

    def make_block(self, place: tuple[int, int], *args: Any, **kwargs: Any) -> nn.Module:
        stage, block = place
        sbp = self._sbp
        made = SbpSwinBlock(*args, **kwargs)
        if sbp.downsample > 1 and sbp.with_gd[stage][block]:
            made.pattern = Pattern(sbp.version, sbp.downsample, 2 ** (len(sbp.with_gd) - 1 - stage))
            made.faithful, made.keep_residual = sbp.faithful, sbp.keep_residual
        made.attn.recomputed = not made.checkpointing
        return made

    def make_merging(self, dim: int) -> nn.Module:
        return RecomputedMerging(dim)

    def per_forward(self) -> tuple[int | None]:
        """The offset of the mask in this step, None where it is the fixed one."""
        if not self._sbp.random_offset or not self.training or self._sbp.downsample == 1:
            return (None,)
        return (int(torch.randint(self._sbp.downsample, ())),)


def build_swin(sbp: Sbp | None, **settings: Any) -> VideoSwin:
    """Video Swin, with SBP or without."""
    return VideoSwin(**settings) if sbp is None else SbpVideoSwin(sbp, **settings)


def _shifted(pattern: Pattern, offset: int) -> Pattern:
    return Pattern(pattern.version, pattern.downsample, pattern.block, offset)


def _without(tokens: Tensor, dy: Tensor) -> Tensor:
    return dy.flatten(1, 3).index_fill(1, tokens, 0).view(dy.shape)
