"""Windows for online action detection: which rows of a video make up the long and the work memory. No I/O.

A row is one time step of a video's features (LSTR) or one of its frames at 4 per second (SBP's end-to-end training).

    rows       0 . . . . . . . . . a . . . b . . . T      long memory: rows before a, thinned; work memory: rows a to b - 1
               |----- long ------|---work--|              (b - 1 is "now": nothing after it is seen)

Source: LSTR (NeurIPS 2021), its data layers and stream loop; SBP (CVPR 2022) uses the same windows but for where they begin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Rest = Literal["keep", "drop"]
"""Training windows may begin anywhere before the last possible place (`keep`), or only before the last whole number of strides
from row 0 (`drop`, SBP's training)."""

Short = Literal["skip", "repeat_first"]
"""A video shorter than the work memory gives no window (`skip`), or one that repeats its first row on the left."""


@dataclass(frozen=True)
class Window:
    """One window: `start` of the work memory, rows of the long memory int64 (N,) and of the work memory int64 (W,).

    `num_masked` leading slots of the long memory are padding. Without a long memory N is 0.
    """

    start: int
    long: np.ndarray
    work: np.ndarray
    num_masked: int

    @property
    def mask(self) -> np.ndarray:
        """To be added to the attention scores of the long memory, float32 (N,): -inf where padded, 0 elsewhere."""
        mask = np.zeros(len(self.long), np.float32)
        mask[: self.num_masked] = -np.inf
        return mask


@dataclass(frozen=True)
class OnlineWindows:
    """A work memory of `work_length` rows, every `work_rate`-th used, after a long one of `long_length`, every `long_rate`-th.

    Raises: ValueError when a length is no multiple of its rate.
    """

    work_length: int
    work_rate: int = 1
    long_length: int = 0
    long_rate: int = 1

    def __post_init__(self) -> None:
        if self.work_length < 1:
            raise ValueError(f"work_length is {self.work_length}; the work memory has at least one row")
        if self.long_length < 0:
            raise ValueError(f"long_length is {self.long_length}; it is 0 (none) or more")
        for name, length, rate in (
            ("work", self.work_length, self.work_rate),
            ("long", self.long_length, self.long_rate),
        ):
            if rate < 1 or length % rate:
                raise ValueError(f"{name}_length is {length}, which is no multiple of {name}_rate {rate}")

    @classmethod
    def from_seconds(
        cls, fps: int, *, work_s: int, work_rate: int = 1, long_s: int = 0, long_rate: int = 1
    ) -> OnlineWindows:
        """Memories in seconds, of rows that come `fps` times a second. LSTR: 4, work 8 s, long 512 s at rate 4."""
        return cls(work_s * fps, work_rate, long_s * fps, long_rate)

    @property
    def num_work(self) -> int:
        """Rows of the work memory that are used, W."""
        return self.work_length // self.work_rate

    @property
    def num_long(self) -> int:
        """Rows of the long memory that are used, N."""
        return self.long_length // self.long_rate

    # Where windows begin

    def starts(self, num_rows: int, *, offset: int = 0, stride: int | None = None, rest: Rest = "keep") -> np.ndarray:
        """Starts of windows one after the other, int64: `offset`, then every `stride` rows (a work memory unless said).

        For training, `offset` is drawn from 0 to work_length - 1 for every video and epoch. As published, a window that ends
        exactly with the video is left out: its last row must not be the video's last.
        """
        stride = self.work_length if stride is None else stride
        if stride < 1 or offset < 0:
            raise ValueError(f"offset is {offset} and stride {stride}; they are at least 0 and 1")
        room = num_rows - self.work_length
        end = room // stride * stride if rest == "drop" else room
        return np.arange(offset, max(end, offset), stride, dtype=np.int64)

    def every_start(self, num_rows: int, *, short: Short = "skip") -> np.ndarray:
        """Starts of the windows that end at every row of a video, the last row included, int64: one per row for inference.

        With `repeat_first`, the one window of a short video starts before row 0.
        """
        room = num_rows - self.work_length
        if room < 0:
            return np.array([room] if short == "repeat_first" and num_rows > 0 else [], np.int64)
        return np.arange(room + 1, dtype=np.int64)

    def rows_decided(self, start: int) -> np.ndarray:
        """Rows whose scores a window of `every_start` contributes, int64: all of the first window, the last of any other."""
        work = self.work_indices(start)
        return work if start <= 0 else work[-1:]

    # What they hold

    def train(self, start: int) -> Window:
        """The window at `start` as training sees it: a long memory spread evenly over what there is."""
        return self._window(start, self.long_spread(start))

    def test(self, start: int) -> Window:
        """The window at `start` as validation and inference see it: a long memory at its rate, padded on the left."""
        return self._window(start, self.long_at_rate(start))

    def work_indices(self, start: int) -> np.ndarray:
        """Rows of the work memory, int64 (W,). Rows before the video are its first."""
        return np.maximum(np.arange(start, start + self.work_length, self.work_rate, dtype=np.int64), 0)

    def long_spread(self, start: int) -> np.ndarray:
        """N rows spread over the `long_length` before `start`, both ends included, int64 (N,); a short history repeats rows."""
        low, high = max(0, start - self.long_length), start - 1
        # linspace itself, and truncation: other roundings give other rows than the published ones.
        rows = np.sort(np.linspace(low, high, self.num_long)).astype(np.int32)
        return np.maximum(rows, 0).astype(np.int64)

    def long_at_rate(self, start: int) -> np.ndarray:
        """Every `long_rate`-th row from `long_length` before `start`, or from row 0; zeros on the left make up for missing ones."""
        rows = np.arange(max(0, start - self.long_length), start, self.long_rate, dtype=np.int64)
        return self._padded(rows)

    def long_in_stream(self, step: int) -> np.ndarray:
        """The long memory of the published stream at window start `step`: the last N multiples of the rate before it, (N,).

        Equal to `long_at_rate` while `step` is at most `long_length` or a multiple of the rate; otherwise up to
        `long_rate` - 1 rows older or newer.
        """
        return self._padded(np.arange(0, step, self.long_rate, dtype=np.int64)[-self.num_long :])

    def new_in_stream(self, step: int) -> int:
        """Rows that the published stream adds to its long memory at `step`: all N at first, then one every `long_rate` steps."""
        if step == 0:
            return self.num_long
        return int((step - 1) % self.long_rate == 0)

    def queue_in_stream(self, step: int) -> int:
        """Where a stream that equals inference at every step finds its long memory.

        It keeps `long_rate` queues of N rows, all zeros at first. Before `step` (from 1 on) row step - 1 enters queue
        (step - 1) % long_rate and pushes the oldest row out; the queue of this number then holds `long_at_rate(step)`.
        """
        return 0 if step <= self.long_length else step % self.long_rate

    def num_masked(self, long: np.ndarray) -> int:
        """Leading slots of a long memory that are masked: all that hold row 0 but one, so that one can always be seen."""
        return max(int((long == 0).sum()) - 1, 0)

    def _window(self, start: int, long: np.ndarray) -> Window:
        return Window(start, long, self.work_indices(start), self.num_masked(long))

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros(self.num_long - len(rows), np.int64), rows])
