"""SBP's networks against the authors' code: backbones, Video Swin, the operations, inflation.

Tolerances are those of the vectors: values 2e-5 + 1e-4 of each, gradients 1e-5 + 1e-3 of each, deep features 1e-3.
"""

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
from torch import Tensor, nn

from tests.golden.fill import fill_labels, fill_parameter
from tests.golden.vectors import filled_input, from_json, no_unknown, read
from trainers.backbones.resnet import DEPTHS
from trainers.backbones.swin_weights import load_image_swin, load_video_swin
from trainers.backbones.video_swin import add_branch
from trainers.backbones.windows3d import Windows, relative_position_index, shift_mask
from trainers.sbp.attention import kept_attention
from trainers.sbp.kept_tokens import Pattern
from trainers.sbp.masks import checkerboard_keep, frame_keep
from trainers.sbp.partial import partial_rows
from trainers.sbp.recognizer import SwinRecognizer
from trainers.sbp.spatial import build_spatial
from trainers.sbp.swin import Sbp, build_swin

Cases = Iterable[tuple[str, Callable[[], None]]]

COMPUTED = ("relative_position_index", "pos_encoding.pe")
"""What constructors compute and no file fills."""


def near(what: str, actual: Tensor | float, expected: np.ndarray, rtol: float, atol: float) -> None:
    """Fail unless every |actual - expected| <= atol + rtol * |expected|."""
    got = actual.detach().double().numpy() if isinstance(actual, Tensor) else np.asarray(actual, np.float64)
    expected = np.asarray(expected, np.float64)
    if expected.shape == (1,) and got.shape == ():
        expected = expected[0]
    np.testing.assert_allclose(got, expected, rtol, atol, err_msg=what)


def value(what: str, actual: Tensor | float, expected: np.ndarray) -> None:
    near(what, actual, expected, 1e-4, 2e-5)


def gradient(what: str, actual: Tensor, expected: np.ndarray) -> None:
    near(what, actual, expected, 1e-3, 1e-5)


def summary(what: str, actual: Tensor, data: Mapping[str, np.ndarray], key: str, rtol: float, atol: float) -> None:
    """A tensor too large to store: its shape, first 64 values, and mean, deviation and norm."""
    assert list(actual.shape) == data[f"{key}/shape"].tolist(), what
    near(f"{what}: first values", actual.flatten()[:64], data[f"{key}/first64"], rtol, atol)
    wide = actual.detach().double()
    stats = torch.stack([wide.mean(), wide.std(unbiased=False), wide.norm()])
    near(f"{what}: mean, deviation, norm", stats, data[f"{key}/mean_std_l2"], rtol, atol)


def fill(model: nn.Module, names: np.ndarray, shapes: list[list[int]], salt: str) -> None:
    """Give `model` the values that a file means. Its tensors must be those of the file, but for computed ones."""
    wanted = {str(name): tuple(shape) for name, shape in zip(names, shapes, strict=True)}
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    kept = {name for name in own if name.endswith(COMPUTED)}
    assert {name: shape for name, shape in own.items() if name not in kept} == {
        name: shape for name, shape in wanted.items() if name not in kept
    }
    state = {name: torch.from_numpy(np.asarray(fill_parameter(name, shape, salt))) for name, shape in wanted.items()}
    model.load_state_dict({name: each for name, each in state.items() if name not in kept}, strict=False)


def gradient_norms(own: Mapping[str, Tensor], names: np.ndarray, expected: np.ndarray) -> None:
    """Norms of the gradients of the parameters of a file; NaN and 0 stand for none."""
    for name, norm in zip(map(str, names), expected, strict=True):
        grad = own[name].grad
        near(f"gradient of {name}", 0.0 if grad is None else grad.norm(), np.nan_to_num(norm), 1e-3, 1e-5)


# Backbones: backbones.npz

_BACKBONES = {f"r{depth}": f"resnet{depth}" for depth in DEPTHS} | {
    f"resnet{depth}": f"resnet{depth}" for depth in DEPTHS
}


