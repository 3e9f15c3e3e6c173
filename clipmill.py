"""The one door: the `clipmill` command. Each group loads what it needs only when it runs, so --help stays instant."""

from __future__ import annotations

import sys

import typer

from ingest.cli import MULTIPLE_VALUES as INGEST_VALUES
from ingest.cli import app as ingest_app
from ingest.errors import ClipmillError
from loaders.cli import MULTIPLE_VALUES as LOADER_VALUES
from loaders.cli import app as loader_app
from service.cli import push, serve
from trainers.cli import demo, test, train
from trainers.lstr.cli import app as lstr_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Folders of videos to fast frame stores, clips at the speed of JPEG decoding, six video methods, and where the time goes.",
)
app.add_typer(ingest_app, name="ingest")
app.add_typer(loader_app, name="loader")
app.add_typer(lstr_app, name="lstr")
app.command("train")(train)
app.command("test")(test)
app.command("serve")(serve)
app.command("push")(push)
app.command("demo")(demo)


MULTIPLE_VALUES = INGEST_VALUES | LOADER_VALUES


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 fine, 1 problems found, 2 could not run, 130 interrupted."""
    try:
        app(spell_out(sys.argv[1:] if arguments is None else arguments))
    except ClipmillError as error:
        print(f"clipmill: {error.what}", file=sys.stderr)
        for line in (error.consequence, error.next_step):
            if line:
                print(f"  {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


def spell_out(arguments: list[str]) -> list[str]:
    """`--short-side 256 128` as the parser wants it: `--short-side 256 --short-side 128`."""
    out: list[str] = []
    name = None
    for argument in arguments:
        if name and MULTIPLE_VALUES[name](argument):
            if out[-1] != name:
                out.append(name)
        else:
            name = argument if argument in MULTIPLE_VALUES else None
        out.append(argument)
    return out


if __name__ == "__main__":
    main()
