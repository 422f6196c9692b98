"""Instructions in a language that no route was described in, on real Room-to-Room.

MURAL's claim (Jain et al. 2021), with routes in place of images: translation pairs are enough to
take a language along. Buildings of `train` are divided: from two thirds of them the routes are
learned, described in English; of the last third, whose routes nobody learns, only the sentences
count, in English and Chinese (XL-R2R). Views are symbolic, and true wherever the ranker looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decisive.benchmarks.navigation_study import learn_ranker, walk_lessons
from decisive.benchmarks.symbolic_study import SymbolicPlan, SymbolicStudy
from envs.indoor.categories import CATEGORIES
from envs.indoor.r2r_data import read_instructions
from learning.image_set import data_folder

if TYPE_CHECKING:
    from agents.vln.bitext import Translations
    from agents.vln.checkpoint import SavedRanker
    from agents.vln.training import Route
    from agents.vln.vocabulary import Vocabulary
    from envs.indoor.r2r_data import Instruction

ARMS = ("english", "translations", "both")
"""What the ranker learned from: routes in English; these and translation pairs; routes in both
languages."""
LANGUAGES = ("en", "zh")
_VIEWS = ("baseline", "ground-truth")
_SOURCE = (
    "Room-to-Room and XL-R2R, derived from Matterport3D, under its terms of use (academic, "
    "non-commercial); object lists are REVERIE's."
)


@dataclass(frozen=True)
class LanguagePlan:
    """What decides the result of a seed.

    Attributes:
        split: where the arms walk.
        language: of the instructions that are walked, "en" or "zh".
        horizon: hops looked ahead.
        episodes: only the first so many instructions; None for all.
        ranker_seconds: CPU-seconds of a training, the same for all arms.
    """

    split: str
    language: str
    horizon: int
    episodes: int | None
    ranker_seconds: float

    def __post_init__(self) -> None:
        """Refuse languages that nobody wrote in."""
        if self.language not in LANGUAGES:
            raise ValueError(f"language must be one of {', '.join(LANGUAGES)}: {self.language!r}")


class LanguageStudy:
    """The trainings of one seed."""

    def __init__(self, plan: LanguagePlan, seed: int, work: Path, data: Path | None = None) -> None:
        """Open the world; nothing is trained yet.

        Args:
            plan: what to do.
            seed: of the trainings.
            work: where trainings are kept.
            data: folder of data; None for the usual one.
        """
        self.plan, self.seed = plan, seed
        self._texts = (data or data_folder()) / "xl_r2r"
        symbolic = SymbolicPlan("r2r", plan.split, plan.horizon, plan.episodes, 1.0, 1.0)
        self._study = SymbolicStudy(symbolic, seed, work, data)
        self.folder = work / f"languages-{plan.ranker_seconds:g}-seed{seed}"

    def walk(self, arm: str) -> dict[str, Any]:
        """Walk every instruction of the split and the language."""
        lessons = self.lessons(self.plan.split, self.plan.language)[: self.plan.episodes]
        study = self._study
        return walk_lessons(
            self.ranker(arm),
            lessons,
            study.world.graph,
            lambda scan: study.place(scan, "ground-truth"),
            self.plan.horizon,
        )

    def lessons(self, split: str, language: str) -> Sequence[Instruction]:
        """Instructions of a split in a language."""
        return read_instructions(self._texts / f"R2R_{split}_{language}.json.gz")

    def ranker(self, arm: str) -> SavedRanker:
        """The ranker of an arm, trained if it is not there."""
        every = {language: self.lessons("train", language) for language in LANGUAGES}
        spoken = told_in(every["en"])
        learned = [one for one in every["en"] if one.scan not in spoken]
        if arm == "both":
            learned += [one for one in every["zh"] if one.scan not in spoken]
        return learn_ranker(
            self.folder / arm,
            lambda vocabulary: self._routes(vocabulary, learned),
            # The same words for all arms, so that they differ in what they learn from alone.
            (*every["en"], *every["zh"]),
            CATEGORIES,
            {"cpu_seconds": self.plan.ranker_seconds, "seed": self.seed},
            f"Path ranker on Room-to-Room, symbolic views: {arm}\n\nData: split `train`. {_SOURCE}",
            (lambda vocabulary: translations(vocabulary, every["en"], every["zh"], spoken))
            if arm == "translations"
            else None,
        )

    def _routes(self, vocabulary: Vocabulary, lessons: Sequence[Instruction]) -> list[Route]:
        from agents.vln.training import Route

        routes = []
        for one in lessons:
            graph = self._study.world.graph(one.scan)
            places = tuple(self._study.place(one.scan, views) for views in _VIEWS)
            path = tuple(graph.index(viewpoint) for viewpoint in one.path)
            words = vocabulary.encode(one.text)
            routes.append(Route(places, graph.distances, words, one.heading, path))
        return routes


def told_in(lessons: Sequence[Instruction]) -> frozenset[str]:
    """Buildings whose routes nobody learns: the first third by name, of which sentences count."""
    scans = sorted({one.scan for one in lessons})
    return frozenset(scans[: round(len(scans) / 3)])


def translations(
    vocabulary: Vocabulary,
    first: Sequence[Instruction],
    second: Sequence[Instruction],
    scans: frozenset[str],
) -> Translations:
    """What was said of the same paths in two languages, in some buildings; without the paths."""
    from agents.vln.bitext import Translations

    said: dict[str, tuple[list[Any], list[Any]]] = {}
    for side, lessons in enumerate((first, second)):
        for one in lessons:
            if one.scan in scans:
                wordings = said.setdefault(one.path_id, ([], []))[side]
                wordings.append(vocabulary.encode(one.text))
    pairs = [pair for pair in said.values() if all(pair)]
    return Translations(tuple(tuple(a) for a, _ in pairs), tuple(tuple(b) for _, b in pairs))
