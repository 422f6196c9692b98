"""Graphs whose objects are seen by a camera, by their colours or by the masks of a segmenter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from decisive.perceived_summary import COLORS, SEGMENTER
from robots.scene_models import MODELS
from ros_nodes.graph import Graph, NodeSpec

__all__ = ["COLORS", "SEGMENTER", "check_perceived", "looks", "perceiving"]


_REALTIME = ("sim_insertion.yaml", "sim_joints.yaml")
_SIMULATED = (*_REALTIME, "sim_lockstep.yaml")
LATE: dict[str, Any] = {
    "sim_robot.camera_rate": 15.0,
    "object_poses.max_age": 0.3,
    "policy.max_age": 0.3,
    "safety_gate.inference_max_age": 0.4,
    "safety_gate.inference_timeout": 0.8,
}
"""In real time poses come late, by what drawing, looking and measuring take, and a decision waits
for a picture from after the last motion."""
LATE_MASKS: dict[str, Any] = {"perception.max_age": 0.3}
"""The same of the segmenter."""
SEEN: dict[str, Any] = {"sim_robot.objects": False, "sim_robot.camera_rate": 30.0}
"""A simulator that tells no poses but shows pictures."""


def looks(graph: Graph) -> bool:
    """Whether a table of the graph can be seen by a camera, simulated or not."""
    return graph.config in _SIMULATED or any(node.name == "object_poses" for node in graph.nodes)


def perceiving(graph: Graph, segmenter: str) -> tuple[Graph, dict[str, Any]]:
    """A graph with the nodes that see, where it has them not, and their parameters.

    Args:
        graph: with a node `object_poses`, or a simulated tabletop.
        segmenter: checkpoint folder or shipped name, or `COLORS`.

    Returns:
        The graph, and values by `NODE.name`.

    Raises:
        ValueError: for a graph without pictures of a table.
    """
    names = [node.name for node in graph.nodes]
    parameters: dict[str, Any] = {}
    added = []
    if not looks(graph):
        raise ValueError(
            f"only a graph with a policy and a table can have a segmenter, got {', '.join(names)}"
        )
    if "object_poses" not in names:
        added.append(NodeSpec("object_poses"))
        parameters |= SEEN
    realtime = graph.config in _REALTIME
    if realtime:
        parameters |= LATE
    if segmenter != COLORS:
        added.append(NodeSpec("perception"))
        parameters |= {"object_poses.masks": True, "perception.checkpoint": segmenter}
        if realtime:
            parameters |= LATE_MASKS
    return replace(graph, nodes=(*graph.nodes, *added)), parameters


def check_perceived(segmenter: str, env_id: str = "") -> None:
    """Refuse what the nodes would, before anything is started.

    Args:
        segmenter: as for `perceiving`.
        env_id: of the task, if it is known.

    Raises:
        ValueError: for a task without models of its objects; or if there is no such segmenter, it
            is broken, it was never evaluated, or it does not know the objects.
    """
    if env_id and env_id not in MODELS:
        raise ValueError(
            f"objects can be perceived in {', '.join(MODELS)}; of {env_id} there are no models"
        )
    if segmenter == COLORS:
        return
    from ros_nodes.picture_segmenter import load

    try:
        saved = load({"checkpoint": segmenter, "calibration": "", "precision": "auto"})
    except ValueError as error:
        raise ValueError(f"{error}; {COLORS} needs no segmenter") from None
    missing = {model.kind for model in MODELS.get(env_id, ())} - {"", *saved.classes}
    if missing:
        raise ValueError(
            f"segmenter {segmenter} knows {', '.join(saved.classes)}; {env_id} needs "
            f"{', '.join(sorted(missing))}, too; {COLORS} needs no segmenter"
        )
