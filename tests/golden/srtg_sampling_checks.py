"""SRTG's frame samplers and cycles, and SlowFast's multigrid, against the authors' code. All integers exactly."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from loaders.multigrid import (
    BatchShape,
    LongStage,
    Phase,
    ShapePlan,
    batch_norm_split,
    evaluation_epochs,
    srtg_plan,
    wu_plan,
    wu_stages,
)
from loaders.sampling import RandomInterval, SequentialWalk
from tests.golden.srtg_history_checks import FIT_KEYS, SCHEDULE_KEYS, fine_tune_groups, fit_rest, schedule_rest
from tests.golden.vectors import no_unknown

Cases = Iterable[tuple[str, Callable[[], None]]]

# Frame samplers, call by call on one generator: samplers.json


def _samplers(path: Path) -> Cases:
    data = json.loads(path.read_text())
    yield "keys", partial(no_unknown, data, "random|sequential")
    for i, entry in enumerate(data.get("random", [])):
        yield f"random/{i}", partial(_random, entry)
    for i, entry in enumerate(data.get("sequential", [])):
        yield f"sequential/{i}", partial(_sequential, entry)


def _intervals(cfg: dict[str, Any]) -> tuple[int, ...]:
    interval = cfg.get("interval", 1)
    return tuple(interval) if isinstance(interval, list) else (interval,)


def _random(entry: dict[str, Any]) -> None:
    cfg = entry["cfg"]
    no_unknown(cfg, "num|interval|speed|seed")
    sampler = RandomInterval(int(cfg["num"]), _intervals(cfg), tuple(cfg.get("speed", (1.0, 1.0))))
    rng = np.random.RandomState(cfg.get("seed", 0))
    for call, expected in zip(entry["calls"], entry["out"], strict=True):
        if isinstance(call, dict):
            no_unknown(call, "set_num")
            sampler = replace(sampler, num_frames=call["set_num"])
        else:
            assert sampler.draw(call, rng).tolist() == expected, f"of {call} frames"


def _sequential(entry: dict[str, Any]) -> None:
    cfg = entry["cfg"]
    no_unknown(cfg, "num|interval|fix_cursor|shuffle|seed")
    rng = np.random.RandomState(cfg.get("seed", 0))
    walk = SequentialWalk(
        int(cfg["num"]), _intervals(cfg), rng, shuffle=cfg.get("shuffle", False), fixed=cfg.get("fix_cursor", False)
    )
    for call, expected in zip(entry["calls"], entry["out"], strict=True):
        if "set_num" in call:
            no_unknown(call, "set_num")
            walk.num_frames = call["set_num"]
        else:
            no_unknown(call, "n|v|failed")
            assert walk.next(call["v"], call["n"], failed=call.get("failed", False)).tolist() == expected, call


# SRTG's cycles: srtg_cycles.json. What its trainer does besides (log lines, files, parameter groups) is in srtg_history_checks.


def _cycles(path: Path) -> Cases:
    data = json.loads(path.read_text())
    yield "keys", partial(no_unknown, data, "schedules|lrs|fits|fine_tune_groups")
    for i, entry in enumerate(data.get("schedules", [])):
        yield f"schedules/{i}", partial(_schedule, entry)
        yield from _rest(f"schedules/{i}", entry["out"], f"{_SCHEDULE}|{SCHEDULE_KEYS}")
        yield f"schedules/{i}/setup", partial(schedule_rest, entry)
    for i, entry in enumerate(data.get("lrs", [])):
        yield f"lrs/{i}", partial(_lrs, entry)
    for i, entry in enumerate(data.get("fits", [])):
        yield f"fits/{i}", partial(_fit, entry)
        yield from _rest(f"fits/{i}", entry, f"N|B|long|short|shape|epochs|nominal_thw|records|loaders|{FIT_KEYS}")
        if "log" in entry:
            yield f"fits/{i}/log", partial(fit_rest, entry)
    yield from fine_tune_groups(data.get("fine_tune_groups", {}))


_SCHEDULE = "error|iter_per_epoch|epoch_start|epoch_end|step_counter|no_cycles|long_ranges|short_counts|sched_steps"


def _rest(case: str, entry: dict[str, Any], known: str) -> Cases:
    """A case for the keys that are not the cycles', if there are any: it fails and names them."""
    try:
        no_unknown(entry, known)
    except pytest.fail.Exception:
        yield f"{case}/other", partial(no_unknown, entry, known)


