"""Which tokens keep their gradient. Kept is True; no randomness but what a caller passes as `offset`."""

from __future__ import annotations

import torch
from torch import Tensor


def frame_keep(num_frames: int, downsample: int, offset: int | None = None) -> Tensor:
    """Every `downsample`-th frame, bool (D,): frames k with k mod d = `offset`, which is d // 2 unless given.

    d 4, 16 frames:  ..K...K...K...K.     Source: SBP v1.
    Raises: ValueError unless d divides the number of frames.
    """
    _require_divides(downsample, num_frames, "frames")
    offset = downsample // 2 if offset is None else offset
    return torch.arange(num_frames) % downsample == offset % downsample


def checkerboard_keep(
    sizes: tuple[int, int, int], downsample: int, *, block: int = 1, offset: int = 0, strict: bool = True
) -> Tensor:
    """Cells of `block` x `block` tokens whose (time + row + column) mod d = `offset`, bool (D, H, W).

    Tokens past the last whole cell are never kept; with `strict` there may be none of them.
    Source: SBP v2, where stage i of L has blocks of 2 ** (L - 1 - i), so that the board covers the same regions of the image
    in every stage.
    Raises: ValueError unless d divides the number of frames, and where a rest is left under `strict`.
    """
    frames, height, width = sizes
    _require_divides(downsample, frames, "frames")
    if strict and (height % block or width % block):
        raise ValueError(
            f"a board of {block} x {block} cells does not cover {height} x {width} tokens: choose a size that it divides"
        )
    times, rows, columns = (torch.arange(size) for size in (frames, height // block, width // block))
    kept = (times[:, None, None] + rows[:, None] + columns) % downsample == offset % downsample
    board = torch.zeros(sizes, dtype=torch.bool)
    board[:, : height // block * block, : width // block * block] = expand_blocks(kept, block)
    return board


def grid_keep(height: int, width: int, keep_ratio: float, start: int = 0) -> Tensor:
    """A diagonal grid over one image, bool (H, W), the same for all frames of a clip.

    Up to a ratio of 0.5, (row + column) mod stride = start mod stride with stride = round(1 / ratio) is kept; above, it is
    dropped, with stride = round(1 / (1 - ratio)). Source: SBP for images (arXiv 2210.00129).
    Raises: ValueError for a ratio that does not lie between 0 and 1.
    """
    diagonal, stride = torch.arange(height)[:, None] + torch.arange(width), grid_stride(keep_ratio)
    if keep_ratio <= 0.5:
        return diagonal % stride == start % stride
    return diagonal % stride != start % stride


def grid_stride(keep_ratio: float) -> int:
    """After how many places a diagonal grid repeats: so many starts there are. Raises: ValueError as `grid_keep`."""
    _require_ratio(keep_ratio)
    return round(1 / min(keep_ratio, 1 - keep_ratio))


def random_keep(height: int, width: int, keep_ratio: float, seed: int) -> Tensor:
    """Places of one image without int((1 - ratio) H W) of them, drawn by `seed`, bool (H, W). Source: SBP for images.

    Raises: ValueError for a ratio that does not lie between 0 and 1.
    """
    _require_ratio(keep_ratio)
    places = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))
    keep = torch.ones(height * width, dtype=torch.bool)
    keep[places[: int((1 - keep_ratio) * height * width)]] = False
    return keep.view(height, width)


def expand_blocks(keep: Tensor, block: int) -> Tensor:
    """The mask of a coarse stage on a finer one: every place of the last two axes becomes `block` x `block` places."""
    return keep.repeat_interleave(block, -2).repeat_interleave(block, -1)


def _require_ratio(keep_ratio: float) -> None:
    if not 0 < keep_ratio < 1:
        raise ValueError(f"keep_ratio is {keep_ratio}; it lies between 0 and 1")


def _require_divides(downsample: int, size: int, what: str) -> None:
    if downsample < 1 or size % downsample:
        raise ValueError(f"gd_downsample {downsample} does not divide {size} {what}: choose one that does")
