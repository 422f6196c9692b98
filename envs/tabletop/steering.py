"""How a round, slippery finger pushes a square block: the parts scripted experts are made of.

With little friction between finger and block the force acts along the pushed face's normal, so the
block moves like a unicycle: it advances along the face's normal and turns with a curvature of
-b / `TURN_CONSTANT`, where b is the contact's offset from the face's centre line.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.effectors import RADIUS

TURN_CONSTANT = 1.1e-3
"""Measured for a 40 mm block (m^2); four corner contacts turn less than a uniform patch."""

Array = NDArray[np.float64]


def wrap_angle(angle: float) -> float:
    """Angle in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


@dataclass(frozen=True)
class Circle:
    """A disc to stay out of: centre and radius in metres."""

    center: tuple[float, float]
    radius: float


@dataclass(frozen=True)
class Face:
    """One face of a square block, seen from the finger that pushes it.

    `heading` (rad, world) is the direction of the push; `along` and `across` are the finger's
    position relative to the block's centre in that frame (metres; behind the block is negative,
    left of the centre line positive).
    """

    heading: float
    along: float
    across: float
    center: Array
    forward: Array
    left: Array

    def point(self, along: float, across: float) -> Array:
        """World point at `along`, `across`."""
        return self.center + along * self.forward + across * self.left


def face_headings(yaw: float) -> list[float]:
    """The four directions (rad, world) in which a square block turned by `yaw` can be pushed."""
    return [wrap_angle(yaw + k * math.pi / 2) for k in range(4)]


def see_face(finger: Array, block: Sequence[float], index: int) -> Face:
    """Finger position relative to face `index` (0 to 3) of a block at `(x, y, yaw)`."""
    heading = wrap_angle(block[2] + index * math.pi / 2)
    forward = np.array([math.cos(heading), math.sin(heading)])
    left = np.array([-forward[1], forward[0]])
    center = np.array(block[:2])
    offset = finger - center
    return Face(heading, float(offset @ forward), float(offset @ left), center, forward, left)


def nearest_face(block: Sequence[float], heading: float, rank: int = 0) -> int:
    """Index of the face whose push direction is `rank`-th closest to `heading`."""
    errors = [abs(wrap_angle(heading - angle)) for angle in face_headings(block[2])]
    return int(np.argsort(errors, kind="stable")[rank])


def push_face(
    finger: Array,
    face: Face,
    half: float,
    heading_error: float,
    speed: float,
    side: int = 0,
    obstacles: Sequence[Circle] = (),
    max_step: float = 0.028,
) -> Array:
    """Displacement that pushes a face forward while turning the block by `heading_error`.

    Moves around the block to a point behind the face first, if the finger is not there yet.

    Args:
        finger: `(2,)` commanded finger position (the command, not the measured tip: feeding the
            lag back makes the loop oscillate).
        face: from `see_face`.
        half: block half width in metres.
        heading_error: wanted minus present push direction, rad.
        speed: advance per control step in metres.
        side: way around the block: +1 counter-clockwise, -1 clockwise, 0 the shorter.
        obstacles: other discs to avoid on the way (not while pushing).
        max_step: longest displacement while moving freely, metres.
    """
    contact = half + RADIUS
    limit = min(0.016, 0.8 * half)
    across = float(np.clip(-TURN_CONSTANT * heading_error / 0.012, -limit, limit))
    behind = face.along < -contact + 0.004 and abs(face.across) < half + 0.004
    if behind and face.along > -contact - 0.03 and abs(face.across - across) < 0.02:
        goal = face.point(-contact + speed, across)
        # Line up before touching: the advance shrinks with the sideways error still to make up.
        gap = abs(face.across - across)
        if gap > 0.006 and face.along < -contact - 0.002:
            goal = face.point(-contact - 0.004, across)
        return limit_step(goal - finger, max_step)
    goal = face.point(-contact - 0.014, across)
    own = Circle(
        (float(face.center[0]), float(face.center[1])), half * math.sqrt(2) + RADIUS + 0.004
    )
    return navigate(finger, goal, [own, *obstacles], side, max_step)


def limit_step(delta: Array, longest: float) -> Array:
    """`delta` shortened to `longest` metres if it is longer."""
    length = float(np.hypot(*delta))
    return delta if length <= longest else delta * (longest / length)


def navigate(
    finger: Array, goal: Array, obstacles: Sequence[Circle], side: int = 0, max_step: float = 0.028
) -> Array:
    """Displacement towards `goal` around discs.

    Args:
        finger: `(2,)` position.
        goal: `(2,)` position.
        obstacles: discs; the first one blocking the straight line is circled.
        side: +1 counter-clockwise around it, -1 clockwise, 0 the shorter way.
        max_step: longest displacement, metres.
    """
    step = limit_step(goal - finger, max_step)
    blocking = _first_blocking(finger, goal, obstacles)
    if blocking is not None:
        step = _circle_around(finger, goal, blocking, side, max_step)
    target = finger + step
    for disc in obstacles:
        if disc is blocking:
            continue
        away = target - disc.center
        distance = float(np.hypot(*away))
        if distance < disc.radius and distance > 1e-9:
            target = np.array(disc.center) + away * (disc.radius / distance)
    return limit_step(target - finger, max_step)


def _first_blocking(finger: Array, goal: Array, obstacles: Sequence[Circle]) -> Circle | None:
    path = goal - finger
    length = float(np.hypot(*path))
    if length < 1e-9:
        return None
    direction = path / length
    best, best_at = None, math.inf
    for disc in obstacles:
        to_center = np.array(disc.center) - finger
        at = float(to_center @ direction)
        miss = abs(float(direction[0] * to_center[1] - direction[1] * to_center[0]))
        inside_goal = float(np.hypot(*(goal - disc.center))) < disc.radius
        # A goal beyond the closest approach is blocked; one before it is not.
        ahead = 0 < at < length + disc.radius and (at < length or inside_goal)
        if miss < disc.radius - 1e-6 and ahead and at < best_at:
            best, best_at = disc, at
    return best


def _circle_around(finger: Array, goal: Array, disc: Circle, side: int, max_step: float) -> Array:
    center = np.array(disc.center)
    spoke = finger - center
    distance = max(float(np.hypot(*spoke)), 1e-9)
    angle = math.atan2(spoke[1], spoke[0])
    aim = goal - center
    turn = wrap_angle(math.atan2(aim[1], aim[0]) - angle)
    sign = side if side else (1 if turn >= 0 else -1)
    radius = max(disc.radius, min(distance, disc.radius + 0.02))
    if distance < disc.radius - 0.008:  # inside: straight out first
        return limit_step(spoke / distance * (disc.radius - distance + 0.002), max_step)
    sweep = min(max_step / radius, 0.6)
    if side * turn > 0 or side == 0:
        sweep = min(sweep, abs(turn))
    arrive = angle + sign * sweep
    # A chord cuts the corner: aim a little outside so that its middle stays on the circle.
    outer = radius / math.cos(sweep / 2)
    return limit_step(
        center + outer * np.array([math.cos(arrive), math.sin(arrive)]) - finger, max_step
    )
