"""LSTR from frames as the loop sees it: a spatial and a temporal model, each with its optimizer, trained together.

Source: Cheng et al., Stochastic Backpropagation, CVPR 2022, arXiv 2203.16755; recipe of its THUMOS experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ingest.errors import ClipmillError
from loaders.order import sample_rng
from loaders.sampling import Rng
from trainers.backbones.resnet import load_resnet
from trainers.data import Split
from trainers.engine.weights import LoadReport, load_matching, without_prefix
from trainers.lstr.evaluation import OnlineEvaluation, save_results
from trainers.lstr.evaluation import evaluate as evaluate_features
from trainers.lstr.loader import SessionLoader
from trainers.lstr.losses import mce
from trainers.lstr.network import LSTR
from trainers.method import Losses, blaming
from trainers.sbp.feedback import frozen_features, partial_features
from trainers.sbp.spatial import SpatialModel, build_spatial
from trainers.sbp.transforms import normalised, test_view, training_view
from trainers.sbp_e2e.config import FrameData, MethodConfig
from trainers.sbp_e2e.features import FeatureView
from trainers.sbp_e2e.frames import FrameBatch, FrameWindowLoader
from trainers.sbp_e2e.temporal import our_names

__all__ = ["EndToEnd", "MethodConfig", "create", "evaluate", "load_published", "make_loader", "save_results"]

_JITTER_DRAWS = 1 << 33
"""Where the random numbers of the kept frames begin, far from those of windows."""


class EndToEnd:
    """The method: see `trainers.method.Method`. `spatial` and `network` are its models without what devices put around them.

    Weights of the backbone are loaded where training begins, in `param_groups`, unless --init came before.
    """

    def __init__(self, config: MethodConfig, num_classes: int) -> None:
        spatial = config.model.spatial
        self.config = config
        self._needs_weights = spatial.pretrained is not None
        backbone = build_spatial(spatial.backbone, frozen_bn=spatial.frozen_bn, checkpointing=spatial.checkpointing)
        if spatial.freeze:
            backbone.requires_grad_(False)
        self.spatial = backbone
        self.network = LSTR(config.spec(num_classes, backbone.num_features))
        self.models: dict[str, nn.Module] = {"spatial": backbone, "temporal": self.network}
        self.ignore_index = config.data.entry().ignore_index

    def initialised(self, model: str, _report: LoadReport) -> None:
        """--init gave the backbone its weights: its own file is not asked for."""
        if model == "spatial":
            self._needs_weights = False

    def param_groups(self) -> Mapping[str, list[dict[str, Any]]]:
        """One optimizer per model; none for a frozen backbone, and no scale of a frozen batch norm in any."""
        if self._needs_weights:
            self._needs_weights = False
            load_backbone(self.models["spatial"], self.config.model.spatial.pretrained)  # type: ignore[arg-type]
        groups = {
            name: [each for each in model.parameters() if each.requires_grad] for name, model in self.models.items()
        }
        return {name: [{"name": "all", "params": params}] for name, params in groups.items() if params}

    def losses(self, batch: FrameBatch, device: torch.device) -> Losses:
        """Features of all frames, gradients through the kept ones; the loss per row of the work memory."""
        frames, _, mask = batch.inputs(device)
        assert frames is not None
        feedback = self.config.feedback
        if self.config.model.spatial.freeze:
            features = frozen_features(self.models["spatial"], frames, chunk=feedback.chunk)
        elif feedback.keep_ratio is None:
            features = self.models["spatial"](frames)
        else:
            features = partial_features(
                self.models["spatial"], frames, feedback.keep_ratio, jitter=self._jitter(batch), chunk=feedback.chunk
            )
        logits = self.models["temporal"](features, None, mask).flatten(0, 1)
        return Losses({"mce": self.loss(logits, batch.labels.to(device))}, logits)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of rows (R, C)."""
        return mce(logits.float(), targets, ignore_index=self.ignore_index)

    @torch.no_grad()
    def predict(self, batch: FrameBatch, device: torch.device) -> Tensor:
        """Logits (B, W, C) of windows, each with all its frames: the slow way. `evaluate` computes every frame once."""
        frames, _, mask = batch.inputs(device)
        assert frames is not None
        features = frozen_features(self.models["spatial"], frames, chunk=self.config.inference.chunk)
        return self.models["temporal"](features, None, mask)

    def _jitter(self, batch: FrameBatch) -> Rng | None:
        """As published, one choice of frames for the batch."""
        if not self.config.feedback.jitter:
            return None
        return sample_rng(self.config.seed, batch.epoch, _JITTER_DRAWS + batch.position)


