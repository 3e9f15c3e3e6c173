"""Checkpoints are whole or absent, safe to load, and say why they do not fit."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from ingest.errors import ClipmillError
from trainers.engine import checkpoints
from trainers.engine.checkpoints import CheckpointFolder, config_difference, read
from trainers.engine.logs import CsvLog, read_csv


def test_the_newest_are_kept_and_the_best_besides(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        folder.save({"step": step}, step, best=step == 1)
    assert [path.name for path in folder.all()] == ["step_00000003.pt", "step_00000004.pt"]
    assert read(tmp_path / "best.pt")["step"] == 1
    newest = folder.newest()
    assert newest is not None and read(newest)["step"] == 4


def test_a_write_that_fails_leaves_the_old_checkpoint_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    folder.save({"step": 1}, 1)
    before = (tmp_path / "step_00000001.pt").read_bytes()

    def half(state: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", half)
    with pytest.raises(OSError, match="No space"):
        folder.save({"step": 1}, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.pt"]
    assert (tmp_path / "step_00000001.pt").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_refused_with_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(ClipmillError, match="cannot be read"):
        read(path)


def test_a_file_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"version": 1, "x": Evil()}, tmp_path / "x.pt", pickle_module=pickle)
    with pytest.raises(ClipmillError):
        read(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_something_else_is_told_apart(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(ClipmillError, match="not a checkpoint of this Clipmill") as error:
        read(tmp_path / "x.pt")
    assert "--init" in error.value.next_step


def test_config_difference_names_every_leaf() -> None:
    old = {"a": {"x": 1, "y": 2}, "b": 3}
    new = {"a": {"x": 1, "y": 5}, "c": 4}
    assert config_difference(old, new) == ["a.y: 2 -> 5", "b: 3 -> None", "c: None -> 4"]


def test_log_drops_what_a_resumed_run_writes_again_and_a_line_cut_short(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv", ("step", "loss"))
    log.start(before_step=0)
    for step in range(4):
        log.add({"step": step, "loss": 0.1 + step})
    log.flush()
    with log.path.open("a") as file:
        file.write("4")
    again = CsvLog(tmp_path / "log.csv", ("step", "loss"))
    again.start(before_step=2)
    again.add({"step": 2, "loss": 1 / 3})
    again.flush()
    rows = read_csv(log.path)
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert float(rows[2]["loss"]) == 1 / 3
