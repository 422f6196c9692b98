"""How much walking the world model saves: goals searched for in test houses, several ways."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from rich.table import Table

from decisive import provenance, tables
from decisive.arguments import check_writable
from decisive.plan import Arguments, write_results
from decisive.progress import progress
from decisive.scenes import HouseScene
from decisive.search import (
    ENOUGH,
    Goal,
    at_random,
    by_score,
    chances,
    copied,
    expect,
    look,
    mean_interval,
    nearest_first,
    reach,
    read_goal,
    search,
)
from decisive.workers import process_pool
from envs.indoor.categories import CATEGORIES
from envs.indoor.graph import NavigationGraph
from envs.indoor.house import GENERATOR, house_name
from envs.indoor.room_types import PURPOSES
from world_models.pathdreamer.model import Pathdreamer, load_world_model
from world_models.pathdreamer.places import RoomModel, class_shares, read_room_model

RANDOM_ORDERS = 20
"""Random orders that a search is averaged over."""


@dataclass(frozen=True)
class Case:
    """One search: a goal in a house.

    Attributes:
        house: number of the house.
        goal: what is looked for.
        shortest: metres to its nearest viewpoint.
        first: of each way of searching, how often what it ranks first is right.
        metres: of each, metres walked.
        viewpoints: of each, viewpoints visited.
    """

    house: int
    goal: str
    shortest: float
    first: dict[str, float]
    metres: dict[str, float]
    viewpoints: dict[str, float]


def run_evaluation(arguments: Arguments, command: str) -> int:
    """Search in test houses, print the table, write the results."""
    assert arguments.evaluate is not None
    named = arguments.out != Arguments(goal="kitchen").out
    out = check_writable(arguments.out) if named else None
    if out is not None and out.suffix != ".json":
        raise ValueError(f"with --evaluate the file ends in .json, got {out}")
    rooms = read_room_model()
    if arguments.goal is not None:
        read_goal(arguments.goal, rooms.rooms)
    load_world_model(arguments.model)  # refuses an unknown one before houses are built
    began = time.perf_counter()
    houses = range(arguments.seed, arguments.seed + arguments.evaluate)
    cases: list[Case] = []
    with progress(f"searching {len(houses)} houses", len(houses)) as meter:
        for found in _each_house(arguments, houses):
            cases += found
            meter.advance()
    if not cases:
        raise ValueError(f"none of the houses has a {arguments.goal} to search for")
    results = summarize(cases) | {
        "houses": len(houses),
        "goal": arguments.goal or "every room",
        "predictability": arguments.predictability,
        "horizon": arguments.horizon,
        "samples": arguments.samples,
        "model": arguments.model,
        "generator": GENERATOR,
        "seconds": round(time.perf_counter() - began, 1),
        "command": command,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }
    if out is not None:
        write_results(out, results)
    if arguments.json:
        print(json.dumps(results, indent=2))
        return 0
    tables.show(results_table(results))
    if out is not None:
        print(out)
    return 0


def _each_house(arguments: Arguments, houses: Sequence[int]) -> Iterator[list[Case]]:
    """Cases of the houses, in their order."""
    task = partial(search_house, arguments)
    if arguments.workers == 1:
        yield from map(task, houses)
        return
    with process_pool(arguments.workers, interruptible=True) as pool:
        yield from pool.map(task, houses)


def search_house(arguments: Arguments, number: int) -> list[Case]:
    """Search for the goals of one house from a viewpoint drawn by its number."""
    model, rooms = _models(arguments.model)
    scene = HouseScene(house_name(number, "test", arguments.predictability))
    graph = scene.graph
    rng = np.random.default_rng((0, number))
    start = int(rng.integers(len(graph)))
    size = (model.config.height, 2 * model.config.height)
    goals = _goals(arguments, scene, rooms, size, start)
    if not goals:
        scene.close()
        return []
    views = look(scene, [start], size)
    scene.close()
    waves = reach(graph, [start], arguments.horizon)
    order = [index for wave in waves for index in wave]
    dreamed = expect(model, graph, views, waves, arguments.samples, number, arguments.temperature)
    seen_only = copied(views, graph, order)
    return [
        _case(
            number,
            goal,
            targets,
            scene.graph,
            start,
            {
                name: dict(
                    zip(order, chances(goal, views, rooms).mean(axis=0).tolist(), strict=True)
                )
                for name, views in (("world model", dreamed), ("guidance only", seen_only))
            },
        )
        for goal, targets in goals
    ]


def _case(
    number: int,
    goal: Goal,
    targets: set[int],
    graph: NavigationGraph,
    start: int,
    scores: dict[str, dict[int, float]],
) -> Case:
    """Search for one goal in every way.

    Args:
        number: of the house.
        goal: what is looked for.
        targets: viewpoints where it is.
        graph: of the house.
        start: where one is.
        scores: of viewpoints, by the way of searching.
    """
    left = [index for index in range(len(graph)) if index != start]
    first = {
        name: float(max(each, key=lambda i: each[i]) in targets) for name, each in scores.items()
    }
    nearest = nearest_first(graph)
    first["nearest first"] = float(nearest(start, left) in targets)
    first["random order"] = len(targets) / len(left)
    found = {
        name: [search(graph, start, targets, by_score(graph, s))] for name, s in scores.items()
    }
    found["nearest first"] = [search(graph, start, targets, nearest)]
    draws = np.random.default_rng((1, number))
    found["random order"] = [
        search(graph, start, targets, at_random(draws)) for _ in range(RANDOM_ORDERS)
    ]
    return Case(
        number,
        goal.name,
        float(graph.distances[start, sorted(targets)].min()),
        first,
        {name: float(np.mean([one.metres for one in each])) for name, each in found.items()},
        {name: float(np.mean([one.viewpoints for one in each])) for name, each in found.items()},
    )


def _goals(
    arguments: Arguments,
    scene: HouseScene,
    rooms: RoomModel,
    size: tuple[int, int],
    start: int,
) -> list[tuple[Goal, set[int]]]:
    """What can be looked for, and the viewpoints where it is; not what one is at already."""
    house = scene.house
    names = PURPOSES if arguments.goal is None else (arguments.goal,)
    found = []
    for name in names:
        goal = read_goal(name, rooms.rooms)
        if goal.room is not None:
            purposes = [house.rooms[room].purpose for room in house.viewpoint_rooms]
            targets = {k for k, purpose in enumerate(purposes) if purpose == goal.name}
        else:
            seen = np.array([view.semantic for view in look(scene, range(len(scene.graph)), size)])
            shares = class_shares(seen, len(CATEGORIES))[:, goal.category]
            targets = set(np.flatnonzero(shares >= ENOUGH).tolist())
        if targets and start not in targets:
            found.append((goal, targets))
    return found


@lru_cache(maxsize=1)
def _models(name: str) -> tuple[Pathdreamer, RoomModel]:
    """The models, once a process."""
    return load_world_model(name), read_room_model()


def summarize(cases: Sequence[Case]) -> dict[str, Any]:
    """Means over the cases with intervals bootstrapped over houses.

    Returns:
        A JSON object: `cases`, `shortest_metres`, and under `ways` for each way of searching
        `first_right`, `metres`, `viewpoints` and `metres_saved` (against nearest first, paired),
        each `[mean, low, high]`.
    """
    houses = [case.house for case in cases]
    ways: dict[str, Any] = {}
    for name in cases[0].metres:
        ways[name] = {
            "first_right": _rounded([case.first[name] for case in cases], houses),
            "metres": _rounded([case.metres[name] for case in cases], houses),
            "viewpoints": _rounded([case.viewpoints[name] for case in cases], houses),
            "metres_saved": _rounded(
                [case.metres["nearest first"] - case.metres[name] for case in cases], houses
            ),
        }
    shortest = float(np.mean([case.shortest for case in cases]))
    return {"cases": len(cases), "shortest_metres": round(shortest, 3), "ways": ways}


def _rounded(values: Sequence[float], houses: Sequence[int]) -> list[float]:
    return [round(value, 4) for value in mean_interval(values, houses)]


def results_table(results: dict[str, Any]) -> Table:
    """One row for each way of searching."""

    def words(found: Sequence[float], factor: float = 1.0, digits: int = 1) -> str:
        mean, low, high = (factor * value for value in found)
        return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    rows = [
        (
            name,
            words(way["first_right"], 100),
            words(way["metres"]),
            words(way["viewpoints"], digits=2),
            "-" if name == "nearest first" else words(way["metres_saved"]),
        )
        for name, way in results["ways"].items()
    ]
    header = ("order", "first choice right %", "metres", "viewpoints", "metres saved")
    title = (
        f"{results['goal']}: {results['cases']} searches in {results['houses']} houses, "
        f"shortest ways {results['shortest_metres']:.1f} m (95 % intervals over houses)"
    )
    return tables.plain_table(header, rows, title)
