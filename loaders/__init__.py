"""Stores to batches of clips."""

from loaders.clips import ClipSpec
from loaders.dataset import ClipDataset
from loaders.engine import ClipError
from loaders.loader import ClipBatch, ClipLoader
from loaders.sampling import RandomInterval, Segments

__all__ = ["ClipBatch", "ClipDataset", "ClipError", "ClipLoader", "ClipSpec", "RandomInterval", "Segments"]
