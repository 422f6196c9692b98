"""The grid of `decisive benchmark d4rl`: offline data in, D4RL's normalised scores out.

Nothing is chosen by episodes: a cell trains for its budget, and the last averaged weights are
scored. Settings were tuned on seeds of the stream `select`, the same effort for every method.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from decisive.benchmarks import cells
from decisive.benchmarks.cells import TRAINING_SEEDS, NoDataError, Places
from decisive.benchmarks.recipes import Recipe

ROLLOUTS = 25
"""Expert rollouts that are learned from: as many as D4RL's human sets hold demonstrations."""

PUBLISHED = ("BC", "CQL", "S4RL", "MSE", "IBC", "IBC + RWR")
"""Columns of Florence et al. 2021, Table 2 (raw returns): BC and CQL as Fu et al. 2020 ran them,
S4RL of Sinha et al. 2021, then the article's own."""


@dataclass(frozen=True)
class Task:
    """A data set and where it is scored.

    Attributes:
        title: what tables call it.
        env: environment id.
        sources: where the data may lie, the first that exists counts: paths below the folder of
            data sets, or ids of Minari.
        options: options of the environment.
        episodes: how many of the data are used, the first; all if `None`.
        published: raw returns by column of `PUBLISHED`.
    """

    title: str
    env: str
    sources: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    episodes: int | None = None
    published: tuple[float | None, ...] = (None,) * len(PUBLISHED)


def _human(name: str, published: tuple[float, ...]) -> Task:
    return Task(
        f"{name}-human",
        f"decisive/Adroit{name.title()}-v0",
        (
            f"adroit_dapg/{name}-human_demos.npz",
            f"d4rl/{name}-human-v1.hdf5",
            f"D4RL/{name}/human-v2",
        ),
        published=published,
    )


def _kitchen(kind: str, published: tuple[float, ...]) -> Task:
    # Minari's observations hold velocities and no goal: an option of the environment, told by
    # the data themselves.
    return Task(
        f"kitchen-{kind}",
        "decisive/FrankaKitchen-v0",
        (f"d4rl/kitchen-{kind}-v0.hdf5", f"D4RL/kitchen/{kind}-v2"),
        {"tasks": kind},
        published=published,
    )


def _rollouts(name: str) -> Task:
    return Task(
        f"{name}, {ROLLOUTS} expert rollouts",
        f"decisive/Adroit{name.title()}-v0",
        (f"adroit_expert_rollouts/{name}-expert_rollouts.npz",),
        episodes=ROLLOUTS,
    )


TASKS: dict[str, Task] = {
    "kitchen-complete": _kitchen("complete", (1.4, 1.8, 3.08, 1.76, 3.37, 3.37)),
    "kitchen-partial": _kitchen("partial", (1.4, 1.9, 2.99, 1.69, 1.45, 2.18)),
    "kitchen-mixed": _kitchen("mixed", (1.9, 2.0, float("nan"), 2.15, 1.51, 2.25)),
    "pen-human": _human("pen", (1122, 1214, 1420, 2141, 2586, 2446)),
    "hammer-human": _human("hammer", (-82, 300, 496, -38, -133, -9)),
    "door-human": _human("door", (-42, 234, 737, 79, 361, 399)),
    "relocate-human": _human("relocate", (-5.6, 2.0, 2.1, -3.5, -0.1, 3.6)),
    **{f"{name}-expert": _rollouts(name) for name in ("pen", "hammer", "door", "relocate")},
}
"""The seven rows of the article's table, then what 25 rollouts of the DAPG experts teach."""

CORE_TASKS = ("door-human", "pen-expert", "hammer-expert", "door-expert", "relocate-expert")
"""Those whose data are at hand without a network."""
CORE_METHODS = ("mse", "implicit-bc", "implicit-bc-rnce")

_TRAINED_AS = {
    "mse": "mse",
    "mse-rwr": "mse",
    "mdn": "mdn",
    "diffusion": "diffusion",
    "implicit-bc": "ibc",
    "implicit-bc-rnce": "ibc",
    "implicit-bc-rwr": "ibc",
}
METHODS = tuple(_TRAINED_AS)
"""`implicit-bc` is the article's: Langevin counter-examples and inference; `-rnce` learns a
proposal; `-rwr` weights demonstrations by their returns."""

# 5,000 noisy actions are soon learned by heart: with two tanh layers and dropout a regression's
# distance from the expert's mean action on unseen episodes of relocate falls by 40 %.
_EYES: Mapping[str, Any] = {"width": 256, "depth": 2, "activation": "tanh", "dropout": 0.3}
_RNCE: Mapping[str, Any] = {
    **_EYES,
    "n_negatives": 16,
    "negatives": (("proposal", 1.0),),
    "proposal": {
        "n_components": 1,
        "min_std": 0.05,
        "hidden": 0,
        "shapes_code": True,
        "modes_first": True,
    },
    "dfo": {"n_samples": 16, "n_iterations": 2, "noise_std": 0.02, "decay": 0.5},
}
_SETTINGS: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "mse": (_EYES, {"steps": 4500, "batch_size": 256}),
    "mse-rwr": (_EYES, {"steps": 4500, "batch_size": 256, "return_temperature": 1.0}),
    "mdn": (
        {**_EYES, "n_components": 1, "min_std": 0.05, "decode": "mean"},
        {"steps": 4500, "batch_size": 256},
    ),
    "diffusion": (_EYES, {"steps": 10_000, "batch_size": 256}),
    "implicit-bc": (
        {
            **_EYES,
            "n_negatives": 8,
            "negatives": (("langevin", 1.0),),
            "inference": "langevin",
            # A last step size at which the second chain still moves: 20 steps and 20 more come as
            # near on relocate as 30 and 30 with the article's 1e-5 (.67 and .68 of the expert's
            # deviation from its mean). Little noise: with .5 instead of .1 the latter is 1.36.
            "langevin": {
                "n_samples": 32,
                "n_steps": 20,
                "step_size": 0.5,
                "final_step_size": 0.01,
                "noise": 0.1,
                "delta_clip": 0.5,
            },
        },
        {"steps": 4000, "batch_size": 64},
    ),
    "implicit-bc-rnce": (_RNCE, {"steps": 5000, "batch_size": 64}),
    "implicit-bc-rwr": (
        _RNCE,
        {"steps": 5000, "batch_size": 64, "return_temperature": 1.0},
    ),
}


