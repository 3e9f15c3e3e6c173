"""What every benchmark writes: its figures, and on which machine, with which versions and from which commit they come."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("clipmill", "av", "imageio-ffmpeg", "lightning-fabric", "numpy", "nvidia-dali-cuda130",
             "opencv-python-headless", "simplejpeg", "sqlite-utils", "torch")  # fmt: skip


def write_result(name: str, figures: dict[str, Any]) -> Path:
    """Write `results/<name>.json`, over the one of an earlier run. It names no host and no path.

    Keys: name, figures, machine, versions, date (UTC), commit, command.
    """
    result = {
        "name": name,
        "figures": figures,
        "machine": machine(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "command": command_line(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path.name}")
    return path


def endless(loader: Any) -> Iterator[int]:
    """Sizes of a `ClipLoader`'s batches, epoch after epoch."""
    while True:
        for batch in loader:
            batch.wait_until_read()
            yield len(batch)


def machine() -> dict[str, Any]:
    """CPU model, cores that this process may use, memory, system and, if torch is loaded and finds one, the GPU."""
    found: dict[str, Any] = {
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
    }
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found["cpu"] = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    with suppress(OSError, ValueError):
        found["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def commit() -> str | None:
    """The commit of the working tree, with `+` when files under version control differ from it."""
    try:
        head, changes = (
            subprocess.run(
                ["git", *words], cwd=RESULTS.parent, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes else "")


def command_line() -> str:
    """How the benchmark was called; an argument with a path is shown as its last part only."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"-m {spec.name}" if spec else Path(sys.argv[0]).name
    return " ".join(["python", program, *(Path(word).name if "/" in word else word for word in sys.argv[1:])])
