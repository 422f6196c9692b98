"""Things on the table of the rendered scenes: what they are made of, and what each split may use.

The meshes come with the PyBullet wheel (its `pybullet_data`) and are read from there; none is part
of this repository. The domino asks to be cited with PyBullet (Coumans and Bai, 2016-2019).
"""

import colorsys
import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pybullet
import pybullet_data
from numpy.typing import NDArray
from pybullet_utils.bullet_client import BulletClient

from envs.tabletop.insertion import slot_boxes
from envs.tabletop.scene import BLOCK_FRICTION, BLOCK_MASS, yaw_quaternion

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Color = tuple[float, float, float]
N_SHAPES = 1000
"""Shapes in `random_urdfs`."""
N_COLORS = 600
_SHARES = {"train": range(8), "validation": range(8, 9), "test": range(9, 10)}
"""Last digits of the ids of shapes and colours that a split draws from."""
SOURCE = (
    "Synthetic: tabletop scenes rendered with PyBullet's TinyRenderer from the meshes of its "
    "pybullet_data wheel (zlib licence; the domino by E. Coumans, to be cited with PyBullet)"
)
"""What pictures of these things are."""
_UPRIGHT = math.pi / 2


@dataclass(frozen=True)
class Kind:
    """One kind of main thing.

    Attributes:
        mesh: file below `pybullet_data`.
        extent: metres along the mesh's own axes before it is turned; one number is the longest.
        turn: about x, that makes it stand, rad.
        texture: whether the mesh has its own colours; others are painted.
    """

    mesh: str
    extent: float | tuple[float, float, float]
    turn: float = 0.0
    texture: bool = True


KINDS: dict[str, Kind] = {
    "duck": Kind("duck.obj", 0.10, _UPRIGHT),
    "teddy": Kind("teddy2_VHACD_CHs.obj", 0.11, _UPRIGHT, texture=False),
    "mug": Kind("objects/mug.obj", 0.09, texture=False),
    "ball": Kind("soccerball.obj", 0.07),
    "domino": Kind("domino/domino.obj", 0.095, -_UPRIGHT),
    "ring": Kind("torus/torus_textured.obj", 0.085, _UPRIGHT),
    "bunny": Kind("bunny.obj", 0.115, _UPRIGHT, texture=False),
    "tray": Kind("tray/tray_textured.obj", 0.115),
    "cube": Kind("toys/shape_sorter.obj", 0.065, texture=False),
    "plank": Kind("jenga/jenga.obj", (0.105, 0.035, 0.021)),
}
"""What the main thing can be. A cube has the holes of a shape sorter, a plank is one of Jenga."""


def ids(split: Split, n: int) -> NDArray[np.int64]:
    """Ids below `n` that a split may draw: eight tenths for training, one for each of the others.

    Raises:
        ValueError: for an unknown split.
    """
    if split not in _SHARES:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    every = np.arange(n)
    return every[np.isin(every % 10, list(_SHARES[split]))]


def color(number: int, *, pale: bool = False) -> Color:
    """RGB from 0 to 1 of a colour's id: hues one golden angle apart, of several strengths.

    Args:
        number: id below `N_COLORS`.
        pale: as tables are, not things.
    """
    hue = number * 0.61803399 % 1.0
    strength, value = (number * 0.754878 % 1.0), (number * 0.569840 % 1.0)
    if pale:
        return colorsys.hsv_to_rgb(hue, 0.35 * strength, 0.45 + 0.45 * value)
    return colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * strength, 0.55 + 0.4 * value)


def contrast(first: Sequence[float], second: Sequence[float]) -> float:
    """Distance of two colours, from 0 to the square root of 3."""
    return float(np.linalg.norm(np.subtract(first, second)))


