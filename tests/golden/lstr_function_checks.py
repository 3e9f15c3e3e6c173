"""LSTR's pure functions against the authors' code: rates, losses, figures, masks and positions (functions.npz)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden.fill import fill_input, fill_labels
from tests.golden.vectors import close, from_json, no_unknown, read
from trainers import per_frame_metrics as metrics
from trainers.config import ScheduleConfig
from trainers.engine.schedules import lr_factor
from trainers.lstr.attention import causal_mask
from trainers.lstr.losses import LOSSES, mce
from trainers.lstr.network import PositionalEncoding
from trainers.lstr.schedules import LrPlan

Cases = Iterable[tuple[str, Callable[[], None]]]
Data = Mapping[str, np.ndarray]


def _functions(path: Path) -> Cases:
    data = read(path)
    groups: dict[str, list[str]] = {}
    for key in data:
        kind, _, rest = key.partition("/")
        name = kind if kind in ("crit", "pp", "stage") else f"{kind}/{rest.partition('/')[0]}"
        groups.setdefault(name, []).append(key.removeprefix(f"{name}/"))
    for name, keys in groups.items():
        kind = name.partition("/")[0]
        if kind not in _KINDS:
            yield name, partial(pytest.fail, f"not checked by anything here: {name}")
            continue
        check, known = _KINDS[kind]
        yield f"{name}/keys", partial(no_unknown, keys, known)
        yield name, partial(check, data, name)


def _schedule(data: Data, name: str) -> None:
    settings = from_json(data[f"{name}/settings"])
    no_unknown(
        settings,
        "name|start_epoch|iters_per_epoch|num_epochs|milestones|gamma|warmup_factor|warmup_epochs|warmup_method|base_lr",
    )
    plan = LrPlan(
        name=settings["name"],
        base_lr=settings["base_lr"],
        epoch_steps=settings["iters_per_epoch"],
        epochs=settings["num_epochs"],
        warmup_epochs=settings["warmup_epochs"],
        warmup_factor=settings["warmup_factor"],
        warmup_method=settings["warmup_method"],
        milestones=tuple(settings["milestones"]),
        gamma=settings["gamma"],
    )
    first = (settings["start_epoch"] - 1) * settings["iters_per_epoch"] + 1
    expected = data[f"{name}/lr"]
    ours = np.array([plan.lr(first + i) for i in range(len(expected))])
    close(name, ours, expected, 1e-15, scale=1.0)
    _engine_rates(settings, first, ours)


def _engine_rates(settings: Mapping[str, Any], first: int, expected: np.ndarray) -> None:
    """The engine's schedule, spelt as our recipes spell it, up to the end of the run (past it, ours stays at 0)."""
    steps, epochs = settings["iters_per_epoch"], settings["num_epochs"]
    warm = settings["name"].startswith("warmup")
    schedule = ScheduleConfig(
        name=settings["name"].removeprefix("warmup_"),
        milestones=tuple(milestone - 1 for milestone in settings["milestones"]),
        gamma=settings["gamma"],
        first_step=1,
        offset_warmup=False,
        # The published warm-up has a whole number of iterations.
        warmup_epochs=int(settings["warmup_epochs"] * steps) / steps if warm else 0.0,
        warmup_start=settings["warmup_factor"],
        warmup_curve=settings["warmup_method"],
        warmup_to="multiply",
    )
    within = [(k, lr) for k, lr in enumerate(expected.tolist(), first) if k <= epochs * steps]
    rates = [settings["base_lr"] * lr_factor(schedule, k - 1, steps, epochs) for k, _ in within]
    close("engine", np.array(rates), np.array([lr for _, lr in within]), 1e-15, scale=1.0)


def _criteria(data: Data, name: str) -> None:
    settings = from_json(data["crit/settings"])
    no_unknown(settings, "salt|logits|ignore_index")
    target = torch.from_numpy(data["crit/target"])
    rows, num_classes = target.shape
    assert settings["logits"] == f"2*fill_input('crit.logits', ({rows}, {num_classes}))"
    raw = 2 * fill_input("crit.logits", (rows, num_classes), settings["salt"])
    labels = torch.from_numpy(fill_labels("crit.a", (rows,), num_classes, settings["salt"]))
    labels[[5, 9]] = settings["ignore_index"]
    for key, expected in data.items():
        kind, _, which = key.removeprefix("crit/").rpartition("_")
        if not key.startswith("crit/") or kind in ("", "mce_all_ignored") or key == "crit/mce_all_ignored_mean":
            continue
        ignore = settings["ignore_index"] if kind in ("mce_ignore", "sce") else -100
        logits = torch.from_numpy(raw).requires_grad_()
        criterion = LOSSES[kind.partition("_")[0].upper()]
        reduction = "mean" if which == "grad" else which
        loss = criterion(logits, labels if kind == "sce" else target, reduction=reduction, ignore_index=ignore)
        if which == "grad":
            loss.backward()
            close(key, logits.grad, expected, 1e-5, scale=1.0)
        else:
            # Sums over rows grow with them: held to 1e-5 of a row.
            close(key, loss, expected, 1e-5, scale=float(rows) if which == "sum" else 1.0)
    if "crit/mce_all_ignored_mean" in data:
        assert np.isnan(data["crit/mce_all_ignored_mean"])
        only = torch.zeros_like(target)
        only[:, settings["ignore_index"]] = 1
        # The authors' mean over no rows is NaN; ours is the mended one.
        assert float(mce(torch.from_numpy(raw), only, ignore_index=settings["ignore_index"])) == 0.0


