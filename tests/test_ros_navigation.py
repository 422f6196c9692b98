"""World model, navigator and simulated base: alone, and as processes over DDS."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
pytest.importorskip("rclpy")

import rclpy
import yaml
from nav_msgs.msg import Odometry
from PIL import Image
from rclpy.context import Context
from rclpy.parameter import Parameter
from ros_cases import Sink, contexts, until
from std_msgs.msg import String
from std_srvs.srv import Trigger

from decisive.cli import main
from decisive.scenes import HouseScene
from envs.indoor.r2r_data import Instruction
from robots.driving import Pose
from robots.streaming import Outcome
from ros_nodes import messages, walks
from ros_nodes import navigation_messages as nav
from ros_nodes.demo import isolated
from ros_nodes.graph import find_graph, share
from ros_nodes.guide import Choice
from ros_nodes.navigator import PARAMETERS as NAVIGATOR_PARAMETERS
from ros_nodes.navigator import Navigator
from ros_nodes.operator import Operator
from ros_nodes.panorama_input import PanoramaInput
from ros_nodes.processes import running
from ros_nodes.running import LATCHED, RELIABLE
from ros_nodes.sim_base import PARAMETERS as BASE_PARAMETERS
from ros_nodes.walk_picture import TRAIL
from ros_nodes.walks import WalksConfig, run_walks
from ros_nodes.world_model import WorldModel
from world_models.pathdreamer.dreamer import Dreamer
from world_models.pathdreamer.model import load_world_model
from world_models.pathdreamer.panoramas import Seen

pytestmark = pytest.mark.ros
HOUSE = "house_test_000000"


@pytest.fixture
def context() -> Iterator[Context]:
    yield from contexts(53)


@pytest.fixture(scope="module")
def scene() -> Iterator[HouseScene]:
    made = HouseScene(HOUSE)
    yield made
    made.close()


def look(scene: HouseScene, viewpoint: int, height: int = 64) -> Seen:
    seen = scene.simulator.observe(scene.graph.viewpoints[viewpoint], (height, 2 * height))
    return Seen(seen.rgb, seen.semantic, seen.depth, seen.position)


# The world model


class Dreams:
    """A world model whose output is kept."""

    def __init__(self, context: Context, **changes: Any) -> None:
        overrides = [Parameter(name, value=value) for name, value in changes.items()]
        self.node = WorldModel(context=context, parameter_overrides=overrides)
        self.views = {key: Sink() for key in nav.PANORAMA}
        self.node._views.update(self.views)  # type: ignore[arg-type]
        self.cloud = self.node._cloud = Sink()  # type: ignore[assignment]

    def path(self, *points: Any) -> Any:
        stamp = self.node.get_clock().now().to_msg()
        return nav.path_message(np.array(points), stamp, "map")

    def panoramas(self) -> list[Seen]:
        found = zip(*(sink.messages for sink in self.views.values()), strict=True)
        return [nav.read_panorama(dict(zip(self.views, each, strict=True)), 41) for each in found]


@pytest.fixture
def dreams(context: Context) -> Iterator[Dreams]:
    made = Dreams(context)
    yield made
    made.node.finish()
    made.node.destroy_node()


def test_a_path_is_dreamed_along_as_a_dreamer_does(dreams: Dreams, scene: HouseScene) -> None:
    seen = look(scene, 19)
    dreams.node._on_panorama(seen, 1)
    way = [scene.graph.positions[k][:2] for k in (20, 22)]
    message = dreams.path(*way)
    dreams.node._on_path(message)
    until(lambda: dreams.cloud.messages)
    found = dreams.panoramas()
    dreamer = Dreamer(load_world_model("pathdreamer-houses").eval(), (64, 128), 0)
    dreamer.see(seen)
    for panorama, (x, y) in zip(found, way, strict=True):
        expected = dreamer.dream(np.array([x, y, seen.position[2]]))
        np.testing.assert_array_equal(panorama.semantic, expected.semantic)
        np.testing.assert_array_equal(panorama.rgb, expected.rgb)
        np.testing.assert_allclose(panorama.depth, expected.depth)
        np.testing.assert_allclose(panorama.position, expected.position)
    stamps = [messages.nanoseconds(m.header.stamp) for m in dreams.views["pose"].messages]
    first = messages.nanoseconds(message.header.stamp)
    assert stamps == [first, first + 1]
    positions, channels = nav.labelled_points(dreams.cloud.messages[0])
    np.testing.assert_array_equal(positions, dreamer.memory.points.positions)
    np.testing.assert_array_equal(channels, dreamer.memory.points.channels)


def test_paths_without_sense_are_refused_and_counted(dreams: Dreams, scene: HouseScene) -> None:
    dreams.node._on_path(dreams.path((0.0, 0.0)))  # nothing was seen yet
    dreams.node._on_panorama(look(scene, 19), 1)
    dreams.node._on_path(nav.Path())
    dreams.node._on_path(dreams.path(*[(0.1 * k, 0.0) for k in range(33)]))
    spoilt = dreams.path((1.0, 1.0))
    spoilt.poses[0].pose.position.x = math.nan
    dreams.node._on_path(spoilt)
    assert dreams.node._counts["refused"] == 4
    assert dreams.node._counts["paths"] == 0
    assert not dreams.cloud.messages


def test_standing_still_fills_nothing_and_a_reset_forgets(
    dreams: Dreams, scene: HouseScene
) -> None:
    for _ in range(5):
        dreams.node._on_panorama(look(scene, 19, 16), 1)
    dreams.node._on_panorama(look(scene, 20, 16), 1)
    assert len(dreams.node._seen) == 2
    assert dreams.node._on_reset(Trigger.Request(), Trigger.Response()).success
    assert not dreams.node._seen


def test_a_size_that_the_model_cannot_predict_is_refused(context: Context) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        Dreams(context, height=40)


# Panoramas


def test_four_messages_of_one_stamp_make_a_panorama(context: Context, scene: HouseScene) -> None:
    node = rclpy.create_node("ears", context=context)
    taken: list[tuple[Seen, int]] = []
    value = {"panorama_age": 2.0, "panorama_skew": 0.02, "future": 0.05}
    reader = PanoramaInput(node, value, lambda seen, stamp: taken.append((seen, stamp)))
    try:
        seen = look(scene, 3, 16)
        now = node.get_clock().now()
        found = nav.panorama_messages(seen, now.to_msg(), "map")
        for key, message in found.items():
            assert not taken
            reader._reader(key)(message)
        assert [stamp for _, stamp in taken] == [now.nanoseconds]
        np.testing.assert_array_equal(taken[0][0].semantic, seen.semantic)
        # What does not fit together, or is old, is no panorama and no error.
        later = nav.panorama_messages(seen, node.get_clock().now().to_msg(), "map")
        later["depth"].width = 7
        old = nav.panorama_messages(seen, messages.stamp_of(5), "map")
        for found in (later, old):
            for key, message in found.items():
                reader._reader(key)(message)
        assert len(taken) == 1
    finally:
        node.destroy_node()


# The navigator


class Led:
    """A navigator whose output is kept, and a base that is where it is told."""

    def __init__(self, context: Context, scene: HouseScene, **changes: Any) -> None:
        settings = {"model": "", "horizon": 2, **changes}
        overrides = [Parameter(name, value=value) for name, value in settings.items()]
        self.scene = scene
        self.node = Navigator(context=context, parameter_overrides=overrides)
        self.commands = self.node._command = Sink()  # type: ignore[assignment]
        self.plans = self.node._plan = Sink()  # type: ignore[assignment]

    def know(self) -> None:
        graph = self.scene.graph
        told = {"scan": graph.scan, "connectivity": graph.connectivity()}
        self.node._on_graph(String(data=json.dumps(told)))

    def stand(self, viewpoint: int, off: tuple[float, float] = (0.0, 0.0), yaw: float = 0.0):
        x, y = self.scene.graph.positions[viewpoint][:2] + off
        stamp = self.node.get_clock().now().to_msg()
        self.node._on_pose(nav.base_message(Pose(float(x), float(y), yaw), stamp, "map"))

    def see(self, viewpoint: int) -> None:
        now = self.node.get_clock().now().nanoseconds
        self.node._on_panorama(look(self.scene, viewpoint, 32), now)

    def tell(self, text: str) -> str:
        self.node._on_instruction(String(data=text))
        return f"{self.node._state}: {self.node._why}"

    def tick(self) -> tuple[float, float]:
        """Speed and turn of the command that a tick sends."""
        before = len(self.commands.messages)
        self.node._control()
        assert len(self.commands.messages) == before + 1
        speed, _, _, _, _, turn = messages.twist_array(self.commands.messages[-1])
        return float(speed), float(turn)


@pytest.fixture
def led(context: Context, scene: HouseScene) -> Iterator[Led]:
    made = Led(context, scene)
    yield made
    made.node.finish()
    made.node.destroy_node()


TEXT = "walk past the stool and wait next to the table"


def test_an_errand_needs_a_map_a_pose_and_a_word(led: Led) -> None:
    led.stand(19)
    assert led.tell(TEXT) == "idle: refused: no graph is known yet"
    for spoilt in ("", "[]", "{}", '{"connectivity": 3}'):
        led.node._on_graph(String(data=spoilt))
    led.know()
    led.node._pose = None
    assert "where the base stands is not known" in led.tell(TEXT)
    led.stand(19, (9.0, 9.0))
    assert "m away, more than `reach`" in led.tell(TEXT)
    led.stand(19)
    assert "needs words" in led.tell("?!")
    assert "at most 1000 words" in led.tell("table " * 10_000)
    assert led.node._counts["refused"] == 5
    assert led.tell("桌子旁边停下") == "looking: at viewpoint 19"


def test_it_looks_thinks_drives_and_stands_still_in_between(led: Led) -> None:
    led.know()
    led.stand(19)
    assert led.tick() == (0.0, 0.0)
    led.tell(TEXT)
    # Not a panorama from elsewhere, nor one from before the base stood here.
    led.see(3)
    led.node._on_panorama(look(led.scene, 19, 32), led.node._since - 1)
    assert led.node._state == "looking"
    led.see(19)
    assert led.node._state == "thinking"
    until(lambda: led.node._outcome is not None)
    led.stand(19)
    led.tick()
    points = nav.path_points(led.plans.messages[-1])
    np.testing.assert_allclose(points[0, :2], led.scene.graph.positions[19][:2])
    if led.node._state == "driving":
        assert led.node._guide is not None
        there = led.node._guide.history[-1]
        np.testing.assert_allclose(points[1, :2], led.scene.graph.positions[there][:2])
        led.stand(there)
        assert led.tick()[0] == 0.0
        assert led.node._state == "looking"
    else:
        assert led.node._state == "arrived"
    led.node._on_cancel(Trigger.Request(), Trigger.Response())
    led.stand(19)
    assert led.tick() == (0.0, 0.0)


def test_a_map_that_is_told_again_ends_no_errand_and_another_one_does(led: Led) -> None:
    led.know()
    led.stand(19)
    led.tell(TEXT)
    led.know()
    assert led.node._state == "looking"
    entries = led.scene.graph.connectivity()[:10]
    for entry in entries:
        entry["unobstructed"] = entry["unobstructed"][:10]
    told = {"scan": "elsewhere", "connectivity": entries}
    led.node._on_graph(String(data=json.dumps(told)))
    assert (led.node._state, led.node._why) == ("idle", "in elsewhere")


def drive(led: Led, there: int) -> None:
    """As if a worker had chosen a viewpoint."""
    led.know()
    led.stand(19)
    led.tell(TEXT)
    assert led.node._guide is not None
    ways = [led.scene.graph.positions[k] for k in (19, there)]
    led.node._way = ways[0], ways[1]
    led.node._nearest = math.inf, time.monotonic_ns()
    led.node._guide.go(there)
    led.node._stand("driving", "")


def test_a_base_that_leaves_its_way_or_gets_no_nearer_is_stopped(
    context: Context, scene: HouseScene
) -> None:
    led = Led(context, scene, patience=1.0)
    try:
        drive(led, 20)
        led.stand(19)
        assert led.tick() != (0.0, 0.0)
        ahead = scene.graph.positions[20] - scene.graph.positions[19]
        side = np.array([-ahead[1], ahead[0]]) / np.hypot(*ahead[:2])
        led.stand(19, tuple(0.5 * side))
        assert led.tick() == (0.0, 0.0)
        assert led.node._state == "failed"
        assert "off the way" in led.node._why
        drive(led, 20)
        led.stand(19)
        led.tick()
        time.sleep(1.1)
        led.stand(19)
        assert led.tick() == (0.0, 0.0)
        assert "gets no nearer" in led.node._why
    finally:
        led.node.finish()
        led.node.destroy_node()


def test_nothing_is_commanded_on_an_old_pose_nor_twice_on_one(led: Led) -> None:
    drive(led, 20)
    led.stand(19)
    led.tick()
    sent = len(led.commands.messages)
    led.node._control()
    assert len(led.commands.messages) == sent
    led.stand(19)
    time.sleep(led.node.value["max_age"] + 0.05)
    led.node._control()
    assert len(led.commands.messages) == sent


def test_what_an_old_errand_was_thinking_does_not_move_the_base(led: Led) -> None:
    led.know()
    led.stand(19)
    led.tell(TEXT)
    led.node._stand("thinking", "")
    assert led.node._guide is not None
    now, choice = led.node._worker.epoch, Choice([19, 20], 1.0)
    led.node._outcome = Outcome(led.node._guide, choice, None, 0.1, now - 1)
    assert led.tick() == (0.0, 0.0)
    assert led.node._state == "thinking"
    led.stand(19)
    led.node._outcome = Outcome(led.node._guide, choice, None, 0.1, now)
    assert led.tick() != (0.0, 0.0)
    assert led.node._state == "driving"
    led.stand(19)
    led.node._stand("thinking", "")
    led.node._outcome = Outcome(led.node._guide, None, RuntimeError("broken"), 0.1, now)
    assert led.tick() == (0.0, 0.0)
    assert (led.node._state, led.node._why) == ("failed", "RuntimeError: broken")


# Processes


def test_a_base_follows_an_instruction_through_the_graph(tmp_path: Path) -> None:
    faster = {
        "navigator.speed": 1.2,
        "navigator.turn": 2.0,
        "safety_gate.velocity": [1.3, 0.0, 0.0, 0.0, 0.0, 2.1],
        # A busy machine may hold a process up for longer than a robot should be trusted without.
        "safety_gate.command_timeout": 1.0,
        "safety_gate.inference_timeout": 1.0,
    }
    pictures = tmp_path / "pictures"
    answer = run_walks(WalksConfig(walks=1, overrides=faster, pictures=pictures), tmp_path)
    (row,) = answer["ros"]["per_episode"]
    assert answer["equal"] == 1, answer
    assert row["success"]
    assert row["path"] == row["asked"]
    with Image.open(pictures / f"{HOUSE}-0.png") as picture:
        driven = (np.asarray(picture.convert("RGB")) == TRAIL).all(axis=-1)
    assert driven.sum() > 500
    assert answer["gate"]["passed"] > 100
    assert answer["gate"]["stops"] == 0


def test_the_emergency_stop_halts_a_driving_base(tmp_path: Path, scene: HouseScene) -> None:
    speeds: list[tuple[float, float]] = []
    errand = walks.instructions_of(scene, 0, 1)[0]
    start = scene.graph.index(errand.path[0])
    overrides = {
        "sim_base.house": HOUSE,
        "sim_base.viewpoint": start,
        "navigator.model": "",
        # A busy machine may stop the gate for a moment; that must not be the stop of this test.
        "safety_gate.rearm": "automatic",
    }
    told: list[dict[str, Any]] = []
    with isolated(), running(find_graph("sim_navigation"), overrides, tmp_path) as processes:
        operator = Operator(check=processes.check)
        try:
            operator.node.create_subscription(
                Odometry,
                "odom",
                lambda m: speeds.append((time.monotonic(), m.twist.twist.linear.x)),
                RELIABLE,
            )
            operator.node.create_subscription(
                String, "navigator/state", lambda m: told.append(json.loads(m.data)), LATCHED
            )
            publisher = operator.node.create_publisher(String, "instruction", RELIABLE)
            operator.arm(60.0)
            operator.spin_until(lambda: told and HOUSE in told[-1]["why"], 30.0, "the map")

            def moving() -> bool:
                if told[-1]["state"] == "idle":  # not heard yet, or refused for an old pose
                    publisher.publish(String(data=errand.text))
                    operator.rest(1.0)
                return bool(speeds) and speeds[-1][1] > 0.2

            try:
                operator.spin_until(moving, 60.0, "motion")
            except TimeoutError as error:
                raise AssertionError(f"{told[-1]}, gate {operator.gate}") from error
            operator.estop(True)
            pressed = time.monotonic()
            operator.rest(1.0)
            late = [speed for at, speed in speeds if at > pressed + 0.1]
            assert len(late) > 10
            assert max(map(abs, late)) == 0.0
            assert operator.report()["state"] == "estop"
        finally:
            operator.close()


def test_a_walk_that_is_refused_or_not_this_one_is_no_end() -> None:
    class Waits:
        def spin_until(self, condition: Callable[[], Any], seconds: float, what: str) -> None:
            self.over = condition()

    route = Instruction("0_0", "0", HOUSE, ("a", "b"), 0.0, "go to the bed")
    waits: Any = Waits()
    for told, over in (
        ({"state": "arrived", "why": "", "instruction": "go to the bed"}, True),
        ({"state": "arrived", "why": "", "instruction": "go to the sofa"}, False),
        ({"state": "driving", "why": "", "instruction": "go to the bed"}, False),
        ({"state": "idle", "why": "", "instruction": ""}, False),
        ({}, False),
    ):
        walks._await_end(waits, dict(told), route, 1.0)
        assert waits.over == over
    with pytest.raises(ValueError, match="refused: too far"):
        walks._await_end(waits, {"state": "idle", "why": "refused: too far"}, route, 1.0)


def test_the_direct_walk_has_the_settings_of_the_graph() -> None:
    """It takes the defaults of the nodes; the file of the graph must not say otherwise."""
    file = yaml.safe_load(share("config/sim_navigation.yaml").read_text())
    tables = {"sim_base": BASE_PARAMETERS, "navigator": NAVIGATOR_PARAMETERS}
    used = {"height", "ranker", "model", "samples", "horizon", "max_hops"}
    for node, table in tables.items():
        given = file[f"/**/{node}"]["ros__parameters"]
        defaults = {p.name: p.default for p in table}
        assert {name: given[name] for name in used & set(given)} == {
            name: defaults[name] for name in used & set(given)
        }


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--walks", "0"), "at least one walk"),
        (("--house", "my house"), "my house"),
        (("--model", "no-such-model"), "no-such-model"),
        (("--param", "navigator=3"), "NODE.NAME=VALUE"),
    ],
)
def test_walks_without_sense_are_refused_in_one_line(
    words: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ros", "walk", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert why in error
    assert "\n" not in error


def test_a_simulated_base_starts_without_torch() -> None:
    code = "import sys, ros_nodes.sim_base; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
