"""A run as one self-contained HTML file: curves, confusion matrix, clips as the trainer saw them, speed over time."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from loaders import ClipLoader
from loaders.telemetry import TelemetryReader
from trainers.engine.logs import read_csv

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2330;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #d5dae2;padding-bottom:.2rem}
img{max-width:100%;height:auto}table{border-collapse:collapse;margin:.6rem 0}
td,th{padding:.25rem .8rem .25rem 0;text-align:left;border-bottom:1px solid #e6e9ef}td.n{text-align:right}
.big{font-size:2.2rem;font-weight:600}.note{color:#5a6577}
@media(prefers-color-scheme:dark){body{background:#14171d;color:#dfe4ec}h2,td,th{border-color:#2d3440}.note{color:#94a0b3}
img{background:#fff;border-radius:4px}}
"""


@dataclass(frozen=True)
class Section:
    """A heading and its content, as HTML."""

    title: str
    body: str


def write_report(path: Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Write the page. `lead` and the sections' bodies are HTML; nothing in it asks another host for anything."""
    from ingest.atomic import write_text

    body = "\n".join(f"<section><h2>{html.escape(s.title)}</h2>{s.body}</section>" for s in sections)
    write_text(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>{lead}{body}"
        "</body></html>",
    )


def table(rows: Mapping[str, Any]) -> str:
    """Two columns: name and value."""
    lines = (f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())
    return f"<table>{''.join(lines)}</table>"


def curves(folder: Path) -> str:
    """Loss and top-1 (or mean average precision) of training and validation, over epochs, from the run's CSV logs."""
    rows = read_csv(folder / "epochs.csv")
    steps = read_csv(folder / "steps.csv")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    shown = "top1" if any(row["top1"] for row in rows) else "mean_average_precision"
    per_epoch = max(int(row["step"]) / (int(row["epoch"]) + 1) for row in rows)
    at = [(int(row["step"]) + 1) / per_epoch for row in steps]
    left.plot(at, [float(row["loss"]) for row in steps], color="#b9c6dd", linewidth=0.8, label="each step")
    for split, colour in (("train", "#2458b3"), ("val", "#d9730d")):
        own = [row for row in rows if row["split"] == split]
        epochs = [int(row["epoch"]) + 1 for row in own]
        left.plot(epochs, [float(row["loss"]) for row in own], color=colour, label=split)
        right.plot(
            epochs, [100 * float(row[shown]) if row[shown] else np.nan for row in own], color=colour, label=split
        )
    left.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    right.set(xlabel="epoch", ylabel="top-1 (%)" if shown == "top1" else "mean average precision (%)", ylim=(0, 102))
    for axes in (left, right):
        _finish(axes)
    return _picture(figure, "Loss and top-1 accuracy over epochs")


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Confusion matrix as a picture: rows are true classes."""
    counts = np.array(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(3.0 + 0.45 * len(names), 14)
    figure, axes = plt.subplots(figsize=(side, side * 0.85))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= 30:
        for (y, x), count in np.ndenumerate(counts):
            if count:
                axes.text(
                    x, y, str(count), ha="center", va="center", color="white" if shares[y, x] > 0.5 else "#1c2330"
                )
    return _picture(figure, "Confusion matrix")


def speed(folder: Path) -> str:
    """r, f and b in clips per second over the run, from its telemetry, and where the loader's time went."""
    with TelemetryReader(folder) as telemetry:
        rows = telemetry.speed(limit=100_000, phase="train")
        stages = telemetry.stages()
    figure, axes = plt.subplots(figsize=(10, 3.4))
    start = rows[0]["at"] if rows else 0
    names = {
        "read": ("r: read", "#2e8b57"),
        "forward": ("f: forward", "#2458b3"),
        "backward": ("b: backward", "#d9730d"),
    }
    for key, (label, colour) in names.items():
        axes.plot([row["at"] - start for row in rows], [row[key] for row in rows], label=label, color=colour)
    axes.set(xlabel="seconds", ylabel="clips per second", yscale="log")
    _finish(axes)
    busy = sum(stage.seconds for name, stage in stages.items() if name != "wait") or 1
    shares = {
        name: f"{stage.seconds:.1f} s of thread time ({100 * stage.seconds / busy:.0f} %), {stage.count:,} clips"
        for name, stage in stages.items()
        if name != "wait"
    }
    if "wait" in stages:
        shares["wait"] = f"{stages['wait'].seconds:.1f} s in which the trainer waited for clips"
    return _picture(figure, "Read, forward and backward speed over time") + table(shares)


def clips(loader: ClipLoader, num_clips: int = 8) -> str:
    """The first clips of an epoch exactly as the trainer gets them: one row per clip, with frame numbers."""
    rows: list[tuple[str, np.ndarray, np.ndarray]] = []
    for batch in loader:
        for i in range(min(len(batch), num_clips - len(rows))):
            name = loader.dataset.class_names[int(batch.labels[i])]
            rows.append((name, batch.frames[i].numpy().copy(), batch.frame_indices[i].numpy()))
        if len(rows) >= num_clips:
            break
    return sheet(rows, bgr=loader.spec.colour == "BGR", label="Clips as the trainer saw them")


def sheet(rows: Sequence[tuple[str, np.ndarray, np.ndarray]], *, bgr: bool, label: str, num_columns: int = 8) -> str:
    """Contact sheet: per row a title, frames (T, H, W, C) and their numbers (T,), of which some are shown."""
    num_frames = len(rows[0][1])
    shown = np.linspace(0, num_frames - 1, min(num_columns, num_frames)).round().astype(int)
    figure, grid = plt.subplots(len(rows), len(shown), figsize=(1.25 * len(shown), 1.35 * len(rows)), squeeze=False)
    for line, (title, frames, indices) in zip(grid, rows, strict=True):
        for axes, t in zip(line, shown, strict=True):
            axes.imshow(frames[t][..., ::-1] if bgr else frames[t])
            axes.set_title(f"{indices[t]}", fontsize=7, pad=2)
            axes.set_xticks([])
            axes.set_yticks([])
        wide = "\n" in title
        line[0].set_ylabel(
            title, fontsize=7 if wide else 8, rotation=0 if wide else 90, ha="right" if wide else "center"
        )
    figure.tight_layout(pad=0.4)
    return _picture(figure, label)


def per_class(counts: np.ndarray, names: Sequence[str], most: int = 60) -> str:
    """Bars of each class's accuracy, the worst first; `counts` is a confusion matrix. Classes without a video are left out."""
    totals = counts.sum(1)
    seen = np.flatnonzero(totals)
    shares = counts.diagonal()[seen] / totals[seen]
    order = np.argsort(shares, kind="stable")[:most]
    figure, axes = plt.subplots(figsize=(8, 0.6 + 0.24 * len(order)))
    axes.barh(range(len(order)), 100 * shares[order], color="#2458b3", height=0.7)
    axes.set_yticks(range(len(order)), [f"{names[seen[i]]} ({totals[seen[i]]})" for i in order], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="accuracy (%); in brackets: videos", xlim=(0, 100))
    axes.grid(True, axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    rest = len(seen) - len(order)
    note = f'<p class="note">and {rest} classes that did better</p>' if rest > 0 else ""
    return _picture(figure, "Accuracy by class") + note


def _finish(axes: plt.Axes) -> None:
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _picture(figure: Figure, text: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
