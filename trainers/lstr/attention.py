"""Multi-head attention over sequences (T, B, D), through torch's fused kernel.

Parameters are named and laid out as those of `torch.nn.MultiheadAttention`, and are drawn in the order in which the authors'
code draws them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention


class Attention(nn.Module):
    """Queries (T, B, D) look at a memory (S, B, D) with `num_heads` heads; `dropout` is that of the attention weights.

    Raises: ValueError when the heads do not divide D.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads is {num_heads}, which does not divide the width {dim}")
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))  # rows: queries, keys, values
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, memory: Tensor, attn_mask: Tensor | None = None, padding_mask: Tensor | None = None
    ) -> Tensor:
        """(T, B, D). Masks are added to the scores: `attn_mask` (T, S) for all, `padding_mask` (B, S) for all queries."""
        dim = query.shape[2]
        if query is memory:
            q, k, v = linear(query, self.in_proj_weight, self.in_proj_bias).split(dim, 2)
        else:
            q = linear(query, self.in_proj_weight[:dim], self.in_proj_bias[:dim])
            k, v = linear(memory, self.in_proj_weight[dim:], self.in_proj_bias[dim:]).split(dim, 2)
        mask = attn_mask
        if padding_mask is not None:
            mask = padding_mask[:, None, None] if mask is None else padding_mask[:, None, None] + mask
        out = scaled_dot_product_attention(
            self._heads(q),
            self._heads(k),
            self._heads(v),
            attn_mask=None if mask is None else mask.to(q.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(out.permute(2, 0, 1, 3).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """(T, B, D) as (B, heads, T, D / heads)."""
        return x.unflatten(2, (self.num_heads, -1)).permute(1, 2, 0, 3)


def causal_mask(length: int, device: torch.device | str | None = None) -> Tensor:
    """Every place sees itself and those before it: float32 (length, length), 0 there and -inf elsewhere."""
    return torch.full((length, length), float("-inf"), device=device).triu(1)
