"""The article's study on procedural houses: what a world model's panoramas are worth.

Source: Koh et al. 2021, "Pathdreamer", section 5, with an arm that it leaves out (the projection of
what was seen, without a model) and an oracle that knows how the houses are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decisive.benchmarks.house_data import FEATURES, TOLD, HouseSet
from decisive.benchmarks.navigation_study import learn_ranker, walk_lessons
from decisive.progress import progress
from envs.indoor.house import GENERATOR
from envs.indoor.r2r_data import Instruction

if TYPE_CHECKING:
    from agents.vln.checkpoint import SavedRanker
    from agents.vln.places import Dream, GraphPlace
    from agents.vln.training import Route
    from agents.vln.vocabulary import Vocabulary
    from decisive.benchmarks.house_guesses import RecordedPlace
    from decisive.benchmarks.house_oracle import Bank
    from world_models.pathdreamer.model import Pathdreamer

ARMS = ("baseline", "guidance", "pathdreamer", "oracle", "ground-truth")
"""The first knows least, the last the truth."""
GUESSING = ARMS[1:4]
_BANKED = 40
"""Houses of the training from which the oracle shows rooms."""


@dataclass(frozen=True)
class HousePlan:
    """What decides the result of a seed.

    Attributes:
        predictability: of the houses.
        split: where the arms walk, "val" or "test".
        told: what instructions tell, "way" or "goal".
        horizon: hops looked ahead.
        height: rows of the panoramas.
        dreamed: houses that the world model learns in.
        learned: those of them that the ranker learns in.
        walked: houses of the split.
        first: number of the first of them.
        paths: described in each house that the ranker learns in, and of the split.
        guessed: paths of the training on which guesses are made too.
        samples: ideas of each place.
        dreamer_seconds: CPU-seconds of a training of the world model.
        ranker_seconds: of the ranker.
    """

    predictability: float = 1.0
    split: str = "test"
    told: str = "way"
    horizon: int = 3
    height: int = 32
    dreamed: int = 500
    learned: int = 200
    walked: int = 60
    first: int = 0
    paths: tuple[int, int] = (6, 3)
    guessed: int = 300
    samples: int = 3
    dreamer_seconds: float = 1500.0
    ranker_seconds: float = 1200.0

    def __post_init__(self) -> None:
        """Refuse houses of the training, before anything is trained."""
        if self.split not in ("val", "test"):
            raise ValueError(f"arms walk in houses of val or test, got {self.split!r}")
        if not 0 <= self.predictability <= 1:
            raise ValueError(f"predictability must be in [0, 1], got {self.predictability}")
        if self.told not in TOLD:
            raise ValueError(f"told must be {' or '.join(TOLD)}, got {self.told!r}")
        if self.first < 0:
            raise ValueError(f"first must not be negative, got {self.first}")


class HouseStudy:
    """A world model and a ranker of one seed, in houses of one predictability."""

    def __init__(self, plan: HousePlan, seed: int, work: Path, workers: int = 1) -> None:
        """Nothing is rendered or trained yet.

        Args:
            plan: what to do.
            seed: of the trainings.
            work: where panoramas, instructions and trainings are kept.
            workers: processes that render.
        """
        self.plan, self.seed = plan, seed
        self.folder = work / f"houses-p{round(100 * plan.predictability):03d}-seed{seed}"
        told = "" if plan.told == "way" else f"-{plan.told}"
        self.ranker_folder = self.folder / f"ranker{told}"
        common = plan.predictability
        self.train = HouseSet(
            "train",
            common,
            plan.dreamed,
            plan.learned,
            plan.paths[0],
            plan.height,
            work,
            workers,
            plan.told,
        )
        self.walks = HouseSet(
            plan.split,
            common,
            plan.walked,
            plan.walked,
            plan.paths[1],
            plan.height,
            work,
            workers,
            plan.told,
            plan.first,
        )
        self._plain: dict[str, GraphPlace] = {}

    def walk(self, arm: str) -> dict[str, Any]:
        """Walk every instruction of the split; results with their rows."""
        places: dict[str, GraphPlace] = {}

        def place_of(scan: str) -> GraphPlace:
            if scan not in places:
                places[scan] = self._place(arm, scan)
            return places[scan]

        walks, horizon = self.walks, self.plan.horizon
        results = walk_lessons(self.ranker, walks.lessons, walks.graph, place_of, horizon)
        if arm == "pathdreamer":
            results["world_model"] = self._dreamer_facts()
        return results

    # Trainings.

    @cached_property
    def dreamer(self) -> Pathdreamer:
        """The world model, trained if it is not there."""
        import torch

        from world_models.pathdreamer.config import size
        from world_models.pathdreamer.guidance import make_guidance
        from world_models.pathdreamer.model import Pathdreamer, load_world_model
        from world_models.pathdreamer.train_config import DreamTrainConfig
        from world_models.pathdreamer.training import train_pathdreamer

        torch.manual_seed(self.seed)
        config = DreamTrainConfig(
            cpu_seconds=self.plan.dreamer_seconds,
            parts=("summary", "structure"),
            seed=self.seed,
        )
        out = self.folder / "world-model"
        houses = self.train.panoramas
        model = Pathdreamer(replace(size("small"), rooms=houses.room_names))
        train_pathdreamer(model, houses, config, out, make_guidance)
        return load_world_model(out / "last")

    @cached_property
    def ranker(self) -> SavedRanker:
        """The ranker, trained on the views of all arms if it is not there."""
        title = (
            "Path ranker in procedural houses\n\n"
            f"Synthetic, generator {GENERATOR}, predictability {self.plan.predictability:g}."
        )
        return learn_ranker(
            self.ranker_folder,
            self._routes,
            self.train.lessons,
            FEATURES,
            {"cpu_seconds": self.plan.ranker_seconds, "seed": self.seed},
            title,
        )

    def _routes(self, vocabulary: Vocabulary) -> list[Route]:
        from agents.vln.places import OraclePlace
        from agents.vln.training import Route

        guessed = self._guessed()
        true: dict[str, GraphPlace] = {}
        routes = []
        for one in self.train.lessons:
            if one.scan not in true:
                true[one.scan] = OraclePlace(*_parts(self.plain_place(self.train, one.scan)))
            graph = self.train.graph(one.scan)
            path = tuple(graph.index(viewpoint) for viewpoint in one.path)
            words = vocabulary.encode(one.text)
            certain = (self.plain_place(self.train, one.scan), true[one.scan])
            places = tuple(guessed.get(one.path_id, certain))
            routes.append(Route(places, graph.distances, words, one.heading, path))
        return routes

    def _guessed(self) -> dict[str, list[RecordedPlace]]:
        """Places that hold guesses of every kind for each step of some paths."""
        distinct = {one.path_id: one for one in self.train.lessons}
        chosen = list(distinct)[:: max(1, len(distinct) // self.plan.guessed)]
        recorders: dict[str, dict[RecordedPlace, Dream]] = {}
        found: dict[str, list[RecordedPlace]] = {}
        with progress("guesses on the paths of the training", len(chosen)) as meter:
            for path_id in chosen:
                one = distinct[path_id]
                if one.scan not in recorders:
                    recorders[one.scan] = self._recorders(one.scan)
                found[path_id] = list(recorders[one.scan])
                for place, guess in recorders[one.scan].items():
                    self._record(place, guess, one)
                meter.advance()
        return found

    def _recorders(self, scan: str) -> dict[RecordedPlace, Dream]:
        from decisive.benchmarks.house_guesses import RecordedPlace

        parts = _parts(self.plain_place(self.train, scan))
        return {RecordedPlace(*parts): self._dream(arm, self.train, scan, 1) for arm in GUESSING}

    def _record(self, place: RecordedPlace, guess: Dream, one: Instruction) -> None:
        from decisive.benchmarks.house_guesses import within

        graph = self.train.graph(one.scan)
        path = [graph.index(viewpoint) for viewpoint in one.path]
        for k in range(1, len(path) + 1):
            around = within(graph.neighbors, path[k - 1], self.plan.horizon)
            unseen = [viewpoint for viewpoint in around if viewpoint not in path[:k]]
            if unseen:
                place.record(path[:k], unseen, guess(place, path[:k], unseen))

    # Arms.

    def plain_place(self, houses: HouseSet, scan: str) -> GraphPlace:
        """What every arm knows of a house."""
        from agents.vln.places import GraphPlace

        if scan not in self._plain:
            graph = houses.graph(scan)
            self._plain[scan] = GraphPlace(graph.positions, graph.neighbors, houses.views(scan))
        return self._plain[scan]

    def _place(self, arm: str, scan: str) -> GraphPlace:
        """A house of the split as an arm knows it."""
        from agents.vln.places import DreamPlace, OraclePlace

        plain = self.plain_place(self.walks, scan)
        if arm == "baseline":
            return plain
        if arm == "ground-truth":
            return OraclePlace(*_parts(plain))
        return DreamPlace(*_parts(plain), self._dream(arm, self.walks, scan, self.plan.samples))

    def _dream(self, arm: str, houses: HouseSet, scan: str, samples: int) -> Dream:
        """What an arm guesses in a house."""
        from decisive.benchmarks.house_oracle import Oracle, seen_rooms
        from decisive.guesses import Guesser

        data, span = houses.panoramas, houses.spans[scan]
        if arm == "guidance":
            return Guesser.of_house(data, span)
        if arm == "pathdreamer":
            return Guesser.of_house(data, span, self.dreamer, samples, self.seed)
        if arm == "oracle":
            house, views = houses.house(scan), self.plain_place(houses, scan).views
            rooms = seen_rooms(house, data, span)
            return Oracle(house, views, rooms, self._bank, samples, self.seed)
        raise ValueError(f"unknown arm {arm!r}; known: {', '.join(ARMS)}")

    @cached_property
    def _bank(self) -> Bank:
        from decisive.benchmarks.house_oracle import bank_of

        scans = list(self.train.spans)[-_BANKED:]
        return bank_of([(self.train.house(scan), self.train.views(scan)) for scan in scans])

    def _dreamer_facts(self) -> dict[str, Any]:
        from learning.checkpoint import read_checkpoint

        training = read_checkpoint(self.folder / "world-model" / "last")[0]["training"]
        return {name: training[name] for name in ("step", "cpu_seconds", "houses", "panoramas")}


def _parts(place: GraphPlace) -> tuple[Any, Sequence[Sequence[int]], Any]:
    n = len(place.positions)
    return place.positions, [place.neighbors(k) for k in range(n)], place.views
