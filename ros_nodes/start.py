"""Starts a node: `python -m ros_nodes.start policy --ros-args ...`, or `ros2 run decisive policy`.

A signal ends it with status 0 also while it is still loading: torch alone takes seconds.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import time

PARENT = "DECISIVE_PARENT"
"""Environment variable with the process id of who started the node, and ends it."""
_PR_SET_PDEATHSIG = 1
_SIGEV_THREAD = 2

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


class _SigEvent(ctypes.Structure):
    """What a timer does when it is due, as 64-bit Linux lays it out."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("padding", ctypes.c_byte * 32),
    )


def end_within(seconds: float) -> None:
    """End the process with status 0 after so many seconds, whatever it does then.

    rclpy destroys nodes and contexts without letting go of the interpreter's lock: where the
    middleware hangs there, no thread of Python gets to end anything. The kernel's timer does.
    """
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    function = ctypes.cast(libc._exit, ctypes.c_void_p)
    event = _SigEvent(value=0, notify=_SIGEV_THREAD, function=function)
    timer = ctypes.c_void_p()
    if libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) != 0:
        raise OSError(ctypes.get_errno(), "timer_create")
    whole = int(seconds)
    due = (ctypes.c_long * 4)(0, 0, whole, int((seconds - whole) * 1e9))  # interval, first time
    libc.timer_settime(timer, 0, ctypes.byref(due), None)


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


def forecast() -> int:
    """Run a forecaster of occupancy."""
    return start("forecast")


def goal_views() -> int:
    """Run the memory of what was seen where."""
    return start("goal_views")


def perception() -> int:
    """Run a classifier of pictures."""
    return start("perception")


if __name__ == "__main__":
    raise SystemExit(start(sys.argv.pop(1)))
