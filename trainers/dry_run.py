"""What a training would be, without training: data found, networks, work and memory per clip, shapes, steps, rates."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trainers.config import Config
from trainers.engine.loop import make_fabric, set_mode
from trainers.engine.optimizers import base_lr
from trainers.engine.schedules import lr_factor
from trainers.method import Method, find_method
from trainers.session import loader_of


def plan_run(config: Config) -> dict[str, Any]:
    """The plan as plain values. The first clips are read and go through the networks once, forward and backward.

    Raises: ClipmillError as the training would, for data and settings that do not fit.
    """
    fabric, module = make_fabric(config), find_method(config.method)
    torch.manual_seed(config.seed)
    with (
        loader_of(module, config, "train", fabric) as loader,
        loader_of(module, config, "val", fabric) as validation,
    ):
        plan = loader.plan
        num_epochs = plan.num_epochs if plan is not None else config.train.epochs
        per_epoch = (
            [-(-loader.batches.count(e) // config.train.accumulate) for e in range(num_epochs)] if plan else None
        )
        steps_per_epoch = -(-len(loader) // config.train.accumulate)
        num_steps = sum(per_epoch) if per_epoch else steps_per_epoch * num_epochs
        method: Method = module.create(config, len(loader.dataset.class_names))
        batch = next(iter(loader))
        return {
            "method": config.method,
            "data": {
                "root": str(config.data.root),
                "classes": len(loader.dataset.class_names),
                "training": len(loader.dataset),
                "validation": len(validation.dataset),
            },
            "models": {name: _parameters(model) for name, model in method.models.items()},
            "first_batch": list(batch.shape),
            **_work(method, batch, fabric.device),
            "shapes": _shapes(loader, config, batch.shape),
            "epochs": num_epochs,
            "steps": num_steps,
            "steps_per_epoch": sorted(set(per_epoch)) if per_epoch else [steps_per_epoch],
            "clips_per_step": config.data.batch_size * config.train.accumulate * fabric.world_size,
            "rates": _rates(config, method, plan, steps_per_epoch, num_epochs, fabric.world_size),
        }


def _parameters(model: nn.Module) -> dict[str, int]:
    every = list(model.parameters())
    return {
        "parameters": sum(p.numel() for p in every),
        "trained": sum(p.numel() for p in every if p.requires_grad),
        "tensors": len(every),
    }


def _work(method: Method, batch: Any, device: torch.device) -> dict[str, Any]:
    """FLOPs and bytes kept for the backward pass of one training step, per clip. What a recurrent layer does is not counted."""
    for name in method.models:
        method.models[name] = method.models[name].to(device)
    set_mode(method, training=True)
    kept: dict[int, int] = {}
    weights = {p.data_ptr() for model in method.models.values() for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        losses = method.losses(batch, device)
    with FlopCounterMode(display=False) as backward:
        losses.total.backward()
    clips = len(batch)
    return {
        "forward_flops_per_clip": forward.get_total_flops() // clips,
        "backward_flops_per_clip": backward.get_total_flops() // clips,
        "activation_bytes_per_clip": sum(kept.values()) // clips,
        "first_loss": float(losses.total.detach()),
    }


def _shapes(loader: Any, config: Config, shape: tuple[int, ...]) -> list[str]:
    """The batch shapes over the run, one line per stretch of epochs."""
    if loader.plan is None:
        return [f"epochs 0 to {config.train.epochs - 1}: {_size(shape)}"]
    lines = []
    for phase in loader.plan.phases:
        cycle = " -> ".join(_size((s.num_clips, s.num_frames, s.height, s.width)) for s in _runs(phase.cycle))
        rates = sorted(set(phase.rates), reverse=True)
        lines.append(
            f"epochs {phase.first} to {phase.end - 1}: {cycle}; {phase.num_batches} batches, rate x"
            f" {', '.join(f'{rate:g}' for rate in rates)}"
        )
    return lines


def _runs(cycle: Iterable[Any], most: int = 12) -> list[Any]:
    """The shapes in order, each once."""
    return list(itertools.islice(dict.fromkeys(cycle), most))


def _size(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _rates(
    config: Config, method: Method, plan: Any, steps_per_epoch: int, num_epochs: int, world_size: int
) -> dict[str, dict[str, float]]:
    """Per trained model the learning rate at the first step, the highest, and the last."""
    found = {}
    clips_per_step = config.data.batch_size * config.train.accumulate * world_size
    for name in method.param_groups():
        lr = base_lr(config.optimizer_of(name), clips_per_step)
        if plan is not None:
            factors = [plan.lr_factor_at(e, b) for e in range(num_epochs) for b in range(plan.num_batches(e))]
        else:
            schedule, num_steps = config.schedule_of(name), steps_per_epoch * num_epochs
            places = range(0, num_steps, max(1, num_steps // 10_000))
            factors = [lr_factor(schedule, step, steps_per_epoch, num_epochs) for step in (*places, num_steps - 1)]
        found[name] = {"first": lr * factors[0], "highest": lr * max(factors), "last": lr * factors[-1]}
    return found


def describe(plan: dict[str, Any]) -> str:
    """The plan for a person."""
    data = plan["data"]
    lines = [
        f"{data['root']}: {data['training']:,} videos to train on, {data['validation']:,} to validate on,"
        f" {data['classes']} classes",
    ]
    for name, model in plan["models"].items():
        trained = "" if model["trained"] == model["parameters"] else f", {model['trained']:,} of them trained"
        lines.append(f"{name}: {model['parameters']:,} parameters{trained}")
    total = plan["forward_flops_per_clip"] + plan["backward_flops_per_clip"]
    lines += [
        f"per clip of {_size(plan['first_batch'][1:])}: {plan['forward_flops_per_clip'] / 1e9:.2f} GFLOPs forward,"
        f" {total / 1e9:.2f} with backward, {plan['activation_bytes_per_clip'] / 1e6:.1f} MB kept for backward",
        *plan["shapes"],
        f"{plan['epochs']} epochs, {plan['steps']:,} steps of {plan['clips_per_step']} clips"
        f" ({', '.join(map(str, plan['steps_per_epoch']))} steps per epoch)",
    ]
    for name, rate in plan["rates"].items():
        lines.append(
            f"learning rate of {name}: {rate['first']:.3g} at first, {rate['highest']:.3g} at most, {rate['last']:.3g} at last"
        )
    lines.append(f"loss of the first batch: {plan['first_loss']:.4f}")
    return "\n".join(lines)
