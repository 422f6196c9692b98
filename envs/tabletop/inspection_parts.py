"""Parts of an inspection line as meshes built here: a grid of cells with holes and pins.

A part is a union of square cells. Each is cut into quadrilaterals between its boundary and its
hole, so that a chip, a bend or a missing hole is a change of the geometry and not of the picture.
Lengths are metres, in the part's own frame: x and y in the plane of the belt, z = 0 its foot.
"""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Feature = Literal["hole", "pin", "plain"]
Design = dict[tuple[int, int], Feature]
"""Column and row of each cell, and what it has in its middle."""

PRODUCTS: dict[str, Design] = {
    "plate": {(0, 0): "hole", (1, 0): "hole", (0, 1): "hole", (1, 1): "hole"},
    "angle": {(0, 0): "pin", (1, 0): "hole", (0, 1): "hole"},
    "rail": {(0, 0): "hole", (1, 0): "pin", (2, 0): "hole"},
}
"""What the line makes."""
STRANGERS: dict[str, Design] = {
    "tee": {(0, 0): "hole", (1, 0): "plain", (2, 0): "hole", (1, 1): "pin"},
    "link": {(0, 0): "hole", (1, 0): "hole"},
    "step": {(0, 0): "hole", (1, 0): "pin", (1, 1): "plain", (2, 1): "hole"},
    "block": {(0, 0): "pin"},
}
"""What it does not make: the wrong parts."""

_PER_SIDE = 8  # Points of a cell's boundary on each of its four sides.
_RINGS = (0.0, 0.35, 1.0)  # Between hole and boundary, so that a bent face is not flat.
_AROUND = 16  # Sides of a pin.
_SIDES = ((1, 0), (0, 1), (-1, 0), (0, -1))
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Chip:
    """A corner that is broken off.

    Attributes:
        cell: whose corner.
        corner: -1 or 1 in x and in y.
        depth: of the break from the middle of the cell, as a share of the way to the corner.
        turn: of the break, rad; 0 is square to the diagonal.
        rough: `(n,)` factors around 1 of the depth along the break.
    """

    cell: tuple[int, int]
    corner: tuple[int, int]
    depth: float
    turn: float
    rough: tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """A part as it is built.

    Attributes:
        design: cells and their features.
        pitch: of the cells.
        thickness: of the plate.
        hole: radius.
        pin: radius and height.
        stretch: factors in x and in y.
        chip: what is broken off, if anything.
        bend: curvature 1/m of the end that is bent up, beyond `bend_from` of the length; 0 is flat.
        bend_from: share of the longer side that stays flat.
    """

    design: Design = field(hash=False)
    pitch: float = 0.036
    thickness: float = 0.012
    hole: float = 0.0075
    pin: tuple[float, float] = (0.0065, 0.014)
    stretch: tuple[float, float] = (1.0, 1.0)
    chip: Chip | None = None
    bend: float = 0.0
    bend_from: float = 0.4

    def __post_init__(self) -> None:
        """Refuse holes that leave nothing, and parts without cells."""
        if not self.design:
            raise ValueError("a part needs a cell")
        if not 0 < self.hole < 0.4 * self.pitch:
            raise ValueError(
                f"hole must be in (0, {0.4 * self.pitch:.4f}) for cells of {self.pitch}, "
                f"got {self.hole}"
            )
        if min(self.thickness, *self.pin, *self.stretch) <= 0:
            raise ValueError("thickness, pin and stretch must be positive")

    @property
    def middle(self) -> Points:
        """`(2,)` of the cells' bounding box, which is the origin of the mesh."""
        places = np.array(list(self.design), float)
        return (places.min(0) + places.max(0)) / 2

    def center(self, cell: tuple[int, int]) -> Points:
        """`(2,)` middle of a cell, before stretching."""
        middle: Points = (np.array(cell, float) - self.middle) * self.pitch
        return middle


