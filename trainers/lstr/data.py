"""Feature arrays and per-frame targets of a data set, opened as memory maps, as its data_info.json names them.

<root>/<visual>/<session>.npy            (T, size) features of any number type, one row per time step
<root>/<motion>/<session>.npy            (T, size)
<root>/target_perframe/<session>.npy     (T, C) of 0 and 1, column 0 background; or (T,) class numbers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

import configs
from ingest.errors import ClipmillError
from ingest.stores.frames_npy import open_array
from ingest.targets import NO_IGNORED_CLASS
from trainers.lstr.network import Modality

FEATURE_SIZES: Mapping[str, int] = {
    "rgb_anet_resnet50": 2048,
    "flow_anet_resnet50": 2048,
    "rgb_kinetics_resnet50": 2048,
    "flow_kinetics_resnet50": 2048,
    "rgb_kinetics_bninception": 1024,
    "flow_kinetics_bninception": 1024,
    "flow_nv_kinetics_bninception": 1024,
}
"""Numbers per row of the published features, by the name of their folder."""

PUBLISHED_INFO = Path(configs.__path__[0]) / "lstr" / "published" / "data_info.yaml"
"""Classes and sessions, in the published order, of THUMOS and TVSeries."""


@dataclass(frozen=True)
class DataEntry:
    """One data set of a data_info.json. The order of sessions is part of the recipe: random draws follow it."""

    data_root: str
    class_names: tuple[str, ...]
    ignore_index: int = NO_IGNORED_CLASS
    metrics: Literal["AP", "cAP"] = "AP"
    fps: float = 4
    train_session_set: tuple[str, ...] = ()
    test_session_set: tuple[str, ...] = ()


def read_data_info(path: Path, name: str, overrides: Mapping[str, Any] | None = None) -> DataEntry:
    """The entry `name` of a data_info.json (or the same as YAML), with `overrides` that are not None in its stead.

    Raises: ClipmillError when the file, the entry or a field cannot be used.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ClipmillError(
            f"{path} cannot be read: {error}.", "Nothing was run.", "Name another with data.info."
        ) from None
    if not isinstance(entries, dict) or name not in entries:
        known = ", ".join(entries) if isinstance(entries, dict) else "nothing"
        raise ClipmillError(
            f"{path} has no data set {name!r}; it has {known}.", "Nothing was run.", "Name one of those with data.name."
        )
    known_fields = {each.name for each in fields(DataEntry)}
    values = {key: value for key, value in entries[name].items() if key in known_fields}
    values |= {key: value for key, value in (overrides or {}).items() if value is not None}
    values = {key: tuple(value) if isinstance(value, list | tuple) else value for key, value in values.items()}
    try:
        entry = DataEntry(**values)
    except TypeError as error:
        raise ClipmillError(f"{path}, {name}: {error}.", "Nothing was run.", "Mend that entry.") from None
    num_classes = entries[name].get("num_classes", len(entry.class_names))
    if num_classes != len(entry.class_names):
        raise ClipmillError(
            f"{path}, {name}: num_classes is {num_classes}, and there are {len(entry.class_names)} class names.",
            "Nothing was run.",
            "Mend that entry.",
        )
    return entry


@dataclass
class FeatureDataset:
    """Sessions of one split. `visual` and `motion` are folders below `root`, None for a stream that is not used."""

    root: Path
    sessions: Sequence[str]
    class_names: list[str]
    visual: str | None
    motion: str | None
    targets: str = "target_perframe"
    ignore_index: int = NO_IGNORED_CLASS
    metric: Literal["AP", "cAP"] = "AP"
    _open: dict[str, tuple[np.ndarray | None, np.ndarray | None, np.ndarray]] = field(default_factory=dict, repr=False)

    @classmethod
    def of_modality(cls, modality: Modality, *, visual: str, motion: str, **rest: Any) -> FeatureDataset:
        """Only the folders that the modality reads need to exist."""
        return cls(
            visual=None if modality == "motion" else visual, motion=None if modality == "visual" else motion, **rest
        )

    def __len__(self) -> int:
        return len(self.sessions)

    def rows(self, session: int) -> int:
        """Rows of a session: those of its targets."""
        return len(self.arrays(session)[2])

    def arrays(self, session: int) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray]:
        """Visual (T', size), motion (T', size) and targets (T, C) of a session, T' >= T, read only where they are indexed.

        Raises: ClipmillError when a file is missing, or does not go with the others.
        """
        name = self.sessions[session]
        if name not in self._open:
            targets = self._targets(name)
            streams = [
                None if folder is None else self._features(folder, name, len(targets))
                for folder in (self.visual, self.motion)
            ]
            self._open[name] = (streams[0], streams[1], targets)
        return self._open[name]

    def size(self, stream: Literal["visual", "motion"]) -> int:
        """Numbers per row of a stream, from its first session; 0 for one that is not used."""
        array = self.arrays(0)[0 if stream == "visual" else 1]
        return 0 if array is None else array.shape[1]

    def close(self) -> None:
        """Let go of the files; they are opened again when asked for."""
        self._open.clear()

    def _load(self, folder: str, session: str, missing: str) -> np.ndarray:
        path = self.root / folder / f"{session}.npy"
        try:
            return open_array(path)
        except FileNotFoundError:
            raise ClipmillError(f"there is no {path}.", "Nothing was run.", missing) from None
        except (OSError, ValueError, EOFError) as error:
            raise ClipmillError(f"{path} cannot be read: {error}.", "Nothing was run.", "Write it anew.") from None

    def _features(self, folder: str, session: str, num_rows: int) -> np.ndarray:
        array = self._load(folder, session, f"Make features with: clipmill lstr extract SRC {self.root / folder}")
        if array.ndim != 2 or len(array) < num_rows:
            raise ClipmillError(
                f"{self.root / folder / session}.npy is {array.shape}; its targets have {num_rows} rows.",
                "Nothing was run.",
                "Features and targets go together, at the same rate: make one of them anew.",
            )
        return array

    def _targets(self, session: str) -> np.ndarray:
        array = self._load(self.targets, session, "Make targets with: clipmill ingest labels")
        if array.ndim == 1 and np.issubdtype(array.dtype, np.integer):
            array = np.eye(len(self.class_names), dtype=np.uint8)[array]
        if array.ndim != 2 or array.shape[1] != len(self.class_names):
            raise ClipmillError(
                f"{self.root / self.targets / session}.npy is {array.shape}; there are {len(self.class_names)} classes.",
                "Nothing was run.",
                "Make the targets anew, or name the classes that they have.",
            )
        return array
