"""How fast the user's own data loads on the user's own machine: shapes x levels x workers, and what to choose."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import get_args

from ingest.atomic import replacing, write_text
from ingest.errors import ClipmillError
from loaders import pictures
from loaders.clips import ClipSpec
from loaders.dataset import ClipDataset
from loaders.loader import Backend, ClipLoader, Workers
from loaders.sampling import RandomInterval

_BATCH_BYTES = 32 << 20
_JPEG_STORES = ("frames-db", "raw-frames")
_ONE = {"processes": "process", "threads": "thread"}


@dataclass(frozen=True)
class Shape:
    """A clip to ask for: frames and pixels, cut at random from frames scaled to a short side in `short_side`."""

    num_frames: int
    size: int

    @property
    def short_side(self) -> tuple[int, int]:
        """The usual jitter: 256 to 320 for 224, 128 to 160 for 112."""
        return round(self.size * 8 / 7), round(self.size * 10 / 7)

    def __str__(self) -> str:
        return f"{self.num_frames}x{self.size}x{self.size}"

    @classmethod
    def parse(cls, text: str) -> Shape:
        """`16x224` or `16x224x224`. Raises: ClipmillError for anything else."""
        parts = text.lower().split("x")
        if len(parts) in (2, 3) and all(part.isdigit() and int(part) for part in parts) and parts[1] == parts[-1]:
            return cls(int(parts[0]), int(parts[1]))
        raise ClipmillError(f"--shape is {text!r}.", "Nothing was measured.", "Give frames x pixels, such as 16x224.")

    def spec(self) -> ClipSpec:
        return ClipSpec(RandomInterval(self.num_frames, (1, 2)), self.size, self.size, self.short_side, flip=0.5)


@dataclass(frozen=True)
class Setting:
    """One way to load: from which store and level, by what workers. `level` 0: the loader chooses among all."""

    shape: Shape
    store: str
    level: int
    workers: Workers
    num_workers: int
    backend: Backend = "cpu"

    def __str__(self) -> str:
        level = f" {self.level} px" if self.level else ""
        return f"{self.shape}, {self.store}{level}, {self.crew}"

    @property
    def crew(self) -> str:
        """`2 processes`, `1 process`, `DALI with 2 threads`."""
        if self.backend == "dali":
            return f"DALI with {self.num_workers} " + ("threads" if self.num_workers > 1 else "thread")
        return f"{self.num_workers} " + (self.workers if self.num_workers > 1 else _ONE[self.workers])


@dataclass
class Measured:
    """Clips per second, a figure per round; share of a clip's time in each stage; bytes read per clip."""

    setting: Setting
    rounds: list[float] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    bytes_per_clip: float = 0.0

    @property
    def clips_per_s(self) -> float:
        return median(self.rounds)


@dataclass(frozen=True)
class BenchReport:
    root: str
    measured: list[Measured]
    advice: list[str]

    def to_json(self) -> str:
        rows = [
            asdict(one) | {"setting": asdict(one.setting), "clips_per_s": round(one.clips_per_s, 1)}
            for one in self.measured
        ]
        return json.dumps(
            {"root": self.root, "cores": os.cpu_count(), "measured": rows, "advice": self.advice}, indent=2
        )


def bench(
    root: Path,
    shapes: Sequence[Shape],
    stores: Sequence[str],
    *,
    num_workers: int,
    backends: Sequence[str] | None = None,
    split: str | None = None,
    seconds: float = 2.0,
    num_rounds: int = 3,
    on_progress: Callable[[str], None] = lambda what: None,
) -> BenchReport:
    """Measure every setting `num_rounds` times for `seconds`, in turns, so that what else runs disturbs all alike.

    `backends` are those that are there, unless given. Raises: ClipmillError when the root has none of the stores.
    """
    datasets = {store: ClipDataset(root, split, store=store) for store in stores}
    if backends is None:
        backends = get_args(Backend) if _has_dali() else ("cpu",)
    measured = [Measured(setting) for setting in _settings(shapes, datasets, num_workers, backends)]
    if not measured:
        raise ClipmillError(
            f"the backends {', '.join(backends)} load nothing from {', '.join(stores)}.",
            "Nothing was measured.",
            "DALI decodes JPEG frames only: give --store frames-db or raw-frames, or --backend cpu.",
        )
    loaders: list[ClipLoader] = []
    try:
        for one in measured:
            on_progress(f"begin {one.setting}")
            loaders.append(_loader(datasets[one.setting.store], one.setting))
            _run(loaders[-1], seconds / 4)  # Files opened, processes awake.
        for round_ in range(num_rounds):
            for one, loader in zip(measured, loaders, strict=True):
                on_progress(f"round {round_ + 1} of {num_rounds}: {one.setting}")
                one.rounds.append(_run(loader, seconds))
        for one, loader in zip(measured, loaders, strict=True):
            busy = {name: stage.seconds for name, stage in loader.stages().items() if name != "wait"}
            total = sum(busy.values()) or 1.0
            one.shares = {name: round(value / total, 3) for name, value in busy.items()}
            stage = loader.stages()["read"]
            one.bytes_per_clip = stage.num_bytes / max(stage.count, 1)
    finally:
        for loader in loaders:
            loader.close()
    return BenchReport(str(root), measured, list(_advice(measured, datasets)))


