"""A whole push as one action: travel above the start, come down, push, lift.

One decision then commits many simulation steps, as many real cells run: nothing can be corrected
before the push has ended.
"""

from collections.abc import Callable

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.fields import Field
from envs.tabletop.scene import (
    LIFT_HEIGHT,
    SUBSTEPS,
    WORK_HEIGHT,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    Scene,
)

MAX_PUSH = 0.15
"""Largest component of the push vector, in metres."""
TRAVEL_SPEED = 0.6
PUSH_SPEED = 0.2
"""Metres per second, above and on the table."""

PUSH_FIELDS = (
    Field("start_xy", 2, "point", "m", "where the effector comes down"),
    Field("push_xy", 2, "vector", "m", "straight displacement while it is down"),
)


def push_space() -> spaces.Box:
    """`(4,)`: start x, y (world, metres) and push vector dx, dy (metres)."""
    return spaces.Box(
        np.array([*WORKSPACE_LOW, -MAX_PUSH, -MAX_PUSH], dtype=np.float32),
        np.array([*WORKSPACE_HIGH, MAX_PUSH, MAX_PUSH], dtype=np.float32),
    )


def execute_push(
    scene: Scene, action: NDArray[np.float64], tick: Callable[[], None]
) -> NDArray[np.float64]:
    """Run one push at 240 Hz.

    A start on top of a block or fixture is felt on the way down, as a force-guarded real arm feels
    it: the effector lifts again and the push is lost.

    Args:
        scene: simulated table, effector lifted.
        action: `(4,)` as in `push_space`.
        tick: called after every 0.1 s.

    Returns:
        `(2,)` where the effector ends, lifted.
    """
    start = action[:2]
    end = np.clip(start + action[2:], WORKSPACE_LOW, WORKSPACE_HIGH)
    _travel(scene, np.array([*start, LIFT_HEIGHT]), TRAVEL_SPEED, tick)
    if _lower(scene, start, tick):
        _travel(scene, np.array([*end, WORK_HEIGHT]), PUSH_SPEED, tick)
        for _ in range(scene.effector.settling):  # an arm lags behind: lifted now, it ends short
            _travel(scene, np.array([*end, WORK_HEIGHT]), PUSH_SPEED, tick)
    here = scene.tip()
    _travel(scene, np.array([here[0], here[1], LIFT_HEIGHT]), TRAVEL_SPEED, tick)
    return here[:2].copy()


def _travel(
    scene: Scene, goal: NDArray[np.float64], speed: float, tick: Callable[[], None]
) -> None:
    origin = scene.tip()
    duration = float(np.linalg.norm(goal - origin)) / speed
    periods = max(1, round(duration * 10 + 0.49))
    for i in range(1, periods + 1):
        scene.effector.command(origin + (goal - origin) * (i / periods), SUBSTEPS)
        scene.step()
        tick()


def _lower(scene: Scene, xy: NDArray[np.float64], tick: Callable[[], None]) -> bool:
    """Come down at `xy`; False if something was in the way."""
    slices = 6
    body, link = scene.effector.tip_link
    for height in np.linspace(LIFT_HEIGHT, WORK_HEIGHT, slices + 1)[1:]:
        scene.effector.command(np.array([*xy, height]), SUBSTEPS // 4)
        scene.step(SUBSTEPS // 4)
        for contact in scene.client.getContactPoints(bodyA=body, linkIndexA=link):
            if abs(contact[7][2]) > 0.7:
                return False
    tick()
    return True
