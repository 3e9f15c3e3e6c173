"""The clip engine on DALI: our order, reader, plans and replacements; DALI decodes, cuts and resizes.

A few threads read; one hands frames to DALI, on the GPU where there is one, in whose memory the slots lie then.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np
import simplejpeg
import torch

from ingest.errors import ClipmillError
from ingest.stores import frames_npy, video_file
from loaders.clips import ClipPlan, ClipSpec
from loaders.dali_pipeline import Cuts, DaliError, Decoder, cuts_of, import_dali
from loaders.dataset import ClipDataset
from loaders.engine import Slot, torch_slot
from loaders.making import ClipMaker, Made, Place, Places, Results, _Cutter
from loaders.pictures import is_jpeg
from loaders.reading import FrameReader, Picture

_END_OF_JPEG = b"\xff\xd9"
_NO_PIXELS = np.empty(0, np.uint8)
_MOST_REFUSED = 3  # Batches in a row that only DALI cannot decode: then it is not the pictures.


def check_dali_can(dataset: ClipDataset, spec: ClipSpec) -> None:
    """Raises: ClipmillError for stores without JPEG frames, and for recipes that need single clips."""
    if dataset.store in (frames_npy.STORE, video_file.STORE):
        raise _no_jpeg(f"the store {dataset.store} of {dataset.root}")
    if spec.geometry == "recipe":
        raise ClipmillError(
            "a recipe that scales and crops by itself (geometry 'recipe') does not go with the backend dali.",
            "DALI cuts and resizes the clips.",
            "Take geometry='loader', or backend='cpu'.",
        )
    if spec.augment is not None and spec.executor != "gpu":
        raise ClipmillError(
            f"the executor {spec.executor!r} does not go with the backend dali.",
            "It works on single clips in the decoder; with DALI a recipe is carried out on whole batches.",
            "Take executor='gpu' (torch; it runs on a CPU too), or backend='cpu'.",
        )


def _no_jpeg(what: str) -> ClipmillError:
    return ClipmillError(
        f"{what} holds no JPEG frames.",
        "The backend dali decodes nothing else here.",
        "Load it with backend='cpu'; or convert the videos: clipmill ingest convert.",
    )


@dataclass
class _Fetched:
    """One clip, still encoded."""

    made: Made
    pictures: Sequence[bytes]
    sizes: np.ndarray


class _Looker(_Cutter):
    """In place of decoding: are the pictures JPEG files from beginning to end, and how large?

    With `thorough` they are decoded by the CPU engine's decoder and thrown away: whatever it refuses is found, with its
    words.
    """

    thorough = False

    def all_frames(self, pictures: Sequence[Picture], out: np.ndarray, seconds: dict[str, float]) -> None:
        sizes = []
        for self.at, picture in enumerate(pictures):
            sizes.append(self._size(picture))
        self.pictures, self.sizes = pictures, np.array(sizes)

    def _size(self, picture: Picture) -> tuple[int, int]:
        if not isinstance(picture, bytes) or not is_jpeg(picture):
            self._decode(picture)  # What is no picture at all is refused here, as by the CPU engine.
            raise _no_jpeg("the data set")
        height, width, _, _ = simplejpeg.decode_jpeg_header(picture)
        as_stored = (height, width) == (self._plan.level.height, self._plan.level.width)
        if self.thorough or not as_stored or not picture.endswith(_END_OF_JPEG):
            self._decode(picture)
        return height, width


class _Fetcher(ClipMaker):
    """Plans, reads and replaces as the CPU engine does, and leaves the pictures encoded."""

    def fetch(self, spec: ClipSpec, place: Place, *, replace_bad: bool, thorough: bool) -> _Fetched:
        self._thorough = thorough
        made = self.make(spec, place, _NO_PIXELS, replace_bad=replace_bad)
        return _Fetched(made, self._looker.pictures, self._looker.sizes)  # type: ignore[arg-type]

    def _cutter(self, spec: ClipSpec, plan: ClipPlan) -> _Looker:
        super()._cutter(spec, plan)  # for its scratch memory
        self._looker = _Looker(spec, plan, self._scratch)
        self._looker.thorough = self._thorough
        return self._looker


@dataclass
class _Batch:
    """A batch that is being made; see `engine.Pending`."""

    slot: Slot
    spec: ClipSpec
    places: Places
    replace_bad: bool
    fetching: list[Future[_Fetched]]
    stopped: threading.Event = field(default_factory=threading.Event)
    decoding: Future[Results] = field(init=False)

    def result(self) -> Results:
        return self.decoding.result()

    def is_ready(self) -> bool:
        return self.decoding.done()

    def cancel(self) -> None:
        self.stopped.set()
        begun: list[Future] = [future for future in self.fetching if not future.cancel()]
        if not self.decoding.cancel():
            begun.append(self.decoding)
        wait_for(begun)


class _Stopped(Exception):
    """The batch is not wanted any more."""


class DaliEngine:
    """`num_workers` threads that read and as many of DALI's own, and `num_slots` slots. See `engine.Engine`."""

    def __init__(self, dataset: ClipDataset, *, num_workers: int, num_slots: int, slot_bytes: int) -> None:
        import_dali()
        self._dataset, self._num_workers = dataset, num_workers
        gpu = torch.cuda.is_available()
        self.device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
        self._reader = FrameReader(dataset, num_workers + 1)
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(num_workers, thread_name_prefix="clipmill-read")
        self._feeder = ThreadPoolExecutor(1, thread_name_prefix="clipmill-dali")
        if gpu:
            self._feeder.submit(torch.cuda.set_device, self.device)
        self._decoders: dict[tuple[bool, str], Decoder] = {}
        self._num_refused = 0
        self._closed = threading.Event()
        self.free: SimpleQueue[Slot] = SimpleQueue()
        for index in range(num_slots):
            memory = torch.empty(slot_bytes, dtype=torch.uint8, device=self.device) if gpu else None
            self.free.put(torch_slot(index, slot_bytes) if memory is None else Slot(index, memory, _NO_PIXELS))

    def submit(self, slot: Slot, spec: ClipSpec, places: Places, *, replace_bad: bool) -> _Batch:
        fetching = [self._readers.submit(self._fetch, spec, place, replace_bad, False) for place in places]
        batch = _Batch(slot, spec, places, replace_bad, fetching)
        batch.decoding = self._feeder.submit(self._make, batch)
        return batch

    def close(self) -> None:
        """The frames that DALI has at hand are finished, all else is dropped; DALI's threads end."""
        self._closed.set()
        self._feeder.shutdown(wait=False, cancel_futures=True)
        self._readers.shutdown(wait=True, cancel_futures=True)
        self._feeder.shutdown(wait=True)
        for decoder in self._decoders.values():
            decoder.close()
        self._reader.close()

    def _fetch(self, spec: ClipSpec, place: Place, replace_bad: bool, thorough: bool) -> _Fetched:
        fetcher: _Fetcher | None = getattr(self._local, "fetcher", None)
        if fetcher is None:
            fetcher = self._local.fetcher = _Fetcher(self._dataset, self._reader)
        return fetcher.fetch(spec, place, replace_bad=replace_bad, thorough=thorough)

    def _make(self, batch: _Batch) -> Results:
        """The feeder's work on one batch: as cheaply as it goes, and thoroughly once anything is wrong.

        What is replaced is the same as in the CPU engine, and so is the error that comes first.
        """
        try:
            made = self._decoded(batch, [self._wait(batch, future) for future in batch.fetching])
        except Exception:
            self._go_on(batch)
            try:
                made = self._decoded(batch, [self._thorough(batch, place) for place in batch.places])
            except DaliError as error:
                return Results.of(self._by_cpu(batch, error))
        self._num_refused = 0
        batch.fetching = []  # The encoded pictures are not needed any more.
        return Results.of(made)

    def _wait(self, batch: _Batch, future: Future[_Fetched]) -> _Fetched:
        self._go_on(batch)
        return future.result()

    def _thorough(self, batch: _Batch, place: Place) -> _Fetched:
        self._go_on(batch)
        return self._fetch(batch.spec, place, batch.replace_bad, True)

    def _go_on(self, batch: _Batch) -> None:
        if batch.stopped.is_set() or self._closed.is_set():
            raise _Stopped

    def _decoded(self, batch: _Batch, clips: Sequence[_Fetched]) -> list[Made]:
        spec = batch.spec
        if not clips:
            return []
        decoder = self._decoder(spec)
        cuts = Cuts.joined([cuts_of(spec, clip.made.plan, clip.sizes, whole=decoder.whole) for clip in clips])
        pictures = [picture for clip in clips for picture in clip.pictures]
        frames = batch.slot.frames(len(clips), spec).flatten(0, 1)
        decode_s = copy_s = 0.0
        for part in decoder.parts(cuts):
            self._go_on(batch)
            seconds = decoder.run(pictures[part], cuts[part], frames[part])
            decode_s, copy_s = decode_s + seconds[0], copy_s + seconds[1]
        for clip in clips:  # All of DALI's threads are taken to be busy while it runs.
            clip.made.seconds["decode"] += decode_s * self._num_workers / len(clips)
            clip.made.seconds["assemble"] += copy_s / len(clips)
        return [clip.made for clip in clips]

    def _decoder(self, spec: ClipSpec) -> Decoder:
        key = (spec.exact, spec.colour)
        if key not in self._decoders:
            self._decoders[key] = Decoder(self.device, self._num_workers, exact=spec.exact, bgr=spec.colour == "BGR")
        return self._decoders[key]

    def _by_cpu(self, batch: _Batch, error: DaliError) -> list[Made]:
        """Every picture is sound, and DALI does not take them: the CPU engine's decoder does.

        Raises: DaliError when that happens to one batch after the other.
        """
        self._num_refused += 1
        if self._num_refused > _MOST_REFUSED:
            raise error
        warnings.warn(f"DALI refused a batch of sound frames, which was decoded on the CPU: {error}", stacklevel=2)
        spec, maker = batch.spec, ClipMaker(self._dataset, self._reader)
        clips = np.empty((len(batch.places), spec.num_frames, spec.height, spec.width, 3), np.uint8)
        made = []
        for place, clip in zip(batch.places, clips, strict=True):
            self._go_on(batch)
            made.append(maker.make(spec, place, clip, replace_bad=batch.replace_bad))
        batch.slot.frames(len(clips), spec).copy_(torch.from_numpy(clips))
        return made
