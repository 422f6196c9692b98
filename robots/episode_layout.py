"""Rows of recorded episodes, laid out as policies see them: which parts, in which order, when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robots.commanded_motion import SECOND
from robots.matching import REFERENCE, Feature, pose_part
from robots.streaming import Reference, Workspace

SIZES = {"xy": 2, "yaw4": 2, "heading": 2, "position": 3}
"""How many numbers a part of a pose is."""


@dataclass(frozen=True)
class PairingConfig:
    """How rows are made.

    Attributes:
        features: where the parts of an observation come from, in the order of the state.
        axes: which numbers of a command are the action.
        rate: rows per second.
        lockstep: whether stamps of commands name their observations.
        max_age: greatest time in seconds by which an observation may precede its row.
        max_skew: greatest difference in seconds between the parts of one observation.
        hold: longest time in seconds that a velocity acts.
        longest: seconds after which an episode is given up, so that a forgotten one ends.
        workspace: of the commanded position, where a feature is the `reference`.
        tool: topic of the pose at which the commanded position begins.
    """

    features: tuple[Feature, ...]
    axes: tuple[int, ...] = (0, 1)
    rate: float = 10.0
    lockstep: bool = False
    max_age: float = 0.1
    max_skew: float = 0.05
    hold: float = 0.1
    longest: float = 600.0
    workspace: Workspace = field(
        default_factory=lambda: Workspace((0.15, -0.48), (0.65, 0.48), 0.04)
    )
    tool: str = "tool_pose"

    def __post_init__(self) -> None:
        """Refuse what gives no rows."""
        if not self.features or not self.axes:
            raise ValueError("a recording needs features and axes, got none")
        if not 0 < self.rate <= 1000 or self.longest <= 0:
            raise ValueError(f"rate must be in (0, 1000] Hz, got {self.rate}")
        if self.uses_reference and len(self.workspace.low) != len(self.axes):
            raise ValueError(
                f"the workspace has {len(self.workspace.low)} axes, the action {len(self.axes)}"
            )

    @property
    def period(self) -> int:
        """Nanoseconds between rows."""
        return round(SECOND / self.rate)

    @property
    def uses_reference(self) -> bool:
        """Whether the commanded position is part of the observation."""
        return any(feature.source == REFERENCE for feature in self.features)

    @property
    def sources(self) -> dict[str, Feature]:
        """Everything that must be listened to, by key; topics of several features once."""
        wanted = [feature for feature in self.features if feature.source != REFERENCE]
        if self.uses_reference:
            wanted.append(Feature("", "pose", self.tool, "xy"))
        return {source_key(feature): feature for feature in wanted}


@dataclass(frozen=True)
class EpisodeArrays:
    """One episode of T actions.

    Attributes:
        observations: `state` `(T + 1, D)` float32 and/or `pixels` `(T + 1, H, W, 3)` uint8.
        actions: `(T, A)` float32, metres or rad.
        stamps: `(T + 1,)` int64, nanoseconds at which each row begins.
    """

    observations: dict[str, np.ndarray]
    actions: NDArray[np.float32]
    stamps: NDArray[np.int64]


def source_key(feature: Feature) -> str:
    """Key of what a feature listens to; two sets of joints of a topic are two sources."""
    part = f" {feature.part}" if feature.source == "joints" else ""
    return f"{feature.source}:{feature.topic}{part}"


def feature_size(feature: Feature, n_axes: int = 2) -> int:
    """How many numbers of the state a feature is; 0 for pixels."""
    if feature.source == "pose":
        return SIZES[feature.part]
    if feature.source == "joints":
        return len(feature.part.split(","))
    return n_axes if feature.source == REFERENCE else 0


def lay_out(
    config: PairingConfig,
    rows: Sequence[Mapping[str, Any]],
    actions: Sequence[NDArray[np.float32]],
    stamps: Sequence[int],
) -> EpisodeArrays:
    """Arrays of an episode.

    Args:
        config: of the pairing.
        rows: T + 1 observations: by source key, a pose `((3,), (4,))`, joints `(n,)`, or pixels.
        actions: T displacements.
        stamps: T + 1, nanoseconds.

    Raises:
        ValueError: if pictures change their size on the way.
    """
    commanded = _commanded(config, rows, actions) if config.uses_reference else [[]] * len(rows)
    states = [_state(config, *row) for row in zip(rows, commanded, strict=True)]
    pictures = [
        values[source_key(feature)]
        for values in rows
        for feature in config.features
        if feature.source == "image"
    ]
    observations: dict[str, np.ndarray] = {}
    if states[0]:
        observations["state"] = as_float32(np.array(states, np.float64))
    if pictures:
        if any(picture.shape != pictures[0].shape for picture in pictures):
            raise ValueError("the pictures change their size within an episode")
        observations["pixels"] = np.stack(pictures)
    return EpisodeArrays(observations, np.stack(actions), np.array(stamps, np.int64))


def as_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The values rounded.

    Raises:
        ValueError: if one is too large.
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise ValueError(f"the episode holds numbers up to {np.abs(values).max():.3g}")
    return rounded


def _commanded(
    config: PairingConfig,
    rows: Sequence[Mapping[str, Any]],
    actions: Sequence[NDArray[np.float32]],
) -> list[list[float]]:
    """Commanded position before every action, as a policy node would keep it."""
    tool = source_key(Feature("", "pose", config.tool, "xy"))
    measured = [values[tool][0][: len(config.axes)] for values in rows]
    reference = Reference(config.workspace)
    reference.start(measured[0])
    places = [reference.position.tolist()]
    for action, place in zip(actions, measured, strict=False):
        places.append(reference.move(action.astype(np.float64), place).tolist())
    return places


def _state(
    config: PairingConfig, values: Mapping[str, Any], commanded: Sequence[float]
) -> list[float]:
    state: list[float] = []
    for feature in config.features:
        if feature.source == REFERENCE:
            state += commanded
        elif feature.source == "pose":
            state += pose_part(feature.part, *values[source_key(feature)])
        elif feature.source == "joints":
            state += values[source_key(feature)].tolist()
    return state
