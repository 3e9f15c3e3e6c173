"""What a run on another machine sends, and what it is answered. Sizes are bounded: the sender may be anybody's program."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from service.models.base import Answer, Model, Number

MAX_REPORTS = 2000
MAX_EVENTS = 500
_MAX_STAGES = 64
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Id = Annotated[int, Field(ge=1, le=2**53)]
_Word = Annotated[str, Field(min_length=1, max_length=64)]
_Time = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]


class PushedStage(Model):
    """What one stage did since the report before."""

    count: _Count = Field(examples=[160])
    seconds: float = Field(ge=0, allow_inf_nan=False, examples=[0.9])
    num_bytes: _Count = Field(default=0, examples=[812_000])
    p50_s: Number = Field(default=None, examples=[0.0041])
    p90_s: Number = Field(default=None, examples=[0.0063])
    p99_s: Number = Field(default=None, examples=[0.0121])


class PushedReport(Model):
    """One report. Its `id` grows within the run; without one the service numbers it, and a repeated message counts twice."""

    id: _Id | None = Field(default=None, examples=[42])
    at: _Time = Field(default=0.0, description="0: now", examples=[1_760_000_000.0])
    step: _Count = Field(examples=[420])
    epoch: _Count = Field(default=0, examples=[3])
    phase: _Word = Field(default="train", examples=["train"])
    batch_size: _Count = Field(examples=[32])
    num_frames: _Count = Field(examples=[16])
    height_px: _Count = Field(examples=[112])
    width_px: _Count = Field(examples=[112])
    read: Number = Field(default=None, examples=[410.0])
    forward: Number = Field(default=None, examples=[180.0])
    backward: Number = Field(default=None, examples=[95.0])
    clips_per_s: Number = Field(default=None, examples=[62.0])
    wait_share: Number = Field(default=None, examples=[0.02])
    learning_rate: Number = Field(default=None, examples=[0.1])
    loss: Number = Field(default=None, examples=[1.23])
    top1: Number = Field(default=None, examples=[0.61])
    occupancy: Number = Field(default=None, examples=[0.8])
    stages: dict[_Word, PushedStage] = Field(default={}, max_length=_MAX_STAGES)


class PushedEvent(Model):
    id: _Id | None = Field(default=None, examples=[3])
    at: _Time = Field(examples=[1_760_000_000.0])
    level: _Word = Field(default="info", examples=["warning"])
    message: str = Field(max_length=4000, examples=["the loader waits for the disk"])


class Push(Model):
    """What is new of a run since the last message. One without reports is a sign of life."""

    file: str = Field(
        default="unnamed",
        min_length=1,
        max_length=64,
        description="Names the run's beginning: another name in the same run starts its numbers anew.",
        examples=["6f1c0d2e"],
    )
    rank: int = Field(default=0, ge=0, le=9999, examples=[0])
    about: dict[str, Any] = Field(
        default={}, max_length=100, examples=[{"method": "srtg", "dataset": "ucf101", "config": {"seed": 0}}]
    )
    state: Literal["running", "finished", "failed", "stopped"] = Field(default="running", examples=["running"])
    started_at: _Time | None = Field(default=None, examples=[1_760_000_000.0])
    ended_at: _Time | None = Field(default=None, examples=[None])
    silent_s: float = Field(
        default=0.0, ge=0, le=1e9, description="Seconds since the run's last sign of life.", examples=[0.4]
    )
    samples: list[PushedReport] = Field(default=[], max_length=MAX_REPORTS)
    events: list[PushedEvent] = Field(default=[], max_length=MAX_EVENTS)


class Receipt(Answer):
    """What the service has of this rank now: the ids of its last report and event, and how many reports were new."""

    run: str = Field(examples=["srtg-r3d18"])
    last_id: int = Field(examples=[42])
    last_event: int = Field(examples=[3])
    taken: int = Field(examples=[1])
