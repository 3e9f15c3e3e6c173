"""`clipmill serve`: dataset status, loader speed, metrics and the dashboard over HTTP. `clipmill push`: runs elsewhere."""

from __future__ import annotations

import os
import time
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
    keep_days: Annotated[
        float, typer.Option(min=1, help="Remove runs pushed from other machines that have been silent for so long.")
    ] = 365,
) -> None:
    """Serve the status of datasets and runs, metrics and a dashboard, until Ctrl-C."""
    from service.recent import SHARED_FOR_S
    from service.server import run_server  # fastapi and uvicorn are loaded only when they serve.
    from service.settings import Settings, named_roots, read_token

    token = read_token(token_file) if token_file else None
    folder = Path(os.path.abspath(runs))  # noqa: PTH100 - a link stays one
    settings = Settings(named_roots(root), folder, host, port, token, keep_days, SHARED_FOR_S)
    run_server(settings, lambda url: typer.echo(f"Clipmill serves {url} (Ctrl-C stops it)"))


def push(
    runs: Annotated[Path, typer.Argument(help="The folder of the training runs on this machine, or one run.")],
    to: Annotated[str, typer.Option(help="Where the service is: http://HOST:8000")],
    token_file: Annotated[Path, typer.Option(help="File with the service's token.")],
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Send what there is, and stop.")] = False,
) -> None:
    """Send the telemetry of this machine's runs to a service on another one, until Ctrl-C. Trainings notice nothing."""
    from loaders.push import PushClient, RunsFollower  # loaders needs torch; --help does not.
    from service.settings import read_token

    follower = RunsFollower(runs, PushClient(to, read_token(token_file)))
    said: list[str] = []
    while True:
        sent, problems = follower.push()
        if problems and problems != said:
            typer.echo(f"clipmill: {problems[0]}", err=True)
        said = problems
        if once:
            typer.echo(f"Sent {sent} reports.")
            raise typer.Exit(1 if problems else 0)
        time.sleep(every)
