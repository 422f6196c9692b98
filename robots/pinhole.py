"""Between pixels and points: a pinhole camera without distortion. NumPy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unproject(depth: NDArray[np.floating], intrinsics: Array, T_world_camera: Array) -> Array:
    """World points that the pixels of a depth picture see.

    Args:
        depth: `(H, W)` along the optical axis, metres; NaN stays NaN.
        intrinsics: `(3, 3)` camera matrix without skew; pixel centres are whole numbers.
        T_world_camera: `(4, 4)`, maps (optical) camera points to world.

    Returns:
        `(H, W, 3)` points, world frame, metres.

    Raises:
        ValueError: for other shapes.
    """
    intrinsics, T_world_camera = checked_camera(intrinsics, T_world_camera)
    if np.ndim(depth) != 2:
        raise ValueError(f"depth must be (H, W), got {np.shape(depth)}")
    height, width = depth.shape
    x = (np.arange(width) - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (np.arange(height) - intrinsics[1, 2]) / intrinsics[1, 1]
    rotation, origin = T_world_camera[:3, :3], T_world_camera[:3, 3]
    points = np.empty((height, width, 3))
    for i, (along_x, along_y, along_z) in enumerate(rotation):
        ray = (along_x * x)[None, :] + (along_y * y + along_z)[:, None]
        np.multiply(ray, depth, out=ray)
        np.add(ray, origin[i], out=points[..., i])
    return points


def project(points: Array, intrinsics: Array, T_world_camera: Array) -> Array:
    """Pixels at which world points appear.

    Args:
        points: `(..., 3)` world points, metres, in front of the camera.
        intrinsics: `(3, 3)` camera matrix.
        T_world_camera: `(4, 4)`, maps (optical) camera points to world.

    Returns:
        `(..., 2)` column and row; NaN for points that are not in front of the camera.

    Raises:
        ValueError: for other shapes.
    """
    intrinsics, T_world_camera = checked_camera(intrinsics, T_world_camera)
    if np.shape(points)[-1:] != (3,):
        raise ValueError(f"points must be (..., 3), got {np.shape(points)}")
    seen = (points - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
    z = np.where(seen[..., 2] > 0, seen[..., 2], np.nan)
    focal, center = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    return seen[..., :2] / z[..., None] * focal + center


def checked_camera(intrinsics: Array, T_world_camera: Array) -> tuple[Array, Array]:
    """Both as arrays of float64; raises `ValueError` for other shapes."""
    intrinsics = np.asarray(intrinsics, np.float64)
    T_world_camera = np.asarray(T_world_camera, np.float64)
    if intrinsics.shape != (3, 3) or not (intrinsics[[0, 1], [0, 1]] > 0).all():
        raise ValueError(f"intrinsics must be (3, 3) with focal lengths, got {intrinsics.tolist()}")
    if T_world_camera.shape != (4, 4) or not np.isfinite(T_world_camera).all():
        raise ValueError(f"T_world_camera must be (4, 4) and finite, got {T_world_camera.tolist()}")
    return intrinsics, T_world_camera
