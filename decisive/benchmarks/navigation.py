"""`decisive benchmark navigation`: what views of unvisited places are worth to a navigator.

Three arms walk the same instructions with the same ranker and differ in what they know of
viewpoints where they have not been: nothing (Baseline), what a world model predicts, or the truth
(Ground-Truth). The views are symbolic: categories of objects by heading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.benchmarks.navigation_report import compare, results_rows
from decisive.benchmarks.r2r_report import Walk, summarize
from decisive.statistics import median_and_p95
from envs.indoor.categories import CATEGORIES, ID
from envs.indoor.metrics import score_path
from envs.indoor.worlds import World, open_world
from learning.atomic import write_file

if TYPE_CHECKING:
    from agents.vln.checkpoint import SavedRanker
    from agents.vln.places import GraphPlace
    from agents.vln.vocabulary import Vocabulary
    from world_models.symbolic_views import SymbolicViews

ARMS = ("baseline", "world-model", "ground-truth")
HORIZON = 3
_CONFIDENCE = 0.5
"""What the ranker is told about predicted views; it learns what that is worth."""
# Synonyms that Room-to-Room's people use; the rest are the names of the categories themselves.
_SPOKEN: Mapping[str, tuple[str, ...]] = {
    "sofa": ("couch", "couches", "sofas"),
    "stairs": ("stair", "steps", "staircase", "stairway"),
    "chest_of_drawers": ("dresser", "drawers"),
    "tv_monitor": ("tv", "television", "screen", "monitor"),
    "plant": ("plants", "tree", "flowers"),
    "picture": ("painting", "paintings", "pictures", "photo"),
    "appliances": ("refrigerator", "fridge", "stove", "oven", "microwave", "dishwasher"),
    "column": ("pillar", "pillars", "columns"),
    "gym_equipment": ("treadmill", "gym", "exercise"),
    "lighting": ("lamp", "chandelier", "light", "lights"),
    "shelving": ("shelf", "shelves", "bookshelf", "bookcase"),
    "seating": ("bench", "seat", "ottoman"),
    "counter": ("countertop", "island", "bar"),
    "bathtub": ("tub", "bath"),
    "cushion": ("pillow", "pillows"),
    "stool": ("stools", "barstools"),
}


@dataclass(frozen=True)
class Arguments:
    """Train a path ranker and a world model, and walk with and without views of unvisited places.

    Real Room-to-Room needs its annotations in the folder that DECISIVE_DATA names; images are not
    needed. Every training, and every arm of every seed, is one file in --out or --work; what is
    there is not done again. The defaults were settled with a look at parts of val_unseen.

    Examples:
      decisive benchmark navigation --seeds 3
      decisive benchmark navigation --world sketch --ranker-seconds 20 --views-seconds 10 --seeds 1
    """

    world: str = "r2r"
    """r2r (real), or sketch (synthetic, needs no data)."""
    split: str = "val_unseen"
    """Where the arms walk."""
    seeds: int = 3
    """Trainings, seeds 0 and up."""
    ranker_seconds: float = 180.0
    """CPU-seconds of a training of the ranker."""
    views_seconds: float = 60.0
    """CPU-seconds of a training of the world model."""
    horizon: int = HORIZON
    """Hops looked ahead."""
    episodes: int | None = None
    """Only the first so many instructions; all if not given."""
    data: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of data, instead of the one that DECISIVE_DATA names."""
    out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the results; docs/benchmarks/navigation if not given."""
    work: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the trainings; outputs/benchmarks/navigation if not given."""
    json: Flag = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if self.seeds < 1 or self.horizon < 1:
            raise ValueError("seeds and horizon must be at least 1")
        if self.ranker_seconds <= 0 or self.views_seconds <= 0:
            raise ValueError("ranker_seconds and views_seconds must be positive")
        if self.episodes is not None and self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes}")

    def plan(self) -> dict[str, Any]:
        """What decides a training."""
        names = ("world", "ranker_seconds", "views_seconds")
        return {name: getattr(self, name) for name in names}


def main(argv: Sequence[str]) -> int:
    """Run the verb with the words after `navigation`."""
    arguments = parse(Arguments, argv, "benchmark navigation")
    out = Path(arguments.out or "docs/benchmarks/navigation")
    check_writable(out / "results.json")
    command = provenance.command("benchmark", ["navigation", *argv])
    found = {
        (arm, seed): _cell(arguments, out, arm, seed, command)
        for seed in range(arguments.seeds)
        for arm in ARMS
    }
    results = {
        "world": arguments.world,
        "split": arguments.split,
        "horizon": arguments.horizon,
        "arms": compare(found, ARMS),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "command": command,
    }
    text = json.dumps(results, indent=2)
    write_file(out / f"{arguments.world}-{arguments.split}.json", f"{text}\n".encode())
    if arguments.json:
        print(text)
    else:
        header, rows = results_rows(results["arms"])
        tables.show(tables.plain_table(header, rows, f"{arguments.world} {arguments.split}"))
    return 0


