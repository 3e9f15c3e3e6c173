"""Evaluation of clip classification: every view of every video once, scored per video."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from ingest.atomic import replacing
from ingest.errors import ClipmillError
from loaders import ClipLoader
from loaders.speed import Rates, SpeedMonitor
from trainers.method import Method
from trainers.metrics import confusion_matrix, correct_in_top, mean_average_precision, mean_class_accuracy


@dataclass
class Evaluation:
    """What an evaluation found.

    `figures`: by name; `loss` is always among them, and `top1` where there is one class per sample.
    `scores` (N, C) and `labels` (N,): per video, or per frame where that is what is classified.
    `bad_videos`: not in the figures, since a view of them could not be read. `shape`: (B, T, H, W) of the batches.
    """

    figures: dict[str, float | None]
    scores: Tensor
    labels: Tensor
    num_clips: int
    rates: Rates
    shape: tuple[int, ...]
    confusion: Tensor | None = None
    video_ids: list[str] = field(default_factory=list)
    bad_videos: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def without_ranks(fabric: Fabric, method: Method) -> Iterator[None]:
    """The models as they are under DDP, which waits for all ranks in every forward: ranks may have different numbers of batches.

    Buffers are made those of rank 0 first, as DDP would in the next forward.
    """
    if fabric.world_size == 1:
        yield
        return
    wrapped = dict(method.models)
    for name, model in wrapped.items():
        method.models[name] = bare = getattr(model, "module", model)
        for buffer in bare.buffers():
            torch.distributed.broadcast(buffer, 0)
    try:
        with fabric.autocast():
            yield
    finally:
        method.models.update(wrapped)


@torch.no_grad()
def evaluate(
    fabric: Fabric, method: Method, loader: ClipLoader, *, average: Literal["prob", "score"] = "prob"
) -> Evaluation:
    """Probabilities, or scores, are averaged over a video's views; the loss is the mean over clips, all else is per video.

    A video of which a view cannot be read is left out and named. Raises: ClipmillError when that is every one.
    """
    for model in method.models.values():
        model.eval()
    device, dataset = fabric.device, loader.dataset
    num_videos, num_classes = len(dataset), len(dataset.class_names)
    sums = torch.zeros(num_videos, num_classes, device=device)
    views = torch.zeros(num_videos, device=device)
    loss = torch.zeros(num_videos, device=device)
    shape: tuple[int, ...] = (0, 0, 0, 0)
    speed = SpeedMonitor(device)
    loader.load_state_dict(loader.state_dict() | {"position": 0})
    for batch in speed.watch(iter(loader)):
        with speed.measure("forward", len(batch)):
            logits = method.predict(batch, device).float()
        shape = shape if shape[0] else batch.shape
        own = (~batch.replaced).to(device)
        videos, logits, labels = batch.videos.to(device)[own], logits[own], batch.labels.to(device)[own]
        sums.index_add_(0, videos, logits.softmax(1) if average == "prob" else logits)
        views.index_add_(0, videos, torch.ones_like(videos, dtype=views.dtype))
        loss.index_add_(0, videos, cross_entropy(logits, labels, reduction="none"))
    rates = speed.rates()
    if fabric.world_size > 1:
        sums, views, loss = (torch.as_tensor(fabric.all_reduce(v, reduce_op="sum")) for v in (sums, views, loss))
    whole = (views == loader.spec.num_views).cpu()
    bad = [dataset.video_ids[i] for i in (~whole).nonzero()[:, 0].tolist()]
    if not whole.any():
        raise ClipmillError(
            f"none of the {num_videos} videos of {dataset.root} could be read.",
            "There is nothing to score.",
            f"Look at them: clipmill ingest verify {dataset.root}",
        )
    scores = (sums / loader.spec.num_views).cpu()[whole]
    labels = torch.from_numpy(dataset.labels)[whole]
    confusion = confusion_matrix(scores.argmax(1), labels, num_classes)
    count = len(labels)
    figures = {
        "loss": float(loss.cpu()[whole].sum()) / (count * loader.spec.num_views),
        "top1": int(correct_in_top(scores, labels, 1)) / count,
        "top5": int(correct_in_top(scores, labels, 5)) / count,
        "mean_class_accuracy": mean_class_accuracy(confusion),
        "mean_average_precision": mean_average_precision(scores, one_hot(labels, num_classes)),
    }
    ids = [video_id for video_id, kept in zip(dataset.video_ids, whole.tolist(), strict=True) if kept]
    return Evaluation(dict(figures), scores, labels, int(views.sum()), rates, shape, confusion, ids, bad)


def save_scores(result: Evaluation, path: Path) -> None:
    """An `.npz` file: video_ids, scores (videos, classes) averaged over views, labels (videos,)."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, video_ids=np.array(result.video_ids), scores=result.scores.numpy(), labels=result.labels.numpy())
