"""Schedules, optimizers and metrics, checked on paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainers.config import OptimizerConfig, ScheduleConfig
from trainers.engine.optimizers import base_lr, build_optimizer, set_lr
from trainers.engine.schedules import lr_factor
from trainers.method import Losses
from trainers.metrics import Meter, confusion_matrix, correct_in_top, mean_class_accuracy


def factors(schedule: ScheduleConfig, *steps: int) -> list[float]:
    return [lr_factor(schedule, step, steps_per_epoch=10, epochs=10) for step in steps]


def test_cosine_starts_at_one_passes_the_middle_and_ends_at_final() -> None:
    schedule = ScheduleConfig(name="cosine", final=0.1)
    assert factors(schedule, 0, 50, 100) == pytest.approx([1.0, 0.55, 0.1])


def test_multistep_falls_exactly_at_its_milestones() -> None:
    schedule = ScheduleConfig(name="multistep", milestones=(4, 8), gamma=0.1)
    assert factors(schedule, 39, 40, 79, 80) == pytest.approx([1.0, 0.1, 0.1, 0.01])


def test_warmup_rises_linearly_to_where_the_schedule_goes_on() -> None:
    schedule = ScheduleConfig(name="constant", warmup_epochs=2, warmup_start=0.2)
    assert factors(schedule, 0, 10, 20, 30) == pytest.approx([0.2, 0.6, 1.0, 1.0])
    cosine = ScheduleConfig(name="cosine", warmup_epochs=2, warmup_start=0.2)
    assert factors(cosine, 20, 60) == pytest.approx([1.0, (1 + math.cos(math.pi / 2)) / 2])


def test_rate_scales_linearly_with_clips_per_step_only_if_a_reference_is_given() -> None:
    assert base_lr(OptimizerConfig(lr=0.1), 512) == 0.1
    assert base_lr(OptimizerConfig(lr=0.1, reference_batch_size=64), 512) == pytest.approx(0.8)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_group_follows_its_own_factor_and_an_empty_one_is_left_out(name: str) -> None:
    layer = nn.Linear(2, 2)
    groups = [
        {"name": "w", "params": [layer.weight], "lr_mult": 0.5},
        {"name": "b", "params": [layer.bias]},
        {"params": []},
    ]
    optimizer = build_optimizer(OptimizerConfig(name=name, lr=1.0), groups, 1.0)  # type: ignore[arg-type]
    set_lr(optimizer, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.2])


def test_top_k_counts_labels_and_survives_fewer_classes_than_k() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 3.0, 1.0]])
    labels = torch.tensor([0, 0, 0])
    assert [int(correct_in_top(logits, labels, k)) for k in (1, 2, 5)] == [1, 2, 3]


def test_confusion_matrix_has_true_classes_in_rows() -> None:
    matrix = confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 2]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]
    assert mean_class_accuracy(matrix) == pytest.approx(0.25)  # class 1 never occurs: it does not count


def test_meter_weights_by_samples() -> None:
    meter = Meter()
    meter.add(loss=1.0, top1=1, top5=1, count=1)
    meter.add(loss=3.0, top1=0, top5=3, count=3)
    assert meter.means() == {"loss": 2.5, "top1": 0.25, "top5": 1.0}


def test_total_loss_is_the_weighted_sum() -> None:
    terms = {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}
    assert float(Losses(terms, torch.zeros(1, 2), {"b": 0.5}).total) == 2.0
