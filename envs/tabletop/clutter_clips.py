"""Clips whose only task is what moves how: no single frame tells it.

Every motion is drawn with its reverse: a clip of the one, shown backwards, is a clip of the other,
and which of the two is shown is the last thing decided. So over the frames of a clip both classes
have one distribution, and frame t of the one is frame T - 1 - t of the other. Only their order
tells.

The block is moved along a smooth way; physics does not run. The camera stands still.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.bullet_scenes import BulletScenes
from envs.tabletop.clutter import ClutterConfig, rng_of
from envs.tabletop.clutter_bodies import KINDS, N_COLORS, Bodies, color, contrast, ids
from envs.tabletop.clutter_view import draw_table, draw_view, photograph
from envs.tabletop.scene import yaw_quaternion

MOTIONS: tuple[str, ...] = (
    "push left",
    "push right",
    "push away",
    "push near",
    "turn anticlockwise",
    "turn clockwise",
    "lift",
    "lower",
    "stack",
    "unstack",
)
"""Classes; 2 i and 2 i + 1 are each other's reverse. Left and away as the camera sees them, turns
as seen from above."""
TASKS: dict[str, tuple[str, ...]] = {"motion": MOTIONS}
SOURCE = "Synthetic: clips of a moving block rendered with PyBullet's TinyRenderer"
N_FRAMES = 8
HALF = (0.026, 0.020, 0.016)
"""Half extents of the blocks, metres: no square, so that turns show."""
_CLIPS = 1
"""Last part of the key of a clip's numbers: apart from those of pictures."""
_CENTER = np.array([0.40, 0.0])

Pose = tuple[float, float, float, float]
"""x, y, z of the centre (metres) and yaw (rad)."""
Way = Callable[[float], Pose]
"""Pose at each time from 0 to 1."""


@dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
        frames: `(T, size, size, 3)` uint8 RGB.
        label: index into `MOTIONS`.
    """

    frames: NDArray[np.uint8]
    label: int


class ClutterClips(BulletScenes):
    """Draws clips, with a Bullet client of its own; close it, or use it in a `with`."""

    def __init__(self, config: ClutterConfig, n_frames: int = N_FRAMES) -> None:
        """Connect; nothing is loaded.

        Args:
            config: which clips; only size, split, seed and clutter matter.
            n_frames: T.

        Raises:
            ValueError: for fewer than two frames, which show no motion, or more than 64.
        """
        if not 2 <= n_frames <= 64:
            raise ValueError(f"a clip needs 2 to 64 frames, got {n_frames}")
        self.config, self.n_frames = config, n_frames
        super().__init__()

    def draw(self, k: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Clip k.

        Returns:
            `(T, size, size, 3)` uint8 RGB and `(1,)` int64 label.
        """
        rng = rng_of(self.config, k, 0, _CLIPS)
        pair, backwards = int(rng.integers(len(MOTIONS) // 2)), bool(rng.integers(2))
        frames = self.forwards(k)[pair]()
        label = np.array([2 * pair + backwards], np.int64)
        return np.ascontiguousarray(frames[::-1]) if backwards else frames, label

    def forwards(self, k: int) -> list[Callable[[], NDArray[np.uint8]]]:
        """For each pair of motions, a function that films the first of it in clip k's scene."""

        def film(pair: int) -> Callable[[], NDArray[np.uint8]]:
            return lambda: self._film(pair, rng_of(self.config, k, 1, _CLIPS))

        return [film(pair) for pair in range(len(MOTIONS) // 2)]

    def _film(self, pair: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        client = self._client
        client.resetSimulation()
        bodies = Bodies(client)
        bodies.table()
        table, paints = self._colors(rng)
        view = draw_view(rng, (0.50, 0.64))
        heading = math.atan2(view.target[1] - view.eye[1], view.target[0] - view.eye[0])
        block = bodies.block(HALF, paints[0])
        others = [block]
        way, foot = _way(pair, heading, rng)
        if foot is not None:
            others.append(bodies.block((0.028, 0.028, HALF[2]), paints[1]))
            client.resetBasePositionAndOrientation(
                others[1], [*foot, HALF[2]], yaw_quaternion(rng.uniform(0, 2 * math.pi))
            )
        elif rng.random() < self.config.clutter:
            # It stands still behind the block's place: the background is not always bare.
            others.append(bodies.kind(list(KINDS)[rng.integers(len(KINDS))], 0.7, paints[1]))
            behind = _CENTER + 0.14 * np.array([math.cos(heading), math.sin(heading)])
            bodies.put(others[1], behind.tolist(), rng.uniform(0, 2 * math.pi))
        frames = []
        for time in np.linspace(0, 1, self.n_frames):
            x, y, z, yaw = way(0.5 - 0.5 * math.cos(math.pi * float(time)))
            client.resetBasePositionAndOrientation(block, (x, y, z), yaw_quaternion(yaw))
            client.performCollisionDetection()
            boxes = [bodies.box(body) for body in others]
            frames.append(photograph(client, view, table, self.config.size, rng, (), boxes)[0])
        return np.stack(frames)

    def _colors(self, rng: np.random.Generator) -> tuple[Any, list[tuple[float, float, float]]]:
        """A table, and two colours that stand out from it."""
        known = ids(self.config.split, N_COLORS)
        first, second = (color(int(number), pale=True) for number in rng.choice(known, 2))
        table = draw_table(rng, (first, second))
        paints = [color(int(number)) for number in rng.choice(known, 24)]
        paints.sort(key=lambda paint: -min(contrast(paint, other) for other in table.colors))
        picked = [paints[i] for i in rng.permutation(8)[:2]]
        return table, picked


def _way(
    pair: int, heading: float, rng: np.random.Generator
) -> tuple[Way, NDArray[np.float64] | None]:
    """The way of the first motion of a pair.

    Args:
        pair: index of the pair in `MOTIONS`.
        heading: direction in which the camera looks, over the table, rad.
        rng: where the numbers come from.

    Returns:
        The way, and where the block stands that is stacked on.
    """
    x, y = _CENTER + rng.uniform(-0.02, 0.02, 2)
    yaw, length = rng.uniform(0, 2 * math.pi), rng.uniform(0.07, 0.12)
    low = HALF[2]
    if pair in (0, 1):
        # Slightly askew, as pushes are.
        course = heading + (math.pi / 2 if pair == 0 else 0.0) + rng.uniform(-0.3, 0.3)
        dx, dy = math.cos(course), math.sin(course)

        def push(s: float) -> Pose:
            at = (s - 0.5) * length
            return x + at * dx, y + at * dy, low, yaw

        return push, None
    if pair == 2:
        # At most 130 degrees in all: between two frames it is less than a quarter turn, so that
        # the direction is plain although half a turn changes nothing.
        angle = rng.uniform(math.radians(70), math.radians(130))
        return lambda s: (x, y, low, yaw + angle * s), None
    if pair == 3:
        start, height = rng.uniform(0.0, 0.03), rng.uniform(0.05, 0.08)
        return lambda s: (x, y, low + start + height * s, yaw), None
    course = heading + math.pi / 2 * rng.choice((1, -1)) + rng.uniform(-0.5, 0.5)
    step = 0.085 * np.array([math.cos(course), math.sin(course)])
    foot = np.array([x, y]) + step / 2

    def stack(s: float) -> Pose:
        # Up, over and down: half of an arch, and the height of the other block.
        at = np.array([x, y]) + step * (s - 0.5)
        return float(at[0]), float(at[1]), low + 2 * HALF[2] * s + 0.05 * math.sin(math.pi * s), yaw

    return stack, foot
