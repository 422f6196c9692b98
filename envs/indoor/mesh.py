"""The triangles of a house, and what each of them is: category, piece of furniture, material.

Walls are 12 cm thick: each room has its own sheets, and frames close what lies between them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from envs.indoor.categories import ID
from envs.indoor.floor_plan import DOOR_HEIGHT, WALL, Door, Rect, Window
from envs.indoor.furniture_bodies import Part
from envs.indoor.house import House

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles, grouped into parts that share all but their shape.

    Attributes:
        vertices: `(V, 3)` float32, world frame, metres.
        triangles: `(T, 3)` uint32.
        part: `(T,)` part of each triangle.
        normal: `(T, 3)` float32 unit vectors, to the side from which a triangle is seen.
        axis: `(T,)` 0, 1 or 2: the axis its normal is nearest to.
        category: `(P,)` uint8 of each part.
        piece: `(P,)` index of the piece of furniture; -1 for the building.
        room: `(P,)` index of the room that lights it.
        material: per part, its name.
        low: `(P, 3)` least coordinates.
        high: `(P, 3)` greatest.
    """

    vertices: NDArray[np.float32]
    triangles: NDArray[np.uint32]
    part: NDArray[np.int32]
    normal: NDArray[np.float32]
    axis: NDArray[np.uint8]
    category: NDArray[np.uint8]
    piece: NDArray[np.int32]
    room: NDArray[np.int32]
    material: tuple[str, ...]
    low: Array
    high: Array


@dataclass(frozen=True)
class _Body:
    """A part in the world frame, with what it belongs to."""

    part: Part
    room: int
    piece: int = -1


def build_mesh(house: House) -> Mesh:
    """Triangles of the building and of everything in it."""
    builder = _Builder()
    for room in range(len(house.rooms)):
        _build_shell(builder, house, room)
    for door in house.plan.doors:
        _build_door(builder, house, door)
    for window in house.plan.windows:
        _build_window(builder, window)
    for index, piece in enumerate(house.furniture):
        cos, sin = math.cos(piece.yaw), math.sin(piece.yaw)
        for part in piece.parts():
            x, y, z = part.center
            center = (piece.x + cos * x - sin * y, piece.y + sin * x + cos * y, piece.base + z)
            turn = (part.turn[0] + piece.yaw, part.turn[1])
            builder.add(part._replace(center=center, turn=turn), piece.room, index)
    return builder.finish()


