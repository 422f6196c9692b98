"""`decisive ros doctor`: what is installed, and whether messages flow between two processes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from typing import Any

from ros_nodes.graph import environment, share
from ros_nodes.installation import OPTIONAL, find

MESSAGES = 50
SIZE = (480, 640, 3)


def facts() -> dict[str, Any]:
    """What is here, without loading rclpy."""
    found = find()
    kind = f"sourced ROS 2 {found.sourced}" if found.sourced else f"wheels {found.wheels}"
    return {
        "rclpy": kind if found.importable else "not installed",
        "problem": found.problem,
        "domain id": os.environ.get("ROS_DOMAIN_ID", "0"),
        "discovery range": os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET"),
        "middleware": os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"),
        "Fast DDS profile": environment()["FASTRTPS_DEFAULT_PROFILES_FILE"],
        "configuration": str(share("config/sim_insertion.yaml").parent),
        "optional": {
            name: ("there" if importlib.util.find_spec(name) else f"not there: no {what}")
            for name, what in OPTIONAL.items()
        },
    }


def flow(seconds: float = 20.0) -> dict[str, Any]:
    """Send pictures from another process to this one.

    Returns:
        `sent`, `received`, and `ms` from stamp to arrival (median; None where nothing came).
    """
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.utilities import try_shutdown
    from sensor_msgs.msg import Image

    from ros_nodes import messages
    from ros_nodes.running import NEWEST

    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("doctor", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    delays: list[float] = []

    def received(message: Image) -> None:
        sent = messages.nanoseconds(message.header.stamp)
        delays.append((node.get_clock().now().nanoseconds - sent) / 1e6)
        assert messages.image_array(message).shape == SIZE

    node.create_subscription(Image, "decisive_doctor", received, NEWEST)
    peer = subprocess.Popen([sys.executable, "-m", "ros_nodes.doctor"], env=environment())
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end and peer.poll() is None:
            executor.spin_once(timeout_sec=0.1)
        executor.spin_once(timeout_sec=0.2)
    finally:
        peer.kill()
        peer.wait()
        executor.shutdown(timeout_sec=0.2)
        node.destroy_node()
        try_shutdown(context=context)
    delays.sort()
    median = round(delays[len(delays) // 2], 2) if delays else None
    return {"sent": MESSAGES, "received": len(delays), "ms": median}


def send() -> None:
    """The other process: wait for a subscriber, then send pictures at 30 Hz."""
    import numpy as np
    import rclpy
    from rclpy.utilities import try_shutdown
    from sensor_msgs.msg import Image

    from ros_nodes import messages
    from ros_nodes.running import NEWEST

    rclpy.init()
    node = rclpy.create_node("doctor_peer")
    publisher = node.create_publisher(Image, "decisive_doctor", NEWEST)
    end = time.monotonic() + 15.0
    while publisher.get_subscription_count() == 0 and time.monotonic() < end:
        time.sleep(0.05)
    picture = np.zeros(SIZE, np.uint8)
    for _ in range(MESSAGES):
        stamp = node.get_clock().now().to_msg()
        publisher.publish(messages.image_message(picture, "rgb8", stamp, "doctor"))
        time.sleep(1 / 30)
    node.destroy_node()
    try_shutdown()


if __name__ == "__main__":
    send()
