"""Synthetic instructions that tell where to end, and nothing of the way.

As in REVERIE (Qi et al. 2020, "REVERIE: Remote Embodied Visual Referring Expression in Real Indoor
Environments"), whose people say "go to the bathroom and ..." where Room-to-Room's tell every turn.
A navigator that does not see the goal has to guess which way leads there.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from envs.indoor.house import House
from envs.indoor.instructions import Fact, gather_facts, sample_paths

_BY = (
    "Go to the {room} and stop by the {noun}.",
    "Find the {room}, and wait near the {noun}.",
    "You are needed in the {room}, next to the {noun}.",
)
_IN = (
    "Go to the {room} and stop there.",
    "Find the {room}, and wait in it.",
    "You are needed in the {room}.",
)


def goal_entries(
    houses: Iterable[House], seed: int = 0, paths: int = 10, count: int = 3
) -> list[dict[str, Any]]:
    """Entries in Room-to-Room's format, told by their goals.

    Paths are as in `envs.indoor.instructions`, but end in a room that is the only one of its
    purpose in the house, and begin in another: what is told is then enough to know the room.

    Args:
        houses: where; each is a scan.
        seed: of paths, headings and words.
        paths: of each house, at most.
        count: instructions of each path.

    Returns:
        As `envs.indoor.instructions.r2r_entries`.
    """
    entries: list[dict[str, Any]] = []
    for house in houses:
        rng = np.random.default_rng((seed, house.palette, house.seed, 1))
        purposes = [room.purpose for room in house.rooms]
        alone = {k for k, purpose in enumerate(purposes) if purposes.count(purpose) == 1}
        every = sample_paths(house, rng, len(house.graph.viewpoints) ** 2)
        fit = [
            path
            for path in every
            if house.room_of(path[-1]) in alone
            and house.room_of(path[0]) != house.room_of(path[-1])
        ]
        for path in fit[:paths]:
            stop = gather_facts(house, path)[-1]
            entries.append(
                {
                    "distance": round(house.graph.distance(path[0], path[-1]), 2),
                    "scan": house.name,
                    "path_id": len(entries),
                    "path": list(path),
                    "heading": round(float(rng.uniform(0.0, 2.0 * math.pi)), 3),
                    "instructions": _told(stop, rng, count),
                    "synthetic": True,
                }
            )
    return entries


def _told(stop: Fact, rng: np.random.Generator, count: int) -> list[str]:
    """Ways of telling a goal, each another one where there are enough."""
    manners = _BY if stop.noun else _IN
    order = rng.permutation(len(manners))
    return [
        manners[order[k % len(manners)]].format(room=stop.room, noun=stop.noun)
        for k in range(count)
    ]
