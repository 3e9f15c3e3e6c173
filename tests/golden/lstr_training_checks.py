"""LSTR's training against the authors' code: optimizer steps, the whole loop, seeded weights, dropout (training.npz)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from loaders.windows import OnlineWindows, Window
from tests.golden.fill import fill_input
from tests.golden.lstr_network_checks import MEMORIES, MODEL, build, fill, padding, windows_of
from tests.golden.vectors import close, filled_input, from_json, no_unknown, read
from trainers.lstr.inference import score_video
from trainers.lstr.losses import mce
from trainers.lstr.network import LSTR
from trainers.lstr.schedules import LrPlan
from trainers.lstr.split import SplitLstr
from trainers.per_frame_metrics import PostProcessing, per_frame, thumos

Cases = Iterable[tuple[str, Callable[[], None]]]
Data = Mapping[str, np.ndarray]

_OPTIMIZER = (
    "optimizer|base_lr|weight_decay|momentum|scheduler|warmup_(factor|epochs|method)|milestones|gamma|num_epochs|iters_per_epoch"
    "|batch_size|salt|seed|torch_manual_seed_before_do_train|(train|test)_sessions"
)


def _training(path: Path) -> Cases:
    data = read(path)
    for case in sorted({key.partition("/")[0] for key in data}):
        keys = [key.partition("/")[2] for key in data if key.startswith(f"{case}/")]
        kind = next((kind for mark, kind in _KINDS.items() if mark in keys), None)
        if kind is None:
            yield case, partial(pytest.fail, f"not checked by anything here: {', '.join(keys)}")
            continue
        check, known = kind
        yield f"{case}/keys", partial(no_unknown, keys, "names|shapes|settings", known)
        yield case, partial(check, data, case)


def _optimizer(model: LSTR, settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    kind, lr, decay = settings["optimizer"], settings["base_lr"], settings["weight_decay"]
    parameters = list(model.parameters())
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=settings["momentum"], weight_decay=decay)
    if kind in ("adam", "adamw"):
        cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
        return cls(parameters, lr=lr, weight_decay=decay)
    pytest.fail(f"optimizers called {kind!r} are not known here")


def _plan(settings: Mapping[str, Any], epoch_steps: int) -> LrPlan:
    return LrPlan(
        name=settings["scheduler"],
        base_lr=settings["base_lr"],
        epoch_steps=epoch_steps,
        epochs=settings["num_epochs"],
        warmup_epochs=settings.get("warmup_epochs", 0.0),
        warmup_factor=settings.get("warmup_factor", 0.3),
        warmup_method=settings.get("warmup_method", "linear"),
        milestones=tuple(settings.get("milestones", ())),
        gamma=settings.get("gamma", 0.1),
    )


def _step(model: LSTR, optimizer: torch.optim.Optimizer, lr: float, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()


def _loss(model: LSTR, inputs: Iterable[Tensor | None], target: Tensor, settings: Mapping[str, Any]) -> Tensor:
    return mce(model(*inputs).flatten(0, 1), target.float().flatten(0, 1), ignore_index=settings["ignore_index"])


def _steps(data: Data, case: str) -> None:
    settings, inputs = from_json(data[f"{case}/settings"]), from_json(data[f"{case}/inputs"])
    no_unknown(settings, MODEL, MEMORIES, _OPTIMIZER)
    no_unknown(inputs, "salt|visual|motion|shapes|masked_prefix|steps")
    model = fill(build(settings), data[f"{case}/names"], data[f"{case}/shapes"], inputs["salt"]).train()
    optimizer, plan = _optimizer(model, settings), _plan(settings, settings["iters_per_epoch"])
    mask = padding(inputs["masked_prefix"], settings["long_memory_num_samples"])
    for k in range(inputs["steps"]):
        streams = [
            filled_input(inputs[name] % k, shape, inputs["salt"])
            for name, shape in zip(("visual", "motion"), inputs["shapes"], strict=True)
        ]
        loss = _loss(model, (*streams, mask), torch.from_numpy(data[f"{case}/targets"][k]), settings)
        close(f"loss {k}", loss, data[f"{case}/losses"][k], 1e-4, scale=1.0)
        close(f"rate {k}", plan.lr(k + 1), data[f"{case}/lrs"][k], 1e-15, scale=1.0)
        _step(model, optimizer, plan.lr(k + 1), loss)
    _final(data, case, model)


def _final(data: Data, case: str, model: LSTR) -> None:
    """Parameters after training. The gradient of key biases is rounding noise, which Adam turns into steps: left out."""
    parameters = dict(model.named_parameters())
    for name, norm in zip(data[f"{case}/names"], data[f"{case}/final_norms"], strict=True):
        tolerance = 1e-3 if str(name).endswith("in_proj_bias") else 1e-4
        close(f"norm of {name}", parameters[str(name)].norm(), norm, tolerance, scale=max(1.0, float(norm)))
    for key in (key for key in data if key.startswith(f"{case}/final/")):
        ours, expected = parameters[key.removeprefix(f"{case}/final/")].detach().numpy(), data[key]
        if key.endswith("in_proj_bias"):
            third = len(expected) // 3
            ours, expected = np.delete(ours, slice(third, 2 * third)), np.delete(expected, slice(third, 2 * third))
        close(key, ours, expected, 1e-4, scale=1.0)


# The whole loop


def _loop(data: Data, case: str) -> None:
    settings = from_json(data[f"{case}/settings"])
    no_unknown(settings, MODEL, MEMORIES, _OPTIMIZER)
    windows, salt = windows_of(settings), settings["salt"]
    # Sessions are numbered through, the test sessions after those for training.
    trained, tested = (list(settings[f"{split}_sessions"].items()) for split in ("train", "test"))
    streams = {
        session: [fill_input(f"{session}.{name}", (rows, settings[f"{name}_feature_size"]), salt)
                  for name in ("visual", "motion")]
        for session, rows in (*trained, *tested)
    }  # fmt: skip
    targets = {session: data[f"{case}/target/{session}"].astype(np.float32) for session in streams}
    samples = data[f"{case}/samples"]
    first_epoch = _same_windows(samples, windows, trained, settings)

    model = fill(build(settings), data[f"{case}/names"], data[f"{case}/shapes"], salt)
    optimizer = _optimizer(model, settings)
    plan = _plan(settings, first_epoch)
    k = 0
    phases: list[list[tuple[float, int, np.ndarray, np.ndarray]]] = []
    for iteration, is_train in enumerate(data[f"{case}/is_train"].tolist()):
        chosen = samples[samples[:, 0] == iteration]
        assert (chosen[:, 1] == is_train).all()
        items = [((*trained, *tested)[number][0], int(start)) for _, _, number, start in chosen]
        batch = [_item(windows, streams[session], targets[session], start, is_train) for session, start in items]
        visual, motion, mask, target = (torch.from_numpy(np.stack(part)) for part in zip(*batch, strict=True))
        model.train(bool(is_train))
        with torch.set_grad_enabled(bool(is_train)):
            logits = model(visual, motion, mask)
            loss = mce(logits.flatten(0, 1), target.flatten(0, 1), ignore_index=settings["ignore_index"])
        close(f"loss {iteration}", loss, data[f"{case}/losses"][iteration], 1e-4, scale=1.0)
        if is_train:
            k += 1
            close(f"rate {k}", plan.lr(k), data[f"{case}/lrs"][iteration], 1e-15, scale=1.0)
            _step(model, optimizer, plan.lr(k), loss)
        if not phases or iteration in _phase_starts(data[f"{case}/is_train"]):
            phases.append([])
        scores = logits.softmax(2).detach().double().numpy().reshape(-1, logits.shape[2])
        phases[-1].append((loss.item(), len(batch), target.double().numpy().reshape(scores.shape), scores))
    _log(data, case, phases, settings)
    _final(data, case, model)
    predictions = {}
    for session, _ in tested:
        found = score_video(SplitLstr(model), windows, *streams[session])
        close(f"scores of {session}", found.scores, data[f"{case}/pred/{session}"], 1e-4, scale=1.0)
        predictions[session] = found
    scored = per_frame(
        *_process(settings)(
            np.concatenate([targets[s] * f.decided[:, None] for s, f in predictions.items()]),
            np.concatenate([f.scores for f in predictions.values()]).astype(np.float64),
        ),
        [str(c) for c in range(settings["num_classes"])],
        metric=_metric(settings),
        ignore_index=settings["ignore_index"],
    )
    line = str(data[f"{case}/inference_log"][0])
    assert abs(scored["mean_AP"] - float(line.rpartition(" ")[2])) < 2e-4, (line, scored["mean_AP"])
    assert data[f"{case}/checkpoint_keys"].tolist() == ["epoch", "model_state_dict", "optimizer_state_dict"]
    assert int(data[f"{case}/checkpoint_epoch"]) == settings["num_epochs"]


def _process(settings: Mapping[str, Any]) -> PostProcessing:
    return thumos() if settings["data_name"] == "THUMOS" else PostProcessing()


def _metric(settings: Mapping[str, Any]) -> Any:
    return "cAP" if settings["data_name"] == "TVSeries" else "AP"


def _item(
    windows: OnlineWindows, streams: list[np.ndarray], target: np.ndarray, start: int, is_train: int
) -> tuple[np.ndarray, ...]:
    window: Window = windows.train(start) if is_train else windows.test(start)
    rows = np.concatenate([window.long, window.work])
    return streams[0][rows], streams[1][rows], window.mask, target[window.work]


def _phase_starts(is_train: np.ndarray) -> set[int]:
    return {0, *(np.flatnonzero(np.diff(is_train)) + 1).tolist()}


def _same_windows(
    samples: np.ndarray, windows: OnlineWindows, sessions: list[tuple[str, int]], settings: Mapping[str, Any]
) -> int:
    """The windows of each training epoch are those that our starts give with the authors' draws.

    Returns the number of iterations of the first epoch, which their schedule goes by throughout.
    """
    rng = np.random.RandomState(settings["seed"])
    drawn = samples[samples[:, 1] == 1]
    counts = []
    for _ in range(settings["num_epochs"]):
        ours = [
            (number, start)
            for number, (_, rows) in enumerate(sessions)
            for start in windows.starts(rows, offset=int(rng.randint(windows.work_length))).tolist()
        ]
        epoch, drawn = drawn[: len(ours)], drawn[len(ours) :]
        assert sorted(ours) == sorted(map(tuple, epoch[:, 2:].tolist()))
        counts.append(-(-len(ours) // settings["batch_size"]))
    assert not len(drawn)
    return counts[0]


def _log(data: Data, case: str, phases: list[list[Any]], settings: Mapping[str, Any]) -> None:
    """The lines of the log: mean losses over windows, and the figure of the test windows."""
    lines = [str(line) for line in data[f"{case}/log"]]
    for line, train, test in zip(lines, phases[::2], phases[1::2], strict=True):
        train_loss, test_loss, figure = map(float, re.findall(r"det_\w+: +([\d.]+)", line))
        for phase, expected in ((train, train_loss), (test, test_loss)):
            mean = sum(loss * count for loss, count, _, _ in phase) / sum(count for _, count, _, _ in phase)
            assert abs(mean - expected) < 1e-4, (line, mean)
        targets, scores = (np.concatenate([part[i] for part in test]) for i in (2, 3))
        names = [str(c) for c in range(settings["num_classes"])]
        found = per_frame(
            *_process(settings)(targets, scores), names, metric=_metric(settings), ignore_index=settings["ignore_index"]
        )
        assert abs(found["mean_AP"] - figure) < 2e-4, (line, found["mean_AP"])


# Seeded weights, dropout


def _init(data: Data, case: str) -> None:
    settings = from_json(data[f"{case}/settings"])
    no_unknown(settings, MODEL, MEMORIES, "torch_manual_seed")
    torch.manual_seed(settings["torch_manual_seed"])
    state = build(settings).state_dict()
    assert list(state) == [str(name) for name in data[f"{case}/names"]]
    for i, (name, value) in enumerate(state.items()):
        assert list(value.shape) == [int(n) for n in re.findall(r"\d+", str(data[f"{case}/shapes"][i]))], name
        assert np.resize(value.flatten()[:4].numpy(), 4).tolist() == data[f"{case}/first4"][i].tolist(), name
        sum_std = np.array([value.double().sum(), value.double().std()])
        close(name, sum_std, data[f"{case}/sum_std"][i], 1e-6, scale=max(1.0, float(np.abs(sum_std).max())))


def _dropout(data: Data, case: str) -> None:
    settings, inputs = from_json(data[f"{case}/settings"]), from_json(data[f"{case}/inputs"])
    no_unknown(settings, MODEL, MEMORIES, "torch_manual_seed")
    no_unknown(inputs, "salt|batch|masked_prefix")
    model = fill(build(settings), data[f"{case}/names"], data[f"{case}/shapes"], inputs["salt"]).train()
    n, w = settings["long_memory_num_samples"], settings["work_memory_num_samples"]
    streams = [
        filled_input(name, (inputs["batch"], n + w, settings[f"{name}_feature_size"]), inputs["salt"])
        for name in ("visual", "motion")
    ]
    torch.manual_seed(settings["torch_manual_seed"])
    logits = model(*streams, padding(inputs["masked_prefix"], n))
    close("logits", logits, data[f"{case}/train_mode_logits"], 1e-5, scale=1.0)
    assert not torch.equal(log_softmax(logits, 2), log_softmax(model(*streams), 2))


_KINDS: Mapping[str, tuple[Callable[[Data, str], None], str]] = {
    "samples": (
        _loop,
        "checkpoint_(keys|epoch)|target/.+|samples|losses|lrs|is_train|log|inference_log|pred/.+|final_norms|final/.+",
    ),
    "targets": (_steps, "inputs|targets|losses|lrs|final_norms|final/.+"),
    "first4": (_init, "first4|sum_std"),
    "train_mode_logits": (_dropout, "inputs|train_mode_logits"),
}

CHECKERS: Mapping[str, Any] = MappingProxyType({"training": _training})
