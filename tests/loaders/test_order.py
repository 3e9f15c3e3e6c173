"""Order and randomness as pure functions of (seed, epoch, k)."""

from __future__ import annotations

import numpy as np
import pytest

from loaders.order import brief_sample_rng, epoch_order, sample_rng


@pytest.mark.parametrize("num_items", [0, 1, 2, 97, 1000])
def test_an_epoch_is_a_true_permutation(num_items):
    order = epoch_order(num_items, seed=3, epoch=1)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(num_items))


def test_order_differs_by_epoch_and_by_seed_and_not_by_call():
    order = epoch_order(100, seed=1, epoch=0)
    np.testing.assert_array_equal(order, epoch_order(100, seed=1, epoch=0))
    for other in (
        epoch_order(100, seed=1, epoch=1),
        epoch_order(100, seed=2, epoch=0),
        epoch_order(100, seed=0, epoch=1),
    ):
        assert (order != other).any()


def test_every_item_comes_first_about_equally_often():
    firsts = np.bincount([epoch_order(5, seed=0, epoch=epoch)[0] for epoch in range(1000)], minlength=5)
    assert firsts.min() > 150


def test_without_shuffle_the_order_is_that_of_the_items():
    np.testing.assert_array_equal(epoch_order(6, seed=9, epoch=4, shuffle=False), range(6))


def test_the_randomness_of_a_sample_is_its_own():
    alone = sample_rng(5, 2, 7).random(8)
    for k in range(5, 10):
        sample_rng(5, 2, k).random(1000)
    np.testing.assert_array_equal(sample_rng(5, 2, 7).random(8), alone)


def test_the_generator_that_is_used_again_draws_the_same():
    """Also after draws that leave half a word or a part of a block behind."""
    for k in (0, 7, 2**40, 7):
        for draws in (1, 3, 4, 9):
            again, fresh = brief_sample_rng(2**63, 5, k), sample_rng(2**63, 5, k)
            for _ in range(draws):
                assert again.integers(0, 1000, dtype=np.int32) == fresh.integers(0, 1000, dtype=np.int32)
            assert again.random() == fresh.random()


def test_no_two_samples_share_their_randomness():
    draws = {
        tuple(sample_rng(seed, epoch, k).integers(0, 2**62, 4))
        for seed in range(6)
        for epoch in range(6)
        for k in range(6)
    }
    assert len(draws) == 6**3


def test_the_randomness_of_sample_0_is_not_that_of_the_order():
    np.testing.assert_raises(
        AssertionError, np.testing.assert_array_equal, sample_rng(0, 0, 0).permutation(50), epoch_order(50, 0, 0)
    )
