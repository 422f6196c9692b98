"""Compiled networks on disk, one file each.

A file is the SHA-256 of the rest, a line of JSON, and what the backend wrote. It is checked before
a backend sees it, because some end the process on a damaged file.
"""

import hashlib
import json
import logging
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from learning.atomic import new_file

FORMAT = 1
_DIGEST = 64  # Hexadecimal digits of a SHA-256.
_PACKAGES = ("torch", "openvino", "onnxruntime", "onnx", "onnxscript")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A compiled network.

    Attributes:
        facts: JSON values: precision, why, cosine, agreement.
        logits: that torch gave for a fixed picture when it was compiled.
        blob: as the backend reads it again.
    """

    facts: dict[str, Any]
    logits: list[float]
    blob: bytes


def key_of(
    model: nn.Module,
    shape: tuple[int, int, int],
    wish: tuple[Any, ...],
    calibration: NDArray[np.float32] | None,
) -> str:
    """Name of a file: a hash of all that a compiled network depends on.

    Args:
        model: its weights, configuration and layers count.
        shape: `(C, H, W)` of an image.
        wish: backend, precision and other settings.
        calibration: frames that the precision was chosen on.
    """
    digest = hashlib.sha256()
    versions = [_version(name) for name in _PACKAGES]
    machine = (platform.machine(), sorted(torch.cpu.get_capabilities().items()))
    config = getattr(model, "config", None)
    for part in (FORMAT, shape, wish, versions, machine, type(model).__name__, config, model):
        digest.update(f"{part!r}\n".encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    if calibration is not None:
        digest.update(f"{calibration.shape}".encode())
        digest.update(np.ascontiguousarray(calibration).data)
    return f"{digest.hexdigest()[:32]}.compiled"


def read_entry(path: Path) -> Entry | None:
    """What lies at a path; None if nothing does. What is damaged is thrown away."""
    try:
        with open(path, "rb") as file:
            expected, line, blob = file.read(_DIGEST), file.readline(), file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("%s could not be read: %s", path, error)
        return None
    digest = hashlib.sha256(line)
    digest.update(blob)
    if digest.hexdigest().encode() != expected:
        _log.warning("%s is damaged; compiling anew", path)
        forget(path)
        return None
    document = json.loads(line)
    return Entry(document["facts"], document["logits"], blob)


def write_entry(path: Path, entry: Entry) -> None:
    """Write a file in one step; where that cannot be, the next start takes longer, no more."""
    line = json.dumps({"facts": entry.facts, "logits": entry.logits}).encode() + b"\n"
    digest = hashlib.sha256(line)
    digest.update(entry.blob)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In pieces: the network may take a good part of a robot's memory.
        with new_file(path) as beside, open(beside, "wb") as file:
            file.writelines((digest.hexdigest().encode(), line, entry.blob))
    except OSError as error:
        _log.warning("the compiled network could not be kept: %s", error)


def forget(path: Path) -> None:
    """Remove a file that is of no use."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s could not be removed: %s", path, error)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
