"""`perception`: an image classifier as a lifecycle node.

The newest picture of a camera is classified in a worker; pictures that came too late, or while it
was thinking about another, are dropped and counted. It commands nothing.
"""

from __future__ import annotations

import importlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from decisive.statistics import median_and_p95
from perception.checkpoint import SavedClassifier
from robots.matching import SECOND
from robots.streaming import Outcome, Worker
from ros_nodes import messages
from ros_nodes.parameters import Parameter, declare
from ros_nodes.picture_classifier import Answer, Eye, choose, load, read_picture, topic_names
from ros_nodes.running import NEWEST, RELIABLE, diagnostics, guard_lifecycle, run

OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
STEADY = Clock(clock_type=ClockType.STEADY_TIME)

TOPIC = "camera/color/image_raw"
PARAMETERS = (
    Parameter("checkpoint", "", "folder of a trained classifier, or a shipped name; must be given"),
    Parameter("backend", "auto", "what runs it; auto takes openvino, else onnxruntime, else torch",
              choices=("auto", "torch", "onnxruntime", "openvino")),
    Parameter("precision", "auto", "bfloat16 and auto take it only where the CPU has it and the "
              "network says the same on `calibration`", choices=("auto", "float32", "bfloat16")),
    Parameter("calibration", "", "folder of an image set on which precisions are compared; empty: "
              "float32"),
    Parameter("threads", 1, "of the processor that the network may use", 1, 256),
    Parameter("cache", "", "folder of compiled networks; empty compiles at every start"),
    Parameter("max_age", 0.2, "greatest age in s of a picture when it is looked at", 0.01, 60.0),
    Parameter("future", 0.05, "seconds by which a stamp may lie in the future", 0.0, 1.0),
    Parameter("rate", 0.0, "greatest number of classifications per second; 0: every newest picture",
              0.0, 1000.0),
    Parameter("autostart", True, "configure and activate without being asked"),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One picture to be classified.

    Attributes:
        pixels: `(H, W, C)`.
        header: of the message.
        stamp: of the header, nanoseconds.
    """

    pixels: NDArray[np.uint8]
    header: Header
    stamp: int


class PerceptionNode(LifecycleNode):
    """Shell around `Eye`: pictures in, classes out, under the stamp of the picture."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; `options` go to the base class."""
        super().__init__("perception", **options)
        guard_lifecycle(self)
        self.value = declare(self, PARAMETERS)
        self._lock = threading.RLock()
        self._eye: Eye | None = None
        self._worker: Worker[Job] | None = None
        self._subscription: Any = None
        self._timer: Any = None
        self._outputs: list[Any] = []
        self._counts: dict[str, int] = dict.fromkeys(
            ("frames", "classified", "replaced", "stale", "malformed", "errors", "left out"), 0
        )
        self._warned: dict[str, int] = {}  # steady time of the last warning, by its kind
        self._reported = 0  # classifications at the last report
        self._times: deque[float] = deque(maxlen=200)
        self._next = 0  # steady time before which `rate` allows no other picture
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._starter: Any = None
        if self.value["autostart"]:
            self._starter = self.create_timer(0.0, self._autostart, clock=STEADY)

    def _autostart(self) -> None:
        self.destroy_timer(self._starter)
        if self.trigger_configure() == OK:
            self.trigger_activate()

    # Lifecycle.

    def on_configure(self, state: Any) -> Any:
        """Load, compile and warm up the classifier."""
        try:
            self._configure()
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            self.get_logger().error(" ".join(str(error).split()))
            self._close()
            return FAILED
        return OK

    def _configure(self) -> None:
        torch.set_num_threads(self.value["threads"])
        saved = load(self.value)
        eye = Eye(saved, self.value)
        report = eye.report
        self.get_logger().info(
            f"{self.value['checkpoint']}: {report.backend}, {report.precision} ({report.why}), "
            f"{'read' if report.cached else 'compiled'} in {report.seconds:.1f} s"
        )
        self._classes = self.create_lifecycle_publisher(String, "~/classes", RELIABLE)
        self._outputs.append(self._classes)
        self._standard = self._standard_outputs(saved)
        self._eye = eye

    def _standard_outputs(self, saved: SavedClassifier) -> dict[str, Callable[[Job, Any], None]]:
        """One function a task, that publishes in the standard message, where there is one."""
        try:
            vision = importlib.import_module("vision_msgs.msg")
        except ImportError:
            return {}

        def output(word: str) -> Callable[[Job, Any], None]:
            topic = f"~/classification/{word}"
            publisher = self.create_lifecycle_publisher(vision.Classification, topic, RELIABLE)
            self._outputs.append(publisher)

            def publish(job: Job, chances: Mapping[str, float]) -> None:
                found = sorted(chances.items(), key=lambda pair: -pair[1])
                results = [vision.ObjectHypothesis(class_id=name, score=p) for name, p in found]
                publisher.publish(vision.Classification(header=job.header, results=results))

            return publish

        return {task: output(word) for task, word in topic_names(saved.tasks).items()}

    def on_activate(self, state: Any) -> Any:
        """Start looking."""
        super().on_activate(state)
        assert self._eye is not None
        with self._lock:
            self._next = 0
            self._worker = Worker(self._think(self._eye), self._deliver)
        self._subscription = self.create_subscription(Image, TOPIC, self._on_picture, NEWEST)
        self._timer = self.create_timer(1.0, self._report, clock=STEADY)
        return OK

    def on_deactivate(self, state: Any) -> Any:
        """Stop looking."""
        self._halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> Any:
        """Forget the classifier."""
        self._close()
        return OK

    def on_shutdown(self, state: Any) -> Any:
        """End."""
        self.finish()
        self._close()
        return OK

    def finish(self) -> None:
        """End the worker."""
        self._halt()

    def _halt(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        if worker is not None:
            # Outside the lock: the worker may be delivering, and needs it.
            worker.close()
            self._count("replaced", worker.replaced)

    def _close(self) -> None:
        self._eye = None
        while self._outputs:
            self.destroy_lifecycle_publisher(self._outputs.pop())

    # Pictures.

    def _on_picture(self, message: Image) -> None:
        worker, eye = self._worker, self._eye
        if worker is None or eye is None:
            return
        self._count("frames")
        try:
            stamp = messages.nanoseconds(message.header.stamp)
            if not self._fresh(stamp):
                return
            steady = time.monotonic_ns()
            if steady < self._next:
                self._count("left out")
                return
            pixels = read_picture(message, len(eye.saved.mean))
        except ValueError as error:
            self._complain("malformed", str(error))
            return
        if self.value["rate"]:
            # The rate is kept on average; what was missed is not made up for.
            period = round(SECOND / self.value["rate"])
            self._next = self._next + period if steady < self._next + period else steady + period
        worker.submit(Job(pixels, message.header, stamp))

    def _fresh(self, stamp: int) -> bool:
        """Whether a picture is about the present; counts those that are not."""
        age = (self.get_clock().now().nanoseconds - stamp) / SECOND
        if -self.value["future"] <= age <= self.value["max_age"]:
            return True
        self._complain(
            "stale",
            f"a picture is {age:.3f} s old and dropped; allowed are -{self.value['future']:g} to "
            f"{self.value['max_age']:g}",
        )
        return False

    # Inference, in the worker's thread.

    def _think(self, eye: Eye) -> Callable[[Job], Answer | None]:
        # Bound to its own classifier: one that hangs must not meet the next.
        def think(job: Job) -> Answer | None:
            # It may have waited behind another picture.
            return eye(job.pixels) if self._fresh(job.stamp) else None

        return think

    def _deliver(self, outcome: Outcome[Job]) -> None:
        with self._lock:
            if self._worker is None or outcome.epoch != self._worker.epoch:
                return
            if outcome.error is not None:
                self._complain("errors", f"{type(outcome.error).__name__}: {outcome.error}")
            elif outcome.result is not None:
                self._publish(outcome.job, outcome.result, outcome.seconds * 1e3)

    def _publish(self, job: Job, answer: Answer, ms: float) -> None:
        self._count("classified")
        self._times.append(ms)
        age = self.get_clock().now().nanoseconds - job.stamp
        said = {
            "stamp": job.stamp,
            "frame": job.header.frame_id,
            "tasks": choose(answer),
            "ms": round(ms, 3),
            "age_ms": round(age / 1e6, 3),
        }
        self._classes.publish(String(data=json.dumps(said)))
        for task, publish in self._standard.items():
            publish(job, answer[task])

    # Reports.

    def _count(self, name: str, n: int = 1) -> None:
        with self._lock:
            self._counts[name] += n

    def _complain(self, name: str, words: str) -> None:
        """Count, and warn at most once a second of the same kind."""
        self._count(name)
        now = time.monotonic_ns()
        with self._lock:
            if now < self._warned.get(name, -SECOND) + SECOND:
                return
            self._warned[name] = now
        self.get_logger().warning(f"{TOPIC}: {' '.join(words.split())}")

    def _report(self) -> None:
        eye = self._eye
        if eye is None:
            return
        with self._lock:
            facts: dict[str, Any] = dict(self._counts)
            if self._worker is not None:
                facts["replaced"] += self._worker.replaced
            times = list(self._times)
            news = facts["classified"] - self._reported
            self._reported = facts["classified"]
        if times:
            facts["ms p50"], facts["ms p95"] = (f"{ms:.2f}" for ms in median_and_p95(times))
        facts |= {
            "backend": eye.report.backend,
            "precision": eye.report.precision,
            "parity": eye.parity,
        }
        level = DiagnosticStatus.OK if news else DiagnosticStatus.WARN
        message = f"{news} pictures classified since the last report"
        self._diagnostics.publish(diagnostics(self, message, facts, level))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(PerceptionNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