class Study:
    """A world as places to walk in, and the trainings of one seed."""

    def __init__(self, arguments: Arguments, seed: int) -> None:
        """Open the world; nothing is trained yet.

        Args:
            arguments: which world, how long to train.
            seed: of the trainings.
        """
        self.arguments, self.seed = arguments, seed
        data = None if arguments.data is None else Path(arguments.data)
        self.world: World = open_world(arguments.world, data)
        work = Path(arguments.work or "outputs/benchmarks/navigation")
        budget = f"{arguments.views_seconds:g}-{arguments.ranker_seconds:g}"
        self.folder = work / f"{arguments.world}-{budget}-seed{seed}"
        self._places: dict[tuple[str, str], GraphPlace] = {}

    def place(self, scan: str, arm: str, views: SymbolicViews | None) -> GraphPlace:
        """A building as an arm sees it; the same object each time."""
        from agents.vln.places import DreamPlace, GraphPlace, OraclePlace

        if (scan, arm) not in self._places:
            graph = self.world.graph(scan)
            parts = (graph.positions, graph.neighbors, headings_of(self.world.symbolic_views(scan)))
            if arm == "world-model":
                if views is None:
                    raise ValueError("the world-model arm needs a world model")
                made: GraphPlace = DreamPlace(*parts, dream_of(views))
            else:
                made = {"baseline": GraphPlace, "ground-truth": OraclePlace}[arm](*parts)
            self._places[scan, arm] = made
        return self._places[scan, arm]

    def views(self) -> SymbolicViews:
        """The world model, trained if it is not there."""
        from learning.train_config import TrainConfig
        from world_models.symbolic_training import load_views, save_views, train_views
        from world_models.symbolic_views import SymbolicViews, SymbolicViewsConfig

        folder = self.folder / "world-model"
        if not folder.exists():
            scans = sorted({one.scan for one in self.world.instructions("train")})
            places = [self.place(scan, "baseline", None) for scan in scans]
            rate = np.concatenate([place.views for place in places]).mean((0, 1))
            _seed_torch(self.seed)
            model = SymbolicViews(SymbolicViewsConfig(len(CATEGORIES)), rate)
            config = TrainConfig(
                cpu_seconds=self.arguments.views_seconds, batch_size=24, lr=2e-3, seed=self.seed
            )
            facts = train_views(model, places, config)
            save_views(folder, model, facts, self._card("Symbolic world model", facts))
        return load_views(folder)

    def ranker(self, views: SymbolicViews) -> SavedRanker:
        """The ranker, trained on the views of all arms if it is not there."""
        from agents.vln.checkpoint import SavedRanker, load_ranker, save_ranker
        from agents.vln.ranker import PathRanker, RankerConfig
        from agents.vln.training import CourseConfig, train_ranker
        from agents.vln.vocabulary import Vocabulary
        from learning.train_config import TrainConfig

        folder = self.folder / "ranker"
        if not folder.exists():
            lessons = self.world.instructions("train")
            vocabulary = Vocabulary.of(one.text for one in lessons)
            _seed_torch(self.seed)
            ranker = PathRanker(RankerConfig(len(CATEGORIES), len(vocabulary), dropout=0.2))
            ranker.name_features(spoken_features(vocabulary))
            config = TrainConfig(
                cpu_seconds=self.arguments.ranker_seconds,
                batch_size=64,
                lr=3e-3,
                ema_decay=0.995,
                seed=self.seed,
            )
            routes = self._routes(views, vocabulary)
            facts = train_ranker(ranker, routes, CourseConfig(per_route=4), config)
            saved = SavedRanker(ranker, vocabulary, CATEGORIES, dict(facts))
            save_ranker(folder, saved, self._card("Path ranker", facts))
        return load_ranker(folder)

    def walk(self, arm: str) -> dict[str, Any]:
        """Walk every instruction of the split; results with their rows."""
        from agents.vln.navigator import Errand, Navigator, NavigatorConfig

        views = self.views()
        saved = self.ranker(views)
        lessons = self.world.instructions(self.arguments.split)[: self.arguments.episodes]
        errands = []
        for one in lessons:
            graph, words = self.world.graph(one.scan), saved.vocabulary.encode(one.text)
            place = self.place(one.scan, arm, views)
            errands.append(Errand(place, words, one.heading, (graph.index(one.path[0]),)))
        navigator = Navigator(saved.ranker, NavigatorConfig(self.arguments.horizon))
        done = navigator.walk_all(errands)
        walks = []
        for one, walk in zip(lessons, done, strict=True):
            graph = self.world.graph(one.scan)
            path = [graph.viewpoints[viewpoint] for viewpoint in walk.path]
            scores = score_path(graph, path, one.path)
            walks.append(Walk(one.instr_id, one.path_id, one.scan, len(walk.seconds), scores))
        median, p95 = median_and_p95([1e3 * s for walk in done for s in walk.seconds])
        return {
            **summarize(walks),
            "ms_per_decision": {"median": round(median, 3), "p95": round(p95, 3)},
            "training": saved.training,
            "per_episode": [_short(walk) for walk in walks],
        }

    def _routes(self, views: SymbolicViews, vocabulary: Vocabulary) -> list[Any]:
        from agents.vln.training import Route

        routes = []
        for one in self.world.instructions("train"):
            graph = self.world.graph(one.scan)
            places = tuple(self.place(one.scan, arm, views) for arm in ARMS)
            path = tuple(graph.index(viewpoint) for viewpoint in one.path)
            words = vocabulary.encode(one.text)
            routes.append(Route(places, graph.distances, words, one.heading, path))
        return routes

    def _card(self, title: str, facts: Mapping[str, float]) -> str:
        return "\n".join(
            [
                f"# {title} on {self.arguments.world}",
                "",
                f"Seed {self.seed}; {facts['steps']:.0f} steps, "
                f"{facts['cpu_seconds']:.0f} CPU-seconds, loss {facts['loss']:.4f}.",
                "",
                "Data: split `train`. Room-to-Room is derived from Matterport3D, under its terms "
                "of use (academic, non-commercial); object lists are REVERIE's."
                if self.arguments.world == "r2r"
                else "Data: synthetic sketches, split `train`.",
                "",
            ]
        )


