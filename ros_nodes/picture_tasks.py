"""Multi-task networks for the node `perception`: pictures of a camera in, maps and numbers out.

The networks are those of a choice of task groups; each task is served by one. Maps come at the size
that the networks see, with the camera's calibration for that size beside them: what is finer in the
picture they have not seen.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float64MultiArray, Header, String

from decisive.task_tiles import class_overlay
from perception.multi_task_checkpoint import Answers, SavedTasks, load_tasks
from perception.multi_task_networks import FlatTasks, unflatten
from perception.multi_task_set import Target
from perception.runtime import Compiled, Report, RuntimeConfig, choose_backend, compile_model
from ros_nodes import messages
from ros_nodes.picture_classifier import topic_names
from ros_nodes.picture_input import WARM_UP, WARM_UP_SIZE, Open, Picture, Times

INFO = "camera_info"
"""Beside the images of the tasks, where image_transport looks for it; no task may be called so."""


def load(value: Mapping[str, Any]) -> SavedTasks:
    """The networks that the parameters name.

    Raises:
        ValueError: if there are none, they were never evaluated, or boxes or calibration are asked
            for.
    """
    name = value["checkpoint"]
    saved = load_tasks(name)
    if value["boxes"]:
        raise ValueError(
            f"{name} is of several tasks and masks no boxes: leave the parameter boxes"
        )
    if not saved.scores:
        raise ValueError(
            f"{name} has no held-out scores, so it is untrained: its answers would mean nothing; "
            "train it first"
        )
    if value["calibration"] or value["precision"] == "bfloat16":
        raise ValueError(
            f"{name} is of several tasks and runs in float32: leave calibration and precision"
        )
    return saved


class TaskEye:
    """Compiled networks: pixels in, answers out. All networks run as one."""

    channels = 3

    def __init__(self, saved: SavedTasks, value: Mapping[str, Any]) -> None:
        """Compile networks as the parameters say, and warm them up.

        With the backend `auto`, what the fast one cannot run is run by torch, and the report says
        so.

        Raises:
            ValueError: for a backend that is not installed.
        """
        self._saved = saved
        self._run, refused = _compiled(saved, value)
        self.report = self._run.report
        if refused:
            self.report = dataclasses.replace(self.report, why=refused)
        self._runs = f"all networks as one: {self.report.backend}" + f"; {refused}" * bool(refused)
        blank = np.zeros((*WARM_UP_SIZE, 3), np.uint8)
        for _ in range(WARM_UP):
            self.look(Picture(blank, Header(), 0))

    report: Report
    """What runs, and why."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What runs, by name."""
        groups = self._saved.model.groups
        return {
            "backend": self.report.backend,
            "precision": self.report.precision,
            "runs": self._runs,
            "networks": ", ".join(
                "+".join(self._saved.model.served(k)) for k in range(len(groups))
            ),
        }

    def look(self, picture: Picture) -> Answers:
        """What the tasks say of one picture; no axis of images."""
        rows = torch.from_numpy(self._run(self._saved.tensor(picture.pixels[None]).numpy()))
        outputs = unflatten(rows, self._saved.targets, self._saved.size)
        return {task: answer[0] for task, answer in self._saved.read(outputs).items()}


def _compiled(saved: SavedTasks, value: Mapping[str, Any]) -> tuple[Compiled, str]:
    """All networks as one function, and why the backend that `auto` takes is not the one."""
    config = RuntimeConfig(
        backend=value["backend"],
        precision="float32",
        threads=value["threads"],
        cache=Path(value["cache"]) if value["cache"] else None,
    )
    network = FlatTasks(saved.model).eval()
    example = np.zeros((1, 3, *saved.size), np.float32)
    chosen = choose_backend(config.backend, torch.device("cpu"))
    try:
        return compile_model(network, example, config), ""
    except Exception as error:  # exporters raise whatever a layer leads them to
        if config.backend != "auto" or chosen == "torch":
            raise
        refused = f"{chosen} cannot run them: {' '.join(str(error).split())[:200]}"
    plain = dataclasses.replace(config, backend="torch")
    return compile_model(network, example, plain), refused


