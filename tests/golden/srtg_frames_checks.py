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
from loaders.augment import ClipShape, Drawn, run_fast, steps
from loaders.augment.crops import CentreCrop, Resize, ShortSide
from tests.golden.augment_rngs import AuthorsRng
from tests.golden.vectors import from_json, no_unknown, read

Cases = Iterable[tuple[str, Callable[[], None]]]

_MEAN, _SCALE = np.array([124, 117, 104], np.float32), np.float32(0.0167)
_GREY_LEVEL = 0.0168
