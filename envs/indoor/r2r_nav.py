"""Room-to-Room: follow an instruction through a building, from viewpoint to viewpoint.

Source: Anderson et al. 2018, "Vision-and-language navigation: interpreting visually-grounded
navigation instructions in real environments"; panoramic actions after Fried et al. 2018.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.indoor.categories import CATEGORIES
from envs.indoor.graph import NavigationGraph
from envs.indoor.metrics import SUCCESS_DISTANCE, PathScores, score_path, spl
from envs.indoor.r2r_data import Instruction, check_path, read_instructions
from envs.indoor.r2r_experts import RouteExpert
from envs.indoor.simulator import Simulator
from envs.indoor.viewing import (
    VIEWS,
    Surroundings,
    Ways,
    angles_of,
    surroundings_of,
    turned,
    view_of,
)
from envs.indoor.worlds import World, open_world
from envs.seeding import episode_rng

Observation = dict[str, NDArray[Any]]

MAX_CANDIDATES = 16
"""Most ways that leave a viewpoint; 13 in Matterport3D's graphs."""
TEXT_BYTES = 1024
"""Of the instruction in the observation; Room-to-Room's longest has 938."""
EPISODE_STEPS = {"panoramic": 15, "low-level": 80}
LOW_LEVEL = ("stop", "forward", "left", "right", "up", "down")
"""Names of the low-level actions in their order."""

_TURNS = {2: (-1, 0), 3: (1, 0), 4: (0, 1), 5: (0, -1)}
_FAR = 100.0
"""Metres; lengths and depths in observations end here."""


