"""What goes wrong in a cell, over DDS between real processes: the robot stops, in time."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.duration import Duration
from ros_cell import PLACES, Cell, Simulated, cell, simulated
from std_msgs.msg import Bool

from ros_nodes.processes import PATIENCE

pytestmark = pytest.mark.ros
ACTIVE = 3
LIMIT = 0.150
"""Seconds until the robot stands, after the last good observation."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    with cell(41, tmp_path_factory.mktemp("cell")) as made:
        yield made


def stays_stopped(running: Cell, seconds: float = 0.5) -> None:
    stopped = running.robot.commands[-1][0]
    time.sleep(seconds)
    assert not running.robot.moving(stopped)


@pytest.mark.parametrize("topic", list(PLACES))
def test_a_sensor_that_falls_silent_stops_the_robot_until_it_is_armed_again(
    running: Cell, topic: str
) -> None:
    running.start_moving()
    running.robot.silent.add(topic)
    time.sleep(0.03)
    last = running.robot.last_poses[topic]
    time.sleep(0.4)
    running.robot.silent.clear()
    stopped = running.robot.stopped_at(last)
    assert stopped - last <= LIMIT
    stays_stopped(running)  # though all is well again
    running.start_moving()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("topic", ["tool_pose", "objects/block"])
def test_a_sensor_that_is_not_finite_stops_the_robot(running: Cell, topic: str, bad: float) -> None:
    running.start_moving()
    begin = time.monotonic()

    def spoil(which: str, message) -> None:  # type: ignore[no-untyped-def]
        if which == topic:
            message.pose.position.x = bad

    running.robot.spoil = spoil
    time.sleep(0.4)
    running.robot.spoil = lambda which, message: None
    # The last good one may have been sent a period before.
    stopped = running.robot.stopped_at(begin)
    assert stopped - begin <= LIMIT + 0.02
    assert all(np.isfinite(v).all() for _, v in running.robot.commands)
    running.start_moving()


@pytest.mark.parametrize("shift", [-0.2, 0.2])
def test_stamps_of_another_time_stop_the_robot(running: Cell, shift: float) -> None:
    running.start_moving()
    begin = time.monotonic()

    def spoil(which: str, message) -> None:  # type: ignore[no-untyped-def]
        ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec + round(shift * 1e9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(ns, 10**9)

    running.robot.spoil = spoil
    time.sleep(0.4)
    running.robot.spoil = lambda which, message: None
    assert running.robot.stopped_at(begin) - begin <= LIMIT + 0.02
    stays_stopped(running, 0.2)
    running.start_moving()


def test_the_emergency_stop_acts_at_once_and_is_latched(running: Cell) -> None:
    running.start_moving()
    publisher = running.robot.node.create_publisher(Bool, "estop", 1)
    running.robot.wait(lambda: publisher.get_subscription_count() > 0)
    # The gate may know of this publisher a moment later, and DDS sends again after 0.1 s: a button
    # has been there for long.
    publisher.publish(Bool(data=False))
    assert publisher.wait_for_all_acked(Duration(seconds=2.0))
    begin = time.monotonic()
    publisher.publish(Bool(data=True))
    time.sleep(0.2)
    assert running.robot.stopped_at(begin) - begin <= 0.050
    publisher.publish(Bool(data=False))  # is no reset
    with pytest.raises(TimeoutError, match="latched"):
        running.operator.arm(seconds=0.5)
    stays_stopped(running, 0.3)
    running.operator.estop(False)
    stays_stopped(running, 0.3)  # disarmed
    running.start_moving()


def test_wrong_lifecycle_requests_are_answered_and_change_nothing(running: Cell) -> None:
    for wrong in (
        Transition(id=Transition.TRANSITION_CONFIGURE),
        Transition(id=99),
        Transition(label="fly"),
    ):
        request = ChangeState.Request(transition=wrong)
        answer = running.operator.call(ChangeState, "policy/change_state", request, 5.0)
        assert not answer.success
    state = running.operator.call(GetState, "policy/get_state", GetState.Request(), 5.0)
    assert state.current_state.id == ACTIVE
    running.start_moving()


def test_deactivating_stops_the_robot_and_activating_moves_it_again(running: Cell) -> None:
    running.start_moving()
    begin = time.monotonic()
    for number in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
        request = ChangeState.Request(transition=Transition(id=number))
        assert running.operator.call(ChangeState, "policy/change_state", request).success
        if number == Transition.TRANSITION_DEACTIVATE:
            time.sleep(0.3)
            assert running.robot.stopped_at(begin) - begin <= LIMIT
    running.start_moving()


def test_parameters_out_of_range_are_refused(running: Cell) -> None:
    with pytest.raises(ValueError, match=r"[Rr]ange"):
        running.operator.set_parameter("policy", "seed", -7)
    with pytest.raises(ValueError, match="read-only"):
        running.operator.set_parameter("safety_gate", "hold", 0.5)
    running.start_moving()


def kill_and_rejoin(running: Cell, name: str) -> tuple[float, float]:
    """Seconds until the robot stood, and until it moved again after the restart."""
    running.start_moving()
    process = running.processes.running[name]
    begin = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.4)
    stopped = running.robot.stopped_at(begin) if name == "policy" else begin
    running.processes.start(name)
    started = time.monotonic()
    running.operator.wait_active()
    running.start_moving()
    return stopped - begin, time.monotonic() - started


