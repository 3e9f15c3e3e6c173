"""`clipmill serve` as a process: it answers, stops when told to, and says why when it cannot start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clipmill import main

PROJECT = Path(__file__).parents[2]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "clipmill", "serve", *map(str, arguments)]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=PROJECT, capture_output=True, text=True, timeout=60)


@contextmanager
def serving(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running process and its URL, once it has printed it."""
    process = subprocess.Popen(
        command(*arguments, "--port", "0"), cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://" in line, process.communicate(timeout=30)
        yield process, next(word for word in line.split() if word.startswith("http://"))
    finally:
        process.kill()
        process.communicate()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops(root: Path, tmp_path: Path, number: signal.Signals) -> None:
    with serving("--root", root, "--runs", tmp_path / "later") as (process, url):
        assert get(f"{url}healthz") == b'{"status":"ok"}'
        assert b"motion" in get(f"{url}api/datasets")
        with socket.create_connection(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))):  # An idle caller.
            process.send_signal(number)
            assert process.wait(timeout=20) == 0
        _, err = process.communicate()
        assert "Traceback" not in err


def test_a_taken_port(root: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--root", root, "--runs", tmp_path, "--port", str(port))
    assert done.returncode == 2
    assert f"Port {port} of 127.0.0.1 is taken by another program." in done.stderr.splitlines()[0]
    assert "--port" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_missing_root_and_a_missing_token(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = {
        "none does not exist": ["--root", tmp_path / "none", "--runs", tmp_path],
        "no token is set": ["--root", root, "--runs", tmp_path, "--host", "0.0.0.0"],
    }
    for words, arguments in refused.items():
        with pytest.raises(SystemExit) as ended:
            main(["serve", *map(str, arguments)])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


def test_it_does_not_load_the_web_stack_or_torch_for_help() -> None:
    probe = "import sys, service.cli; print([m for m in ('fastapi', 'uvicorn', 'torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_token_file(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("0123456789abcdef0123\n")
    file.chmod(0o600)
    with serving("--root", root, "--runs", tmp_path, "--token-file", file) as (process, url):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(f"{url}api/datasets")
        assert refused.value.code == 401
        request = urllib.request.Request(f"{url}api/datasets", headers={"Authorization": "Bearer 0123456789abcdef0123"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_answers_while_a_writer_writes(root: Path, runs: Path) -> None:
    """A request every few milliseconds during 300 transactions: none fails, and the last state is seen."""
    writer = (
        "import sys; from pathlib import Path; from ingest.catalog import Catalog, VideoKey, VideoRecord\n"
        "with Catalog.create(Path(sys.argv[1])) as catalog:\n"
        "    for i in range(300):\n"
        "        with catalog.transaction():\n"
        "            catalog.record(VideoRecord(VideoKey('left', f'new_{i}'), 'ok', num_frames=10))\n"
    )
    with serving("--root", root, "--runs", runs) as (_, url):
        process = subprocess.Popen([sys.executable, "-c", writer, os.fspath(root)], cwd=PROJECT)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            get(f"{url}api/datasets/motion")
            get(f"{url}api/datasets/motion/videos?limit=5")
            get(f"{url}api/loaders/live/speed")
        assert process.wait(timeout=30) == 0
        assert b'"total":304' in get(f"{url}api/datasets/motion/videos?state=ok&limit=1")
