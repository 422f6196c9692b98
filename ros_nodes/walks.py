"""`decisive ros walk`: instructions followed by a simulated base, as processes over DDS."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from std_msgs.msg import String
from std_srvs.srv import Trigger

from decisive.pictures import save_png
from decisive.progress import progress
from decisive.scenes import HouseScene
from decisive.statistics import wilson_interval
from envs.indoor.graph import NavigationGraph
from envs.indoor.instructions import r2r_entries
from envs.indoor.metrics import score_path
from envs.indoor.r2r_data import Instruction
from ros_nodes.demo import isolated
from ros_nodes.graph import find_graph
from ros_nodes.guide import Guide
from ros_nodes.operator import Operator
from ros_nodes.processes import Processes, running
from ros_nodes.running import LATCHED, RELIABLE
from ros_nodes.walk_picture import draw_walk

GRAPH = "sim_navigation"
OVER = ("arrived", "failed")
BILINGUAL = "houses-en-zh"
"""Ranker of walks that are not told in English, unless another one is given."""
STEP = 0.03
"""Metres between the places of a trail."""


@dataclass(frozen=True)
class WalksConfig:
    """What to walk.

    Attributes:
        house: name of a procedural house.
        walks: how many of its instructions.
        model: world model; empty for none.
        seed: of the instructions.
        overrides: parameters of nodes, `NODE.name`; see `parameters`.
        patience: seconds of wall time for one walk.
        pictures: folder for a picture of each walk; none if None.
        language: of the instructions, one of `envs.indoor.instructions.LANGUAGES`.
    """

    house: str = "house_test_000000"
    walks: int = 3
    model: str = "pathdreamer-houses"
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    patience: float = 300.0
    pictures: Path | None = None
    language: str = "en"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """`overrides`, and before them a ranker that reads the language."""
        reads = {} if self.language == "en" else {"navigator.ranker": BILINGUAL}
        return {**reads, **self.overrides}


def instructions_of(
    scene: HouseScene, seed: int, count: int, language: str = "en"
) -> list[Instruction]:
    """Instructions of a house, each of another path; the same paths in every language."""
    return [
        Instruction(
            f"{entry['path_id']}_0",
            str(entry["path_id"]),
            entry["scan"],
            tuple(entry["path"]),
            entry["heading"],
            entry["instructions"][0],
        )
        for entry in r2r_entries([scene.house], seed, count, 1, language)
    ]


def _captions(scene: HouseScene, config: WalksConfig) -> list[str]:
    """What stands over the pictures: English, as their font has no other script."""
    texts = [one.text for one in instructions_of(scene, config.seed, config.walks)]
    note = "" if config.language == "en" else f" (told in the language {config.language})"
    return [f"{text}{note}" for text in texts]


def run_walks(config: WalksConfig, logs: Path | None = None) -> dict[str, Any]:
    """Follow the instructions through the graph, and without it, from viewpoint to viewpoint.

    Args:
        config: what to walk.
        logs: folder for what the nodes print; a temporary one by default.

    Returns:
        A JSON object: `ros` and `direct` (`success_rate`, `success_ci95`, `per_episode`), `equal`
        (walks that visited the same viewpoints) and `gate` (its counters).
    """
    scene = HouseScene(config.house)
    try:
        errands = instructions_of(scene, config.seed, config.walks, config.language)
        captions = _captions(scene, config)
        direct = _direct(config, scene, errands)
    finally:
        scene.close()
    graph = scene.graph
    overrides = {
        "sim_base.house": config.house,
        "navigator.model": config.model,
        **({"world_model.model": config.model} if config.model else {}),
        **config.parameters,
    }
    with (
        tempfile.TemporaryDirectory() as scratch,
        isolated(),
        running(find_graph(GRAPH), overrides, logs or Path(scratch)) as processes,
    ):
        rows, trails, gate = _through(config, graph, errands, processes)
    if config.pictures is not None:
        config.pictures.mkdir(parents=True, exist_ok=True)
        for number, (row, trail, text) in enumerate(zip(rows, trails, captions, strict=True)):
            picture = draw_walk(graph, scene.house, {**row, "instruction": text}, trail)
            save_png(picture, config.pictures / f"{config.house}-{number}.png")
    return {
        "graph": GRAPH,
        "house": config.house,
        "model": config.model,
        "seed": config.seed,
        "language": config.language,
        "ros": _summary(rows),
        "direct": _summary(direct),
        "equal": sum(a["path"] == b["path"] for a, b in zip(rows, direct, strict=True)),
        "gate": gate,
    }


def _through(
    config: WalksConfig, graph: NavigationGraph, errands: list[Instruction], processes: Processes
) -> tuple[list[dict[str, Any]], list[NDArray[np.float64]], dict[str, Any]]:
    """Walks through the graph: their rows, where the base was, and the gate's counters."""
    operator = Operator(check=processes.check)
    told: dict[str, Any] = {}

    def note(message: String) -> None:
        told.update(json.loads(message.data))

    operator.node.create_subscription(String, "navigator/state", note, LATCHED)
    trail: list[tuple[float, float]] = []

    def follow(message: PoseStamped) -> None:
        place = message.pose.position
        if not trail or math.dist(trail[-1], (place.x, place.y)) > STEP:
            trail.append((place.x, place.y))

    operator.node.create_subscription(PoseStamped, "base_pose", follow, RELIABLE)
    instructions = operator.node.create_publisher(String, "instruction", RELIABLE)
    rows, trails = [], []
    try:
        operator.arm(60.0)
        operator.spin_until(lambda: graph.scan in told.get("why", ""), 60.0, "the navigator's map")
        with progress(f"walks in {config.house} through ROS 2", len(errands)) as meter:
            for errand in errands:
                operator.set_parameter("sim_base", "viewpoint", graph.index(errand.path[0]))
                operator.set_parameter("sim_base", "yaw", math.pi / 2 - errand.heading)
                operator.call(Trigger, "sim_base/reset", Trigger.Request())
                operator.rest(0.5)  # the navigator must hear of the new pose first
                told.clear()
                trail.clear()
                instructions.publish(String(data=errand.text))
                _await_end(operator, told, errand, config.patience)
                visited = [graph.viewpoints[k] for k in told["viewpoints"]]
                rows.append({**_row(graph, errand, visited), "why": told["why"]})
                trails.append(np.array(trail).reshape(-1, 2))
                meter.advance(note=f"{sum(row['success'] for row in rows)} succeeded")
        return rows, trails, operator.report()
    finally:
        operator.close()


