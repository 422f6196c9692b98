"""A shipped English navigator learns Chinese from sentences alone, in procedural houses.

MURAL's claim (Jain et al. 2021) on panoramas: the ranker as it is shipped goes on learning, on the
routes described in English that it knows and on sentence pairs: English and Chinese ones of the
same facts, of houses whose routes and pictures nobody shows it. No route is ever shown with
Chinese. What it gains is measured against the same training without pairs, and against routes in
Chinese themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decisive.benchmarks.house_data import HouseSet
from decisive.benchmarks.house_language_data import told_houses, told_parts
from decisive.benchmarks.language_study import translations
from decisive.benchmarks.navigation_study import card, walk_lessons
from decisive.progress import progress
from envs.indoor.house import GENERATOR
from envs.indoor.instructions import check_language

if TYPE_CHECKING:
    from agents.vln.bitext import Translations
    from agents.vln.checkpoint import SavedRanker
    from agents.vln.places import GraphPlace
    from agents.vln.training import Route
    from agents.vln.vocabulary import Vocabulary
    from decisive.benchmarks.house_guesses import RecordedPlace
    from envs.indoor.r2r_data import Instruction

ARMS = ("shipped", "english", "translations", "both")
"""The ranker as shipped; and after learning on from routes in English; these and sentence pairs of
other houses; routes in both languages."""
VIEWS = ("none", "true")
"""What is known of unvisited viewpoints: their places in the graph alone, or also the truth."""
_PAIRED = 500
"""Number of the first house whose sentences are paired: no other training has seen it."""
_PAIRS = 20
"""Sentence pairs of a step."""
_MAX_WORDS = 128
"""Of an instruction: in Chinese every character is a word."""


@dataclass(frozen=True)
class HouseLanguagePlan:
    """What decides the result of a seed.

    Attributes:
        split: where the arms walk, "val" or "test".
        language: of the instructions that are walked.
        views: of unvisited viewpoints, one of `VIEWS`.
        horizon: hops looked ahead.
        predictability: of the houses.
        height: rows of the panoramas.
        learned: houses whose routes are learned.
        paired: houses of which sentence pairs are learned.
        parts: whether parts of their instructions are paired too, beside whole ones.
        walked: houses of the split.
        paths: described in each house that is learned, and of the split.
        guessed: paths of the training on which the world model's guesses are seen too.
        model: that world model; "" for none.
        ranker: the shipped ranker, or a folder.
        ranker_seconds: CPU-seconds of a training, the same for all arms.
        lr: peak learning rate.
    """

    split: str = "test"
    language: str = "zh"
    views: str = "none"
    horizon: int = 3
    predictability: float = 1.0
    height: int = 32
    learned: int = 200
    paired: int = 200
    parts: bool = False
    walked: int = 60
    paths: tuple[int, int] = (6, 3)
    guessed: int = 200
    model: str = "pathdreamer-houses"
    ranker: str = "houses"
    ranker_seconds: float = 400.0
    lr: float = 2e-3

    def __post_init__(self) -> None:
        """Refuse what cannot be learned or walked, before anything is rendered."""
        if self.split not in ("val", "test"):
            raise ValueError(f"arms walk in houses of val or test, got {self.split!r}")
        check_language(self.language)
        if self.views not in VIEWS:
            raise ValueError(f"views must be one of {', '.join(VIEWS)}, got {self.views!r}")
        if not 0 <= self.predictability <= 1:
            raise ValueError(f"predictability must be in [0, 1], got {self.predictability}")
        if not 1 <= self.learned <= _PAIRED:
            raise ValueError(
                f"routes of 1 to {_PAIRED} houses can be learned (sentences of the next ones are "
                f"paired), got {self.learned}"
            )


class HouseLanguageStudy:
    """The trainings of one seed."""

    def __init__(self, plan: HouseLanguagePlan, seed: int, work: Path, workers: int = 1) -> None:
        """Nothing is rendered, written or trained yet.

        Args:
            plan: what to do.
            seed: of the trainings.
            work: where panoramas, instructions and trainings are kept.
            workers: processes that render and write.
        """
        self.plan, self.seed = plan, seed
        self._work, self._workers = work, workers
        percent = round(100 * plan.predictability)
        counts = f"{plan.learned}-{plan.paired}{'-parts' * plan.parts}-{plan.ranker_seconds:g}"
        self.folder = work / f"house-languages-p{percent:03d}-{counts}-seed{seed}"
        self.train = self._houses("train", plan.learned, plan.paths[0])
        self.walks = self._houses(plan.split, plan.walked, plan.paths[1])
        self._plain: dict[str, GraphPlace] = {}

    def walk(self, arm: str) -> dict[str, Any]:
        """Walk every instruction of the split and the language; results with their rows."""
        lessons = self._told(self.plan.split, range(self.plan.walked), self.plan.paths[1])
        walks, true = self.walks, self.plan.views == "true"
        places: dict[str, GraphPlace] = {}

        def place_of(scan: str) -> GraphPlace:
            if scan not in places:
                places[scan] = self._place(walks, scan, true)
            return places[scan]

        chosen = lessons[self.plan.language]
        return walk_lessons(self.ranker(arm), chosen, walks.graph, place_of, self.plan.horizon)

    # Trainings.

    def ranker(self, arm: str) -> SavedRanker:
        """The ranker of an arm, trained if it is not there.

        Raises:
            ValueError: for another arm.
        """
        from agents.vln.checkpoint import load_ranker

        if arm not in ARMS:
            raise ValueError(f"unknown arm {arm!r}; known: {', '.join(ARMS)}")
        if arm == "shipped":
            return load_ranker(self.plan.ranker)
        if not (self.folder / arm).exists():
            self._learn(arm)
        return load_ranker(self.folder / arm)

    def _learn(self, arm: str) -> None:
        import torch

        from agents.vln.bitext import BitextConfig
        from agents.vln.checkpoint import SavedRanker, save_ranker
        from agents.vln.training import CourseConfig, train_ranker
        from learning.train_config import TrainConfig

        torch.set_num_threads(1)
        start = self._start()
        pairs = self._translations(start.vocabulary) if arm == "translations" else None
        config = TrainConfig(
            cpu_seconds=self.plan.ranker_seconds,
            batch_size=32,
            lr=self.plan.lr,
            ema_decay=0.995,
            seed=self.seed,
        )
        languages = ("en", "zh") if arm == "both" else ("en",)
        routes = self._routes(start.vocabulary, languages)
        course = CourseConfig(per_route=4)
        bitext = BitextConfig(batch_size=_PAIRS)
        facts = train_ranker(
            start.ranker, routes, course, config, translations=pairs, bitext=bitext
        )
        saved = SavedRanker(start.ranker, start.vocabulary, start.features, dict(facts))
        title = (
            f"Path ranker in procedural houses, after learning on: {arm}\n\n"
            f"From the ranker {self.plan.ranker}. Synthetic, generator {GENERATOR}, "
            f"predictability {self.plan.predictability:g}."
        )
        save_ranker(self.folder / arm, saved, card(title, self.seed, facts))

    def _start(self) -> SavedRanker:
        """The shipped ranker, with numbers for the words of the pairs.

        They are the same for all arms, so that these differ in what they learn from alone.
        """
        from agents.vln.checkpoint import load_ranker
        from agents.vln.new_words import with_words
        from agents.vln.vocabulary import Vocabulary

        spoken = Vocabulary.of(one.text for one in self._pairs["zh"])
        shipped = load_ranker(self.plan.ranker)
        return with_words(shipped, spoken.words, self.seed, _MAX_WORDS)

    @cached_property
    def _pairs(self) -> Mapping[str, tuple[Instruction, ...]]:
        """By language: sentences of the houses that nobody shows."""
        numbers = range(_PAIRED, _PAIRED + self.plan.paired)
        return self._told("train", numbers, self.plan.paths[0])

    @property
    def _pair_houses(self) -> frozenset[str]:
        return frozenset(one.scan for one in self._pairs["en"])

    def _translations(self, vocabulary: Vocabulary) -> Translations:
        """Whole instructions of those houses, and where asked for their parts."""
        from agents.vln.bitext import Translations

        said = self._pairs["en"], self._pairs["zh"]
        whole = translations(vocabulary, *said, self._pair_houses)
        if not self.plan.parts:
            return whole
        numbers = range(_PAIRED, _PAIRED + self.plan.paired)
        place = self._work / "instructions", "train", numbers, self.plan.predictability
        parts = told_parts(*place, self.plan.paths[0], self._workers)
        first, second = (
            tuple(tuple(vocabulary.encode(text) for text in texts) for texts in parts[language])
            for language in ("en", "zh")
        )
        return Translations(whole.first + first, whole.second + second)

    def _routes(self, vocabulary: Vocabulary, languages: Sequence[str]) -> list[Route]:
        from agents.vln.training import Route

        told = self._told("train", range(self.plan.learned), self.plan.paths[0])
        routes = []
        for one in (one for language in languages for one in told[language]):
            graph = self.train.graph(one.scan)
            places = [self._place(self.train, one.scan, true) for true in (False, True)]
            places += self._guesses.get(one.path_id, [])
            path = tuple(graph.index(viewpoint) for viewpoint in one.path)
            words = vocabulary.encode(one.text)
            routes.append(Route(tuple(places), graph.distances, words, one.heading, path))
        return routes

    @cached_property
    def _guesses(self) -> dict[str, list[RecordedPlace]]:
        """By path: its house with what the world model guesses at each step of the path."""
        from world_models.pathdreamer.model import load_world_model

        if not self.plan.model or not self.plan.guessed:
            return {}
        model = load_world_model(self.plan.model).eval()
        told = self._told("train", range(self.plan.learned), self.plan.paths[0])["en"]
        distinct = {one.path_id: one for one in told}
        chosen = list(distinct)[:: max(1, len(distinct) // self.plan.guessed)]
        found = {}
        with progress("guesses on the paths of the training", len(chosen)) as meter:
            for path_id in chosen:
                found[path_id] = [self._guessed(distinct[path_id], model)]
                meter.advance()
        return found

    def _guessed(self, one: Instruction, model: Any) -> RecordedPlace:
        from decisive.benchmarks.house_guesses import RecordedPlace, within
        from decisive.guesses import Guesser

        houses, graph = self.train, self.train.graph(one.scan)
        plain = self._place(houses, one.scan, False)
        place = RecordedPlace(plain.positions, graph.neighbors, plain.views)
        guesser = Guesser.of_house(houses.panoramas, houses.spans[one.scan], model, 1, self.seed)
        path = [graph.index(viewpoint) for viewpoint in one.path]
        for k in range(1, len(path) + 1):
            around = within(graph.neighbors, path[k - 1], self.plan.horizon)
            unseen = [viewpoint for viewpoint in around if viewpoint not in path[:k]]
            if unseen:
                place.record(path[:k], unseen, guesser(plain, path[:k], unseen))
        return place

    # Houses.

    def _houses(self, split: str, count: int, paths: int) -> HouseSet:
        plan = self.plan
        return HouseSet(
            split,
            plan.predictability,
            count,
            count,
            paths,
            plan.height,
            self._work,
            self._workers,
        )

    def _told(
        self, split: str, numbers: range, paths: int
    ) -> Mapping[str, tuple[Instruction, ...]]:
        folder, share = self._work / "instructions", self.plan.predictability
        return told_houses(folder, split, numbers, share, paths, self._workers)

    def _place(self, houses: HouseSet, scan: str, true: bool) -> GraphPlace:
        """A house as it is known: the graph and what was seen, or also what was not."""
        from agents.vln.places import GraphPlace, OraclePlace

        if scan not in self._plain:
            graph = houses.graph(scan)
            self._plain[scan] = GraphPlace(graph.positions, graph.neighbors, houses.views(scan))
        plain = self._plain[scan]
        if not true:
            return plain
        graph = houses.graph(scan)
        return OraclePlace(plain.positions, graph.neighbors, plain.views)
