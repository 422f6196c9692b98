"""Looks into procedural houses: Open3D's ray casting (Embree), exact, without a display."""

import math
from functools import lru_cache

import numpy as np
import open3d
from numpy.typing import NDArray

from envs.indoor.equirectangular import directions
from envs.indoor.graph import NavigationGraph
from envs.indoor.house import House
from envs.indoor.lighting import Hits, Lighting
from envs.indoor.mesh import Mesh, build_mesh
from envs.indoor.simulator import Panorama

Floats = NDArray[np.float32]


class ProceduralSimulator:
    """Panoramas of a house; the `Simulator` for `envs.indoor.house.House`."""

    def __init__(self, house: House, threads: int = 1) -> None:
        """Build the triangles, the ray-casting scene and the materials.

        Args:
            house: what to look at.
            threads: that cast rays; the picture does not depend on it.

        Raises:
            ValueError: for less than one thread.
        """
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.house, self.threads = house, threads
        self.mesh: Mesh = build_mesh(house)
        self._scene = open3d.t.geometry.RaycastingScene(nthreads=threads)
        self._scene.add_triangles(
            open3d.core.Tensor.from_numpy(self.mesh.vertices),
            open3d.core.Tensor.from_numpy(self.mesh.triangles),
        )
        self._lighting = Lighting(house, self.mesh)
        # One number a triangle: part, axis and category; the last is for rays that hit nothing.
        packed = self.mesh.part.astype(np.int64) << 10
        packed |= self.mesh.axis.astype(np.int64) << 8
        packed |= self.mesh.category[self.mesh.part]
        self._packed = np.append(packed, 0).astype(np.intp)

        self._rays: Floats | None = None
        self._size = (0, 0)

    @property
    def graph(self) -> NavigationGraph:
        """Where one can stand, and walk to from there."""
        return self.house.graph

    def observe(self, place: str | NDArray[np.float64], size: tuple[int, int]) -> Panorama:
        """The panorama from a viewpoint or a point; see `Simulator.observe`."""
        height, width = size
        if height < 1 or width < 1:
            raise ValueError(f"size must be at least (1, 1), got {size}")
        position = self._position(place)
        hit, columns = self._cast_all(position, height, width)
        distance = hit["t_hit"].numpy()
        missed = np.isinf(distance)
        if missed.any():
            distance[missed] = 0.0
        packed = self._packed_of(hit)
        semantic = packed.astype(np.uint8)
        if missed.any():
            semantic[missed] = 0
        rgb = self._lighting.shade(
            Hits(
                packed,
                hit["primitive_ids"].numpy(),
                distance,
                (np.float32(position[0]), np.float32(position[1]), np.float32(position[2])),
                columns,
            )
        )
        if missed.any():
            rgb[missed] = 0
        return Panorama(
            rgb=rgb.reshape(height, width, 3),
            semantic=semantic.reshape(height, width),
            depth=distance.reshape(height, width),
            position=position,
        )

    def shade_rays(self, rays: Floats) -> NDArray[np.uint8]:
        """Colours along any rays.

        Args:
            rays: `(N, 6)` float32: origins in metres and unit directions, world frame.

        Returns:
            `(N, 3)` uint8, black where there is nothing.
        """
        hit = self.cast(rays)
        distance = hit["t_hit"].numpy()
        missed = np.isinf(distance)
        distance[missed] = 0.0
        packed = self._packed_of(hit)
        origins = (rays[:, 0], rays[:, 1], rays[:, 2])
        columns = (rays[:, 3], rays[:, 4], rays[:, 5])
        rgb = self._lighting.shade(
            Hits(packed, hit["primitive_ids"].numpy(), distance, origins, columns)
        )
        rgb[missed] = 0
        return rgb

    def cast(self, rays: Floats) -> dict[str, open3d.core.Tensor]:
        """What Open3D's `cast_rays` returns for `(N, 6)` rays."""
        tensor = open3d.core.Tensor.from_numpy(np.ascontiguousarray(rays, np.float32))
        return self._scene.cast_rays(tensor, nthreads=self.threads)

    def pieces(self, place: str | NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.int32]:
        """`(H, W)`: which piece of furniture each pixel of a panorama sees; -1 for the building."""
        hit, _ = self._cast_all(self._position(place), *size)
        triangle = hit["primitive_ids"].numpy()
        part = self.mesh.part.take(triangle, mode="clip")
        piece = np.where(np.isinf(hit["t_hit"].numpy()), -1, self.mesh.piece[part])
        return piece.reshape(size).astype(np.int32)

    def _packed_of(self, hit: dict[str, open3d.core.Tensor]) -> NDArray[np.intp]:
        """Part, axis and category of what each ray hit."""
        triangles: NDArray[np.uint32] = hit["primitive_ids"].numpy()
        return self._packed.take(triangles, mode="clip")

    def _cast_all(
        self, position: NDArray[np.float64], height: int, width: int
    ) -> tuple[dict[str, open3d.core.Tensor], tuple[Floats, Floats, Floats]]:
        """Cast a panorama; also the columns of its directions."""
        unit, columns = _rays(height, width)
        if self._rays is None or self._size != (height, width):
            self._rays, self._size = unit.copy(), (height, width)
        self._rays[:, :3] = position
        return self.cast(self._rays), columns

    def close(self) -> None:
        """Free the scene; nothing can be looked at after it."""
        self._scene = open3d.t.geometry.RaycastingScene(nthreads=1)

    def _position(self, place: str | NDArray[np.float64]) -> NDArray[np.float64]:
        if isinstance(place, str):
            return self.graph.positions[self.graph.index(place)].copy()
        position = np.array(place, float)
        if position.shape != (3,) or not np.isfinite(position).all():
            raise ValueError(f"place must be a viewpoint or three finite numbers, got {place!r}")
        return position


