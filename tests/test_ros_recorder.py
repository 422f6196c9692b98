"""Demonstrations from a running robot: pairing of rows, and the node in a graph of processes."""

import itertools
import json
import math
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisive import cli
from decisive.episodes import ExpertActor
from decisive.options import make_env
from learning.demonstrations import load_demonstrations
from robots.commanded_motion import SECOND, PositionTrack, VelocityTrack
from robots.episode_layout import EpisodeArrays, PairingConfig
from robots.episode_recording import LockstepPairing, TimedPairing, make_pairing
from robots.episode_session import EpisodeSession, Finished
from robots.matching import default_features
from ros_nodes.graph import Graph, NodeSpec
from ros_nodes.recorded_data import choose_features, environment_target, plain_target, to_episode

ROOT = Path(__file__).resolve().parents[1]
DOMAIN = 93 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 3
STEP = SECOND // 10
LEVEL = np.array([0.0, 0.0, 0.0, 1.0])
INSERTION = "decisive/BlockInsertion-v0"


# What was commanded.


def test_a_velocity_acts_until_the_next_or_for_as_long_as_it_holds() -> None:
    track = VelocityTrack(hold=0.1)
    track.add(0, np.array([1.0, 0.0]))
    track.add(50_000_000, np.array([0.0, 2.0]))
    way = track.displacement(0, SECOND)
    assert way is not None
    np.testing.assert_allclose(way, [0.05, 0.2], rtol=1e-12)
    assert track.displacement(2 * SECOND, 3 * SECOND).tolist() == [0, 0]
    assert VelocityTrack().displacement(0, SECOND) is None


commands = st.lists(st.tuples(st.integers(0, SECOND), st.floats(-1, 1)), min_size=1, max_size=20)


@given(commands, st.lists(st.integers(0, SECOND), max_size=5), st.integers(0, SECOND))
def test_displacements_add_up_in_whatever_order_commands_come(sent, cuts, before) -> None:
    track, other = VelocityTrack(0.05), VelocityTrack(0.05)
    unique = list(dict(reversed(sent)).items())
    for stamp, speed in unique:
        track.add(stamp, np.array([speed]))
    for stamp, speed in reversed(unique):
        other.add(stamp, np.array([speed]))
    edges = [0, *sorted(cuts), SECOND]
    parts = sum(track.displacement(a, b)[0] for a, b in itertools.pairwise(edges))
    assert math.isclose(parts, track.displacement(0, SECOND)[0], abs_tol=1e-12)
    assert other.displacement(0, SECOND) == track.displacement(0, SECOND)
    whole = track.displacement(before, SECOND)
    track.forget(before)
    assert track.displacement(before, SECOND) == whole


def test_the_first_command_of_a_stamp_counts() -> None:
    track = VelocityTrack()
    track.add(5, np.array([1.0]))
    track.add(5, np.array([9.0]))
    assert track.exactly(5) == [1.0]
    assert track.exactly(6) is None


