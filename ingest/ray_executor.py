"""The per-video function on a Ray cluster, under the same contract as the local executor. Needs the extra `ray`.

The catalog stays with the process that runs the command; workers only read sources and write stores, so both must lie
under the same paths on every machine.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from ingest.errors import ClipmillError
from ingest.executors import MAX_ATTEMPTS, TICK_S, Executor, Outcome, limit_memory


def on_ray(address: str | None = None) -> Executor:
    """An executor on the cluster at `address`, on the one that is set up (RAY_ADDRESS), or on a new one of this machine.

    Raises: ClipmillError when Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise ClipmillError(
            "the executor ray needs Ray, which is not installed.",
            "Nothing was converted.",
            "Install it on every machine: pip install 'clipmill[ray]'",
        ) from None
    return partial(_run_on_ray, address=address)


def _run_on_ray(
    function: Callable[[Any], Any],
    jobs: Iterable[Any],
    *,
    num_workers: int,
    timeout_s: float | None = None,
    memory_bytes: int | None = None,
    address: str | None = None,
) -> Iterator[Outcome[Any, Any] | None]:
    """See `executors.run_jobs`. `num_workers` are at work at once, on as many machines as Ray spreads them over.

    A job whose worker or machine is lost is tried once more elsewhere.
    """
    import ray

    waiting = deque((job, 1) for job in jobs)
    if not waiting:
        return
    with _cluster(ray, address, num_workers):
        task = ray.remote(num_cpus=1, max_retries=0)(_work)
        shared = ray.put((function, memory_bytes))
        running: dict[Any, tuple[Any, int, float]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < num_workers:
                    job, attempt = waiting.popleft()
                    running[task.remote(shared, job)] = (job, attempt, time.monotonic())
                done, _ = ray.wait(list(running), num_returns=1, timeout=TICK_S)
                if not done:
                    yield None
                for reference in done:
                    job, attempt, _ = running.pop(reference)
                    try:
                        yield Outcome(job, ray.get(reference))
                    except ray.exceptions.RayTaskError as error:  # what the function raised
                        raise error.as_instanceof_cause() from error
                    except ray.exceptions.RayError as error:  # the worker, its memory or its machine is gone
                        if attempt < MAX_ATTEMPTS:
                            waiting.appendleft((job, attempt + 1))
                        else:
                            yield Outcome(job, None, "crashed", f"the worker was lost twice ({_first_line(error)})")
                if timeout_s is not None:
                    for reference, (job, _, since_s) in list(running.items()):
                        if time.monotonic() - since_s > timeout_s:
                            del running[reference]
                            ray.cancel(reference, force=True)
                            yield Outcome(job, None, "timeout", f"not done after {timeout_s:.0f} s")
        finally:
            for reference in running:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.cancel(reference, force=True)
            with contextlib.suppress(ray.exceptions.RayError):
                ray.wait(list(running), num_returns=len(running), timeout=10) if running else None


@contextlib.contextmanager
def _cluster(ray: Any, address: str | None, num_workers: int) -> Iterator[None]:
    """Joined for the time of the run; one that was joined before stays as it is."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's own advice: leave CUDA_VISIBLE_DEVICES be.
    own = {} if address or os.environ.get("RAY_ADDRESS") else {"num_cpus": num_workers}
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=False, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClipmillError(
            f"the Ray cluster {address or ''} cannot be joined: {_first_line(error)}.",
            "Nothing was converted.",
            "Start it (ray start --head), give its --address, or leave --address out for this machine alone.",
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _work(shared: tuple[Callable[[Any], Any], int | None], job: Any) -> Any:
    """Body of a task."""
    global _limited
    function, memory_bytes = shared
    if memory_bytes is not None and not _limited:
        _limited = True
        limit_memory(memory_bytes)
    return function(job)


_limited = False  # Of this worker process, which is used for many tasks.


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
