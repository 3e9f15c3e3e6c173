"""Weights for Video Swin: image models inflated over time, and files of video models in either spelling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from ingest.errors import ClipmillError
from trainers.backbones.video_swin import VideoSwin
from trainers.engine.weights import LoadReport, load_matching, read_checkpoint, without_prefix

_COMPUTED = ("relative_position_index", "attn_mask")


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with the published SBP code's `mlp.norm` called `norm2` as everywhere else."""
    return {re.sub(r"\.mlp\.norm\.(weight|bias)$", r".norm2.\1", name): value for name, value in state.items()}


def inflate(state: Mapping[str, Tensor], model: VideoSwin) -> dict[str, Tensor]:
    """An image Swin's tensors as `model` needs them, its classifier and computed tensors left out.

    The patch matrix is spread over the frames of a patch (repeated, divided by their number). A bias table is resized
    bicubically where the windows differ over space, and repeated for every offset in time. Source: Video Swin, section 3.3.
    """
    wd, wh, ww = model.window_size
    own = model.state_dict()
    inflated = {}
    for name, value in plain_names(state).items():
        if any(part in name for part in _COMPUTED) or name.startswith("head."):
            continue
        if name == "patch_embed.proj.weight" and value.ndim == 4:
            frames = model.patch_embed.patch[0]
            value = value.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames
        elif name.endswith("relative_position_bias_table") and name in own:
            value = _resized(value, (2 * wh - 1, 2 * ww - 1)).repeat(2 * wd - 1, 1)
        inflated[name] = value
    return inflated


def _resized(table: Tensor, to: tuple[int, int]) -> Tensor:
    """A bias table (S * S, heads) for another window over space, (to[0] * to[1], heads)."""
    rows, heads = table.shape
    if rows == to[0] * to[1]:
        return table
    side = int(rows**0.5)
    if side * side != rows:
        raise ValueError(f"a bias table of {rows} rows is not that of a square window")
    image = table.T.reshape(1, heads, side, side).float()
    return interpolate(image, size=to, mode="bicubic", align_corners=False).reshape(heads, -1).T


def load_image_swin(model: VideoSwin, source: str | PathLike[str] | Mapping[str, Any]) -> LoadReport:
    """Inflate an image Swin's file (`model` in it), or what it holds, into a backbone.

    Raises: ClipmillError when it does not hold every parameter of the backbone in a shape that fits: nothing is trained
    from scratch by mistake.
    """
    found = _read(source)
    state = found.get("model", found)
    try:
        report = load_matching(model, inflate(state, model))
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ClipmillError(
            f"the image weights {_name(source)} cannot be inflated: {error}.",
            "Nothing was trained: the network would have started from scratch.",
            "Give an image Swin of the same width and depth, or leave model.pretrained out.",
        ) from None
    lost = [name for name in report.missing if not name.endswith(_COMPUTED)] + [str(each) for each in report.mismatched]
    if lost:
        raise ClipmillError(
            f"the image weights {_name(source)} do not fit: {len(lost)} parameters are missing or of another shape,"
            f" the first {lost[0]}.",
            "Nothing was trained: the network would have started half from scratch.",
            "Give an image Swin of the same width and depth, or leave model.pretrained out.",
        )
    return report


def load_video_swin(model: nn.Module, source: str | PathLike[str] | Mapping[str, Any]) -> LoadReport:
    """Weights of a video model into a recogniser or a bare backbone, `norm2` spelt either way.

    Takes what SBP publishes (`model_state_dict`, `module.` before the names or not), MMAction2 files (`state_dict`,
    `cls_head.`), and bare state dicts.
    Raises: TypeError if it is no state dict, ValueError if nothing fits.
    """
    found = _read(source)
    state = found.get("model_state_dict", found.get("state_dict", found))
    state = plain_names(without_prefix(state, "module."))
    state = {re.sub(r"^cls_head\.", "head.", name): value for name, value in state.items()}
    if isinstance(model, VideoSwin):
        state = {n.removeprefix("backbone."): value for n, value in state.items() if not n.startswith("head.")}
    # The index follows from the window; a file of another torch may hold it or not.
    own = model.state_dict()
    state |= {name: own[name] for name in own if name.endswith(_COMPUTED[0]) and name not in state}
    return load_matching(model, state)


def _read(source: str | PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        found = read_checkpoint(source) if isinstance(source, str | PathLike) else source
    except OSError as error:
        raise ClipmillError(
            f"the weights {_name(source)} cannot be read: {error.strerror}.", "Nothing was trained."
        ) from None
    if not isinstance(found, Mapping):
        raise TypeError(f"a checkpoint is a dict, this one is {type(found).__name__}")
    return found


def _name(source: object) -> str:
    return str(source) if isinstance(source, str | PathLike) else "given"
