"""Observations from several sensors, matched in time and laid out as a policy wants them."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SECOND = 1_000_000_000
REFERENCE = "reference"
"""Source of the commanded position: what the policy node itself has asked for."""
FK = "fk"
"""Source of poses that forward kinematics makes of the joints."""
SOURCES = ("pose", FK, "joints", "image", REFERENCE)
PARTS = ("xy", "yaw4", "heading", "position")


@dataclass(frozen=True)
class Feature:
    """Where one field of an observation comes from.

    Attributes:
        field: name of the field in the policy's state, or `pixels`.
        source: `pose` (PoseStamped), `fk` (JointState, by forward kinematics), `joints`
            (JointState), `image` (Image) or `reference`.
        topic: of the message; empty for `reference`.
        part: for poses, also those of `fk`: `xy` (2), `yaw4` (cos and sin of four times the yaw),
            `heading` (cos and sin of the yaw) or `position` (3); for joints: their names, separated
            by commas.
    """

    field: str
    source: str
    topic: str = ""
    part: str = "xy"

    def __post_init__(self) -> None:
        """Refuse unknown sources and parts."""
        if self.source not in SOURCES:
            raise ValueError(f"a feature comes from one of {SOURCES}, got {self.source!r}")
        if self.source != REFERENCE and not self.topic:
            raise ValueError(f"feature {self.field!r}: {self.source} needs a topic")
        if self.source in ("pose", FK) and self.part not in PARTS:
            raise ValueError(f"feature {self.field!r}: a pose gives {PARTS}, got {self.part!r}")


_LINE = re.compile(r"\s*(\w+)\s*=\s*(\w+)(?::([\w/~]+))?(?:\s+([\w,.]+))?\s*")


def parse_feature(line: str) -> Feature:
    """Read `FIELD = SOURCE[:TOPIC] [PART]`, such as `block_yaw4 = pose:objects/block yaw4`.

    Raises:
        ValueError: for anything else.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(
            f"a feature reads FIELD = SOURCE:TOPIC PART, such as "
            f"block_xy = pose:objects/block xy; got {line!r}"
        )
    field, source, topic, part = match.groups()
    return Feature(field, source, topic or "", part or "xy")


def default_features(
    fields: Sequence[str], pixels: bool, tool: str = "pose:tool_pose"
) -> tuple[Feature, ...]:
    """The map that the names of the fields suggest.

    `target_xy` is the reference, `effector_xy` the tool's pose; `NAME_xy`, `NAME_yaw4` and
    `NAME_heading` are parts of the pose on `objects/NAME`.

    Args:
        fields: names of the state's fields, in order.
        pixels: whether the policy sees a camera.
        tool: source and topic of the tool's pose.

    Raises:
        ValueError: for a field whose name says nothing; give a map then.
    """
    features = []
    for name in fields:
        if name == "target_xy":
            features.append(Feature(name, REFERENCE))
            continue
        if name == "effector_xy":
            source, _, topic = tool.partition(":")
            features.append(Feature(name, source, topic, "xy"))
            continue
        thing, _, part = name.rpartition("_")
        if not thing or part not in PARTS:
            raise ValueError(
                f"no topic is known for the field {name!r}; give `features`, one line a field: "
                f"FIELD = SOURCE:TOPIC PART"
            )
        features.append(Feature(name, "pose", f"objects/{thing}", part))
    if pixels:
        features.append(Feature("pixels", "image", "camera/policy/image_raw", ""))
    return tuple(features)


def quaternion_yaw(quaternion: NDArray[np.float64]) -> float:
    """Yaw (rad) of an xyzw quaternion."""
    x, y, z, w = quaternion
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def pose_part(
    part: str, position: NDArray[np.float64], quaternion: NDArray[np.float64]
) -> tuple[float, ...]:
    """One part of a pose; see `Feature.part`."""
    if part in ("xy", "position"):
        return tuple(float(v) for v in position[: 2 if part == "xy" else 3])
    yaw = quaternion_yaw(quaternion) * (4 if part == "yaw4" else 1)
    return math.cos(yaw), math.sin(yaw)


@dataclass(frozen=True)
class Matched:
    """One value of every source, all taken at about the same time.

    Attributes:
        values: by source key.
        oldest: stamp in nanoseconds of the oldest.
        newest: of the newest.
    """

    values: Mapping[str, Any]
    oldest: int
    newest: int


class Matcher:
    """Keeps the latest values of every source and finds those that belong together."""

    def __init__(
        self,
        sources: Sequence[str],
        max_age: float,
        max_skew: float,
        future: float = 0.05,
        depth: int = 32,
    ) -> None:
        """Name the sources.

        Args:
            sources: keys, usually topics.
            max_age: greatest age in seconds.
            max_skew: greatest difference of stamps within one match, seconds.
            future: seconds by which a stamp may lie in the future.
            depth: values kept of each source.
        """
        if not sources:
            raise ValueError("a policy needs at least one source of observations, got none")
        self._buffers: dict[str, deque[tuple[int, Any]]] = {
            key: deque(maxlen=depth) for key in sources
        }
        self._age, self._skew, self._future = (
            round(seconds * SECOND) for seconds in (max_age, max_skew, future)
        )
        self._last = -1
        self.rejected: dict[str, int] = {}
        """How many values were refused, by reason."""

    def add(self, source: str, stamp: int, value: Any, now: int) -> bool:
        """Take a value.

        Args:
            source: its key.
            stamp: nanoseconds.
            value: anything.
            now: the time, nanoseconds, on the clock of the stamps.

        Returns:
            Whether it was kept: not old, not from the future, newer than the last.
        """
        buffer = self._buffers[source]
        if buffer and buffer[-1][0] - now > self._future:
            self.clear()  # The clock has jumped back: what is here belongs to another time.
            buffer = self._buffers[source]
        reason = ""
        if now - stamp > self._age:
            reason = "too old"
        elif stamp - now > self._future:
            reason = "from the future"
        elif buffer and stamp <= buffer[-1][0]:
            reason = "out of order"
        if reason:
            self.rejected[reason] = self.rejected.get(reason, 0) + 1
            return False
        buffer.append((stamp, value))
        return True

    @property
    def reference(self) -> int:
        """Stamp of the slowest source's newest value, nanoseconds; -1 while one has none.

        It advances when the last value of a new set arrives, which is the moment to match: earlier
        there is only the set before.
        """
        if not all(self._buffers.values()):
            return -1
        return min(buffer[-1][0] for buffer in self._buffers.values())

    def match(self, now: int) -> Matched | None:
        """The newest values that belong together, if they are newer than those of the last match.

        Args:
            now: the time, nanoseconds.
        """
        reference = self.reference
        if reference <= self._last or now - reference > self._age:
            return None
        chosen = {
            key: min(buffer, key=lambda item: abs(item[0] - reference))
            for key, buffer in self._buffers.items()
        }
        stamps = [stamp for stamp, _ in chosen.values()]
        if max(stamps) - min(stamps) > self._skew:
            return None
        self._last = reference
        return Matched({k: v for k, (_, v) in chosen.items()}, min(stamps), max(stamps))

    def clear(self, keep_last: bool = False) -> None:
        """Forget everything; with `keep_last`, what has been used once is not used again."""
        for buffer in self._buffers.values():
            buffer.clear()
        if not keep_last:
            self._last = -1
