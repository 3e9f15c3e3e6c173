"""Frames of a historical database, and the clips that SRTG's code makes of them: frames_db.npz.

Blobs and ids exactly. Decoded frames exactly with libjpeg-turbo. Clips to one grey level on 0.1 % of the values (the
version of OpenCV), after our own scaling and cropping.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import pytest
import torch

from ingest.stores.historical import open_frames
from loaders.augment import ClipShape, Recipe, draw, run_fast
from loaders.augment.crops import CentreCrop, Resize, ShortSide
from loaders.augment.recipe import Flip
from tests.golden.augment_rngs import AuthorsRng
from tests.golden.vectors import from_json, no_unknown, read

Cases = Iterable[tuple[str, Callable[[], None]]]

_MEAN, _SCALE = np.array([124, 117, 104], np.float32), np.float32(0.0167)
_GREY_LEVEL = 0.0168


def _frames(path: Path) -> Cases:
    data = read(path)
    tags = [key.partition("/")[0] for key in data if key.endswith("/settings")]
    database = "ids|size|blob_len|blob_sha256|decoded_(shape|sha256|mean_bgr|grid)"
    clip = "(settings|shape|stats|channel_mean|stride|sample|corner)"
    yield "keys", partial(no_unknown, data, database, *(f"{tag}/{clip}" for tag in tags))
    video = str(data["ids"][0]).rpartition("/")[0]
    (folder,) = (path.parent / path.stem / "jpg").glob(f"*/{video}")
    yield "database", partial(_database, data, folder)
    yield "decoded", partial(_decoded, data, folder)
    for tag in tags:
        yield tag, partial(_clip, data, tag, folder)


def _database(data: Mapping[str, np.ndarray], folder: Path) -> None:
    frames = open_frames(folder)
    assert frames.num_frames == len(data["ids"]) == int((folder / "n_frames").read_text())
    assert [f"{folder.name}/frame_{i + 1:05d}" for i in range(frames.num_frames)] == data["ids"].tolist()
    blobs = frames.read(range(frames.num_frames))
    frames.close()
    assert [len(blob) for blob in blobs] == data["blob_len"].tolist()
    assert [hashlib.sha256(blob).hexdigest() for blob in blobs] == data["blob_sha256"].tolist()
    with sqlite3.connect(f"file:{folder / 'frames.db'}?mode=ro&immutable=1", uri=True) as db:
        stored = dict(db.execute("SELECT ObjId, size FROM Images"))
    assert [stored[name] for name in data["ids"]] == data["size"].tolist()


def _decoded(data: Mapping[str, np.ndarray], folder: Path) -> None:
    images = _images(folder, range(len(data["ids"])))
    assert images.shape[1:] == tuple(data["decoded_shape"])
    hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    if hashes != data["decoded_sha256"].tolist():  # Another JPEG decoder.
        apart = np.abs(images[:, ::40, ::40].astype(int) - data["decoded_grid"])
        assert apart.max() <= 2
    np.testing.assert_allclose(images.mean((1, 2)), data["decoded_mean_bgr"], rtol=1e-3)


def _images(folder: Path, numbers: Iterable[int]) -> np.ndarray:
    """uint8 (T, H, W, BGR) of the frames that there are, each once, in their order."""
    frames = open_frames(folder)
    blobs = frames.read([number for number in sorted(set(numbers)) if number < frames.num_frames])
    frames.close()
    return np.stack([cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR) for blob in blobs])


def _clip(data: Mapping[str, np.ndarray], tag: str, folder: Path) -> None:
    settings = from_json(data[f"{tag}/settings"])
    no_unknown(settings, "indices|transform|crop|end_size")
    num_frames, height, width = settings["end_size"]
    clip = _images(folder, settings["indices"])
    for op in _geometry(settings["transform"], settings["crop"]):
        clip = _applied(clip, op)
    clip = _applied(clip, Resize(height, width, "cubic"))
    frames = torch.from_numpy((clip.astype(np.float32) - _MEAN) * _SCALE).permute(3, 0, 1, 2)
    if frames.shape[1] != num_frames:
        size = (num_frames, height, width)
        frames = torch.nn.functional.interpolate(frames[None], size, mode="trilinear", align_corners=False)[0]
    assert list(frames.shape) == data[f"{tag}/shape"].tolist()
    out = frames.numpy()
    s0, s1, s2 = data[f"{tag}/stride"]
    _nearly(out[:, ::s0, ::s1, ::s2], data[f"{tag}/sample"])
    _nearly(out[:, 0, :8, :8], data[f"{tag}/corner"])
    np.testing.assert_allclose(out.mean((1, 2, 3)), data[f"{tag}/channel_mean"], atol=1e-3 * _GREY_LEVEL, rtol=1e-4)
    summary = [out.mean(), out.std(ddof=1), out.min(), out.max()]
    np.testing.assert_allclose(summary, data[f"{tag}/stats"], atol=_GREY_LEVEL)
    np.testing.assert_allclose(summary[:2], data[f"{tag}/stats"][:2], atol=1e-3 * _GREY_LEVEL, rtol=1e-4)


def _geometry(transform: str, crop: int) -> list[ShortSide | CentreCrop | Flip]:
    """Scaling and cropping of a pipeline before the resize to the wanted size."""
    if transform == "hacs_kinetics":
        return [_short(294), CentreCrop(294, 294), CentreCrop(256, 256)]
    if transform == "moments":
        return [_short(294), CentreCrop(294, 294)]
    if transform == "ucf_hmdb_diving":
        return [_short(294), CentreCrop(crop, crop)]
    if transform == "train_skeleton_384":
        # The training pipeline with its draws fixed: the crop in the middle, mirrored.
        return [_short(384), CentreCrop(384, 384), CentreCrop(crop, crop), Flip(1.0)]
    pytest.fail(f"pipelines of the kind {transform!r} are not known here")


def _short(pixels: int) -> ShortSide:
    return ShortSide(pixels, "cubic", "half_even")


def _applied(clip: np.ndarray, op: ShortSide | CentreCrop | Resize | Flip) -> np.ndarray:
    shape = ClipShape(*clip.shape[:3])
    return run_fast(clip, draw(Recipe((op,)), AuthorsRng(0), shape), fuse=False)


def _nearly(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    apart = np.abs(ours - theirs)
    assert apart.max() <= _GREY_LEVEL
    assert (apart > 1e-4).mean() <= 1e-3


CHECKERS = MappingProxyType({"frames_db": _frames})
