"""Networks on a robot's computer: compiled once, kept on disk, checked before they are trusted.

`compile_model` makes a function from images to logits. torch works alone; OpenVINO and ONNX Runtime
are taken where they are installed (extra `runtime`). Half precision is taken only where the CPU
multiplies it in hardware and the network, with its trained weights, says the same on real frames.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from learning.precision import has_bfloat16
from perception.runtime_backends import (
    BACKENDS,
    MODULES,
    Backend,
    Build,
    Images,
    Logits,
    Precision,
    probe,
    torch_run,
)
from perception.runtime_cache import Entry, forget, key_of, read_entry, write_entry

LEAST_COSINE, LEAST_AGREEMENT = 0.995, 0.99
"""Parity with float32 below which half precision is refused."""


@dataclass(frozen=True)
class RuntimeConfig:
    """How to run a network.

    Attributes:
        backend: "auto" takes OpenVINO, else ONNX Runtime, else torch, as they are installed.
        precision: "bfloat16" and "auto" take bfloat16 where the CPU has it and parity holds, else
            float32.
        force: take bfloat16 whatever the CPU and parity say; for benchmarks.
        threads: of the backend; torch's are the process's own and stay as they are.
        task_sizes: classes of each task, one after the other in the logits: the most probable
            class of every task is compared. Empty means one task.
        cache: folder of compiled networks; None compiles anew each time.
    """

    backend: Backend | Literal["auto"] = "auto"
    precision: Precision | Literal["auto"] = "auto"
    force: bool = False
    threads: int = 1
    task_sizes: tuple[int, ...] = ()
    cache: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what no backend can do."""
        if self.backend not in ("auto", *BACKENDS):
            raise ValueError(f"backend must be auto, {', '.join(BACKENDS)}, got {self.backend!r}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision must be auto, float32 or bfloat16, got {self.precision!r}")
        if self.force and self.precision != "bfloat16":
            raise ValueError(f"force needs precision bfloat16, got {self.precision!r}")
        if not 1 <= self.threads <= 1024:
            raise ValueError(f"threads must be in 1..1024, got {self.threads}")
        if any(size < 1 for size in self.task_sizes):
            raise ValueError(f"task_sizes must be at least 1, got {self.task_sizes}")


@dataclass(frozen=True)
class Parity:
    """How well two functions agree on the same frames.

    Attributes:
        cosine: of the logits, the least of all frames; 1 is the same direction.
        agreement: share of frames and tasks whose most probable class is the same.
    """

    cosine: float
    agreement: float

    @property
    def holds(self) -> bool:
        """Whether the second may replace the first. NaN never may."""
        return self.cosine >= LEAST_COSINE and self.agreement >= LEAST_AGREEMENT


@dataclass(frozen=True)
class Report:
    """What `compile_model` did.

    Attributes:
        backend: that runs.
        precision: that it computes in.
        why: this precision and no other.
        cosine: of bfloat16 with float32 on the calibration frames; None where not tried.
        agreement: of the same two; None where not tried.
        seconds: that compiling or reading took, wall time.
        cached: whether the network was read from the cache.
    """

    backend: Backend
    precision: Precision
    why: str
    cosine: float | None
    agreement: float | None
    seconds: float
    cached: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


class Compiled:
    """A compiled network: `(B, C, H, W)` images to `(B, n)` logits, for any B.

    Attributes:
        shape: `(C, H, W)` of one image.
        report: what runs, and why.
    """

    def __init__(
        self, run: Callable[[Images], Logits], shape: tuple[int, int, int], report: Report
    ) -> None:
        """Wrap a function; see `compile_model`."""
        self._run = run
        self.shape = shape
        self.report = report

    def __call__(self, images: Images) -> Logits:
        """Logits `(B, n)` float32 of images `(B, C, H, W)` float32.

        Raises:
            ValueError: for another shape or kind.
        """
        _check_batch(images, self.shape)
        return self._run(np.ascontiguousarray(images))