def corners(design: Design) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Cells and corners (signs of x and y) where two sides of a part meet, to the outside."""
    return [
        ((x, y), (sx, sy))
        for x, y in design
        for sx in (-1, 1)
        for sy in (-1, 1)
        if (x + sx, y) not in design and (x, y + sy) not in design
    ]


def triangles(part: Part) -> Points:
    """`(n, 3, 3)` corners of the triangles of a part without pins, seen from outside anticlockwise.

    The underside is left out: nothing sees it.
    """
    return _bent(part, _split([quad for cell in part.design for quad in _cell(part, cell)]))


def pin_triangles(part: Part) -> Points:
    """`(n, 3, 3)` corners of the triangles of its pins, as of `triangles`; n is 0 without."""
    cells = [cell for cell, feature in part.design.items() if feature == "pin"]
    quads = [quad for cell in cells for quad in _pin(part, part.center(cell))]
    return _bent(part, _split(quads)) if quads else np.zeros((0, 3, 3))


class Soup:
    """Triangles as Bullet takes them, every face flat.

    Bullet's Python module never lets go of the lists it is given (pybullet 3.2.7): about a megabyte
    a part. So the same lists are filled again and again; what was given before is then no longer
    what it was, which Bullet, having copied it, does not mind.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        self._vertices, self._normals = _Rows(), _Rows()
        self._indices: list[int] = []

    def of(self, found: Points) -> dict[str, list[Any]]:
        """Arguments of `createVisualShape` for triangles `(n, 3, 3)`; good until the next call."""
        normals = _normals(found)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        self._indices[:] = range(3 * len(found))
        return {
            "vertices": self._vertices.filled(found.reshape(-1, 3)),
            "indices": self._indices,
            "normals": self._normals.filled(normals.repeat(3, axis=0)),
        }


class _Rows:
    """Lists of three numbers that are filled again."""

    def __init__(self) -> None:
        self._pool: list[list[float]] = []
        self._shown: list[list[float]] = []

    def filled(self, values: Points) -> list[list[float]]:
        self._pool += [[0.0, 0.0, 0.0] for _ in range(len(values) - len(self._pool))]
        self._shown[:] = self._pool[: len(values)]
        for row, value in zip(self._shown, values.tolist(), strict=True):
            row[:] = value
        return self._shown


def patch(outline: Points, height: float, thickness: float = 0.0004) -> Points:
    """A thin plate over a star-shaped outline `(n, 2)` anticlockwise, `(m, 3, 3)` triangles.

    Args:
        outline: around its own mean, from which all of it is seen.
        height: of what it lies on.
        thickness: by which it lies above, so that the two are told apart.
    """
    ring = np.column_stack([outline, np.full(len(outline), height + thickness)])
    middle = np.broadcast_to(ring.mean(0), ring.shape)
    return np.stack([middle, ring, np.roll(ring, -1, 0)], axis=1)


