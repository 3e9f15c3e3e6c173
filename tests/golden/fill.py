"""Deterministic values for the reference vectors: no weights need to be stored.

Every array depends on its name and shape alone, through NumPy's frozen legacy generator
(`numpy.random.RandomState`), so two implementations given the same parameter names hold
the same parameters, on every platform and NumPy version.
"""

import zlib

import numpy as np


def _stream(name: str, salt: str = "") -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(f"{salt}{name}".encode()))


def fill_parameter(name: str, shape: tuple[int, ...], salt: str = "") -> np.ndarray:
    """Value of the parameter or buffer `name`, float32 (int64 for counters).

    running_var and 1-d `weight`s (norm scales) lie in [0.5, 1.5); running_mean and biases
    are 0.1 * N(0, 1); other tensors are N(0, 1) / sqrt(fan_in).
    """
    rng, leaf = _stream(name, salt), name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        return (0.5 + rng.random_sample(shape)).astype(np.float32)
    if leaf in ("running_mean",) or len(shape) <= 1:
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def fill_state_dict(shapes: dict[str, tuple[int, ...]], salt: str = "") -> dict[str, np.ndarray]:
    """State dict with every entry of `shapes` (name -> shape) filled by `fill_parameter`."""
    return {name: fill_parameter(name, tuple(shape), salt) for name, shape in shapes.items()}


def fill_input(name: str, shape: tuple[int, ...], salt: str = "") -> np.ndarray:
    """Standard normal float32 input called `name`."""
    return _stream(name, "input:" + salt).standard_normal(shape).astype(np.float32)


def fill_labels(name: str, shape: tuple[int, ...], num_classes: int, salt: str = "") -> np.ndarray:
    """Integer labels in [0, num_classes), int64."""
    return _stream(name, "labels:" + salt).randint(0, num_classes, shape).astype(np.int64)
