"""Keys and sticks to velocities, and the nodes that send them."""

import contextlib
import math
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robots.teleoperation import (
    GamepadConfig,
    Keyboard,
    KeyboardConfig,
    KeyReader,
    read_gamepad,
    shape_deflection,
)

ROOT = Path(__file__).resolve().parents[1]
DOMAIN = 90 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 3


# Keys.


def test_keys_and_arrows_are_read_whole_or_in_pieces() -> None:
    reader = KeyReader()
    assert reader.feed(b"w\x1b[A\x1bOD W") == ["w", "up", "left", " ", "w"]
    assert reader.feed(b"\x1b") == []
    assert reader.feed(b"[") == []
    assert reader.feed(b"Cq") == ["right", "q"]


def test_other_keys_of_a_terminal_say_nothing() -> None:
    # Delete, F5, Ctrl-arrow, a letter with an accent, Escape alone and then a key.
    assert KeyReader().feed(b"\x1b[3~\x1b[15~\x1b[1;5A\xc3\xa9\x1bs") == ["s"]


@given(st.lists(st.binary(max_size=6), max_size=8))
def test_no_bytes_upset_the_reader_and_pieces_do_not_matter(pieces: list[bytes]) -> None:
    apart = KeyReader()
    found = [key for piece in pieces for key in apart.feed(piece)]
    whole = KeyReader().feed(b"".join(pieces))
    if len(b"".join(pieces)) < 16:  # a longer unfinished sequence is cut
        assert found == whole


@pytest.mark.parametrize(
    ("key", "direction"),
    [
        ("up", (1, 0, 0)),
        ("s", (-1, 0, 0)),
        ("left", (0, 1, 0)),
        ("d", (0, -1, 0)),
        ("r", (0, 0, 1)),
    ],
)
def test_directions_follow_rep_103(key: str, direction: tuple[int, ...]) -> None:
    board = Keyboard(KeyboardConfig(speed=0.1))
    board.press(key, 5.0)
    np.testing.assert_array_equal(board.velocity(5.0), np.array(direction) * 0.1)


def test_a_key_counts_for_its_time_and_space_ends_it_at_once() -> None:
    board = Keyboard(KeyboardConfig(timeout=0.2))
    board.press("up", 5.0)
    assert board.velocity(5.199).any()
    assert not board.velocity(5.2).any()
    board.press("up", 6.0)
    board.press(" ", 6.01)
    assert not board.velocity(6.01).any()


def test_two_keys_go_obliquely_at_the_same_speed() -> None:
    board = Keyboard(KeyboardConfig(speed=0.1))
    board.press("w", 1.0)
    board.press("a", 1.1)
    assert np.linalg.norm(board.velocity(1.1)) == pytest.approx(0.1)
    assert (board.velocity(1.1)[:2] > 0).all()


def test_speed_keys_stay_within_their_bounds() -> None:
    board = Keyboard(KeyboardConfig(speed=0.1, max_speed=0.3))
    for _ in range(50):
        board.press("+", 0.0)
    assert board.speed == 0.3
    for _ in range(50):
        board.press("-", 0.0)
    assert board.speed == pytest.approx(0.003)


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_leaving_stops(key: str) -> None:
    board = Keyboard(KeyboardConfig())
    board.press("up", 0.0)
    board.press(key, 0.0)
    assert board.quit
    assert not board.velocity(0.0).any()


@pytest.mark.parametrize(
    "change", [{"speed": 0.0}, {"speed": 0.5}, {"factor": 1.0}, {"timeout": 0}]
)
def test_keyboards_that_would_never_stop_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        KeyboardConfig(**change)


# Sticks.

PAD = GamepadConfig()


def buttons(**pressed: int) -> list[int]:
    found = [0] * 8
    found[PAD.deadman] = pressed.get("deadman", 0)
    found[PAD.estop] = pressed.get("estop", 0)
    return found


def test_sticks_move_only_with_the_deadman_button() -> None:
    axes = [0.0, 1.0, 0.0]
    assert read_gamepad(axes, buttons(), 0.0, PAD).velocity is None
    velocity = read_gamepad(axes, buttons(deadman=1), 0.0, PAD).velocity
    np.testing.assert_allclose(velocity, [0.2, 0.0, 0.0])


@pytest.mark.parametrize("age", [0.201, -0.201, math.nan])
def test_what_is_old_or_from_the_future_does_not_move(age: float) -> None:
    assert read_gamepad([0, 1], buttons(deadman=1), age, PAD).velocity is None


