"""Makes one clip: plans it, reads its frames, decodes, scales, crops, mirrors and augments them into its place.

The decoder, the resize and the copy run without Python's lock. Nothing here knows of threads, processes or batches.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from ingest.errors import VideoError
from loaders.augment import steps
from loaders.augment.fast import FastCut
from loaders.augment.recipe import Drawn
from loaders.augment.reference import run_imgaug
from loaders.clips import ClipPlan, ClipSpec, plan_clip
from loaders.dataset import ClipDataset
from loaders.order import replacements
from loaders.pictures import Part, decode_other, is_jpeg
from loaders.reading import FrameReader, Picture

STAGES = ("read", "decode", "assemble")
MOST_REPLACEMENTS = 10
_GROUP_BYTES = 256 << 10


class ClipError(VideoError):
    """A clip could not be made. Names the video and the frame."""


class Place(NamedTuple):
    """Which sample: item (video and view) `item` of the dataset, place `k` of the epoch's order."""

    item: int
    k: int
    seed: int
    epoch: int


@dataclass(frozen=True)
class Places:
    """Several places of one epoch: `items` and `ks` are int64 (N,)."""

    items: np.ndarray
    ks: np.ndarray
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: slice) -> Places:
        return Places(self.items[rows], self.ks[rows], self.seed, self.epoch)

    def __iter__(self) -> Iterator[Place]:
        for item, k in zip(self.items.tolist(), self.ks.tolist(), strict=True):
            yield Place(item, k, self.seed, self.epoch)


@dataclass(frozen=True)
class BadSample:
    """A clip that could not be made and was replaced: the place in the dataset, and why."""

    video: int
    name: str
    reason: str
    message: str
    frame: int | None


@dataclass
class Made:
    """One finished clip: its plan, what was replaced before it, and what each stage took."""

    plan: ClipPlan
    bad: list[BadSample] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    num_bytes: int = 0


