"""Multigrid training: batches whose shape changes while the work per batch stays the same (arXiv 1912.00998)."""

from loaders.multigrid.batch_norm import BatchNormSplit, batch_norm_split
from loaders.multigrid.plan import BatchShape, Phase, PlannedBatch, ShapePlan, constant_plan
from loaders.multigrid.srtg import srtg_batches_per_epoch, srtg_plan
from loaders.multigrid.wu import LongStage, evaluation_epochs, wu_plan, wu_stages

__all__ = [
    "BatchNormSplit",
    "BatchShape",
    "LongStage",
    "Phase",
    "PlannedBatch",
    "ShapePlan",
    "batch_norm_split",
    "constant_plan",
    "evaluation_epochs",
    "srtg_batches_per_epoch",
    "srtg_plan",
    "wu_plan",
    "wu_stages",
]
