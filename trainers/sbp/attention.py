"""Attention whose queries learn at kept positions only, while every key and value does.

Stored are the inputs; scores and weights are computed anew in the backward pass, for the kept queries alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from trainers.backbones.video_swin import attend
from trainers.sbp.partial import partial_selected, recompute


def kept_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, scale: float, keep: Tensor | None = None
) -> Tensor:
    """softmax(scale q k^T + bias + mask) v with gradients from the kept queries; q, k, v and the result (W, heads, N, d).

    `bias` (heads, N, N); `mask` (nW, N, N) is added to the windows of every grid in turn; `keep` bool (N,) for all windows,
    or (nW, N), or (W, N), with as many kept in every window. Without `keep` all queries learn.
    Raises: ValueError if windows keep different numbers of queries.
    """
    if keep is None:
        return recompute(lambda q, k, v, bias: attend(q, k, v, bias, mask, scale), q, (k, v, bias))
    rows = _kept_columns(keep)
    windows, heads, _, width = q.shape
    places = rows.repeat(windows // len(rows), 1)

    index = places[:, None, :, None].expand(-1, heads, -1, width)

    def select(y: Tensor) -> Tensor:
        return torch.gather(y, 2, index)

    def kept(few: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return attend(few, k, v, bias_rows(bias, rows), mask_rows(mask, rows), scale)

    def full(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return attend(q, k, v, bias, mask, scale)

    def restore(few: Tensor, shape: torch.Size) -> Tensor:
        return few.new_zeros(shape).scatter_(2, index, few)

    return partial_selected(full, kept, select, restore, q, (k, v, bias))


def _kept_columns(keep: Tensor) -> Tensor:
    """Numbers of the kept places of every window, (nW, K). One row stands for windows that are all alike."""
    keep = keep.bool().reshape(-1, keep.shape[-1])
    counts = keep.sum(1)
    if counts.min() != counts.max():
        raise ValueError(f"windows keep {int(counts.min())} to {int(counts.max())} queries; they must all keep as many")
    if (keep == keep[0]).all():
        keep = keep[:1]
    return keep.nonzero()[:, 1].view(len(keep), -1)


def bias_rows(bias: Tensor, rows: Tensor) -> Tensor:
    """The bias (heads, N, N) of the queries `rows` (nW, K): (nW, heads, K, N), or (heads, K, N) where one row of numbers is given."""
    heads, n, _ = bias.shape
    if len(rows) == 1:
        return bias.index_select(1, rows[0])
    # A lookup in a table of N rows: its gradient sums over windows in one parallel pass.
    table = bias.transpose(0, 1).reshape(n, heads * n)
    return embedding(rows, table).view(*rows.shape, heads, n).transpose(1, 2)


def mask_rows(mask: Tensor | None, rows: Tensor) -> Tensor | None:
    """The mask (nW, N, N) of the queries `rows` (nW, K) or (1, K): (nW, K, N)."""
    if mask is None or len(rows) == 1:
        return mask if mask is None else mask.index_select(1, rows[0])
    if len(mask) != len(rows):
        mask = mask.repeat(len(rows) // len(mask), 1, 1)
    return torch.gather(mask, 1, rows[..., None].expand(-1, -1, mask.shape[-1]))
