"""Worker processes of the demo: episodes and film clips share one pool, so that no core idles."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from decisive.episodes import Episode, Runner
from decisive.evaluation import EvaluationConfig
from decisive.progress import progress
from decisive.workers import process_pool

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """Processes that stay for the whole demo: loading torch in each costs seconds."""

    def __init__(self, workers: int) -> None:
        """Prepare; processes start with the first job."""
        self._executor = process_pool(workers)

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call."""
        return self._executor.submit(work, *args, **kwargs)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown(wait=kind is None, cancel_futures=True)


class Jobs:
    """Jobs that are waited for together."""

    def __init__(self, pool: Pool) -> None:
        """Start with none."""
        self._pool = pool
        self._futures: list[Future[Any]] = []

    def add(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call."""
        future = self._pool.submit(work, *args, **kwargs)
        self._futures.append(future)
        return future

    def episode(self, config: EvaluationConfig, seed: int) -> Future[Episode]:
        """Queue one evaluation episode."""
        return self.add(run_one, config, seed)

    def finish(self, title: str) -> None:
        """Wait for all, with a progress bar.

        Raises:
            OSError: if a worker process died; else what the first failed job raised.
        """
        with progress(title, len(self._futures)) as meter:
            try:
                for future in as_completed(self._futures):
                    future.result()
                    meter.advance()
            except BrokenProcessPool as error:
                raise OSError("a worker process died (out of memory?)") from error


_runners: dict[str, Runner] = {}


def run_one(config: EvaluationConfig, seed: int) -> Episode:
    """One episode, in a worker that keeps its environments and policies."""
    key = repr(replace(config, seed=0, episodes=1))
    if key not in _runners:
        _runners[key] = config.runner()
    return _runners[key].run(seed)
