"""The simple bodies that wooden and upholstered furniture is made of, one function a kind.

Every function takes depth, width and height in metres and yields `Part`s. Frame of a piece: origin
on the floor below its middle, x to its front (away from the wall it stands against), y to its
left, z up.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Vector = tuple[float, float, float]


class Part(NamedTuple):
    """A body of a piece of furniture.

    Attributes:
        shape: "box", "round" (box with rounded edges), "cylinder" (upright), "ball" or "cone"
            (upright, narrower above).
        center: in the frame of the piece, metres.
        size: along x, y and z, metres.
        material: name in `envs.indoor.textures`.
        category: name in `envs.indoor.categories`; None is that of the piece.
        turn: turn about z, then tilt about the turned y axis, radians.
    """

    shape: str
    center: Vector
    size: Vector
    material: str
    category: str | None = None
    turn: tuple[float, float] = (0.0, 0.0)


Builder = Callable[[float, float, float], Iterator[Part]]


def legs(d: float, w: float, h: float, thick: float, material: str) -> Iterator[Part]:
    """Four legs at the corners."""
    for x in (-1, 1):
        for y in (-1, 1):
            at = (x * (d / 2 - thick), y * (w / 2 - thick), h / 2)
            yield Part("box", at, (thick, thick, h), material)


def bed(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a bed."""
    yield Part("box", (-d / 2 + 0.03, 0, h / 2), (0.06, w, h), "wood")
    yield Part("box", (0, 0, 0.17), (d, w, 0.2), "wood")
    yield Part("round", (0.02, 0, 0.38), (d - 0.06, w - 0.06, 0.26), "linen")
    yield Part("round", (0.14 * d, 0, 0.42), (d * 0.7, w + 0.02, 0.26), "fabric")
    count = 2 if w > 1.3 else 1
    for k in range(count):
        y = (k - (count - 1) / 2) * w / 2
        size = (0.38, w / count * 0.82, 0.17)
        yield Part("round", (-d / 2 + 0.32, y, 0.58), size, "linen", "cushion", (0, -0.25))
    yield Part("round", (-d / 2 + 0.6, 0, 0.6), (0.2, 0.42, 0.3), "accent", "cushion", (0, -0.5))