class _Builder:
    """Collects bodies and sheets."""

    def __init__(self) -> None:
        self.bodies: list[_Body] = []
        self.sheets: list[tuple[Array, str, str, int]] = []

    def add(self, part: Part, room: int, piece: int = -1) -> None:
        self.bodies.append(_Body(part, room, piece))

    def box(
        self,
        low: tuple[float, ...],
        high: tuple[float, ...],
        material: str,
        category: str,
        room: int,
    ) -> None:
        a, b = np.array(low), np.array(high)
        center, size = tuple(((a + b) / 2).tolist()), tuple(np.abs(b - a).tolist())
        self.add(Part("box", center, size, material, category), room)

    def sheet(
        self,
        axis: tuple[int, int],
        at: float,
        span: tuple[float, ...],
        material: str,
        category: str,
        room: int,
    ) -> None:
        """A rectangle at right angles to an axis; `span` is from, from, to, to along the others.

        The axis is `(axis, facing)`: it is seen from the positive side for a facing of 1.
        """
        across, facing = axis
        a, b = [k for k in range(3) if k != across]
        corners = np.empty((4, 3))
        corners[:, across] = at
        corners[:, a] = np.array(span)[[0, 2, 2, 0]]
        corners[:, b] = np.array(span)[[1, 1, 3, 3]]
        # Counter-clockwise for who sees it; (z, x) is the right-handed order around y.
        if (facing > 0) == (across == 1):
            corners = corners[::-1].copy()
        self.sheets.append((corners, material, category, room))

    def finish(self) -> Mesh:
        """All triangles; sheets come first, then bodies by shape."""
        count = len(self.sheets)
        vertices = [np.array([corners for corners, *_ in self.sheets]).reshape(-1, 3)]
        quads = np.arange(count)[:, None, None] * 4 + np.array([[0, 1, 2], [0, 2, 3]])
        triangles, owner = [quads.reshape(-1, 3)], [np.repeat(np.arange(count), 2)]
        low = [corners.min(0) for corners, *_ in self.sheets]
        high = [corners.max(0) for corners, *_ in self.sheets]
        bodies = sorted(self.bodies, key=lambda body: body.part.shape)
        used = 4 * count
        for shape in sorted({body.part.shape for body in bodies}):
            group = [body.part for body in bodies if body.part.shape == shape]
            unit, faces = _unit(shape)
            points = _placed(unit, group)
            low += list(points.min(1))
            high += list(points.max(1))
            offsets = used + np.arange(len(group)) * len(unit)
            vertices.append(points.reshape(-1, 3))
            triangles.append((faces[None] + offsets[:, None, None]).reshape(-1, 3))
            owner.append(np.repeat(np.arange(len(group)) + count, len(faces)))
            used += len(group) * len(unit)
            count += len(group)
        points, faces = np.concatenate(vertices), np.concatenate(triangles)
        corners = points[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        materials = [sheet[1] for sheet in self.sheets] + [b.part.material for b in bodies]
        names = [sheet[2] for sheet in self.sheets] + [str(b.part.category) for b in bodies]
        rooms = [sheet[3] for sheet in self.sheets] + [b.room for b in bodies]
        pieces = [-1] * len(self.sheets) + [b.piece for b in bodies]
        return Mesh(
            vertices=points.astype(np.float32),
            triangles=faces.astype(np.uint32),
            part=np.concatenate(owner).astype(np.int32),
            normal=(normal / np.maximum(length, 1e-12)).astype(np.float32),
            axis=np.abs(normal).argmax(-1).astype(np.uint8),
            category=np.array([ID[name] for name in names], np.uint8),
            piece=np.array(pieces, np.int32),
            room=np.array(rooms, np.int32),
            material=tuple(materials),
            low=np.array(low),
            high=np.array(high),
        )


def _placed(unit: Array, parts: list[Part]) -> Array:
    """`(parts, V, 3)`: a unit shape scaled, tilted, turned and moved for each part."""
    sizes = np.array([part.size for part in parts])
    yaw, tilt = np.array([part.turn for part in parts]).T
    points = unit[None] * sizes[:, None]
    cos, sin = np.cos(tilt)[:, None], np.sin(tilt)[:, None]
    x, y, z = np.moveaxis(points, -1, 0)
    x, z = cos * x + sin * z, cos * z - sin * x
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    turned = np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=-1)
    return turned + np.array([part.center for part in parts])[:, None]


def _build_shell(builder: _Builder, house: House, room: int) -> None:
    """Floor, ceiling, walls and skirting boards of a room."""
    plan, signs = house.plan, house.rooms[room].signs
    clear = plan.clear(room)
    span = (clear.x0, clear.y0, clear.x1, clear.y1)
    builder.sheet((2, 1), 0.0, span, f"floor {signs['floor']}", "floor", room)
    builder.sheet((2, -1), plan.height, span, "ceiling", "ceiling", room)
    paint = f"wall {signs['wall']}"
    for axis, outward in ((0, 1), (0, -1), (1, 1), (1, -1)):
        at, low, high = clear.side(axis, outward)
        holes = _holes(house, room, axis, outward)
        start = low
        for begin, end, sill, head in [*holes, (high, high, 0.0, 0.0)]:
            builder.sheet(
                (axis, -outward), at, (start, 0.0, begin, plan.height), paint, "wall", room
            )
            if sill > 0.0:
                builder.sheet((axis, -outward), at, (begin, 0.0, end, sill), paint, "wall", room)
            if end > begin:
                builder.sheet(
                    (axis, -outward), at, (begin, head, end, plan.height), paint, "wall", room
                )
            start = end
        start = low
        for begin, end, *_ in [*(h for h in holes if h[2] == 0.0), (high, high)]:
            _build_skirting(builder, axis, at, outward, (start, begin), room)
            start = end