# The training scripts' defaults, which the file does not repeat.
_LR_STEPS = (40, 60, 75, 90)


def _srtg(entry: dict[str, Any], size: tuple[int, int, int], reference: bool, **options: Any) -> ShapePlan:
    num_items, num_clips = entry.get("train_length", entry.get("N")), entry.get("batch_size", entry.get("B"))
    frames, height, width = size
    base = BatchShape(num_clips, frames, height, width, short_side=(min(height, width),) * 2)
    cycles = {"long": entry["long"], "short": entry["short"]}
    return srtg_plan(base, num_items=num_items, reference=reference, **cycles, **options)


def _schedule(entry: dict[str, Any]) -> None:
    out = entry["out"]
    no_unknown(entry, "train_length|batch_size|long|short|out")
    if "error" in out:
        with pytest.raises(ValueError, match=r"too few|cannot run the short cycle"):
            _srtg(entry, (16, 256, 256), True, epochs=1)
        return
    plan = _srtg(entry, (16, 256, 256), True, epochs=out.get("epoch_end", 120), lr_steps=_LR_STEPS)
    num_batches = plan.num_batches(0)
    assert num_batches == out["iter_per_epoch"]
    assert (not entry["long"] and not entry["short"]) == out["no_cycles"]
    # The rates of the quarters, one batch late as published, tell where the quarters lie.
    rates = [plan.lr_factor_at(0, (i - 1) % num_batches) for i in range(num_batches)]
    for name, (first, last) in out["long_ranges"].items():
        assert rates[first : last + 1] == [1 / 2 ** int(name.removeprefix("long_"))] * (last + 1 - first), name
    assert {f"short_{place}": n for place, n in Counter(i % 3 for i in range(num_batches)).items()} == {
        place: n for place, n in out["short_counts"].items() if n
    }
    assert [plan.step_of(phase.first, 0) for phase in plan.phases[1:]] == out["sched_steps"]
    if "step_counter" in out:
        assert plan.step_of(out["epoch_start"], 0) == out["step_counter"]


def _lrs(entry: dict[str, Any]) -> None:
    known = "train_length|batch_size|long|short|lr_base|lr_steps|epochs|iter_per_epoch|lr"
    no_unknown(entry, known, "resume_epoch|resume_step_counter|resume_lr|lr_factor")
    gamma = entry.get("lr_factor", 0.1)
    options = {"epochs": entry["epochs"], "lr_steps": entry["lr_steps"], "gamma": gamma}
    plan = _srtg(entry, (16, 256, 256), True, **options)
    assert plan.num_batches(0) == entry["iter_per_epoch"]
    factors = [plan.lr_factor_at(at.epoch, at.batch) for at in map(plan.at_step, range(plan.num_steps))]
    ours = np.maximum(entry["lr_base"] * np.array(factors), 1e-6)  # The published scheduler's floor.
    np.testing.assert_allclose(ours[: len(entry["lr"])], entry["lr"], rtol=1e-12)
    if "resume_lr" in entry:
        first = plan.step_of(entry["resume_epoch"], 0)
        assert first == entry["resume_step_counter"]
        np.testing.assert_allclose(ours[first : first + len(entry["resume_lr"])], entry["resume_lr"], rtol=1e-12)