def create(config: MethodConfig, num_classes: int) -> EndToEnd:
    """The method with fresh weights. Raises: ClipmillError for networks that cannot be."""
    with blaming("model"):
        return EndToEnd(config, num_classes)


def make_loader(
    config: MethodConfig, split: Split, *, rank: int = 0, world_size: int = 1
) -> FrameWindowLoader | SessionLoader:
    """Windows of frames for training, whole sessions otherwise. Raises: ClipmillError when there are none."""
    dataset, windows, data = config.dataset(split), config.windows(), config.data
    if split != "train":
        return SessionLoader(dataset, windows, rank=rank, world_size=world_size)
    return FrameWindowLoader(
        dataset,
        windows,
        lambda frames, rng: transformed(frames, data, rng),
        stride=data.stride,
        batch_size=data.batch_size,
        seed=config.seed,
        depth=data.depth,
        rank=rank,
        world_size=world_size,
    )


def transformed(frames: np.ndarray, data: FrameData, rng: Rng | None) -> Tensor:
    """Frames uint8 THWC as the backbone sees them, (T, C, size, size): at random with an `rng`, as in the test without."""
    if not data.resize_crop:
        return normalised(frames)
    if rng is None:
        return test_view(frames, data.size, data.eval_short_side)
    return training_view(frames, data.size, data.short_side, data.flip, rng)


@torch.no_grad()
def evaluate(fabric: Fabric, method: EndToEnd, loader: SessionLoader, *, average: str = "prob") -> OnlineEvaluation:
    """Mean AP over all rows of all sessions: every frame goes through the backbone once, then every window over the features.

    The published test computes 160 frames anew for every row, for the same scores.
    """
    for model in method.models.values():
        model.eval()
    data, chunk = method.config.data, method.config.inference.chunk

    def features(frames: np.ndarray) -> Tensor:
        # Ranks have sessions of different lengths: around the model they would wait for each other in every forward.
        with fabric.autocast():
            return method.spatial(transformed(frames, data, None)[None].to(fabric.device))[0]

    dataset = FeatureView(loader.dataset, features, method.spatial.num_features, chunk)  # type: ignore[arg-type]
    view = SessionLoader(dataset, loader.windows, rank=loader.rank, world_size=loader.world_size)
    return evaluate_features(fabric, method, view, average=average)  # type: ignore[arg-type]


def load_published(model: nn.Module, checkpoint: Mapping[str, Any]) -> LoadReport:
    """A checkpoint of the authors' end-to-end training into one of the two models, or a bare state dict of it.

    Raises: TypeError if it is none, ValueError if nothing fits.
    """
    part = "spatial" if isinstance(model, SpatialModel) else "temporal"
    state = checkpoint.get(f"model_{part}_model_state_dict", checkpoint.get("model_state_dict", checkpoint))
    state = our_names(without_prefix(state, "module."))
    own = model.state_dict()
    positions = "pos_encoding.pe"
    if positions in own and (positions not in state or state[positions].shape != own[positions].shape):
        state[positions] = own[positions]
    return load_matching(model, state)


def load_backbone(model: nn.Module, path: Path) -> LoadReport:
    """Weights of a file into the backbone of the spatial model.

    Raises: ClipmillError when the file cannot be read or does not hold every parameter: nothing starts from scratch by mistake.
    """
    try:
        report = load_resnet(model.backbone, path)  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ClipmillError(
            f"the backbone's weights {path}: {error}.",
            "Nothing was trained: it would have started from scratch.",
            "Give a file of the same backbone, or leave model.spatial.pretrained out.",
        ) from None
    lost = [name for name in report.missing if not name.endswith("num_batches_tracked")] + [
        *map(str, report.mismatched)
    ]
    if lost:
        raise ClipmillError(
            f"the backbone's weights {path} do not fit: {len(lost)} tensors are missing or of another shape, first {lost[0]}.",
            "Nothing was trained: it would have started half from scratch.",
            "Give a file of the same backbone, or leave model.spatial.pretrained out.",
        )
    print(f"{path.name}: {report}")
    return report
