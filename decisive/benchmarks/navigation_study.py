"""What the studies of navigation share: learning a ranker, and walking by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from decisive.benchmarks.r2r_report import Walk, summarize
from decisive.statistics import median_and_p95
from envs.indoor.categories import ID
from envs.indoor.graph import NavigationGraph
from envs.indoor.metrics import score_path
from envs.indoor.r2r_data import Instruction

if TYPE_CHECKING:
    from agents.vln.bitext import Translations
    from agents.vln.checkpoint import SavedRanker
    from agents.vln.places import Place
    from agents.vln.training import Route
    from agents.vln.vocabulary import Vocabulary

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


class Study(Protocol):
    """Arms that walk the same instructions, and the trainings of one seed."""

    def walk(self, arm: str) -> dict[str, Any]:
        """Walk every instruction of the split; results with their rows.

        Trains what is not there yet.
        """
        ...


def learn_ranker(
    folder: Path,
    routes: Callable[[Vocabulary], Sequence[Route]],
    lessons: Sequence[Instruction],
    features: Sequence[str],
    settings: Mapping[str, Any],
    title: str,
    translations: Callable[[Vocabulary], Translations] | None = None,
) -> SavedRanker:
    """The ranker of a folder, trained if it is not there.

    Args:
        folder: a checkpoint.
        routes: of the lessons, once their words are numbered.
        lessons: whose words are known.
        features: names of a heading's features; those of categories come first.
        settings: of `TrainConfig`.
        title: of the model card, with what the data are.
        translations: into a language without routes, once words are numbered; None for none.
    """
    import torch

    from agents.vln.checkpoint import SavedRanker, load_ranker, save_ranker
    from agents.vln.ranker import PathRanker, RankerConfig
    from agents.vln.training import CourseConfig, train_ranker
    from agents.vln.vocabulary import Vocabulary
    from learning.train_config import TrainConfig

    if not folder.exists():
        vocabulary = Vocabulary.of(one.text for one in lessons)
        config = TrainConfig(
            **{"batch_size": 64, "lr": 3e-3, "ema_decay": 0.995, **dict(settings)},
        )
        torch.manual_seed(config.seed)
        torch.set_num_threads(1)
        ranker = PathRanker(RankerConfig(len(features), len(vocabulary), dropout=0.2))
        ranker.name_features(spoken_features(vocabulary))
        pairs = None if translations is None else translations(vocabulary)
        course = CourseConfig(per_route=4)
        facts = train_ranker(ranker, routes(vocabulary), course, config, translations=pairs)
        saved = SavedRanker(ranker, vocabulary, tuple(features), dict(facts))
        save_ranker(folder, saved, card(title, config.seed, facts))
    return load_ranker(folder)


def walk_lessons(
    saved: SavedRanker,
    lessons: Sequence[Instruction],
    graph_of: Callable[[str], NavigationGraph],
    place_of: Callable[[str], Place],
    horizon: int,
) -> dict[str, Any]:
    """Walk instructions; results with their rows.

    Args:
        saved: ranks.
        lessons: to walk.
        graph_of: a building's graph.
        place_of: a building as an arm knows it.
        horizon: hops looked ahead.
    """
    import torch

    from agents.vln.navigator import Errand, Navigator, NavigatorConfig

    torch.set_num_threads(1)
    errands = []
    for one in lessons:
        start = graph_of(one.scan).index(one.path[0])
        words = saved.vocabulary.encode(one.text)
        errands.append(Errand(place_of(one.scan), words, one.heading, (start,)))
    done = Navigator(saved.ranker, NavigatorConfig(horizon)).walk_all(errands)
    walks = []
    for one, walk in zip(lessons, done, strict=True):
        graph = graph_of(one.scan)
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


def spoken_features(vocabulary: Vocabulary) -> dict[int, list[int]]:
    """Numbers of the known words that name a category, by its id."""
    spoken = {}
    for name, category in ID.items():
        if name in ("void", "objects", "misc", "furniture"):
            continue
        words = {name, f"{name}s", *_SPOKEN.get(name, ())} & set(vocabulary.words)
        spoken[category] = [int(vocabulary.encode(word)[0]) for word in sorted(words)]
    return spoken


def card(title: str, seed: int, facts: Mapping[str, float]) -> str:
    """A model card: a title with what the data are, and how long the training was."""
    return (
        f"# {title}\n\nSeed {seed}; {facts['steps']:.0f} steps, "
        f"{facts['cpu_seconds']:.0f} CPU-seconds, loss {facts['loss']:.4f}.\n"
    )


def _short(walk: Walk) -> dict[str, Any]:
    """A row, its figures cut to three decimals."""
    assert walk.scores is not None
    scores = {
        name: value if isinstance(value, bool) else round(value, 3)
        for name, value in asdict(walk.scores).items()
    }
    return {"instr_id": walk.instr_id, "path_id": walk.path_id, "hops": walk.steps, **scores}
