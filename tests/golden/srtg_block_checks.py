"""Parts of SRTG's networks against the authors' code: blocks, recursion, gates, batch norm over parts of a batch.

A tolerance is relative to the largest magnitude of the array it is for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.golden.fill import fill_parameter
from tests.golden.vectors import close, filled, filled_input, from_json, no_unknown, read, shapes_of
from trainers.batch_norm import SubBatchNorm3d, sub_batch_norms, to_plain, to_sub, with_sub_batch_norm
from trainers.srtg import convolutions
from trainers.srtg.alignment import ShortLongConv, aligned, aligned_clips, channel_distances
from trainers.srtg.blocks import BasicBlock, BlockSpec, Bottleneck, shortcut
from trainers.srtg.recursion import RecurrentScale, SqueezeRecursion, cycle_consistent, open_gates, squeeze

Cases = Iterable[tuple[str, Any]]

BLOCKS = {"BasicBlock": BasicBlock, "Bottleneck": Bottleneck}
CONVS = {
    "simple": convolutions.simple,
    "2plus1d": convolutions.conv2plus1d,
    "depthwise": convolutions.depthwise,
    "ip_depthwise": convolutions.ip_depthwise,
    "notemporal": convolutions.notemporal,
}


def published_gates(switched_on: bool) -> Any:
    """The reference's flag: its gates never open, which is our mode "shipped"."""
    return "shipped" if switched_on else "off"


# Whole blocks, with the recursion at every place: blocks.npz


def _blocks(path: Path) -> Cases:
    data = read(path)
    tags = [key.partition("/")[0] for key in data if key.endswith(("/settings", "/error"))]
    known = "(settings|names|shapes|out|loss|grad_x|grad_none|grad/.+|error)"
    yield "keys", lambda: no_unknown(data, "salt|scale_rules", *(f"{tag}/{known}" for tag in tags))
    for tag in tags:
        yield tag, partial(_block_error if f"{tag}/error" in data else _block_case, data, tag)


def _block_error(data: Mapping[str, np.ndarray], tag: str) -> None:
    """The reference raises. The file says no more than how: a channel-wise convolution whose widths do not go together."""
    kind, _, message = str(data[f"{tag}/error"]).partition("(")
    if "divisible by groups" not in message:
        pytest.fail(f"errors of this kind are not known here: {kind}({message}")
    with pytest.raises(ValueError, match=ast.literal_eval(message.rstrip(")"))):
        BasicBlock(8, 12, 1, BlockSpec(convolutions.depthwise))
    assert kind == "ValueError"


def _block_case(data: Mapping[str, np.ndarray], tag: str) -> None:
    settings, salt = from_json(data[f"{tag}/settings"]), str(data["salt"])
    no_unknown(settings, "block|kwargs|conv|input|mode")
    given = dict(settings["kwargs"])
    no_unknown(given, "inplanes|planes|recursion|place|stride|ds|groups|base_width|gates")
    spec = BlockSpec(
        CONVS[settings["conv"]],
        given.get("groups", 1),
        given.get("base_width", 64),
        published_gates(given.get("gates", False)) if given.get("recursion") else None,
        given.get("place", "final"),
    )
    in_planes, planes, stride = given["inplanes"], given["planes"], given.get("stride", 1)
    block = BLOCKS[settings["block"]](in_planes, planes, stride, spec)
    if given.get("ds", False) and block.downsample is None:
        # Asked for where none is needed; ours never makes one there.
        block = _with_shortcut(block, in_planes, planes)
    state = filled(shapes_of(data[f"{tag}/names"], data[f"{tag}/shapes"]), salt, from_json(data["scale_rules"]))
    assert list(block.state_dict()) == list(state)
    block.load_state_dict(state)
    block.train(settings["mode"] == "train")
    ((x_name, x_shape),) = settings["input"].items()
    x = filled_input(x_name, x_shape, salt).requires_grad_()
    out = block(x)
    close("out", out, data[f"{tag}/out"], 1e-4)
    loss = (out * filled_input(f"{tag}/w", out.shape, salt)).sum()
    # The sum of many terms of either sign: its scale is theirs.
    close("loss", loss, data[f"{tag}/loss"], 1e-4, max(1.0, float(np.abs(data[f"{tag}/loss"]))))
    loss.backward()
    close("grad_x", x.grad, data[f"{tag}/grad_x"], 1e-4)
    _compare_gradients(block, data, tag)


