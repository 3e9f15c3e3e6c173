"""Partial feedback: features of every frame, gradients through some. SBP for a detector that is trained from frames on.

The temporal model sees the features of all frames; the backbone learns from the kept ones, and holds activations for these
alone. Equal to detaching the features of all other frames. Source: SBP (CVPR 2022), its online action detection.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loaders.sampling import Rng, kept_frames


def partial_features(
    model: nn.Module,
    frames: Tensor,
    keep_ratio: float,
    *,
    jitter: Rng | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Features (B, T, F) of frames (B, T, C, H, W), with gradients at the frames that `kept_frames` names.

    `model` takes (B, T', C, H, W) frame by frame; its batch norms must use fixed statistics. The other frames go through it
    `chunk` at a time and sample by sample, without a graph.
    """
    kept = torch.from_numpy(kept_frames(frames.shape[1], keep_ratio, jitter))
    return features_of(model, frames, kept, chunk=chunk)


def features_of(model: nn.Module, frames: Tensor, kept: Tensor, *, chunk: int | None = None) -> Tensor:
    """The same with the kept frames given, int64 (K,), rising and unique."""
    total = frames.shape[1]
    if len(kept) == total:
        return model(frames)
    drops = torch.ones(total, dtype=torch.bool)
    drops[kept] = False
    others = drops.nonzero().flatten()
    with torch.no_grad():
        rest = frozen_features(model, frames[:, others.to(frames.device)], chunk=chunk)
    found = model(frames[:, kept.to(frames.device)])
    order = torch.cat([kept, others]).argsort().to(frames.device)
    return torch.cat([found, rest.to(found.dtype)], 1).index_select(1, order)


@torch.no_grad()
def frozen_features(model: nn.Module, frames: Tensor, *, chunk: int | None = None) -> Tensor:
    """Features (B, T, F) of frames (B, T, C, H, W) without a graph, `chunk` frames of one sample at a time (default: all of one)."""
    size = chunk or max(frames.shape[1], 1)
    return torch.stack([torch.cat([model(part[None])[0] for part in sample.split(size)]) for sample in frames])
