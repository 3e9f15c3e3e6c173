"""Video Swin with Stochastic Backpropagation: the forward of Video Swin, gradients through a part of the tokens.

A block with SBP saves its input and nothing else. What the backward pass needs of the dropped tokens, their keys and values,
is computed anew from it; queries, projection, MLP and residual are computed for kept tokens alone. So the memory does not
depend on how much is kept, and the time does. Equal to plain Video Swin in which the gradient of every block's output is
multiplied by the mask; the published code holds more than six times the input per block for the
same numbers. Other ways to learn, those of SBP for images, are options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from trainers.backbones.video_swin import PatchMerging, SwinBlock, VideoSwin, WindowAttention, side_by_side
from trainers.sbp.kept_tokens import Pattern, Version, kept_tokens
from trainers.sbp.partial import Step, partial_backward, partial_selected, recompute
from trainers.sbp.parts import Learning, kept_alone, kept_heads, kept_queries

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
    images; only the branches drop theirs. `keep_ratio` stands for 1 / `downsample` in versions `grid` and `random`; the
    latter draws in every training step. `attention`: how it learns, see `trainers.sbp.parts`.
    """

    downsample: int
    with_gd: Sequence[Sequence[int]]
    version: Version = "v1"
    faithful: bool = False
    random_offset: bool = False
    keep_residual: bool = False
    keep_ratio: float | None = None
    attention: Learning = "query"

    @property
    def on(self) -> bool:
        return self.downsample > 1 or self.keep_ratio is not None

    def check(self) -> None:
        """Raises: ValueError for settings that do not go together."""
        if self.downsample < 1:
            raise ValueError(f"gd_downsample is {self.downsample}; it is 1 (off) or more")
        if self.faithful and (self.version != "v2" or self.attention != "query"):
            raise ValueError("faithful repeats a defect of version v2 with attention query; the others have none")
        if self.keep_ratio is not None and self.version not in ("grid", "random"):
            raise ValueError(f"keep_ratio goes with the versions grid and random; {self.version} takes gd_downsample")
        if self.keep_ratio is not None and self.downsample > 1:
            raise ValueError("keep_ratio and gd_downsample say the same twice: leave one of them out")
        if self.keep_ratio is not None and not 0 < self.keep_ratio < 1:
            raise ValueError(f"keep_ratio is {self.keep_ratio}; it lies between 0 and 1")
        if self.random_offset and self.version == "random":
            raise ValueError("version random draws its tokens in every step: leave random_offset out")
        if self.attention == "head" and not self.keep_residual:
            raise ValueError(
                "attention head learns at every token, which needs the shortcut's gradient: set keep_residual"
            )


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
    attention: Learning = "query"

    def forward(self, x: Tensor, offset: int | None = None) -> Tensor:
        if self.pattern is None or (self.attention != "qkv" and not torch.is_grad_enabled()):
            return super().forward(x)
        windows, factors = self.windows(x), self.draw(x)
        pattern = self.pattern if offset is None else replace(self.pattern, offset=offset)
        kept = kept_tokens(windows, pattern, self.faithful, x.device)
        names, tensors = zip(*self.named_parameters(), strict=True)

        def named(part: Callable[..., Tensor], *beside: Any) -> Step:
            return lambda x, *values: part(
                self, x, dict(zip(names, values, strict=True)), windows, factors, kept, *beside
            )

        def take(tokens: Tensor) -> Tensor:
            return tokens.flatten(1, 3).index_select(1, kept.tokens)

        def body(x: Tensor, *_values: Tensor) -> Tensor:
            return self.body(x, windows, factors)

        dropped = partial(_without, kept.tokens) if self.keep_residual else None
        if self.attention == "query":
            return partial_backward(body, named(kept_queries), take, x, tensors, dropped=dropped)
        if self.attention == "head":
            return partial_backward(body, named(kept_heads, self._drawn_heads()), lambda dy: dy, x, tensors)
        alone = named(kept_alone)

        def full(x: Tensor, *values: Tensor) -> Tensor:
            y = self.body(x, windows, factors)
            few = alone(take(x), *values)
            return y.flatten(1, 3).index_copy(1, kept.tokens, few.to(y.dtype)).view(y.shape)

        if not torch.is_grad_enabled():
            return full(x, *tensors)
        return partial_selected(full, alone, take, partial(_among_zeros, kept.tokens), x, tensors, dropped=dropped)

    def _drawn_heads(self) -> tuple[int, ...]:
        """Each with the probability that a token is kept with; all of them in evaluation mode."""
        assert self.pattern is not None
        drawn = torch.rand(self.attn.num_heads, device="cpu") <= self.pattern.ratio
        return tuple(range(self.attn.num_heads) if not self.training else drawn.nonzero().flatten().tolist())


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
        sbp.check()
        if sbp.on and (settings.get("drop_rate") or settings.get("attn_drop_rate")):
            raise ValueError(
                "SBP computes blocks twice and cannot draw the same dropout again: set both dropout rates to 0"
            )
        self._sbp = sbp
        super().__init__(depths=depths, **settings)

    def make_block(self, place: tuple[int, int], *args: Any, **kwargs: Any) -> nn.Module:
        stage, block = place
        sbp = self._sbp
        made = SbpSwinBlock(*args, **kwargs)
        if sbp.on and sbp.with_gd[stage][block]:
            made.pattern = self._pattern(stage)
            made.faithful, made.keep_residual, made.attention = sbp.faithful, sbp.keep_residual, sbp.attention
        made.attn.recomputed = not made.checkpointing
        return made

    def make_merging(self, dim: int) -> nn.Module:
        return RecomputedMerging(dim)

    def _pattern(self, stage: int) -> Pattern:
        """The mask of a stage. Cells are tokens of the last stage for video, of the last one with SBP as for images."""
        sbp = self._sbp
        last = len(sbp.with_gd) - 1
        if sbp.version in ("grid", "random"):
            last = max(i for i, flags in enumerate(sbp.with_gd) if any(flags))
        return Pattern(sbp.version, sbp.downsample, 2 ** (last - stage), keep_ratio=sbp.keep_ratio)

    def per_forward(self) -> tuple[int | None]:
        """Which mask this step has, None where it is the fixed one."""
        sbp = self._sbp
        if not sbp.on or not self.training or not (sbp.random_offset or sbp.version == "random"):
            return (None,)
        return (int(torch.randint(self._pattern(0).num_offsets, ())),)


def build_swin(sbp: Sbp | None, **settings: Any) -> VideoSwin:
    """Video Swin, with SBP or without."""
    return VideoSwin(**settings) if sbp is None else SbpVideoSwin(sbp, **settings)


def _among_zeros(tokens: Tensor, few: Tensor, shape: torch.Size) -> Tensor:
    return few.new_zeros(shape).flatten(1, 3).index_copy_(1, tokens, few).view(shape)


def _without(tokens: Tensor, dy: Tensor) -> Tensor:
    return dy.flatten(1, 3).index_fill(1, tokens, 0).view(dy.shape)
