"""Parameters and work of SRTG's networks, counted, into the table of docs/methods/srtg.md. No device, no data.

python -m tests.benchmarks.srtg_networks
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks._page import put_table
from trainers.srtg.network import NETWORKS, build

PAGE = Path(__file__).parents[2] / "docs" / "methods" / "srtg.md"
MARKER = "made by tests/benchmarks/srtg_networks.py"
CLASSES, FRAMES, SIZE = 400, 16, 224


def num_parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(name, CLASSES).parameters())


def gflops(name: str) -> float:
    """Billions of operations (a multiplication and an addition count as two) of a clip's forward, convolutions and `fc`."""
    with torch.device("meta"):
        model, clip = build(name, CLASSES).eval(), torch.empty(1, 3, FRAMES, SIZE, SIZE)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clip)
    by_kind = counter.get_flop_counts()["Global"]
    return sum(count for kind, count in by_kind.items() if "conv" in str(kind)) / 1e9


def table() -> str:
    """One line per network without recursion, with what recursion adds; then MTNet."""
    lines = ["| network | parameters | with recursion (srtg_...) | GFLOPs |", "|---|---|---|---|"]
    for name in NETWORKS:
        if name.startswith("srtg_"):
            continue
        recursive = f"{num_parameters(f'srtg_{name}'):,}" if f"srtg_{name}" in NETWORKS else "always"
        lines.append(f"| {name} | {num_parameters(name):,} | {recursive} | {gflops(name):,.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    put_table(PAGE, MARKER, table())


if __name__ == "__main__":
    main()
