"""What SRTG's recursion and gates cost: time of a training step, forward and backward, against the same network without.

    python -m tests.benchmarks.bench_srtg_step [--steps 5] [--network r3d_34] [--device cpu]

CPU: two threads, clips of 8 x 112 x 112, batches of 2, float32. GPU (where there is one): clips of 16 x 224 x 224, batches of
16, in float32 (TF32) and bf16, plain and compiled. Medians over the steps, of networks that take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.benchmarks._common import write_result
from tests.benchmarks._page import put_table
from trainers.srtg.network import build
from trainers.srtg.recursion import Gates

CLASSES = 400
PAGE = Path(__file__).parents[2] / "docs" / "methods" / "srtg.md"


def variants(network: str) -> dict[str, tuple[str, Gates]]:
    """What is compared: name -> (network, gates)."""
    return {
        "plain": (network, "off"),
        "recursion": (f"srtg_{network}", "off"),
        "recursion, gates shipped": (f"srtg_{network}", "shipped"),
        "recursion, gates cycle": (f"srtg_{network}", "cycle"),
        "recursion, gates cycle_intersection": (f"srtg_{network}", "cycle_intersection"),
    }


def make_step(model: nn.Module, clip: Tensor, labels: Tensor, bf16: bool) -> Callable[[], None]:
    """One forward and backward; gradients are dropped before each."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        half = torch.autocast(clip.device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
        with half:
            loss = cross_entropy(model(clip).float(), labels)
        loss.backward()

    return step


def measure(steps: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each, after two rounds to warm up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(repeats + 2):
        for name, step in steps.items():
            _wait(device)
            started = time.perf_counter()
            step()
            _wait(device)
            if round_ >= 2:
                times[name].append(time.perf_counter() - started)
    return {name: sorted(each)[len(each) // 2] for name, each in times.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def on_cpu(network: str, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(2)
    shape, device = (2, 3, 8, 112, 112), torch.device("cpu")
    clip, labels = torch.randn(shape), torch.zeros(shape[0], dtype=torch.long)
    steps = {}
    for name, (key, gates) in variants(network).items():
        torch.manual_seed(0)
        steps[name] = make_step(build(key, CLASSES, gates=gates).train(), clip, labels, bf16=False)
    seconds = measure(steps, repeats, device)
    return {
        "network": network,
        "batch": shape[0],
        "clip": "8 x 112 x 112",
        "threads": 2,
        "steps": repeats,
        "seconds_per_step": {name: round(value, 3) for name, value in seconds.items()},
        "relative_to_plain": {name: round(value / seconds["plain"], 3) for name, value in seconds.items()},
    }


def on_gpu(network: str, repeats: int) -> dict[str, Any]:
    device, batch = torch.device("cuda"), 16
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    clip = torch.randn(batch, 3, 16, 224, 224, device=device).contiguous(memory_format=torch.channels_last_3d)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    rates: dict[str, dict[str, float]] = {}
    for bf16, compiled in ((False, False), (True, False), (True, True)):
        setting = ("bf16" if bf16 else "tf32") + (", compiled" if compiled else "")
        rates[setting] = {}
        for name, (key, gates) in variants(network).items():
            torch.manual_seed(0)
            model: Any = build(key, CLASSES, gates=gates).to(device, memory_format=torch.channels_last_3d).train()
            if compiled:
                model = torch.compile(model, fullgraph=True)
            seconds = measure({name: make_step(model, clip, labels, bf16)}, repeats, device)[name]
            rates[setting][name] = round(batch / seconds, 1)
            del model
            torch.cuda.empty_cache()
    return {"network": network, "batch": batch, "clip": "16 x 224 x 224", "clips_per_s": rates}


def table(figures: dict[str, Any]) -> str:
    """Of the CPU part."""
    lines = [
        f"| {figures['network']}, batch {figures['batch']}, {figures['clip']} | seconds | of plain |",
        "|---|---|---|",
    ]
    for name, seconds in figures["seconds_per_step"].items():
        lines.append(f"| {name} | {seconds:.2f} | {figures['relative_to_plain'][name]:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--network", default="r3d_34")
    parser.add_argument("--device", choices=["cpu", "gpu", "all"], default="all")
    options = parser.parse_args()
    if options.device in ("cpu", "all"):
        figures = on_cpu(options.network, options.steps)
        print(figures)
        write_result("srtg_step", figures)
        put_table(PAGE, "srtg_step.json", table(figures))
    if options.device in ("gpu", "all"):
        if not torch.cuda.is_available():
            print("no CUDA device: the GPU part was not run")
            return
        figures = on_gpu(options.network, max(options.steps, 10))
        print(figures)
        write_result("srtg_step_gpu", figures)


if __name__ == "__main__":
    main()
