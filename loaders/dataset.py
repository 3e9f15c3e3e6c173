"""The videos that a loader draws from: an index in arrays, whatever they are stored as."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ingest.annotations.rows import Annotations
from ingest.catalog import Catalog
from ingest.errors import ClipmillError, VideoError
from ingest.layout import UNCLASSED, frames_db_path, npy_path, raw_frames_dir
from ingest.legacy import find_legacy
from ingest.plan import plan_folders, plan_labels
from ingest.stores import frames_db, frames_npy, historical, raw_frames, video_file
from ingest.stores.frames_db import Level
from ingest.video import Video, displayed_size
from loaders.pictures import picture_size

_PATHS: dict[str, Callable[[Path, str, str], Path]] = {
    frames_db.STORE: frames_db_path,
    frames_npy.STORE: lambda root, class_name, video_id: npy_path(root, video_id),
    raw_frames.STORE: raw_frames_dir,
}


class ClipDataset:
    """Labelled videos of one split, in the order of (class, id), each with its stored levels.

    `labels` int64 (N,), -1 where a video has none; `num_frames` int64 (N,); `class_names` by class index; `store` says
    what the frames lie in: `frames-db`, `npy` or `raw-frames` of a dataset root. Frames of other tools, and videos that
    were never converted, come in by `of_videos`, `of_historical` and `of_frame_list`.

    Raises: ClipmillError when the root is none, or the split holds no finished video in that store.
    """

    def __init__(self, root: Path | str, split: str | None = None, *, store: str = frames_db.STORE) -> None:
        self.root, self.split, self.store = Path(root), split, store
        if store not in _PATHS:
            raise ClipmillError(
                f"the store {store!r} is none of a dataset root; there are {', '.join(_PATHS)}.",
                "Nothing can be loaded.",
                "Plain videos are loaded by ClipDataset.of_videos, others by of_historical and of_frame_list.",
            )
        with Catalog.open(self.root) as catalog:
            self.class_names = catalog.class_names()
            stored: dict[int, list[tuple[int, int, int]]] = {}
            frames: dict[int, int] = {}
            for video, count, *size in catalog.db.execute(
                "SELECT video, num_frames, short_side, width, height FROM outputs WHERE store = ?"
                " ORDER BY video, short_side DESC",
                (store,),
            ):
                stored.setdefault(video, []).append(tuple(size))
                frames[video] = count
            rows = [
                row
                for row in catalog.db.execute(
                    "SELECT v.id, v.class_name, v.video_id, l.label FROM videos v"
                    " LEFT JOIN labels l ON l.video = v.id WHERE v.state = 'ok' AND (? IS NULL OR l.split = ?)"
                    " GROUP BY v.id ORDER BY v.class_name, v.video_id",
                    (split, split),
                )
                if row[0] in stored
            ]
            splits = [name for (name,) in catalog.db.execute("SELECT DISTINCT split FROM labels ORDER BY split")]
            stores = [name for (name,) in catalog.db.execute("SELECT DISTINCT store FROM outputs ORDER BY store")]
        if not rows:
            raise ClipmillError(
                f"{self.root} holds no finished video"
                + (f" of split {split!r}" if split else "")
                + (f" in the store {store}." if stores and store not in stores else "."),
                f"Its splits are {', '.join(map(repr, splits)) or 'none'}." if split else "Nothing can be loaded.",
                f"See what is there: clipmill ingest status {self.root}",
            )
        index = {name: i for i, name in enumerate(self.class_names)}
        self.labels = np.array([index.get(row[3], -1) for row in rows], np.int64)
        self.num_frames = np.array([frames[row[0]] for row in rows], np.int64)
        self.video_ids = [row[2] for row in rows]
        self._folders = [row[1] for row in rows]
        self._paths: list[Path] | None = None
        known: dict[tuple, tuple[Level, ...]] = {}
        self._levels = [known.setdefault(tuple(stored[row[0]]), _levels(stored[row[0]])) for row in rows]

    # Frames that no catalog knows

    @classmethod
    def of_videos(
        cls, source: Path | str, annotations: Annotations | None = None, split: str | None = None
    ) -> ClipDataset:
        """Plain video files below `source`, to be decoded at every access: named by the labels, or in class folders.

        Opens every file once. Raises: ClipmillError when no file opens; a file that does not is left out.
        """
        source = Path(source)
        plan = plan_labels(source, annotations) if annotations else plan_folders(source)
        labels = {key: label for key, label, of_split, _, _ in plan.labels if split in (None, of_split)}
        jobs = [job for job in plan.jobs if split is None or job.key in labels]
        items = [(job.key.class_name, job.key.video_id, job.source, labels.get(job.key, "")) for job in jobs]
        return cls._listed(source, split, video_file.STORE, items, plan.class_names, _probe_video)

    @classmethod
    def of_historical(cls, source: Path | str) -> ClipDataset:
        """Frame databases of dataset2database and folders of numbered jpg files below `source`, as they lie there."""
        source = Path(source)
        videos = find_legacy(source, source.parent / f"not {source.name}")  # Nothing is written, so into no root.
        items = [(video.key.class_name, video.key.video_id, video.folder, video.key.class_name) for video in videos]
        return cls._listed(source, None, historical.STORE, items, None, _probe_historical)

    @classmethod
    def of_frame_list(cls, home: Path | str, annotations: Annotations, *, split: str | None = None) -> ClipDataset:
        """Folders of numbered pictures below `home` that a list of raw frames names (`frame-list` and its kin).

        How many frames there are is counted, not believed.
        """
        home = Path(home)
        rows = [row for row in annotations.rows if split in (None, row.split)]
        names = annotations.class_names()
        labels = dict(zip(map(id, annotations.rows), annotations.class_indices(), strict=True))
        items = [
            (
                "",
                row.path or row.video_id,
                home / (row.path or row.video_id),
                names[labels[id(row)]] if labels[id(row)] >= 0 else "",
            )
            for row in rows
        ]
        return cls._listed(home, split, historical.STORE, items, names, _probe_historical)

    @classmethod
    def _listed(
        cls,
        root: Path,
        split: str | None,
        store: str,
        items: Sequence[tuple[str, str, Path, str]],
        class_names: list[str] | None,
        probe: Callable[[Path], tuple[int, int, int]],
    ) -> ClipDataset:
        """From (class, id, path, label); `probe` gives frames, width and height."""

        def look(path: Path) -> tuple[int, int, int] | None:
            try:
                found = probe(path)
            except (VideoError, OSError):
                return None
            return found if min(found) > 0 else None

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            probed = list(pool.map(look, (path for _, _, path, _ in items)))
        good = [(item, size) for item, size in zip(items, probed, strict=True) if size is not None]
        if not good:
            raise ClipmillError(
                f"{root} holds nothing that can be loaded" + (f" for the split {split!r}." if split else "."),
                f"{len(items):,} were tried." if items else "The labels name none.",
                "See why: clipmill ingest convert tells the reason for every file.",
            )
        self = cls.__new__(cls)
        self.root, self.split, self.store = root, split, store
        self.class_names = class_names or sorted({item[3] for item, _ in good} - {""})
        index = {name: i for i, name in enumerate(self.class_names)}
        self.labels = np.array([index.get(item[3], -1) for item, _ in good], np.int64)
        self.num_frames = np.array([size[0] for _, size in good], np.int64)
        self.video_ids = [item[1] for item, _ in good]
        self._folders = [item[0] for item, _ in good]
        self._paths = [item[2] for item, _ in good]
        self._levels = [_levels([(min(width, height), width, height)]) for _, (_, width, height) in good]
        return self

    def __len__(self) -> int:
        return len(self.labels)

    def levels(self, video: int) -> tuple[Level, ...]:
        """Stored levels of a video, largest first."""
        return self._levels[video]

    def path(self, video: int) -> Path:
        """The file or folder that holds its frames."""
        if self._paths is not None:
            return self._paths[video]
        return _PATHS[self.store](self.root, self._folders[video], self.video_ids[video])

    def class_folder(self, video: int) -> str:
        """Class under which the video is kept, empty for none."""
        return self._folders[video]

    def name(self, video: int) -> str:
        """`class/id`, for messages."""
        return f"{self._folders[video] or UNCLASSED}/{self.video_ids[video]}"


def _levels(sizes: Iterable[tuple[int, int, int]]) -> tuple[Level, ...]:
    return tuple(
        Level(short_side, width, height, frames_db.level_table(short_side, first=i == 0))
        for i, (short_side, width, height) in enumerate(sizes)
    )


def _probe_video(path: Path) -> tuple[int, int, int]:
    with Video(path) as video:
        first = next(video.frames())
    with video_file.VideoFile(path) as file:
        return file.num_frames, *displayed_size(first)


def _probe_historical(folder: Path) -> tuple[int, int, int]:
    frames = historical.open_frames(folder)
    try:
        (first,) = frames.read([0])
        return frames.num_frames, *picture_size(first)
    finally:
        frames.close()
