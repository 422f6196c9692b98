"""The simple bodies of kitchens, bathrooms, lamps, gyms and what hangs on walls.

As in `envs.indoor.furniture_bodies`: every function takes depth, width and height in metres.
"""

from collections.abc import Iterator

import numpy as np

from envs.indoor.furniture_bodies import Part, legs


def counter(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a counter."""
    yield Part("box", (-0.03, 0, 0.05), (d - 0.08, w, 0.1), "dark", "cabinet")
    yield Part("box", (0, 0, (h - 0.04 + 0.1) / 2), (d - 0.04, w, h - 0.14), "kitchen", "cabinet")
    yield Part("box", (0, 0, h - 0.02), (d, w, 0.04), "stone")
    doors = max(1, round(w / 0.5))
    for k in range(doors):
        y = (k - (doors - 1) / 2) * w / doors
        at = (d / 2 - 0.01, y, (h + 0.06) / 2)
        yield Part("box", at, (0.02, w / doors - 0.02, h - 0.2), "kitchen2", "cabinet")
        yield Part("box", (d / 2 + 0.01, y, h - 0.17), (0.02, 0.14, 0.02), "metal", "cabinet")


def kitchen_sink(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a kitchen sink."""
    yield from counter(d, w, h)
    yield Part("box", (0.02, 0, h + 0.004), (d * 0.7, min(w - 0.1, 0.7), 0.02), "metal", "sink")
    yield Part("box", (0.02, 0, h + 0.016), (d * 0.56, min(w - 0.2, 0.58), 0.01), "dark", "sink")
    yield Part("cylinder", (-d / 2 + 0.07, 0, h + 0.15), (0.03, 0.03, 0.3), "metal", "sink")
    yield Part("box", (-d / 2 + 0.15, 0, h + 0.29), (0.18, 0.03, 0.03), "metal", "sink")


def stove(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a stove."""
    yield Part("box", (0, 0, h / 2), (d, w, h), "steel")
    yield Part("box", (d / 2, 0, h * 0.42), (0.02, w - 0.12, h * 0.5), "screen")
    yield Part("box", (d / 2 + 0.03, 0, h * 0.74), (0.03, w - 0.12, 0.03), "metal")
    yield Part("box", (0, 0, h + 0.006), (d - 0.06, w - 0.04, 0.012), "dark")
    for x in (-0.13, 0.13):
        for y in (-0.15, 0.15):
            yield Part("cylinder", (x, y, h + 0.018), (0.2, 0.2, 0.015), "metal")
    yield Part("box", (-0.12, 0, 1.72), (d * 0.6, w, 0.16), "steel")
    yield Part("box", (-0.18, 0, 2.05), (0.24, 0.3, 0.5), "steel")


def fridge(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a fridge."""
    yield Part("box", (-0.02, 0, h / 2), (d - 0.04, w, h), "steel")
    yield Part("round", (d / 2 - 0.03, 0, h * 0.66), (0.06, w - 0.01, h * 0.64), "steel")
    yield Part("round", (d / 2 - 0.03, 0, h * 0.17), (0.06, w - 0.01, h * 0.32), "steel")
    for z, long in ((h * 0.6, 0.5), (h * 0.26, 0.2)):
        yield Part("cylinder", (d / 2 + 0.03, w / 2 - 0.07, z), (0.03, 0.03, long), "metal")


def upper_cabinets(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of upper cabinets."""
    yield Part("box", (0, 0, h / 2), (d, w, h), "kitchen")
    doors = max(1, round(w / 0.5))
    for k in range(doors):
        y = (k - (doors - 1) / 2) * w / doors
        yield Part("box", (d / 2, y, h / 2), (0.03, w / doors - 0.02, h - 0.04), "kitchen2")
        yield Part("box", (d / 2 + 0.02, y, 0.08), (0.02, 0.12, 0.02), "metal")


def island(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of an island."""
    yield Part(
        "box", (-0.05, 0, (h - 0.04) / 2), (d - 0.24, w - 0.1, h - 0.04), "kitchen2", "cabinet"
    )
    yield Part("box", (0, 0, h - 0.02), (d, w, 0.04), "stone")
    for k in range(3):
        at = (0.0, (k - 1) * 0.09, h + 0.05)
        yield Part("ball", at, (0.09, 0.09, 0.09), "accent", "objects")


def toilet(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a toilet."""
    yield Part("round", (-d / 2 + 0.1, 0, h - 0.2), (0.2, w, 0.4), "ceramic")
    yield Part("ball", (0.08, 0, 0.26), (d - 0.22, w - 0.02, 0.34), "ceramic")
    yield Part("cylinder", (0.02, 0, 0.1), (0.26, 0.24, 0.2), "ceramic")
    yield Part("cylinder", (0.08, 0, 0.41), (d - 0.22, w, 0.05), "ceramic")
    yield Part("cylinder", (-d / 2 + 0.1, 0, h + 0.01), (0.05, 0.05, 0.02), "metal")


def vanity(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a vanity."""
    yield Part("box", (0, 0, (h - 0.1) / 2), (d - 0.04, w - 0.04, h - 0.1), "wood2", "cabinet")
    yield Part("box", (0, 0, h - 0.07), (d, w, 0.05), "stone")
    yield Part("ball", (0.02, 0, h - 0.01), (d * 0.8, min(w * 0.8, 0.55), 0.16), "ceramic")
    yield Part("cylinder", (-d / 2 + 0.06, 0, h + 0.08), (0.03, 0.03, 0.24), "metal")
    yield Part("box", (-d / 2 + 0.12, 0, h + 0.19), (0.14, 0.03, 0.03), "metal")


def bathtub(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a bathtub."""
    for side in (-1, 1):
        yield Part("round", (side * (d / 2 - 0.05), 0, h / 2), (0.1, w, h), "ceramic")
        yield Part("round", (0, side * (w / 2 - 0.07), h / 2), (d, 0.14, h), "ceramic")
    yield Part("box", (0, 0, 0.12), (d - 0.12, w - 0.2, 0.2), "ceramic")
    yield Part("box", (0, 0, h - 0.18), (d - 0.16, w - 0.24, 0.02), "water")
    yield Part("cylinder", (-0.0, -w / 2 + 0.09, h + 0.12), (0.03, 0.03, 0.24), "metal")
    yield Part("box", (0, -w / 2 + 0.17, h + 0.23), (0.03, 0.18, 0.03), "metal")


def shower(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a shower."""
    yield Part("box", (0, 0, 0.05), (d, w, 0.1), "ceramic")
    yield Part("box", (-d / 2 + 0.01, 0, h / 2), (0.02, w, h), "sky tiles")
    for side in (-1, 1):
        yield Part("box", (0, side * (w / 2 - 0.01), h / 2), (d, 0.02, h), "glass")
    yield Part("box", (d / 2 - 0.02, 0, h - 0.02), (0.04, w, 0.04), "metal")
    yield Part("cylinder", (-d / 2 + 0.06, 0, 1.5), (0.03, 0.03, 1.0), "metal")
    yield Part("cylinder", (-d / 2 + 0.18, 0, 1.98), (0.24, 0.24, 0.03), "metal")
    yield Part("box", (-d / 2 + 0.1, 0, 1.99), (0.12, 0.03, 0.03), "metal")


def washer(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a washer."""
    yield Part("round", (0, 0, h / 2), (d, w, h), "white")
    yield Part("ball", (d / 2, 0, h * 0.46), (0.08, w * 0.62, w * 0.62), "metal")
    yield Part("ball", (d / 2 + 0.02, 0, h * 0.46), (0.08, w * 0.46, w * 0.46), "screen")
    yield Part("box", (d / 2 - 0.01, 0, h - 0.1), (0.03, w - 0.08, 0.09), "steel")


def basket(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a basket."""
    yield Part("cone", (0, 0, h / 2), (d, w, h), "wood2", "objects", (0, np.pi))
    for k in range(3):
        at = (0.06 * np.cos(k * 2.1), 0.06 * np.sin(k * 2.1), h + 0.02)
        yield Part("ball", at, (0.24, 0.2, 0.14), ("accent", "linen", "fabric")[k])


def plant(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a plant."""
    pot = min(0.36, 0.32 * h)
    yield Part("cone", (0, 0, pot / 2), (d * 0.6, w * 0.6, pot), "pot", None, (0, np.pi))
    yield Part("cylinder", (0, 0, (pot + 0.6 * h) / 2), (0.03, 0.03, 0.6 * h - pot + 0.1), "wood")
    for k in range(22):
        turn, rise = 2.4 * k, (k % 11) / 10
        reach = (0.30 - 0.14 * rise) * min(d, w) * 2
        low = pot + (h - pot) * (0.15 + 0.72 * rise)
        at = (reach * 0.55 * np.cos(turn), reach * 0.55 * np.sin(turn), low + 0.04)
        yield Part("ball", at, (reach, 0.3 * reach + 0.03, 0.03), "leaf", None, (turn, -0.55))


def fireplace(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a fireplace."""
    for side in (-1, 1):
        yield Part("box", (0, side * (w / 2 - 0.15), h / 2), (d, 0.3, h), "brick")
    yield Part("box", (0, 0, h - 0.17), (d, w, 0.34), "brick")
    yield Part("box", (0.03, 0, h + 0.03), (d + 0.12, w + 0.14, 0.07), "wood")
    yield Part("box", (-d / 2 + 0.03, 0, h / 2), (0.04, w - 0.5, h), "dark")
    yield Part("box", (0.05, 0, 0.03), (d + 0.2, w, 0.06), "stone")
    for k in range(3):
        at = (0.0, (k - 1) * 0.06, 0.12 + 0.05 * (k == 1))
        yield Part("box", at, (0.08, w * 0.42, 0.08), "wood", None, ((k - 1) * 0.2, 0))
    yield Part("ball", (0, 0, 0.26), (0.12, w * 0.3, 0.26), "fire")


def floor_lamp(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a floor lamp."""
    yield Part("cylinder", (0, 0, 0.015), (d * 0.8, w * 0.8, 0.03), "brass")
    yield Part("cylinder", (0, 0, h / 2), (0.03, 0.03, h - 0.1), "brass")
    yield Part("cone", (0, 0, h - 0.14), (d, w, 0.28), "shade")


def ceiling_lamp(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a ceiling lamp."""
    yield Part("cylinder", (0, 0, h - 0.015), (d * 0.5, w * 0.5, 0.03), "white")
    yield Part("ball", (0, 0, h / 2), (d, w, h), "lamp")


def pendant(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a pendant."""
    yield Part("cylinder", (0, 0, h / 2 + 0.1), (0.02, 0.02, h - 0.2), "dark")
    yield Part("cone", (0, 0, 0.13), (d, w, 0.26), "shade")
    yield Part("ball", (0, 0, 0.04), (0.12, 0.12, 0.12), "lamp")


def picture(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a picture."""
    yield Part("box", (0, 0, h / 2), (d, w, h), "frame")
    yield Part("box", (d / 2, 0, h / 2), (0.01, w - 0.07, h - 0.07), "art")


def board(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a board."""
    yield Part("box", (0, 0, h / 2), (d, w, h), "metal")
    yield Part("box", (d / 2, 0, h / 2), (0.01, w - 0.06, h - 0.06), "notes")


def mirror(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a mirror."""
    yield Part("box", (0, 0, h / 2), (d, w, h), "wood2")
    yield Part("box", (d / 2, 0, h / 2), (0.01, w - 0.06, h - 0.06), "mirror")


def towel(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a towel."""
    yield Part("box", (0, 0, h), (0.03, w + 0.12, 0.03), "metal")
    yield Part("round", (0, 0, h / 2), (d, w, h), "towel")


def curtain(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a curtain."""
    yield Part("box", (0, 0, h - 0.02), (0.04, w, 0.04), "brass")
    for side in (-1, 1):
        for k in range(5):
            y = side * (w / 2 - 0.05 - 0.075 * k)
            size = (d * (0.8, 1.2)[k % 2], 0.085, h - 0.06)
            yield Part("cylinder", (0, y, h / 2 - 0.02), size, "curtain")


def blinds(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of blinds."""
    yield Part("box", (0, 0, h - 0.04), (d, w, 0.08), "white")
    for k in range(int(h * 0.45 / 0.06)):
        yield Part("box", (0, 0, h - 0.11 - 0.06 * k), (d, w, 0.03), "white", None, (0, 0.5))


def rug(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a rug."""
    yield Part("box", (0, 0, h / 2), (d, w, h), "rug")


def front_door(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a front door."""
    yield Part("box", (0, 0, h / 2), (d, w, h), "front door")
    for z in (h * 0.27, h * 0.72):
        yield Part("box", (d / 2, 0, z), (0.03, w * 0.66, h * 0.36), "front door")
    yield Part("ball", (d / 2 + 0.04, w * 0.38, 1.0), (0.07, 0.07, 0.07), "brass")
    for side in (-1, 1):
        yield Part(
            "box", (0, side * (w / 2 + 0.04), h / 2 + 0.04), (d + 0.03, 0.08, h + 0.08), "white"
        )
    yield Part("box", (0, 0, h + 0.04), (d + 0.03, w + 0.16, 0.08), "white")


def treadmill(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a treadmill."""
    yield Part("round", (0, 0, 0.12), (d, w, 0.2), "dark")
    yield Part("box", (0.1, 0, 0.225), (d - 0.3, w - 0.2, 0.02), "rubber mat")
    for side in (-1, 1):
        at = (-d / 2 + 0.2, side * (w / 2 - 0.05), h / 2 + 0.1)
        yield Part("box", at, (0.07, 0.06, h - 0.2), "metal", None, (0, 0.12))
        yield Part(
            "cylinder", (-d / 2 + 0.4, side * (w / 2 - 0.05), 0.95), (0.5, 0.05, 0.05), "dark"
        )
    yield Part("round", (-d / 2 + 0.2, 0, h - 0.1), (0.1, w, 0.3), "dark")
    yield Part("box", (-d / 2 + 0.26, 0, h - 0.1), (0.01, w * 0.5, 0.2), "screen")


def weights(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of weights."""
    yield from legs(d, w, h, 0.06, "dark")
    for k in range(3):
        z = 0.18 + (h - 0.25) * k / 2
        yield Part("box", (0, 0, z), (d, w, 0.04), "metal")
        for j in range(int(w / 0.26)):
            y = -w / 2 + 0.17 + 0.26 * j
            for x in (-0.1, 0.1):
                yield Part("ball", (x, y, z + 0.08), (0.13, 0.15, 0.14), "dark")
            yield Part("box", (0, y, z + 0.08), (0.2, 0.035, 0.035), "metal")


def bench(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a bench."""
    yield from legs(d - 0.04, w - 0.06, h - 0.08, 0.05, "wood")
    yield Part("round", (0, 0, h - 0.06), (d, w, 0.12), "fabric")


def gym_bench(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a gym bench."""
    yield from legs(d - 0.1, w - 0.06, h - 0.1, 0.06, "metal")
    yield Part("round", (0, 0, h - 0.06), (d, w, 0.12), "dark")


def column(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a column."""
    yield Part("box", (0, 0, 0.1), (d, w, 0.2), "white")
    yield Part("cylinder", (0, 0, h / 2), (d * 0.75, w * 0.75, h), "white")
    yield Part("box", (0, 0, h - 0.08), (d, w, 0.16), "white")
