"""The clip engine in processes of its own: decoders that no trainer's Python can hold up, and that hold up no trainer.

Slots lie in memory without a name, which all processes map: nothing is left of it, whoever is killed. Work goes out in
parts of a batch, two per process at a time, results come back as small messages. A process that dies is replaced and its
parts are made again; they are pure functions of their places.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import multiprocessing
import os
import pickle
import selectors
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import numpy as np

from ingest.errors import ClipmillError
from ingest.executors import WorkerTraceback, die_with_parent, ignoring_sigint, portable
from loaders.clips import ClipSpec
from loaders.dataset import ClipDataset
from loaders.making import ClipMaker, Places, Results
from loaders.reading import FrameReader

# Of one batch: each costs a message there and back, which four times as many made a tenth dearer.
_PARTS_PER_WORKER = 1
_AHEAD = 2  # Parts that a process has at hand, so that it never waits for this one.
_MOST_DEATHS = 3  # Of processes in a row without a part done: then it is not chance.


@dataclass(eq=False)
class _Part:
    """Some places of one batch, to be made into slot bytes from `offset`."""

    batch: _Batch
    first: int
    offset: int
    spec: ClipSpec
    places: Places
    replace_bad: bool

    @property
    def message(self) -> tuple[Any, ...]:
        return self.offset, self.spec, self.places, self.replace_bad


@dataclass(eq=False)
class _Batch:
    """A batch that is being made; see `engine.Pending`."""

    engine: ProcessEngine
    num_left: int
    made: dict[int, Results] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def result(self) -> Results:
        with self.changed:
            self.changed.wait_for(lambda: self.num_left == 0)
        if self.errors:  # The first place's is the one to tell, whichever part came back first.
            raise self.errors[min(self.errors)]
        return Results.joined([self.made[first] for first in sorted(self.made)])

    def is_ready(self) -> bool:
        return self.num_left == 0

    def cancel(self) -> None:
        self.engine.drop(self)
        with self.changed:
            self.changed.wait_for(lambda: self.num_left == 0)

    def done(self, part: _Part, results: Results | None, error: BaseException | None) -> None:
        with self.changed:
            if results is not None:
                self.made[part.first] = results
            if error is not None:
                self.errors[part.first] = error
            self.num_left -= len(part.places)
            self.changed.notify_all()


class ProcessEngine:
    """`num_workers` processes and `num_slots` slots of `slot_bytes`. See `engine.Engine`."""

    def __init__(self, dataset: ClipDataset, *, num_workers: int, num_slots: int, slot_bytes: int) -> None:
        from loaders.engine import Slot  # Not above: the decoders need no torch, and start faster without.

        self._dataset = dataset
        self._file = _nameless_file(num_slots * slot_bytes)
        self._map = mmap.mmap(self._file, num_slots * slot_bytes)
        self._memory = memory = _as_tensor(self._map)
        self.free: SimpleQueue[Slot] = SimpleQueue()
        for index in range(num_slots):
            part = memory[index * slot_bytes : (index + 1) * slot_bytes]
            self.free.put(Slot(index, part, part.numpy()))
        self._slot_bytes = slot_bytes
        self._waiting: deque[_Part] = deque()
        self._lock = threading.Lock()
        self._deaths = 0
        self._closed = False
        self._woken, self._wake = multiprocessing.Pipe(duplex=False)
        self._workers = [_Worker(dataset, self._file, num_slots * slot_bytes) for _ in range(num_workers)]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        for worker in self._workers:
            self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        self._pump = threading.Thread(target=self._run, name="clipmill-pump", daemon=True)
        self._pump.start()

    def submit(self, slot: Any, spec: ClipSpec, places: Places, *, replace_bad: bool) -> _Batch:
        if self._closed:
            raise RuntimeError("the engine is closed")
        batch = _Batch(self, len(places))
        size = max(-(-len(places) // (_PARTS_PER_WORKER * len(self._workers))), 1)
        with self._lock:
            for first in range(0, len(places), size):
                offset = slot.index * self._slot_bytes + first * spec.clip_bytes
                self._waiting.append(_Part(batch, first, offset, spec, places[first : first + size], replace_bad))
        self._wake.send_bytes(b"w")
        return batch

    def drop(self, batch: _Batch) -> None:
        """Take back what no process has begun."""
        with self._lock:
            dropped = [part for part in self._waiting if part.batch is batch]
            for part in dropped:
                self._waiting.remove(part)
        for part in dropped:
            batch.done(part, None, None)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._wake.send_bytes(b"x")
        self._pump.join()
        self._selector.close()
        for worker in self._workers:
            worker.stop()
        error = RuntimeError("the loader was closed while a batch was being made")
        for part in [*self._waiting, *(part for worker in self._workers for part in worker.parts)]:
            part.batch.done(part, None, error)
        self._waiting.clear()
        os.close(self._file)
        _unpin(self._memory)

    def processes(self) -> list[int]:
        """Process ids of the decoders."""
        return [worker.process.pid for worker in self._workers]

    def _run(self) -> None:
        """The pump: hands out parts, takes in results, replaces the dead. Ends with `close`."""
        try:
            while not self._closed:
                self._hand_out()
                for key, _ in self._selector.select():
                    if key.data is None:
                        self._woken.recv_bytes()
                    else:
                        self._take_in(key.data)
        except BaseException as error:  # A bug here must not leave the trainer waiting for ever.
            self._fail_all(error)

    def _hand_out(self) -> None:
        for _ in range(_AHEAD):  # One round after the other, so that all have something before one has more.
            for worker in self._workers:
                if len(worker.parts) < _AHEAD:
                    with self._lock:
                        part = self._waiting.popleft() if self._waiting else None
                    if part is None:
                        return
                    worker.give(part)

    def _take_in(self, worker: _Worker) -> None:
        try:
            results, error, trace = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        self._deaths = 0
        part = worker.parts.popleft()
        if error is not None and trace:
            error.__cause__ = WorkerTraceback(trace)
        part.batch.done(part, results, error)

    def _replace(self, worker: _Worker) -> None:
        """A process is gone: its parts are made again by a new one."""
        code = worker.process.wait()
        self._deaths += 1
        if self._deaths > _MOST_DEATHS * len(self._workers):
            raise RuntimeError(f"the loader's processes die again and again, the last with exit code {code}")
        with self._lock:
            self._waiting.extendleft(reversed(worker.parts))
        self._selector.unregister(worker.connection)
        worker.stop()
        new = _Worker(self._dataset, self._file, len(self._map))
        self._workers[self._workers.index(worker)] = new
        self._selector.register(new.connection, selectors.EVENT_READ, new)

    def _fail_all(self, error: BaseException) -> None:
        with self._lock:
            parts = [*self._waiting, *(part for worker in self._workers for part in worker.parts)]
            self._waiting.clear()
        for worker in self._workers:
            worker.parts.clear()
        for part in parts:
            part.batch.done(part, None, error)


class _Worker:
    """One decoder process, the pipe to it, and the parts it has at hand.

    A program of its own, and not `multiprocessing`'s: that would run the trainer's script once more in every process,
    unless the script guards against it.
    """

    def __init__(self, dataset: ClipDataset, file: int, num_bytes: int) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        alive, self._lifeline = multiprocessing.Pipe(duplex=False)
        self.parts: deque[_Part] = deque()
        passed = (theirs.fileno(), alive.fileno(), file)
        with ignoring_sigint():
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), *map(str, passed)],
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
            )
        theirs.close()
        alive.close()
        self._send((num_bytes, dataset))

    def give(self, part: _Part) -> None:
        self.parts.append(part)
        self._send(part.message)

    def _send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # One that died meanwhile shows as end of file on the next read.
            self.connection.send(message)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self._lifeline.close()


_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from loaders.processes import serve
serve(*map(int, sys.argv[2:]))
"""