def _backbones(path: Path) -> Cases:
    settings = from_json(read(path)["settings"])
    tags = "|".join(settings["cases"])
    known = rf"({tags})/(features|map/.+|names|param_names|grad_norms)"
    yield "keys", lambda: no_unknown(read(path), "settings|inputs", known)
    for tag, case in settings["cases"].items():
        yield tag, partial(_backbone, read(path), tag, case, settings["salt"])


def _backbone(data: Mapping[str, np.ndarray], tag: str, case: dict[str, Any], salt: str) -> None:
    no_unknown(case, "backbone|input|shapes")
    kind, channels = case["backbone"], case["input"][2]
    if kind not in _BACKBONES and not kind.startswith("bni"):
        pytest.fail(f"backbones of the kind {kind!r} are not known here")
    model = build_spatial(_BACKBONES.get(kind, "bn_inception"), in_channels=channels, frozen_bn=False).eval()
    assert list(model.state_dict()) == [str(name) for name in data[f"{tag}/names"]]
    fill(model, data[f"{tag}/names"], case["shapes"], salt)
    maps: list[Tensor] = []
    model.backbone.register_forward_hook(lambda _module, _args, output: maps.append(output.detach()))
    features = model(filled_input(f"{tag}/frames", case["input"], salt))
    near("features", features, data[f"{tag}/features"], 1e-3, 2e-5)
    summary("map", maps[0], data, f"{tag}/map", 1e-3, 2e-5)
    (features * filled_input(f"{tag}/dy", features.shape, salt)).sum().backward()
    gradient_norms(dict(model.named_parameters()), data[f"{tag}/param_names"], data[f"{tag}/grad_norms"])


# Video Swin without and with SBP: swin_plain*.npz, swin_sbp*.npz