def test_what_is_just_fresh_enough_moves() -> None:
    assert read_gamepad([0, 1], buttons(deadman=1), 0.2, PAD).velocity is not None


def test_the_emergency_stop_counts_at_any_age_and_without_the_deadman() -> None:
    told = read_gamepad([0, 1], buttons(estop=1, deadman=1), 9.0, PAD)
    assert told.estop
    assert told.velocity is None
    assert read_gamepad([], buttons(estop=1), 0.0, PAD).estop


def test_the_dead_zone_has_no_jump_at_its_edge() -> None:
    assert shape_deflection(0.1, 0.1) == 0.0
    assert shape_deflection(-0.05, 0.1) == 0.0
    assert 0 < shape_deflection(0.101, 0.1) < 0.01
    assert shape_deflection(-7.0, 0.1) == -1.0


@given(st.floats(-2, 2), st.floats(0, 0.9))
def test_shaping_is_odd_bounded_and_keeps_the_sign(value: float, zone: float) -> None:
    shaped = shape_deflection(value, zone)
    assert abs(shaped) <= 1
    assert shaped == -shape_deflection(-value, zone)
    assert shaped * value >= 0


@pytest.mark.parametrize(
    ("axes", "pressed", "said"),
    [
        ([0.0], buttons(deadman=1), "1 axes"),
        ([0.0, math.nan], buttons(deadman=1), "finite"),
        ([0.0, 1.0], [1, 1], "2 buttons"),
    ],
)
def test_a_pad_that_is_not_as_described_is_refused(axes: list, pressed: list, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_gamepad(axes, pressed, 0.0, PAD)


def test_inverted_sticks_and_missing_ones() -> None:
    config = GamepadConfig(axes=(3, -1, 0), signs=(-1.0, 1.0, 1.0), dead_zone=0.0, scale=1.0)
    velocity = read_gamepad([0.5, 0, 0, 1.0], buttons(deadman=1), 0.0, config).velocity
    np.testing.assert_allclose(velocity, [-1.0, 0.0, 0.5])


@pytest.mark.parametrize("change", [{"estop": 4}, {"dead_zone": 1.0}, {"axes": (0, 1)}])
def test_mappings_that_make_no_sense_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=r"must be|are three"):
        GamepadConfig(**change)


# The nodes.


@pytest.fixture
def context(monkeypatch, tmp_path):
    rclpy = pytest.importorskip("rclpy")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    from rclpy.context import Context

    found = Context()
    rclpy.init(context=found, domain_id=DOMAIN)
    yield found
    rclpy.try_shutdown(context=found)


