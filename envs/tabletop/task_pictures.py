"""Pictures of a table with what five perception tasks are to say of them, rendered.

`segmentation`: what each pixel shows. `depth`: how far it is. `normals`: which way the surface
faces. `edges`: where one thing ends and another, or the table, begins. `count`: how many things are
seen. All of them follow from the bodies and the distances that the renderer gives.

Picture k is a function of the configuration and k alone. Splits share no scene and no colour, but
for the colours that meshes have of their own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.bullet_scenes import BulletScenes
from envs.tabletop.camera import PinholeCamera, rgbd_ids
from envs.tabletop.clutter_bodies import KINDS, N_COLORS, Bodies, Color, Split, color, contrast, ids
from envs.tabletop.clutter_view import FIELD_OF_VIEW, View, draw_table, draw_view, photograph
from envs.tabletop.instance_pictures import check_pictures, instances, picture_rng
from envs.tabletop.push import BLOCK

CLASSES: tuple[str, ...] = ("table", *KINDS, "block")
"""What a pixel can show."""
THINGS = (1, 6)
_STREAM = 23
"""Spawn key of these scenes: apart from 20 to 22 of the other pictures of a table."""
_ATTEMPTS = 100
_CENTER = np.array([0.40, 0.0])
_DISTANCE = (0.45, 0.65)
"""Of the camera, metres."""


@dataclass(frozen=True)
class TaskPictureConfig:
    """Which scenes.

    Attributes:
        size: pixels of a side.
        split: `train`, `validation` or `test`.
        seed: of all pictures.
        things: least and most things put on the table; fewer may be seen.
        min_share: least share of the picture that a thing fills. What shows less of itself is not
            counted, and its pixels count as table in `segmentation`.
    """

    size: int = 64
    split: Split = "train"
    seed: int = 0
    things: tuple[int, int] = THINGS
    min_share: float = 0.003

    def __post_init__(self) -> None:
        """Reject what cannot be drawn."""
        check_pictures(self.size, self.split, self.seed, self.min_share)
        if not 1 <= self.things[0] <= self.things[1] <= 8:
            raise ValueError(f"things must be a range within 1 to 8, got {self.things}")


@dataclass(frozen=True)
class TaskPicture:
    """A picture and its targets.

    Attributes:
        image: `(H, W, 3)` uint8 RGB.
        segmentation: `(H, W)` uint8, index in `CLASSES`.
        depth: `(H, W)` float32 along the optical axis, metres.
        normals: `(H, W, 3)` float32 unit vectors out of the surface in the camera's optical frame
            (x right, y down, z forward), so z is negative or 0.
        edges: `(H, W)` bool: a pixel above, below, left or right shows another body.
        count: things that fill their share of the picture.
    """

    image: NDArray[np.uint8]
    segmentation: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    edges: NDArray[np.bool_]
    count: int


class TaskScenes(BulletScenes):
    """Draws the pictures, with a Bullet client of its own; close it, or use it in a `with`."""

    def __init__(self, config: TaskPictureConfig) -> None:
        """Connect; nothing is loaded."""
        self.config = config
        super().__init__()
        self._colors = ids(config.split, N_COLORS)

    def draw(self, k: int) -> TaskPicture:
        """Picture k, 0 or more, in which something is seen."""
        config = self.config
        rng = picture_rng(_STREAM, config.split, config.seed, k)
        n = int(rng.integers(config.things[0], config.things[1] + 1))
        kinds = rng.integers(1, len(CLASSES), size=n)
        for attempt in range(_ATTEMPTS):
            again = picture_rng(_STREAM, config.split, config.seed, k, attempt)
            picture = self._try(kinds, again)
            if picture is not None:
                return picture
        names = ", ".join(CLASSES[kind] for kind in kinds)
        raise RuntimeError(f"picture {k} could not be laid out in {_ATTEMPTS} attempts: {names}")

    def _try(self, kinds: NDArray[np.int64], rng: np.random.Generator) -> TaskPicture | None:
        """One layout; None where it does not come to rest or nothing is seen."""
        config, client = self.config, self._client
        bodies = Bodies(_emptied(client))
        bodies.table()
        table = draw_table(rng, (self._color(rng, pale=True), self._color(rng, pale=True)))
        classes = {self._add(bodies, kind, table.colors, rng): kind for kind in kinds.tolist()}
        _lay(bodies, list(classes), rng)
        if not bodies.settle(list(classes), 360):
            return None
        view = draw_view(rng, _DISTANCE)
        boxes = [bodies.box(body) for body in classes]
        image, _ = photograph(client, view, table, config.size, rng, (), boxes)
        camera = _camera(view, config.size)
        _, depth, seen = rgbd_ids(client, camera)
        seen = np.where(np.isin(seen, list(classes)), seen, 0)
        depth = np.where(seen > 0, depth, table_depth(camera)).astype(np.float32)
        numbers, found = instances(seen, classes, config.min_share)
        if not len(found):
            return None
        shown = np.concatenate([[0], found]).astype(np.uint8)[numbers]
        normals = surface_normals(depth, camera)
        return TaskPicture(image, shown, depth, normals, edges(seen), len(found))

    def _add(
        self, bodies: Bodies, kind: int, table: tuple[Color, Color], rng: np.random.Generator
    ) -> int:
        """One more thing, in the first of eight colours that stands out, or the last."""
        name, paint = CLASSES[kind], self._color(rng)
        for _ in range(7):
            if min(contrast(paint, other) for other in table) > 0.35:
                break
            paint = self._color(rng)
        if name == "block":
            return bodies.block(BLOCK, paint)
        return bodies.kind(name, rng.uniform(0.7, 1.15), paint)

    def _color(self, rng: np.random.Generator, *, pale: bool = False) -> Color:
        return color(int(rng.choice(self._colors)), pale=pale)


def _emptied(client: Any) -> Any:
    client.resetSimulation()
    client.setGravity(0, 0, -9.81)
    client.setPhysicsEngineParameter(deterministicOverlappingPairs=1)
    client.setTimeStep(1 / 120)  # as in `instances`: half the cost, and nothing sinks in by 0.5 mm
    return client


def _lay(bodies: Bodies, things: list[int], rng: np.random.Generator) -> None:
    """Put things side by side; where no place of twelve is free, on top of what is there."""
    reach, laid = rng.uniform(0.06, 0.13), list[int]()
    for body in things:
        top = 0.0
        for _ in range(12):
            place = (_CENTER + rng.uniform(-reach, reach, 2)).tolist()
            bodies.put(body, place, rng.uniform(0, 2 * np.pi))
            top = _top_below(bodies, body, laid)
            if top == 0.0:
                break
        else:
            low, high = bodies.box(body)
            bodies.put(body, ((low + high) / 2)[:2].tolist(), 0.0, top + 0.002)
        laid.append(body)


def _top_below(bodies: Bodies, body: int, laid: list[int]) -> float:
    """Height of the highest thing in a body's way, metres; 0 for none."""
    low, high = bodies.box(body)
    tops = [
        float(theirs[1][2])
        for theirs in map(bodies.box, laid)
        if (theirs[0] < high).all() and (low < theirs[1]).all()
    ]
    return max(tops, default=0.0)


