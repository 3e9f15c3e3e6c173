"""Squeeze and recursion: a recurrent net over time rescales every channel of every frame; gates say of which clips.

Shape words: B clips, C channels, T frames; a map is (B, C, T, H, W), a sequence (B, C, T).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

Gates = Literal["off", "cycle", "cycle_intersection", "shipped"]
"""When the recursion acts on a clip.

off                 always: all published results of the authors
cycle               if the squeezed and the recurrent sequence are cycle consistent in at least one direction
cycle_intersection  if they are cycle consistent in both directions
shipped             never: what the authors' released code does when its gates are switched on
"""


def squeeze(x_BCTHW: Tensor) -> Tensor:
    """Mean over height and width, (B, C, T).

    A 1 x 1 map passes as it is. The authors' code rejects 1 x N and N x 1 maps; here they are averaged like any other.
    """
    return x_BCTHW.mean(dim=(3, 4))


class Recurrence(nn.RNNBase):
    """An LSTM or a GRU over time: (B, planes, T) -> outputs of its last layer, the same shape, values in (-1, 1).

    Parameters, start values and results are those of `nn.LSTM` and `nn.GRU`. Those two make `torch.compile` leave the
    graph; this is the same kernel (cuDNN on a GPU) called as a function, which does not.
    """

    def __init__(self, planes: int, *, layers: int = 2, cell: Literal["gru", "lstm"] = "lstm") -> None:
        if cell not in ("gru", "lstm"):
            raise ValueError(f"cell must be one of gru, lstm, not {cell!r}")
        super().__init__(cell.upper(), planes, planes, layers)

    def forward(self, sequence_BCT: Tensor) -> Tensor:
        sequence_TBC = sequence_BCT.permute(2, 0, 1)
        zero = sequence_TBC.new_zeros(self.num_layers, sequence_TBC.shape[1], self.hidden_size)
        weights = [weight for weight in self._flat_weights if weight is not None]
        options = (True, self.num_layers, 0.0, self.training, False, False)
        if self.mode == "LSTM":
            output_TBC = torch.lstm(sequence_TBC, (zero, zero), weights, *options)[0]
        else:
            output_TBC = torch.gru(sequence_TBC, zero, weights, *options)[0]
        return output_TBC.permute(1, 2, 0)


@torch.no_grad()
def _distances(start_BCT: Tensor, other_BCT: Tensor) -> Tensor:
    """Euclidean distances over the channels between all frames of two sequences, float64 (B, T, T)."""
    start_BTC, other_BTC = start_BCT.double().mT, other_BCT.double().mT
    return torch.cdist(start_BTC, other_BTC, compute_mode="donot_use_mm_for_euclid_dist")


def _own_time(distances_BTT: Tensor, dim: int) -> Tensor:
    """Whether the nearest frame along `dim` is always that of the same time, bool (B,)."""
    nearest_BT = distances_BTT.argmin(dim=dim)
    return (nearest_BT == torch.arange(nearest_BT.shape[1], device=nearest_BT.device)).all(dim=1)


def cycle_consistent(start_BCT: Tensor, other_BCT: Tensor) -> Tensor:
    """Whether every frame of `start` has its nearest frame of `other` at its own time, bool (B,).

    Distances are Euclidean over the channels; among equally near frames the first one counts, so a clip with repeated
    frames is not consistent. One frame is always consistent.

    The authors compare exp(squared distance) instead, which overflows for large features. exp is monotone, so the
    nearest frame is the same one wherever theirs is finite; float64 holds the square of any float32.
    Source: SRTG (arXiv 2006.08247), cyclic consistency of the temporal gates; `train/test_cyclic.py` of the authors.
    """
    return _own_time(_distances(start_BCT, other_BCT), 2)


def open_gates(squeezed_BCT: Tensor, recurrent_BCT: Tensor, gates: Gates) -> Tensor:
    """Clips on which the recursion acts under the mode `gates`, bool (B,). No gradient flows through the decision.

    Raises: ValueError for a mode that does not exist.
    """
    batch, device = squeezed_BCT.shape[0], squeezed_BCT.device
    match gates:
        case "off":
            return torch.ones(batch, dtype=torch.bool, device=device)
        case "shipped":
            return torch.zeros(batch, dtype=torch.bool, device=device)
        case "cycle" | "cycle_intersection":
            distances_BTT = _distances(squeezed_BCT, recurrent_BCT)  # The way back has the same ones.
            there, back = _own_time(distances_BTT, 2), _own_time(distances_BTT, 1)
            return there | back if gates == "cycle" else there & back
    raise ValueError(f"gates must be one of {', '.join(get_args(Gates))}, not {gates!r}")


class SqueezeRecursion(nn.Module):
    """x -> x * h: a signed factor h in (-1, 1) per clip, channel and frame, from an LSTM over the squeezed frames.

    x and the result are (B, planes, T, H, W); any H, W and T from 1. A clip whose gate is closed passes unchanged and
    gives the LSTM no gradient. No sigmoid and no residual: a closed gate multiplies by 1, not by 0.
    The mode "shipped" is the identity and leaves the LSTM without gradient (None). The in-place damage that the
    authors' code then does to 1 x 1 maps is not reproduced.

    Source: SRTG (arXiv 2006.08247), squeeze and recursion block. Parameters are named as the authors' are, `lstm.*`.
    """

    def __init__(self, planes: int, *, layers: int = 2, gates: Gates = "off") -> None:
        super().__init__()
        if gates not in get_args(Gates):
            raise ValueError(f"gates must be one of {', '.join(get_args(Gates))}, not {gates!r}")
        self.gates: Gates = gates
        self.lstm = Recurrence(planes, layers=layers)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        if self.gates == "shipped":
            return x_BCTHW
        squeezed = squeeze(x_BCTHW)
        factor = self.lstm(squeezed)
        if self.gates != "off":
            is_open = open_gates(squeezed, factor, self.gates)
            factor = torch.where(is_open[:, None, None], factor, 1.0)
        return x_BCTHW * factor[..., None, None]

    def extra_repr(self) -> str:
        return f"gates={self.gates}"


class RecurrentScale(nn.Module):
    """x -> (x * h, h): the ungated block of MTNet, a GRU or an LSTM, with the factor h (B, planes, T, 1, 1) given back.

    Source: MTNet (arXiv 2011.03949). Parameters are named as the authors' are, `op.*`.
    """

    def __init__(self, planes: int, *, layers: int = 2, cell: Literal["gru", "lstm"] = "gru") -> None:
        super().__init__()
        self.op = Recurrence(planes, layers=layers, cell=cell)

    def forward(self, x_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        factor = self.op(squeeze(x_BCTHW))[..., None, None]
        return x_BCTHW * factor, factor
