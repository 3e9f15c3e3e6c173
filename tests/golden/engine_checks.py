"""Learning rates and figures of merit that several methods' files hold, against the engine's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tests.golden.vectors import from_json
from trainers.config import ScheduleConfig
from trainers.engine.schedules import lr_factor
from trainers.metrics import (
    confusion_matrix,
    correct_in_top,
    mean_average_precision,
    mean_class_accuracy,
    normalised_confusion,
)

Cases = Iterable[tuple[str, Callable[[], None]]]


def mmcv_schedule(spec: Mapping[str, Any], *, base_lr: float, steps_per_epoch: int) -> ScheduleConfig:
    """What MMCV's lr_config means in our words."""
    per_step = not spec.get("by_epoch", True)
    unit = steps_per_epoch if per_step else 1
    step = spec.get("step", ())
    return ScheduleConfig(
        name="cosine" if "min_lr" in spec else "step" if isinstance(step, int) else "multistep",
        every=step / unit if isinstance(step, int) else 1,
        milestones=tuple(s / unit for s in step) if not isinstance(step, int) else (),
        gamma=spec.get("gamma", 0.1),
        final=spec.get("min_lr", 0) / base_lr,
        update="step" if per_step else "epoch-after-warmup",
        warmup_epochs=spec.get("warmup_iters", 0) / (1 if spec.get("warmup_by_epoch") else steps_per_epoch),
        warmup_start=spec.get("warmup_ratio", 0.1),
        warmup_curve={"exp": "exponential"}.get(spec.get("warmup", "linear"), spec.get("warmup", "linear")),
        warmup_to="multiply",
        offset_warmup=False,
    )


def rates(schedule: ScheduleConfig, *, base_lr: float, epochs: int, steps_per_epoch: int, expected: np.ndarray) -> None:
    """The rate of every step, to rounding."""
    steps = range(epochs * steps_per_epoch)
    got = [base_lr * lr_factor(schedule, step, steps_per_epoch, epochs) for step in steps]
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-15)


def mmcv_rates(spec: Mapping[str, Any], expected: np.ndarray, *, base_lr: float, epochs: int, steps: int) -> None:
    schedule = mmcv_schedule(spec, base_lr=base_lr, steps_per_epoch=steps)
    rates(schedule, base_lr=base_lr, epochs=epochs, steps_per_epoch=steps, expected=expected)


def reskd_functions(data: Mapping[str, np.ndarray]) -> Cases:
    """`lr_*` and `metrics_*` of reskd/functions."""
    for group in sorted({key.partition("/")[0] for key in data}):
        own = {key.partition("/")[2]: value for key, value in data.items() if key.startswith(f"{group}/")}
        if group.startswith("lr_"):
            spec = from_json(own["spec"])
            settings = {"base_lr": spec["base_lr"], "epochs": spec["max_epochs"], "steps": spec["epoch_len"]}
            yield group, partial(mmcv_rates, spec["kwargs"], own["lr"], **settings)
        elif group.startswith("metrics_"):
            yield group, partial(_mmaction_metrics, own)
        else:
            yield group, partial(pytest.fail, f"not checked by anything here: {group}")


def _mmaction_metrics(own: Mapping[str, np.ndarray]) -> None:
    scores, labels = torch.from_numpy(own["scores"]), torch.from_numpy(own["labels"])
    num_classes = scores.shape[1]
    counts = confusion_matrix(torch.from_numpy(own["scores"].argmax(1)), labels, num_classes)
    multi = torch.from_numpy(own["multi"])
    found: dict[str, Any] = {
        "mean_class": mean_class_accuracy(counts, "zero"),
        "mAP": mean_average_precision(scores, multi),
        "mmit": mean_average_precision(scores.T, multi.T),
        "single_mAP": mean_average_precision(scores, one_hot(labels, num_classes)),
        "cm": counts,
        **{f"cm_{over}": normalised_confusion(counts, over) for over in ("true", "pred", "all")},  # type: ignore[arg-type]
    }
    if "topk" in own:
        ks = [k for k in range(1, num_classes + 1) if k in (1, 2, 3, 5)]
        found["topk"] = [int(correct_in_top(scores, labels, k)) / len(labels) for k in ks]
    unknown = own.keys() - found.keys() - {"scores", "labels", "multi"}
    assert not unknown, f"not checked by anything here: {sorted(unknown)}"
    for name, value in found.items():
        if name in own:
            np.testing.assert_allclose(np.asarray(value), own[name], rtol=1e-6, err_msg=name)


def class_metrics(
    scores: Tensor, labels: Tensor, top: np.ndarray, mean_class: float, per_class: np.ndarray | None
) -> None:
    """Top-1, top-5, and the mean accuracy of the classes.

    With `per_class` they are ST-ABN's, whose mean is NaN where a class never occurs: ours leaves that class out.
    """
    got = [int(correct_in_top(scores, labels, k)) / len(labels) for k in (1, 5)]
    np.testing.assert_allclose(got, top, rtol=1e-6)
    counts = confusion_matrix(scores.argmax(1), labels, scores.shape[1])
    totals = counts.sum(1)
    absent: Literal["skip", "zero"] = "zero"
    if per_class is not None:
        named = [c for c in range(scores.shape[1]) if totals[c] or counts[:, c].sum()]
        shares = (counts.diagonal() / totals)[named]
        np.testing.assert_allclose(shares.numpy(), per_class, rtol=1e-6)
        mean_class, absent = float(np.nanmean(per_class)), "skip"
    np.testing.assert_allclose(mean_class_accuracy(counts, absent), mean_class, rtol=1e-6)
