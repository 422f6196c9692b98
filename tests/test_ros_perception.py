"""The node `perception`: what it says of pictures, and that no picture ends it."""

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
import torch

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
pytest.importorskip("rclpy")

import vision_cases
from classifier_cases import TASKS, save_small
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_cases import Sink, contexts, until
from sensor_msgs.msg import Image
from std_msgs.msg import String

from learning.image_set import write_image_set
from perception.checkpoint import MAX_SIDE, SavedClassifier, load_classifier
from ros_nodes import messages, picture_classifier
from ros_nodes.demo import isolated
from ros_nodes.graph import GRAPHS, Graph, NodeSpec
from ros_nodes.operator import Operator
from ros_nodes.perception import PerceptionNode
from ros_nodes.picture_classifier import (
    ClassifierEye,
    ClassVoice,
    choose,
    read_calibration,
    topic_names,
)
from ros_nodes.picture_input import ENCODINGS, read_picture
from ros_nodes.processes import running
from ros_nodes.running import NEWEST, RELIABLE

pytestmark = pytest.mark.ros
OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)


@pytest.fixture
def context() -> Iterator[Context]:
    yield from contexts(57)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("checkpoints") / "small"
    save_small(made)
    return made


def make(context: Context, checkpoint: Path | str, **changes: Any) -> PerceptionNode:
    # A busy machine is slow, and a picture shall not be old for that.
    settings = {"backend": "torch", "autostart": False, "max_age": 20.0, **changes}
    overrides = [Parameter(name, value=value) for name, value in settings.items()]
    overrides.append(Parameter("checkpoint", value=str(checkpoint)))
    return PerceptionNode(context=context, parameter_overrides=overrides)


def silence(node: PerceptionNode) -> Sink:
    """Let a node publish its classes nowhere but here."""
    sink = Sink()
    assert isinstance(node._voice, ClassVoice)
    node._voice._classes = sink
    return sink


class Watcher:
    """An active node whose output is kept."""

    def __init__(self, context: Context, checkpoint: Path, **changes: Any) -> None:
        self.node = make(context, checkpoint, **changes)
        assert self.node.trigger_configure() == OK
        assert self.node.trigger_activate() == OK
        self.classes = silence(self.node)
        self.diagnostics = self.node._diagnostics = Sink()  # type: ignore[assignment]

    @property
    def counts(self) -> dict[str, int]:
        return self.node._counts

    def picture(self, pixels: np.ndarray = PIXELS, encoding: str = "rgb8", age: float = 0) -> Image:
        now = self.node.get_clock().now().nanoseconds - round(age * 1e9)
        return messages.image_message(pixels, encoding, messages.stamp_of(now), "lens")

    def see(self, *words: Any, **changes: Any) -> int:
        """Show a picture; its stamp."""
        message = self.picture(*words, **changes)
        self.node._on_picture(message)
        return messages.nanoseconds(message.header.stamp)

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(message.data) for message in self.classes.messages]

    def report(self) -> tuple[bytes, dict[str, str]]:
        self.node._report()
        (status,) = self.diagnostics.messages[-1].status
        return status.level, {pair.key: pair.value for pair in status.values}

    def close(self) -> None:
        self.node.finish()
        self.node.destroy_node()


@pytest.fixture
def watcher(context: Context, folder: Path) -> Iterator[Watcher]:
    made = Watcher(context, folder)
    yield made
    made.close()