def _compare_gradients(block: nn.Module, data: Mapping[str, np.ndarray], tag: str) -> None:
    """Of large parameters the vectors hold the first 256 numbers."""
    gradients = {name: parameter.grad for name, parameter in block.named_parameters()}
    assert {name for name, gradient in gradients.items() if gradient is None} == set(data[f"{tag}/grad_none"])
    for name, gradient in gradients.items():
        if gradient is not None:
            stored = gradient if gradient.numel() <= 3000 else gradient.flatten()[:256]
            close(f"gradient of {name}", stored, data[f"{tag}/grad/{name}"], 1e-4)


def _with_shortcut(block: BasicBlock | Bottleneck, in_planes: int, planes: int) -> Any:
    """The same with a convolution on the shortcut, before the recursion in the order of names."""
    sar = block.sar
    del block.sar
    block.downsample = shortcut(in_planes, planes, (1, 1, 1))
    block.sar = sar
    return block


# The block alone: sr_block.npz


def _sr_block(path: Path) -> Cases:
    data = read(path)
    tags = [key.partition("/")[0] for key in data if key.endswith("/settings")]
    known = "(settings|names|shapes|out|out2|loss|grad_x|grad_none|grad/.+)"
    yield "keys", lambda: no_unknown(data, "salt|scale_rules", *(f"{tag}/{known}" for tag in tags))
    for tag in tags:
        yield tag, partial(_sr_case, data, tag)


def _sr_case(data: Mapping[str, np.ndarray], tag: str) -> None:
    settings, salt = from_json(data[f"{tag}/settings"]), str(data["salt"])
    assert settings["loss"] == 'sum(out*w), w=fill_input(tag+"/w")'
    no_unknown(settings["kwargs"], "planes|layers", "gates" if settings["cls"] == "srtg" else "type")
    planes, layers = settings["kwargs"]["planes"], settings["kwargs"].get("layers", 2)
    gated = settings["kwargs"].get("gates", False)
    block: nn.Module
    if settings["cls"] == "srtg":
        block = SqueezeRecursion(planes, layers=layers, gates=published_gates(gated))
    elif settings["cls"] == "mt":
        block = RecurrentScale(planes, layers=layers, cell=settings["kwargs"].get("type", "gru"))
    else:
        pytest.fail(f"blocks of the class {settings['cls']!r} are not known here")
    state = filled(shapes_of(data[f"{tag}/names"], data[f"{tag}/shapes"]), salt, from_json(data["scale_rules"]))
    assert list(block.state_dict()) == list(state)
    block.load_state_dict(state)
    ((x_name, x_shape),) = settings["input"].items()
    x = filled_input(x_name, x_shape, salt).requires_grad_()
    out = block(x)
    if settings["cls"] == "mt":
        out, factor = out
        close("out2", factor, data[f"{tag}/out2"], 1e-4)

    # With gates on, the reference overwrites entries of a 1 x 1 map with 1.0 before handing it on, a defect that we do
    # not have. Those entries (exactly 1.0 in its output, something else in the input) cannot be compared; all others
    # are. Its loss was taken after the damage, so the same entries are set in ours; its gradient is 0 there.
    expected = data[f"{tag}/out"]
    damaged = torch.zeros(out.shape, dtype=torch.bool)
    if gated and tuple(x.shape[3:]) == (1, 1):
        damaged = torch.from_numpy(expected == 1.0) & (x.detach() != 1.0)
    assert not damaged.all(), "the reference left nothing to compare"
    close("out", out[~damaged], expected[~damaged.numpy()], 1e-4)
    if f"{tag}/loss" not in data:
        return
    loss = (out.masked_fill(damaged, 1.0) * filled_input(f"{tag}/w", out.shape, salt)).sum()
    close("loss", loss, data[f"{tag}/loss"], 1e-4)
    loss.backward()
    close("grad_x", x.grad, data[f"{tag}/grad_x"], 1e-4)
    _compare_gradients(block, data, tag)


