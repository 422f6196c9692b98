"""`decisive dream`: walk on in imagination, through places that were never seen."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from decisive import provenance
from decisive.arguments import Flag, OptionalText, parse
from decisive.cli import one_line
from decisive.progress import progress
from learning.atomic import new_folder, write_file

if TYPE_CHECKING:
    from decisive.scenes import Place, Scene
    from decisive.walks import Step, Walk

MODEL = "pathdreamer-houses"
SCENE = "house_test_000003"
RESULTS = "results.json"


@dataclass(frozen=True)
class Arguments:
    r"""Walk on in imagination: what will be seen at places that nobody has been to?

    The first --seen places of the path are really seen, the world model dreams the others, each
    from what was seen and dreamed before it. Every sample is another idea of what cannot be seen.
    The folder gets `contact.png` (the walk on one page), `film.mp4`, `points.ply` (the memory of
    the first sample), `results.json` (measured against the truth, where it is known) and the
    panoramas as PNG: colours, classes (ids of mpcat40, with a palette), depth (millimetres).

    A place is the number of a viewpoint, its name, or a position 'x y z' in metres. With --path -
    places are read line by line from standard input, and each is answered by a line of JSON before
    the next is read: an agent can look at what it would see there, and choose.

    Examples:
      decisive dream
      decisive dream --scene house_test_000007 --path 1,8,9,13 --samples 3 --out outputs/dream
      decisive dream --scene house_val_000001_p050 --hops 5 --seen 2 --seed 1
      decisive dream --path '0, 2, 2.1 2.4 1.5' --temperature 0 --json
      decisive dream --images my-panoramas --scene flat --path 0,1,2 --model outputs/own/last
      printf '0\n2\n11\n' | decisive dream --path - --out outputs/steps
    """

    model: Annotated[str, tyro.conf.arg(metavar="NAME")] = MODEL
    """Checkpoint folder, or the name of a shipped world model."""
    scene: OptionalText = None
    """Procedural house, house_SPLIT_NUMBER with split train, val or test (house_test_000003 if not
    given); with --images, a house of that folder (its first if not given)."""
    images: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Panoramas of your own, as `world_models.pathdreamer.panoramas` writes them."""
    path: OptionalText = None
    """Places, separated by commas, or - for standard input; a random walk if not given."""
    seen: int = 1
    """How many of the first places are really seen."""
    hops: int = 4
    """Length of the random walk, in steps."""
    samples: int = 2
    """How many ideas of the same walk."""
    seed: int = 0
    """Seed of the random walk and of the dreams."""
    temperature: float = 1.0
    """How bold the dreams are; 0 takes the most expected one."""
    size: int | None = None
    """Height of the panoramas, twice as wide; what the model is meant for if not given."""
    no_film: Flag = False
    """Leave the film out."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "outputs/dream"
    """Folder for what is made; what was there before is replaced when all is done."""
    json: Flag = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        for name in ("seen", "hops", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "dream")
    out = Path(arguments.out)
    if out.exists() and not (
        (out / RESULTS).is_file() or (out.is_dir() and not any(out.iterdir()))
    ):
        raise ValueError(f"{out} exists and holds something else than a dream; name another --out")
    began = time.perf_counter()

    # torch and the simulator take seconds to load: not before the arguments are read.
    from decisive.scenes import open_scene
    from decisive.walks import Walk
    from world_models.pathdreamer.model import load_world_model

    name = arguments.scene if arguments.images else arguments.scene or SCENE
    scene = open_scene(name, arguments.images)
    places = [] if arguments.path == "-" else _places(arguments, scene)
    model = load_world_model(arguments.model)
    size = None if arguments.size is None else (arguments.size, 2 * arguments.size)
    walk = Walk(scene, model, size, arguments.samples, arguments.seed, arguments.temperature)
    facts = {"command": provenance.command("dream", argv), "began": began}
    if arguments.path == "-":
        refused = _answer(walk, arguments.seen, out)
        if walk.steps:
            _finish(arguments, walk, out, facts)
        scene.close()
        if refused:
            raise ValueError(f"{len(refused)} of the places were refused, the first: {refused[0]}")
        return 0
    with new_folder(out) as folder:
        with progress("dreaming", len(places)) as meter:
            for number, place in enumerate(places):
                step = walk.see(place) if number < arguments.seen else walk.dream(place)
                _write_step(folder, step, number)
                meter.advance()
        results = _finish(arguments, walk, folder, facts)
    scene.close()
    _report(arguments, results, out)
    return 0


def _places(arguments: Arguments, scene: Scene) -> list[Place]:
    """The path, all of it checked before any of it is walked."""
    from decisive.scenes import random_path, read_place

    if arguments.path is None:
        rng = np.random.default_rng(arguments.seed)
        places = random_path(scene.graph, arguments.hops, rng)
    else:
        places = [read_place(scene.graph, text) for text in arguments.path.split(",")]
    for start, end in itertools.pairwise(places):
        scene.check_step(start, end)
    return places


def _answer(walk: Walk, seen: int, out: Path) -> list[str]:
    """Go where standard input says, a place a line, and tell on standard output what is there.

    What is refused is answered by `{"error": ...}`, and one stays where one is.

    Returns:
        The refusals.
    """
    from decisive.scenes import read_place
    from decisive.walks import describe

    refused: list[str] = []
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            place = read_place(walk.scene.graph, line)
            number = len(walk.steps)
            step = walk.see(place) if number < seen else walk.dream(place)
        except ValueError as error:
            refused.append(one_line(error))
            print(json.dumps({"error": refused[-1]}), flush=True)
            continue
        if number == 0:
            with new_folder(out):
                pass  # what an earlier walk left there goes
        files = _write_step(out, step, number)
        told = describe(step, number)
        told["files"] = [{kind: str(out / name) for kind, name in one.items()} for one in files]
        print(json.dumps(told), flush=True)
    return refused


def _write_step(folder: Path, step: Step, number: int) -> list[dict[str, str]]:
    """Write the panoramas of a step: of every sample, or the one that is seen, and the truth.

    Returns:
        Names of the files of each view, by kind; without those of the truth.
    """
    from decisive.dream_pictures import write_panorama

    stem = f"step_{number:02d}"
    if step.truth is not None:
        files = write_panorama(folder, f"{stem}_truth", step.truth)
        if not step.dreams:
            return [files]
    return [
        write_panorama(folder, f"{stem}_dream_{sample + 1}", dream)
        for sample, dream in enumerate(step.dreams)
    ]


def _finish(
    arguments: Arguments, walk: Walk, folder: Path, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write what shows the whole walk, and its results last."""
    from decisive.dream_film import write_film
    from decisive.dream_pictures import contact_sheet, write_png
    from decisive.walks import describe, measures
    from world_models.pathdreamer.memory import write_ply

    scores = measures(walk.steps)
    title = f"{walk.scene.name}, dreamed by {arguments.model}"
    write_png(folder / "contact.png", contact_sheet(walk.steps, title, scores))
    write_ply(folder / "points.ply", walk.dreamers[0].memory.points)
    if not arguments.no_film:
        write_film(folder / "film.mp4", walk)
    steps = []
    for number, step in enumerate(walk.steps):
        told = describe(step, number)
        if step.dreams and step.truth is not None:
            told["measures"] = measures([step])
        steps.append(told)
    results = {
        "scene": walk.scene.name,
        "model": arguments.model,
        "size": list(walk.size),
        "samples": arguments.samples,
        "seed": arguments.seed,
        "temperature": arguments.temperature,
        "steps": steps,
        "measures": scores,
        "seconds": round(time.perf_counter() - facts["began"], 2),
        "command": facts["command"],
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }
    if walk.scene.house is not None:
        from envs.indoor.house import GENERATOR

        results["generator"] = GENERATOR
    write_file(folder / RESULTS, f"{json.dumps(results, indent=2)}\n".encode())
    return results


def _report(arguments: Arguments, results: dict[str, Any], out: Path) -> None:
    """Tell what came out."""
    if arguments.json:
        print(json.dumps({"folder": str(out), **results}, indent=2))
        return
    from decisive import tables
    from decisive.dream_pictures import score_line

    rows = []
    for step in results["steps"]:
        hole = step.get("measures", {}).get("hole", {})
        rows.append(
            (
                step["place"],
                "seen" if step["seen"] else f"{100 * step['imagined']:.0f} %",
                f"{hole['depth_mae']:.2f}" if "depth_mae" in hole else "-",
                tables.percent(hole.get("accuracy")),
                ", ".join(
                    f"{name} {100 * share:.0f} %"
                    for name, share in step["classes"].items()
                    if name not in ("wall", "floor", "ceiling") and share >= 0.01
                ),
            )
        )
    header = ("place", "imagined", "depth error m", "classes right %", "what is there")
    tables.show(tables.plain_table(header, rows, results["scene"]))
    tables.show(score_line(results["measures"]))
    for name in ("contact.png", *(() if arguments.no_film else ("film.mp4",)), "points.ply"):
        print(out / name)
