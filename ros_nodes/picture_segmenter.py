"""A segmenter for the node `perception`: pictures of a camera in, instances with masks out.

It detects by itself, or makes the masks of boxes that another detector has found.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from perception.deep_mac.checkpoint import SavedSegmenter, load_segmenter
from perception.deep_mac.compiled import compile_segmenter
from perception.runtime import Report, RuntimeConfig
from ros_nodes import instance_messages, messages
from ros_nodes.instance_messages import Instances, instances_of, optional
from ros_nodes.picture_input import WARM_UP, WARM_UP_SIZE, Open, Picture, Times


def load(value: Mapping[str, Any]) -> SavedSegmenter:
    """The segmenter that the parameters name.

    Raises:
        ValueError: if there is none, it was never evaluated, or calibration is asked for.
    """
    name = value["checkpoint"]
    saved = load_segmenter(name)
    if not saved.scores:
        raise ValueError(
            f"{name} has no held-out scores, so it is untrained: its masks would mean nothing; "
            "train it first"
        )
    if value["calibration"] or value["precision"] == "bfloat16":
        raise ValueError(
            f"{name} is a segmenter and runs in float32: leave calibration and precision"
        )
    return saved


class SegmenterEye:
    """A compiled segmenter: pixels in, instances out.

    The maps of a picture come from the fast runtime, detections and masks from torch.
    """

    channels = 3

    def __init__(self, saved: SavedSegmenter, value: Mapping[str, Any]) -> None:
        """Compile a segmenter as the parameters say, and warm it up.

        Raises:
            ValueError: for a backend that is not installed.
        """
        config = RuntimeConfig(
            backend=value["backend"],
            precision="float32",
            threads=value["threads"],
            cache=Path(value["cache"]) if value["cache"] else None,
        )
        self._saved, self.report = compile_segmenter(saved, config)
        self._n, self._threshold = value["max_instances"], value["threshold"]
        self._refine = value["refine"]
        pixels, corner = np.zeros((*WARM_UP_SIZE, 3), np.uint8), [[0, 0, *WARM_UP_SIZE]]
        for _ in range(WARM_UP):
            self._saved.segment(pixels, corner, refine=self._refine)
            self._saved.segment(pixels)

    report: Report
    """What runs, and why."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What runs, by name."""
        backend = self.report.backend
        parts = "maps, detections and masks: torch"
        if backend != "torch":
            parts = f"maps: {backend}; detections and masks: torch"
        return {"backend": backend, "precision": self.report.precision, "runs": parts}

    def look(self, picture: Picture) -> Instances:
        """The instances of one picture, or of its boxes."""
        given = picture.boxes
        found = self._saved.segment(
            picture.pixels,
            None if given is None else given.boxes,
            n=self._n,
            threshold=self._threshold,
            refine=self._refine,
        )
        if given is None:
            return instances_of(found)
        return instances_of(found, given.classes, given.scores)


class MaskVoice:
    """Says the instances: label image, JSON, and what the installed messages allow."""

    def __init__(self, open: Open) -> None:
        """Open the topics."""
        self._labels = open(Image, "~/labels")
        self._instances = open(String, "~/instances")
        self._vision = optional("vision_msgs")
        if self._vision is not None:
            self._detections = open(self._vision.Detection2DArray, "~/detections")
        self._shown = optional("visualization_msgs")
        if self._shown is not None:
            self._markers = open(self._shown.MarkerArray, "~/markers")
        self._matrix: NDArray[np.float64] | None = None

    def hear(self, message: CameraInfo) -> None:
        """Take the calibration, for markers.

        Raises:
            ValueError: for a camera that is not calibrated.
        """
        self._matrix = messages.intrinsics(message)

    def say(self, picture: Picture, answer: Instances, times: Times) -> None:
        """Publish the instances of one picture."""
        header = picture.header
        self._labels.publish(instance_messages.label_message(answer, header))
        text = instance_messages.instances_text(answer, header, **times.said())
        self._instances.publish(String(data=text))
        if self._vision is not None:
            said = instance_messages.detections_message(self._vision, answer, header)
            self._detections.publish(said)
        if self._shown is not None and self._matrix is not None:
            drawn = instance_messages.markers_message(self._shown, answer, self._matrix, header)
            self._markers.publish(drawn)
