"""Errors that a user can act on: what happened, where, the consequence, the next command."""

from __future__ import annotations


class ClipmillError(Exception):
    """Something could not be run. The command line prints it without a traceback and exits with 2.

    `what` names the problem and the place, `consequence` what has or has not been done, `next_step` the cure.
    """

    def __init__(self, what: str, consequence: str = "", next_step: str = "") -> None:
        self.what, self.consequence, self.next_step = what, consequence, next_step
        super().__init__(" ".join(part for part in (what, consequence, next_step) if part))

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.what, self.consequence, self.next_step)


class VideoError(Exception):
    """One video cannot be used; the others go on.

    `reason` is one of a short list of kinds (for counting), `message` the particulars, `frame` the first bad frame.
    """

    def __init__(self, reason: str, message: str, frame: int | None = None) -> None:
        self.reason, self.message, self.frame = reason, message, frame
        super().__init__(f"{reason}: {message}" + ("" if frame is None else f" (frame {frame})"))

    def __reduce__(self) -> tuple[type, tuple[str, str, int | None]]:
        return type(self), (self.reason, self.message, self.frame)
