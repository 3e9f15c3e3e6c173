"""Windows of a grid of tokens over time, height and width: where they lie, and how tokens get in and out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Size3 = tuple[int, int, int]
"""(time, height, width)"""


@dataclass(frozen=True)
class Windows:
    """A grid of `sizes` tokens, padded at its ends to whole windows, shifted back cyclically by `shift`."""

    sizes: Size3
    window: Size3
    shift: Size3

    @classmethod
    def fit(cls, sizes: Size3, window: Size3, shift: Size3) -> Windows:
        """An axis that is no longer than the window is one window of its own length, and is not shifted."""
        short = [size <= most for size, most in zip(sizes, window, strict=True)]
        return cls(
            sizes,
            tuple(size if is_short else most for size, most, is_short in zip(sizes, window, short, strict=True)),  # type: ignore[arg-type]
            tuple(0 if is_short else by for by, is_short in zip(shift, short, strict=True)),  # type: ignore[arg-type]
        )

    @property
    def padded(self) -> Size3:
        return tuple(-(-size // most) * most for size, most in zip(self.sizes, self.window, strict=True))  # type: ignore[return-value]

    @property
    def num_tokens(self) -> int:
        """Tokens of a window, N."""
        return self.window[0] * self.window[1] * self.window[2]

    @property
    def num_windows(self) -> int:
        """Windows of one grid, nW."""
        padded = self.padded
        return padded[0] * padded[1] * padded[2] // self.num_tokens

    def partition(self, x: Tensor) -> Tensor:
        """Tokens (B, D, H, W, C) to windows (B * nW, N, C): batch first, windows and their tokens in raster order."""
        for axis, (size, to) in enumerate(zip(self.sizes, self.padded, strict=True), start=1):
            if to > size:
                x = torch.nn.functional.pad(x, [0, 0] * (4 - axis) + [0, to - size])
        if any(self.shift):
            x = x.roll([-by for by in self.shift], (1, 2, 3))
        (d, h, w), (wd, wh, ww) = self.padded, self.window
        x = x.view(-1, d // wd, wd, h // wh, wh, w // ww, ww, x.shape[-1])
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, self.num_tokens, x.shape[-1])

    def reverse(self, windows: Tensor) -> Tensor:
        """Windows (B * nW, N, C) back to tokens (B, D, H, W, C); what was padded is cut off."""
        (d, h, w), (wd, wh, ww) = self.padded, self.window
        x = windows.view(-1, d // wd, h // wh, w // ww, wd, wh, ww, windows.shape[-1])
        x = x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, d, h, w, windows.shape[-1])
        if any(self.shift):
            x = x.roll(self.shift, (1, 2, 3))
        if self.padded != self.sizes:
            x = x[:, : self.sizes[0], : self.sizes[1], : self.sizes[2]].contiguous()
        return x

    def token_index(self) -> Tensor:
        """Which token of the grid every place of every window holds, int64 (nW, N); -1 where it is padding."""
        d, h, w = self.sizes
        numbered = torch.arange(1, d * h * w + 1).view(1, d, h, w, 1)
        return self.partition(numbered).view(-1, self.num_tokens) - 1


@lru_cache(maxsize=8)  # of 80 MB each in the first stage of 32 x 224 x 224
def shift_mask(windows: Windows, device: torch.device) -> Tensor | None:
    """-100 between tokens that the cyclic shift brought together from apart, else 0: (nW, N, N); None without a shift.

    Padding is not masked, as published.
    """
    if not any(windows.shift):
        return None
    labels = torch.zeros(windows.padded, dtype=torch.int64, device=device)
    for axis, (size, most, by) in enumerate(zip(windows.padded, windows.window, windows.shift, strict=True)):
        if by:
            along = torch.zeros(size, dtype=torch.int64, device=device)
            along[size - most : size - by] = 1
            along[size - by :] = 2
            labels = labels * 3 + along.view([-1 if axis == other else 1 for other in range(3)])
    still = Windows(windows.padded, windows.window, (0, 0, 0))
    rows = still.partition(labels[None, ..., None])[..., 0]
    apart = rows[:, :, None] != rows[:, None, :]
    return torch.zeros(apart.shape, device=device).masked_fill_(apart, -100.0)


def relative_position_index(window: Size3) -> Tensor:
    """Row of the bias table for (query, key) of a full window, int64 (N, N).

    (dd + wd - 1)(2wh - 1)(2ww - 1) + (dh + wh - 1)(2ww - 1) + dw + ww - 1, differences query minus key.
    """
    wd, wh, ww = window
    axes = torch.meshgrid(torch.arange(wd), torch.arange(wh), torch.arange(ww), indexing="ij")
    at = torch.stack(axes).flatten(1)
    by = at[:, :, None] - at[:, None, :]
    return ((by[0] + wd - 1) * (2 * wh - 1) + by[1] + wh - 1) * (2 * ww - 1) + by[2] + ww - 1
