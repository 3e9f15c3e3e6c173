"""What the service serves and where: the registered roots, the runs folder, the address, the token."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ingest.dataset import folder_name
from ingest.errors import ClipmillError

_MIN_TOKEN_CHARACTERS = 16
_NOT_STARTED = "The service was not started."


@dataclass(frozen=True)
class Settings:
    """`roots`: the name a dataset has in URLs -> its root. `runs`: the folder of the runs; it may appear later.

    `token`: what a caller must present for everything but /healthz; None: nothing is asked, which only loopback allows.
    `keep_days`: pushed runs that have been silent for so long are removed. `shared_for_s`: who asks for the status
    within so many seconds of another gets the same answer; 0: everybody gets one of his own.
    Raises: ClipmillError for an address that other machines can reach and no token.
    """

    roots: Mapping[str, Path]
    runs: Path
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    keep_days: float = 365.0
    shared_for_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.token and not is_loopback(self.host):
            raise ClipmillError(
                f"Other machines can reach {self.host or 'every address'}, and no token is set.",
                _NOT_STARTED,
                "Give one (openssl rand -hex 32 > token; --token-file token), or keep --host 127.0.0.1.",
            )


def named_roots(roots: Iterable[Path]) -> dict[str, Path]:
    """Name each root by its last path component.

    Raises: ClipmillError for a root that is not a folder, and for two that would have one name.
    """
    named: dict[str, Path] = {}
    for root in roots:
        path = Path(os.path.abspath(root))  # noqa: PTH100 - a link keeps its own name
        if not path.is_dir():
            what = "is not a folder" if path.exists() else "does not exist"
            raise ClipmillError(
                f"The dataset root {root} {what}.", _NOT_STARTED, f"Make it: clipmill ingest convert SRC {root}"
            )
        name = folder_name(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if named.setdefault(name, path) != path:
            raise ClipmillError(
                f"Two dataset roots have the name {name!r}: {named[name]} and {path}.",
                _NOT_STARTED,
                "Rename one of the folders, or give one a name of its own by a link: ln -s ROOT OTHER_NAME",
            )
    return named


def read_token(file: Path) -> str:
    """The token: the first line of `file`. Raises: ClipmillError if there is none or it could be guessed."""
    try:
        token = file.read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ClipmillError(
            f"The token file {file} cannot be read: {reason}.", _NOT_STARTED, _make_token(file)
        ) from None
    if len(token) < _MIN_TOKEN_CHARACTERS:
        raise ClipmillError(
            f"The token in {file} has {len(token)} characters; at least {_MIN_TOKEN_CHARACTERS} are needed.",
            _NOT_STARTED,
            _make_token(file),
        )
    return token


def _make_token(file: Path) -> str:
    return f"Make one: openssl rand -hex 32 > {file}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host` (an address, or the name localhost)."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
