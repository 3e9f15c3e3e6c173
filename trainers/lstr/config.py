"""What a recipe of LSTR says: its memories, its network, its arrays, and how it is tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ingest.errors import ClipmillError
from loaders.windows import OnlineWindows, Short
from trainers.config import Config, Strict
from trainers.lstr.data import FEATURE_SIZES, PUBLISHED_INFO, DataEntry, FeatureDataset, read_data_info
from trainers.lstr.layers import Activation
from trainers.lstr.losses import LossName
from trainers.lstr.network import PUBLISHED_DECODER, PUBLISHED_ENCODER, LstrSpec, Modality, Module
from trainers.per_frame_metrics import Metric, PostProcessing


class ArrayData(Strict):
    """Arrays by session, rows at `fps` a second. What data_info.json says is overridden by what is not None here."""

    root: Path | None = Field(None, description="folder of the arrays' folders; default: data_root of the entry")
    info: Path | None = Field(
        None, description="data_info.json; default: <root>/data_info.json, else the published sessions"
    )
    name: str = Field("THUMOS", description="its entry")
    targets: str = "target_perframe"
    fps: int = Field(4, ge=1, description="rows per second")
    class_names: tuple[str, ...] | None = None
    ignore_index: int | None = Field(None, description="class that is neither trained nor scored; -100: none")
    metric: Metric | None = None
    train_sessions: tuple[str, ...] | None = None
    test_sessions: tuple[str, ...] | None = None
    batch_size: int = Field(16, ge=1, description="windows per step and device")
    test_views: tuple[int, int] = (1, 1)

    def entry(self) -> DataEntry:
        """The data set. Raises: ClipmillError when its file or entry cannot be used."""
        own = self.root / "data_info.json" if self.root is not None else None
        path = self.info or (own if own is not None and own.exists() else PUBLISHED_INFO)
        overrides = {
            "class_names": self.class_names,
            "ignore_index": self.ignore_index,
            "metrics": self.metric,
            "train_session_set": self.train_sessions,
            "test_session_set": self.test_sessions,
        }
        entry = read_data_info(path, self.name, overrides)
        if entry.fps != self.fps:
            raise ClipmillError(
                f"{path}, {self.name}: {entry.fps:g} rows per second, and data.fps is {self.fps}.",
                "Nothing was run: memories are in seconds.",
                f"Set data.fps={entry.fps:g}, or make features and targets at {self.fps}.",
            )
        return entry


class WindowData(ArrayData):
    """Arrays of features and targets."""

    visual: str = "rgb_kinetics_resnet50"
    motion: str = "flow_kinetics_bninception"
    visual_size: int | None = Field(None, ge=1, description="numbers per row; default: by the folder's name")
    motion_size: int | None = Field(None, ge=1)
    depth: int = Field(2, ge=1, description="batches made ahead")
    validation: Literal["windows", "every-row"] = Field(
        "windows",
        description="windows one after the other, quick and as published, or one for every row, as in the test",
    )

    def size_of(self, stream: Literal["visual", "motion"]) -> int:
        """Numbers per row of a stream. Raises: ClipmillError when nothing says how many."""
        size, folder = (self.visual_size, self.visual) if stream == "visual" else (self.motion_size, self.motion)
        if size is None and folder not in FEATURE_SIZES:
            raise ClipmillError(
                f"features called {folder!r} are not known here.",
                "Nothing was run.",
                f"Say how many numbers a row has: data.{stream}_size=2048",
            )
        return size or FEATURE_SIZES[folder]


class ModelConfig(Strict):
    """Memories in seconds, every rate-th row used; modules are [queries, layers, final norm], -1 queries for none."""

    modality: Modality = "twostream"
    long_seconds: int = Field(512, ge=0, description="0: no long memory")
    long_rate: int = Field(4, ge=1)
    work_seconds: int = Field(8, ge=1)
    work_rate: int = Field(1, ge=1)
    ages_seconds: int = Field(0, ge=0, description="accepted for published configs; no published code reads it")
    ages_rate: int = Field(1, ge=1)
    heads: bool = Field(True, description="project features before the network")
    width: int = Field(1024, description="of the projection; -1: as wide as the features")
    encoder: tuple[tuple[int, int, bool], ...] = PUBLISHED_ENCODER
    decoder: tuple[int, int, bool] = PUBLISHED_DECODER
    num_heads: int = Field(16, ge=1)
    hidden: int = Field(1024, ge=1, description="width inside the feed-forward nets")
    dropout: float = Field(0.2, ge=0, lt=1)
    activation: Activation = "relu"
    max_positions: int = Field(5000, ge=1)
    mask_tokens: bool = Field(False, description="mask padding also where the published code forgets to")

    @field_validator("width")
    @classmethod
    def _own_or_positive(cls, value: int) -> int:
        if value < 1 and value != -1:
            raise ValueError(f"width is {value}; it is 1 or more, or -1 for that of the features")
        return value


class InferenceConfig(Strict):
    """How a session is scored in a test."""

    mode: Literal["batch", "stream", "stream-reference"] = Field(
        "batch", description="all windows of a video, row by row as a live stream, or as the authors' stream"
    )
    block: int = Field(64, ge=1, description="windows at a time")
    short: Short = Field("skip", description="videos shorter than a window: no scores, or their first row repeated")


class ScoringConfig(Strict):
    """What is done to scores before they are measured, and what is measured."""

    smooth: bool = Field(False, description="maximum over five rows")
    switch: bool = Field(False, description="THUMOS: where CliffDiving scores more than Diving, Diving gets its score")
    drop_ignored: bool = Field(True, description="leave out rows of the ignored class, as THUMOS does")
    stages: bool = Field(True, description="measure every tenth of the actions, too")

    def processing(self, class_names: list[str], ignore_index: int) -> PostProcessing:
        """Raises: ClipmillError for `switch` without the two classes."""
        implied = None
        if self.switch:
            try:
                implied = class_names.index("CliffDiving"), class_names.index("Diving")
            except ValueError:
                raise ClipmillError(
                    "scoring.switch needs the classes CliffDiving and Diving.", "Nothing was measured."
                ) from None
        return PostProcessing(self.smooth, implied, ignore_index if self.drop_ignored and ignore_index >= 0 else None)


class MethodConfig(Config):
    """LSTR: what every method has, with arrays in place of clips."""

    data: WindowData  # type: ignore[assignment]  # no clips here
    model: ModelConfig = ModelConfig()
    loss: LossName = Field("MCE", description="MCE as published, BCE or SCE")
    inference: InferenceConfig = InferenceConfig()
    scoring: ScoringConfig = ScoringConfig()

    @model_validator(mode="after")
    def _memories_fit(self) -> MethodConfig:
        self.windows()
        model = self.model
        if model.ages_seconds * self.data.fps % model.ages_rate:
            raise ValueError(f"model.ages_seconds are no multiple of ages_rate {model.ages_rate}")
        return self

    def windows(self) -> OnlineWindows:
        """The memories, in rows."""
        model = self.model
        return OnlineWindows.from_seconds(
            self.data.fps,
            work_s=model.work_seconds,
            work_rate=model.work_rate,
            long_s=model.long_seconds,
            long_rate=model.long_rate,
        )

    def spec(self, num_classes: int) -> LstrSpec:
        """The network. Raises: ClipmillError when the size of a row is not known."""
        model, windows = self.model, self.windows()
        used = {"visual": model.modality != "motion", "motion": model.modality != "visual"}
        return LstrSpec(
            num_classes=num_classes,
            visual_size=self.data.size_of("visual") if used["visual"] else 0,
            motion_size=self.data.size_of("motion") if used["motion"] else 0,
            modality=model.modality,
            width=max(model.width, 0) if model.heads else None,
            num_long=windows.num_long,
            num_work=windows.num_work,
            encoder=tuple(Module(*each) for each in model.encoder),
            decoder=Module(*model.decoder),
            num_heads=model.num_heads,
            hidden=model.hidden,
            dropout=model.dropout,
            activation=model.activation,
            max_positions=model.max_positions,
            mask_tokens=model.mask_tokens,
        )

    def dataset(self, split: Literal["train", "val", "test"]) -> FeatureDataset:
        """The sessions of a split; validation has those of the test, as published.

        Raises: ClipmillError when there are none, or the arrays are of another size.
        """
        entry, data = self.data.entry(), self.data
        sessions = entry.train_session_set if split == "train" else entry.test_session_set
        if not sessions:
            raise ClipmillError(
                f"{data.name} has no sessions for {split}.", "Nothing was run.", "Name them in data_info.json."
            )
        dataset = FeatureDataset.of_modality(
            self.model.modality,
            visual=data.visual,
            motion=data.motion,
            root=data.root if data.root is not None else Path(entry.data_root),
            sessions=sessions,
            class_names=list(entry.class_names),
            targets=data.targets,
            ignore_index=entry.ignore_index,
            metric=entry.metrics,
        )
        sizes: dict[Any, str | None] = {"visual": dataset.visual, "motion": dataset.motion}
        for stream, folder in sizes.items():
            if folder is not None and dataset.size(stream) != data.size_of(stream):
                raise ClipmillError(
                    f"{dataset.root / folder} holds {dataset.size(stream)} numbers per row, not {data.size_of(stream)}.",
                    "Nothing was run.",
                    f"Set data.{stream}_size={dataset.size(stream)}, or name another folder.",
                )
        return dataset
