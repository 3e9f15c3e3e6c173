"""Losses over per-frame targets, rows (R, C).

MCE  cross-entropy with several labels a row, and one class that is neither trained nor scored (LSTR's own)
BCE  every class for itself
SCE  one label a row
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, log_softmax

Reduction = Literal["mean", "sum", "none"]
LossName = Literal["MCE", "BCE", "SCE"]

NO_IGNORED_CLASS = -100


def mce(logits: Tensor, target: Tensor, reduction: Reduction = "mean", ignore_index: int = NO_IGNORED_CLASS) -> Tensor:
    """-sum over classes of target x log softmax, per row of (R, C).

    The column `ignore_index` is left out of the softmax, and so are rows whose target is exactly 1 there; reduced are the rows
    that are left. Targets are not normalised: two labels count twice, none counts 0. Where no row is left the mean is 0
    (NaN in the authors' code).
    """
    if ignore_index >= 0:
        kept = target[:, ignore_index] != 1
        columns = [c for c in range(logits.shape[1]) if c != ignore_index]
        logits, target = logits[:, columns], target[:, columns]
        rows = -(target * log_softmax(logits, 1)).sum(1)
        if reduction == "none":
            return rows[kept]
        # Sums instead of a selection of rows: nothing waits for the device to say how many there are.
        total = rows.where(kept, 0.0).sum()
        return total if reduction == "sum" else total / kept.sum().clamp_min(1)
    rows = -(target * log_softmax(logits, 1)).sum(1)
    return {"mean": rows.mean, "sum": rows.sum}.get(reduction, lambda: rows)()


def bce(logits: Tensor, target: Tensor, reduction: Reduction = "mean", ignore_index: int = NO_IGNORED_CLASS) -> Tensor:
    """Binary cross-entropy of every class, target (R, C); as published, `ignore_index` changes nothing."""
    return binary_cross_entropy_with_logits(logits, target, reduction=reduction)


def sce(logits: Tensor, target: Tensor, reduction: Reduction = "mean", ignore_index: int = NO_IGNORED_CLASS) -> Tensor:
    """Cross-entropy of one class per row, target int64 (R,); rows of the class `ignore_index` count nothing."""
    return cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)


LOSSES: dict[str, Callable[..., Tensor]] = {"MCE": mce, "BCE": bce, "SCE": sce}
"""By the names of published configs."""
