"""Inference with shared work, and the stream, give what one plain forward per window gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loaders.windows import OnlineWindows
from tests.trainers.lstr.networks import SMALL, SPECS, make, windows_for
from trainers.lstr.inference import score_video
from trainers.lstr.network import LSTR
from trainers.lstr.split import SplitLstr
from trainers.lstr.stream import LSTRStream

LONG_VIDEO = 72
"""Rows: several times what the memories hold."""


def streams_of(model: LSTR, num_rows: int, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = (model.spec.visual_size, model.spec.motion_size)
    return [torch.randn(num_rows, size, generator=generator) for size in sizes]


@torch.no_grad()
def plain(model: LSTR, windows: OnlineWindows, streams: list[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """One forward per window, as the network is written."""
    num_rows = len(streams[0])
    scores = np.zeros((num_rows, model.spec.num_classes), np.float32)
    decided = np.zeros(num_rows, bool)
    for start in windows.every_start(num_rows).tolist():
        window = windows.test(start)
        rows = np.concatenate([window.long, window.work])
        mask = torch.from_numpy(window.mask)[None] if windows.num_long else None
        logits = model(*(stream[rows][None] for stream in streams), mask)[0]
        where = windows.rows_decided(start)
        scores[where] = logits[-len(where) :].softmax(1).numpy()
        decided[where] = True
    return scores, decided


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("long_rate", "work_rate"), [(1, 1), (4, 1), (3, 2)])
def test_every_way_of_inference_gives_the_same_scores(name: str, long_rate: int, work_rate: int) -> None:
    model = make(SPECS[name])
    windows = windows_for(model.spec, long_rate, work_rate)
    streams = streams_of(model, LONG_VIDEO)
    expected, decided = plain(model, windows, streams)
    assert expected[decided].std(0).max() > 1e-3  # The scores depend on what is seen.

    split = SplitLstr(model)
    shared = score_video(split, windows, *streams, block=16)
    assert (shared.decided == decided).all()
    np.testing.assert_allclose(shared.scores, expected, atol=1e-5)

    stream = LSTRStream(split, windows, "exact")
    for row in range(LONG_VIDEO):
        score = stream.push(*(each[row] for each in streams))
        if row > LONG_VIDEO - work_rate:  # The stream need not wait for the rows that the last window leaves out.
            assert score is not None
            continue
        assert (score is not None) == decided[row]
        if score is not None:
            np.testing.assert_allclose(score.numpy(), expected[row], atol=1e-5)


def test_the_reference_stream_is_exact_up_to_the_long_memory_and_at_multiples_of_its_rate() -> None:
    model = make(SMALL)
    windows = windows_for(SMALL, long_rate=4)
    streams = streams_of(model, LONG_VIDEO)
    exact = score_video(SplitLstr(model), windows, *streams).scores
    stream = LSTRStream(model, windows, "reference")
    differences = np.array(
        [np.abs(stream.push(*rows).numpy() - exact[i]).max() for i, rows in enumerate(zip(*streams, strict=True))]
    )
    starts = np.arange(LONG_VIDEO) - windows.work_length + 1
    same = (starts <= windows.long_length) | (starts % 4 == 0)
    assert differences[same].max() < 1e-5
    assert differences[~same].min() > 1e-5


def test_one_stream_takes_one_video_after_the_other() -> None:
    model = make(SMALL)
    windows = windows_for(SMALL, long_rate=2)
    split = SplitLstr(model)
    stream = LSTRStream(split, windows)
    for seed, num_rows in ((1, 60), (2, 9), (3, 40)):
        streams = streams_of(model, num_rows, seed)
        stream.reset()
        scores = torch.stack([stream.push(*rows) for rows in zip(*streams, strict=True)])
        np.testing.assert_allclose(scores.numpy(), score_video(split, windows, *streams).scores, atol=1e-5)


def test_two_videos_at_once_on_the_same_network() -> None:
    model = make(SMALL)
    windows = windows_for(SMALL, long_rate=2)
    split = SplitLstr(model)
    videos = [streams_of(model, 50, seed) for seed in (1, 2)]
    streams = [LSTRStream(split, windows) for _ in videos]
    scores = [
        [stream.push(*(each[row] for each in video)) for stream, video in zip(streams, videos, strict=True)]
        for row in range(50)
    ]
    for number, video in enumerate(videos):
        ours = torch.stack([row[number] for row in scores])
        np.testing.assert_allclose(ours.numpy(), score_video(split, windows, *video).scores, atol=1e-5)


def test_a_stream_does_nothing_twice() -> None:
    """With the long memory at rate 4, three frames of four find their memory where it was."""
    model = make(SMALL)
    windows = windows_for(SMALL, long_rate=4)
    for mode in ("reference", "exact"):
        split = SplitLstr(model)
        calls = 0
        compress = split.compress

        def counted(*arguments, compress=compress):
            nonlocal calls
            calls += 1
            return compress(*arguments)

        split.compress = counted
        stream = LSTRStream(split, windows, mode)
        for rows in zip(*streams_of(model, 100), strict=True):
            stream.push(*rows)
        # Starts 0 to 94: with the reference's queue a new memory every four starts; exact only up to start 32.
        assert calls == {"reference": 1 + (94 - 1) // 4, "exact": 8 + (94 - 32)}[mode], mode


def test_the_state_of_a_stream_does_not_grow() -> None:
    model = make(SMALL)
    windows = windows_for(SMALL, long_rate=4)
    stream = LSTRStream(model, windows)

    def held() -> int:
        buffers = (*stream._long._buffers, *stream._work._buffers)
        return sum(each.numel() for each in buffers) + len(stream._waiting)

    sizes = []
    for row, rows in enumerate(zip(*streams_of(model, 400), strict=True)):
        stream.push(*rows)
        if row >= windows.work_length:
            sizes.append(held())
    assert len(set(sizes)) == 1


def test_a_short_video_has_no_scores_unless_its_first_row_is_repeated() -> None:
    model = make(SMALL)
    windows = windows_for(SMALL, long_rate=2)
    streams = streams_of(model, windows.work_length - 2)
    assert not score_video(SplitLstr(model), windows, *streams).decided.any()
    padded = score_video(SplitLstr(model), windows, *streams, short="repeat_first")
    assert padded.decided.all()
    np.testing.assert_allclose(padded.scores.sum(1), 1, atol=1e-5)


def test_streams_that_the_modality_does_not_use_may_be_missing() -> None:
    model = make(SPECS["motion_no_heads"])
    windows = windows_for(model.spec, long_rate=2)
    visual, motion = streams_of(model, 40)
    with_both = score_video(SplitLstr(model), windows, visual, motion).scores
    assert (score_video(SplitLstr(model), windows, None, motion).scores == with_both).all()
    with pytest.raises(ValueError, match="was not given"):
        score_video(SplitLstr(model), windows, visual, None)


def test_windows_must_be_those_of_the_network() -> None:
    with pytest.raises(ValueError, match=r"8 \+ 6"):
        LSTRStream(make(SMALL), OnlineWindows(5, 1, 8, 1))
    with pytest.raises(ValueError, match="exact"):
        LSTRStream(make(SMALL), windows_for(SMALL, 1), "fast")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_scores_of_the_cpu() -> None:
    model = make(SMALL)
    windows = windows_for(SMALL, long_rate=4)
    streams = streams_of(model, LONG_VIDEO)
    expected = score_video(SplitLstr(model), windows, *streams).scores
    split = SplitLstr(model.cuda())
    np.testing.assert_allclose(score_video(split, windows, *streams).scores, expected, atol=1e-4)
    stream = LSTRStream(split, windows)
    scores = torch.stack([stream.push(*rows) for rows in zip(*streams, strict=True)]).cpu()
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-4)
