"""imgaug 0.4.0 under NumPy 2: the few names that it misses are put back while it is imported, and no longer."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

_LOST: dict[str, Any] = {
    "sctypes": {
        "int": [np.int8, np.int16, np.int32, np.int64],
        "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
        "float": [np.float16, np.float32, np.float64],
    },
    "bool": bool,  # NumPy 1.24 to 1.26
    "complex": complex,
}


def import_augmenters() -> ModuleType:
    """`imgaug.augmenters`. Raises: ImportError, naming the extra, if imgaug is not there or does not load."""
    try:
        with _names_put_back():
            return importlib.import_module("imgaug.augmenters")
    except ImportError as error:
        raise ImportError(
            f"the imgaug executor needs imgaug, which cannot be imported ({error}). Install the extra:"
            " pip install 'clipmill[imgaug]'"
        ) from error


@contextmanager
def _names_put_back() -> Iterator[None]:
    missing = [name for name in _LOST if name not in np.__dict__]
    for name in missing:
        setattr(np, name, _LOST[name])
    try:
        yield
    finally:
        for name in missing:
            delattr(np, name)
