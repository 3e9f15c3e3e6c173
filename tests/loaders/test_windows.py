"""Windows of online detection: starts, long and work memory, masks, and the published stream."""

from __future__ import annotations

import numpy as np
import pytest

from loaders.windows import OnlineWindows

WINDOWS = OnlineWindows(work_length=4, long_length=12, long_rate=3)  # N = 4


def test_memories_in_seconds():
    lstr = OnlineWindows.from_seconds(4, work_s=8, long_s=512, long_rate=4)
    assert (lstr.work_length, lstr.num_work, lstr.long_length, lstr.num_long) == (32, 32, 2048, 512)
    assert OnlineWindows(8, 2).num_work == 4 and OnlineWindows(8, 2).num_long == 0


def test_windows_follow_each_other_and_end_before_the_last_row():
    np.testing.assert_array_equal(WINDOWS.starts(13), [0, 4, 8])  # 8 to 11, row 12 unseen
    np.testing.assert_array_equal(WINDOWS.starts(12), [0, 4])  # the window 8 to 11 ends with the video
    np.testing.assert_array_equal(WINDOWS.starts(13, offset=2), [2, 6])
    assert not len(WINDOWS.starts(4)) and not len(WINDOWS.starts(2)) and not len(WINDOWS.starts(5, offset=3))


def test_strides_and_what_rests():
    np.testing.assert_array_equal(WINDOWS.starts(13, stride=3), [0, 3, 6])
    # 15 rows leave room for starts below 11; whole strides of 4 end at 8.
    np.testing.assert_array_equal(WINDOWS.starts(15, offset=1), [1, 5, 9])
    np.testing.assert_array_equal(WINDOWS.starts(15, offset=1, rest="drop"), [1, 5])
    with pytest.raises(ValueError, match="offset is -1 and stride 4"):
        WINDOWS.starts(15, offset=-1)


def test_inference_has_a_window_for_every_row():
    np.testing.assert_array_equal(WINDOWS.every_start(7), [0, 1, 2, 3])
    np.testing.assert_array_equal(WINDOWS.every_start(4), [0])
    for num_rows in (4, 5, 30):
        rows = np.concatenate([WINDOWS.rows_decided(start) for start in WINDOWS.every_start(num_rows).tolist()])
        np.testing.assert_array_equal(rows, np.arange(num_rows))


def test_a_short_video_is_skipped_or_repeats_its_first_row():
    assert not len(WINDOWS.every_start(3)) and not len(WINDOWS.every_start(0, short="repeat_first"))
    (start,) = WINDOWS.every_start(3, short="repeat_first").tolist()
    window = WINDOWS.test(start)
    np.testing.assert_array_equal(window.work, [0, 0, 1, 2])
    np.testing.assert_array_equal(window.long, [0, 0, 0, 0])
    np.testing.assert_array_equal(np.unique(WINDOWS.rows_decided(start)), [0, 1, 2])


def test_the_work_memory_at_its_rate():
    np.testing.assert_array_equal(OnlineWindows(6, 2).work_indices(5), [5, 7, 9])
    np.testing.assert_array_equal(OnlineWindows(6, 2).rows_decided(5), [9])


def test_training_spreads_the_long_memory_over_what_there_is():
    np.testing.assert_array_equal(WINDOWS.long_spread(13), [1, 4, 8, 12])  # 1, 4.67, 8.33, 12
    np.testing.assert_array_equal(WINDOWS.long_spread(4), [0, 1, 2, 3])
    np.testing.assert_array_equal(WINDOWS.long_spread(2), [0, 0, 0, 1])
    np.testing.assert_array_equal(WINDOWS.long_spread(0), [0, 0, 0, 0])  # nothing is past: row 0 stands in


def test_inference_takes_the_long_memory_at_its_rate():
    np.testing.assert_array_equal(WINDOWS.long_at_rate(13), [1, 4, 7, 10])
    np.testing.assert_array_equal(WINDOWS.long_at_rate(8), [0, 0, 3, 6])
    np.testing.assert_array_equal(WINDOWS.long_at_rate(0), [0, 0, 0, 0])


def test_padding_is_masked_but_for_one_row_0():
    window = WINDOWS.test(5)
    np.testing.assert_array_equal(window.long, [0, 0, 0, 3])
    assert window.num_masked == 2 and window.mask.dtype == np.float32
    np.testing.assert_array_equal(window.mask, [-np.inf, -np.inf, 0, 0])
    assert WINDOWS.test(13).num_masked == 0  # row 0 is not even in it
    assert WINDOWS.test(0).num_masked == 3
    assert WINDOWS.train(2).num_masked == 2


@pytest.mark.parametrize("start", [0, 1, 5, 11, 12, 13, 50])
@pytest.mark.parametrize("training", [True, False])
def test_no_window_sees_the_future(start, training):
    window = WINDOWS.train(start) if training else WINDOWS.test(start)
    assert (np.diff(window.long) >= 0).all()
    assert window.long.max() <= max(start - 1, 0) and window.long.min() >= max(0, start - WINDOWS.long_length)
    assert (window.long.dtype, window.work.dtype) == (np.int64, np.int64)
    assert (len(window.long), len(window.work)) == (4, 4)


def test_without_a_long_memory_there_is_only_work():
    window = OnlineWindows(4).train(8)
    assert window.long.shape == (0,) and window.mask.shape == (0,) and window.num_masked == 0
    np.testing.assert_array_equal(window.work, [8, 9, 10, 11])


def test_the_stream_takes_in_a_row_every_rate_steps():
    assert [WINDOWS.new_in_stream(step) for step in range(8)] == [4, 1, 0, 0, 1, 0, 0, 1]
    np.testing.assert_array_equal(WINDOWS.long_in_stream(8), [0, 0, 3, 6])
    np.testing.assert_array_equal(WINDOWS.long_in_stream(17), [6, 9, 12, 15])
    # Rows change exactly where new ones are taken in; row 0 comes in at step 1, in the place of a padded one.
    for step in range(1, 60):
        same = (WINDOWS.long_in_stream(step) == WINDOWS.long_in_stream(step - 1)).all()
        assert same == (WINDOWS.new_in_stream(step) == 0) or step == 1


def test_the_stream_equals_inference_early_and_at_multiples_of_the_rate():
    for step in range(60):
        same = (WINDOWS.long_in_stream(step) == WINDOWS.long_at_rate(step)).all()
        assert same == (step <= WINDOWS.long_length or step % WINDOWS.long_rate == 0), step


def test_one_queue_per_row_of_the_rate_streams_what_inference_sees():
    queues = [[0] * WINDOWS.num_long for _ in range(WINDOWS.long_rate)]
    for step in range(60):
        if step:
            queue = queues[(step - 1) % WINDOWS.long_rate]
            queue[:] = [*queue[1:], step - 1]
        np.testing.assert_array_equal(queues[WINDOWS.queue_in_stream(step)], WINDOWS.long_at_rate(step))


def test_lengths_must_be_multiples_of_their_rates():
    with pytest.raises(ValueError, match="long_length is 10, which is no multiple of long_rate 3"):
        OnlineWindows(4, long_length=10, long_rate=3)
    with pytest.raises(ValueError, match="work_length is 5, which is no multiple of work_rate 2"):
        OnlineWindows(5, 2)
    with pytest.raises(ValueError, match="work_length is 0"):
        OnlineWindows(0)
    with pytest.raises(ValueError, match="long_length is -4"):
        OnlineWindows(4, long_length=-4)