def _build_skirting(
    builder: _Builder, axis: int, at: float, outward: int, ends: tuple[float, float], room: int
) -> None:
    near, far = sorted((at, at - outward * 0.014))
    if axis == 0:
        low, high = (near, ends[0], 0.0), (far, ends[1], 0.09)
    else:
        low, high = (ends[0], near, 0.0), (ends[1], far, 0.09)
    builder.box(low, high, "trim", "wall", room)


def _holes(house: House, room: int, axis: int, outward: int) -> list[tuple[float, ...]]:
    """From, to, lower and upper edge of the openings in one wall of a room, in order."""
    at = house.plan.rooms[room].side(axis, outward)[0]
    holes = []
    for door in house.plan.doors:
        if room in door.rooms and door.axis == axis and abs(door.at - at) < 1e-9:
            half = door.width / 2
            holes.append((door.along - half, door.along + half, 0.0, DOOR_HEIGHT))
    for window in house.plan.windows:
        if window.room == room and (window.axis, window.outward) == (axis, outward):
            half = window.width / 2
            holes.append((window.along - half, window.along + half, window.sill, window.head))
    return sorted(holes)


def _build_door(builder: _Builder, house: House, door: Door) -> None:
    """Floor of the opening, frame, and the open leaf; in the colour of the room it belongs to."""
    room = door.rooms[1]
    signs = house.rooms[room].signs
    material = f"door {signs['door']}" if door.leaf else "trim"
    gap = door.gap()
    builder.sheet(
        (2, 1), 0.0, (gap.x0, gap.y0, gap.x1, gap.y1), f"floor {signs['floor']}", "floor", room
    )
    half, thick = door.width / 2, WALL / 2 + 0.02
    for low, high, bottom, top in (
        (-half - 0.08, -half, 0.0, DOOR_HEIGHT + 0.08),
        (half, half + 0.08, 0.0, DOOR_HEIGHT + 0.08),
        (-half, half, DOOR_HEIGHT, DOOR_HEIGHT + 0.08),
    ):
        builder.box(*_across(door, low, high, thick, bottom, top), material, "door", room)
    if door.leaf:
        _build_leaf(builder, door.leaf_rect(), door.axis, material, door.side, room)


