"""`forecast`: what will be occupied, from grids of what is.

Every lead has a topic of its own, `forecast/ahead_500ms` for 0.5 s. A forecast bears the stamp and
the frame of the newest grid it was made from; `info.map_load_time` says when it will be so. The
newest grid is worked on in a thread; grids that come meanwhile are kept as the past of the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from nav_msgs.msg import OccupancyGrid
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from std_srvs.srv import Trigger

from decisive.statistics import median_and_p95
from robots.streaming import SECOND, Outcome, Worker
from ros_nodes import messages
from ros_nodes.grid_forecasters import BASELINES, GridForecaster, load
from ros_nodes.grid_messages import Geometry, grid_message, read_grid
from ros_nodes.grid_past import GridPast, as_sequence
from ros_nodes.parameters import Parameter, declare
from ros_nodes.running import LATCHED, RELIABLE, diagnostics, run

PARAMETERS = (
    Parameter("model", "constant-velocity", f"{' or '.join(BASELINES)}, or a trained forecaster: "
              "shipped name or checkpoint folder"),
    Parameter("leads", [0.5, 1.0, 2.0, 3.0], "seconds ahead, at most 32 of them"),
    Parameter("step", 0.1, "seconds between frames, of a model that is not trained", 0.001, 3600.0),
    Parameter("frames", 6, "frames it looks at", 2, 100),
    Parameter("spread", 0.3, "m/s by which it blurs what it says, for every second ahead",
              0.0, 100.0),
    Parameter("max_age", 0.5, "greatest age in s of a grid", 0.01, 3600.0),
    Parameter("future", 0.05, "seconds by which a stamp may lie in the future", 0.0, 1.0),
)  # fmt: skip
COUNTS = ("grids", "answered", "malformed", "stale", "late", "changed", "incomplete", "errors")
_MOST_LEADS = 32
Map = NDArray[np.float32]


class Job(NamedTuple):
    """Frames to forecast from.

    Attributes:
        picked: stamps and frames, oldest first.
        geometry: of all of them.
        static: what never moves, if it is known.
    """

    picked: list[tuple[int, Map]]
    geometry: Geometry
    static: Map | None


class ForecastNode(Node):
    """Shell around a `GridForecaster`: the newest grid is forecast, in a thread of its own."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters, load the model, open the topics."""
        super().__init__("forecast", **options)
        self.value = value = declare(self, PARAMETERS)
        self._leads = check_leads(value["leads"])
        self._model: GridForecaster = load(value, self._leads)
        self._past = GridPast(self._model.frames, self._model.step)
        self._geometry: Geometry | None = None
        self._map: tuple[Map, Geometry] | None = None
        self._counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self._times: deque[float] = deque(maxlen=200)
        self._ages: deque[float] = deque(maxlen=200)
        self._told = 0
        self._out = {
            lead: self.create_publisher(OccupancyGrid, topic_of(lead), RELIABLE)
            for lead in self._leads
        }
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._worker: Worker[Job] = Worker(self._forecast, self._deliver)
        self.create_subscription(OccupancyGrid, "occupancy", self._guarded(self._on_grid), RELIABLE)
        self.create_subscription(OccupancyGrid, "map", self._guarded(self._on_map), LATCHED)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _guarded(self, take: Callable[[Any], None]) -> Callable[[Any], None]:
        def hear(message: Any) -> None:
            try:
                take(message)
            except ValueError as error:
                self._complain("malformed", str(error))

        return hear

    def _on_grid(self, message: OccupancyGrid) -> None:
        self._counts["grids"] += 1
        values, geometry = read_grid(message)
        stamp = messages.nanoseconds(message.header.stamp)
        age = (self.get_clock().now().nanoseconds - stamp) / SECOND
        if not -self.value["future"] <= age <= self.value["max_age"]:
            self._complain("stale", f"a grid is {age:.3f} s old and dropped")
            return
        if self._geometry is None:
            self._geometry = geometry
        elif not self._geometry.same(geometry):
            self._complain(
                "changed",
                f"the grid was {self._geometry.words()}, now it is {geometry.words()} or lies "
                "elsewhere; dropped (call ~/reset to begin anew)",
            )
            return
        try:
            self._past.add(stamp, values)
        except ValueError as error:
            self._complain("late", str(error))
            return
        picked = self._past.pick()
        if picked is None:
            self._counts["incomplete"] += 1
            return
        self._worker.submit(Job(picked, geometry, self._static(geometry)))

    def _on_map(self, message: OccupancyGrid) -> None:
        values, geometry = read_grid(message)
        self._map = (values, geometry)
        if self._geometry is not None and not self._geometry.same(geometry):
            self._complain("changed", f"the map has other cells, {geometry.words()}: left alone")

    def _static(self, geometry: Geometry) -> Map | None:
        if self._map is None or not self._map[1].same(geometry):
            return None
        return self._map[0]

    def _forecast(self, job: Job) -> Map:
        sequence = as_sequence(
            job.picked, self._model.step, job.geometry.cell, job.static, self._model.channels
        )
        return self._model.forecast(sequence)

    def _deliver(self, outcome: Outcome[Job]) -> None:
        if outcome.error is not None:
            self._complain("errors", f"{type(outcome.error).__name__}: {outcome.error}")
            return
        newest = outcome.job.picked[-1][0]
        stamp = messages.stamp_of(newest)
        for lead, probability in zip(self._leads, outcome.result, strict=True):
            at = messages.stamp_of(newest + round(lead * SECOND))
            said = grid_message(probability, outcome.job.geometry, stamp, at)
            self._out[lead].publish(said)
        self._counts["answered"] += 1
        self._times.append(1e3 * outcome.seconds)
        self._ages.append((self.get_clock().now().nanoseconds - newest) / 1e6)

    def _on_reset(self, request: Any, response: Any) -> Any:
        self._worker.advance()
        self._past.clear()
        self._geometry = self._map = None
        response.success, response.message = True, "all frames are forgotten"
        return response

    def _complain(self, name: str, words: str) -> None:
        self._counts[name] += 1
        text = f"{name}: {' '.join(words.split())}"
        self.get_logger().warning(text, throttle_duration_sec=1.0)

    def _report(self) -> None:
        facts: dict[str, Any] = {
            **self._counts,
            "replaced": self._worker.replaced,
            "remembered": len(self._past),
            "map": "none" if self._map is None else self._map[1].words(),
            **self._model.facts,
        }
        for what, values in (("ms", self._times), ("age ms", self._ages)):
            if values:
                facts[f"{what} p50"], facts[f"{what} p95"] = (
                    f"{ms:.2f}" for ms in median_and_p95(list(values))
                )
        news, self._told = self._counts["answered"] - self._told, self._counts["answered"]
        level = DiagnosticStatus.OK if news else DiagnosticStatus.WARN
        message = f"{news} grids forecast since the last report"
        self._diagnostics.publish(diagnostics(self, message, facts, level))

    def finish(self) -> None:
        """End the thread."""
        self._worker.close()


def check_leads(leads: Sequence[float]) -> list[float]:
    """Leads as they are asked for.

    Raises:
        ValueError: for none, too many, ones that do not rise, or less than a millisecond.
    """
    found = [float(lead) for lead in leads]
    rising = all(later - lead >= 1e-3 for lead, later in zip([0.0, *found], found, strict=False))
    if not 1 <= len(found) <= _MOST_LEADS or not rising or not np.isfinite(found).all():
        raise ValueError(
            f"leads must be 1 to {_MOST_LEADS} seconds that rise from 0.001 on, got {found}"
        )
    return found


def topic_of(lead: float) -> str:
    """Topic of a lead in seconds."""
    return f"forecast/ahead_{round(1e3 * lead)}ms"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(ForecastNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
