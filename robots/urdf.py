"""Serial chains out of URDF files: joints between two links, with their limits. Meshes are ignored.

Source: URDF, the format of ROS for robots. Angles in `rpy` are about the parent's fixed axes x, y
and z, in this order. Nothing of a file is executed, looked up or expanded: a document type
declaration, which every trick with entities needs, is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Kind = Literal["revolute", "continuous", "prismatic", "fixed"]

MAX_BYTES = 8 * 2**20
"""Largest file that is read: descriptions of whole humanoids have a tenth of it."""
MOVING: tuple[Kind, ...] = ("revolute", "continuous", "prismatic")
MAX_LINKS = 1000
"""Longest chain; what is longer goes in a circle, or nobody can wait for it."""


@dataclass(frozen=True)
class Joint:
    """One joint of a chain.

    Attributes:
        name: as in `joint_states`.
        kind: `revolute`, `continuous`, `prismatic` or `fixed`.
        T_parent_joint: `(4, 4)` frame of the joint at position 0, in that of the parent link.
        axis: `(3,)` unit vector in the joint's frame.
        low: least position, rad or m; `-inf` for a continuous joint.
        high: greatest position.
        velocity: greatest speed, rad/s or m/s.
    """

    name: str
    kind: Kind
    T_parent_joint: Array
    axis: Array
    low: float
    high: float
    velocity: float


def read_joints(path: Path | str, base: str, tip: str) -> tuple[Joint, ...]:
    """The joints from one link of a file to another.

    Args:
        path: of the URDF file.
        base: name of the link that the chain starts at.
        tip: name of a link further out.

    Returns:
        The joints in order, also the fixed ones.

    Raises:
        ValueError: for a file that is no URDF, is too large or declares a document type; if the
            links are not there or not above each other; for joints between them that a serial
            chain cannot have.
        OSError: if it cannot be read.
    """
    where = Path(path)
    with where.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{where} has more than {MAX_BYTES} bytes, which no robot needs")
    try:
        return parse_joints(data, base, tip)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def parse_joints(data: bytes, base: str, tip: str) -> tuple[Joint, ...]:
    """As `read_joints`, from the bytes of a file."""
    robot = _robot(data)
    links = {link.get("name", "") for link in robot.findall("link")}
    for name in (base, tip):
        if name not in links:
            raise ValueError(f"there is no link {name!r}; the links are {sorted(links)[:40]}")
    above: dict[str, ElementTree.Element] = {}
    names: set[str] = set()
    for joint in robot.findall("joint"):  # not those inside <transmission> or <ros2_control>
        child, name = _link(joint, "child"), joint.get("name", "")
        if child in above or name in names:
            raise ValueError(f"link {child!r} or joint {name!r} is there twice")
        above[child] = joint
        names.add(name)
    found: list[Joint] = []
    link = tip
    while link != base:
        if link not in above or len(found) > MAX_LINKS:
            raise ValueError(f"no chain of joints leads from {base!r} to {tip!r}")
        joint = above[link]
        found.append(_joint(joint))
        link = _link(joint, "parent")
    return tuple(reversed(found))


def _robot(data: bytes) -> ElementTree.Element:
    def refuse(*_: object) -> None:
        raise ValueError("a document type declaration does not belong in a URDF")

    # Once more than needed, for its handlers: ElementTree would expand entities without asking.
    guard = expat.ParserCreate()
    guard.StartDoctypeDeclHandler = refuse
    try:
        guard.Parse(data, True)
        robot = ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, LookupError) as error:
        raise ValueError(f"this is no XML: {error}") from None
    if robot.tag != "robot":
        raise ValueError(f"a URDF holds a <robot>, this holds <{robot.tag[:40]}>")
    return robot


def _link(joint: ElementTree.Element, which: str) -> str:
    element = joint.find(which)
    if element is None or not element.get("link"):
        raise ValueError(f"joint {joint.get('name')!r} names no {which} link")
    return element.attrib["link"]


def _joint(element: ElementTree.Element) -> Joint:
    name, kind = element.get("name", ""), element.get("type", "")
    if kind not in (*MOVING, "fixed") or not name:
        raise ValueError(f"joint {name!r} is of the type {kind!r}: a chain has {MOVING} and fixed")
    if element.find("mimic") is not None:
        raise ValueError(f"joint {name!r} mimics another, which no serial chain can have")
    origin, axis = element.find("origin"), element.find("axis")
    position = _numbers(origin, "xyz", (0.0, 0.0, 0.0), name)
    turn = _numbers(origin, "rpy", (0.0, 0.0, 0.0), name)
    direction = _numbers(axis, "xyz", (1.0, 0.0, 0.0), name)
    length = math.hypot(*direction)
    if kind != "fixed" and not 1e-6 <= length < math.inf:
        raise ValueError(f"joint {name!r} has an axis without direction")
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation_rpy(*turn), position
    low, high, velocity = _limits(element, kind, name)
    return Joint(name, kind, pose, direction / max(length, 1e-6), low, high, velocity)


def _limits(element: ElementTree.Element, kind: str, name: str) -> tuple[float, float, float]:
    """Least and greatest position, and greatest speed."""
    if kind == "fixed":
        return 0.0, 0.0, 0.0
    limit = element.find("limit")
    if limit is None:
        if kind == "continuous":
            return -math.inf, math.inf, math.inf
        raise ValueError(f"joint {name!r} is {kind} and needs a <limit>")
    velocity = _numbers(limit, "velocity", (math.inf,), name)[0]
    low = _numbers(limit, "lower", (0.0,), name)[0]
    high = _numbers(limit, "upper", (0.0,), name)[0]
    if kind == "continuous":
        low, high = -math.inf, math.inf
    if low > high or velocity <= 0:
        raise ValueError(
            f"joint {name!r} has limits {low:g} to {high:g} and the speed {velocity:g}: nothing "
            "could move"
        )
    return low, high, float(velocity)


def _numbers(
    element: ElementTree.Element | None, key: str, default: tuple[float, ...], name: str
) -> Array:
    text = None if element is None else element.get(key)
    if text is None:
        return np.array(default)
    words = text.split()
    try:
        values = np.array([float(word) for word in words], dtype=np.float64)
    except ValueError:
        values = np.full(len(default), np.nan)
    if len(words) != len(default) or not np.isfinite(values).all():
        raise ValueError(f"joint {name!r}: {key} must be {len(default)} numbers, got {text[:60]!r}")
    return values


def rotation_rpy(roll: float, pitch: float, yaw: float) -> Array:
    """`(3, 3)` rotation about the fixed axes x, y, z by roll, pitch, yaw (rad), in this order."""
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(a), math.sin(a)) for a in (roll, pitch, yaw))
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )
