"""Scores, log lines and file names as SRTG's trainer wrote them, for tools that read its logs. Pure functions of values.

Our own logs are in `trainers/engine`. These differ from them on purpose in two figures: a loss here is a mean over
batches, however large each was, and a validation score the mean of the running means.
Source: the released trainer, commit 1c4dd7e (`train/metrics.py`, `callbacks.py`, `model.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import fmean

from torch import Tensor
from torch.nn.functional import cross_entropy

from loaders.speed import Rates
from trainers.metrics import correct_in_top

Value = float | Sequence[int] | None
"""Of a metric: a number, the shape of a batch (B, C, T, H, W), or nothing yet."""


@dataclass
class Scores:
    """Loss, top-1 and top-5 since the last reset; batch shape and rate as they were last."""

    loss_sum: float = 0.0
    num_batches: int = 0
    right: tuple[int, int] = (0, 0)
    num_clips: int = 0
    shape: tuple[int, ...] | None = None
    lr: float | None = None

    def update(self, logits: Tensor, labels: Tensor, shape: Sequence[int] | None, lr: float | None) -> None:
        """Add a batch of scores (B, classes) and labels (B,).

        Raises: ValueError with fewer than five classes: top-5 says nothing then.
        """
        if logits.shape[1] < 5:
            raise ValueError(f"top-5 of {logits.shape[1]} classes says nothing")
        self.loss_sum += float(cross_entropy(logits, labels))
        self.num_batches += 1
        top1, top5 = (int(correct_in_top(logits, labels, k)) for k in (1, 5))
        self.right = self.right[0] + top1, self.right[1] + top5
        self.num_clips += len(labels)
        self.shape, self.lr = None if shape is None else tuple(shape), lr

    def values(self) -> dict[str, Value]:
        """By the historical names, in their order; None where there is nothing yet."""
        empty = not self.num_batches
        return {
            "loss-ce": None if empty else self.loss_sum / self.num_batches,
            "top1": None if empty else self.right[0] / self.num_clips,
            "top5": None if empty else self.right[1] / self.num_clips,
            "batch_size": self.shape,
            "lr": self.lr,
        }


# Lines of a step


def metrics_text(values: Mapping[str, Value]) -> str:
    """`loss-ce = 1.23457, ..., lr = 1.25e-2 `; what has no value is left out (the comma before it stays)."""
    last = len(values) - 1
    parts = []
    for place, (name, value) in enumerate(values.items()):
        if value is None:
            continue
        if name == "lr" and isinstance(value, float | int):
            shown = f"{Decimal(value):.2e}"
        elif isinstance(value, float | int):
            shown = f"{value:.5f}"
        else:
            clips, channels, frames, height, width = value
            shown = f"({clips:5d},{channels:1d},{frames:2d},{height:3d},{width:3d})"
        parts.append(f"{name} = {shown}{', ' if place < last else ' '}")
    return "".join(parts)


def speed_text(read_s: float | None, forward_s: float | None, backward_s: float | None) -> str:
    """`Speed (r=.. f=.. b=..) clip/sec ` with its colours, from seconds per clip; empty without reading or forward."""
    read, forward, backward = (None if seconds is None else 1 / seconds for seconds in (read_s, forward_s, backward_s))
    return Rates(read, forward, backward, None, None).line(colour=True)


def step_header(epoch: int, batch: int) -> str:
    """`Epoch [3]   Batch [50]   `: brackets padded to five and six characters."""
    return f"Epoch {f'[{epoch}]':<5} Batch {f'[{batch}]':<6} "


def step_line(epoch: int, batch: int, speed: str, metrics: str) -> str:
    return f"{step_header(epoch, batch)}{speed} {metrics} "


# Lines of an epoch


def loader_line(num_clips: int, size: Sequence[int], *, again: bool = False) -> str:
    """A loader was made for batches of `num_clips` x (T, H, W)."""
    text = ",".join(str(each) for each in (num_clips, *size))
    return f"{'Re-creating' if again else 'Creating'} dataloader for batch of size ({text})"


def start_line(step: int, lr: float, next_step: int) -> str:
    return f"Iter {step}: start with learning rate: {lr:.5e} (next lr step: {next_step})"


def rate_line(step: int, lr: float, next_step: int | None) -> str:
    """The rate drops at `step`; the next drop is at `next_step`, if there is one."""
    until = "Inf" if next_step is None else next_step
    return f"Iter: {step}, change learning rate to {lr:.5e} for step [{step}:{until})"


def time_line(epoch: int, seconds: float) -> str:
    return f"Epoch [{epoch}]   time cost: {seconds:.2f} sec ({seconds / 3600:.2f} h)"


def train_line(epoch: int, top1: float, top5: float, loss: float) -> str:
    return (
        f"Epoch [{epoch}]  (train)  average top-1 acc: {top1:.5f}   average top-5 acc: {top5:.5f}"
        f"   average loss: {loss:.5f}"
    )


def validation_line(epoch: int, top1: float, top5: float, loss: float, batch: int | None = None) -> str:
    """Of every 50th batch, or (without `batch`) of the whole set."""
    place = f"Epoch [{epoch}]:" if batch is None else f"Epoch [{epoch}]: Iteration [{batch}]:"
    return f"{place}  (val)  average top-1 acc: {top1:.5f}   average top-5 acc: {top5:.5f}   average loss {loss:.5f}"


# Files


def scores_csv(rows: Iterable[tuple[int, float, float, float]]) -> str:
    """Rows (epoch from 0, top-1, top-5, loss) as the score files hold them: CRLF, numbers as Python writes them."""
    lines = ["Epoch,Top1,Top5,Loss", *(",".join(str(value) for value in row) for row in rows)]
    return "".join(f"{line}\r\n" for line in lines)


def epoch_scores(steps: Sequence[Mapping[str, Value]]) -> tuple[float, float, float]:
    """(top-1, top-5, loss) of an epoch's row: plain means over what was recorded at its steps, large batches or small."""
    means = []
    for name in ("top1", "top5", "loss-ce"):
        means.append(fmean(value for step in steps if isinstance(value := step[name], float | int)))
    return means[0], means[1], means[2]


def results_folder(data_set: str, network: str, *, variant: int | None = None) -> str:
    """`./results/HACS/srtg_r3d_34`; Kinetics has its variant: `KINETICS-400`."""
    name = data_set if variant is None else f"{data_set}-{variant}"
    return f"./results/{name}/{network}"


def score_files(folder: str, start_epoch: int = 0) -> tuple[str, str]:
    """The csv files of training and validation of a run that began at `start_epoch`."""
    return tuple(f"{folder}/{split}_results_s{start_epoch:04d}.csv" for split in ("train", "val"))  # type: ignore[return-value]


def checkpoint_file(folder: str, epochs_done: int) -> str:
    """`<folder>/<name of the folder>_ep-0001.pth`, the number of epochs that are done."""
    return f"{folder}/{folder.rstrip('/').rpartition('/')[2]}_ep-{epochs_done:04d}.pth"


def data_root(data_set_path: str) -> str:
    """The root of a data set's path as its options give it: what stands before `/data/`."""
    return data_set_path.partition("/data/")[0]


def is_saved(epoch: int, save_frequency: int = 1) -> bool:
    """Whether a checkpoint follows `epoch` (from 0): the first one does, and every `save_frequency`-th."""
    return epoch == 0 or (epoch + 1) % save_frequency == 0


def is_validated(epoch: int, save_frequency: int = 1) -> bool:
    """Whether validation follows `epoch` (from 0): twice as often as checkpoints."""
    return (epoch + 1) % max(1, save_frequency // 2) == 0
