"""The node `perception` with a segmenter: instances of pictures, and masks of anybody's boxes."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
pytest.importorskip("rclpy")

import segmenter_cases
import vision_cases
from classifier_cases import save_small
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_cases import Sink, contexts, until
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from agents import shipped_policies
from perception.deep_mac import checkpoint
from perception.deep_mac.checkpoint import SavedSegmenter, load_segmenter, save_segmenter
from ros_nodes import messages
from ros_nodes.demo import isolated
from ros_nodes.graph import GRAPHS, Graph, NodeSpec
from ros_nodes.instance_messages import classes_of, label_array
from ros_nodes.operator import Operator
from ros_nodes.perception import PerceptionNode
from ros_nodes.picture_segmenter import MaskVoice, SegmenterEye
from ros_nodes.processes import running
from ros_nodes.running import NEWEST, RELIABLE

pytestmark = pytest.mark.ros
OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
MATRIX = [[40.0, 0, 19.5], [0, 40.0, 11.5], [0, 0, 1]]
FOUND = {"threshold": 0.0, "max_instances": 4}
"""A network that nothing has trained is sure of nothing."""


@pytest.fixture
def context() -> Iterator[Context]:
    yield from contexts(58)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("checkpoints") / "small"
    save_segmenter(made, segmenter_cases.saved(scores={"mask_iou": 0.5}), "# For tests\n")
    return made


class Watcher:
    """An active node whose output is kept, by topic."""

    def __init__(self, context: Context, checkpoint: Path | str, **changes: Any) -> None:
        # A busy machine is slow, and a picture shall not be old for that.
        settings = {"backend": "torch", "autostart": False, "max_age": 20.0, **FOUND, **changes}
        overrides = [Parameter(name, value=value) for name, value in settings.items()]
        overrides.append(Parameter("checkpoint", value=str(checkpoint)))
        self.node = PerceptionNode(context=context, parameter_overrides=overrides)
        self.sinks: dict[str, Sink] = {}
        self.node._open = self._open  # type: ignore[method-assign]
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def _open(self, kind: Any, topic: str) -> Sink:
        return self.sinks.setdefault(topic, Sink())

    def start(self) -> Watcher:
        assert self.node.trigger_configure() == OK
        assert self.node.trigger_activate() == OK
        logger = SimpleNamespace(
            warning=self.warnings.append, error=self.errors.append, info=lambda words: None
        )
        self.node.get_logger = lambda: logger  # type: ignore[method-assign,assignment]
        return self

    def __getitem__(self, topic: str) -> list[Any]:
        return self.sinks[f"~/{topic}"].messages

    @property
    def counts(self) -> dict[str, int]:
        return self.node._counts

    def picture(self, pixels: np.ndarray = PIXELS, stamp: int | None = None) -> Image:
        stamp = self.node.get_clock().now().nanoseconds if stamp is None else stamp
        return messages.image_message(pixels, "rgb8", messages.stamp_of(stamp), "lens")

    def see(self, *words: Any, **changes: Any) -> int:
        """Show a picture; its stamp."""
        message = self.picture(*words, **changes)
        self.node._on_picture(message)
        return messages.nanoseconds(message.header.stamp)

    def hear(self, stamp: int, boxes: Any, **more: Any) -> None:
        said = {"stamp": stamp, "boxes": boxes, **more}
        self.node._on_boxes(String(data=json.dumps(said)))

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(message.data) for message in self["instances"]]

    def report(self) -> dict[str, str]:
        sink = self.node._diagnostics = Sink()  # type: ignore[assignment]
        self.node._report()
        (status,) = sink.messages[-1].status
        return {pair.key: pair.value for pair in status.values}

    def close(self) -> None:
        self.node.finish()
        self.node.destroy_node()


@pytest.fixture
def watch(context: Context, folder: Path) -> Iterator[Callable[..., Watcher]]:
    made: list[Watcher] = []

    def start(checkpoint: Path | str = folder, **changes: Any) -> Watcher:
        made.append(Watcher(context, checkpoint, **changes))
        return made[-1].start()

    yield start
    for watcher in made:
        watcher.close()


class Gate:
    """Lets a segmenter think only when it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        look = SegmenterEye.look

        def wait(eye: SegmenterEye, picture: Any) -> Any:
            self.entered.set()
            assert self.opened.wait(30.0)
            return look(eye, picture)

        monkeypatch.setattr(SegmenterEye, "look", wait)