class Gate:
    """Lets a classifier think only when it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        call = ClassifierEye.__call__

        def wait(eye: ClassifierEye, pixels: Any) -> Any:
            self.entered.set()
            assert self.opened.wait(30.0)
            return call(eye, pixels)

        monkeypatch.setattr(ClassifierEye, "__call__", wait)


def direct(saved: SavedClassifier, pixels: np.ndarray) -> dict[str, dict[str, float]]:
    with torch.no_grad():
        return saved.read(saved.model(saved.tensor(pixels[None])))[0]


# What is said.


def test_a_picture_is_classified_as_it_is_without_a_node(watcher: Watcher, folder: Path) -> None:
    stamp = watcher.see()
    until(watcher.said)
    (said,) = watcher.said()
    assert (said["stamp"], said["frame"]) == (stamp, "lens")
    assert 0 < said["ms"] <= said["age_ms"]
    expected = direct(load_classifier(folder), PIXELS)
    assert list(said["tasks"]) == list(TASKS)
    for task, found in said["tasks"].items():
        assert found["all"] == pytest.approx(expected[task], abs=1e-5)
        assert found["class"] == max(expected[task], key=expected[task].__getitem__)
        assert found["probability"] == found["all"][found["class"]]
    # Another picture gives another answer: it is the picture that is looked at.
    watcher.see(255 - PIXELS)
    until(lambda: len(watcher.said()) == 2)
    assert watcher.said()[1]["tasks"]["lit"]["all"] != said["tasks"]["lit"]["all"]


def test_every_encoding_of_a_picture_gives_its_colours() -> None:
    assert set(ENCODINGS) == {"rgb8", "bgr8", "rgba8", "bgra8", "mono8"}
    stamp = messages.stamp_of(1)
    alpha = np.concatenate([PIXELS, PIXELS[..., :1]], axis=-1)
    for encoding in ENCODINGS:
        given = PIXELS[..., 0] if encoding == "mono8" else alpha if "a8" in encoding else PIXELS
        found = read_picture(messages.image_message(given, encoding, stamp, "lens"), 3)
        expected = PIXELS[..., [0, 0, 0]] if encoding == "mono8" else PIXELS
        np.testing.assert_array_equal(found, expected)


def test_a_grey_network_takes_grey_pictures_only() -> None:
    stamp = messages.stamp_of(1)
    grey = read_picture(messages.image_message(PIXELS[..., 0], "mono8", stamp, "lens"), 1)
    np.testing.assert_array_equal(grey, PIXELS[..., :1])
    with pytest.raises(ValueError, match="takes grey pictures, mono8; got rgb8"):
        read_picture(messages.image_message(PIXELS, "rgb8", stamp, "lens"), 1)


def test_the_most_probable_class_of_each_task_is_chosen() -> None:
    answer = {"a": {"x": 0.2, "y": 0.8}, "b": {"u": 0.5, "v": 0.3, "w": 0.2}}
    found = choose(answer)
    assert found["a"] == {"class": "y", "probability": 0.8, "all": {"x": 0.2, "y": 0.8}}
    assert (found["b"]["class"], found["b"]["probability"]) == ("u", 0.5)


def test_tasks_get_names_that_topics_can_have() -> None:
    found = topic_names(("fault type", "lit", "3D -- view", "__x__", "?"))
    expected = ["fault_type", "lit", "task_3D_view", "x", "task"]
    assert list(found.values()) == expected
    with pytest.raises(ValueError, match="must differ in letters and digits, got a b, a-b"):
        topic_names(("a b", "a-b"))


def test_the_standard_message_says_the_same_best_first(
    context: Context, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vision_cases.install(monkeypatch)
    sinks: dict[str, Sink] = {}
    node = make(context, folder)
    monkeypatch.setattr(
        node, "create_lifecycle_publisher", lambda kind, topic, _: sinks.setdefault(topic, Sink())
    )
    monkeypatch.setattr(node, "destroy_lifecycle_publisher", lambda publisher: None)
    try:
        assert node.trigger_configure() == OK
        assert node.trigger_activate() == OK
        now = node.get_clock().now().to_msg()
        node._on_picture(messages.image_message(PIXELS, "rgb8", now, "lens"))
        until(lambda: sinks["~/classification/lit"].messages)
        tasks = json.loads(sinks["~/classes"].messages[0].data)["tasks"]
        for task, word in (("fault type", "fault_type"), ("lit", "lit")):
            (message,) = sinks[f"~/classification/{word}"].messages
            assert (message.header.stamp, message.header.frame_id) == (now, "lens")
            scores = {result.class_id: result.score for result in message.results}
            assert scores == tasks[task]["all"]
            assert list(scores.values()) == sorted(scores.values(), reverse=True)
            assert message.results[0].class_id == tasks[task]["class"]
    finally:
        node.finish()
        node.destroy_node()


# When.


def test_only_the_newest_of_the_pictures_that_wait_is_classified(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    first = watcher.see()
    assert gate.entered.wait(30.0)
    stamps = [watcher.see() for _ in range(5)]
    assert watcher.report()[1]["replaced"] == "4"
    gate.opened.set()
    until(lambda: watcher.counts["answered"] == 2)
    assert [said["stamp"] for said in watcher.said()] == [first, stamps[-1]]
    watcher.node.finish()
    assert watcher.counts["replaced"] == 4  # also once the worker is gone
    assert watcher.counts["frames"] == 6


def test_pictures_of_the_past_and_of_the_future_are_dropped(context: Context, folder: Path) -> None:
    watcher = Watcher(context, folder, max_age=5.0, future=0.05)
    try:
        for age in (5.1, 1e6, -3.0):
            watcher.see(age=age)
        watcher.node._on_picture(
            messages.image_message(PIXELS, "rgb8", messages.stamp_of(0), "lens")
        )
        assert watcher.counts["stale"] == 4
        fresh = watcher.see()
        until(watcher.said)
        assert [said["stamp"] for said in watcher.said()] == [fresh]
    finally:
        watcher.close()


def test_a_picture_that_became_old_while_it_waited_is_dropped(
    context: Context, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watcher(context, folder, max_age=2.0)
    gate = Gate(monkeypatch)
    try:
        first = watcher.see()
        assert gate.entered.wait(30.0)
        watcher.see(age=1.7)
        assert watcher.counts["stale"] == 0
        time.sleep(0.4)
        gate.opened.set()
        until(lambda: watcher.counts["stale"] == 1)
        assert [said["stamp"] for said in watcher.said()] == [first]
    finally:
        watcher.close()


def test_a_rate_leaves_pictures_out(context: Context, folder: Path) -> None:
    watcher = Watcher(context, folder, rate=0.01)
    try:
        for _ in range(4):
            watcher.see()
        until(watcher.said)
        assert (watcher.counts["left out"], watcher.counts["answered"]) == (3, 1)
    finally:
        watcher.close()


# Bad pictures.


def changed(**fields: Any) -> Callable[[Image], Image]:
    def change(message: Image) -> Image:
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    return change


def truncated(message: Image) -> Image:
    message.data = message.data[:-1]
    return message


def timeless(message: Image) -> Image:
    message.header.stamp.sec = -1
    return message


def depth(message: Image) -> Image:
    pixels = np.full((4, 4), math.nan, np.float32)
    return messages.image_message(pixels, "32FC1", message.header.stamp, "lens")


def long(message: Image) -> Image:
    pixels = np.zeros((1, 20_000, 3), np.uint8)
    return messages.image_message(pixels, "rgb8", message.header.stamp, "lens")


BAD = {
    "unknown encoding": changed(encoding="bayer_rggb8"),
    "no encoding": changed(encoding=""),
    "long encoding": changed(encoding="x" * 1000),
    "truncated": truncated,
    "no data": changed(data=b""),
    "no rows": changed(height=0),
    "no columns": changed(width=0),
    "too many rows": changed(height=25),
    "short step": changed(step=7),
    "no endianness": changed(is_bigendian=7),
    "huge": changed(height=20_000, width=20_000, step=60_000),
    "long": long,
    "NaN": depth,
    "before 1970": timeless,
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_counted_and_survived(name: str, watcher: Watcher) -> None:
    for _ in range(3):
        watcher.node._on_picture(BAD[name](watcher.picture()))
    assert watcher.counts["malformed"] == 3
    stamp = watcher.see()
    until(watcher.said)
    assert [said["stamp"] for said in watcher.said()] == [stamp]
    assert watcher.counts["errors"] == 0


def test_an_error_names_what_is_wrong_with_a_picture() -> None:
    message = messages.image_message(PIXELS, "rgb8", messages.stamp_of(1), "lens")
    with pytest.raises(ValueError, match=r"one of rgb8, .*, mono8, got '16UC1'"):
        read_picture(changed(encoding="16UC1")(message), 3)
    with pytest.raises(ValueError, match=f"at most {MAX_SIDE} pixels, got width 20000"):
        read_picture(long(message), 3)


def test_a_network_that_fails_is_counted_and_warned_of_once_a_second(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(
        watcher.node, "get_logger", lambda: SimpleNamespace(warning=warnings.append)
    )
    eye = watcher.node._eye
    assert isinstance(eye, ClassifierEye)
    run = eye._run
    monkeypatch.setattr(eye, "_run", lambda images: np.full((1, 5), np.nan, np.float32))
    for n in (1, 2, 3):
        watcher.see()
        until(lambda n=n: watcher.counts["errors"] == n)
    assert len(warnings) < 3
    assert "logits must be finite" in warnings[0]
    assert not watcher.said()
    monkeypatch.setattr(eye, "_run", run)
    watcher.see()
    until(watcher.said)


# Lifecycle.


def test_what_cannot_be_trusted_is_refused_in_one_line(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_small(tmp_path / "untrained", scored=False)
    save_small(tmp_path / "deep", channels=4)
    for name, why in (
        ("", "must name a classifier or segmenter or multi-task network; shipped: "),
        (tmp_path / "absent", "absent"),
        (tmp_path / "untrained", "untrained has no held-out scores, so it is untrained"),
        (tmp_path / "deep", "takes 4 channels; a camera gives 1 or 3"),
    ):
        node = make(context, name)
        lines: list[str] = []
        try:
            logger = SimpleNamespace(error=lines.append)
            monkeypatch.setattr(node, "get_logger", lambda logger=logger: logger)
            assert node.trigger_configure() == FAILED
            (line,) = lines
            assert why in line
            assert "\n" not in line
            assert node._eye is None
        finally:
            node.destroy_node()


def test_it_looks_only_while_it_is_active_and_begins_anew(watcher: Watcher) -> None:
    node = watcher.node
    worker = node._worker
    assert worker is not None
    assert "/camera/color/image_raw" in dict(node.get_topic_names_and_types())
    watcher.see()
    until(watcher.said)
    assert node.trigger_deactivate() == OK
    assert not worker._thread.is_alive()
    assert not list(node.subscriptions)
    watcher.see()
    assert watcher.counts["frames"] == 1
    assert node.trigger_activate() == OK
    watcher.see()
    until(lambda: len(watcher.said()) == 2)
    assert node.trigger_deactivate() == OK
    assert node.trigger_cleanup() == OK
    assert node._eye is None
    assert not node._outputs
    assert node.trigger_configure() == OK
    assert node.trigger_activate() == OK
    watcher.classes = silence(node)
    watcher.see()
    until(watcher.said)
    assert node.trigger_shutdown() == OK
    assert node._worker is None
    watcher.see()
    assert watcher.counts["frames"] == 3


def test_a_worker_that_hangs_holds_up_no_transition_and_says_nothing_later(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    worker = watcher.node._worker
    assert worker is not None
    watcher.see()
    assert gate.entered.wait(30.0)
    assert watcher.node.trigger_deactivate() == OK
    assert watcher.node.trigger_cleanup() == OK
    gate.opened.set()
    worker._thread.join(30.0)
    assert not worker._thread.is_alive()
    assert not watcher.said()
    assert watcher.counts["errors"] == 0


def test_diagnostics_say_what_runs_and_warn_when_nothing_comes(watcher: Watcher) -> None:
    level, facts = watcher.report()
    assert level == DiagnosticStatus.WARN
    assert "ms p50" not in facts
    watcher.see()
    until(watcher.said)
    watcher.node._on_picture(truncated(watcher.picture()))
    level, facts = watcher.report()
    assert level == DiagnosticStatus.OK
    assert (facts["frames"], facts["answered"], facts["malformed"]) == ("2", "1", "1")
    assert (facts["replaced"], facts["stale"], facts["errors"]) == ("0", "0", "0")
    assert 0 < float(facts["ms p50"]) <= float(facts["ms p95"])
    assert (facts["backend"], facts["precision"]) == ("torch", "float32")
    assert facts["parity"] == "not compared"
    assert watcher.report()[0] == DiagnosticStatus.WARN  # nothing since


# Settings.


def test_precisions_are_compared_on_pictures_spread_over_the_set(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_classifier, "MAX_CALIBRATION", 3)
    images = RNG.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    labels = np.zeros((9, 1), np.int64)
    place = tmp_path / "set"
    write_image_set(
        place, [(images, labels)], 9, (8, 8, 3), {"lit": ("no", "yes")}, "noise, synthetic", {}
    )
    saved = load_classifier(folder)
    found = read_calibration(str(place), saved)
    np.testing.assert_array_equal(found, saved.tensor(images[[0, 4, 8]]).numpy())
    with pytest.raises(ValueError, match="absent"):
        read_calibration(str(tmp_path / "absent"), saved)


def test_a_backend_that_is_not_installed_leaves_the_node_unconfigured(
    context: Context, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perception.runtime.installed", lambda backend: False)
    node = make(context, folder, backend="openvino")
    lines: list[str] = []
    try:
        monkeypatch.setattr(node, "get_logger", lambda: SimpleNamespace(error=lines.append))
        assert node.trigger_configure() == FAILED
        assert "backend openvino needs" in lines[0]
    finally:
        node.destroy_node()


# Over DDS.


def test_pictures_of_the_simulated_camera_are_classified_over_dds(
    tmp_path: Path, folder: Path
) -> None:
    # The shipped graph, and the simulated robot's camera where it expects one.
    shipped = GRAPHS["camera_perception"]
    robot = NodeSpec("sim_robot", {"camera/color/image_raw": "image_raw"})
    graph = Graph("test", shipped.config, (robot, *shipped.nodes))
    overrides = {
        "sim_robot.camera_rate": 5.0,
        "perception.checkpoint": str(folder),
        "perception.backend": "torch",
        "perception.max_age": 5.0,
    }
    pictures: dict[int, np.ndarray] = {}
    said: dict[int, dict[str, Any]] = {}

    def keep(message: Image) -> None:
        stamp = messages.nanoseconds(message.header.stamp)
        pictures[stamp] = messages.image_array(message).copy()

    def hear(message: String) -> None:
        words = json.loads(message.data)
        said[words["stamp"]] = words

    with isolated(), running(graph, overrides, tmp_path) as processes:
        operator = Operator(check=processes.check)
        try:
            operator.node.create_subscription(Image, "image_raw", keep, NEWEST)
            operator.node.create_subscription(String, "perception/classes", hear, RELIABLE)
            both = operator.spin_until(lambda: pictures.keys() & said.keys(), 90.0, "classes")
        finally:
            operator.close()
        saved = load_classifier(folder)
        for stamp in both:
            assert pictures[stamp].shape == (480, 640, 3)
            expected = direct(saved, pictures[stamp])
            assert said[stamp]["frame"]
            for task, found in said[stamp]["tasks"].items():
                assert found["all"] == pytest.approx(expected[task], abs=1e-4)
        assert set(processes.stop().values()) == {0}
