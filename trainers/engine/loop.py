"""The training loop, read from top to bottom."""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from trainers.config import Config
from trainers.data import make_loader
from trainers.engine.evaluation import evaluate, without_ranks
from trainers.engine.optimizers import base_lr, set_lr
from trainers.engine.run import Run
from trainers.engine.schedules import lr_factor
from trainers.method import Method


def train(fabric: Fabric, method: Method, run: Run, validation: Any, module: ModuleType | None = None) -> None:
    """Bring `run` from where it stands to the end of its epochs. `validation` is its loader, or None; `module` is the method's, if it
    evaluates its own way.

    Raises: Stopped after a signal or at the time limit, with a checkpoint saved.
    """
    config = run.config
    accumulate = config.train.accumulate
    planned = config.multigrid.name != "off"
    clips_per_step = config.data.batch_size * accumulate * fabric.world_size
    lrs = {name: base_lr(config.optimizer_of(name), clips_per_step) for name in run.optimizers}
    schedules = {name: config.schedule_of(name) for name in run.optimizers}
    while run.epoch < run.num_epochs:
        set_mode(method, training=True)
        _tell_stage(method, run)
        waited_s = run.loader.wait_s
        steps_per_epoch = -(-len(run.loader) // accumulate)
        batches_left, since_step = run.loader.batches_left, 0
        for batch in run.batches():
            batches_left, since_step = batches_left - 1, since_step + 1
            steps_now = since_step == accumulate or batches_left == 0
            with contextlib.ExitStack() as stack:
                for name in run.optimizers:  # Gradients of ranks meet only where a step follows.
                    stack.enter_context(fabric.no_backward_sync(method.models[name], enabled=not steps_now))  # type: ignore[arg-type]
                with run.speed.measure("forward", len(batch)):
                    losses = method.losses(batch, fabric.device)
                with run.speed.measure("backward", len(batch)):
                    fabric.backward(losses.total / accumulate)
            run.count(batch, losses)
            if not steps_now:
                continue
            since_step = 0
            for name, optimizer in run.optimizers.items():
                factor = lr_factor(schedules[name], run.step, steps_per_epoch, run.num_epochs)
                lr = lrs[name] * (batch.lr_factor if planned else factor)
                if name == next(iter(run.optimizers)):
                    run.lr = lr
                set_lr(optimizer, lr)
                norm = config.optimizer_of(name).clip_norm
                if norm is not None:
                    fabric.clip_gradients(method.models[name], optimizer, max_norm=norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            run.step_done()
        run.epoch_trained(run.loader.wait_s - waited_s)
        due = run.epoch % config.train.validate_every == 0 or run.epoch == run.num_epochs
        figures = None
        if due:
            _settle_batch_norm(fabric, method, config)
            if validation is not None:
                with without_ranks(fabric, method):
                    result = _evaluation(module)(fabric, method, validation, average=config.train.average_views)
                figures = result.figures
                run.validation_done(result)
        run.epoch_done(figures)


def set_mode(method: Method, *, training: bool) -> None:
    """Put all models of a method into training or evaluation mode."""
    for model in method.models.values():
        model.train(training)


def make_fabric(config: Config) -> Fabric:
    """Fabric as the config asks for it, launched. Under torchrun and SLURM it joins the processes there are."""
    train = config.train
    strategy: Any = "auto"
    if train.find_unused_parameters and train.devices * train.nodes > 1:
        strategy = DDPStrategy(find_unused_parameters=True)
    fabric = Fabric(
        accelerator=train.accelerator,
        devices=train.devices,
        num_nodes=train.nodes,
        precision=train.precision,
        strategy=strategy,
    )
    fabric.launch()
    return fabric


def _evaluation(module: ModuleType | None) -> Any:
    return getattr(module, "evaluate", evaluate)


def _tell_stage(method: Method, run: Run) -> None:
    """Where batch norm goes by parts of a batch, it is told how many clips a device now has."""
    told = getattr(method, "stage_changed", None)
    if told is not None:
        plan = getattr(run.loader, "plan", None)
        largest = plan.phase_at(run.epoch).cycle[-1].num_clips if plan is not None else None
        told(largest // run.fabric.world_size if largest is not None else run.config.data.batch_size)


def _settle_batch_norm(fabric: Fabric, method: Method, config: Config) -> None:
    """Statistics of batch norm over clips of the full shape, where the config asks for it."""
    num_batches = config.train.precise_bn_batches
    if not num_batches:
        return
    from trainers.batch_norm import precise_statistics

    # By threads, which are there at once: processes would take a second to start, before every validation.
    data = config.data.model_copy(update={"workers": "threads"})
    flat = config.model_copy(update={"multigrid": type(config.multigrid)(), "data": data})
    with make_loader(flat, "train", rank=fabric.global_rank, world_size=fabric.world_size) as loader:
        for model in method.models.values():
            precise_statistics(model, lambda batch: method.predict(batch, fabric.device), loader, num_batches)
