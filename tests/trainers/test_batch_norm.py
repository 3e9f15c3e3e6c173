"""Batch norm over parts of a batch, and exact statistics over many batches."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from trainers.batch_norm import (
    SubBatchNorm3d,
    precise_statistics,
    set_clips_per_statistic,
    to_plain,
    with_sub_batch_norm,
)


def _clips(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 2, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def test_each_part_is_normalised_by_itself() -> None:
    x = _clips(8)
    out = SubBatchNorm3d(3, num_splits=4).train()(x)
    for part in range(4):
        own = nn.BatchNorm3d(3).train()(x[part::4])
        assert torch.allclose(out[part::4], own, atol=1e-6)


def test_one_part_is_plain_batch_norm() -> None:
    x = _clips(4)
    plain, sub = nn.BatchNorm3d(3), SubBatchNorm3d(3)
    assert torch.equal(sub.train()(x), plain.train()(x))
    assert torch.allclose(sub.eval()(x), plain.eval()(x), atol=1e-6)


def test_the_number_of_parts_changes_and_statistics_go_on() -> None:
    norm = SubBatchNorm3d(3, num_splits=4).train()
    for seed in range(30):
        norm(_clips(8, seed))
    held = norm.split_bn.running_mean
    before = norm.split_bn.running_mean.view(4, 3).mean(0)
    norm.set_num_splits(2)
    assert norm.split_bn.running_mean is held  # Whoever holds the buffer, holds the new one.
    assert torch.allclose(norm.split_bn.running_mean.view(2, 3), before.expand(2, 3))
    assert norm(_clips(6)).shape == (6, 3, 2, 4, 4)
    norm.eval()
    assert norm.bn.running_mean.sub(1).abs().max() < 0.2


def test_a_batch_that_does_not_divide_is_an_error() -> None:
    with pytest.raises(ValueError, match="7 clips does not divide into 2 parts"):
        SubBatchNorm3d(3, num_splits=2).train()(_clips(7))


@pytest.mark.parametrize(("clips", "splits"), [(1, 1), (8, 1), (12, 1), (16, 2), (20, 2), (28, 2), (384, 48), (26, 2)])
def test_about_eight_clips_under_each_statistic(clips: int, splits: int) -> None:
    model = with_sub_batch_norm(nn.Sequential(nn.BatchNorm3d(3)))
    assert set_clips_per_statistic(model, clips) == splits
    assert model[0].num_splits == splits
    model.train()(_clips(2 * splits))


def test_state_dicts_fit_whatever_the_number_of_parts() -> None:
    four, two = SubBatchNorm3d(3, num_splits=4).train(), SubBatchNorm3d(3, num_splits=2)
    four(_clips(8))
    two.load_state_dict(four.state_dict())
    assert two.num_splits == 4
    assert torch.equal(two.split_bn.running_var, four.split_bn.running_var)
    plain = nn.BatchNorm3d(3)
    plain.load_state_dict(to_plain(four.eval().state_dict()))
    assert torch.equal(plain.running_var, four.bn.running_var)
    two.load_state_dict(plain.state_dict())
    assert torch.equal(two.split_bn.running_var.view(4, 3), plain.running_var.expand(4, 3))


def test_the_memory_format_stays() -> None:
    x = _clips(8).to(memory_format=torch.channels_last_3d)
    assert SubBatchNorm3d(3, num_splits=2).train()(x).is_contiguous(memory_format=torch.channels_last_3d)


class _Net(nn.Module):
    """A norm that is used twice in a forward, as MTNet's are, and one that is never reached."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.other = nn.BatchNorm3d(3), nn.BatchNorm3d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.norm(2 * x)


@pytest.mark.parametrize("sub", [False, True])
def test_precise_statistics_are_those_of_all_clips_together(sub: bool) -> None:
    net: nn.Module = _Net()
    if sub:
        with_sub_batch_norm(net, 2)
    net.eval()
    untouched = copy.deepcopy(net.other.state_dict())
    batches = [_clips(4, 1), _clips(8, 2), _clips(2, 3), _clips(2, 4)]
    assert precise_statistics(net, net, batches, 3) == 3
    seen = torch.cat([x for batch in batches[:3] for x in (batch, 2 * batch)]).transpose(0, 1).flatten(1)
    norm = net.norm.bn if sub else net.norm
    assert torch.allclose(norm.running_mean, seen.mean(1), atol=1e-6)
    assert torch.allclose(norm.running_var, seen.var(1), rtol=1e-5)
    assert not net.training and not net.norm.training
    assert all(torch.equal(value, untouched[name]) for name, value in net.other.state_dict().items())
    with pytest.raises(ValueError, match="at least one batch"):
        precise_statistics(net, net, [], 3)


def test_a_compiled_model_is_counted_too() -> None:
    net = _Net()
    compiled = torch.compile(net, backend="eager")
    compiled(_clips(4))
    batch = _clips(8, 1)
    precise_statistics(net, compiled, [batch], 1)
    assert torch.allclose(net.norm.running_mean, batch.mean((0, 2, 3, 4)) * 1.5, atol=1e-5)
