"""Datasets, their videos and contact sheets, as the API tells them. An unknown number is null."""

from __future__ import annotations

from pydantic import Field

from service.models.base import Answer, Model, Number


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


class Verification(Model):
    """The last `clipmill ingest verify`: when, how thorough, what it looked at, how many problems it found."""

    at: float = Field(examples=[1_760_000_000.0])
    deep: bool = Field(description="Every image was decoded too.", examples=[False])
    videos: int = Field(examples=[318])
    frames: int = Field(examples=[24_010])
    problems: int = Field(examples=[0])
    seconds: float = Field(examples=[4.2])


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
    last_verification: Verification | None = Field(default=None, description="Null: it was never verified.")


class DatasetList(Answer):
    datasets: list[Dataset]


class DatasetDetail(Dataset, Answer):
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

    id: int = Field(description="Its number in the catalog; its frames are asked for by it.", examples=[7])
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
    labels: list[Label] = Field(default=[])
    outputs: list[Output] = Field(default=[])


class VideoPage(Answer):
    """Videos `offset` to `offset + limit` of the `total` that pass the filters, in the order they were taken in."""

    total: int = Field(examples=[1])
    limit: int = Field(examples=[100])
    offset: int = Field(examples=[0])
    videos: list[Video]


class SheetClip(Model):
    """One clip of a contact sheet. `frames` are addresses of images, in order of time."""

    id: int = Field(examples=[7])
    class_name: str = Field(examples=["left"])
    video_id: str = Field(examples=["left_0007"])
    num_frames: int = Field(examples=[75])
    duration_s: Number = Field(default=None, examples=[3.0])
    labels: list[Label] = Field(default=[])
    frames: list[str] = Field(examples=[["/api/datasets/ucf101/videos/7/frames/0"]])


class Sheet(Answer):
    """Clips taken evenly from those that pass the filters, `total` in number; another `seed` takes others."""

    total: int = Field(examples=[318])
    seed: int = Field(examples=[0])
    clips: list[SheetClip]
