"""Where things lie below a dataset root, and how names become path components.

<root>/catalog.db
<root>/jpg/<class>/<video_id>/frames.db, n_frames
<root>/raw_frames/<class>/<video_id>/img_00001.jpg ..., frames.json
<root>/rgb_npy/<video_id>.npy
"""

from __future__ import annotations

import os
from pathlib import Path

from ingest.errors import ClipmillError

UNCLASSED = "_"
"""Folder of videos without one class of their own (untrimmed, multi-label, unlabelled)."""

_MAX_COMPONENT_BYTES = 255


def encode_component(name: str) -> str:
    """`name` as one path component: what a path cannot hold is percent-encoded, everything else is kept.

    Encoded are the slash, control characters, the percent sign itself, a leading dot, and the one name `_`, which
    is taken. Raises: ClipmillError for an empty name and for one longer than a file system takes (255 bytes).
    """
    if not name:
        raise ClipmillError(
            "an empty name cannot be a folder", "The video was not planned.", "Give it an id or a class."
        )
    out = "".join(f"%{ord(c):02X}" if c in "/%\\" or ord(c) < 32 or ord(c) == 127 else c for c in name)
    if out.startswith("."):
        out = "%2E" + out[1:]
    if out == UNCLASSED:
        out = "%5F"
    if len(os.fsencode(out)) > _MAX_COMPONENT_BYTES:
        raise ClipmillError(
            f"the name {name[:60]!r}... is {len(os.fsencode(out))} bytes long as a folder, at most {_MAX_COMPONENT_BYTES} are possible",
            "Nothing was converted.",
            "Shorten the name in the labels file or on disk.",
        )
    return out


def catalog_path(root: Path, shard: str = "") -> Path:
    """The catalog; with `shard` (`2/16`) that of one shard, until it is merged."""
    return root / (f"catalog.shard-{shard.replace('/', '-of-')}.db" if shard else "catalog.db")


def shard_catalogs(root: Path) -> list[Path]:
    return sorted(root.glob("catalog.shard-*-of-*.db"))


def video_dir(root: Path, class_name: str, video_id: str) -> Path:
    """Folder of one video; `class_name` is empty for a video without one class of its own."""
    folder = encode_component(class_name) if class_name else UNCLASSED
    return root / "jpg" / folder / encode_component(video_id)


def raw_frames_root(root: Path) -> Path:
    return root / "raw_frames"


def raw_frames_dir(root: Path, class_name: str, video_id: str) -> Path:
    """Folder of the frames of one video, one file each."""
    folder = encode_component(class_name) if class_name else UNCLASSED
    return raw_frames_root(root) / folder / encode_component(video_id)


def npy_path(root: Path, video_id: str) -> Path:
    """The array of one video; all classes share the folder."""
    return root / "rgb_npy" / f"{encode_component(video_id)}.npy"


def frames_db_path(root: Path, class_name: str, video_id: str) -> Path:
    return video_dir(root, class_name, video_id) / "frames.db"


def printable(text: str) -> str:
    """A path as text that a database takes: bytes that are no UTF-8 are shown escaped."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
