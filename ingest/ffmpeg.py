"""The ffmpeg command: where it is, and an encode of frames that are piped into it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np

from ingest.errors import ClipmillError

_CRF = 18  # x264's quality, lower is better: no blocks that an eye would see


class FfmpegError(ClipmillError):
    """ffmpeg is missing, or it failed; the message holds the last lines that it wrote."""


@cache
def ffmpeg_exe() -> str:
    """Path of an ffmpeg that runs and has libx264: the system's own if it is one, else that of package imageio-ffmpeg.

    Raises: FfmpegError if neither is.
    """
    found = shutil.which("ffmpeg")
    if found and _encodes(found):
        return found
    try:
        carried = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:  # a platform for which imageio-ffmpeg has no binary
        carried = None
    if carried and _encodes(carried):
        return carried
    raise FfmpegError(
        f"no ffmpeg that runs and has libx264: {found or 'none'} on PATH, {carried or 'none'} in imageio-ffmpeg; "
        "videos cannot be written. Next: pip install --force-reinstall imageio-ffmpeg, or install ffmpeg on the system"
    )


def encode_h264(frames: Iterable[np.ndarray], path: Path, *, size: tuple[int, int], fps: int) -> None:
    """Encode RGB frames, each uint8 (H, W, 3), into an mp4 file at `path`: H.264, yuv420p, no sound, no metadata.

    `size` is (width, height) in pixels, both even. The same frames and the same ffmpeg give the same bytes (one encoder
    thread, bit-exact flags). Frames are taken one by one, so a long video needs no more memory than a short one.
    Raises: FfmpegError if ffmpeg fails, ValueError for a frame of another shape or dtype, or if there is no frame;
    what is then at `path` is no video.
    """
    width, height = size
    graph = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=fps).output(
        str(path),
        format="mp4",
        vcodec="libx264",
        pix_fmt="yuv420p",
        preset="superfast",
        crf=_CRF,
        threads=1,
        fflags="+bitexact",
        map_metadata=-1,
        **{"flags:v": "+bitexact"},
    )
    command = graph.global_args("-hide_banner", "-loglevel", "error").compile(cmd=ffmpeg_exe(), overwrite_output=True)
    # The log goes to a file: nobody would read a pipe while the frames are written, and a full one would block.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log)
        assert process.stdin is not None
        frame = None
        try:
            for frame in frames:
                if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
                    raise ValueError(f"a frame is uint8 ({height}, {width}, 3) here, got {frame.dtype} {frame.shape}")
                process.stdin.write(np.ascontiguousarray(frame).data)
            if frame is None:
                raise ValueError(f"{path}: a video needs at least one frame, there is none")
            process.stdin.close()
        except BrokenPipeError:  # ffmpeg gave up; its exit code and its log say why
            with suppress(BrokenPipeError):
                process.stdin.close()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.wait() != 0:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()[-8:]
            raise FfmpegError(f"ffmpeg ended with code {process.returncode} while writing {path}: " + "\n".join(lines))


def _encodes(exe: str) -> bool:
    """Whether it runs and has the H.264 encoder: some distributions leave it out."""
    try:
        done = subprocess.run([exe, "-v", "error", "-encoders"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and b"libx264" in done.stdout
