"""Scaling of large frames, which are halved on the way: near the mean of the pixels, whatever the format, whoever shares."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import av.filter
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from ingest.pictures import Pictures
from ingest.scaling import Scaler, Source, to_rgb
from ingest.video import Video
from tests.ingest.videos import make_video

LARGE = (1280, 720)


def textured(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Detail of every scale, uint8 (H, W, 3)."""
    rng, (width, height) = np.random.default_rng(seed), size
    made = np.full((height, width, 3), 128, np.float32)
    for cells, contrast in ((5, 40), (40, 20), (400, 10)):
        coarse = rng.normal(0, contrast, (cells, cells, 3)).astype(np.float32)
        made += cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(made, 0, 255).astype(np.uint8)


def first_frame(path: Path) -> VideoFrame:
    with Video(path) as video:
        return next(iter(video.frames()))


@pytest.mark.parametrize("colours", [[], ["-colorspace", "bt709", "-vf", "scale=out_color_matrix=bt709"]], ids=len)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le", "gbrp"])
def test_a_large_frame_becomes_the_mean_of_its_pixels(tmp_path: Path, pix_fmt: str, colours: list[str]) -> None:
    picture = textured(LARGE)
    codec = "ffv1" if pix_fmt != "yuvj420p" else "mjpeg"
    path = make_video(
        tmp_path / "a.mkv", np.stack([picture]), codec=codec, pix_fmt=pix_fmt,
        options=[*colours, *(["-q:v", "1"] if codec == "mjpeg" else [])],
    )  # fmt: skip
    frame = first_frame(path)
    whole = to_rgb(*Scaler(LARGE, "4:4:4")(frame))
    assert np.abs(whole.astype(int) - picture).mean() < 8
    for size in ((320, 180), (213, 120), (455, 256)):
        difference = to_rgb(*Scaler(size, "4:4:4")(frame)).astype(int)
        difference -= cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
        assert np.abs(difference).mean() < 2.5
        assert np.abs(difference.mean(axis=(0, 1))).max() < 1


def test_lines_do_not_alias_however_often_a_frame_is_halved(tmp_path: Path) -> None:
    picture = np.zeros((720, 1280, 3), np.uint8)
    picture[:, ::2] = 255
    frame = first_frame(make_video(tmp_path / "lines.mkv", np.stack([picture]), codec="ffv1", pix_fmt="yuv444p"))
    for size in ((640, 360), (500, 281), (160, 90)):
        assert np.abs(Scaler(size)(frame)[0].astype(int) - 127).max() < 16


