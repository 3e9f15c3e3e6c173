"""Decoders in processes: the same stream as in threads, whoever dies, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loaders import ClipDataset, ClipError, ClipLoader
from loaders.processes import ProcessEngine
from tests.conftest import REPOSITORY
from tests.loaders.conftest import MakeLoader
from tests.loaders.samples import digest, evaluation_spec, training_spec


def wait_until(is_so: Callable[[], bool], limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def engine_of(loader: ClipLoader) -> ProcessEngine:
    assert isinstance(loader._engine, ProcessEngine)
    return loader._engine


@pytest.mark.parametrize("spec", [training_spec(), evaluation_spec()], ids=["training", "evaluation"])
def test_the_stream_is_that_of_threads_for_any_number_of_processes(make_loader: MakeLoader, spec) -> None:
    expected = [digest(batch) for batch in make_loader(spec, batch_size=5)]
    for num_workers, depth in ((1, 2), (3, 0)):
        loader = make_loader(spec, batch_size=5, workers="processes", num_workers=num_workers, depth=depth)
        assert [digest(batch) for batch in loader] == expected


def test_a_stream_begun_in_threads_goes_on_in_processes(make_loader: MakeLoader) -> None:
    whole = [digest(batch) for batch in make_loader(batch_size=2)]
    first = make_loader(batch_size=2)
    for batch in first:
        if batch.position == 4:
            break
    second = make_loader(batch_size=2, workers="processes")
    second.load_state_dict(first.state_dict())
    assert [digest(batch) for batch in second] == whole[3:]


def test_a_killed_process_is_replaced_and_nothing_is_lost_or_changed(make_loader: MakeLoader) -> None:
    expected = [digest(batch) for _ in range(3) for batch in make_loader(batch_size=3)][: 3 * 4]
    loader = make_loader(batch_size=3, workers="processes", num_workers=2)
    got, killed = [], []
    for epoch in range(3):
        for batch in loader:
            if len(got) in (1, 5, 6):
                killed.append(engine_of(loader).processes()[len(got) % 2])
                os.kill(killed[-1], signal.SIGKILL)
            got.append(digest(batch))
        assert loader.epoch == epoch + 1
    again = make_loader(batch_size=3)
    assert got == [digest(batch) for _ in range(3) for batch in again]
    assert expected[:4] == got[:4]
    assert len(killed) == 3
    assert not set(killed) & set(engine_of(loader).processes())


def test_all_processes_killed_at_once_are_replaced(make_loader: MakeLoader) -> None:
    loader = make_loader(batch_size=4, workers="processes", num_workers=2)
    expected = [digest(batch) for batch in make_loader(batch_size=4)]
    for pid in engine_of(loader).processes():
        os.kill(pid, signal.SIGKILL)
    assert [digest(batch) for batch in loader] == expected


def test_processes_that_die_again_and_again_are_an_error_and_no_endless_loop(make_loader: MakeLoader) -> None:
    loader = make_loader(batch_size=2, workers="processes", num_workers=1)
    stop = threading.Event()

    def kill() -> None:
        while not stop.is_set():
            for pid in engine_of(loader).processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(RuntimeError, match="die again and again"):
            for _ in range(1000):
                for _ in loader:
                    pass
    finally:
        stop.set()
        killer.join()


def test_close_ends_the_processes_within_a_second_even_in_the_middle_of_a_batch(make_loader: MakeLoader) -> None:
    loader = make_loader(batch_size=4, workers="processes")
    next(iter(loader))
    pids = engine_of(loader).processes()
    assert all(map(alive, pids))
    started = time.monotonic()
    loader.close()
    assert time.monotonic() - started < 1
    assert not any(map(alive, pids))
    assert not [thread for thread in threading.enumerate() if thread.name == "clipmill-pump"]


def test_a_batch_may_be_kept_after_close(make_loader: MakeLoader) -> None:
    loader = make_loader(batch_size=4, workers="processes")
    batch = next(iter(loader))
    before = digest(batch)
    loader.close()
    assert digest(batch) == before


def test_an_error_of_a_process_names_video_and_frame_and_comes_in_order(root_copy: Path, make_loader: MakeLoader):
    from tests.loaders.test_faults import change, database

    for table in ("Images", "Images_36"):
        change(database(root_copy), f"UPDATE {table} SET frames = ? WHERE frame >= 15", b"no jpeg")
    errors = []
    for workers in ("threads", "processes"):
        loader = make_loader(at=root_copy, workers=workers, batch_size=6)
        with pytest.raises(ClipError) as caught:
            for _ in range(30):
                for _ in loader:
                    pass
        errors.append((str(caught.value), caught.value.frame, loader.state_dict()))
    assert errors[0] == errors[1]
    assert "undecodable: pear tree/wide4" in errors[0][0]


def test_what_is_no_fault_of_a_video_is_raised_with_the_traceback_of_the_process(make_loader: MakeLoader) -> None:
    from loaders.augment.crops import CentreCrop
    from loaders.augment.recipe import Recipe

    spec = training_spec(augment=Recipe((CentreCrop(20, 20),), "too-small"))
    loader = make_loader(spec, workers="processes")
    with pytest.raises(ValueError, match="too-small makes 20x20 px") as caught:
        next(iter(loader))
    assert "_drawn" in str(caught.value.__cause__)


_TRAINER = """
import sys, time
from loaders import ClipDataset, ClipLoader
from tests.loaders.samples import training_spec
if __name__ == "__main__":
    loader = ClipLoader(ClipDataset(sys.argv[1]), training_spec(), batch_size=2, num_workers=2)
    batches = iter(loader)
    next(batches)
    try:
        print(*loader._engine.processes(), flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        started = time.monotonic()
        loader.close()
        print("closed", time.monotonic() - started < 1, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_trainer_that_ends_takes_its_processes_along_and_leaves_no_memory(root: Path, number: signal.Signals) -> None:
    shared = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").exists() else set()
    trainer = subprocess.Popen(
        [sys.executable, "-c", _TRAINER, str(root)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert trainer.stdout is not None
    pids = [int(word) for word in trainer.stdout.readline().split()]
    assert len(pids) == 2
    if number == signal.SIGINT:
        os.killpg(trainer.pid, number)  # Ctrl-C goes to all of them; the decoders leave it to the trainer.
        assert trainer.stdout.readline() == "closed True\n"
    else:
        os.kill(trainer.pid, number)
    trainer.wait(10)
    wait_until(lambda: not any(map(alive, pids)), 5)
    if shared:
        assert set(Path("/dev/shm").iterdir()) <= shared


_SCRIPT = """
import sys
from dataclasses import dataclass
import numpy as np
from loaders import ClipDataset, ClipLoader, RandomInterval
from tests.loaders.samples import training_spec
print("once")
@dataclass(frozen=True)
class Mine(RandomInterval):
    pass
sampler = Mine(4) if sys.argv[2] == "mine" else RandomInterval(4)
with ClipLoader(ClipDataset(sys.argv[1]), training_spec(sampler=sampler), batch_size=4, num_workers=2) as loader:
    print(sum(len(batch) for batch in loader))
"""


def test_a_script_needs_no_guard_against_being_run_again(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(_SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, script, root, "plain"], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("once\n12\n", "")


def test_what_only_the_script_knows_is_a_clear_error(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(_SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, script, root, "mine"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "load with workers='threads'" in done.stderr


def test_decoders_do_without_torch() -> None:
    code = "import sys, loaders.processes, loaders.making; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_what_cannot_be_asked_for_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="workers are 'fibres'"):
        ClipLoader(ClipDataset(root), training_spec(), batch_size=1, workers="fibres")  # type: ignore[arg-type]