def direct(folder: Path, boxes: Any = None, pixels: np.ndarray = PIXELS) -> Any:
    return load_segmenter(folder).segment(pixels, boxes, n=4, threshold=0.0)


# What is said.


def test_a_picture_has_the_instances_that_it_has_without_a_node(
    watch: Callable[..., Watcher], folder: Path
) -> None:
    watcher = watch()
    stamp = watcher.see()
    until(watcher.said)
    (said,), (labels,) = watcher.said(), watcher["labels"]
    expected = direct(folder)
    assert len(expected) == 3
    np.testing.assert_array_equal(label_array(labels), expected.label_image())
    assert label_array(labels).any()
    assert messages.nanoseconds(labels.header.stamp) == said["stamp"] == stamp
    assert labels.header.frame_id == said["frame"] == "lens"
    assert classes_of(watcher["instances"][0].data) == (stamp, expected.names)
    assert 0 < said["ms"] <= said["age_ms"]
    for k, row in enumerate(said["instances"]):
        assert row["box"] == pytest.approx(expected.boxes[k].tolist(), abs=0.01)
        assert row["score"] == pytest.approx(float(expected.scores[k]), abs=1e-4)
        assert row["pixels"] == (expected.label_image() == k + 1).sum()


def test_only_what_is_sure_enough_is_said(watch: Callable[..., Watcher], folder: Path) -> None:
    best = float(direct(folder).scores[0])
    sure = watch(threshold=best - 1e-4, max_instances=100)
    sure.see()
    until(sure.said)
    assert {row["score"] for row in sure.said()[0]["instances"]} == {round(best, 4)}
    none = watch(threshold=min(1.0, best + 1e-3))
    none.see()
    until(none.said)
    assert none.said()[0]["instances"] == []
    assert not label_array(none["labels"][0]).any()


