"""What a block computes once more in the backward pass, for each way in which its attention learns.

query   kept queries look at every key and value, which learn everywhere. The published way for video; the forward is ordinary
qkv     kept queries look at kept keys and values only, so what a block gives at kept tokens differs from the ordinary
head    attention learns at every token, through some of its heads; the MLP learns at kept tokens

The last two are from SBP for images (arXiv 2210.00129). A part gets the parameters by name, `p`, and all that is random from the
forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding, gelu, layer_norm, linear

from trainers.backbones.video_swin import Factors, SwinBlock, add_branch, attend
from trainers.backbones.windows3d import Windows, shift_mask
from trainers.sbp.attention import bias_rows, mask_rows
from trainers.sbp.kept_tokens import KeptTokens
from trainers.sbp.partial import take_rows

Learning = Literal["query", "qkv", "head"]

_UNSEEN = -1e4
"""Added to a score, it leaves no weight in any precision; -inf would make those that see nothing undefined."""


def kept_queries(
    block: SwinBlock, x: Tensor, p: Mapping[str, Tensor], windows: Windows, factors: Factors, kept: KeptTokens
) -> Tensor:
    """What the block gives at kept tokens, (B, K, C), from all tokens x (B, D, H, W, C)."""
    attn, batch, dim, n = block.attn, len(x), x.shape[-1], windows.num_tokens
    weight, bias = p["attn.qkv.weight"], p.get("attn.qkv.bias")
    inside = windows.partition(_normed(block, x, p))
    pairs = linear(inside, weight[dim:], None if bias is None else bias[dim:])
    k, v = pairs.view(len(inside), n, 2, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    few = take_rows(inside.view(batch, -1, dim), kept.rows)
    q = linear(few, weight[:dim], None if bias is None else bias[:dim])
    q = q.view(len(inside), -1, attn.num_heads, dim // attn.num_heads).transpose(1, 2)
    table, mask = p["attn.relative_position_bias_table"], shift_mask(windows, x.device)
    if len(kept.columns) == 1:
        offsets = table[attn.relative_position_index[kept.columns[0], :n]].permute(2, 0, 1)
    else:
        offsets = bias_rows(attn.bias(table, n), kept.columns)
    out = attend(q, k, v, offsets, mask_rows(mask, kept.columns), attn.scale)
    out = out.transpose(1, 2).reshape(batch, -1, dim)
    if kept.core is not None:
        out = torch.where(kept.core[:, None], out, out.detach())
    if kept.real is not None:
        out = take_rows(out, kept.real)
    return _after_attention(block, take_rows(x.reshape(batch, -1, dim), kept.tokens), out, p, factors)


def kept_alone(
    block: SwinBlock, few: Tensor, p: Mapping[str, Tensor], windows: Windows, factors: Factors, kept: KeptTokens
) -> Tensor:
    """What the block gives at kept tokens that look at each other alone, (B, K, C), from these tokens (B, K, C)."""
    attn, (batch, _, dim) = block.attn, few.shape
    inside = _normed(block, few, p)
    if kept.real is not None:
        inside = inside.new_zeros(batch, len(kept.rows), dim).index_copy(1, kept.real, inside)
    inside = inside.view(batch * windows.num_windows, -1, dim)
    qkv = linear(inside, p["attn.qkv.weight"], p.get("attn.qkv.bias"))
    q, k, v = qkv.view(*inside.shape[:2], 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    rows, columns = kept.columns[:, :, None], kept.columns[:, None]
    offsets = embedding(attn.relative_position_index[rows, columns], p["attn.relative_position_bias_table"])
    offsets = offsets.permute(0, 3, 1, 2)
    out = attend(q, k, v, offsets[0] if len(offsets) == 1 else offsets, _mask_among(windows, kept), attn.scale)
    out = out.transpose(1, 2).reshape(batch, -1, dim)
    if kept.real is not None:
        out = take_rows(out, kept.real)
    return _after_attention(block, few, out, p, factors)


def kept_heads(
    block: SwinBlock,
    x: Tensor,
    p: Mapping[str, Tensor],
    windows: Windows,
    factors: Factors,
    kept: KeptTokens,
    heads: Sequence[int],
) -> Tensor:
    """All tokens with attention's heads but `heads` detached, and the MLP added at kept tokens alone, (B, D, H, W, C).

    At other tokens the value is not the block's; its gradient is that of a block whose MLP learns nothing there.
    """
    attn, n = block.attn, windows.num_tokens
    inside = windows.partition(_normed(block, x, p))
    offsets, mask = attn.bias(p["attn.relative_position_bias_table"], n), shift_mask(windows, x.device)

    def of_heads(which: list[int]) -> Tensor:
        weight, bias = (
            None if each is None else each.unflatten(0, (3, attn.num_heads, -1))[:, which].flatten(0, 2)
            for each in (p["attn.qkv.weight"], p.get("attn.qkv.bias"))
        )
        assert weight is not None
        qkv = linear(inside, weight, bias).view(len(inside), n, 3, len(which), -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return attend(q, k, v, offsets[which], mask, attn.scale)

    others = [each for each in range(attn.num_heads) if each not in heads]
    parts = [of_heads(list(heads))] if heads else []
    if others:
        with torch.no_grad():
            parts.append(of_heads(others))
    order = torch.tensor([*heads, *others], device="cpu").argsort().to(x.device)
    out = torch.cat(parts, 1).index_select(1, order).transpose(1, 2).flatten(2)
    out = windows.reverse(linear(out, p["attn.proj.weight"], p["attn.proj.bias"]))
    mid = add_branch(x, out, factors[0]).flatten(1, 3)
    branch, factor = _mlp(block, take_rows(mid, kept.tokens), p), _factor(factors[1])
    branch = (branch if factor is None else branch * factor).to(mid.dtype)
    return mid.index_add(1, kept.tokens, branch).view(x.shape)


def _normed(block: SwinBlock, x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    return layer_norm(x, x.shape[-1:], p["norm1.weight"], p["norm1.bias"], block.norm1.eps)


def _after_attention(block: SwinBlock, x: Tensor, out: Tensor, p: Mapping[str, Tensor], factors: Factors) -> Tensor:
    """What follows the attention `out` at some tokens x, both (B, K, C)."""
    mid = add_branch(x, linear(out, p["attn.proj.weight"], p["attn.proj.bias"]), _factor(factors[0]))
    return add_branch(mid, _mlp(block, mid, p), _factor(factors[1]))


def _mlp(block: SwinBlock, mid: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    y = layer_norm(mid, mid.shape[-1:], p["norm2.weight"], p["norm2.bias"], block.norm2.eps)
    return linear(gelu(linear(y, p["mlp.fc1.weight"], p["mlp.fc1.bias"])), p["mlp.fc2.weight"], p["mlp.fc2.bias"])


def _factor(factor: Tensor | None) -> Tensor | None:
    return None if factor is None else factor.view(-1, 1, 1)


def _mask_among(windows: Windows, kept: KeptTokens) -> Tensor | None:
    """What is added to the scores of kept tokens among themselves, (nW, Q, Q): the shift's mask, and none sees what fills up."""
    mask, filled = mask_rows(shift_mask(windows, kept.rows.device), kept.columns), kept.filled
    if mask is not None:
        columns = kept.columns[:, None].expand(len(mask), mask.shape[1], -1)
        mask = torch.gather(mask, 2, columns)
    if filled is None:
        return mask
    unseen = torch.zeros(filled.shape, device=filled.device).masked_fill_(filled, _UNSEEN)[:, None]
    return unseen.expand(-1, filled.shape[1], -1) if mask is None else mask + unseen
