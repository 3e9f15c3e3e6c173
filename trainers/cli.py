"""`clipmill train`, `clipmill test` and `clipmill demo`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

NOT_FINISHED = 75
"""Exit code of a run that its time limit ended: run the same command again (EX_TEMPFAIL)."""

_Method = Annotated[str, typer.Argument(metavar="METHOD", help="srtg, lstr, sbp or sbp_e2e.")]
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
    validate_every: Annotated[int | None, typer.Option(help="Epochs between validations.")] = None,
    devices: Annotated[int | None, typer.Option(help="Devices of each machine.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Machines.")] = None,
    precision: Annotated[str | None, typer.Option(help="32-true, 16-mixed or bf16-mixed.")] = None,
    stop_after: Annotated[str | None, typer.Option(help="Save and stop before this: seconds, or HH:MM:SS.")] = None,
    overfit_batches: Annotated[int | None, typer.Option(help="Train on the first so many batches alone.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be run, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: as JSON.")] = False,
    show_config: Annotated[bool, typer.Option("--show-config", help="Print the effective config and stop.")] = False,
) -> None:
    """Train a method. Ctrl-C or SIGTERM saves a checkpoint and stops; --resume auto goes on."""
    _sleep_at_barriers()
    from trainers.config import dump, find, load
    from trainers.engine.run import OUT_OF_TIME, Stopped
    from trainers.method import find_method
    from trainers.session import run_training

    given = {
        "validate_every": validate_every,
        "devices": devices,
        "nodes": nodes,
        "precision": precision,
        "stop_after": None if stop_after is None else _seconds(stop_after),
        "overfit_batches": overfit_batches,
    }
    path = find(config, method)
    options = [f"train.{key}={value}" for key, value in given.items() if value is not None]
    effective = load(path, ["method=" + method, *(overrides or []), *options], find_method(method).MethodConfig)
    if dry_run:
        from trainers.dry_run import describe, plan_run

        plan = plan_run(effective)
        print(json.dumps(plan, indent=2) if as_json else describe(plan))
        return
    print(dump(effective))
    if show_config:
        return
    folder = out or Path("runs") / f"{method}-{path.stem}"
    try:
        run = run_training(effective, folder, resume=resume, init=init)
    except Stopped as stop:
        print(
            f"Stopped by {stop.reason} at {stop.checkpoint}. Go on: the same command with --resume auto.",
            file=sys.stderr,
        )
        code = {"SIGINT": 130, OUT_OF_TIME: NOT_FINISHED}.get(stop.reason, 143)
        raise typer.Exit(code) from None
    if not run.fabric.is_global_zero:
        return
    best = run.checkpoints.folder / "best.pt"
    print(f"Done: {folder}, {run.step} steps, best validation {effective.train.best} {abs(run.best[0]):.3f}.")
    print(f"Next: clipmill test {method} --checkpoint {best}")


def _seconds(text: str) -> float:
    """Seconds of `90`, `1:30` or `23:50:00`. Raises: ClipmillError when it is none of these."""
    from ingest.errors import ClipmillError

    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or any(part < 0 for part in parts):
        raise ClipmillError(f"--stop-after {text!r} is no time.", "Nothing was run.", "Give seconds, or HH:MM:SS.")
    return sum(part * 60**place for place, part in enumerate(reversed(parts)))


def test(
    method: _Method,
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint of a run.")],
    overrides: _Overrides = None,
    mode: Annotated[str | None, typer.Option(help="lstr: batch, stream or stream-reference.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Test a checkpoint on the test split with all its views. Writes test.json and test.npz into the run's folder."""
    _sleep_at_barriers()
    from trainers.session import run_test

    chosen = [] if mode is None else [f"inference.mode={mode}"]
    figures = run_test(checkpoint, [*(overrides or []), *chosen], method)
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    named = {name: figures.get(key) for name, key in _SHOWN.items()}
    print("   ".join(f"{name} {value:.4f}" for name, value in named.items() if value is not None))
    clips, crops = figures["views"]
    print(f"{figures['videos']} videos, {clips} clips x {crops} crops each, {figures['seconds']:.1f} s")
    if figures["bad_videos"]:
        bad = figures["bad_videos"]
        print(f"{len(bad)} videos could not be read and are not in these figures: {', '.join(bad[:10])}")
        raise typer.Exit(1)


_SHOWN = {
    "top-1": "top1",
    "top-5": "top5",
    "mean class accuracy": "mean_class_accuracy",
    "mAP": "mean_average_precision",
    "loss": "loss",
}


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
