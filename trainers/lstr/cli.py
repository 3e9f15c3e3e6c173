"""`clipmill lstr`: features, live scores, figures from saved scores, checkpoints for the authors' code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingest.errors import ClipmillError

if TYPE_CHECKING:
    from torch import nn

    from trainers.lstr.extract import FrameSpec

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _before_torch() -> None:
    """Online action detection: features, live scores, figures."""
    # Threads that wait for each other sleep soon instead of spinning: see trainers/cli.py. Before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


_Backbone = Annotated[
    str,
    typer.Option(help="resnet18 to 152, bn_inception (one frame a row); video_swin_tiny, srtg_r3d_34, ... (clips)."),
]
_Weights = Annotated[Path | None, typer.Option(help="The backbone's weights. Without: random, from --seed.")]
_Width = Annotated[int, typer.Option(help="SRTG: channels of the first stage.")]
_Seed = Annotated[int, typer.Option(min=0, help="Of random weights.")]
_ShortSide = Annotated[int, typer.Option(min=1, help="Pixels that frames are scaled to.")]
_Crop = Annotated[int, typer.Option(min=0, help="Side of the centre crop; 0: the whole frame.")]
_ClipFrames = Annotated[int, typer.Option(min=1, help="3D backbones over 4 fps arrays: frames of a clip.")]
_Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@app.command("extract")
def extract_features(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="Videos or 4 fps arrays (.npy): a folder, or one file.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for <name>.npy, (rows, size) each.")],
    backbone: _Backbone = "resnet50",
    weights: _Weights = None,
    width: _Width = 64,
    seed: _Seed = 0,
    short_side: _ShortSide = 256,
    crop: _Crop = 224,
    clip_frames: _ClipFrames = 6,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows at a time.")] = 64,
    device: _Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Features of every quarter of a second, (24 fps, chunks of six). Finished sessions are skipped; run it again at will."""
    from dataclasses import asdict

    from trainers.lstr.extract import about_backbone, extract

    model, spec = _backbone(backbone, weights, width, seed, short_side, crop, clip_frames)
    about = about_backbone(backbone, weights, width, seed)
    tell = (lambda _: None) if as_json else print
    report = extract(source, out, model, spec, about, batch_size=batch_size, device=_device(device), tell=tell)
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print(f"{len(report.made)} made, {len(report.there)} were there, {len(report.failed)} could not be made.")
        print(f"Next: clipmill train lstr --config thumos data.visual={out.name}" if not report.failed else "")
    raise typer.Exit(1 if report.failed else 0)


@app.command("stream")
def stream_scores(
    source: Annotated[
        str, typer.Argument(metavar="VIDEO", help="A file, a camera (/dev/video0), or what ffmpeg opens.")
    ],
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint of a run of lstr, of one stream.")],
    backbone: _Backbone = "resnet50",
    weights: _Weights = None,
    width: _Width = 64,
    seed: _Seed = 0,
    short_side: _ShortSide = 256,
    crop: _Crop = 224,
    input_format: Annotated[str | None, typer.Option(help="ffmpeg's name of the source's format: v4l2, lavfi.")] = None,
    mode: Annotated[str, typer.Option(help="exact, or reference as the authors' stream.")] = "exact",
    top: Annotated[int, typer.Option(min=1, help="Classes shown per row.")] = 3,
    serve: Annotated[int | None, typer.Option(help="Port to serve /latest and /stream on; 0: any free one.")] = None,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    device: _Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per row.")] = False,
) -> None:
    """Scores of a live source, row by row: printed, and served over HTTP with --serve. Ends with the source, or Ctrl-C."""
    from trainers.lstr.live import ScoreServer, live_scores, rows_of
    from trainers.lstr.stream import LSTRStream

    where = _device(device)
    config, network, class_names = _trained(checkpoint)
    if config.model.modality == "twostream":
        raise ClipmillError(
            f"{checkpoint} needs two streams of features, and one backbone gives one.",
            "Nothing was scored.",
            "Train on one: model.modality=visual",
        )
    model, spec = _backbone(backbone, weights, width, seed, short_side, crop, 6)
    size = network.spec.row_size
    try:
        stream = LSTRStream(network.to(where), config.windows(), mode)  # type: ignore[arg-type]
    except ValueError as error:
        raise ClipmillError(f"--mode: {error}.", "Nothing was scored.") from None
    found = _size_of(model, spec)
    if found != size:
        raise ClipmillError(
            f"{backbone} gives {found} numbers a row, and {checkpoint.name} was trained on {size}.",
            "Nothing was scored.",
            "Take the backbone that made the features of its training.",
        )
    server = None if serve is None else ScoreServer(host, serve)
    if server is not None:
        print(f"Serving http://{host}:{server.port}/latest and /stream", flush=True)
    try:
        rows = rows_of(source, spec, input_format)
        for scores in live_scores(rows, model.to(where), spec, stream, class_names):
            print(scores.json() if as_json else scores.line(top), flush=True)
            if server is not None:
                server.publish(scores)
    finally:
        if server is not None:
            server.close()


