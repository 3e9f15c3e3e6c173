"""`clipmill train`, `clipmill test` and `clipmill demo`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

_Method = Annotated[str, typer.Argument(metavar="METHOD", help="srtg (others follow).")]
_Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Config overrides: data.batch_size=8")
]


def train(
    method: _Method,
    config: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped recipe.")],
    overrides: _Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. Default: runs/METHOD-CONFIG.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="`auto` (the newest checkpoint, if any) or a checkpoint file.")
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Start from the weights of this file.")] = None,
    show_config: Annotated[bool, typer.Option("--show-config", help="Print the effective config and stop.")] = False,
) -> None:
    """Train a method. Ctrl-C or SIGTERM saves a checkpoint and stops; --resume auto goes on."""
    _sleep_at_barriers()
    from trainers.config import dump, find, load
    from trainers.engine.run import Stopped
    from trainers.method import find_method
    from trainers.session import run_training

    path = find(config, method)
    effective = load(path, ["method=" + method, *(overrides or [])], find_method(method).MethodConfig)
    print(dump(effective))
    if show_config:
        return
    folder = out or Path("runs") / f"{method}-{path.stem}"
    try:
        run = run_training(effective, folder, resume=resume, init=init)
    except Stopped as stop:
        print(
            f"Stopped by {stop.signal_name} at {stop.checkpoint}. Go on: the same command with --resume auto.",
            file=sys.stderr,
        )
        raise typer.Exit(130 if stop.signal_name == "SIGINT" else 143) from None
    best = run.checkpoints.folder / "best.pt"
    print(f"Done: {folder}, {run.step} steps, best validation top-1 {run.best_top1:.3f}.")
    print(f"Next: clipmill test {method} --checkpoint {best}")


def test(
    method: _Method,
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint of a run.")],
    overrides: _Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Test a checkpoint on the test split with all its views. Writes test.json and test.npz into the run's folder."""
    _sleep_at_barriers()
    from trainers.session import run_test

    figures = run_test(checkpoint, overrides or [], method)
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    clips, crops = figures["views"]
    print(
        f"top-1 {figures['top1']:.4f}   top-5 {figures['top5']:.4f}   mean class accuracy"
        f" {figures['mean_class_accuracy']:.4f}   loss {figures['loss']:.4f}"
    )
    print(f"{figures['videos']} videos, {clips} clips x {crops} crops each, {figures['seconds']:.1f} s")


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    num_videos: Annotated[int, typer.Option(min=64, help="Synthetic videos to make.")] = 320,
    overrides: _Overrides = None,
) -> None:
    """Synthetic videos -> ingest -> train -> test -> report, with the service watching: a few minutes on a laptop CPU."""
    from trainers.demo import run_demo

    summary = run_demo(out, seed=seed, num_videos=num_videos, overrides=overrides or [])
    print(json.dumps(summary, indent=2))
    print(f"Look at {out / 'report.html'}")


def _sleep_at_barriers() -> None:
    """Let OpenMP's threads sleep soon where they wait for each other, instead of spinning for milliseconds.

    Decode threads and other programs share the cores: with spinning, one busy core made a training step on two cores
    five times as long. Must come before torch is loaded; a value that the user has set stays.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