def compile_model(
    model: nn.Module,
    example: Images,
    config: RuntimeConfig | None = None,
    calibration: Images | None = None,
) -> Compiled:
    """Make a network fast on the machine at hand. The model itself stays as it is.

    A model on a GPU runs with torch, whatever "auto" would take on a CPU.

    Args:
        model: in evaluation mode; takes `(B, C, H, W)`, gives `(B, n)`.
        example: `(B, C, H, W)` float32; only its shape without B counts.
        config: how to run it; None takes the defaults.
        calibration: real frames `(N, C, H, W)`, preprocessed, for the parity of bfloat16. Without
            any, float32 is taken.

    Raises:
        ValueError: for a model in training mode, an example that is no batch of images, a backend
            that is not installed, or one that cannot run a model on a GPU.
    """
    config = config or RuntimeConfig()
    started = time.perf_counter()
    if model.training:
        raise ValueError("model must be in evaluation mode, got one in training; call model.eval()")
    if example.ndim != 4:
        raise ValueError(f"example must be (B, C, H, W), got {example.shape}")
    shape = (int(example.shape[1]), int(example.shape[2]), int(example.shape[3]))
    _check_batch(example, shape, "example")
    if calibration is not None:
        _check_batch(calibration, shape, "calibration")
    backend = choose_backend(config.backend, _device(model))
    if backend == "torch" or config.cache is None:
        entry, run = _compile(model, shape, config, calibration, backend)
        cached = False
    else:
        entry, run, cached = _cached(model, shape, config, calibration, backend, config.cache)
    report = Report(
        backend=backend, seconds=time.perf_counter() - started, cached=cached, **entry.facts
    )
    return Compiled(run, shape, report)


def installed(backend: Backend) -> bool:
    """Whether a backend can be used here: all the packages that it takes can be found."""
    return all(importlib.util.find_spec(name) is not None for name in MODULES[backend])


def choose_backend(wanted: Backend | Literal["auto"], device: torch.device) -> Backend:
    """The backend for a model on a device.

    Raises:
        ValueError: if the wanted one is not installed, or the device is not a CPU and it needs one.
    """
    if wanted == "auto":
        if device.type != "cpu":
            return "torch"
        order: tuple[Backend, ...] = ("openvino", "onnxruntime", "torch")
        return next(backend for backend in order if installed(backend))
    if not installed(wanted):
        raise ValueError(
            f"backend {wanted} needs {', '.join(MODULES[wanted])}, not all installed here; "
            'pip install "decisive[runtime]"'
        )
    if wanted != "torch" and device.type != "cpu":
        raise ValueError(
            f"backend {wanted} runs on the CPU, the model is on {device}; "
            "move it with model.cpu(), or take backend torch"
        )
    return wanted


def parity(
    reference: Callable[[Images], Logits],
    candidate: Callable[[Images], Logits],
    frames: Images,
    task_sizes: tuple[int, ...] = (),
) -> Parity:
    """Compare two functions on the same frames, 8 frames at a time.

    Args:
        reference: is right.
        candidate: might replace it.
        frames: `(N, C, H, W)`.
        task_sizes: classes of each task; empty means one task.

    Raises:
        ValueError: if the tasks do not make up the logits.
    """
    batches = [frames[start : start + 8] for start in range(0, len(frames), 8)]
    right = np.concatenate([reference(batch) for batch in batches]).astype(np.float64)
    found = np.concatenate([candidate(batch) for batch in batches]).astype(np.float64)
    sizes = task_sizes or (right.shape[1],)
    if sum(sizes) != right.shape[1]:
        raise ValueError(f"task_sizes must add up to {right.shape[1]} logits, got {task_sizes}")
    if not np.isfinite(found).all():
        return Parity(float("nan"), 0.0)
    norms = np.linalg.norm(right, axis=1) * np.linalg.norm(found, axis=1)
    products = (right * found).sum(axis=1)
    # Logits of 0 have no direction: only the same agree.
    cosines = np.where(norms > 0, products / np.where(norms > 0, norms, 1), (right == found).all(1))
    ends = np.cumsum(sizes)[:-1]
    same = [
        one.argmax(1) == other.argmax(1)
        for one, other in zip(np.split(right, ends, 1), np.split(found, ends, 1), strict=True)
    ]
    return Parity(float(cosines.min()), float(np.mean(same)))


