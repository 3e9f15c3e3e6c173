"""What a run writes down: console lines, CSV files, TensorBoard events, telemetry for the service. Rank 0, mostly.

<run>/steps.csv                 one row per optimizer step
<run>/epochs.csv                one row per epoch and split
<run>/train_results_s0000.csv   Epoch,Top1,Top5,Loss as SRTG's trainer wrote them, from the epoch in the name on; and val_...
<run>/tensorboard/              the same curves
<run>/telemetry.db              live figures (loaders/telemetry.py), of every rank
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingest.atomic import write_text
from loaders.speed import Rates
from loaders.telemetry import SpeedSample, Stage, TelemetryWriter
from trainers.config import Config, dump
from trainers.engine.logs import CsvLog

STEP_COLUMNS = ("step", "epoch", "loss", "top1", "lr", "batch_size", "num_frames", "height", "width")
EPOCH_COLUMNS = (
    "step", "epoch", "split", "loss", "top1", "top5", "mean_class_accuracy", "mean_average_precision",
    "seconds", "clips_per_s", "wait_share",
)  # fmt: skip


class Journal:
    """The logs of one run. `shape` is (B, T, H, W) of this rank's last batch."""

    def __init__(self, folder: Path, config: Config, rank: int) -> None:
        self.folder, self._config, self._rank = folder, config, rank
        self.steps = CsvLog(folder / "steps.csv", STEP_COLUMNS)
        self.epochs = CsvLog(folder / "epochs.csv", EPOCH_COLUMNS)
        self._telemetry: TelemetryWriter | None = None
        self._events: Any = None
        self._from_epoch = 0

    @property
    def writes(self) -> bool:
        """Whether this rank writes the logs."""
        return self._rank == 0

    def start(self, step: int, epoch: int, about: Mapping[str, Any]) -> None:
        """Open the logs at `step`; rows of steps after it, which a killed run has left, are taken back."""
        self._telemetry = TelemetryWriter(self.folder, about, rank=self._rank)
        if not self.writes:
            return
        self._from_epoch = epoch
        write_text(self.folder / "config.yaml", dump(self._config))
        self.steps.start(before_step=step)
        self.epochs.start(before_step=step + 1)
        if self._config.train.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)
        self.tell(f"{'resumed' if step else 'started'} at epoch {epoch}, step {step}")

    def flush(self) -> None:
        """Bring the CSV files up to date, so that a checkpoint is never ahead of them."""
        if self.writes:
            self.steps.flush()
            self.epochs.flush()

    def close(self, state: str) -> None:
        """Flush and say how it ended: finished, failed or stopped."""
        self.flush()
        if self._events is not None:
            self._events.close()
        if self._telemetry is not None:
            self._telemetry.close(state)

    def tell(self, message: str) -> None:
        """A line for whoever watches the run."""
        if self._telemetry is not None:
            self._telemetry.event("info", message)

    def step(self, row: Mapping[str, Any]) -> None:
        if self.writes:
            self.steps.add(row)

    def report(
        self,
        step: int,
        epoch: int,
        phase: str,
        rates: Rates,
        shape: tuple[int, ...],
        figures: Mapping[str, float | None],
        stages: Mapping[str, Stage],
        occupancy: float | None,
    ) -> None:
        """A line on the console (training only), points in TensorBoard, a row of telemetry. `figures`: loss, top1, lr."""
        batch, frames, height, width = shape
        lr = figures.get("lr")
        if self.writes and phase == "train":
            self.steps.flush()
            shown = "".join(
                f"{name} = {figures[name]:.5f}, " for name in ("loss", "top1") if figures.get(name) is not None
            )
            print(
                f"Epoch [{epoch}]   Step [{step}]   {rates.line(colour=sys.stdout.isatty())}"
                f"{shown}batch = {batch}x{frames}x{height}x{width}, lr = {lr:.2e}",
                flush=True,
            )
            speeds = {
                "clips_per_s": rates.clips_per_s,
                "wait_share": rates.wait_share,
                "voxels": batch * frames * height * width,
            }
            self._points("step", step, {**figures, **speeds})
        if self._telemetry is None:
            return
        self._telemetry.report(
            SpeedSample(
                step=step,
                epoch=epoch,
                phase=phase,
                batch_size=batch,
                num_frames=frames,
                height_px=height,
                width_px=width,
                read=rates.read,
                forward=rates.forward,
                backward=rates.backward,
                clips_per_s=rates.clips_per_s,
                wait_share=rates.wait_share,
                learning_rate=lr,
                loss=figures["loss"],
                top1=figures.get("top1"),
                stages=stages,
                occupancy=occupancy,
            )
        )

    def epoch(self, step: int, epoch: int, splits: Mapping[str, Mapping[str, Any]]) -> None:
        """The figures of an epoch that has ended at `step`, by split."""
        if not self.writes:
            return
        for split, figures in splits.items():
            self.epochs.add({"step": step, "epoch": epoch, "split": split, **figures})
            self._points(split, step, figures)
            self._historical(split, epoch, figures)
        self.epochs.flush()
        shown = "   ".join(f"{split}: {_sentence(figures)}" for split, figures in splits.items())
        print(f"Epoch [{epoch}]   {shown}   {splits['train']['seconds']:.1f} s", flush=True)

    def _points(self, group: str, step: int, figures: Mapping[str, Any]) -> None:
        if self._events is not None:
            for name, value in figures.items():
                if isinstance(value, (int, float)):
                    self._events.add_scalar(f"{group}/{name}", value, step)

    def _historical(self, split: str, epoch: int, figures: Mapping[str, Any]) -> None:
        """Source: SRTG's run_callbacks; true averages instead of means of running means."""
        path = self.folder / f"{split}_results_s{self._from_epoch:04d}.csv"
        new = not path.exists()
        values = [epoch, *(figures.get(name) for name in ("top1", "top5", "loss"))]
        with path.open("a", newline="") as file:
            if new:
                file.write("Epoch,Top1,Top5,Loss\r\n")
            file.write(",".join("" if value is None else str(value) for value in values) + "\r\n")


def _sentence(figures: Mapping[str, Any]) -> str:
    named = {"loss": "loss", "top1": "top-1", "mean_average_precision": "mAP"}
    shown = {**named} if figures.get("top1") is None else {"loss": "loss", "top1": "top-1"}
    return " ".join(f"{text} {figures[name]:.4f}" for name, text in shown.items() if figures.get(name) is not None)
