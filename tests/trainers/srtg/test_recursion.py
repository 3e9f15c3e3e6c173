"""Squeeze and recursion: the factor, and the gates worked out on paper."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainers.srtg.recursion import RecurrentScale, SqueezeRecursion, cycle_consistent, open_gates, squeeze


def _sequence(*frames: list[float]) -> Tensor:
    """One clip, one channel per number of a frame: (1, C, T)."""
    return torch.tensor(frames).T[None]


def _map(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_squeeze_is_the_mean_over_the_map_whatever_its_shape() -> None:
    x = _map(2, 3, 4, 5, 6)
    assert torch.allclose(squeeze(x), x.mean((3, 4)))
    assert torch.equal(squeeze(x[..., :1, :1]), x[..., 0, 0])
    assert torch.allclose(squeeze(x[..., :1, :]), x[..., 0, :].mean(3))


def test_block_multiplies_every_frame_and_channel_by_one_factor_below_one() -> None:
    x = _map(2, 8, 4, 3, 3) + 5
    ratio = SqueezeRecursion(8)(x) / x
    assert ratio.std((3, 4)).max() < 1e-6
    assert ratio.abs().max() < 1
    assert ratio[0, 0].mean((1, 2)).unique().numel() == 4


@pytest.mark.parametrize("shape", [(2, 8, 1, 3, 3), (2, 8, 4, 1, 1), (2, 8, 4, 1, 3), (1, 8, 4, 3, 1)])
def test_block_takes_one_frame_and_thin_maps(shape: tuple[int, ...]) -> None:
    for gates in ("off", "cycle", "cycle_intersection", "shipped"):
        out = SqueezeRecursion(8, gates=gates)(_map(*shape))
        assert out.shape == shape
        assert out.isfinite().all()


def test_block_keeps_the_memory_format() -> None:
    x = _map(2, 8, 4, 3, 3).to(memory_format=torch.channels_last_3d)
    assert SqueezeRecursion(8, gates="cycle")(x).is_contiguous(memory_format=torch.channels_last_3d)


def test_equal_sequences_are_consistent_and_reversed_ones_are_not() -> None:
    a = _map(3, 8, 4)
    assert cycle_consistent(a, a).tolist() == [True] * 3
    assert cycle_consistent(a, a.flip(2)).tolist() == [False] * 3


def test_one_frame_is_always_consistent() -> None:
    assert cycle_consistent(_map(2, 5, 1), _map(2, 5, 1, seed=1)).tolist() == [True, True]


def test_large_features_do_not_overflow() -> None:
    a = _map(2, 32, 8) * 1e30
    assert cycle_consistent(a, a * 1.0001).all()
    assert cycle_consistent(a.half() / 0, a).tolist() == [False, False]  # all infinite or NaN: closed, not an error


def test_union_needs_one_direction_and_intersection_both() -> None:
    # From 0, 1 the nearest of 0.4, 10 is 0.4 twice; from 0.4, 10 the nearest of 0, 1 is its own frame each time.
    near, far = _sequence([0.0], [1.0]), _sequence([0.4], [10.0])
    assert not cycle_consistent(near, far)
    assert cycle_consistent(far, near)
    assert open_gates(near, far, "cycle").tolist() == [True]
    assert open_gates(near, far, "cycle_intersection").tolist() == [False]
    assert open_gates(near, near, "cycle_intersection").tolist() == [True]


def test_off_opens_every_gate_and_shipped_none() -> None:
    a, b = _map(3, 4, 5), _map(3, 4, 5, seed=1)
    assert open_gates(a, b, "off").all()
    assert not open_gates(a, a, "shipped").any()


def _block_with_one_closed_clip() -> tuple[SqueezeRecursion, Tensor]:
    """A block whose output nearly follows its input, and two clips: four distinct frames, and four equal ones.

    The first is consistent. In the second the first frame is nearest to all, so its gate stays closed.
    """
    block = SqueezeRecursion(4, layers=1, gates="cycle")
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        block.lstm.weight_ih_l0[8:12] = 2 * torch.eye(4)
        block.lstm.bias_ih_l0[:4], block.lstm.bias_ih_l0[4:8], block.lstm.bias_ih_l0[12:] = 6.0, -6.0, 6.0
    moving = torch.eye(4).reshape(1, 4, 4, 1, 1).expand(1, 4, 4, 2, 2)
    still = torch.ones(1, 4, 4, 2, 2)
    return block, torch.cat([moving, still])


def test_a_closed_clip_passes_unchanged_and_an_open_one_does_not() -> None:
    block, x = _block_with_one_closed_clip()
    out = block(x)
    assert torch.equal(out[1], x[1])
    assert torch.allclose(out[:1], _ungated(block)(x[:1]))
    assert not torch.equal(out[0], x[0])


def _ungated(block: SqueezeRecursion) -> SqueezeRecursion:
    other = SqueezeRecursion(4, layers=1)
    other.load_state_dict(block.state_dict())
    return other


def test_a_closed_clip_gives_the_lstm_no_gradient() -> None:
    block, x = _block_with_one_closed_clip()
    x.requires_grad_()
    out = block(x)
    out[1].sum().backward(retain_graph=True)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in block.parameters())
    assert torch.equal(x.grad[1], torch.ones_like(x[1]))
    out[0].sum().backward()
    assert block.lstm.weight_ih_l0.grad.any()


def test_shipped_gates_are_the_identity_and_train_nothing() -> None:
    block, x = SqueezeRecursion(4, gates="shipped"), _map(2, 4, 3, 1, 1).requires_grad_()
    out = block(x)
    assert torch.equal(out, x)
    (out * 2).sum().backward()
    assert all(parameter.grad is None for parameter in block.parameters())


def test_recurrent_scale_gives_its_factor_too() -> None:
    x = _map(2, 4, 3, 5, 5)
    for cell in ("gru", "lstm"):
        out, factor = RecurrentScale(4, cell=cell)(x)
        assert factor.shape == (2, 4, 3, 1, 1)
        assert torch.equal(out, x * factor)


def test_unknown_modes_are_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"off, cycle, .*'open'"):
        SqueezeRecursion(4, gates="open")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gru, lstm"):
        RecurrentScale(4, cell="rnn")  # type: ignore[arg-type]
