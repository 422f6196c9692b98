"""A classifier for the node `perception`: pictures of a camera in, classes out.

It is loaded, compiled and warmed up before the first picture, and refused where its classes would
mean nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header, String
from torch import nn

from learning.image_set import open_image_set
from perception.checkpoint import SavedClassifier, load_classifier
from perception.runtime import Compiled, Report, RuntimeConfig, compile_model
from ros_nodes.instance_messages import optional
from ros_nodes.picture_input import WARM_UP, WARM_UP_SIZE, Open, Picture, Times

MAX_CALIBRATION = 64
"""Pictures on which precisions are compared at most."""

Answer = dict[str, dict[str, float]]
"""Task -> class -> probability."""


def topic_names(tasks: Iterable[str]) -> dict[str, str]:
    """A name that a topic can have, for each task: letters, digits and single underscores.

    Raises:
        ValueError: if two tasks get the same.
    """
    names: dict[str, str] = {}
    for task in tasks:
        word = re.sub(r"[^A-Za-z0-9]+", "_", task).strip("_") or "task"
        names[task] = word if word[0].isalpha() else f"task_{word}"
    if len(set(names.values())) < len(names):
        raise ValueError(f"tasks must differ in letters and digits, got {', '.join(names)}")
    return names


def choose(answer: Answer) -> dict[str, dict[str, Any]]:
    """The most probable class of every task, with its probability and all the others."""
    chosen = {}
    for task, chances in answer.items():
        best = max(chances, key=lambda name: chances[name])
        chosen[task] = {"class": best, "probability": chances[best], "all": dict(chances)}
    return chosen


def load(value: Mapping[str, Any]) -> SavedClassifier:
    """The classifier that the parameters name.

    Raises:
        ValueError: if there is none, it was never evaluated, no camera gives what it takes, or
            boxes are to be masked.
    """
    name = value["checkpoint"]
    saved = load_classifier(name)
    if value["boxes"]:
        raise ValueError(f"{name} is a classifier and masks no boxes: leave the parameter boxes")
    if not saved.scores:
        raise ValueError(
            f"{name} has no held-out scores, so it is untrained: its classes would mean nothing; "
            "train it first"
        )
    if len(saved.mean) not in (1, 3):
        raise ValueError(f"{name} takes {len(saved.mean)} channels; a camera gives 1 or 3")
    return saved


def read_calibration(folder: str, saved: SavedClassifier) -> NDArray[np.float32]:
    """Up to `MAX_CALIBRATION` images of a set, evenly spaced, as the network takes them.

    Raises:
        ValueError: if there is no such set, or its images are not such as the network takes.
        OSError: if it cannot be read.
    """
    pictures = open_image_set(folder).images
    places = np.linspace(0, len(pictures) - 1, min(len(pictures), MAX_CALIBRATION))
    return saved.tensor(pictures[places.round().astype(int)]).numpy()


class ClassifierEye:
    """A compiled classifier: pixels in, classes out."""

    def __init__(
        self, saved: SavedClassifier, value: Mapping[str, Any], network: nn.Module | None = None
    ) -> None:
        """Compile a classifier as the parameters say, and warm it up.

        Args:
            saved: the classifier.
            value: parameters of the node.
            network: that runs in place of the classifier's own, with more behind its logits.

        Raises:
            ValueError: for a backend that is not installed, or bad calibration pictures.
            OSError: where calibration pictures cannot be read.
        """
        self.saved = saved
        folder = value["calibration"]
        calibration = read_calibration(folder, saved) if folder else None
        config = RuntimeConfig(
            backend=value["backend"],
            precision=value["precision"],
            threads=value["threads"],
            task_sizes=tuple(map(len, saved.tasks.values())),
            cache=Path(value["cache"]) if value["cache"] else None,
        )
        example = np.zeros((1, len(saved.mean), *saved.size), np.float32)
        self._run: Compiled = compile_model(
            saved.model if network is None else network, example, config, calibration
        )
        blank = np.zeros((*WARM_UP_SIZE, len(saved.mean)), np.uint8)
        for _ in range(WARM_UP):
            self.look(Picture(blank, Header(), 0))

    @property
    def channels(self) -> int:
        """Of the pictures that it takes."""
        return len(self.saved.mean)

    @property
    def report(self) -> Report:
        """What runs, and why."""
        return self._run.report

    @property
    def parity(self) -> str:
        """How far bfloat16 agrees with float32, in words."""
        report = self.report
        if report.cosine is None or report.agreement is None:
            return "not compared"
        return f"cosine {report.cosine:.4f}, agreement {report.agreement:.4f}"

    @property
    def facts(self) -> Mapping[str, Any]:
        """What runs, by name."""
        report = self.report
        return {"backend": report.backend, "precision": report.precision, "parity": self.parity}

    def look(self, picture: Picture) -> Any:
        """The answer about one picture."""
        return self(picture.pixels)

    def __call__(self, pixels: NDArray[np.uint8]) -> Answer:
        """Probabilities of all classes of all tasks for one picture `(H, W, C)`."""
        return self.saved.read(self.run(pixels))[0]

    def run(self, pixels: NDArray[np.uint8]) -> Any:
        """What the network gives for one picture `(H, W, C)`: one row."""
        return self._run(self.saved.tensor(pixels[None]).numpy())


class ClassVoice:
    """Says the classes, as JSON and, where `vision_msgs` is installed, as classifications."""

    def __init__(self, saved: SavedClassifier, open: Open) -> None:
        """Open the topics.

        Raises:
            ValueError: if two tasks would share one.
        """
        self._classes = open(String, "~/classes")
        self._vision: Any = optional("vision_msgs")
        self._standard: dict[str, Any] = {}
        if self._vision is not None:
            for task, word in topic_names(saved.tasks).items():
                topic = f"~/classification/{word}"
                self._standard[task] = open(self._vision.Classification, topic)

    def say(self, picture: Picture, answer: Answer, times: Times) -> None:
        """Publish the classes of one picture."""
        said = {
            "stamp": picture.stamp,
            "frame": picture.header.frame_id,
            "tasks": choose(answer),
            **times.said(),
        }
        self._classes.publish(String(data=json.dumps(said)))
        for task, publisher in self._standard.items():
            found = sorted(answer[task].items(), key=lambda pair: -pair[1])
            results = [self._vision.ObjectHypothesis(class_id=name, score=p) for name, p in found]
            publisher.publish(self._vision.Classification(header=picture.header, results=results))
