"""Where a stream of batches stands: a few integers that say with which batch it goes on, and of which stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.errors import ClipmillError

_VERSION = 1


def stream_state(epoch: int, position: int, **stream: int) -> dict[str, Any]:
    """State of a stream that stands before `position` of `epoch`; `stream` is what its order depends on."""
    return {"version": _VERSION, **stream, "epoch": epoch, "position": position}


def resumed(state: Mapping[str, Any], **stream: int) -> tuple[int, int]:
    """Epoch and position of a state. Raises: ClipmillError when it is of another stream: its order is another one."""
    for name, value in {"version": _VERSION, **stream}.items():
        if state.get(name) != value:
            raise ClipmillError(
                f"the loader state has {name} {state.get(name)}, this loader {value}.",
                "The stream cannot go on in the same order.",
                "Resume with the data and the seed of the first run, or start anew with the weights only (--init).",
            )
    return int(state["epoch"]), int(state["position"])