def test_a_chunk_of_positions_replaces_what_is_left_of_the_last() -> None:
    track = PositionTrack()
    assert track.position(0) is None
    track.add(0, np.array([[0.0], [0.1]]), np.array([0.1, 0.2]))
    assert track.position(STEP // 2) == [0.0]
    assert track.position(15 * STEP // 10) == pytest.approx([0.05])
    track.add(15 * STEP // 10, np.array([[0.25]]), np.array([0.1]))
    assert track.position(2 * STEP) == pytest.approx([0.15])
    assert track.displacement(STEP, 9 * STEP) == pytest.approx([0.25])
    track.forget(3 * STEP)
    assert track.position(9 * STEP) == [0.25]


def test_positions_without_times_are_steps() -> None:
    track = PositionTrack()
    for i in range(3):
        track.add(i * STEP, np.array([[float(i)]]), np.zeros(1))
    assert track.position(STEP) == [1.0]
    assert track.position(2 * STEP - 1) == [1.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1e300])
def test_commands_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        VelocityTrack().add(0, np.array([bad]))
    with pytest.raises(ValueError, match="finite"):
        PositionTrack().add(0, np.array([[bad]]), np.zeros(1))


# Pairing.


def config(**changes: Any) -> PairingConfig:
    features = default_features(["target_xy", "effector_xy", "block_yaw4"], pixels=False)
    return PairingConfig(features, **changes)


def place(x: float, y: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    return np.array([x, y, 0.0]), LEVEL


def lockstep_samples(first: int, actions: list[float]) -> list[tuple[str, int, Any]]:
    """What a graph says of an episode in which the tool goes where it is told."""
    x, samples = 0.3, []
    for i, action in enumerate([*actions, None]):
        stamp = (first + i) * STEP
        samples.append(("pose:tool_pose", stamp, place(x)))
        samples.append(("pose:objects/block", stamp, place(0.5)))
        if action is not None:
            samples.append(("", stamp, np.array([action * 10, 0, 0, 0, 0, 0])))
            x += action
    return samples


def feed(pairing: Any, samples: list[tuple[str, int, Any]]) -> None:
    for source, stamp, value in samples:
        if source:
            pairing.observe(source, stamp, value, stamp)
        else:
            pairing.commands.add(stamp, value)


ACTIONS = [0.01, 0.02, -0.01, 0.0]


def check_lockstep(arrays: EpisodeArrays | None) -> None:
    assert arrays is not None
    np.testing.assert_array_equal(arrays.actions[:, 0], np.array(ACTIONS, np.float32))
    xs = 0.3 + np.concatenate([[0], np.cumsum(ACTIONS)])
    np.testing.assert_allclose(arrays.observations["state"][:, 0], xs, atol=1e-7)
    np.testing.assert_allclose(arrays.observations["state"][:, 2], xs, atol=1e-7)
    np.testing.assert_array_equal(arrays.observations["state"][:, 4:], [[1, 0]] * 5)


@given(st.randoms(use_true_random=False))
def test_in_lockstep_the_order_of_arrival_does_not_matter(chance: random.Random) -> None:
    samples = lockstep_samples(3, ACTIONS)
    samples += samples[:4]  # a simulator that asked again
    chance.shuffle(samples)
    pairing = LockstepPairing(config(lockstep=True))
    pairing.begin(None)
    feed(pairing, samples)
    check_lockstep(pairing.end(None, 4))
    assert pairing.end(None, 4) is None  # it is given once


@pytest.mark.parametrize("lost", range(1, 14))
def test_in_lockstep_an_episode_with_a_hole_is_not_handed_out(lost: int) -> None:
    samples = lockstep_samples(3, ACTIONS)
    del samples[lost]
    pairing = make_pairing(config(lockstep=True), positions=False)
    pairing.begin(None)
    feed(pairing, samples)
    assert pairing.end(None, 4) is None


def test_in_lockstep_a_reset_amid_an_episode_leaves_nothing_of_it() -> None:
    for broken, last in (([0.02] * 7, 10), ([0.02] * 2, 5)):
        pairing = LockstepPairing(config(lockstep=True))
        pairing.begin(None)
        feed(pairing, lockstep_samples(3, broken))
        pairing.begin(None)
        feed(pairing, lockstep_samples(last + 1, ACTIONS))
        check_lockstep(pairing.end(None, 4))


def test_in_lockstep_a_command_that_came_too_late_joins_nothing_where_stamps_are_told() -> None:
    pairing = LockstepPairing(config(lockstep=True))
    pairing.begin(3 * STEP)
    feed(pairing, lockstep_samples(3, [0.02] * 3))
    pairing.commands.add(6 * STEP, np.full(6, 0.2))  # for an episode that was reset
    feed(pairing, lockstep_samples(7, ACTIONS))
    pairing.begin(7 * STEP)
    check_lockstep(pairing.end(11 * STEP, 4))


def test_between_episodes_little_is_kept() -> None:
    pairing = LockstepPairing(config(lockstep=True))
    feed(pairing, lockstep_samples(1, [0.0] * 500))
    assert len(pairing._seen) <= 64
    timed = TimedPairing(config(), VelocityTrack())
    feed(timed, lockstep_samples(1, [0.0] * 500))
    assert len(timed._recent) < 20
    assert len(timed.commands._stamps) < 20


def drive(
    pairing: TimedPairing, seconds: float, speed: float, hz: int = 50, first: int = SECOND
) -> None:
    """A robot that moves at a speed, observed and commanded at some rate."""
    for i in range(round(seconds * hz)):
        stamp = first + i * SECOND // hz
        pairing.commands.add(stamp, np.array([speed, 0, 0, 0, 0, 0]))
        x = 0.3 + speed * i / hz
        pairing.observe("pose:tool_pose", stamp, place(x), stamp)
        pairing.observe("pose:objects/block", stamp, place(0.5), stamp)


@pytest.mark.parametrize("hz", [30, 48, 50, 100])
def test_in_real_time_a_steady_speed_gives_equal_actions(hz: int) -> None:
    pairing = TimedPairing(config(), VelocityTrack(0.1))
    pairing.begin(SECOND)
    drive(pairing, 3.0, 0.1, hz)
    arrays = pairing.end(3 * SECOND, None)
    assert arrays is not None
    assert len(arrays.actions) == 20
    np.testing.assert_allclose(arrays.actions, [[0.01, 0.0]] * 20, atol=1e-8)
    assert (np.diff(arrays.stamps) == STEP).all()
    seen = arrays.observations["state"][:, 2]
    lag = 0.3 + 0.01 * np.arange(21) - seen
    assert (lag > -1e-7).all()  # never from after the row
    assert (lag <= 0.1 / hz + 1e-7).all()


def test_in_real_time_rows_are_of_the_episode_alone() -> None:
    pairing = TimedPairing(config(), VelocityTrack(0.1))
    drive(pairing, 2.0, 0.1)
    pairing.begin(int(2.755 * SECOND))  # heard of late
    drive(pairing, 1.0, 0.1, first=3 * SECOND)
    arrays = pairing.end(int(3.755 * SECOND), None)
    assert arrays is not None
    assert arrays.stamps[0] == int(2.76 * SECOND)
    assert len(arrays.actions) == 9


def test_in_real_time_a_gap_in_the_observations_refuses_the_episode() -> None:
    pairing = TimedPairing(config(), VelocityTrack(0.1))
    pairing.begin(SECOND)
    drive(pairing, 1.0, 0.1)
    later = 3 * SECOND
    pairing.observe("pose:tool_pose", later, place(0.4), later)
    pairing.observe("pose:objects/block", later, place(0.4), later)
    with pytest.raises(ValueError, match=r"no observation for 0\.\d+ s, 1\.\d s into"):
        pairing.end(later, None)


@pytest.mark.parametrize("lockstep", [True, False])
def test_numbers_too_large_to_be_true_refuse_their_episode_alone(lockstep: bool) -> None:
    pairing = make_pairing(config(lockstep=lockstep), positions=False)
    pairing.begin(STEP)
    for source, stamp, value in lockstep_samples(1, ACTIONS):
        far = place(1e300) if source == "pose:tool_pose" else value
        feed(pairing, [(source, stamp, far)])
    with pytest.raises(ValueError, match=r"numbers up to 1e\+"):
        pairing.end(5 * STEP, None)


def test_in_real_time_a_clock_that_goes_back_refuses_the_episode() -> None:
    pairing = TimedPairing(config(), VelocityTrack(0.1))
    pairing.begin(SECOND)
    drive(pairing, 2.0, 0.1)
    drive(pairing, 2.0, 0.1)
    with pytest.raises(ValueError, match="went back"):
        pairing.end(3 * SECOND, None)


def test_positions_are_no_commands_for_lockstep() -> None:
    with pytest.raises(ValueError, match="velocities"):
        make_pairing(config(lockstep=True), positions=True)


# Sessions.


def session(**changes: Any) -> EpisodeSession:
    return EpisodeSession(LockstepPairing(config(lockstep=True, **changes)))


def play(told: EpisodeSession, first: int, end: dict[str, Any], at: int = 0) -> list[Finished]:
    told.word('{"event": "start", "seed": 7}', 0, at)
    feed(told.pairing, lockstep_samples(first, ACTIONS))
    told.word(json.dumps({"event": "end", "length": 4, **end}), 0, at)
    return told.poll(at + SECOND)


def test_a_session_hands_out_what_has_ended_with_what_was_said() -> None:
    told = session()
    (finished,) = play(told, 1, {"success": True})
    check_lockstep(finished.arrays)
    assert finished.success
    assert finished.facts["seed"] == 7
    assert not told.running
    (finished,) = play(told, 9, {"success": False}, SECOND)
    assert finished.success is False


def test_a_session_waits_for_messages_on_their_way_and_then_gives_up() -> None:
    told = session()
    told.start(None, 0)
    samples = lockstep_samples(1, ACTIONS)
    feed(told.pairing, samples[:-2])
    told.stop(None, 0, {"length": 4})
    assert told.poll(SECOND) == []
    feed(told.pairing, samples[-2:])
    assert told.poll(SECOND)[0].arrays is not None
    told.start(None, 2 * SECOND)
    told.stop(None, 2 * SECOND, {"length": 4})
    assert told.poll(3 * SECOND) == []
    (finished,) = told.poll(5 * SECOND)
    assert "lost" in finished.why


def test_a_session_says_what_was_discarded_broken_off_or_forgotten() -> None:
    told = session(longest=1.0)
    told.start(None, 0)
    told.discard(0)
    assert [f.why for f in told.poll(SECOND)] == ["discarded"]
    told.start(None, SECOND)
    told.start(None, SECOND)
    assert [f.why for f in told.poll(2 * SECOND)] == ["broken off by the next"]
    feed(told.pairing, lockstep_samples(1, [0.0] * 20))
    assert [f.why for f in told.poll(3 * SECOND)] == ["longer than 1 s"]
    assert not told.running


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"event": "pause"}', "[" * 10_000, '{"event": "end", "length": -1}',
     '{"event": "end", "length": 1.5}', '{"event": "end", "success": "yes"}',
     '{"event": "start", "stamp": true}', " " * 2_000_000],
)  # fmt: skip
def test_words_that_say_nothing_about_an_episode_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="episode"):
        session().word(text, 0, 0)


