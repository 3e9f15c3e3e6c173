"""Runs the install step of a Dockerfile in a fresh virtual environment, where no Docker engine is at hand.

    python docker/check_install.py docker/Dockerfile
    python docker/check_install.py docker/Dockerfile.cuda     several GB

The files that the image copies are copied to an empty folder, every `RUN python -m pip ...` runs there as it stands, and
then the image's own command must answer. Needs the network, as building the image does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def steps(dockerfile: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", dockerfile))
    found = re.findall(r"(?m)^([A-Z]+) (.*)$", text)
    return [(name, " ".join(arguments.split())) for name, arguments in found]


def copy(arguments: str, to: Path) -> None:
    *sources, target = arguments.split()
    for source in sources:
        path = ROOT / source
        if path.is_dir():
            shutil.copytree(path, to / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, to / target)


def main(dockerfile: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        home, environment = Path(temporary) / "copied", Path(temporary) / "venv"
        home.mkdir()
        venv.create(environment, with_pip=True)
        path = os.pathsep.join([str(environment / "bin"), os.environ["PATH"]])
        variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        for name, arguments in steps(dockerfile.read_text(encoding="utf-8")):
            if name == "COPY":
                copy(arguments, home)
            if name == "RUN" and "pip" in arguments:
                print(f"{name} {arguments}", flush=True)
                subprocess.run(["sh", "-euc", arguments], cwd=home, env=variables | {"PATH": path}, check=True)
        shutil.rmtree(home)  # What is installed must do without its source.
        for command in (["clipmill", "--help"], ["clipmill", "serve", "--help"], ["python", "-c", CHECK]):
            subprocess.run(
                command, cwd=temporary, env=variables | {"PATH": path}, check=True, stdout=subprocess.DEVNULL
            )
    print(f"{dockerfile.name}: it installs, and the command answers.")


CHECK = "import service.app as a; assert (a.DASHBOARD / 'vendor/uplot/uPlot.iife.min.js').is_file(); import loaders, trainers"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
