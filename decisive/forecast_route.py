"""Rain along a planned route: how likely it is, and whether to go, to wait or to return."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 10_000
_PLACES = (("x", "y"), ("row", "column"))
FORMAT = """\
A route is a table (.csv with a header) or a JSON list of objects, a row for each point:

  minutes      when it is reached, minutes after the time of the forecast, rising
  x, y         where, metres in the projection of the radar (results.json names the grid's corner
               and cell); or
  row, column  where, in cells of the forecast from its upper left corner, fractions allowed

For example:
  row,column,minutes
  200,210,0
  215,230,12
  230,262,25"""


@dataclass(frozen=True)
class Point:
    """A point of a route.

    Attributes:
        row: cells from the upper edge.
        column: cells from the left edge.
        minutes: when it is reached.
    """

    row: float
    column: float
    minutes: float


@dataclass(frozen=True)
class Costs:
    """What things cost, in any one unit.

    Attributes:
        wet: of a minute in the rain.
        wait: of a minute of waiting.
        back: of returning without having gone.
    """

    wet: float = 1.0
    wait: float = 0.1
    back: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what is no cost."""
        for name, what in (("wet", "wet"), ("wait", "wait"), ("back", "return")):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"cost of {what} must be at least 0, got {value}")


def read_route(
    path: str | Path, shape: tuple[int, int], origin: tuple[float, float], cell: float
) -> list[Point]:
    """The points of a route file; see `FORMAT`.

    Raises:
        ValueError: one line, for a file that is no route, or a point outside the grid.
        OSError: if it cannot be read.
    """
    place = Path(path)
    rows = _rows(place)
    if not 2 <= len(rows) <= MAX_POINTS:
        raise ValueError(f"{place}: a route has 2 to {MAX_POINTS} points, got {len(rows)}")
    points = [_point(row, number, place, origin, cell) for number, row in enumerate(rows, 1)]
    for number, (before, after) in enumerate(itertools.pairwise(points), 2):
        if after.minutes <= before.minutes:
            raise ValueError(f"{place}: point {number} is reached no later than the one before")
    for number, point in enumerate(points, 1):
        if not (0 <= point.row < shape[0] and 0 <= point.column < shape[1]):
            raise ValueError(
                f"{place}: point {number} lies at row {point.row:g}, column {point.column:g}, "
                f"outside the {shape[0]} x {shape[1]} cells"
            )
    return points


def _rows(place: Path) -> list[Mapping[str, Any]]:
    try:
        text = place.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{place}: neither CSV nor JSON text") from None
    if place.suffix.lower() != ".json":
        return list(csv.DictReader(io.StringIO(text)))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not valid JSON: {error}") from None
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ValueError(f"{place}: must hold a JSON list of objects")
    return found


def _point(
    row: Mapping[str, Any], number: int, place: Path, origin: tuple[float, float], cell: float
) -> Point:
    names = next((pair for pair in _PLACES if all(row.get(n) is not None for n in pair)), None)
    if names is None or row.get("minutes") is None:
        raise ValueError(
            f"{place}: point {number} needs minutes, and x and y or row and column, "
            f"got {', '.join(str(name) for name in row)[:100] or 'nothing'}"
        )
    first, second, minutes = (_number(row, name, number, place) for name in (*names, "minutes"))
    if minutes < 0:
        raise ValueError(f"{place}: point {number} is reached {-minutes:g} minutes too early")
    if names == ("row", "column"):
        return Point(first, second, minutes)
    return Point((origin[1] - second) / cell, (first - origin[0]) / cell, minutes)


def _number(row: Mapping[str, Any], name: str, number: int, place: Path) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{place}: {name} of point {number} must be a number, got {row[name]!r}")
    return value


def chances_along(
    points: Sequence[Point], wait: float, leads: Sequence[float], maps: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Probability of rain at each point when it is reached, linear in time between lead times.

    Args:
        points: of the route.
        wait: minutes that it starts later.
        leads: `(L,)` seconds of the maps, from 0 (now, certain) on, rising.
        maps: `(L, H, W)` probabilities; NaN unknown.

    Raises:
        ValueError: if a point is reached after the last map.
    """
    found = []
    for point in points:
        seconds = 60 * (point.minutes + wait)
        if seconds > leads[-1] + 1e-6:
            raise ValueError(
                f"the route ends {seconds / 60:g} minutes ahead, the forecast {leads[-1] / 60:g}"
            )
        series = maps[:, int(point.row), int(point.column)]
        found.append(float(np.interp(seconds, leads, series)))
    return np.asarray(found)


def weigh(
    points: Sequence[Point],
    leads: Sequence[float],
    maps: NDArray[np.floating],
    costs: Costs,
    pause: float,
) -> dict[str, Any]:
    """Go now, wait, or return: what each costs, and which costs least.

    - going after w minutes costs `wait * w + wet * (expected minutes in the rain)`, where the
      expected minutes are the integral of the probability along the route (trapezoids);
    - returning costs `back`.

    Args:
        points: of the route.
        leads: see `chances_along`.
        maps: see `chances_along`.
        costs: what things cost.
        pause: minutes between the starts that are tried, as long as the forecast reaches.

    Returns:
        JSON values: `points`, `options` (each with its arithmetic), `advice`.
    """
    minutes = np.array([point.minutes for point in points])
    last = leads[-1] / 60 - minutes[-1]
    now = chances_along(points, 0.0, leads, maps)
    if last < 0 or np.isnan(now).any():
        unknown = int(np.isnan(now).argmax()) + 1
        raise ValueError(f"nothing is known of the rain at point {unknown} of the route")
    options: list[dict[str, Any]] = []
    for k in range(int(last / pause + 1e-9) + 1):
        wait = k * pause
        chances = chances_along(points, wait, leads, maps)
        if np.isnan(chances).any():
            break
        wet = float(np.trapezoid(chances, minutes))
        cost = costs.wait * wait + costs.wet * wet
        options.append(
            {
                "option": "go" if k == 0 else "wait",
                "wait_minutes": wait,
                "wet_minutes": wet,
                # Rain at the points may come together or not: the truth lies between.
                "any_rain": [float(chances.max()), float(1 - np.prod(1 - chances))],
                "cost": cost,
                "arithmetic": f"{costs.wait:g} x {wait:g} min waiting + {costs.wet:g} x "
                f"{wet:.2f} min wet = {cost:.2f}",
            }
        )
    options.append(
        {"option": "return", "cost": costs.back, "arithmetic": f"returning = {costs.back:g}"}
    )
    best = min(options, key=lambda option: option["cost"])
    return {
        "points": [
            {"row": p.row, "column": p.column, "minutes": p.minutes, "probability": float(c)}
            for p, c in zip(points, now, strict=True)
        ],
        "options": options,
        "advice": best["option"],
        "wait_minutes": best.get("wait_minutes"),
    }
