"""From decisions at a policy's rate to setpoints at the robot's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SECOND = 1_000_000_000


@dataclass(frozen=True)
class Workspace:
    """Where the commanded position may go, and how far ahead of the measured one.

    Attributes:
        low: `(n,)` metres.
        high: `(n,)` metres.
        lead: greatest distance per axis between commanded and measured position, metres.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    lead: float

    def __post_init__(self) -> None:
        """Refuse an empty workspace."""
        if len(self.low) != len(self.high) or not self.low:
            raise ValueError(f"low and high must be of one length, got {self.low} and {self.high}")
        if any(not low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low must be less than high, got {self.low} and {self.high}")
        if not self.lead > 0:
            raise ValueError(f"lead must be positive, got {self.lead}")


class Reference:
    """The commanded position, moved by displacements as the tabletop environments move theirs.

    The same arithmetic, so that a policy which sees its own commanded position sees here, to the
    last bit, what it would see there.
    """

    def __init__(self, workspace: Workspace) -> None:
        """Nothing is commanded before `start`."""
        self._workspace = workspace
        self._position: Array | None = None

    @property
    def position(self) -> Array:
        """`(n,)` commanded position, metres."""
        if self._position is None:
            raise ValueError("the reference has not been started")
        return self._position

    @property
    def started(self) -> bool:
        """Whether `start` has been called since the last `clear`."""
        return self._position is not None

    def start(self, measured: Array) -> None:
        """Command where the robot is."""
        self._position = np.array(measured, dtype=np.float64)

    def clear(self) -> None:
        """Forget the commanded position."""
        self._position = None

    def move(self, displacement: Array, measured: Array) -> Array:
        """Move by a displacement.

        Args:
            displacement: `(n,)` metres.
            measured: `(n,)` where the robot is.

        Returns:
            `(n,)` the new commanded position.
        """
        place = self.position.copy()
        space = self._workspace
        for i, delta in enumerate(np.asarray(displacement, dtype=np.float64)):
            goal = min(max(place[i] + delta, space.low[i]), space.high[i])
            place[i] = measured[i] + min(max(goal - measured[i], -space.lead), space.lead)
        self._position = place
        return place


@dataclass(frozen=True)
class Segment:
    """A straight way from one commanded position to the next.

    Attributes:
        start: `(n,)` metres.
        end: `(n,)` metres.
        begin: steady time in nanoseconds at which it starts.
        duration: seconds.
    """

    start: Array
    end: Array
    begin: int
    duration: float

    def position(self, now: int) -> Array:
        """`(n,)` position at a steady time; rests at the end."""
        part = min(max((now - self.begin) / SECOND / self.duration, 0.0), 1.0)
        return self.start + part * (self.end - self.start)

    def velocity(self, now: int, hold: float) -> Array:
        """`(n,)` velocity in m/s, to be held for `hold` seconds from a steady time.

        Such velocities, held one after the other, add up to the way exactly; 0 once it is over.
        """
        return (self.position(now + round(hold * SECOND)) - self.position(now)) / hold

    def over(self, now: int, grace: float) -> bool:
        """Whether it ended more than `grace` seconds ago."""
        return now - self.begin > (self.duration + grace) * SECOND


Job = TypeVar("Job")


@dataclass(frozen=True)
class Outcome(Generic[Job]):
    """What a worker made of a job.

    Attributes:
        job: the job.
        result: what the function returned; None if it raised.
        error: what it raised.
        seconds: wall time it took.
        epoch: in which the job was submitted; `Worker.epoch` may have advanced since.
    """

    job: Job
    result: Any
    error: Exception | None
    seconds: float
    epoch: int


class Worker(Generic[Job]):
    """Runs one function in a thread, always on the newest job; results of old epochs are dropped.

    A job that arrives while another is running waits; one that arrives while another waits replaces
    it. `advance` starts a new epoch: whatever is running then is finished, and dropped.
    """

    def __init__(
        self, function: Callable[[Job], Any], deliver: Callable[[Outcome[Job]], None]
    ) -> None:
        """Start the thread.

        Args:
            function: what to run.
            deliver: called with every outcome of the present epoch, in the worker's thread.
        """
        self._function, self._deliver = function, deliver
        self._condition = threading.Condition()
        self._waiting: tuple[int, Job] | None = None
        self._epoch = 0
        self._busy = False
        self._closed = False
        self.replaced = 0
        """Jobs that never ran, because a newer one came."""
        self.stale = 0
        """Results that were dropped, because their epoch was over."""
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._epoch

    @property
    def busy(self) -> bool:
        """Whether a job is running or waiting."""
        with self._condition:
            return self._busy or self._waiting is not None

    def submit(self, job: Job) -> None:
        """Hand over a job."""
        with self._condition:
            self.replaced += self._waiting is not None
            self._waiting = (self._epoch, job)
            self._condition.notify()

    def advance(self) -> None:
        """Start a new epoch."""
        with self._condition:
            self._epoch += 1
            self._waiting = None

    def close(self, timeout: float = 0.5) -> bool:
        """Stop; waits for a running job no longer than `timeout` seconds.

        Returns:
            Whether the thread has ended.
        """
        with self._condition:
            self._closed = True
            self._epoch += 1
            self._condition.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy = False
                while self._waiting is None and not self._closed:
                    self._condition.wait()
                if self._closed:
                    return
                assert self._waiting is not None
                (epoch, job), self._waiting = self._waiting, None
                self._busy = True
            begin = time.perf_counter()
            result, error = None, None
            try:
                result = self._function(job)
            except Exception as caught:
                error = caught
            seconds = time.perf_counter() - begin
            with self._condition:
                current = epoch == self._epoch
                self.stale += not current
            # Not under the lock: who receives it has locks of its own.
            if current:
                self._deliver(Outcome(job, result, error, seconds, epoch))