def serve(theirs: int, alive: int, file: int) -> None:
    """Body of a decoder: parts in, finished clips into the slots, what is known of them out; until the parent is gone.

    Given are file descriptors: of the pipe to talk through, of one that ends with the parent, of the slots' memory.
    """
    threading.Thread(target=die_with_parent, args=(Connection(alive),), daemon=True).start()
    connection = Connection(theirs)
    begun = connection.recv_bytes()
    maker: ClipMaker | None = None
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        results, error, trace = None, None, ""
        try:
            if maker is None:
                num_bytes, dataset = _unpacked(begun)
                memory = np.frombuffer(mmap.mmap(file, num_bytes), np.uint8)
                maker = ClipMaker(dataset, FrameReader(dataset))
            offset, spec, places, replace_bad = _unpacked(message)
            end = offset + len(places) * spec.clip_bytes
            frames = memory[offset:end].reshape(len(places), spec.num_frames, spec.height, spec.width, 3)
            # All plans first: between two clips, decoding would drive what a plan needs out of the cache each time.
            plans = [maker.plan(spec, place.item, place) for place in places]
            results = Results.of(
                [
                    maker.make(spec, place, out, replace_bad=replace_bad, plan=plan)
                    for place, plan, out in zip(places, plans, frames, strict=True)
                ]
            )
        except Exception as raised:
            error, trace = portable(raised), "\n" + traceback.format_exc()
        connection.send((results, error, trace))


def _unpacked(message: bytes) -> Any:
    try:
        return pickle.loads(message)
    except (AttributeError, ImportError) as error:
        raise ClipmillError(
            f"a decoder process cannot rebuild what it is to make: {error}.",
            "Classes and functions of the script itself are not known there.",
            "Move them into a module that can be imported, or load with workers='threads'.",
        ) from None


def _nameless_file(num_bytes: int) -> int:
    """Memory as an open file: of no file system where the system has such, else of a file that is unlinked already."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("clipmill-slots")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, num_bytes)
    return file


def _as_tensor(memory: mmap.mmap) -> Any:
    """The memory as uint8 (bytes,), registered with the driver where there is a GPU, so that copies need not wait."""
    import torch

    tensor = torch.frombuffer(memory, dtype=torch.uint8)
    if torch.cuda.is_available():
        code = torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), tensor.numel(), 0)
        if int(code) != 0:
            raise RuntimeError(f"the slots' memory cannot be pinned (CUDA error {int(code)})")
    return tensor


def _unpin(tensor: Any) -> None:
    """Before the memory goes: the driver must not hold on to it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.cudart().cudaHostUnregister(tensor.data_ptr())
