"""Instances and boxes as messages: there and back, and what is refused. No node, no graph."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
pytest.importorskip("rclpy")

import vision_cases
import visualization_msgs.msg as shown
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from perception.deep_mac.segments import Segments
from ros_nodes import messages
from ros_nodes.box_messages import Boxes, BoxMatcher, boxes_from_detections, boxes_from_json
from ros_nodes.instance_messages import (
    Instances,
    classes_of,
    detections_message,
    instances_of,
    instances_text,
    label_array,
    label_message,
    markers_message,
)
from ros_nodes.json_messages import MAX_TEXT

pytestmark = pytest.mark.ros
STAMP = 3_000_000_007
HEADER = Header(stamp=messages.stamp_of(STAMP), frame_id="lens")
VISION = vision_cases.module()


def segments() -> Segments:
    """Two that overlap in a pixel, and one of which nothing is seen."""
    masks = np.zeros((3, 3, 4), bool)
    masks[0, 0, :2] = masks[1, :2, 1] = True
    return Segments(
        boxes=np.array([[0, 0, 2, 1], [1, 0, 2, 2], [3, 2, 3, 3]], np.float32),
        scores=np.array([0.5, 0.75, 0.25], np.float32),
        classes=np.array([1, 0, 1]),
        names=("slot", "block", "slot"),
        masks=masks,
    )


def found() -> Instances:
    return instances_of(segments())


# Instances.


def test_pixels_are_those_of_the_label_image() -> None:
    assert found().labels.tolist() == [[1, 2, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    assert found().pixels.tolist() == [1, 2, 0]
    assert found().classes == ("slot", "block", "slot")


def test_the_scores_of_another_detector_decide_what_is_on_top() -> None:
    other = instances_of(segments(), ["a", "b", "c"], np.array([0.9, 0.1, 1.0], np.float32))
    assert other.labels.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    assert (other.classes, other.pixels.tolist()) == (("a", "b", "c"), [2, 1, 0])


def test_a_label_image_is_sixteen_bits_and_comes_back() -> None:
    message = label_message(found(), HEADER)
    assert (message.encoding, message.header) == ("16UC1", HEADER)
    np.testing.assert_array_equal(label_array(message), found().labels)
    for encoding, dtype in (("mono16", np.uint16), ("mono8", np.uint8)):
        ids = found().labels.astype(dtype)
        other = messages.image_message(ids, encoding, HEADER.stamp, "lens")
        np.testing.assert_array_equal(label_array(other), ids)


def test_pictures_are_no_label_images() -> None:
    depth = messages.image_message(np.ones((2, 2), np.float32), "32FC1", HEADER.stamp, "lens")
    with pytest.raises(ValueError, match="16UC1, mono16 or mono8, got '32FC1'"):
        label_array(depth)
    with pytest.raises(ValueError, match="must have pixels"):
        label_array(Image(encoding="16UC1"))


def test_the_words_say_everything_of_each_id() -> None:
    text = instances_text(found(), HEADER, ms=1.5)
    said = json.loads(text)
    assert (said["stamp"], said["frame"], said["ms"]) == (STAMP, "lens", 1.5)
    assert said["instances"][1] == {
        "id": 2, "class": "block", "score": 0.75, "box": [1, 0, 2, 2], "pixels": 2
    }  # fmt: skip
    assert classes_of(text) == (STAMP, ("slot", "block", "slot"))


BAD_INSTANCES = {
    "no JSON": "block",
    "a list": "[]",
    "nothing": "{}",
    "no stamp": '{"instances": []}',
    "half a stamp": '{"stamp": 1.5, "instances": []}',
    "a stamp of truth": '{"stamp": true, "instances": []}',
    "a stamp before 1970": '{"stamp": -1, "instances": []}',
    "an endless stamp": '{"stamp": 1e999, "instances": []}',
    "a huge stamp": json.dumps({"stamp": 10**30, "instances": []}),
    "other ids": '{"stamp": 1, "instances": [{"id": 2, "class": "block"}]}',
    "no class": '{"stamp": 1, "instances": [{"id": 1}]}',
    "a class of numbers": '{"stamp": 1, "instances": [{"id": 1, "class": 7}]}',
    "a long class": json.dumps({"stamp": 1, "instances": [{"id": 1, "class": "x" * 101}]}),
    "half a letter": '{"stamp": 1, "instances": [{"id": 1, "class": "\\ud800"}]}',
    "no object": '{"stamp": 1, "instances": ["block"]}',
    "depth": "[" * 100_000,
    "length": '{"stamp": 1, "instances": []}' + " " * MAX_TEXT,
}


@pytest.mark.parametrize("name", BAD_INSTANCES)
def test_bad_words_about_instances_are_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=r"must|JSON") as caught:
        classes_of(BAD_INSTANCES[name])
    assert "\n" not in str(caught.value)


# Boxes of another detector.


def boxes_text(**changes: Any) -> str:
    said = {"stamp": STAMP, "boxes": [[1, 2, 3, 4.5], [0, 0, 9, 9]], **changes}
    return json.dumps({key: value for key, value in said.items() if value is not None})


def test_boxes_come_with_or_without_classes_and_scores() -> None:
    plain = boxes_from_json(boxes_text())
    assert plain.boxes.tolist() == [[1, 2, 3, 4.5], [0, 0, 9, 9]]
    assert (plain.stamp, plain.classes, plain.scores.tolist()) == (STAMP, ("", ""), [1, 1])
    named = boxes_from_json(boxes_text(classes=["block", "Schlüssel"], scores=[0.5, 1]))
    assert (named.classes, named.scores.tolist()) == (("block", "Schlüssel"), [0.5, 1])
    assert boxes_from_json(boxes_text(boxes=[])).boxes.shape == (0, 4)


BAD_BOXES = {
    "no boxes": {"boxes": None},
    "a number": {"boxes": 4},
    "rows of three": {"boxes": [[1, 2, 3]]},
    "ragged rows": {"boxes": [[1, 2, 3, 4], [1]]},
    "words": {"boxes": [["a", "b", "c", "d"]]},
    "NaN": {"boxes": [[1, 2, 3, math.nan]]},
    "infinity": {"boxes": [[1, 2, math.inf, 4]]},
    "beyond float32": {"boxes": [[1, 2, 1e300, 4]]},
    "beyond integers": {"boxes": [[1, 2, 10**400, 4]]},
    "nothing": {"boxes": [[None] * 4]},
    "a class too few": {"classes": ["block"]},
    "a class of two lines": {"classes": ["block", "a\nb"]},
    "half a letter": {"classes": ["block", "\ud800"]},
    "scores of words": {"scores": ["high", "low"]},
    "scores above one": {"scores": [1.5, 0]},
    "scores of NaN": {"scores": [math.nan, 0]},
    "scores of truth": {"scores": [True, False]},
    "no stamp": {"stamp": None},
    "text for a stamp": {"stamp": "now"},
}


@pytest.mark.parametrize("name", BAD_BOXES)
def test_bad_boxes_are_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=r"must") as caught:
        boxes_from_json(boxes_text(**BAD_BOXES[name]))
    assert "\n" not in str(caught.value)


def test_boxes_without_area_and_outside_are_let_through() -> None:
    # `SavedSegmenter.segment` says what becomes of them.
    rows = [[5, 5, 1, 1], [2, 2, 2, 2], [-1e30, 0, -1e29, 1]]
    np.testing.assert_array_equal(
        boxes_from_json(boxes_text(boxes=rows)).boxes, np.array(rows, np.float32)
    )


# Standard messages.


def test_detections_say_the_same_and_come_back_as_boxes() -> None:
    message = detections_message(VISION, found(), HEADER)
    assert message.header == HEADER
    assert [one.id for one in message.detections] == ["1", "2", "3"]
    second = message.detections[1]
    assert (second.bbox.center.position.x, second.bbox.center.position.y) == (1.5, 1)
    assert (second.bbox.size_x, second.bbox.size_y, second.bbox.center.theta) == (1, 2, 0)
    assert second.results[0].hypothesis.class_id == "block"
    read = boxes_from_detections(message)
    np.testing.assert_array_equal(read.boxes, found().boxes)
    np.testing.assert_array_equal(read.scores, found().scores)
    assert (read.stamp, read.classes) == (STAMP, found().classes)
    empty = boxes_from_detections(VISION.Detection2DArray(header=HEADER))
    assert empty.boxes.shape == (0, 4)


def detection(turn: float = 0.0, size: float = 4.0, **scores: float) -> Any:
    box = VISION.BoundingBox2D(VISION.Pose2D(VISION.Point2D(10.0, 20.0), turn), size, 2.0)
    results = [
        VISION.ObjectHypothesisWithPose(VISION.ObjectHypothesis(name, score))
        for name, score in scores.items()
    ]
    one = VISION.Detection2D(HEADER, results, box, "")
    return VISION.Detection2DArray(header=HEADER, detections=[one])


def test_a_turned_box_becomes_the_upright_one_around_it() -> None:
    quarter = boxes_from_detections(detection(math.pi / 2))
    np.testing.assert_allclose(quarter.boxes, [[9, 18, 11, 22]], atol=1e-6)
    eighth = boxes_from_detections(detection(-math.pi / 4)).boxes[0]
    half = 3 / math.sqrt(2)  # of (4 + 2) / 2, turned by 45 degrees
    np.testing.assert_allclose(eighth, [10 - half, 20 - half, 10 + half, 20 + half], atol=1e-5)


def test_the_likeliest_class_counts() -> None:
    read = boxes_from_detections(detection(mug=0.25, duck=0.5))
    assert (read.classes, read.scores.tolist()) == (("duck",), [0.5])
    assert boxes_from_detections(detection()).classes == ("",)


def test_detections_that_are_not_finite_are_refused() -> None:
    for bad in (detection(math.nan), detection(math.inf), detection(size=math.nan)):
        with pytest.raises(ValueError, match="must be finite"):
            boxes_from_detections(bad)
    with pytest.raises(ValueError, match="scores must be numbers from 0 to 1"):
        boxes_from_detections(detection(mug=7.0))


# Markers.

MATRIX = np.array([[500.0, 0, 319.5], [0, 400.0, 239.5], [0, 0, 1]])


def test_outlines_lie_on_the_rays_through_the_corners_of_the_boxes() -> None:
    gone, outlines, *words = markers_message(shown, found(), MATRIX, HEADER).markers
    assert gone.action == shown.Marker.DELETEALL
    assert (outlines.type, outlines.header) == (shown.Marker.LINE_LIST, HEADER)
    assert len(outlines.points) == len(outlines.colors) == 3 * 8
    points = np.array([[point.x, point.y, point.z] for point in outlines.points])
    pixels = (points @ MATRIX.T)[:, :2] / points[:, 2:]
    # Pixel j spans j - 0.5 to j + 0.5 for the camera's matrix, j to j + 1 for a box.
    sides = [(0, 0), (2, 0), (2, 0), (2, 1), (2, 1), (0, 1), (0, 1), (0, 0)]
    np.testing.assert_allclose(pixels[:8] + 0.5, sides, atol=1e-9)
    assert [word.text for word in words] == ["slot 1 (0.50)", "block 2 (0.75)", "slot 3 (0.25)"]
    assert len({(marker.ns, marker.id) for marker in (outlines, *words)}) == 4
    assert words[0].color == words[2].color != words[1].color


def test_without_instances_what_was_shown_goes() -> None:
    none = instances_of(
        Segments(
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
            (),
            np.zeros((0, 2, 2), bool),
        )
    )
    (gone,) = markers_message(shown, none, MATRIX, HEADER).markers
    assert gone.action == shown.Marker.DELETEALL


# Pictures and their boxes.


def boxes(stamp: int) -> Boxes:
    return Boxes(stamp, np.zeros((0, 4), np.float32), (), np.zeros(0, np.float32))


def test_boxes_find_their_picture_whichever_comes_first() -> None:
    matcher: BoxMatcher[str] = BoxMatcher()
    assert matcher.add_picture(1, "one") is None
    assert matcher.add_boxes(boxes(1)) == "one"
    assert matcher.add_boxes(boxes(2)) is None
    late = matcher.add_picture(2, "two")
    assert late is not None
    assert late.stamp == 2
    assert matcher.dropped == 0


def test_boxes_of_no_picture_are_dropped_and_counted() -> None:
    matcher: BoxMatcher[str] = BoxMatcher(pictures=2, boxes=2)
    for stamp in (1, 2, 3):
        matcher.add_picture(stamp, str(stamp))
    assert matcher.add_boxes(boxes(1)) is None  # its picture has been driven out
    assert matcher.add_boxes(boxes(10)) is None
    assert matcher.dropped == 0
    matcher.add_boxes(boxes(10))
    assert matcher.dropped == 1  # the same again
    matcher.add_boxes(boxes(11))
    assert matcher.dropped == 2  # those of picture 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_boxes_get_the_picture_of_their_stamp_or_none(events: list[tuple[bool, int]]) -> None:
    matcher: BoxMatcher[int] = BoxMatcher(pictures=3, boxes=2)
    arrived = given_out = 0
    for is_picture, stamp in events:
        if is_picture:
            found = matcher.add_picture(stamp, stamp)
            given_out += found is not None
            assert found is None or found.stamp == stamp
        else:
            arrived += 1
            picture = matcher.add_boxes(boxes(stamp))
            given_out += picture is not None
            assert picture in (None, stamp)
    assert given_out + matcher.dropped + len(matcher._boxes) == arrived
    assert len(matcher._pictures) <= 3
    assert len(matcher._boxes) <= 2
