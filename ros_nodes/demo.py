"""`decisive ros demo`: simulator, policy and gate as three processes, beside direct episodes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from decisive.episodes import Runner
from decisive.progress import progress
from decisive.statistics import wilson_interval
from ros_nodes.any_environment import parameters_for
from ros_nodes.graph import Graph, find_graph
from ros_nodes.perceiving import SEGMENTER, check_perceived, perceiving
from ros_nodes.processes import Processes, running

ANY = "sim_any"
"""The graph of environments that are not driven by displacements."""
LOCKSTEP = ("sim_lockstep", ANY)
"""Graphs in which the simulator waits for every command."""
TOLERANCE = 1e-6
"""By which a direct episode and one through the graph may differ: metres of the tool's path, or
units of the observation of any environment."""
PATIENCE = 30.0
"""Seconds without a step after which an episode whose objects are perceived is given up."""
LONGEST = 600.0
"""Seconds that such an episode may take on a busy machine."""


@dataclass(frozen=True)
class DemoConfig:
    """What to run.

    Attributes:
        graph: name of the graph; `sim_any` for environments that are not driven by displacements.
        env: environment id.
        policy: checkpoint folder or shipped name.
        options: environment options.
        episodes: how many; seeds `seed`, `seed + 1`, ...
        seed: of the first.
        overrides: parameters of nodes, `NODE.name`.
        perceived: whether poses come from camera and depth, instead of the simulator.
        segmenter: that tells the objects then: checkpoint folder or shipped name, or `colors`.
        direct: whether to run the same episodes without ROS.
    """

    graph: str = "sim_lockstep"
    env: str = "decisive/BlockInsertion-v0"
    policy: str = "block-insertion-ibc"
    options: Mapping[str, Any] = field(default_factory=dict)
    episodes: int = 50
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    perceived: bool = False
    segmenter: str = SEGMENTER
    direct: bool = True

    @property
    def nodes(self) -> Graph:
        """The graph, with the nodes that see where they are needed."""
        graph = find_graph(self.graph)
        return perceiving(graph, self.segmenter)[0] if self.perceived else graph

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of all nodes."""
        words = [f"{name}={value}" for name, value in self.options.items()]
        seen: dict[str, Any] = {}
        if self.perceived:
            seen = perceiving(find_graph(self.graph), self.segmenter)[1]
            seen["object_poses.env"] = self.env
        return {
            **(parameters_for(self.env, self.options) if self.graph == ANY else {}),
            **seen,
            "sim_robot.env": self.env,
            "sim_robot.set": words or [""],
            "sim_robot.auto_reset": False,
            "policy.checkpoint": self.policy,
            **self.overrides,
        }


