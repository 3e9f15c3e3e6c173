"""Figures of classification: accuracies, mean average precision, confusion. Sums over samples, never means of means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


def correct_in_top(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """How many of the labels are among the k highest scores: int64 scalar. `logits` (B, C), `labels` (B,).

    With fewer than k classes, k is the number of classes. Ties are broken as `torch.topk` does.
    """
    top = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (top == labels[:, None]).any(1).sum()


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts, int64 (num_classes, num_classes): row true class, column predicted class."""
    cells = labels * num_classes + predicted
    return torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_class_accuracy(confusion: Tensor, absent: Literal["skip", "zero"] = "skip") -> float:
    """Mean over the classes that occur of the share predicted rightly.

    With `absent` "zero", classes that are predicted and never occur count as 0, as in MMAction2.
    """
    counts = confusion.sum(1)
    named = counts > 0
    if absent == "zero":
        named = named | (confusion.sum(0) > 0)
    return float((confusion.diagonal()[named] / counts[named].clamp(min=1)).mean())


def normalised_confusion(confusion: Tensor, over: Literal["true", "pred", "all"]) -> Tensor:
    """Shares, float64: of each true class (rows), of each predicted class (columns), or of all; 0 where there is nothing."""
    counts = confusion.double()
    sums = {"true": counts.sum(1, keepdim=True), "pred": counts.sum(0, keepdim=True), "all": counts.sum()}[over]
    return counts / sums.clamp(min=1)


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """Area under precision over recall of one class: `scores` (N,), `positive` bool (N,). NaN without positives.

    Samples of equal score are taken together; precision is not interpolated. Source: MMAction2's definition, which is
    scikit-learn's.
    """
    num_positives = int(positive.sum())
    if not num_positives:
        return float("nan")
    order = scores.argsort(descending=True, stable=True)
    ranked, hits = scores[order], positive[order].double().cumsum(0)
    last_of_score = torch.ones_like(ranked, dtype=torch.bool)
    last_of_score[:-1] = ranked[1:] != ranked[:-1]
    hits, taken = hits[last_of_score], (last_of_score.nonzero()[:, 0] + 1).double()
    gained = hits.diff(prepend=hits.new_zeros(1))
    return float((gained * hits / taken).sum() / num_positives)


def mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """Mean over classes of `average_precision`: scores (N, C), targets (N, C), positive where not 0.

    Classes without positives are left out; NaN when that is all of them.
    """
    found = [average_precision(scores[:, c], targets[:, c] > 0) for c in range(scores.shape[1])]
    known = [value for value in found if value == value]
    return sum(known) / len(known) if known else float("nan")


@dataclass
class Meter:
    """Sums over samples since the last reset: loss times samples, right in top 1 and top 5, samples; `graded` of them
    have a class that top 1 and top 5 speak of.
    """

    loss: float = 0.0
    top1: int = 0
    top5: int = 0
    count: int = 0
    graded: int = 0

    def add(self, loss: float, top1: int, top5: int, count: int, graded: int | None = None) -> None:
        """Add `count` samples with the mean loss `loss`."""
        self.loss += loss * count
        self.top1 += top1
        self.top5 += top5
        self.count += count
        self.graded += count if graded is None else graded

    def means(self) -> dict[str, float | None]:
        """Mean loss, and the shares in top 1 and top 5: None where no sample has a class."""
        n = max(self.count, 1)
        shares = {
            name: value / self.graded if self.graded else None
            for name, value in (("top1", self.top1), ("top5", self.top5))
        }
        return {"loss": self.loss / n, **shares}
