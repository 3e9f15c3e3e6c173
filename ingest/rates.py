"""Sampling a video at a lower rate by its time stamps: right for variable frame rates. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

FrameT = TypeVar("FrameT")


class RateSampler(Generic[FrameT]):
    """Picks, for every slot of 1/fps seconds, the frame that is shown in its middle.

    fps 4:   |   .   |   .   |   .   |     slot r covers [r/4, (r+1)/4) s from `start_us`; the dots are its middles

    The first frame also stands for what is before it, each other one is shown until the next. Frames are pushed in the
    order of their times, and come out as soon as the next one shows how long they were shown.
    Source: the features of the online-detection sets, one for six frames of 24 fps, from the frame in the middle.
    """

    def __init__(self, fps: float, start_us: int = 0) -> None:
        if fps <= 0:
            raise ValueError(f"fps is {fps}; a rate is above zero")
        self._fps, self._start_us = fps, start_us
        self._slot = 0
        self._shown: tuple[int, FrameT] | None = None

    def push(self, time_us: int, frame: FrameT) -> Iterator[tuple[int, FrameT]]:
        """(time, frame) of every slot whose middle lies before this frame."""
        yield from self._until(time_us)
        self._shown = (time_us, frame)

    def finish(self, end_us: int) -> Iterator[tuple[int, FrameT]]:
        """(time, frame) of the slots that are left when the last frame is shown until `end_us`."""
        return self._until(end_us)

    def _until(self, end_us: int) -> Iterator[tuple[int, FrameT]]:
        while self._shown is not None and self._start_us + (self._slot + 0.5) / self._fps * 1e6 < end_us:
            self._slot += 1
            yield self._shown
