"""Where a container says that it ends: finds a file that was cut short without decoding it."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def container_end(path: Path) -> int | None:
    """First byte after what the container announces; None if it announces nothing, or is no mp4, mov, mkv or webm.

    In an mp4 that is the end of its index (`moov`): whether the samples are there, the index itself tells.
    """
    with path.open("rb") as file:
        head = file.read(8)
        if head[4:] in _MP4_FIRST_BOXES:
            return _mp4_index_end(file, path.stat().st_size)
        if head[:4] == _EBML:
            return _matroska_end(file)
    return None


def _mp4_index_end(file: BinaryIO, num_bytes: int) -> int | None:
    """Walk the boxes of the first level: 4 bytes size, 4 bytes type, 8 bytes size if the first one is 1."""
    start = 0
    while start + 8 <= num_bytes:
        file.seek(start)
        header = file.read(16)
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if kind == b"moov" and size >= 8:
            return start + size
        if size < 8:  # 0: to the end of the file; else no box
            return None
        start += size
    return None


def _matroska_end(file: BinaryIO) -> int | None:
    """The EBML header, then one segment that says how long it is, unless it was recorded live."""
    file.seek(len(_EBML))
    header_bytes = _ebml_size(file)
    if header_bytes is None:
        return None
    file.seek(header_bytes, 1)
    if file.read(len(_SEGMENT)) != _SEGMENT:
        return None
    segment_bytes = _ebml_size(file)
    return None if segment_bytes is None else file.tell() + segment_bytes


def _ebml_size(file: BinaryIO) -> int | None:
    """A size of 1 to 8 bytes, the number of leading zero bits telling how many; None for `unknown` (all ones)."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(first + file.read(more), "big") & ((1 << 7 * (more + 1)) - 1)
    return None if value == (1 << 7 * (more + 1)) - 1 else value