class R2RNavEnv(gymnasium.Env[Observation, np.int64]):
    """One instruction at a time, in one building of a world.

    Action, with `actions="panoramic"` (17 of them): 0 stops; k walks to the k-th way of
    `candidates`. One that is not there does nothing. After a walk one looks along the view nearest
    to the direction walked. With `actions="low-level"`: 0 stop, 1 forward to the way nearest to
    the middle of the view (among those within 40 degrees to either side), 2 left, 3 right, 4 up,
    5 down by 30 degrees. Forward does nothing where no way is in view.

    Observation, a dict:

    | key | shape | content |
    |---|---|---|
    | instruction | (1024,) uint8 | its text in UTF-8, zeros behind, cut where longer |
    | direction | (4,) float32 | sine and cosine of the heading, then of the elevation |
    | candidates | (16, 4) float32 | ways, nearest to the middle of the view first: sine and \
cosine of the heading relative to the view (positive right), relative elevation (rad), length (m) |
    | candidate_mask | (16,) int8 | 1 where there is a way |
    | views | (36, 41) uint8 | categories (mpcat40) seen in each view; rows are world-aligned |
    | rgb, semantic, depth | (H, W[, 3]) | with `views="pixels"`: a world-aligned panorama, see \
`envs.indoor.simulator.Panorama` |

    Low-level agents see less, as in the paper: only ways within the view, and `views` is (1, 41),
    the view one looks at.

    Info, at every step: `success` (as if the episode ended now: nearer than 3 m to the goal, on
    the graph), `score` (SPL likewise), `distance_to_goal` and `path_length` (m), `instr_id`,
    `scan`, `instruction`, `viewpoint`, `candidates` (names of the ways), `heading`, `elevation`,
    `view_index`, `steps`. At the end also `trajectory` ((viewpoint, heading, elevation) after each
    action, as submissions hold it) and `metrics` (`envs.indoor.metrics.PathScores` as a dict).
    Where the goal is secret (split `test`), `success` and `score` are None, distances NaN, and
    there are no metrics.

    Reward: 1 for a stop nearer than 3 m to the goal, else 0. Stopping terminates; 15 steps (80
    low-level) truncate.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(
        self,
        world: str = "sketch",
        split: str = "train",
        scan: str | None = None,
        actions: Literal["panoramic", "low-level"] = "panoramic",
        views: Literal["symbolic", "pixels", "none"] = "symbolic",
        image_size: tuple[int, int] = (128, 256),
        data: str | None = None,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        """Read the instructions. Buildings are read when an episode first needs them.

        Args:
            world: a key of `envs.indoor.worlds.WORLDS`: `sketch` and `houses` (procedural, with
                pixels) are synthetic and need no data, `r2r` is the real thing, from the folder.
            split: of the world, or a JSON file in Room-to-Room's form.
            scan: only episodes in this building.
            actions: `panoramic` or `low-level`.
            views: `symbolic`, `pixels` (a world with a simulator) or `none`.
            image_size: height and width of panoramas in pixels.
            data: folder of data; `DECISIVE_DATA`, or `shared/data` beside the project, if None.
            render_mode: None or `rgb_array`, a map with the walk.
            max_episode_steps: see `EPISODE_STEPS` for the default.

        Raises:
            ValueError: for an option out of range, or a file that is not what it should be.
            FileNotFoundError: where data are missing.
        """
        if actions not in EPISODE_STEPS:
            raise ValueError(f"actions must be one of {tuple(EPISODE_STEPS)}, got {actions!r}")
        if views not in ("symbolic", "pixels", "none"):
            raise ValueError(f'views must be "symbolic", "pixels" or "none", got {views!r}')
        if min(image_size) < 1:
            raise ValueError(f"image_size must be at least (1, 1), got {image_size}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f'render_mode must be None or "rgb_array", got {render_mode!r}')
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {max_episode_steps}")
        self.world: World = open_world(world, None if data is None else Path(data))
        self.actions, self.views, self.image_size = actions, views, image_size
        self.render_mode = render_mode
        self._limit = max_episode_steps or EPISODE_STEPS[actions]
        self.instructions: Mapping[str, Instruction] = _instructions(self.world, split, scan)
        """Every instruction that an episode may draw, by `instr_id`."""
        self._names = tuple(self.instructions)
        self._n_actions = MAX_CANDIDATES + 1 if actions == "panoramic" else len(LOW_LEVEL)
        self.action_space = spaces.Discrete(self._n_actions)
        boxes = spaces.Dict(_boxes(views, image_size, actions == "low-level"))
        self.observation_space = cast(spaces.Space[Observation], boxes)
        self._scan: _Scan | None = None  # until the first reset
        self._ended = True

    @property
    def instruction(self) -> Instruction:
        """What is to be followed in this episode."""
        self._check_started()
        return self._instruction

    @property
    def graph(self) -> NavigationGraph:
        """Graph of the present building."""
        return self.surroundings.graph

    @property
    def surroundings(self) -> Surroundings:
        """Directions of the ways in the present building."""
        self._check_started()
        assert self._scan is not None
        return self._scan.surroundings

    @property
    def trajectory(self) -> tuple[tuple[str, float, float], ...]:
        """Viewpoint, heading and elevation (radians) after every action so far, start first."""
        names = self.graph.viewpoints
        return tuple((names[place], *angles_of(view)) for place, view in self._walk)

    @property
    def pose(self) -> tuple[int, int]:
        """Index of the present viewpoint, and of the view one looks at."""
        self._check_started()
        return self._walk[-1]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode at the start of a path, looking along its heading, level.

        Args:
            seed: names the episode; None goes on with the present generator.
            options: `{"instr_id": name}` chooses the instruction; `{"stream": name}` takes another
                random stream of `envs.seeding`. All streams draw from the same split.

        Returns:
            Observation and info.

        Raises:
            ValueError: for unknown options or instructions, a stream without a seed, or a path
                that the graph of its building does not hold.
        """
        options = options or {}
        if unknown := set(options) - {"stream", "instr_id"}:
            raise ValueError(
                f'reset options may hold "stream" and "instr_id" only, got {sorted(unknown)}'
            )
        super().reset(seed=seed)
        if "stream" in options:
            if seed is None:
                raise ValueError(f"stream {options['stream']!r} needs a seed: reset(seed=...)")
            self.np_random = episode_rng(seed, options["stream"])
        name = options.get("instr_id")
        if name is None:
            name = self._names[int(self.np_random.integers(len(self._names)))]
        if name not in self.instructions:
            raise ValueError(f"unknown instruction {name!r}; known are such as {self._names[0]!r}")
        self._begin(self.instructions[name])
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Stop, walk or turn.

        Args:
            action: an integer of the action space.

        Returns:
            Observation, reward, terminated, truncated, info.

        Raises:
            ValueError: if the action is not in the action space.
            RuntimeError: before the first reset, or after the end of an episode.
        """
        if self._ended:
            raise RuntimeError("call reset() before step(): no episode is under way")
        chosen = self._number(action)
        self._steps += 1
        if chosen:
            self._move(chosen)
        limit = self.spec.max_episode_steps if self.spec is not None else None
        truncated = bool(chosen) and self._steps >= (limit or self._limit)
        self._ended = truncated or not chosen
        info = self._info()
        if self._ended:
            info["trajectory"] = self.trajectory
            if (scores := self.scores()) is not None:
                info["metrics"] = asdict(scores)
        reward = float(not chosen and bool(info["success"]))
        return self._observation(), reward, not chosen, truncated, info

    def scores(self) -> PathScores | None:
        """Measures of the walk so far; None where the goal is secret."""
        if not self.instruction.has_goal:
            return None
        walked = [self.graph.viewpoints[place] for place, _ in self._walk]
        return score_path(self.graph, walked, self.instruction.path)

    def expert(
        self, mode: Literal["consistent", "diverse"] = "consistent", seed: int | None = None
    ) -> RouteExpert:
        """Walks a shortest way to the goal of the present episode, and stops there.

        Args:
            mode: `consistent`, or `diverse`: any way of neighbours that come nearer to the goal
                and cost at most a tenth more.
            seed: of the choices of `diverse`.

        Raises:
            ValueError: for an unknown mode, or where the goal is secret.
        """
        if not self.instruction.has_goal:
            raise ValueError(
                f"the goal of {self.instruction.instr_id} is secret: there is no expert for it"
            )
        low_level = self.actions == "low-level"
        return RouteExpert(
            self.surroundings, self.graph.index(self.instruction.path[-1]), low_level, mode, seed
        )

    def render(self) -> Any:
        """Map of the building with the walk, `(H, W, 3)` uint8; None without a render mode."""
        if self.render_mode is None:
            return None
        from envs.indoor.r2r_map import draw_map

        walked = [place for place, _ in self._walk]
        return draw_map(self.graph, self.instruction, walked, self.pose[1])

    def close(self) -> None:
        """Free the simulator, if there is one."""
        if self._scan is not None:
            self._scan.close()
        self._scan, self._ended = None, True

    def _begin(self, instruction: Instruction) -> None:
        """Stand at the start of an instruction's path."""
        if self._scan is None or self._scan.name != instruction.scan:
            self.close()
            self._scan = _Scan(self.world, instruction.scan, self.views)
        graph = self._scan.surroundings.graph
        check_path(graph, instruction)
        self._instruction = instruction
        start = graph.index(instruction.path[0])
        self._goal = graph.index(instruction.path[-1]) if instruction.has_goal else None
        self._walk = [(start, view_of(instruction.heading, 0.0))]
        self._length, self._steps, self._ended = 0.0, 0, False
        text = instruction.text.encode()[:TEXT_BYTES].decode(errors="ignore").encode()
        self._text = np.zeros(TEXT_BYTES, np.uint8)
        self._text[: len(text)] = np.frombuffer(text, np.uint8)
        self._look()

    def _number(self, action: Any) -> int:
        """An action as an int."""
        value = np.asarray(action)
        if value.shape not in ((), (1,)) or not np.issubdtype(value.dtype, np.integer):
            raise ValueError(f"action must be an integer, got {action!r}")
        number = int(value.reshape(()))
        if not 0 <= number < self._n_actions:
            raise ValueError(f"action must be 0 to {self._n_actions - 1}, got {number}")
        return number

    def _move(self, action: int) -> None:
        """Walk or turn; whatever cannot be done leaves one where one is."""
        place, view = self._walk[-1]
        if self.actions == "low-level":
            if action == LOW_LEVEL.index("forward"):
                place = int(self._ways.viewpoints[0]) if len(self._ways.viewpoints) else place
            else:
                view = turned(view, *_TURNS[action])
        elif action <= len(self._ways.viewpoints):
            other = int(self._ways.viewpoints[action - 1])
            view = view_of(*self.surroundings.direction(place, other))
            place = other
        self._length += float(self.graph.distances[self._walk[-1][0], place])
        self._walk.append((place, view))
        self._look()

    def _look(self) -> None:
        """Note the ways that leave from here."""
        place, view = self._walk[-1]
        self._ways: Ways = self.surroundings.ways(place, view, self.actions == "low-level")
        if len(self._ways.viewpoints) > MAX_CANDIDATES:
            raise ValueError(
                f"{self.graph.scan}, viewpoint {self.graph.viewpoints[place]}: "
                f"{len(self._ways.viewpoints)} ways leave it, {MAX_CANDIDATES} is the most"
            )

    def _observation(self) -> Observation:
        assert self._scan is not None
        place, view = self._walk[-1]
        ways, n = self._ways, len(self._ways.viewpoints)
        candidates = np.zeros((MAX_CANDIDATES, 4), np.float32)
        candidates[:n, 0], candidates[:n, 1] = np.sin(ways.headings), np.cos(ways.headings)
        candidates[:n, 2], candidates[:n, 3] = ways.elevations, np.minimum(ways.distances, _FAR)
        mask = np.zeros(MAX_CANDIDATES, np.int8)
        mask[:n] = 1
        observation: Observation = {
            "instruction": self._text.copy(),
            "direction": _DIRECTIONS[view].copy(),
            "candidates": candidates,
            "candidate_mask": mask,
        }
        if self._scan.symbolic is not None:
            rows = slice(view, view + 1) if self.actions == "low-level" else slice(None)
            observation["views"] = self._scan.symbolic[place, rows].copy()
        elif self._scan.simulator is not None:
            seen = self._scan.simulator.observe(self.graph.viewpoints[place], self.image_size)
            depth = np.minimum(seen.depth, np.float32(_FAR))
            observation |= {"rgb": seen.rgb, "semantic": seen.semantic, "depth": depth}
        return observation

    def _info(self) -> dict[str, Any]:
        place, view = self._walk[-1]
        graph, instruction = self.graph, self._instruction
        names = graph.viewpoints
        heading, elevation = angles_of(view)
        success: bool | None = None
        score: float | None = None
        error = float("nan")
        if self._goal is not None:
            error = float(graph.distances[place, self._goal])
            success = error < SUCCESS_DISTANCE
            shortest = float(graph.distances[self._walk[0][0], self._goal])
            score = spl(success, shortest, self._length)
        return {
            "success": success,
            "score": score,
            "distance_to_goal": error,
            "path_length": self._length,
            "instr_id": instruction.instr_id,
            "scan": instruction.scan,
            "instruction": instruction.text,
            "viewpoint": names[place],
            "candidates": tuple(names[other] for other in self._ways.viewpoints.tolist()),
            "heading": heading,
            "elevation": elevation,
            "view_index": view,
            "steps": self._steps,
        }

    def _check_started(self) -> None:
        if self._scan is None:
            raise RuntimeError("call reset() first: there is no episode yet")


