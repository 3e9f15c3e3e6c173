"""LSTR's network against the authors' code: logits, losses, gradients, features of modules (models.npz, model_full.npz)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loaders.windows import OnlineWindows
from tests.golden.fill import fill_state_dict
from tests.golden.vectors import close, filled_input, from_json, no_unknown, read, shapes_of
from trainers.lstr.losses import mce
from trainers.lstr.network import LSTR, LstrSpec, Module

Cases = Iterable[tuple[str, Callable[[], None]]]
Data = Mapping[str, np.ndarray]

MEMORIES = "(long|work)_memory_(seconds|sample_rate|num_samples)"
MODEL = (
    "modality|(visual|motion)_feature_size|linear_(enabled|out_features)|num_heads|dim_feedforward|dropout|activation"
    "|(enc|dec)_module|num_classes|ignore_index|data_name|fps"
)


def windows_of(settings: Mapping[str, Any]) -> OnlineWindows:
    """Memories of the settings; their numbers of rows must come out as the settings say."""
    windows = OnlineWindows.from_seconds(
        settings["fps"],
        work_s=settings["work_memory_seconds"],
        work_rate=settings["work_memory_sample_rate"],
        long_s=settings["long_memory_seconds"],
        long_rate=settings["long_memory_sample_rate"],
    )
    assert windows.num_work == settings["work_memory_num_samples"]
    assert windows.num_long == settings["long_memory_num_samples"]
    return windows


def build(settings: Mapping[str, Any]) -> LSTR:
    """The network of the settings, freshly drawn."""
    width = settings["linear_out_features"]
    return LSTR(
        LstrSpec(
            num_classes=settings["num_classes"],
            visual_size=settings["visual_feature_size"],
            motion_size=settings["motion_feature_size"],
            modality=settings["modality"],
            width=max(width, 0) if settings["linear_enabled"] else None,
            num_long=settings["long_memory_num_samples"],
            num_work=settings["work_memory_num_samples"],
            encoder=tuple(Module(*each) for each in settings["enc_module"]),
            decoder=Module(*settings["dec_module"]),
            num_heads=settings["num_heads"],
            hidden=settings["dim_feedforward"],
            dropout=settings["dropout"],
            activation=settings["activation"],
        )
    )


def fill(model: LSTR, names: np.ndarray, shapes: np.ndarray, salt: str) -> LSTR:
    """Give the parameters of a file's names their values; positions keep theirs. The names must be all there are."""
    expected = shapes_of(names, shapes)
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items() if name != "pos_encoding.pe"}
    assert list(ours.items()) == list(expected.items())
    state = {name: torch.from_numpy(np.asarray(value)) for name, value in fill_state_dict(expected, salt).items()}
    assert model.load_state_dict(state, strict=False).missing_keys == ["pos_encoding.pe"]
    return model


def padding(masked: Sequence[int] | None, num_long: int) -> Tensor | None:
    """(B, N): -inf in as many leading slots as each row says."""
    if masked is None or not num_long:
        return None
    slots = torch.arange(num_long)
    return torch.zeros(len(masked), num_long).masked_fill(slots < torch.tensor(masked)[:, None], float("-inf"))


def _models(tolerance: float, norm_tolerance: float, path: Path) -> Cases:
    data = read(path)
    known = "names|shapes|settings|inputs|logits|target|loss|grad_names|grad_norms|grad/.+|feat/.+/(shape|meanstd|first64|last64)"
    for case in sorted({key.partition("/")[0] for key in data}):
        keys = [key.partition("/")[2] for key in data if key.startswith(f"{case}/")]
        yield f"{case}/keys", partial(no_unknown, keys, known)
        yield f"{case}/eval", partial(_eval, data, case, tolerance)
        yield f"{case}/train", partial(_train, data, case, tolerance, norm_tolerance)


def _case(data: Data, case: str) -> tuple[LSTR, tuple[Tensor | None, ...], dict[str, Any]]:
    settings, inputs = from_json(data[f"{case}/settings"]), from_json(data[f"{case}/inputs"])
    no_unknown(settings, MODEL, MEMORIES)
    no_unknown(inputs, "salt|visual|motion|masked_prefix|batch")
    windows_of(settings)
    model = fill(build(settings), data[f"{case}/names"], data[f"{case}/shapes"], inputs["salt"])
    streams = [filled_input(name, inputs[name], inputs["salt"]) for name in ("visual", "motion")]
    return model, (*streams, padding(inputs["masked_prefix"], settings["long_memory_num_samples"])), settings


def _eval(data: Data, case: str, tolerance: float) -> None:
    """Logits, and what each module gave on the way to them."""
    model, inputs, _ = _case(data, case)
    outputs: dict[str, Tensor] = {}
    for name in {key.split("/")[2] for key in data if key.startswith(f"{case}/feat/")}:
        model.get_submodule(name).register_forward_hook(
            lambda _module, _args, output, name=name: outputs.__setitem__(name, output)
        )
    with torch.no_grad():
        close("logits", model.eval()(*inputs), data[f"{case}/logits"], tolerance, scale=1.0)
    for name, output in outputs.items():
        key = f"{case}/feat/{name}"
        assert list(output.shape) == data[f"{key}/shape"].tolist(), name
        flat = output.contiguous().flatten()
        close(f"{name} first", flat[:64], data[f"{key}/first64"], tolerance, scale=1.0)
        close(f"{name} last", flat[-64:], data[f"{key}/last64"], tolerance, scale=1.0)
        mean_std = torch.stack([flat.mean(), flat.std(unbiased=False)])
        close(f"{name} mean and std", mean_std, data[f"{key}/meanstd"], tolerance, scale=1.0)


def _train(data: Data, case: str, tolerance: float, norm_tolerance: float) -> None:
    """Loss and gradients in training mode, dropout 0."""
    model, inputs, settings = _case(data, case)
    logits = model.train()(*inputs).flatten(0, 1)
    target = torch.from_numpy(data[f"{case}/target"]).float().flatten(0, 1)
    loss = mce(logits, target, ignore_index=settings["ignore_index"])
    close("loss", loss, data[f"{case}/loss"], tolerance, scale=1.0)
    loss.backward()
    parameters = dict(model.named_parameters())
    assert {name for name, each in parameters.items() if each.grad is not None} == set(data[f"{case}/grad_names"])
    for name, norm in zip(data[f"{case}/grad_names"], data[f"{case}/grad_norms"], strict=True):
        ours = parameters[str(name)].grad.norm()
        # Relative to the norm; a gradient that is 0 by construction is rounding noise on both sides.
        close(f"gradient norm of {name}", ours, norm, norm_tolerance, scale=max(float(norm), 1e-3))
    for key in (key for key in data if key.startswith(f"{case}/grad/")):
        close(key, parameters[key.removeprefix(f"{case}/grad/")].grad, data[key], tolerance, scale=1.0)


CHECKERS: Mapping[str, Any] = MappingProxyType(
    {"models": partial(_models, 1e-5, 1e-4), "model_full": partial(_models, 5e-5, 1e-3)}
)
