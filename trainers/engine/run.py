"""A run: where it stands, what it logs, what it saves. The loop tells it of every batch and every step."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from ingest.atomic import write_text
from ingest.errors import ClipmillError
from loaders import ClipBatch, ClipLoader
from loaders.speed import SpeedMonitor
from loaders.telemetry import SpeedSample, Stage, TelemetryWriter
from trainers.config import Config, dump
from trainers.engine import checkpoints
from trainers.engine.logs import CsvLog
from trainers.method import Losses, Method
from trainers.metrics import Meter, correct_in_top

STEP_COLUMNS = ("step", "epoch", "loss", "top1", "lr", "batch_size", "num_frames", "height", "width")
EPOCH_COLUMNS = ("step", "epoch", "split", "loss", "top1", "top5", "seconds", "clips_per_s", "wait_share")


class Stopped(Exception):
    """The run was asked to stop (SIGTERM, Ctrl-C) and has saved a checkpoint."""

    def __init__(self, signal_name: str, checkpoint: Path) -> None:
        self.signal_name, self.checkpoint = signal_name, checkpoint
        super().__init__(f"{signal_name}: saved {checkpoint}")


@dataclass
class Pending:
    """Figures of micro-batches that are still on the device: reading them waits for it, so it is done now and then."""

    loss: Tensor
    top1: Tensor
    top5: Tensor
    count: int


@dataclass
class Run:
    """State of a training run. Everything that a resumed run needs is in `state()`."""

    folder: Path
    config: Config
    fabric: Fabric
    method: Method
    optimizers: dict[str, Optimizer]
    loader: ClipLoader
    step: int = 0
    micro_step: int = 0
    best_top1: float = -1.0
    best_loss: float = float("inf")
    lr: float = 0.0
    meter: Meter = field(default_factory=Meter)
    _pending: list[Pending] = field(default_factory=list)
    _shape: tuple[int, ...] = ()
    _epoch_started_s: float = field(default_factory=time.perf_counter)
    _stages: dict[str, Stage] = field(default_factory=dict)
    _signal: str | None = None

    def __post_init__(self) -> None:
        train = self.config.train
        self.checkpoints = checkpoints.CheckpointFolder(self.folder / "checkpoints", train.keep)
        self.speed = SpeedMonitor(self.fabric.device)
        self.steps_log = CsvLog(self.folder / "steps.csv", STEP_COLUMNS)
        self.epochs_log = CsvLog(self.folder / "epochs.csv", EPOCH_COLUMNS)
        self.steps_per_epoch = -(-len(self.loader) // train.accumulate)
        self.telemetry: TelemetryWriter | None = None

    @property
    def epoch(self) -> int:
        return self.loader.epoch

    # Start and end

    def start(self) -> None:
        """Write the config, open logs and telemetry, listen to signals. Rank 0 writes; the others only listen."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._on_signal)
        if not self.fabric.is_global_zero:
            return
        write_text(self.folder / "config.yaml", dump(self.config))
        self.steps_log.start(before_step=self.step)
        self.epochs_log.start(before_step=self.step + 1)
        self.telemetry = TelemetryWriter(
            self.folder,
            {
                "method": self.config.method,
                "config": self.config.model_dump(mode="json"),
                "dataset": self.loader.dataset.root.name,
                "epochs": self.config.train.epochs,
                "steps_per_epoch": self.steps_per_epoch,
                "ranks": self.fabric.world_size,
            },
        )
        self._tell(f"{'resumed' if self.step else 'started'} at epoch {self.epoch}, step {self.step}")

    def end(self, state: str) -> None:
        """Flush the logs and say how it ended: finished, failed or stopped."""
        if self.fabric.is_global_zero:
            self.steps_log.flush()
        if self.telemetry is not None:
            self.telemetry.close(state)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._signal is not None:  # A second Ctrl-C means it.
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name
        print(f"\n{self._signal}: saving a checkpoint after this step.", file=sys.stderr)

    # What the loop tells

    def count(self, batch: ClipBatch, losses: Losses) -> None:
        """Note the figures of one batch, without waiting for the device."""
        logits, labels = losses.logits.detach(), batch.labels.to(losses.logits.device)
        self._pending.append(
            Pending(
                losses.total.detach(), correct_in_top(logits, labels, 1), correct_in_top(logits, labels, 5), len(batch)
            )
        )
        self._shape = tuple(batch.frames.shape)
        self.micro_step += 1

    def batches(self) -> Iterator[ClipBatch]:
        """The rest of the current epoch, timed."""
        return self.speed.watch(iter(self.loader))

    def step_done(self) -> None:
        """After an optimizer step: report, save and stop when it is time."""
        self._log_step()
        self.step += 1
        train = self.config.train
        if self.step % train.log_every == 0:
            self._report()
        if train.save_every_steps and self.step % train.save_every_steps == 0:
            self.save()
        if self._stop_asked():
            path = self.save()
            self._tell(f"stopped by {self._signal or 'another rank'} at step {self.step}")
            raise Stopped(self._signal or "another rank", path)

    def epoch_done(self, validation: Meter | None) -> None:
        """After the last step of an epoch (the loader stands at the next one): log, save, note the best."""
        self._report()
        seconds = time.perf_counter() - self._epoch_started_s
        rows = [("train", self.meter)] + ([("val", validation)] if validation else [])
        for split, meter in rows:
            row = {"step": self.step, "epoch": self.epoch - 1, "split": split, **meter.means()}
            if split == "train":
                row |= {"seconds": seconds, "clips_per_s": meter.count * self.fabric.world_size / seconds}
            self.epochs_log.add(row)
        best = False
        if validation is not None:  # Small validation sets tie often: then the lower loss decides.
            top1, loss = validation.means()["top1"], validation.means()["loss"]
            best = (top1, -loss) > (self.best_top1, -self.best_loss)
            if best:
                self.best_top1, self.best_loss = top1, loss
                self._tell(f"best so far: validation top-1 {top1:.3f}, loss {loss:.3f}, after epoch {self.epoch - 1}")
        if self.fabric.is_global_zero:
            self.epochs_log.flush()
            shown = "   ".join(
                f"{split}: loss {m.means()['loss']:.4f} top-1 {m.means()['top1']:.3f}" for split, m in rows
            )
            print(f"Epoch [{self.epoch - 1}]   {shown}   {seconds:.1f} s", flush=True)
        self.meter = Meter()
        self._epoch_started_s = time.perf_counter()
        train = self.config.train
        if best or self.epoch % train.save_every == 0 or self.epoch == train.epochs:
            self.save(best=best)

    # Saving and loading

    def state(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "class_names": self.loader.dataset.class_names,
            "models": {name: model.state_dict() for name, model in self.method.models.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "loader": self.loader.state_dict(),
            "step": self.step,
            "best": [self.best_top1, self.best_loss],
            "meter": asdict(self.meter),
            "rng": torch.get_rng_state(),
            "torch_version": str(torch.__version__),
        }

    def save(self, *, best: bool = False) -> Path:
        """Write a checkpoint (rank 0). Logs are flushed first, so that they are never behind it."""
        self._read_pending()
        path = self.checkpoints.folder / f"step_{self.step:08d}.pt"
        if self.fabric.is_global_zero:
            self.steps_log.flush()
            path = self.checkpoints.save(self.state(), self.step, best=best)
        self.fabric.barrier()
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
        self.best_top1, self.best_loss = state["best"]
        torch.set_rng_state(state["rng"])

    def _tell(self, message: str) -> None:
        """A line for whoever watches the run."""
        if self.telemetry is not None:
            self.telemetry.event("info", message)

    # Figures

    def _read_pending(self) -> tuple[float, float, int]:
        """Add what is pending to the epoch's meter. Returns its mean loss, its share right, its clips."""
        now = Meter()
        for p in self._pending:
            now.add(float(p.loss), int(p.top1), int(p.top5), p.count)
            self.meter.add(float(p.loss), int(p.top1), int(p.top5), p.count)
        self._pending.clear()
        return now.means()["loss"], now.means()["top1"], now.count

    def _log_step(self) -> None:
        # On the CPU nothing waits; on a GPU this is one wait per step, after the step was queued.
        loss, top1, _ = self._read_pending()
        _, frames, height, width, _ = self._shape
        self._last = (loss, top1)
        batch_size = self._shape[0] * self.config.train.accumulate * self.fabric.world_size
        values = (self.step, self.epoch, loss, top1, self.lr, batch_size, frames, height, width)
        self.steps_log.add(dict(zip(STEP_COLUMNS, values, strict=True)))

    def _report(self) -> None:
        """One line on the console, one row of telemetry."""
        rates = self.speed.rates()
        if rates.clips_per_s is None or not self.fabric.is_global_zero:
            return
        self.steps_log.flush()
        loss, top1 = self._last
        batch, frames, height, width, _ = self._shape
        print(
            f"Epoch [{self.epoch}]   Step [{self.step}]   {rates.line(colour=sys.stdout.isatty())}"
            f"loss = {loss:.5f}, top1 = {top1:.3f}, batch = {batch}x{frames}x{height}x{width}, lr = {self.lr:.2e}",
            flush=True,
        )
        if self.telemetry is None:
            return
        now = self.loader.stages()
        stages = {name: stage.since(self._stages.get(name)) for name, stage in now.items()}
        self._stages = now
        self.telemetry.report(
            SpeedSample(
                step=self.step,
                epoch=self.epoch,
                phase="train",
                batch_size=batch,
                num_frames=frames,
                height_px=height,
                width_px=width,
                read=rates.read,
                forward=rates.forward,
                backward=rates.backward,
                clips_per_s=rates.clips_per_s,
                wait_share=rates.wait_share,
                learning_rate=self.lr,
                loss=loss,
                top1=top1,
                stages=stages,
                occupancy=self.loader.statistics.take_occupancy(),
            )
        )

    def _stop_asked(self) -> bool:
        """True on every rank as soon as one of them got a signal."""
        asked = self._signal is not None
        if self.fabric.world_size == 1:
            return asked
        mine = torch.tensor(float(asked), device=self.fabric.device)
        return bool(torch.as_tensor(self.fabric.all_reduce(mine, reduce_op="sum")).item())


_HARMLESS = {
    "data": {"root", "workers", "num_workers", "depth", "test_views", "test_split"},
    "train": {"log_every", "save_every", "save_every_steps", "keep", "devices", "nodes", "accelerator", "epochs"},
}


def _decisive(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that decides the numbers of a run that goes on."""
    return {
        group: {k: v for k, v in values.items() if k not in _HARMLESS.get(group, ())}
        if isinstance(values, dict)
        else values
        for group, values in config.items()
    }
