"""`decisive/Dream-v0`: follow instructions inside a world model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decisive.dream_pictures import class_picture, resized
from envs.indoor.graph import NavigationGraph
from envs.indoor.r2r_data import Instruction
from envs.indoor.r2r_nav import R2RNavEnv
from envs.indoor.simulator import Panorama, Simulator
from envs.indoor.worlds import World
from world_models.pathdreamer.dreamer import Dreamed, Dreamer
from world_models.pathdreamer.model import Pathdreamer, load_world_model

MODEL = "pathdreamer-houses"


class DreamEnv(R2RNavEnv):
    """Room-to-Room of which only the start is really seen; the world model dreams the rest.

    Actions, observations, rewards and the end of an episode are those of `decisive/R2RNav-v0` with
    `actions="panoramic"` and `views="pixels"`: action 0 stops, k walks to the k-th way of
    `candidates`; `rgb`, `semantic` and `depth` are a panorama, here a dreamed one. Coming back to
    a viewpoint shows what was dreamed there before. Which ways there are is taken from the true
    building; what is at their ends is not.

    Info holds besides: `imagined`, the share of the present panorama's pixels that no panorama
    before it showed (0 at the start); `dreamed`, how many viewpoints were dreamed so far.

    The seed of `reset` fixes the episode and what is dreamed in it.
    """

    def __init__(
        self,
        model: str | Pathdreamer = MODEL,
        world: str = "houses",
        split: str = "train",
        scan: str | None = None,
        size: tuple[int, int] | None = None,
        temperature: float = 1.0,
        data: str | None = None,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        """Read the model and the instructions.

        Args:
            model: checkpoint folder, name of a shipped world model, or the model itself.
            world: a key of `envs.indoor.worlds.WORLDS` with a simulator, for the real start.
            split: of the world, or a JSON file in Room-to-Room's form.
            scan: only episodes in this building.
            size: height and width of panoramas; what the model is meant for, if None.
            temperature: how bold the dreams are; 0 takes the most expected one.
            data: folder of data; `DECISIVE_DATA`, or `shared/data` beside the project, if None.
            render_mode: None or `rgb_array`: a map with the walk, and the dreamed panorama.
            max_episode_steps: 15 if None.

        Raises:
            ValueError: for an option out of range, or no such model.
        """
        self.model = model if isinstance(model, Pathdreamer) else load_world_model(model)
        chosen = size or (self.model.config.height, 2 * self.model.config.height)
        Dreamer(self.model, chosen, 0, temperature)  # refuses what cannot be dreamed
        super().__init__(
            world=world,
            split=split,
            scan=scan,
            actions="panoramic",
            views="pixels",
            image_size=(chosen[0], chosen[1]),
            data=data,
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
        )
        self.temperature = temperature
        self._dreams: DreamSimulator | None = None  # until the first reset
        self.world = _DreamWorld(self.world, self)

    def simulator_of(self, real: Simulator) -> DreamSimulator:
        """A building as this environment shows it."""
        self._dreams = DreamSimulator(real, self.model, self.image_size, self.temperature)
        return self._dreams

    def render(self) -> Any:
        """Map of the walk with the panorama under it, `(H, W, 3)` uint8; None without a mode."""
        plan = super().render()
        if plan is None:
            return None
        assert self._dreams is not None
        view = self._dreams.view(self.graph.viewpoints[self.pose[0]])
        width = plan.shape[1]
        rgb = resized(view.rgb, width, width // 2)
        classes = resized(class_picture(view.semantic), width, width // 2, smooth=False)
        return np.concatenate([plan, rgb, classes])

    def _begin(self, instruction: Instruction) -> None:
        super()._begin(instruction)
        assert self._dreams is not None
        self._dreams.restart(instruction.path[0], int(self.np_random.integers(2**31)))

    def _info(self) -> dict[str, Any]:
        assert self._dreams is not None
        here = self.graph.viewpoints[self.pose[0]]
        view = self._dreams.view(here)
        unseen = 0.0 if isinstance(view, Panorama) else 1.0 - float(view.guidance.valid.mean())
        return super()._info() | {"imagined": unseen, "dreamed": self._dreams.dreamed}


class DreamSimulator:
    """A building of which one viewpoint is real, and the others are dreamed when one gets there."""

    def __init__(
        self, real: Simulator, model: Pathdreamer, size: tuple[int, int], temperature: float
    ) -> None:
        """Wrap a simulator; `restart` comes before any look."""
        self._real, self._model, self._size = real, model, size
        self._temperature = temperature
        self._views: dict[str, Panorama | Dreamed] = {}
        self._dreamer: Dreamer | None = None

    @property
    def graph(self) -> NavigationGraph:
        """The true one."""
        return self._real.graph

    @property
    def dreamed(self) -> int:
        """How many viewpoints were dreamed so far."""
        return max(0, len(self._views) - 1)

    def restart(self, start: str, seed: int) -> None:
        """Forget everything, and really look around at a viewpoint.

        Args:
            start: its name.
            seed: of the dreams.
        """
        self._dreamer = Dreamer(self._model, self._size, seed, self._temperature)
        seen = self._real.observe(start, self._size)
        self._dreamer.see(seen)
        self._views = {start: seen}

    def view(self, viewpoint: str) -> Panorama | Dreamed:
        """What one sees at a viewpoint: the real start, or a dream, the same at every return."""
        assert self._dreamer is not None
        if viewpoint not in self._views:
            position = self.graph.positions[self.graph.index(viewpoint)]
            self._views[viewpoint] = self._dreamer.dream(position)
        return self._views[viewpoint]

    def observe(self, place: str | NDArray[np.float64], size: tuple[int, int]) -> Panorama:
        """The panorama of a viewpoint; see `Simulator.observe`.

        Raises:
            ValueError: for a position, or another size than that of the dreams.
        """
        if not isinstance(place, str) or size != self._size:
            raise ValueError(f"dreams are of viewpoints, {self._size} pixels large, got {size}")
        view = self.view(place)
        # Copies: who keeps an observation may write into it.
        return Panorama(
            view.rgb.copy(), view.semantic.copy(), view.depth.copy(), view.position.copy()
        )

    def close(self) -> None:
        """Free the real simulator."""
        self._real.close()


class _DreamWorld:
    """A world whose buildings are dreamed."""

    def __init__(self, real: World, env: DreamEnv) -> None:
        self._real, self._env = real, env
        self.splits = real.splits
        self.instructions = real.instructions
        self.graph = real.graph
        self.symbolic_views = real.symbolic_views

    def simulator(self, scan: str) -> Simulator:
        return self._env.simulator_of(self._real.simulator(scan))
