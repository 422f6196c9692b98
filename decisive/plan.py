"""`decisive plan`: where to look first for a room or an object that nobody has seen yet."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from decisive import provenance
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.dream import MODEL, SCENE
from learning.atomic import write_file

if TYPE_CHECKING:
    from decisive.scenes import Scene
    from decisive.search import Goal
    from world_models.pathdreamer.places import Imagined

PICTURED = 3
"""How many of the best places the picture shows dreams of."""


@dataclass(frozen=True)
class Arguments:
    r"""Rank the viewpoints that nobody has been to by where the world model expects a goal.

    Every viewpoint within --horizon steps of what was seen is dreamed, nearer ones first, each
    sample being one idea of the whole building. Of a room the score is its probability given the
    classes in the dreamed views; of an object the share of the view that it should cover. The
    picture shows the building from above, and what the best places should look like.

    With --evaluate the goals are really searched for in test houses: in order of score for a metre
    of way, against the nearest place first and against random order. "guidance only" scores what
    the memory shows, with holes filled from nearby: the same search without imagination.

    Examples:
      decisive plan --goal kitchen
      decisive plan --goal bed --scene house_test_000007 --seen 0,4 --samples 8 --out where.png
      decisive plan --goal toilet --scene house_val_000002 --seen 3 --walk 2 --json
      decisive plan --evaluate 100 --workers 2
      decisive plan --evaluate 50 --goal kitchen --predictability 0
    """

    goal: OptionalText = None
    """A room (kitchen, bedroom, living room, ..), or an object (bed, toilet, sofa, ..: categories
    of mpcat40); with --evaluate, every room of each house if not given."""
    scene: OptionalText = None
    """Procedural house, house_SPLIT_NUMBER (house_test_000003 if not given); with --images, a
    house of that folder."""
    images: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Panoramas of your own, as `world_models.pathdreamer.panoramas` writes them."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME")] = MODEL
    """Checkpoint folder, or the name of a shipped world model."""
    seen: OptionalText = None
    """Viewpoints that were really seen, separated by commas, the last being where one is; one by
    chance if not given."""
    walk: int = 0
    """So many more steps are really walked, by chance, before planning."""
    horizon: int = 3
    """How many steps ahead places are dreamed."""
    samples: int = 4
    """How many ideas of the building."""
    temperature: float = 1.0
    """How bold the dreams are."""
    seed: int = 0
    """Seed of what is drawn by chance; with --evaluate, of the first house."""
    evaluate: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Search in so many test houses instead."""
    predictability: float = 1.0
    """With --evaluate: how much rooms tell of each other, 0 to 1."""
    workers: int = 1
    """With --evaluate: parallel processes; the results do not depend on it."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")] = "outputs/plan.png"
    """Picture; with --evaluate, a file .json for the results."""
    json: Flag = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        for name in ("horizon", "samples", "workers", "evaluate"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.seed < 0 or self.walk < 0:
            raise ValueError(f"seed and walk must not be negative, got {self.seed}, {self.walk}")
        if not 0 <= self.predictability <= 1:
            raise ValueError(f"predictability must be in [0, 1], got {self.predictability}")
        if self.evaluate is None and self.goal is None:
            raise ValueError("name what is looked for, such as --goal kitchen or --goal bed")


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "plan")
    command = provenance.command("plan", argv)
    if arguments.evaluate is not None:
        from decisive.plan_evaluation import run_evaluation

        return run_evaluation(arguments, command)
    out = check_writable(arguments.out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"the picture needs a name ending in .png, got {out}")
    began = time.perf_counter()

    # torch and the simulator take seconds to load: not before the arguments are read.
    from decisive.dream_pictures import write_png
    from decisive.plan_picture import Finding, draw_plan
    from decisive.scenes import open_scene
    from decisive.search import chances, expect, look, reach, read_goal
    from world_models.pathdreamer.dreamer import Dreamer
    from world_models.pathdreamer.model import load_world_model
    from world_models.pathdreamer.places import read_room_model

    rooms = read_room_model()
    assert arguments.goal is not None
    goal = read_goal(arguments.goal, rooms.rooms)
    name = arguments.scene if arguments.images else arguments.scene or SCENE
    scene = open_scene(name, arguments.images)
    seen = _seen(arguments, scene)
    waves = reach(scene.graph, seen, arguments.horizon)
    if not waves:
        raise ValueError(f"{scene.name}: every viewpoint that can be reached was seen already")
    model = load_world_model(arguments.model)
    size = (model.config.height, 2 * model.config.height)
    views = look(scene, seen, size)
    imagined = expect(
        model,
        scene.graph,
        views,
        waves,
        arguments.samples,
        arguments.seed,
        arguments.temperature,
        rgb=True,
    )
    ranking = ranked(goal, scene, seen, waves, imagined, chances(goal, imagined, rooms))
    dreamer = Dreamer(model, size, arguments.seed, temperature=0.0)
    for view in views:
        dreamer.see(view)
    best = [row["viewpoint"] for row in ranking[:PICTURED]]
    dreams = dreamer.glimpse([scene.graph.positions[index] for index in best])
    finding = Finding(scene, goal, seen, ranking, dict(zip(best, dreams, strict=True)))
    write_png(out, draw_plan(finding))
    results = {
        "goal": goal.name,
        "kind": "object" if goal.room is None else "room",
        "scene": scene.name,
        "seen": [scene.graph.viewpoints[index] for index in seen],
        "ranking": ranking,
        "picture": str(out),
        "model": arguments.model,
        "samples": arguments.samples,
        "horizon": arguments.horizon,
        "seed": arguments.seed,
        "seconds": round(time.perf_counter() - began, 2),
        "command": command,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }
    scene.close()
    _report(arguments, results)
    return 0


def ranked(
    goal: Goal,
    scene: Scene,
    seen: Sequence[int],
    waves: Sequence[Sequence[int]],
    imagined: Imagined,
    scores: np.ndarray,
) -> list[dict[str, Any]]:
    """Rows of the table, the best place first.

    Args:
        goal: what is looked for.
        scene: where.
        seen: indices of viewpoints; the last is where one is.
        waves: of `decisive.search.reach`.
        imagined: the views.
        scores: `(S, N)` of `decisive.search.chances`.
    """
    rows = []
    order = [(index, hops) for hops, wave in enumerate(waves, 1) for index in wave]
    for column, (index, hops) in enumerate(order):
        row: dict[str, Any] = {
            "viewpoint": index,
            "name": scene.graph.viewpoints[index],
            "steps": hops,
            "distance": round(float(scene.graph.distances[seen[-1], index]), 3),
            "score": round(float(scores[:, column].mean()), 4),
            "spread": round(float(scores[:, column].std()), 4),
            "unseen": round(float(imagined.unseen[:, column].mean()), 4),
        }
        if scene.house is not None:
            row["truth"] = scene.house.rooms[scene.house.viewpoint_rooms[index]].purpose
        rows.append(row)
    return sorted(rows, key=lambda row: -row["score"])


def _seen(arguments: Arguments, scene: Scene) -> list[int]:
    """Indices of the viewpoints that were seen, the last being where one is."""
    from decisive.scenes import read_place

    graph = scene.graph
    rng = np.random.default_rng(arguments.seed)
    if arguments.seen is None:
        seen = [int(rng.integers(len(graph)))]
    else:
        seen = []
        for text in arguments.seen.split(","):
            place = read_place(graph, text)
            if place.viewpoint is None:
                raise ValueError(f"what was seen must be viewpoints, got the position {text!r}")
            seen.append(graph.index(place.viewpoint))
    for _ in range(arguments.walk):
        others = [index for index in graph.neighbors[seen[-1]] if index not in seen]
        others = others or list(graph.neighbors[seen[-1]])
        if others:
            seen.append(others[int(rng.integers(len(others)))])
    return seen


def _report(arguments: Arguments, results: dict[str, Any]) -> None:
    """Tell what came out."""
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    from decisive import tables

    rows = [
        (
            str(place + 1),
            row["name"],
            f"{row['distance']:.1f}",
            f"{100 * row['score']:.1f} ± {100 * row['spread']:.1f}",
            f"{100 * row['unseen']:.0f} %",
            row.get("truth", "-"),
        )
        for place, row in enumerate(results["ranking"])
    ]
    what = "probability %" if results["kind"] == "room" else "share of the view %"
    header = ("", "viewpoint", "distance m", what, "never seen", "truth")
    title = f"{results['goal']} in {results['scene']}, from {', '.join(results['seen'])}"
    tables.show(tables.plain_table(header, rows, title))
    print(results["picture"])


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write results as JSON, in one step."""
    write_file(path, f"{json.dumps(results, indent=2)}\n".encode())
