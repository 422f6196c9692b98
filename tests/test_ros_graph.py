"""The whole graph between real processes: through ROS the policy does what it does alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from decisive.cli import main
from decisive.options import parse_options
from ros_nodes.any_environment import (
    SimulatedEnvironment,
    acts_by_displacements,
    parameters_for,
)
from ros_nodes.cli import read_parameters
from ros_nodes.demo import TOLERANCE, DemoConfig, run_demo
from ros_nodes.graph import GRAPHS, command_line, environment, find_graph, share
from ros_nodes.installation import Installation, find

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("env", "policy", "options"),
    [
        ("decisive/BlockInsertion-v0", "block-insertion-ibc", {}),
        ("decisive/BlockInsertion-v0", "block-insertion-two-slots-mdn", {"slots": 2}),
        ("decisive/BlockPushMultimodal-v0", "block-push-multimodal-ibc", {}),
    ],
)
def test_episodes_through_the_graph_equal_direct_ones(
    env: str, policy: str, options: dict[str, object], tmp_path: Path
) -> None:
    config = DemoConfig(env=env, policy=policy, options=options, episodes=2, seed=500)
    answer = run_demo(config, tmp_path)
    assert answer["parity"]["equal"], answer["parity"]
    assert answer["parity"]["difference"] <= TOLERANCE
    assert answer["parity"]["steps"] > 10
    assert answer["parity"]["episodes_equal"] == 2
    assert answer["gate"]["changed"] == 0
    assert answer["gate"]["stops"] == 0
    assert answer["ros"]["per_episode"] == answer["direct"]["per_episode"]


def test_pixels_go_through_the_graph_too(tmp_path: Path) -> None:
    config = DemoConfig(
        env="decisive/BlockPush-v0",
        policy="block-push-pixels-ibc",
        options={"observation": "pixels"},
        episodes=1,
        overrides={"sim_robot.policy_image": True, "sim_robot.objects": False},
    )
    answer = run_demo(config, tmp_path)
    assert answer["parity"]["equal"], answer["parity"]
    # This push comes to the edge of the workspace, where gate and environment clip alike.
    reasons = {name for name in answer["gate"] if name.startswith("reason: ")}
    assert reasons <= {"reason: position"}


@pytest.mark.parametrize(
    ("env", "policy", "options"),
    [
        ("decisive/Particle-v0", "particle-16-ibc", {"n_dims": 16}),
        ("decisive/BlockPushMultimodal-v0", "block-push-multimodal-push-ibc", {"control": "push"}),
    ],
)
def test_any_environment_goes_through_the_graph_as_it_goes_alone(
    env: str, policy: str, options: dict[str, object], tmp_path: Path
) -> None:
    config = DemoConfig(
        graph="sim_any", env=env, policy=policy, options=options, episodes=1, seed=500
    )
    answer = run_demo(config, tmp_path)
    assert answer["parity"]["equal"], answer["parity"]
    assert answer["parity"]["difference"] <= TOLERANCE
    assert answer["parity"]["steps"] > 5
    assert answer["ros"]["per_episode"] == answer["direct"]["per_episode"]
    assert answer["gate"]["passed"] >= answer["parity"]["steps"]
    assert answer["gate"]["changed"] == 0
    assert answer["gate"]["stops"] == 0


def test_an_action_out_of_its_box_is_changed_by_the_gate(tmp_path: Path) -> None:
    config = DemoConfig(
        graph="sim_any",
        env="decisive/Particle-v0",
        policy="particle-16-mse",
        options={"n_dims": 16},
        episodes=1,
        overrides={"safety_gate.high": [0.5] * 16},
    )
    answer = run_demo(config, tmp_path)
    assert answer["gate"]["reason: position"] > 0
    assert answer["ros"]["per_episode"][0]["length"] == 50  # what is changed is answered too


@pytest.mark.parametrize("kind", ["trajectory", "positions"])
def test_a_simulated_arm_inserts_a_block_by_its_joints(kind: str, tmp_path: Path) -> None:
    """In real time: the machine may be busy, so one success in three episodes is asked for."""
    config = DemoConfig(
        graph="sim_joints",
        options={"arm": "xarm6", "max_episode_steps": 300},
        episodes=3,
        direct=False,
        overrides={f"{node}.command": kind for node in ("sim_robot", "policy", "safety_gate")},
    )
    answer = run_demo(config, tmp_path)
    assert answer["ros"]["success_rate"] > 0, answer
    assert answer["gate"]["passed"] > 30
    assert "reason: stop: workspace" not in answer["gate"]


def test_the_gate_stops_an_arm_whose_tip_leaves_its_box(tmp_path: Path) -> None:
    config = DemoConfig(
        graph="sim_joints",
        options={"arm": "xarm6", "max_episode_steps": 80},
        episodes=1,
        direct=False,
        overrides={"safety_gate.workspace_high": [0.27, 0.38, 0.3]},
    )
    answer = run_demo(config, tmp_path)
    assert answer["gate"]["reason: stop: workspace"] == 1
    assert answer["gate"]["state"] == "stopped"
    assert not answer["ros"]["success_rate"]


def test_the_gate_changes_what_is_beyond_its_limits(tmp_path: Path) -> None:
    config = DemoConfig(
        episodes=1,
        overrides={"safety_gate.velocity": [0.1, 0.1, 0.0, 0.0, 0.0, 0.0]},
    )
    answer = run_demo(config, tmp_path)
    assert answer["gate"]["reason: velocity"] > 0
    assert not answer["parity"]["equal"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ros_up_starts_arms_and_ends_with_status_0(number: signal.Signals) -> None:
    env = {**os.environ, "ROS_DOMAIN_ID": "47", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    command = [sys.executable, "-m", "decisive", "ros", "up", "sim_insertion", "--arm"]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "armed: armed" in line:
            break
    time.sleep(0.5)
    begin = time.monotonic()
    process.send_signal(number)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 0, rest
    assert time.monotonic() - begin < 5.0
    assert "Traceback" not in "".join(lines) + rest


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended may still be listed until init asks after it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_no_node_outlives_a_parent_that_was_killed() -> None:
    env = {**os.environ, "ROS_DOMAIN_ID": "46", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    command = [sys.executable, "-m", "decisive", "ros", "up", "sim_insertion"]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "disarmed" not in process.stderr.readline():
        pass
    nodes = children_of(process.pid)
    assert len(nodes) == 3
    process.kill()
    process.communicate()
    end = time.monotonic() + 10.0
    while any(map(runs, nodes)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [pid for pid in nodes if runs(pid)]


def test_ros_up_ends_with_one_line_when_a_node_does(capfd: pytest.CaptureFixture[str]) -> None:
    os.environ["ROS_DOMAIN_ID"] = "48"
    try:
        words = ["ros", "up", "sim_insertion", "--param", "safety_gate.hold=100.0"]
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        status = main(words)
    finally:
        del os.environ["ROS_DOMAIN_ID"]
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    assert status == 2
    assert "decisive ros: safety_gate has ended with status 2" in capfd.readouterr().err


def test_doctor_sees_messages_flow(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ros", "doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["problem"] == ""
    assert facts["flow"]["received"] >= 45  # the first frames may come before both sides know
    assert facts["flow"]["ms"] < 1000


def test_both_kinds_of_ros_at_once_are_refused_in_one_sentence() -> None:
    both = Installation(sourced="jazzy", wheels="7.1.6", importable=True)
    assert "two copies" in both.problem
    assert "\n" not in both.problem
    assert "rclpy is not installed" in Installation("", "", False).problem
    assert Installation("jazzy", "", True).problem == ""
    assert find({"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": "/opt/ros/jazzy"}).problem
    assert find({}).problem == ""


def test_parameters_are_named_by_node() -> None:
    words = ("policy.rate=20.0", "safety_gate.low=[0.1, 0.2]", "policy.checkpoint=a=b")
    assert read_parameters(words) == {
        "policy.rate": 20.0,
        "safety_gate.low": [0.1, 0.2],
        "policy.checkpoint": "a=b",
    }
    for bad in ("rate=20", "policy.rate", "policy.=1"):
        with pytest.raises(ValueError, match=r"NODE\.NAME=VALUE"):
            read_parameters([bad])


def test_the_file_of_any_environment_is_what_would_be_made_for_it() -> None:
    values = yaml.safe_load(share("config/sim_any.yaml").read_text())
    robot, gate = (
        values[f"/**/{node}"]["ros__parameters"] for node in ("sim_robot", "safety_gate")
    )
    options = parse_options(robot["env"], robot["set"])
    made = parameters_for(robot["env"], options)
    assert gate["joints"] == made["safety_gate.joints"]
    for name, larger in (("low", -1), ("high", 1), ("velocity", 1), ("acceleration", 1)):
        room = larger * (np.array(gate[name]) - made[f"safety_gate.{name}"])
        assert (room >= 0).all()
        assert (room <= 0.02 * np.abs(made[f"safety_gate.{name}"]) + 2e-4).all()


def test_only_boxes_and_vectors_are_any_environment() -> None:
    assert acts_by_displacements("decisive/BlockPush-v0", {})
    assert not acts_by_displacements("decisive/BlockPush-v0", {"control": "push"})
    assert not acts_by_displacements("decisive/Particle-v0", {})
    with pytest.raises(ValueError, match="box"):
        SimulatedEnvironment("CartPole-v1", {})
    made = SimulatedEnvironment("decisive/Particle-v0", {"n_dims": 2})
    assert made.action_names == ("set_point.0", "set_point.1")
    assert made.observation_names[:3] == (
        "agent_position.0", "agent_position.1", "agent_velocity.0"
    )  # fmt: skip
    assert made.done
    made.reset(3)
    first = made.observation.copy()
    assert not made.step(np.array([0.5, 0.25]))
    assert made.action.tolist() == [0.5, 0.25]
    made.reset(3)
    assert made.observation.tolist() == first.tolist()
    assert made.result() == {
        "seed": 3, "success": False, "score": 0.0, "return": 0.0, "length": 0
    }  # fmt: skip
    made.close()


def test_another_environment_needs_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ros", "up", "sim_any", "--set", "n_dims=16"]) == 2
    assert "name it with --env" in capsys.readouterr().err
    words = ["ros", "demo", "--env", "decisive/Particle-v0", "--realtime"]
    assert main(words) == 2
    assert "simulated time" in capsys.readouterr().err


def test_unknown_graphs_and_nodes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="the graphs are sim_insertion"):
        find_graph("nothing")
    assert main(["ros", "up", "sim_insertion", "--param", "poliçy.rate=1"]) == 2
    assert "it has sim_robot, policy, safety_gate" in capsys.readouterr().err
    assert main(["ros", "dance"]) == 2


def test_command_lines_hold_only_the_parameters_of_their_node() -> None:
    graph = GRAPHS["sim_lockstep"]
    words = command_line(
        graph.nodes[1], graph, {"policy.rate": 5.0, "sim_robot.set": ["slots=2"], "seed": True}
    )
    assert words[-4:] == ["-p", "policy:rate:=5.0", "-p", "policy:seed:=true"]
    words = command_line(graph.nodes[0], graph, {"sim_robot.set": ["slots=2", ""]})
    assert words[-1] == "sim_robot:set:=['slots=2', '']"


def test_a_profile_that_the_user_has_set_stays() -> None:
    assert environment({})["FASTRTPS_DEFAULT_PROFILES_FILE"].endswith("config/fastdds.xml")
    mine = environment({"FASTRTPS_DEFAULT_PROFILES_FILE": "mine.xml"})
    assert mine["FASTRTPS_DEFAULT_PROFILES_FILE"] == "mine.xml"


def test_a_block_is_inserted_with_nothing_but_camera_and_depth(tmp_path: Path) -> None:
    answer = run_demo(DemoConfig(episodes=1, seed=2, perceived=True, segmenter="colors"), tmp_path)
    assert answer["ros"]["success_rate"] == 1.0
    assert answer["gate"]["stops"] == 0
    assert "parity" not in answer
