"""SRTG's data sets on disk against the authors' code: which videos, which labels, which frames of them and how they look."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import torch

from ingest.annotations.labels_csv import read_labels_table
from ingest.annotations.srtg import read_srtg_csv
from ingest.errors import ClipmillError
from loaders.sampling import SequentialWalk, centre_crop
from tests.golden.vectors import no_unknown

Cases = Iterable[tuple[str, Callable[[], None]]]

# Two data sets of a few tiny videos, which lie beside the file in folders of their names: video_iterator.json

_MEAN, _SCALE = np.array([124, 117, 104], np.float32), 0.0167  # On BGR, as there.
_GREY_LEVEL = 0.0168


def _video_iterator(path: Path) -> Cases:
    for name, facts in json.loads(path.read_text()).items():
        root = path.parent / name
        yield f"{name}/keys", partial(no_unknown, facts, "train|val|dictionary_file")
        yield f"{name}/dictionary", partial(_dictionary, root, facts["dictionary_file"])
        for split in ("train", "val"):
            if split in facts:
                yield f"{name}/{split}/videos", partial(_videos, root, split, facts)
                yield f"{name}/{split}/items", partial(_items, root, facts[split])


def _csv(root: Path, split: str) -> Path:
    (path,) = (root / "labels").glob(f"*{split}.csv")
    return path


def _dictionary(root: Path, expected: dict[str, dict[str, int]]) -> None:
    """Class ids of the training set; the file that the authors' code writes them to is the one that ours would read."""
    path = _csv(root, "train")
    classes = read_srtg_csv(path).classes
    assert classes is not None
    assert {path.name.split("train")[0] + "dictionary.json": {name: i for i, name in enumerate(classes)}} == expected


def _videos(root: Path, split: str, facts: dict[str, Any]) -> None:
    """Rows whose folder exists, numbered from 1, with the id of the class."""
    known = "video_dict|len|indices|default_return_arity|items|after_size_setter_2_12_12"
    no_unknown(facts[split], known)
    (ids,) = facts["dictionary_file"].values()
    (home,) = (root / "data").glob("*_videos")
    ours = {}
    unknown = set()
    for row in read_labels_table(_csv(root, split), split).rows:
        times = "" if row.start_s is None or row.end_s is None else f"_{int(row.start_s):06d}_{int(row.end_s):06d}"
        folder = home / "jpg" / row.label / f"{row.video_id}{times}"
        if row.label not in ids:
            unknown.add(row.label)
        if folder.is_dir():
            key, num_frames = len(ours) + 1, int((folder / "n_frames").read_text())
            ours[str(key)] = [key, ids.get(row.label), str(folder.relative_to(root)), num_frames]
    expected = facts[split]["video_dict"]
    assert facts[split]["len"] == len(ours) and facts[split]["indices"] == [entry[0] for entry in ours.values()]
    # A class that the training set lacks gets a new number there; ours refuses the file.
    for key, entry in expected.items():
        assert [*ours[key][:1], ours[key][1] if entry[1] < len(ids) else entry[1], *ours[key][2:]] == entry
    if unknown:
        try:
            read_srtg_csv(_csv(root, split))
        except ClipmillError as error:
            assert any(repr(name) in str(error) for name in unknown)
        else:
            raise AssertionError(f"{', '.join(sorted(unknown))} should not have passed")


def _items(root: Path, facts: dict[str, Any]) -> None:
    """What the data set gives for each number, 0 being taken for 1: frames of one sequential clip, scaled and cut."""
    walk = SequentialWalk(4, (2,), np.random.RandomState(0), shuffle=True, fixed=True)
    for item in facts["items"]:
        no_unknown(item, "asked|label|path|shape|mean|std|first8")
        key, label, path, num_frames = facts["video_dict"][str(max(item["asked"], 1))]
        assert (label, path) == (item["label"], item["path"])
        clip = _clip(root / path, walk.next(key, num_frames), item["shape"])
        assert list(clip.shape) == item["shape"]
        np.testing.assert_allclose(clip.reshape(-1)[:8], item["first8"], rtol=0, atol=_GREY_LEVEL)
        # The standard deviation is torch's, of n - 1.
        summary = [clip.mean(), clip.std(ddof=1)]
        np.testing.assert_allclose(summary, [item["mean"], item["std"]], rtol=1e-5, atol=1e-3 * _GREY_LEVEL)
    # After a change of size, for any video.
    resized = facts["after_size_setter_2_12_12"]
    walk.num_frames = resized[1]
    key, _, path, num_frames = facts["video_dict"]["1"]
    assert list(_clip(root / path, walk.next(key, num_frames), resized).shape) == resized


def _clip(folder: Path, frames: np.ndarray, shape: list[int]) -> np.ndarray:
    """float32 (C, T, H, W): short side 24, centre 20, then the wanted size; repeated frames collapse and are stretched again."""
    with sqlite3.connect(f"file:{folder / 'frames.db'}?mode=ro&immutable=1", uri=True) as db:
        ids = [f"{folder.name}/frame_{frame + 1:05d}" for frame in sorted(set(frames.tolist()))]
        blobs = [db.execute("SELECT frames FROM Images WHERE ObjId = ?", (name,)).fetchone()[0] for name in ids]
    images = [_scaled(cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR), shape) for blob in blobs]
    clip = torch.from_numpy((np.stack(images).astype(np.float32) - _MEAN) * np.float32(_SCALE)).permute(3, 0, 1, 2)
    if clip.shape[1] != shape[1]:
        clip = torch.nn.functional.interpolate(clip[None], tuple(shape[1:]), mode="trilinear", align_corners=False)[0]
    return clip.numpy()


def _scaled(image: np.ndarray, shape: list[int]) -> np.ndarray:
    height, width = image.shape[:2]
    size = (24, round(24 * width / height)) if height < width else (round(24 * height / width), 24)
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
    box = centre_crop(*size, 20, 20)
    image = image[box.top : box.top + box.height, box.left : box.left + box.width]
    return cv2.resize(image, (shape[3], shape[2]), interpolation=cv2.INTER_CUBIC)


CHECKERS = MappingProxyType({"video_iterator": _video_iterator})
