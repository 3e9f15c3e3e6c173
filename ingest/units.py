"""Seconds, bytes and numbers of things as a person says them."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """42 s, 3 min 5 s, 2 h 10 min; `?` when unknown."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(num_bytes: float) -> str:
    """1.25 MB, 3,402.10 GB."""
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:,.2f} MB"


def counted(number: int, thing: str) -> str:
    """1 video, 2,000 videos."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
