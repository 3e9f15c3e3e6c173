"""Optimizers from the config: one per trained model of a method."""

from __future__ import annotations

from typing import Any

from torch.optim import SGD, Adam, AdamW, Optimizer

from trainers.config import OptimizerConfig


def base_lr(config: OptimizerConfig, clips_per_step: int) -> float:
    """The rate of the config, scaled linearly to this run's clips per step if a reference is given.

    Source: Goyal et al., Accurate, Large Minibatch SGD, arXiv 1706.02677, section 2.1.
    """
    return config.lr * (clips_per_step / config.reference_batch_size if config.reference_batch_size else 1.0)


def build_optimizer(config: OptimizerConfig, groups: list[dict[str, Any]], lr: float) -> Optimizer:
    """An optimizer over `groups`: a group's rate is `lr` times its `lr_mult`; a `weight_decay` of its own is kept."""
    groups = [
        {"lr_mult": 1.0, **group, "lr": lr * group.get("lr_mult", 1.0)} for group in groups if len(group["params"])
    ]
    match config.name:
        case "sgd":
            return SGD(
                groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov, weight_decay=config.weight_decay
            )
        case "adam":
            return Adam(groups, lr=lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay)
    return AdamW(groups, lr=lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Give every group `lr` times its `lr_mult`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_mult"]