@dataclass(frozen=True)
class Results:
    """What a loader wants to know of finished clips, a row each: arrays, as a process sends them many times a second.

    `videos`, `views`, `labels` int64 (N,), `frames` int64 (N, T), `seconds` float64 (N, stages). `drawn` is what was drawn of
    a recipe. `bad` says what was replaced, of the rows where anything was.
    """

    videos: np.ndarray
    views: np.ndarray
    labels: np.ndarray
    frames: np.ndarray
    seconds: np.ndarray
    num_bytes: int
    drawn: list[Drawn | None]
    bad: dict[int, list[BadSample]]

    @classmethod
    def of(cls, clips: Sequence[Made]) -> Results:
        plans = [made.plan for made in clips]
        return cls(
            videos=np.array([plan.video for plan in plans], np.int64),
            views=np.array([plan.view for plan in plans], np.int64),
            labels=np.array([plan.label for plan in plans], np.int64),
            frames=np.stack([plan.frames for plan in plans]) if plans else np.empty((0, 0), np.int64),
            seconds=np.array([[made.seconds[stage] for stage in STAGES] for made in clips]).reshape(-1, len(STAGES)),
            num_bytes=sum(made.num_bytes for made in clips),
            drawn=[plan.drawn for plan in plans],
            bad={row: made.bad for row, made in enumerate(clips) if made.bad},
        )

    @classmethod
    def joined(cls, parts: Sequence[Results]) -> Results:
        """One after the other."""
        if not parts:
            return cls.of([])
        firsts = np.cumsum([0, *map(len, parts)]).tolist()
        return cls(
            videos=np.concatenate([part.videos for part in parts]),
            views=np.concatenate([part.views for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            frames=np.concatenate([part.frames for part in parts]),
            seconds=np.concatenate([part.seconds for part in parts]),
            num_bytes=sum(part.num_bytes for part in parts),
            drawn=[drawn for part in parts for drawn in part.drawn],
            bad={first + row: bad for first, part in zip(firsts, parts, strict=False) for row, bad in part.bad.items()},
        )

    def __len__(self) -> int:
        return len(self.videos)


class ClipMaker:
    """Makes clips of a dataset, in one thread. `reader` may be shared by the makers of several threads."""

    def __init__(self, dataset: ClipDataset, reader: FrameReader) -> None:
        cv2.setNumThreads(1)  # One clip, one thread: OpenCV's own threads would fight with these.
        self._dataset, self._reader = dataset, reader
        self._scratch = np.empty(0, np.uint8)

    def make(
        self, spec: ClipSpec, place: Place, out: np.ndarray, *, replace_bad: bool, plan: ClipPlan | None = None
    ) -> Made:
        """One clip into `out`, uint8 (T, H, W, C), by its `plan` if that is made already.

        With `replace_bad`, a clip that cannot be made gives way to another that only the place determines.

        Raises: ClipError, of the first clip that could not be made, when it may not be replaced, or ten others fail too.
        """
        bad: list[BadSample] = []
        first: ClipError | None = None
        for item in replacements(place.item, len(self._dataset) * spec.num_views, place.seed, place.epoch, place.k):
            try:
                made = self._make(spec, plan or self.plan(spec, item, place), out)
                made.bad = bad
                return made
            except ClipError as error:
                plan = None
                video = item // spec.num_views
                first = first or error
                bad.append(BadSample(video, self._dataset.name(video), error.reason, error.message, error.frame))
                if not replace_bad or len(bad) > MOST_REPLACEMENTS:
                    break
        assert first is not None
        raise first

    def plan(self, spec: ClipSpec, item: int, place: Place) -> ClipPlan:
        dataset, video = self._dataset, item // spec.num_views
        return plan_clip(
            spec,
            item,
            int(dataset.num_frames[video]),
            dataset.levels(video),
            seed=place.seed,
            epoch=place.epoch,
            k=place.k,
            label=int(dataset.labels[video]),
        )

    def _make(self, spec: ClipSpec, plan: ClipPlan, out: np.ndarray) -> Made:
        made = Made(plan)
        started = time.perf_counter()
        try:
            pictures = self._reader.read(plan.video, plan.level, plan.frames)
        except VideoError as error:
            raise ClipError(error.reason, error.message, error.frame) from error
        made.seconds["read"] = time.perf_counter() - started
        made.num_bytes = sum(map(_num_bytes, pictures))
        cutter = self._cutter(spec, plan)
        try:
            cutter.all_frames(pictures, out, made.seconds)
        except (ValueError, TypeError, cv2.error) as error:
            name, frame = self._dataset.name(plan.video), int(plan.frames[cutter.at])
            raise ClipError("undecodable", f"{name}: level {plan.level.short_side}: {error}", frame) from error
        return made

    def _cutter(self, spec: ClipSpec, plan: ClipPlan) -> _Cutter:
        need = max(plan.level.width * plan.level.height * 3, _GROUP_BYTES)
        if self._scratch.size < need:
            # At an odd address, or libjpeg-turbo would write rows round the cache that are read at once.
            self._scratch = np.empty(need + 1, np.uint8)[1:]
        if plan.drawn is None or spec.executor == "gpu":
            return _Cutter(spec, plan, self._scratch)
        return (_ReferenceCutter if spec.executor == "imgaug" else _FastCutter)(spec, plan, self._scratch)


class _Cutter:
    """The frames of one clip: all geometry is worked out once, per frame remain decode, resize and copy.

    Of JPEGs of the level's size, only what lies under the crop is decoded, where that can be done.
    """

    def __init__(self, spec: ClipSpec, plan: ClipPlan, scratch: np.ndarray) -> None:
        self._spec, self._plan, self._scratch = spec, plan, scratch
        self._min_size = (0, 0) if spec.exact or spec.geometry == "recipe" else plan.scaled
        self.at = 0
        self._is_scratch = False
        self._part = self._part_of_level()

    def _part_of_level(self) -> Part | None:
        """What the clip needs of a picture of its level; None where it needs all, or the decoder is to scale it."""
        plan, level = self._plan, self._plan.level
        if self._spec.exact or self._spec.geometry == "recipe":
            return None
        if -(-level.height // 2) >= plan.scaled[0] and -(-level.width // 2) >= plan.scaled[1]:
            return None
        top, left, bottom, right = self._box((level.height, level.width))
        return Part(level.width, level.height, left, top, right - left, bottom - top)

    def _box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Top, left, bottom and right of what lies under the crop, in a picture of `size` (height, width)."""
        (top, left), (height, width) = self._plan.offset, (self._spec.height, self._spec.width)
        fy, fx = size[0] / self._plan.scaled[0], size[1] / self._plan.scaled[1]
        y0, y1 = round(top * fy), round((top + height) * fy)
        x0, x1 = round(left * fx), round((left + width) * fx)
        return y0, x0, max(y1, y0 + 1), max(x1, x0 + 1)

    def _interpolation(self, height: int, width: int) -> int:
        """For a picture of that size."""
        shrunk = max(height / self._plan.scaled[0], width / self._plan.scaled[1])
        return cv2.INTER_AREA if shrunk > 2 else cv2.INTER_LINEAR

    def all_frames(self, pictures: Sequence[Picture], out: np.ndarray, seconds: dict[str, float]) -> None:
        """`at` says which frame was worked on when something was raised."""
        done = -1
        clock = time.perf_counter
        num_finished = self._all_parts(pictures, out, seconds)
        for t, (frame, picture) in enumerate(zip(self._plan.frames, pictures, strict=True)):
            if t < num_finished:
                continue
            self.at = t
            if frame == done:  # a short video repeats its frames
                out[t] = out[t - 1]
                continue
            started = clock()
            image = self._decode(picture)
            decoded = clock()
            self._cut(image, out[t])
            seconds["decode"] += decoded - started
            seconds["assemble"] += clock() - decoded
            done = frame

    def _all_parts(self, pictures: Sequence[Picture], out: np.ndarray, seconds: dict[str, float]) -> int:
        """Frames of which the part under the crop could be decoded alone: how many are finished, from the first on."""
        part, clock = self._part, time.perf_counter
        if part is None or any(map(operator.is_, pictures, pictures[1:])):  # a short video repeats its frames
            return 0
        size, in_place = out.shape[2:0:-1], out.shape[1:3] == (part.rows, part.columns)
        interpolation = self._interpolation(part.height, part.width)
        frame_bytes = part.rows * part.columns * 3
        # Some frames at a time, as many as a cache holds until they are scaled or mirrored.
        step = max(_GROUP_BYTES // frame_bytes, 1)
        for first in range(0, len(out), step):
            some, target = pictures[first : first + step], out[first : first + step]
            started = clock()
            if not in_place:
                shape = (len(some), part.rows, part.columns, 3)
                image = self._scratch[: len(some) * frame_bytes].reshape(shape)
            num_decoded = part.decode(some, target if in_place else image, self._spec.colour)
            decoded = clock()
            for t in range(num_decoded):
                if not in_place:
                    cv2.resize(image[t], size, dst=target[t], interpolation=interpolation)
                if self._plan.mirror:  # In place, as what was just written is still in the cache.
                    cv2.flip(target[t], 1, dst=target[t])
            seconds["decode"] += decoded - started
            seconds["assemble"] += clock() - decoded
            if num_decoded < len(some):
                return first + num_decoded
        return len(out)

    def _decode(self, picture: Picture) -> np.ndarray:
        """uint8 (H, W, 3), which may be scratch memory."""
        self._is_scratch = not isinstance(picture, np.ndarray)
        if isinstance(picture, np.ndarray):
            return picture if self._spec.colour == "RGB" else picture[..., ::-1]
        if not is_jpeg(picture):
            return decode_other(picture, self._spec.colour)
        exact = self._spec.exact
        return simplejpeg.decode_jpeg(
            picture,
            self._spec.colour,
            fastdct=not exact,
            fastupsample=not exact,
            min_height=self._min_size[0],
            min_width=self._min_size[1],
            min_factor=2,
            buffer=self._scratch,
        )

    def _cut(self, image: np.ndarray, out: np.ndarray) -> None:
        """Scale, crop and mirror `image` (H, W, C) into `out`."""
        plan, (height, width) = self._plan, out.shape[:2]
        top, left = plan.offset
        if image.shape[:2] == plan.scaled:
            _copy(image[top : top + height, left : left + width], out, plan.mirror, self._is_scratch)
            return
        interpolation = self._interpolation(*image.shape[:2])
        if self._spec.exact:
            whole = cv2.resize(image, plan.scaled[::-1], interpolation=interpolation)
            _copy(whole[top : top + height, left : left + width], out, plan.mirror, True)
            return
        y0, x0, y1, x1 = self._box(image.shape[:2])
        cv2.resize(image[y0:y1, x0:x1], (width, height), dst=out, interpolation=interpolation)
        if plan.mirror:
            cv2.flip(out, 1, dst=out)


class _FastCutter(_Cutter):
    """With a recipe: one warp from decoded to final pixels, then colour and blur on the clip.

    A clip whose geometry the recipe leaves alone is cut as without one, which is cheaper than a warp.
    """

    def __init__(self, spec: ClipSpec, plan: ClipPlan, scratch: np.ndarray) -> None:
        assert plan.drawn is not None
        self._fast = FastCut(plan.drawn, plan.scaled, plan.offset, plan.mirror)
        self._warped = any(isinstance(step, steps.Geometry) for step in plan.drawn.steps)
        super().__init__(spec, plan, scratch)

    def _part_of_level(self) -> Part | None:
        return None if self._warped else super()._part_of_level()

    def all_frames(self, pictures: Sequence[Picture], out: np.ndarray, seconds: dict[str, float]) -> None:
        super().all_frames(pictures, out, seconds)
        started = time.perf_counter()
        self._fast.finish(out)
        seconds["assemble"] += time.perf_counter() - started

    def _cut(self, image: np.ndarray, out: np.ndarray) -> None:
        if self._warped:
            self._fast.cut(image, out)
        else:
            super()._cut(image, out)


class _ReferenceCutter(_Cutter):
    """With a recipe, by imgaug, after the loader's own geometry."""

    def all_frames(self, pictures: Sequence[Picture], out: np.ndarray, seconds: dict[str, float]) -> None:
        drawn = self._plan.drawn
        assert drawn is not None
        clip = np.empty((len(pictures), *drawn.shape.size, 3), np.uint8)
        super().all_frames(pictures, clip, seconds)
        started = time.perf_counter()
        out[...] = run_imgaug(clip, drawn)
        seconds["assemble"] += time.perf_counter() - started


def _num_bytes(picture: Picture) -> int:
    return picture.nbytes if isinstance(picture, np.ndarray) else len(picture) if isinstance(picture, bytes) else 0


def _copy(image: np.ndarray, out: np.ndarray, mirror: bool, scratch: bool) -> None:
    """`image` into `out`. If it is `scratch`, it may be changed."""
    if mirror:
        # First: it writes backwards, which takes three times as long into memory that no cache holds. In place, where the
        # picture is scratch and not a part of a store.
        image = cv2.flip(image, 1, dst=image if scratch else None)
    out[...] = image