def _metric(data: Data, name: str) -> None:
    if f"{name}/gt" not in data:
        _metric_alone(data, name)
        return
    settings = from_json(data[f"{name}/settings"])
    no_unknown(settings, "salt|scores|ignore_index")
    gt = data[f"{name}/gt"].astype(np.float64)
    assert settings["scores"] == f"softmax(fill_input('metric.scores', {gt.shape}) as float64 + 1.5*gt)"
    logits = fill_input("metric.scores", gt.shape, settings["salt"]).astype(np.float64) + 1.5 * gt
    scores = np.exp(logits - logits.max(1, keepdims=True))
    scores /= scores.sum(1, keepdims=True)
    process = metrics.thumos() if name == "metric/THUMOS" else metrics.PostProcessing()
    names = [str(column) for column in range(gt.shape[1])]
    stage_gt = gt.copy()
    for first, end, column in from_json(data[f"{name}/perstage_extra_positives"]):
        stage_gt[first:end, column] = 1
    for metric in ("AP", "cAP"):
        key = f"{name}/perframe_{metric}"
        if key in data:
            found = metrics.per_frame(*process(gt, scores), names, metric=metric, ignore_index=settings["ignore_index"])
            close(key, np.array(list(found["per_class_AP"].values())), data[key], 1e-10, scale=1.0)
            close(f"{key}_mean", found["mean_AP"], data[f"{key}_mean"], 1e-10, scale=1.0)
            expected_names = [str(each) for each in data[f"{key}_names"]]
            assert len(expected_names) == len(found["per_class_AP"])
        key = f"{name}/perstage_{metric}"
        if key in data:
            stages = metrics.per_stage(
                *process(stage_gt, scores), names, metric=metric, ignore_index=settings["ignore_index"]
            )
            assert list(stages) == [str(each) for each in data[f"{key}_stages"]]
            ours = np.array([list(stage["per_class_AP"].values()) for stage in stages.values()])
            _close_or_nan(key, ours, data[key])
            _close_or_nan(f"{key}_mean", np.array([s["mean_AP"] for s in stages.values()]), data[f"{key}_mean"])


def _metric_alone(data: Data, name: str) -> None:
    labels, scores = data[f"{name}/y"], data[f"{name}/score"]
    for metric, measure in metrics.METRICS.items():
        if f"{name}/{metric}" in data:
            close(f"{name}/{metric}", measure(labels, scores), data[f"{name}/{metric}"], 1e-10, scale=1.0)
    if f"{name}/cAP_no_negative" in data:
        ours = metrics.calibrated_average_precision(np.ones_like(labels), scores)
        close(f"{name}/cAP_no_negative", ours, data[f"{name}/cAP_no_negative"], 1e-10, scale=1.0)


def _close_or_nan(what: str, ours: np.ndarray, expected: np.ndarray) -> None:
    assert (np.isnan(ours) == np.isnan(expected)).all(), what
    close(what, np.nan_to_num(ours), np.nan_to_num(expected), 1e-10, scale=1.0)


def _stage(data: Data, name: str) -> None:
    labels = data["stage/gt"]
    for key in (key for key in data if key.startswith("stage/") and key.endswith("/frame")):
        rows = metrics.stage_rows(labels, int(key.split("/")[1]))
        assert rows.tolist() == data[key].tolist(), key
        assert labels[rows].tolist() == data[key.replace("/frame", "/gt")].tolist(), key


def _post_processing(data: Data, name: str) -> None:
    settings = from_json(data["pp/settings"])
    no_unknown(settings, "salt|scores")
    gt = data["pp/gt"]
    assert settings["scores"] == f"fill_input('pp.scores', {gt.shape}, salt) as float64"
    scores = fill_input("pp.scores", gt.shape, settings["salt"]).astype(np.float64)
    rows = np.arange(len(gt))
    for key in (key for key in data if key.startswith("pp/smooth")):
        smooth, switch = (bool(int(part[-1])) for part in key.removeprefix("pp/").split("_"))
        process = metrics.thumos(smooth=smooth, switch=switch)
        close(key, process(gt, scores)[1], data[key], 1e-6, scale=1.0)
        kept, _ = process(gt, np.repeat(rows[:, None], gt.shape[1], 1).astype(float))
        assert (kept == gt[data["pp/valid_rows"]]).all(), key


def _mask(data: Data, name: str) -> None:
    expected = data[name]
    ours = causal_mask(int(name.rpartition("/")[2])).numpy()
    assert (ours == expected).all()


def _positions(data: Data, name: str) -> None:
    num_positions, one, dim = data[f"{name}/shape"].tolist()
    table = PositionalEncoding(dim, 0.0, num_positions).pe
    assert tuple(table.shape) == (num_positions, one, dim) and dim == int(name.rpartition("/")[2])
    expected = data[f"{name}/values"]
    close(name, table[data[f"{name}/rows"].tolist(), 0, : expected.shape[1]], expected, 1e-5, scale=1.0)


_KINDS: Mapping[str, tuple[Callable[[Data, str], None], str]] = {
    "sched": (_schedule, "settings|lr"),
    "crit": (_criteria, "settings|target|(mce_ignore|mce_plain|bce|sce)_(mean|sum|none|grad)|mce_all_ignored_mean"),
    "metric": (
        _metric,
        "settings|gt|per(frame|stage)_c?AP(_names|_mean|_stages)?|perstage_extra_positives|y|score|c?AP|cAP_no_negative",
    ),
    "stage": (_stage, r"gt|\d/(gt|frame)"),
    "pp": (_post_processing, "gt|settings|valid_rows|smooth[01]_switch[01]"),
    "mask": (_mask, r".*"),
    "pe": (_positions, "shape|rows|values"),
}

CHECKERS: Mapping[str, Any] = MappingProxyType({"functions": _functions})
