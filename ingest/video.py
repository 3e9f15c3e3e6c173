"""Video files: what they hold (`probe`) and their frames with true times (`timed_frames`).

Through ffmpeg's libraries (PyAV). docs/design.md says why not through its command line, with the measurement.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.logging
from av.video.frame import VideoFrame

from ingest._container_end import container_end
from ingest.errors import VideoError

_SUFFIXES = "mp4 mkv webm avi mov m4v mpg mpeg mpeg-4 wmv flv ts m2ts mts 3gp ogv vob asf gif"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES.split())


@dataclass(frozen=True)
class VideoInfo:
    """What the container says of the default video stream, with rotation not yet applied. `num_frames` 0: unknown."""

    container: str
    stream: int
    codec: str
    pixel_format: str
    width: int
    height: int
    fps: float
    duration_s: float
    num_frames: int
    sample_aspect: str


class Video:
    """One opened video file. The stream is the one ffmpeg takes for the default: by disposition, then by size.

    Raises: VideoError with reason `empty file`, `not a video` or `no video stream`.
    """

    def __init__(self, path: Path, *, num_threads: int = 1) -> None:
        self.path = path
        if path.stat().st_size == 0:
            raise VideoError("empty file", "the file has zero bytes")
        av.logging.set_level(av.logging.ERROR)  # Else PyAV drops what ffmpeg says about a broken file,
        av.logging.set_skip_repeated(False)  # or says it of the first of two files only.
        try:
            # "file:" keeps ffmpeg from reading a colon in the name as a protocol.
            with av.logging.Capture():
                self._container = av.open(f"file:{path}")
        except (av.FFmpegError, ValueError) as error:
            message = _plain(error)
            _refuse_cut(path)
            if "moov atom not found" in message and _is_mp4(path):
                raise VideoError(
                    "truncated", f"its index, which this file keeps at the end, is gone: {message}"
                ) from None
            raise VideoError("not a video", f"ffmpeg cannot open it: {message}") from None
        stream = self._container.streams.best("video")
        if stream is None or not isinstance(stream, av.VideoStream):
            self._container.close()
            raise VideoError("no video stream", "the file holds no video stream (audio or data only)")
        self._stream = stream
        self._sought_s = 0.0
        stream.codec_context.thread_count = num_threads
        stream.codec_context.thread_type = "AUTO"

    @property
    def info(self) -> VideoInfo:
        stream, context = self._stream, self._stream.codec_context
        rate = stream.average_rate or stream.guessed_rate or Fraction(0)
        return VideoInfo(
            container=self._container.format.name,
            stream=stream.index,
            codec=context.codec.name,
            pixel_format=str(context.pix_fmt),
            width=context.width,
            height=context.height,
            fps=float(rate),
            duration_s=(self._container.duration or 0) / 1e6,
            num_frames=stream.frames,
            sample_aspect=str(stream.sample_aspect_ratio or "1"),
        )

    def frames(self) -> Generator[VideoFrame, None, None]:
        """Decoded frames in presentation order.

        Raises: VideoError `truncated` when the file ends before its own index does, `decode error` when the decoder
        gives up, `damaged` when the container has lost its thread, `no frames` when nothing came out.
        """
        self._refuse_truncated()
        count = packets = 0
        whole = self._sought_s == 0
        with av.logging.Capture() as log:
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size:
                        packets += 1
                        if packet.is_corrupt:
                            raise VideoError("truncated", f"packet {packets} is cut short", count)
                    for frame in packet.decode():
                        yield frame
                        count += 1
            except (av.FFmpegError, ValueError) as error:
                raise VideoError("decode error", _with_log(_plain(error), log), count) from None
        if count == 0 and whole:
            raise VideoError("no frames", _with_log("the video stream decodes to no frame at all", log))
        if any("ended prematurely" in line[2] for line in log):
            raise VideoError("truncated", "the file ends before the container does", count)
        if any(sign in line[2] for line in log for sign in _SIGNS_OF_LOST_PACKETS):
            raise VideoError("damaged", _with_log("the container is broken here, what follows is lost", log), count)
        announced = self._stream.frames
        if whole and announced and packets < announced - _MISSING_PACKETS_ALLOWED:
            raise VideoError("truncated", f"the container announces {announced} frames, {packets} are there", count)

    def seek(self, time_s: float) -> None:
        """Go to the last key frame at or before `time_s`, on the clock that players show. Before `frames`."""
        self._sought_s = time_s
        self._container.seek(round((self.start_s + Fraction(time_s)) * 1_000_000), backward=True, any_frame=False)

    def packet_times(self) -> tuple[list[int], list[int]]:
        """Presentation times of all packets, and of those that are key frames, in the stream's ticks; nothing decoded.

        Places in the file where there are no times, or, as in AVI, guessed ones. The first frame comes next again.
        """
        packets = [packet for packet in self._container.demux(self._stream) if packet.size]
        timed = self.info.container != "avi" and all(packet.pts is not None for packet in packets)
        times = [packet.pts if timed and packet.pts is not None else i for i, packet in enumerate(packets)]
        keys = [time for time, packet in zip(times, packets, strict=True) if packet.is_keyframe and timed]
        self.seek_to(None)
        return times, keys

    def seek_to(self, ticks: int | None) -> None:
        """Go to the key frame at `ticks` of the stream, or to the beginning. Before `frames`."""
        self._sought_s = 1.0  # What comes is a part: how much was announced says nothing of it.
        if ticks is None:
            self._container.seek(0, backward=True, any_frame=False)
        else:
            self._container.seek(ticks, stream=self._stream, backward=True, any_frame=False)

    def _refuse_truncated(self) -> None:
        """Compare what the container and its sample index say with the size of the file: cheaper than decoding it."""
        _refuse_cut(self.path)
        entries = self._stream.index_entries
        end = max((entry.pos + entry.size for entry in entries), default=0)
        size = self.path.stat().st_size
        if end > size:
            whole = sum(entry.pos + entry.size <= size for entry in entries)
            raise VideoError("truncated", f"the index reaches to byte {end:,}, the file ends at {size:,}", frame=whole)

    @property
    def start_s(self) -> Fraction:
        """Time that players show as zero."""
        return Fraction(self._container.start_time or 0, 1_000_000)

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_MISSING_PACKETS_ALLOWED = 1  # Some muxers count one sample that an edit list hides.
_SIGNS_OF_LOST_PACKETS = ("exceeds containing master element", "invalid as first byte of an EBML number")  # Matroska


def probe(path: Path) -> VideoInfo:
    """What the container of `path` says. Reads headers only. Raises: VideoError as `Video` does."""
    with Video(path) as video:
        return video.info


class Clock:
    """Presentation times in microseconds since the player's zero, strictly increasing.

    A frame without a time stamp follows its predecessor at the nominal rate; a frame that claims a time before its
    predecessor's (broken muxers) is placed one microsecond after it. AVI stores no presentation times, and what is
    guessed for it is wrong with packed B-frames: there the decoding clock is taken, as frames leave at its pace. It runs
    ahead by the frames that the decoder holds back, so it starts at the first frame that comes out.
    """

    def __init__(self, video: Video) -> None:
        info = video.info
        self._start_s = video.start_s
        self._line: tuple[int, int, int] | None = None
        self._step_us = round(1e6 / info.fps) if info.fps > 0 else 40_000
        self._by_dts = info.container == "avi"
        self._last_us: int | None = None

    def read(self, frame: VideoFrame) -> int:
        ticks = frame.dts if self._by_dts else frame.pts
        if self._line is None and ticks is not None and frame.time_base is not None:
            self._line = self._line_from(ticks, frame.time_base)
        if self._line is None or ticks is None:
            now = 0 if self._last_us is None else self._last_us + self._step_us
        else:
            factor, less, divisor = self._line
            now, rest = divmod(ticks * factor - less, divisor)
            now += 2 * rest > divisor or (2 * rest == divisor and now % 2)  # as round() does
        if self._last_us is not None and now <= self._last_us:
            now = self._last_us + 1
        self._last_us = now
        return now

    def _line_from(self, ticks: int, tick_s: Fraction) -> tuple[int, int, int]:
        """(ticks * first - second) / third is the time. It holds for the whole stream, and whole numbers are fast."""
        start_s = ticks * tick_s if self._by_dts and self._last_us is None else self._start_s
        us_per_tick, start_us = 1_000_000 * tick_s, 1_000_000 * start_s
        divisor = math.lcm(us_per_tick.denominator, start_us.denominator)
        return int(us_per_tick * divisor), int(start_us * divisor), divisor


def timed_frames(video: Video, span_s: tuple[float, float] | None = None) -> Iterator[tuple[int, VideoFrame]]:
    """(time in microseconds, frame) of the whole video, or of the frames shown in `span_s`, end excluded: frame-exact.

    For a span it begins at the key frame before it, or, where the container cannot say which that is, at the start.
    Raises: VideoError as `Video.frames` does, and `no frames` when the span lies outside the video.
    """
    if span_s is None:
        clock = Clock(video)
        yield from ((clock.read(frame), frame) for frame in video.frames())
        return
    start_us, end_us = (round(time_s * 1e6) for time_s in span_s)
    last_us = -1
    for now_us, frame in _frames_from_before(video, span_s[0]):
        last_us = now_us
        if now_us >= end_us:
            return
        if now_us >= start_us:
            yield now_us, frame
    if last_us < start_us:
        shown_s = max(last_us, 0) / 1e6
        raise VideoError(
            "no frames", f"the span {span_s[0]:g} to {span_s[1]:g} s begins after the last frame ({shown_s:.2f} s)"
        )


def _frames_from_before(video: Video, start_s: float) -> Iterator[tuple[int, VideoFrame]]:
    """Frames from a key frame before `start_s` on; from the first one if the seek did not lead there.

    In AVI always from the first one: there the clock counts frames.
    """
    if start_s > 0 and video.info.container != "avi":
        with contextlib.suppress(av.FFmpegError):
            video.seek(start_s)
            clock = Clock(video)
            frames = video.frames()
            first = next(frames, None)
            if first is not None and first.pts is not None and (now_us := clock.read(first)) <= start_s * 1e6:
                yield now_us, first
                yield from ((clock.read(frame), frame) for frame in frames)
                return
            frames.close()
        video.seek(0)
    clock = Clock(video)
    yield from ((clock.read(frame), frame) for frame in video.frames())


def quarter_turns(frame: VideoFrame) -> int:
    """Quarter turns, anticlockwise, that show the frame upright (0 to 3), from its display matrix."""
    return round(frame.rotation / 90) % 4


def displayed_size(frame: VideoFrame, pixel_aspect: Fraction = Fraction(1)) -> tuple[int, int]:
    """Width and height in pixels of the frame as shown, after rotation, its lines as many as are coded.

    `pixel_aspect` is the width of a coded pixel over its height; 1 leaves the pixels as they are coded.
    """
    width, height = max(1, round(frame.width * pixel_aspect)), frame.height
    return (height, width) if quarter_turns(frame) % 2 else (width, height)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_video_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES  # noqa: PTH122 - called once per file of large trees


def _refuse_cut(path: Path) -> None:
    end, size = container_end(path), path.stat().st_size
    if end is not None and end > size:
        raise VideoError("truncated", f"the container reaches to byte {end:,}, the file ends at {size:,}")


def _is_mp4(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"


def _plain(error: Exception) -> str:
    """The error in ffmpeg's words: its code's meaning, and the line it logged, if any."""
    words = getattr(error, "strerror", None) or str(error)
    log = getattr(error, "log", None)
    return f"{words} ({log[2].strip()})" if log else words


def _with_log(message: str, log: list[tuple[int, str, str]]) -> str:
    """`message` and ffmpeg's own last words, if it had any."""
    words = [text.strip() for level, _, text in log if level <= av.logging.ERROR and text.strip()]
    return message + (f" (ffmpeg: {'; '.join(dict.fromkeys(words[-3:]))})" if words else "")
