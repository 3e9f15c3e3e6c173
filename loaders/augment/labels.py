"""Flipping and labels: what a mirrored clip shows, where a class says left or right.

In Something-Something, "Pulling something from left to right" shows the opposite class once it is mirrored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from loaders.augment.recipe import Drawn
from loaders.augment.steps import Flip

FlipPolicy = Literal["swap", "keep", "forbid-these", "forbid-all"]
"""What to do about classes with a left and a right.

swap          a mirrored clip gets the label of the opposite class
keep          the label stays, wrongly (the published code of ST-ABN and TPN)
forbid-these  clips of these classes are not mirrored
forbid-all    no clip is mirrored (TSM, ResKD and STS on Something-Something)
"""

_OTHER_SIDE = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class FlipLabels:
    """`opposite`[label] is the class that a mirrored clip of `label` shows; -1 where it is the same."""

    opposite: tuple[int, ...]
    policy: FlipPolicy = "swap"

    def __post_init__(self) -> None:
        policies = ("swap", "keep", "forbid-these", "forbid-all")
        if self.policy not in policies:
            raise ValueError(f"the flip policy is {self.policy!r}; there are {', '.join(policies)}")
        for label, other in enumerate(self.opposite):
            if other != -1 and (not 0 <= other < len(self.opposite) or self.opposite[other] != label):
                raise ValueError(f"class {label} has the opposite {other}, which does not have {label} as its own")

    def may_flip(self, label: int) -> bool:
        if self.policy == "forbid-all":
            return False
        return self.policy != "forbid-these" or self.opposite[label] == -1

    def after_flip(self, label: int) -> int:
        """The label of the mirrored clip."""
        return self.opposite[label] if self.policy == "swap" and self.opposite[label] != -1 else label

    def settle(self, drawn: Drawn, label: int) -> tuple[Drawn, int]:
        """What is done to a clip of `label`, and the label that it has then. A mirroring that is forbidden is left out.

        It is drawn all the same, so what else is drawn does not depend on the label.
        """
        if not self.may_flip(label):
            return replace(drawn, steps=tuple(step for step in drawn.steps if not isinstance(step, Flip))), label
        mirrored = sum(isinstance(step, Flip) for step in drawn.steps) % 2
        return drawn, self.after_flip(label) if mirrored else label


def flip_labels(classes: Sequence[str], policy: FlipPolicy = "swap") -> FlipLabels:
    """The rule for a list of class names: left and right exchanged as whole words, where that gives another class.

    Names that have such a word without being directional ("pulling it right out") find no class and stay.
    """
    places = {name: label for label, name in enumerate(classes)}
    found = [places.get(_mirrored(name), -1) for name in classes]
    return FlipLabels(tuple(-1 if other == label else other for label, other in enumerate(found)), policy)


def _mirrored(name: str) -> str:
    return re.sub(r"\b(left|right)\b", lambda word: _OTHER_SIDE[word.group()], name)
