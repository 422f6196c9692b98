"""What can be wrong with a part of the inspection line: a change of its geometry, or a thing on it.

Four kinds are known when a classifier is trained; four more are met in the test alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.inspection_parts import (
    STRANGERS,
    Chip,
    Part,
    Points,
    corners,
    is_solid,
    patch,
    ribbon,
)

_TRIES = 60


@dataclass(frozen=True)
class Mark:
    """A thin thing on the face of a part: a stain or a scratch.

    Attributes:
        triangles: `(n, 3, 3)` in the part's frame, metres.
        shade: factor of the part's colour, below 1 darker.
        tint: RGB that is mixed in by a third.
    """

    triangles: Points
    shade: float
    tint: tuple[float, float, float]


@dataclass(frozen=True)
class Foreign:
    """A thing that does not belong on the part: `size` metres long, at `xy` in its frame."""

    size: float
    xy: tuple[float, float]
    yaw: float


@dataclass(frozen=True)
class Faulty:
    """A part with a defect.

    Attributes:
        part: what is built.
        on_it: what lies on it.
    """

    part: Part
    on_it: Mark | Foreign | None = None


def _chip(part: Part, rng: np.random.Generator) -> Faulty | None:
    cells = corners(part.design)
    cell, corner = cells[rng.integers(len(cells))]
    rough = tuple(rng.uniform(0.93, 1.07, 5).tolist())
    depth, turn = rng.uniform(0.55, 0.75), rng.uniform(-0.3, 0.3)
    return Faulty(replace(part, chip=Chip(cell, corner, depth, turn, rough)))


def _missing(part: Part, rng: np.random.Generator) -> Faulty | None:
    cells = [cell for cell, feature in part.design.items() if feature != "plain"]
    cell = cells[rng.integers(len(cells))]
    return Faulty(replace(part, design={**part.design, cell: "plain"}))


def _stain(part: Part, rng: np.random.Generator) -> Faulty | None:
    radius = rng.uniform(0.0045, 0.0075)
    middle = _place(part, rng, radius)
    if middle is None:
        return None
    angle = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    waves = np.zeros_like(angle)
    for n in (2, 3, 5):
        waves += rng.uniform(0, 0.22) * np.sin(n * angle + rng.uniform(0, 2 * math.pi))
    reach = radius * (1 + 0.8 * waves)
    outward = reach[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    while not is_solid(part, middle + outward, 0.0).all():  # a bulge beyond an edge or a hole
        outward *= 0.9
    outline = middle + outward
    return Faulty(part, _mark(patch(outline, part.thickness), rng))


def _scratch(part: Part, rng: np.random.Generator) -> Faulty | None:
    for _ in range(_TRIES):
        length, width = rng.uniform(0.020, 0.045), rng.uniform(0.0014, 0.0024)
        heading, bow = rng.uniform(0, 2 * math.pi), rng.uniform(-0.2, 0.2)
        share = np.linspace(-0.5, 0.5, 13)
        path = length * np.column_stack([share, bow * (share**2 - 0.1)])
        turn = np.array([[math.cos(heading), -math.sin(heading)],
                         [math.sin(heading), math.cos(heading)]])  # fmt: skip
        path = path @ turn.T + _anywhere(part, rng)
        if is_solid(part, path, width).all():
            return Faulty(part, _mark(ribbon(path, width, part.thickness), rng))
    return None


def _foreign(part: Part, rng: np.random.Generator) -> Faulty | None:
    size = rng.uniform(0.012, 0.022)
    x, y = _anywhere(part, rng)
    if not is_solid(replace(part, hole=1e-4, pin=(1e-4, 1e-4)), np.array([[x, y]]), 0.004)[0]:
        return None
    return Faulty(part, Foreign(size, (x, y), rng.uniform(0, 2 * math.pi)))


def _bent(part: Part, rng: np.random.Generator) -> Faulty | None:
    return Faulty(replace(part, bend=rng.uniform(8.0, 15.0), bend_from=rng.uniform(0.25, 0.5)))


def _wrong_size(part: Part, rng: np.random.Generator) -> Faulty | None:
    factor = rng.uniform(0.70, 0.82) if rng.random() < 0.5 else rng.uniform(1.20, 1.32)
    axis = rng.integers(2)
    stretch = (
        part.stretch[0] * (factor if axis == 0 else 1.0),
        part.stretch[1] * (factor if axis == 1 else 1.0),
    )
    return Faulty(replace(part, stretch=stretch))


def _wrong_part(part: Part, rng: np.random.Generator) -> Faulty | None:
    name = list(STRANGERS)[rng.integers(len(STRANGERS))]
    return Faulty(replace(part, design=STRANGERS[name]))


Make = Callable[[Part, np.random.Generator], Faulty | None]
KNOWN: dict[str, Make] = {
    "chip": _chip,
    "missing": _missing,
    "stain": _stain,
    "foreign": _foreign,
}
"""A corner broken off; a hole or pin that is not there; a blot; a thing lying on the part."""
UNSEEN: dict[str, Make] = {
    "scratch": _scratch,
    "bent": _bent,
    "wrong_size": _wrong_size,
    "wrong_part": _wrong_part,
}
"""A thin line; an end bent up; one side too short or too long; a part of another design."""
DEFECTS: dict[str, Make] = {**KNOWN, **UNSEEN}


def make_faulty(part: Part, defect: str, rng: np.random.Generator) -> Faulty | None:
    """A part with a defect; None where this one found no place.

    Raises:
        ValueError: for an unknown defect.
    """
    if defect not in DEFECTS:
        raise ValueError(f"defect must be one of {', '.join(DEFECTS)}, got {defect!r}")
    return DEFECTS[defect](part, rng)


def _mark(triangles: Points, rng: np.random.Generator) -> Mark:
    shade = rng.uniform(0.35, 0.65) if rng.random() < 0.6 else rng.uniform(1.35, 1.7)
    red, green, blue = rng.uniform(0.2, 0.8, 3).tolist()
    return Mark(triangles, shade, (red, green, blue))


def _anywhere(part: Part, rng: np.random.Generator) -> NDArray[np.float64]:
    """`(2,)` a point of a cell."""
    cells = list(part.design)
    center = part.center(cells[rng.integers(len(cells))])
    return (center + rng.uniform(-0.5, 0.5, 2) * part.pitch) * part.stretch


def _place(part: Part, rng: np.random.Generator, radius: float) -> Points | None:
    """`(2,)` middle of a disc on the face; None if there was no room."""
    tried = np.array([_anywhere(part, rng) for _ in range(_TRIES)])
    free = np.flatnonzero(is_solid(part, tried, 1.15 * radius))
    return tried[free[0]] if len(free) else None
