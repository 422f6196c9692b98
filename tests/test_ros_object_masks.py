"""Poses from the node `object_poses` that goes by instances: of the very same picture, or none."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import segmenter_cases

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
pytest.importorskip("rclpy")

import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter
from std_msgs.msg import Header, String

from decisive.cli import main
from envs.tabletop.camera import ROBOT_CAMERA, rgbd_ids
from envs.tabletop.insertion import BlockInsertionEnv
from perception.deep_mac.checkpoint import save_segmenter, shipped_segmenters
from ros_nodes import demo, messages
from ros_nodes.demo import DemoConfig, run_demo
from ros_nodes.graph import GRAPHS
from ros_nodes.object_poses import ObjectPoses
from ros_nodes.perceiving import (
    COLORS,
    LATE,
    LATE_MASKS,
    SEEN,
    SEGMENTER,
    check_perceived,
    looks,
    perceiving,
)

pytestmark = pytest.mark.ros
STRANGE = (0.1, 0.6, 0.9, 1.0)
"""A colour that no model of a block has."""


@dataclass
class Scene:
    """A picture of the simulated table, whose true instances are known."""

    rgb: np.ndarray
    depth: np.ndarray
    ids: np.ndarray
    block: tuple[float, float, float]


@pytest.fixture(scope="module")
def scene() -> Scene:
    env = BlockInsertionEnv()
    env.reset(seed=3)
    table = env.scene
    table.client.changeVisualShape(table.blocks[0], -1, rgbaColor=STRANGE)
    rgb, depth, seen = rgbd_ids(table.client, ROBOT_CAMERA)
    ids = np.zeros(seen.shape, np.uint16)
    for k, body in enumerate((table.blocks[0], table.fixtures[0])):
        ids[seen == body] = k + 1
    block = table.pose(table.blocks[0])
    env.close()
    return Scene(rgb, depth, ids, block)


@pytest.fixture
def context() -> Iterator[Context]:
    made = Context()
    rclpy.init(context=made, domain_id=59)
    yield made
    rclpy.try_shutdown(context=made)


class Eyes:
    """The node, given messages as the graph would."""

    def __init__(self, context: Context, scene: Scene, **changes: Any) -> None:
        settings = {"max_age": 5.0, **changes}
        overrides = [Parameter(name, value=value) for name, value in settings.items()]
        self.node = ObjectPoses(context=context, parameter_overrides=overrides)
        self.scene = scene
        self.warnings: list[str] = []
        self.poses: dict[str, list[Any]] = {name: [] for name in self.node._poses}
        for name, kept in self.poses.items():
            self.node._poses[name] = SimpleNamespace(publish=kept.append)
        self.node.get_logger = lambda: SimpleNamespace(  # type: ignore[method-assign,assignment]
            warning=lambda words, **more: self.warnings.append(words)
        )
        self.now = self.node.get_clock().now().nanoseconds

    def hear(self, key: str, message: Any) -> None:
        self.node._reader(key)(message)

    def picture(self, stamp: int) -> None:
        place, scene = messages.stamp_of(stamp), self.scene
        self.hear("color", messages.image_message(scene.rgb, "rgb8", place, "lens"))
        self.hear("depth", messages.depth_message(scene.depth, place, "lens"))
        matrix, size = ROBOT_CAMERA.matrix, scene.rgb.shape[:2]
        self.hear("info", messages.camera_info(matrix, size, place, "lens"))

    def masks(
        self, stamp: int, ids: np.ndarray | None = None, names: tuple[str, ...] = ("block", "slot")
    ) -> None:
        ids = self.scene.ids if ids is None else ids
        header = Header(stamp=messages.stamp_of(stamp), frame_id="lens")
        self.hear("labels", messages.image_message(ids, "16UC1", header.stamp, "lens"))
        rows = [{"id": k + 1, "class": name} for k, name in enumerate(names)]
        self.hear("instances", String(data=json.dumps({"stamp": stamp, "instances": rows})))

    def stamps(self, name: str = "block") -> list[int]:
        return [messages.nanoseconds(pose.header.stamp) for pose in self.poses[name]]


@pytest.fixture
def eyes(context: Context, scene: Scene) -> Iterator[Eyes]:
    made = Eyes(context, scene, masks=True)
    yield made
    made.node.destroy_node()


def test_a_block_of_a_strange_colour_is_found_by_its_mask(eyes: Eyes, scene: Scene) -> None:
    eyes.picture(eyes.now)
    assert eyes.stamps() == []  # masks are still to come
    eyes.masks(eyes.now)
    assert eyes.stamps() == [eyes.now]
    position, turn = messages.pose_arrays(eyes.poses["block"][0])
    x, y, yaw = scene.block
    assert position[:2] == pytest.approx((x, y), abs=1e-3)
    found = 2 * math.atan2(turn[2], turn[3])
    assert (found - yaw + math.pi / 4) % (math.pi / 2) == pytest.approx(math.pi / 4, abs=0.02)
    assert eyes.stamps("slot1") == [eyes.now]


def test_by_its_colour_it_is_not(context: Context, scene: Scene) -> None:
    eyes = Eyes(context, scene)
    try:
        eyes.picture(eyes.now)
        assert eyes.stamps("slot1") == [eyes.now]
        assert eyes.stamps() == []
    finally:
        eyes.node.destroy_node()


def test_masks_that_come_late_find_their_own_picture(eyes: Eyes) -> None:
    for k in range(6):
        eyes.picture(eyes.now + k)
    eyes.masks(eyes.now + 2)
    assert eyes.stamps() == [eyes.now + 2]
    eyes.masks(eyes.now + 1)  # of the past
    assert eyes.stamps() == [eyes.now + 2]
    eyes.masks(eyes.now + 5)
    assert eyes.stamps() == [eyes.now + 2, eyes.now + 5]


def test_masks_of_another_picture_are_not_taken(eyes: Eyes) -> None:
    eyes.picture(eyes.now)
    eyes.masks(eyes.now + 1)
    assert eyes.stamps() == []
    eyes.picture(eyes.now + 2)
    eyes.masks(eyes.now + 2)
    assert eyes.stamps() == [eyes.now + 2]


def test_a_picture_that_is_asked_about_again_is_answered_again(eyes: Eyes) -> None:
    for _ in range(2):
        eyes.picture(eyes.now)
        eyes.masks(eyes.now)
    assert len(eyes.stamps()) > 1
    assert set(eyes.stamps()) == {eyes.now}


def test_bad_masks_are_warned_of_and_survived(eyes: Eyes, scene: Scene) -> None:
    bad: list[tuple[np.ndarray, tuple[str, ...]]] = [
        (scene.ids[:100], ("block", "slot")),
        (scene.ids + np.uint16(5), ("block", "slot")),
        (scene.ids, ("block",)),
    ]
    for k, (ids, names) in enumerate(bad):
        eyes.picture(eyes.now + k)
        eyes.masks(eyes.now + k, np.ascontiguousarray(ids), names)
        assert len(eyes.warnings) == k + 1
    eyes.hear("instances", String(data="{"))
    assert "must be JSON" in eyes.warnings[-1]
    assert eyes.stamps() == []
    eyes.picture(eyes.now + 9)
    eyes.masks(eyes.now + 9)
    assert eyes.stamps() == [eyes.now + 9]


# Graphs that see.


def test_a_graph_gets_the_nodes_that_it_lacks() -> None:
    graph, values = perceiving(GRAPHS["sim_lockstep"], "some")
    names = [node.name for node in graph.nodes]
    assert names == ["sim_robot", "policy", "safety_gate", "object_poses", "perception"]
    assert values == {
        "sim_robot.objects": False,
        "sim_robot.camera_rate": 30.0,
        "object_poses.masks": True,
        "perception.checkpoint": "some",
    }
    assert perceiving(GRAPHS["sim_insertion"], "some")[1] == values | LATE | LATE_MASKS
    assert perceiving(GRAPHS["sim_insertion"], COLORS)[1] == SEEN | LATE
    graph, values = perceiving(GRAPHS["hardware_servo"], "some")
    names = [node.name for node in graph.nodes]
    assert names == ["object_poses", "policy", "safety_gate", "perception"]
    assert values == {"object_poses.masks": True, "perception.checkpoint": "some"}
    assert perceiving(GRAPHS["hardware_servo"], COLORS) == (GRAPHS["hardware_servo"], {})
    with pytest.raises(ValueError, match="only a graph with a policy and a table"):
        perceiving(GRAPHS["sim_navigation"], "some")
    assert {name for name, graph in GRAPHS.items() if looks(graph)} == {
        "sim_insertion", "sim_lockstep", "sim_joints",
        "hardware_servo", "hardware_trajectory", "hardware_positions",
    }  # fmt: skip


def test_a_segmenter_is_checked_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = "decisive/BlockInsertion-v0"
    save_segmenter(tmp_path / "new", segmenter_cases.saved(), "# For tests\n")
    save_segmenter(
        tmp_path / "discs", segmenter_cases.saved(scores={"mask_iou": 0.5}), "# For tests\n"
    )
    check_perceived(COLORS, task)
    check_perceived(str(tmp_path / "discs"))
    with pytest.raises(ValueError, match=r"no held-out scores.*colors needs no segmenter"):
        check_perceived(str(tmp_path / "new"), task)
    with pytest.raises(ValueError, match=r"knows red, green, blue; .* needs block, slot, too"):
        check_perceived(str(tmp_path / "discs"), task)
    with pytest.raises(ValueError, match="of decisive/Particle-v0 there are no models"):
        check_perceived(COLORS, "decisive/Particle-v0")
    for words in (
        ["demo", "--perceived", "--segmenter", "absent"],
        ["up", "sim_insertion", "--segmenter", "absent"],
    ):
        assert main(["ros", *words]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "no segmenter 'absent'" in line
        assert "colors needs no segmenter" in line
    assert main(["ros", "demo", "--segmenter", COLORS]) == 2
    assert "give --perceived too" in capsys.readouterr().err


# Whole episodes.


def test_an_episode_whose_objects_are_not_seen_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing has trained it: the policy gets no poses, and the simulator waits.
    monkeypatch.setattr(demo, "PATIENCE", 3.0)
    classes = ("block", "slot", "effector")
    blind = segmenter_cases.saved(classes=classes, scores={"mask_iou": 0.0})
    save_segmenter(tmp_path / "blind", blind, "# For tests\n")
    config = DemoConfig(episodes=2, perceived=True, segmenter=str(tmp_path / "blind"), direct=False)
    answer = run_demo(config, tmp_path / "logs")
    assert answer["ros"]["gave_up"] == 2
    assert [row["success"] for row in answer["ros"]["per_episode"]] == [False, False]
    assert [row["length"] for row in answer["ros"]["per_episode"]] == [0, 0]


@pytest.mark.slow
@pytest.mark.skipif(SEGMENTER not in shipped_segmenters(), reason=f"{SEGMENTER} is not there")
def test_blocks_are_inserted_by_what_the_shipped_segmenter_sees(tmp_path: Path) -> None:
    answer = run_demo(DemoConfig(episodes=3, perceived=True, direct=False), tmp_path)
    assert answer["ros"]["success_rate"] == 1.0
    assert answer["ros"]["gave_up"] == 0
    assert answer["gate"]["stops"] == 0