def test_a_killed_policy_stops_the_robot_and_rejoins(running: Cell) -> None:
    stopped, moved = kill_and_rejoin(running, "policy")
    assert stopped <= LIMIT
    assert moved < 20.0  # loading torch; the slow test measures the rest


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["policy", "safety_gate"])
def test_twenty_kills_leave_no_hang_and_no_zombie(running: Cell, name: str) -> None:
    times = [kill_and_rejoin(running, name) for _ in range(20)]
    assert max(stopped for stopped, _ in times) <= LIMIT
    print(f"rejoined after {sorted(moved for _, moved in times)}")
    children = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "stat="], capture_output=True, text=True
    ).stdout.split()
    assert not [state for state in children if state.startswith("Z")]


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "double SIGINT"])
@pytest.mark.parametrize("name", ["policy", "safety_gate"])
def test_a_signal_ends_a_node_with_a_last_stop(tmp_path: Path, name: str, how: str) -> None:
    with cell(42, tmp_path) as made:
        made.start_moving()
        process = made.processes.running[name]
        begin = time.monotonic()
        number = signal.SIGTERM if how == "SIGTERM" else signal.SIGINT
        os.kill(process.pid, number)
        if how == "double SIGINT":
            time.sleep(0.01)
            os.kill(process.pid, number)
        assert process.wait(PATIENCE) == 0
        took = time.monotonic() - begin
        time.sleep(0.2)
        assert not made.robot.commands[-1][1].any()
        assert "Traceback" not in made.log(name)
        assert took <= 2.0


def end_by_signal(made: Cell | Simulated, name: str, how: str) -> float:
    """Seconds that a node took to end by itself, with status 0 and without a traceback."""
    process = made.processes.running[name]
    begin = time.monotonic()
    number = signal.SIGTERM if how == "SIGTERM" else signal.SIGINT
    os.kill(process.pid, number)
    if how == "double SIGINT":
        time.sleep(0.01)
        os.kill(process.pid, number)
    assert process.wait(PATIENCE) == 0
    assert "Traceback" not in made.log(name)
    return time.monotonic() - begin


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "double SIGINT"])
@pytest.mark.parametrize("name", ["policy", "safety_gate"])
def test_twenty_signals_end_a_node_with_a_last_stop(running: Cell, name: str, how: str) -> None:
    times = []
    for _ in range(20):
        running.start_moving()
        times.append(end_by_signal(running, name, how))
        time.sleep(0.25)  # what was under way arrives
        assert not running.robot.commands[-1][1].any()
        running.processes.start(name)
        running.operator.wait_active()
    print(f"{name} ended by {how} after {spread(times)} s")
    assert max(times) <= 2.0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "double SIGINT"])
