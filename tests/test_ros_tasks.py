"""The node `perception` with multi-task networks: maps and numbers of a camera's pictures."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
pytest.importorskip("rclpy")

import rclpy
import task_cases
from classifier_cases import save_small
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float64MultiArray, Header, String
from test_ros_segmenter import PIXELS, Sink, Watcher, until

from decisive.task_tiles import class_overlay
from perception.multi_task_checkpoint import SavedTasks, load_tasks, save_tasks
from perception.multi_task_networks import TaskNetworks
from perception.multi_task_set import Target
from ros_nodes import messages, picture_tasks
from ros_nodes.demo import isolated
from ros_nodes.graph import GRAPHS, Graph, NodeSpec
from ros_nodes.operator import Operator
from ros_nodes.picture_input import Picture, Times
from ros_nodes.picture_tasks import TaskEye, TaskVoice, map_pixels, scaled_info, summary
from ros_nodes.processes import running
from ros_nodes.running import NEWEST, RELIABLE

pytestmark = pytest.mark.ros
FAILED = TransitionCallbackReturn.FAILURE
MATRIX = [[40.0, 0, 19.5], [0, 44.0, 11.5], [0, 0, 1]]
MAPS = {"segmentation": "mono8", "depth": "32FC1", "normals": "32FC3", "edges": "mono8"}
VALUE = {
    "checkpoint": "", "backend": "torch", "precision": "auto", "calibration": "", "threads": 1,
    "cache": "", "boxes": False,
}  # fmt: skip


@pytest.fixture
def context() -> Iterator[Context]:
    made = Context()
    rclpy.init(context=made, domain_id=54)
    yield made
    try_shutdown(context=made)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("checkpoints") / "tasks"
    save_tasks(made, task_cases.saved(scores={"images": 3}), "# For tests\n")
    return made


@pytest.fixture
def watch(context: Context, folder: Path) -> Iterator[Callable[..., Watcher]]:
    made: list[Watcher] = []

    def start(checkpoint: Path | str = folder, **changes: Any) -> Watcher:
        made.append(Watcher(context, checkpoint, **changes))
        return made[-1].start()

    yield start
    for watcher in made:
        watcher.close()


def info(size: tuple[int, int] = PIXELS.shape[:2]) -> CameraInfo:
    return messages.camera_info(MATRIX, size, messages.stamp_of(0), "lens")


# A voice, by hand.

HAND = {
    "segmentation": np.array([[0, 2], [2, 1]], np.uint8),
    "depth": np.array([[0.5, 1.0], [1.5, 1.0]], np.float32),
    "normals": np.array([[[0, 0, -1]] * 2, [[1, 0, 0], [0, 1, 0]]], np.float32),
    "edges": np.array([[0.0, 1.0], [0.5, 0.2]], np.float32),
    "count": np.array([2.5], np.float32),
}


def spoken(calibrated: CameraInfo | None = None) -> dict[str, Any]:
    """What a voice says of the answers above, by topic."""
    sinks: dict[str, Sink] = {}
    saved = task_cases.saved()
    voice = TaskVoice(saved, lambda kind, topic: sinks.setdefault(topic, Sink()))
    if calibrated is not None:
        voice.hear(calibrated)
    header = Header(stamp=messages.stamp_of(7), frame_id="lens")
    voice.say(Picture(PIXELS, header, 7), HAND, Times(1.5, 20.0))
    return {topic: sink.messages[0] if sink.messages else None for topic, sink in sinks.items()}


def test_answers_made_by_hand_are_said_as_they_are() -> None:
    told = spoken()
    for task, encoding in MAPS.items():
        message = told[f"~/scene/{task}"]
        assert message.encoding == encoding
        assert (messages.nanoseconds(message.header.stamp), message.header.frame_id) == (7, "lens")
    for task in ("segmentation", "depth", "normals"):
        read = messages.image_array(told[f"~/scene/{task}"])
        np.testing.assert_array_equal(read, HAND[task])
    edges = messages.image_array(told["~/scene/edges"])
    assert edges.tolist() == [[0, 255], [128, 51]]
    assert told["~/numbers/count"].data.tolist() == [2.5]
    overlay = messages.image_array(told["~/overlay/segmentation"])
    np.testing.assert_array_equal(overlay, class_overlay(PIXELS, HAND["segmentation"]))
    assert told["~/scene/camera_info"] is None
    assert json.loads(told["~/scene"].data) == {
        "stamp": 7,
        "frame": "lens",
        "tasks": {
            "segmentation": {"shares": {"dark": 0.25, "left": 0.25, "right": 0.5}},
            "depth": {"least": 0.5, "mean": 1.0, "greatest": 1.5, "unit": "metres"},
            "normals": {"mean": [0.25, 0.25, -0.5]},
            "edges": {"share": 0.25},
            "count": {"things": 2.5},
        },
        "ms": 1.5,
        "age_ms": 20.0,
    }


def test_the_calibration_is_that_of_the_maps() -> None:
    # 24 x 40 pixels become 2 x 2: a twelfth down and a twentieth across.
    made = spoken(info())["~/scene/camera_info"]
    assert (made.height, made.width, made.header.frame_id) == (2, 2, "lens")
    assert messages.nanoseconds(made.header.stamp) == 7
    matrix = messages.intrinsics(made)
    np.testing.assert_allclose(matrix.diagonal(), [2.0, 44 / 12, 1])
    np.testing.assert_allclose(matrix[:2, 2], [0.5, 0.5])  # the middle stays in the middle
    assert spoken(info((48, 80)))["~/scene/camera_info"] is None  # of pictures of another size


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.1, 9)),
)
def test_what_a_pixel_sees_it_sees_after_resizing(
    size: tuple[int, int], small: tuple[int, int], point: tuple[float, float, float]
) -> None:
    camera = info(size)
    camera.p = np.array([40.0, 0, 19.5, -4.0, 0, 44.0, 11.5, 0, 0, 0, 1, 0])  # the right of a pair
    camera.d[0] = 0.3
    made = scaled_info(camera, small, Header(frame_id="small"))
    assert camera.p[0] == 40.0
    assert list(made.d) == list(camera.d)
    scale = np.array(small[::-1]) / np.array(size[::-1])
    for matrix, other in ((camera.k, made.k), (camera.p, made.p)):
        columns = len(matrix) // 3
        seen = np.array([*point, 1.0])[:columns]
        x, y, z = np.reshape(matrix, (3, columns)) @ seen
        # Where in the picture, from 0 at its left border to its width at the right one.
        expected = (np.array([x, y]) / z + 0.5) * scale
        x, y, z = np.reshape(other, (3, columns)) @ seen
        np.testing.assert_allclose(np.array([x, y]) / z + 0.5, expected, rtol=1e-9, atol=1e-9)


def test_cameras_that_nobody_has_calibrated_are_refused() -> None:
    voice = TaskVoice(task_cases.saved(), lambda kind, topic: Sink())
    with pytest.raises(ValueError, match="focal lengths"):
        voice.hear(CameraInfo())


def test_tasks_whose_topics_would_be_taken_are_refused() -> None:
    def named(*names: str) -> SavedTasks:
        targets = {name: Target("mask") for name in names}
        net = task_cases.tiny(targets=targets)
        model = TaskNetworks([net], dict.fromkeys(names, 0))
        return SavedTasks(model, (16, 16), (0.0,) * 3, (1.0,) * 3, {})

    with pytest.raises(ValueError, match="a task is called camera_info"):
        TaskVoice(named("camera_info"), lambda kind, topic: Sink())
    with pytest.raises(ValueError, match="tasks must differ"):
        TaskVoice(named("a-b", "a_b"), lambda kind, topic: Sink())
    opened: list[str] = []
    TaskVoice(named("2 edges"), lambda kind, topic: opened.append(topic))
    assert "~/scene/task_2_edges" in opened


def test_a_summary_of_a_task_is_json_and_a_map_an_image() -> None:
    for task, target in task_cases.TARGETS.items():
        assert json.loads(json.dumps(summary(target, HAND[task])))
        if target.dense:
            pixels, encoding = map_pixels(target, HAND[task])
            messages.image_message(pixels, encoding, messages.stamp_of(0), "")


# An eye.


def test_the_eye_sees_what_the_networks_say(folder: Path) -> None:
    saved = load_tasks(folder)
    told = TaskEye(saved, VALUE).look(Picture(PIXELS, Header(), 0))
    expected = saved.ask(PIXELS[None])
    assert list(told) == list(expected)
    for task, answer in told.items():
        np.testing.assert_allclose(answer, expected[task][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_fast_backends_say_the_same(folder: Path, backend: str) -> None:
    pytest.importorskip(backend)
    saved = load_tasks(folder)
    eye = TaskEye(saved, {**VALUE, "backend": backend})
    assert eye.report.backend == backend
    told, expected = eye.look(Picture(PIXELS, Header(), 0)), saved.ask(PIXELS[None])
    for task in ("depth", "normals", "edges", "count"):
        np.testing.assert_allclose(told[task], expected[task][0], atol=1e-4)
    assert (told["segmentation"] == expected["segmentation"][0]).mean() > 0.99


def test_what_the_fast_one_cannot_run_torch_runs_and_it_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_model = picture_tasks.compile_model

    def refuse(model: Any, example: Any, config: Any) -> Any:
        if config.backend != "torch":
            raise RuntimeError("no such\nlayer")
        return compile_model(model, example, config)

    monkeypatch.setattr(picture_tasks, "compile_model", refuse)
    monkeypatch.setattr(picture_tasks, "choose_backend", lambda wanted, device: "openvino")
    saved = load_tasks(folder)
    eye = TaskEye(saved, {**VALUE, "backend": "auto"})
    assert eye.facts["backend"] == "torch"
    refused = "openvino cannot run them: no such layer"
    assert eye.facts["runs"] == f"all networks as one: torch; {refused}"
    assert eye.report.why == refused
    assert eye.facts["networks"] == "segmentation+edges, depth+normals+count"
    eye.look(Picture(PIXELS, Header(), 0))
    with pytest.raises(RuntimeError, match="no such"):  # asked for by name: not replaced in silence
        TaskEye(saved, {**VALUE, "backend": "openvino"})


# The node.


def test_a_picture_has_the_answers_that_it_has_without_a_node(
    watch: Callable[..., Watcher], folder: Path
) -> None:
    watcher = watch()
    watcher.node._on_info(info())
    stamp = watcher.see()
    until(lambda: watcher["scene"])
    expected = {task: one[0] for task, one in load_tasks(folder).ask(PIXELS[None]).items()}
    for task, encoding in MAPS.items():
        (message,) = watcher[f"scene/{task}"]
        assert messages.nanoseconds(message.header.stamp) == stamp
        assert message.encoding == encoding
        pixels, _ = map_pixels(task_cases.TARGETS[task], expected[task])
        read = messages.image_array(message).astype(np.float64)
        np.testing.assert_allclose(read, pixels, atol=1.0 if task == "edges" else 1e-5)
    (numbers,) = watcher["numbers/count"]
    np.testing.assert_allclose(numbers.data, expected["count"], rtol=1e-5)
    (calibration,) = watcher["scene/camera_info"]
    assert (calibration.height, calibration.width) == (16, 16)
    said = json.loads(watcher["scene"][0].data)
    assert (said["stamp"], said["frame"]) == (stamp, "lens")
    assert 0 < said["ms"] <= said["age_ms"]


def test_grey_pictures_are_taken_and_depths_are_not(watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    stamp = messages.stamp_of(watcher.node.get_clock().now().nanoseconds)
    depth = np.full((24, 40), np.nan, np.float32)
    for encoding, pixels in (("32FC1", depth), ("32FC3", depth[..., None].repeat(3, -1))):
        watcher.node._on_picture(messages.image_message(pixels, encoding, stamp, "lens"))
    assert watcher.counts["malformed"] == 2
    watcher.node._on_picture(messages.image_message(PIXELS[..., 0], "mono8", stamp, "lens"))
    until(lambda: watcher["scene"])
    watcher.node._on_info(CameraInfo())
    assert watcher.counts["malformed"] == 3
    assert len(watcher["overlay/segmentation"]) == 1


def test_diagnostics_say_what_runs_and_how_long_it_takes(watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    watcher.see()
    until(lambda: watcher["scene"])
    facts = watcher.report()
    assert (facts["frames"], facts["answered"], facts["errors"]) == ("1", "1", "0")
    assert (facts["backend"], facts["precision"]) == ("torch", "float32")
    assert facts["networks"] == "segmentation+edges, depth+normals+count"
    assert facts["runs"] == "all networks as one: torch"
    assert 0 < float(facts["ms p50"]) <= float(facts["ms p95"])


def test_a_network_that_fails_is_counted_and_survived(
    watch: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watch(lockstep=True)
    unflatten = picture_tasks.unflatten
    monkeypatch.setattr(
        picture_tasks, "unflatten", lambda rows, *words: unflatten(rows * math.nan, *words)
    )
    watcher.see()
    until(lambda: watcher.counts["errors"] == 1)
    assert "must be finite" in watcher.warnings[-1]
    monkeypatch.setattr(picture_tasks, "unflatten", unflatten)
    watcher.see()
    until(lambda: watcher["scene"])


def refusal(context: Context, name: Path | str, **changes: Any) -> str:
    watcher = Watcher(context, name, **changes)
    lines: list[str] = []
    try:
        logger = SimpleNamespace(error=lines.append)
        watcher.node.get_logger = lambda: logger  # type: ignore[method-assign,assignment]
        assert watcher.node.trigger_configure() == FAILED
        (line,) = lines
        assert "\n" not in line
        return line
    finally:
        watcher.close()


def test_what_cannot_be_trusted_is_refused_in_one_line(
    context: Context, folder: Path, tmp_path: Path
) -> None:
    save_tasks(tmp_path / "new", task_cases.saved(), "# For tests\n")
    save_small(tmp_path / "classes")
    assert "has no held-out scores" in refusal(context, tmp_path / "new")
    assert "masks no boxes" in refusal(context, folder, boxes=True)
    assert "runs in float32" in refusal(context, folder, precision="bfloat16")
    assert "runs in float32" in refusal(context, folder, calibration="set")
    assert "or multi-task network" in refusal(context, "")
    (folder / "../broken").mkdir()
    assert "no checkpoint at" in refusal(context, folder / "../broken")


# Over DDS.


def test_pictures_of_the_simulated_camera_are_answered_over_dds(
    tmp_path: Path, folder: Path
) -> None:
    shipped = GRAPHS["camera_perception"]
    remapped = {
        "camera/color/image_raw": "image_raw",
        "camera/color/camera_info": "camera_info",
    }
    graph = Graph("test", shipped.config, (NodeSpec("sim_robot", remapped), *shipped.nodes))
    overrides = {
        "sim_robot.camera_rate": 5.0,
        "perception.checkpoint": str(folder),
        "perception.max_age": 5.0,
    }
    kept: dict[str, dict[int, Any]] = {}

    def keep(topic: str) -> Callable[[Any], None]:
        into = kept.setdefault(topic, {})

        def hear(message: Any) -> None:
            into[messages.nanoseconds(message.header.stamp)] = message

        return hear

    def hear(message: String) -> None:
        words = json.loads(message.data)
        kept.setdefault("scene", {})[words["stamp"]] = words

    def count(message: Float64MultiArray) -> None:
        numbers.append(message.data[0])

    numbers: list[float] = []
    images = ("image_raw", *(f"perception/scene/{task}" for task in MAPS))
    with isolated(), running(graph, overrides, tmp_path) as processes:
        operator = Operator(check=processes.check)
        node = operator.node
        try:
            for topic in images:
                quality = NEWEST if topic == "image_raw" else RELIABLE
                node.create_subscription(Image, topic, keep(topic), quality)
            place = "perception/scene/camera_info"
            node.create_subscription(CameraInfo, place, keep(place), RELIABLE)
            node.create_subscription(String, "perception/scene", hear, RELIABLE)
            node.create_subscription(Float64MultiArray, "perception/numbers/count", count, RELIABLE)

            def complete() -> set[int]:
                found = [set(kept.get(topic, {})) for topic in (*images, place, "scene")]
                return set.intersection(*found) if numbers else set()

            stamps = operator.spin_until(complete, 90.0, "answers")
        finally:
            operator.close()
        saved = load_tasks(folder)
        for stamp in stamps:
            picture = messages.image_array(kept["image_raw"][stamp])
            expected = {task: one[0] for task, one in saved.ask(picture[None]).items()}
            for task, encoding in MAPS.items():
                message = kept[f"perception/scene/{task}"][stamp]
                assert (message.encoding, message.height, message.width) == (encoding, 16, 16)
                pixels, _ = map_pixels(task_cases.TARGETS[task], expected[task])
                if task != "segmentation":
                    read = messages.image_array(message).astype(np.float64)
                    np.testing.assert_allclose(read, pixels, atol=1.0 if task == "edges" else 1e-3)
            said = kept["scene"][stamp]["tasks"]
            assert said["count"]["things"] == pytest.approx(float(expected["count"][0]), abs=1e-3)
            assert any(abs(one - expected["count"][0]) < 1e-3 for one in numbers)
            made = kept[place][stamp]
            camera = messages.intrinsics(made)
            assert (made.height, made.width) == (16, 16)
            # The simulated camera is 640 x 480; its middle is the middle of the maps.
            np.testing.assert_allclose(camera[:2, 2], 7.5, atol=0.1)
        assert set(processes.stop().values()) == {0}
