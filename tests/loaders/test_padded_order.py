"""Published orders: what is padded with what, and who gets it."""

from __future__ import annotations

import numpy as np
import pytest

from loaders.padded_order import group_order, padded, ranks_in_turn, repeated_order


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_an_order_is_padded_with_its_own_head():
    np.testing.assert_array_equal(padded(np.array([3, 1, 4, 0, 2]), 4), [3, 1, 4, 0, 2, 3, 1, 4])
    np.testing.assert_array_equal(padded(np.arange(8), 4), np.arange(8))
    with pytest.raises(ValueError, match="2 items cannot be padded to 8 with themselves once"):
        padded(np.arange(2), 8)


@pytest.mark.parametrize(("num_items", "group_size", "world_size"), [(10, 4, 1), (23, 8, 3), (64, 8, 2), (7, 1, 2)])
def test_groups_hold_every_item_and_the_padding_twice(num_items, group_size, world_size, rng):
    order = group_order(num_items, group_size, rng, world_size=world_size)
    per_rank = -(-num_items // (group_size * world_size)) * group_size
    assert order.shape == (world_size, per_rank) and order.dtype == np.int64
    counts = np.bincount(order.ravel(), minlength=num_items)
    assert counts.min() == 1 and counts.sum() == per_rank * world_size and counts.max() <= 2


def test_ranks_take_turns_and_results_go_back_in_order():
    ranks = ranks_in_turn(padded(np.arange(10), 4), 4)
    np.testing.assert_array_equal(ranks, [[0, 4, 8], [1, 5, 9], [2, 6, 0], [3, 7, 1]])
    np.testing.assert_array_equal(ranks.T.ravel()[:10], np.arange(10))
    with pytest.raises(ValueError, match="10 items are not the same number for each of 4 ranks"):
        ranks_in_turn(np.arange(10), 4)


def test_repeated_items_lie_on_neighbouring_ranks(rng):
    order = repeated_order(1030, rng, world_size=3, repeats=3)
    assert order.shape == (3, 1024 // 3)
    np.testing.assert_array_equal(order[0], order[1])  # with as many ranks as repeats, each has one copy
    assert len(np.unique(order[0])) == len(order[0])


def test_an_epoch_with_repeats_is_as_long_as_one_without(rng):
    order = repeated_order(512, rng, world_size=2)
    assert order.size == 512 and len(np.unique(order)) == -(-512 // 3)
