"""Cameras: one for policies, one for films. TinyRenderer, which needs neither screen nor GPU.

Bullet's EGL plugin is not used: under 240x320 it is slower on a CPU, and it silently draws nothing
that was created before it was loaded.
"""

from collections.abc import Sequence

import numpy as np
import pybullet
from numpy.typing import NDArray
from pybullet_utils.bullet_client import BulletClient

POLICY_EYE = (0.78, 0.0, 0.86)
POLICY_TARGET = (0.405, 0.0, 0.0)
FILM_EYE = (0.98, -0.42, 0.62)
FILM_TARGET = (0.38, 0.0, 0.02)


def render(
    client: BulletClient,
    size: tuple[int, int],
    eye: Sequence[float],
    target: Sequence[float],
    light: Sequence[float] = (0.6, 0.4, 1.6),
    field_of_view: float = 52.0,
    shadow: bool = False,
) -> NDArray[np.uint8]:
    """Picture of the scene.

    Args:
        client: Bullet server.
        size: `(height, width)` in pixels.
        eye: camera position, metres, world frame; image up is away from it.
        target: point looked at.
        light: direction towards the light.
        field_of_view: vertical, degrees.
        shadow: whether shadows are drawn (a third dearer).

    Returns:
        `(height, width, 3)` uint8 RGB.
    """
    height, width = size
    _, _, rgba, _, _ = client.getCameraImage(
        width,
        height,
        client.computeViewMatrix(eye, target, (0, 0, 1)),
        client.computeProjectionMatrixFOV(field_of_view, width / height, 0.05, 4.0),
        lightDirection=list(light),
        shadow=int(shadow),
        flags=pybullet.ER_NO_SEGMENTATION_MASK,
        renderer=pybullet.ER_TINY_RENDERER,
    )
    return np.ascontiguousarray(
        np.asarray(rgba, dtype=np.uint8).reshape(height, width, 4)[..., :3]
    )
