"""Panoramas of procedural houses on disk: what Pathdreamer is trained and scored on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from decisive.progress import Meter, progress
from decisive.workers import process_pool
from envs.indoor.house import GENERATOR, generate_house
from envs.indoor.procedural import ProceduralSimulator
from world_models.pathdreamer.panoramas import House, PanoramaSet, open_panoramas, write_panoramas


def panoramas_of(
    folder: Path,
    split: str,
    seeds: range,
    predictability: float,
    size: tuple[int, int],
    workers: int = 1,
) -> PanoramaSet:
    """Panoramas from every viewpoint of some houses; rendered if they are not there.

    Under `torchrun` the first process renders, and the others wait for it.

    Args:
        folder: holds such sets, each under a name that says what it is.
        split: of the houses.
        seeds: of the houses.
        predictability: of the houses, in whole percent, as in their names.
        size: height and width.
        workers: processes that render.

    Raises:
        ValueError: for a predictability between two percents.
    """
    place = folder / f"{set_name(split, seeds, predictability)}-{size[0]}"
    if os.environ.get("RANK", "0") != "0":
        while not place.exists():
            time.sleep(0.5)
    if not place.exists():
        draw = partial(draw_house, split=split, predictability=predictability, size=size)
        with (
            progress(f"rendering {len(seeds)} houses", len(seeds)) as meter,
            process_pool(workers) as pool,
        ):
            write_panoramas(place, _counted(pool.map(draw, seeds), meter), size)
    return open_panoramas(place)


def set_name(split: str, seeds: range, predictability: float) -> str:
    """Name of what is kept of some houses; those of another generator have another one.

    Raises:
        ValueError: for a predictability between two percents: the houses would share their names.
    """
    percent = round(100 * predictability)
    if abs(100 * predictability - percent) > 1e-9:
        raise ValueError(f"predictability must be in whole percent, got {predictability}")
    return f"g{GENERATOR}-{split}-{seeds.start}-{seeds.stop}-p{percent:03d}"


def draw_house(seed: int, split: str, predictability: float, size: tuple[int, int]) -> House:
    """All panoramas of a house."""
    house = generate_house(seed, split, predictability)
    simulator = ProceduralSimulator(house)
    seen = tuple(simulator.observe(name, size) for name in house.graph.viewpoints)
    simulator.close()
    rooms = tuple(house.rooms[room].purpose for room in house.viewpoint_rooms)
    return House(house.name, seen, tuple(tuple(row) for row in house.graph.neighbors), rooms)


def _counted(houses: Iterator[House], meter: Meter) -> Iterator[House]:
    for house in houses:
        meter.advance()
        yield house
