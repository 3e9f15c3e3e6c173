"""GET /api/datasets[/{name}[/videos]]: what is in the registered dataset roots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query

from ingest.dataset import DatasetStatus
from service.datasets import Datasets, VideoFilter
from service.models import Dataset, DatasetDetail, DatasetList, VideoPage
from service.problems import Problem, problem_openapi

MAX_VIDEOS = 500
T = TypeVar("T")


def dataset_routes(datasets: Datasets) -> APIRouter:
    router = APIRouter(prefix="/api/datasets", tags=["datasets"])

    @router.get("")
    def list_datasets() -> DatasetList:
        """Every registered dataset in short; one whose catalog cannot be read carries `error` instead of numbers."""
        out = []
        for name in datasets.names:
            try:
                out.append(Dataset(**_summary(name, datasets.status(name))))
            except Problem as problem:
                out.append(Dataset(name=name, error=problem.detail))
        return DatasetList(datasets=out)

    @router.get("/{name}", responses=problem_openapi(404, 503))
    def get_dataset(name: str) -> DatasetDetail:
        """One dataset: videos by state, split and class, failures by reason, levels, the ingest in progress."""
        status = datasets.status(name)
        return DatasetDetail(**_summary(name, status), classes=_named(status.classes), class_names=status.class_names)

    @router.get("/{name}/videos", responses=problem_openapi(404, 503))
    def list_videos(
        name: str,
        limit: Annotated[int, Query(ge=1, le=MAX_VIDEOS)] = 100,
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        state: Annotated[str | None, Query(description="ok, failed, missing or pending")] = None,
        class_name: Annotated[str | None, Query(alias="class", description="A label, or the folder's class")] = None,
        split: Annotated[str | None, Query(description="A split of the annotations")] = None,
        q: Annotated[str | None, Query(max_length=200, description="Part of a video id, a class or a reason")] = None,
    ) -> VideoPage:
        """The videos of a dataset that pass the filters, one page of them."""
        return datasets.videos(name, VideoFilter(state, class_name, split, q), limit, offset)

    return router


def _summary(name: str, status: DatasetStatus) -> dict[str, Any]:
    run = asdict(status.run) if status.run else None
    return {
        "name": name,
        "num_videos": status.num_videos,
        "num_frames": status.num_frames,
        "num_bytes": status.num_bytes,
        "duration_s": status.duration_s,
        "num_classes": len(status.class_names),
        "states": status.states,
        "splits": _named(status.splits),
        "reasons": _named(status.reasons),
        "levels": [asdict(level) for level in status.levels],
        "ingest": run,
    }


def _named(counts: Mapping[str, T]) -> dict[str, T]:
    """The same with a word for videos whose split, class or reason is empty or NULL."""
    return {name or "(none)": count for name, count in counts.items()}
