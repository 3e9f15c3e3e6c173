"""What the API answers and takes, as pydantic models. Times are seconds since 1970; an unknown number is null."""

from service.models.base import API_VERSION, Answer, Model, Number
from service.models.datasets import (
    Dataset,
    DatasetDetail,
    DatasetList,
    Ingest,
    Label,
    Level,
    Output,
    Sheet,
    SheetClip,
    Verification,
    Video,
    VideoPage,
)
from service.models.health import Health, Ready
from service.models.push import Push, PushedEvent, PushedReport, PushedStage, Receipt
from service.models.runs import Event, RankNow, Run, RunDetail, RunList, Speed, SpeedSample, StageSum

__all__ = [
    "API_VERSION",
    "Answer",
    "Dataset",
    "DatasetDetail",
    "DatasetList",
    "Event",
    "Health",
    "Ingest",
    "Label",
    "Level",
    "Model",
    "Number",
    "Output",
    "Push",
    "PushedEvent",
    "PushedReport",
    "PushedStage",
    "RankNow",
    "Ready",
    "Receipt",
    "Run",
    "RunDetail",
    "RunList",
    "Sheet",
    "SheetClip",
    "Speed",
    "SpeedSample",
    "StageSum",
    "Verification",
    "Video",
    "VideoPage",
]
