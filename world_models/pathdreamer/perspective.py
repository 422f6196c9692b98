"""Perspective views out of a panorama: any camera that stands where it was taken."""

import math
from collections.abc import Sequence
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
        hfov: horizontal field of view in radians; left aside where there are `intrinsics`.
        size: `(height, width)` in pixels.
        roll: radians about the optical axis; positive lowers the right side (REP-103).
        intrinsics: `(fx, fy, cx, cy)` in pixels, the middle of the first one being (0, 0) as in
            ROS; None is square pixels of `hfov` with the principal point in the middle.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    hfov: float = math.pi / 2
    size: tuple[int, int] = (240, 320)
    roll: float = 0.0
    intrinsics: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: for a value out of range.
        """
        if not (math.isfinite(self.yaw) and abs(self.pitch) <= math.pi / 2):
            raise ValueError(f"yaw must be finite, pitch in [-pi/2, pi/2], got {self}")
        if not math.isfinite(self.roll):
            raise ValueError(f"roll must be finite, got {self.roll}")
        if not 0.01 <= self.hfov <= 3.1:
            raise ValueError(f"hfov must be in [0.01, 3.1] rad, got {self.hfov}")
        if min(self.size) < 1:
            raise ValueError(f"size must be at least one pixel, got {self.size}")
        if self.intrinsics is not None and not (
            len(self.intrinsics) == 4
            and min(self.intrinsics[:2]) > 0
            and all(map(math.isfinite, self.intrinsics))
        ):
            raise ValueError(
                f"intrinsics must be finite fx > 0, fy > 0, cx, cy in pixels, got {self.intrinsics}"
            )

    @classmethod
    def from_k(
        cls,
        k: Sequence[float] | NDArray[np.floating],
        size: tuple[int, int],
        *,
        yaw: float = 0.0,
        pitch: float = 0.0,
        roll: float = 0.0,
    ) -> "PerspectiveCamera":
        """A camera as ROS describes it.

        Args:
            k: `sensor_msgs/CameraInfo.k`, row by row, or the `(3, 3)` matrix.
            size: its height and width.
            yaw: see above.
            pitch: see above.
            roll: see above.

        Raises:
            ValueError: for a matrix of another form, or a value out of range.
        """
        values = np.asarray(k, float)
        if values.size != 9:
            raise ValueError(f"K must be 9 numbers, row by row, got shape {values.shape}")
        fx, skew, cx, a, fy, cy, *last = values.ravel().tolist()
        if (skew, a, *last) != (0, 0, 0, 0, 1):
            raise ValueError(
                f"K must be [fx, 0, cx, 0, fy, cy, 0, 0, 1], got {values.ravel().tolist()}; "
                "a camera with skew has to be rectified first"
            )
        return cls(yaw, pitch, size=size, roll=roll, intrinsics=(fx, fy, cx, cy))

    @property
    def k(self) -> NDArray[np.float64]:
        """`(3, 3)`: optical coordinates (x right, y down, z forward) to pixels, as in ROS."""
        height, width = self.size
        focal = 0.5 * width / math.tan(0.5 * self.hfov)
        middle = (focal, focal, 0.5 * (width - 1), 0.5 * (height - 1))
        fx, fy, cx, cy = self.intrinsics or middle
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    def axes(self) -> NDArray[np.float64]:
        """`(3, 3)`: right, down and forward in the world frame, one a row."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        up, level = math.sin(self.pitch), math.cos(self.pitch)
        forward = np.array([level * cos, level * sin, up])
        right = np.array([sin, -cos, 0.0])
        down = np.cross(forward, right)
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        return np.stack([cos * right + sin * down, cos * down - sin * right, forward])

    def rays(self) -> NDArray[np.float64]:
        """`(H, W, 3)` in the world frame, of unit length along the optical axis."""
        height, width = self.size
        k = self.k
        x = (np.arange(width) - k[0, 2]) / k[0, 0]
        y = (np.arange(height) - k[1, 2]) / k[1, 1]
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
