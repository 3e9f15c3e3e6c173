"""`clipmill ingest`: videos and labels to frame stores, and what a dataset root holds."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingest import checks_cli
from ingest.errors import ClipmillError

if TYPE_CHECKING:
    from ingest.convert import ConvertReport
    from ingest.dataset import DatasetStatus
    from ingest.plan import Plan
    from ingest.verify import Verification

app = typer.Typer(no_args_is_help=True, help="Videos and labels to frame stores.")
app.command("verify")(checks_cli.verify)
app.command("repair")(checks_cli.repair)
app.command("doctor")(checks_cli.doctor)
app.command("forecast")(checks_cli.forecast)
app.command("import")(checks_cli.import_)

MULTIPLE_VALUES = {"--short-side": str.isdigit, "--store": lambda word: word in ("frames-db", "npy")}
"""Options that take several values after one name, with what a value looks like; `clipmill.py` spells them out."""


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of videos.")],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Dataset root to write to.")],
    labels: Annotated[Path | None, typer.Option(help="Labels csv: label,youtube_id,time_start,time_end,split.")] = None,
    labels_format: Annotated[
        str,
        typer.Option("--format", help="Format of the labels: labels-csv, hmdb51, thumos14, ...; see docs/datasets."),
    ] = "labels-csv",
    cut: Annotated[bool, typer.Option("--cut", help="Sources are untrimmed: cut out each row's time span.")] = False,
    short_side: Annotated[list[int], typer.Option(help="Stored short sides in pixels: 256, or several: 256 128.")] = (
        256,
    ),  # type: ignore[assignment]
    store: Annotated[list[str], typer.Option(help="What to write: frames-db, npy (4 fps RGB arrays), or both.")] = (
        "frames-db",
    ),  # type: ignore[assignment]
    fps: Annotated[
        str, typer.Option(help="Frames per second of frames.db: native (every frame) or a number.")
    ] = "native",
    npy_fps: Annotated[float, typer.Option(help="Frames per second of the arrays.")] = 4.0,
    quality: Annotated[int, typer.Option(help="JPEG quality, 1 to 100.")] = 90,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = os.cpu_count() or 1,
    timeout: Annotated[float, typer.Option(help="Seconds after which a video counts as hanging.")] = 3600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Convert every video once into ROOT/jpg/<class>/<id>/frames.db. Finished videos are skipped; run it again at will."""
    from ingest.annotations.read import read_annotations
    from ingest.convert import ConvertOptions
    from ingest.convert import convert as run
    from ingest.plan import plan_folders, plan_labels
    from ingest.progress import shown

    source = Path(os.path.abspath(source))  # noqa: PTH100 - repair must find it from anywhere; links stay links
    options = ConvertOptions(tuple(short_side), quality, tuple(store), _rate(fps), npy_fps)
    if cut and not labels:
        raise ClipmillError("--cut needs time spans.", "Nothing was converted.", "Give them with --labels FILE.")
    plan = plan_labels(source, read_annotations(labels, labels_format), cut=cut) if labels else plan_folders(source)
    if dry_run:
        _print_plan(plan, options.settings, as_json)
        raise typer.Exit(0)
    try:
        with shown() as progress:
            report = run(plan, root, options, num_workers=workers, timeout_s=timeout, on_progress=progress)
    except KeyboardInterrupt:
        print(
            f"\nInterrupted. Finished videos are kept, nothing is half-written. Go on with: {_this_command()}",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    _print_report(report, plan, root, as_json)
    raise typer.Exit(1 if report.failures or report.missing else 0)


@app.command()
def status(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Dataset root.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a dataset root holds: videos, frames, bytes, failures by reason, the newest run."""
    from ingest.catalog import Catalog
    from ingest.dataset import dataset_status
    from ingest.verify import last_verification

    with Catalog.open(root) as catalog:
        found, verified = dataset_status(catalog), last_verification(catalog)
        failures = catalog.db.execute(
            "SELECT class_name, video_id, reason, message FROM videos WHERE state IN ('failed','missing')"
            " ORDER BY class_name, video_id LIMIT 1000"
        ).fetchall()
    if as_json:
        names = ("class", "video_id", "reason", "message")
        listed = [dict(zip(names, row, strict=True)) for row in failures]
        checked = asdict(verified) if verified else None
        print(json.dumps(asdict(found) | {"failures": listed, "last_verification": checked}, indent=2))
    else:
        _print_status(found, verified, failures, root)
    problems = found.states.get("failed", 0) + found.states.get("missing", 0) + found.states.get("pending", 0)
    raise typer.Exit(1 if problems else 0)


@app.command()
def labels(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Dataset root that holds the videos.")],
    annotations: Annotated[Path, typer.Option("--labels", help="Annotation file or folder with segments.")],
    labels_format: Annotated[
        str, typer.Option("--format", help="thumos14, tvseries, hdd, hacs-segments, activitynet.")
    ],
    name: Annotated[str | None, typer.Option(help="Entry of data_info.json. Default: the format in capitals.")] = None,
    rate: Annotated[float, typer.Option(help="Rows per second.")] = 4.0,
    rule: Annotated[str, typer.Option(help="half-open, or thumos-reference (end row included).")] = "half-open",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Write per-frame targets (T x C, column 0 background) into ROOT/target_perframe, and ROOT/data_info.json."""
    from ingest.annotations.read import read_annotations
    from ingest.labels import write_labels

    if rule not in ("half-open", "thumos-reference"):
        raise ClipmillError(f"--rule is {rule!r}.", "Nothing was written.", "Give half-open or thumos-reference.")
    found = read_annotations(annotations, labels_format)
    entry = name or labels_format.upper()
    report = write_labels(root, found, entry, rate=rate, rule=rule, exclusive=labels_format.startswith("hdd"))  # type: ignore[arg-type]
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print(
            f"{report.num_videos:,} videos, {report.num_rows:,} rows of {report.num_classes} classes, entry {entry!r}."
        )
        print(f"training: {len(report.train_sessions):,} videos, test: {len(report.test_sessions):,}")
        for line in report.clipped[:10]:
            print(f"segment over the end: {line}")
        if report.missing:
            print(f"Not in {root}: {len(report.missing):,}, for example {', '.join(report.missing[:3])}.")
            print("Next: fetch and convert them, then run this again.")
        else:
            print(f"All there: {root / 'target_perframe'}")
    raise typer.Exit(1 if report.missing else 0)


@app.command("demo-videos")
def demo_videos(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")],
    num_videos: Annotated[int, typer.Option(min=8, help="Number of trimmed videos.")] = 320,
    num_untrimmed: Annotated[int, typer.Option(min=0, help="Number of untrimmed videos, in OUT/untrimmed.")] = 0,
    seed: Annotated[int, typer.Option(help="Same seed, same videos.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Videos made at once.")] = os.cpu_count() or 1,
) -> None:
    """Make synthetic videos of 8 motions (H.264) with labels: data to try everything on, without a download."""
    from ingest.demo import make_trimmed, make_untrimmed

    made = make_trimmed(out, num_videos=num_videos, seed=seed, num_workers=workers)
    print(f"{len(made.videos)} videos and labels in {out}")
    if num_untrimmed:
        made = make_untrimmed(out / "untrimmed", num_videos=num_untrimmed, seed=seed, num_workers=workers)
        print(f"{len(made.videos)} untrimmed videos and annotations in {out / 'untrimmed'}")
    print(f"Next: clipmill ingest convert {out / 'videos'} ROOT --labels {out / 'labels.csv'}")


def _rate(text: str) -> float | None:
    """The rate that --fps means: None for `native`."""
    if text == "native":
        return None
    try:
        return float(text)
    except ValueError:
        raise ClipmillError(f"--fps is {text!r}.", "Nothing was converted.", "Give `native` or a number.") from None


def _print_plan(plan: Plan, settings: str, as_json: bool) -> None:
    counts = {"videos": len(plan.jobs), "classes": len(plan.class_names), "missing": len(plan.missing),
              "unlisted": len(plan.unlisted), "settings": settings}  # fmt: skip
    print(json.dumps(counts, indent=2) if as_json else "\n".join(f"{name}: {value}" for name, value in counts.items()))


def _print_report(report: ConvertReport, plan: Plan, root: Path, as_json: bool) -> None:
    from rich.console import Console

    from ingest.plan import describe
    from ingest.progress import summary_table

    if as_json:
        print(json.dumps({
            "converted": report.progress.done, "skipped": report.progress.skipped, "frames": report.progress.frames,
            "seconds": round(report.seconds, 3), "missing": [list(key) for key in report.missing],
            "failures": [list(failure) for failure in report.failures], "unlisted": len(plan.unlisted), "notes": plan.notes,
        }, indent=2))  # fmt: skip
        return
    Console().print(summary_table(report))
    for class_name, video_id, reason, message in report.failures[:20]:
        print(f"failed: {class_name or '_'}/{video_id}: {reason}: {message}")
    if len(report.failures) > 20:
        print(f"... and {len(report.failures) - 20} more")
    for note in plan.notes[:5]:
        print(f"labels: {note}")
    if plan.unlisted:
        print(f"Not named by the labels and left out: {describe(plan.unlisted)}")
    if report.failures or report.missing:
        print(
            f"See what is wrong: clipmill ingest status {root}. The same command again tries only what is not finished."
        )
    else:
        print(f"All there. Next: clipmill train srtg --config demo data.root={root}")


def _print_status(
    found: DatasetStatus, verified: Verification | None, failures: list[tuple[str, str, str, str]], root: Path
) -> None:
    from rich.console import Console
    from rich.table import Table

    from ingest.progress import duration

    console = Console()
    table = Table(title=str(root), show_header=False)
    table.add_row(
        "videos", ", ".join(f"{count:,} {state}" for state, count in sorted(found.states.items(), reverse=True))
    )
    table.add_row("frames", f"{found.num_frames:,} ({duration(found.duration_s)} of video)")
    for level in found.levels:
        table.add_row(
            f"{level.store} {level.short_side} px",
            f"{level.num_videos:,} videos, {level.num_frames:,} frames, {level.num_bytes / 1e6:,.1f} MB",
        )
    for split, states in found.splits.items():
        table.add_row(
            f"split {split or '(none)'}",
            ", ".join(f"{n:,} {state}" for state, n in sorted(states.items(), reverse=True)),
        )
    table.add_row("classes", f"{len(found.class_names):,}")
    if found.run:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.run.started_at))
        left = f", {duration(found.run.time_left_s)} left" if found.run.state == "running" else ""
        table.add_row(
            "newest run", f"{found.run.state}, {when}: {found.run.done:,} converted, {found.run.failed:,} failed{left}"
        )
    if verified:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(verified.at))
        depth = "every frame decoded" if verified.deep else "every byte read"
        table.add_row("last verified", f"{when}, {depth}: {verified.problems:,} problems in {verified.videos:,} videos")
    console.print(table)
    for class_name, video_id, reason, message in failures[:20]:
        print(f"{class_name or '_'}/{video_id}: {reason}: {message}")
    if len(failures) > 20:
        print(f"... and {len(failures) - 20} more (all with --json)")
    pending = found.states.get("pending", 0)
    if failures or pending:
        print(
            f"{len(failures) + pending} videos are not there. Mend or fetch the files, then run clipmill ingest convert again."
        )
    else:
        print("Everything is there.")


def _this_command() -> str:
    return " ".join(["clipmill", *sys.argv[1:]])
