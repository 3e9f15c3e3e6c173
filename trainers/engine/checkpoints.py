"""Checkpoints: whole or absent, loaded without running code, and told apart by a readable difference.

<run>/checkpoints/step_00000123.pt    the newest ones
<run>/checkpoints/best.pt             the one with the best validation
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from ingest.atomic import remove_leftovers, replacing
from ingest.errors import ClipmillError

VERSION = 1
BEST = "best.pt"
_NAME = re.compile(r"^step_(\d{8})\.pt$")


class CheckpointFolder:
    """Checkpoints of one run."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder, keep

    def save(self, state: dict[str, Any], step: int, *, best: bool = False) -> Path:
        """Write a checkpoint durably, then remove those beyond the newest `keep`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{step:08d}.pt"
        for target in (path, self.folder / BEST) if best else (path,):
            with replacing(target) as temporary:
                torch.save(state | {"version": VERSION}, temporary)
        for old in self.all()[: -self._keep]:
            old.unlink()
        return path

    def all(self) -> list[Path]:
        """Checkpoints by step, oldest first; `best.pt` is not among them."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.match(path.name))

    def newest(self) -> Path | None:
        """The newest checkpoint, or None. What a killed run left half-written is removed."""
        if self.folder.is_dir():
            remove_leftovers(self.folder)
        found = self.all()
        return found[-1] if found else None


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU. Raises: ClipmillError when it is none of ours or damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ClipmillError(f"there is no checkpoint {path}.", "Nothing was loaded.", "Check the path.") from None
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ClipmillError(
            f"the checkpoint {path} cannot be read: {line}", "Nothing was loaded.", "Take an older one, or start anew."
        ) from None
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise ClipmillError(
            f"{path} is not a checkpoint of this Clipmill (version {VERSION}).",
            "Nothing was loaded.",
            "Weights from elsewhere are loaded with --init.",
        )
    return state


def config_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`key: old -> new` for every leaf that differs, in the order of the keys."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += config_difference(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before} -> {after}")
    return lines
