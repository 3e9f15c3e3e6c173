"""GET /api/datasets[/{name}[/videos | /sheet]]: what is in the registered dataset roots, in numbers and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Path, Query, Response

from service.datasets import Datasets, Status, VideoFilter
from service.frames import Frames
from service.models import Dataset, DatasetDetail, DatasetList, Sheet, VideoPage
from service.problems import Problem, problem_openapi

MAX_VIDEOS = 500
MAX_SHEET = 60
_State = Literal["ok", "failed", "quarantined", "missing", "pending"]
_StateQuery = Annotated[list[_State] | None, Query(max_length=5, description="Videos in one of these states only")]
_ClassQuery = Annotated[str | None, Query(alias="class", description="A label, or the folder's class")]
_SplitQuery = Annotated[str | None, Query(description="A split of the annotations")]
_TextQuery = Annotated[str | None, Query(max_length=200, description="Part of a video id, a class or a reason")]
_Int64 = Path(ge=0, le=2**53)
T = TypeVar("T")


def dataset_routes(datasets: Datasets, frames: Frames) -> APIRouter:
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
        found = status.found
        return DatasetDetail(**_summary(name, status), classes=_named(found.classes), class_names=found.class_names)

    @router.get("/{name}/videos", responses=problem_openapi(404, 503))
    def list_videos(
        name: str,
        limit: Annotated[int, Query(ge=1, le=MAX_VIDEOS)] = 100,
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        state: _StateQuery = None,
        class_name: _ClassQuery = None,
        split: _SplitQuery = None,
        q: _TextQuery = None,
    ) -> VideoPage:
        """The videos of a dataset that pass the filters, one page of them."""
        return datasets.videos(name, VideoFilter(state or (), class_name, split, q), limit, offset)

    @router.get("/{name}/sheet", responses=problem_openapi(404, 503))
    def contact_sheet(
        name: str,
        count: Annotated[int, Query(ge=1, le=MAX_SHEET, description="Clips")] = 12,
        frames_per_clip: Annotated[int, Query(ge=1, le=16, description="Frames of each, evenly over its time")] = 4,
        seed: Annotated[int, Query(ge=0, le=2**31)] = 0,
        class_name: _ClassQuery = None,
        split: _SplitQuery = None,
        q: _TextQuery = None,
    ) -> Sheet:
        """Some clips of a dataset with the addresses of their frames, to look at."""
        wanted = VideoFilter(("ok",), class_name, split, q)
        return frames.sheet(name, wanted, count=count, frames_per_clip=frames_per_clip, seed=seed)

    @router.get(
        "/{name}/videos/{video}/frames/{frame}",
        response_class=Response,
        responses={
            **problem_openapi(404, 503),
            200: {"content": {"image/jpeg": {}, "image/png": {}, "image/webp": {}}},
        },
    )
    def get_frame(name: str, video: Annotated[int, _Int64], frame: Annotated[int, _Int64]) -> Response:
        """One frame of a video, by its number from 0, as it is stored on the smallest level that is not tiny."""
        image = frames.frame(name, video, frame)
        return Response(image.blob, media_type=image.media_type, headers={"Cache-Control": "private, max-age=300"})

    return router


def _summary(name: str, read: Status) -> dict[str, Any]:
    status = read.found
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
        "last_verification": asdict(read.verified) if read.verified else None,
    }


def _named(counts: Mapping[str, T]) -> dict[str, T]:
    """The same with a word for videos whose split, class or reason is empty or NULL."""
    return {name or "(none)": count for name, count in counts.items()}
