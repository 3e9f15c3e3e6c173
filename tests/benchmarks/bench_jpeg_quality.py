"""What a stored frame keeps of the decoded one, and what it costs: quality and chroma subsampling of JPEG, PNG, WebP.

Frames of real videos, every tenth, are scaled to the level and encoded each way; what comes back is compared with the
scaled frame before its chroma was thinned. Told per codec, quality and chroma:

    psnr      of RGB, in dB, from the mean squared error of a video's frames
    ssim      of luma: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment", IEEE TIP 13(4), 2004: Gaussian window
              of 11x11 px, sigma 1.5, K1 0.01, K2 0.03, mean over the places where the window lies inside
    bytes     per frame and per pixel
    speed     frames encoded and decoded (to RGB) per second of CPU, one thread; median of the rounds

every one the mean over the videos. With --docs the table in docs/formats.md is written anew.

    python -m tests.benchmarks.bench_jpeg_quality FILE [FILE ...] [--short-side 256] [--rounds 5] [--docs]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from ingest.errors import VideoError
from ingest.scaling import Planes, Scaler, to_rgb
from ingest.stores.frames_db import plan_levels
from ingest.video import Video, displayed_size
from tests.benchmarks._common import write_result
from tests.benchmarks.bench_decode_path import make_videos

QUALITIES, CHROMAS = (70, 80, 85, 90, 95), ("4:2:0", "4:2:2", "4:4:4")
EVERY, MOST_FRAMES = 10, 40
DOCS = Path(__file__).parents[2] / "docs" / "formats.md"
_SECTION = re.compile(r"(<!-- jpeg_quality\.json -->\n).*?(<!-- end -->)", re.S)


@dataclass(frozen=True)
class Way:
    """One way to store a picture. PNG has no quality: 0."""

    codec: str
    quality: int
    chroma: str

    def encoder(self) -> Callable[[Planes], bytes]:
        if self.codec == "jpeg":
            return lambda planes: simplejpeg.encode_jpeg_yuv_planes(*planes, self.quality)
        options = [cv2.IMWRITE_WEBP_QUALITY, self.quality] if self.codec == "webp" else []

        def encode(planes: Planes) -> bytes:
            picture = cv2.cvtColor(to_rgb(*planes), cv2.COLOR_RGB2BGR)
            return cv2.imencode(f".{self.codec}", picture, options)[1].tobytes()

        return encode

    def decode(self, blob: bytes) -> np.ndarray:
        """RGB, uint8 (H, W, 3)."""
        if self.codec == "jpeg":
            return simplejpeg.decode_jpeg(blob, "RGB")
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


WAYS = [
    *(Way("jpeg", quality, chroma) for quality, chroma in product(QUALITIES, CHROMAS)),
    *(Way("webp", quality, "4:2:0") for quality in QUALITIES),
    Way("png", 0, "4:4:4"),
]


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two planes, uint8 (H, W); 1 for equal ones. Source: see the top of this file."""
    x, y = a.astype(np.float64), b.astype(np.float64)

    def local(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5]

    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))


def psnr(squared_error: float) -> float:
    """Of a mean squared error of 8-bit values, in dB."""
    return 10 * float(np.log10(255**2 / squared_error))


@dataclass(frozen=True)
class Pictures:
    """The scaled frames of one video: as planes of each chroma, and the RGB that they are compared with."""

    planes: dict[str, list[Planes]]
    reference: list[np.ndarray]


def read_pictures(path: Path, short_side: int) -> Pictures:
    planes: dict[str, list[Planes]] = {chroma: [] for chroma in CHROMAS}
    scalers: dict[str, Scaler] = {}
    with Video(path) as video:
        for frame in islice(video.frames(), 0, EVERY * MOST_FRAMES, EVERY):
            level = plan_levels(*displayed_size(frame), [short_side])[0]
            for chroma, kept in planes.items():
                scaler = scalers.setdefault(chroma, Scaler((level.width, level.height), chroma))
                y, u, v = scaler(frame)
                kept.append((_own(y), u.copy(), v.copy()))
    return Pictures(planes, [to_rgb(*p) for p in planes["4:4:4"]])


def _own(y: np.ndarray) -> np.ndarray:
    """A copy that keeps what lies behind an odd edge, which an encoder reads."""
    height, width = y.shape
    even = np.pad(y, ((0, height % 2), (0, width % 2)), "edge")
    return even[:height, :width]


