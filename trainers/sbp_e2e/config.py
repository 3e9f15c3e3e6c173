"""What a recipe of the end-to-end detector says: its frames, its memories, its two models, and how much feedback there is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ingest.errors import ClipmillError
from loaders.windows import OnlineWindows, Short
from trainers.config import Config, Strict
from trainers.lstr.config import ArrayData, ScoringConfig
from trainers.lstr.layers import Activation
from trainers.lstr.network import LstrSpec, Module
from trainers.sbp_e2e.frames import FrameDataset


class FrameData(ArrayData):
    """Arrays of frames and targets. Sizes in pixels."""

    frames: str = Field("rgb_npy", description="folder of the frames, uint8 THWC: clipmill ingest convert --store npy")
    depth: int = Field(1, ge=1, description="batches made ahead; one of 16 windows has 1.5 GB of frames")
    stride: int | None = Field(None, ge=1, description="rows from one training window to the next; default: one window")
    size: int = Field(224, ge=1, description="height and width of what the backbone sees")
    short_side: tuple[int, int] = Field((256, 320), description="scale jitter in training; the second one is not drawn")
    eval_short_side: int = Field(256, ge=1)
    flip: float = Field(0.5, ge=0, le=1, description="probability of mirroring in training")
    resize_crop: bool = Field(True, description="off: frames go in as they lie, neither mirrored, scaled nor cropped")

    @model_validator(mode="after")
    def _crops_fit(self) -> FrameData:
        if self.short_side[0] >= self.short_side[1]:
            raise ValueError(f"short_side is {self.short_side}; the first is smaller than the second")
        if self.resize_crop and min(self.short_side[0], self.eval_short_side) < self.size:
            raise ValueError(f"a crop of {self.size} px does not fit into the short sides")
        if self.test_views != (1, 1):
            raise ValueError("test_views are (1, 1): a frame has one view")
        return self


class SpatialConfig(Strict):
    """The backbone that sees every frame."""

    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "bn_inception"] = "resnet50"
    pretrained: Path | None = Field(
        None, description="a TSN recogniser, or a backbone, in MMAction2's or torchvision's names"
    )
    frozen_bn: bool = Field(
        True, description="batch norms keep statistics and are not trained; partial feedback needs it"
    )
    freeze: bool = Field(False, description="train the temporal model alone")
    checkpointing: bool = Field(False, description="blocks are computed again in the backward pass; ResNets")


class FeedbackConfig(Strict):
    """Which frames the backbone learns from."""

    keep_ratio: float | None = Field(0.2, gt=0, le=1, description="one in int(1 / this) frames; null: all of them")
    jitter: bool = Field(False, description="which of them is drawn for every batch; otherwise always the first")
    chunk: int | None = Field(None, ge=1, description="frames without gradient at a time; default: all of a sample")


class ModelConfig(Strict):
    """Memories in seconds, every rate-th row used; modules are [queries, layers, final norm], -1 queries for none."""

    spatial: SpatialConfig = SpatialConfig()
    ages_seconds: int = Field(0, ge=0, description="before the long memory, at its rate: a GRU makes one token of them")
    long_seconds: int = Field(128, ge=0, description="0: no long memory")
    long_rate: int = Field(4, ge=1)
    work_seconds: int = Field(8, ge=1)
    work_rate: int = Field(1, ge=1)
    width: int = Field(1024, description="of the projection of features; -1: as wide as the features")
    heads: bool = Field(True, description="project features before the network")
    encoder: tuple[tuple[int, int, bool], ...] = ((16, 1, True), (32, 2, True))
    decoder: tuple[int, bool] = Field((2, True), description="layers, final norm")
    num_heads: int = Field(16, ge=1)
    hidden: int = Field(1024, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    activation: Activation = "relu"
    mask_tokens: bool = Field(False, description="mask padding also where the published code forgets to")

    @model_validator(mode="after")
    def _width_is_one(self) -> ModelConfig:
        if self.width < 1 and self.width != -1:
            raise ValueError(f"width is {self.width}; it is 1 or more, or -1 for that of the features")
        return self


class InferenceConfig(Strict):
    """How a session is scored: every frame goes through the backbone once, `chunk` at a time, then every window over features."""

    mode: Literal["batch", "stream", "stream-reference"] = Field(
        "batch", description="all windows of a video, row by row as a live stream, or as LSTR's published stream"
    )
    chunk: int = Field(32, ge=1, description="frames at a time")
    block: int = Field(64, ge=1, description="windows at a time")
    short: Short = Field("skip", description="videos shorter than a window: no scores, or their first row repeated")


class MethodConfig(Config):
    data: FrameData  # type: ignore[assignment]  # no clips here
    model: ModelConfig = ModelConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    inference: InferenceConfig = InferenceConfig()
    scoring: ScoringConfig = ScoringConfig()

    @model_validator(mode="after")
    def _goes_together(self) -> MethodConfig:
        ages = self.model.ages_seconds
        if ages and not self.model.long_seconds:
            raise ValueError("model.ages_seconds needs a model.long_seconds: the age memory comes before the long one")
        if ages * self.data.fps % self.model.long_rate:
            raise ValueError(
                f"model.ages_seconds is {ages}, {ages * self.data.fps} frames, no multiple of model.long_rate {self.model.long_rate}"
            )
        if ages and self.inference.mode == "stream-reference":
            raise ValueError("inference.mode stream-reference knows no age memory: use batch or stream")
        self.windows()
        partial = self.feedback.keep_ratio is not None and not self.model.spatial.freeze
        if partial and not self.model.spatial.frozen_bn:
            raise ValueError(
                "partial feedback needs model.spatial.frozen_bn: statistics of kept frames are not those of all"
            )
        if self.model.spatial.checkpointing and not self.model.spatial.frozen_bn:
            raise ValueError("model.spatial.checkpointing needs frozen_bn: statistics would be counted twice")
        return self

    def windows(self) -> OnlineWindows:
        """The memories, in rows. The age memory is the older part of their long one."""
        model = self.model
        return OnlineWindows.from_seconds(
            self.data.fps, work_s=model.work_seconds, work_rate=model.work_rate,
            long_s=model.ages_seconds + model.long_seconds, long_rate=model.long_rate,
        )  # fmt: skip

    @property
    def num_ages(self) -> int:
        """Rows of the age memory that are used, A."""
        return self.model.ages_seconds * self.data.fps // self.model.long_rate

    def spec(self, num_classes: int, num_features: int) -> LstrSpec:
        """The temporal model over features of `num_features`."""
        model, windows = self.model, self.windows()
        return LstrSpec(
            num_classes,
            visual_size=num_features,
            motion_size=0,
            modality="visual",
            width=max(model.width, 0) if model.heads else None,
            num_long=windows.num_long - self.num_ages,
            num_ages=self.num_ages,
            num_work=windows.num_work,
            encoder=tuple(Module(*each) for each in model.encoder),
            decoder=Module(-1, *model.decoder),
            num_heads=model.num_heads,
            hidden=model.hidden,
            dropout=model.dropout,
            activation=model.activation,
            mask_tokens=model.mask_tokens,
        )

    def dataset(self, split: Literal["train", "val", "test"]) -> FrameDataset:
        """The sessions of a split; validation has those of the test. Raises: ClipmillError when there are none."""
        entry, data = self.data.entry(), self.data
        sessions = entry.train_session_set if split == "train" else entry.test_session_set
        if not sessions:
            raise ClipmillError(
                f"{data.name} has no sessions for {split}.", "Nothing was run.", "Name them in data_info.json."
            )
        return FrameDataset(
            data.root if data.root is not None else Path(entry.data_root),
            sessions,
            list(entry.class_names),
            data.frames,
            None,
            data.targets,
            entry.ignore_index,
            entry.metrics,
        )
