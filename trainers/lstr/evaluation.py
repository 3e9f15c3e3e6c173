"""Evaluation of online detection: scores of windows or of whole sessions, figures per frame and per stage, files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from ingest.atomic import replacing, write_text
from ingest.errors import ClipmillError
from loaders.speed import SpeedMonitor
from trainers.engine.evaluation import Evaluation
from trainers.lstr.config import MethodConfig, ScoringConfig
from trainers.lstr.data import FeatureDataset
from trainers.lstr.inference import VideoScores, score_video
from trainers.lstr.loader import SessionLoader, WindowLoader
from trainers.lstr.online import Lstr
from trainers.lstr.split import SplitLstr
from trainers.lstr.stream import LSTRStream
from trainers.per_frame_metrics import per_frame, per_stage

Scored = tuple[np.ndarray, np.ndarray]
"""Scores and targets (T, C) of one session."""


@dataclass
class OnlineEvaluation(Evaluation):
    """`sessions`: scores and targets by name, in the order of the data set; empty where windows were scored."""

    sessions: dict[str, Scored] = field(default_factory=dict)


@torch.no_grad()
def evaluate(
    fabric: Fabric, method: Lstr, loader: WindowLoader | SessionLoader, *, average: str = "prob"
) -> OnlineEvaluation:
    """Mean AP (or cAP, as the data set has it) over all rows of all sessions together.

    Of windows, all rows of each are scored: quick, and lower than the test, since most rows see little of the work memory. Of
    sessions, every row is scored by the window that ends there. `average` has no meaning here: a row has one view.
    """
    for model in method.models.values():
        model.eval()
    if isinstance(loader, WindowLoader):
        return _evaluate_windows(fabric, method, loader)
    return _evaluate_sessions(fabric, method, loader)


def _evaluate_windows(fabric: Fabric, method: Lstr, loader: WindowLoader) -> OnlineEvaluation:
    speed = SpeedMonitor(fabric.device)
    parts: list[tuple[int, np.ndarray, np.ndarray, float]] = []
    shape: tuple[int, ...] = (0, 0, 0, 0)
    loader.load_state_dict(loader.state_dict() | {"position": 0})
    for batch in speed.watch(iter(loader)):
        with speed.measure("forward", len(batch)):
            logits = method.predict(batch, fabric.device).float()
        shape = shape if shape[0] else batch.shape
        targets = batch.targets.flatten(0, 1)
        loss = method.loss(logits.flatten(0, 1), targets.to(fabric.device))
        scores = logits.softmax(2).flatten(0, 1).cpu().numpy()
        parts.append((batch.position, scores, targets.numpy(), loss.item() * len(batch)))
    rates = speed.rates()
    parts = sorted((part for rank in _from_all(fabric, parts) for part in rank), key=lambda part: part[0])
    if not parts:
        raise ClipmillError("there was no window to validate on.", "The run stops here; its checkpoints stay.")
    scores, targets = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    count = len(scores) // loader.windows.num_work
    found = measure(targets, scores, loader.dataset, ScoringConfig(stages=False))
    figures = {"loss": sum(part[3] for part in parts) / count, "mean_average_precision": found["mean_AP"]}
    return OnlineEvaluation(
        figures,
        torch.from_numpy(scores),
        torch.from_numpy(targets),
        count,
        rates,
        shape,
        extra=_about(found, loader.dataset),
    )


def _evaluate_sessions(fabric: Fabric, method: Lstr, loader: SessionLoader) -> OnlineEvaluation:
    config, dataset = method.config, loader.dataset
    speed = SpeedMonitor(fabric.device)
    split = SplitLstr(method.network)
    mine = {}
    for session in loader:
        with speed.measure("forward", max(dataset.rows(session), 1)):
            mine[session] = score_session(split, config, dataset, session)
    everyone = {session: each for rank in _from_all(fabric, mine) for session, each in rank.items()}
    sessions: dict[str, Scored] = {}
    short = []
    for number in sorted(everyone):
        name, result = dataset.sessions[number], everyone[number]
        if not result.decided.any():
            short.append(name)
            continue
        # As published: rows that no window decides have neither a score nor a target, and count.
        target = np.asarray(dataset.arrays(number)[2], np.float64) * result.decided[:, None]
        sessions[name] = result.scores, target
    if not sessions:
        raise ClipmillError(
            f"none of the {len(dataset)} sessions is as long as a work memory.",
            "There is nothing to score.",
            "Score short sessions, too: inference.short=repeat_first",
        )
    scores = np.concatenate([each[0] for each in sessions.values()])
    targets = np.concatenate([each[1] for each in sessions.values()])
    found = measure(targets, scores, dataset, config.scoring)
    loss = _loss_of(method, scores, targets)
    return OnlineEvaluation(
        {"loss": loss, "mean_average_precision": found["mean_AP"]},
        torch.from_numpy(scores),
        torch.from_numpy(targets),
        len(scores),
        speed.rates(),
        (1, len(scores), 1, 1),
        bad_videos=[],
        extra=_about(found, dataset) | {"videos": len(sessions), "too_short": short, "mode": config.inference.mode},
        sessions=sessions,
    )


def score_session(split: SplitLstr, config: MethodConfig, dataset: FeatureDataset, session: int) -> VideoScores:
    """Scores of one session by the config's mode."""
    visual, motion, targets = dataset.arrays(session)
    windows = config.windows()
    if config.inference.mode == "batch":
        return score_video(
            split,
            windows,
            visual,
            motion,
            num_rows=len(targets),
            block=config.inference.block,
            short=config.inference.short,
        )
    stream = LSTRStream(split, windows, "exact" if config.inference.mode == "stream" else "reference")
    result = VideoScores(np.zeros((len(targets), split.spec.num_classes), np.float32), np.zeros(len(targets), bool))
    skipped = len(targets) < windows.work_length and config.inference.short == "skip"
    for row in range(0 if skipped else len(targets)):
        score = stream.push(*(None if each is None else _row(each, row) for each in (visual, motion)))
        if score is not None:
            result.scores[row], result.decided[row] = score.cpu().numpy(), True
    return result


