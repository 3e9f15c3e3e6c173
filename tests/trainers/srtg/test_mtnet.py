"""MTNet: which frames are kept, the two streams, and sizes other than the published ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainers.srtg.mtnet import MTConv, similarity_pool
from trainers.srtg.network import build


def test_frames_like_their_neighbours_are_kept_in_order_for_every_clip_by_itself() -> None:
    a, b, c = torch.eye(3)
    moving = torch.stack([a, a, a, b, c, a])  # Frame 1 has two equal neighbours, 2 has one, 3 and 4 none.
    still = torch.stack([c, b, a, a, a, a])
    x = torch.stack([moving, still]).mT[..., None, None] * torch.arange(1.0, 7)[None, None, :, None, None]
    kept = similarity_pool(x)
    assert kept.shape == (2, 3, 3, 1, 1)
    assert kept.sum((1, 3, 4))[0, :2].tolist() == [2, 3]
    assert kept.sum((1, 3, 4))[1].tolist() == [3, 4, 5]


@pytest.mark.parametrize("num_frames", [1, 2])
def test_too_few_frames_pass(num_frames: int) -> None:
    x = torch.randn(2, 3, num_frames, 4, 4)
    assert torch.equal(similarity_pool(x), x)


@pytest.mark.parametrize("num_frames", [3, 4, 5, 8, 9])
def test_half_of_the_frames_are_kept_never_the_first_or_last(num_frames: int) -> None:
    x = torch.arange(float(num_frames)).expand(2, 3, -1)[..., None, None] + torch.rand(2, 3, num_frames, 2, 2) / 4
    kept = similarity_pool(x).mean((1, 3, 4)).floor()
    assert kept.shape == (2, num_frames // 2)
    assert (kept.diff(dim=1) > 0).all()
    assert kept.min() >= 1 and kept.max() <= num_frames - 2


def test_norms_follow_the_groups() -> None:
    plain, grouped = MTConv(64, 64, 3, ratio=7 / 8), MTConv(64, 64, 3, ratio=7 / 8, groups=8)
    assert isinstance(plain.norm_long, nn.BatchNorm3d)
    assert isinstance(grouped.norm_short, nn.GroupNorm) and grouped.norm_short.num_groups == 7
    assert (grouped.conv_short.groups, grouped.conv_long.groups) == (7, 1)


def test_the_long_norm_sees_both_parts_of_its_stream() -> None:
    conv = MTConv(16, 16, 1, ratio=7 / 8).train()
    conv((torch.randn(2, 14, 4, 8, 8), torch.randn(2, 2, 2, 4, 4)))
    assert (int(conv.norm_short.num_batches_tracked), int(conv.norm_long.num_batches_tracked)) == (1, 2)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mtnet_xs", (2, 3, 16, 64, 64)),
        ("mtnet_xs", (1, 3, 4, 75, 66)),  # An odd map after the stem.
        ("mtnet_xs_g8", (2, 3, 8, 64, 64)),
    ],
)
def test_clips_of_other_sizes(name: str, shape: tuple[int, ...]) -> None:
    out = build(name, 5, width=16 if name == "mtnet_xs" else 64).train()(torch.randn(shape))
    assert out.shape == (shape[0], 5)
    assert out.isfinite().all()


def test_widths_that_leave_a_stream_without_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="without channels"):
        build("mtnet_xs_g8", 5, width=8)


def test_gates_and_places_are_not_mtnets() -> None:
    with pytest.raises(ValueError, match="no gates"):
        build("mtnet_xs", 5, gates="cycle")


def test_channels_last_gives_the_same() -> None:
    model = build("mtnet_xs", 5, width=16).eval()
    clip = torch.randn(2, 3, 8, 64, 64)
    expected = model(clip)
    other = model.to(memory_format=torch.channels_last_3d)(clip.to(memory_format=torch.channels_last_3d))
    assert torch.allclose(other, expected, atol=1e-5)
