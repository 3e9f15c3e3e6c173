"""Decoding: right colours, right times, right way up, the right stream; and a reason for every file that cannot be used."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import av
import cv2
import numpy as np
import pytest
import simplejpeg

from ingest.errors import VideoError
from ingest.ffmpeg import ffmpeg_exe
from ingest.scaling import Scaler
from ingest.video import Clock, Video, displayed_size, probe
from tests.ingest.videos import ffmpeg, make_video, number_of, numbered_frames

_MS = Fraction(1, 1000)


def decode(path: Path, sizes: Sequence[tuple[int, int]] = ((96, 72),)) -> tuple[list[list[np.ndarray]], list[int]]:
    """Pictures of every frame at every size, as a reader gets them (through JPEG), and times in microseconds."""
    pictures, times_us = [], []
    with Video(path) as video:
        clock, scalers = Clock(video), [Scaler(size) for size in sizes]
        for frame in video.frames():
            times_us.append(clock.read(frame))
            jpegs = [simplejpeg.encode_jpeg_yuv_planes(*scaler(frame), 95) for scaler in scalers]
            pictures.append([simplejpeg.decode_jpeg(jpeg) for jpeg in jpegs])
    return pictures, times_us


def numbers(path: Path) -> list[int]:
    return [number_of(levels[0]) for levels in decode(path)[0]]


def mux(path: Path, times_ms: Sequence[int], codec: str = "libx264") -> Path:
    """Numbered frames with the given presentation times, muxed by hand: any variable rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        stream.codec_context.time_base = _MS
        for picture, time_ms in zip(numbered_frames(len(times_ms)), times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = time_ms, _MS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# -- colours ---------------------------------------------------------------------------------------------------------

PATCHES = np.array(
    [
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 255],
        [0, 0, 0],
        [128, 128, 128],
        [200, 100, 50],
        [20, 150, 220],
    ],
    np.uint8,
)


def x264(pix_fmt: str, matrix: str, value_range: str) -> dict:
    tag = {"bt709": "bt709", "bt601": "smpte170m"}[matrix]
    scale = f"scale=out_color_matrix={matrix}:out_range={value_range}"
    return {"pix_fmt": pix_fmt, "options": ["-vf", scale, "-colorspace", tag, "-color_range", value_range, "-crf", "1"]}


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("709-limited.mp4", x264("yuv420p", "bt709", "tv")),
        ("709-full.mp4", x264("yuv420p", "bt709", "pc")),
        ("601-limited.mp4", x264("yuv420p", "bt601", "tv")),
        ("601-full.mp4", x264("yuv420p", "bt601", "pc")),
        ("444.mp4", x264("yuv444p", "bt709", "tv")),
        ("10-bit.mp4", x264("yuv420p10le", "bt709", "tv")),
        ("10-bit-full.mp4", x264("yuv420p10le", "bt709", "pc")),
        ("untagged.mp4", {"options": ["-vf", "scale=out_range=tv", "-crf", "1"]}),
        ("rgb.mp4", {"codec": "libx264rgb", "pix_fmt": "rgb24", "options": ["-crf", "1"]}),
        ("rgb.mkv", {"codec": "ffv1", "pix_fmt": "bgr0"}),
        ("alpha.mkv", {"codec": "png", "pix_fmt": "rgba"}),
        ("mjpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": ["-q:v", "2"]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_colours_come_out_as_they_went_in(tmp_path: Path, name: str, encoding: dict) -> None:
    picture = PATCHES.reshape(2, 4, 3).repeat(80, 0).repeat(80, 1)
    path = make_video(tmp_path / name, np.stack([picture] * 3), **encoding)
    pictures, _ = decode(path, [(320, 160), (160, 80)])
    assert len(pictures) == 3
    for got in pictures[1]:
        height, width = got.shape[:2]
        centres = got[height // 4 :: height // 2, width // 8 :: width // 4].reshape(8, 3).astype(int)
        assert np.abs(centres - PATCHES).max() <= 6, centres.tolist()


# -- geometry --------------------------------------------------------------------------------------------------------


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    return 10 * np.log10(255**2 / np.square(one.astype(float) - other).mean())


@pytest.mark.parametrize("size", [(97, 73), (97, 72), (96, 73)], ids=str)
@pytest.mark.parametrize(
    "kind", [("libx264", "yuv444p", "mp4"), ("ffv1", "yuv420p", "mkv"), ("mpeg4", "yuv420p", "avi")]
)
def test_odd_sizes_keep_the_whole_picture(tmp_path: Path, size: tuple[int, int], kind: tuple[str, str, str]) -> None:
    codec, pix_fmt, suffix = kind
    path = make_video(tmp_path / f"odd.{suffix}", 3, size=size, codec=codec, pix_fmt=pix_fmt)
    pictures, _ = decode(path, [size, (55, 41), (41, 55)])
    for got, (width, height) in zip(pictures[2], [size, (55, 41), (41, 55)], strict=True):
        assert got.shape == (height, width, 3)
        wanted = cv2.resize(numbered_frames(3, size)[2], (width, height), interpolation=cv2.INTER_AREA)
        assert similarity(got, wanted) > 26


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [("ffv1", "gray", "mkv"), ("ffv1", "yuv411p", "mkv"), ("ffv1", "yuva420p", "mkv"), ("ffv1", "yuv444p16le", "mkv"),
     ("ffv1", "gbrap", "mkv"), ("gif", "rgb8", "gif"), ("png", "monob", "mkv"), ("qtrle", "argb", "mov"),
     ("prores_ks", "yuv422p10le", "mov"), ("libx264", "yuvj444p", "mp4"), ("libvpx-vp9", "yuv420p", "webm")],
)  # fmt: skip
def test_pixel_formats_of_all_kinds(tmp_path: Path, codec: str, pix_fmt: str, suffix: str) -> None:
    assert numbers(make_video(tmp_path / f"a.{suffix}", 4, codec=codec, pix_fmt=pix_fmt)) == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (16, 4), (2048, 8), (3, 500)], ids=str)
