"""GET /metrics: the same numbers for Prometheus, read when it asks."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from loaders.telemetry import Stage
from service.datasets import Datasets
from service.models import SpeedSample
from service.problems import Problem
from service.runs import RUN_STATES, Runs

_STATES = ("ok", "failed", "quarantined", "missing", "pending")
_LATEST = {
    "clipmill_loader_read_clips_per_second": ("read", "Clips per second that the loader can read now"),
    "clipmill_loader_forward_clips_per_second": ("forward", "Clips per second of the forward pass now"),
    "clipmill_loader_backward_clips_per_second": ("backward", "Clips per second of the backward pass now"),
    "clipmill_loader_clips_per_second": ("clips_per_s", "Clips per second from end to end now"),
    "clipmill_loader_slots_ready_ratio": ("occupancy", "Share of the loader's slots that hold a finished batch"),
    "clipmill_loader_wait_ratio": ("wait_share", "Share of the time in which training waits for the loader"),
    "clipmill_run_step": ("step", "Optimizer steps done"),
    "clipmill_run_epoch": ("epoch", "Epoch that is running"),
    "clipmill_run_loss": ("loss", "Loss of the latest report"),
    "clipmill_run_top1_ratio": ("top1", "Share of clips whose best guess is right, latest report"),
    "clipmill_run_learning_rate": ("learning_rate", "Learning rate now"),
    "clipmill_run_batch_clips": ("batch_size", "Clips in a batch now"),
}


def metrics_routes(datasets: Datasets, runs: Runs, version: str) -> APIRouter:
    router = APIRouter(tags=["metrics"])
    registry = CollectorRegistry()
    registry.register(_Scrape(datasets, runs, version))

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics(request: Request) -> Response:
        """Gauges and counters in Prometheus' text format (OpenMetrics where the scraper asks for it)."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": media_type})

    return router


