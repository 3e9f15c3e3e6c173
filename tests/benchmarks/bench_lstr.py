"""LSTR at its published size on the CPU: inference with shared work against one forward per window, the stream, a training step.

    python -m tests.benchmarks.bench_lstr batch      windows per second, growing and full long memory, against plain forwards
    python -m tests.benchmarks.bench_lstr stream     15 minutes of video row by row: latency
    python -m tests.benchmarks.bench_lstr hour       an hour of it, through a network a quarter as wide: memory
    python -m tests.benchmarks.bench_lstr train      a training step, fused attention against the formula
    python -m tests.benchmarks.bench_lstr table      the table of docs/methods/lstr.md from the results

Each part replaces its own figures in results/lstr.json. With GOMP_SPINCOUNT=1000 threads that wait sleep, as in `clipmill`; without,
whatever else runs on the machine shows in the latencies.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import trainers.lstr.attention as attention
from loaders.windows import OnlineWindows
from tests.benchmarks._common import RESULTS, write_result
from trainers.lstr.inference import score_video
from trainers.lstr.losses import mce
from trainers.lstr.network import LSTR, LstrSpec
from trainers.lstr.split import SplitLstr
from trainers.lstr.stream import LSTRStream

THREADS = 2
WINDOWS = OnlineWindows(32, 1, 2048, 4)
"""8 s of work memory, 512 s of long memory at every 4th row, 4 rows per second."""

SPEC = LstrSpec(num_classes=22)

DOCS = Path(__file__).parents[2] / "docs" / "methods" / "lstr.md"


def network(dropout: float = 0.2) -> LSTR:
    torch.manual_seed(0)
    return LSTR(replace(SPEC, dropout=dropout)).eval()


def video(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    visual = rng.standard_normal((num_rows, SPEC.visual_size), dtype=np.float32)
    return visual, rng.standard_normal((num_rows, SPEC.motion_size), dtype=np.float32)


@torch.no_grad()
def plain(model: LSTR, streams: tuple[np.ndarray, np.ndarray], start: int) -> np.ndarray:
    """One window by one forward, as the reference's batch inference computes it: the last row's probabilities."""
    window = WINDOWS.test(start)
    rows = np.concatenate([window.long, window.work])
    inputs = [torch.from_numpy(stream[rows])[None] for stream in streams]
    return model(*inputs, torch.from_numpy(window.mask)[None])[0, -1].softmax(0).numpy()


def batch(num_rows: int) -> dict[str, Any]:
    """The whole of a video, and of its first 2,080 rows, in which the long memory fills."""
    model, streams = network(), video(num_rows)
    split = SplitLstr(model)
    score_video(split, WINDOWS, *(stream[:200] for stream in streams))
    filling = WINDOWS.long_length + WINDOWS.work_length
    figures: dict[str, Any] = {"rows": num_rows, "threads": THREADS}
    seconds = {}
    for name, rows in (("filling", filling), ("whole", num_rows)):
        started = time.perf_counter()
        scores = score_video(split, WINDOWS, *(stream[:rows] for stream in streams)).scores
        seconds[name] = time.perf_counter() - started
        figures[f"{name}_windows_per_s"] = (rows - 31) / seconds[name]
    figures["full_windows_per_s"] = (num_rows - filling) / (seconds["whole"] - seconds["filling"])
    # Plain forwards over the same video: every so many windows, filling and full ones in their true shares.
    starts = np.linspace(1, num_rows - 32, 60).astype(int).tolist()
    plain(model, streams, 1)
    times, worst = [], 0.0
    for start in starts:
        started = time.perf_counter()
        expected = plain(model, streams, start)
        times.append(time.perf_counter() - started)
        worst = max(worst, float(np.abs(expected - scores[start + 31]).max()))
    figures["plain_windows_per_s"] = 1 / statistics.mean(times)
    figures["largest_difference"] = worst
    for name in ("whole", "filling", "full"):
        figures[f"{name}_times_plain"] = figures[f"{name}_windows_per_s"] / figures["plain_windows_per_s"]
    return figures


def stream(num_rows: int, width: int = 1024) -> dict[str, Any]:
    """Row by row; the peak of the process's memory after every eighth of the video."""
    torch.manual_seed(0)
    live = LSTRStream(LSTR(replace(SPEC, width=width, hidden=width)), WINDOWS, "exact")
    rng = np.random.default_rng(0)
    times, peaks = [], []
    for row in range(num_rows):
        visual, motion = (
            torch.from_numpy(rng.standard_normal(size, dtype=np.float32))
            for size in (SPEC.visual_size, SPEC.motion_size)
        )
        started = time.perf_counter()
        live.push(visual, motion)
        times.append(time.perf_counter() - started)
        if (row + 1) % (num_rows // 8) == 0:
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    filling = WINDOWS.long_length + WINDOWS.work_length
    parts = {"filling": times[10:filling], "full": times[filling:]}
    figures: dict[str, Any] = {
        "rows": num_rows,
        "width": width,
        "threads": THREADS,
        "spin_count": os.environ.get("GOMP_SPINCOUNT"),
        "peak_mib_after_eighths": [round(p, 1) for p in peaks],
    }
    for name, part in parts.items():
        if part:
            p50, p99 = np.percentile(part, (50, 99))
            figures[f"{name}_p50_ms"], figures[f"{name}_p99_ms"] = 1e3 * p50, 1e3 * p99
    return figures


def formula(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0) -> Tensor:
    """Attention as it is written down: all weights in memory."""
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
    if attn_mask is not None:
        scores = scores + attn_mask
    return torch.nn.functional.dropout(scores.softmax(-1), dropout_p) @ v


def train(batch_size: int, repeats: int = 4) -> dict[str, Any]:
    """Forward, loss, backward and Adam, in turns with either attention."""
    fused = attention.scaled_dot_product_attention
    kinds: dict[str, Callable[..., Tensor]] = {"fused": fused, "formula": formula}
    figures: dict[str, Any] = {"batch_size": batch_size, "threads": THREADS}
    for dropout in (0.2, 0.0):
        model = network(dropout).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
        rows = WINDOWS.num_long + WINDOWS.num_work
        inputs = [torch.randn(batch_size, rows, size) for size in (SPEC.visual_size, SPEC.motion_size)]
        target = torch.eye(SPEC.num_classes)[torch.randint(SPEC.num_classes, (batch_size * WINDOWS.num_work,))]
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for turn in range(repeats + 1):
            for name, kind in kinds.items():
                attention.scaled_dot_product_attention = kind  # type: ignore[assignment]
                started = time.perf_counter()
                loss = mce(model(*inputs).flatten(0, 1), target, ignore_index=21)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if turn:
                    times[name].append(time.perf_counter() - started)
        attention.scaled_dot_product_attention = fused
        for name, each in times.items():
            figures[f"{name}_s_dropout_{dropout}"] = statistics.median(each)
    return figures


def table(figures: dict[str, Any]) -> str:
    """What the documentation says of them."""
    lines = ["| | |", "|---|---|"]
    if "batch" in figures:
        part = figures["batch"]
        lines.append(f"| one forward per window | {part['plain_windows_per_s']:.1f} windows/s |")
        for name, text in (
            ("whole", "`batch`, whole video"),
            ("filling", "... while the long memory fills (8.7 min)"),
            ("full", "... once it is full"),
        ):
            rate, times = part[f"{name}_windows_per_s"], part[f"{name}_times_plain"]
            lines.append(f"| {text} | {rate:.1f} windows/s, {times:.1f} times |")
        lines.append(f"| largest difference of a probability | {part['largest_difference']:.1g} |")
    if "stream" in figures:
        part = figures["stream"]
        for name, text in (("filling", "`stream`, per row, while it fills"), ("full", "... once it is full")):
            lines.append(f"| {text} | p50 {part[f'{name}_p50_ms']:.1f} ms, p99 {part[f'{name}_p99_ms']:.1f} ms |")
    if "hour" in figures:
        part = figures["hour"]
        shown = ", ".join(f"{value:,.0f}" for value in part["peak_mib_after_eighths"])
        what = f"peak memory over {part['rows'] / 14400:.2g} h, after each eighth, width {part['width']}"
        lines.append(f"| {what} | {shown} MiB |")
    if "train" in figures:
        part = figures["train"]
        for dropout in (0.2, 0.0):
            fused, plain = (part[f"{kind}_s_dropout_{dropout}"] for kind in ("fused", "formula"))
            what = f"training step, {part['batch_size']} windows, dropout {dropout:g}"
            lines.append(f"| {what} | {fused:.2f} s; attention by the formula {plain:.2f} s |")
    return "\n".join(lines) + "\n"


def fill_docs() -> None:
    text = DOCS.read_text(encoding="utf-8")
    figures = json.loads((RESULTS / "lstr.json").read_text())["figures"]
    marked = re.compile(r"(<!-- lstr.json -->\n).*?(<!-- end -->)", re.S)
    DOCS.write_text(marked.sub(lambda found: found[1] + table(figures) + found[2], text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=["batch", "stream", "hour", "train", "table"])
    parser.add_argument(
        "--rows", type=int, help="rows of the video; default 4,800 (batch), 3,600 (stream), 14,400 (hour)"
    )
    parser.add_argument("--batch-size", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    if arguments.part == "table":
        fill_docs()
        return
    if arguments.part == "batch":
        figures = batch(arguments.rows or 4800)
    elif arguments.part == "stream":
        figures = stream(arguments.rows or 3600)
    elif arguments.part == "hour":
        figures = stream(arguments.rows or 14400, width=256)
    else:
        figures = train(arguments.batch_size)
    print(json.dumps(figures, indent=2))
    path = RESULTS / "lstr.json"
    before = json.loads(path.read_text())["figures"] if path.exists() else {}
    write_result("lstr", before | {arguments.part: figures})


if __name__ == "__main__":
    main()