def _fit(entry: dict[str, Any]) -> None:
    cycling = entry["long"] or entry["short"]
    size = tuple(entry["shape"])
    plan = _srtg(entry, size, True, epochs=entry["epochs"])
    records = entry["records"]
    assert len(records) == plan.num_steps
    for step, record in enumerate(records):
        at = plan.at_step(step)
        shape = at.shape
        fed = [at.num_clips, 3, shape.num_frames, shape.height, shape.width]
        assert (record["epoch"], record["batch"], record["size"]) == (at.epoch, at.batch, fed), f"step {step}"
    for epoch in range(plan.num_epochs):
        # The rate of a whole epoch is not in the file; the quarters' factors are.
        rates = [record["lr"] for record in records if record["epoch"] == epoch]
        factors = [plan.lr_factor_at(epoch, batch) for batch in range(plan.num_batches(epoch))]
        np.testing.assert_allclose(rates, max(rates) * np.array(factors) / max(factors), rtol=1e-12)
    # What the cycles mean, without the loaders of the wrong shape. With the long one alone only the frames are as meant: the
    # published trainer runs the short cycle all the same.
    meant = _srtg(entry, size, False, epochs=entry["epochs"])
    shapes = [meant.at_step(step).shape for step in range(meant.num_steps)] if cycling else []
    sizes = [[shape.num_frames, shape.height, shape.width] for shape in shapes]
    if entry["short"]:
        assert sizes == entry["nominal_thw"]
    else:
        assert [frames for frames, _, _ in sizes] == [frames for frames, _, _ in entry["nominal_thw"]]
    _loaders(entry, plan)


def _loaders(entry: dict[str, Any], plan: ShapePlan) -> None:
    """Every loader that was made is one whose shape we feed, in the order of first use; a shape anew in every epoch."""
    cycling = entry["long"] or entry["short"]
    made = [(each["batch_size"], each["shape"]) for each in entry["loaders"]]
    if not cycling:
        assert made == [(entry["B"], None)] * entry["epochs"]
        return
    ours = []
    for epoch in range(plan.num_epochs):
        places: dict[int, BatchShape] = {}
        for batch in range(plan.num_batches(epoch)):
            shape = plan.shape_at(epoch, batch)
            if places.get(batch % 3) != shape:
                places[batch % 3] = shape
                ours.append((shape.num_clips, [shape.num_frames, shape.height, shape.width]))
    assert ours == made


# SlowFast's schedule, short-cycle sampler and rates: slowfast_multigrid.json


def _multigrid(path: Path) -> Cases:
    for i, entry in enumerate(json.loads(path.read_text())):
        yield f"{i}/keys", partial(_multigrid_keys, entry)
        if "error" in entry:
            yield f"{i}/schedule", partial(_refused, entry)
            continue
        yield f"{i}/schedule", partial(_wu_schedule, entry)
        yield f"{i}/rates", partial(_wu_rates, entry)
        yield f"{i}/epochs", partial(_wu_epochs, entry)
        yield f"{i}/shapes", partial(_wu_shapes, entry)


_INPUT = (
    "BATCH_SIZE|NUM_FRAMES|SAMPLING_RATE|CROP|JITTER|STEPS|MAX_EPOCH|BASE_LR|LRS|WARMUP|NUM_GPUS|EVAL_PERIOD"
    "|CHECKPOINT_PERIOD|SHORT|LONG|EPOCH_FACTOR|BN_NORM_TYPE"
)
_FACTORS = "MULTIGRID__(SHORT_CYCLE_FACTORS|LONG_CYCLE_FACTORS|BN_BASE_SIZE|EVAL_FREQ)|SOLVER__GAMMA"
# Overrides that show in the input.
_SHOWN = "(MULTIGRID__(SHORT_CYCLE|LONG_CYCLE|EPOCH_FACTOR)|NUM_GPUS|BN__NORM_TYPE)"
_SHOWN_PARTS = (
    "(TRAIN__(BATCH_SIZE|EVAL_PERIOD|CHECKPOINT_PERIOD)|DATA__.+|SOLVER__(STEPS|MAX_EPOCH|BASE_LR|LRS|WARMUP_.+))"
)


def _multigrid_keys(entry: dict[str, Any]) -> None:
    no_unknown(entry, "config|overrides|input|error|schedule|steps|lrs|max_epoch|defaults|changes", _CURVES)
    no_unknown(entry["overrides"], _SHOWN, _SHOWN_PARTS, _FACTORS)
    no_unknown(entry["input"], _INPUT)


_CURVES = "lr_at_epoch_start|lr_fractional|eval_epochs|checkpoint_epochs"


def _base(entry: dict[str, Any], num_clips: int) -> BatchShape:
    given = entry["input"]
    crop, rate = given["CROP"], given["SAMPLING_RATE"]
    return BatchShape(num_clips, given["NUM_FRAMES"], crop, crop, tuple(given["JITTER"]), (rate, rate))


