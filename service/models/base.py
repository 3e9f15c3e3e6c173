"""What every model shares: numbers that JSON can carry, and the version of the answers."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

API_VERSION: Literal[1] = 1
"""Grows when a field changes its meaning or goes away; new fields may come at any time."""


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
"""A number, or null where it is unknown or not finite (a loss that diverged): JSON has no NaN."""


class Model(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Answer(Model):
    """The top of a JSON answer."""

    api_version: Literal[1] = Field(default=API_VERSION, examples=[API_VERSION])