def sofa(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a sofa."""
    yield Part("box", (0, 0, 0.1), (d - 0.06, w - 0.06, 0.12), "dark")
    yield Part("round", (0.02, 0, 0.28), (d - 0.04, w - 0.04, 0.26), "fabric")
    yield Part("round", (-d / 2 + 0.13, 0, h / 2 + 0.06), (0.26, w, h - 0.12), "fabric")
    for side in (-1, 1):
        yield Part("round", (0, side * (w / 2 - 0.1), 0.34), (d, 0.2, 0.5), "fabric")
    seats = 3 if w > 1.7 else 2
    for k in range(seats):
        y = (k - (seats - 1) / 2) * (w - 0.42) / seats
        size = (d - 0.3, (w - 0.42) / seats - 0.01, 0.18)
        yield Part("round", (0.1, y, 0.46), size, "fabric")
    for side, material in ((-1, "accent"), (1, "linen")):
        at = (-d / 2 + 0.36, side * (w / 2 - 0.42), 0.66)
        yield Part("round", at, (0.16, 0.42, 0.42), material, "cushion", (side * 0.2, -0.3))


def armchair(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of an armchair."""
    yield from legs(d - 0.1, w - 0.1, 0.14, 0.05, "wood")
    yield Part("round", (0.03, 0, 0.33), (d - 0.06, w - 0.2, 0.26), "fabric")
    yield Part("round", (-d / 2 + 0.12, 0, h / 2 + 0.1), (0.22, w - 0.1, h - 0.2), "fabric")
    for side in (-1, 1):
        yield Part("round", (0, side * (w / 2 - 0.08), 0.42), (d - 0.06, 0.16, 0.4), "fabric")


def chair(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a chair."""
    yield from legs(d, w, 0.44, 0.04, "wood")
    yield Part("round", (0, 0, 0.46), (d, w, 0.07), "seat")
    for side in (-1, 1):
        at = (-d / 2 + 0.02, side * (w / 2 - 0.03), (h + 0.44) / 2)
        yield Part("box", at, (0.04, 0.04, h - 0.44), "wood")
    for z in (h - 0.08, h - 0.24):
        yield Part("box", (-d / 2 + 0.02, 0, z), (0.025, w - 0.06, 0.1), "wood")


def desk_chair(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a desk chair."""
    for turn in range(5):
        yield Part("box", (0, 0, 0.06), (d, 0.05, 0.04), "dark", None, (turn * 0.628, 0))
    yield Part("cylinder", (0, 0, 0.25), (0.06, 0.06, 0.36), "metal")
    yield Part("round", (0, 0, 0.47), (d * 0.85, w * 0.85, 0.1), "dark")
    yield Part("round", (-d / 2 + 0.05, 0, h - 0.25), (0.08, w * 0.75, 0.5), "dark")


def stool(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a stool."""
    yield from legs(d * 0.85, w * 0.85, h - 0.05, 0.035, "metal")
    yield Part("cylinder", (0, 0, h - 0.03), (d, w, 0.06), "seat")


def table(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a table."""
    yield Part("box", (0, 0, h - 0.02), (d, w, 0.04), "wood")
    yield Part("box", (0, 0, h - 0.08), (d - 0.14, w - 0.14, 0.08), "wood")
    yield from legs(d - 0.06, w - 0.06, h - 0.04, 0.07, "wood")


def dining_table(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a dining table."""
    yield from table(d, w, h)
    yield Part("cylinder", (0, 0, h + 0.07), (0.14, 0.14, 0.14), "ceramic", "objects")
    for k in range(7):
        at = (0.05 * np.cos(k * 0.9), 0.05 * np.sin(k * 0.9), h + 0.24)
        yield Part("ball", at, (0.08, 0.08, 0.1), "accent", "plant")
    for side in (-1, 1):
        for y in np.arange(-w / 2 + 0.4, w / 2 - 0.3, 0.6):
            at = (side * (d / 2 - 0.2), float(y), h + 0.01)
            yield Part("cylinder", at, (0.24, 0.24, 0.02), "ceramic", "objects")


def coffee_table(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a coffee table."""
    yield Part("round", (0, 0, h - 0.03), (d, w, 0.06), "wood")
    yield Part("box", (0, 0, 0.12), (d - 0.12, w - 0.12, 0.03), "wood")
    yield from legs(d - 0.06, w - 0.06, h - 0.04, 0.05, "metal")
    yield Part("box", (0.05, w * 0.2, h + 0.02), (0.2, 0.28, 0.04), "accent", "objects", (0.3, 0))


def desk(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a desk."""
    yield Part("box", (0, 0, h - 0.02), (d, w, 0.04), "wood")
    for side in (-1, 1):
        yield Part(
            "box", (0, side * (w / 2 - 0.18), h / 2 - 0.02), (d - 0.06, 0.34, h - 0.04), "white"
        )
        for k in range(3):
            at = (d / 2 - 0.025, side * (w / 2 - 0.18), 0.14 + 0.22 * k)
            yield Part("cylinder", at, (0.03, 0.12, 0.02), "metal")
    yield Part("box", (-0.1, 0, h + 0.27), (0.04, 0.62, 0.36), "dark", "tv_monitor")
    yield Part("box", (-0.075, 0, h + 0.27), (0.012, 0.58, 0.32), "screen", "tv_monitor")
    yield Part("cylinder", (-0.12, 0, h + 0.05), (0.08, 0.08, 0.1), "metal", "tv_monitor")
    yield Part("box", (0.14, 0, h + 0.01), (0.14, 0.42, 0.02), "dark", "objects")
    yield from lamp_on(h, (-0.12, w / 2 - 0.16))


def lamp_on(z: float, at: tuple[float, float]) -> Iterator[Part]:
    """A table lamp on a top at height `z`."""
    yield Part("cylinder", (*at, z + 0.01), (0.14, 0.14, 0.02), "brass", "lighting")
    yield Part("cylinder", (*at, z + 0.14), (0.03, 0.03, 0.26), "brass", "lighting")
    yield Part("cone", (*at, z + 0.34), (0.26, 0.26, 0.2), "shade", "lighting")


def chest(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a chest."""
    yield Part("box", (0, 0, h / 2), (d, w, h), "wood")
    yield Part("box", (0, 0, h - 0.015), (d + 0.03, w + 0.03, 0.03), "wood")
    rows = max(2, round(h / 0.26))
    for k in range(rows):
        z = 0.06 + (h - 0.1) * (k + 0.5) / rows
        yield Part("box", (d / 2 + 0.005, 0, z), (0.02, w - 0.08, (h - 0.1) / rows - 0.03), "wood2")
        for side in (-1, 1):
            yield Part("ball", (d / 2 + 0.03, side * w / 4, z), (0.04, 0.04, 0.04), "brass")


def nightstand(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a nightstand."""
    yield from chest(d, w, h)
    yield from lamp_on(h, (-0.02, 0.0))


def wardrobe(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a wardrobe."""
    yield Part("box", (0, 0, h / 2), (d, w, h), "wood")
    doors = max(2, round(w / 0.5))
    for k in range(doors):
        y = (k - (doors - 1) / 2) * w / doors
        yield Part("box", (d / 2 + 0.01, y, h / 2), (0.02, w / doors - 0.03, h - 0.12), "wood2")
        at = (d / 2 + 0.03, y + (0.4 - 0.8 * (k % 2)) * w / doors, h * 0.5)
        yield Part("cylinder", at, (0.025, 0.025, 0.2), "metal")


def sideboard(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a sideboard."""
    yield from legs(d, w, 0.15, 0.05, "wood")
    yield Part("box", (0, 0, (h + 0.15) / 2), (d, w, h - 0.15), "wood")
    for k in range(3):
        y = (k - 1) * w / 3
        yield Part("box", (d / 2 + 0.01, y, (h + 0.15) / 2), (0.02, w / 3 - 0.03, h - 0.2), "wood2")
    yield Part("cylinder", (0, w / 4, h + 0.12), (0.12, 0.12, 0.24), "ceramic", "objects")
    yield Part("ball", (0, -w / 4, h + 0.08), (0.18, 0.18, 0.16), "accent", "objects")


def tv_stand(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a tv stand."""
    yield Part("box", (0, 0, 0.25), (d, w, 0.34), "wood2")
    yield Part("box", (d / 2, 0, 0.25), (0.02, w - 0.1, 0.26), "dark")
    yield Part("box", (-0.05, 0, 0.46), (0.2, 0.4, 0.04), "dark", "tv_monitor")
    wide = min(w - 0.1, 1.35)
    yield Part(
        "box", (-0.05, 0, 0.5 + wide * 0.29), (0.05, wide, wide * 0.57), "dark", "tv_monitor"
    )
    size = (0.012, wide - 0.05, wide * 0.57 - 0.05)
    yield Part("box", (-0.02, 0, 0.5 + wide * 0.29), size, "screen", "tv_monitor")


def bookcase(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a bookcase."""
    yield Part("box", (-d / 2 + 0.01, 0, h / 2), (0.02, w, h), "wood")
    for side in (-1, 1):
        yield Part("box", (0, side * (w / 2 - 0.015), h / 2), (d, 0.03, h), "wood")
    shelves = max(2, round(h / 0.4))
    for k in range(shelves + 1):
        yield Part("box", (0, 0, 0.04 + (h - 0.06) * k / shelves), (d, w - 0.04, 0.03), "wood")
    for k in range(shelves):
        low = 0.055 + (h - 0.06) * k / shelves
        fill = (0.85, 0.6, 0.75, 0.5, 0.9)[k % 5] * (w - 0.08)
        tall = 0.24 + 0.03 * (k % 3)
        y = (w - 0.08 - fill) / 2 * (1 if k % 2 else -1)
        yield Part("box", (-0.02, y, low + tall / 2), (d - 0.1, fill, tall), "books", "objects")


def rack(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a rack."""
    yield from legs(d, w, h, 0.04, "metal")
    shelves = max(2, round(h / 0.45))
    for k in range(shelves):
        z = 0.12 + (h - 0.2) * k / (shelves - 1)
        yield Part("box", (0, 0, z), (d, w, 0.03), "wood")
        for j in range(int(w / 0.4)):
            y = -w / 2 + 0.24 + j * 0.4
            material = ("accent", "linen", "white", "towel")[(k + j) % 4]
            category = "towel" if material == "towel" else "objects"
            yield Part("round", (0, y, z + 0.12), (d - 0.08, 0.28, 0.2), material, category)


def clothes_rail(d: float, w: float, h: float) -> Iterator[Part]:
    """Bodies of a clothes rail."""
    for side in (-1, 1):
        yield Part(
            "cylinder", (0, side * (w / 2 - 0.03), h / 2), (0.04, 0.04, h), "metal", "shelving"
        )
    yield Part("box", (0, 0, h), (d, w, 0.03), "wood", "shelving")
    yield Part("box", (0, 0, h - 0.12), (0.03, w, 0.03), "metal", "shelving")
    for k in range(int((w - 0.16) / 0.11)):
        y, long = -w / 2 + 0.12 + 0.11 * k, 0.8 + 0.3 * ((k * 7) % 5) / 4
        material = ("fabric", "accent", "linen", "towel", "dark")[(k * 3) % 5]
        yield Part("round", (0, y, h - 0.16 - long / 2), (d * 0.85, 0.08, long), material)
