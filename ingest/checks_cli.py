"""`clipmill ingest verify | repair | doctor | forecast | import`: plain functions, registered by `ingest.cli`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.units import counted, duration, size

if TYPE_CHECKING:
    from ingest.annotations.rows import Annotations
    from ingest.forecast import Forecast
    from ingest.verify import Finding

_MOST_LINES = 20

Root = Annotated[Path, typer.Argument(metavar="ROOT", help="Dataset root.")]
Workers = Annotated[int, typer.Option(min=1, help="Worker processes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Timeout = Annotated[float, typer.Option(help="Seconds after which a video counts as hanging.")]
LabelsFormat = Annotated[str, typer.Option("--format", help="Format of the labels file.")]

_WORKERS = os.cpu_count() or 1


def verify(
    root: Root,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every frame of every level as well.")] = False,
    workers: Workers = _WORKERS,
    timeout: Timeout = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Compare what is stored with the catalog and with its own checksums. Reads every byte, changes nothing stored."""
    from ingest.progress import shown
    from ingest.verify import verify as run

    with shown("verify") as progress:
        report = run(root, num_workers=workers, deep=deep, timeout_s=timeout, on_progress=progress)
    if as_json:
        print(report.to_json())
        raise typer.Exit(1 if report.findings else 0)
    how = "every byte read, every frame decoded" if deep else "every byte read"
    print(f"{counted(report.videos, 'video')}, {counted(report.frames, 'frame')}: {how} in {duration(report.seconds)}")
    for kind, count in report.counts.items():
        print(f"{kind}: {count:,}")
    _print_some(f"{f.where}: {f.kind}: {f.message}" for f in report.findings)
    for note in report.notes:
        print(note)
    if report.broken:
        print(
            f"Broken: {counted(len(report.broken), 'video')}. Next: clipmill ingest repair {root}{' --deep' if deep else ''}"
        )
    elif report.findings:
        print("All that the catalog counts is whole. The extra ones: convert or import again, or remove their folders.")
    else:
        print(
            "All is whole."
            if deep
            else f"All is whole. To decode every frame too: clipmill ingest verify {root} --deep"
        )
    raise typer.Exit(1 if report.findings else 0)


