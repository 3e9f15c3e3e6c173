"""Runs as the API tells them. Times are seconds since 1970, rates clips per second; an unknown number is null."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.models.base import Answer, Model, Number


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
    occupancy: Number = Field(
        default=None, description="Share of the loader's slots that hold a finished batch.", examples=[0.8]
    )


class StageSum(Model):
    """What one stage did over the run: items, busy seconds summed over threads, bytes, share of all busy seconds."""

    stage: str = Field(examples=["decode"])
    count: int = Field(examples=[13_440])
    seconds: float = Field(examples=[61.2])
    num_bytes: int = Field(examples=[70_123_456])
    share: Number = Field(description="Null for waiting, which is no work.", examples=[0.71])
    p50_s: Number = Field(default=None, description="What half of the newest items took at most.", examples=[0.0041])
    p90_s: Number = Field(default=None, examples=[0.0063])
    p99_s: Number = Field(default=None, examples=[0.0121])


class Event(Model):
    """Something that a person should read."""

    at: float = Field(examples=[1_760_000_000.0])
    level: str = Field(examples=["warning"])
    message: str = Field(examples=["the loader waits for the disk"])


class RankNow(Model):
    """One rank of a run, now. `straggler`: its own work takes far longer per clip than that of the middle rank."""

    rank: int = Field(examples=[1])
    error: str | None = Field(default=None, examples=[None])
    state: str | None = Field(default=None, examples=["running"])
    heartbeat_age_s: Number = Field(default=None, examples=[0.7])
    straggler: bool = Field(default=False, examples=[False])
    latest: SpeedSample | None = None


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
    pushed: bool = Field(default=False, description="It runs on another machine.", examples=[False])
    num_ranks: int = Field(default=1, examples=[1])
    verdict: str | None = Field(
        default=None,
        description="What limits the run, and what to do about it.",
        examples=["The loader keeps up: training waits for it 2 % of the time, the rest is the model's own."],
    )
    latest: SpeedSample | None = None


class RunList(Answer):
    runs: list[Run]


class RunDetail(Run, Answer):
    """A run with what it says of itself (`about`, `config`), its stages over the whole run, and its newest events."""

    about: dict[str, Any] = Field(default={}, examples=[{"device": "cpu", "num_workers": 2}])
    config: Any = Field(default=None, examples=[{"model": {"name": "srtg_r3d_18"}}])
    stages: list[StageSum] = Field(default=[])
    ranks: list[RankNow] = Field(default=[])
    events: list[Event] = Field(default=[])


class Speed(Answer):
    """Reports after the one asked for, oldest first. Ask next with `after=last_id`.

    A `last_id` below the `after` that was asked means that the run was begun anew: start from 0.
    """

    run: str = Field(examples=["srtg-r3d18"])
    state: str = Field(examples=["running"])
    started_at: Number = Field(default=None, examples=[1_760_000_000.0])
    heartbeat_age_s: Number = Field(default=None, examples=[0.7])
    last_id: int = Field(examples=[42])
    samples: list[SpeedSample]