def _across(
    door: Door | Window, low: float, high: float, thick: float, bottom: float, top: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Corners of a box in a wall, from `low` to `high` along it and `thick` to either side."""
    if door.axis == 0:
        a = (door.at - thick, door.along + low, bottom)
        return a, (door.at + thick, door.along + high, top)
    return (door.along + low, door.at - thick, bottom), (door.along + high, door.at + thick, top)


def _build_leaf(
    builder: _Builder, leaf: Rect, axis: int, material: str, side: int, room: int
) -> None:
    top = DOOR_HEIGHT - 0.02
    builder.box((leaf.x0, leaf.y0, 0.01), (leaf.x1, leaf.y1, top), material, "door", room)
    margin = 0.12
    for bottom, upper in ((0.15, 0.85), (1.05, top - 0.12)):
        if axis == 0:  # the leaf runs along x
            low = (leaf.x0 + margin, leaf.y0 - 0.012, bottom)
            high = (leaf.x1 - margin, leaf.y1 + 0.012, upper)
        else:
            low = (leaf.x0 - 0.012, leaf.y0 + margin, bottom)
            high = (leaf.x1 + 0.012, leaf.y1 - margin, upper)
        builder.box(low, high, material, "door", room)
    x, y = leaf.center
    far = max(leaf.size) / 2 - 0.07
    x, y = (x + side * far, y) if axis == 0 else (x, y + side * far)
    size = (0.05, 0.16, 0.05) if axis == 0 else (0.16, 0.05, 0.05)
    builder.add(Part("ball", (x, y, 1.0), size, "brass", "door"), room)


def _build_window(builder: _Builder, window: Window) -> None:
    """Pane in the middle of the wall, frame, cross bars and sill."""
    half, room = window.width / 2, window.room
    bottom, top = window.sill, window.head
    span = (window.along - half, bottom, window.along + half, top)
    builder.sheet((window.axis, -window.outward), window.at, span, "pane", "window", room)
    bars = [
        (-half, -half + 0.05, bottom, top, 0.065),
        (half - 0.05, half, bottom, top, 0.065),
        (-half, half, top - 0.05, top, 0.065),
        (-half, half, bottom, bottom + 0.05, 0.065),
        (-0.02, 0.02, bottom, top, 0.02),
    ]
    for low, high, under, over, thick in bars:
        builder.box(*_across(window, low, high, thick, under, over), "trim", "window", room)
    board = _across(window, -half - 0.06, half + 0.06, 0.14, bottom - 0.04, bottom)
    builder.box(*board, "trim", "window", room)


@cache
def _unit(shape: str) -> tuple[Array, NDArray[np.int64]]:
    """Vertices within +-0.5 and faces (counter-clockwise from outside) of a shape."""
    if shape == "box":
        return _grid_box(1, 0.0)
    if shape == "round":
        return _grid_box(5, 0.34)
    if shape == "ball":
        angles = np.linspace(-math.pi / 2, math.pi / 2, 10)
        return _lathe(0.5 * np.cos(angles), 0.5 * np.sin(angles), 16)
    if shape == "cylinder":
        return _lathe(np.array([0, 0.5, 0.5, 0]), np.array([-0.5, -0.5, 0.5, 0.5]), 20)
    if shape == "cone":
        return _lathe(np.array([0, 0.5, 0.32, 0]), np.array([-0.5, -0.5, 0.5, 0.5]), 20)
    raise ValueError(f"shape must be box, round, ball, cylinder or cone, got {shape!r}")


def _lathe(radii: Array, heights: Array, around: int) -> tuple[Array, NDArray[np.int64]]:
    """A profile turned about z."""
    turn = np.arange(around) * (2 * math.pi / around)
    ring = np.stack([np.cos(turn), np.sin(turn)], -1)
    points = np.concatenate(
        [
            np.column_stack([r * ring, np.full(around, z)])
            for r, z in zip(radii, heights, strict=True)
        ]
    )
    faces = []
    for row in range(len(radii) - 1):
        a = row * around + np.arange(around)
        b = row * around + (np.arange(around) + 1) % around
        if radii[row] > 1e-9:
            faces.append(np.stack([a, b, b + around], -1))
        if radii[row + 1] > 1e-9:
            faces.append(np.stack([a, b + around, a + around], -1))
    return points, np.concatenate(faces)


def _grid_box(cells: int, rounding: float) -> tuple[Array, NDArray[np.int64]]:
    """A cube of +-0.5 with cells on its faces; edges rounded by a share of its half size."""
    points: list[Array] = []
    faces: list[NDArray[np.int64]] = []
    for corner in _cube_faces(cells):
        start = len(points) * (cells + 1) ** 2
        points.append(corner)
        i, j = (k.ravel() for k in np.mgrid[0:cells, 0:cells])
        a = start + i * (cells + 1) + j
        b = a + cells + 1
        faces += [np.stack([a, b, b + 1], -1), np.stack([a, b + 1, a + 1], -1)]
    cube = np.concatenate(points)
    if rounding:
        core = np.clip(cube, -0.5 * (1 - rounding), 0.5 * (1 - rounding))
        away = cube - core
        length = np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1e-9)
        cube = core + away / length * (0.5 * rounding)
    return cube, np.concatenate(faces)


def _cube_faces(cells: int) -> Iterator[Array]:
    """Grids of the six faces of the cube of +-0.5, the normal of each pointing out."""
    # The outermost cells are narrow: they carry the rounding.
    line = np.linspace(-0.5, 0.5, cells + 1)
    if cells > 2:
        line = np.concatenate([[-0.5, -0.42], np.linspace(-0.33, 0.33, cells - 3), [0.42, 0.5]])
    a, b = np.meshgrid(line, line, indexing="ij")
    for axis in range(3):
        for sign in (-1, 1):
            grid = np.empty((*a.shape, 3))
            grid[..., axis] = 0.5 * sign
            first, second = (axis + 1) % 3, (axis + 2) % 3
            grid[..., first], grid[..., second] = (a, b) if sign > 0 else (b, a)
            yield grid.reshape(-1, 3)
