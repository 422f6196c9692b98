"""The node `perception` with a classifier for triage: how abnormal a picture is, and where."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
pytest.importorskip("rclpy")

import rclpy
from classifier_cases import save_small, save_triage
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import Image
from std_msgs.msg import Float32, String
from test_ros_segmenter import PIXELS, Watcher, until

from decisive.triage import Model
from decisive.triage_images import fit_picture
from perception.abnormality import CLASSES, TASK, read
from perception.checkpoint import load_classifier
from ros_nodes import messages
from ros_nodes.demo import isolated
from ros_nodes.graph import GRAPHS, Graph, NodeSpec
from ros_nodes.operator import Operator
from ros_nodes.processes import running
from ros_nodes.running import NEWEST, RELIABLE

pytestmark = pytest.mark.ros
FAILED = TransitionCallbackReturn.FAILURE


@pytest.fixture
def context() -> Iterator[Context]:
    made = Context()
    rclpy.init(context=made, domain_id=59)
    yield made
    try_shutdown(context=made)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("checkpoints") / "triage"
    save_triage(made)
    return made


@pytest.fixture
def watch(context: Context, folder: Path) -> Iterator[Callable[..., Watcher]]:
    made: list[Watcher] = []

    def start(checkpoint: Path = folder, **changes: Any) -> Watcher:
        made.append(Watcher(context, checkpoint, **changes))
        return made[-1].start()

    yield start
    for watcher in made:
        watcher.close()


def direct(folder: Path, pixels: np.ndarray) -> tuple[dict[str, float], np.ndarray, float]:
    """Scores and cells as `decisive triage` has them, and the bias of the abnormal logit."""
    model = Model.load(str(folder))
    shown = fit_picture(pixels, model.saved.size, model.fit)
    found = read(model.saved, model.saved.tensor(shown[None]))
    assert found.maps is not None
    scores = {task: float(torch.sigmoid(logit)[0]) for task, logit in found.logits.items()}
    return scores, found.maps[0].numpy(), found.bias


def test_score_findings_and_map_are_those_of_triage(
    watch: Callable[..., Watcher], folder: Path
) -> None:
    watcher = watch()
    stamp = watcher.see()
    until(lambda: watcher["triage"])
    scores, cells, bias = direct(folder, PIXELS)
    said = json.loads(watcher["triage"][0].data)
    assert said["stamp"] == stamp
    assert said["frame"] == "lens"
    assert said["score"] == pytest.approx(scores[TASK], abs=1e-5)
    assert said["findings"] == {"dent": pytest.approx(scores["dent"], abs=1e-5)}
    assert said["reaches"] == ["sensitive"]
    assert {"ms", "age_ms"} <= said.keys()
    assert watcher["abnormality"][0].data == pytest.approx(scores[TASK], abs=1e-5)
    (told,) = watcher["abnormality_map"]
    assert messages.nanoseconds(told.header.stamp) == stamp
    shown = messages.image_array(told)
    np.testing.assert_allclose(shown, cells, atol=1e-4)
    # Worked by hand: the mean of the cells and the bias are the logit.
    assert 1 / (1 + np.exp(-(shown.mean() + bias))) == pytest.approx(said["score"], abs=1e-5)
    # The overlay is the square in the middle, which is all that the network was shown.
    (overlay,) = watcher["abnormality_overlay"]
    assert (overlay.height, overlay.width, overlay.encoding) == (24, 24, "rgb8")
    # The classes are said as of any other classifier.
    tasks = json.loads(watcher["classes"][0].data)["tasks"]
    assert tasks[TASK]["all"]["abnormal"] == pytest.approx(scores[TASK], abs=1e-5)
    assert set(tasks["kind"]["all"]) == {"bolt", "nut", "pin"}


def test_a_fast_backend_says_the_same(watch: Callable[..., Watcher], folder: Path) -> None:
    pytest.importorskip("openvino")
    watcher = watch(backend="openvino")
    watcher.see()
    until(lambda: watcher["triage"])
    scores, cells, _ = direct(folder, PIXELS)
    assert json.loads(watcher["triage"][0].data)["score"] == pytest.approx(scores[TASK], abs=1e-4)
    shown = messages.image_array(watcher["abnormality_map"][0])
    np.testing.assert_allclose(shown, cells, atol=1e-2 * np.abs(cells).max())


def test_a_network_without_exact_maps_has_a_score_alone(
    watch: Callable[..., Watcher], tmp_path: Path
) -> None:
    save_small(tmp_path / "vit", tasks={TASK: CLASSES})
    watcher = watch(tmp_path / "vit")
    watcher.see()
    until(lambda: watcher["triage"])
    saved = load_classifier(tmp_path / "vit")
    expected = read(saved, saved.tensor(PIXELS[None])).logits[TASK]
    said = json.loads(watcher["triage"][0].data)
    assert said["score"] == pytest.approx(float(torch.sigmoid(expected)[0]), abs=1e-5)
    assert said["reaches"] == []
    assert not {"~/abnormality_map", "~/abnormality_overlay"} & watcher.sinks.keys()


def test_half_precision_is_refused_where_there_are_maps(context: Context, folder: Path) -> None:
    watcher = Watcher(context, folder, precision="bfloat16")
    try:
        assert watcher.node.trigger_configure() == FAILED
    finally:
        watcher.close()


def test_pictures_of_the_simulated_camera_are_scored_over_dds(tmp_path: Path, folder: Path) -> None:
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
    said: dict[int, float] = {}
    maps: dict[int, np.ndarray] = {}
    numbers: list[float] = []

    def keep(into: dict[int, np.ndarray]) -> Callable[[Image], None]:
        def hear(message: Image) -> None:
            array = messages.image_array(message).copy()
            into[messages.nanoseconds(message.header.stamp)] = array

        return hear

    def hear(message: String) -> None:
        words = json.loads(message.data)
        said[words["stamp"]] = words["score"]

    def count(message: Float32) -> None:
        numbers.append(message.data)

    with isolated(), running(graph, overrides, tmp_path) as processes:
        operator = Operator(check=processes.check)
        try:
            node = operator.node
            node.create_subscription(Image, "image_raw", keep(pictures), NEWEST)
            node.create_subscription(Image, "perception/abnormality_map", keep(maps), RELIABLE)
            node.create_subscription(String, "perception/triage", hear, RELIABLE)
            node.create_subscription(Float32, "perception/abnormality", count, RELIABLE)
            both = operator.spin_until(
                lambda: pictures.keys() & said.keys() & maps.keys() if numbers else set[int](),
                90.0,
                "scores",
            )
        finally:
            operator.close()
        for stamp in both:
            scores, cells, _ = direct(folder, pictures[stamp])
            assert said[stamp] == pytest.approx(scores[TASK], abs=1e-4)
            np.testing.assert_allclose(maps[stamp], cells, atol=1e-3)
        assert set(processes.stop().values()) == {0}
