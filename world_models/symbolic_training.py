"""Training of a symbolic world model on walks through known buildings, and its checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.checkpoint import load_module, save_module
from learning.fit import fit
from learning.train_config import TrainConfig
from world_models.symbolic_views import (
    Building,
    Questions,
    SymbolicViews,
    SymbolicViewsConfig,
    ask,
    join,
    views_loss,
)

METHOD = "symbolic-views"
_LONGEST_WALK = 6
_REACH = 3
_ASKED = 6


def draw_questions(
    buildings: Sequence[Building], walks: int, sources: int, rng: np.random.Generator
) -> tuple[Questions, Tensor]:
    """Questions as a navigator asks them: about what lies up to three hops off a random walk.

    Args:
        buildings: looked at from everywhere.
        walks: so many.
        sources: see `SymbolicViewsConfig`.
        rng: draws.

    Returns:
        Questions, and the `(n, 12, F)` true views.

    Raises:
        ValueError: if no building has two viewpoints joined by a way.
    """
    if not any(b.neighbors(v) for b in buildings for v in range(len(b.positions))):
        raise ValueError("a world model needs a building with at least one way to learn from")
    questions: list[Questions] = []
    truth: list[NDArray[np.float32]] = []
    while len(questions) < walks:
        building = buildings[int(rng.integers(len(buildings)))]
        visited = _walk(building, rng)
        near = _around(building, visited)
        if near:
            unseen = rng.permutation(near)[:_ASKED].tolist()
            questions.append(ask(building, visited, unseen, sources))
            truth.extend(building.look(viewpoint) for viewpoint in unseen)
    return join(questions), torch.from_numpy(np.stack(truth).astype(np.float32))


def train_views(
    model: SymbolicViews, buildings: Sequence[Building], config: TrainConfig
) -> dict[str, float]:
    """Train a model in place; it ends in evaluation mode.

    Args:
        model: to train.
        buildings: to learn from.
        config: budget, batch (walks a step), learning rate, seed.

    Returns:
        `steps`, `cpu_seconds` and `loss` (nats, mean over the last tenth of the steps).
    """
    rng = np.random.default_rng(config.seed)

    def draw_loss() -> Tensor:
        return views_loss(
            model, *draw_questions(buildings, config.batch_size, model.config.sources, rng)
        )

    return fit(model, draw_loss, replace(config, ema_decay=None))


def save_views(
    folder: str | Path, model: SymbolicViews, training: dict[str, Any], card: str
) -> None:
    """Write a checkpoint folder, replacing an older one in one step.

    Raises:
        CheckpointError: for weights that are not finite.
        OSError: if the folder cannot be written.
    """
    document = {
        "method": METHOD,
        "config": model.config.to_dict(),
        "spec": {},
        "training": training,
    }
    save_module(folder, document, model, card, _build)


def load_views(folder: str | Path) -> SymbolicViews:
    """Read a checkpoint folder; the model is in evaluation mode.

    Raises:
        CheckpointError: one line saying what is missing or broken, or that it holds another method.
    """
    return load_module(folder, _build, METHOD)[0]


def _build(document: Mapping[str, Any]) -> SymbolicViews:
    return SymbolicViews(SymbolicViewsConfig.from_dict(document["config"]))


def _walk(building: Building, rng: np.random.Generator) -> list[int]:
    """A random simple walk of up to six viewpoints."""
    visited = [int(rng.integers(len(building.positions)))]
    for _ in range(int(rng.integers(_LONGEST_WALK))):
        onward = [v for v in building.neighbors(visited[-1]) if v not in visited]
        if not onward:
            break
        visited.append(onward[rng.integers(len(onward))])
    return visited


def _around(building: Building, visited: Sequence[int]) -> list[int]:
    """Viewpoints within three hops of the last that were not visited."""
    found: list[int] = []
    frontier = [visited[-1]]
    for _ in range(_REACH):
        new = [n for v in frontier for n in building.neighbors(v)]
        frontier = [v for v in dict.fromkeys(new) if v not in found and v not in visited]
        found += frontier
    return found
