"""Gradients through a part of the positions: the forward of all, the memory of that part.

A step y = f(x) runs on every position without a graph. In the backward pass the kept positions alone are computed once more,
with a graph, from what was saved, and the gradient of y at all other positions counts as zero:

    forward   x ------------- f (no graph) ------------> y          saved: x (or its kept rows), parameters
    backward  x -> kept part of f (graph) -> y[kept]  <- dy[kept]   then dx and the parameters' gradients

Values are those of f exactly, and nothing is scaled. Source: SBP (CVPR 2022), section 3, and what its code computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.func import functional_call

Step = Callable[..., Tensor]
"""(x, *tensors) -> result; no state, no random draws: it runs twice."""


@dataclass(frozen=True)
class _Plan:
    """What one call computes: `full` forward, `kept` of what `save` saved in the backward pass, `select` of the gradient.

    `restore` brings the gradient of what was saved to the shape of the input. `dropped` gives the part of the gradient that
    an identity shortcut passes on at the other positions; None: nothing passes there.
    """

    full: Step
    kept: Step
    select: Callable[[Tensor], Tensor]
    save: Callable[[Tensor], Tensor]
    restore: Callable[[Tensor, torch.Size], Tensor]
    dropped: Callable[[Tensor], Tensor] | None = None


class _Partial(Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, x: Tensor, *tensors: Tensor) -> Tensor:
        ctx.plan, ctx.shape, ctx.precision = plan, x.shape, _precision(x.device.type)
        with ctx.precision():
            y = plan.full(x, *tensors)
        ctx.save_for_backward(plan.save(x), *tensors)
        return y

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "partial backpropagation has no second derivative: its backward pass is computed without a graph. Leave"
                " create_graph=True out, or turn SBP off (gd_downsample 1)."
            )
        plan: _Plan = ctx.plan
        needed = ctx.needs_input_grad[1:]
        with torch.enable_grad(), ctx.precision():
            inputs = [each.detach().requires_grad_(need) for each, need in zip(ctx.saved_tensors, needed, strict=True)]
            kept = plan.kept(*inputs)
        wanted = [each for each, need in zip(inputs, needed, strict=True) if need]
        gradients = iter(torch.autograd.grad(kept, wanted, plan.select(dy[0]).to(kept.dtype), allow_unused=True))
        found = [next(gradients) if need else None for need in needed]
        if found[0] is not None:
            found[0] = plan.restore(found[0], ctx.shape)
            if plan.dropped is not None:
                found[0] = found[0] + plan.dropped(dy[0])
        return None, *found


@torch.compiler.disable
def _apply(plan: _Plan, x: Tensor, *tensors: Tensor) -> Tensor:
    """Compilers leave it as it is: they cannot follow a gradient that is taken inside a backward pass."""
    return _Partial.apply(plan, x, *tensors)


def _precision(kind: str) -> Callable[[], AbstractContextManager[object]]:
    """What makes the present autocast again on devices of a kind.

    Without its cache: copies of weights that were made without a graph must not be found by whoever needs one.
    """
    if not torch.amp.is_autocast_available(kind):
        return nullcontext
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    return partial(torch.autocast, kind, dtype=dtype, enabled=enabled, cache_enabled=False)


def partial_backward(
    full: Step,
    kept: Step,
    select: Callable[[Tensor], Tensor],
    x: Tensor,
    tensors: Sequence[Tensor] = (),
    *,
    dropped: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """`full(x, *tensors)`, differentiated as if only `select` of it existed.

    `kept(x, *tensors)` computes `select(full(x, *tensors))` alone; it sees all of `x`, which is what is saved. For steps
    that mix positions (attention, convolution). `tensors` are parameters and whatever else gets a gradient.
    `dropped(dy)`, if given, is added to the gradient of x: what a shortcut passes on where nothing else does.
    """
    return _apply(_Plan(full, kept, select, _same, _unchanged, dropped), x, *tensors)


def partial_selected(
    full: Step,
    kept: Step,
    select: Callable[[Tensor], Tensor],
    restore: Callable[[Tensor, torch.Size], Tensor],
    x: Tensor,
    tensors: Sequence[Tensor] = (),
    *,
    dropped: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The same where `kept` needs `select(x)` only, which is all that is saved; `restore` puts its gradient into zeros."""
    return _apply(_Plan(full, kept, select, select, restore, dropped), x, *tensors)


def recompute(step: Step, x: Tensor, tensors: Sequence[Tensor] = ()) -> Tensor:
    """`step(x, *tensors)` with every gradient, saving `x` alone: gradient checkpointing as the case where all is kept."""
    return partial_backward(step, step, _same, x, tensors)


def partial_rows(
    step: Step, x: Tensor, keep: Tensor, tensors: Sequence[Tensor] = (), *, extra: Sequence[Tensor] = ()
) -> Tensor:
    """`step` of every position by itself, x (..., C), with gradients at the kept positions; only those rows of x are saved.

    `keep` is bool and broadcasts to x's positions. `step(rows, *tensors)` maps (R, C) to (R, C'); where it needs more by
    position (a drop path factor), `extra` tensors broadcast to (..., 1) and are passed, as rows (R, 1), after `tensors`.
    """
    rows = keep.expand(x.shape[:-1]).reshape(-1).nonzero().flatten()
    beside = [each.expand(*x.shape[:-1], 1).reshape(-1, 1) for each in extra]

    def full(x: Tensor, *tensors: Tensor) -> Tensor:
        return step(x.reshape(-1, x.shape[-1]), *tensors, *beside).view(*x.shape[:-1], -1)

    def kept(few: Tensor, *tensors: Tensor) -> Tensor:
        return step(few, *tensors, *(each[rows] for each in beside))

    def take(x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1]).index_select(0, rows)

    def put(few: Tensor, shape: torch.Size) -> Tensor:
        return few.new_zeros(shape).view(-1, shape[-1]).index_copy_(0, rows, few).view(shape)

    return partial_selected(full, kept, take, put, x, tensors)


class PartialRows(nn.Module):
    """A module that works on every position by itself (an MLP, a norm, 1 x 1 layers), with gradients at kept positions only.

    x (..., C), `keep` bool, broadcast to x's positions. In training mode the module must draw nothing at random: it runs twice.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        names, tensors = (
            zip(*self.module.named_parameters(), strict=True) if list(self.module.parameters()) else ((), ())
        )

        def step(rows: Tensor, *values: Tensor) -> Tensor:
            return functional_call(self.module, dict(zip(names, values, strict=True)), (rows,))

        return partial_rows(step, x, keep, tensors)


class _TakeRows(Function):
    """Rows of dimension 1 by unique numbers. Its gradient is a copy into zeros; index_select's would add row by row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = x.shape
        return x.index_select(1, rows)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return dy[0].new_zeros(ctx.shape).index_copy_(1, rows, dy[0]), None


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """x (B, L, C) and unique row numbers (K,) to (B, K, C)."""
    return _TakeRows.apply(x, rows)


def _same(x: Tensor) -> Tensor:
    return x


def _unchanged(gradient: Tensor, _shape: torch.Size) -> Tensor:
    return gradient
