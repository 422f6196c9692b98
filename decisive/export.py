"""`decisive export`: a classifier as files that programs without this package can run."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from decisive.arguments import Flag, parse

if TYPE_CHECKING:
    from perception.checkpoint import SavedClassifier

NETWORKS = {"onnxruntime": ("model.onnx",), "openvino": ("model.xml", "model.bin")}
CONFIG = "config.json"
TOLERANCE = 1e-3
"""Largest difference of a logit from torch's, as a share of the largest logit."""


@dataclass(frozen=True)
class Arguments:
    r"""Write an image classifier as ONNX, or as OpenVINO's model.xml and model.bin.

    The folder gets the network and config.json: the classes of each task in order of the logits,
    the size of the images, and the mean and std that normalise them. The network is read back and
    compared with the checkpoint before the folder appears.

    Examples:
      decisive export runs/rooms --out exported
      decisive export runs/rooms --out exported --backend openvino --json
    """

    checkpoint: Annotated[str, tyro.conf.arg(name="CHECKPOINT", metavar=""), tyro.conf.Positional]
    """Checkpoint folder, or name of a shipped classifier."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write; an earlier export in it is replaced."""
    backend: Literal["onnxruntime", "openvino"] = "onnxruntime"
    """What shall run it: onnxruntime and others that read ONNX, or openvino."""
    json: Annotated[Flag, tyro.conf.arg(help="Print one JSON object instead of lines.")] = False


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "export")
    out = Path(arguments.out)
    check_replaceable(out)
    from perception.checkpoint import load_classifier

    started = time.perf_counter()
    saved = load_classifier(arguments.checkpoint)
    difference = export(saved, out, arguments.backend)
    files = [*NETWORKS[arguments.backend], CONFIG]
    result: dict[str, Any] = {
        "checkpoint": arguments.checkpoint,
        "backend": arguments.backend,
        "out": str(out),
        "files": files,
        "bytes": sum((out / name).stat().st_size for name in files),
        "difference": difference,
        "seconds": round(time.perf_counter() - started, 1),
    }
    if arguments.json:
        print(json.dumps(result))
        return 0
    print(f"{out}: {', '.join(files)}, {result['bytes'] / 1e6:.1f} MB")
    print(f"logits differ from the checkpoint's by at most {difference:.1e}")
    return 0


def check_replaceable(out: Path) -> None:
    """Refuse to replace a folder that holds anything but an earlier export.

    Raises:
        ValueError: naming what is in the way.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"--out must be a folder, {out} is a file")
    known = {CONFIG, *(name for names in NETWORKS.values() for name in names)}
    if others := sorted({path.name for path in out.iterdir()} - known):
        raise ValueError(
            f"--out {out} holds {', '.join(others[:3])}, which no export wrote; "
            "name a new or empty folder"
        )


def export(saved: SavedClassifier, out: Path, backend: Literal["onnxruntime", "openvino"]) -> float:
    """Write the folder in one step.

    Args:
        saved: the classifier.
        out: the folder; replaced if it is there.
        backend: that shall run it.

    Returns:
        The largest difference of a logit from torch's, on a fixed picture.

    Raises:
        ValueError: if the backend is not installed, or the network says something else than the
            checkpoint.
        OSError: if the folder cannot be written.
    """
    import torch

    from learning.atomic import new_folder
    from perception.runtime import choose_backend

    choose_backend(backend, torch.device("cpu"))
    with new_folder(out) as beside:
        difference = _write_network(saved, beside, backend)
        text = json.dumps(description(saved, backend), indent=2)
        (beside / CONFIG).write_text(text + "\n", encoding="utf-8")
    return difference


def description(
    saved: SavedClassifier, backend: Literal["onnxruntime", "openvino"]
) -> dict[str, Any]:
    """What config.json says: all that a program needs beside the network."""
    return {
        "format": 1,
        "network": NETWORKS[backend][0],
        "backbone": saved.backbone,
        "input": {
            "name": "images",
            "shape": ["batch", len(saved.mean), *saved.size],
            "dtype": "float32",
            "preprocessing": "resize to the shape, antialiased; values from 0 to 1; channels in "
            "the order of the training images; (value - mean) / std",
            "mean": list(saved.mean),
            "std": list(saved.std),
        },
        "output": {
            "name": "logits",
            "shape": ["batch", saved.n_classes],
            "meaning": "one task after the other, its classes in order; softmax over each task",
        },
        "tasks": {task: list(classes) for task, classes in saved.tasks.items()},
        "scores": dict(saved.scores),
    }


def _write_network(
    saved: SavedClassifier, folder: Path, backend: Literal["onnxruntime", "openvino"]
) -> float:
    import numpy as np

    from perception import runtime_backends as backends

    shape = (len(saved.mean), *saved.size)
    path = folder / NETWORKS[backend][0]
    if backend == "onnxruntime":
        backends.write_onnx(saved.model, shape, path)
        run = backends.read_onnx(path)
    else:
        backends.write_openvino(saved.model, shape, path)
        run = backends.read_openvino(path)
    probe = backends.probe(shape)
    right, found = backends.torch_run(saved.model)(probe), run(probe)
    difference = float(np.abs(right - found).max())
    # The negation catches NaN.
    if not difference <= TOLERANCE * max(float(np.abs(right).max()), 1e-3):
        raise ValueError(f"the exported network's logits differ by {difference:.2g}; not written")
    return difference
