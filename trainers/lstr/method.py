"""LSTR as the loop sees it: one network over windows of features, a loss per row of the work memory.

Source: Xu et al., Long Short-Term Transformer for Online Action Detection, NeurIPS 2021, arXiv 2107.03377.
"""

from __future__ import annotations

from trainers.data import Split
from trainers.lstr.checkpoints import load_published
from trainers.lstr.config import MethodConfig
from trainers.lstr.evaluation import evaluate, save_results
from trainers.lstr.loader import SessionLoader, WindowLoader
from trainers.lstr.online import Lstr
from trainers.method import blaming

__all__ = ["Lstr", "MethodConfig", "create", "evaluate", "load_published", "make_loader", "save_results"]


def create(config: MethodConfig, num_classes: int) -> Lstr:
    """The method with fresh weights. Raises: ClipmillError for a network that cannot be."""
    with blaming("model"):
        return Lstr(config, num_classes)


def make_loader(
    config: MethodConfig, split: Split, *, rank: int = 0, world_size: int = 1
) -> WindowLoader | SessionLoader:
    """Windows for training and validation, whole sessions for the test. Raises: ClipmillError when there are none."""
    dataset, windows = config.dataset(split), config.windows()
    if split == "test" or (split == "val" and config.data.validation == "every-row"):
        return SessionLoader(dataset, windows, rank=rank, world_size=world_size)
    return WindowLoader(
        dataset,
        windows,
        batch_size=config.data.batch_size,
        training=split == "train",
        seed=config.seed,
        depth=config.data.depth,
        rank=rank,
        world_size=world_size,
    )