# The gate as it was meant: gate_intended.npz


def _gate_intended(path: Path) -> Cases:
    data = read(path)
    tags = [key.partition("/")[0] for key in data if key.endswith("/settings")]
    yield "keys", lambda: no_unknown(data, "salt", *(f"{tag}/(settings|open|out|sr|squeezed)" for tag in tags))
    for tag in tags:
        yield tag, partial(_gate_case, data, tag)


def _gate_case(data: Mapping[str, np.ndarray], tag: str) -> None:
    settings, salt = from_json(data[f"{tag}/settings"]), str(data["salt"])
    no_unknown(settings, "planes|layers|alpha|input")
    block = SqueezeRecursion(settings["planes"], layers=settings["layers"], gates="cycle")
    block.load_state_dict(_gate_lstm(settings["planes"], settings["layers"], settings["alpha"], salt))
    ((x_name, x_shape),) = settings["input"].items()
    x = filled_input(x_name, x_shape, salt)
    squeezed = squeeze(x)
    factor = block.lstm(squeezed)
    close("squeezed", squeezed, data[f"{tag}/squeezed"], 1e-4)
    close("recurrent", factor, data[f"{tag}/sr"], 1e-4)
    assert open_gates(squeezed, factor, "cycle").nonzero().flatten().tolist() == data[f"{tag}/open"].tolist()
    close("out", block(x), data[f"{tag}/out"], 1e-4)


def _gate_lstm(planes: int, layers: int, alpha: float, salt: str) -> dict[str, Tensor]:
    """An LSTM that nearly repeats its input (open gates, cell = 2 x input), plus alpha times the usual fill."""
    eye, zero = np.eye(planes), np.zeros((planes, planes))
    base = {
        "weight_ih": np.concatenate([zero, zero, 2 * eye, zero]),
        "weight_hh": np.zeros((4 * planes, planes)),
        "bias_ih": np.repeat([6.0, -6.0, 0.0, 6.0], planes),
        "bias_hh": np.zeros(4 * planes),
    }
    state = {}
    for layer in range(layers):
        for kind, value in base.items():
            name = f"lstm.{kind}_l{layer}"
            noise = np.float32(alpha) * fill_parameter(name, value.shape, salt)
            state[name] = torch.from_numpy(value.astype(np.float32) + noise)
    return state


# The authors' scripts about gates: gate_functions.npz


def _gate_functions(path: Path) -> Cases:
    data = read(path)
    tags = [key.partition("/")[0] for key in data if key.endswith("/e1")]
    known = "(settings|e1|e2|head_return|head_e2_after|script_open_indices|script_e1toe2|script_e2toe1)"
    others = "salt|ed/(x1|x2|dist|aligned|indices)|intersect|tccg/(out|names|shapes|settings)"
    yield "keys", lambda: no_unknown(data, others, *(f"{tag}/{known}" for tag in tags))
    for tag in tags:
        yield f"{tag}/shipped", partial(_gate_shipped, data, tag)
        yield f"{tag}/script", partial(_gate_script, data, tag)
    if "ed/x1" in data:
        yield "ed", partial(_alignment, data)
    if "intersect" in data:
        yield "intersect", partial(_intersection, data)
    if "tccg/out" in data:
        yield "tccg", partial(_short_long, data)


def _gate_shipped(data: Mapping[str, np.ndarray], tag: str) -> None:
    """As released no gate opens. That its test overwrites entries of its input with 1.0 is a defect that ours lacks."""
    first, second = (torch.from_numpy(data[f"{tag}/{name}"].copy()) for name in ("e1", "e2"))
    assert open_gates(first, second, "shipped").float().tolist() == data[f"{tag}/head_return"].tolist()
    after = data[f"{tag}/head_e2_after"]
    kept = after != 1.0
    np.testing.assert_array_equal(second.numpy()[kept], after[kept])
    np.testing.assert_array_equal(second.numpy(), data[f"{tag}/e2"])


