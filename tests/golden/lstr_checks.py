"""LSTR against the authors' code. Rows and masks exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from loaders.windows import OnlineWindows, Window
from tests.golden import lstr_function_checks, lstr_network_checks, lstr_stream_checks, lstr_training_checks
from tests.golden.lstr_network_checks import MEMORIES, MODEL, windows_of
from tests.golden.vectors import from_json, no_unknown, read

Cases = Iterable[tuple[str, Callable[[], None]]]

_SPLITS = ("train", "train_shuffled_once", "test", "batch_inference")

# Windows of the data layers: data_sampling.npz


def _data_sampling(path: Path) -> Cases:
    data = read(path)
    layers = f"({'|'.join(_SPLITS)})/(windows|long|work|num_masked|target_argmax)"
    samplers = "work_start|train_segment|test_uniform|num_masked_train_test"
    for case in sorted({key.partition("/")[0] for key in data}):
        keys = [key.partition("/")[2] for key in data if key.startswith(f"{case}/")]
        yield f"{case}/keys", partial(no_unknown, keys, f"settings|{layers}|{samplers}")
        if f"{case}/work_start" in data:
            yield f"{case}/indices", partial(_samplers, data, case)
        for split in _SPLITS:
            if f"{case}/{split}/windows" in data:
                yield f"{case}/{split}", partial(_layer, data, case, split)


def _samplers(data: Mapping[str, np.ndarray], case: str) -> None:
    settings = from_json(data[f"{case}/settings"])
    no_unknown(settings, "L|N|rate")
    windows = OnlineWindows(1, 1, settings["L"], settings["rate"])
    assert windows.num_long == settings["N"]
    for i, start in enumerate(data[f"{case}/work_start"].tolist()):
        spread, at_rate = windows.long_spread(start), windows.long_at_rate(start)
        assert spread.tolist() == data[f"{case}/train_segment"][i].tolist(), start
        assert at_rate.tolist() == data[f"{case}/test_uniform"][i].tolist(), start
        masked = [windows.num_masked(spread), windows.num_masked(at_rate)]
        assert masked == data[f"{case}/num_masked_train_test"][i].tolist(), start


def _layer(data: Mapping[str, np.ndarray], case: str, split: str) -> None:
    settings = from_json(data[f"{case}/settings"])
    no_unknown(settings, MODEL, MEMORIES, "sessions|seed")
    windows = windows_of(settings)
    lengths = list(settings["sessions"].values())
    rng = np.random.RandomState(settings["seed"])
    items: list[tuple[int, Window]] = []
    for _ in range(2 if split == "train_shuffled_once" else 1):
        items = [
            (session, windows.train(start) if split.startswith("train") else windows.test(start))
            for session, length in enumerate(lengths)
            for start in _starts(windows, length, split, rng)
        ]
    expected = {
        key: data[f"{case}/{split}/{key}"] for key in ("windows", "long", "work", "num_masked", "target_argmax")
    }
    bounds = [[session, item.start, item.start + windows.work_length] for session, item in items]
    assert bounds == expected["windows"].tolist()
    assert [item.work.tolist() for _, item in items] == expected["work"].tolist()
    targets = [(item.work % settings["num_classes"]).tolist() for _, item in items]
    assert targets == expected["target_argmax"].tolist()
    if windows.num_long:
        assert [item.long.tolist() for _, item in items] == expected["long"].tolist()
        assert [item.num_masked for _, item in items] == expected["num_masked"].tolist()
        assert [int(np.isneginf(item.mask).sum()) for _, item in items] == expected["num_masked"].tolist()
    else:
        assert not expected["num_masked"].size and (expected["long"] == -1).all()
        assert all(not item.long.size for _, item in items)


def _starts(windows: OnlineWindows, length: int, split: str, rng: np.random.RandomState) -> list[int]:
    if split == "batch_inference":
        return windows.every_start(length).tolist()
    offset = int(rng.choice(windows.work_length)) if split.startswith("train") else 0
    return windows.starts(length, offset=offset).tolist()


CHECKERS = MappingProxyType(
    {
        "data_sampling": _data_sampling,
        **lstr_function_checks.CHECKERS,
        **lstr_network_checks.CHECKERS,
        **lstr_stream_checks.CHECKERS,
        **lstr_training_checks.CHECKERS,
    }
)
