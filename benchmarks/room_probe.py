"""How much of the room behind a door a world model knows: the number under the planning study.

    OMP_NUM_THREADS=1 python -m benchmarks.room_probe --model pathdreamer-houses

Some viewpoints of a house are seen; one of an unseen room, at most two hops on, is predicted. A
linear probe, fitted on houses of `train`, names the room's purpose from the predicted view; so it
does from what the memory alone shows there, and from the true view. Beside it stands the exact
posterior of the generator, which knows the plan and the purposes of all rooms that were seen,
without and with the style of the doors. Printed as JSON; houses of `val`, accuracy and nats.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from agents.vln.places import Array as Views
from agents.vln.places import GraphPlace
from decisive import provenance
from decisive.benchmarks.house_data import HouseSet
from decisive.benchmarks.house_guesses import within
from decisive.benchmarks.house_oracle import seen_rooms
from decisive.guesses import Guesser
from envs.indoor.room_types import PURPOSES, TypeModel
from world_models.pathdreamer.model import Pathdreamer, load_world_model
from world_models.pathdreamer.places import fit_room_model

Array = NDArray[np.float64]
PLACES = 4
"""Looked at in each house, at most."""
DECAY = 0.1
"""Of the probe's weights, beside the mean loss."""


@dataclass(frozen=True)
class Case:
    """One unseen viewpoint: its purpose, views of it, and what the generator's posterior says."""

    purpose: int
    views: dict[str, Views]
    posteriors: dict[str, Array]


def gather(houses: HouseSet, model: Pathdreamer, samples: int) -> list[Case]:
    """Cases of a set of houses."""
    found: list[Case] = []
    for scan in list(houses.spans)[: houses.walked]:
        house, graph = houses.house(scan), houses.graph(scan)
        data, span = houses.panoramas, houses.spans[scan]
        truth, seen = houses.views(scan), seen_rooms(house, data, span)
        place = GraphPlace(graph.positions, graph.neighbors, truth)
        types = TypeModel(house.plan, house.predictability)
        doors = {room: {"door": house.rooms[room].signs["door"]} for room in types.rooms}
        rng = np.random.default_rng(house.seed)
        guided = Guesser.of_house(data, span)
        dreams = Guesser.of_house(data, span, model, samples)
        for _ in range(PLACES):
            path = [int(rng.integers(len(graph)))]
            for _ in range(int(rng.integers(0, 3))):
                onward = [v for v in graph.neighbors[path[-1]] if v not in path]
                path += [int(rng.choice(onward))] if onward else []
            known = frozenset().union(*(seen[viewpoint] for viewpoint in path))
            rooms = house.viewpoint_rooms
            unseen = [
                v
                for v in within(graph.neighbors, path[-1], 2)
                if rooms[v] not in known and rooms[v] in types.rooms
            ]
            if not unseen:
                continue
            goal = int(rng.choice(unseen))
            told = {room: house.rooms[room].purpose for room in known if room in types.rooms}
            found.append(
                Case(
                    PURPOSES.index(house.rooms[rooms[goal]].purpose),
                    {
                        "guidance": guided(place, path, [goal]).views[:, 0],
                        "model": dreams(place, path, [goal]).views[:, 0],
                        "truth": truth[None, goal],
                    },
                    {
                        "posterior": types.posterior(rooms[goal], told, {}),
                        "posterior and doors": types.posterior(rooms[goal], told, doors),
                    },
                )
            )
    return found


def features(cases: list[Case], kind: str) -> Array:
    """`(N, 2 F)`: mean and greatest over the headings, of the mean over the samples."""
    views = np.stack([case.views[kind].mean(axis=0) for case in cases])
    return np.concatenate([views.mean(axis=1), views.max(axis=1)], axis=1).astype(float)


def quality(chances: Array, labels: NDArray[np.intp]) -> dict[str, float]:
    """Share of right names, and mean loss in nats."""
    own = np.maximum(chances[np.arange(len(labels)), labels], 1e-12)
    right = float((chances.argmax(axis=1) == labels).mean())
    return {"accuracy": round(right, 3), "nats": round(float(-np.log(own).mean()), 3)}


def main() -> None:
    """Fit the probes and print what they know."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pathdreamer-houses")
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--houses", type=int, nargs=2, default=(180, 120), help="train and val")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_world_model(arguments.model)
    train, held = (
        gather(
            HouseSet(split, 1.0, n, n, 1, arguments.height, Path("outputs"), arguments.workers),
            model,
            arguments.samples,
        )
        for split, n in zip(("train", "val"), arguments.houses, strict=True)
    )
    labels, answers = (np.array([case.purpose for case in part]) for part in (train, held))
    common = np.bincount(labels, minlength=len(PURPOSES)) / len(labels)
    results = {"most frequent room": quality(np.tile(common, (len(held), 1)), answers)}
    for kind in ("guidance", "model", "truth"):
        x, y = features(train, kind), features(held, kind)
        mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-3
        probe = fit_room_model((x - mean) / spread, labels, PURPOSES, decay=DECAY)
        results[kind] = quality(probe.probabilities((y - mean) / spread), answers)
    for kind in ("posterior", "posterior and doors"):
        chances = np.stack([case.posteriors[kind] for case in held])
        results[kind] = quality(chances, answers)
    print(
        json.dumps(
            {
                "model": arguments.model,
                "height": arguments.height,
                "cases": {"train": len(train), "val": len(held)},
                "results": results,
                "versions": provenance.versions(),
                "commit": provenance.commit(),
                "machine": provenance.machine(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
