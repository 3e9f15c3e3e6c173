"""A run: where it stands, what it saves, when it stops. The loop tells it of every batch and every step."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from ingest.errors import ClipmillError
from loaders import ClipBatch
from loaders.speed import SpeedMonitor
from loaders.telemetry import Stage
from trainers.config import Config
from trainers.data import TrainLoader
from trainers.engine import checkpoints
from trainers.engine.evaluation import Evaluation, save_scores
from trainers.engine.journal import Journal
from trainers.method import Losses, Method
from trainers.metrics import Meter, correct_in_top

OUT_OF_TIME = "train.stop_after"
VALIDATION = "validation.npz"
"""Scores of the best validation, for the report."""


class Stopped(Exception):
    """The run was asked to stop (SIGTERM, Ctrl-C, its time limit) and has saved a checkpoint."""

    def __init__(self, reason: str, checkpoint: Path) -> None:
        self.reason, self.checkpoint = reason, checkpoint
        super().__init__(f"{reason}: saved {checkpoint}")


@dataclass
class StepRow:
    """One optimizer step whose figures are still on the device: sums over samples of loss, top 1, top 5, samples, graded."""

    about: dict[str, Any]
    sums: Tensor


@dataclass
class Run:
    """State of a training run. Everything that a resumed run needs is in `state()`."""

    folder: Path
    config: Config
    fabric: Fabric
    method: Method
    optimizers: dict[str, Optimizer]
    loader: TrainLoader
    num_epochs: int = 0
    step: int = 0
    best: tuple[float, float] = (float("-inf"), float("-inf"))
    lr: float = 0.0
    meter: Meter = field(default_factory=Meter)
    _sums: Tensor | None = None
    _waiting: list[StepRow] = field(default_factory=list)
    _last: dict[str, float | None] = field(default_factory=dict)
    _shape: tuple[int, ...] = ()
    _epoch: dict[str, float | None] = field(default_factory=dict)
    _epoch_started_s: float = field(default_factory=time.perf_counter)
    _stages: dict[str, Stage] = field(default_factory=dict)
    _signal: str | None = None

    def __post_init__(self) -> None:
        train = self.config.train
        self.num_epochs = self.num_epochs or train.epochs
        self.checkpoints = checkpoints.CheckpointFolder(self.folder / "checkpoints", train.keep)
        self.speed = SpeedMonitor(self.fabric.device)
        self.journal = Journal(self.folder, self.config, self.fabric.global_rank)
        self._started_s = self._step_ended_s = time.perf_counter()
        self._longest_s = {"step": 0.0, "save": 0.0}

    @property
    def epoch(self) -> int:
        return self.loader.epoch

    # Start and end

    def start(self) -> None:
        """Write the config, open the logs, listen to signals."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._on_signal)
        about = {
            "method": self.config.method,
            "config": self.config.model_dump(mode="json"),
            "dataset": self.loader.dataset.root.name,
            "epochs": self.num_epochs,
            "steps_per_epoch": -(-len(self.loader) // self.config.train.accumulate),
            "ranks": self.fabric.world_size,
        }
        self.journal.start(self.step, self.epoch, about)

    def end(self, state: str) -> None:
        """Close the logs and say how it ended: finished, failed or stopped."""
        self.journal.close(state)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._signal is not None:  # A second Ctrl-C means it.
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name
        print(f"\n{self._signal}: saving a checkpoint after this step.", file=sys.stderr)

    # What the loop tells

    def batches(self) -> Iterator[ClipBatch]:
        """The rest of the current epoch, timed."""
        return self.speed.watch(iter(self.loader))

    def count(self, batch: ClipBatch, losses: Losses) -> None:
        """Note the figures of one batch, without waiting for the device."""
        count = len(batch)
        loss, logits = losses.total.detach(), losses.logits.detach()
        graded = logits.ndim == 2 and batch.labels.ndim == 1
        sums = loss.new_zeros(5, dtype=torch.float64)
        sums[0], sums[3] = loss.double() * count, count
        if graded:
            labels = batch.labels.to(logits.device)
            sums[1], sums[2], sums[4] = correct_in_top(logits, labels, 1), correct_in_top(logits, labels, 5), count
        self._sums = sums if self._sums is None else self._sums + sums
        self._shape = batch.shape

    def step_done(self) -> None:
        """After an optimizer step: report, save and stop when it is time."""
        train = self.config.train
        batch, frames, height, width = self._shape
        about = {
            "step": self.step,
            "epoch": self.epoch,
            "lr": self.lr,
            "batch_size": batch * train.accumulate * self.fabric.world_size,
            "num_frames": frames,
            "height": height,
            "width": width,
        }
        assert self._sums is not None
        self._waiting.append(StepRow(about, self._sums))
        self._sums = None
        self.step += 1
        now = time.perf_counter()
        self._longest_s["step"] = max(self._longest_s["step"], now - self._step_ended_s)
        self._step_ended_s = now
        if self.step % train.log_every == 0:
            self._report()
        if train.save_every_steps and self.step % train.save_every_steps == 0:
            self.save()
        if reason := self._stop_asked():
            path = self.save()
            self.journal.tell(f"stopped by {reason} at step {self.step}")
            raise Stopped(reason, path)

    def validation_done(self, result: Evaluation) -> None:
        """After a validation: its speed and figures, for whoever watches. The epoch's row follows in `epoch_done`."""
        self.journal.report(self.step, self.epoch - 1, "val", result.rates, result.shape, result.figures, {}, None)
        if result.confusion is not None and self.fabric.is_global_zero and self._mark(result.figures) > self.best:
            save_scores(result, self.folder / VALIDATION)
        self.speed.rates()  # The interval of training begins anew.
        self._step_ended_s = time.perf_counter()

    def epoch_trained(self, waited_s: float) -> None:
        """After the last step of an epoch, before its validation: what it took, of which `waited_s` for data."""
        self._read_waiting()
        seconds = time.perf_counter() - self._epoch_started_s
        self._epoch = {
            **self.meter.means(),
            "seconds": seconds,
            "clips_per_s": self.meter.count / seconds,
            "wait_share": min(waited_s / seconds, 1.0),
        }

    def epoch_done(self, validation: Mapping[str, float | None] | None) -> None:
        """After `epoch_trained` and the validation (the loader stands at the next epoch): log, save, note the best."""
        splits: dict[str, Mapping[str, Any]] = {"train": self._epoch}
        best = False
        if validation is not None:
            splits["val"] = validation
            mark = self._mark(validation)
            best = mark > self.best
            if best:
                self.best = mark
                name = self.config.train.best
                self.journal.tell(
                    f"best so far: validation {name} {validation[name]:.4f}, after epoch {self.epoch - 1}"
                )
        self.journal.epoch(self.step, self.epoch - 1, splits)
        self.meter = Meter()
        self._epoch_started_s = time.perf_counter()
        if best or self.epoch % self.config.train.save_every == 0 or self.epoch == self.num_epochs:
            self.save(best=best)

    def _mark(self, figures: Mapping[str, float | None]) -> tuple[float, float]:
        """What is to grow: the figure that decides, then the loss (small validation sets tie often)."""
        name = self.config.train.best
        value, loss = figures.get(name), figures["loss"]
        if value is None or loss is None:
            raise ClipmillError(
                f"train.best is {name}, and the validation has no such figure (it has {', '.join(figures)}).",
                "The run stops here; its checkpoints stay.",
                "Choose one of these and resume.",
            )
        return (-value if name == "loss" else value, -loss)

    # Saving and loading

    def state(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "class_names": self.loader.dataset.class_names,
            "models": {name: model.state_dict() for name, model in self.method.models.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "loader": self.loader.state_dict(),
            "step": self.step,
            "best": list(self.best),
            "meter": asdict(self.meter),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.fabric.device.type == "cuda" else None,
            "torch_version": str(torch.__version__),
        }

    def save(self, *, best: bool = False) -> Path:
        """Write a checkpoint (rank 0). Logs are flushed first, so that they are never behind it."""
        started = time.perf_counter()
        self._read_waiting()
        path = self.checkpoints.folder / f"step_{self.step:08d}.pt"
        self.journal.flush()
        if self.fabric.is_global_zero:
            path = self.checkpoints.save(self.state(), self.step, best=best)
        self.fabric.barrier()
        self._longest_s["save"] = max(self._longest_s["save"], time.perf_counter() - started)
        self._step_ended_s = time.perf_counter()
        return path

    def resume(self, path: Path) -> None:
        """Stand where the run stood that wrote `path`.

        Raises: ClipmillError, with the differences, when its config is another one in what decides the result.
        """
        state = checkpoints.read(path)
        old, new = state["config"], self.config.model_dump(mode="json")
        difference = checkpoints.config_difference(_decisive(old), _decisive(new))
        if difference:
            raise ClipmillError(
                f"{path} belongs to another config:\n    " + "\n    ".join(difference),
                "It cannot be resumed as if it were this one.",
                "Resume with the old values, or take only its weights into a new run with --init.",
            )
        for name, model in self.method.models.items():
            model.load_state_dict(state["models"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.loader.load_state_dict(state["loader"])
        self.step, self.meter = state["step"], Meter(**state["meter"])
        self.best = (state["best"][0], state["best"][1])
        torch.set_rng_state(state["rng"])
        if state.get("cuda_rng") is not None and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"])

    # Figures

    def _read_waiting(self) -> None:
        """Write the steps that wait: one wait for the device, and one sum over the ranks, for all of them."""
        if not self._waiting:
            return
        sums = torch.stack([row.sums for row in self._waiting])
        if self.fabric.world_size > 1:
            sums = torch.as_tensor(self.fabric.all_reduce(sums, reduce_op="sum"))
        for row, (loss, top1, top5, count, graded) in zip(self._waiting, sums.tolist(), strict=True):
            now = Meter()
            for meter in (now, self.meter):
                meter.add(loss / count, int(top1), int(top5), int(count), int(graded))
            means = now.means()
            self._last = {"loss": means["loss"], "top1": means["top1"], "lr": row.about["lr"]}
            self.journal.step({**row.about, **means})
        self._waiting.clear()

    def _report(self) -> None:
        """One line on the console, one row of telemetry."""
        self._read_waiting()
        rates = self.speed.rates()
        if rates.clips_per_s is None:
            return
        now = self.loader.stages()
        stages = {name: stage.since(self._stages.get(name)) for name, stage in now.items()}
        self._stages = now
        occupancy = self.loader.statistics.take_occupancy()
        self.journal.report(self.step, self.epoch, "train", rates, self._shape, self._last, stages, occupancy)

    def _stop_asked(self) -> str | None:
        """Why to stop now, if so, on every rank as soon as one of them has a reason.

        With several ranks it is asked where a report is due: asking makes each wait for all.
        """
        limit = self.config.train.stop_after
        reason = self._signal
        spent = time.perf_counter() - self._started_s
        left_needed = 2 * self._longest_s["step"] * (1 if self.fabric.world_size == 1 else self.config.train.log_every)
        if reason is None and limit is not None and spent + left_needed + 2 * self._longest_s["save"] >= limit:
            reason = OUT_OF_TIME
        if self.fabric.world_size == 1:
            return reason
        if self.step % self.config.train.log_every:
            return None
        mine = torch.tensor(float(reason is not None), device=self.fabric.device)
        anyone = torch.as_tensor(self.fabric.all_reduce(mine, reduce_op="sum")).item()
        return (reason or "another rank") if anyone else None


_HARMLESS = {
    "data": {"root", "workers", "num_workers", "depth", "max_bad", "val_views", "test_views", "test_split"},
    "train": {
        "log_every", "save_every", "save_every_steps", "keep", "devices", "nodes", "accelerator", "epochs", "tensorboard",
        "report", "stop_after", "average_views", "validate_every", "find_unused_parameters",
    },
}  # fmt: skip


def _decisive(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that decides the numbers of a run that goes on."""
    return {
        group: {k: v for k, v in values.items() if k not in _HARMLESS.get(group, ())}
        if isinstance(values, dict)
        else values
        for group, values in config.items()
    }
