"""A classifier for triage in the node `perception`: how abnormal a picture is, and where.

Any classifier with a task `abnormal` (`perception.abnormality`) is one. Beside its classes it says
a score, which of its operating points the score reaches, its findings, and, for networks whose maps
are exact, how much each cell adds to the score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Float32, String
from torch import Tensor, nn

from decisive.triage import Model, sigmoid
from decisive.triage_images import Fit, fit_picture
from decisive.triage_page import heat_overlay
from perception.abnormality import (
    TASK,
    activation_maps,
    difference_logits,
    has_maps,
    logits_and_map,
)
from perception.checkpoint import SavedClassifier
from ros_nodes import messages
from ros_nodes.picture_classifier import Answer, ClassifierEye, ClassVoice
from ros_nodes.picture_input import Open, Picture, Times

STRONG = 8.0
"""Logit added by a cell at which a tint of the overlay is strongest, the same for all pictures."""


@dataclass(frozen=True)
class Finding:
    """What is said of one picture.

    Attributes:
        classes: of all tasks.
        score: of being abnormal, 0 to 1.
        findings: scores of the other tasks of two classes.
        cells: `(h, w)` float32, what each cell adds to the abnormal logit: their mean, plus a bias
            that all pictures share, is the logit. None for networks without exact maps.
        shown: `(H, W, C)` the picture as the network was shown it; the cells cover all of it.
    """

    classes: Answer
    score: float
    findings: Mapping[str, float]
    cells: NDArray[np.float32] | None
    shown: NDArray[np.uint8]


class _WithMap(nn.Module):
    """Logits, and behind them the cells of the abnormal map, in one row: one pass gives both."""

    def __init__(self, saved: SavedClassifier) -> None:
        super().__init__()
        self.model = saved.model
        self._tasks = dict(saved.tasks)

    def forward(self, images: Tensor) -> Tensor:
        logits, cells = logits_and_map(self.model, images, self._tasks)
        return torch.cat([logits, cells.flatten(1)], dim=1)


class TriageEye(ClassifierEye):
    """A compiled classifier for triage: pixels in, a `Finding` out."""

    def __init__(self, triage: Model, value: Mapping[str, Any]) -> None:
        """Compile it as the parameters say, and warm it up.

        Raises:
            ValueError: for a backend that is not installed, or half precision with maps.
        """
        self._fit: Fit = triage.fit
        self._cells: tuple[int, int] | None = None
        self._logits = sum(map(len, triage.saved.tasks.values()))
        network: nn.Module = triage.saved.model
        if has_maps(network):
            if value["calibration"] or value["precision"] == "bfloat16":
                raise ValueError(
                    f"{triage.name} maps what is abnormal and runs in float32: leave calibration "
                    "and precision"
                )
            self._cells = _cells_of(triage.saved)
            network = _WithMap(triage.saved).eval()
        super().__init__(triage.saved, value, network)

    def look(self, picture: Picture) -> Finding:
        """What there is to say of one picture."""
        shown = fit_picture(picture.pixels, self.saved.size, self._fit)
        row = torch.from_numpy(np.asarray(self.run(shown), np.float32))
        logits, rest = row[:, : self._logits], row[0, self._logits :]
        scores = {
            task: sigmoid(float(value))
            for task, value in difference_logits(logits, self.saved.tasks).items()
        }
        cells = None if self._cells is None else rest.reshape(self._cells).numpy()
        classes = self.saved.read(logits.numpy())[0]
        return Finding(classes, scores.pop(TASK), scores, cells, shown)


class TriageVoice:
    """Says score and findings as JSON, the score as a number to plot, and where it comes from."""

    def __init__(self, triage: Model, open: Open, maps: bool) -> None:
        """Open the topics.

        Args:
            triage: the classifier.
            open: opens a publisher.
            maps: whether the network has exact maps.

        Raises:
            ValueError: if two tasks would share a topic.
        """
        self._classes = ClassVoice(triage.saved, open)
        self._points = dict(triage.points)
        self._triage = open(String, "~/triage")
        self._score = open(Float32, "~/abnormality")
        self._map = open(Image, "~/abnormality_map") if maps else None
        self._overlay = open(Image, "~/abnormality_overlay") if maps else None

    def say(self, picture: Picture, answer: Finding, times: Times) -> None:
        """Publish what was found in one picture."""
        self._classes.say(picture, answer.classes, times)
        reached = [name for name, least in self._points.items() if answer.score >= least]
        said = {
            "stamp": picture.stamp,
            "frame": picture.header.frame_id,
            "score": answer.score,
            "reaches": reached,
            "findings": dict(answer.findings),
            **times.said(),
        }
        self._triage.publish(String(data=json.dumps(said)))
        self._score.publish(Float32(data=answer.score))
        if answer.cells is None or self._map is None or self._overlay is None:
            return
        header = picture.header
        told = messages.image_message(answer.cells, "32FC1", header.stamp, header.frame_id)
        self._map.publish(told)
        colours = np.broadcast_to(answer.shown, (*answer.shown.shape[:2], 3))
        drawn = heat_overlay(colours, answer.cells, STRONG)
        self._overlay.publish(messages.image_message(drawn, "rgb8", header.stamp, header.frame_id))


def _cells_of(saved: SavedClassifier) -> tuple[int, int]:
    """Rows and columns of the map."""
    blank = torch.zeros(1, len(saved.mean), *saved.size)
    with torch.inference_mode():
        _, rows, columns = activation_maps(saved.model, blank, saved.tasks, TASK).shape
    return rows, columns