def _schedule_options(entry: dict[str, Any]) -> dict[str, Any]:
    given, overrides = entry["input"], entry["overrides"]
    options = {
        "epochs": given["MAX_EPOCH"],
        "lr_steps": given["STEPS"][1:],
        "short": given["SHORT"],
        "epoch_factor": given["EPOCH_FACTOR"],
        "reference": True,
    }
    for name, option in (("SHORT_CYCLE_FACTORS", "short_factors"), ("LONG_CYCLE_FACTORS", "long_factors")):
        if f"MULTIGRID__{name}" in overrides:
            options[option] = overrides[f"MULTIGRID__{name}"]
    return options


def _stages(entry: dict[str, Any]) -> list[LongStage]:
    return wu_stages(_base(entry, entry["input"]["BATCH_SIZE"]), **_schedule_options(entry))


def _plan(entry: dict[str, Any], *, num_clips: int, num_items: int, drop_last: bool = True) -> ShapePlan:
    given = entry["input"]
    gamma = entry["overrides"].get("SOLVER__GAMMA", 0.1)
    drops = len(given["STEPS"])
    # The rates of the configuration hold where the schedule is not rewritten.
    factors = [gamma**drop for drop in range(drops)] if given["LONG"] else given["LRS"][:drops]
    warmup, start = given["WARMUP"]
    return wu_plan(
        _base(entry, num_clips),
        num_items=num_items,
        long=given["LONG"],
        lr_factors=factors,
        warmup_epochs=warmup,
        warmup_start=start / given["BASE_LR"],
        drop_last=drop_last,
        **_schedule_options(entry),
    )


def _whole(entry: dict[str, Any]) -> ShapePlan:
    """The plan over all devices, for data that fill any batch."""
    return _plan(entry, num_clips=entry["input"]["BATCH_SIZE"], num_items=10**6)


def _refused(entry: dict[str, Any]) -> None:
    """The published code cannot run the long cycle without the short one; ours can, over the epochs that were asked for."""
    assert entry["input"]["LONG"] and not entry["input"]["SHORT"], entry["error"]
    plan = _whole(entry)
    assert plan.num_epochs == round(entry["input"]["MAX_EPOCH"] * entry["input"]["EPOCH_FACTOR"])
    assert all(len(phase.cycle) == 1 for phase in plan.phases)


def _wu_schedule(entry: dict[str, Any]) -> None:
    given = entry["input"]
    assert entry["defaults"] == [given["BATCH_SIZE"], given["NUM_FRAMES"], given["CROP"]]
    if entry["schedule"] is None:
        assert not given["LONG"]
        return
    ours = [[stage.lr_stage, [stage.factor, stage.num_frames, stage.height], stage.end] for stage in _stages(entry)]
    assert ours == entry["schedule"]


def _wu_rates(entry: dict[str, Any]) -> None:
    plan, base_lr = _whole(entry), entry["input"]["BASE_LR"]
    assert plan.num_epochs == entry["max_epoch"]
    # Steps and rates of the rewritten schedule, empty stages left out as they never come to pass.
    steps = [*entry["steps"], entry["max_epoch"]]
    spans = [(first, rate) for (first, end), rate in zip(pairwise(steps), entry["lrs"], strict=False) if end > first]
    assert [phase.first for phase in plan.phases] == [first for first, _ in spans]
    np.testing.assert_allclose([phase.rates[0] for phase in plan.phases], [rate for _, rate in spans], rtol=1e-12)
    at_start = [base_lr * plan.lr_factor_at(epoch, 0) for epoch in range(plan.num_epochs)]
    np.testing.assert_allclose(at_start, entry["lr_at_epoch_start"], rtol=1e-9)
    for epoch, rate in entry["lr_fractional"].items():
        np.testing.assert_allclose(base_lr * plan.lr_factor(float(epoch)), rate, rtol=1e-9, err_msg=epoch)


