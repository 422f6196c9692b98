"""Perspective views out of a panorama: any camera that stands where it was taken."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from world_models.pathdreamer.guidance import PanoramaLike


@dataclass(frozen=True)
class PerspectiveCamera:
    """A pinhole camera at the centre of a panorama.

    Attributes:
        yaw: radians, counter-clockwise from +x, where the camera looks.
        pitch: radians, up is positive.
        hfov: horizontal field of view in radians.
        size: `(height, width)` in pixels, which are square.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    hfov: float = math.pi / 2
    size: tuple[int, int] = (240, 320)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: for a value out of range.
        """
        if not (math.isfinite(self.yaw) and abs(self.pitch) <= math.pi / 2):
            raise ValueError(f"yaw must be finite, pitch in [-pi/2, pi/2], got {self}")
        if not 0.01 <= self.hfov <= 3.1:
            raise ValueError(f"hfov must be in [0.01, 3.1] rad, got {self.hfov}")
        if min(self.size) < 1:
            raise ValueError(f"size must be at least one pixel, got {self.size}")

    def axes(self) -> NDArray[np.float64]:
        """`(3, 3)`: right, down and forward in the world frame, one a row."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        up, level = math.sin(self.pitch), math.cos(self.pitch)
        forward = np.array([level * cos, level * sin, up])
        right = np.array([sin, -cos, 0.0])
        return np.stack([right, np.cross(forward, right), forward])

    def rays(self) -> NDArray[np.float64]:
        """`(H, W, 3)` in the world frame, of unit length along the optical axis."""
        height, width = self.size
        focal = 0.5 * width / math.tan(0.5 * self.hfov)
        x = (np.arange(width) + 0.5 - 0.5 * width) / focal
        y = (np.arange(height) + 0.5 - 0.5 * height) / focal
        right, down, forward = self.axes()
        return x[None, :, None] * right + y[:, None, None] * down + forward


@dataclass(frozen=True)
class View:
    """A perspective picture.

    Attributes:
        rgb: `(H, W, 3)` uint8.
        semantic: `(H, W)` uint8.
        depth: `(H, W)` float32 metres along the optical axis (REP-118); NaN where there is none.
    """

    rgb: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    depth: NDArray[np.float32]


def perspective(panorama: PanoramaLike, camera: PerspectiveCamera) -> View:
    """What `camera` sees of a panorama: colours between pixels, classes and depth of the nearest.

    Args:
        panorama: `(H, W, 3)`, `(H, W)`, `(H, W)`; depth along the ray, 0 where there is none.
        camera: where to look.
    """
    height, width = panorama.depth.shape
    rays = camera.rays()
    length = np.linalg.norm(rays, axis=-1)
    column = (math.pi - np.arctan2(rays[..., 1], rays[..., 0])) * width / (2 * math.pi) - 0.5
    row = np.arccos(np.clip(rays[..., 2] / length, -1.0, 1.0)) * height / math.pi - 0.5
    i = np.clip(np.rint(row).astype(int), 0, height - 1)
    j = np.rint(column).astype(int) % width
    along = panorama.depth[i, j]
    depth = np.where(along > 0, along / length, np.nan).astype(np.float32)
    return View(_between(panorama.rgb, row, column), panorama.semantic[i, j], depth)


def _between(
    rgb: NDArray[np.uint8], row: NDArray[np.float64], column: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Bilinear, round the seam."""
    height, width = rgb.shape[:2]
    row = np.clip(row, 0, height - 1)
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    down, over = (row - top)[..., None], (column - left)[..., None]
    bottom, right = np.minimum(top + 1, height - 1), (left + 1) % width
    left %= width
    upper = rgb[top, left] * (1 - over) + rgb[top, right] * over
    lower = rgb[bottom, left] * (1 - over) + rgb[bottom, right] * over
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)