def repair(
    root: Root,
    from_json: Annotated[
        Path | None, typer.Option(help="Report of verify --json, instead of verifying again.", show_default=False)
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Verify by decoding every frame.")] = False,
    workers: Workers = _WORKERS,
    timeout: Timeout = 3600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is broken, mend nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make again what verify finds broken, from the sources and with the settings of the catalog; nothing else is touched."""
    from ingest.progress import shown
    from ingest.repair import repair as run
    from ingest.verify import findings_from_json
    from ingest.verify import verify as look

    findings: list[Finding]
    if from_json:
        findings = findings_from_json(from_json)
    else:
        with shown("verify") as progress:
            findings = look(root, num_workers=workers, deep=deep, timeout_s=timeout, on_progress=progress).findings
    if dry_run:
        broken = [finding for finding in findings if finding.kind != "extra"]
        if as_json:
            print(json.dumps({"would_mend": sorted({finding.where for finding in broken})}, indent=2))
        else:
            _print_some(f"{f.where}: {f.kind}: {f.message}" for f in broken)
            print(f"To be mended: {counted(len({f.key for f in broken}), 'video')}. Next: the same without --dry-run")
        raise typer.Exit(1 if broken else 0)
    with shown("repair") as progress:
        report = run(root, findings, num_workers=workers, timeout_s=timeout, on_progress=progress)
    if as_json:
        print(report.to_json())
        raise typer.Exit(1 if report.not_mended else 0)
    for action, count in report.actions.items():
        print(f"{action}: {count:,}")
    _print_some(f"{v.class_name or '_'}/{v.video_id}: {v.action}: {v.note}" for v in report.mended if v.note)
    for reason, count in report.reasons.items():
        print(f"not mended, {reason}: {count:,}")
    _print_some(
        f"{v.class_name or '_'}/{v.video_id}: {v.reason}: {v.message}"
        + (" (no longer counted: its database is gone)" if v.forgotten else "")
        for v in report.not_mended
    )
    if report.extra:
        print(f"{report.extra:,} databases that the catalog does not count were left alone.")
    if report.not_mended:
        print(
            f"Not mended, left as before: {counted(len(report.not_mended), 'video')}. Bring their sources back, then run"
            f" the same again; or convert from another copy: clipmill ingest convert SRC {root}"
        )
    elif report.mended:
        print(
            f"{counted(len(report.mended), 'video')} mended in {duration(report.seconds)}. Next: clipmill ingest verify {root}"
        )
    else:
        print("Nothing to mend.")
    raise typer.Exit(1 if report.not_mended else 0)


def doctor(
    root: Root,
    labels: Annotated[Path | None, typer.Option(help="Labels to compare with, instead of the catalog's.")] = None,
    format: LabelsFormat = "labels-csv",
    as_json: AsJson = False,
) -> None:
    """Look for what training would trip over or learn wrongly: missing, extra, doubled, misfiled or implausible videos."""
    from ingest.doctor import doctor as run

    report = run(root, _labels(labels, format) if labels else None)
    if as_json:
        print(report.to_json())
        raise typer.Exit(1 if report.complaints else 0)
    print(f"{report.videos:,} stored videos, {report.labels:,} labels")
    for kind, count in report.counts.items():
        print(f"{kind}: {count:,}")
        _print_some((f"  {c.where}: {c.message}" for c in report.complaints if c.kind == kind), indent="  ")
    if report.complaints:
        print(
            f"{counted(len(report.complaints), 'thing')} to look at, the gravest first. All of them: clipmill ingest doctor {root} --json"
        )
    else:
        print(f"Nothing to complain of. Whether the files are whole: clipmill ingest verify {root}")
    raise typer.Exit(1 if report.complaints else 0)


def forecast(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of videos.")],
    root: Annotated[
        Path | None, typer.Option(help="Target, to compare its free space; nothing is written there.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Labels: only the videos they name count.")] = None,
    format: LabelsFormat = "labels-csv",
    store: Annotated[list[str], typer.Option(help="Stores: frames-db, npy, raw-frames.")] = ("frames-db",),  # type: ignore[assignment]
    short_side: Annotated[list[int], typer.Option(help="Short sides in pixels: 256, or several: 256 128.")] = (256,),  # type: ignore[assignment]
    fps: Annotated[str, typer.Option(help="Frames per second of pictures: native or a number.")] = "native",
    codec: Annotated[str, typer.Option(help="jpeg, png or webp.")] = "jpeg",
    quality: Annotated[int, typer.Option(help="JPEG or WebP quality, 1 to 100.")] = 90,
    workers: Workers = _WORKERS,
    seed: Annotated[int, typer.Option(help="Same seed, same sample.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Convert 20 videos for trial into a temporary folder, and say what all of them will take: bytes and time."""
    from ingest.forecast import forecast as run
    from ingest.options import ConvertOptions, parse_rate
    from ingest.plan import plan_folders, plan_labels
    from ingest.progress import shown

    options = ConvertOptions(tuple(short_side), quality, tuple(store), parse_rate(fps), codec=codec)  # type: ignore[arg-type]
    plan = plan_labels(source, _labels(labels, format)) if labels else plan_folders(source)
    with shown("forecast") as progress:
        found = run(plan.jobs, options, num_workers=workers, root=root, seed=seed, on_progress=progress)
    if as_json:
        print(found.to_json())
    else:
        _print_forecast(found, source, root)
    raise typer.Exit(1 if found.fits is False or found.failed else 0)


def import_(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of frame databases or of jpg files per video.")],
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Dataset root to write to; SRC itself to upgrade in place.")
    ],
    fps: Annotated[float, typer.Option(help="Frame rate to assume: such stores do not hold one.")] = 30.0,
    quality: Annotated[
        int, typer.Option(help="JPEG quality of the frames if it is known; only noted.", show_default=False)
    ] = 0,
    workers: Workers = _WORKERS,
    timeout: Timeout = 3600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what was found, write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take in frames that were extracted before: dataset2database databases, or folders of jpg. Nothing is encoded again."""
    from ingest.legacy import ImportOptions, find_legacy, import_legacy
    from ingest.progress import shown

    options = ImportOptions(fps, quality)
    if dry_run:
        videos = find_legacy(source, root)
        counts = {"videos": len(videos), "classes": len({video.key.class_name for video in videos} - {""}),
                  "settings": options.settings}  # fmt: skip
        lines = "\n".join(f"{name}: {value}" for name, value in counts.items())
        print(json.dumps(counts, indent=2) if as_json else f"{lines}\nNext: the same without --dry-run")
        raise typer.Exit(0)
    with shown("import") as progress:
        report = import_legacy(source, root, options, num_workers=workers, timeout_s=timeout, on_progress=progress)
    p = report.progress
    if as_json:
        print(json.dumps({
            "imported": p.done, "skipped": p.skipped, "frames": p.frames, "seconds": round(report.seconds, 3),
            "failures": [list(failure) for failure in report.failures], "reasons": report.reasons,
        }, indent=2))  # fmt: skip
        raise typer.Exit(1 if report.failures else 0)
    print(
        f"imported: {counted(p.done, 'video')}, {counted(p.frames, 'frame')}, in {duration(report.seconds)}; already there: {p.skipped:,}"
    )
    if p.done:
        print(f"Their times are not known and are assumed: {fps:g} frames per second.")
    for reason, count in report.reasons.items():
        print(f"failed, {reason}: {count:,}")
    _print_some(f"{c or '_'}/{video}: {reason}: {message}" for c, video, reason, message in report.failures)
    if report.failures:
        print(
            f"{len(report.failures):,} were left as they are. Convert them from their videos: clipmill ingest convert SRC {root}"
        )
    else:
        print(f"All there. Next: clipmill ingest verify {root} --deep")
    raise typer.Exit(1 if report.failures else 0)


def _labels(path: Path, format: str) -> Annotations:
    """Rows of a labels file. A plain csv is taken as it stands: a video in two splits is for doctor to say."""
    from ingest.annotations.labels_csv import read_labels_table
    from ingest.annotations.read import read_annotations

    return read_labels_table(path, "train") if format == "labels-csv" else read_annotations(path, format)


def _print_forecast(found: Forecast, source: Path, root: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Forecast", show_header=False)
    table.add_row(
        "videos", f"{found.videos:,}, {duration(found.duration_s)} ± {duration(found.duration_error_s)} of video"
    )
    for level in found.levels:
        per_s = f"{level.bytes_per_s / 1e3:,.1f} kB and {level.seconds_per_s:.3f} s of work per second of video"
        table.add_row(f"{level.store} {level.short_side} px", f"{size(level.num_bytes)}; {per_s}")
    table.add_row("bytes", f"{size(found.num_bytes)} ± {size(found.num_bytes_error)}")
    table.add_row("time", f"{duration(found.seconds)} ± {duration(found.seconds_error)} with {found.workers} workers")
    if found.free_bytes is not None:
        table.add_row("free on the target", size(found.free_bytes))
    Console().print(table)
    print(f"From {counted(found.sampled, 'video')} converted for trial and {counted(found.probed, 'header')}.")
    if found.unreadable:
        print(f"{found.unreadable:,} of {found.probed:,} files do not open or do not say how long they are.")
    _print_some(f"{c or '_'}/{video}: {reason}: {message}" for c, video, reason, message in found.failed)
    if found.fits is False:
        print(f"It does not fit on {root}. Next: another target, a lower --quality, or smaller --short-side.")
    else:
        fits = "It fits. " if found.fits else ""
        print(f"{fits}Next: clipmill ingest convert {source} {root or 'ROOT'}, with the same options")


def _print_some(lines: Iterable[str], indent: str = "") -> None:
    """The first lines, and how many more there are."""
    listed = list(lines)
    for line in listed[:_MOST_LINES]:
        print(line)
    if len(listed) > _MOST_LINES:
        print(f"{indent}... and {len(listed) - _MOST_LINES:,} more (all with --json)")
