"""Walking through a procedural house by turns and steps: the controller below a navigator.

A navigator on a graph says which viewpoints to visit; what is left is to get there without
touching the furniture. Actions as in Room-to-Room in continuous environments (Krantz et al. 2020,
"Beyond the Nav-Graph: Vision-and-Language Navigation in Continuous Environments"), but graded.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.fields import Field
from envs.indoor.ground import Ground
from envs.indoor.house import BODY_RADIUS, SPLITS, House, generate_house, obstacles
from envs.indoor.instructions import sample_paths
from envs.indoor.metrics import spl
from envs.seeding import episode_rng

if TYPE_CHECKING:
    from envs.indoor.continuous_expert import WayExpert

Array = NDArray[np.float64]

MAX_TURN = math.radians(30.0)
"""Greatest turn of one action, as in Room-to-Room's low-level actions."""
MAX_STEP = 0.25
"""Longest step of one action in metres, as in continuous Room-to-Room."""
N_RAYS = 36
REACH = 3.0
"""Rays see so far, in metres."""
ARRIVED = 2.0 * BODY_RADIUS
"""A viewpoint is reached nearer than this: twice the body's radius, as in Habitat's PointNav."""
EPISODE_STEPS = 150
HOUSES = 64
"""Of each split that episodes draw from."""
SPLIT_OF_STREAM = {"evaluate": "test", "select": "val", "record": "train", "train": "train"}
"""Houses by the random stream of an episode; see `envs.seeding`."""

_FAR = 50.0
_ROOMS, _NEAREST_GOAL = 2, 3.0


@dataclass(frozen=True, eq=False)
class _Place:
    """A house, and its floor."""

    house: House
    ground: Ground


@lru_cache(maxsize=3 * HOUSES)
def _open(split: str, seed: int) -> _Place:
    house = generate_house(seed, split)
    return _Place(house, Ground(obstacles(house.plan, house.furniture)))


class HouseNavEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A round body (radius 0.2 m) follows a route of viewpoints through a procedural house.

    Action, float32 `(2,)` in [-1, 1]: first turn by `a[0] * 30` degrees (positive left), then walk
    `(a[1] + 1) / 2 * 0.25` m ahead. Whatever touches something stops there and does not slide;
    the turn is never stopped.

    Observation, float32 `(46,)`, all of it relative to the body:

    | field | size | unit | content |
    |---|---|---|---|
    | rays | 36 | m | free way from the body's middle at 0, 10, ... 350 degrees, counterclockwise \
from ahead, at most 3; as a lidar near the floor sees it, but tables and beds are solid boxes |
    | touching | 1 | 1 | 1 where the last step was stopped |
    | waypoint | 3 | m, 1, 1 | viewpoint to visit next: distance, cosine and sine of its bearing |
    | waypoint2 | 3 | m, 1, 1 | the one after it; the goal again where there is none |
    | goal | 3 | m, 1, 1 | last viewpoint of the route |

    With `guide="goal"` there is neither `waypoint` nor `waypoint2`, so `(40,)`: only the goal is
    told, mostly in the same room or the next one, and walls may be between.

    An episode begins at the first viewpoint, looking anywhere. Viewpoints count as visited nearer
    than 0.4 m, in their order; at the last one the episode terminates with success and reward 1.
    There is no action to stop: a controller knows where its goal is. 150 steps truncate.

    Routes are shortest paths of 4 to 7 viewpoints and at least 5 m, as in Room-to-Room; with
    `guide="goal"` any of at least 3 m whose viewpoints lie in two rooms at most (a corridor may be
    crossed between them). The houses of an episode are those of its random stream: `test` where it
    is named by a bare seed, `val` where it chooses checkpoints, `train` where it is recorded. Each
    split has 64 of them, which take 0.1 s each when first walked.

    Info, at every step: `success`, `score` (SPL; the length of the route counts as the shortest
    way, so cut corners do not pay), `path_length` and `shortest_length` (m), `collisions` (steps
    that were stopped so far), `distance_to_goal` (m, straight), `waypoints_left`, `pose` (x, y,
    yaw in the house), `house`, `route`, `steps`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        guide: Literal["route", "goal"] = "route",
        split: Literal["train", "val", "test"] | None = None,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        """Set up the spaces; houses are built when an episode first needs them.

        Args:
            guide: what is told of the way: `route` or `goal`.
            split: of the houses; None goes by the stream of each episode.
            render_mode: None or `rgb_array`, a picture from above.
            max_episode_steps: 150 if None.

        Raises:
            ValueError: for an option out of range.
        """
        if guide not in ("route", "goal"):
            raise ValueError(f'guide must be "route" or "goal", got {guide!r}')
        if split is not None and split not in SPLITS:
            raise ValueError(f"split must be one of {tuple(SPLITS)} or None, got {split!r}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f'render_mode must be None or "rgb_array", got {render_mode!r}')
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {max_episode_steps}")
        self.guide, self.split, self.render_mode = guide, split, render_mode
        self._limit = max_episode_steps or EPISODE_STEPS
        self._stream_split = SPLIT_OF_STREAM["evaluate"]
        targets = ("waypoint", "waypoint2", "goal") if guide == "route" else ("goal",)
        # Of kind scalar: the body's own frame is what these are in already.
        self.state_fields = (
            Field("rays", N_RAYS, "scalar", "m", "free way all around, from ahead to the left"),
            Field("touching", 1, "scalar", "1", "whether the last step was stopped"),
            *(Field(name, 3, "scalar", "m, 1, 1", "distance and bearing") for name in targets),
        )
        self.action_fields = (
            Field("turn", 1, "scalar", "30 deg", "to the left"),
            Field("step", 1, "scalar", "1", "-1 for none to 1 for 0.25 m ahead"),
        )
        low = [0.0] * (N_RAYS + 1) + [0.0, -1.0, -1.0] * len(targets)
        high = [REACH] * N_RAYS + [1.0] + [_FAR, 1.0, 1.0] * len(targets)
        self.observation_space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
        self.action_space = spaces.Box(-1.0, 1.0, (2,))
        self._place: _Place | None = None  # until the first reset, which sets these too
        self._xy: Array
        self._yaw: float
        self._length: float
        self._trail: list[Array]
        self._next: int
        self._collisions: int
        self._steps: int
        self._touching: bool
        self._ended = True

    @property
    def house(self) -> House:
        """Where the present episode is."""
        return self._check_started().house

    @property
    def ground(self) -> Ground:
        """Floor of the present house."""
        return self._check_started().ground

    @property
    def route(self) -> Array:
        """`(N, 2)` viewpoints of the present episode, the start first."""
        self._check_started()
        return self._points.copy()

    @property
    def next_waypoint(self) -> int:
        """Index in `route` of the viewpoint to visit next."""
        self._check_started()
        return self._next

    @property
    def pose(self) -> tuple[float, float, float]:
        """x, y and yaw of the body."""
        self._check_started()
        return float(self._xy[0]), float(self._xy[1]), self._yaw

    @property
    def trail(self) -> Array:
        """`(steps + 1, 2)` places where the body has been."""
        self._check_started()
        return np.array(self._trail)

    @property
    def touching(self) -> bool:
        """Whether something stopped the last step."""
        self._check_started()
        return self._touching

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw a house, a route and where one looks.

        Args:
            seed: names the episode; None goes on with the present generator and split.
            options: `{"stream": name}` takes another random stream of `envs.seeding`, and its
                houses; `{"house": seed}` chooses the house, and with it `{"route": names}` the
                viewpoints, each next to the one before.

        Returns:
            Observation and info.

        Raises:
            ValueError: for unknown options, a stream without a seed, a route without a house, or
                one that is not in the house.
        """
        options = options or {}
        if unknown := set(options) - {"stream", "house", "route"}:
            raise ValueError(
                f'reset options may hold "stream", "house" and "route", got {sorted(unknown)}'
            )
        super().reset(seed=seed)
        stream = options.get("stream")
        if stream is not None:
            if seed is None:
                raise ValueError(f"stream {stream!r} needs a seed: reset(seed=...)")
            self.np_random = episode_rng(seed, stream)
        if seed is not None:
            self._stream_split = SPLIT_OF_STREAM[stream or "evaluate"]
        drawn = int(self.np_random.integers(HOUSES))
        place = _open(self.split or self._stream_split, int(options.get("house", drawn)))
        if "route" in options:
            if "house" not in options:
                raise ValueError('a route is in a house: reset(options={"house": .., "route": ..})')
            names = tuple(options["route"])
            if len(names) < 2:
                raise ValueError(f"a route needs at least two viewpoints, got {names}")
        else:
            names = _draw_route(place.house, self.np_random, self.guide)
        self._begin(place, names, float(self.np_random.uniform(-math.pi, math.pi)))
        return self._observation(), self._info()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Turn, then walk.

        Args:
            action: `(2,)`; clipped to [-1, 1].

        Returns:
            Observation, reward, terminated, truncated, info.

        Raises:
            ValueError: if the action has another shape or is not finite.
            RuntimeError: before the first reset, or after the end of an episode.
        """
        if self._ended:
            raise RuntimeError("call reset() before step(): no episode is under way")
        command = np.asarray(action, np.float64)
        if command.shape != (2,) or not np.isfinite(command).all():
            raise ValueError(f"action must be (2,) finite numbers, got {action!r}")
        turn, forward = command.clip(-1.0, 1.0).tolist()
        self._yaw = math.remainder(self._yaw + turn * MAX_TURN, math.tau)
        length = 0.5 * (forward + 1.0) * MAX_STEP
        reached, self._touching = self.ground.walk(self._xy, self._yaw, length, BODY_RADIUS)
        self._length += math.dist(reached, self._xy)
        self._collisions += self._touching
        self._xy = reached
        self._trail.append(reached)
        self._steps += 1
        self._visit()
        arrived = self._next == len(self._points)
        limit = self.spec.max_episode_steps if self.spec is not None else None
        truncated = not arrived and self._steps >= (limit or self._limit)
        self._ended = arrived or truncated
        return self._observation(), float(arrived), arrived, truncated, self._info()

    def expert(
        self, mode: Literal["consistent", "diverse"] = "consistent", seed: int | None = None
    ) -> "WayExpert":
        """Walks the present route (or straight to its goal) as if it knew the house.

        Args:
            mode: `consistent` takes the best way. `diverse` has tastes of its own: it goes round
                furniture on this side or that, and turns about to either side.
            seed: of the tastes; None takes unpredictable ones.

        Raises:
            ValueError: for an unknown mode.
            RuntimeError: before the first reset.
        """
        from envs.indoor.continuous_expert import WayExpert

        return WayExpert(self, mode, seed)

    def render(self) -> NDArray[np.uint8] | None:
        """Picture from above, `(H, W, 3)`; None without a render mode."""
        if self.render_mode is None:
            return None
        from envs.indoor.continuous_map import draw_walk

        return draw_walk(self)

    def ray_angles(self) -> Array:
        """`(36,)` directions of the rays in the house."""
        return np.asarray(self._yaw + np.arange(N_RAYS) * (math.tau / N_RAYS), np.float64)

    def _check_started(self) -> _Place:
        if self._place is None:
            raise RuntimeError("call reset() first: there is no episode yet")
        return self._place

    def _begin(self, place: _Place, names: tuple[str, ...], yaw: float) -> None:
        """Stand at the start of a route."""
        graph = place.house.graph
        self._shortest = graph.length(names)  # raises where a step is no edge
        self._names = names
        self._points = np.array([graph.positions[graph.index(name), :2] for name in names])
        self._place, self._yaw = place, yaw
        self._xy = self._points[0].copy()
        self._trail = [self._xy]
        self._next = 1 if self.guide == "route" else len(names) - 1
        self._length, self._collisions, self._steps = 0.0, 0, 0
        self._touching = self._ended = False

    def _visit(self) -> None:
        """Go on to the next viewpoint that is not reached yet."""
        while self._next < len(self._points) and (
            math.dist(self._xy, self._points[self._next]) < ARRIVED
        ):
            self._next += 1

    def _observation(self) -> NDArray[np.float32]:
        last = len(self._points) - 1
        targets = [last]
        if self.guide == "route":
            targets = [min(self._next, last), min(self._next + 1, last), last]
        values = [*self.ground.rays(self._xy, self.ray_angles(), REACH), float(self._touching)]
        for target in targets:
            dx, dy = self._points[target] - self._xy
            bearing = math.atan2(dy, dx) - self._yaw
            values += [min(math.hypot(dx, dy), _FAR), math.cos(bearing), math.sin(bearing)]
        return np.array(values, np.float32)

    def _info(self) -> dict[str, Any]:
        success = self._next == len(self._points)
        return {
            "success": success,
            "score": spl(success, self._shortest, self._length),
            "path_length": self._length,
            "shortest_length": self._shortest,
            "collisions": self._collisions,
            "distance_to_goal": math.dist(self._xy, self._points[-1]),
            "waypoints_left": len(self._points) - self._next,
            "pose": self.pose,
            "house": self.house.name,
            "route": self._names,
            "steps": self._steps,
        }


def _draw_route(house: House, rng: np.random.Generator, guide: str) -> tuple[str, ...]:
    """Viewpoints of a route that suits the guide."""
    if guide == "route":
        return sample_paths(house, rng, 1)[0]
    graph = house.graph
    for start, goal in rng.permutation(np.argwhere(graph.distances >= _NEAREST_GOAL)):
        path = graph.shortest_path(graph.viewpoints[start], graph.viewpoints[goal])
        if len({house.room_of(name) for name in path}) <= _ROOMS:
            return path
    raise AssertionError(f"{house.name}: no two viewpoints of neighbouring rooms are 3 m apart")