class _Scrape(Collector):
    """Reads catalogs and telemetry at scrape time. What cannot be read shows as `..._up 0`, and the rest is there."""

    def __init__(self, datasets: Datasets, runs: Runs, version: str) -> None:
        self._datasets, self._runs, self._version = datasets, runs, version

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("clipmill_build", "Version of the service", value={"version": self._version})
        yield from self._collect_datasets()
        yield from self._collect_runs()

    def _collect_datasets(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("clipmill_dataset_up", "1 if the catalog can be read", labels=["dataset"])
        videos = GaugeMetricFamily("clipmill_dataset_videos", "Videos by state", labels=["dataset", "state"])
        frames = GaugeMetricFamily("clipmill_dataset_frames", "Frames of the videos that are ok", labels=["dataset"])
        size = GaugeMetricFamily("clipmill_dataset_bytes", "Bytes of the store files", labels=["dataset"])
        seconds = GaugeMetricFamily(
            "clipmill_dataset_duration_seconds", "Playing time of the videos that are ok", labels=["dataset"]
        )
        level = GaugeMetricFamily(
            "clipmill_dataset_level_bytes",
            "Bytes of the frames of one level",
            labels=["dataset", "store", "short_side"],
        )
        unusable = GaugeMetricFamily(
            "clipmill_dataset_unusable_videos", "Failed, quarantined and missing videos", labels=["dataset", "reason"]
        )
        running = GaugeMetricFamily("clipmill_ingest_running", "1 while an ingest runs", labels=["dataset"])
        planned = GaugeMetricFamily("clipmill_ingest_planned_videos", "Videos of the newest ingest", labels=["dataset"])
        worked = GaugeMetricFamily(
            "clipmill_ingest_videos", "Videos of the newest ingest by outcome", labels=["dataset", "outcome"]
        )
        rate = GaugeMetricFamily("clipmill_ingest_videos_per_second", "Speed of the running ingest", labels=["dataset"])
        left = GaugeMetricFamily(
            "clipmill_ingest_time_left_seconds", "Time left of the running ingest", labels=["dataset"]
        )
        verified = GaugeMetricFamily(
            "clipmill_dataset_last_verification_timestamp_seconds", "When it was last verified", labels=["dataset"]
        )
        problems = GaugeMetricFamily(
            "clipmill_dataset_last_verification_problems",
            "Problems that the last verification found",
            labels=["dataset"],
        )
        for name in self._datasets.names:
            try:
                read = self._datasets.status(name)
            except Problem:
                up.add_metric([name], 0)
                continue
            status = read.found
            up.add_metric([name], 1)
            if read.verified is not None:
                verified.add_metric([name], read.verified.at)
                problems.add_metric([name], read.verified.problems)
            for state, count in (dict.fromkeys(_STATES, 0) | status.states).items():
                videos.add_metric([name, state], count)
            frames.add_metric([name], status.num_frames)
            size.add_metric([name], status.num_bytes)
            seconds.add_metric([name], status.duration_s)
            for entry in status.levels:
                level.add_metric([name, entry.store, str(entry.short_side)], entry.num_bytes)
            for reason, count in status.reasons.items():
                unusable.add_metric([name, reason or "unknown"], count)
            run = status.run
            running.add_metric([name], run is not None and run.state == "running")
            if run is None:
                continue
            planned.add_metric([name], run.total)
            for outcome, count in (("done", run.done), ("failed", run.failed), ("skipped", run.skipped)):
                worked.add_metric([name, outcome], count)
            if run.state == "running":
                _add(rate, [name], run.videos_per_s)
                _add(left, [name], run.time_left_s)
        yield from (up, videos, frames, size, seconds, level, unusable, verified, problems)
        yield from (running, planned, worked, rate, left)

    def _collect_runs(self) -> Iterator[Metric]:
        """All runs with their state; numbers only of those that run, as an old number would look like a live one."""
        up = GaugeMetricFamily("clipmill_run_up", "1 if the telemetry can be read", labels=["run"])
        state = GaugeMetricFamily("clipmill_run_state", "1 for the state that the run is in", labels=["run", "state"])
        age = GaugeMetricFamily(
            "clipmill_run_heartbeat_age_seconds",
            "Time since the last sign of life of a run that has not ended",
            labels=["run"],
        )
        latest = {
            name: (field, GaugeMetricFamily(name, text, labels=["run"])) for name, (field, text) in _LATEST.items()
        }
        busy, items, moved = (
            CounterMetricFamily(f"clipmill_loader_stage_{name}", text, labels=["run", "stage"])
            for name, text in (
                ("seconds", "Busy time of a loader stage, summed over threads"),
                ("items", "Items that a loader stage has done"),
                ("bytes", "Bytes that a loader stage has moved"),
            )
        )
        ranks = GaugeMetricFamily("clipmill_run_ranks", "Ranks that report", labels=["run"])
        taken = GaugeMetricFamily(
            "clipmill_loader_stage_item_seconds",
            "What so many percent of the newest items of a loader stage took at most",
            labels=["run", "stage", "percentile"],
        )
        for run in self._runs.all():
            up.add_metric([run.run], run.error is None)
            if run.error is not None:
                continue
            for name in RUN_STATES:
                state.add_metric([run.run, name], run.state == name)
            _add(age, [run.run], run.heartbeat_age_s)
            if run.state != "running":
                continue
            for field, family in latest.values():
                _add(family, [run.run], _value(run.latest, field))
            ranks.add_metric([run.run], run.num_ranks)
            done, newest = self._stages(run.run)
            for name, stage in done.items():
                busy.add_metric([run.run, name], stage.seconds)
                items.add_metric([run.run, name], stage.count)
                moved.add_metric([run.run, name], stage.num_bytes)
            for name, stage in newest.items():
                for percentile, value in (("50", stage.p50_s), ("90", stage.p90_s), ("99", stage.p99_s)):
                    _add(taken, [run.run, name, percentile], value)
        yield from (up, state, age, ranks, *(family for _, family in latest.values()), busy, items, moved, taken)

    def _stages(self, run: str) -> tuple[dict[str, Stage], dict[str, Stage]]:
        try:
            return self._runs.stages(run)
        except Problem:
            return {}, {}  # It broke since the listing; the next scrape shows it as down.


def _value(sample: SpeedSample | None, field: str) -> float | None:
    return None if sample is None else getattr(sample, field)


def _add(family: GaugeMetricFamily, labels: list[str], value: float | None) -> None:
    if value is not None:
        family.add_metric(labels, value)
