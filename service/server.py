"""Runs the app: takes the address, says where it is, stops on SIGTERM and Ctrl-C within about a second."""

from __future__ import annotations

import errno
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

from ingest.errors import ClipmillError
from service.app import create_app
from service.settings import Settings

_STOP_WITHIN_S = 1
_NOT_STARTED = "The service was not started."


def run_server(settings: Settings, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C. `started` is told the URL once the address is ours; port 0 takes a free one.

    Raises: ClipmillError when the address cannot be taken.
    """
    listener = _listen(settings.host, settings.port)
    stopping = threading.Event()
    with listener:
        config = uvicorn.Config(
            create_app(settings, stopping),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_STOP_WITHIN_S,
        )
        server = _Server(config, stopping)

        def stop(*_: object) -> None:
            server.should_exit = True

        if threading.current_thread() is threading.main_thread():
            # uvicorn stops on these, then sends them again to the handlers of before: so the process ends with 0.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, stop)
        started(_url(settings.host, listener.getsockname()[1]))
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Tells the streams to end as soon as it is told to stop; else it would wait for them, and then cut them off."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping.set()
        super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ClipmillError(
            f"{host} is not an address of this machine: {error.strerror}.", _NOT_STARTED, "Keep --host 127.0.0.1."
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from None
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> ClipmillError:
    if error.errno == errno.EADDRINUSE:
        return ClipmillError(
            f"Port {port} of {host} is taken by another program.",
            _NOT_STARTED,
            f"Choose another one: --port {port + 1 if port < 65535 else port - 1} (or 0 for any free one).",
        )
    if error.errno == errno.EACCES:
        return ClipmillError(
            f"Port {port} needs rights that this user has not.", _NOT_STARTED, "Choose one above 1023: --port 8000."
        )
    return ClipmillError(f"{host} cannot be listened on: {error.strerror}.", _NOT_STARTED, "Keep --host 127.0.0.1.")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