def _gate_script(data: Mapping[str, np.ndarray], tag: str) -> None:
    """The authors' working test, on sequences that it rounds to half precision.

    Where its exponentials overflow its answer is an artefact: then ours is held to the plain nearest frame, and the file
    to what overflowing exponentials give.
    """
    first, second = (torch.from_numpy(data[f"{tag}/{name}"].copy()).half() for name in ("e1", "e2"))
    there, back = cycle_consistent(first, second), cycle_consistent(second, first)
    stated = [torch.from_numpy(data[f"{tag}/script_{name}"].copy()) for name in ("e1toe2", "e2toe1")]
    for ours, theirs, (start, other) in zip((there, back), stated, ((first, second), (second, first)), strict=True):
        published, overflow = _with_exponentials(start, other)
        assert torch.equal(published, theirs)
        assert torch.equal(ours[~overflow], theirs[~overflow])
        assert torch.equal(ours, _plainly_nearest(start, other))
    union = (stated[0] | stated[1]).nonzero().flatten().tolist()
    assert union == data[f"{tag}/script_open_indices"].tolist()
    if not any(_with_exponentials(a, b)[1].any() for a, b in ((first, second), (second, first))):
        assert open_gates(first, second, "cycle").nonzero().flatten().tolist() == union


def _squared_distances(start: Tensor, other: Tensor) -> np.ndarray:
    """float64 (B, T, T)."""
    a, b = start.double().numpy(), other.double().numpy()
    return ((b[:, :, None, :] - a[:, :, :, None]) ** 2).sum(1)


def _plainly_nearest(start: Tensor, other: Tensor) -> Tensor:
    nearest = _squared_distances(start, other).argmin(2)
    return torch.from_numpy((nearest == np.arange(nearest.shape[1])).all(1))


