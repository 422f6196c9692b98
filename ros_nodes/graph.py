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
    """

    doc: str
    config: str
    nodes: tuple[NodeSpec, ...]


_TRIO = (NodeSpec("sim_robot"), NodeSpec("policy"), NodeSpec("safety_gate"))

GRAPHS: dict[str, Graph] = {
    "sim_insertion": Graph(
        "simulated cell in real time: the implicit policy inserts a block", "sim_insertion.yaml",
        _TRIO,
    ),
    "sim_lockstep": Graph(
        "the same in simulated time, step by step: repeatable", "sim_lockstep.yaml", _TRIO
    ),
}  # fmt: skip


def share(name: str) -> Path:
    """A file of `config/` or `launch/`: in the sources, or where it was installed.

    Raises:
        ValueError: if it is in neither place.
    """
    places = [ROOT, Path(sys.prefix) / "share" / "decisive"]
    # In a colcon workspace every package has a prefix of its own.
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


def command_line(node: NodeSpec, graph: Graph, overrides: Mapping[str, Any]) -> list[str]:
    """The command that runs one node of a graph.

    Args:
        node: the node.
        graph: its graph.
        overrides: parameters to change: of this node by name, or `NODE.name` of another, which is
            left alone here.
    """
    words = [sys.executable, "-m", f"ros_nodes.{node.name}", "--ros-args"]
    words += ["--params-file", str(share(f"config/{graph.config}"))]
    for name, value in node.remap.items():
        words += ["-r", f"{name}:={value}"]
    for key, value in overrides.items():
        owner, _, name = key.rpartition(".")
        if owner in ("", node.name):
            words += ["-p", f"{name}:={_yaml(value)}"]
    return words


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return f"'{value}'" if isinstance(value, str) and ("=" in value or not value) else str(value)


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables for the nodes: the Fast DDS profile, one thread, sources importable.

    A profile that the user has set stays.
    """
    env = dict(os.environ if base is None else base)
    env.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(share("config/fastdds.xml")))
    env.setdefault("OMP_NUM_THREADS", "1")
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    # So that lines of children appear when they are written.
    env["PYTHONUNBUFFERED"] = "1"
    return env
