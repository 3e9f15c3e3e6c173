"""A live source to scores: frames of a file, a camera or a network stream, features, and one push per quarter of a second."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import ffmpeg
import numpy as np
import torch
from torch import nn

from ingest.errors import ClipmillError
from ingest.ffmpeg import ffmpeg_exe
from trainers.lstr.extract import CHUNK, ROWS_PER_S, FrameSpec, frames_of, normalized
from trainers.lstr.stream import LSTRStream


@dataclass(frozen=True)
class RowScores:
    """Scores of one row: it covers [time_s, time_s + 1/4) of the source."""

    row: int
    time_s: float
    probabilities: dict[str, float]

    def line(self, top: int) -> str:
        """`12.25 s   HighJump 0.93   Background 0.05`"""
        best = sorted(self.probabilities.items(), key=lambda item: -item[1])[:top]
        return f"{self.time_s:9.2f} s   " + "   ".join(f"{name} {value:.3f}" for name, value in best)

    def json(self) -> str:
        values = {name: round(value, 6) for name, value in self.probabilities.items()}
        return json.dumps({"row": self.row, "time_s": self.time_s, "scores": values})


def rows_of(source: str, spec: FrameSpec, input_format: str | None = None) -> Iterator[np.ndarray]:
    """Frames or clips of every row of a file, or of whatever ffmpeg opens (`/dev/video0` as v4l2, rtsp://...).

    Raises: ClipmillError when ffmpeg cannot open it.
    """
    if input_format is None and Path(source).is_file():
        yield from frames_of(Path(source), spec)
        return
    yield from _ffmpeg_rows(source, spec, input_format)


def _ffmpeg_rows(source: str, spec: FrameSpec, input_format: str | None) -> Iterator[np.ndarray]:
    side = spec.crop or spec.short_side
    options = {} if input_format is None else {"f": input_format}
    stream = (
        ffmpeg.input(source, **options)
        .filter("fps", ROWS_PER_S * CHUNK)
        .filter("scale", spec.short_side, spec.short_side, force_original_aspect_ratio="increase", flags="area")
        .filter("crop", side, side)
    )
    command = (
        stream.output("pipe:", format="rawvideo", pix_fmt="rgb24")
        .global_args("-hide_banner", "-loglevel", "error", "-nostdin")
        .compile(cmd=ffmpeg_exe())
    )
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    num_bytes, seen = side * side * 3, 0
    try:
        chunk: list[np.ndarray] = []
        while len(data := process.stdout.read(num_bytes)) == num_bytes:
            chunk.append(np.frombuffer(data, np.uint8).reshape(side, side, 3))
            seen += 1
            if not spec.clip_frames and len(chunk) == CHUNK // 2 + 1:
                yield chunk[-1]  # The fourth frame: the others of the chunk need not be waited for.
            if len(chunk) == CHUNK:
                if spec.clip_frames:
                    yield np.stack(chunk)
                chunk = []
        if not seen:
            words = process.stderr.read().decode(errors="replace").strip().splitlines()
            raise ClipmillError(
                f"ffmpeg cannot read {source}: {words[-1] if words else 'no frame came'}",
                "Nothing was scored.",
                "Cameras need their format: --input-format v4l2",
            )
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@torch.inference_mode()
def live_scores(
    rows: Iterator[np.ndarray], backbone: nn.Module, spec: FrameSpec, stream: LSTRStream, class_names: list[str]
) -> Iterator[RowScores]:
    """Scores of every row as soon as its frames are there."""
    device = next(iter(stream.split.model.parameters())).device
    motion = stream.split.spec.modality == "motion"
    for row, frames in enumerate(rows):
        feature = backbone(normalized(frames[None], spec, device))[0]
        scores = stream.push(*((None, feature) if motion else (feature, None)))
        if scores is not None:
            named = dict(zip(class_names, scores.tolist(), strict=True))
            yield RowScores(row, row / ROWS_PER_S, named)


class ScoreServer:
    """Serves the newest scores over HTTP: `GET /latest` (JSON) and `GET /stream` (server-sent events, one per row)."""

    def __init__(self, host: str, port: int) -> None:
        self._news = threading.Condition()
        self._latest: RowScores | None = None
        self._over = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/latest":
                    outer._answer_latest(self)
                elif self.path == "/stream":
                    with suppress(BrokenPipeError, ConnectionResetError):
                        outer._answer_stream(self)
                else:
                    self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def publish(self, scores: RowScores) -> None:
        with self._news:
            self._latest = scores
            self._news.notify_all()

    def close(self) -> None:
        """End the streams and stop listening."""
        with self._news:
            self._over = True
            self._news.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def _answer_latest(self, request: BaseHTTPRequestHandler) -> None:
        latest = self._latest
        body = (latest.json() if latest else "null").encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _answer_stream(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Cache-Control", "no-store")
        request.end_headers()
        sent = None
        while True:
            with self._news:
                while not self._over and self._latest is sent:
                    self._news.wait()
                latest = self._latest
            if latest is None or latest is sent:
                return
            request.wfile.write(f"id: {latest.row}\ndata: {latest.json()}\n\n".encode())
            request.wfile.flush()
            sent = latest
