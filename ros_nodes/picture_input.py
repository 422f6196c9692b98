"""Pictures of a camera as networks take them, and what networks are to the node `perception`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from perception.checkpoint import MAX_SIDE
from perception.runtime import Report
from ros_nodes import messages
from ros_nodes.box_messages import Boxes

ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")
"""Pictures that are taken. Depths and 16 bit are no colours, and are refused."""

WARM_UP, WARM_UP_SIZE = 3, (480, 640)
"""Runs before the first picture, and its pixels: a first run is slower than the others."""

Open = Callable[[Any, str], Any]
"""Opens a publisher of a kind of message on a topic."""


@dataclass(frozen=True)
class Picture:
    """One picture to be looked at.

    Attributes:
        pixels: `(H, W, C)`.
        header: of the message.
        stamp: of the header, nanoseconds.
        boxes: what a detector found in it, where the node masks boxes of others.
    """

    pixels: NDArray[np.uint8]
    header: Header
    stamp: int
    boxes: Boxes | None = None


@dataclass(frozen=True)
class Times:
    """How long a picture took.

    Attributes:
        ms: of thinking, milliseconds of wall time.
        age_ms: from its stamp to now.
    """

    ms: float
    age_ms: float

    def said(self) -> dict[str, float]:
        """As it goes into JSON."""
        return {"ms": round(self.ms, 3), "age_ms": round(self.age_ms, 3)}


class Eye(Protocol):
    """A network that looks at pictures, compiled and warmed up; knows nothing of topics."""

    @property
    def channels(self) -> int:
        """Of the pictures that it takes, 1 or 3."""
        ...

    @property
    def report(self) -> Report:
        """What runs, and why."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """The same for `/diagnostics`, by name."""
        ...

    def look(self, picture: Picture) -> Any:
        """The answer about one picture."""
        ...


class Voice(Protocol):
    """Says on topics what an eye has seen."""

    def say(self, picture: Picture, answer: Any, times: Times) -> None:
        """Publish one answer under the stamp and frame of its picture."""
        ...


@runtime_checkable
class Listener(Voice, Protocol):
    """A voice that wants the calibration of the camera."""

    def hear(self, message: CameraInfo) -> None:
        """Take the calibration.

        Raises:
            ValueError: for a camera that is not calibrated.
        """
        ...


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
