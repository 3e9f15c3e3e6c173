"""Small real videos whose frames carry their number, so that a test can tell which frame it was given."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ingest.ffmpeg import ffmpeg_exe

_BITS = 8
BLACK, WHITE = 20, 235


def numbered_frames(num_frames: int, size: tuple[int, int] = (96, 72), seed: int = 0) -> np.ndarray:
    """Pictures of `size` (width, height): uint8 (N, H, W, 3), a smooth texture below, the number as black and white above.

    The number is written in `_BITS` blocks, most significant first, over the upper third; `number_of` reads it.
    """
    width, height = size
    rng = np.random.default_rng(seed)
    texture = cv2.resize(rng.integers(40, 215, (6, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[:] = np.roll(texture, i, axis=1)
        for bit in range(_BITS):
            left, right = (width * k // _BITS for k in (bit, bit + 1))
            frame[: height // 3, left:right] = WHITE if i >> (_BITS - 1 - bit) & 1 else BLACK
    return frames


def number_of(picture: np.ndarray | bytes) -> int:
    """The number that `numbered_frames` wrote into a picture, given as array (H, W, 3) or as encoded bytes."""
    if isinstance(picture, bytes):
        picture = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    height, width = picture.shape[:2]
    number = 0
    for bit in range(_BITS):
        block = picture[
            height // 12 : height // 4, width * (4 * bit + 1) // (4 * _BITS) : width * (4 * bit + 3) // (4 * _BITS)
        ]
        number = 2 * number + int(block.mean() > (BLACK + WHITE) / 2)
    return number


def make_video(
    path: Path,
    frames: int | np.ndarray = 30,
    *,
    size: tuple[int, int] = (96, 72),
    fps: str | float = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    seed: int = 0,
    audio: bool = False,
    options: Sequence[str] = (),
    input_options: Sequence[str] = (),
) -> Path:
    """Encode pictures (or that many numbered ones) with the ffmpeg command; the suffix of `path` names the container.

    `options` are added to the output (filters, colour matrix and range, movflags), `input_options` to the input;
    `audio` adds a tone. Returns `path`.
    """
    pictures = numbered_frames(frames, size, seed) if isinstance(frames, int) else frames
    height, width = pictures.shape[1:3]
    quality = {"libx264": ["-preset", "ultrafast", "-crf", "10"], "mpeg4": ["-q:v", "2"]}.get(codec, [])
    tone = ["-f", "lavfi", "-i", f"sine=frequency=440:duration={len(pictures) / 25}"] if audio else []
    ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), *input_options, "-i", "-"),
        *(*tone, "-c:v", codec, "-pix_fmt", pix_fmt, *quality, "-threads", "1", *options, str(path)),
        stdin=pictures.tobytes(),
    )
    return path


def ffmpeg(*arguments: str, stdin: bytes = b"") -> None:
    """Run the ffmpeg command; an error shows what it said."""
    done = subprocess.run([ffmpeg_exe(), "-y", "-v", "error", *arguments], input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-1000:]


def count_frames(path: Path, stream: int = 0) -> int:
    """Frames of a video stream as the ffmpeg command counts them by decoding; `stream` counts video streams only."""
    command = [ffmpeg_exe(), "-v", "error", "-i", str(path), "-map", f"0:v:{stream}", "-fps_mode", "passthrough"]
    done = subprocess.run([*command, "-progress", "-", "-f", "null", "-"], capture_output=True, text=True, check=True)
    return int([line for line in done.stdout.splitlines() if line.startswith("frame=")][-1].removeprefix("frame="))
