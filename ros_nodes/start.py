"""Starts a node: `python -m ros_nodes.start policy --ros-args ...`, or `ros2 run decisive policy`.

A signal ends it with status 0 also while it is still loading: torch alone takes seconds.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys

PARENT = "DECISIVE_PARENT"
"""Environment variable with the process id of who started the node, and ends it."""
_PR_SET_PDEATHSIG = 1

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start(name: str) -> int:
    """Load the module of a node and run it on the words after its name."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))
    if parent := os.environ.get(PARENT):
        _end_with(int(parent))
    result: int = importlib.import_module(f"ros_nodes.{name}").main()
    return result


def _end_with(parent: int) -> None:
    """Get a SIGTERM when the parent dies, however it does: no node goes on by itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # it has died already
        os._exit(0)


def sim_robot() -> int:
    """Run the simulated robot."""
    return start("sim_robot")


def policy() -> int:
    """Run a policy."""
    return start("policy")


def safety_gate() -> int:
    """Run the safety gate."""
    return start("safety_gate")


def object_poses() -> int:
    """Run the node that finds objects by colour and depth."""
    return start("object_poses")


def sim_base() -> int:
    """Run the simulated base."""
    return start("sim_base")


def world_model() -> int:
    """Run the world model."""
    return start("world_model")


def navigator() -> int:
    """Run the navigator."""
    return start("navigator")


def perception() -> int:
    """Run a classifier of pictures."""
    return start("perception")


if __name__ == "__main__":
    raise SystemExit(start(sys.argv.pop(1)))