def test_extreme_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    pictures, _ = decode(make_video(tmp_path / "a.mkv", 2, size=size, codec="ffv1", pix_fmt="yuv444p"), [size])
    assert [p[0].shape for p in pictures] == [(size[1], size[0], 3)] * 2


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("size", [(55, 41), (54, 41), (55, 40), (54, 40)], ids=str)
def test_the_same_frame_gives_the_same_jpeg_at_odd_sizes_too(
    tmp_path: Path, size: tuple[int, int], rotation: int
) -> None:
    """A JPEG encoder reads one column and one row behind an odd edge; chance must not decide what is there."""
    path = make_video(tmp_path / "a.mp4", 3, size=(160, 120))
    if rotation:
        ffmpeg("-display_rotation", "90", "-i", str(path), "-c", "copy", str(tmp_path / "turned.mp4"))
        path = tmp_path / "turned.mp4"
    with Video(path) as video:
        y, u, v = Scaler(size)(next(iter(video.frames())))
    width, height = size
    assert (y.shape, u.shape, v.shape) == ((height, width), *2 * [((height + 1) // 2, (width + 1) // 2)])
    repeated = np.pad(y, ((0, height % 2), (0, width % 2)), "edge")[:height, :width]
    assert simplejpeg.encode_jpeg_yuv_planes(y, u, v, 90) == simplejpeg.encode_jpeg_yuv_planes(repeated, u, v, 90)


def test_scaling_averages_and_does_not_alias(tmp_path: Path) -> None:
    """Lines one pixel wide become an even grey, whatever their phase; picking pixels would give black or white."""
    picture = np.zeros((96, 128, 3), np.uint8)
    picture[:, ::2] = 255
    path = make_video(tmp_path / "lines.mkv", np.stack([picture] * 2), codec="ffv1", pix_fmt="yuv444p")
    got = decode(path, [(32, 24)])[0][0][0]
    assert np.abs(got.astype(int) - 127).max() < 16


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_rotation_metadata_turns_picture_and_size(tmp_path: Path, degrees: int, suffix: str) -> None:
    plain = make_video(tmp_path / "plain.mp4", 3)
    turned = tmp_path / f"turned.{suffix}"
    ffmpeg("-display_rotation", str(degrees), "-i", str(plain), "-c", "copy", str(turned))
    with Video(turned) as video:
        size = displayed_size(next(iter(video.frames())))
    assert size == ((72, 96) if degrees in (90, 270) else (96, 72))
    got = decode(turned, [size])[0][0][0]
    command = [
        ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(turned),
        "-frames:v",
        "1",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    shown = subprocess.run(command, capture_output=True, check=True).stdout  # ffmpeg turns by itself
    assert similarity(got, np.frombuffer(shown, np.uint8).reshape(got.shape)) > 30


def test_frames_that_change_their_size_on_the_way_are_all_brought_to_one(tmp_path: Path) -> None:
    parts = [make_video(tmp_path / f"{i}.h264", 5, size=size) for i, size in enumerate([(96, 72), (160, 120)])]
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    pictures, times_us = decode(joined)
    assert [number_of(p[0]) for p in pictures] == [0, 1, 2, 3, 4] * 2
    assert {p[0].shape for p in pictures} == {(72, 96, 3)}
    assert times_us == [40_000 * i for i in range(10)]  # a bare stream has no times: the nominal rate counts


# -- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("b-frames.mp4", {"options": ["-preset", "medium", "-bf", "3"]}),
        ("audio.mp4", {"audio": True}),
        ("a.mkv", {}),
        ("a.webm", {"codec": "libvpx"}),
        ("a.mov", {}),
        ("a.ts", {}),
        ("a.avi", {"codec": "mpeg4"}),
        ("b-frames.avi", {"codec": "mpeg4", "options": ["-bf", "2"]}),
        ("h264.avi", {"options": ["-preset", "medium", "-bf", "3"]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_constant_rate_gives_evenly_spaced_times_from_zero(tmp_path: Path, name: str, options: dict) -> None:
    path = make_video(tmp_path / name, 40, **options)
    pictures, times_us = decode(path)
    assert [number_of(p[0]) for p in pictures] == list(range(40))
    # TS counts from 1.4 s, which a player shows as zero; AVI counts packets, in the order of decoding.
    assert times_us == [40_000 * i for i in range(40)]


def test_a_fractional_rate_does_not_drift(tmp_path: Path) -> None:
    _, times_us = decode(make_video(tmp_path / "ntsc.mp4", 120, fps="30000/1001"))
    assert times_us == [round(i * 1001 / 30000 * 1e6) for i in range(120)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_a_variable_rate_keeps_the_time_of_every_frame(tmp_path: Path, suffix: str) -> None:
    times_ms = [0, 40, 80, 500, 520, 540, 1540, 1541, 3000, 3033]
    path = mux(tmp_path / f"vfr.{suffix}", times_ms, "libvpx" if suffix == "webm" else "libx264")
    pictures, times_us = decode(path)
    assert [number_of(p[0]) for p in pictures] == list(range(10))
    assert times_us == [1000 * t for t in times_ms]


def test_a_picture_that_starts_after_the_sound_keeps_its_delay(tmp_path: Path) -> None:
    silent, path = make_video(tmp_path / "silent.mkv", 25), tmp_path / "late.mkv"
    sound = ["-f", "lavfi", "-i", "sine=duration=2"]
    ffmpeg("-itsoffset", "0.4", "-i", str(silent), *sound, "-map", "0:v", "-map", "1:a", "-c:v", "copy", str(path))
    _, times_us = decode(path)
    assert times_us == pytest.approx([400_000 + 40_000 * i for i in range(25)], abs=25_000)  # sound frames last 23 ms


@pytest.mark.parametrize(
    ("ticks", "times_us"),
    [
        ([0, 40, 30, 120], [0, 40_000, 40_001, 120_000]),  # back
        ([0, 40, 40, 80], [0, 40_000, 40_001, 80_000]),  # still
        ([None, None, 90], [0, 40_000, 90_000]),  # without a time: at the nominal rate
        ([0, None, None], [0, 40_000, 80_000]),
        ([-20, 20], [-20_000, 20_000]),  # before the player's zero
    ],
)
def test_times_increase_whatever_the_file_says(ticks: list[int | None], times_us: list[int]) -> None:
    video = SimpleNamespace(info=SimpleNamespace(fps=25.0, container="mp4"), start_s=Fraction(0))
    clock = Clock(cast(Video, video))
    frames = [cast(av.VideoFrame, SimpleNamespace(pts=t, dts=None, time_base=_MS)) for t in ticks]
    assert [clock.read(frame) for frame in frames] == times_us


@pytest.mark.parametrize("start_s", [Fraction(0), Fraction(-21, 1000), Fraction(1, 3)])
@pytest.mark.parametrize(
    "tick_s", [Fraction(1, 90_000), Fraction(1001, 24_000), Fraction(1, 48_000), Fraction(1, 2_000_000)]
)
@pytest.mark.parametrize("container", ["mp4", "avi"])
def test_times_are_rounded_to_the_microsecond_as_fractions_are(
    container: str, tick_s: Fraction, start_s: Fraction
) -> None:
    video = SimpleNamespace(info=SimpleNamespace(fps=25.0, container=container), start_s=start_s)
    clock = Clock(cast(Video, video))
    ticks = list(range(5, 60_000, 37))
    frames = (cast(av.VideoFrame, SimpleNamespace(pts=t, dts=t, time_base=tick_s)) for t in ticks)
    zero_s = 5 * tick_s if container == "avi" else start_s
    assert [clock.read(frame) for frame in frames] == [round((t * tick_s - zero_s) * 1_000_000) for t in ticks]


# -- streams ---------------------------------------------------------------------------------------------------------


def two_streams(path: Path, dispositions: tuple[str, str]) -> Path:
    """First stream 64x48, second 192x144."""
    parts = [make_video(path.with_name(f"{i}-{path.name}"), 10, size=s) for i, s in enumerate([(64, 48), (192, 144)])]
    inputs = [option for part in parts for option in ("-i", str(part))]
    flags = [option for i, d in enumerate(dispositions) for option in (f"-disposition:v:{i}", d)]
    ffmpeg(*inputs, "-map", "0:v", "-map", "1:v", "-c", "copy", *flags, str(path))
    return path


def test_of_two_video_streams_the_one_marked_default_is_taken(tmp_path: Path) -> None:
    assert probe(two_streams(tmp_path / "first.mkv", ("default", "0"))).width == 64
    assert probe(two_streams(tmp_path / "second.mkv", ("0", "default"))).width == 192


def test_of_two_equal_video_streams_the_larger_is_taken(tmp_path: Path) -> None:
    path = two_streams(tmp_path / "both.mp4", ("default", "default"))
    info = probe(path)
    assert (info.stream, info.width, info.height) == (1, 192, 144)
    assert len(decode(path)[0]) == 10


def test_a_cover_picture_is_not_taken_for_the_video(tmp_path: Path) -> None:
    cover, plain = tmp_path / "cover.png", make_video(tmp_path / "plain.mp4", 10)
    cover.write_bytes(cv2.imencode(".png", np.full((600, 800, 3), 99, np.uint8))[1].tobytes())
    path = tmp_path / "with-cover.mp4"
    ffmpeg("-i", str(cover), "-i", str(plain), "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic",
           str(path))  # fmt: skip
    assert numbers(path) == list(range(10))


def test_probe_says_what_the_file_holds(tmp_path: Path) -> None:
    info = probe(make_video(tmp_path / "a.mp4", 50, audio=True))
    assert (info.codec, info.pixel_format, info.width, info.height) == ("h264", "yuv420p", 96, 72)
    assert (info.fps, info.num_frames, info.sample_aspect) == (25.0, 50, "1")
    assert info.duration_s == pytest.approx(2.0, abs=0.1)


# -- files that cannot be used -----------------------------------------------------------------------------------------


def refusal(path: Path) -> VideoError:
    with pytest.raises(VideoError) as caught:
        decode(path)
    assert caught.value.message
    return caught.value


def cut(path: Path, part: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    return path


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    assert refusal(path).reason == "empty file"


@pytest.mark.parametrize(
    "content",
    [
        b"This is no video.\n" * 200,
        bytes(50_000),
        np.random.default_rng(0).bytes(50_000),
        b"<html>404 Not Found</html>",
    ],
    ids=["text", "zeros", "noise", "html"],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "webm"])
def test_a_file_that_is_no_video(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"video.{suffix}"
    path.write_bytes(content)
    assert refusal(path).reason == "not a video"


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.97, 0.99])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("index-at-end.mp4", {}),
        ("faststart.mp4", {"options": ["-movflags", "faststart"]}),
        ("fragmented.mp4", {"options": ["-movflags", "frag_keyframe+empty_moov", "-g", "10"]}),
        ("with-audio.mp4", {"audio": True, "options": ["-movflags", "faststart"]}),
        ("a.mov", {}),
        ("a.mkv", {}),
        ("a.webm", {"codec": "libvpx"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_truncated_file(tmp_path: Path, name: str, options: dict, part: float) -> None:
    whole = make_video(tmp_path / name, 60, **options)
    assert len(decode(whole)[0]) == 60
    assert refusal(cut(whole, part)).reason == "truncated"


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_truncated_avi(tmp_path: Path, part: float) -> None:
    assert refusal(cut(make_video(tmp_path / "a.avi", 60, codec="mpeg4"), part)).reason == "truncated"


def test_an_mp4_cut_with_its_index_in_front_names_the_first_frame_that_is_gone(tmp_path: Path) -> None:
    path = cut(make_video(tmp_path / "a.mp4", 60, options=["-movflags", "faststart"]), 0.5)
    error = refusal(path)
    assert error.frame is not None
    assert 10 < error.frame < 50
    assert "index reaches to byte" in error.message


def test_a_live_recording_that_was_cut_gives_no_silent_half(tmp_path: Path) -> None:
    """A Matroska stream that was never finished does not say how long it is; a cut inside a block shows all the same."""
    plain, live = make_video(tmp_path / "plain.mp4", 60), tmp_path / "live.mkv"
    command = [ffmpeg_exe(), "-v", "error", "-i", str(plain), "-c", "copy", "-f", "matroska", "-live", "1", "-"]
    live.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    assert numbers(live) == list(range(60))
    assert refusal(cut(live, 0.5)).reason == "truncated"


@pytest.mark.parametrize("name", ["a.mkv", "b.webm"])
def test_a_container_that_is_damaged_in_the_middle_gives_no_silent_half(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / name, 60, codec="libvpx")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = np.random.default_rng(1).bytes(400)
    path.write_bytes(data)
    for _ in range(2):  # ffmpeg may keep quiet when it would say the same again
        assert refusal(path).reason in ("damaged", "truncated", "decode error")


def test_damaged_frames_that_the_decoder_gives_up_on_are_named(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 60)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1500] = bytes([255]) * 1500
    path.write_bytes(data)
    error = refusal(path)
    assert error.reason == "decode error"
    assert error.frame is not None
    assert 10 < error.frame < 50


def test_sound_without_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "audio.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", str(path))
    assert refusal(path).reason == "no video stream"


def test_a_header_without_frames(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 10, options=["-movflags", "frag_keyframe+empty_moov"])
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])
    error = refusal(path)
    assert error.reason == "no frames"
    assert probe(path).width == 96


def test_an_error_says_reason_particulars_and_frame() -> None:
    error = VideoError("truncated", "the index reaches to byte 9", 3)
    assert str(error) == "truncated: the index reaches to byte 9 (frame 3)"


@pytest.mark.parametrize("name", ["a:b.mp4", "100%d.mp4", "%03d.mp4", "a b'c\".mp4", "日本.mp4", "-v.mp4", "pipe:.mp4"])
def test_names_that_ffmpeg_would_read_as_something_else(tmp_path: Path, name: str) -> None:
    plain = make_video(tmp_path / "plain.mp4", 5)
    plain.rename(tmp_path / name)
    assert numbers(tmp_path / name) == list(range(5))


def test_a_relative_path_that_looks_like_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "plain.mp4", 5).rename(tmp_path / "pipe:0.mp4")
    monkeypatch.chdir(tmp_path)
    assert numbers(Path("pipe:0.mp4")) == list(range(5))