class Bodies:
    """Adds things to a Bullet client, and tells where they are."""

    def __init__(self, client: BulletClient) -> None:
        """Remember the client; nothing is loaded."""
        self.client: Any = client

    def table(self) -> int:
        """Add what things stand on, z = 0: it is felt, and the picture paints it (see `View`)."""
        client = self.client
        shape = client.createCollisionShape(pybullet.GEOM_PLANE)
        body = client.createMultiBody(0.0, shape)
        client.changeDynamics(body, -1, lateralFriction=1.0)
        return body

    def kind(self, name: str, scale: float, paint: Color) -> int:
        """Add a main thing standing at the origin.

        Args:
            name: key of `KINDS`.
            scale: of its size, around 1.
            paint: colour; textured ones take it faintly.
        """
        kind = KINDS[name]
        own = _extent(kind.mesh)
        wanted = np.asarray(kind.extent, float)
        factors = wanted / own if wanted.ndim else np.full(3, float(wanted) / own.max())
        tint = tuple(0.88 + 0.12 * c for c in paint) if kind.texture else paint
        turn = self.client.getQuaternionFromEuler((kind.turn, 0.0, 0.0))
        return self._mesh(kind.mesh, scale * factors, (*tint, 1.0), turn)

    def shape(self, number: int, size: float, paint: Color) -> int:
        """Add a distractor: shape `number` of `random_urdfs`, `size` metres long."""
        mesh = f"random_urdfs/{number:03d}/{number:03d}.obj"
        factor = size / _extent(mesh).max()
        return self._mesh(mesh, np.full(3, factor), (*paint, 1.0), [0.0, 0.0, 0.0, 1.0])

    def block(self, half: Sequence[float], paint: Color) -> int:
        """Add a block, half extents in metres."""
        client = self.client
        body = client.createMultiBody(
            BLOCK_MASS,
            client.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half),
            client.createVisualShape(pybullet.GEOM_BOX, halfExtents=half, rgbaColor=(*paint, 1.0)),
        )
        client.changeDynamics(body, -1, lateralFriction=BLOCK_FRICTION, spinningFriction=5e-4)
        return body

    def fixture(self, clearance: float, paint: Color, xy: Sequence[float], heading: float) -> int:
        """Add the slot of BlockInsertion, its mouth at `xy`; `clearance` in metres per side."""
        client, boxes = self.client, slot_boxes(clearance)
        n, halves = len(boxes), [box.half for box in boxes]
        centers = [box.center for box in boxes]
        turns = [yaw_quaternion(box.yaw) for box in boxes]
        body = client.createMultiBody(
            0.0,
            client.createCollisionShapeArray(
                shapeTypes=[pybullet.GEOM_BOX] * n,
                halfExtents=halves,
                collisionFramePositions=centers,
                collisionFrameOrientations=turns,
            ),
            client.createVisualShapeArray(
                shapeTypes=[pybullet.GEOM_BOX] * n,
                halfExtents=halves,
                visualFramePositions=centers,
                visualFrameOrientations=turns,
                rgbaColors=[(*paint, 1.0)] * n,
            ),
            [*xy, 0.0],
            yaw_quaternion(heading),
        )
        client.changeDynamics(body, -1, lateralFriction=0.3)
        return body

    def put(self, body: int, xy: Sequence[float], yaw: float, above: float = 0.001) -> None:
        """Turn a body about z and put the middle of its footprint at xy, its foot above the table.

        Args:
            body: id.
            xy: metres, world.
            yaw: added to how it stands, rad.
            above: of its lowest point over the table, metres.
        """
        client = self.client
        turn = client.getBasePositionAndOrientation(body)[1]
        turn = client.multiplyTransforms((0, 0, 0), yaw_quaternion(yaw), (0, 0, 0), turn)[1]
        client.resetBasePositionAndOrientation(body, (0, 0, 0), turn)
        low, high = self.box(body)
        middle = (low + high) / 2
        # Meshes have their origins anywhere; the base moves as the box does.
        shift = np.array([xy[0] - middle[0], xy[1] - middle[1], above - low[2]])
        base = np.array(client.getBasePositionAndOrientation(body)[0])
        client.resetBasePositionAndOrientation(body, (base + shift).tolist(), turn)

    def box(self, body: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest corner of what a body fills, metres."""
        low, high = self.client.getAABB(body)
        return np.array(low), np.array(high)

    def radius(self, body: int) -> float:
        """Of a circle about its footprint that contains it at any yaw, metres."""
        low, high = self.box(body)
        return float(np.linalg.norm(high[:2] - low[:2]) / 2)

    def settle(self, bodies: Sequence[int], n_steps: int = 480) -> bool:
        """Let physics run until all rest; False if they do not within `n_steps` of 1/240 s."""
        client = self.client
        for step in range(1, n_steps + 1):
            client.stepSimulation()
            if step >= 60 and step % 20 == 0 and all(self._rests(body) for body in bodies):
                return True
        return not bodies

    def _rests(self, body: int) -> bool:
        linear, angular = self.client.getBaseVelocity(body)
        return math.dist(linear, (0, 0, 0)) < 0.004 and math.dist(angular, (0, 0, 0)) < 0.1

    def _mesh(
        self, mesh: str, factors: NDArray[np.float64], rgba: Sequence[float], turn: Sequence[float]
    ) -> int:
        client, file = self.client, _path(mesh)
        scale = factors.tolist()
        body = client.createMultiBody(
            0.1,
            client.createCollisionShape(pybullet.GEOM_MESH, fileName=file, meshScale=scale),
            client.createVisualShape(
                pybullet.GEOM_MESH, fileName=file, meshScale=scale, rgbaColor=rgba
            ),
            (0, 0, 0),
            turn,
        )
        # Rolling friction, or balls would leave the picture.
        client.changeDynamics(
            body,
            -1,
            lateralFriction=0.8,
            rollingFriction=0.002,
            spinningFriction=0.002,
            linearDamping=0.2,
            angularDamping=0.4,
        )
        return body


def _path(mesh: str) -> str:
    return os.path.join(pybullet_data.getDataPath(), mesh)


@functools.cache
def _extent(mesh: str) -> NDArray[np.float64]:
    """Metres along the mesh's own axes at scale 1, read from its vertices; read-only."""
    with open(_path(mesh), encoding="utf-8", errors="replace") as file:
        rows = [line.split()[1:4] for line in file if line.startswith("v ")]
    extent = np.ptp(np.array(rows, float), axis=0)
    extent.setflags(write=False)
    return extent


__all__ = [
    "KINDS",
    "N_COLORS",
    "N_SHAPES",
    "SOURCE",
    "SPLITS",
    "Bodies",
    "Color",
    "Kind",
    "Split",
    "color",
    "contrast",
    "ids",
]
