"""The node `goal_views`: what it remembers and answers, and that nothing said to it ends it."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from mural_cases import save_tiny
from rclpy.context import Context
from rclpy.parameter import Parameter
from ros_cases import Sink, contexts, until
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from decisive.scenes import HouseScene
from envs.captions.house_views import glimpse, picture
from robots.driving import DriveConfig, Pose, steer
from ros_nodes import messages
from ros_nodes import navigation_messages as nav
from ros_nodes.demo import isolated
from ros_nodes.goal_views import GoalViewsNode
from ros_nodes.graph import find_graph
from ros_nodes.operator import Operator
from ros_nodes.processes import running
from ros_nodes.running import RELIABLE

pytestmark = pytest.mark.ros
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 24, 32, 3), dtype=np.uint8)
OTHER = RNG.integers(0, 90, (24, 32, 3), dtype=np.uint8)


@pytest.fixture
def context() -> Iterator[Context]:
    yield from contexts(58)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mural") / "tiny"
    save_tiny(folder)
    return str(folder)


class Watcher:
    """A node whose output is kept, and a robot around it."""

    def __init__(self, context: Context, model: str, **changes: Any) -> None:
        # A busy machine is slow, and a picture shall not be old for that.
        settings = {"model": model, "rate": 0.0, "max_age": 20.0, "max_skew": 1.0, **changes}
        overrides = [Parameter(name, value=value) for name, value in settings.items()]
        self.node = GoalViewsNode(context=context, parameter_overrides=overrides)
        self.goals = self.node._goal = Sink()  # type: ignore[assignment]
        self.rankings = self.node._ranking = Sink()  # type: ignore[assignment]
        self.diagnostics = self.node._diagnostics = Sink()  # type: ignore[assignment]

    @property
    def counts(self) -> dict[str, int]:
        return self.node._counts

    def now(self) -> Any:
        return self.node.get_clock().now().to_msg()

    def image(self, pixels: np.ndarray = PIXELS[0], encoding: str = "rgb8") -> Image:
        return messages.image_message(pixels, encoding, self.now(), "lens")

    def see(self, pixels: np.ndarray, x: float, yaw: float = 0.0, frame: str = "map") -> int:
        """A picture with a pose, remembered; its stamp."""
        before = self.counts["remembered"] + self.counts["changed"]
        shown = self.image(pixels)
        self.node.input.on_picture(shown)
        pose = nav.base_message(Pose(x, 0.5, yaw), shown.header.stamp, frame)
        if self.node.value["camera"] == "panorama":
            pose.pose.position.z = 1.5
        self.node.input.on_pose(pose)
        until(lambda: self.counts["remembered"] + self.counts["changed"] > before)
        return messages.nanoseconds(shown.header.stamp)

    def ask(self, text: str) -> None:
        self.question(lambda: self.node._on_text(String(data=text)))

    def ask_picture(self, message: Image) -> None:
        self.question(lambda: self.node._on_goal_picture(message))

    def question(self, say: Callable[[], None]) -> None:
        before = sum(self.counts[name] for name in ("answered", "refused", "errors"))
        say()
        until(lambda: sum(self.counts[n] for n in ("answered", "refused", "errors")) > before)
        until(lambda: len(self.rankings.messages) == self.counts["answered"])

    def told(self) -> dict[str, Any]:
        return json.loads(self.rankings.messages[-1].data)

    def report(self) -> tuple[bytes, str, dict[str, str]]:
        self.node._report()
        (status,) = self.diagnostics.messages[-1].status
        return status.level, status.message, {pair.key: pair.value for pair in status.values}

    def close(self) -> None:
        self.node.finish()
        self.node.destroy_node()


@pytest.fixture
def watcher(context: Context, model: str) -> Iterator[Watcher]:
    made = Watcher(context, model)
    yield made
    made.close()


# What is answered.


def test_a_picture_is_found_where_it_was_taken(context: Context, model: str) -> None:
    watcher = Watcher(context, model, camera_yaw=math.pi / 2)
    try:
        stamps = [watcher.see(pixels, 2.0 * k, 0.3) for k, pixels in enumerate(PIXELS)]
        watcher.ask_picture(watcher.image(PIXELS[3]))
        goal = watcher.goals.messages[-1]
        assert goal.header.frame_id == "map"
        assert messages.nanoseconds(goal.header.stamp) == stamps[3]
        # The pose is that of the base; the camera looks to its left.
        assert nav.base_pose(goal) == pytest.approx((6.0, 0.5, 0.3))
        told = watcher.told()
        best = told["views"][0]
        assert (best["rank"], best["score"], best["stamp"]) == (1, 1.0, stamps[3])
        assert (best["x"], best["y"], best["z"]) == pytest.approx((6.0, 0.5, 0.0))
        assert best["yaw"] == pytest.approx(0.3 + math.pi / 2)
        scores = [view["score"] for view in told["views"]]
        assert scores == sorted(scores, reverse=True)
        assert (told["text"], told["frame"], told["held"]) == (None, "map", 5)
    finally:
        watcher.close()


def test_a_text_in_any_language_is_answered(watcher: Watcher) -> None:
    for k, pixels in enumerate(PIXELS):
        watcher.see(pixels, 2.0 * k)
    for text in ("the bathroom", "浴室里", "🛁", "a " * 3000):
        watcher.ask(text)
        told = watcher.told()
        assert told["text"] == text[:1000]
        assert len(told["views"]) == 5
        x = watcher.goals.messages[-1].pose.position.x
        assert x == told["views"][0]["x"]
    assert "only the first 16 of 3,000 words are read" in told["notes"]
    assert watcher.counts["answered"] == 4
    # The same as without a node.
    views = watcher.node._views
    watcher.ask("a red chair")
    expected = views.ask("a red chair", 5)
    assert [view["x"] for view in watcher.told()["views"]] == [r.sight.x for r in expected]


def test_a_panorama_is_seen_all_around_wherever_it_is_turned(context: Context, model: str) -> None:
    watcher = Watcher(context, model, camera="panorama", views=4, answers=1)
    try:
        panorama = np.repeat(RNG.integers(0, 256, (1, 64, 3), np.uint8), 32, axis=0)
        watcher.see(panorama, 1.0, 0.5)
        held = sorted(sight.yaw for sight in watcher.node._views.meanings.sights)
        assert held == pytest.approx([0.5 + k * math.pi / 2 for k in (-1, 0, 1, 2)])
        watcher.ask("a chair")
        goal = watcher.goals.messages[-1]
        assert (goal.pose.position.x, goal.pose.position.z) == (1.0, 1.5)
        yaw = nav.base_pose(goal).yaw - watcher.told()["views"][0]["yaw"]
        assert math.remainder(yaw, math.tau) == pytest.approx(0, abs=1e-6)
    finally:
        watcher.close()


# What is remembered.


def test_standing_still_fills_nothing_and_the_memory_is_bounded(
    context: Context, model: str
) -> None:
    watcher = Watcher(context, model, most=3)
    try:
        for pixels in PIXELS:
            watcher.see(pixels, 0.0)
        assert len(watcher.node._views) == 1
        watcher.ask_picture(watcher.image(PIXELS[-1]))
        assert watcher.told()["views"][0]["score"] == 1.0  # the newest of the cell
        for k, pixels in enumerate(PIXELS):
            watcher.see(pixels, 3.0 + k)
        level, words, facts = watcher.report()
        assert level == DiagnosticStatus.OK
        assert words == "3 views held, 10 pictures since the last report"
        assert (facts["held"], facts["dropped"], facts["replaced in their cell"]) == ("3", "3", "4")
        assert (facts["questions"], facts["answered"], facts["frame"]) == ("1", "1", "map")
        assert watcher.report()[0] == DiagnosticStatus.WARN
    finally:
        watcher.close()


def test_rate_leaves_pictures_out_and_counts_them(context: Context, model: str) -> None:
    watcher = Watcher(context, model, rate=0.01)
    try:
        watcher.see(PIXELS[0], 0.0)
        for _ in range(3):
            watcher.node.input.on_picture(watcher.image())
        assert watcher.report()[2]["left out by rate"] == "3"
        assert watcher.counts["pictures"] == 1
    finally:
        watcher.close()


def test_poses_of_another_map_are_left_alone_until_a_reset(watcher: Watcher) -> None:
    watcher.see(PIXELS[0], 0.0)
    watcher.see(PIXELS[1], 2.0, frame="odom")
    assert (watcher.counts["changed"], len(watcher.node._views)) == (1, 1)
    assert watcher.node._on_reset(Trigger.Request(), Trigger.Response()).success
    assert len(watcher.node._views) == 0
    watcher.see(PIXELS[1], 2.0, frame="odom")
    watcher.ask("chair")
    assert watcher.told()["frame"] == "odom"


# Bad input.


def test_questions_without_sense_are_refused_and_counted(watcher: Watcher) -> None:
    watcher.ask("the bathroom")  # nothing was seen yet
    watcher.ask_picture(watcher.image())
    assert watcher.counts["refused"] == 2
    watcher.see(PIXELS[0], 0.0)
    for text in ("", "   ", "?! ..."):
        watcher.ask(text)
    depth = messages.image_message(np.ones((4, 4), np.float32), "32FC1", watcher.now(), "lens")
    cut = watcher.image()
    cut.data = cut.data[:-1]
    narrow = watcher.image(np.zeros((4, 2, 3), np.uint8))
    for message in (depth, cut, Image(), narrow):
        watcher.ask_picture(message)
    assert watcher.counts["refused"] == 9
    assert (watcher.counts["answered"], watcher.counts["errors"]) == (0, 0)
    assert not watcher.goals.messages
    watcher.ask("chair")
    assert watcher.counts["answered"] == 1


def test_pictures_and_poses_without_sense_are_counted(watcher: Watcher) -> None:
    shown = watcher.image()
    spoilt = nav.base_message(Pose(0.0, 0.0, 0.0), shown.header.stamp, "map")
    spoilt.pose.position.x = math.nan
    tilted = nav.base_message(Pose(0.0, 0.0, 0.0), shown.header.stamp, "map")
    tilted.pose.orientation.x = 0.7
    for pose in (spoilt, tilted, PoseStamped()):
        watcher.node.input.on_pose(pose)
    watcher.node.input.on_picture(Image())
    depth = messages.image_message(np.ones((4, 4), np.float32), "32FC1", watcher.now(), "lens")
    watcher.node.input.on_picture(depth)
    old = watcher.image()
    old.header.stamp = messages.stamp_of(5)
    watcher.node.input.on_picture(old)
    assert watcher.counts["malformed"] >= 4
    assert watcher.report()[2]["too old"] in ("1", "2", "3")
    assert (watcher.counts["pictures"], len(watcher.node._views)) == (0, 0)
    # A picture too narrow to be counted by columns is seen, and refused.
    before = watcher.counts["malformed"]
    watcher.node.input.on_picture(watcher.image(np.zeros((4, 2, 3), np.uint8)))
    watcher.node.input.on_pose(nav.base_message(Pose(0.0, 0.0, 0.0), watcher.now(), "map"))
    until(lambda: watcher.counts["malformed"] > before or len(watcher.node._views))
    assert len(watcher.node._views) == 0
    watcher.see(PIXELS[0], 1.0)


def test_a_model_that_is_not_there_is_one_line(context: Context) -> None:
    with pytest.raises(ValueError, match="no mural 'nothing'"):
        Watcher(context, "nothing")


# Processes.

HOUSE = "house_test_000000"
# From a bedroom through the hallway into a bathroom that stands out for the shipped model, wherever
# on the way pictures are taken; how often it does is measured in docs/retrieval.md.
START, END = 3, 9


class Asker:
    """Drives a base and asks, over DDS."""

    def __init__(self, operator: Operator) -> None:
        self.operator, node = operator, operator.node
        self.pose: Pose | None = None
        self.goals: list[Any] = []
        self.remembered = self.reports = 0
        self.rankings: list[dict[str, Any]] = []
        self._texts = node.create_publisher(String, "goal_views/text", RELIABLE)
        self._pictures = node.create_publisher(Image, "goal_views/picture", RELIABLE)
        self._drive = node.create_publisher(TwistStamped, "policy/command", RELIABLE)
        node.create_subscription(PoseStamped, "base_pose", self._on_pose, RELIABLE)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, RELIABLE)
        node.create_subscription(PoseStamped, "goal_views/goal", self.goals.append, RELIABLE)
        node.create_subscription(
            String, "goal_views/ranking", lambda m: self.rankings.append(json.loads(m.data)),
            RELIABLE,
        )  # fmt: skip

    def _on_pose(self, message: PoseStamped) -> None:
        self.pose = nav.base_pose(message)

    def _on_report(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "goal_views":
                facts = {pair.key: pair.value for pair in status.values}
                self.remembered = int(facts["remembered"])
                self.reports += 1

    def look(self) -> None:
        """Until it has looked around from where it stands."""
        # Views of the way may be told of late: those after the next report count, and of them the
        # second panorama, for the first may have been taken before.
        reports = self.reports
        self.operator.spin_until(lambda: self.reports > reports, 30.0, "a report")
        enough = self.remembered + 2 * 12
        self.operator.spin_until(lambda: self.remembered >= enough, 60.0, "a look around")

    def drive(self, start: np.ndarray, end: np.ndarray) -> None:
        """Along a straight way, commands ten times a second and more."""
        config = DriveConfig(speed=1.2, turn=2.0, braking=0.5, arrival=0.15)

        def there() -> bool:
            assert self.pose is not None
            now = steer(self.pose, start, end, config)
            stamp = self.operator.node.get_clock().now().to_msg()
            twist = messages.twist_message(
                [now.speed, 0.0, 0.0], [0.0, 0.0, now.turn], stamp, "base_link"
            )
            self._drive.publish(twist)
            return now.arrived

        self.operator.spin_until(there, 60.0, f"the way to {end}")

    def ask(self, text: str) -> dict[str, Any]:
        return self._asked(lambda: self._texts.publish(String(data=text)))

    def show(self, pixels: np.ndarray) -> dict[str, Any]:
        stamp = self.operator.node.get_clock().now().to_msg()
        message = messages.image_message(pixels, "rgb8", stamp, "lens")
        return self._asked(lambda: self._pictures.publish(message))

    def _asked(self, say: Callable[[], None]) -> dict[str, Any]:
        before = len(self.rankings)
        say()
        self.operator.spin_until(
            lambda: len(self.rankings) > before and len(self.goals) > before, 30.0, "an answer"
        )
        return self.rankings[-1]


def test_a_base_that_walked_about_finds_again_what_it_saw(tmp_path: Path) -> None:
    scene = HouseScene(HOUSE)
    graph = scene.graph
    names = graph.shortest_path(graph.viewpoints[START], graph.viewpoints[END])
    way = [graph.index(name) for name in names]
    overrides = {
        "sim_base.house": HOUSE,
        "sim_base.viewpoint": way[0],
        "safety_gate.velocity": [1.3, 0.0, 0.0, 0.0, 0.0, 2.1],
        # A busy machine may hold a process up for longer than a robot should be trusted without.
        "safety_gate.command_timeout": 1.0,
        "safety_gate.max_age": 1.0,
        "safety_gate.rearm": "automatic",
        "goal_views.max_age": 5.0,
    }
    with isolated(), running(find_graph("sim_goal_views"), overrides, tmp_path) as processes:
        operator = Operator(check=processes.check)
        try:
            asker = Asker(operator)
            operator.arm(60.0)
            operator.spin_until(lambda: asker.pose, 30.0, "a pose")
            asker.look()
            for start, end in itertools.pairwise(way):
                asker.drive(graph.positions[start], graph.positions[end])
                asker.look()
            shown: list[float] = []
            bathrooms = [room.purpose == "bathroom" for room in scene.house.rooms]
            for text in ("the bathroom", "浴室里"):
                told = asker.ask(text)
                assert told["text"] == text
                assert told["held"] >= 5 * 12  # most of them of other rooms
                for view in told["views"]:
                    where = np.array([view[axis] for axis in "xyz"])
                    shares = glimpse(scene.simulator, where, view["yaw"], 64).shares
                    shown.append(round(float(shares[bathrooms].sum()), 2))
                # From before its door the bathroom fills a half of a view, the hallway the other.
                assert shown[-len(told["views"])] > 0.4, shown
                goal, best = asker.goals[-1].pose.position, told["views"][0]
                np.testing.assert_allclose((goal.x, goal.y, goal.z), [best[k] for k in "xyz"])
            assert len(shown) == 10
            assert sum(share > 0.5 for share in shown) >= 7, shown
            # A picture that another camera takes near a viewpoint it has been to.
            there = graph.positions[way[-1]] + (0.2, 0.2, 0.0)
            seen = glimpse(scene.simulator, there, -0.4, 64)
            told = asker.show(picture(scene.simulator, seen))
            best = told["views"][0]
            where = np.array([best[axis] for axis in "xyz"])
            assert np.linalg.norm(where - there) < 2.0
            assert glimpse(scene.simulator, where, best["yaw"], 64).room == seen.room
        finally:
            operator.close()
            scene.close()
