"""Compiled networks: they say what torch says, are kept, and half precision must prove itself."""

import copy
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from learning.precision import has_bfloat16
from perception import create, runtime
from perception.runtime import (
    Parity,
    RuntimeConfig,
    choose_backend,
    compile_model,
    installed,
    parity,
)
from perception.runtime_backends import BACKENDS, Backend, Build, Precision, Run, Shape

COMPILERS: tuple[Backend, ...] = ("openvino", "onnxruntime")


class Tiny(nn.Module):
    """Small, with what backbones have: a convolution, statistics of batches, a mean, a layer."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)
        self._scale = scale

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.conv(images)).relu()
        return self.head(x.mean(dim=(2, 3)) * self._scale)


def tiny(scale: float = 1.0) -> Tiny:
    torch.manual_seed(0)
    model = Tiny(scale)
    # Statistics as after training, so that folding them wrongly would show.
    model.norm.running_mean = torch.tensor([0.1, -0.2, 0.3, 0.0])
    model.norm.running_var = torch.tensor([0.5, 1.0, 2.0, 0.1])
    return model.eval()


def frames(n: int = 3, size: int = 10) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3, size, size)).astype(np.float32)


def by_torch(model: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.from_numpy(images)).numpy()


def needs(backend: Backend) -> None:
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")


def test_signals_reach_a_process_in_which_networks_were_compiled_and_let_go(tmp_path: Path) -> None:
    """Two cores of OpenVINO that end as they began leave a signal stack that is gone."""
    needs("openvino")
    code = (
        "import faulthandler, os, signal, sys\n"
        "from test_runtime import RuntimeConfig, compile_model, frames, tiny\n"
        "faulthandler.enable()\n"  # gives the thread a signal stack, as pytest does
        "signal.signal(signal.SIGUSR1, lambda *_: print('heard'))\n"
        "config = RuntimeConfig(backend='openvino', precision='float32', cache=None)\n"
        "made = [compile_model(tiny(scale), frames(1), config) for scale in (1.0, 2.0)]\n"
        "del made[0], made[0]\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    tests = Path(__file__).parent
    path = {"PYTHONPATH": f"{tests.parent}:{tests}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **path, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


# Parity


def constant(*rows: list[float]) -> Run:
    return lambda images: np.array(rows, np.float32)


def test_parity_is_the_least_cosine_and_the_share_of_same_answers() -> None:
    # Row 1 turns by an angle of cosine 0.6 and changes its answer; row 2 only grows.
    found = parity(constant([1, 0], [0, 1]), constant([0.6, 0.8], [0, 2]), frames(2))
    assert found.cosine == pytest.approx(0.6)
    assert found.agreement == 0.5


def test_every_task_is_asked_for_its_own_answer() -> None:
    # Together the largest logit is the first in both; the second task changes its mind.
    right, found = constant([9, 0, 1, 0]), constant([9, 0, 0, 1])
    assert parity(right, found, frames(1)).agreement == 1
    assert parity(right, found, frames(1), (2, 2)).agreement == 0.5
    with pytest.raises(ValueError, match="add up to 4 logits"):
        parity(right, found, frames(1), (2, 1))


def test_all_frames_are_compared_once() -> None:
    seen: list[int] = []

    def count(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return images[:, :, 0, 0]

    found = parity(count, lambda images: images[:, :, 0, 0], frames(19))
    assert found.cosine == pytest.approx(1)
    assert found.agreement == 1
    assert sum(seen) == 19


def test_what_is_not_a_number_never_replaces() -> None:
    found = parity(constant([1, 0]), constant([float("nan"), 0]), frames(1))
    assert not found.holds
    assert found.agreement == 0


@pytest.mark.parametrize(("other", "cosine"), [([0.0, 0.0], 1), ([1.0, 0.0], 0)])
def test_logits_of_zero_agree_with_the_same_alone(other: list[float], cosine: float) -> None:
    assert parity(constant([0, 0]), constant(other), frames(1)).cosine == cosine


@pytest.mark.parametrize(
    ("cosine", "agreement", "holds"),
    [(0.995, 0.99, True), (0.9949, 1.0, False), (1.0, 0.989, False)],
)
def test_both_limits_must_hold(cosine: float, agreement: float, holds: bool) -> None:
    assert Parity(cosine, agreement).holds is holds


# The choice of a precision, with a CPU that pretends to have bfloat16


def with_half(monkeypatch: pytest.MonkeyPatch, change: Callable[[nn.Module], object]) -> None:
    """The torch backend, its half precision the model after a change."""
    monkeypatch.setattr(runtime, "has_bfloat16", lambda device: True)
    original = BACKENDS["torch"]

    def prepare(model: nn.Module, shape: Shape, threads: int) -> Build:
        def build(precision: Precision) -> tuple[bytes, Run]:
            changed = copy.deepcopy(model)
            if precision == "bfloat16":
                change(changed)
            return original.prepare(changed, shape, threads)("float32")

        return build

    monkeypatch.setitem(BACKENDS, "torch", replace(original, prepare=prepare))


AUTO = RuntimeConfig(backend="torch")


def spoil(model: nn.Module) -> None:
    assert isinstance(model, Tiny)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.0, 3.0, 0.0, 0.0, -3.0]))


def test_a_bad_half_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_half(monkeypatch, spoil)
    model = tiny()
    compiled = compile_model(model, frames(), AUTO, calibration=frames(20))
    assert compiled.report.precision == "float32"
    assert compiled.report.why.startswith("bfloat16 refused: cosine")
    assert compiled.report.cosine is not None
    assert compiled.report.cosine < 0.995
    np.testing.assert_array_equal(compiled(frames()), by_torch(model, frames()))


def test_force_takes_a_bad_half_precision_and_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    with_half(monkeypatch, spoil)
    config = RuntimeConfig(backend="torch", precision="bfloat16", force=True)
    report = compile_model(tiny(), frames(), config, calibration=frames(20)).report
    assert (report.precision, report.why) == ("bfloat16", "forced")
    assert report.cosine is not None
    assert report.cosine < 0.995


def test_half_precision_that_says_the_same_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_bfloat16", lambda device: True)
    model = tiny()
    with torch.no_grad():  # Clear answers: rounding shall not turn a tie.
        model.head.bias.copy_(torch.tensor([2.0, 0.0, -1.0, 0.0, 1.0]))
    compiled = compile_model(model, frames(), AUTO, calibration=frames(20))
    report = compiled.report
    assert report.precision == "bfloat16"
    assert report.agreement == 1
    assert report.cosine is not None
    assert 0.995 < report.cosine < 1
    found = compiled(frames())
    assert found.dtype == np.float32
    # Really in half precision: near, but not the same.
    assert 0 < np.abs(found - by_torch(model, frames())).max() < 0.05
    assert next(model.parameters()).dtype == torch.float32


def test_half_precision_wants_hardware_and_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_bfloat16", lambda device: False)
    assert compile_model(tiny(), frames(), AUTO, frames()).report.why == "no bfloat16 in hardware"
    monkeypatch.setattr(runtime, "has_bfloat16", lambda device: True)
    report = compile_model(tiny(), frames(), AUTO).report
    assert report.precision == "float32"
    assert "no calibration frames" in report.why
    asked = compile_model(tiny(), frames(), replace(AUTO, precision="float32"), frames())
    assert asked.report.why == "asked for"


def test_bfloat16_is_found_where_the_cpu_has_it() -> None:
    flags = Path("/proc/cpuinfo")
    if not flags.is_file():
        pytest.skip("no /proc/cpuinfo to compare with")
    words = set(flags.read_text().split())
    expected = bool({"avx512_bf16", "amx_bf16"} & words)
    assert has_bfloat16(torch.device("cpu")) == expected


# Backends


@pytest.mark.parametrize("backend", COMPILERS)
def test_a_compiler_says_what_torch_says_and_keeps_it(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(backend)
    model, images = tiny(), frames(5)
    config = RuntimeConfig(backend=backend, cache=tmp_path)
    first = compile_model(model, images[:1], config)
    assert (first.report.backend, first.report.cached) == (backend, False)
    right = by_torch(model, images)
    np.testing.assert_allclose(first(images), right, atol=1e-5)
    one, other = first(images[:1]), first(images[1:2])  # The second may not overwrite the first.
    np.testing.assert_allclose(np.concatenate((one, other)), right[:2], atol=1e-5)

    second = compile_model(model, images, config)
    assert second.report.cached
    assert replace(second.report, seconds=0, cached=False) == replace(first.report, seconds=0)
    np.testing.assert_allclose(second(images), right, atol=1e-5)

    # From here on compiling is replaced by torch: only whether it is done counts.
    direct = replace(BACKENDS[backend], prepare=BACKENDS["torch"].prepare)
    monkeypatch.setitem(BACKENDS, backend, direct)
    (kept,) = tmp_path.iterdir()
    content = kept.read_bytes()
    for damaged in (content[:-9], b"", content[:900] + b"x" + content[901:]):
        kept.write_bytes(damaged)
        assert not compile_model(model, images, config).report.cached
        assert kept.read_bytes() not in (damaged, content)
    kept.write_bytes(content)
    assert compile_model(model, images, config).report.cached

    # Code that changed under the same weights, configuration and layers.
    changed = compile_model(tiny(scale=2.0), images, config)
    assert not changed.report.cached
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]


@pytest.mark.parametrize("what", ["weights", "shape", "threads", "calibration"])
def test_each_thing_that_matters_has_its_own_file(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "installed", lambda backend: True)
    direct = replace(BACKENDS["openvino"], prepare=BACKENDS["torch"].prepare)
    monkeypatch.setitem(BACKENDS, "openvino", direct)
    config = RuntimeConfig(backend="openvino", cache=tmp_path, precision="float32")
    model = tiny()
    compile_model(model, frames(), config)
    assert len(list(tmp_path.iterdir())) == 1
    images, calibration = frames(), None
    if what == "weights":
        with torch.no_grad():
            model.conv.weight += 1e-3
    elif what == "shape":
        images = frames(size=12)
    elif what == "threads":
        config = replace(config, threads=2)
    else:
        calibration = frames(2)
    assert not compile_model(model, images, config, calibration).report.cached
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_said_and_borne(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime, "installed", lambda backend: True)
    direct = replace(BACKENDS["openvino"], prepare=BACKENDS["torch"].prepare)
    monkeypatch.setitem(BACKENDS, "openvino", direct)
    (tmp_path / "file").touch()
    config = RuntimeConfig(backend="openvino", cache=tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        compiled = compile_model(tiny(), frames(), config)
    assert "could not be kept" in caplog.text
    np.testing.assert_array_equal(compiled(frames()), by_torch(tiny(), frames()))


@pytest.mark.slow
@pytest.mark.parametrize("backend", COMPILERS)
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("vit_micro", {}),
        ("vit_micro_tokenlearner", {}),
        ("vit_micro_tokenfuser", {}),
        ("coatnet_mini", {}),
        ("efficientnet_b0", {}),
        ("efficientnetv2_b0_quarter", {}),
    ],
)
def test_every_family_compiles(name: str, overrides: dict[str, Any], backend: Backend) -> None:
    needs(backend)
    torch.manual_seed(0)
    model = create(name, n_classes=7, **overrides).eval()
    images = frames(3, 64)
    right = by_torch(model, images)
    compiled = compile_model(model, images[:1], RuntimeConfig(backend=backend))
    np.testing.assert_allclose(compiled(images), right, atol=1e-4 * np.abs(right).max() + 1e-6)


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (("torch", "onnxruntime", "openvino"), "openvino"),
        (("torch", "onnxruntime"), "onnxruntime"),
        (("torch",), "torch"),
    ],
)
def test_auto_takes_the_fastest_that_is_installed(
    there: tuple[str, ...], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "installed", lambda backend: backend in there)
    assert choose_backend("auto", torch.device("cpu")) == taken
    assert choose_backend("auto", torch.device("cuda")) == "torch"


def test_a_backend_that_cannot_be_had_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "installed", lambda backend: backend != "onnxruntime")
    with pytest.raises(ValueError, match="needs onnxruntime, onnx, onnxscript"):
        choose_backend("onnxruntime", torch.device("cpu"))
    with pytest.raises(ValueError, match="the model is on cuda"):
        choose_backend("openvino", torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_a_gpu_runs_there() -> None:
    model = tiny().cuda()
    compiled = compile_model(model, frames(), RuntimeConfig(precision="float32"))
    assert compiled.report.backend == "torch"
    np.testing.assert_allclose(compiled(frames()), by_torch(tiny(), frames()), atol=1e-3)


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "tvm"}, "backend must be auto, torch"),
        ({"precision": "int8"}, "precision must be auto"),
        ({"force": True}, "force needs precision bfloat16"),
        ({"threads": 0}, "threads must be"),
        ({"task_sizes": (3, 0)}, "task_sizes must be"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RuntimeConfig(**changes)


def test_what_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        compile_model(tiny().train(), frames(), AUTO)
    with pytest.raises(ValueError, match=r"example must be \(B, C, H, W\)"):
        compile_model(tiny(), frames()[0], AUTO)
    with pytest.raises(ValueError, match="calibration must be"):
        compile_model(tiny(), frames(), AUTO, calibration=frames(2, 12))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (frames()[0], r"\(B, 3, 10, 10\), got \(3, 10, 10\)"),
        (frames(1, 12), r"got \(1, 3, 12, 12\)"),
        (frames()[:0], r"got \(0, 3, 10, 10\)"),
        (frames().astype(np.float64), "must be float32, got float64"),
    ],
)
def test_a_compiled_network_refuses_other_images(images: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_model(tiny(), frames(), AUTO)(images)