class TaskVoice:
    """Says maps as images, numbers as arrays, and a summary as JSON."""

    def __init__(self, saved: SavedTasks, open: Open) -> None:
        """Open the topics.

        Raises:
            ValueError: if two tasks would share one, or one would be the calibration's.
        """
        words = topic_names(saved.targets)
        if INFO in words.values():
            raise ValueError(f"a task is called {INFO}, which is a topic of its own; rename it")
        self._targets = dict(saved.targets)
        self._scene = open(String, "~/scene")
        self._info = open(CameraInfo, f"~/scene/{INFO}")
        self._maps = {
            task: open(Image, f"~/scene/{words[task]}")
            if target.dense
            else open(Float64MultiArray, f"~/numbers/{words[task]}")
            for task, target in self._targets.items()
        }
        self._overlays = {
            task: open(Image, f"~/overlay/{words[task]}")
            for task, target in self._targets.items()
            if target.kind == "classes"
        }
        self._camera: CameraInfo | None = None

    def hear(self, message: CameraInfo) -> None:
        """Take the calibration.

        Raises:
            ValueError: for a camera that is not calibrated.
        """
        messages.intrinsics(message)
        self._camera = message

    def say(self, picture: Picture, answer: Answers, times: Times) -> None:
        """Publish what the tasks say of one picture."""
        header = picture.header
        size: tuple[int, int] | None = None
        for task, target in self._targets.items():
            said = answer[task]
            if target.dense:
                size = said.shape[:2]
                pixels, encoding = map_pixels(target, said)
                told = messages.image_message(pixels, encoding, header.stamp, header.frame_id)
                self._maps[task].publish(told)
            else:
                self._maps[task].publish(messages.multi_array(said))
        for task, publisher in self._overlays.items():
            drawn = class_overlay(picture.pixels, answer[task])
            publisher.publish(messages.image_message(drawn, "rgb8", header.stamp, header.frame_id))
        if size is not None and self._fits(picture):
            assert self._camera is not None
            self._info.publish(scaled_info(self._camera, size, header))
        self._scene.publish(String(data=json.dumps(self._summary(picture, answer, times))))

    def _fits(self, picture: Picture) -> bool:
        """Whether the calibration is known, and of pictures of this size."""
        camera = self._camera
        return camera is not None and (camera.height, camera.width) == picture.pixels.shape[:2]

    def _summary(self, picture: Picture, answer: Answers, times: Times) -> dict[str, Any]:
        return {
            "stamp": picture.stamp,
            "frame": picture.header.frame_id,
            "tasks": {task: summary(self._targets[task], said) for task, said in answer.items()},
            **times.said(),
        }


def map_pixels(target: Target, said: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """A map as an image can have it, and its encoding.

    Classes are mono8, index in the names; masks mono8, 255 for sure; values 32FC1 in their unit;
    directions 32FC3, x right, y down, z forward.
    """
    if target.kind == "mask":
        return np.rint(255 * said).astype(np.uint8), "mono8"
    if target.kind == "classes":
        return said, "mono8"
    return np.ascontiguousarray(said, np.float32), "32FC1" if said.ndim == 2 else "32FC3"


def summary(target: Target, said: NDArray[Any]) -> dict[str, Any]:
    """What a task says, in a few JSON values.

    Classes: the share of pixels of each that is seen. Masks: the share of pixels that are more
    likely in than out. Values: least, mean and greatest. Directions: their mean. Numbers: each.
    """
    if target.kind == "classes":
        counts = np.bincount(said.ravel(), minlength=len(target.names)) / said.size
        names = zip(target.names, counts.tolist(), strict=True)
        return {"shares": {name: round(share, 4) for name, share in names if share > 0}}
    if target.kind == "mask":
        return {"share": round(float((said > 0.5).mean()), 4)}
    if target.kind == "directions":
        return {"mean": [round(x, 4) for x in said.mean((0, 1)).tolist()]}
    if target.kind == "numbers":
        return dict(zip(target.names, (round(x, 4) for x in said.tolist()), strict=True))
    span = {"least": said.min(), "mean": said.mean(), "greatest": said.max()}
    return {**{name: round(float(x), 4) for name, x in span.items()}, "unit": target.unit}


def scaled_info(camera: CameraInfo, size: tuple[int, int], header: Header) -> CameraInfo:
    """The calibration of a camera for its picture resized.

    Pixel k of a row of n is seen from k - 1/2 to k + 1/2, so that middles of pictures stay middles:
    cx becomes s (cx + 1/2) - 1/2. Distortion is of rays and stays as it is.

    Args:
        camera: for the picture as it came.
        size: height and width of the resized one.
        header: of the message that is made.
    """
    down, across = size[0] / camera.height, size[1] / camera.width
    made = copy.deepcopy(camera)
    made.header = header
    made.height, made.width = size
    # Image coordinates (u, v, 1) of the large picture to those of the small one.
    resize = np.array(
        [[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]], np.float64
    )
    made.k = (resize @ np.reshape(camera.k, (3, 3))).ravel()
    made.p = (resize @ np.reshape(camera.p, (3, 4))).ravel()
    return made
