"""SRTG against the authors' code. A tolerance is relative to the largest magnitude of the array it is for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.golden.fill import fill_labels
from tests.golden.srtg_block_checks import BLOCKS, CONVS, published_gates
from tests.golden.vectors import close, filled, filled_input, from_json, no_unknown, read, shapes_of, strided
from trainers.srtg import network
from trainers.srtg.convolutions import basic_stem, stem2plus1d
from trainers.srtg.mtnet import MTNet, MTNetSpec
from trainers.srtg.published_names import authors_built

Cases = Iterable[tuple[str, Any]]

# Whole networks: net_*.npz

_STEMS = {"BasicStem": basic_stem, "R2Plus1dStem": stem2plus1d}
_NET_KEYS = (
    "settings|inputs|labels|salt|scale_rules|names|shapes",
    "(eval|train)_(logits|loss|noise|grad_names|grad_norms|grad_none|grad_total_norm)",
    "stage_(names|shapes|stats)",
    "(stage64|stagestrided|eval_grad|train_grad|buffer_after)/.+",
)


def _build(settings: dict[str, Any]) -> nn.Module:
    if settings["builder"] in ("fn", "mt"):
        no_unknown(settings, "builder|name|num_classes")
        return network.build(_our_name(settings["name"]), settings["num_classes"])
    if settings["builder"] == "mtcls":
        no_unknown(settings, "builder|block|layers|num_classes|groups|width_per_group|recursion|type")
        spec = MTNetSpec(
            tuple(settings["layers"]),
            settings.get("groups", 1),
            settings.get("width_per_group", 64),
            cell=settings.get("type", "gru"),
        )
        return MTNet(spec, settings["num_classes"])
    if settings["builder"] == "resnet":
        no_unknown(settings, "builder|block|convs|layers|stem|num_classes|groups|width_per_group|recursion|gates|place")
        spec = network.NetworkSpec(
            block=BLOCKS[settings["block"]],
            layers=tuple(settings["layers"]),
            convs=tuple(CONVS[name] for name in settings["convs"]),
            stem=_STEMS[settings["stem"]],
            groups=settings.get("groups", 1),
            base_width=settings.get("width_per_group", 64),
            recursion=settings.get("recursion", False),
        )
        gates = published_gates(settings.get("gates", False))
        return network.VideoResNet(spec, settings["num_classes"], gates=gates, place=settings.get("place", "final"))
    pytest.fail(f"networks of the builder {settings['builder']!r} are not known here")


def _our_name(factory: str) -> str:
    """Factories are called as our networks are, but for the capitals of MTNet."""
    return factory.replace("MTNet", "mtnet")


def _net(path: Path) -> Cases:
    yield "keys", lambda: no_unknown(read(path), *_NET_KEYS)
    yield "state_dict", lambda: _net_state_dict(read(path))
    for mode in ("eval", "train"):
        if f"{mode}_logits" in read(path):
            yield mode, partial(_net_mode, path, mode)


def _net_state_dict(data: Mapping[str, np.ndarray]) -> None:
    with torch.device("meta"):
        ours = _build(from_json(data["settings"])).state_dict()
    expected = shapes_of(data["names"], data["shapes"])
    assert [(name, tuple(value.shape)) for name, value in ours.items()] == list(expected.items())


def _net_mode(path: Path, mode: str) -> None:
    """One forward and backward in one mode, and everything the file holds about it."""
    data = read(path)
    salt, noise = str(data["salt"]), from_json(data[f"{mode}_noise"])
    model = _build(from_json(data["settings"])).train(mode == "train")
    model.load_state_dict(filled(shapes_of(data["names"], data["shapes"]), salt, from_json(data["scale_rules"])))
    inputs, labels = from_json(data["inputs"]), from_json(data["labels"])
    (x_name, x_shape), (y_name, y_shape) = *inputs.items(), next(iter(labels.items()))
    stages: dict[str, Tensor] = {}
    if mode == "eval":
        _record(model, [str(name) for name in data["stage_names"]], stages)

    logits = model(filled_input(x_name, x_shape, salt))
    target = torch.from_numpy(fill_labels(y_name, tuple(y_shape), labels["num_classes"], salt))
    loss = nn.functional.cross_entropy(logits, target)
    close("logits", logits, data[f"{mode}_logits"], 1e-4 if mode == "eval" else max(1e-4, 5 * noise["logits_rel"]))
    close("loss", loss, data[f"{mode}_loss"], max(1e-4, 5 * noise["loss_rel"]))
    _stages(data, stages)
    if mode == "train":
        buffers = dict(model.named_buffers())
        for key in (key for key in data if key.startswith("buffer_after/")):
            name = key.partition("/")[2]
            close(key, buffers[name].flatten()[:64], data[key], 1e-4)
    if f"{mode}_grad_names" in data:
        loss.backward()
        _gradients(data, mode, model, noise["grad_rel_max"])


def _record(model: nn.Module, names: list[str], into: dict[str, Tensor]) -> None:
    """Keep what the submodules called `names` give in the next forward."""
    for name in names:
        # A number at the end may be a block of a stage, or a stream of a module that gives two.
        whole, _, stream = name.rpartition(".")
        module = whole if stream in ("0", "1") and isinstance(model, MTNet) else name
        model.get_submodule(module).register_forward_hook(partial(_keep, into, name, stream))


def _keep(into: dict[str, Tensor], name: str, stream: str, _module: nn.Module, _args: Any, output: Any) -> None:
    into[name] = (output[int(stream)] if isinstance(output, tuple) else output).detach().clone()


def _stages(data: Mapping[str, np.ndarray], stages: dict[str, Tensor]) -> None:
    for index, (name, stage) in enumerate(stages.items()):
        index = [str(each) for each in data["stage_names"]].index(name)
        mean, std, absmax = data["stage_stats"][index]
        assert list(stage.shape) == json.loads(str(data["stage_shapes"][index])), name
        close(f"{name} mean", stage.mean(), mean, 1e-4, absmax)
        close(f"{name} std", stage.std(), std, 1e-4, absmax)
        close(f"{name} absmax", stage.abs().max(), absmax, 1e-4)
        close(f"{name} first values", stage.flatten()[:64], data[f"stage64/{name}"], 1e-4, absmax)
        close(f"{name} spread values", strided(stage), data[f"stagestrided/{name}"], 1e-4, absmax)


def _gradients(data: Mapping[str, np.ndarray], mode: str, model: nn.Module, noise: float) -> None:
    parameters = dict(model.named_parameters())
    norm_tolerance = max(2e-2, 5 * noise)
    assert {name for name, p in parameters.items() if p.grad is None} == set(data[f"{mode}_grad_none"])
    assert {name for name, p in parameters.items() if p.grad is not None} == set(data[f"{mode}_grad_names"])
    total = torch.stack([p.grad.norm() for p in parameters.values() if p.grad is not None]).norm()
    close("total gradient norm", total, data[f"{mode}_grad_total_norm"], norm_tolerance)
    for name, norm in zip(data[f"{mode}_grad_names"], data[f"{mode}_grad_norms"], strict=True):
        close(f"gradient norm of {name}", parameters[str(name)].grad.norm(), norm, norm_tolerance)
    noisy: list[str] = []
    for key in (key for key in data if key.startswith(f"{mode}_grad/")):
        gradient = strided(parameters[key.partition("/")[2]].grad)
        try:
            close(key, gradient, data[key], 1e-3)
        except AssertionError:
            # The noisiest tensor of a file, and no other, is held to the reference's own rounding noise instead.
            noisy.append(key)
            close(key, gradient, data[key], max(1e-3, 5 * noise))
    assert len(noisy) <= 1, f"gradients off by more than 1e-3: {', '.join(noisy)}"


# Names and shapes of all published networks: state_dicts.json


def _state_dicts(path: Path) -> Cases:
    for name, entry in json.loads(path.read_text()).items():
        classes = [key for key in entry if key.isdigit()]
        yield f"{name}/keys", partial(no_unknown, entry, *classes, *(f"keys_{number}" for number in classes))
        for number in classes:
            yield (
                f"{name}/{number}",
                partial(_state_dict, name, int(number), entry[number], entry.get(f"keys_{number}")),
            )


def _state_dict(name: str, num_classes: int, facts: dict[str, Any], lines: list[str] | None) -> None:
    no_unknown(facts, "entries|params|sha256")
    with torch.device("meta"):
        model = network.build(_our_name(name), num_classes)
    ours = [f"{key}|{','.join(map(str, value.shape))}" for key, value in model.state_dict().items()]
    assert lines is None or ours == lines
    assert len(ours) == facts["entries"]
    assert sum(parameter.numel() for parameter in model.parameters()) == facts["params"]
    assert hashlib.sha256("".join(f"{line}\n" for line in ours).encode()).hexdigest() == facts["sha256"]


# Names and what the authors' resolver makes of them: symbol_builder_map.json


def _symbols(path: Path) -> Cases:
    for name, made in json.loads(path.read_text()).items():
        yield name, partial(_symbol, name, made)


def _symbol(name: str, made: str) -> None:
    """We know what it made there; here the name gives the network of that name, or an error that names the nearest."""
    assert (authors_built(name) or "error NotImplementedError") == made
    if name in network.NETWORKS:
        spec = network.NETWORKS[name]
        recursive = isinstance(spec, MTNetSpec) or spec.recursion
        assert recursive == name.startswith(("srtg_", "mtnet"))
    else:
        with pytest.raises(ValueError, match="the nearest name is"):
            network.build(name, 5)
    if not made.startswith("error"):
        assert _our_name(made) in network.NETWORKS


CHECKERS = MappingProxyType({"net_": _net, "state_dicts": _state_dicts, "symbol_builder_map": _symbols})
