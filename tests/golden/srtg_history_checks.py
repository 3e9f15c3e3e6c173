"""What SRTG's trainer printed, wrote and grouped: monitor_metrics.json, and of srtg_cycles.json all but the cycles.

Strings exactly, values to 1e-6. What came from a device's clock or from a stand-in for its network (seconds, scores of
single batches) is read from the file; everything around it is ours.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from tests.golden.fill import fill_input, fill_labels
from tests.golden.vectors import no_unknown
from trainers.srtg import historical
from trainers.srtg.groups import published_groups

Cases = Iterable[tuple[str, Callable[[], None]]]

# Metrics and the lines of a step: monitor_metrics.json


def _monitor(path: Path) -> Cases:
    data = json.loads(path.read_text())
    yield "keys", partial(no_unknown, data, "salt|metrics|callbacks|empty|validation_printed|tie_top1|list")
    for i, entry in enumerate(data.get("metrics", [])):
        yield f"metrics/{i}", partial(_metrics, entry, data.get("salt", ""))
    for i, entry in enumerate(data.get("callbacks", [])):
        yield f"callbacks/{i}", partial(_speed, entry)
    for i, entry in enumerate(data.get("list", [])):
        yield f"list/{i}", partial(_line, entry)
    if "empty" in data:
        yield "empty", partial(_empty, data["empty"])
    if "validation_printed" in data:
        yield "validation_printed", partial(_validation, data["validation_printed"])
    if "tie_top1" in data:
        yield "tie_top1", partial(_tie, data["tie_top1"])


def _metrics(entry: dict[str, Any], salt: str) -> None:
    no_unknown(entry, "reset_each_step|sizes|num_classes|inputs|after_each_update|csv_style_mean")
    assert entry["inputs"].startswith('p_i=fill_input("m/p{i}",(b,nc),salt), y_i=fill_labels("m/y{i}",(b,),nc,salt)')
    num_classes = entry["num_classes"]
    scores, steps = historical.Scores(), []
    for i, (size, expected) in enumerate(zip(entry["sizes"], entry["after_each_update"], strict=True)):
        stated = dict(expected)
        printed = stated.pop("printed")
        logits = torch.from_numpy(fill_input(f"m/p{i}", (size, num_classes), salt))
        labels = torch.from_numpy(fill_labels(f"m/y{i}", (size,), num_classes, salt))
        logits[torch.arange(size), labels] += 1
        if entry["reset_each_step"]:
            scores = historical.Scores()
        scores.update(logits, labels, stated["batch_size"], stated["lr"])
        values = scores.values()
        assert list(values) == list(stated)
        for name in ("loss-ce", "top1", "top5"):
            assert values[name] == pytest.approx(stated[name], rel=1e-6), name
        assert list(scores.shape or ()) == stated["batch_size"] and scores.lr == stated["lr"]
        assert historical.metrics_text(values) == printed
        steps.append(values)
    means = dict(zip(("Top1", "Top5", "Loss"), historical.epoch_scores(steps), strict=True))
    assert means == pytest.approx(entry["csv_style_mean"], rel=1e-6)


def _speed(entry: dict[str, Any]) -> None:
    no_unknown(entry, "read|forward|backward|speed|speed_header")
    text = historical.speed_text(entry["read"], entry["forward"], entry["backward"])
    assert text == entry["speed"]
    epoch, batch = (int(number) for number in re.findall(r"\[(\d+)\]", entry["speed_header"])[:2])
    assert historical.step_header(epoch, batch) + text == entry["speed_header"]


def _line(entry: dict[str, Any]) -> None:
    no_unknown(entry, "epoch|batch|read|forward|backward|namevals|out")
    values = {name: value for metric in entry["namevals"] for name, value in metric}
    speed = historical.speed_text(entry["read"], entry["forward"], entry["backward"])
    ours = historical.step_line(entry["epoch"], entry["batch"], speed, historical.metrics_text(values))
    assert ours == entry["out"]


def _empty(expected: list[tuple[str, float | None]]) -> None:
    assert list(historical.Scores().values().items()) == [tuple(each) for each in expected]


def _validation(expected: str) -> None:
    """Without shape and rate."""
    values: dict[str, Any] = {name: float(value) for name, value in re.findall(r"(\S+) = ([\d.]+)", expected)}
    assert historical.metrics_text(values | {"batch_size": None, "lr": None}) == expected


def _tie(expected: tuple[float, int]) -> None:
    """Equal scores for all classes: that one counts which torch.topk names, for every clip alike. [right, clips]."""
    right, total = int(expected[0]), expected[1]
    logits = torch.zeros(total, 9)
    labels = logits.topk(1).indices[:, 0]
    labels[right:] = (labels[right:] + 1) % 9
    scores = historical.Scores()
    scores.update(logits, labels, None, None)
    assert [float(scores.right[0]), scores.num_clips] == list(expected)


# Logs, files and parameter groups: parts of srtg_cycles.json (the cycles themselves are in srtg_sampling_checks)

SCHEDULE_KEYS = "batch_shape|directory|data_root|groups"
FIT_KEYS = "log|error|files"


def schedule_rest(entry: dict[str, Any]) -> None:
    """What `train_model` sets up besides the cycles."""
    out = entry["out"]
    if "batch_shape" in out:
        assert out["batch_shape"][0] == entry["batch_size"] and len(out["batch_shape"]) == 4
    if "directory" in out:
        data_set, network = out["directory"].split("/")[-2:]
        name, _, variant = data_set.partition("-")
        ours = historical.results_folder(name, network, variant=int(variant) if variant else None)
        assert ours == out["directory"]
    if "data_root" in out:
        assert historical.data_root(f"{out['data_root']}/data/{entry.get('dataset', 'HACS')}") == out["data_root"]
    if "groups" in out:
        # Names are not in it; those of the recorded stand-in network are, in fine_tune_groups.
        counts = [group["n"] for group in out["groups"]]
        names = [f"conv1.{i}" for i in range(sum(counts[:3]))] + [f"lstm.{i}" for i in range(counts[3])]
        _same_groups(out["groups"], names, fine_tune=bool(counts[0]))


def fine_tune_groups(facts: dict[str, Any]) -> Cases:
    names = facts["param_names"]
    for key, groups in facts.items():
        if key != "param_names":
            extra = [f"{word}.weight" for word in ("transpose", "classifier") if word in key]
            yield (
                f"fine_tune_groups/{key}",
                partial(_same_groups, groups, [*names, *extra], key.startswith("fine_tune")),
            )


def _same_groups(expected: list[dict[str, Any]], names: list[str], fine_tune: bool) -> None:
    ours = published_groups(names, fine_tune=fine_tune)
    optimizer = {"momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}
    assert [{"n": len(each), "lr_mult": rate, **optimizer} for rate, each in ours.values()] == expected


def fit_rest(entry: dict[str, Any], lr_factor: float = 0.1) -> None:
    """The log, line by line, and the files of a whole run."""
    assert (
        entry["error"] == "AttributeError: 'DictWriter' object has no attribute 'close'"
    )  # The released trainer's end.
    files = dict(entry["files"])
    checkpoints = {name for name, content in files.items() if content is None}
    folder = next(iter(checkpoints)).rpartition("/")[0]
    saved = [epoch for epoch in range(entry["epochs"]) if historical.is_saved(epoch)]
    assert checkpoints == {historical.checkpoint_file(folder, epoch + 1) for epoch in saved}
    rows = {}
    for split, name in zip(("train", "val"), historical.score_files(folder), strict=True):
        lines = files.pop(name).split("\r\n")
        numbers = [line.split(",") for line in lines[1:] if line]
        rows[split] = [(int(epoch), *map(float, values)) for epoch, *values in numbers]
        assert historical.scores_csv(rows[split]) == entry["files"][name]
    assert files.keys() == checkpoints
    for ours, theirs in zip(_log(entry, folder, rows, lr_factor), entry["log"], strict=True):
        assert ours == theirs


def _log(entry: dict[str, Any], folder: str, rows: dict[str, Any], lr_factor: float) -> Iterable[str]:
    """The lines in their order. A loader is made where a batch of its shape comes first; the rate drops after that."""
    log, cycling = entry["log"], entry["long"] or entry["short"]
    first_lr = entry["records"][0]["lr"]
    base = float(re.findall(r"learning rate: (\S+)", log[0])[0])
    next_step = int(re.findall(r"next lr step: (\d+)", log[0])[0])
    assert first_lr <= base
    yield historical.start_line(0, base, next_step)
    if not cycling:
        yield "No cycles selected"
    made = [each for each in entry["loaders"] if each["shape"] is not None]
    step, at = 0, 2 if not cycling else 1
    for epoch in range(entry["epochs"]):
        yield f"Start epoch {epoch}:"
        at += 1
        places: dict[int, Any] = {}
        for record in (record for record in entry["records"] if record["epoch"] == epoch):
            clips, _, *size = record["size"]
            loader = {"batch_size": clips, "shape": size}
            if cycling and places.get(record["batch"] % 3) != loader:
                places[record["batch"] % 3] = loader
                assert {key: made[0][key] for key in loader} == loader
                made.pop(0)
                yield historical.loader_line(clips, size)
                at += 1
            step += 1
            if step == next_step + 1:
                yield historical.rate_line(next_step, base * lr_factor, None)
                at += 1
        yield historical.time_line(epoch, _seconds(log[at]))
        if historical.is_saved(epoch):
            yield f"Checkpoint (model & optimiser) saved to: ./{historical.checkpoint_file(folder, epoch + 1)}"
            at += 1
        yield historical.train_line(*rows["train"][epoch])
        if historical.is_validated(epoch):
            yield f"Start evaluating epoch {epoch}:"
            # The running means of a batch are the stand-in network's: read from the line.
            figures = [float(number) for number in re.findall(r"(\d+\.\d+)", log[at + 3])]
            yield historical.validation_line(epoch, *figures, batch=0)
            yield historical.validation_line(*rows["val"][epoch])
            at += 3
        at += 2
    yield "--- Finished ---"


def _seconds(line: str) -> float:
    seconds = float(re.findall(r"time cost: (\S+) sec", line)[0])
    assert math.isfinite(seconds)
    return seconds


CHECKERS = MappingProxyType({"monitor_metrics": _monitor})
