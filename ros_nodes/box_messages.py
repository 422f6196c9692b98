"""Boxes that any detector has found: read from messages, and matched with their pictures.

On the wire they are `vision_msgs/Detection2DArray` where that package is installed, else JSON:
`{"stamp": ns, "boxes": [[x1, y1, x2, y2], ...]}` in pixels of the picture, with one word a box in
`classes` and one number from 0 to 1 in `scores`, where the detector knows them. Readers trust
nothing, as in `ros_nodes.messages`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from perception.deep_mac.segments import checked_boxes
from ros_nodes import messages
from ros_nodes.json_messages import MAX_WORD, is_word, read_json, read_stamp


@dataclass(frozen=True)
class Boxes:
    """What a detector has found in one picture.

    Attributes:
        stamp: of the picture, nanoseconds.
        boxes: `(K, 4)` float32 `x1, y1, x2, y2` in its pixels; finite, else anything: see
            `SavedSegmenter.segment`.
        classes: `K` names; empty ones where the detector does not say.
        scores: `(K,)` from 0 to 1; 1 where the detector does not say.
    """

    stamp: int
    boxes: NDArray[np.float32]
    classes: tuple[str, ...]
    scores: NDArray[np.float32]


def boxes_from_json(text: str) -> Boxes:
    """Boxes of a JSON text.

    Raises:
        ValueError: for no JSON, no or bad boxes, or classes and scores that are not one a box.
    """
    said = read_json(text)
    boxes = checked_boxes(_listed(said, "boxes")).numpy()
    n = len(boxes)
    classes = _listed(said, "classes") if "classes" in said else [""] * n
    scores = _listed(said, "scores") if "scores" in said else [1.0] * n
    return Boxes(read_stamp(said), boxes, *_named(classes, scores, n))


def boxes_from_detections(message: Any) -> Boxes:
    """Boxes of a `vision_msgs/Detection2DArray`, with the likeliest class of each.

    A box that is turned becomes the upright one around it.

    Raises:
        ValueError: for numbers that are not finite, scores outside [0, 1] or a bad stamp.
    """
    rows, classes, scores = [], [], []
    for found in message.detections:
        rows.append(_upright(found.bbox))
        best = max((r.hypothesis for r in found.results), key=lambda h: h.score, default=None)
        classes.append("" if best is None else best.class_id)
        scores.append(1.0 if best is None else best.score)
    boxes = checked_boxes(np.array(rows, np.float64).reshape(-1, 4)).numpy()
    stamp = messages.nanoseconds(message.header.stamp)
    return Boxes(stamp, boxes, *_named(classes, scores, len(boxes)))


def _upright(box: Any) -> list[float]:
    """`x1, y1, x2, y2` around a `vision_msgs/BoundingBox2D`."""
    x, y, turn = box.center.position.x, box.center.position.y, box.center.theta
    if not math.isfinite(turn):
        raise ValueError(f"theta of a box must be finite, got {turn}")
    cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
    half_x = (box.size_x * cos + box.size_y * sin) / 2
    half_y = (box.size_x * sin + box.size_y * cos) / 2
    return [x - half_x, y - half_y, x + half_x, y + half_y]


def _listed(said: Mapping[str, Any], name: str) -> list[Any]:
    value = said.get(name)
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, got {type(value).__name__}")
    return value


def _named(
    classes: Sequence[Any], scores: Sequence[Any], n: int
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Classes and scores of n boxes, checked."""
    if len(classes) != n or len(scores) != n:
        raise ValueError(
            f"classes and scores must be one for each of {n} boxes, got {len(classes)} and "
            f"{len(scores)}"
        )
    if not all(map(is_word, classes)):
        raise ValueError(f"classes must be words of at most {MAX_WORD} printable letters")
    for score in scores:
        if not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1:
            raise ValueError(f"scores must be numbers from 0 to 1, got {score!r:.40}")
    return tuple(classes), np.array(scores, np.float32).reshape(n)


T = TypeVar("T")


class BoxMatcher(Generic[T]):
    """Finds the picture that boxes belong to: the one of their very stamp.

    Boxes come later than their picture by what the detector takes, or, from another process,
    earlier. Of each a few are kept; what is driven out without its other half is counted.
    """

    def __init__(self, pictures: int = 16, boxes: int = 16) -> None:
        """Keep so many of each; with 30 pictures a second, 16 are half a second."""
        self._pictures: OrderedDict[int, T] = OrderedDict()
        self._boxes: OrderedDict[int, Boxes] = OrderedDict()
        self._most_pictures, self._most_boxes = pictures, boxes
        self.dropped = 0
        """Boxes whose picture did not come, or was no longer there."""

    def add_picture(self, stamp: int, picture: T) -> Boxes | None:
        """Keep a picture. Returns its boxes, if they are here already."""
        self._pictures[stamp] = picture
        while len(self._pictures) > self._most_pictures:
            self._pictures.popitem(last=False)
        return self._boxes.pop(stamp, None)

    def add_boxes(self, boxes: Boxes) -> T | None:
        """Keep boxes. Returns their picture, if it is here; it may be asked for again."""
        picture = self._pictures.get(boxes.stamp)
        if picture is not None:
            return picture
        self.dropped += boxes.stamp in self._boxes  # the same again: only the last counts
        self._boxes[boxes.stamp] = boxes
        while len(self._boxes) > self._most_boxes:
            self._boxes.popitem(last=False)
            self.dropped += 1
        return None
