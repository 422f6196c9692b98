"""The observation side of the `policy` node: messages in, what the policy sees out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import Image, JointState

from robots.components import component_names
from robots.kinematics import Chain, rotation_quaternion
from robots.matching import (
    FK,
    REFERENCE,
    Feature,
    Matched,
    Matcher,
    default_features,
    parse_feature,
    pose_part,
)
from ros_nodes import messages

Array = NDArray[np.float64]

INPUTS = {"pose": PoseStamped, FK: JointState, "joints": JointState, "image": Image}
"""Message of every source."""
UNNAMED = "obs"
"""Name of the entries of a state whose fields nobody has named."""


def features_of(
    spec: Any, lines: Sequence[str], tool: str = "pose:tool_pose", vector: bool = False
) -> tuple[Feature, ...]:
    """The topic-to-feature map of a policy.

    Args:
        spec: the policy's spec.
        lines: the parameter `features`.
        tool: source and topic of the tool's pose.
        vector: whether the whole state comes by name on the topic `observation`.

    Raises:
        ValueError: where lines and fields do not agree.
    """
    sizes = _state_fields(spec) if vector else [(f.name, f.size) for f in spec.observation_fields]
    fields = [name for name, _ in sizes] if "state" in spec.observation else []
    pixels = "pixels" in spec.observation
    given = [parse_feature(line) for line in lines if line.strip()]
    if not given and vector:
        whole = tuple(
            Feature(name, "joints", "observation", ",".join(component_names([(name, n)], n, "")))
            for name, n in (sizes if fields else ())
        )
        return whole + default_features([], pixels)
    if not given:
        return default_features(fields, pixels, tool)
    wanted = [*fields, *(["pixels"] if pixels else [])]
    named = {feature.field: feature for feature in given}
    if set(named) != set(wanted) or len(named) != len(given):
        raise ValueError(f"features must name each of {wanted} once, got {list(named)}")
    return tuple(named[name] for name in wanted)


def _state_fields(spec: Any) -> list[tuple[str, int]]:
    named = [(field.name, field.size) for field in spec.observation_fields]
    return named or [(UNNAMED, spec.observation.get("state", (0,))[0])]


class Observations:
    """What arrives on the topics of a policy's features, matched and laid out."""

    def __init__(self, spec: Any, value: Mapping[str, Any], chain: Chain | None) -> None:
        """Find out what to listen to.

        Args:
            spec: the policy's spec.
            value: the node's parameters.
            chain: the arm, where the tool's pose comes from its joints; None has it on a topic.

        Raises:
            ValueError: where parameters and spec do not agree.
        """
        self._pixels = tuple(spec.observation.get("pixels", ()))
        self._chain = chain
        # A policy whose actions are sent as they are needs to know nothing of a tool.
        whole = acts_as_it_is(value)
        tool = (
            Feature("", "pose", "tool_pose") if chain is None else Feature("", FK, "joint_states")
        )
        self.features = features_of(spec, value["features"], key_of(tool), whole)
        self.tool: Feature | None = None if whole else tool
        used = [f for f in self.features if f.source != REFERENCE]
        used += [self.tool] if self.tool is not None else []
        if chain is None and any(feature.source == FK for feature in used):
            raise ValueError("a feature with fk needs the description of the arm, `urdf`")
        self.topics: dict[str, Feature] = {key_of(feature): feature for feature in used}
        """By key; of several features of one topic, any."""
        self._joints = {
            key: list(dict.fromkeys(n for f in used if key_of(f) == key for n in f.part.split(",")))
            for key, feature in self.topics.items()
            if feature.source == "joints"
        }
        self.matcher = Matcher(
            list(self.topics), value["max_age"], value["max_skew"], value["future"]
        )

    def read(self, key: str, message: Any) -> Any:
        """The content of a message.

        Raises:
            ValueError: if it is malformed, or not what the policy sees.
        """
        source = self.topics[key].source
        if source == "pose":
            return messages.pose_arrays(message)
        if source == "joints":
            return messages.joint_positions(message, self._joints[key])
        if source == FK:
            assert self._chain is not None  # __init__
            joints = messages.joint_positions(message, self._chain.names)
            pose = self._chain.forward(joints)
            return pose[:3, 3], rotation_quaternion(pose[:3, :3]), joints
        image = messages.image_array(message)
        if image.shape != self._pixels:
            raise ValueError(f"the policy sees pictures of {self._pixels}, got {image.shape}")
        return image.copy()

    def tool_of(self, matched: Matched) -> tuple[Array, Array | None]:
        """`(2,)` position of the tool in metres, and `(n,)` joints where the arm is known."""
        if self.tool is None:
            return np.zeros(2), None
        value = matched.values[key_of(self.tool)]
        return value[0][:2].copy(), value[2] if self.tool.source == FK else None

    def layout(self, matched: Matched, reference: Array) -> dict[str, NDArray[Any]]:
        """What the policy takes.

        Args:
            matched: one value of every topic.
            reference: `(2,)` commanded position, metres.
        """
        state: list[float] = []
        observation: dict[str, NDArray[Any]] = {}
        for feature in self.features:
            if feature.source == REFERENCE:
                state += reference.tolist()
                continue
            key = key_of(feature)
            value = matched.values[key]
            if feature.source in ("pose", FK):
                state += pose_part(feature.part, *value[:2])
            elif feature.source == "joints":
                state += [value[self._joints[key].index(name)] for name in feature.part.split(",")]
            else:
                observation["pixels"] = value
        return {"state": np.array(state, dtype=np.float32), **observation}


def key_of(feature: Feature) -> str:
    """By which the values of a feature's topic are kept."""
    return f"{feature.source}:{feature.topic}"


def acts_as_it_is(value: Mapping[str, Any]) -> bool:
    """Whether actions are sent as they are, to a simulator that waits for them."""
    return bool(value["lockstep"]) and value["command"] == "trajectory"
