"""Cameras: one for policies, one for films. TinyRenderer, which needs neither screen nor GPU.

Bullet's EGL plugin is not used: under 240x320 it is slower on a CPU, and it silently draws nothing
that was created before it was loaded.
"""

import math
from collections.abc import Sequence

import numpy as np
import pybullet
from numpy.typing import NDArray
from pybullet_utils.bullet_client import BulletClient

POLICY_EYE = (0.60, 0.0, 1.05)
POLICY_TARGET = (0.405, 0.0, 0.0)
POLICY_FIELD_OF_VIEW = (27.0, 47.0)
"""Vertical and horizontal, degrees. Steep, from the far side, so that the cylinder hides nothing it
pushes away from the robot. Wide, because the workspace is: a square image then has rectangular
pixels (5 by 9 mm at 96x96), twice as fine along x as square ones that show as much along y."""
BACKGROUND = (226, 230, 235)
"""What is seen beside the table: darker than the white arm."""
FILM_EYE = (1.36, -0.34, 0.88)
FILM_TARGET = (0.28, 0.0, 0.195)
"""Seen from the far side of the table, so that the whole arm is in the picture."""


def render(
    client: BulletClient,
    size: tuple[int, int],
    eye: Sequence[float],
    target: Sequence[float],
    light: Sequence[float] = (0.6, 0.4, 1.6),
    field_of_view: float | tuple[float, float] = POLICY_FIELD_OF_VIEW,
) -> NDArray[np.uint8]:
    """Picture of the scene.

    Args:
        client: Bullet server.
        size: `(height, width)` in pixels.
        eye: camera position, metres, world frame; image up is away from it.
        target: point looked at.
        light: direction towards the light.
        field_of_view: vertical and horizontal, degrees; one number is vertical, with square pixels.

    Returns:
        `(height, width, 3)` uint8 RGB.
    """
    height, width = size
    if isinstance(field_of_view, tuple):
        vertical, horizontal = (math.radians(angle / 2) for angle in field_of_view)
        aspect = math.tan(horizontal) / math.tan(vertical)
        vertical_degrees = field_of_view[0]
    else:
        vertical_degrees, aspect = field_of_view, width / height
    _, _, rgba, depth, _ = client.getCameraImage(
        width,
        height,
        client.computeViewMatrix(eye, target, (0, 0, 1)),
        client.computeProjectionMatrixFOV(vertical_degrees, aspect, 0.2, 4.0),
        lightDirection=list(light),
        lightAmbientCoeff=0.75,
        lightDiffuseCoeff=0.35,
        lightSpecularCoeff=0.05,
        shadow=0,  # They double the cost, and at the scale of a table fall in the wrong places.
        flags=pybullet.ER_NO_SEGMENTATION_MASK,
        renderer=pybullet.ER_TINY_RENDERER,
    )
    image = np.array(np.asarray(rgba, dtype=np.uint8).reshape(height, width, 4)[..., :3])
    image[np.asarray(depth).reshape(height, width) > 0.9999] = BACKGROUND
    return image
