"""Transformer layers and stacks with the norm after each residual (post-norm); sequences are (T, B, D)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import gelu, relu

from trainers.lstr.attention import Attention

Activation = Literal["relu", "gelu"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu, "gelu": gelu}


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward net: norm1(x + attention), norm2(x + net)."""

    def __init__(self, dim: int, num_heads: int, hidden: int, dropout: float, activation: Activation) -> None:
        super().__init__()
        self.self_attn = Attention(dim, num_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, padding_mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.drop(self.self_attn(x, x, attn_mask, padding_mask)))
        return self.norm2(x + self.drop(self.net(x)))

    def net(self, x: Tensor) -> Tensor:
        return self.linear2(self.drop(self.activation(self.linear1(x))))


class DecoderLayer(nn.Module):
    """Self-attention, attention to a memory, and a feed-forward net, each added and normalised."""

    def __init__(self, dim: int, num_heads: int, hidden: int, dropout: float, activation: Activation) -> None:
        super().__init__()
        self.self_attn = Attention(dim, num_heads, dropout)
        self.multihead_attn = Attention(dim, num_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)
        self.activation = ACTIVATIONS[activation]

    def forward(
        self, x: Tensor, memory: Tensor, attn_mask: Tensor | None = None, padding_mask: Tensor | None = None
    ) -> Tensor:
        """`attn_mask` (T, T) is for the self-attention, `padding_mask` (B, S) for the memory."""
        x = self.norm1(x + self.drop(self.self_attn(x, x, attn_mask)))
        x = self.norm2(x + self.drop(self.multihead_attn(x, memory, padding_mask=padding_mask)))
        return self.norm3(x + self.drop(self.net(x)))

    def net(self, x: Tensor) -> Tensor:
        return self.linear2(self.drop(self.activation(self.linear1(x))))


class _Stack(nn.Module):
    """Copies of one layer, then perhaps a norm. As published, copies begin with equal attention input weights and biases."""

    layers: nn.ModuleList

    def __init__(self, layer: nn.Module, num_layers: int, dim: int, final_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim) if final_norm else None

    def finish(self, x: Tensor) -> Tensor:
        return x if self.norm is None else self.norm(x)


class EncoderStack(_Stack):
    """Encoder layers one after the other."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, padding_mask: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, attn_mask, padding_mask)
        return self.finish(x)


class DecoderStack(_Stack):
    """Decoder layers one after the other, all looking at the same memory."""

    def forward(
        self, x: Tensor, memory: Tensor, attn_mask: Tensor | None = None, padding_mask: Tensor | None = None
    ) -> Tensor:
        for layer in self.layers:
            x = layer(x, memory, attn_mask, padding_mask)
        return self.finish(x)
