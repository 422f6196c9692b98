"""Fits the room model of `decisive plan`: which room a view is of, by the classes in it.

The shipped one, `world_models/pathdreamer/rooms.json`, was made by

    python -m decisive.room_fitting --houses 150 --model pathdreamer-houses

from real views of train houses, and from views that the world model dreamed of the same places:
a model that was fitted on real views alone is too sure of blurred ones.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray

from decisive import provenance
from decisive.arguments import OptionalText, check_writable, parse
from decisive.progress import progress
from decisive.scenes import HouseScene
from decisive.search import expect, look, reach, true_features
from envs.indoor.house import GENERATOR, house_name
from envs.indoor.room_types import HALLWAY, PURPOSES
from world_models.pathdreamer.model import Pathdreamer, load_world_model
from world_models.pathdreamer.places import RoomModel, fit_room_model

Array = NDArray[np.float64]

ROOMS = (*PURPOSES, HALLWAY)


@dataclass(frozen=True)
class Arguments:
    """Fit the room model of `decisive plan` on procedural houses.

    Examples:
      python -m decisive.room_fitting --houses 150 --model pathdreamer-houses
    """

    houses: int = 150
    """Houses of the split train to fit on."""
    held_out: int = 30
    """Houses of the split val to measure on."""
    model: OptionalText = None
    """World model whose dreams are fitted on too; real views only if not given."""
    horizon: int = 3
    """How many steps ahead it dreams."""
    height: int = 64
    """Height of the panoramas, which are twice as wide."""
    seed: int = 0
    """Seed of where one starts, and of the dreams."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")] = "world_models/pathdreamer/rooms.json"
    """File to write."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        for name in ("houses", "held_out", "horizon", "height"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def main(argv: Sequence[str]) -> int:
    """Fit, measure, write."""
    arguments = parse(Arguments, argv, "room_fitting")
    out = check_writable(arguments.out)
    model = None if arguments.model is None else load_world_model(arguments.model)
    train = gather(arguments, "train", arguments.houses, model)
    held_out = gather(arguments, "val", arguments.held_out, model)
    features = np.concatenate([features for features, _ in train.values()])
    labels = np.concatenate([labels for _, labels in train.values()])
    facts: dict[str, object] = {
        "command": f"python -m decisive.room_fitting {' '.join(argv)}".strip(),
        "commit": provenance.commit(),
        "generator": GENERATOR,
        "views": len(labels),
    }
    fitted = fit_room_model(features, labels, ROOMS)
    for kind, (real_features, real_labels) in held_out.items():
        facts[kind] = quality(fitted, real_features, real_labels)
        print(f"{kind} views of {arguments.held_out} held-out houses: {facts[kind]}")
    RoomModel(fitted.rooms, fitted.weights, fitted.bias, facts).write(out)
    print(out)
    return 0


def gather(
    arguments: Arguments, split: str, houses: int, model: Pathdreamer | None
) -> dict[str, tuple[Array, NDArray[np.intp]]]:
    """Features and rooms of the views of houses: `real` ones, and `dreamed` ones with a model."""
    found: dict[str, list[tuple[Array, NDArray[np.intp]]]] = {"real": []}
    size = (arguments.height, 2 * arguments.height)
    with progress(f"{split} houses", houses) as meter:
        for seed in range(houses):
            scene = HouseScene(house_name(seed, split))
            house, graph = scene.house, scene.graph
            rooms = np.array([ROOMS.index(house.rooms[r].purpose) for r in house.viewpoint_rooms])
            views = look(scene, range(len(graph)), size)
            found["real"].append((true_features(views), rooms))
            if model is not None:
                rng = np.random.default_rng((arguments.seed, seed))
                start = int(rng.integers(len(graph)))
                waves = reach(graph, [start], arguments.horizon)
                dreamed = expect(model, graph, [views[start]], waves, 1, seed)
                order = [index for wave in waves for index in wave]
                found.setdefault("dreamed", []).append((dreamed.features[0], rooms[order]))
            scene.close()
            meter.advance()
    return {
        kind: (np.concatenate([f for f, _ in rows]), np.concatenate([r for _, r in rows]))
        for kind, rows in found.items()
    }


def quality(model: RoomModel, features: Array, labels: NDArray[np.intp]) -> dict[str, float]:
    """Share of views whose most probable room is right, and mean log loss in nats."""
    chance = model.probabilities(features)
    right = float((chance.argmax(axis=1) == labels).mean())
    loss = float(-np.log(np.maximum(chance[np.arange(len(labels)), labels], 1e-12)).mean())
    return {"accuracy": round(right, 4), "log_loss": round(loss, 4)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
