"""The training loop and the evaluation: one function each, read from top to bottom."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.functional import cross_entropy

from loaders import ClipLoader
from trainers.config import Config
from trainers.engine.optimizers import base_lr, set_lr
from trainers.engine.run import Run
from trainers.engine.schedules import lr_factor
from trainers.method import Method
from trainers.metrics import Meter, confusion_matrix, correct_in_top


def train(fabric: Fabric, method: Method, run: Run, validation: ClipLoader | None) -> None:
    """Bring `run` from where it stands to the end of its config's epochs.

    Raises: Stopped after a signal, with a checkpoint saved.
    """
    config = run.config
    accumulate = config.train.accumulate
    lr = base_lr(config.optimizer, config.data.batch_size * accumulate * fabric.world_size)
    while run.epoch < config.train.epochs:
        set_mode(method, training=True)
        micro_left = len(run.loader) - run.loader.state_dict()["position"] // (
            run.loader.batch_size * run.loader.world_size
        )
        for batch in run.batches():
            micro_left -= 1
            run.lr = lr * lr_factor(config.schedule, run.step, run.steps_per_epoch, config.train.epochs)
            steps_now = (run.micro_step + 1) % accumulate == 0 or micro_left == 0
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
            for name, optimizer in run.optimizers.items():
                set_lr(optimizer, run.lr)
                if config.optimizer.clip_norm is not None:
                    fabric.clip_gradients(method.models[name], optimizer, max_norm=config.optimizer.clip_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            run.micro_step = 0
            run.step_done()
        due = run.epoch % config.train.validate_every == 0 or run.epoch == config.train.epochs
        run.epoch_done(evaluate(fabric, method, validation).meter if validation is not None and due else None)


@dataclass
class Evaluation:
    """Figures of an evaluation. `probabilities` (videos, classes), the mean over a video's views; `labels` (videos,)."""

    meter: Meter
    probabilities: Tensor
    labels: Tensor
    confusion: Tensor
    num_clips: int


@torch.no_grad()
def evaluate(fabric: Fabric, method: Method, loader: ClipLoader) -> Evaluation:
    """Every view of every video once; probabilities are averaged over views, then scored per video.

    The loss is the mean over clips; top-1 and top-5 count videos.
    """
    set_mode(method, training=False)
    device = fabric.device
    num_videos, num_classes = len(loader.dataset), len(loader.dataset.class_names)
    sums = torch.zeros(num_videos, num_classes, device=device)
    loss = torch.zeros((), device=device)
    num_clips = 0
    loader.load_state_dict(loader.state_dict() | {"position": 0})
    for batch in loader:
        logits = method.predict(batch, device).float()
        sums.index_add_(0, batch.videos.to(device), logits.softmax(1))
        loss += cross_entropy(logits, batch.labels.to(device), reduction="sum")
        num_clips += len(batch)
    if fabric.world_size > 1:
        sums, loss = (fabric.all_reduce(value, reduce_op="sum") for value in (sums, loss))  # type: ignore[assignment]
    probabilities = (sums / loader.spec.num_views).cpu()
    labels = torch.from_numpy(loader.dataset.labels)
    total_clips = num_videos * loader.spec.num_views
    meter = Meter(
        float(loss) / total_clips * num_videos,
        int(correct_in_top(probabilities, labels, 1)),
        int(correct_in_top(probabilities, labels, 5)),
        num_videos,
    )
    confusion = confusion_matrix(probabilities.argmax(1), labels, num_classes)
    return Evaluation(meter, probabilities, labels, confusion, num_clips)


def set_mode(method: Method, *, training: bool) -> None:
    """Put all models of a method into training or evaluation mode."""
    for model in method.models.values():
        model.train(training)


def make_fabric(config: Config) -> Fabric:
    """Fabric as the config asks for it, launched."""
    train = config.train
    fabric = Fabric(
        accelerator=train.accelerator, devices=train.devices, num_nodes=train.nodes, precision=train.precision
    )
    fabric.launch()
    return fabric