@lru_cache(maxsize=8)
def _rays(height: int, width: int) -> tuple[Floats, tuple[Floats, Floats, Floats]]:
    """`(H * W, 6)` rays from the origin, and the columns of their directions."""
    unit = directions(height, width).reshape(-1, 3).astype(np.float32)
    rays = np.zeros((len(unit), 6), np.float32)
    rays[:, 3:] = unit
    x, y, z = (np.ascontiguousarray(unit[:, k]) for k in range(3))
    return rays, (x, y, z)


def render_top_down(house: House, pixels_per_metre: float = 60.0) -> NDArray[np.uint8]:
    """Picture of a house from above, its ceiling taken off, for people.

    Args:
        house: what to draw.
        pixels_per_metre: resolution.

    Returns:
        `(H, W, 3)` uint8; x to the right, y up.

    Raises:
        ValueError: for a resolution that is not positive.
    """
    if not (pixels_per_metre > 0 and math.isfinite(pixels_per_metre)):
        raise ValueError(f"pixels_per_metre must be positive, got {pixels_per_metre}")
    simulator = ProceduralSimulator(house)
    outline = house.plan.outline.inset(-0.15)
    width, height = (max(1, round(extent * pixels_per_metre)) for extent in outline.size)
    x = outline.x0 + (np.arange(width) + 0.5) / pixels_per_metre
    y = outline.y1 - (np.arange(height) + 0.5) / pixels_per_metre
    top = house.plan.height - 0.2
    rays = np.zeros((height, width, 6), np.float32)
    rays[..., 0], rays[..., 1], rays[..., 2], rays[..., 5] = x, y[:, None], top, -1.0
    flat = rays.reshape(-1, 6)
    rgb = simulator.shade_rays(flat).reshape(height, width, 3)
    inside = np.zeros((height, width), bool)
    for room in house.rooms:
        rect = room.clear
        inside |= ((x >= rect.x0) & (x <= rect.x1)) & ((y >= rect.y0) & (y <= rect.y1))[:, None]
    for door in house.plan.doors:
        rect = door.gap(0.07)
        inside |= ((x >= rect.x0) & (x <= rect.x1)) & ((y >= rect.y0) & (y <= rect.y1))[:, None]
    rgb[~inside] = (58, 58, 64)
    simulator.close()
    return rgb