def _has_dali() -> bool:
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False


def _settings(
    shapes: Sequence[Shape], datasets: dict[str, ClipDataset], num_workers: int, backends: Sequence[str]
) -> Iterator[Setting]:
    kinds: list[tuple[Workers, int]] = [("processes", num_workers), ("threads", num_workers)]
    if num_workers > 1:
        kinds.append(("processes", 1))
    for shape in shapes:
        for store, dataset in datasets.items():
            levels = sorted({level.short_side for video in range(len(dataset)) for level in dataset.levels(video)})
            if "cpu" in backends:
                for workers, count in kinds:
                    yield Setting(shape, store, 0, workers, count)
                if len(levels) > 1:
                    for level in levels:
                        yield Setting(shape, store, level, "processes", num_workers)
            if "dali" in backends and store in _JPEG_STORES:
                yield Setting(shape, store, 0, "threads", num_workers, "dali")


def _loader(dataset: ClipDataset, setting: Setting) -> ClipLoader:
    spec = setting.shape.spec()
    if setting.level:
        dataset = _with_level(dataset, setting.level)
    batch_size = max(1, min(16, _BATCH_BYTES // spec.clip_bytes, len(dataset)))
    return ClipLoader(
        dataset,
        spec,
        batch_size=batch_size,
        workers=setting.workers,
        num_workers=setting.num_workers,
        backend=setting.backend,
        max_bad=1.0,
    )


def _with_level(dataset: ClipDataset, short_side: int) -> ClipDataset:
    """The same videos as if this level alone was stored; a video that lacks it keeps its own."""
    one = copy.copy(dataset)
    one._levels = [tuple(lv for lv in levels if lv.short_side == short_side) or levels for levels in dataset._levels]
    return one


def _run(loader: ClipLoader, seconds: float) -> float:
    """Clips per second over at least `seconds`; epochs follow each other without a pause."""
    clips, started = 0, time.perf_counter()
    while True:
        for batch in loader:
            clips += len(batch)
            if time.perf_counter() - started >= seconds:
                return clips / (time.perf_counter() - started)


def _advice(measured: Sequence[Measured], datasets: dict[str, ClipDataset]) -> Iterator[str]:
    """What to choose, a line per shape."""
    for shape in dict.fromkeys(one.setting.shape for one in measured):
        mine = [one for one in measured if one.setting.shape == shape]
        free = [one for one in mine if one.setting.level == 0]
        best = max(free, key=lambda one: one.clips_per_s)
        s = best.setting
        line = f"{shape}: {best.clips_per_s:,.0f} clips/s from {s.store} with {s.crew}"
        sides = {level.short_side for dataset in datasets.values() for levels in dataset._levels for level in levels}
        low, high = shape.short_side
        fitting = [side for side in sides if side * shape.spec().enlarge >= low]
        if fitting and min(fitting) > 1.5 * high:
            line += f"; a level of {high} px would need fewer bytes and less decoding (convert again with --short-side)"
        elif best.shares.get("read", 0) > 0.5:
            line += "; reading is what takes longest: a faster disk pays"
        elif best.shares.get("assemble", 0) > 0.4:
            line += f"; resizing takes long: a level of {low} px, or a short side of one size, saves it"
        yield line + "."
    if not pictures.PARTS and datasets.keys() & set(_JPEG_STORES):
        yield (
            "JPEGs are decoded whole here; parts of them take about an eighth less time: install a C compiler and"
            " libjpeg-turbo's headers (Debian: gcc libjpeg62-turbo-dev), and Clipmill again."
        )


def write_report(report: BenchReport, out: Path) -> tuple[Path, Path]:
    """`bench.json` and `bench.png` into `out`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "bench.json", report.to_json() + "\n")
    names = [str(one.setting) for one in report.measured]
    figure, axes = pyplot.subplots(figsize=(9, 0.35 * len(names) + 1.2), layout="constrained")
    rates = [one.clips_per_s for one in report.measured]
    low = [rate - min(one.rounds) for rate, one in zip(rates, report.measured, strict=True)]
    high = [max(one.rounds) - rate for rate, one in zip(rates, report.measured, strict=True)]
    shapes = list(dict.fromkeys(str(one.setting.shape) for one in report.measured))
    colours = [f"C{shapes.index(str(one.setting.shape))}" for one in report.measured]
    axes.barh(names, rates, xerr=(low, high), color=colours)
    axes.invert_yaxis()
    axes.set_xlabel("clips per second (median; bars: slowest and fastest round)")
    with replacing(out / "bench.png") as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)
    return out / "bench.json", out / "bench.png"
