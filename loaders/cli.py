"""`clipmill loader`: how fast clips come, and what they look like."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, get_args

import typer

from ingest.errors import ClipmillError

app = typer.Typer(no_args_is_help=True, help="Clips from frame stores: how fast they come, what they look like.")

MULTIPLE_VALUES = {
    "--shape": lambda word: word[:1].isdigit(),
    "--views": str.isdigit,
    "--jitter": str.isdigit,
}
"""Options that take several values after one name; `clipmill.py` spells them out."""

Root = Annotated[Path, typer.Argument(metavar="ROOT", help="Dataset root.")]
Split = Annotated[str | None, typer.Option(help="Split to load. Default: all videos.")]


@app.command()
def bench(
    root: Root,
    shape: Annotated[list[str], typer.Option(help="Clips to ask for, frames x pixels: 16x224 16x112.")] = (
        "16x224",
        "16x112",
    ),  # type: ignore[assignment]
    store: Annotated[list[str], typer.Option(help="Stores: frames-db, npy, raw-frames.")] = ("frames-db",),  # type: ignore[assignment]
    workers: Annotated[int, typer.Option(min=1, help="Decoders at once.")] = os.cpu_count() or 1,
    backend: Annotated[list[str] | None, typer.Option(help="cpu, dali. Default: those that are installed.")] = None,
    split: Split = None,
    seconds: Annotated[float, typer.Option(min=0.05, help="Seconds per measurement.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each setting.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder for bench.json and bench.png.")] = Path("loader-bench"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure clips per second of your data on this machine, for every level, kind of workers and backend, and say what to choose."""
    from loaders.bench import Shape, write_report
    from loaders.bench import bench as run
    from loaders.loader import Backend

    for name in backend or ():
        if name not in get_args(Backend):
            raise ClipmillError(f"--backend is {name!r}.", "Nothing was measured.", "Give cpu or dali.")
    report = run(
        root,
        [Shape.parse(text) for text in shape],
        store,
        num_workers=workers,
        backends=backend or None,
        split=split,
        seconds=seconds,
        num_rounds=rounds,
        on_progress=lambda what: print(what, file=sys.stderr, flush=True) if sys.stderr.isatty() else None,
    )
    files = write_report(report, out)
    if as_json:
        print(report.to_json())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("clip", "store", "level", "workers", "clips/s", "kB/clip", "read / decode / assemble")
    for one in report.measured:
        s = one.setting
        shares = " / ".join(f"{one.shares.get(name, 0):.0%}" for name in ("read", "decode", "assemble"))
        level = f"{s.level} px" if s.level else "chosen"
        table.add_row(
            str(s.shape), s.store, level, s.crew, f"{one.clips_per_s:,.0f}",
            f"{one.bytes_per_clip / 1e3:,.0f}", shares,
        )  # fmt: skip
    Console().print(table)
    for line in report.advice:
        print(line)
    print(f"Written: {files[0]} and {files[1]}")


@app.command()
def preview(
    root: Root,
    out: Annotated[Path, typer.Option(help="Folder for preview.png and preview.webp.")] = Path("loader-preview"),
    split: Split = None,
    store: Annotated[str, typer.Option(help="Store: frames-db, npy, raw-frames.")] = "frames-db",
    num_clips: Annotated[int, typer.Option("--clips", min=1, help="Clips to show.")] = 8,
    frames: Annotated[int, typer.Option(min=1, help="Frames per clip.")] = 16,
    interval: Annotated[int, typer.Option(min=1, help="Frames between two of a clip.")] = 1,
    size: Annotated[int, typer.Option(min=8, help="Height and width in pixels.")] = 112,
    jitter: Annotated[
        list[int], typer.Option(help="Short side before the crop, smallest and largest. Default: 8/7 and 10/7 of size.")
    ] = (),  # type: ignore[assignment]
    flip: Annotated[float, typer.Option(min=0, max=1, help="Probability of mirroring.")] = 0.5,
    recipe: Annotated[str | None, typer.Option(help="Augmentation: srtg-code, srtg-readme, ...")] = None,
    views: Annotated[list[int], typer.Option(help="Show evaluation views instead: clips and crops, such as 4 3.")] = (),  # type: ignore[assignment]
    seed: Annotated[int, typer.Option(help="Same seed, same clips.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is shown as JSON.")] = False,
) -> None:
    """Write a contact sheet and an animation of exactly what a trainer receives, with the numbers of the frames."""
    from loaders.augment import recipe_by_name
    from loaders.bench import Shape
    from loaders.clips import ClipSpec
    from loaders.dataset import ClipDataset
    from loaders.loader import ClipLoader
    from loaders.preview import preview as run
    from loaders.sampling import RandomInterval

    if len(views) not in (0, 2) or len(jitter) not in (0, 2):
        raise ClipmillError(
            "--views and --jitter take two numbers.", "Nothing was written.", "For example --views 4 3."
        )
    low, high = jitter or Shape(frames, size).short_side
    try:
        spec = ClipSpec(
            RandomInterval(frames, (interval,)), size, size, (low, low) if views else (low, high),
            flip=flip, views=(views[0], views[1]) if views else None, augment=recipe_by_name(recipe) if recipe else None,
        )  # fmt: skip
    except ValueError as error:
        raise ClipmillError(f"{error}.", "Nothing was written.", "Mend that option.") from None
    dataset = ClipDataset(root, split, store=store)
    with ClipLoader(dataset, spec, batch_size=1, seed=seed, workers="threads", num_workers=2) as loader:
        found = run(loader, out, num_clips=num_clips)
    if as_json:
        names = ("video_id", "label", "view", "frames")
        print(json.dumps([dict(zip(names, clip, strict=True)) for clip in found.clips], indent=2))
        return
    print(f"{len(found.clips)} clips of {frames} frames, {size}x{size} px.")
    print(f"Written: {found.sheet} and {found.animation}")
