"""`report.html` of a training run, from the files in its folder: curves, confusion, classes, worst videos, speed."""

from __future__ import annotations

import html
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from ingest.errors import ClipmillError
from loaders import ClipDataset
from loaders.clips import ClipSpec
from loaders.making import ClipMaker, Place
from loaders.reading import FrameReader
from trainers import report
from trainers.config import Config, dump, load
from trainers.data import clip_spec, dataset
from trainers.engine.logs import read_csv
from trainers.engine.run import VALIDATION
from trainers.metrics import confusion_matrix

_NUM_WORST = 8


@dataclass(frozen=True)
class Scored:
    """The best validation of a run: video_ids, scores (videos, classes), labels (videos,)."""

    video_ids: list[str]
    scores: np.ndarray
    labels: np.ndarray


def write_run_report(folder: Path, module: ModuleType) -> Path:
    """Write and return `<folder>/report.html`. Raises: ClipmillError when the folder holds no run that has got anywhere."""
    rows = read_csv(folder / "epochs.csv") if (folder / "epochs.csv").exists() else []
    if not rows:
        raise ClipmillError(f"{folder} has no finished epoch.", "There is nothing to report on.", "Train first.")
    config: Config = load(folder / "config.yaml", [], module.MethodConfig)
    sections = [
        report.Section("Loss and accuracy", report.curves(folder)),
        report.Section("Speed: clips per second", report.speed(folder)),
    ]
    if (folder / VALIDATION).exists():
        sections[1:1] = _classification(config, _scored(folder))
    sections.append(
        report.Section(
            "Config", f"<details><summary>all settings</summary><pre>{html.escape(dump(config))}</pre></details>"
        )
    )
    path = folder / "report.html"
    report.write_report(path, folder.name, _lead(config, rows), sections)
    return path


def _lead(config: Config, rows: list[dict[str, str]]) -> str:
    name = config.train.best
    validations = [row for row in rows if row["split"] == "val" and row.get(name)]
    last = rows[-1]
    text = f"{config.method}, {int(last['epoch']) + 1} epochs, {int(last['step']):,} steps, seed {config.seed}"
    if not validations:
        return f'<p class="note">{html.escape(text)}; no validation.</p>'
    best = (min if name == "loss" else max)(validations, key=lambda row: float(row[name]))
    value = float(best[name])
    shown = f"{value:.4f}" if name == "loss" else f"{100 * value:.1f} %"
    return (
        f'<p><span class="big">{shown}</span> {name.replace("_", " ")} in validation, after epoch {best["epoch"]}.</p>'
        f'<p class="note">{html.escape(text)}.</p>'
    )


def _scored(folder: Path) -> Scored:
    with np.load(folder / VALIDATION) as saved:
        return Scored(saved["video_ids"].tolist(), saved["scores"], saved["labels"])


def _classification(config: Config, scored: Scored) -> list[report.Section]:
    import torch

    videos = dataset(config.data, config.data.val_split)
    names = videos.class_names
    predicted, labels = torch.from_numpy(scored.scores.argmax(1)), torch.from_numpy(scored.labels)
    counts = confusion_matrix(predicted, labels, len(names)).numpy()
    return [
        report.Section("Confusion matrix (best validation)", report.confusion(counts.tolist(), names)),
        report.Section("Accuracy by class", report.per_class(counts, names)),
        report.Section("Videos that went wrong the most", _worst(config, videos, scored)),
    ]


def _worst(config: Config, videos: ClipDataset, scored: Scored) -> str:
    """Those whose own class got the least of what the best class got."""
    right = scored.scores[np.arange(len(scored.labels)), scored.labels]
    margin = scored.scores.max(1) - right
    worst = [int(i) for i in np.argsort(-margin, kind="stable")[:_NUM_WORST] if margin[i] > 0]
    if not worst:
        return "<p>None: every video was classified rightly.</p>"
    spec = clip_spec(config.data, "val")
    number_of = {video_id: i for i, video_id in enumerate(videos.video_ids)}
    rows = []
    with closing(FrameReader(videos)) as reader:
        maker = ClipMaker(videos, reader)
        made = [_clip(maker, spec, number_of[scored.video_ids[i]], config.seed) for i in worst]
    for i, (frames, indices) in zip(worst, made, strict=True):
        said = videos.class_names[int(scored.scores[i].argmax())]
        true = videos.class_names[int(scored.labels[i])]
        rows.append((f"{scored.video_ids[i]}\n{true}, taken for {said}", frames, indices))
    return report.sheet(rows, bgr=spec.colour == "BGR", label="Videos that were classified wrongly")


def _clip(maker: ClipMaker, spec: ClipSpec, video: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    out = np.empty((spec.num_frames, spec.height, spec.width, 3), np.uint8)
    made = maker.make(spec, Place(video * spec.num_views + spec.num_views // 2, 0, seed, 0), out, replace_bad=False)
    return out, made.plan.frames
