"""`perception`: an image classifier, segmenter or multi-task network as a lifecycle node.

The newest picture of a camera is looked at in a worker; pictures that came too late, or while it
was thinking about another, are dropped and counted. In lockstep none is: they wait in line. It
commands nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from decisive.statistics import median_and_p95
from robots.matching import SECOND
from robots.streaming import Outcome, Worker
from ros_nodes import messages
from ros_nodes.box_messages import Boxes, BoxMatcher, boxes_from_detections, boxes_from_json
from ros_nodes.instance_messages import optional
from ros_nodes.parameters import Parameter, declare
from ros_nodes.picture_input import Eye, Listener, Picture, Times, Voice, read_picture
from ros_nodes.picture_kinds import make
from ros_nodes.running import NEWEST, RELIABLE, diagnostics, guard_lifecycle, run

OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
STEADY = Clock(clock_type=ClockType.STEADY_TIME)

TOPIC = "camera/color/image_raw"
INFO = "camera/color/camera_info"
BOXES = "~/boxes"
LINE = 64
"""Pictures that wait in lockstep at most; of 640x480 they take 60 MB."""

PARAMETERS = (
    Parameter("checkpoint", "", "folder of a trained classifier, segmenter or multi-task network, "
              "or a shipped name; must be given"),
    Parameter("backend", "auto", "what runs it; auto takes openvino, else onnxruntime, else torch",
              choices=("auto", "torch", "onnxruntime", "openvino")),
    Parameter("precision", "auto", "bfloat16 and auto take it only where the CPU has it and the "
              "classifier says the same on `calibration`; segmenters and multi-task networks run "
              "in float32",
              choices=("auto", "float32", "bfloat16")),
    Parameter("calibration", "", "folder of an image set on which precisions are compared; empty: "
              "float32"),
    Parameter("threads", 1, "of the processor that the network may use", 1, 256),
    Parameter("cache", "", "folder of compiled networks; empty compiles at every start"),
    Parameter("threshold", 0.3, "of a segmenter: least score of what is found", 0.0, 1.0),
    Parameter("max_instances", 100, "of a segmenter: most instances found in a picture", 1, 1000),
    Parameter("refine", 0, "of a segmenter: how many times each box is replaced by the tight box "
              "of its mask; for loose boxes", 0, 5),
    Parameter("boxes", False, "of a segmenter: find nothing, mask the boxes of the topic ~/boxes"),
    Parameter("max_age", 0.2, "greatest age in s of a picture when it is looked at", 0.01, 60.0),
    Parameter("future", 0.05, "seconds by which a stamp may lie in the future", 0.0, 1.0),
    Parameter("rate", 0.0, "greatest number of pictures looked at per second; 0: every newest one",
              0.0, 1000.0),
    Parameter("lockstep", False, "look at every picture, in order; for a simulator that waits"),
    Parameter("autostart", True, "configure and activate without being asked"),
)  # fmt: skip

COUNTS = ("frames", "answered", "replaced", "stale", "malformed", "errors", "left out")
BOX_COUNTS = ("boxes", "unmatched boxes", "malformed boxes")


class PerceptionNode(LifecycleNode):
    """Shell around an `Eye` and a `Voice`: pictures in, what they show out, under their stamps."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; `options` go to the base class."""
        super().__init__("perception", **options)
        guard_lifecycle(self)
        self.value = declare(self, PARAMETERS)
        self._lock = threading.RLock()
        self._eye: Eye | None = None
        self._voice: Voice | None = None
        self._worker: Worker[Picture] | None = None
        self._matcher: BoxMatcher[Picture] | None = None
        self._line: deque[Picture] = deque()  # in lockstep, those that wait
        self._thinking = False  # in lockstep, whether one is being looked at
        self._taken = -1  # in lockstep, stamp of the last that was taken
        self._last: tuple[Picture, Any, Times] | None = None
        self._subscriptions_of_activity: list[Any] = []
        self._timer: Any = None
        self._outputs: list[Any] = []
        self._counts: dict[str, int] = dict.fromkeys((*COUNTS, *self._box_counts()), 0)
        self._warned: dict[str, int] = {}  # steady time of the last warning, by its kind
        self._reported = 0  # pictures answered at the last report
        self._times: deque[float] = deque(maxlen=200)
        self._next = 0  # steady time before which `rate` allows no other picture
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._starter: Any = None
        if self.value["autostart"]:
            self._starter = self.create_timer(0.0, self._autostart, clock=STEADY)

    def _box_counts(self) -> tuple[str, ...]:
        return BOX_COUNTS if self.value["boxes"] else ()

    def _autostart(self) -> None:
        self.destroy_timer(self._starter)
        if self.trigger_configure() == OK:
            self.trigger_activate()

    # Lifecycle.

    def on_configure(self, state: Any) -> Any:
        """Load, compile and warm up the network."""
        try:
            self._configure()
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            self.get_logger().error(" ".join(str(error).split()))
            self._close()
            return FAILED
        return OK

    def _configure(self) -> None:
        torch.set_num_threads(self.value["threads"])
        eye, self._voice = make(self.value, self._open)
        report = eye.report
        self.get_logger().info(
            f"{self.value['checkpoint']}: {report.backend}, {report.precision} ({report.why}), "
            f"{'read' if report.cached else 'compiled'} in {report.seconds:.1f} s"
        )
        self._eye = eye

    def _open(self, kind: Any, topic: str) -> Any:
        publisher = self.create_lifecycle_publisher(kind, topic, RELIABLE)
        self._outputs.append(publisher)
        return publisher

    def on_activate(self, state: Any) -> Any:
        """Start looking."""
        super().on_activate(state)
        assert self._eye is not None
        with self._lock:
            self._next, self._thinking, self._taken = 0, False, -1
            self._last = None
            self._line.clear()
            self._matcher = BoxMatcher() if self.value["boxes"] else None
            self._worker = Worker(self._think(self._eye), self._deliver)
        quality = RELIABLE if self.value["lockstep"] else NEWEST
        self._listen(Image, TOPIC, self._on_picture, quality)
        if isinstance(self._voice, Listener):
            self._listen(CameraInfo, INFO, self._on_info, NEWEST)
        if self._matcher is not None:
            vision = optional("vision_msgs")
            kind = String if vision is None else vision.Detection2DArray
            self._listen(kind, BOXES, self._on_boxes, RELIABLE)
        self._timer = self.create_timer(1.0, self._report, clock=STEADY)
        return OK

    def _listen(self, kind: Any, topic: str, hear: Callable[[Any], None], quality: Any) -> None:
        made = self.create_subscription(kind, topic, hear, quality)
        self._subscriptions_of_activity.append(made)

    def on_deactivate(self, state: Any) -> Any:
        """Stop looking."""
        self._halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> Any:
        """Forget the network."""
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
            matcher, self._matcher = self._matcher, None
            self._counts["replaced"] += len(self._line)
            self._line.clear()
            if matcher is not None:
                self._counts["unmatched boxes"] += matcher.dropped
        while self._subscriptions_of_activity:
            self.destroy_subscription(self._subscriptions_of_activity.pop())
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        if worker is not None:
            # Outside the lock: the worker may be delivering, and needs it.
            worker.close()
            self._count("replaced", worker.replaced)

    def _close(self) -> None:
        self._eye = self._voice = None
        while self._outputs:
            self.destroy_lifecycle_publisher(self._outputs.pop())

    # Pictures, and boxes in them.

    def _on_picture(self, message: Image) -> None:
        eye = self._eye
        if self._worker is None or eye is None:
            return
        self._count("frames")
        try:
            stamp = messages.nanoseconds(message.header.stamp)
            if self._known(stamp) or not self._fresh(stamp):
                return
            steady = time.monotonic_ns()
            if steady < self._next:
                self._count("left out")
                return
            pixels = read_picture(message, eye.channels)
        except ValueError as error:
            self._complain("malformed", f"{TOPIC}: {error}")
            return
        if self.value["rate"]:
            # The rate is kept on average; what was missed is not made up for.
            period = round(SECOND / self.value["rate"])
            self._next = self._next + period if steady < self._next + period else steady + period
        picture = Picture(pixels, message.header, stamp)
        if self._matcher is None:
            self._submit(picture)
        elif (boxes := self._matcher.add_picture(stamp, picture)) is not None:
            self._submit_boxes(picture, boxes)

    def _known(self, stamp: int) -> bool:
        """In lockstep, whether a picture was here before; one that was answered is again."""
        if not self.value["lockstep"]:
            return False
        with self._lock:
            if self._last is not None and self._last[0].stamp == stamp and self._voice is not None:
                self._voice.say(*self._last)  # asked again: answer again
                return True
            return stamp == self._taken

    def _on_boxes(self, message: Any) -> None:
        if self._worker is None or self._matcher is None:
            return
        self._count("boxes")
        try:
            read = boxes_from_json if isinstance(message, String) else boxes_from_detections
            boxes = read(message.data if isinstance(message, String) else message)
        except (ValueError, OverflowError) as error:
            self._complain("malformed boxes", f"{BOXES}: {error}")
            return
        picture = self._matcher.add_boxes(boxes)
        if picture is not None:
            self._submit_boxes(picture, boxes)

    def _submit_boxes(self, picture: Picture, boxes: Boxes) -> None:
        self._submit(Picture(picture.pixels, picture.header, picture.stamp, boxes))

    def _on_info(self, message: CameraInfo) -> None:
        if not isinstance(self._voice, Listener):
            return
        try:
            self._voice.hear(message)
        except ValueError as error:
            self._complain("malformed", f"{INFO}: {error}")

    def _fresh(self, stamp: int) -> bool:
        """Whether a picture is about the present; counts those that are not."""
        age = (self.get_clock().now().nanoseconds - stamp) / SECOND
        if -self.value["future"] <= age <= self.value["max_age"]:
            return True
        self._complain(
            "stale",
            f"{TOPIC}: a picture is {age:.3f} s old and dropped; allowed are "
            f"-{self.value['future']:g} to {self.value['max_age']:g}",
        )
        return False

    def _submit(self, picture: Picture) -> None:
        """Hand a picture to the worker; in lockstep, when it is its turn."""
        with self._lock:
            if self._worker is None:
                return
            if self.value["lockstep"]:
                self._taken = picture.stamp
                if self._thinking:
                    self._line.append(picture)
                    if len(self._line) > LINE:
                        self._line.popleft()
                        self._count("replaced")
                    return
                self._thinking = True
            self._worker.submit(picture)

    # Inference, in the worker's thread.

    def _think(self, eye: Eye) -> Callable[[Picture], Any]:
        # Bound to its own network: one that hangs must not meet the next.
        def think(picture: Picture) -> Any:
            # It may have waited behind another picture.
            return eye.look(picture) if self._fresh(picture.stamp) else None

        return think

    def _deliver(self, outcome: Outcome[Picture]) -> None:
        with self._lock:
            if self._worker is None or outcome.epoch != self._worker.epoch:
                return
            if outcome.error is not None:
                self._complain("errors", f"{type(outcome.error).__name__}: {outcome.error}")
            elif outcome.result is not None:
                self._say(outcome.job, outcome.result, outcome.seconds * 1e3)
            self._thinking = bool(self._line)
            if self._line:
                self._worker.submit(self._line.popleft())

    def _say(self, picture: Picture, answer: Any, ms: float) -> None:
        assert self._voice is not None
        self._count("answered")
        self._times.append(ms)
        age = self.get_clock().now().nanoseconds - picture.stamp
        self._last = (picture, answer, Times(ms, age / 1e6))
        self._voice.say(*self._last)

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
        self.get_logger().warning(" ".join(words.split()))

    def _report(self) -> None:
        eye = self._eye
        if eye is None:
            return
        with self._lock:
            facts: dict[str, Any] = dict(self._counts)
            if self._worker is not None:
                facts["replaced"] += self._worker.replaced
            if self._matcher is not None:
                facts["unmatched boxes"] += self._matcher.dropped
            times = list(self._times)
            news = facts["answered"] - self._reported
            self._reported = facts["answered"]
        if times:
            facts["ms p50"], facts["ms p95"] = (f"{ms:.2f}" for ms in median_and_p95(times))
        facts |= eye.facts
        level = DiagnosticStatus.OK if news else DiagnosticStatus.WARN
        message = f"{news} pictures answered since the last report"
        self._diagnostics.publish(diagnostics(self, message, facts, level))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(PerceptionNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
