"""Instances with their masks as messages, and back: pure functions, no node, no graph.

A picture's instances are two messages of its stamp and frame: a label image (`16UC1`: 0 nothing, k
the instance of id k), and JSON that says of each id its class, score, box and pixels. Beside them
go, where their packages are, detections (`vision_msgs`) and markers (`visualization_msgs`).

Markers are in space, not in pixels: outlines at `MARKER_DISTANCE` on the rays through the corners
of the boxes. So RViz can show them in its 3D view, and over the picture in its Camera display; of
an `ImageMarker`, which knows no words, its own displays draw nothing. It takes the camera's
calibration, so there are none before that has come.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA, Header

from ros_nodes import messages
from ros_nodes.json_messages import MAX_WORD, is_word, read_json, read_stamp

if TYPE_CHECKING:  # torch, which readers of these messages do without
    from perception.deep_mac.segments import Segments

LABELS = "16UC1"
"""Encoding of label images: ids are numbers, not grey."""
MARKER_DISTANCE = 1.0
"""Metres from the camera along its optical axis."""
_LINE, _TEXT = 0.003, 0.03
"""Width of outlines and height of words at that distance, metres."""
_MOST_IDS = 65_535


@dataclass(frozen=True)
class Instances:
    """What is said of the instances of one picture.

    Attributes:
        classes: names; `classes[k - 1]` is that of id k.
        scores: `(K,)` float32.
        boxes: `(K, 4)` float32 `x1, y1, x2, y2`, pixels of the picture.
        pixels: `(K,)` int64, of the label image.
        labels: `(H, W)` uint16, the ids.
    """

    classes: tuple[str, ...]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    pixels: NDArray[np.int64]
    labels: NDArray[np.uint16]

    def __len__(self) -> int:
        """Number of instances."""
        return len(self.classes)


def instances_of(
    segments: Segments,
    classes: Sequence[str] | None = None,
    scores: NDArray[np.float32] | None = None,
) -> Instances:
    """What a segmenter has found, or made of boxes; then a detector's classes and scores.

    The label image has those scores: the surer detection is on top.
    """
    if scores is not None:
        segments = replace(segments, scores=scores)
    labels = segments.label_image()
    counts = np.bincount(labels.ravel(), minlength=len(segments) + 1)[1:]
    names = segments.names if classes is None else tuple(classes)
    return Instances(names, segments.scores, segments.boxes, counts.astype(np.int64), labels)


def label_message(found: Instances, header: Header) -> Image:
    """The label image."""
    return messages.image_message(found.labels, LABELS, header.stamp, header.frame_id)


def label_array(message: Image) -> NDArray[np.integer]:
    """`(H, W)` ids of a label image, in 16UC1, mono16 or mono8; read-only.

    Raises:
        ValueError: for other encodings, or a malformed message.
    """
    if message.encoding not in (LABELS, "mono16", "mono8"):
        raise ValueError(f"labels must be {LABELS}, mono16 or mono8, got {message.encoding[:32]!r}")
    return messages.image_array(message)


def instances_text(found: Instances, header: Header, **more: Any) -> str:
    """JSON of the instances, with what else is to be said of the picture."""
    rows = [
        {
            "id": k + 1,
            "class": found.classes[k],
            "score": round(float(found.scores[k]), 4),
            "box": [round(side, 2) for side in found.boxes[k].tolist()],
            "pixels": int(found.pixels[k]),
        }
        for k in range(len(found))
    ]
    stamp = messages.nanoseconds(header.stamp)
    return json.dumps({"stamp": stamp, "frame": header.frame_id, "instances": rows, **more})


def classes_of(text: str) -> tuple[int, tuple[str, ...]]:
    """Stamp in nanoseconds and classes of the ids 1, 2, ... of such a JSON text.

    Raises:
        ValueError: if it is none, or its ids are not 1, 2, ... in order.
    """
    said = read_json(text)
    rows = said.get("instances")
    if not isinstance(rows, list) or len(rows) > _MOST_IDS:
        raise ValueError(f"instances must be a list of at most {_MOST_IDS}")
    names = []
    for k, row in enumerate(rows):
        name = row.get("class") if isinstance(row, dict) and row.get("id") == k + 1 else None
        if not is_word(name):
            raise ValueError(
                f"instance {k} must have id {k + 1} and a class of at most {MAX_WORD} letters"
            )
        names.append(str(name))
    return read_stamp(said), tuple(names)


def optional(package: str) -> Any:
    """The messages of a package, or None where it is not installed."""
    try:
        return importlib.import_module(f"{package}.msg")
    except ImportError:
        return None


def detections_message(vision: Any, found: Instances, header: Header) -> Any:
    """A `Detection2DArray`; each `id` is that of the label image.

    Args:
        vision: the module `vision_msgs.msg`.
        found: what to say.
        header: of the picture.
    """
    detections = []
    for k in range(len(found)):
        x1, y1, x2, y2 = found.boxes[k].tolist()
        center = vision.Pose2D(position=vision.Point2D(x=(x1 + x2) / 2, y=(y1 + y2) / 2), theta=0.0)
        result = vision.ObjectHypothesisWithPose(
            hypothesis=vision.ObjectHypothesis(
                class_id=found.classes[k], score=float(found.scores[k])
            )
        )
        detections.append(
            vision.Detection2D(
                header=header,
                results=[result],
                bbox=vision.BoundingBox2D(center=center, size_x=x2 - x1, size_y=y2 - y1),
                id=str(k + 1),
            )
        )
    return vision.Detection2DArray(header=header, detections=detections)


def markers_message(
    shown: Any, found: Instances, matrix: NDArray[np.float64], header: Header
) -> Any:
    """A `MarkerArray` that takes the place of the one before: outlines of boxes, and their words.

    Args:
        shown: the module `visualization_msgs.msg`.
        found: what to show.
        matrix: `(3, 3)` of the camera in pixels; whole numbers are centres of pixels.
        header: of the picture: its frame is an optical one.
    """
    marker = shown.Marker
    outlines = _marker(marker, header, "boxes", marker.LINE_LIST)
    outlines.scale.x = _LINE
    words = []
    for k in range(len(found)):
        corners, color = _corners(found.boxes[k], matrix), _color(found.classes[k])
        for first, second in zip(corners, [*corners[1:], corners[0]], strict=True):
            outlines.points += [first, second]
            outlines.colors += [color, color]
        word = _marker(marker, header, "names", marker.TEXT_VIEW_FACING, k)
        word.pose.position = Point(
            x=(corners[0].x + corners[1].x) / 2, y=corners[0].y - 0.6 * _TEXT, z=MARKER_DISTANCE
        )
        word.scale.z, word.color = _TEXT, color
        word.text = f"{found.classes[k] or 'box'} {k + 1} ({found.scores[k]:.2f})"
        words.append(word)
    gone = marker(header=header, action=marker.DELETEALL)
    # Without points RViz would complain of the list.
    return shown.MarkerArray(markers=[gone, *([outlines] if words else []), *words])


def _marker(marker: Any, header: Header, group: str, kind: int, number: int = 0) -> Any:
    made = marker(header=header, ns=group, id=number, type=kind, action=marker.ADD)
    made.pose.orientation.w = 1.0
    made.color.a = 1.0
    return made


def _corners(box: NDArray[np.float32], matrix: NDArray[np.float64]) -> list[Point]:
    """On the rays through the corners; pixel j of a box spans j to j + 1, its centre is j + .5."""
    x1, y1, x2, y2 = box.astype(np.float64) - 0.5
    points = []
    for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)):
        down = (y - matrix[1, 2]) / matrix[1, 1]
        across = (x - matrix[0, 2] - matrix[0, 1] * down) / matrix[0, 0]
        points.append(
            Point(x=across * MARKER_DISTANCE, y=down * MARKER_DISTANCE, z=MARKER_DISTANCE)
        )
    return points


_COLORS = (
    (0.90, 0.62, 0.00), (0.34, 0.71, 0.91), (0.00, 0.62, 0.45), (0.94, 0.89, 0.26),
    (0.00, 0.45, 0.70), (0.84, 0.37, 0.00), (0.80, 0.47, 0.65),
)  # fmt: skip
"""Seven that the colour-blind tell apart (Okabe and Ito)."""


def _color(name: str) -> ColorRGBA:
    """The same for the same class, in every run."""
    red, green, blue = _COLORS[sum(name.encode()) % len(_COLORS)]
    return ColorRGBA(r=red, g=green, b=blue, a=1.0)