@contextmanager
def isolated() -> Iterator[None]:
    """A ROS domain of its own on this machine, unless the user has chosen one."""
    chosen = {
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 29),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    mine = {name: value for name, value in chosen.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            del os.environ[name]


def run_demo(config: DemoConfig, logs: Path | None = None) -> dict[str, Any]:
    """Run the episodes through the graph, and without it.

    Args:
        config: what to run.
        logs: folder for what the nodes print; a temporary one by default.

    Returns:
        A JSON object: `ros` and `direct` (`success_rate`, `success_ci95`, `per_episode`), `gate`
        (counters of the safety gate), and `parity`: the greatest difference between the tool paths
        (metres) or observations of the first episode, with the steps compared, and how many
        episodes have equal rows (success, score, return and length). Of what is perceived there is
        no parity, but `gave_up` in `ros`: episodes that ended because an object was not seen.

    Raises:
        ValueError: for a segmenter that there is not, or that is not trained.
    """
    if config.perceived:
        check_perceived(config.segmenter, config.env)
    direct: list[dict[str, Any]] = []
    direct_path: NDArray[np.float64] = np.zeros((0, 2))
    if config.direct:
        direct, direct_path = _direct(config)
    with tempfile.TemporaryDirectory() as scratch, isolated():
        place = logs or Path(scratch)
        with running(config.nodes, config.parameters, place) as processes:
            rows, path, gate = _through(config, processes)
    answer: dict[str, Any] = {
        "graph": config.graph,
        "env": config.env,
        "policy": config.policy,
        "episodes": config.episodes,
        "seed": config.seed,
        "perceived": config.perceived,
        **({"segmenter": config.segmenter} if config.perceived else {}),
        "ros": _summary(rows),
        "gate": gate,
    }
    if config.perceived:
        answer["ros"]["gave_up"] = sum(row["score"] is None for row in rows)
    if config.direct:
        answer["direct"] = _summary(direct)
        if config.graph in LOCKSTEP and not config.perceived:
            same = sum(one == other for one, other in zip(rows, direct, strict=True))
            answer["parity"] = {**_parity(path, direct_path), "episodes_equal": same}
    return answer


def _through(
    config: DemoConfig, processes: Processes
) -> tuple[list[dict[str, Any]], NDArray[np.float64], dict[str, Any]]:
    """Episodes through the graph; also the tool's path in the first, and the gate's counters."""
    from ros_nodes.operator import Operator

    operator = Operator(check=processes.check)
    rows = []
    path: NDArray[np.float64] = np.zeros((0, 2))
    try:
        operator.wait_active()
        if any(node.name == "perception" for node in config.nodes.nodes):
            operator.wait_node("perception")
        with progress(f"{config.policy} through ROS 2", config.episodes) as meter:
            also = ("object_poses",) if config.perceived else ()
            for seed in range(config.seed, config.seed + config.episodes):
                if config.graph not in LOCKSTEP:
                    # A policy begins anew without a word, and an armed gate stops at that.
                    operator.disarm()
                operator.begin_episode(seed, also)
                operator.arm()
                rows.append(_end(operator, seed, config.perceived))
                if seed == config.seed:
                    any_env = config.graph == ANY
                    path = operator.observations() if any_env else operator.tool_path()
                meter.advance(note=f"{sum(bool(row['success']) for row in rows)} succeeded")
        gate = operator.report()
    finally:
        operator.close()
    return rows, path, gate


def _end(operator: Any, seed: int, perceived: bool) -> dict[str, Any]:
    """The result of an episode; of one that cannot go on, that it has failed.

    Nothing decides before every object was seen once, and a simulator in lockstep shows the same
    picture until somebody decides.
    """
    from ros_nodes.operator import Stalled

    if not perceived:
        return operator.end_episode(seed)
    try:
        return operator.end_episode(seed, LONGEST, PATIENCE)
    except Stalled:
        steps = operator.steps()
        return {"seed": seed, "success": False, "score": None, "return": 0.0, "length": steps}


def _direct(config: DemoConfig) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    """The same episodes in this process."""
    runner = Runner(config.env, config.options, config.policy)
    runner.env = noted = _Noted(runner.env)
    path: list[NDArray[np.float64]] = []

    def note(env: Any) -> None:
        path.append(noted.last if config.graph == ANY else env.unwrapped.scene.tip()[:2])

    try:
        with progress(f"{config.policy} direct", config.episodes) as meter:
            rows = []
            for seed in range(config.seed, config.seed + config.episodes):
                watch = note if seed == config.seed else None
                rows.append(runner.run(seed, watch).row())
                meter.advance(note=f"{sum(bool(row['success']) for row in rows)} succeeded")
    finally:
        runner.close()
    return rows, np.array(path)


class _Noted(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps the last vector that an environment has shown."""

    last: NDArray[np.float64]
    """`(D,)`; pixels, laid out in a row."""

    def reset(self, **words: Any) -> Any:
        observation, info = self.env.reset(**words)
        return self._note(observation), info

    def step(self, action: Any) -> Any:
        observation, *rest = self.env.step(action)
        return self._note(observation), *rest

    def _note(self, observation: Any) -> Any:
        state = observation["state"] if isinstance(observation, Mapping) else observation
        self.last = np.asarray(state, np.float64).ravel()
        return observation


def _parity(path: NDArray[np.float64], direct: NDArray[np.float64]) -> dict[str, Any]:
    if path.shape != direct.shape:
        return {"equal": False, "steps": [len(path) - 1, len(direct) - 1], "difference": None}
    difference = float(np.abs(path - direct).max())
    return {"equal": difference <= TOLERANCE, "steps": len(path) - 1, "difference": difference}


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    successes = sum(bool(row["success"]) for row in rows)
    return {
        "success_rate": successes / len(rows),
        "success_ci95": list(wilson_interval(successes, len(rows))),
        "length_mean": float(np.mean([row["length"] for row in rows])),
        "per_episode": rows,
    }
