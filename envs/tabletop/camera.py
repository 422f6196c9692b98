"""Cameras: for policies, for films, and one that measures. TinyRenderer: neither screen nor GPU.

Bullet's EGL plugin is not used: under 240x320 it is slower on a CPU, and it silently draws nothing
that was created before it was loaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
LIGHT = (0.6, 0.4, 1.6)
"""Direction towards the light."""
_NEAR, _FAR = 0.2, 4.0
_BEYOND = 0.9999
"""Depth buffer of what is seen beside the table: behind the far plane."""


@dataclass(frozen=True, eq=False)
class PinholeCamera:
    """A camera without distortion, in the convention of ROS.

    The camera's frame is optical: z forward, x right, y down. A point `(x, y, z)` of it appears at
    column `fx x / z + cx` and row `fy y / z + cy`, where whole numbers are centres of pixels.

    Attributes:
        height: rows.
        width: columns.
        fx: focal length in columns.
        fy: focal length in rows.
        cx: column of the optical axis.
        cy: row of the optical axis.
        T_world_camera: `(4, 4)`, maps camera points to world, metres; read-only.
    """

    height: int
    width: int
    fx: float
    fy: float
    cx: float
    cy: float
    T_world_camera: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Reject what no camera is."""
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a picture needs rows and columns, got {self.height}, {self.width}")
        if not (self.fx > 0.0 and self.fy > 0.0):
            raise ValueError(f"focal lengths must be positive, got {self.fx} and {self.fy}")
        pose = np.array(self.T_world_camera, dtype=np.float64)
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise ValueError(f"T_world_camera must be (4, 4) and finite, got {pose.tolist()}")
        pose.setflags(write=False)
        object.__setattr__(self, "T_world_camera", pose)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """`(3, 3)` camera matrix, the K of a ROS CameraInfo."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @classmethod
    def look_at(
        cls,
        eye: Sequence[float],
        target: Sequence[float],
        size: tuple[int, int],
        field_of_view: float,
    ) -> PinholeCamera:
        """Camera with square pixels, the optical axis through the middle of the picture.

        Args:
            eye: position, metres, world frame.
            target: point looked at, not straight above or below; world z is up in the picture.
            size: `(height, width)` in pixels.
            field_of_view: vertical, degrees.

        Raises:
            ValueError: if the direction does not say what is up, or the angle is impossible.
        """
        if not 0.0 < field_of_view < 180.0:
            raise ValueError(f"field_of_view must be in (0, 180) degrees, got {field_of_view}")
        forward = np.subtract(target, eye).astype(np.float64)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        if np.linalg.norm(right) < 1e-6:
            raise ValueError(f"eye {eye} and target {target} must differ in x or y")
        forward /= np.linalg.norm(forward)
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
        pose[:3, 3] = eye
        height, width = size
        focal = height / 2 / math.tan(math.radians(field_of_view) / 2)
        return cls(height, width, focal, focal, (width - 1) / 2, (height - 1) / 2, pose)


ROBOT_CAMERA = PinholeCamera.look_at((0.62, 0.0, 1.25), (0.41, 0.0, 0.0), (480, 640), 36.0)
"""The camera of the simulated robot. Steep and from the far side like the policy's, and further up
than it must be, because the 12 cm cylinder leans outwards less over the blocks the higher the eye.
The whole workspace is in view at 1.7 mm per pixel."""


def rgbd(
    client: BulletClient, camera: PinholeCamera, light: Sequence[float] = LIGHT
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Colour and depth of the scene, registered to each other.

    Args:
        client: Bullet server.
        camera: intrinsics and pose.
        light: direction towards the light.

    Returns:
        `(H, W, 3)` uint8 RGB, and `(H, W)` float32 depth along the optical axis in metres (as
        REP-118 has it), NaN beyond the table.
    """
    image, depth, _ = _measure(client, camera, light, pybullet.ER_NO_SEGMENTATION_MASK)
    return image, depth


