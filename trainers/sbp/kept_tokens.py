"""Where kept tokens lie once a grid is cut into windows: which queries are computed in the backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from trainers.backbones.windows3d import Windows
from trainers.sbp.masks import checkerboard_keep, frame_keep, grid_keep, grid_stride, random_keep

Version = Literal["v1", "v2", "grid", "random"]
"""Whole frames; a checkerboard over time and space; from SBP for images one diagonal grid for every frame, or drawn places."""

_SEEDS = 2**31


@dataclass(frozen=True)
class Pattern:
    """A mask for any stage: `block` is how many of its tokens make a cell of the coarsest stage, along each side.

    `offset` chooses one of `num_offsets` masks; None: the fixed one. `keep_ratio` stands for 1 / `downsample` in a grid or
    drawn places.
    """

    version: Version
    downsample: int
    block: int
    offset: int | None = None
    keep_ratio: float | None = None

    @property
    def ratio(self) -> float:
        """About which part of the tokens is kept."""
        return 1 / self.downsample if self.keep_ratio is None else self.keep_ratio

    @property
    def num_offsets(self) -> int:
        if self.version == "random":
            return _SEEDS
        return grid_stride(self.ratio) if self.version == "grid" else self.downsample

    def keep(self, sizes: tuple[int, int, int]) -> Tensor:
        """Bool (D, H, W). Raises: ValueError where the mask does not fit the sizes."""
        if self.version == "v1":
            return frame_keep(sizes[0], self.downsample, self.offset)[:, None, None].expand(sizes)
        if self.version == "v2":
            return checkerboard_keep(sizes, self.downsample, block=self.block, offset=self.offset or 0)
        rows, columns = (-(-size // self.block) for size in sizes[1:])
        # The regions of the coarsest stage, on this one; the last cell of an uneven side is a part of a cell.
        one = (grid_keep if self.version == "grid" else random_keep)(rows, columns, self.ratio, self.offset or 0)
        wide = one.repeat_interleave(self.block, 0).repeat_interleave(self.block, 1)
        return wide[: sizes[1], : sizes[2]].expand(sizes)


@dataclass(frozen=True)
class KeptTokens:
    """Kept tokens of one grid in windows. K tokens in nW windows of N places, of which Q queries are computed each.

    A window that keeps fewer than another has its queries filled up with tokens that are not kept, and their results are
    left out.
    """

    columns: Tensor
    """Places of the queries in their window, (nW, Q), or (1, Q) where all windows are alike."""
    rows: Tensor
    """The same, numbered over all windows, (nW * Q,)."""
    real: Tensor | None
    """Which of these are kept, (K,); None: all."""
    tokens: Tensor
    """Which token of the grid each kept one is, (K,)."""
    core: Tensor | None = None
    """Where the published checkerboard lets the attention learn, bool (nW * Q,); None: everywhere."""

    @property
    def filled(self) -> Tensor | None:
        """Which queries only fill up their window, bool (nW, Q); None: none does."""
        if self.real is None:
            return None
        filled = torch.ones_like(self.rows, dtype=torch.bool)
        filled[self.real] = False
        return filled.view(-1, self.columns.shape[1])


@lru_cache(maxsize=64)
def kept_tokens(windows: Windows, pattern: Pattern, faithful: bool, device: torch.device) -> KeptTokens:
    """The kept tokens of a mask. `faithful` repeats the published checkerboard's wrong roll in shifted blocks.

    Raises: ValueError where the mask does not fit, or keeps nothing.
    """
    with torch.device("cpu"):  # Whatever the default is: sizes depend on values here.
        keep = pattern.keep(windows.sizes)
        if not keep.any():
            raise ValueError(f"a ratio of {pattern.ratio:.3g} keeps no token of {windows.sizes}: choose a larger one")
        index = windows.token_index()
        kept = keep.flatten()[index] & (index >= 0)
        most = int(kept.sum(1).max())
        columns = (~kept).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
        real = kept.gather(1, columns).flatten()
        rows = (torch.arange(len(index))[:, None] * windows.num_tokens + columns).flatten()
        core = None
        if faithful and pattern.version == "v2" and any(windows.shift):
            # Published: rolled along the height by the shift in time.
            still = Windows(windows.sizes, windows.window, (0, 0, 0))
            rolled = keep.roll(-windows.shift[0], 1)
            core = still.partition(rolled[None, ..., None])[..., 0].gather(1, columns).flatten()
    return KeptTokens(
        columns=(columns[:1] if (columns == columns[0]).all() else columns).to(device),
        rows=rows.to(device),
        real=None if real.all() else real.nonzero().flatten().to(device),
        tokens=index.flatten()[rows][real].to(device),
        core=None if core is None else core.to(device),
    )
