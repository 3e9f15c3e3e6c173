"""Parts in C are left out where they cannot be built, and their tests with them: here is what tells when they could be."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest


def assert_built_where_it_can_be(source: Path, built: bool, headers: str = r"Python\.h") -> None:
    """Skips where there is no compiler, or one of the `headers` (a pattern of what it says then) is missing."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    if shutil.which(compiler[0]) is None:
        pytest.skip("no C compiler")
    include = f"-I{sysconfig.get_paths()['include']}"
    command = [*compiler, "-fsyntax-only", "-Wall", "-Wextra", "-Werror", include, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode and re.search(headers, done.stderr):
        pytest.skip("headers are missing")
    assert done.returncode == 0, done.stderr
    assert built, "it can be built here: pip install -c constraints.txt -e ."
