"""What runs a network: torch, OpenVINO or ONNX Runtime, behind the same three functions.

OpenVINO and ONNX both start from `torch.export`, which follows tensors and not one run: traced
networks that keep tables between calls were refused by OpenVINO, and `Tensor.mT` was unknown to it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Backend = Literal["torch", "onnxruntime", "openvino"]
Precision = Literal["float32", "bfloat16"]
Images = NDArray[np.float32]
Logits = NDArray[np.float32]
Run = Callable[[Images], Logits]
Build = Callable[[Precision], tuple[bytes, Run]]
Shape = tuple[int, int, int]

MODULES: dict[Backend, tuple[str, ...]] = {
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino",),
}
"""What a backend takes. ONNX Runtime alone reads networks; `torch.onnx` needs the others."""

MOST_IMAGES = 65_536  # Of a batch; torch.export wants a bound.


@dataclass(frozen=True)
class _Backend:
    prepare: Callable[[nn.Module, Shape, int], Build]
    load: Callable[[bytes, int, Precision], Run]


def torch_run(model: nn.Module) -> Run:
    """The model itself, on its device and in its precision, from arrays to arrays."""
    weight = next(model.parameters(), torch.empty(0))

    @torch.inference_mode()
    def run(images: Images) -> Logits:
        tensor = torch.as_tensor(images).to(weight.device, weight.dtype)
        return model(tensor).float().cpu().numpy()

    return run


def _prepare_torch(model: nn.Module, shape: Shape, threads: int) -> Build:
    def build(precision: Precision) -> tuple[bytes, Run]:
        if precision == "float32":
            return b"", torch_run(model)
        return b"", torch_run(copy.deepcopy(model).to(torch.bfloat16))

    return build


def _load_torch(blob: bytes, threads: int, precision: Precision) -> Run:
    raise RuntimeError("torch keeps no compiled networks")


def _package(name: str) -> Any:
    # Optional, without types, and imported late: each takes a second.
    return importlib.import_module(name)


def openvino_model(model: nn.Module, shape: Shape, batch: int = -1) -> Any:
    """An `openvino.Model`: `images` `(batch, C, H, W)` to `logits`; -1 takes any number of them."""
    openvino = _package("openvino")

    program = exported(model, shape)
    with _quiet():
        network = openvino.convert_model(program)
    # torch.export leaves the sides open here; known ones make a faster network.
    network.reshape([batch, *shape])
    network.inputs[0].get_tensor().set_names({"images"})
    network.outputs[0].get_tensor().set_names({"logits"})
    return network


def write_openvino(model: nn.Module, shape: Shape, path: Path) -> None:
    """Write an `.xml` and a `.bin` beside it, in float32."""
    openvino = _package("openvino")

    openvino.save_model(openvino_model(model, shape), str(path), compress_to_fp16=False)


def read_openvino(path: Path) -> Run:
    """A network of OpenVINO with one thread."""
    settings = _openvino_settings(1, "float32")
    return _openvino_run(_openvino_core().compile_model(str(path), "CPU", settings))


@functools.cache
def _openvino_core() -> Any:
    """The only one of this process, never let go.

    Each Core gives the thread that makes it an alternative signal stack of its own, and puts the
    older one back when it ends. Of two that do not end in reverse order, the second puts back the
    stack of the first, which is gone: the next signal with a handler, such as Ctrl-C, is a
    segmentation fault.
    """
    return _package("openvino").Core()


def _openvino_settings(threads: int, precision: Precision) -> dict[str, Any]:
    # Float32 is asked for too, of what is read as well: where a CPU has bfloat16, OpenVINO lowers
    # the precision by itself.
    return {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
    }


def _prepare_openvino(model: nn.Module, shape: Shape, threads: int) -> Build:
    # One image a call, whatever the batch: at 224 px a network for any number of images took 4 to
    # 12 % longer for one (EfficientNetV2-B0, ViT-B/16 with a TokenLearner), and 5 to 15 % longer
    # for four than four calls of this one.
    network = openvino_model(model, shape, batch=1)

    def build(precision: Precision) -> tuple[bytes, Run]:
        settings = _openvino_settings(threads, precision)
        compiled = _openvino_core().compile_model(network, "CPU", settings)
        return _stored(compiled.export_model()), _one_by_one(_openvino_run(compiled))

    return build


def _stored(stream: Any) -> bytes:
    return stream if isinstance(stream, bytes) else stream.getvalue()


def _load_openvino(blob: bytes, threads: int, precision: Precision) -> Run:
    settings = _openvino_settings(threads, precision)
    return _one_by_one(_openvino_run(_openvino_core().import_model(blob, "CPU", settings)))


def _one_by_one(run: Run) -> Run:
    def run_all(images: Images) -> Logits:
        return np.concatenate([run(images[i : i + 1]) for i in range(len(images))])

    return run_all


def _openvino_run(compiled: Any) -> Run:
    request = compiled.create_infer_request()

    def run(images: Images) -> Logits:
        # A copy: the request writes the next answer where this one lies.
        return np.array(request.infer([images])[0], np.float32)

    return run


def write_onnx(model: nn.Module, shape: Shape, path: Path) -> None:
    """Write an ONNX network: `images` `(batch, C, H, W)` to `logits` `(batch, n)`."""
    with _quiet():
        program = torch.onnx.export(
            exported(model, shape),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        # One file; beyond 2 GB the format itself needs a second.
        program.save(str(path), external_data=False)


def read_onnx(path: Path) -> Run:
    """An ONNX network with one thread."""
    return _onnxruntime_run(_session(str(path), 1))


def _prepare_onnxruntime(model: nn.Module, shape: Shape, threads: int) -> Build:
    def build(precision: Precision) -> tuple[bytes, Run]:
        with tempfile.TemporaryDirectory() as folder:
            path, optimised = Path(folder, "model.onnx"), Path(folder, "optimised.onnx")
            write_onnx(model, shape, path)
            _session(str(path), threads, optimised)
            blob = optimised.read_bytes()
        return blob, _load_onnxruntime(blob, threads, precision)

    return build


def _load_onnxruntime(blob: bytes, threads: int, precision: Precision) -> Run:
    return _onnxruntime_run(_session(blob, threads))


def _onnxruntime_run(session: Any) -> Run:
    def run(images: Images) -> Logits:
        return session.run(None, {"images": images})[0]

    return run


def _session(source: str | bytes, threads: int, keep: Path | None = None) -> Any:
    onnxruntime = _package("onnxruntime")

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # Errors; it warns that what it keeps fits this CPU only.
    if keep is None:
        # What is kept is optimised already.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    else:
        options.optimized_model_filepath = str(keep)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # Its errors have no base class of their own.
        raise RuntimeError(f"ONNX Runtime refused the network: {error}") from error


def probe(shape: Shape) -> Images:
    """A fixed picture `(1, C, H, W)`, each value different from its neighbours."""
    values = np.cos(np.arange(np.prod(shape), dtype=np.float64))
    return values.astype(np.float32).reshape(1, *shape)


def exported(model: nn.Module, shape: Shape) -> torch.export.ExportedProgram:
    """The network as `torch.export` sees it, for any number of images of one shape."""
    # Two images: torch takes a size of 1 for a constant.
    images = torch.zeros(2, *shape)
    batch = torch.export.Dim("batch", min=1, max=MOST_IMAGES)
    with _quiet(), torch.no_grad():
        return torch.export.export(model, (images,), dynamic_shapes=({0: batch},))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporters say about each other."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


BACKENDS: dict[Backend, _Backend] = {
    "torch": _Backend(_prepare_torch, _load_torch),
    "onnxruntime": _Backend(_prepare_onnxruntime, _load_onnxruntime),
    "openvino": _Backend(_prepare_openvino, _load_openvino),
}
