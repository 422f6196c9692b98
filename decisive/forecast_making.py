"""The forecasts that `decisive forecast` shows: maps of every lead time, and how good they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decisive.forecast_route import Costs, Point, weigh
from decisive.progress import Meter
from learning.grid_sequence import GridSequence
from world_models.metnet2.config import MetNet2Config
from world_models.metnet2.forecaster import (
    Forecaster,
    GridForecast,
    Reading,
    expected,
    quantiles,
)
from world_models.metnet2.inputs import truth_of
from world_models.metnet2.scores import crps, exceedance

QUANTILES = (0.1, 0.5, 0.9)
_TOLERANCE = 0.1
"""Share of a lead step that a frame of the truth may be off."""
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """What to forecast.

    Attributes:
        sequence: the event, the future too where it is known.
        index: of the frame to forecast from.
        leads: seconds that are asked for.
        threshold: whose probability is drawn.
        points: of a route, or None.
        costs: for the route.
        film: whether there is one, over all lead times up to the last.
    """

    sequence: GridSequence
    index: int
    leads: tuple[float, ...]
    threshold: float
    points: Sequence[Point] | None
    costs: Costs
    film: bool

    def between(self, config: MetNet2Config) -> tuple[float, ...]:
        """Lead times of the model that the film and the route need besides."""
        if not self.film and self.points is None:
            return ()
        last = config.leads[-1] if self.points is not None else max(self.leads)
        return tuple(lead for lead in config.leads if lead <= last + 1e-6)


@dataclass(frozen=True)
class Made:
    """What was forecast.

    Attributes:
        task: what was asked.
        reading: of the moment.
        chances: `(H, W)` probability of the threshold by lead time, all there are.
        known: `(H, W)` by lead time, see `GridForecast`.
        means: `(H, W)` by lead time that was asked for.
        quantiles: `(Q, H, W)` by lead time that was asked for.
        scores: of each lead time that was asked for, in order.
        route: what `weigh` says, or None.
    """

    task: Task
    reading: Reading
    chances: dict[float, Map]
    known: dict[float, NDArray[np.bool_]]
    means: dict[float, Map]
    quantiles: dict[float, Map]
    scores: tuple[dict[str, Any], ...]
    route: dict[str, Any] | None


def work(task: Task, forecaster: Forecaster, attribution: bool) -> int:
    """How many steps the meter will count: lead times, frames of the film, occluded inputs."""
    config = forecaster.config
    between = len({*task.leads, *task.between(config)})
    inputs = len(config.channels + config.still) * config.n_frames
    inputs += config.coordinates == "lagrangian"
    return between + (between if task.film else 0) + (inputs if attribution else 0)


def make(task: Task, forecaster: Forecaster, meter: Meter) -> Made:
    """Read the moment once, and ask for every lead time."""
    reading = forecaster.read(task.sequence, task.index)
    chances, known, means, spread, scores = {}, {}, {}, {}, []
    for lead in sorted({*task.leads, *task.between(forecaster.config)}):
        forecast = forecaster.at(reading, lead)
        chances[lead] = exceedance(forecast.probabilities, forecast.edges, task.threshold)
        known[lead] = forecast.known
        if lead in task.leads:
            means[lead] = expected(forecast)
            spread[lead] = quantiles(forecast, QUANTILES)
            scores.append(_score(task, forecaster, reading, forecast, chances[lead]))
        meter.advance()
    route = None
    if task.points is not None:
        route = _route(task, forecaster.config, chances)
    return Made(task, reading, chances, known, means, spread, tuple(scores), route)


def truth_at(task: Task, config: MetNet2Config, lead: float) -> Map | None:
    """What came true of the model's first target, or None."""
    near = _TOLERANCE * config.lead_step
    found = truth_of(task.sequence, task.index, lead, config.targets[0], near)
    return None if found is None else np.asarray(found, np.float32)


def _score(
    task: Task, forecaster: Forecaster, reading: Reading, forecast: GridForecast, chance: Map
) -> dict[str, Any]:
    """CRPS, and the errors of two forecasts without uncertainty, on the cells that all know."""
    row: dict[str, Any] = {
        "seconds": forecast.lead,
        "mean": float(expected(forecast).mean()),
        "probability": float(chance.mean()),
        "known_share": float(forecast.known.mean()),
    }
    truth = truth_at(task, forecaster.config, forecast.lead)
    names = ("crps", "extrapolation", "persistence", "crps_everywhere")
    if truth is None:
        return row | dict.fromkeys(names)
    moved = forecaster.extrapolation(reading, forecast.lead)
    same = task.sequence.quantity[task.index]
    cells = np.isfinite(truth) & np.isfinite(moved) & np.isfinite(same)
    scores = crps(forecast.probabilities, forecast.edges, truth)
    values = (scores, np.abs(moved - truth), np.abs(same - truth))
    for name, errors in zip(names, values, strict=False):
        row[name] = float(errors[cells].mean()) if cells.any() else None
    everywhere = scores[np.isfinite(scores)]
    row["crps_everywhere"] = float(everywhere.mean()) if everywhere.size else None
    row["cells"] = int(cells.sum())
    return row


def _route(task: Task, config: MetNet2Config, chances: dict[float, Map]) -> dict[str, Any]:
    assert task.points is not None
    now = task.sequence.quantity[task.index]
    wet = np.where(np.isnan(now), np.nan, now >= task.threshold).astype(np.float32)
    leads = list(task.between(config))
    maps = np.stack([wet, *(chances[lead] for lead in leads)])
    # Where nothing is measured now, the first forecast stands for now.
    maps[0] = np.where(np.isnan(maps[0]), maps[1], maps[0])
    found = weigh(task.points, [0.0, *leads], maps, task.costs, config.lead_step / 60)
    return {"threshold": task.threshold, **found}
