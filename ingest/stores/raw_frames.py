"""raw_frames/<class>/<id>/: the frames of one video, a file each, for tools that read folders. Writer, reader, check.

    img_00001.jpg ...   counted from 1 (.png, .webp); sort by number: the fifth digit is not the last
    frames.json         what they are: settings, source, size, and time, bytes and CRC-32 of every frame

and beside the classes, for all that is stored, lists of `<class>/<id> num_frames label [label ...]`: <split>.txt, and
all.txt for videos of no split. Such folders and lists are what most tools of the field call raw frames.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ingest.atomic import publish_folder, remove, temporary_path, write_text
from ingest.errors import VideoError

STORE = "raw-frames"
VERSION = 1
MANIFEST = "frames.json"


def frame_name(frame: int, suffix: str) -> str:
    """File name of a frame; `frame` counts from 0, the name from 1."""
    return f"img_{frame + 1:05d}{suffix}"


class RawFramesWriter:
    """Writes one folder under a temporary name, in `scratch` if given; `commit` makes it appear, whole."""

    def __init__(self, folder: Path, suffix: str, scratch: Path | None = None) -> None:
        self.folder, self._suffix = folder, suffix
        self._temporary = temporary_path(folder, scratch)
        remove(self._temporary)
        self._temporary.mkdir()
        self._frames: list[tuple[int, int, int]] = []
        self.num_bytes = 0

    @property
    def num_frames(self) -> int:
        return len(self._frames)

    def add(self, pts_us: int, blob: bytes) -> None:
        """Append one encoded frame and its presentation time."""
        (self._temporary / frame_name(self.num_frames, self._suffix)).write_bytes(blob)
        self._frames.append((pts_us, len(blob), zlib.crc32(blob)))
        self.num_bytes += len(blob)

    def commit(self, meta: dict[str, Any]) -> None:
        """Write frames.json and give the folder its name, durably."""
        columns = zip(*self._frames, strict=True)
        frames = dict(zip(("pts_us", "num_bytes", "crc32"), map(list, columns), strict=True))
        own = {"version": VERSION, "suffix": self._suffix, "num_frames": self.num_frames, "frames": frames}
        (self._temporary / MANIFEST).write_text(json.dumps(dict(sorted((meta | own).items()))) + "\n", "utf-8")
        publish_folder(self._temporary, self.folder)

    def __enter__(self) -> RawFramesWriter:
        return self

    def __exit__(self, *_: object) -> None:
        remove(self._temporary)


def read_meta(folder: Path) -> dict[str, Any]:
    """frames.json as a dict. Raises: VideoError when it is not there or not whole."""
    try:
        meta = json.loads((folder / MANIFEST).read_text("utf-8"))
        if meta["version"] != VERSION or not isinstance(meta["frames"]["crc32"], list):
            raise ValueError(f"version {meta['version']}, not {VERSION}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VideoError("not whole", f"{MANIFEST}: {type(error).__name__}: {error}") from error
    return meta


def check(folder: Path) -> Iterator[str]:
    """Everything wrong with a folder of frames, a line each; nothing when it is whole. Decodes nothing."""
    try:
        meta = read_meta(folder)
        frames, suffix = meta["frames"], str(meta["suffix"])
        expected = list(zip(frames["num_bytes"], frames["crc32"], strict=True))
        if len(expected) != meta["num_frames"] or len(frames["pts_us"]) != len(expected):
            raise VideoError("not whole", f"{MANIFEST} lists {len(expected)} frames and says {meta['num_frames']}")
    except (VideoError, ValueError, KeyError, TypeError) as error:
        yield str(error.message if isinstance(error, VideoError) else f"{MANIFEST}: {error}")
        return
    there = {path.name for path in folder.iterdir()} - {MANIFEST}
    for frame, (num_bytes, crc32) in enumerate(expected):
        name = frame_name(frame, suffix)
        if name not in there:
            yield f"frame {frame}: {name} is not there"
            continue
        there.discard(name)
        blob = (folder / name).read_bytes()
        if len(blob) != num_bytes:
            yield f"frame {frame}: {name} has {len(blob):,} bytes, written were {num_bytes:,}"
        elif zlib.crc32(blob) != crc32:
            yield f"frame {frame}: checksum of {name} differs"
    if there:
        yield f"{len(there)} files more than frames, for example {min(there)}"


def write_lists(home: Path, rows: Iterable[tuple[str, str, int, list[int]]]) -> list[Path]:
    """Write a list per split into `home` from (split, path below home, number of frames, class indices)."""
    lists: dict[str, list[str]] = {}
    for split, path, num_frames, labels in rows:
        lists.setdefault(split or "all", []).append(" ".join(map(str, (path, num_frames, *labels))))
    written = []
    for split, lines in sorted(lists.items()):
        written.append(home / f"{split}.txt")
        write_text(written[-1], "".join(f"{line}\n" for line in lines))
    return written
