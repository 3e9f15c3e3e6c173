"""Losses and figures of online detection where they are easy to work out, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.nn.functional import cross_entropy

from trainers.lstr.losses import mce
from trainers.per_frame_metrics import (
    PostProcessing,
    average_precision,
    calibrated_average_precision,
    per_frame,
    per_stage,
    stage_rows,
    thumos,
)


def test_mce_with_one_label_is_cross_entropy() -> None:
    logits, labels = torch.randn(7, 5), torch.randint(5, (7,))
    target = torch.eye(5)[labels]
    torch.testing.assert_close(mce(logits, target), cross_entropy(logits, labels))


def test_a_row_of_the_ignored_class_gives_no_gradient_and_does_not_count() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    target = torch.eye(4)[[0, 3, 1]]
    loss = mce(logits, target, ignore_index=3)
    expected = cross_entropy(logits[[0, 2], :3], torch.tensor([0, 1]))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (logits.grad[1] == 0).all() and (logits.grad[:, 3] == 0).all()


def test_a_batch_of_ignored_rows_alone_has_a_loss_of_0_that_can_be_trained_on() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = mce(logits, torch.eye(4)[[3, 3, 3]], ignore_index=3)
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_is_scikit_learns_with_and_without_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for _ in range(20):
        labels, scores = rng.integers(0, 2, 50), rng.integers(0, levels, 50) / levels
        if labels.any():
            assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))


def test_calibration_makes_as_many_negatives_as_positives() -> None:
    # One positive below one of four negatives: precision 1 / (1 + 1/4).
    labels, scores = np.array([0, 1, 0, 0, 0]), np.array([0.9, 0.8, 0.1, 0.2, 0.3])
    assert calibrated_average_precision(labels, scores) == pytest.approx(0.8)
    assert np.isnan(calibrated_average_precision(np.zeros(3), np.arange(3)))


def test_background_the_ignored_class_and_absent_ones_are_not_scored() -> None:
    targets = np.eye(5)[[0, 1, 1, 4, 2]]
    found = per_frame(targets, targets, list("abcde"), ignore_index=4)
    assert found["per_class_AP"] == {"b": 1.0, "c": 1.0} and found["mean_AP"] == 1.0
    assert np.isnan(per_frame(targets[:1], targets[:1], list("abcde"))["mean_AP"])


def test_a_stage_is_a_tenth_of_every_run() -> None:
    labels = np.zeros(40, int)
    labels[5:26] = 1  # 21 rows, of which the published arithmetic uses 20
    assert stage_rows(labels, 0)[-2:].tolist() == [5, 6] and stage_rows(labels, 9)[-2:].tolist() == [23, 24]
    stages = per_stage(np.stack([1 - labels, labels], 1), np.random.rand(40, 2), ["no", "yes"])
    assert list(stages)[-1] == "90%_100%"


def test_post_processing_is_a_choice() -> None:
    targets = np.eye(3)[[0, 2, 1]]
    scores = np.array([[0.1, 0.9, 0.0], [0.5, 0.2, 0.3], [0.3, 0.3, 0.4]])
    kept_targets, kept = thumos(2)(targets, scores)
    assert kept_targets.tolist() == targets[[0, 2]].tolist() and kept.tolist() == scores[[0, 2]].tolist()
    _, implied = PostProcessing(implied=(1, 2))(targets, scores)
    assert implied[:, 2].tolist() == [0.9, 0.3, 0.4] and scores[0, 2] == 0.0
    assert PostProcessing(smooth=True)(targets, scores)[1][0].tolist() == [0.5, 0.9, 0.4]
