"""The grid of `decisive benchmark tabletop`, in the order in which its cells are run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from decisive import provenance
from decisive.benchmarks import cells
from decisive.benchmarks.cells import TRAINING_SEEDS, Places
from decisive.benchmarks.recipes import METHODS, TASKS, find_recipe

FEW = 100
"""Demonstrations of the smaller cells."""
FEW_SHARE = 0.4
"""Share of the training budget that a cell with fewer demonstrations gets: they are learned, and
overfitted, sooner, and CPU-hours are few."""

CORE_TASKS = (
    "block-push-multimodal-push",
    "block-sorting-push",
    "block-insertion-two-slots",
    "block-insertion",
    "block-push-multimodal",
    "block-push",
    "block-sorting",
)
"""The most telling first: push primitives are where one decision commits many steps."""
CORE_METHODS = ("mse", "mdn", "ibc")
PARTICLE_TASKS = ("particle-2", "particle-8", "particle-16")
"""Shown with the consistent expert, the paper's: the diverse one only waits at times."""
PIXEL_TASKS = ("block-push-pixels", "block-insertion-pixels")
CONTROL_TASKS = ("block-push-multimodal-push", "block-insertion-two-slots")
"""Tasks of the core form that are also shown with a consistent expert, the control."""

SHIFTS: dict[str, dict[str, Any]] = {
    "xarm6": {"arm": "xarm6"},
    "disturbed": {"disturb": 0.02},
    "randomized": {"randomize": 0.5},
}
"""Options of evaluation that no policy was trained with."""


@dataclass(frozen=True)
class Cell(cells.Cell):
    """One training and its evaluation.

    Attributes:
        task: a key of `decisive.benchmarks.recipes.TASKS`.
        expert: `diverse` or `consistent`.
        demos: number of demonstrations.
        method: a key of `agents.POLICIES`.
        seed: of the training.
        shift: a key of `SHIFTS` to evaluate under; empty for the options of the training.
    """

    suite: ClassVar[str] = "tabletop"
    task: str
    expert: str
    demos: int
    method: str
    seed: int
    shift: str = ""

    @property
    def run(self) -> str:
        """Name of the training: `task/expert-demos/method/seed`."""
        return f"{self.task}/{self.expert}-{self.demos}/{self.method}/{self.seed}"

    @property
    def name(self) -> str:
        """Name of the cell: the training, and the shift if there is one."""
        return f"{self.run}/{self.shift}" if self.shift else self.run

    @property
    def kept(self) -> int:
        """Demonstrations trained on."""
        return self.demos

    def plan(self) -> dict[str, Any]:
        """Everything that decides the result; see the base class."""
        task = TASKS[self.task]
        recipe = find_recipe(f"{self.task}-{self.method}")
        train = dict(recipe.train)
        if self.demos < task.recorded and "cpu_seconds" in train:
            train["cpu_seconds"] *= FEW_SHARE
        told = {
            "env": task.env,
            "options": task.options,
            "noise": task.noise,
            "policy": recipe.policy,
            "train": train,
            "selection_episodes": recipe.selection_episodes,
            "evaluation_options": SHIFTS[self.shift] if self.shift else {},
            "episodes": cells.EPISODES,
        }
        plain: dict[str, Any] = json.loads(json.dumps(told, default=dict))
        return plain

    def data(self, places: Places) -> str:
        """The recorded file, shared by cells of fewer demonstrations."""
        return str(places.work / "data" / f"{self.task}-{self.expert}.npz")

    def prepare(self, places: Places, workers: int) -> None:
        """Record the demonstrations if they are not there."""
        from decisive.data_files import write_demonstrations
        from decisive.recording import RecordConfig, record

        path = Path(self.data(places))
        if path.exists():
            return
        task = TASKS[self.task]
        config = RecordConfig(
            env=task.env,
            options=dict(task.options),
            expert=self.expert,
            episodes=task.recorded,
            noise=task.noise,
            workers=workers,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        # The commit is in the name: a recording that another commit began is not gone on with.
        staging = path.with_name(f".{path.name}.{provenance.commit()}.recording")
        write_demonstrations(record(config, staging), str(path))
        shutil.rmtree(staging)


def core_grid() -> list[Cell]:
    """The core form: about four CPU-hours, its first cells the most telling."""
    return list(dict.fromkeys(_core()))


def full_grid() -> list[Cell]:
    """The core form, then everything else: what was not run prints 'not run'."""
    return list(dict.fromkeys([*_core(), *_rest()]))


def _full_sized(task: str, expert: str, method: str, seed: int, shift: str = "") -> Cell:
    return Cell(task, expert, TASKS[task].recorded, method, seed, shift)


def _core() -> Iterator[Cell]:
    first, *others = TRAINING_SEEDS
    for task, method in product(CORE_TASKS, CORE_METHODS):
        yield _full_sized(task, "diverse", method, first)
    for task, method in product(CONTROL_TASKS, CORE_METHODS):
        yield _full_sized(task, "consistent", method, first)
    for seed, task, method in product(others, CORE_TASKS, CORE_METHODS):
        yield _full_sized(task, "diverse", method, seed)
    for task, method in product(CORE_TASKS, CORE_METHODS):
        if task != "block-sorting":  # an hour of its own
            yield Cell(task, "diverse", FEW, method, first)


def _rest() -> Iterator[Cell]:
    for task, method in product(PARTICLE_TASKS, CORE_METHODS):
        yield _full_sized(task, "consistent", method, TRAINING_SEEDS[0])
    for task, method in product(PIXEL_TASKS, CORE_METHODS):
        yield _full_sized(task, "diverse", method, TRAINING_SEEDS[0])
    for shift, seed, task, method in product(SHIFTS, TRAINING_SEEDS, CORE_TASKS, CORE_METHODS):
        yield _full_sized(task, "diverse", method, seed, shift)
    for seed, task, method in product(TRAINING_SEEDS, CORE_TASKS, CORE_METHODS):
        yield Cell(task, "diverse", FEW, method, seed)
    for seed, task, method in product(TRAINING_SEEDS, CORE_TASKS, CORE_METHODS):
        yield _full_sized(task, "consistent", method, seed)
    for seed, task, method in product(TRAINING_SEEDS, TASKS, METHODS):
        yield _full_sized(task, "diverse", method, seed)
