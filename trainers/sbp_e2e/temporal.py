"""The temporal model: LSTR over the features of frames, under the names of the published end-to-end code."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_OURS = (
    (r"^long_queries\.", "enc_queries."),
    (r"^long_modules\.", "enc_modules."),
    (r"^work_modules\.", "dec_modules."),
)
"""The end-to-end code holds an older LSTR: the same network, whose modules have other names."""


def our_name(name: str) -> str:
    """The name in `trainers.lstr.network.LSTR` of a tensor of the published end-to-end code."""
    for pattern, ours in _OURS:
        name = re.sub(pattern, ours, name)
    return name


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {our_name(name): value for name, value in state.items()}
