"""Panoramas of procedural houses on disk: what Pathdreamer is trained and scored on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from decisive.progress import Meter, progress
from decisive.workers import process_pool
from envs.indoor.house import generate_house
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

    Args:
        folder: holds such sets, each under a name that says what it is.
        split: of the houses.
        seeds: of the houses.
        predictability: of the houses.
        size: height and width.
        workers: processes that render.
    """
    name = f"{split}-{seeds.start}-{seeds.stop}-p{round(100 * predictability):03d}-{size[0]}"
    place = folder / name
    if not place.exists():
        draw = partial(draw_house, split=split, predictability=predictability, size=size)
        with (
            progress(f"rendering {len(seeds)} houses", len(seeds)) as meter,
            process_pool(workers) as pool,
        ):
            write_panoramas(place, _counted(pool.map(draw, seeds), meter), size)
    return open_panoramas(place)


def draw_house(seed: int, split: str, predictability: float, size: tuple[int, int]) -> House:
    """All panoramas of a house."""
    house = generate_house(seed, split, predictability)
    simulator = ProceduralSimulator(house)
    seen = tuple(simulator.observe(name, size) for name in house.graph.viewpoints)
    simulator.close()
    return House(house.name, seen, tuple(tuple(row) for row in house.graph.neighbors))


def _counted(houses: Iterator[House], meter: Meter) -> Iterator[House]:
    for house in houses:
        meter.advance()
        yield house