def swin_settings_of(settings: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Arguments of `VideoSwin` from what a file says and the names of its parameters."""
    names = {str(name).removeprefix("backbone.") for name in names}
    return {
        "patch_size": tuple(settings["patch_size"]),
        "embed_dim": settings["embed_dim"],
        "depths": tuple(settings["depths"]),
        "num_heads": tuple(settings["num_heads"]),
        "window_size": tuple(settings["window_size"]),
        "patch_norm": "patch_embed.norm.weight" in names,
        "qkv_bias": "layers.0.blocks.0.attn.qkv.bias" in names,
        "qk_scale": settings.get("qk_scale"),
        "mlp_ratio": settings.get("mlp_ratio", 4.0),
        "drop_path_rate": 0.0,
    }


_SWIN_SETTINGS = "patch_size|embed_dim|depths|num_heads|window_size|num_classes|input|salt|qk_scale|mlp_ratio"


def _recognizer(
    data: Mapping[str, np.ndarray], sbp: Sbp | None = None, **changes: Any
) -> tuple[SwinRecognizer, Tensor, Tensor]:
    """The filled model of a file, its clip, its labels."""
    settings = from_json(data["settings"])
    backbone = build_swin(sbp, **(swin_settings_of(settings, data["names"]) | changes))
    model = SwinRecognizer(backbone, settings["num_classes"], dropout=0.0)
    fill(model, data["names"], from_json(data["shapes"]), settings["salt"])
    clip = filled_input("input", settings["input"], settings["salt"]).requires_grad_()
    labels = torch.from_numpy(fill_labels("labels", (settings["input"][0],), settings["num_classes"], settings["salt"]))
    assert labels.tolist() == data["labels"].tolist()
    return model, clip, labels


def _swin_plain(path: Path) -> Cases:
    data = read(path)
    settings = from_json(data["settings"])
    no_unknown(settings, _SWIN_SETTINGS, "extra_inputs|drop_path_rate_of_train_dp")
    known = r"(eval|train|train_dp|extra\d+)/.+|names|param_names|labels|shapes|inputs|settings"
    yield "keys", lambda: no_unknown(data, known)
    for mode in ("train", "train_dp"):
        if f"{mode}/loss" in data:
            rate = settings.get("drop_path_rate_of_train_dp", 0.0) if mode == "train_dp" else 0.0
            yield mode, partial(_swin_train, data, mode, rate)
    yield "eval", partial(_swin_eval, data)
    for i, shape in enumerate(settings.get("extra_inputs", ())):
        yield f"extra{i}", partial(_swin_extra, data, i, shape)


def _swin_eval(data: Mapping[str, np.ndarray]) -> None:
    model, clip, _ = _recognizer(data)
    model.eval()
    outputs: dict[str, Tensor] = {}

    def keep(name: str, channels_last: bool) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: Tensor) -> None:
            outputs[name] = (output.movedim(-1, 1) if channels_last else output).detach()

        return hook

    model.backbone.patch_embed.register_forward_hook(keep("patch_embed", True))
    for i, stage in enumerate(model.backbone.layers):
        stage.register_forward_hook(keep(f"stage{i}", True))
        for j, block in enumerate(stage.blocks):
            block.attn.register_forward_hook(keep(f"layers.{i}.blocks.{j}.attn", False))
    model.backbone.register_forward_hook(keep("features", False))
    with torch.no_grad():
        value("logits", model(clip), data["eval/logits"])
    value("features", outputs["features"], data["eval/features"])
    outputs["features_stat"] = outputs["features"]
    for key in (key for key in data if key.startswith("eval/") and key.endswith("/shape")):
        name = key[len("eval/") : -len("/shape")]
        summary(name, outputs[name], data, f"eval/{name}", 1e-4, 2e-5)


def _swin_extra(data: Mapping[str, np.ndarray], i: int, shape: list[int]) -> None:
    model, _, _ = _recognizer(data)
    clip = filled_input(f"input_extra{i}", shape, from_json(data["settings"])["salt"])
    with torch.no_grad():
        features = model.eval().backbone(clip)
        value("logits", model.head(features), data[f"extra{i}/logits"])
    summary("features", features, data, f"extra{i}/features", 1e-4, 2e-5)


def _swin_train(data: Mapping[str, np.ndarray], tag: str, rate: float) -> None:
    model, clip, labels = _recognizer(data, drop_path_rate=rate)
    _train_and_check(data, tag, model, clip, labels, rate)


def _train_and_check(
    data: Mapping[str, np.ndarray], tag: str, model: SwinRecognizer, clip: Tensor, labels: Tensor, rate: float
) -> None:
    """Forward, cross entropy and backward in training mode, and everything the file holds under `tag`."""
    model.train()
    torch.manual_seed(123)
    logits = model(clip)
    loss = nn.functional.cross_entropy(logits, labels)
    loss.backward()
    value("logits", logits, data[f"{tag}/logits"])
    value("loss", loss, data[f"{tag}/loss"])
    own = dict(model.named_parameters())
    gradient_norms(own, data["param_names"], data[f"{tag}/grad_norms"])
    for key in (key for key in data if key.startswith(f"{tag}/grad/")):
        gradient(key, own[key.removeprefix(f"{tag}/grad/")].grad, data[key])
    if f"{tag}/grad_input/shape" in data:
        summary("gradient of the clip", clip.grad, data, f"{tag}/grad_input", 1e-3, 1e-5)
    if f"{tag}/drop_path_uniform_draws" in data and rate:
        torch.manual_seed(123)
        blocks = [block for stage in model.backbone.layers for block in stage.blocks if block.drop_path]
        empty = torch.empty(len(clip), 1)
        drawn = [(factor, 1 - block.drop_path) for block in blocks for factor in block.draw(empty)]
        for (factor, keep), draws in zip(drawn, data[f"{tag}/drop_path_uniform_draws"], strict=True):
            value("drop path", factor.flatten(), np.floor(np.float32(keep) + draws) / np.float32(keep))


def _swin_sbp(path: Path) -> Cases:
    data = read(path)
    settings = from_json(data["settings"])
    no_unknown(settings, _SWIN_SETTINGS, "runs")
    tags = "|".join(run["tag"] for run in settings["runs"])
    part = r"logits|loss|grad_norms|grad/.+|grad_input/.+|mask_stage\d+|drop_path_uniform_draws"
    yield (
        "keys",
        lambda: no_unknown(data, rf"({tags})/({part})|names|ref_names|param_names|labels|shapes|inputs|settings"),
    )
    if "ref_names" in data:
        yield "names", partial(_sbp_names, data)
    for run in settings["runs"]:
        yield run["tag"], partial(_sbp_run, data, run)


def _sbp_names(data: Mapping[str, np.ndarray]) -> None:
    """A file in the spelling of the published SBP code loads whole."""
    model, _, _ = _recognizer(data)
    state = model.state_dict()
    theirs = {str(ref): state[str(name)] + 1 for ref, name in zip(data["ref_names"], data["names"], strict=True)}
    report = load_video_swin(model, {"epoch": 3, "model_state_dict": theirs})
    assert report.complete, str(report)


def _sbp_run(data: Mapping[str, np.ndarray], run: dict[str, Any]) -> None:
    no_unknown(run, "tag|version|d|with_gd|ckpt|dpr|full|roll_all")
    version, tag, rate = run["version"], run["tag"], run.get("dpr", 0.0)
    if version not in ("v1", "v2"):
        pytest.fail(f"SBP of the version {version!r} is not known here")
    faithful = version == "v2" and not run.get("roll_all", False)
    sbp = Sbp(run["d"], run["with_gd"], version=version, faithful=faithful)
    model, clip, labels = _recognizer(data, sbp, drop_path_rate=rate, checkpointing=run.get("ckpt", False))
    _train_and_check(data, tag, model, clip, labels, rate)
    sizes = [-(-size // patch) for size, patch in zip(clip.shape[2:], model.backbone.patch_embed.patch, strict=True)]
    for i in range(len(run["with_gd"])):
        pattern = Pattern(version, run["d"], 2 ** (len(run["with_gd"]) - 1 - i))
        ours = pattern.keep((sizes[0], sizes[1], sizes[2]))
        if version == "v1":
            ours = ours[:, 0, 0].expand(len(clip), -1)
        np.testing.assert_array_equal(ours, data[f"{tag}/mask_stage{i}"].astype(bool))
        sizes[1:] = [-(-size // 2) for size in sizes[1:]]


# The operations by themselves: sbp_ops.npz

_MLP = "tag|kind|B|D|H|W|C|hidden|downsample|drop_path|param_names"
_ATTENTION = "tag|kind|B|nW|nH|N|C|scale|downsample"


def _sbp_ops(path: Path) -> Cases:
    data = read(path)
    settings = from_json(data["settings"])
    no_unknown(settings, "salt|cases|frame_masks")
    tags = "|".join(case["tag"] for case in settings["cases"])
    helpers = "checkerboard|window_grad_mask|relative_position_index|shift_mask|window_partition"
    yield "keys", lambda: no_unknown(data, rf"({tags})/.+|({helpers})/.+|settings|inputs")
    for case in settings["cases"]:
        if case["kind"] not in ("mlp", "attn"):
            yield case["tag"], partial(pytest.fail, f"operations of the kind {case['kind']!r} are not known here")
        else:
            yield case["tag"], partial(_mlp if case["kind"] == "mlp" else _attention, data, case, settings["salt"])
    for name, kept in settings.get("frame_masks", {}).items():
        yield f"frame_masks/{name}", partial(_frame_mask, name, kept)
    for key in (key for key in data if key.partition("/")[0] in helpers.split("|")):
        yield key, partial(_HELPERS[key.partition("/")[0]], key.partition("/")[2], data[key])


def _mlp(data: Mapping[str, np.ndarray], case: dict[str, Any], salt: str) -> None:
    no_unknown(case, _MLP)
    tag, sizes = case["tag"], [case[name] for name in "BDHWC"]
    dim, hidden, rate = case["C"], case["hidden"], case["drop_path"]
    assert case["param_names"] == list(_mlp_shapes(dim, hidden))
    parameters = {
        name: torch.from_numpy(np.asarray(fill_parameter(name, shape, salt))).requires_grad_()
        for name, shape in _mlp_shapes(dim, hidden).items()
    }
    x = filled_input(f"{tag}/x", sizes, salt).requires_grad_()
    keep = torch.from_numpy(data[f"{tag}/mask"].astype(bool))
    keep = keep[:, :, None, None] if keep.ndim == 2 else keep
    extra = []
    if f"{tag}/drop_path_keep" in data:
        extra = [torch.from_numpy(data[f"{tag}/drop_path_keep"]).view(-1, 1, 1, 1, 1) / (1 - rate)]

    def step(x: Tensor, *rest: Tensor) -> Tensor:
        scale, shift, w1, b1, w2, b2, *factor = rest
        y = nn.functional.layer_norm(x, (dim,), scale, shift)
        y = nn.functional.linear(nn.functional.gelu(nn.functional.linear(y, w1, b1)), w2, b2)
        return add_branch(x, y, factor[0] if factor else None)

    y = partial_rows(step, x, keep, tuple(parameters.values()), extra=extra)
    y.backward(filled_input(f"{tag}/dy", sizes, salt))
    value("y", y, data[f"{tag}/y"])
    gradient("dx", x.grad, data[f"{tag}/dx"])
    for name, parameter in parameters.items():
        gradient(name, parameter.grad, data[f"{tag}/d_{name}"])


def _mlp_shapes(dim: int, hidden: int) -> dict[str, tuple[int, ...]]:
    norm = {"norm.weight": (dim,), "norm.bias": (dim,)}
    return norm | {"fc1.weight": (hidden, dim), "fc1.bias": (hidden,), "fc2.weight": (dim, hidden), "fc2.bias": (dim,)}


def _attention(data: Mapping[str, np.ndarray], case: dict[str, Any], salt: str) -> None:
    no_unknown(case, _ATTENTION)
    tag, sizes = case["tag"], (case["B"] * case["nW"], case["nH"], case["N"], case["C"])
    q, k, v = (filled_input(f"{tag}/{name}", sizes, salt).requires_grad_() for name in "qkv")
    bias = filled_input(f"{tag}/bias", (case["nH"], case["N"], case["N"]), salt).requires_grad_()
    mask = torch.from_numpy(data[f"{tag}/attn_mask"]) if f"{tag}/attn_mask" in data else None
    keep = torch.from_numpy(data[f"{tag}/grad_mask"]) if f"{tag}/grad_mask" in data else None
    y = kept_attention(q, k, v, bias, mask, case["scale"], keep)
    y.backward(filled_input(f"{tag}/dy", sizes, salt))
    value("y", y, data[f"{tag}/y"])
    for name, each in {"dq": q, "dk": k, "dv": v, "dbias": bias}.items():
        gradient(name, each.grad, data[f"{tag}/{name}"])


def _numbers(name: str, pattern: str) -> list[int]:
    found = re.fullmatch(pattern, name)
    assert found, f"{name} is not of the form {pattern}"
    return [int(group) for group in found.groups()]


def _frame_mask(name: str, kept: list[int]) -> None:
    frames, downsample = _numbers(name, r"D(\d+)_d(\d+)")
    assert frame_keep(frames, downsample).nonzero().flatten().tolist() == kept


def _checkerboard(name: str, expected: np.ndarray) -> None:
    d, h, w, block, downsample = _numbers(name, r"D(\d+)_H(\d+)_W(\d+)_b(\d+)_d(\d+)")
    board = checkerboard_keep((d, h, w), downsample, block=block, strict=False)
    np.testing.assert_array_equal(board, expected.astype(bool))


def _window_grad_mask(name: str, expected: np.ndarray) -> None:
    found = re.fullmatch(r"(v\d)_D(\d+)_H(\d+)_W(\d+)(?:_b(\d+))?(?:_d(\d+))?_win(\d)(\d)(\d)", name)
    assert found, name
    version, block, downsample = found[1], int(found[5] or 1), int(found[6] or 2)
    sizes, window = tuple(int(found[i]) for i in (2, 3, 4)), tuple(int(found[i]) for i in (7, 8, 9))
    keep = Pattern(version, downsample, block).keep(sizes)  # type: ignore[arg-type]
    windows = Windows(sizes, window, (0, 0, 0))  # type: ignore[arg-type]
    ours = windows.partition(keep[None, ..., None])[..., 0]
    np.testing.assert_array_equal(ours.repeat(len(expected) // len(ours), 1), expected.astype(bool))


def _relative_position(name: str, expected: np.ndarray) -> None:
    wd, wh, ww = _numbers(name, r"win_(\d+)_(\d+)_(\d+)")
    np.testing.assert_array_equal(relative_position_index((wd, wh, ww)), expected)


def _shift_mask(name: str, expected: np.ndarray) -> None:
    d, h, w, wd, wh, ww, sd, sh, sw = _numbers(name, r"(\d+)_(\d+)_(\d+)_\((\d+),(\d+),(\d+)\)_\((\d+),(\d+),(\d+)\)")
    mask = shift_mask(Windows((d, h, w), (wd, wh, ww), (sd, sh, sw)), torch.device("cpu"))
    assert mask is not None
    np.testing.assert_array_equal(mask, expected)


def _window_partition(name: str, expected: np.ndarray) -> None:
    d, h, w, wd, wh, ww = _numbers(name, r"arange_(\d+)_(\d+)_(\d+)_win_(\d+)_(\d+)_(\d+)")
    windows = Windows((d, h, w), (wd, wh, ww), (0, 0, 0))
    np.testing.assert_array_equal(windows.token_index(), expected)
    x = torch.arange(d * h * w).view(1, d, h, w, 1)
    assert windows.reverse(windows.partition(x)).equal(x)


_HELPERS: Mapping[str, Callable[[str, np.ndarray], None]] = {
    "checkerboard": _checkerboard,
    "window_grad_mask": _window_grad_mask,
    "relative_position_index": _relative_position,
    "shift_mask": _shift_mask,
    "window_partition": _window_partition,
}


# Image weights to video weights: inflate.npz


def _inflate(path: Path) -> Cases:
    data = read(path)
    settings = from_json(data["settings"])
    no_unknown(settings, _SWIN_SETTINGS, "cases")
    for case in settings["cases"]:
        yield case["tag"], partial(_inflated, data, settings, case)


def _inflated(data: Mapping[str, np.ndarray], settings: dict[str, Any], case: dict[str, Any]) -> None:
    no_unknown(case, "tag|window_2d|version|shapes_2d|d|with_gd")
    names = data[f"{case['tag']}/param_names"]
    sbp = None
    if case["version"]:
        sbp = Sbp(case.get("d", 2), case.get("with_gd") or [[1] * n for n in settings["depths"]], case["version"])
    backbone = build_swin(sbp, **swin_settings_of(settings, names))
    image = {
        name: torch.from_numpy(np.asarray(fill_parameter(name, tuple(shape), settings["salt"])))
        for name, shape in case["shapes_2d"].items()
    }
    useless = {
        "layers.0.blocks.0.attn.relative_position_index": torch.ones(3),
        "layers.0.blocks.1.attn_mask": torch.ones(2),
    }
    load_image_swin(backbone, {"model": image | useless})
    own = {name: each.detach() for name, each in backbone.named_parameters()}
    assert set(own) == set(map(str, names))
    for name, norm in zip(map(str, names), data[f"{case['tag']}/param_norms"], strict=True):
        value(f"norm of {name}", own[name].norm(), norm)
    for key in (key for key in data if key.startswith(f"{case['tag']}/") and "param_n" not in key):
        value(key, own[key.partition("/")[2]], data[key])


CHECKERS = MappingProxyType(
    {
        "backbones": _backbones,
        "swin_plain": _swin_plain,
        "swin_sbp": _swin_sbp,
        "sbp_ops": _sbp_ops,
        "inflate": _inflate,
    }
)
