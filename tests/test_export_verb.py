"""`decisive export`: files that run without this package."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from decisive import cli, export
from perception import create
from perception.checkpoint import SavedClassifier, save_classifier
from perception.runtime import installed
from perception.runtime_backends import Backend

OVERRIDES = {"width": 16, "depth": 1, "heads": 2, "patch": 8, "image": 16}


@pytest.fixture
def saved(tmp_path: Path) -> SavedClassifier:
    torch.manual_seed(0)
    classifier = SavedClassifier(
        model=create("vit_s16", n_classes=5, **OVERRIDES).eval(),
        backbone="vit_s16",
        overrides=OVERRIDES,
        tasks={"room": ("kitchen", "bath", "hall"), "light": ("off", "on")},
        size=(16, 24),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        scores={"room": 0.75},
    )
    save_classifier(tmp_path / "checkpoint", classifier, "")
    return classifier


def words(tmp_path: Path, *more: str) -> list[str]:
    return ["export", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "out"), *more]


def needs(backend: Backend) -> None:
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")


def run_alone(folder: Path, images: np.ndarray) -> np.ndarray:
    """As a program without our package would, from config.json on."""
    config = json.loads((folder / "config.json").read_text())
    mean, std = (np.array(config["input"][name])[:, None, None] for name in ("mean", "std"))
    batch = ((images.transpose(0, 3, 1, 2) / 255 - mean) / std).astype(np.float32)
    assert list(batch.shape[1:]) == config["input"]["shape"][1:]
    network = str(folder / config["network"])
    if network.endswith(".xml"):
        openvino = pytest.importorskip("openvino")

        compiled = openvino.Core().compile_model(
            network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        return compiled({config["input"]["name"]: batch})[config["output"]["name"]]
    onnxruntime = pytest.importorskip("onnxruntime")

    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    return session.run([config["output"]["name"]], {config["input"]["name"]: batch})[0]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_files_alone_say_what_the_checkpoint_says(
    backend: Backend,
    saved: SavedClassifier,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needs(backend)
    assert cli.main(words(tmp_path, "--backend", backend, "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["difference"] < 1e-5
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == sorted(result["files"])
    assert sum(path.stat().st_size for path in out.iterdir()) == result["bytes"]
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
    with torch.inference_mode():
        right = saved.model(saved.tensor(images)).numpy()
    np.testing.assert_allclose(run_alone(out, images), right, atol=1e-5)
    config = json.loads((out / "config.json").read_text())
    assert config["tasks"] == {"room": ["kitchen", "bath", "hall"], "light": ["off", "on"]}
    assert config["scores"] == {"room": 0.75}


def refused(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("decisive export: ")
    assert error.count("\n") == 1, error
    return error


def test_a_folder_with_other_files_is_left_alone(
    saved: SavedClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years")
    assert "thesis.txt" in refused(capsys, words(tmp_path))
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years"
    # A checkpoint is not an export either, though both have a config.json.
    argv = ["export", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "checkpoint")]
    assert "model.safetensors" in refused(capsys, argv)


def test_a_file_in_the_way_is_left_alone(
    saved: SavedClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    assert "is a file" in refused(capsys, words(tmp_path))
    assert (tmp_path / "out").read_text() == "mine"


def test_bad_words_give_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no classifier" in refused(capsys, words(tmp_path))
    assert "--backend" in refused(capsys, words(tmp_path, "--backend", "tvm"))
    assert "--out" in refused(capsys, ["export", "somewhere"])


def test_a_backend_that_is_not_there_leaves_no_folder(
    saved: SavedClassifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("perception.runtime.installed", lambda backend: False)
    assert "needs openvino" in refused(capsys, words(tmp_path, "--backend", "openvino"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_a_network_that_says_something_else_is_not_written(
    error: float,
    saved: SavedClassifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("perception.runtime.installed", lambda backend: True)
    monkeypatch.setattr(
        "perception.runtime_backends.write_onnx", lambda model, shape, path: path.touch()
    )
    wrong = np.full((1, 5), error, np.float32)
    monkeypatch.setattr("perception.runtime_backends.read_onnx", lambda path: lambda images: wrong)
    assert "differ by" in refused(capsys, words(tmp_path))
    assert not (tmp_path / "out").exists()


def test_an_earlier_export_may_be_replaced(tmp_path: Path) -> None:
    for name in ("config.json", "model.xml", "model.bin"):
        (tmp_path / name).touch()
    export.check_replaceable(tmp_path)
    export.check_replaceable(tmp_path / "not there yet")
