"""LSTR frame by frame: constant work and memory per frame, whatever the length of the video.

exact       what inference with one window per row gives, at every frame
reference   what the authors' stream gives: its long memory holds the rows 0, r, 2r, ..., and takes a new one every r frames, while that
            of a window holds the rows w - L, w - L + r, ... From frame L on the two differ by up to r - 1 rows (r: the rate)
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import torch
from torch import Tensor

from loaders.windows import OnlineWindows
from trainers.lstr.network import LSTR
from trainers.lstr.split import Memory, Rows, SplitLstr

StreamMode = Literal["exact", "reference"]


class LSTRStream:
    """One video at a time: `reset`, then `push` every row; several streams may share one `SplitLstr`.

    Every row gets its scores when it comes, the first ones too: the decoder is causal, so what a row of the first window gets
    does not depend on rows that follow. With a work memory at a rate r_w > 1, only every r_w-th row of the first window has
    any. Raises: ValueError when the windows are not those of the network, or the mode is unknown.
    """

    def __init__(self, model: LSTR | SplitLstr, windows: OnlineWindows, mode: StreamMode = "exact") -> None:
        self.split = SplitLstr(model) if isinstance(model, LSTR) else model
        if mode not in ("exact", "reference"):
            raise ValueError(f"the mode is {mode!r}; there are exact and reference")
        spec = self.split.spec
        if (windows.num_long, windows.num_work) != (spec.num_memory, spec.num_work):
            raise ValueError(
                f"the windows have {windows.num_long} + {windows.num_work} rows, the network {spec.num_memory} + {spec.num_work}"
            )
        if spec.num_ages and mode == "reference":
            raise ValueError("the published stream knows no age memory: use the mode exact")
        self.windows, self.mode = windows, mode
        self._device = self.split.model.classifier.weight.device
        self._work_span = windows.work_length - windows.work_rate  # from the oldest row of a full window to the newest
        self.reset()

    def reset(self) -> None:
        """Forget the video: the next row is the first of another one."""
        long_slots = self.windows.long_length if self.mode == "exact" else self.windows.num_long
        self.num_frames = 0
        self._waiting: deque[tuple[Tensor | None, Tensor | None]] = deque()  # rows that are not in the long memory yet
        self._long = _Ring(long_slots)
        self._work = _Ring(self._work_span + 1)
        self._memory: Memory | None = None
        self._memory_of: int | None = None

    @property
    def compressed(self) -> Tensor | None:
        """Output of the first encoder module, (n, 1, D)."""
        return None if self._memory is None else self._memory.compressed

    @torch.no_grad()
    def push(self, visual: Tensor | None, motion: Tensor | None = None) -> Tensor | None:
        """Probabilities (C,) of the next row, given its features (size,) each; None where the row's rate leaves it out."""
        streams = [None if row is None else row.to(self._device, torch.float32)[None] for row in (visual, motion)]
        now, self.num_frames = self.num_frames, self.num_frames + 1
        self._work.push(self.split.work_rows(*streams))
        if self.windows.num_long:
            self._waiting.append((streams[0], streams[1]))
            self._update_long(now)
        if now < self._work_span and now % self.windows.work_rate:
            return None
        return self.split.decide(self._work_window(), self._memory)[0].float().softmax(0)

    @torch.no_grad()
    def window_logits(self) -> Tensor:
        """Logits (W, C) of all rows of the present work memory; fewer while the first window fills."""
        return self.split.decide(self._work_window(), self._memory, every=True)[:, 0]

    def _work_window(self) -> Rows:
        rate = self.windows.work_rate
        held = self._work.held
        if held <= self._work_span:  # The first window: rows 0, rate, ... as far as they have come.
            return tuple(each[:held:rate, None] for each in self._work.rows())
        return tuple(each[::rate, None] for each in self._work.rows())

    def _update_long(self, now: int) -> None:
        """Let row start - 1 into the long memory. Row 0 is there from the first frame on, as padding that can be seen."""
        start = max(now - self._work_span, 0)
        rate = self.windows.long_rate
        if now == 0 or start > 1:
            streams = self._waiting.popleft()
            if self.mode == "exact" or max(start - 1, 0) % rate == 0:
                self._long.push(self.split.long_rows(*streams))
        # Which memory it is: windows up to L share one per `rate` starts, and so do all of the reference's.
        sharing = self.mode == "reference" or start <= self.windows.long_length
        which = max(start - 1, 0) // rate if sharing else -start
        if which == self._memory_of:
            return
        rows = self._long.rows()
        if self.mode == "exact":
            rows = tuple(each[::rate] for each in rows)
        mask = None
        missing = self.windows.num_long - len(rows[0])
        if missing and (not self.split.folds or self.split.spec.num_ages):
            # Padding is row 0 once more, and can be seen where the published code forgets its mask, and by an age memory.
            rows = tuple(torch.cat([each[:1].expand(missing, -1), each]) for each in rows)
            mask = torch.zeros(1, self.windows.num_long, device=self._device)
            mask[:, :missing] = float("-inf")
        self._memory, self._memory_of = self.split.memory(tuple(each[:, None] for each in rows), mask), which


class _Ring:
    """The newest rows, in order and without moving them: each is written twice, half a buffer apart."""

    def __init__(self, num_slots: int) -> None:
        self._slots, self.held, self._next = num_slots, 0, 0
        self._buffers: Rows = ()

    def push(self, rows: Rows) -> None:
        """One row, (1, size) of every kind."""
        if not self._buffers:
            self._buffers = tuple(each.new_zeros(2 * self._slots, each.shape[1]) for each in rows)
        for buffer, row in zip(self._buffers, rows, strict=True):
            buffer[self._next] = row[0]
            buffer[self._next + self._slots] = row[0]
        self._next = (self._next + 1) % self._slots
        self.held = min(self.held + 1, self._slots)

    def rows(self) -> Rows:
        """Views (held, size), oldest first; they hold until the next push."""
        first = self._next if self.held == self._slots else 0
        return tuple(buffer[first : first + self.held] for buffer in self._buffers)