def _wu_epochs(entry: dict[str, Any]) -> None:
    given, last = entry["input"], entry["max_epoch"] - 1
    if given["LONG"]:
        ours = evaluation_epochs(_whole(entry), entry["overrides"].get("MULTIGRID__EVAL_FREQ", 3))
        assert ours == entry["eval_epochs"] == entry["checkpoint_epochs"]
        return
    for period, expected in (("EVAL_PERIOD", "eval_epochs"), ("CHECKPOINT_PERIOD", "checkpoint_epochs")):
        every = [epoch for epoch in range(last + 1) if (epoch + 1) % given[period] == 0 or epoch == last]
        assert every == entry[expected]


def _wu_shapes(entry: dict[str, Any]) -> None:
    """Where the long cycle changes, and all that hangs on it."""
    plan = _whole(entry)
    stages: list[Phase] = []
    for phase in plan.phases:
        if not stages or phase.cycle != stages[-1].cycle:
            stages.append(phase)
    assert [stage.first for stage in stages] == [change["epoch"] for change in entry["changes"]]
    splits: dict[str, int] = {}
    for stage, change in zip(stages, entry["changes"], strict=True):
        _wu_change(entry, stage.cycle, change, splits)
        for drop_last in (True, False):
            _wu_sampler(entry, stage.first, change, drop_last)


def _wu_change(
    entry: dict[str, Any], cycle: tuple[BatchShape, ...], change: dict[str, Any], splits: dict[str, int]
) -> None:
    given = entry["input"]
    known = "epoch|changed|batch|per_gpu|T|S|norm|num_splits|num_sync|long_sampling_rate|short_batch_sizes"
    no_unknown(change, known, "sampler_n1000_drop(True|False)|crop_minscale_maxscale")
    full, gpus = cycle[-1], given["NUM_GPUS"]
    assert (full.num_clips, full.num_frames, full.height) == (change["batch"], change["T"], change["S"])
    assert full.num_clips // gpus == change["per_gpu"]
    assert full.intervals == (given["SAMPLING_RATE"], change["long_sampling_rate"] or given["SAMPLING_RATE"])
    if given["SHORT"]:
        assert [shape.num_clips // gpus for shape in cycle] == change["short_batch_sizes"]
        assert [[shape.height, *shape.short_side] for shape in cycle] == change["crop_minscale_maxscale"]
    if not change["changed"]:
        assert change["norm"] == given["BN_NORM_TYPE"]
        return
    # The configuration keeps a number of splits or devices from an earlier stage where it has no effect.
    split = batch_norm_split(full.num_clips / gpus, entry["overrides"].get("MULTIGRID__BN_BASE_SIZE", 8))
    norms = {"plain": "batchnorm", "sub": "sub_batchnorm", "sync": "sync_batchnorm"}
    assert norms[split.kind] == change["norm"]
    if split.kind != "plain":
        splits[split.kind] = split.count
    for kind, key in (("sub", "num_splits"), ("sync", "num_sync")):
        assert splits.setdefault(kind, change[key]) == change[key], key


def _wu_sampler(entry: dict[str, Any], epoch: int, change: dict[str, Any], drop_last: bool) -> None:
    """One device's batches over 1,000 clips, in order."""
    if not entry["input"]["SHORT"]:
        return
    expected = change[f"sampler_n1000_drop{drop_last}"]
    no_unknown(expected, "len|actual|sizes|cyc|first_idx|last_size")
    per_gpu = entry["input"]["BATCH_SIZE"] // entry["input"]["NUM_GPUS"]
    plan = _plan(entry, num_clips=per_gpu, num_items=1000, drop_last=drop_last)
    num_batches = plan.num_batches(epoch)
    assert num_batches == expected["actual"]
    # The published length divides by the mean size, and may miss the true one by one.
    assert abs(num_batches - expected["len"]) <= 1
    batches = [plan.at(epoch, i) for i in range(num_batches)]
    shown = len(expected["sizes"])
    assert [at.num_clips for at in batches][:shown] == expected["sizes"]
    assert [at.start for at in batches][:shown] == expected["first_idx"]
    assert batches[-1].num_clips == expected["last_size"]
    cycle = plan.phase_at(epoch).cycle
    assert [at.shape for at in batches][:shown] == [cycle[place] for place in expected["cyc"]]


CHECKERS = MappingProxyType({"samplers": _samplers, "srtg_cycles": _cycles, "slowfast_multigrid": _multigrid})
