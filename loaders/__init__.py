"""Stores to batches of clips."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loaders.clips import ClipSpec
    from loaders.dataset import ClipDataset
    from loaders.loader import ClipBatch, ClipLoader
    from loaders.making import ClipError
    from loaders.sampling import RandomInterval, Segments

__all__ = ["ClipBatch", "ClipDataset", "ClipError", "ClipLoader", "ClipSpec", "RandomInterval", "Segments"]

_HOMES = {
    "ClipBatch": "loaders.loader",
    "ClipDataset": "loaders.dataset",
    "ClipError": "loaders.making",
    "ClipLoader": "loaders.loader",
    "ClipSpec": "loaders.clips",
    "RandomInterval": "loaders.sampling",
    "Segments": "loaders.sampling",
}


def __getattr__(name: str) -> Any:
    """Imported when first asked for: decoder processes need neither the loader nor torch, and start without them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