@app.command("evaluate")
def evaluate_scores(
    results: Annotated[Path, typer.Argument(metavar="TEST_NPZ", help="Scores that a test has saved (test.npz).")],
    metric: Annotated[str | None, typer.Option(help="AP or cAP. Default: that of the data set.")] = None,
    smooth: Annotated[bool, typer.Option("--smooth", help="Take the maximum over five rows.")] = False,
    switch: Annotated[bool, typer.Option("--switch", help="THUMOS: who dives from a cliff, dives.")] = False,
    keep_ignored: Annotated[
        bool, typer.Option("--keep-ignored", help="Measure rows of the ignored class, too.")
    ] = False,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="data.name=THUMOS")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Figures per class and per stage of saved scores, with other options than the test's, without running the network."""
    import numpy as np

    from trainers.lstr.config import ScoringConfig
    from trainers.lstr.evaluation import read_results
    from trainers.per_frame_metrics import METRICS, per_frame, per_stage

    sessions = read_results(results)
    data = _data(overrides or [], results)
    entry = data.entry()
    chosen: Any = metric or entry.metrics
    if chosen not in METRICS:
        raise ClipmillError(f"there is no metric {chosen!r}.", "Nothing was measured.", "Take AP or cAP.")
    names = list(entry.class_names)
    process = ScoringConfig(smooth=smooth, switch=switch, drop_ignored=not keep_ignored)
    scores, targets = (np.concatenate([each[i] for each in sessions.values()]) for i in (0, 1))
    targets, scores = process.processing(names, entry.ignore_index)(targets, scores.astype(np.float64))
    found = per_frame(targets, scores, names, metric=chosen, ignore_index=entry.ignore_index)
    stages = per_stage(targets, scores, names, metric=chosen, ignore_index=entry.ignore_index, skip_absent=True)
    if as_json:
        print(json.dumps({"metric": chosen, **found, "per_stage": stages}, indent=2))
        return
    for name, value in found["per_class_AP"].items():
        print(f"{name:30} {value:.4f}")
    print(f"{'mean ' + chosen:30} {found['mean_AP']:.4f}   over {len(scores):,} rows of {len(sessions)} sessions")
    print("by stage  " + "  ".join(f"{name} {stage['mean_AP']:.3f}" for name, stage in stages.items()))


@app.command("export")
def export_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint of a run of lstr.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File for the authors' code, as epoch-25.pth.")],
) -> None:
    """Write a checkpoint as the authors' code reads it. Theirs are read with: clipmill train lstr --init FILE"""
    from trainers.engine import checkpoints
    from trainers.lstr.checkpoints import save_published

    epoch = checkpoints.read(checkpoint)["loader"]["epoch"]
    _, network, _ = _trained(checkpoint)
    save_published(out, network, epoch)
    print(f"Written: {out}")


def _trained(checkpoint: Path) -> tuple[Any, Any, list[str]]:
    """Config, network and class names of a checkpoint of a run."""
    from trainers.config import check
    from trainers.engine import checkpoints
    from trainers.lstr.config import MethodConfig
    from trainers.lstr.network import LSTR

    state = checkpoints.read(checkpoint)
    if state["config"]["method"] != "lstr":
        raise ClipmillError(f"{checkpoint} is a checkpoint of {state['config']['method']}, not of lstr.")
    config = check(state["config"], MethodConfig, str(checkpoint))
    network = LSTR(config.spec(len(state["class_names"])))
    network.load_state_dict(state["models"]["model"])
    return config, network, state["class_names"]


def _data(overrides: list[str], results: Path) -> Any:
    """The data set of a run's results: its config lies beside them; without one, what the overrides say."""
    from trainers.config import load
    from trainers.lstr.config import MethodConfig

    beside = results.parent / "config.yaml"
    if beside.exists():
        return load(beside, overrides, MethodConfig).data
    from trainers.lstr.config import WindowData

    given = dict(each.removeprefix("data.").split("=", 1) for each in overrides if "=" in each)
    return WindowData.model_validate(given)


def _backbone(
    name: str, weights: Path | None, width: int, seed: int, short_side: int, crop: int, clip_frames: int
) -> tuple[nn.Module, FrameSpec]:
    from trainers.lstr.backbones import build_backbone, takes_clips
    from trainers.lstr.extract import FrameSpec

    model = build_backbone(name, weights, width=width, seed=seed)
    return model, FrameSpec(short_side, crop, clip_frames if takes_clips(name) else 0)


def _size_of(model: nn.Module, spec: FrameSpec) -> int:
    """Numbers per row of a backbone."""
    import torch

    shape = (1, 3, 64, 64) if not spec.clip_frames else (1, 3, spec.clip_frames, 64, 64)
    with torch.inference_mode():
        return int(model(torch.zeros(shape)).shape[1])


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
