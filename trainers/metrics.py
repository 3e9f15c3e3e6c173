"""Accuracy figures. Plain sums over samples, never means of means."""

from __future__ import annotations

from dataclasses import dataclass

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


def mean_class_accuracy(confusion: Tensor) -> float:
    """Mean over the classes that occur of the share predicted rightly."""
    counts = confusion.sum(1)
    seen = counts > 0
    return float((confusion.diagonal()[seen] / counts[seen]).mean())


@dataclass
class Meter:
    """Sums over samples since the last reset: loss times samples, right in top 1 and top 5, samples."""

    loss: float = 0.0
    top1: int = 0
    top5: int = 0
    count: int = 0

    def add(self, loss: float, top1: int, top5: int, count: int) -> None:
        self.loss += loss * count
        self.top1 += top1
        self.top5 += top5
        self.count += count

    def means(self) -> dict[str, float]:
        n = max(self.count, 1)
        return {"loss": self.loss / n, "top1": self.top1 / n, "top5": self.top5 / n}
