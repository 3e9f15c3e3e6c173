"""SBP's pure functions against the authors' code: rates, groups, figures of merit, pixels, losses, masks, config values."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden.fill import fill_input, fill_labels
from tests.golden.sbp_model_checks import gradient, near, value
from tests.golden.vectors import filled_input, from_json, no_unknown
from trainers.config import ScheduleConfig
from trainers.engine.optimizers import build_optimizer, set_lr
from trainers.engine.schedules import lr_factor
from trainers.lstr.losses import mce
from trainers.per_frame_metrics import per_frame, per_stage, thumos
from trainers.sbp.masks import expand_blocks, grid_keep
from trainers.sbp.method import MethodConfig, SwinSbp
from trainers.sbp.published_values import published_value
from trainers.sbp.transforms import cropped, normalised, resized

Data = Mapping[str, np.ndarray]
Cases = Iterable[tuple[str, Callable[[], None]]]


def _each(key: str, check: Callable[[Any], None], data: Data) -> Cases:
    for i, entry in enumerate(from_json(data[key])):
        yield f"{key}/{i}", partial(check, entry)


# Learning rates


def _rates(entry: dict[str, Any]) -> None:
    no_unknown(entry, "lr|start_epoch|num_epochs|iters_per_epoch|scheduler|keep_every|lrs")
    schedule, per_epoch = _schedule(entry["scheduler"]), entry["iters_per_epoch"]
    first, every = (entry["start_epoch"] - 1) * per_epoch, entry.get("keep_every", 1)
    for i, (rate, tenth) in enumerate(entry["lrs"]):
        factor = lr_factor(schedule, first + i * every, per_epoch, entry["num_epochs"])
        near(f"rates of step {first + i * every}", np.array([entry["lr"] * factor, 0.1 * entry["lr"] * factor]),
             np.array([rate, tenth]), 1e-9, 1e-18)  # fmt: skip


def _schedule(given: dict[str, Any]) -> ScheduleConfig:
    """Milestones are counted from epoch 1 there; here they say how many epochs have passed."""
    no_unknown(given, "NAME|WARMUP_FACTOR|WARMUP_EPOCHS|WARMUP_METHOD|MILESTONES|GAMMA")
    warm, _, name = given["NAME"].rpartition("_")
    warmup = {}
    if warm:
        warmup = {"warmup_epochs": given["WARMUP_EPOCHS"], "warmup_start": given["WARMUP_FACTOR"],
                  "warmup_curve": given.get("WARMUP_METHOD", "linear"), "warmup_to": "multiply"}  # fmt: skip
    milestones = tuple(each - 1 for each in given.get("MILESTONES", ()))
    return ScheduleConfig(
        name=name, milestones=milestones, gamma=given.get("GAMMA", 0.1), offset_warmup=False, **warmup
    )


# Figures of merit


def _metrics(data: Data) -> Cases:
    facts = from_json(data["metrics"])
    no_unknown(facts, "(AP|cAP)_(none|thumos)", "perstage_AP_first4_classes")
    for key in facts:
        yield f"metrics/{key}", partial(_metric, data, key, facts[key])
    if "metric/smooth_switch" in data:
        yield "metric/smooth_switch", partial(_smooth_switch, data)


def _targets(labels: np.ndarray, num_classes: int) -> np.ndarray:
    return np.eye(num_classes, dtype=np.int64)[labels]


def _metric(data: Data, key: str, expected: dict[str, Any]) -> None:
    scores = data["metric/prediction"]
    num_classes = scores.shape[1]
    targets, names = _targets(data["metric/gt_label"], num_classes), [str(i) for i in range(num_classes)]
    if key.startswith("perstage"):
        # Every one of the first n // 8 labels eight times, scored by the first rows; of the first 4 columns, 0 is background.
        rows = len(targets) // 8 * 8
        targets = np.repeat(targets[: rows // 8], 8, 0)
        found = per_stage(targets, scores[:rows], names, ignore_index=21)
        for stage, mean in expected.items():
            classes = found[stage]["per_class_AP"]
            near(stage, np.mean([classes[str(i)] for i in range(1, 4)]), np.array(mean), 1e-9, 1e-12)
        return
    metric, _, after = key.partition("_")
    if after == "thumos":
        targets, scores = thumos()(targets, scores)
    found = per_frame(targets, scores, names, metric=metric, ignore_index=21)  # type: ignore[arg-type]
    near(key, np.array(list(found["per_class_AP"].values())), np.array(expected["per_class"]), 1e-9, 1e-12)
    near(f"{key} mean", found["mean_AP"], np.array(expected["mean"]), 1e-9, 1e-12)


def _smooth_switch(data: Data) -> None:
    scores = data["metric/prediction"]
    targets = _targets(data["metric/gt_label"], scores.shape[1])
    changed = thumos(smooth=True, switch=True)
    changed = type(changed)(changed.smooth, changed.implied, None)
    _, ours = changed(targets, scores)
    near("smoothed and switched", ours[: len(data["metric/smooth_switch"])], data["metric/smooth_switch"], 1e-12, 0)


# Pixels


def _transforms(data: Data) -> Cases:
    facts = from_json(data["transforms"])
    no_unknown(facts, "clip_shape|resize|crop_wh")
    for key in (key for key in data if key.startswith("transform/")):
        yield key, partial(_transform, facts, key, data[key])


def _transform(facts: dict[str, Any], key: str, expected: np.ndarray) -> None:
    place = key.removeprefix("transform/").removesuffix("_CTHW")
    clip = fill_labels("clip", tuple(facts["clip_shape"]), 256, "").astype(np.uint8)
    width, height = facts["crop_wh"]
    ours = cropped(resized(normalised(clip), facts["resize"]), height, width, place)  # type: ignore[arg-type]
    value(key, ours.transpose(0, 1), expected)


# Loss


def _mce(data: Data) -> Cases:
    facts = from_json(data["mce"])
    for key, expected in facts.items():
        yield f"mce/{key}", partial(_loss, data, key, expected)
    for key in (key for key in data if key.startswith("mce/grad_ignore")):
        yield key, partial(_loss_gradient, data, key)
    known = "mce/(target|grad_ignore-?[0-9]+)"
    yield "mce/keys", partial(no_unknown, [key for key in data if key.startswith("mce/")], known)


def _loss(data: Data, key: str, expected: float) -> None:
    found = re.fullmatch(r"ignore(-?\d+)_(mean|sum|none)", key)
    assert found, key
    target = torch.from_numpy(data["mce/target"])
    value(key, mce(filled_input("mce_logits", target.shape, ""), target, found[2], int(found[1])), np.array(expected))  # type: ignore[arg-type]


def _loss_gradient(data: Data, key: str) -> None:
    target = torch.from_numpy(data["mce/target"])
    logits = filled_input("mce_logits", target.shape, "").requires_grad_()
    mce(logits, target, "mean", int(key.removeprefix("mce/grad_ignore"))).backward()
    assert logits.grad is not None
    gradient(key, logits.grad, data[key])


# Parameter groups


def _groups(given: dict[str, Any]) -> None:
    no_unknown(given, "base|groups|model")
    # Rates and decay go by names; widths do not matter.
    names = [name for name, _, _ in given["groups"]]
    blocks = {
        tuple(map(int, found.groups())) for name in names if (found := re.search(r"layers\.(\d+)\.blocks\.(\d+)", name))
    }
    depths = [sum(stage == i for stage, _ in blocks) for i in range(1 + max(stage for stage, _ in blocks))]
    settings = {
        "patch_norm": "backbone.patch_embed.norm.weight" in names,
        "depths": depths,
        "num_heads": [2] * len(depths),
        "embed_dim": 4,
        "window_size": (2, 3, 3),
        "patch_size": (2, 4, 4),
    }
    config = MethodConfig.model_validate(
        {"method": "sbp", "data": {"root": ".", "batch_size": 1}, "model": settings, "train": {"epochs": 1},
         "optimizer": {"name": "adamw", "lr": given["base"]["lr"], "weight_decay": given["base"]["weight_decay"]}}
    )  # fmt: skip
    method = SwinSbp(config, 10)
    own = {id(each): name for name, each in method.models["model"].named_parameters()}
    optimizer = build_optimizer(config.optimizer, method.param_groups()["model"], config.optimizer.lr)
    set_lr(optimizer, config.optimizer.lr)
    ours = {
        own[id(each)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for each in group["params"]
    }
    assert set(ours) == set(names)
    for name, rate, decay in given["groups"]:
        assert ours[name] == pytest.approx((rate, decay), rel=1e-9), name


# Twelve views, config values, grid masks


def _views(data: Data) -> None:
    facts = from_json(data["twelve_view"])
    crops, samples, clips, classes = (facts[name] for name in ("crops", "samples", "clips", "classes"))
    logits = torch.from_numpy(fill_input("view_logits", (crops, samples * clips, classes), ""))
    # Probabilities are summed into the video that a view belongs to, and divided by the number of views.
    videos = torch.arange(samples).repeat_interleave(clips).repeat(crops)
    sums = torch.zeros(samples, classes).index_add_(0, videos, logits.flatten(0, 1).softmax(1))
    value("probabilities", sums / (crops * clips), data["view/probs"])


def _config_value(entry: list[str]) -> None:
    text, expected = entry
    assert published_value(text) == ast.literal_eval(expected)


def _grid(all_grids: list[dict[str, Any]], i: int) -> None:
    entry = all_grids[i]
    if "base" in entry:
        height, width, ratio, start = re.fullmatch(r"(\d+)x(\d+) keep ([\d.]+) start (\d+)", entry["base"]).groups()  # type: ignore[union-attr]
        keep = expand_blocks(grid_keep(int(height), int(width), float(ratio), int(start)), entry["block"])
    else:
        no_unknown(entry, "H|W|keep_ratio|start|keep")
        keep = grid_keep(entry["H"], entry["W"], entry["keep_ratio"], entry["start"])
    assert keep.flatten().nonzero().flatten().tolist() == entry["keep"]


def functions(data: Data) -> Cases:
    """Every case of a functions.npz that is not about sampling."""
    if "lr_schedules" in data:
        yield from _each("lr_schedules", _rates, data)
    if "metrics" in data:
        yield from _metrics(data)
    if "transforms" in data:
        yield from _transforms(data)
    if "mce" in data:
        yield from _mce(data)
    for key in (key for key in data if key.startswith("param_groups_")):
        yield key, partial(_groups, from_json(data[key]))
    if "twelve_view" in data:
        yield "twelve_view", partial(_views, data)
    if "eval_string" in data:
        yield from _each("eval_string", _config_value, data)
    if "neurips_grid_masks" in data:
        grids = from_json(data["neurips_grid_masks"])
        for i in range(len(grids)):
            yield f"neurips_grid_masks/{i}", partial(_grid, grids, i)


KNOWN = (
    {"lr_schedules", "metrics", "metric", "transforms", "transform", "mce"}
    | {"twelve_view", "view", "eval_string", "neurips_grid_masks"}
)  # fmt: skip
"""First parts of the names of the arrays that are checked here."""