def _row(array: np.ndarray, row: int) -> Tensor:
    return torch.from_numpy(np.array(array[row], np.float32))


def measure(targets: np.ndarray, scores: np.ndarray, dataset: FeatureDataset, scoring: ScoringConfig) -> dict[str, Any]:
    """Figures of all rows together: `per_class_AP`, `mean_AP`, and `per_stage` where it is asked for."""
    names, metric, ignored = dataset.class_names, dataset.metric, dataset.ignore_index
    targets, scores = scoring.processing(names, ignored)(targets, scores)
    found = per_frame(targets, scores, names, metric=metric, ignore_index=ignored)
    if scoring.stages:
        found["per_stage"] = per_stage(targets, scores, names, metric=metric, ignore_index=ignored, skip_absent=True)
    return found


def _loss_of(method: Lstr, scores: np.ndarray, targets: np.ndarray) -> float:
    """The loss of what was decided, from probabilities: their logarithms are logits."""
    logits = torch.from_numpy(scores).clamp_min(1e-12).log()
    return float(method.loss(logits, torch.from_numpy(targets).float()))


def _about(found: Mapping[str, Any], dataset: FeatureDataset) -> dict[str, Any]:
    return {"metric": dataset.metric, "views": [1, 1], **found}


def _from_all(fabric: Fabric, mine: Any) -> list[Any]:
    """What every rank has."""
    if fabric.world_size == 1:
        return [mine]
    everyone: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(everyone, mine)
    return everyone


def save_results(evaluation: OnlineEvaluation, folder: Path) -> None:
    """`test.npz`: `scores/<session>` and `targets/<session>`, (T, C) each; `test_table.json`: the figures by class and stage."""
    arrays: dict[str, Any] = {}
    for session, (scores, targets) in evaluation.sessions.items():
        arrays[f"scores/{session}"], arrays[f"targets/{session}"] = scores, targets
    with replacing(folder / "test.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    table = {
        key: evaluation.extra[key]
        for key in ("metric", "mean_AP", "per_class_AP", "per_stage")
        if key in evaluation.extra
    }
    write_text(folder / "test_table.json", json.dumps(table, indent=2) + "\n")


def read_results(path: Path) -> dict[str, Scored]:
    """Scores and targets by session, in their order, of a `test.npz`. Raises: ClipmillError when it is none."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [key.removeprefix("scores/") for key in arrays.files if key.startswith("scores/")]
            return {name: (arrays[f"scores/{name}"], arrays[f"targets/{name}"]) for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise ClipmillError(f"{path} holds no results: {error}.", "Nothing was measured.") from None