def test_twenty_signals_end_a_policy_in_the_middle_of_an_inference(
    tmp_path: Path, how: str
) -> None:
    """Each decision takes seconds: whenever the signal comes, one is being made."""
    slow, times = slow_checkpoint(tmp_path / "slow"), []
    with cell(43, tmp_path, policy__checkpoint=str(slow)) as made:
        for _ in range(20):
            told = made.log("policy").count("is dropped")
            made.robot.wait(
                lambda told=told: made.log("policy").count("is dropped") > told, seconds=60.0
            )
            times.append(end_by_signal(made, "policy", how))
            made.processes.start("policy")
            made.operator.wait_active()
        assert not made.robot.moving()
    print(f"policy ended by {how} in an inference after {spread(times)} s")
    assert max(times) <= 2.0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "double SIGINT"])
def test_twenty_signals_end_a_simulator_that_moves(tmp_path: Path, how: str) -> None:
    times = []
    with simulated(45, tmp_path) as made:
        for _ in range(20):
            made.start_moving()
            times.append(end_by_signal(made, "sim_robot", how))
            made.processes.start("sim_robot")
    print(f"sim_robot ended by {how} after {spread(times)} s")
    assert max(times) <= 2.0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_of_robot_and_sensors_stop_the_gate_and_they_rejoin(
    tmp_path: Path,
) -> None:
    stops, joins = [], []
    with simulated(45, tmp_path) as made:
        for _ in range(20):
            made.start_moving()
            process = made.processes.running["sim_robot"]
            begin = time.monotonic()
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.4)
            stops.append(made.ears.stopped_at(begin) - begin)
            made.processes.start("sim_robot")
            started = time.monotonic()
            made.ears.wait(lambda started=started: made.ears.last_pose > started)
            joins.append(time.monotonic() - started)
            print(f"stopped after {stops[-1]:.3f} s, rejoined after {joins[-1]:.3f} s")
    print(f"stopped after {spread(stops)} s, rejoined after {spread(joins)} s")
    assert max(stops) <= LIMIT
    assert max(joins) <= 5.0


def spread(times: list[float]) -> str:
    return f"{np.median(times):.3f} (median) to {max(times):.3f} (greatest) of {len(times)}"


def test_an_inference_that_is_slower_than_its_period_moves_nothing(tmp_path: Path) -> None:
    """Real slow inference: the shipped policy with a thousand times the samples."""
    slow = slow_checkpoint(tmp_path / "slow")
    with cell(43, tmp_path, policy__checkpoint=str(slow)) as made:
        made.operator.arm()
        made.robot.wait(lambda: "is dropped" in made.log("policy"), seconds=40.0)
        assert not made.robot.moving()
        # It hangs in an inference, and ends all the same.
        begin = time.monotonic()
        os.kill(made.processes.running["policy"].pid, signal.SIGINT)
        assert made.processes.running["policy"].wait(PATIENCE) == 0
        assert time.monotonic() - begin <= 2.0


def slow_checkpoint(folder: Path) -> Path:
    """The insertion policy, searching so long that a decision takes more than a second."""
    import json
    import shutil

    import agents

    shutil.copytree(Path(agents.__file__).parent / "checkpoints/block-insertion-ibc", folder)
    config = json.loads((folder / "config.json").read_text())
    config["config"]["dfo"] |= {"n_samples": 2**16, "n_iterations": 8}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_bad_parameters_end_a_node_with_one_line_and_status_2() -> None:
    for words in (
        ["safety_gate", "-p", "velocity:=[0.1]"],
        ["sim_robot", "-p", "env:=decisive/Nothing-v0"],
        ["sim_robot", "-p", "command:=fly"],
    ):
        command = [sys.executable, "-m", f"ros_nodes.{words[0]}", "--ros-args", *words[1:]]
        env = {**os.environ, "ROS_DOMAIN_ID": "44"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert done.stderr.startswith("decisive: ")


def test_a_node_that_hangs_on_leaving_the_graph_ends_all_the_same() -> None:
    """rclpy keeps the interpreter's lock while it destroys a node, as this one does."""
    program = (
        "import ctypes; from rclpy.node import Node; from ros_nodes.running import run\n"
        "class Hanging(Node):\n"
        "    def __init__(self): super().__init__('hanging'); print('up', flush=True)\n"
        "    def finish(self): print('stopped', flush=True)\n"
        "    def destroy_node(self): ctypes.PyDLL(None).sleep(60)\n"
        "raise SystemExit(run(Hanging, []))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10.0) == 0
        assert process.stdout.read() == "stopped\n"
        assert time.monotonic() - begin <= 2.0
