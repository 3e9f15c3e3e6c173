"""Catalogs that are replaced, removed, damaged and locked while a real service is asked: 200 or 503, nothing else."""

from __future__ import annotations

import http.client
import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.service.conftest import fill_catalog
from tests.service.test_serve import serving

_PATHS = ("", "/videos?limit=500", "/videos?q=v_&state=ok", "/sheet", "/videos/1/frames/0")


@contextmanager
def asked_all_the_time(url: str, name: str) -> Iterator[list[tuple[str, int, bytes]]]:
    """Three callers that ask everything of a dataset, round after round; yields (path, status, body) of all answers."""
    answers: list[tuple[str, int, bytes]] = []
    ended = threading.Event()
    port = int(url.rstrip("/").rpartition(":")[2])

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not ended.is_set():
            for path in _PATHS:
                connection.request("GET", f"/api/datasets/{name}{path}")
                answer = connection.getresponse()
                answers.append((path, answer.status, answer.read()))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def wait_for(answers: list[tuple[str, int, bytes]], status: int, path: str = "/videos?limit=500") -> None:
    """Until the question is answered so by somebody who asked after this moment."""
    begin = len(answers) + 3  # Those that are under way may be of before.
    gone = threading.Event()
    for _ in range(3000):
        if any(answer[:2] == (path, status) for answer in answers[begin:]):
            return
        gone.wait(0.01)
    raise AssertionError(f"{path} was never answered with {status}; lately: {[a[:2] for a in answers[-10:]]}")


def assert_only_200_and_503(answers: list[tuple[str, int, bytes]], root: Path) -> None:
    allowed = {200, 503}
    for path, status, body in answers:
        # The catalog of this root is real, its frames are not: those are never found.
        assert status in (allowed | {404} if "frames" in path else allowed), (path, status, body)
        assert str(root).encode() not in body
        if status != 200:
            assert json.loads(body)["status"] == status


def test_a_catalog_that_changes_under_the_readers(tmp_path: Path) -> None:
    small, large, bad, good = (tmp_path / name for name in ("small", "large", "bad", "good"))
    fill_catalog(small, 4)
    fill_catalog(large, 400)
    for copy in (bad, good):
        shutil.copytree(small, copy)
    with (
        serving("--root", bad, "--root", good, "--runs", tmp_path / "runs") as (process, url),
        asked_all_the_time(url, "bad") as of_bad,
        asked_all_the_time(url, "good") as of_good,
    ):
        catalog = bad / "catalog.db"
        wait_for(of_bad, 200)
        for _ in range(3):
            for whole in (large, small):  # Replaced, as by a copy from elsewhere.
                shutil.copy(whole / "catalog.db", bad / "new")
                (bad / "new").replace(catalog)
                wait_for(of_bad, 200)
            catalog.unlink()
            wait_for(of_bad, 503)
            catalog.write_bytes(b"not a database " * 500)
            wait_for(of_bad, 503)
            catalog.write_bytes((large / "catalog.db").read_bytes()[:9000])  # Cut off, in place.
            wait_for(of_bad, 503)
            for rest in ("-wal", "-shm"):
                (bad / f"catalog.db{rest}").unlink(missing_ok=True)
            shutil.copy(small / "catalog.db", bad / "new")
            (bad / "new").replace(catalog)
            wait_for(of_bad, 200)
        assert process.poll() is None
    assert_only_200_and_503(of_bad, tmp_path)
    assert_only_200_and_503(of_good, tmp_path)
    assert {status for path, status, _ in of_good if "frames" not in path} == {200}


def test_a_locked_catalog_holds_nobody_else_up(tmp_path: Path) -> None:
    for name in ("bad", "good"):
        fill_catalog(tmp_path / name)
    with serving("--root", tmp_path / "bad", "--root", tmp_path / "good", "--runs", tmp_path / "runs") as (_, url):
        holder = sqlite3.connect(tmp_path / "bad" / "catalog.db", isolation_level=None)
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        with asked_all_the_time(url, "bad") as of_bad, asked_all_the_time(url, "good") as of_good:
            wait_for(of_bad, 503)
            wait_for(of_good, 200)
            done = len(of_good)
            wait_for(of_bad, 503)
            wait_for(of_bad, 503)
            assert len(of_good) > done + len(_PATHS)  # The others went on meanwhile.
            holder.execute("COMMIT")
            holder.close()
            wait_for(of_bad, 200)
    assert any(b"locked" in body for _, status, body in of_bad if status == 503)
    assert {status for path, status, _ in of_good if "frames" not in path} == {200}
