"""What the loader tests share: clips to ask for, and stored frames as another decoder sees them."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

from ingest.stores import frames_db
from loaders import ClipBatch, ClipDataset, ClipSpec, RandomInterval


def training_spec(**changes) -> ClipSpec:
    """Four frames of 32x32 with all that is random switched on."""
    options = {"height": 32, "width": 32, "short_side": (32, 44), "flip": 0.5} | changes
    return ClipSpec(options.pop("sampler", RandomInterval(4, (1, 2))), **options)


def evaluation_spec(**changes) -> ClipSpec:
    """Four frames, two clips times three crops of 32x32."""
    options = {"height": 32, "width": 32, "short_side": (36, 36), "views": (2, 3)} | changes
    return ClipSpec(options.pop("sampler", RandomInterval(4, (2,))), **options)


def stored_frame(dataset: ClipDataset, video: int, frame: int, level: int = 0) -> np.ndarray:
    """A frame of a level (0: the largest) decoded by OpenCV: uint8 (H, W, 3), RGB."""
    db = frames_db.connect(dataset.path(video))
    (blob,) = frames_db.read_frames(db, dataset.levels(video)[level], np.array([frame]))
    db.close()
    return cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def digest(batch: ClipBatch) -> str:
    """Hash of all that a batch says."""
    made = hashlib.sha256(batch.frames.numpy().tobytes())
    for values in (batch.labels, batch.videos, batch.frame_indices, batch.view):
        made.update(values.numpy().tobytes())
    made.update(repr((batch.video_ids, batch.epoch, batch.position)).encode())
    return made.hexdigest()