def _await_end(
    operator: Operator, told: dict[str, Any], errand: Instruction, seconds: float
) -> None:
    """Wait until the navigator tells that this very errand is over.

    Raises:
        ValueError: if it refuses the errand.
    """

    def over() -> bool:
        if told.get("why", "").startswith("refused"):
            raise ValueError(f"the navigator {told['why']}")
        said = told.get("instruction", "")  # its beginning, of a long one
        return bool(said) and errand.text.startswith(said) and told.get("state") in OVER

    operator.spin_until(over, seconds, f"the end of the walk {errand.text[:60]!r}")


def _direct(
    config: WalksConfig, scene: HouseScene, errands: list[Instruction]
) -> list[dict[str, Any]]:
    """The same walks in this process, with panoramas from the viewpoints themselves."""
    from agents.vln.checkpoint import load_ranker
    from agents.vln.navigator import NavigatorConfig
    from robots.driving import Pose
    from ros_nodes.navigator import PARAMETERS
    from ros_nodes.sim_base import PARAMETERS as BASE
    from world_models.pathdreamer.model import load_world_model

    value: dict[str, Any] = {p.name: p.default for p in (*BASE, *PARAMETERS)}
    for key, given in config.parameters.items():
        node, _, name = key.partition(".")
        if node in ("navigator", "sim_base") and name in value:
            value[name] = given
    model = load_world_model(config.model).eval() if config.model else None
    guide = Guide(
        scene.graph,
        load_ranker(value["ranker"]),
        model,
        value["samples"],
        NavigatorConfig(value["horizon"], None, value["max_hops"]),
    )
    graph, size = scene.graph, (value["height"], 2 * value["height"])
    rows = []
    for errand in errands:
        x, y, _ = graph.positions[graph.index(errand.path[0])].tolist()
        start, _ = guide.nearest(Pose(x, y, 0.0))
        guide.begin(errand.text, start, math.pi / 2 - errand.heading)
        for _ in range(guide.max_hops + 1):
            guide.see(scene.simulator.observe(graph.viewpoints[guide.history[-1]], size))
            choice = guide.choose()
            if choice.stop or len(guide.history) > guide.max_hops:
                break
            guide.go(choice.path[1])
        rows.append(_row(graph, errand, [graph.viewpoints[k] for k in guide.history]))
    return rows


def _row(graph: NavigationGraph, errand: Instruction, visited: list[str]) -> dict[str, Any]:
    scores = asdict(score_path(graph, visited, errand.path))
    return {
        "instruction": errand.text,
        "path": [graph.index(name) for name in visited],
        "asked": [graph.index(name) for name in errand.path],
        **{name: round(v, 3) if isinstance(v, float) else v for name, v in scores.items()},
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    successes = sum(row["success"] for row in rows)
    return {
        "success_rate": successes / len(rows),
        "success_ci95": list(wilson_interval(successes, len(rows))),
        "per_episode": rows,
    }
