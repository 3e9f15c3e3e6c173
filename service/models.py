"""What the API answers, as pydantic models. Times are seconds since 1970; an unknown number is null."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
"""A number, or null where it is unknown or not finite (a loss that diverged): JSON has no NaN."""


class Model(BaseModel):
    model_config = ConfigDict(from_attributes=True)


# Datasets


class Level(Model):
    """One store and stored short side: videos that have it, frames, bytes of the frames."""

    store: str = Field(examples=["frames-db"])
    short_side: int = Field(examples=[128])
    num_videos: int = Field(examples=[318])
    num_frames: int = Field(examples=[24_010])
    num_bytes: int = Field(examples=[61_230_144])


class Ingest(Model):
    """The newest ingest run: `state` is running, finished, interrupted, failed or dead."""

    state: str = Field(examples=["running"])
    started_at: float = Field(examples=[1_760_000_000.0])
    updated_at: float = Field(examples=[1_760_000_060.0])
    total: int = Field(examples=[320])
    done: int = Field(examples=[120])
    failed: int = Field(examples=[1])
    skipped: int = Field(examples=[0])
    frames: int = Field(examples=[9_100])
    videos_per_s: Number = Field(default=None, examples=[2.0])
    time_left_s: Number = Field(default=None, examples=[99.5])


class Dataset(Model):
    """A dataset in short. Where its catalog cannot be read, `error` says why and the rest is null."""

    name: str = Field(examples=["ucf101"])
    error: str | None = Field(default=None, examples=[None])
    num_videos: int | None = Field(default=None, examples=[320])
    num_frames: int | None = Field(default=None, examples=[24_010])
    num_bytes: int | None = Field(default=None, description="Bytes of the store files on disk.", examples=[64_000_000])
    duration_s: Number = Field(default=None, examples=[960.4])
    num_classes: int | None = Field(default=None, examples=[8])
    states: dict[str, int] | None = Field(default=None, examples=[{"ok": 318, "failed": 1, "missing": 1}])
    splits: dict[str, dict[str, int]] | None = Field(
        default=None, examples=[{"train": {"ok": 254}, "test": {"ok": 64}}]
    )
    reasons: dict[str, int] | None = Field(default=None, examples=[{"truncated": 1, "source missing": 1}])
    levels: list[Level] | None = None
    ingest: Ingest | None = None


class DatasetList(Model):
    datasets: list[Dataset]


class DatasetDetail(Dataset):
    """A dataset with its classes. `class_names[i]` is the name of class index i."""

    classes: dict[str, dict[str, int]] | None = Field(
        None, examples=[{"left": {"ok": 40}, "right": {"ok": 39, "failed": 1}}]
    )
    class_names: list[str] | None = Field(default=None, examples=[["left", "right"]])


class Label(Model):
    """What the annotations say of a video: a label, its split, and the segment where there is one."""

    label: str | None = Field(default=None, examples=["left"])
    split: str | None = Field(default=None, examples=["train"])
    start_s: Number = None
    end_s: Number = None


class Output(Model):
    """One level of one store of a video."""

    store: str = Field(examples=["frames-db"])
    short_side: int = Field(examples=[128])
    width: int = Field(examples=[170])
    height: int = Field(examples=[128])
    num_frames: int = Field(examples=[75])
    num_bytes: int = Field(examples=[190_000])


class Video(Model):
    """One video. `reason` and `message` tell why one that is not ok is not."""

    class_name: str = Field(examples=["left"])
    video_id: str = Field(examples=["left_0007"])
    state: str = Field(examples=["ok"])
    reason: str | None = Field(default=None, examples=[""])
    message: str | None = Field(default=None, examples=[""])
    source: str | None = Field(default=None, description="Name of the source file.", examples=["left_0007.mp4"])
    num_frames: int | None = Field(default=None, examples=[75])
    width: int | None = Field(default=None, examples=[160])
    height: int | None = Field(default=None, examples=[120])
    fps: Number = Field(default=None, examples=[25.0])
    duration_s: Number = Field(default=None, examples=[3.0])
    updated_at: Number = Field(default=None, examples=[1_760_000_000.0])
    labels: list[Label] = []
    outputs: list[Output] = []


class VideoPage(Model):
    """Videos `offset` to `offset + limit` of the `total` that pass the filters, in the order they were taken in."""

    total: int = Field(examples=[1])
    limit: int = Field(examples=[100])
    offset: int = Field(examples=[0])
    videos: list[Video]


# Runs


class SpeedSample(Model):
    """One report of a run. Rates are clips per second: `read`, `forward`, `backward`."""

    id: int = Field(examples=[42])
    at: float = Field(examples=[1_760_000_000.0])
    step: int = Field(examples=[420])
    epoch: int = Field(examples=[3])
    phase: str = Field(examples=["train"])
    batch_size: int = Field(examples=[32])
    num_frames: int = Field(examples=[16])
    height_px: int = Field(examples=[112])
    width_px: int = Field(examples=[112])
    read: Number = Field(default=None, examples=[410.0])
    forward: Number = Field(default=None, examples=[180.0])
    backward: Number = Field(default=None, examples=[95.0])
    clips_per_s: Number = Field(default=None, examples=[62.0])
    wait_share: Number = Field(default=None, examples=[0.02])
    learning_rate: Number = Field(default=None, examples=[0.1])
    loss: Number = Field(default=None, examples=[1.23])
    top1: Number = Field(default=None, examples=[0.61])


class StageSum(Model):
    """What one stage did over the run: items, busy seconds summed over threads, bytes, share of all busy seconds."""

    stage: str = Field(examples=["decode"])
    count: int = Field(examples=[13_440])
    seconds: float = Field(examples=[61.2])
    num_bytes: int = Field(examples=[70_123_456])
    share: float = Field(examples=[0.71])


class Event(Model):
    """Something that a person should read."""

    at: float = Field(examples=[1_760_000_000.0])
    level: str = Field(examples=["warning"])
    message: str = Field(examples=["the loader waits for the disk"])


class Run(Model):
    """A run in short; `state` is running, finished, failed, stopped or dead. `error`: its telemetry cannot be read."""

    run: str = Field(examples=["srtg-r3d18"])
    error: str | None = Field(default=None, examples=[None])
    state: str | None = Field(default=None, examples=["running"])
    method: str | None = Field(default=None, examples=["srtg"])
    dataset: str | None = Field(default=None, examples=["ucf101"])
    started_at: Number = Field(default=None, examples=[1_760_000_000.0])
    heartbeat_at: Number = Field(default=None, examples=[1_760_000_100.0])
    heartbeat_age_s: Number = Field(default=None, examples=[0.7])
    ended_at: Number = None
    latest: SpeedSample | None = None


class RunList(Model):
    runs: list[Run]


class RunDetail(Run):
    """A run with what it says of itself (`about`, `config`), its stages over the whole run, and its newest events."""

    about: dict[str, Any] = Field(default={}, examples=[{"device": "cpu", "num_workers": 2}])
    config: Any = Field(default=None, examples=[{"model": {"name": "srtg_r3d_18"}}])
    stages: list[StageSum] = []
    events: list[Event] = []


class Speed(Model):
    """Reports after the one asked for, oldest first. Ask next with `after=last_id`.

    A `last_id` below the `after` that was asked means that the run was begun anew: start from 0.
    """

    run: str = Field(examples=["srtg-r3d18"])
    state: str = Field(examples=["running"])
    started_at: Number = Field(default=None, examples=[1_760_000_000.0])
    heartbeat_age_s: Number = Field(default=None, examples=[0.7])
    last_id: int = Field(examples=[42])
    samples: list[SpeedSample]


# The service itself


class Health(Model):
    status: str = Field(examples=["ok"])


class Ready(Model):
    """`datasets`: per dataset `ok`, or why its catalog cannot be read; one that cannot does not stop the others."""

    status: str = Field(examples=["ok"])
    datasets: dict[str, str] = Field(examples=[{"ucf101": "ok"}])
