"""Which nodes make up which graph: one description for `decisive ros up` and for launch files.

Importable without rclpy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class NodeSpec:
    """One node of a graph.

    Attributes:
        name: of the node, and of its module in `ros_nodes`.
        remap: topic names as the node knows them to names in the graph.
    """

    name: str
    remap: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Nodes that are started together.

    Attributes:
        doc: one line for people.
        config: file in `config/` with their parameters.
        nodes: the nodes.
        calibration: a second file there, of what was measured in this very cell; its values win.
    """

    doc: str
    config: str
    nodes: tuple[NodeSpec, ...]
    calibration: str = ""

    def files(self) -> tuple[str, ...]:
        """Names of the parameter files in `config/`, in the order of their reading."""
        return tuple(name for name in (self.config, self.calibration) if name)


def _arm(doc: str, kind: str, command: str, tool: str) -> Graph:
    """A robot: the same three nodes, whatever takes the commands.

    Args:
        doc: one line for people.
        kind: of commands, as in the name of the parameter file.
        command: topic of the controller.
        tool: topic of the tool's pose.
    """
    pose = {"tool_pose": tool}
    return Graph(
        doc,
        f"hardware_{kind}.yaml",
        (
            NodeSpec("object_poses"),
            NodeSpec("policy", pose),
            NodeSpec("safety_gate", {"robot/command": command, **pose}),
        ),
        calibration="camera.yaml",
    )


def _guided(**remap: str) -> tuple[NodeSpec, ...]:
    """The nodes that lead a base, and what the gate's topics are called."""
    return (
        NodeSpec("world_model", {"path": "plan"}),
        NodeSpec("navigator"),
        NodeSpec("safety_gate", {"tool_pose": "base_pose", **remap}),
    )


_TCP = "tcp_pose_broadcaster/pose"
_TRIO = (NodeSpec("sim_robot"), NodeSpec("policy"), NodeSpec("safety_gate"))

GRAPHS: dict[str, Graph] = {
    "sim_insertion": Graph(
        "simulated cell in real time: the implicit policy inserts a block", "sim_insertion.yaml",
        _TRIO,
    ),
    "sim_lockstep": Graph(
        "the same in simulated time, step by step: repeatable", "sim_lockstep.yaml", _TRIO
    ),
    "sim_joints": Graph(
        "a simulated xArm6 in real time, commanded by its six joints", "sim_joints.yaml", _TRIO
    ),
    "sim_any": Graph(
        "any environment in simulated time: whole actions, here pushes", "sim_any.yaml", _TRIO
    ),
    "sim_teleop": Graph(
        "simulated cell driven by gamepad or keyboard, and recorded", "recorder.yaml",
        (NodeSpec("sim_robot"), NodeSpec("safety_gate"), NodeSpec("recorder"),
         NodeSpec("teleop_gamepad")),
    ),
    "sim_navigation": Graph(
        "a base in a procedural house follows instructions, ahead in a world model",
        "sim_navigation.yaml", (NodeSpec("sim_base"), *_guided()),
    ),
    "hardware_navigation": Graph(
        "a base with a panoramic camera and a map follows instructions", "hardware_navigation.yaml",
        _guided(**{"robot/command": "cmd_vel"}),
    ),
    "camera_perception": Graph(
        "a camera's pictures classified, segmented or read for several tasks: name one, "
        "--param perception.checkpoint=...",
        "perception.yaml",
        (NodeSpec("perception", {"camera/color/image_raw": "image_raw",
                                 "camera/color/camera_info": "camera_info"}),),
    ),
    "sim_goal_views": Graph(
        "a base in a procedural house, driven by velocities on `policy/command`, remembers what "
        "it sees and finds it again", "sim_goal_views.yaml",
        (NodeSpec("sim_base"), NodeSpec("safety_gate", {"tool_pose": "base_pose"}),
         NodeSpec("goal_views")),
    ),
    "camera_goal_views": Graph(
        "a base with a camera remembers what it sees and finds it again: a text or a picture asks",
        "goal_views.yaml",
        (NodeSpec("goal_views", {"camera/color/image_raw": "image_raw"}),),
    ),
    "occupancy_forecast": Graph(
        "maps of what is occupied, forecast: without a model, everything goes on as it goes",
        "forecast.yaml", (NodeSpec("forecast"),),
    ),
    "hardware_servo": _arm(
        "an arm by MoveIt Servo: velocities of the tool", "servo", "servo_node/delta_twist_cmds",
        _TCP,
    ),
    "hardware_trajectory": _arm(
        "six joints by a joint trajectory controller: chunks of positions", "trajectory",
        "joint_trajectory_controller/joint_trajectory", _TCP,
    ),
    "hardware_positions": _arm(
        "six joints by a forward position controller", "positions",
        "forward_position_controller/commands", _TCP,
    ),
}  # fmt: skip


def share(name: str) -> Path:
    """A file of `config/` or `launch/`: in the sources, or where it was installed.

    Raises:
        ValueError: if it is in neither place.
    """
    # PREFIX/lib/python3.x/site-packages, whatever the prefix; with `pip install --target`, beside.
    places = [ROOT, *(up / "share" / "decisive" for up in (*ROOT.parents[2:3], ROOT))]
    # Where Python packages lie elsewhere, a sourced ROS 2 names the prefixes.
    places += [
        Path(prefix) / "share" / "decisive"
        for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
        if prefix
    ]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise ValueError(f"{name} is not installed; looked in {', '.join(map(str, places))}")


def find_graph(name: str) -> Graph:
    """A graph by name.

    Raises:
        ValueError: for an unknown one, naming the known.
    """
    if name not in GRAPHS:
        raise ValueError(f"unknown graph {name!r}; the graphs are {', '.join(GRAPHS)}")
    return GRAPHS[name]


def enclave(node: NodeSpec) -> str:
    """Name under which ROS 2's security knows the node."""
    return f"/decisive/{node.name}"


def command_line(node: NodeSpec, graph: Graph, overrides: Mapping[str, Any]) -> list[str]:
    """The command that runs one node of a graph.

    Args:
        node: the node.
        graph: its graph.
        overrides: parameters to change: of this node by name, or `NODE.name` of another, which is
            left alone here.
    """
    words = [sys.executable, "-m", "ros_nodes.start", node.name, "--ros-args"]
    # Without security a name and no more; config/sros2_policy.xml says what it may do.
    words += ["--enclave", enclave(node)]
    for name in graph.files():
        words += ["--params-file", str(share(f"config/{name}"))]
    for name, value in node.remap.items():
        words += ["-r", f"{name}:={value}"]
    for key, value in overrides.items():
        owner, _, name = key.rpartition(".")
        if owner in ("", node.name):
            # With the node's name: a bare `-p name:=value` loses against `/**/node` of a file.
            words += ["-p", f"{node.name}:{name}:={_yaml(value)}"]
    return words


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, str):
        # Always quoted: ROS takes a bare y, on or no for a boolean, and a joint may be called y.
        return "'" + value.replace("'", "''") + "'"
    return str(value)


def defaults() -> dict[str, str]:
    """Environment variables that the nodes run with unless the user has set others."""
    return {
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(share("config/fastdds.xml")),
        "OMP_NUM_THREADS": "1",
        # So that lines of children appear when they are written.
        "PYTHONUNBUFFERED": "1",
    }


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables for the nodes: `defaults`, and the sources importable."""
    env = defaults() | dict(os.environ if base is None else base)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    return env
