"""A classifier for the node `perception`: pictures of a camera in, classes out; no graph.

It is loaded, compiled and warmed up before the first picture, and refused where its classes would
mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from learning.image_set import open_image_set
from perception.checkpoint import MAX_SIDE, SavedClassifier, load_classifier, shipped_classifiers
from perception.runtime import Compiled, Report, RuntimeConfig, compile_model
from ros_nodes import messages

ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")
"""Pictures that are taken. Depths and 16 bit are no colours, and are refused."""

WARM_UP, WARM_UP_SIZE = 3, (480, 640)
"""Runs before the first picture, and its pixels: a first run is slower than the others."""

MAX_CALIBRATION = 64
"""Pictures on which precisions are compared at most."""

Answer = dict[str, dict[str, float]]
"""Task -> class -> probability."""


def read_picture(message: Image, channels: int) -> NDArray[np.uint8]:
    """Pixels of a picture, as a classifier takes them; grey is repeated, alpha left out.

    Args:
        message: the picture, in one of `ENCODINGS`.
        channels: of the network, 1 or 3.

    Returns:
        `(H, W, channels)` RGB or grey, read-only: a view of the message where it can be one.

    Raises:
        ValueError: for another encoding, a malformed message, a side of more than `MAX_SIDE`
            pixels, or colours where the network takes grey.
    """
    if message.encoding not in ENCODINGS:
        raise ValueError(
            f"encoding must be one of {', '.join(ENCODINGS)}, got {message.encoding[:32]!r}"
        )
    if max(message.height, message.width) > MAX_SIDE:
        raise ValueError(
            f"sides must be at most {MAX_SIDE} pixels, got width {message.width} and height "
            f"{message.height}"
        )
    pixels = messages.image_array(message)
    if pixels.ndim == 2:
        return np.broadcast_to(pixels[..., None], (*pixels.shape, channels))
    if channels == 1:
        raise ValueError(f"the network takes grey pictures, mono8; got {message.encoding}")
    return pixels[..., :channels]


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
        ValueError: if there is none, it was never evaluated, or no camera gives what it takes.
    """
    name = value["checkpoint"]
    if not name:
        shipped = ", ".join(shipped_classifiers()) or "none so far"
        raise ValueError(f"parameter checkpoint must name a classifier; shipped: {shipped}")
    saved = load_classifier(name)
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


class Eye:
    """A compiled classifier: pixels in, classes out. Knows nothing of messages."""

    def __init__(self, saved: SavedClassifier, value: Mapping[str, Any]) -> None:
        """Compile a classifier as the parameters say, and warm it up.

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
        self._run: Compiled = compile_model(saved.model, example, config, calibration)
        for _ in range(WARM_UP):
            self(np.zeros((*WARM_UP_SIZE, len(saved.mean)), np.uint8))

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

    def __call__(self, pixels: NDArray[np.uint8]) -> Answer:
        """Probabilities of all classes of all tasks for one picture `(H, W, C)`."""
        return self.saved.read(self._run(self.saved.tensor(pixels[None]).numpy()))[0]