# People demonstrate less alike than a policy does: on the stream `select` regression on door-human
# returned 170 with a dropout of .3, -53 with .1, and 259 and 213 with .1 and noise on the
# observations; implicit policies about as much with .2 (222 and 77) as with .3 (147 and 129).
_HUMAN: dict[str, Mapping[str, Any]] = {
    method: {"dropout": 0.2} if trained == "ibc" else {"dropout": 0.1, "observation_noise": 0.1}
    for method, trained in _TRAINED_AS.items()
}


def _recipe(task: str, method: str) -> Recipe:
    policy, train = _SETTINGS[method]
    if task.endswith("-human"):
        policy = {**policy, **_HUMAN[method]}
    # All episodes are learned from: nothing is chosen, so nothing need be held out.
    fixed = {"holdout": 0.0, "tensorboard": False}
    return Recipe(task, _TRAINED_AS[method], policy, {**fixed, **train}, selection_episodes=0)


RECIPES: dict[str, Recipe] = {
    f"{task}-{method}": _recipe(task, method) for task, method in product(TASKS, METHODS)
}
"""Every recipe by name, for `decisive train --recipe`."""


def data_root() -> Path:
    """The folder of data sets: `DECISIVE_DATA`, else `shared/data` beside the project."""
    named = os.environ.get("DECISIVE_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"


def find_data(task: str, download: bool = False) -> str:
    """Name or path of the data of a task.

    Args:
        task: a key of `TASKS`.
        download: whether Minari may fetch them.

    Raises:
        NoDataError: if they are not to be had; the message says where they were looked for.
    """
    root = data_root()
    reasons = []
    for source in TASKS[task].sources:
        if (root / source).is_file():
            return str(root / source)
        if not source.startswith("D4RL/"):
            reasons.append(f"no {source} in {root}")
            continue
        why_not = _minari(source, download)
        if why_not is None:
            return source
        reasons.append(why_not)
    raise NoDataError(f"no data for {task}: {'; '.join(reasons)}")


@cache
def _minari(dataset: str, download: bool) -> str | None:
    """Why a Minari data set is not to be had, or `None`; asked once, for many cells need it."""
    from learning.minari_store import find_minari, find_or_download

    try:
        (find_or_download if download else find_minari)(dataset)
    except ValueError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Cell(cells.Cell):
    """One training and its evaluation.

    Attributes:
        task: a key of `TASKS`.
        method: one of `METHODS`.
        seed: of the training.
    """

    suite: ClassVar[str] = "d4rl"
    task: str
    method: str
    seed: int

    @property
    def run(self) -> str:
        """Name of the training: `task/method/seed`."""
        return f"{self.task}/{self.method}/{self.seed}"

    @property
    def kept(self) -> int | None:
        """Demonstrations trained on."""
        return TASKS[self.task].episodes

    @property
    def trained_as(self) -> str:
        """Key of `agents.POLICIES`."""
        return _TRAINED_AS[self.method]

    def plan(self) -> dict[str, Any]:
        """Everything that decides the result; see the base class."""
        task, recipe = TASKS[self.task], RECIPES[f"{self.task}-{self.method}"]
        told = {
            "env": task.env,
            "options": task.options,
            "demonstrations": task.episodes,
            "policy": recipe.policy,
            "train": recipe.train,
            "selection_episodes": recipe.selection_episodes,
            "evaluation_options": {},
            "episodes": cells.EPISODES,
        }
        plain: dict[str, Any] = json.loads(json.dumps(told, default=dict))
        return plain

    def data(self, places: Places) -> str:
        """The data set, wherever it lies."""
        return find_data(self.task)

    def data_options(self, places: Places) -> dict[str, Any]:
        """The layout of the kitchen's observations, which Minari's data sets tell."""
        from learning.demonstrations import load_demonstrations

        told = load_demonstrations(self.data(places)).meta.get("env_options") or {}
        return {name: told[name] for name in ("layout",) if name in told}

    def prepare(self, places: Places, workers: int) -> None:
        """Find the data, or let Minari fetch them."""
        find_data(self.task, download=True)


def core_grid() -> list[Cell]:
    """The core form, less than four CPU-hours: one training seed of everything first."""
    return list(dict.fromkeys(_core()))


def full_grid() -> list[Cell]:
    """The core form, then all tasks and methods."""
    rest = (Cell(t, m, s) for s, t, m in product(TRAINING_SEEDS, TASKS, METHODS))
    return list(dict.fromkeys([*_core(), *rest]))


def _core() -> Iterator[Cell]:
    for seed, method, task in product(TRAINING_SEEDS, CORE_METHODS, CORE_TASKS):
        yield Cell(task, method, seed)
