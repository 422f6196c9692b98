"""Panoramas as surfaces: what is between two of them, seen by a camera on its way."""

from __future__ import annotations

import numpy as np
import open3d
from numpy.typing import NDArray

from world_models.pathdreamer.equirectangular import rays

Floats = NDArray[np.float32]

TORN = 1.35
"""Neighbouring pixels whose depths differ by more than this factor are not one surface."""


class Surface:
    """A panorama as triangles between the middles of its pixels, in its colours.

    Where depth jumps the surface is torn: nobody knows what is behind. Triangles across a tear are
    kept apart, to fill what nothing else shows.
    """

    def __init__(self, rgb: NDArray[np.uint8], depth: Floats, position: NDArray[np.float64]):
        """Build the triangles.

        Args:
            rgb: `(H, W, 3)`; up to three more channels of values would do as well.
            depth: `(H, W)` metres along the ray; where it is 0 the surface has a hole.
            position: `(3,)` metres.
        """
        height, width = depth.shape
        points = rays(height, width).T * depth.reshape(-1, 1)
        values = rgb.reshape(-1, rgb.shape[-1]).astype(np.float32)
        flat = depth.ravel()
        # Caps: one more point above the first row and below the last.
        ends = [np.arange(width), np.arange(width) + (height - 1) * width]
        caps = [
            np.array([[0, 0, up]]) * np.abs(points[row, 2]).mean()
            for up, row in zip((1.0, -1.0), ends, strict=True)
        ]
        points = np.concatenate([points, *caps]).astype(np.float32)
        values = np.concatenate([values, *(values[row].mean(0, keepdims=True) for row in ends)])
        flat = np.concatenate([flat, *(flat[row].mean(keepdims=True) for row in ends)])
        number = np.arange(height * width).reshape(height, width)
        here, right = number[:-1], np.roll(number, -1, axis=1)[:-1]
        below, across = number[1:], np.roll(number, -1, axis=1)[1:]
        quads = [np.stack([here, below, right], -1), np.stack([right, below, across], -1)]
        triangles = [quad.reshape(-1, 3) for quad in quads]
        for cap, row in enumerate(ends):
            top = np.full(width, height * width + cap)
            triangles.append(np.stack([top, row, np.roll(row, -1)], axis=-1))
        mesh = np.concatenate(triangles).astype(np.uint32)
        corners = flat[mesh]
        mesh, corners = mesh[corners.min(axis=1) > 0], corners[corners.min(axis=1) > 0]
        torn = corners.max(axis=1) > TORN * corners.min(axis=1)
        places = points + position.astype(np.float32)
        self._values = values
        self._parts = [(mesh[chosen], _scene(places, mesh[chosen])) for chosen in (~torn, torn)]

    def look(
        self, camera: NDArray[np.float64], directions: Floats, across_tears: bool = False
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Values that rays from a camera meet.

        Args:
            camera: `(3,)` metres.
            directions: `(N, 3)`.
            across_tears: look at the triangles across tears instead of the surface.

        Returns:
            `(N, C)` values, 0 where a ray meets nothing, and `(N,)` whether it met something.
        """
        mesh, scene = self._parts[across_tears]
        found = np.zeros((len(directions), self._values.shape[1]), np.float32)
        if scene is None:
            return found, np.zeros(len(directions), bool)
        starts = np.broadcast_to(camera.astype(np.float32), directions.shape)
        cast = scene.cast_rays(
            open3d.core.Tensor.from_numpy(np.concatenate([starts, directions], axis=1)), nthreads=1
        )
        met = np.isfinite(cast["t_hit"].numpy())
        # Everywhere, then blanked: quicker than choosing by a mask.
        corners = mesh.take(cast["primitive_ids"].numpy(), axis=0, mode="clip")
        second, third = cast["primitive_uvs"].numpy().T
        for corner, weight in zip(corners.T, (1 - second - third, second, third), strict=True):
            found += self._values.take(corner, axis=0) * weight[:, None]
        found *= met[:, None]
        return found, met


def between(
    start: Surface, end: Surface, share: float, camera: NDArray[np.float64], directions: Floats
) -> Floats:
    """What a camera on the way from one panorama to another sees: a blend of both.

    Args:
        start: surface of the panorama behind.
        end: surface of the one ahead.
        share: of the way that is done, in [0, 1].
        camera: `(3,)` metres.
        directions: `(N, 3)` rays.

    Returns:
        `(N, C)`; 0 where neither shows anything.
    """
    total = np.zeros((len(directions), 1), np.float32)
    colours = np.zeros((len(directions), start._values.shape[1]), np.float32)
    for across_tears in (False, True):
        todo = np.flatnonzero(total[:, 0] == 0)
        rays_left = directions[todo] if across_tears else directions
        for surface, weight in ((start, 1 - share), (end, share)):
            if weight > 0 and len(todo):
                seen, met = surface.look(camera, rays_left, across_tears)
                colours[todo] += np.float32(weight) * seen
                total[todo, 0] += np.float32(weight) * met
    return (colours / np.maximum(total, 1e-6)).astype(np.float32)


def _scene(
    places: Floats, triangles: NDArray[np.uint32]
) -> open3d.t.geometry.RaycastingScene | None:
    """Triangles to cast rays at; None for none."""
    if not len(triangles):
        return None
    scene = open3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(
        open3d.core.Tensor.from_numpy(np.ascontiguousarray(places, np.float32)),
        open3d.core.Tensor.from_numpy(np.ascontiguousarray(triangles)),
    )
    return scene