def ribbon(path: Points, width: float, height: float, thickness: float = 0.0004) -> Points:
    """A thin strip along a path `(n, 2)`, thinner at both ends, `(m, 3, 3)` triangles."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    place = np.linspace(-1, 1, len(path))
    half = (0.5 * width * np.clip(3 * (1 - np.abs(place)), 0.25, 1.0))[:, None]
    across = np.column_stack([-along[:, 1], along[:, 0]]) * half
    level = np.full(len(path), height + thickness)
    left, right = (np.column_stack([path + sign * across, level]) for sign in (1.0, -1.0))
    quads = np.stack([right[:-1], right[1:], left[1:], left[:-1]], axis=1)
    return quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3, 3)


def is_solid(part: Part, points: Points, margin: float) -> NDArray[np.bool_]:
    """Whether the face is there at and around points `(n, 2)`: no hole, no pin and no edge.

    Args:
        part: flat.
        points: in the frame of the mesh.
        margin: radius around each within which the face must be.
    """
    around = np.linspace(0, 2 * math.pi, 8, endpoint=False)
    ring = margin * np.column_stack([np.cos(around), np.sin(around)])
    tried = points[:, None] + np.concatenate([np.zeros((1, 2)), ring])
    inside = np.zeros(tried.shape[:2], bool)
    for cell, feature in part.design.items():
        off = tried / part.stretch - part.center(cell)
        radius = {"hole": part.hole, "pin": part.pin[0], "plain": 0.0}[feature]
        inside |= (np.abs(off) <= part.pitch / 2).all(-1) & (np.linalg.norm(off, axis=-1) >= radius)
    return np.asarray(inside.all(1), bool)


def _cell(part: Part, cell: tuple[int, int]) -> list[Points]:
    """Arrays `(n, 4, 3)` of quadrilaterals of one cell."""
    side, sign = _boundary()
    edge = _chipped(part, cell, sign * part.pitch / 2)
    center, feature = part.center(cell), part.design[cell]
    radius = part.hole if feature == "hole" else 0.0
    hole = radius * sign / np.linalg.norm(sign, axis=1, keepdims=True)
    top, found = part.thickness, []
    rings = [center + hole + share * (edge - hole) for share in _RINGS]
    for inner, outer in itertools.pairwise(rings):
        found.append(_band(_at(inner, top), _at(outer, top)))
    if radius:
        # Seen from the axis, so the other way round than the outer wall.
        found.append(_band(_at(rings[0], 0.0), _at(rings[0], top)))
    open_sides = np.array([(cell[0] + x, cell[1] + y) not in part.design for x, y in _SIDES])
    broken = (edge != sign * part.pitch / 2).any(1)
    wall = _band(_at(rings[-1], top), _at(rings[-1], 0.0))
    found.append(wall[open_sides[side] | (broken & np.roll(broken, -1))])
    return found


def _boundary() -> tuple[NDArray[np.int64], Points]:
    """Of the segments around a cell the number of their side, and where each begins, -1 to 1."""
    steps = np.arange(_PER_SIDE) * 2 / _PER_SIDE - 1
    ones = np.ones(_PER_SIDE)
    parts = [(ones, steps), (-steps, ones), (-ones, -steps), (steps, -ones)]
    points = np.concatenate([np.column_stack(pair) for pair in parts])
    return np.repeat(np.arange(4), _PER_SIDE), points


def _chipped(part: Part, cell: tuple[int, int], edge: Points) -> Points:
    """The boundary `(n, 2)` of a cell without what is broken off."""
    chip = part.chip
    if chip is None or chip.cell != cell:
        return edge
    angle = math.atan2(chip.corner[1], chip.corner[0]) + chip.turn
    normal = np.array([math.cos(angle), math.sin(angle)])
    reach = chip.depth * part.pitch / math.sqrt(2)
    rough = np.resize(np.array(chip.rough), len(edge))
    beyond = edge @ normal
    factor = np.where(beyond > reach, reach * rough / np.maximum(beyond, 1e-9), 1.0)
    cut: Points = edge * np.minimum(factor, 1.0)[:, None]
    return cut


def _pin(part: Part, center: Points) -> list[Points]:
    radius, height = part.pin
    angle = np.arange(_AROUND) * 2 * math.pi / _AROUND
    ring = center + radius * np.column_stack([np.cos(angle), np.sin(angle)])
    narrow = center + 0.8 * (ring - center)
    low, high = part.thickness, part.thickness + height
    shoulder = high - 0.2 * radius
    middle = np.broadcast_to(center, ring.shape)
    return [
        _band(_at(ring, shoulder), _at(ring, low)),
        _band(_at(narrow, high), _at(ring, shoulder)),
        _band(_at(middle, high), _at(narrow, high)),
    ]


def _band(inner: Points, outer: Points) -> Points:
    """`(n, 4, 3)` between two closed rings `(n, 3)`, seen from where `inner` is left of `outer`."""
    after = (np.roll(inner, -1, 0), np.roll(outer, -1, 0))
    return np.stack([inner, outer, after[1], after[0]], axis=1)


def _at(points: Points, height: float) -> Points:
    return np.column_stack([points, np.full(len(points), height)])


def _split(quads: list[Points]) -> Points:
    """Triangles of arrays `(n, 4, 3)`, those without an area left out."""
    split = np.concatenate([part[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3, 3) for part in quads])
    return split[np.linalg.norm(_normals(split), axis=1) > 1e-12]


def _normals(found: Points) -> Points:
    normals: Points = np.cross(found[:, 1] - found[:, 0], found[:, 2] - found[:, 0])
    return normals


def _bent(part: Part, found: Points) -> Points:
    """Stretched, and one end of the longer side bent up in an arc."""
    found = found * (*part.stretch, 1.0)
    if not part.bend:
        return found
    extent = np.ptp(found.reshape(-1, 3)[:, :2], axis=0)
    axis = int(extent[1] > extent[0])
    start = (part.bend_from - 0.5) * extent[axis]
    past = np.maximum(found[..., axis] - start, 0.0)
    # Length along the arc is kept: a point `past` the start turns by its share of the curve.
    turn, height = past * part.bend, found[..., 2]
    bent = found.copy()
    bent[..., axis] += np.sin(turn) / part.bend - past - height * np.sin(turn)
    bent[..., 2] = (1 - np.cos(turn)) / part.bend + height * np.cos(turn)
    return bent
