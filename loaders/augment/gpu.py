"""The `gpu` executor: passes on a whole batch with torch, every clip with its own values.

Clips of a batch have drawn different steps. Round by round, the kind of pass that most of them wait for is carried out on
all of these at once; a clip's own order is kept. Between passes pixels are uint8, so that every rounding is where the
other executors have it. Runs on any torch device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from loaders.augment.passes import Field, Hsv, Kernel, Matrix, Pass, Pictures, Table, Warp, passes_of
from loaders.augment.recipe import Drawn


def run_gpu(clips: Tensor, drawn: Sequence[Drawn]) -> Tensor:
    """Clip b by drawn[b]. `clips` uint8 (B, T, H, W, 3) on any device, left as it is; returns uint8 (B, T, H', W', 3).

    Raises: ValueError if the clips are not what the steps were drawn for, or would come out in different sizes;
    TypeError for operations of Pillow, which there are only one picture at a time.
    """
    _check(clips, drawn)
    waiting = [passes_of(each) for each in drawn]
    done = list(clips.permute(0, 1, 4, 2, 3).contiguous())  # per clip (T, 3, H, W)
    while heads := Counter(_group(passes[0]) for passes in waiting if passes):
        group = heads.most_common(1)[0][0]
        rows = [row for row, passes in enumerate(waiting) if passes and _group(passes[0]) == group]
        batch = _CARRY_OUT[group[0]](torch.stack([done[row] for row in rows]), [waiting[row].pop(0) for row in rows])
        for row, clip in zip(rows, batch, strict=True):
            done[row] = clip
    return torch.stack(done).permute(0, 1, 3, 4, 2).contiguous()


def _group(each: Pass) -> tuple[type, Any]:
    """Passes that may be carried out together: of one kind, and for warps from one size to another in one way."""
    detail = (each.source, each.target, each.interpolation, each.replicate) if isinstance(each, Warp) else None
    return type(each), detail


def _bytes(x: Tensor) -> Tensor:
    """Rounded (half to even, as OpenCV) and cut off to uint8."""
    return x.round_().clamp_(0, 255).to(torch.uint8)


def _on(x: Tensor, arrays: Sequence[np.ndarray], dtype: torch.dtype = torch.float32) -> Tensor:
    """The arrays of all clips, stacked, on the device of `x`."""
    return torch.from_numpy(np.stack(arrays)).to(dtype).to(x.device, non_blocking=True)


def _table(x: Tensor, passes: Sequence[Table]) -> Tensor:
    """x uint8 (n, T, 3, H, W), here and below."""
    n, t, _, h, w = x.shape
    tables = _on(x, [each.table.T for each in passes], torch.uint8)  # (n, 3, 256)
    places = x.permute(0, 2, 1, 3, 4).reshape(n, 3, -1).long()
    return tables.gather(2, places).view(n, 3, t, h, w).permute(0, 2, 1, 3, 4)


def _matrix(x: Tensor, passes: Sequence[Matrix]) -> Tensor:
    frames = x.shape[1]
    matrices = _on(x, [np.broadcast_to(each.matrices, (frames, 3, 4)) for each in passes])
    return _bytes(torch.einsum("ntij,ntjhw->ntihw", matrices[..., :3], x.float()) + matrices[..., 3, None, None])


def _field(x: Tensor, passes: Sequence[Field]) -> Tensor:
    fields = _on(x, [each.values.transpose(2, 0, 1)[None] for each in passes], torch.int16)
    return (x.to(torch.int16) + fields).clamp_(0, 255).to(torch.uint8)


def _kernel(x: Tensor, passes: Sequence[Kernel]) -> Tensor:
    """Every clip is one channel of a grouped convolution, so that it has its own kernel; small ones are padded."""
    n, t, _, h, w = x.shape
    side = max(max(each.weights.shape) for each in passes)
    padded = [np.pad(each.weights, [((side - size) // 2,) * 2 for size in each.weights.shape]) for each in passes]
    by_plane = x.view(n, t * 3, h, w).transpose(0, 1).float()
    by_plane = functional.pad(by_plane, [side // 2] * 4, mode="reflect")
    blurred = functional.conv2d(by_plane, _on(x, padded)[:, None], groups=n)
    return _bytes(blurred.transpose(0, 1).reshape(n, t, 3, h, w))


def _warp(x: Tensor, passes: Sequence[Warp]) -> Tensor:
    """One grid per clip, which all planes of the clip share."""
    n, t, _, h, w = x.shape
    first = passes[0]
    height, width = first.target
    inverse = _on(x, [np.linalg.inv(each.matrix) for each in passes], torch.float64)
    ys, xs = torch.meshgrid(
        torch.arange(height, device=x.device, dtype=torch.float64),
        torch.arange(width, device=x.device, dtype=torch.float64),
        indexing="ij",
    )
    places = torch.stack([xs, ys, torch.ones_like(xs)], -1) @ inverse.transpose(1, 2)[:, None]
    places = places[..., :2] / places[..., 2:]
    grid = (2 * places + 1) / torch.tensor([w, h], device=x.device, dtype=torch.float64) - 1
    warped = functional.grid_sample(
        x.view(n, t * 3, h, w).float(),
        grid.float(),
        mode="bicubic" if first.interpolation == "cubic" else "bilinear",
        padding_mode="border" if first.replicate else "zeros",
        align_corners=False,
    )
    warped = _bytes(warped.view(n, t, 3, height, width))
    if any(each.seen is not None for each in passes):
        seen = [np.full(each.target, 255, np.uint8) if each.seen is None else each.seen for each in passes]
        warped &= _on(x, seen, torch.uint8)[:, None, None]
    return warped


def _hsv(x: Tensor, passes: Sequence[Hsv]) -> Tensor:
    hue, saturation, value = _to_hsv(x)
    turns = _on(x, [np.array(each.hue) for each in passes], torch.int32).view(-1, 1, 1, 1)
    more = _on(x, [np.array(each.saturation) for each in passes], torch.int32).view(-1, 1, 1, 1)
    return _from_hsv((hue + turns) % 180, (saturation + more).clamp_(0, 255), value)


def _to_hsv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """OpenCV's 8-bit HSV in its own fixed point, int32 (n, T, H, W) each: hue 0..179, the others 0..255."""
    red, green, blue = x.to(torch.int32).unbind(2)
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    numbers = torch.arange(1, 256, device=x.device, dtype=torch.float64)
    zero = torch.zeros(1, device=x.device, dtype=torch.int32)
    by_value = torch.cat([zero, (255 * 4096 / numbers).round().to(torch.int32)])
    by_spread = torch.cat([zero, (180 * 4096 / (6 * numbers)).round().to(torch.int32)])
    saturation = (spread * by_value[value.long()] + 2048) >> 12
    sector = torch.where(
        value == red,
        green - blue,
        torch.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    hue = (sector * by_spread[spread.long()] + 2048) >> 12
    return torch.where(hue < 0, hue + 180, hue), saturation, value


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """uint8 (n, T, 3, H, W). Each channel is the value, less the share of the saturation that the hue takes from it."""
    sixths, share, value = hue / 30, saturation / 255, value.float()
    planes = []
    for shift in (5, 3, 1):  # red, green, blue
        place = (sixths + shift) % 6
        planes.append(value * (1 - share * torch.minimum(place, 4 - place).clamp(0, 1)))
    # OpenCV truncates here; the little keeps whole numbers whole.
    return torch.stack(planes, 2).add_(1e-3).to(torch.uint8)


def _pictures(x: Tensor, passes: Sequence[Pictures]) -> Tensor:
    raise TypeError("RandAugment's operations run picture by picture on the CPU only; use the fast executor")


_CARRY_OUT: Mapping[type, Callable[[Tensor, Any], Tensor]] = MappingProxyType(
    {
        Table: _table,
        Matrix: _matrix,
        Field: _field,
        Kernel: _kernel,
        Warp: _warp,
        Hsv: _hsv,
        Pictures: _pictures,
    }
)


def _check(clips: Tensor, drawn: Sequence[Drawn]) -> None:
    if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[4] != 3:
        raise ValueError(f"the clips are {clips.dtype} {tuple(clips.shape)}; they must be uint8 (B, T, H, W, 3)")
    if len(drawn) != len(clips):
        raise ValueError(f"{len(clips)} clips came with steps for {len(drawn)}")
    for each in drawn:
        if tuple(clips.shape[1:4]) != (each.shape.frames, *each.shape.size):
            raise ValueError(f"the clips have {tuple(clips.shape[1:4])} frames, height, width; drawn for {each.shape}")
    sizes = {each.size for each in drawn}
    if len(sizes) > 1:
        raise ValueError(f"clips of one batch must come out in one size; these come out in {sorted(sizes)}")