def measure(pictures: Pictures, way: Way, rounds: int) -> dict:
    planes, encode = pictures.planes[way.chroma], way.encoder()
    encode_s, decode_s = [], []
    for _ in range(1 + rounds):
        start = time.process_time()
        blobs = [encode(p) for p in planes]
        middle = time.process_time()
        decoded = [way.decode(blob) for blob in blobs]
        encode_s.append(middle - start)
        decode_s.append(time.process_time() - middle)
    error = np.mean(
        [np.mean((a.astype(np.float64) - b) ** 2) for a, b in zip(decoded, pictures.reference, strict=True)]
    )
    luma = (
        (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pair) for pair in zip(decoded, pictures.reference, strict=True)
    )
    num_bytes, pixels = sum(map(len, blobs)), sum(p[0].size for p in planes)
    return {
        "psnr_db": psnr(float(error)) if error else None,
        "ssim": statistics.mean(ssim(*pair) for pair in luma),
        "bytes_per_frame": num_bytes / len(blobs),
        "bytes_per_pixel": num_bytes / pixels,
        "encoded_per_cpu_s": len(blobs) / statistics.median(encode_s[1:]),
        "decoded_per_cpu_s": len(blobs) / statistics.median(decode_s[1:]),
    }


def row(way: Way, found: list[dict]) -> dict:
    def mean(key: str, digits: int) -> float | None:
        values = [one[key] for one in found if one[key] is not None]
        return round(statistics.mean(values), digits) if values else None

    per_pixel = sorted(one["bytes_per_pixel"] for one in found)
    return {
        "codec": way.codec,
        "quality": way.quality or None,
        "chroma": way.chroma,
        "psnr_db": mean("psnr_db", 2),
        "ssim": mean("ssim", 4),
        "bytes_per_frame": round(statistics.mean(one["bytes_per_frame"] for one in found)),
        "bytes_per_pixel": mean("bytes_per_pixel", 3),
        "bytes_per_pixel_range": [round(per_pixel[0], 3), round(per_pixel[-1], 3)],
        "encoded_per_cpu_s": round(statistics.mean(one["encoded_per_cpu_s"] for one in found)),
        "decoded_per_cpu_s": round(statistics.mean(one["decoded_per_cpu_s"] for one in found)),
    }


def table(figures: dict) -> str:
    """The figures as a table of docs/formats.md."""
    lines = [
        "| codec | quality | chroma | PSNR, dB | SSIM | bytes/frame | bytes/pixel | encoded/s | decoded/s |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for r in figures["rows"]:
        psnr_db = "exact" if r["psnr_db"] is None else f"{r['psnr_db']:.1f}"
        lines.append(
            f"| {r['codec']} | {r['quality'] or ''} | {r['chroma']} | {psnr_db} | {r['ssim']:.4f} | {r['bytes_per_frame']:,}"
            f" | {r['bytes_per_pixel']:.2f} | {r['encoded_per_cpu_s']:,} | {r['decoded_per_cpu_s']:,} |"
        )
    return "\n".join(lines) + "\n"


def write_docs(figures: dict) -> None:
    text = DOCS.read_text(encoding="utf-8")
    DOCS.write_text(_SECTION.sub(lambda found: found[1] + table(figures) + found[2], text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="videos; default: 16 self-made ones")
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docs", action="store_true", help="write the table of docs/formats.md anew")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    videos, found = [], {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for path in options.files or make_videos(Path(folder)):
            try:
                pictures = read_pictures(path, options.short_side)
            except (VideoError, OSError) as error:
                print(f"left out: {path.name}: {error}")
                continue
            height, width = pictures.reference[0].shape[:2]
            videos.append(
                f"{path.name if options.files else 'self-made'}: {len(pictures.reference)} of {width}x{height}"
            )
            print(videos[-1], flush=True)
            for way in WAYS:
                found[way].append(measure(pictures, way, options.rounds))
    figures = {
        "short_side": options.short_side,
        "videos": videos,
        "rounds": options.rounds,
        "rows": [row(way, found[way]) for way in WAYS],
    }
    print(table(figures))
    if not options.no_write:
        path = write_result("jpeg_quality", figures)
        if options.docs:
            write_docs(json.loads(path.read_text())["figures"])


if __name__ == "__main__":
    main()