# Data sets.


def test_the_data_set_of_an_environment_has_its_fields_and_bounds() -> None:
    target = environment_target(INSERTION, {"slots": 1}, [""])
    assert [feature.field for feature in target.features][:3] == [
        "target_xy", "effector_xy", "block_xy",
    ]  # fmt: skip
    assert target.high.tolist() == np.full(2, 0.03, np.float32).tolist()
    assert target.meta()["env_options"] == {"slots": 1}
    both = environment_target(INSERTION, {"observation": "both"}, [])
    assert both.pixels == (96, 96, 3)
    assert both.features[-1].source == "image"


def test_a_data_set_of_no_environment_is_described_by_lines() -> None:
    lines = ["cup_xy = pose:cup xy", "arm = joints:joint_states a,b"]
    fields = ["cup_xy 2 point m", "arm 2 scalar rad"]
    target = plain_target(fields, ["delta_xy 2 vector m"], [-1, -1], [1, 1], lines)
    assert target.meta()["topics"] == {"cup_xy": "pose:cup xy", "arm": "joints:joint_states a,b"}
    assert "env" not in target.meta()


@pytest.mark.parametrize(
    ("fields", "lines", "said"),
    [
        (["cup_xy 2 point"], [], "NAME SIZE KIND UNIT"),
        (["cup_xy 2 spot m"], [], "kind must be"),
        (["cup 2 point m"], [], "no topic is known"),
        (["cup 3 position m"], ["cup = pose:cup xy"], "holds 3 numbers"),
        (["cup_xy 2 point m"], ["tea_xy = pose:tea xy"], "name each of"),
        ([], ["pixels = pose:cup xy"], "come from an image"),
    ],
)
def test_data_sets_that_do_not_fit_their_topics_are_refused(fields, lines, said) -> None:
    with pytest.raises(ValueError, match=said):
        plain_target(fields, ["delta_xy 2 vector m"], [-1, -1], [1, 1], lines)


