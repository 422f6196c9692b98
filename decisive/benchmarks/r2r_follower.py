"""The instruction follower as an agent of `decisive benchmark r2r`, and its training.

python -m decisive.benchmarks.r2r_follower --seconds 300 --out agents/vln/checkpoints/r2r-follower
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from decisive.arguments import parse
from decisive.benchmarks.navigation_study import spoken_features
from decisive.benchmarks.symbolic_study import headings_of
from envs.indoor.categories import CATEGORIES
from envs.indoor.worlds import open_world

if TYPE_CHECKING:
    from agents.vln.follower import InstructionFollower

CHECKPOINTS = Path(__file__).parents[2] / "agents" / "vln" / "checkpoints"
"""Where shipped followers lie, one folder each."""


class FollowerActor:
    """Walks by an `InstructionFollower`; sees the instruction, the graph, and where it has been."""

    def __init__(self, follower: InstructionFollower) -> None:
        """Hold the follower.

        Args:
            follower: chooses.
        """
        self.follower = follower

    def reset(self, env: gym.Env[Any, Any], seed: int) -> None:
        """Take the instruction of the episode; nothing is random."""
        world: Any = env.unwrapped
        self._text, self._heading = world.instruction.text, world.instruction.heading
        self._graph = world.graph
        self._history: list[int] = []
        self._seen: dict[int, NDArray[np.float32]] = {}

    def act(self, obs: Any, info: Mapping[str, Any]) -> NDArray[Any]:
        """Note the view, then go on or stop."""
        here = self._graph.index(info["viewpoint"])
        self._history.append(here)
        self._seen[here] = headings_of(obs["views"][None])[0]
        hop = self.follower.choose(self, self._text, self._history, self._heading)
        if hop is None:
            return np.array(0)
        return np.array(1 + list(info["candidates"]).index(self._graph.viewpoints[hop]))

    @property
    def positions(self) -> NDArray[np.float64]:
        """Of the viewpoints: to the follower, this actor is the place."""
        return self._graph.positions

    def neighbors(self, viewpoint: int) -> Sequence[int]:
        """Viewpoints one hop away."""
        return self._graph.neighbors[viewpoint]

    def look(self, viewpoint: int) -> NDArray[np.float32]:
        """The view noted at a visited viewpoint."""
        return self._seen[viewpoint]

    def imagine(self, visited: Sequence[int], unseen: Sequence[int]) -> None:
        """Nothing."""
        return


def make_follower(name: str = "r2r-follower") -> FollowerActor:
    """The actor of a shipped follower.

    Raises:
        CheckpointError: if it is not there.
    """
    import torch

    from agents.vln.follower import InstructionFollower

    torch.set_num_threads(1)
    return FollowerActor(InstructionFollower.load(CHECKPOINTS / name))


@dataclass(frozen=True)
class Arguments:
    """Train an instruction follower by imitation."""

    out: str
    """Folder of the checkpoint."""
    world: str = "r2r"
    """r2r (real), or sketch (synthetic, needs no data)."""
    seconds: float = 300.0
    """CPU-seconds of training."""
    seed: int = 0
    """Of the training."""


def main(argv: Sequence[str]) -> int:
    """Train and write the checkpoint."""
    import torch

    from agents.vln.checkpoint import SavedRanker, save_ranker
    from agents.vln.follower import FOLLOWER_COURSE
    from agents.vln.places import GraphPlace
    from agents.vln.ranker import PathRanker, RankerConfig
    from agents.vln.training import Route, train_ranker
    from agents.vln.vocabulary import Vocabulary
    from learning.train_config import TrainConfig

    arguments = parse(Arguments, argv, "benchmark r2r follower")
    torch.set_num_threads(1)
    world = open_world(arguments.world)
    lessons = world.instructions("train")
    places = {}
    for scan in sorted({one.scan for one in lessons}):
        graph = world.graph(scan)
        views = headings_of(world.symbolic_views(scan))
        places[scan] = GraphPlace(graph.positions, graph.neighbors, views)
    vocabulary = Vocabulary.of(one.text for one in lessons)
    routes = []
    for one in lessons:
        graph = world.graph(one.scan)
        path = tuple(graph.index(viewpoint) for viewpoint in one.path)
        words = vocabulary.encode(one.text)
        routes.append(Route((places[one.scan],), graph.distances, words, one.heading, path))
    torch.manual_seed(arguments.seed)
    ranker = PathRanker(RankerConfig(len(CATEGORIES), len(vocabulary), dropout=0.2))
    ranker.name_features(spoken_features(vocabulary))
    config = TrainConfig(
        cpu_seconds=arguments.seconds, batch_size=64, lr=3e-3, ema_decay=0.995, seed=arguments.seed
    )
    facts = train_ranker(
        ranker,
        routes,
        FOLLOWER_COURSE,
        config,
        lambda step, spent, loss: print(f"{step} steps, {spent:.0%}, loss {loss:.3f}", flush=True),
    )
    saved = SavedRanker(ranker, vocabulary, CATEGORIES, dict(facts))
    save_ranker(arguments.out, saved, card(arguments, facts))
    return 0


def card(arguments: Arguments, facts: Mapping[str, float]) -> str:
    """The model card."""
    source = (
        "split `train` of Room-to-Room (Anderson et al. 2018) with the object lists of REVERIE "
        "(Qi et al. 2020). Both derive from Matterport3D, whose terms of use allow academic, "
        "non-commercial use."
        if arguments.world == "r2r"
        else "synthetic sketches, split `train`."
    )
    return f"""# Instruction follower for {arguments.world}

Chooses the next viewpoint, or to stop, from an instruction, the ways that leave, and the categories
of objects seen from where it has been.

- data: {source}
- command: `python -m decisive.benchmarks.r2r_follower --world {arguments.world} \
--seconds {arguments.seconds:g} --seed {arguments.seed} --out FOLDER`
- training: {facts["steps"]:.0f} steps, {facts["cpu_seconds"]:.0f} CPU-seconds, loss \
{facts["loss"]:.3f}
- limits: English of annotators; indoor graphs with hops of about 2 m; nothing is imagined.
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