def _camera(view: View, size: int) -> PinholeCamera:
    """The camera of `photograph`, which takes its samples up to a quarter of a pixel off."""
    return PinholeCamera.look_at(view.eye, view.target, (size, size), FIELD_OF_VIEW)


# Targets


def rays(camera: PinholeCamera) -> NDArray[np.float64]:
    """`(H, W, 3)` directions of the pixels in the camera's frame, z = 1."""
    columns = (np.arange(camera.width) - camera.cx) / camera.fx
    rows = (np.arange(camera.height) - camera.cy) / camera.fy
    x, y = np.meshgrid(columns, rows)
    return np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float64)


def table_depth(camera: PinholeCamera) -> NDArray[np.float64]:
    """`(H, W)` depth of the table's plane, z = 0 of the world, metres.

    Raises:
        ValueError: if a pixel looks beside it.
    """
    pose = camera.T_world_camera
    fall = rays(camera) @ pose[2, :3]
    if fall.max() >= 0 or pose[2, 3] <= 0:
        raise ValueError("the camera must look down on the table with all of its pixels")
    return np.asarray(-pose[2, 3] / fall, np.float64)


def surface_normals(depth: NDArray[np.float32], camera: PinholeCamera) -> NDArray[np.float32]:
    """Unit normals of the seen surface, from depth.

    Along rows and columns the nearer in depth of the two neighbours counts, so that a step between
    two things does not become a wall.

    Args:
        depth: `(H, W)` metres along the optical axis, positive.
        camera: whose depth it is.

    Returns:
        `(H, W, 3)` float32 in the camera's frame, towards the camera.
    """
    points = rays(camera) * depth[..., None].astype(np.float64)
    across, down = _nearer_difference(points, 1), _nearer_difference(points, 0)
    normals = np.cross(down, across)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    away = (normals * points).sum(-1, keepdims=True) > 0
    return np.where(away, -normals, normals).astype(np.float32)


def _nearer_difference(points: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Difference to the next or from the previous point, whichever is smaller in depth."""
    steps = np.diff(points, axis=axis)
    after = np.concatenate([steps, steps.take([-1], axis)], axis)
    before = np.concatenate([steps.take([0], axis), steps], axis)
    smaller = np.abs(after[..., 2:]) <= np.abs(before[..., 2:])
    return np.where(smaller, after, before)


def edges(seen: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a pixel above, below, left or right shows another body; `(H, W)` ids to bool."""
    found = np.zeros(seen.shape, bool)
    across, down = seen[:, 1:] != seen[:, :-1], seen[1:] != seen[:-1]
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[1:] |= down
    found[:-1] |= down
    return found