def test_actions_beyond_the_bounds_are_clipped_and_counted() -> None:
    target = environment_target(INSERTION, {}, [])
    arrays = EpisodeArrays(
        {"state": np.zeros((3, 16), np.float32)},
        np.array([[0.1, 0.0], [0.0, -0.03]], np.float32),
        np.zeros(3, np.int64),
    )
    episode, clipped = to_episode(arrays, target, success=True)
    assert clipped == 1
    assert episode.actions.max() <= np.float32(0.03)
    assert episode.rewards.tolist() == [0, 1]
    assert episode.terminated


def test_features_are_chosen_by_name_or_by_line() -> None:
    assert choose_features(["block_xy"], True, [])[1].field == "pixels"
    lines = ["pixels = image:cam", "block_xy = pose:b xy"]
    assert [f.topic for f in choose_features(["block_xy"], True, lines)] == ["b", "cam"]


# The node, in a graph of processes.


def direct_episode(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations `(T + 1, D)` and actions `(T, 2)` of the expert without ROS."""
    env = make_env(INSERTION)
    actor = ExpertActor()
    try:
        obs, info = env.reset(seed=seed)
        actor.reset(env, seed)
        seen, actions, over = [obs], [], False
        while not over:
            actions.append(np.asarray(actor.act(obs, info), np.float32))
            obs, _, terminated, truncated, info = env.step(actions[-1])
            seen.append(obs)
            over = terminated or truncated
        assert info["success"]
    finally:
        env.close()
    return np.array(seen), np.array(actions)


class Driver:
    """Somebody who answers every observation with the next action of a list."""

    def __init__(self, check: Any) -> None:
        from geometry_msgs.msg import PoseStamped, TwistStamped
        from std_msgs.msg import String

        from ros_nodes.operator import Operator
        from ros_nodes.running import COMMAND, LATCHED, RELIABLE

        self.operator = Operator(DOMAIN, check)
        node = self.operator.node
        self.recorder: dict[str, Any] = {}
        self.actions: np.ndarray = np.zeros((0, 2), np.float32)
        self.answered: dict[int, int] = {}
        self.newest = self.old = 0
        self.output = node.create_publisher(TwistStamped, "policy/command", COMMAND)
        node.create_subscription(PoseStamped, "tool_pose", self.answer, RELIABLE)
        node.create_subscription(String, "recorder/state", self.hear, LATCHED)

    def hear(self, message: Any) -> None:
        self.recorder = json.loads(message.data)

    def answer(self, message: Any) -> None:
        from ros_nodes import messages

        stamp = messages.nanoseconds(message.header.stamp)
        if stamp <= self.old:
            return
        self.newest = max(self.newest, stamp)
        index = self.answered.setdefault(stamp, len(self.answered))
        if index < len(self.actions):
            x, y = self.actions[index].astype(np.float64) * 10.0
            self.output.publish(
                messages.twist_message([x, y, 0], np.zeros(3), message.header.stamp, "base_link")
            )

    def prepare(self, actions: np.ndarray) -> None:
        """Answer with these from the next observation on."""
        self.actions = actions[:0]
        self.operator.rest(0.1)  # nobody answers any more, so the simulator stands still
        self.old, self.answered, self.actions = self.newest, {}, actions

    def trigger(self, name: str) -> Any:
        from std_srvs.srv import Trigger

        return self.operator.call(Trigger, name, Trigger.Request())

    def wait_until_heard(self) -> None:
        """Step about in episodes that are broken off, until the recorder hears every topic."""
        self.prepare(np.zeros((10_000, 2), np.float32))

        def heard() -> bool:
            self.trigger("sim_robot/reset")
            self.operator.arm()
            self.operator.rest(0.3)
            return self.recorder.get("unheard") == [] and self.recorder["recording"]

        self.operator.spin_until(heard, 30.0, "the recorder to hear every topic")

    def play(self, seed: int, actions: np.ndarray) -> None:
        before = self.recorder["kept"]
        self.operator.set_parameter("sim_robot", "seed", seed)
        self.prepare(actions)
        self.trigger("sim_robot/reset")
        self.operator.end_episode(seed)
        self.operator.spin_until(
            lambda: self.recorder["kept"] > before, 10.0, f"the recording of {seed}"
        )


@pytest.fixture
def graph_env(monkeypatch, tmp_path):
    pytest.importorskip("rclpy")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "ros"))
    monkeypatch.setenv("ROS_PYTHON_CHECK_FIELDS", "1")
    return tmp_path


@pytest.mark.ros
def test_a_recorded_episode_equals_the_direct_one_and_trains(graph_env, capsys) -> None:
    from ros_nodes.processes import running

    out = graph_env / "recorded.npz"
    nodes = tuple(map(NodeSpec, ("sim_robot", "safety_gate", "recorder")))
    overrides = {"recorder.lockstep": True, "recorder.out": str(out)}
    seeds = [4, 5]
    direct = {seed: direct_episode(seed) for seed in seeds}
    with running(Graph("", "sim_lockstep.yaml", nodes), overrides, graph_env) as processes:
        driver = Driver(processes.check)
        try:
            driver.wait_until_heard()
            driver.play(4, direct[4][1])
            # Killed amid the next episode: what had ended is there when it comes back.
            processes.running["recorder"].send_signal(signal.SIGKILL)
            processes.running["recorder"].wait()
            assert not out.exists()
            driver.recorder = {}
            processes.start("recorder")
            driver.wait_until_heard()
            assert driver.recorder["kept"] == 1
            driver.play(5, direct[5][1])
            answer = driver.trigger("recorder/save")
            assert answer.success, answer.message
            report = driver.operator.report()
            assert report["changed"] == 0
        finally:
            driver.operator.close()
        assert processes.stop()["recorder"] == 0
    demos = load_demonstrations(out)
    assert demos.n_episodes == 2
    for index, seed in enumerate(seeds):
        rows = demos.episode(index)
        seen, actions = direct[seed]
        np.testing.assert_array_equal(demos.actions[rows], actions)
        np.testing.assert_array_equal(demos.observations["state"][rows], seen[:-1])
        np.testing.assert_array_equal(demos.final_observations["state"][index], seen[-1])
    assert demos.terminated.all()
    assert demos.meta["expert"] == "teleoperation"
    assert demos.meta["topics"]["block_yaw4"] == "pose:objects/block yaw4"
    assert not list(graph_env.glob(".*recording"))
    words = ["--steps", "5", "--selection-episodes", "0", "--out", str(graph_env / "run"), "--json"]
    assert cli.main(["train", "--data", str(out), "--method", "mse", *words]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 5


@pytest.fixture
def context(graph_env):
    import rclpy
    from rclpy.context import Context

    found = Context()
    rclpy.init(context=found, domain_id=DOMAIN + 3)
    yield found
    rclpy.try_shutdown(context=found)


@pytest.mark.ros
def test_by_hand_in_real_time_an_episode_is_started_stopped_and_saved(context, tmp_path) -> None:
    import rclpy
    from geometry_msgs.msg import PoseStamped, TwistStamped
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.parameter import Parameter
    from std_srvs.srv import Trigger

    from ros_nodes import messages
    from ros_nodes.recorder import Recorder
    from ros_nodes.running import COMMAND, RELIABLE

    values = {
        "out": str(tmp_path / "cup.npz"), "env": "", "fields": ["cup_xy 2 point m"],
        "features": ["cup_xy = pose:cup xy"], "license": "CC0-1.0",
    }  # fmt: skip
    recorder = Recorder(
        context=context, parameter_overrides=[Parameter(k, value=v) for k, v in values.items()]
    )
    hand = rclpy.create_node("hand", context=context)
    cup = hand.create_publisher(PoseStamped, "cup", RELIABLE)
    command = hand.create_publisher(TwistStamped, "robot/command", COMMAND)

    def move() -> None:
        stamp = hand.get_clock().now().to_msg()
        cup.publish(messages.pose_message([0.3, 0.1, 0.0], LEVEL, stamp, "base_link"))
        command.publish(messages.twist_message([0.1, -0.2, 0.0], np.zeros(3), stamp, "base_link"))

    hand.create_timer(0.02, move)
    clients = {n: hand.create_client(Trigger, f"recorder/{n}") for n in ("start", "stop", "save")}
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(recorder)
    executor.add_node(hand)

    def until(condition: Any, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            executor.spin_once(timeout_sec=0.02)

    def ask(name: str) -> Any:
        until(clients[name].service_is_ready)
        future = clients[name].call_async(Trigger.Request())
        until(future.done)
        return future.result()

    def wait(seconds: float) -> None:
        end = time.monotonic() + seconds
        until(lambda: time.monotonic() > end)

    try:
        until(lambda: not recorder._unheard and command.get_subscription_count() == 1)
        wait(0.3)
        assert not ask("stop").success
        assert not ask("save").success
        assert ask("start").success
        wait(1.5)
        assert not ask("start").success
        assert ask("stop").success
        until(lambda: recorder.recording.kept == 1)
        assert ask("save").success
        demos = load_demonstrations(tmp_path / "cup.npz")
        assert 12 <= len(demos) <= 17
        np.testing.assert_allclose(demos.actions, [[0.01, -0.02]] * len(demos), atol=2e-3)
        np.testing.assert_array_equal(
            demos.observations["state"], [[np.float32(0.3), np.float32(0.1)]] * len(demos)
        )
        assert demos.meta["license"] == "CC0-1.0"
        # One that failed is left out, and a word that is none harms nothing.
        recorder._on_episode(type("Word", (), {"data": '{"event": "start"}'}))
        wait(0.5)
        recorder._on_episode(type("Word", (), {"data": "nonsense"}))
        recorder._on_episode(type("Word", (), {"data": '{"event": "end", "success": false}'}))
        until(lambda: recorder.recording.attempts == 2)
        assert recorder.recording.kept == 1
        assert recorder.finish()
        assert load_demonstrations(tmp_path / "cup.npz").meta["failed_episodes"] == 1
    finally:
        executor.shutdown(timeout_sec=0.2)
        recorder.destroy_node()
        hand.destroy_node()


@pytest.mark.ros
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"axes": ["x"]}, "axes must be 2 of x, y, z, rx, ry, rz"),
        ({"axes": ["x", "w"]}, "axes must be 2 of"),
        ({"env": "decisive/Particle-v0"}, "no topic is known"),
        ({"lockstep": True, "command": "positions"}, "velocities"),
        ({"out": "taken.npz"}, "exists; choose another name"),
    ],
)
def test_recorders_that_could_not_record_do_not_start(context, tmp_path, monkeypatch, values, said):
    from rclpy.parameter import Parameter

    from ros_nodes.recorder import Recorder

    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.npz").touch()
    with pytest.raises(ValueError, match=said):
        Recorder(
            context=context, parameter_overrides=[Parameter(k, value=v) for k, v in values.items()]
        )


@pytest.mark.ros
def test_the_shipped_parameters_are_declared() -> None:
    pytest.importorskip("rclpy")
    yaml = pytest.importorskip("yaml")
    import importlib

    told = yaml.safe_load((ROOT / "config" / "recorder.yaml").read_text())
    for key, section in told.items():
        table = importlib.import_module(f"ros_nodes.{key.removeprefix('/**/')}").PARAMETERS
        declared = {parameter.name: parameter for parameter in table}
        for name, value in section["ros__parameters"].items():
            assert type(value) is type(declared[name].default), (key, name)