def rgbd_ids(
    client: BulletClient, camera: PinholeCamera, light: Sequence[float] = LIGHT
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """What `rgbd` gives, and `(H, W)` int64 the body that each pixel shows, -1 for none."""
    image, depth, seen = _measure(client, camera, light, 0)
    return image, depth, np.asarray(seen, np.int64).reshape(depth.shape)


def _measure(
    client: BulletClient, camera: PinholeCamera, light: Sequence[float], flags: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], Any]:
    """Colour, depth and Bullet's numbers of bodies."""
    T_optical_world = np.linalg.inv(camera.T_world_camera)
    # OpenGL's camera looks along -z with y up.
    view = np.diag([1.0, -1.0, -1.0, 1.0]) @ T_optical_world
    image, buffer, seen = _draw(
        client,
        (camera.height, camera.width),
        view.T.ravel().tolist(),
        _projection(camera).T.ravel().tolist(),
        light,
        flags,
    )
    # The buffer is OpenGL's: affine in 1 / depth.
    depth = _NEAR * _FAR / (_FAR - np.asarray(buffer, np.float64) * (_FAR - _NEAR))
    depth[buffer > _BEYOND] = np.nan
    return image, depth.astype(np.float32), seen


def _projection(camera: PinholeCamera) -> NDArray[np.float64]:
    """`(4, 4)` OpenGL projection that makes TinyRenderer obey the camera's intrinsics.

    TinyRenderer asks for the colour of a pixel at its lower left corner, in a picture that it draws
    upside down and turns over afterwards: column u and row v hold what OpenGL puts at u and
    H - 1 - v from the lower left corner. Without a correction everything lies half a pixel off in
    both directions, on this table 0.9 mm.
    """
    height, width = camera.height, camera.width
    matrix = np.zeros((4, 4))
    matrix[0, 0] = 2 * camera.fx / width
    matrix[0, 2] = 1.0 - 2 * camera.cx / width
    matrix[1, 1] = 2 * camera.fy / height
    matrix[1, 2] = 2 * (camera.cy + 1.0) / height - 1.0
    matrix[2, 2] = -(_FAR + _NEAR) / (_FAR - _NEAR)
    matrix[2, 3] = -2 * _FAR * _NEAR / (_FAR - _NEAR)
    matrix[3, 2] = -1.0
    return matrix


def render(
    client: BulletClient,
    size: tuple[int, int],
    eye: Sequence[float],
    target: Sequence[float],
    light: Sequence[float] = LIGHT,
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
    return _draw(
        client,
        size,
        client.computeViewMatrix(eye, target, (0, 0, 1)),
        client.computeProjectionMatrixFOV(vertical_degrees, aspect, _NEAR, _FAR),
        light,
    )[0]


def _draw(
    client: BulletClient,
    size: tuple[int, int],
    view: Sequence[float],
    projection: Sequence[float],
    light: Sequence[float],
    flags: int = pybullet.ER_NO_SEGMENTATION_MASK,
) -> tuple[NDArray[np.uint8], NDArray[Any], Any]:
    """Colour, depth buffer and numbers of bodies under OpenGL matrices in column order."""
    height, width = size
    _, _, rgba, buffer, seen = client.getCameraImage(
        width,
        height,
        view,
        projection,
        lightDirection=list(light),
        lightAmbientCoeff=0.75,
        lightDiffuseCoeff=0.35,
        lightSpecularCoeff=0.05,
        shadow=0,  # They double the cost, and at the scale of a table fall in the wrong places.
        flags=flags,
        renderer=pybullet.ER_TINY_RENDERER,
    )
    image = np.array(np.asarray(rgba, dtype=np.uint8).reshape(height, width, 4)[..., :3])
    buffer = np.asarray(buffer).reshape(height, width)
    image[buffer > _BEYOND] = BACKGROUND
    return image, buffer, seen
