"""The camera of a robot that is simulated in real time, in a process of its own.

TinyRenderer takes tens of milliseconds a picture and does not let go of the interpreter: in the
simulator's process, physics and measured positions would wait for it, as on no robot.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decisive.options import make_env
from decisive.workers import process_pool
from envs.tabletop.base import TabletopEnv
from envs.tabletop.camera import ROBOT_CAMERA, rgbd
from envs.tabletop.scene import Configuration

Pictures = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Colour `(H, W, 3)` and depth `(H, W)` in metres, see `envs.tabletop.camera.rgbd`."""

_table: TabletopEnv | None = None  # of the process that draws


class SimulatedCamera:
    """Draws what the robot's camera sees; close it."""

    def __init__(self, env_id: str, options: Mapping[str, Any]) -> None:
        """Start the process, and wait until it can draw.

        Args:
            env_id: of the environment whose scene is drawn.
            options: its options.

        Raises:
            OSError: if the process does not start.
        """
        self._pool = process_pool(1, partial(_open, env_id, dict(options)))
        try:
            self._pool.submit(_is_open).result()
        except BrokenProcessPool:
            raise OSError("the process that draws pictures did not start") from None

    def draw(self, configuration: Configuration) -> Pictures:
        """What is seen where everything is as given.

        Raises:
            OSError: if the process has died.
        """
        try:
            return self._pool.submit(_draw, configuration).result()
        except BrokenProcessPool:
            raise OSError("the process that draws them has died") from None

    def close(self) -> None:
        """End the process; a second call is harmless."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _open(env_id: str, options: Mapping[str, Any]) -> None:
    global _table
    env = make_env(env_id, {**options, "observation": "state"}).unwrapped
    assert isinstance(env, TabletopEnv)  # the simulator has looked
    _table = env


def _is_open() -> bool:
    return _table is not None


def _draw(configuration: Configuration) -> Pictures:
    assert _table is not None  # _open
    _table.scene.configure(configuration)
    return rgbd(_table.scene.client, ROBOT_CAMERA)