def _with_exponentials(start: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Consistent, and whether the exponentials overflow, by clip."""
    distances = torch.from_numpy(_squared_distances(start, other))
    total = distances.sum(2, keepdim=True)
    share = distances.exp() / total.exp()
    consistent = (share.argmin(2) == torch.arange(share.shape[1])).all(1)
    return consistent, (total.amax((1, 2)) > 709) & (share.shape[1] > 1)


def _alignment(data: Mapping[str, np.ndarray]) -> None:
    first, second = (torch.from_numpy(data[f"ed/{name}"].copy()) for name in ("x1", "x2"))
    distances = channel_distances(first, second)
    close("distances", distances, data["ed/dist"], 1e-4)
    assert aligned(distances).tolist() == data["ed/aligned"].tolist()
    assert aligned_clips(first, second).tolist() == data["ed/indices"].tolist()


def _intersection(data: Mapping[str, np.ndarray]) -> None:
    """Which clips two lists share. The lists are not in the file: what is left to check is that gates give such a list."""
    expected = data["intersect"].tolist()
    masks = torch.zeros(2, max(expected, default=0) + 2, dtype=torch.bool)
    masks[:, expected] = True
    masks[0, -1] = True
    assert (masks[0] & masks[1]).nonzero().flatten().tolist() == expected


def _short_long(data: Mapping[str, np.ndarray]) -> None:
    settings, salt = from_json(data["tccg/settings"]), str(data["salt"])
    no_unknown(settings, "in_channels|out_channels|kernel_size|padding|groups|mode|input")
    assert settings["mode"] == "single"
    options = {name: settings[name] for name in ("kernel_size", "padding", "groups") if name in settings}
    conv = ShortLongConv(settings["in_channels"], settings["out_channels"], **options).eval()
    state = filled(shapes_of(data["tccg/names"], data["tccg/shapes"]), salt, ())
    assert list(conv.state_dict()) == list(state)
    conv.load_state_dict(state)
    ((x_name, x_shape),) = settings["input"].items()
    close("out", conv(filled_input(x_name, x_shape, salt)), data["tccg/out"], 1e-4)


# Batch norm over parts of the batch: sub_batchnorm.npz


def _sub_batch_norm(path: Path) -> Cases:
    known = "salt|settings|names|shapes|train_out|grad_(x|weight|bias)|split_(mean|var)_after|tracked_after"
    more = "bn_(mean|var)_aggregated|eval_out|to_(normal|sub)_keys|to_sub_(split|bn)_mean"
    yield "keys", lambda: no_unknown(read(path), known, more)
    yield "layer", lambda: _sub_layer(read(path))
    yield "state_dict", lambda: _sub_state(read(path))


def _filled_sub_norm(data: Mapping[str, np.ndarray]) -> tuple[SubBatchNorm3d, Tensor, str]:
    settings, salt = from_json(data["settings"]), str(data.get("salt", ""))
    no_unknown(settings, "num_features|num_splits|eps|momentum|affine|input")
    norm = SubBatchNorm3d(
        settings["num_features"],
        num_splits=settings["num_splits"],
        eps=settings["eps"],
        momentum=settings["momentum"],
        affine=settings["affine"],
    )
    state = filled(shapes_of(data["names"], data["shapes"]), salt, ())
    assert list(norm.state_dict()) == list(state)
    norm.load_state_dict(state)
    ((x_name, x_shape),) = settings["input"].items()
    return norm, filled_input(x_name, x_shape, salt).requires_grad_(), salt


def _sub_layer(data: Mapping[str, np.ndarray]) -> None:
    norm, x, salt = _filled_sub_norm(data)
    out = norm.train()(x)
    close("train_out", out, data["train_out"], 1e-5)
    (out * filled_input("w", out.shape, salt)).sum().backward()
    close("grad_x", x.grad, data["grad_x"], 1e-5)
    for name in ("weight", "bias"):
        if f"grad_{name}" in data:
            close(f"grad_{name}", getattr(norm, name).grad, data[f"grad_{name}"], 1e-5)
    close("split mean", norm.split_bn.running_mean, data["split_mean_after"], 1e-5)
    close("split var", norm.split_bn.running_var, data["split_var_after"], 1e-5)
    assert int(norm.split_bn.num_batches_tracked) == int(data["tracked_after"])
    norm.eval()
    close("aggregated mean", norm.bn.running_mean, data["bn_mean_aggregated"], 1e-5)
    close("aggregated var", norm.bn.running_var, data["bn_var_aggregated"], 1e-5)
    close("eval_out", norm(x), data["eval_out"], 1e-5)


def _sub_state(data: Mapping[str, np.ndarray]) -> None:
    """To plain batch norm and back, in a model that has the norm after a convolution."""
    norm, x, _ = _filled_sub_norm(data)
    norm.train()(x)
    norm.eval()
    model = nn.Module()
    model.s1 = nn.Module()
    model.s1.conv = nn.Conv3d(3, norm.num_features, 1, bias=False)
    model.s1.bn = norm
    plain = to_plain(model.state_dict())
    assert sorted(plain) == sorted(data["to_normal_keys"].tolist())
    parts = len(data["to_sub_split_mean"]) // norm.num_features
    other = nn.Module()
    other.s1 = nn.Module()
    other.s1.conv = nn.Conv3d(3, norm.num_features, 1, bias=False)
    other.s1.bn = nn.BatchNorm3d(norm.num_features)
    with_sub_batch_norm(other, parts)
    again = to_sub(plain, sub_batch_norms(other))
    assert sorted(key for key in again if ".bn." in key) == sorted(data["to_sub_keys"].tolist())
    close("split mean", again["s1.bn.split_bn.running_mean"], data["to_sub_split_mean"], 1e-5)
    close("mean", again["s1.bn.bn.running_mean"], data["to_sub_bn_mean"], 1e-5)
    other.load_state_dict(again)
    other.load_state_dict(plain)  # Either way.
    close("loaded", other.s1.bn.bn.running_mean, data["to_sub_bn_mean"], 1e-5)


CHECKERS = MappingProxyType(
    {
        "blocks": _blocks,
        "sr_block": _sr_block,
        "gate_intended": _gate_intended,
        "gate_functions": _gate_functions,
        "sub_batchnorm": _sub_batch_norm,
    }
)
