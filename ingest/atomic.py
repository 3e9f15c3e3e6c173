"""Files and folders that are whole or absent: written under a temporary name, fsynced, renamed.

The temporary name lies in the target folder, or in a scratch folder of this machine where the target is far away (NFS):
then what is finished is copied beside the target in one go, and renamed there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

_TEMPORARY = re.compile(r"^\.(?P<name>.+)\.(?P<host>[^.]+)-(?P<pid>\d+)\.tmp$")

_LEFT_BEHIND_AFTER_S = 24 * 3600
_MOST_NAME_BYTES = 160  # Of 255 that a file system takes; a process writes one file of a kind at a time.

_WRITEBACK_BYTES = 1 << 20

# Linux has it, Python does not.
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_SYNC_FILE_RANGE_WRITE = 2


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname())


def temporary_path(path: Path, scratch: Path | None = None) -> Path:
    """A name in the folder of `path`, or in `scratch`, that says which process is writing it."""
    name = os.fsencode(path.name)[:_MOST_NAME_BYTES].decode("utf-8", "ignore")
    return (scratch or path.parent) / f".{name}.{_host()}-{os.getpid()}.tmp"


def fsync_path(path: Path) -> None:
    """Force a file or a folder to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Writeback:
    """Has the kernel bring a file to disk while it grows, without waiting: its fsync at the end waits for the rest only.

    Not in a scratch folder, from which it goes before anybody needs it there. Where there is no such call, or the file
    system does not know it, nothing happens.
    """

    def __init__(self, temporary: Path, path: Path) -> None:
        self._fd = os.open(temporary, os.O_RDONLY) if temporary.parent == path.parent else -1
        self._num_bytes = 0

    def grown(self, num_bytes: int) -> None:
        """To be told of what has been added to the file."""
        self._num_bytes += num_bytes
        if self._fd >= 0 and self._num_bytes >= _WRITEBACK_BYTES and _sync_file_range is not None:
            self._num_bytes = 0
            _sync_file_range(self._fd, 0, 0, _SYNC_FILE_RANGE_WRITE)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def publish(temporary: Path, path: Path) -> None:
    """Give a finished temporary file its name, durably: at every instant `path` is the old file, the new one or absent."""
    beside = temporary_path(path)
    if temporary.parent != path.parent:
        try:
            shutil.copyfile(temporary, beside)
            temporary.unlink()
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        temporary = beside
    fsync_path(temporary)
    temporary.replace(path)
    fsync_path(path.parent)


def publish_folder(temporary: Path, path: Path) -> None:
    """The same for a folder. One that is there already is put aside first: for an instant `path` may be absent."""
    if temporary.parent != path.parent:
        beside = temporary_path(path)
        remove(beside)
        shutil.copytree(temporary, beside)
        remove(temporary)
        temporary = beside
    for file in temporary.iterdir():
        fsync_path(file)
    fsync_path(temporary)
    aside = temporary_path(path.with_name(f"{path.name}.old"))
    remove(aside)
    if path.exists():
        path.rename(aside)
    temporary.rename(path)
    fsync_path(path.parent)
    remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it; nothing if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Path to write to; it becomes `path` when the block ends well and is removed when it does not."""
    temporary = temporary_path(path)
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove temporary files and folders of processes of this machine that are no more. Returns what was removed.

    Of another machine nobody here knows what it does: what it has not touched for a day is taken for left behind.
    """
    removed = []
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.match(path.name)
        if match and (_untouched(path) if match["host"] != _host() else not _alive(int(match["pid"]))):
            remove(path)
            removed.append(path)
    return removed


def _untouched(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _LEFT_BEHIND_AFTER_S
    except OSError:
        return False


def _alive(pid: int) -> bool:
    """Whether the process runs. A zombie does not: in a container nobody may be there to bury the orphans."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):  # gone just now, or no Linux
        return True
    return state not in "ZX"