class _Scan:
    """A building as an environment uses it."""

    def __init__(self, world: World, name: str, views: str) -> None:
        self.name = name
        self.surroundings = surroundings_of(world.graph(name))
        self.symbolic = world.symbolic_views(name) if views == "symbolic" else None
        self.simulator: Simulator | None = world.simulator(name) if views == "pixels" else None

    def close(self) -> None:
        if self.simulator is not None:
            self.simulator.close()


def _instructions(world: World, split: str, scan: str | None) -> dict[str, Instruction]:
    """Instructions by name, of a split or a file."""
    is_file = split.endswith((".json", ".json.gz"))
    found: Sequence[Instruction]
    found = read_instructions(Path(split)) if is_file else world.instructions(split)
    if scan is not None:
        scans = sorted({one.scan for one in found})
        found = [one for one in found if one.scan == scan]
        if not found:
            raise ValueError(f"split {split!r} has no scan {scan!r}; known: {', '.join(scans)}")
    return {one.instr_id: one for one in found}


def _boxes(
    views: str, image_size: tuple[int, int], low_level: bool
) -> dict[str, spaces.Space[Any]]:
    """Spaces of an observation by key."""
    low = np.tile(np.array([-1, -1, -np.pi, 0], np.float32), (MAX_CANDIDATES, 1))
    high = np.tile(np.array([1, 1, np.pi, _FAR], np.float32), (MAX_CANDIDATES, 1))
    boxes: dict[str, spaces.Space[Any]] = {
        "instruction": spaces.Box(0, 255, (TEXT_BYTES,), np.uint8),
        "direction": spaces.Box(-1.0, 1.0, (4,), np.float32),
        "candidates": spaces.Box(low, high, dtype=np.float32),
        "candidate_mask": spaces.MultiBinary(MAX_CANDIDATES),
    }
    if views == "symbolic":
        rows = 1 if low_level else VIEWS
        boxes["views"] = spaces.Box(0, 1, (rows, len(CATEGORIES)), np.uint8)
    elif views == "pixels":
        last = len(CATEGORIES) - 1
        boxes["rgb"] = spaces.Box(0, 255, (*image_size, 3), np.uint8)
        boxes["semantic"] = spaces.Box(0, last, image_size, np.uint8)
        boxes["depth"] = spaces.Box(0.0, _FAR, image_size, np.float32)
    return boxes


_DIRECTIONS = np.array(
    [[f(angle) for angle in angles_of(view) for f in (np.sin, np.cos)] for view in range(VIEWS)],
    np.float32,
)