def test_markers_wait_for_the_calibration(watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    watcher.see()
    until(watcher.said)
    assert not watcher["markers"]
    watcher.node._on_info(CameraInfo())  # of a camera that nobody has calibrated
    assert watcher.counts["malformed"] == 1
    info = messages.camera_info(MATRIX, (24, 40), messages.stamp_of(0), "lens")
    watcher.node._on_info(info)
    watcher.see()
    until(lambda: len(watcher.said()) == 2)
    _gone, outlines, *words = watcher["markers"][0].markers
    assert outlines.header.frame_id == "lens"
    assert len(words) == 3


def test_standard_detections_say_the_same(
    watch: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    vision_cases.install(monkeypatch)
    watcher = watch()
    stamp = watcher.see()
    until(lambda: watcher["detections"])
    (message,), (said,) = watcher["detections"], watcher.said()
    assert messages.nanoseconds(message.header.stamp) == stamp
    ids = {one.id: one.results[0].hypothesis.class_id for one in message.detections}
    assert ids == {str(row["id"]): row["class"] for row in said["instances"]}


# Boxes of another detector.

BOXES = [[4, 4, 20, 20], [-5, 2, 9, 30], [30, 10, 30, 20], [9, 9, 2, 2], [50, 0, 60, 9]]
"""Inside, beyond the border, without area, inverted, outside."""


def test_masks_of_given_boxes_have_their_classes_and_places(
    watch: Callable[..., Watcher], folder: Path
) -> None:
    watcher = watch(boxes=True)
    stamp = watcher.see()
    names, scores = ["mug", "duck", "a", "b", "c"], [0.25, 0.75, 1.0, 1.0, 1.0]
    watcher.hear(stamp, BOXES, classes=names, scores=scores)
    until(watcher.said)
    rows = watcher.said()[0]["instances"]
    assert [(row["id"], row["class"], row["score"]) for row in rows] == [
        (k + 1, name, score) for k, (name, score) in enumerate(zip(names, scores, strict=True))
    ]
    assert [row["box"] for row in rows] == BOXES
    masks = direct(folder, BOXES).masks
    expected = np.where(masks[1], 2, np.where(masks[0], 1, 0))
    labels = label_array(watcher["labels"][0])
    np.testing.assert_array_equal(labels, expected)
    assert {1, 2} <= set(labels.ravel().tolist())
    assert [row["pixels"] for row in rows][2:] == [0, 0, 0]


def test_boxes_find_their_picture_and_others_are_counted(watch: Callable[..., Watcher]) -> None:
    watcher = watch(boxes=True)
    now = watcher.node.get_clock().now().nanoseconds
    watcher.hear(now, [[0, 0, 9, 9]])  # before its picture
    watcher.see(stamp=now)
    until(watcher.said)
    assert watcher.see(stamp=now + 1) == now + 1
    time.sleep(0.05)
    assert len(watcher.said()) == 1  # a picture without boxes is not looked at
    for k in range(20):
        watcher.hear(now + 100 + k, [])
    assert watcher.report()["unmatched boxes"] == "4"  # 16 wait
    assert watcher.report()["boxes"] == "21"
    watcher.hear(now + 1, [])
    until(lambda: len(watcher.said()) == 2)
    assert watcher.said()[1]["instances"] == []
    watcher.node.finish()
    assert watcher.counts["unmatched boxes"] == 4


def test_bad_boxes_are_counted_and_survived(watch: Callable[..., Watcher]) -> None:
    watcher = watch(boxes=True)
    stamp = watcher.see()
    for data in ("", "[]", "{", json.dumps({"stamp": stamp, "boxes": [[math.nan] * 4]})):
        watcher.node._on_boxes(String(data=data))
    watcher.hear(stamp, [[1, 2, 3]])
    assert watcher.counts["malformed boxes"] == 5
    assert len(watcher.warnings) == 1  # once a second
    assert "\n" not in watcher.warnings[0]
    watcher.hear(stamp, [[4, 4, 20, 20]])
    until(watcher.said)
    assert watcher.counts["errors"] == 0


def test_ten_thousand_boxes_are_masked_and_more_than_memory_allows_refused(
    watch: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watch(boxes=True)
    corners = np.random.default_rng(0).uniform(0, 20, (10_000, 2))
    many = np.concatenate((corners, corners + 4), 1).round(2).tolist()
    first = watcher.see()
    watcher.hear(first, many)
    until(watcher.said, 60.0)
    assert len(watcher.said()[0]["instances"]) == 10_000
    monkeypatch.setattr(checkpoint, "MAX_MASK_BYTES", 9_999 * PIXELS[..., 0].size)
    watcher.hear(watcher.see(), many)
    until(lambda: watcher.counts["errors"] == 1)
    assert "give 9999 boxes at most" in watcher.warnings[-1]
    watcher.hear(watcher.see(), many[:3])
    until(lambda: len(watcher.said()) == 2)


def test_standard_detections_are_boxes_too(
    watch: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    vision = vision_cases.install(monkeypatch)
    monkeypatch.setattr(PerceptionNode, "_listen", lambda *words: None)
    watcher = watch(boxes=True)
    picture = watcher.picture()
    watcher.node._on_picture(picture)
    box = vision.BoundingBox2D(vision.Pose2D(vision.Point2D(12.0, 12.0)), 16.0, 16.0)
    result = vision.ObjectHypothesisWithPose(vision.ObjectHypothesis("mug", 0.5))
    found = [vision.Detection2D(picture.header, [result], box)]
    watcher.node._on_boxes(vision.Detection2DArray(picture.header, found))
    until(watcher.said)
    (row,) = watcher.said()[0]["instances"]
    assert (row["class"], row["score"], row["box"]) == ("mug", 0.5, [4, 4, 20, 20])
    box.size_x = math.nan
    watcher.node._on_boxes(vision.Detection2DArray(picture.header, found))
    assert watcher.counts["malformed boxes"] == 1


# A simulator that waits.


def test_in_lockstep_every_picture_is_answered_in_order(
    watch: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    watcher = watch(lockstep=True)
    stamps = [watcher.see() for _ in range(6)]
    assert gate.entered.wait(30.0)
    gate.opened.set()
    until(lambda: len(watcher.said()) == 6)
    assert [said["stamp"] for said in watcher.said()] == stamps
    assert watcher.report()["replaced"] == "0"


def test_in_lockstep_a_question_asked_again_is_answered_again(
    watch: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    watcher = watch(lockstep=True)
    stamp = watcher.see()
    watcher.see(stamp=stamp)  # while it is thought about: once is enough
    gate.opened.set()
    until(watcher.said)
    watcher.see(stamp=stamp)
    assert [said["stamp"] for said in watcher.said()] == [stamp, stamp]
    assert len(watcher["labels"]) == 2
    assert watcher.counts["answered"] == 1


def test_a_line_that_does_not_move_grows_no_further(
    watch: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ros_nodes.perception.LINE", 3)
    gate = Gate(monkeypatch)
    watcher = watch(lockstep=True)
    stamps = [watcher.see() for _ in range(6)]
    gate.opened.set()
    until(lambda: len(watcher.said()) == 4)
    assert [said["stamp"] for said in watcher.said()] == [stamps[0], *stamps[3:]]
    assert watcher.counts["replaced"] == 2


# Lifecycle and checkpoints.


def refusal(context: Context, name: Path | str, **changes: Any) -> str:
    watcher = Watcher(context, name, **changes)
    lines: list[str] = []
    try:
        logger = SimpleNamespace(error=lines.append)
        watcher.node.get_logger = lambda: logger  # type: ignore[method-assign,assignment]
        assert watcher.node.trigger_configure() == FAILED
        assert watcher.node._eye is None
        (line,) = lines
        assert "\n" not in line
        return line
    finally:
        watcher.close()


def test_what_cannot_be_trusted_is_refused_in_one_line(
    context: Context, folder: Path, tmp_path: Path
) -> None:
    save_segmenter(tmp_path / "new", segmenter_cases.saved(), "# For tests\n")
    save_small(tmp_path / "classes")
    policy = str(shipped_policies()["block-insertion-mse"])
    assert "has no held-out scores" in refusal(context, tmp_path / "new")
    assert "got one of 'mse'" in refusal(context, policy)
    assert "masks no boxes" in refusal(context, tmp_path / "classes", boxes=True)
    assert "runs in float32" in refusal(context, folder, precision="bfloat16")
    assert "runs in float32" in refusal(context, folder, calibration="set")
    assert "neither a folder nor a shipped" in refusal(context, "absent")
    assert "must name a classifier or segmenter" in refusal(context, "")


def test_it_looks_only_while_it_is_active_and_begins_anew(watch: Callable[..., Watcher]) -> None:
    watcher = watch(boxes=True)
    node = watcher.node
    assert len(list(node.subscriptions)) == 3
    worker = node._worker
    assert worker is not None
    assert node.trigger_deactivate() == OK
    assert not worker._thread.is_alive()
    assert not list(node.subscriptions)
    watcher.hear(watcher.see(), [[0, 0, 9, 9]])
    assert (watcher.counts["frames"], watcher.counts["boxes"]) == (0, 0)
    node._outputs.clear()
    assert node.trigger_cleanup() == OK
    assert (node._eye, node._voice) == (None, None)
    assert node.trigger_configure() == OK
    assert node.trigger_activate() == OK
    assert isinstance(node._voice, MaskVoice)
    watcher.hear(watcher.see(), [[0, 0, 9, 9]])
    until(watcher.said)


def test_diagnostics_say_what_runs(watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    watcher.see()
    until(watcher.said)
    facts = watcher.report()
    assert (facts["frames"], facts["answered"], facts["errors"]) == ("1", "1", "0")
    assert (facts["backend"], facts["precision"]) == ("torch", "float32")
    assert facts["runs"] == "maps, detections and masks: torch"
    assert "boxes" not in facts
    assert 0 < float(facts["ms p50"]) <= float(facts["ms p95"])


def test_a_network_that_fails_is_counted_and_survived(
    watch: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watch(lockstep=True)
    segment = SavedSegmenter.segment
    monkeypatch.setattr(SavedSegmenter, "segment", lambda *words, **more: 1 / 0)
    watcher.see()
    until(lambda: watcher.counts["errors"] == 1)
    monkeypatch.setattr(SavedSegmenter, "segment", segment)
    watcher.see()
    until(watcher.said)


# Over DDS.


def test_boxes_over_dds_come_back_as_masks(tmp_path: Path, folder: Path) -> None:
    """The simulated camera, this process as the detector, and the node."""
    nodes = (NodeSpec("sim_robot"), NodeSpec("perception"))
    graph = Graph("test", GRAPHS["sim_insertion"].config, nodes)
    overrides = {
        "sim_robot.camera_rate": 5.0,
        "perception.checkpoint": str(folder),
        "perception.boxes": True,
        "perception.max_age": 5.0,
    }
    boxes = [[100, 80, 300, 240], [9, 9, 2, 2]]
    pictures: dict[int, np.ndarray] = {}
    labels: dict[int, np.ndarray] = {}
    said: dict[int, dict[str, Any]] = {}
    marked: set[int] = set()

    with isolated(), running(graph, overrides, tmp_path) as processes:
        operator = Operator(check=processes.check)
        detector = operator.node.create_publisher(String, "perception/boxes", RELIABLE)

        def detect(message: Image) -> None:
            stamp = messages.nanoseconds(message.header.stamp)
            pictures[stamp] = messages.image_array(message).copy()
            found = {"stamp": stamp, "boxes": boxes, "classes": ["mug", "duck"]}
            detector.publish(String(data=json.dumps(found)))

        def keep(message: Image) -> None:
            labels[messages.nanoseconds(message.header.stamp)] = label_array(message).copy()

        def hear(message: String) -> None:
            words = json.loads(message.data)
            said[words["stamp"]] = words

        def mark(message: Any) -> None:
            marked.add(messages.nanoseconds(message.markers[0].header.stamp))

        from visualization_msgs.msg import MarkerArray

        topics = {
            "camera/color/image_raw": (Image, detect, NEWEST),
            "perception/labels": (Image, keep, RELIABLE),
            "perception/instances": (String, hear, RELIABLE),
            "perception/markers": (MarkerArray, mark, RELIABLE),
        }
        try:
            for topic, (kind, callback, quality) in topics.items():
                operator.node.create_subscription(kind, topic, callback, quality)
            operator.wait_node("perception")
            both = operator.spin_until(
                lambda: pictures.keys() & said.keys() & labels.keys() & marked, 90.0, "masks"
            )
        finally:
            operator.close()
        saved = load_segmenter(folder)
        for stamp in both:
            expected = saved.segment(pictures[stamp], boxes)
            np.testing.assert_array_equal(labels[stamp], expected.label_image())
            assert [row["class"] for row in said[stamp]["instances"]] == ["mug", "duck"]
        assert set(processes.stop().values()) == {0}
