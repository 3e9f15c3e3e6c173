"""`clipmill serve`: dataset status, loader speed, metrics and the dashboard over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def serve(
    root: Annotated[list[Path], typer.Option(help="A dataset root; give it once per root.")],
    runs: Annotated[Path, typer.Option(help="The folder of the training runs. It may appear later.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on. One that others can reach needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that callers must present; with it, all but /healthz needs it."),
    ] = None,
) -> None:
    """Serve the status of datasets and runs, metrics and a dashboard, until Ctrl-C."""
    from service.server import run_server  # fastapi and uvicorn are loaded only when they serve.
    from service.settings import Settings, named_roots, read_token

    token = read_token(token_file) if token_file else None
    settings = Settings(named_roots(root), Path(os.path.abspath(runs)), host, port, token)  # noqa: PTH100 - keep links
    run_server(settings, lambda url: typer.echo(f"Clipmill serves {url} (Ctrl-C stops it)"))
