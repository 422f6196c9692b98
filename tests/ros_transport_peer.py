"""One end of the transport test: `ros_transport_peer.py publish|subscribe TOPIC N_FRAMES`.

The two ends of a connection do not learn of each other at the same moment, and best effort sends
nothing twice. So the subscriber prints a line once it is matched; the publisher waits for that line
on its input, sends at 30 Hz, and ends when the subscriber leaves. The subscriber does so, after
printing one JSON object, when the last frame is in or none came for some seconds.
"""

import json
import sys
import time
import zlib

import numpy as np
import rclpy
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from ros_nodes.messages import image_array, image_message, nanoseconds, stamp_of

PERIOD_S = 1 / 30
START_S = 60.0  # discovery on a busy machine
SILENCE_S = 5.0
# The question is what the transport loses, so a reader that waits for the CPU may queue some.
QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


def publish(node: Node, topic: str, n_frames: int) -> None:
    publisher = node.create_publisher(Image, topic, QOS)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    wait_until(lambda: publisher.get_subscription_count() > 0, START_S)
    sys.stdin.readline()
    due = time.monotonic()
    for index in range(n_frames):
        frame = noise ^ np.uint8(index)
        message = image_message(frame, "rgb8", stamp_of(time.time_ns()), "")
        message.header.frame_id = f"{index} {zlib.crc32(frame)}"
        publisher.publish(message)
        due += PERIOD_S
        time.sleep(max(0.0, due - time.monotonic()))
    # The frames lie in this process's shared memory: it must outlive their reading.
    wait_until(lambda: publisher.get_subscription_count() == 0, START_S)


def subscribe(node: Node, topic: str, n_frames: int) -> None:
    indices: list[int] = []
    milliseconds: list[float] = []
    n_wrong = 0

    def receive(message: Image) -> None:
        nonlocal n_wrong, last
        last = time.monotonic()
        milliseconds.append((time.time_ns() - nanoseconds(message.header.stamp)) / 1e6)
        index, checksum = map(int, message.header.frame_id.split())
        indices.append(index)
        n_wrong += zlib.crc32(np.ascontiguousarray(image_array(message))) != checksum

    def matched(event) -> None:
        if event.current_count_change > 0:
            print("matched", flush=True)

    callbacks = SubscriptionEventCallbacks(matched=matched)
    node.create_subscription(Image, topic, receive, QOS, event_callbacks=callbacks)
    last = time.monotonic() + START_S
    while n_frames - 1 not in indices and time.monotonic() < last + SILENCE_S:
        rclpy.spin_once(node, timeout_sec=0.1)
    result = {"indices": indices, "wrong": n_wrong}
    if indices:
        result["latency_ms"] = [round(q, 2) for q in np.percentile(milliseconds, (0, 50, 95))]
    print(json.dumps(result))


def wait_until(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the other end did not come or go")
        time.sleep(0.005)


def main() -> None:
    role, topic, n_frames = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rclpy.init()
    node = Node(f"transport_{role}")
    {"publish": publish, "subscribe": subscribe}[role](node, topic, n_frames)
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