@pytest.mark.parametrize("size", [(1278, 718), (1281, 721), (854, 480)], ids=str)
def test_planes_of_odd_size_are_scaled_too(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = textured(size)
    frame = first_frame(make_video(tmp_path / "a.mkv", np.stack([picture]), codec="ffv1"))
    got = to_rgb(*Scaler((200, 112))(frame))
    true = cv2.resize(picture, (200, 112), interpolation=cv2.INTER_AREA)
    assert np.abs(got.astype(int) - true).mean() < 4  # its colours have half the resolution


def test_sizes_that_share_halves_get_what_each_would_alone(tmp_path: Path) -> None:
    frames = [textured(LARGE, seed) for seed in range(3)]
    path = make_video(tmp_path / "a.mkv", np.stack(frames), codec="ffv1")
    sizes = [(160, 90), (455, 256), (320, 180), (640, 360)]
    with Video(path) as video:
        together, alone = Pictures(), [Pictures() for _ in sizes]
        for frame in video.frames():
            for size, own in zip(sizes, alone, strict=True):
                assert together.encoded(frame, size) == own.encoded(frame, size)


def test_a_frame_and_the_one_before_it_are_scaled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes few frames takes each when the next one has come (ingest/rates.py)."""
    scaled = []
    real = Scaler.__call__
    monkeypatch.setattr(Scaler, "__call__", lambda self, frame: scaled.append(self.size) or real(self, frame))
    path = make_video(tmp_path / "a.mkv", np.stack([textured((64, 48), seed) for seed in range(4)]), codec="ffv1")
    with Video(path) as video:
        frames = list(video.frames())
    pictures, alone = Pictures(), Pictures()
    pictures.encoded(frames[0], (64, 48))
    for before, frame in itertools.pairwise(frames):
        now = pictures.encoded(frame, (64, 48))
        array = pictures.rgb(before, (64, 48))
        assert pictures.encoded(frame, (64, 48)) is now
        assert (array == to_rgb(*real(Scaler((64, 48)), before))).all()
    assert len(scaled) == len(frames)
    assert alone.encoded(frames[3], (64, 48)) == now


def test_a_frame_is_halved_once_for_all(tmp_path: Path) -> None:
    source = Source(first_frame(make_video(tmp_path / "a.mkv", np.stack([textured((1920, 1080))]), codec="ffv1")))
    assert source.down_to(1920, 1080).frame is source.down_to(1000, 600).frame is source.frame
    assert source.down_to(960, 540) is source.down_to(500, 300)
    assert (source.down_to(480, 270).width, source.down_to(100, 50).width) == (480, 480)  # 480x270 is small enough


def every_sample(color_range: int, pix_fmt: str = "yuv420p") -> VideoFrame:
    """256 x 16 px, 4:2:0: each column of Y and each pair of columns of U and V another value."""
    frame = VideoFrame(256, 16, pix_fmt)
    frame.color_range = color_range
    for plane in frame.planes:
        line = np.linspace(0, 255, plane.width).round().astype(np.uint8)
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = line
        plane.update(rows)
    return frame


@pytest.mark.parametrize("color_range", [ColorRange.UNSPECIFIED, ColorRange.MPEG])
def test_at_its_own_size_a_limited_range_is_stretched_exactly(color_range: int) -> None:
    y, u, v = Scaler((256, 16))(every_sample(color_range))
    luma, colour = np.arange(256), np.linspace(0, 255, 128).round()
    # Halves of Y do not occur; colour 16 would be 0.5, 240 is 255.5.
    assert (y == np.clip(np.round((luma - 16) * 255 / 219), 0, 255)).all()
    assert (u == np.clip(np.ceil((colour - 128) * 255 / 224 + 128 - 0.5), 0, 255)).all()
    assert (v == u).all()


@pytest.mark.parametrize(
    ("color_range", "pix_fmt"), [(ColorRange.JPEG, "yuv420p"), (ColorRange.UNSPECIFIED, "yuvj420p")]
)
def test_at_its_own_size_a_full_range_is_left_alone(color_range: int, pix_fmt: str) -> None:
    y, u, _ = Scaler((256, 16))(every_sample(color_range, pix_fmt))
    assert (y == np.arange(256)).all()
    assert (u == np.linspace(0, 255, 128).round()).all()


@pytest.mark.parametrize("size", [(340, 256), (341, 255)], ids=str)
def test_a_stretched_range_is_what_ffmpeg_makes_of_it(tmp_path: Path, size: tuple[int, int]) -> None:
    frame = first_frame(make_video(tmp_path / "a.mkv", np.stack([textured(size)]), codec="ffv1"))
    of_ffmpeg = frame.reformat(
        format="yuvj420p",
        dst_color_range=ColorRange.JPEG,
        src_colorspace=Colorspace.ITU601,
        dst_colorspace=Colorspace.ITU601,
    )
    for ours, plane in zip(Scaler(size)(frame), of_ffmpeg.planes, strict=True):
        theirs = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width]
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("colours", [[], ["-colorspace", "bt709", "-vf", "scale=out_color_matrix=bt709"]], ids=len)
@pytest.mark.parametrize("size", [(340, 256), LARGE], ids=str)
def test_a_frame_that_lies_upside_down_in_memory_comes_out_upright(
    tmp_path: Path, size: tuple[int, int], colours: list[str]
) -> None:
    picture = textured(size)
    frame = first_frame(make_video(tmp_path / "a.mkv", np.stack([picture]), codec="ffv1", options=colours))
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        graph.add("vflip"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    flipped = graph.pull()
    assert isinstance(flipped, VideoFrame)
    assert flipped.planes[0].line_size < 0
    flipped.colorspace, flipped.color_range = frame.colorspace, frame.color_range
    for target in (size, (size[0] // 2, size[1] // 2), (64, 48)):
        difference = to_rgb(*Scaler(target)(flipped))[::-1].astype(int) - to_rgb(*Scaler(target)(frame))
        assert np.abs(difference).mean() < 2.5