@contextlib.contextmanager
def spinning(context, *nodes):
    """A function that handles messages until a condition holds."""
    from rclpy.executors import SingleThreadedExecutor

    executor = SingleThreadedExecutor(context=context)
    for node in nodes:
        executor.add_node(node)

    def until(condition, seconds=20.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            executor.spin_once(timeout_sec=0.02)

    yield until
    executor.shutdown(timeout_sec=0.2)
    for node in nodes:
        node.destroy_node()


def listener(context, kind, topic, quality):
    import rclpy

    node = rclpy.create_node("listener", context=context)
    heard: list = []
    node.create_subscription(kind, topic, heard.append, quality)
    return node, heard


@pytest.mark.ros
def test_the_gamepad_node_moves_only_while_it_is_held_and_stops_once(context) -> None:
    from geometry_msgs.msg import TwistStamped
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Joy
    from std_msgs.msg import Bool

    from ros_nodes.running import RELIABLE
    from ros_nodes.teleop_gamepad import TeleopGamepad

    pad = TeleopGamepad(context=context)
    ear, heard = listener(context, TwistStamped, "policy/command", QoSProfile(depth=100))
    stops: list = []
    ear.create_subscription(Bool, "estop", stops.append, RELIABLE)
    stick = ear.create_publisher(Joy, "joy", RELIABLE)

    def say(**pressed):
        stick.publish(Joy(axes=[0.0, 1.0], buttons=buttons(**pressed)))

    with spinning(context, pad, ear) as until:
        until(lambda: stick.get_subscription_count() and pad._output.get_subscription_count())
        until(lambda: (say(deadman=1), len(heard) >= 5)[1])
        assert heard[-1].twist.linear.x == pytest.approx(0.2)
        assert heard[-1].header.frame_id == "base_link"
        until(lambda: (say(), heard[-1].twist.linear.x == 0.0)[1])
        count, end = len(heard), time.monotonic() + 0.3
        until(lambda: (say(), time.monotonic() > end)[1])
        assert len(heard) == count  # one zero, and then nothing
        until(lambda: (say(deadman=1), len(heard) > count + 2)[1])
        # A gamepad that falls silent with the button held.
        until(lambda: heard[-1].twist.linear.x == 0.0, 2.0)
        until(lambda: (say(estop=1), bool(stops))[1])
        assert stops[0].data
        assert pad.finish()


@pytest.mark.ros
def test_a_joy_message_that_came_late_does_not_move(context) -> None:
    from geometry_msgs.msg import TwistStamped
    from rclpy.duration import Duration
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Joy

    from ros_nodes.running import RELIABLE
    from ros_nodes.teleop_gamepad import TeleopGamepad

    pad = TeleopGamepad(context=context)
    ear, heard = listener(context, TwistStamped, "policy/command", QoSProfile(depth=100))
    stick = ear.create_publisher(Joy, "joy", RELIABLE)

    def say(age):
        message = Joy(axes=[0.0, 1.0], buttons=buttons(deadman=1))
        message.header.stamp = (ear.get_clock().now() - Duration(seconds=age)).to_msg()
        stick.publish(message)

    with spinning(context, pad, ear) as until:
        until(lambda: stick.get_subscription_count() and pad._output.get_subscription_count())
        end = time.monotonic() + 0.4
        until(lambda: (say(0.5), time.monotonic() > end)[1])
        assert not heard
        until(lambda: (say(0.0), bool(heard))[1])


class Typist:
    """`teleop_keyboard` at a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self.ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        env = os.environ | {
            "PYTHONPATH": str(ROOT),
            "ROS_DOMAIN_ID": str(DOMAIN),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOG_DIR": str(folder),
            "ROS_PYTHON_CHECK_FIELDS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ros_nodes.teleop_keyboard", "--ros-args",
             "--params-file", str(ROOT / "config" / "recorder.yaml")],
            stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=env, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip
        self.theirs = theirs
        self.screen = ""

    def look(self) -> str:
        while select.select([self.ours], [], [], 0)[0]:
            self.screen += os.read(self.ours, 4096).decode(errors="replace")
        return self.screen

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def restored(self) -> bool:
        return termios.tcgetattr(self.theirs)[3] == self.before[3]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.mark.ros
@pytest.mark.parametrize("way", ["q", "ctrl-c", "SIGINT", "SIGTERM"])
def test_the_keyboard_moves_stops_and_gives_the_terminal_back(context, tmp_path, way) -> None:
    from geometry_msgs.msg import TwistStamped
    from rclpy.qos import QoSProfile

    ear, heard = listener(context, TwistStamped, "policy/command", QoSProfile(depth=1000))
    typist = Typist(tmp_path)
    try:
        with spinning(context, ear) as until:
            until(lambda: bool(heard), 30.0)
            assert "q: quit" in typist.look()
            assert not typist.restored()
            assert heard[-1].twist.linear.x == 0.0
            until(lambda: (typist.type(b"\x1b[A"), heard[-1].twist.linear.x > 0)[1])
            assert heard[-1].twist.linear.x == pytest.approx(0.1)
            # Nothing is typed any more.
            until(lambda: heard[-1].twist.linear.x == 0.0, 2.0)
            typist.type(b"+a")
            until(lambda: heard[-1].twist.linear.y > 0.1)
            if way in ("q", "ctrl-c"):
                typist.type({"q": b"q", "ctrl-c": b"\x03"}[way])
            else:
                os.kill(typist.process.pid, signal.Signals[way])
            until(lambda: typist.process.poll() is not None)
            until(lambda: heard[-1].twist.linear.y == 0.0, 2.0)
        assert typist.process.returncode == 0, typist.process.stderr.read()
        assert typist.restored()
    finally:
        typist.close()


@pytest.mark.ros
def test_without_a_terminal_the_keyboard_says_so_in_one_line(tmp_path) -> None:
    pytest.importorskip("rclpy")
    done = subprocess.run(
        [sys.executable, "-m", "ros_nodes.teleop_keyboard"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "ROS_LOG_DIR": str(tmp_path),
                          "ROS_DOMAIN_ID": str(DOMAIN)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "decisive: teleop_keyboard reads keys, and its input is no terminal"
    )
