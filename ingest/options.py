"""What is stored of a video, and how: the options of a conversion, and the line of settings that stands for them.

A settings line says all that decides what one store holds: the same line means the same content. It is kept in the
catalog and in the store itself, and can be read back into options.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ingest.catalog import VideoKey
from ingest.errors import ClipmillError
from ingest.pictures import CHROMA, CODECS, Codec
from ingest.plan import Job
from ingest.stores import frames_db, frames_npy, raw_frames

STORES = (frames_db.STORE, frames_npy.STORE, raw_frames.STORE)
"""In the order in which they are written, and in which their settings stand in a line."""

SETTINGS_SEPARATOR = " | "
"""Stands between the lines of several stores in the settings of a video."""

Aspect = Literal["keep", "square"]


@dataclass(frozen=True)
class ConvertOptions:
    """What is stored, and how.

    `frames-db`: pictures of `codec` and `quality` on levels of `short_sides` px, every frame, or `fps` a second.
    `raw-frames`: the same at the largest of the short sides, as one file each.
    `npy`: decoded RGB at the largest of the short sides, `npy_fps` a second.

    `aspect`: `keep` stores the pixels as they are coded, `square` widens or narrows pictures whose pixels are not.
    `quality` (1 to 100) is not for PNG, which loses nothing.
    """

    short_sides: tuple[int, ...] = (256,)
    quality: int = 90
    stores: tuple[str, ...] = (frames_db.STORE,)
    fps: float | None = None
    npy_fps: float = 4.0
    codec: Codec = "jpeg"
    aspect: Aspect = "keep"

    def __post_init__(self) -> None:
        nothing = "Nothing was converted."
        if not self.short_sides or min(self.short_sides) < 8:
            what = f"--short-side is {list(self.short_sides)}; each must be at least 8 px."
            raise ClipmillError(what, nothing, "Give for example --short-side 256 128.")
        if not 1 <= self.quality <= 100:
            raise ClipmillError(f"--quality is {self.quality}; it goes from 1 to 100.", nothing, "Give for example 90.")
        if not self.stores or set(self.stores) - set(STORES):
            what = f"--store is {' '.join(self.stores) or 'empty'}; there are: {', '.join(STORES)}."
            raise ClipmillError(what, nothing, f"Give one or more of them, for example --store {' '.join(STORES[:2])}.")
        if min(self.npy_fps, self.fps or 1.0) <= 0:
            raise ClipmillError("a rate of frames per second must be above zero.", nothing, "Give for example --fps 4.")
        for name, value, allowed in (("codec", self.codec, CODECS), ("aspect", self.aspect, get_args(Aspect))):
            if value not in allowed:
                raise ClipmillError(f"--{name} is {value!r}; there are: {', '.join(allowed)}.", nothing, "Give one.")

    def store_settings(self, store: str, job: Job) -> str:
        """All that decides what one store holds of a job, as one line: another line means other content."""
        largest = max(self.short_sides)
        if store == frames_npy.STORE:
            line = f"{store} v{frames_npy.VERSION} short_side={largest} rgb fps={self.npy_fps:g}"
        else:
            sides, version = str(largest), raw_frames.VERSION
            if store == frames_db.STORE:
                sides = ",".join(str(side) for side in sorted(set(self.short_sides), reverse=True))
                version = frames_db.SCHEMA_VERSION
            quality = "" if self.codec == "png" else f" q={self.quality}"
            line = f"{store} v{version} short_side={sides} {self.codec}{quality} {CHROMA[self.codec]}"
            line += f" fps={self.fps:g}" if self.fps else ""
        line += " aspect=square" if self.aspect == "square" else ""
        return line if job.span_s is None else "{} span={!r}-{!r}".format(line, *job.span_s)

    def settings_of(self, job: Job) -> str:
        """The lines of all stores, as one."""
        return SETTINGS_SEPARATOR.join(self.store_settings(store, job) for store in STORES if store in self.stores)

    @property
    def settings(self) -> str:
        """The settings of a whole video."""
        return self.settings_of(Job(VideoKey("", ""), Path()))


def parse_rate(text: str) -> float | None:
    """The rate that --fps means: None for `native`. Raises: ClipmillError for anything but that and a number."""
    if text == "native":
        return None
    try:
        return float(text)
    except ValueError:
        raise ClipmillError(f"--fps is {text!r}.", "Nothing was converted.", "Give `native` or a number.") from None


_PICTURES = re.compile(
    r"(?P<store>frames-db|raw-frames) v\d+ short_side=(?P<sides>\d+(?:,\d+)*) (?P<codec>\w+)(?: q=(?P<quality>\d+))?"
    r" \d:\d:\d(?: fps=(?P<fps>[0-9.e+-]+))?(?P<aspect> aspect=square)?"
    r"(?: span=(?P<start>[0-9.e+]+)-(?P<end>[0-9.e+]+))?"
)
_ARRAY = re.compile(
    r"npy v\d+ short_side=(?P<side>\d+) rgb fps=(?P<fps>[0-9.e+-]+)(?P<aspect> aspect=square)?"
    r"(?: span=(?P<start>[0-9.e+]+)-(?P<end>[0-9.e+]+))?"
)


def parse_settings(settings: str, job: Job) -> tuple[ConvertOptions, Job] | None:
    """The options and the job (with its span) that gave a settings line; None if this version writes another for them."""
    given: dict[str, Any] = {"stores": ()}
    for line in settings.split(SETTINGS_SEPARATOR):
        if match := _PICTURES.fullmatch(line):
            if match["store"] == frames_db.STORE or "short_sides" not in given:
                given["short_sides"] = tuple(int(side) for side in match["sides"].split(","))
            given["codec"], given["fps"] = match["codec"], float(match["fps"]) if match["fps"] else None
            given["quality"] = int(match["quality"] or ConvertOptions.quality)
            given["stores"] += (match["store"],)
        elif match := _ARRAY.fullmatch(line):
            given.setdefault("short_sides", (int(match["side"]),))
            given["npy_fps"] = float(match["fps"])
            given["stores"] += (frames_npy.STORE,)
        else:
            return None
        given["aspect"] = "square" if match["aspect"] else "keep"
        if match["start"]:
            job = replace(job, span_s=(float(match["start"]), float(match["end"])))
    try:
        options = ConvertOptions(**given)
    except ClipmillError:
        return None
    return (options, job) if options.settings_of(job) == settings else None
