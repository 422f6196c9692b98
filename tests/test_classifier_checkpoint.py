"""Classifiers on disk: preprocessing, labels, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from learning.checkpoint import CheckpointError
from perception import checkpoint, create
from perception.checkpoint import SavedClassifier, load_classifier, save_classifier

BACKBONE = "vit_s16"
OVERRIDES = {"width": 16, "depth": 2, "heads": 2, "patch": 8, "image": 16}
TASKS = {"room": ("kitchen", "bath", "hall"), "light": ("off", "on")}


def classifier(**changes: Any) -> SavedClassifier:
    torch.manual_seed(0)
    channels = len(changes.get("mean", (0.0,) * 3))
    model = create(BACKBONE, n_classes=5, in_channels=channels, **OVERRIDES).eval()
    values: dict[str, Any] = {
        "model": model,
        "backbone": BACKBONE,
        "overrides": OVERRIDES,
        "tasks": TASKS,
        "size": (16, 16),
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
    }
    return SavedClassifier(**values | changes)


def test_bytes_are_scaled_normalised_and_put_channels_first() -> None:
    saved = classifier(size=(1, 2), mean=(0.0, 0.2, 0.4), std=(1.0, 0.5, 0.2))
    image = np.array([[[[255, 51, 0], [0, 102, 153]]]], np.uint8)
    expected = [[[[1.0, 0.0]], [[0.0, 0.4]], [[-2.0, 1.0]]]]
    found = saved.tensor(image)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_shrinking_averages_and_does_not_pick() -> None:
    # A board of black and white pixels is grey; plain bilinear sampling may take one colour.
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    images = np.repeat(board[None, :, :, None], 3, axis=-1)
    found = classifier(size=(4, 4)).tensor(images)
    np.testing.assert_allclose(found, 0.5, atol=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_and_bytes_of_one_picture_are_the_same(dtype: type) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    saved = classifier()
    floats: np.ndarray = (images / 255).astype(dtype)
    before = floats.copy()
    np.testing.assert_allclose(saved.tensor(floats), saved.tensor(images), atol=1e-6)
    np.testing.assert_array_equal(floats, before)


@pytest.mark.parametrize("size", [(16, 16), (50, 7), (40, 90)])
def test_strips_give_what_the_whole_image_gives(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_STRIP", 3 * 30)
    images = np.random.default_rng(1).random((2, 40, 30, 3), np.float32)
    whole = torch.from_numpy(images).movedim(-1, 1)
    expected = F.interpolate(whole, size, mode="bilinear", antialias=True)
    np.testing.assert_allclose(classifier(size=size).tensor(images), expected, atol=1e-5)


def test_a_picture_of_8000_pixels_is_resized() -> None:
    image = np.zeros((1, 1000, 8000, 3), np.uint8)
    image[:, :, 4000:] = 255
    found = classifier().tensor(image)
    np.testing.assert_allclose(found[..., :7], 0, atol=1e-6)
    np.testing.assert_allclose(found[..., 9:], 1, atol=1e-5)


def test_rounding_beyond_0_and_1_is_cut_off() -> None:
    images = np.full((1, 16, 16, 3), 1.0005, np.float32)
    images[:, :8] = -0.0005
    found = classifier().tensor(images)
    assert (float(found.min()), float(found.max())) == (0, 1)


def test_memory_that_may_not_be_written_is_taken() -> None:
    images = np.zeros((1, 16, 16, 3), np.float32)
    images.setflags(write=False)
    assert not classifier().tensor(images).any()


def pixels(value: float) -> np.ndarray:
    images = np.zeros((1, 4, 4, 3))
    images[0, 1, 2, 0] = value
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8), np.uint8), r"np\.repeat\(images\[\.\.\., None\], 3"),
        (np.zeros((8, 8, 3), np.uint8), r"images\[None\]"),
        (np.zeros((2, 8, 8, 1), np.uint8), r"\(B, H, W, 3\), got \(2, 8, 8, 1\)"),
        (np.zeros((2, 3, 8, 8, 3), np.uint8), r"\(B, H, W, 3\), got"),
        (np.zeros((1, 0, 8, 3), np.uint8), "must have pixels"),
        (np.zeros((0, 8, 8, 3), np.uint8), "must have pixels"),
        (np.zeros((1, 1, 20_000, 3), np.uint8), "at most 16384 pixels"),
        (np.zeros((1, 20_000, 1, 3), np.uint8), "at most 16384 pixels"),
        (np.zeros((1, 4, 4, 3), np.int64), "got int64"),
        (np.zeros((1, 4, 4, 3), np.float16), "got float16"),
        (np.zeros((1, 4, 4, 3), bool), "got bool"),
        (pixels(np.nan), "must be finite"),
        (pixels(np.inf), "must be finite"),
        (pixels(-np.inf), "must be finite"),
        (pixels(255.0), "divide by 255"),
        (pixels(-0.01), "from 0 to 1, got -0.01"),
    ],
)
def test_bad_images_are_refused(images: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier().tensor(images)


def test_logits_become_names_and_probabilities() -> None:
    # e^ln(2) : e^0 : e^ln(5) is 2 : 1 : 5; each task is a softmax of its own.
    logits = np.log([[2.0, 1.0, 5.0, 1.0, 3.0]])
    (answer,) = classifier().read(logits)
    assert list(answer) == ["room", "light"]
    assert answer["room"] == pytest.approx({"kitchen": 0.25, "bath": 0.125, "hall": 0.625})
    assert answer["light"] == pytest.approx({"off": 0.25, "on": 0.75})


def test_large_logits_do_not_overflow() -> None:
    (answer,) = classifier().read(torch.tensor([[1e4, 0, 0, -1e4, 0]]))
    assert answer["room"]["kitchen"] == 1
    assert answer["light"] == {"off": 0, "on": 1}


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((1, 4)), r"\(B, 5\), got \(1, 4\)"),
        (np.zeros(5), r"\(B, 5\), got \(5,\)"),
        (np.full((1, 5), np.nan), "finite"),
    ],
)
def test_bad_logits_are_refused(logits: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier().read(logits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {}}, "at least one task"),
        ({"tasks": {"room": "kitchen"}}, "tuple of names"),
        ({"tasks": {"room": ("a",)}}, "two or more"),
        ({"tasks": {"room": ("a", "a")}}, "all different"),
        ({"size": (0, 16)}, "size must be"),
        ({"size": (16,)}, "size must be"),
        ({"size": (16, 20_000)}, "size must be"),
        ({"mean": ()}, "for each channel"),
        ({"std": (1.0, 1.0)}, "got 3 and 2"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"mean": (0.0, float("nan"), 0.0)}, "mean must be finite"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(classifier(), **changes)


def test_a_classifier_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = classifier(size=(24, 16), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    saved = replace(saved, scores={"room": {"accuracy": 0.75, "of": 40}})
    save_classifier(tmp_path / "c", saved, "# Rooms\n")
    loaded = load_classifier(tmp_path / "c")
    assert not loaded.model.training
    for name in ("backbone", "overrides", "tasks", "size", "mean", "std", "scores"):
        assert getattr(loaded, name) == getattr(saved, name)
    images = np.random.default_rng(0).integers(0, 256, (2, 30, 20, 3), dtype=np.uint8)
    with torch.inference_mode():
        logits = [one.model(one.tensor(images)) for one in (saved, loaded)]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=0)
    assert (tmp_path / "c" / "README.md").read_text() == "# Rooms\n"


def test_tuples_of_a_configuration_survive_json(tmp_path: Path) -> None:
    overrides: dict[str, Any] = {
        "widths": (8, 8, 32, 32),
        "depths": (1, 1, 1, 1),
        "stem_width": 8,
        "pre_logits": 16,
        "image_size": (32, 32),
    }
    model = create("coatnet_0", n_classes=5, **overrides).eval()
    save_classifier(
        tmp_path / "c", classifier(model=model, backbone="coatnet_0", overrides=overrides), ""
    )
    assert load_classifier(tmp_path / "c").model.config == model.config


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    save_classifier(tmp_path / "c", classifier(mean=(0.5,), std=(0.5,)), "")
    loaded = load_classifier(tmp_path / "c")
    grey = loaded.tensor(np.full((1, 16, 16, 1), 255, np.uint8))
    assert grey.shape == (1, 1, 16, 16)
    assert loaded.model(grey).shape == (1, 5)


@pytest.mark.parametrize(
    "changes",
    [{"overrides": {}}, {"tasks": {"room": ("a", "b")}}, {"mean": (0.0,), "std": (1.0,)}],
)
def test_what_could_not_be_read_back_is_not_written(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="other names or shapes"):
        save_classifier(tmp_path / "c", replace(classifier(), **changes), "")
    assert not (tmp_path / "c").exists()


def test_an_unknown_name_lists_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINTS", tmp_path)
    save_classifier(tmp_path / "rooms", classifier(), "")
    assert load_classifier("rooms").tasks == TASKS
    with pytest.raises(CheckpointError, match=r"no classifier 'romos'.*shipped: rooms"):
        load_classifier("romos")


def _drop(part: str, key: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: document[part].pop(key)


def _set(part: str, key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document[part].update({key: value})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop("spec", "tasks"), "tasks"),
        (_drop("config", "backbone"), "backbone"),
        (_set("config", "backbone", "vit_zzz"), "unknown backbone"),
        (_set("config", "overrides", {"width": "wide"}), "not the config"),
        (_set("config", "overrides", {"n_classes": 3}), "n_classes"),
        (_set("config", "overrides", []), "not the config"),
        (_set("spec", "size", 16), "not the config"),
        (_set("spec", "std", [1, 1, 0]), "std must be positive"),
        (_set("spec", "mean", ["a", 0, 0]), "mean must be finite"),
        (_set("spec", "tasks", {"room": ["a", "b"]}), "must be"),
        (lambda document: document.update(method="ibc"), "holds 'ibc', not a classifier"),
    ],
)
def test_a_broken_document_gives_one_line(
    damage: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    save_classifier(tmp_path / "c", classifier(), "")
    path = tmp_path / "c" / "config.json"
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=message) as error:
        load_classifier(tmp_path / "c")
    assert "\n" not in str(error.value)
