"""Scores of every row of a video, as one window per row would give them, with the windows' common work done once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from loaders.windows import OnlineWindows, Short
from trainers.lstr.split import Memory, Rows, SplitLstr, windows_of_rows


@dataclass(frozen=True)
class VideoScores:
    """Probabilities float32 (T, C), zeros where a row was not decided; `decided` bool (T,).

    Not decided are rows that the work memory's rate leaves out of the first window, and videos shorter than a window.
    """

    scores: np.ndarray
    decided: np.ndarray


@torch.no_grad()
def score_video(
    split: SplitLstr,
    windows: OnlineWindows,
    visual: np.ndarray | Tensor | None,
    motion: np.ndarray | Tensor | None,
    *,
    num_rows: int | None = None,
    block: int = 64,
    short: Short = "skip",
) -> VideoScores:
    """Scores of a video whose streams are (T, size), of which those that the modality uses must be given.

    The first window decides all of its rows, every later one its last. `block` windows are computed at a time.
    """
    given = [stream for stream in (visual, motion) if stream is not None]
    num_rows = len(given[0]) if num_rows is None else num_rows
    result = VideoScores(np.zeros((num_rows, split.spec.num_classes), np.float32), np.zeros(num_rows, bool))
    starts = windows.every_start(num_rows, short=short)
    if not len(starts):
        return result
    long, work = _rows_of(split, visual, motion, num_rows)
    _first_window(split, windows, long, work, int(starts[0]), result)
    for begin, memory, num_windows in _later_windows(split, windows, long, len(starts), block):
        span = windows_of_rows(work, begin, num_windows, windows.num_work, windows.work_rate)
        first = begin + windows.work_length - windows.work_rate
        rows = slice(first, first + num_windows)
        result.scores[rows] = split.decide(span, memory).float().softmax(1).cpu().numpy()
        result.decided[rows] = True
    return result


def _rows_of(
    split: SplitLstr, visual: np.ndarray | Tensor | None, motion: np.ndarray | Tensor | None, num_rows: int
) -> tuple[Rows, Rows]:
    """Long and work rows of a video, (T, ...) each; features are read and projected 2,048 rows at a time."""
    device = split.model.classifier.weight.device
    long: list[Rows] = []
    work: list[Rows] = []
    for begin in range(0, num_rows, 2048):
        end = min(begin + 2048, num_rows)
        streams = [None if each is None else _float(each[begin:end]).to(device) for each in (visual, motion)]
        if split.spec.num_long:
            long.append(split.long_rows(*streams))
        work.append(split.work_rows(*streams))
    return tuple(map(torch.cat, zip(*long, strict=True))), tuple(map(torch.cat, zip(*work, strict=True)))


def _float(rows: np.ndarray | Tensor) -> Tensor:
    return rows.float() if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows, np.float32))


def _first_window(
    split: SplitLstr, windows: OnlineWindows, long: Rows, work: Rows, start: int, result: VideoScores
) -> None:
    indices = torch.from_numpy(windows.work_indices(start)).to(work[0].device)
    memory = None
    if windows.num_long:
        window = windows.test(start)
        rows = torch.from_numpy(window.long).to(work[0].device)
        mask = torch.from_numpy(window.mask)[None].to(work[0].device)
        memory = split.memory(tuple(each[rows][:, None] for each in long), mask)
    logits = split.decide(tuple(each[indices][:, None] for each in work), memory, every=True)
    decided = windows.rows_decided(start)
    result.scores[decided] = logits[:, 0].float().softmax(1).cpu().numpy()
    result.decided[decided] = True


def _later_windows(
    split: SplitLstr, windows: OnlineWindows, long: Rows, num_windows: int, block: int
) -> Iterator[tuple[int, Memory | None, int]]:
    """(first start, memory, windows) of blocks that cover the starts 1 to num_windows - 1.

    Up to start L the long memory takes a new row every `long_rate` starts, and the windows between share it. Later ones
    begin at every row, and each has its own.
    """
    rate, n, length = windows.long_rate, windows.num_long, windows.long_length
    block = max(block // rate, 1) * rate if n else block
    begin = 1
    while begin < num_windows:
        # Blocks of shared memories end where the sharing does, so that no memory is computed twice.
        limit = min(num_windows, length + 1) if begin <= length else num_windows
        size = min(block, limit - begin)
        if not n:
            memory = None
        elif begin > length:
            memory = split.memory(windows_of_rows(long, begin - length, size, n, rate))
        else:
            groups = (np.arange(begin, begin + size) - 1) // rate
            shared = _growing(split, windows, long, int(groups[0]), int(groups[-1]) + 1)
            index = torch.from_numpy(groups - groups[0]).to(long[0].device)
            memory = shared.select(index)
        yield begin, memory, size
        begin += size


def _growing(split: SplitLstr, windows: OnlineWindows, long: Rows, first: int, end: int) -> Memory:
    """Memories of the groups `first` to `end` - 1; group k sees the rows 0, rate, ..., k x rate, padded with row 0."""
    n, rate = windows.num_long, windows.long_rate
    padded = tuple(
        torch.cat([each[:1].expand(n - 1, -1), each[: (end - 1) * rate + 1 : rate]]).contiguous() for each in long
    )
    masked = (n - 1 - torch.arange(first, end, device=long[0].device)).clamp_min(0)
    slots = torch.arange(n, device=long[0].device)
    mask = torch.zeros(end - first, n, device=long[0].device).masked_fill(slots < masked[:, None], float("-inf"))
    return split.memory(windows_of_rows(padded, first, end - first, n), mask)
