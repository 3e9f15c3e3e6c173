"""Which cases a folder of reference vectors holds. Nothing here names a case: files say what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.golden import (
    lstr_checks,
    reskd_augment_checks,
    reskd_checks,
    sbp_checks,
    srtg_augment_checks,
    srtg_block_checks,
    srtg_checks,
    srtg_data_checks,
    srtg_frames_checks,
    srtg_history_checks,
    srtg_sampling_checks,
    stabn_augment_checks,
    stabn_checks,
    sts_augment_checks,
    sts_checks,
)

Check = Callable[[], None]
Checker = Callable[[Path], Iterable[tuple[str, Check]]]
"""A file of vectors -> (case id, what to run) for every case in it."""

METHODS: Mapping[str, Mapping[str, Checker]] = MappingProxyType(
    {
        "lstr": lstr_checks.CHECKERS,
        "reskd": reskd_checks.CHECKERS | reskd_augment_checks.CHECKERS,
        "sbp": sbp_checks.CHECKERS,
        "srtg": srtg_checks.CHECKERS
        | srtg_block_checks.CHECKERS
        | srtg_sampling_checks.CHECKERS
        | srtg_data_checks.CHECKERS
        | srtg_frames_checks.CHECKERS
        | srtg_history_checks.CHECKERS
        | srtg_augment_checks.CHECKERS,
        "stabn": stabn_checks.CHECKERS | stabn_augment_checks.CHECKERS,
        "sts": sts_checks.CHECKERS | sts_augment_checks.CHECKERS,
    }
)
"""Method, which is also the name of its folder -> prefix of a file name -> checker."""


@dataclass(frozen=True)
class Case:
    id: str
    check: Check


def collect(folder: Path) -> list[Case]:
    """The cases of every .npz and .json of a folder, and of its subfolders that are named after a method.

    The files of a folder named after a method are that method's; elsewhere the prefix of the file name tells. A file
    whose prefix is not known, or cannot be read, is a case that fails.

    Raises: pytest.UsageError if there is not a single file.
    """
    folder = folder.resolve()
    folders = [folder, *(folder / method for method in METHODS)]
    files = [
        path for each in folders if each.is_dir() for path in sorted(each.iterdir()) if path.suffix in (".npz", ".json")
    ]
    if not files:
        raise pytest.UsageError(f"no reference vectors (.npz, .json) in {folder}")
    return [case for path in files for case in _cases(path)]


def _cases(path: Path) -> Iterator[Case]:
    methods = [path.parent.name] if path.parent.name in METHODS else list(METHODS)
    matches = [
        (len(prefix), method, checker)
        for method in methods
        for prefix, checker in METHODS[method].items()
        if path.name.startswith(prefix)
    ]
    longest = max((length for length, _, _ in matches), default=0)
    found = [(method, checker) for length, method, checker in matches if length == longest]
    if not found:
        yield Case(
            path.name, partial(pytest.fail, f"no checker of {', '.join(methods)} knows the prefix of {path.name}")
        )
    elif len(found) > 1:
        which = ", ".join(method for method, _ in found)
        yield Case(
            path.name, partial(pytest.fail, f"{path.name} may belong to {which}: name its folder after one of them")
        )
    else:
        ((method, checker),) = found
        try:
            cases = list(checker(path))
        except Exception as error:
            cases = [("unreadable", partial(pytest.fail, f"{path.name}: {type(error).__name__}: {error}"))]
        if not cases:
            cases = [("empty", partial(pytest.fail, f"{path.name} holds no case"))]
        for case, check in cases:
            yield Case(f"{method}/{path.name}/{case}", check)
