"""Rows of a state as messages that give them back: which poses and joints they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robots.episode_layout import feature_size
from robots.matching import Feature, pose_part
from ros_nodes import bag_messages as bag
from ros_nodes.bag_files import BagWriter

Array = NDArray[np.float64]
TURNS = {"heading": 1, "yaw4": 4}
"""How many times the yaw the angle of a direction is."""
TOLERANCE = 1e-6
"""By which a number may change on its way through a pose; usually none does."""


class FeatureWriter:
    """Writes one observation as messages, one of every topic."""

    def __init__(
        self, features: Sequence[Feature], fields: Sequence[Mapping[str, Any]], n_axes: int
    ) -> None:
        """Say where the numbers go.

        Args:
            features: in the order of the state.
            fields: of the state, with `name` and `size`.
            n_axes: of the action.

        Raises:
            ValueError: where a field has another size than its feature.
        """
        sizes = {f["name"]: f["size"] for f in fields}
        self._parts: dict[str, list[tuple[Feature, slice]]] = {}
        self._pixels = ""
        begin = 0
        for feature in features:
            if feature.source == "image":
                self._pixels = f"/{feature.topic.lstrip('/')}"
                continue
            size = feature_size(feature, n_axes)
            if sizes.get(feature.field, size) != size:
                raise ValueError(
                    f"the field {feature.field!r} holds {sizes[feature.field]} numbers, "
                    f"a {feature.source} {feature.part} {size}"
                )
            topic = f"/{feature.topic.lstrip('/')}"
            self._parts.setdefault(topic, []).append((feature, slice(begin, begin + size)))
            begin += size
        self._size = begin

    def write(self, target: BagWriter, stamp: int, seen: Mapping[str, np.ndarray]) -> None:
        """Write an observation at a time in nanoseconds.

        Raises:
            ValueError: if no pose says what its numbers say.
        """
        if self._pixels:
            target.write(self._pixels, stamp, bag.image(stamp, seen["pixels"]))
        if not self._parts:
            return
        state = seen["state"]
        if len(state) != self._size:
            raise ValueError(f"the state holds {len(state)} numbers, its topics {self._size}")
        for topic, parts in self._parts.items():
            if parts[0][0].source == "joints":
                names, values = _joints(parts, state)
                target.write(topic, stamp, bag.joints(stamp, names, values))
            else:
                position, yaw = _pose(parts, state)
                message = bag.pose(stamp, position.tolist(), yaw)
                _check(parts, state, *bag.pose_arrays(message))
                target.write(topic, stamp, message)


def _joints(
    parts: Sequence[tuple[Feature, slice]], state: NDArray[np.float32]
) -> tuple[list[str], Array]:
    values: dict[str, float] = {}
    for feature, where in parts:
        values.update(zip(feature.part.split(","), state[where].tolist(), strict=True))
    return list(values), np.array(list(values.values()))


def _pose(
    parts: Sequence[tuple[Feature, slice]], state: NDArray[np.float32]
) -> tuple[Array, float]:
    position, yaw = np.zeros(3), 0.0
    for feature, where in parts:
        values = state[where]
        if feature.part in TURNS:
            yaw = direction_angle(values[0], values[1]) / TURNS[feature.part]
        else:
            position[: len(values)] = values
    return position, yaw


def _check(
    parts: Sequence[tuple[Feature, slice]],
    state: NDArray[np.float32],
    position: Array,
    quaternion: Array,
) -> None:
    for feature, where in parts:
        again = np.array(pose_part(feature.part, position, quaternion), np.float32)
        change = float(np.abs(again - state[where]).max())
        if not change <= TOLERANCE:
            raise ValueError(
                f"{feature.field} = {state[where].tolist()} is no {feature.part} of a pose: "
                "noise on observations cannot be told by one"
            )


def direction_angle(cosine: np.float32, sine: np.float32) -> float:
    """Angle in rad whose cosine and sine round to these two float32, where there is one.

    Each of the two was rounded by itself, and the angle of the rounded pair need not round to it
    again. Of all angles that do, this is the middle one.
    """
    small, large = sorted((abs(cosine), abs(sine)))
    small_low, small_high = _rounding_to(small)
    large_low, large_high = _rounding_to(large)
    low = max(np.arcsin(max(small_low, 0.0)), np.arccos(min(large_high, 1.0)))
    high = min(np.arcsin(min(small_high, 1.0)), np.arccos(min(large_low, 1.0)))
    angle = float(low + high) / 2 if low <= high else float(np.arctan2(small, large))
    if abs(sine) > abs(cosine):
        angle = np.pi / 2 - angle
    if cosine < 0:
        angle = np.pi - angle
    return float(-angle if sine < 0 else angle)


def _rounding_to(value: np.float32) -> tuple[float, float]:
    """Least and greatest number that rounds to a float32."""
    below, above = (np.nextafter(value, np.float32(to)) for to in (-2.0, 2.0))
    return (float(below) + float(value)) / 2, (float(above) + float(value)) / 2
