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
from ingest.units import counted, duration

if TYPE_CHECKING:
    from ingest.convert import ConvertReport
    from ingest.dataset import DatasetStatus
    from ingest.executors import Executor
    from ingest.plan import Plan, Shard
    from ingest.verify import Verification

app = typer.Typer(no_args_is_help=True, help="Videos and labels to frame stores.")
app.command("verify")(checks_cli.verify)
app.command("repair")(checks_cli.repair)
app.command("doctor")(checks_cli.doctor)
app.command("forecast")(checks_cli.forecast)
app.command("import")(checks_cli.import_)

MULTIPLE_VALUES = {
    "--short-side": str.isdigit,
    "--store": lambda word: word in ("frames-db", "npy", "raw-frames"),
}
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
    store: Annotated[
        list[str], typer.Option(help="What to write: frames-db, npy (4 fps RGB arrays), raw-frames (a file each).")
    ] = ("frames-db",),  # type: ignore[assignment]
    fps: Annotated[
        str, typer.Option(help="Frames per second of frames-db and raw-frames: native (every frame) or a number.")
    ] = "native",
    npy_fps: Annotated[float, typer.Option(help="Frames per second of the arrays.")] = 4.0,
    codec: Annotated[str, typer.Option(help="jpeg, png (nothing is lost) or webp.")] = "jpeg",
    quality: Annotated[
        int | None, typer.Option(help="JPEG or WebP quality, 1 to 100. Default: 90.", show_default=False)
    ] = None,
    aspect: Annotated[
        str, typer.Option(help="Pixels that are not square: keep them as coded, or make them square.")
    ] = "keep",
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = os.cpu_count() or 1,
    timeout: Annotated[float, typer.Option(help="Seconds after which a video counts as hanging.")] = 3600.0,
    memory_limit: Annotated[int, typer.Option(min=64, help="MB that a video may make its worker grow by.")] = 4096,
    max_failures: Annotated[
        str | None, typer.Option(help="Stop when more videos fail: a count, or a share as 1%.", show_default=False)
    ] = None,
    quarantine_after: Annotated[
        int, typer.Option(min=0, help="Leave a video alone after so many failures in a row; 0: never.")
    ] = 3,
    retry: Annotated[bool, typer.Option("--retry", help="Try the videos in quarantine once more.")] = False,
    scratch: Annotated[
        Path | None, typer.Option(help="Local folder to build in, when ROOT is on a network.", show_default=False)
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Do part i of n, as i/n; then: clipmill ingest merge ROOT.", show_default=False)
    ] = None,
    executor: Annotated[str, typer.Option(help="Where workers run: local, or ray (extra `ray`).")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join. Default: the one that is set up, or this machine.")
    ] = None,
    ignore_space: Annotated[
        bool, typer.Option("--ignore-space", help="Begin though the disk looks too small.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Convert every video once into ROOT/jpg/<class>/<id>/frames.db. Finished videos are skipped; run it again at will."""
    from ingest.annotations.read import read_annotations
    from ingest.convert import convert as run
    from ingest.options import ConvertOptions, parse_rate
    from ingest.plan import plan_folders, plan_labels
    from ingest.progress import shown

    source = Path(os.path.abspath(source))  # noqa: PTH100 - repair must find it from anywhere; links stay links
    if codec == "png" and quality is not None:
        raise ClipmillError("PNG has no quality.", "Nothing was converted.", "Leave --quality out, or take webp.")
    options = ConvertOptions(
        short_sides=tuple(short_side),
        quality=90 if quality is None else quality,
        stores=tuple(store),
        fps=parse_rate(fps),
        npy_fps=npy_fps,
        codec=codec,  # type: ignore[arg-type]
        aspect=aspect,  # type: ignore[arg-type]
    )
    if cut and not labels:
        raise ClipmillError("--cut needs time spans.", "Nothing was converted.", "Give them with --labels FILE.")
    plan = plan_labels(source, read_annotations(labels, labels_format), cut=cut) if labels else plan_folders(source)
    part = _shard(shard)
    if dry_run:
        if part:
            plan.keep_shard(part)
        _print_plan(plan, options.settings, as_json)
        raise typer.Exit(0)
    where = _executor(executor, address)
    try:
        with shown() as progress:
            report = run(
                plan,
                root,
                options,
                num_workers=workers,
                timeout_s=timeout,
                memory_bytes=memory_limit << 20,
                max_failures=_failures(max_failures),
                quarantine_after=quarantine_after or None,
                retry=retry,
                scratch=scratch,
                shard=part,
                ignore_space=ignore_space,
                executor=where,
                on_progress=progress,
            )
    except KeyboardInterrupt:
        print(
            f"\nInterrupted. Finished videos are kept, nothing is half-written. Go on with: {_this_command()}",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    _print_report(report, plan, root, as_json, part)
    raise typer.Exit(1 if report.failures or report.missing or report.progress.quarantined else 0)


@app.command()
def merge(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Dataset root that shards were converted into.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Take the catalogs of finished shards (convert --shard i/n) into the one catalog. Run it again at will."""
    from ingest.merge import merge_shards

    report = merge_shards(root)
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print(
            f"{counted(report.shards, 'shard')} merged: {counted(report.videos, 'video')}, {report.failed:,} of them failed."
        )
        if report.waiting:
            print(f"Not there yet: shards {', '.join(report.waiting)}. Merge again when they are.")
        else:
            print(f"Next: clipmill ingest status {root}")
    raise typer.Exit(1 if report.failed or report.waiting else 0)


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
            "SELECT class_name, video_id, reason, message FROM videos WHERE state IN ('failed','quarantined','missing')"
            " ORDER BY class_name, video_id LIMIT 1000"
        ).fetchall()
    if as_json:
        names = ("class", "video_id", "reason", "message")
        listed = [dict(zip(names, row, strict=True)) for row in failures]
        checked = asdict(verified) if verified else None
        print(json.dumps(asdict(found) | {"failures": listed, "last_verification": checked}, indent=2))
    else:
        _print_status(found, verified, failures, root)
    problems = sum(count for state, count in found.states.items() if state != "ok")
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


def _shard(text: str | None) -> Shard | None:
    from ingest.plan import Shard

    if text is None:
        return None
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit()):
        raise ClipmillError(f"--shard is {text!r}.", "Nothing was converted.", "Give i/n, for example 0/4 to 3/4.")
    return Shard(int(index), int(count))


def _failures(text: str | None) -> float | None:
    """A count, or a share below 1."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1
    if value < 0 or (text.endswith("%") and value >= 1) or (not text.endswith("%") and value != int(value)):
        what = f"--max-failures is {text!r}."
        raise ClipmillError(what, "Nothing was converted.", "Give a count such as 100, or a share such as 1%.")
    return value


def _executor(name: str, address: str | None) -> Executor:
    from ingest.executors import run_jobs

    if name == "local" and address is None:
        return run_jobs
    if name == "ray":
        from ingest.ray_executor import on_ray

        return on_ray(address)
    raise ClipmillError(
        f"--executor is {name!r}" + (f" and --address {address!r}." if name == "local" else "."),
        "Nothing was converted.",
        "Give local, or ray (which may have an --address).",
    )


def _print_plan(plan: Plan, settings: str, as_json: bool) -> None:
    counts = {"videos": len(plan.jobs), "classes": len(plan.class_names), "missing": len(plan.missing),
              "unlisted": len(plan.unlisted), "settings": settings}  # fmt: skip
    print(json.dumps(counts, indent=2) if as_json else "\n".join(f"{name}: {value}" for name, value in counts.items()))


def _print_report(report: ConvertReport, plan: Plan, root: Path, as_json: bool, shard: Shard | None) -> None:
    from rich.console import Console

    from ingest.plan import describe
    from ingest.progress import summary_table

    if as_json:
        print(json.dumps({
            "converted": report.progress.done, "skipped": report.progress.skipped, "frames": report.progress.frames,
            "seconds": round(report.seconds, 3), "missing": [list(key) for key in report.missing],
            "failures": [list(failure) for failure in report.failures], "reasons": dict(report.progress.reasons.most_common()),
            "quarantined": report.progress.quarantined, "unlisted": len(plan.unlisted), "notes": plan.notes + report.notes,
        }, indent=2))  # fmt: skip
        return
    Console().print(summary_table(report))
    for class_name, video_id, reason, message in report.failures[:20]:
        print(f"failed: {class_name or '_'}/{video_id}: {reason}: {message}")
    if len(report.failures) > 20:
        print(f"... and {len(report.failures) - 20} more")
    for note in [*(f"labels: {note}" for note in plan.notes[:5]), *report.notes]:
        print(note)
    if plan.unlisted:
        print(f"Not named by the labels and left out: {describe(plan.unlisted)}")
    if report.failures or report.missing:
        print(
            f"See what is wrong: clipmill ingest status {root}. The same command again tries only what is not finished."
        )
    elif shard:
        print(f"Shard {shard} is there. When all are: clipmill ingest merge {root}")
    else:
        print(f"All there. Next: clipmill train srtg --config demo data.root={root}")


def _print_status(
    found: DatasetStatus, verified: Verification | None, failures: list[tuple[str, str, str, str]], root: Path
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=str(root), show_header=False)
    table.add_row(
        "videos", ", ".join(f"{count:,} {state}" for state, count in sorted(found.states.items(), reverse=True))
    )
    table.add_row("frames", f"{found.num_frames:,} ({duration(found.duration_s)} of video)")
    for level in found.levels:
        table.add_row(
            f"{level.store} {level.short_side} px",
            f"{counted(level.num_videos, 'video')}, {counted(level.num_frames, 'frame')}, {level.num_bytes / 1e6:,.1f} MB",
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
        table.add_row(
            "last verified",
            f"{when}, {depth}: {counted(verified.problems, 'problem')} in {counted(verified.videos, 'video')}",
        )
    console.print(table)
    for class_name, video_id, reason, message in failures[:20]:
        print(f"{class_name or '_'}/{video_id}: {reason}: {message}")
    if len(failures) > 20:
        print(f"... and {len(failures) - 20} more (all with --json)")
    pending = found.states.get("pending", 0)
    if failures or pending:
        print(
            f"Not there: {counted(len(failures) + pending, 'video')}. Mend or fetch the files, then run clipmill ingest convert again."
        )
    else:
        print("Everything is there.")


def _this_command() -> str:
    return " ".join(["clipmill", *sys.argv[1:]])
