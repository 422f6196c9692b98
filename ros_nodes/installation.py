"""Which ROS 2 is here: the system's, that of wheels, none, or (refused) both. Loads no rclpy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass

WHEEL = "ros-rclpy"
OPTIONAL = {
    "vision_msgs": "detections in their standard messages",
    "tf2_ros": "frames from /tf",
    "control_msgs": "states of trajectory controllers",
    "launch_ros": "launch files (`decisive ros up` needs none)",
    "rosbags": "import and export of rosbag2 files",
}


@dataclass(frozen=True)
class Installation:
    """What was found.

    Attributes:
        sourced: the distribution that a sourced set-up names, or "".
        wheels: version of the rclpy wheel, or "".
        importable: whether there is an rclpy to import at all.
    """

    sourced: str
    wheels: str
    importable: bool

    @property
    def problem(self) -> str:
        """Why nothing can be run, in one sentence; empty if it can."""
        if self.sourced and self.wheels:
            return (
                f"ROS 2 {self.sourced} is sourced and the ROS wheels ({WHEEL} {self.wheels}) are "
                "installed too: two copies of its libraries crash each other; open a shell "
                "without the sourced set-up, or make a .venv while it is sourced (make setup "
                "leaves the wheels out then)"
            )
        if not self.importable:
            return (
                "rclpy is not installed: source a ROS 2 Jazzy, or install the extra `ros` "
                "(pip install 'decisive[ros]', on CPython 3.11 or 3.12)"
            )
        return ""


def find(environ: Mapping[str, str] | None = None) -> Installation:
    """Look at the environment and the installed distributions."""
    environ = os.environ if environ is None else environ
    try:
        wheels = importlib.metadata.version(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        wheels = ""
    return Installation(
        sourced=environ.get("ROS_DISTRO", "") if environ.get("AMENT_PREFIX_PATH") else "",
        wheels=wheels,
        importable=importlib.util.find_spec("rclpy") is not None,
    )


def require() -> None:
    """Raise `ValueError` with one sentence where no node can be run."""
    if problem := find().problem:
        raise ValueError(problem)
