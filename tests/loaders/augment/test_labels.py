"""Flipping classes that say left or right."""

from __future__ import annotations

import pytest

from loaders.augment import ClipShape, Drawn, FlipLabels, steps
from loaders.augment.labels import flip_labels

CLASSES = [
    "Pulling something from left to right",
    "Pulling something from right to left",
    "Plugging something into something but pulling it right out as you remove your hand",
    "Putting something upright on the table",
    "Turning the camera left while filming something",
    "Turning the camera right while filming something",
    "Pushing something from left to right",  # without its opposite
]


def test_left_and_right_are_exchanged_where_that_is_a_class():
    assert flip_labels(CLASSES).opposite == (1, 0, -1, -1, 5, 4, -1)


@pytest.mark.parametrize(
    ("policy", "label", "may_flip", "after"),
    [
        ("swap", 0, True, 1),
        ("swap", 3, True, 3),
        ("keep", 0, True, 0),
        ("forbid-these", 0, False, 0),
        ("forbid-these", 2, True, 2),
        ("forbid-all", 2, False, 2),
    ],
)
def test_policies(policy, label, may_flip, after):
    rule = flip_labels(CLASSES, policy)
    assert rule.may_flip(label) is may_flip
    assert rule.after_flip(label) == after


def test_flipping_twice_is_nothing():
    rule = flip_labels(CLASSES)
    assert [rule.after_flip(rule.after_flip(label)) for label in range(len(CLASSES))] == list(range(len(CLASSES)))


@pytest.mark.parametrize(
    ("policy", "chosen", "label", "kept", "after"),
    [
        ("swap", (steps.Rotate(1), steps.Flip()), 0, 2, 1),
        ("swap", (steps.Flip(), steps.Flip()), 0, 2, 0),
        ("swap", (steps.Rotate(1),), 0, 1, 0),
        ("keep", (steps.Flip(),), 0, 1, 0),
        ("forbid-these", (steps.Rotate(1), steps.Flip()), 0, 1, 0),
        ("forbid-these", (steps.Rotate(1), steps.Flip()), 3, 2, 3),
        ("forbid-all", (steps.Flip(),), 3, 0, 3),
    ],
)
def test_a_drawn_clip_and_its_label_are_settled_together(policy, chosen, label, kept, after):
    drawn = Drawn(ClipShape(1, 8, 8), chosen, (8, 8))
    settled, found = flip_labels(CLASSES, policy).settle(drawn, label)
    assert (len(settled.steps), found) == (kept, after)
    assert len(drawn.steps) == len(chosen)


def test_rules_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="policy is 'swop'; there are swap, keep"):
        FlipLabels((), "swop")
    with pytest.raises(ValueError, match="class 0 has the opposite 1, which does not have 0"):
        FlipLabels((1, -1))
    with pytest.raises(ValueError, match="class 1 has the opposite 7"):
        FlipLabels((-1, 7))
