"""Who walks a route as if the house were known: the demonstrator of `decisive/HouseNav-v0`."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from envs.indoor.house import BODY_RADIUS
from envs.indoor.way_field import CELL, Window, cost_to_go, downhill, open_window

if TYPE_CHECKING:
    from envs.indoor.continuous import HouseNavEnv

Array = NDArray[np.float64]

AHEAD = 1.0
"""Metres of the way that are looked at."""
MARGIN = 1.5
"""Metres around a route in which ways round things are looked for."""
TASTE = 0.35
"""Spread of what diverse walkers think of a place (of the logarithm of its price)."""

_PATCH = 16  # cells; as large as a table
_ABOUT = math.radians(150.0)
_STEADY = 0.03  # a straight line may be so much tighter than the way that it shortens
_ENTER = 0.1  # a viewpoint is visited so far inside the circle in which it counts


class WayExpert:
    """Goes down the fields of its route, straight ahead wherever that is as roomy.

    `act` may be called from wherever one has got to.
    """

    def __init__(
        self, env: "HouseNavEnv", mode: str = "consistent", seed: int | None = None
    ) -> None:
        """Plan from the goal back to the start.

        Args:
            env: after its reset; poses are read from it.
            mode: `consistent` or `diverse`; see `HouseNavEnv.expert`.
            seed: of the tastes of `diverse`.

        Raises:
            ValueError: for an unknown mode.
        """
        if mode not in ("consistent", "diverse"):
            raise ValueError(f'mode must be "consistent" or "diverse", got {mode!r}')
        self._env = env
        route = env.route
        low, high = route.min(axis=0) - MARGIN, route.max(axis=0) + MARGIN
        self._window = open_window(env.ground, low, high, BODY_RADIUS)
        price, self._hand = self._window.price, 0
        if mode == "diverse":
            rng = np.random.default_rng(seed)
            coarse = rng.normal(0.0, TASTE, [n // _PATCH + 1 for n in price.shape])
            patches = np.kron(coarse, np.ones((_PATCH, _PATCH)))
            price = price * np.exp(patches[: price.shape[0], : price.shape[1]])
            self._hand = int(rng.choice((-1, 1)))
        stops = [len(route) - 1]
        if env.guide == "route":
            stops = list(range(1, len(route)))
        self._fields = _fields(self._window, price, route, stops)

    def act(self, obs: Any, info: Mapping[str, Any]) -> NDArray[np.float32]:
        """Turn and step towards the farthest place of the way that lies straight ahead.

        Args:
            obs: unused.
            info: unused.

        Returns:
            `(2,)` in [-1, 1].
        """
        from envs.indoor.continuous import MAX_STEP, MAX_TURN

        x, y, yaw = self._env.pose
        here = np.array([x, y])
        target = self._target(here)
        error = math.remainder(math.atan2(target[1] - y, target[0] - x) - yaw, math.tau)
        if self._hand and abs(error) > _ABOUT:
            error = math.copysign(error, self._hand)
        turn = min(max(error, -MAX_TURN), MAX_TURN)
        # Not before it nearly looks there: a step aside is what ends at the furniture.
        eager = max(0.0, 1.0 - abs(error - turn) / MAX_TURN)
        length = min(MAX_STEP * eager, math.dist(target, here))
        if length > 0.0:
            end, stopped = self._env.ground.walk(here, yaw + turn, length, BODY_RADIUS)
            length = math.dist(end, here) if stopped else length
        return np.array([turn / MAX_TURN, 2.0 * length / MAX_STEP - 1.0], np.float32)

    def _target(self, here: Array) -> Array:
        """Where to walk straight to."""
        route, window = self._env.route, self._window
        stage = self._env.next_waypoint
        goal = route[min(stage, len(route) - 1)]
        cost = self._fields.get(stage)
        if cost is None:
            return goal
        cells = downhill(cost, window.cell(here), round(AHEAD / CELL))[1::2]
        if not cells:
            return goal
        spots = window.low + CELL * np.array(cells)
        room = np.minimum.accumulate([window.clearance[cell] for cell in cells]) - _STEADY
        # All straight lines at once, each looked at in as many places.
        parts = np.linspace(0.0, 1.0, len(cells) + 1)[1:]
        lines = here + parts[:, None, None] * (spots - here)
        space = self._env.ground.clearance(lines.reshape(-1, 2)).reshape(len(parts), -1).min(axis=0)
        good = np.flatnonzero(space >= np.maximum(room, BODY_RADIUS))
        return spots[good[-1] if len(good) else 0]


def _fields(window: Window, price: Array, route: Array, stops: list[int]) -> dict[int, Array]:
    """Cost to go by the index of the viewpoint that is next, all later ones counted."""
    from envs.indoor.continuous import ARRIVED

    fields: dict[int, Array] = {}
    for stop in reversed(stops):
        away = np.linalg.norm(window.points() - route[stop], axis=-1)
        # At the goal: the nearer to its middle the better.
        after = fields.get(stop + 1)
        seeds = np.where(away < ARRIVED - _ENTER, away if after is None else after, math.inf)
        leg = route[stop - 1 : stop + 1] if len(stops) > 1 else route
        part = window.part(leg.min(axis=0) - MARGIN, leg.max(axis=0) + MARGIN)
        fields[stop] = np.full_like(price, math.inf)
        fields[stop][part] = cost_to_go(price[part], seeds[part])
    return fields
