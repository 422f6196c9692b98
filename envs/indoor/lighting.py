"""Colours of surfaces: light from a lamp in each room, darker corners, soft contact shadows.

Every step works on whole columns of numbers and in place: a panorama is to cost little more than
its ray cast. Texture pictures are looked up at the point that a ray hits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.indoor.floor_plan import Rect
from envs.indoor.house import House
from envs.indoor.mesh import Mesh
from envs.indoor.textures import TEXELS, draw_atlas

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]

_CELL = 0.04
_PER_METRE = 100.0
# Where the light comes from beside the lamps; gives round things their shape.
_SUN = (0.53, 0.72, 0.45)
_BASE, _SHAPE = 0.78, 0.20
# Rays a block, so that the columns of a block stay in the cache.
_BLOCK = 32_768


@dataclass(frozen=True)
class Hits:
    """What N rays hit.

    Attributes:
        packed: `(N,)` part << 10 | axis << 8 | category of the triangle; the axis is 0, 1 or 2,
            what its normal is nearest to.
        triangle: `(N,)` index of it; too large where nothing was hit.
        distance: `(N,)` metres.
        origins: x, y and z the rays start from, numbers or `(N,)`.
        rays: x, y and z of their unit directions, each `(N,)`.
    """

    packed: NDArray[np.intp]
    triangle: NDArray[np.uint32]
    distance: Floats
    origins: tuple[Any, Any, Any]
    rays: tuple[Floats, Floats, Floats]

    def block(self, rows: slice) -> "Hits":
        """Some of the rays."""
        x, y, z = (o if np.ndim(o) == 0 else o[rows] for o in self.origins)
        dx, dy, dz = self.rays
        return Hits(
            self.packed[rows],
            self.triangle[rows],
            self.distance[rows],
            (x, y, z),
            (dx[rows], dy[rows], dz[rows]),
        )


class Lighting:
    """Shades what rays hit in a house."""

    def __init__(self, house: House, mesh: Mesh) -> None:
        """Paint the materials, and find where it is dark."""
        atlas = draw_atlas(house.palette, mesh.material)
        self._texels = atlas.texels
        index = {name: k for k, name in enumerate(atlas.names)}
        material = np.array([index[name] for name in mesh.material])
        self._start = (material * TEXELS * TEXELS).astype(np.intp)
        self._glow = np.minimum(atlas.glow[material], 1.0)
        self._u, self._v = _placement(mesh, atlas.fitted[material], house.palette)
        # What depends on a triangle alone: light by its direction, and where it reads the map, in
        # cells: a quarter of a metre off it, as at a wall itself all would be dark.
        self._shape = (_BASE + _SHAPE * mesh.normal @ np.array(_SUN)).astype(np.float32)
        aside = 0.25 * mesh.normal - (house.plan.outline.x0, house.plan.outline.y0, 0.0)
        self._aside = ((aside[:, 0] + 1j * aside[:, 1]) / _CELL).astype(np.complex64)
        self._light_map, self._rows = _light_map(house, house.plan.outline)

    def shade(self, hits: Hits) -> NDArray[np.uint8]:
        """`(N, 3)` colours of what rays hit."""
        out = np.empty((len(hits.packed), 3), np.uint8)
        for start in range(0, len(out), _BLOCK):
            rows = slice(start, start + _BLOCK)
            self._shade(hits.block(rows), out[rows])
        return out

    def _shade(self, hits: Hits, out: NDArray[np.uint8]) -> None:
        part = hits.packed >> 10
        points = []
        for ray, origin in zip(hits.rays, hits.origins, strict=True):
            along = ray * hits.distance
            along += origin
            points.append(along)
        texel = self._texel(points, part, (hits.packed >> 8) & 3)
        light = self._light(points, hits)
        np.maximum(light, self._glow.take(part), out=light)
        np.minimum(light, 1.0, out=light)
        channels = self._texels.take(texel).view(np.uint8).reshape(-1, 4)
        for k in range(3):
            np.multiply(channels[:, k], light, out=out[:, k], casting="unsafe")

    def _light(self, points: list[Floats], hits: Hits) -> Floats:
        """`(N,)` brightness; uses up `points`."""
        triangle = hits.triangle.astype(np.intp)
        light = self._shape.take(triangle, mode="clip")
        aside = self._aside.take(triangle, mode="clip")
        x, y, z = points
        for at, off in ((x, aside.real), (y, aside.imag)):
            at *= 1.0 / _CELL
            at += off
        cell = x.astype(np.intp)
        cell *= self._rows
        cell += y.astype(np.intp)
        open_and_shadow = self._light_map.take(cell, mode="clip")
        z *= -1.0 / 0.35
        z += 1.0
        np.maximum(z, 0.0, out=z)
        z *= z
        z *= open_and_shadow.imag
        np.subtract(1.0, z, out=z)
        light *= z
        light *= open_and_shadow.real
        return light

    def _texel(
        self, points: list[Floats], part: NDArray[np.intp], axis: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """`(N,)` index into the atlas."""
        x, y, z = points
        u = np.where(axis == 0, y, x)
        v = np.where(axis == 2, y, z)
        for coordinate, table in ((u, self._u), (v, self._v)):
            scale_and_offset = table.take(part)
            coordinate *= scale_and_offset.real
            coordinate += scale_and_offset.imag
        index = v.astype(np.intp)
        index &= TEXELS - 1
        index *= TEXELS
        across = u.astype(np.intp)
        across &= TEXELS - 1
        index += across
        index += self._start.take(part)
        return index


def _placement(mesh: Mesh, fitted: NDArray[np.bool_], seed: int) -> tuple[Complexes, Complexes]:
    """Texels a metre (real) and offset (imaginary: one look-up for both) along u and v, by part."""
    rng = np.random.default_rng(seed + 1)
    extent = np.maximum(mesh.high - mesh.low, 1e-3)
    thin = extent.argmin(1)
    every = np.arange(len(thin))
    along_u, along_v = np.where(thin == 0, 1, 0), np.where(thin == 2, 1, 2)
    tables = []
    for along in (along_u, along_v):
        fit = (TEXELS - 1.0) / extent[every, along]
        scale = np.where(fitted, fit, _PER_METRE)
        # Repeated pictures start anywhere, but building parts keep one pattern through the house.
        start = np.where(mesh.piece >= 0, rng.integers(0, TEXELS, len(thin)), 2 * TEXELS)
        offset = np.where(fitted, -mesh.low[every, along] * fit, start)
        tables.append((scale + 1j * offset).astype(np.complex64))
    return tables[0], tables[1]


def _light_map(house: House, outline: Rect) -> tuple[Complexes, int]:
    """Flat map of `_CELL`, and its columns a row.

    Real: light that lamps and corners leave; imaginary: shadow of furniture on the floor.
    """
    xs = np.arange(outline.x0, outline.x1 + _CELL, _CELL) + _CELL / 2
    ys = np.arange(outline.y0, outline.y1 + _CELL, _CELL) + _CELL / 2
    light = np.ones((len(xs), len(ys)))
    for index, room in enumerate(house.rooms):
        rect = room.clear
        sides = [
            1.0 - 0.3 * np.exp(-np.maximum(away, 0.0) / 0.22)
            for away in (xs - rect.x0, rect.x1 - xs, ys - rect.y0, rect.y1 - ys)
        ]
        i = slice(*np.searchsorted(xs, (rect.x0 - 0.03, rect.x1 + 0.03)))
        j = slice(*np.searchsorted(ys, (rect.y0 - 0.03, rect.y1 + 0.03)))
        square = np.full((i.stop - i.start, j.stop - j.start), 0.86)
        for lamp in house.furniture:
            if lamp.room == index and lamp.category == "lighting":
                away = (xs[i, None] - lamp.x) ** 2 + (ys[None, j] - lamp.y) ** 2
                square += (0.22 if lamp.base > 1.0 else 0.12) / (1.0 + away / 1.8)
        square = np.minimum(square, 1.12)
        light[i, j] = square * (sides[0] * sides[1])[i, None] * (sides[2] * sides[3])[None, j]
    contact = np.zeros_like(light)
    for piece in house.furniture:
        if piece.blocks:
            rect = piece.footprint
            i = slice(*np.searchsorted(xs, (rect.x0, rect.x1)))
            j = slice(*np.searchsorted(ys, (rect.y0, rect.y1)))
            contact[i, j] = 1.0
    for axis in (0, 1):
        for _ in range(2):
            contact = _blurred(contact, 4, axis)
    return (light + 0.5j * contact).astype(np.complex64).ravel(), len(ys)


def _blurred(image: NDArray[np.float64], radius: int, axis: int) -> NDArray[np.float64]:
    """Mean over `2 radius + 1` cells along one axis."""
    pad = [(0, 0), (0, 0)]
    pad[axis] = (radius + 1, radius)
    total = np.cumsum(np.pad(image, pad), axis=axis)
    width = 2 * radius + 1
    count = image.shape[axis]
    last = np.take(total, np.arange(width, width + count), axis=axis)
    first = np.take(total, np.arange(count), axis=axis)
    return (last - first) / width
