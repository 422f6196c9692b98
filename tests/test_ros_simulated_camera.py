"""The simulated robot's camera draws in a process of its own what the simulator would draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from envs.tabletop.camera import ROBOT_CAMERA, rgbd
from ros_nodes.simulated_camera import SimulatedCamera
from ros_nodes.simulation import SimulatedRobot

pytestmark = pytest.mark.ros

ENV = "decisive/BlockInsertion-v0"


@pytest.mark.parametrize("options", [{"slots": 2}, {"arm": "xarm6"}])
def test_its_pictures_are_those_of_the_simulator_to_the_last_bit(options: dict[str, Any]) -> None:
    robot, camera = SimulatedRobot(ENV, options), SimulatedCamera(ENV, options)
    try:
        before = None
        for seed in (3, 4):
            robot.reset(seed)
            for _ in range(4):
                robot.step(np.array([0.3, -0.1]))
            scene = robot.table.scene
            color, depth = camera.draw(scene.configuration())
            wanted_color, wanted_depth = rgbd(scene.client, ROBOT_CAMERA)
            np.testing.assert_array_equal(color, wanted_color)
            np.testing.assert_array_equal(depth, wanted_depth)
            assert before is None or (color != before).any()
            before = color
    finally:
        camera.close()
        assert camera.process.exitcode == 0
        robot.close()


def test_a_process_that_dies_is_one_line() -> None:
    robot, camera = SimulatedRobot(ENV, {}), SimulatedCamera(ENV, {})
    try:
        robot.reset(0)
        configuration = robot.table.scene.configuration()
        camera.draw(configuration)
        camera.process.kill()
        camera.process.join()
        with pytest.raises(OSError, match="has died"):
            camera.draw(configuration)
        camera.close()
        camera.close()
    finally:
        robot.close()
