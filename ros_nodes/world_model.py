"""`world_model`: what a camera would see along a path where nobody has been.

Panoramas that were really seen come in, and a path; predicted panoramas of its poses go out, one
after the other, and the cloud of all points, seen and predicted. Each prediction is remembered for
the next pose of that path, and forgotten with the path: only what was seen stays.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Path
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from robots.streaming import Outcome, Worker
from ros_nodes import messages
from ros_nodes.navigation_messages import (
    PANORAMA,
    labelled_cloud,
    panorama_messages,
    path_points,
)
from ros_nodes.panorama_input import PANORAMA_PARAMETERS, PanoramaInput
from ros_nodes.parameters import Parameter, declare
from ros_nodes.running import LATCHED, RELIABLE, diagnostics, run
from world_models.pathdreamer.dreamer import Dreamer
from world_models.pathdreamer.model import load_world_model
from world_models.pathdreamer.panoramas import Seen

PARAMETERS = (
    Parameter("model", "pathdreamer-houses", "shipped name, or a checkpoint folder"),
    Parameter("height", 0, "rows of what is predicted; 0 for what the model is meant for", 0, 1024),
    Parameter("seed", 0, "of the noise: another seed is another idea of what cannot be seen",
              0, 2**31 - 1),
    Parameter("temperature", 1.0, "factor of the noise; 0 predicts the mean idea", 0.0, 10.0),
    Parameter("apart", 0.5, "metres between panoramas that are remembered: a nearer one replaces "
              "the one before", 0.01, 100.0),
    Parameter("remembered", 32, "panoramas that are remembered, the oldest go first", 1, 1000),
    Parameter("longest", 32, "most poses of a path", 1, 1000),
    *PANORAMA_PARAMETERS,
)  # fmt: skip


class Request(NamedTuple):
    """A path to dream along.

    Attributes:
        points: `(N, 3)` metres.
        stamp: of the path, nanoseconds. The answer for pose k bears it plus k, so that no two
            panoramas have the same.
        frame: of the path.
        seen: panoramas known at that time.
    """

    points: NDArray[np.float64]
    stamp: int
    frame: str
    seen: tuple[Seen, ...]


class WorldModel(Node):
    """Shell around `Dreamer`: the newest path is dreamed along, in a thread of its own."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters, load the model, open the topics."""
        super().__init__("world_model", **options)
        self.value = value = declare(self, PARAMETERS)
        torch.set_num_threads(1)
        self._model = load_world_model(value["model"]).eval()
        height = value["height"] or self._model.config.height
        self._model.config.check_size(height, 2 * height)
        self._size = (height, 2 * height)
        self._seen: deque[Seen] = deque(maxlen=value["remembered"])
        self._counts = {"panoramas": 0, "paths": 0, "refused": 0, "predicted": 0}
        self._seconds = 0.0
        self._views = {
            key: self.create_publisher(kind, f"predicted/{topic}", RELIABLE)
            for key, (kind, topic) in PANORAMA.items()
        }
        self._cloud = self.create_publisher(PointCloud2, "predicted/points", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._worker: Worker[Request] = Worker(self._dream, self._told)
        PanoramaInput(self, value, self._on_panorama)
        self.create_subscription(Path, "path", self._on_path, RELIABLE)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_panorama(self, seen: Seen, stamp: int) -> None:
        self._counts["panoramas"] += 1
        # The newest replaces one from nearly the same place, so that standing still fills nothing.
        for old in list(self._seen):
            if np.linalg.norm(old.position - seen.position) < self.value["apart"]:
                self._seen.remove(old)
        self._seen.append(seen)

    def _on_path(self, message: Any) -> None:
        try:
            points = path_points(message, self.value["longest"])
            stamp = messages.nanoseconds(message.header.stamp)
            if not self._seen:
                raise ValueError("nothing was seen yet: a panorama must come before a path")
            # A base's path lies on the floor; the camera keeps its height.
            points[:, 2] = self._seen[-1].position[2]
        except ValueError as error:
            self._counts["refused"] += 1
            self.get_logger().warning(f"path: {error}", throttle_duration_sec=1.0)
            return
        self._counts["paths"] += 1
        self._worker.advance()  # an older path, and what is still said of it, counts no more
        request = Request(points, stamp, message.header.frame_id, tuple(self._seen))
        self._worker.submit(request)

    def _dream(self, request: Request) -> None:
        begin = time.perf_counter()
        epoch = self._worker.epoch
        dreamer = Dreamer(self._model, self._size, self.value["seed"], self.value["temperature"])
        for panorama in request.seen:
            dreamer.see(panorama)
        for k, point in enumerate(request.points):
            found = dreamer.dream(point)
            if self._worker.epoch != epoch:
                return
            stamp = messages.stamp_of(request.stamp + k)
            for key, message in panorama_messages(found, stamp, request.frame).items():
                self._views[key].publish(message)
            self._counts["predicted"] += 1
        stamp, points = messages.stamp_of(request.stamp), dreamer.memory.points
        self._cloud.publish(labelled_cloud(points.positions, points.channels, stamp, request.frame))
        self._seconds = (time.perf_counter() - begin) / len(request.points)

    def _told(self, outcome: Outcome[Request]) -> None:
        if outcome.error is not None:
            self.get_logger().error(f"{type(outcome.error).__name__}: {outcome.error}")

    def _on_reset(self, request: Any, response: Any) -> Any:
        self._worker.advance()
        self._seen.clear()
        response.success, response.message = True, "nothing has been seen"
        return response

    def _report(self) -> None:
        facts = {**self._counts, "remembered": len(self._seen)}
        facts["ms_per_panorama"] = round(1e3 * self._seconds)
        doing = "dreaming" if self._worker.busy else "waiting for a path"
        self._diagnostics.publish(diagnostics(self, doing, facts))

    def finish(self) -> None:
        """End the thread."""
        self._worker.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(WorldModel, argv)


if __name__ == "__main__":
    raise SystemExit(main())
