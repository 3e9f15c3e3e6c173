"""LSTR taken apart for inference: what depends on a row alone, on a slot alone, and on both.

A window's tokens are rows plus positions, and a projection of a sum is the sum of projections. So what a row contributes to
keys, values and scores is computed once, however many windows it is in and whichever slot it has there; what a slot contributes
is constant. The queries of an encoder module look at each other before anything else, which is constant too. And where only
the newest row's scores are wanted, the last decoder layer asks one question instead of W.

Sequences are (T, B, D) as in the network; results equal its forward up to rounding. Source of the split: LSTR section 3.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from trainers.lstr.attention import Attention, causal_mask
from trainers.lstr.layers import DecoderLayer, EncoderLayer
from trainers.lstr.network import LSTR, SELF_ATTENTION

Rows = tuple[Tensor, ...]
"""What rows contribute, several tensors with one row each: (T, size), or windows of them (T, B, size)."""


@dataclass(frozen=True)
class Memory:
    """What a decoder looks at: `tokens` (S, B, D), and their keys and values for every decoder layer but the last.

    `mask` (B, S) is added to the scores. `compressed` is the first encoder module's output (n, B, D). Computed once for all
    windows that share a long memory.
    """

    tokens: Tensor
    keys_values: tuple[tuple[Tensor, Tensor], ...]
    mask: Tensor | None = None
    compressed: Tensor | None = None

    def select(self, index: Tensor) -> Memory:
        """The memories of these windows, int64 (B,)."""
        pairs = tuple((k.index_select(1, index), v.index_select(1, index)) for k, v in self.keys_values)
        mask = None if self.mask is None else self.mask.index_select(0, index)
        return Memory(self.tokens.index_select(1, index), pairs, mask)


class SplitLstr:
    """A trained network for inference on the device it is on. Its constants are of the weights at construction."""

    @torch.no_grad()
    def __init__(self, model: LSTR) -> None:
        self.model = model.eval()
        self.spec = model.spec
        self._layers: list[Any] = list(model.dec_modules.layers)
        self._stacks: list[Any] = list(model.enc_modules)
        self._queries = [None if each is None else each.weight[:, None] for each in _modules(model.enc_queries)]
        pe = model.pos_encoding.pe
        n, before = self.spec.num_long, self.spec.num_memory
        self._work_pe = pe[before : before + self.spec.num_work]
        if self._layers:
            first: Attention = self._layers[0].self_attn
            self._work_qkv = linear(self._work_pe, first.in_proj_weight, first.in_proj_bias)
        self.has_queries = bool(n and self.spec.encoder) and self.spec.encoder[0].num_queries != SELF_ATTENTION
        self._asked = [
            _asked(stack, queries) if queries is not None and len(stack.layers) else None
            for queries, stack in zip(self._queries, self._stacks, strict=True)
        ]
        self._long_pe = pe[self.spec.num_ages : before]
        self.folds = self.has_queries and self._asked[0] is not None
        if self.folds:
            self._fold_first_module()

    def _fold_first_module(self) -> None:
        asked = self._asked[0]
        assert asked is not None
        layers = self._stacks[0].layers
        attention = layers[0].multihead_attn
        dim, heads = self.spec.dim, self.spec.num_heads
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        query = linear(asked[:, 0], weight[:dim], bias[:dim]) * (dim // heads) ** -0.5
        query = query.unflatten(1, (heads, -1)).transpose(0, 1)  # (heads, n, d)
        keys = weight[dim : 2 * dim].unflatten(0, (heads, -1))  # (heads, d, D)
        self._scorer = torch.bmm(query, keys).flatten(0, 1)  # (heads x n, D): scores straight from a row
        slots = self._long_pe[:, 0]
        slot_keys = linear(slots, weight[dim : 2 * dim], bias[dim : 2 * dim]).unflatten(1, (heads, -1))
        self._slot_scores = torch.bmm(query, slot_keys.permute(1, 2, 0))  # (heads, n, N)
        slot_values = linear(slots, weight[2 * dim :], bias[2 * dim :])
        self._slot_values = slot_values.unflatten(1, (heads, -1)).transpose(0, 1).contiguous()  # (heads, N, d)
        self._slot_pairs = [
            linear(self._long_pe, each.multihead_attn.in_proj_weight[dim:], each.multihead_attn.in_proj_bias[dim:])
            for each in layers[1:]
        ]

    # What depends on a row

    def long_rows(self, visual: Tensor | None, motion: Tensor | None) -> Rows:
        """What rows (T, size) contribute to a long memory, each tensor (T, ...); to an age memory the last one, if there is one."""
        if self.spec.num_ages:
            return (*self._long_rows(visual, motion), self.model.feature_head_ages(visual, motion))
        return self._long_rows(visual, motion)

    def _long_rows(self, visual: Tensor | None, motion: Tensor | None) -> Rows:
        x = self.model.feature_head_long(visual, motion)
        if not self.folds:
            return (x,)
        dim = self.spec.dim
        first, *others = self._stacks[0].layers
        rows = [linear(x, self._scorer), linear(x, first.multihead_attn.in_proj_weight[2 * dim :])]
        return (*rows, *(linear(x, layer.multihead_attn.in_proj_weight[dim:]) for layer in others))

    def work_rows(self, visual: Tensor | None, motion: Tensor | None) -> Rows:
        """What rows (T, size) contribute to a work memory: the head's output, and its projections for the first layer."""
        x = self.model.feature_head_work(visual, motion)
        return (x, linear(x, self._layers[0].self_attn.in_proj_weight)) if self._layers else (x,)

    # What depends on a window

    def memory(self, rows: Rows, mask: Tensor | None = None) -> Memory:
        """What the decoder looks at, of windows of `long_rows`, each (A + N, B, ...); `mask` (B, A + N) as in the network."""
        ages = self.spec.num_ages
        if not ages:
            return self.remember(self.compress(rows, mask), mask)
        mask = None if mask is None else mask[:, ages:]
        age = self.model.age(rows[-1][:ages].contiguous())
        return self.remember(self.compress(tuple(each[ages:] for each in rows[:-1]), mask), mask, age)

    def compress(self, rows: Rows, mask: Tensor | None = None) -> Tensor:
        """The first encoder module's output (n, B, D) for windows of long rows, each (M, B, ...).

        M is N, or less where the first N - M slots are masked anyway (only with queries). `mask` (B, M) as in the network.
        """
        if not self.folds:
            return self._first_plainly(rows[0] + self._long_pe[-len(rows[0]) :], mask)
        stack = self._stacks[0]
        first, *others = stack.layers
        asked, heads = self._asked[0], self.spec.num_heads
        assert asked is not None
        length, batch = rows[0].shape[:2]
        scores = rows[0].unflatten(2, (heads, -1)).permute(1, 2, 3, 0) + self._slot_scores[..., -length:]
        if mask is not None:
            scores += mask[:, None, None]
        weights = scores.softmax(3)  # (B, heads, n, M)
        values = rows[1].unflatten(2, (heads, -1)).permute(1, 2, 0, 3)
        out = torch.matmul(weights, values).permute(2, 0, 1, 3)  # (n, B, heads, d)
        at_slots = torch.bmm(weights.transpose(0, 1).flatten(1, 2), self._slot_values[:, -length:])
        out = out + at_slots.unflatten(1, (batch, -1)).permute(2, 1, 0, 3)
        x = first.norm2(asked + first.multihead_attn.out_proj(out.flatten(2)))
        x = first.norm3(x + first.net(x))
        for layer, pair, slot_pair in zip(others, rows[2:], self._slot_pairs, strict=True):
            keys, values = (pair + slot_pair[-length:]).chunk(2, 2)
            x = layer.norm1(x + layer.self_attn(x, x))
            x = _after_memory(layer, x, keys, values, mask)
        return stack.finish(x)

    def _first_plainly(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        if not self.spec.encoder:
            return tokens
        stack, queries = self._stacks[0], self._queries[0]
        if queries is None:
            return stack(tokens, padding_mask=mask if self.spec.mask_tokens else None)
        return stack(queries.expand(-1, tokens.shape[1], -1), tokens, padding_mask=mask)

    def remember(self, compressed: Tensor, mask: Tensor | None = None, age: Tensor | None = None) -> Memory:
        """The other encoder modules, and the decoder's keys and values. `mask` is the one that `compress` was given.

        `age` (1, B, D) is the token of the age memory.
        """
        tokens = compressed
        mask = None if self.has_queries or not self.spec.mask_tokens else mask
        for stack, queries, asked in list(zip(self._stacks, self._queries, self._asked, strict=True))[1:]:
            if queries is None:
                tokens = stack(tokens, padding_mask=mask)
            elif asked is None:
                tokens, mask = stack(queries.expand(-1, tokens.shape[1], -1), tokens), None
            else:
                first, *others = stack.layers
                keys, values = _keys_values(first.multihead_attn, tokens)
                x = _after_memory(first, asked.expand(-1, tokens.shape[1], -1), keys, values, mask)
                for layer in others:
                    x = layer(x, tokens, padding_mask=mask)
                tokens, mask = stack.finish(x), None
        if age is not None:
            tokens, mask = self.model.with_age(age, tokens, mask)
        pairs = tuple(_keys_values(layer.multihead_attn, tokens) for layer in self._layers[:-1])
        return Memory(tokens, pairs, mask, compressed)

    def decide(self, rows: Rows, memory: Memory | None, *, every: bool = False) -> Tensor:
        """Logits (B, C) of the newest row of windows of work rows, each (W, B, ...); with `every`, (W, B, C) of all.

        Fewer than W rows are the first ones of a window that is still filling. Without a long memory `memory` is None.
        """
        length = len(rows[0])
        x = rows[0] + self._work_pe[:length]
        for index, layer in enumerate(self._layers):
            newest = not every and index == len(self._layers) - 1
            if index == 0:
                x = self._first_layer(layer, x, rows[1] + self._work_qkv[:length], newest)
            elif newest:
                x = layer.norm1(x[-1:] + ask(layer.self_attn, x[-1], x)[None])
            else:
                x = layer.norm1(x + layer.self_attn(x, x, causal_mask(length, x.device)))
            if isinstance(layer, EncoderLayer):
                x = layer.norm2(x + layer.net(x))
                continue
            assert memory is not None
            if newest:
                x = layer.norm2(x + ask(layer.multihead_attn, x[0], memory.tokens, memory.mask)[None])
                x = layer.norm3(x + layer.net(x))
            elif index < len(memory.keys_values):
                x = _after_memory(layer, x, *memory.keys_values[index], memory.mask)
            else:
                x = _after_memory(layer, x, *_keys_values(layer.multihead_attn, memory.tokens), memory.mask)
        x = self.model.classifier(self.model.dec_modules.finish(x))
        return x if every else x[-1]

    @staticmethod
    def _first_layer(layer: DecoderLayer | EncoderLayer, x: Tensor, qkv: Tensor, newest: bool) -> Tensor:
        """The self-attention of the first decoder layer from projections that are there already."""
        query, keys, values = qkv.chunk(3, 2)
        if newest:
            x, query = x[-1:], query[-1:]
        mask = None if newest else causal_mask(len(x), x.device)
        return layer.norm1(x + _attend(layer.self_attn, query, keys, values, mask))


def _modules(modules: nn.ModuleList) -> list[Any]:
    return list(modules)


def _asked(stack: Any, queries: Tensor) -> Tensor:
    """Queries (n, 1, D) after they have looked at each other in the first layer: the same for every window."""
    first = stack.layers[0]
    return first.norm1(queries + first.self_attn(queries, queries))


def _keys_values(attention: Attention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    dim = tokens.shape[2]
    keys, values = linear(tokens, attention.in_proj_weight[dim:], attention.in_proj_bias[dim:]).chunk(2, 2)
    return keys, values


def _after_memory(layer: DecoderLayer, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """A decoder layer from where its self-attention has been added, for a memory that is projected already."""
    attention = layer.multihead_attn
    dim = x.shape[2]
    query = linear(x, attention.in_proj_weight[:dim], attention.in_proj_bias[:dim])
    mask = None if mask is None else mask[:, None, None]
    x = layer.norm2(x + _attend(attention, query, keys, values, mask))
    return layer.norm3(x + layer.net(x))


def _attend(attention: Attention, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention from projected queries (T, B, D), keys and values (S, B, D)."""
    q, k, v = (x.unflatten(2, (attention.num_heads, -1)).permute(1, 2, 0, 3) for x in (query, keys, values))
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return attention.out_proj(out.permute(2, 0, 1, 3).flatten(2))


def ask(attention: Attention, query: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention (B, D) of one query each, (B, D), to tokens (S, B, D) that are not projected.

    With one query it is cheaper to bring the query to the tokens: q . (K x) = (q K) . x, and the weighted mean of projections
    is the projection of the weighted mean. A key's bias adds the same to all scores, which softmax does not see.
    """
    dim, heads = query.shape[1], attention.num_heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    keys, values = (weight[i * dim : (i + 1) * dim].unflatten(0, (heads, -1)) for i in (1, 2))  # (heads, d, D)
    q = linear(query, weight[:dim], bias[:dim]) * (dim // heads) ** -0.5
    asked = torch.bmm(q.unflatten(1, (heads, -1)).transpose(0, 1), keys).transpose(0, 1)  # (B, heads, D)
    scores = torch.bmm(asked, memory.permute(1, 2, 0))
    if mask is not None:
        scores = scores + mask[:, None]
    seen = torch.bmm(scores.softmax(2), memory.transpose(0, 1))  # (B, heads, D)
    out = torch.bmm(seen.transpose(0, 1), values.transpose(1, 2)).transpose(0, 1).flatten(1)
    return attention.out_proj(out + bias[2 * dim :])


def windows_of_rows(rows: Rows, first: int, num_windows: int, length: int, rate: int = 1) -> Rows:
    """Windows (length, num_windows, size) without a copy: window b holds the rows first + b + i x rate."""
    return tuple(
        each[first:].as_strided((length, num_windows, each.shape[1]), (rate * each.shape[1], each.shape[1], 1))
        for each in rows
    )
