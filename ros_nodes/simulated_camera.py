"""The camera of a robot that is simulated in real time, in a process of its own.

TinyRenderer takes tens of milliseconds a picture and does not let go of the interpreter: in the
simulator's process, physics and measured positions would wait for it, as on no robot.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decisive.options import make_env
from envs.tabletop.base import TabletopEnv
from envs.tabletop.camera import ROBOT_CAMERA, rgbd
from envs.tabletop.scene import Configuration

Pictures = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Colour `(H, W, 3)` and depth `(H, W)` in metres, see `envs.tabletop.camera.rgbd`."""


class SimulatedCamera:
    """Draws what the robot's camera sees; close it."""

    def __init__(self, env_id: str, options: Mapping[str, Any]) -> None:
        """Start the process, which builds the scene meanwhile.

        Args:
            env_id: of the environment whose scene is drawn.
            options: its options.
        """
        # Spawned: a fork would copy the threads of the middleware and the simulator's client.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, env_id, dict(options))
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def draw(self, configuration: Configuration) -> Pictures:
        """What is seen where everything is as given.

        Raises:
            OSError: if the process has died, or the camera is closed.
        """
        try:
            self._pipe.send(configuration)
            pictures: Pictures = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise OSError("the process that draws them has died") from None
        return pictures

    def close(self) -> None:
        """End the process; a second call is harmless."""
        self._pipe.close()
        self.process.join(1.0)


def _serve(pipe: Connection, env_id: str, options: Mapping[str, Any]) -> None:
    """Answer until the other end is closed, be it by the parent's death."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sees to it
    env = make_env(env_id, {**options, "observation": "state"})
    table = env.unwrapped
    assert isinstance(table, TabletopEnv)  # the simulator has looked
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            table.scene.configure(pipe.recv())
            pipe.send(rgbd(table.scene.client, ROBOT_CAMERA))
    env.close()
