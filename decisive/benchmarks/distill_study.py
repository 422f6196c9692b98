"""Cells of the distillation study: demonstrations by insertions, images by test accuracy."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, cast

from decisive import provenance
from decisive.benchmarks.recipes import TASKS

EPISODES = 100
"""Unseen episodes of a cell, seeds 0 to 99 of the stream `evaluate`."""
DEMONSTRATIONS = 200
TASK = "block-insertion"
SEEN: dict[str, Any] = {"frame": "slot1", "relations": True}
"""The eyes that every other policy has on this task."""
SEEDS = (0, 1, 2)
SIZES = (100, 500, 2000)
METHODS = ("random", "kmeans", "herding", "label-solve", "kip")
PER_CLASS = (1, 10, 50)
VALIDATION = 10_000
"""Training images that settings are chosen by; test images choose nothing."""
KIP_DEMONSTRATIONS = {"steps": 300, "lr": 0.03, "batch": 1000}
KIP_IMAGES: dict[str, tuple[Mapping[str, Any], ...]] = {
    "mnist": tuple(
        {"steps": 1000, "batch": 1000, "lr": lr, "regulariser": regulariser}
        for lr, regulariser in product((0.03, 0.1, 0.3), (1e-6, 1e-2))
    ),
    "cifar10": tuple(
        {"steps": 300, "batch": 1000, "lr": lr, "regulariser": 1e-6} for lr in (0.03, 0.1, 0.3)
    ),
}
"""Settings that are tried on validation images, one seed each; the best is scored by test images,
three seeds."""


@dataclass(frozen=True)
class PolicySettings:
    """The kernel of the insertion policies, chosen on the stream `select`."""

    depth: int = 1
    regulariser: float = 1e-3


@dataclass(frozen=True)
class Cell:
    """One distillation and its score.

    Attributes:
        data: `insertion`, `mnist` or `cifar10`.
        method: of `METHODS`, or `all`: nothing is left out.
        size: points kept, or of each class; 0 for all.
        seed: of the split and the subset.
        trial: settings of KIP that are tried on validation images, by number; None: a test.
    """

    data: str
    method: str
    size: int
    seed: int
    trial: int | None = None

    suite: ClassVar[str] = "distill"

    @property
    def name(self) -> str:
        """Name of the cell, and of its file."""
        last = str(self.seed) if self.trial is None else f"try{self.trial}"
        return f"{self.data}--{self.method}--{self.size or 'all'}--{last}"

    def plan(self) -> dict[str, Any]:
        """All that decides the result, but for the settings that trials choose."""
        told: dict[str, Any] = asdict(self)
        if self.data == "insertion":
            told |= {"task": TASK, "demonstrations": DEMONSTRATIONS, "expert": "consistent"}
            told |= {"noise": TASKS[TASK].noise, "episodes": EPISODES, "eyes": SEEN}
            told |= {"policy": asdict(PolicySettings())}
            if self.method == "kip":
                told["kip"] = KIP_DEMONSTRATIONS
        else:
            told |= {"kernel": "fc", "depth": 1, "validation": VALIDATION}
            if self.method == "kip":
                told["tried"] = [dict(one) for one in KIP_IMAGES[self.data]]
        return told


@dataclass
class Sources:
    """What cells read, made once.

    Attributes:
        work: folder of what can be made again.
    """

    work: Path
    _images: dict[tuple[str, bool], Any] = field(default_factory=dict)

    def demonstrations(self) -> Path:
        """Recorded insertions of the consistent expert: regression averages over what differs."""
        from decisive.data_files import write_demonstrations
        from decisive.recording import RecordConfig, record

        path = self.work / "data" / f"{TASK}-consistent-{DEMONSTRATIONS}.npz"
        if not path.exists():
            task = TASKS[TASK]
            path.parent.mkdir(parents=True, exist_ok=True)
            staging = path.with_name(f".{path.name}.{provenance.commit()}.recording")
            config = RecordConfig(
                task.env, dict(task.options), "consistent", DEMONSTRATIONS, noise=task.noise
            )
            write_demonstrations(record(config, staging), str(path))
            shutil.rmtree(staging)
        return path

    def images(self, name: str, validation: bool) -> Any:
        """Prepared images; with `validation` scored by the last training images, never a test."""
        from decisive.distill_data import prepare, prepare_validation

        key = (name, validation)
        if key not in self._images:
            self._images.clear()  # one set fills a gigabyte
            found = prepare(name, None, None, False, 0)
            self._images[key] = prepare_validation(found, VALIDATION) if validation else found
        return self._images[key]


def core_cells() -> list[Cell]:
    """The core form, the most telling cells first."""
    return list(dict.fromkeys(_core()))


def _core() -> Iterator[Cell]:
    yield Cell("insertion", "all", 0, 0)
    for seed in SEEDS:
        for method, size in product(("label-solve", "random", "kip", "kmeans", "herding"), SIZES):
            # A step of KIP with 2,000 points takes seconds: it is named, and not of the core form.
            if not (method == "kip" and size == SIZES[-1]):
                yield Cell("insertion", method, size, seed)
    for data in ("mnist", "cifar10"):
        for size in PER_CLASS[:2]:
            yield from (Cell(data, "kip", size, 0, n) for n in range(len(KIP_IMAGES[data])))
            for method, seed in product(("kip", "label-solve", "random", "kmeans"), SEEDS):
                yield Cell(data, method, size, seed)
            yield Cell(data, "herding", size, 0)


def full_cells() -> list[Cell]:
    """The core form and the rest, which prints 'not run' where nothing was run."""
    rest = [Cell("insertion", "kip", SIZES[-1], seed) for seed in SEEDS]
    for data in ("mnist", "cifar10"):
        rest += [Cell(data, "kip", PER_CLASS[-1], 0, n) for n in range(len(KIP_IMAGES[data]))]
        rest += [
            Cell(data, method, PER_CLASS[-1], seed)
            for method, seed in product(("kip", "label-solve", "random", "kmeans"), SEEDS)
        ]
        rest.append(Cell(data, "herding", PER_CLASS[-1], 0))
    return list(dict.fromkeys([*_core(), *rest]))


def chosen_trial(cell: Cell, found: Mapping[Cell, dict[str, Any] | None]) -> int | None:
    """The settings that validation images chose for a test of KIP on images.

    Args:
        cell: the test.
        found: results.

    Returns:
        Their number; None while not all of them were tried.
    """
    scores = []
    for number in range(len(KIP_IMAGES[cell.data])):
        tried = found.get(Cell(cell.data, "kip", cell.size, 0, number))
        if tried is None:
            return None
        scores.append(tried["accuracy"])
    return scores.index(max(scores))


def run_cell(
    cell: Cell, sources: Sources, found: Mapping[Cell, dict[str, Any] | None]
) -> dict[str, Any] | None:
    """Distil and score; None where trials that it rests on are missing.

    Args:
        cell: what to run.
        sources: what it reads.
        found: results so far.
    """
    began = time.process_time()
    if cell.data == "insertion":
        result = _insertion(cell, sources)
    else:
        number = cell.trial
        if cell.method == "kip" and number is None:
            number = chosen_trial(cell, found)
            if number is None:
                return None
        result = _images(cell, number, sources)
    return {
        "plan": cell.plan(),
        **result,
        "total_cpu_seconds": round(time.process_time() - began, 1),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def _arguments(cell: Cell, name: str, **more: Any) -> Any:
    from decisive.distill import Arguments, Method

    return Arguments(name, seed=cell.seed, json=True, method=cast(Method, cell.method), **more)


def _insertion(cell: Cell, sources: Sources) -> dict[str, Any]:
    """A policy from kept demonstrations, in 100 episodes."""
    from decisive.distill import make
    from decisive.distill_policy import held_out_scores, prepare_seen
    from decisive.episodes import PolicyActor, run_episodes
    from decisive.options import make_env
    from decisive.statistics import median_and_p95, wilson_interval
    from learning.demonstrations import load_demonstrations

    path, settings = str(sources.demonstrations()), PolicySettings()
    data, policy = prepare_seen(
        path, {**SEEN, **asdict(settings), "seed": cell.seed, "gate": "off"}
    )
    began = time.process_time()
    if cell.method == "all":
        policy.refit(data.train.points, data.train.targets + data.train.offset)
    else:
        more = KIP_DEMONSTRATIONS if cell.method == "kip" else {}
        arguments = _arguments(
            cell, path, points=cell.size, regulariser=settings.regulariser, **more
        )
        out = sources.work / "runs" / cell.name
        distilled, _ = make(arguments, policy.config.network, data, out)
        policy.refit(distilled.points, distilled.labels + distilled.offset)
    seconds = time.process_time() - began
    env = make_env(TASKS[TASK].env, dict(TASKS[TASK].options))
    try:
        episodes = list(run_episodes(env, PolicyActor(policy), range(EPISODES)))
    finally:
        env.close()
    good = sum(bool(episode.success) for episode in episodes)
    median, p95 = median_and_p95([ms for one in episodes for ms in one.act_ms])
    return {
        "points": len(policy.points),
        "of": len(data.train),
        "success_rate": good / EPISODES,
        "success_ci95": list(wilson_interval(good, EPISODES)),
        "success": [bool(episode.success) for episode in episodes],
        **held_out_scores(policy, load_demonstrations(path)),
        "distil_cpu_seconds": round(seconds, 2),
        "ms_per_action": {"median": median, "p95": p95},
    }


def _images(cell: Cell, number: int | None, sources: Sources) -> dict[str, Any]:
    """A distilled set of images and its accuracy."""
    from decisive.distill import make
    from learning.distillation import named_kernel
    from learning.distillation.distilled import score

    data = sources.images(cell.data, cell.trial is not None)
    more: dict[str, Any] = {} if number is None else dict(KIP_IMAGES[cell.data][number])
    arguments = _arguments(cell, cell.data, per_class=cell.size, **more)
    began = time.process_time()
    out = sources.work / "runs" / cell.name
    distilled, _ = make(arguments, named_kernel("fc"), data, out)
    seconds = time.process_time() - began
    scores = score(distilled.ridge(), data.held_out, data.held_out_points)
    return {
        "points": len(distilled),
        "accuracy": scores.accuracy,
        "n": scores.n,
        "settings": more,
        "distil_cpu_seconds": round(seconds, 2),
    }