def headings_of(views: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Views by heading: what is seen in any of the three elevations.

    Args:
        views: `(N, 36, F)`, 12 headings looking down, level and up.

    Returns:
        `(N, 12, F)`.
    """
    return views.reshape(len(views), 3, 12, -1).max(axis=1).astype(np.float32)


def dream_of(views: SymbolicViews) -> Any:
    """What `DreamPlace` asks: the expected views, as one sample."""
    from agents.vln.places import Imagined

    def dream(place: GraphPlace, visited: Sequence[int], unseen: Sequence[int]) -> Imagined:
        predicted = views.predict(place, visited, unseen)[None]
        return Imagined(predicted, np.full(predicted.shape[:2], _CONFIDENCE, np.float32))

    return dream


def spoken_features(vocabulary: Vocabulary) -> dict[int, list[int]]:
    """Numbers of the known words that name a category, by its id."""
    spoken = {}
    for name, category in ID.items():
        if name in ("void", "objects", "misc", "furniture"):
            continue
        words = {name, f"{name}s", *_SPOKEN.get(name, ())} & set(vocabulary.words)
        spoken[category] = [int(vocabulary.encode(word)[0]) for word in sorted(words)]
    return spoken


def _cell(arguments: Arguments, out: Path, arm: str, seed: int, command: str) -> dict[str, Any]:
    """The result of one arm and one seed; run if it is not there."""
    names = ("split", "horizon", "episodes")
    plan = arguments.plan() | {name: getattr(arguments, name) for name in names}
    file = out / f"{arguments.world}-{arguments.split}-h{arguments.horizon}-{arm}-{seed}.json"
    if file.exists():
        known = json.loads(file.read_bytes())
        if known["plan"] == plan:
            return known["results"]
    results = Study(arguments, seed).walk(arm)
    told = {"plan": plan, "arm": arm, "seed": seed, "command": command, "results": results}
    rows = ",\n".join(json.dumps(row) for row in results["per_episode"])
    slim = {**told, "results": {**results, "per_episode": "@"}}
    write_file(file, json.dumps(slim, indent=1).replace('"@"', f"[\n{rows}\n]").encode())
    return results


def _short(walk: Walk) -> dict[str, Any]:
    """A row, its figures cut to three decimals."""
    assert walk.scores is not None
    scores = {
        name: value if isinstance(value, bool) else round(value, 3)
        for name, value in asdict(walk.scores).items()
    }
    return {"instr_id": walk.instr_id, "path_id": walk.path_id, "hops": walk.steps, **scores}


def _seed_torch(seed: int) -> None:
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