def _cached(
    model: nn.Module,
    shape: tuple[int, int, int],
    config: RuntimeConfig,
    calibration: Images | None,
    backend: Backend,
    cache: Path,
) -> tuple[Entry, Callable[[Images], Logits], bool]:
    wish = (backend, config.precision, config.force, config.threads, config.task_sizes)
    place = cache / key_of(model, shape, (*wish, LEAST_COSINE, LEAST_AGREEMENT), calibration)
    # The same weights in changed code are another network: torch is asked once.
    truth = torch_run(model)(probe(shape))[0]
    entry = read_entry(place)
    if entry is not None and np.allclose(entry.logits, truth, rtol=1e-3, atol=1e-4):
        try:
            run = BACKENDS[backend].load(entry.blob, config.threads, entry.facts["precision"])
            return entry, run, True
        except RuntimeError:
            forget(place)
    entry, run = _compile(model, shape, config, calibration, backend, truth)
    write_entry(place, entry)
    return entry, run, False


def _compile(
    model: nn.Module,
    shape: tuple[int, int, int],
    config: RuntimeConfig,
    calibration: Images | None,
    backend: Backend,
    truth: Logits | None = None,
) -> tuple[Entry, Callable[[Images], Logits]]:
    """Export once, compile in both precisions where asked, and take what is right."""
    build = BACKENDS[backend].prepare(model, shape, config.threads)
    precision, why, found, half = _choose(model, config, calibration, build, backend)
    blob, run = half if half is not None else build("float32")
    facts = {
        "precision": precision,
        "why": why,
        "cosine": found.cosine if found is not None and np.isfinite(found.cosine) else None,
        "agreement": found.agreement if found is not None else None,
    }
    return Entry(facts, [] if truth is None else truth.tolist(), blob), run


_Choice = tuple[Precision, str, Parity | None, tuple[bytes, Callable[[Images], Logits]] | None]


def _choose(
    model: nn.Module,
    config: RuntimeConfig,
    calibration: Images | None,
    build: Build,
    backend: Backend,
) -> _Choice:
    if config.precision == "float32":
        return "float32", "asked for", None, None
    if backend == "onnxruntime":
        return "float32", "ONNX Runtime has no bfloat16 on CPUs", None, None
    if not config.force:
        if not has_bfloat16(_device(model)):
            return "float32", "no bfloat16 in hardware", None, None
        if calibration is None:
            return "float32", "no calibration frames to compare bfloat16 on", None, None
    half = build("bfloat16")
    reference = torch_run(model)
    found = None
    if calibration is not None:
        found = parity(reference, half[1], calibration, config.task_sizes)
    if config.force:
        return "bfloat16", "forced", found, half
    assert found is not None
    said = f"cosine {found.cosine:.4f}, agreement {found.agreement:.4f} with float32"
    if found.holds:
        return "bfloat16", f"bfloat16 says the same: {said}", found, half
    return "float32", f"bfloat16 refused: {said}", found, None


def _device(model: nn.Module) -> torch.device:
    return next((value.device for value in model.parameters()), torch.device("cpu"))


def _check_batch(images: NDArray[Any], shape: tuple[int, int, int], name: str = "images") -> None:
    wanted = ", ".join(map(str, shape))
    if images.ndim != 4 or images.shape[1:] != shape or not images.size:
        raise ValueError(f"{name} must be (B, {wanted}), got {images.shape}")
    if images.dtype != np.float32:
        raise ValueError(f"{name} must be float32, got {images.dtype}; normalise bytes first")
