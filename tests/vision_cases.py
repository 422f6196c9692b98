"""Messages of vision_msgs as its files of 2024 (e77fa2d) have them; no package index has it.

Names, defaults and nothing else: an unknown field raises, as in a generated message.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
from geometry_msgs.msg import PoseWithCovariance
from std_msgs.msg import Header


@dataclass(slots=True)
class Point2D:
    x: float = 0.0
    y: float = 0.0


@dataclass(slots=True)
class Pose2D:
    position: Point2D = field(default_factory=Point2D)
    theta: float = 0.0


@dataclass(slots=True)
class BoundingBox2D:
    center: Pose2D = field(default_factory=Pose2D)
    size_x: float = 0.0
    size_y: float = 0.0


@dataclass(slots=True)
class ObjectHypothesis:
    class_id: str = ""
    score: float = 0.0


@dataclass(slots=True)
class ObjectHypothesisWithPose:
    hypothesis: ObjectHypothesis = field(default_factory=ObjectHypothesis)
    pose: Any = field(default_factory=PoseWithCovariance)


@dataclass(slots=True)
class Detection2D:
    header: Any = field(default_factory=Header)
    results: list[ObjectHypothesisWithPose] = field(default_factory=list)
    bbox: BoundingBox2D = field(default_factory=BoundingBox2D)
    id: str = ""


@dataclass(slots=True)
class Detection2DArray:
    header: Any = field(default_factory=Header)
    detections: list[Detection2D] = field(default_factory=list)


@dataclass(slots=True)
class Classification:
    header: Any = field(default_factory=Header)
    results: list[ObjectHypothesis] = field(default_factory=list)


KINDS = (
    Point2D, Pose2D, BoundingBox2D, ObjectHypothesis, ObjectHypothesisWithPose, Detection2D,
    Detection2DArray, Classification,
)  # fmt: skip


def module() -> Any:
    """What `import vision_msgs.msg` gives where it is installed."""
    made = ModuleType("vision_msgs.msg")
    made.__dict__.update({kind.__name__: kind for kind in KINDS})
    return made


def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let it be found for a while."""
    made = module()
    monkeypatch.setitem(sys.modules, "vision_msgs", ModuleType("vision_msgs"))
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", made)
    return made
