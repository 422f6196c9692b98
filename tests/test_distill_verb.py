"""`decisive distill`: its JSON, its folder, and what it refuses in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distill_cases import bars, waves, write_set
from PIL import Image

from decisive import distill
from decisive.distill_pictures import columns
from learning.distillation import load_distilled
from learning.image_set import data_folder
from learning.npz_format import write_npz

QUICK = ("--steps", "12", "--batch", "60", "--json")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    return str(write_set(tmp_path_factory.mktemp("bars") / "set", bars(300)))


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("waves") / "waves.npz"
    write_npz(waves(), path)
    return str(path)


def told(capsys, *words: str) -> dict[str, Any]:
    assert distill.main(words) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_folder_of_images_is_distilled(images: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    words = (images, "--per-class", "2", *QUICK, "--natural", "--out", str(out))
    found = told(capsys, *words)
    assert found["points"] == 6
    assert found["held_out"] == 30
    assert 0 <= found["accuracy_ci95"][0] <= found["accuracy"] <= found["accuracy_ci95"][1] <= 1
    assert found["path"] == str(out / "last")
    assert {"equivalent", "curve"} <= found["natural"].keys()
    distilled, facts = load_distilled(out)
    assert distilled.points.shape == (6, 1, 8, 8)
    assert facts["accuracy"] == found["accuracy"]
    assert json.loads((out / "results.json").read_text())["seed"] == 0
    card = (out / "last" / "README.md").read_text()
    assert "synthetic: bars" in card
    assert f"{100 * found['accuracy']:.2f}%" in card
    for name in ("points.png", "label_covariance.png"):
        pixels = np.asarray(Image.open(out / name))
        assert pixels.std() > 1
        assert str(out / name) in found["pictures"]


def test_the_same_words_give_the_same_set(images: str, tmp_path: Path, capsys) -> None:
    first = told(capsys, images, "--per-class", "1", *QUICK, "--out", str(tmp_path / "a"))
    second = told(capsys, images, "--per-class", "1", *QUICK, "--out", str(tmp_path / "b"))
    names = "model.safetensors"
    assert (tmp_path / "a/last" / names).read_bytes() == (tmp_path / "b/last" / names).read_bytes()
    assert first["accuracy"] == second["accuracy"]


@pytest.mark.parametrize("method", ["label-solve", "random", "kmeans", "herding"])
def test_every_method_scores(images: str, capsys, method: str) -> None:
    found = told(capsys, images, "--per-class", "2", "--method", method, "--json")
    assert found["method"] == method
    assert found["points"] == 6
    assert found["path"] is None
    assert found["accuracy"] > 1 / 3


def test_solved_labels_score_higher_than_given_ones(images: str, tmp_path: Path, capsys) -> None:
    held = write_set(tmp_path / "held", bars(1000, seed=1))
    words = (images, "--held-out", str(held), "--per-class", "2", "--json", "--method")
    given, solved = (told(capsys, *words, method) for method in ("random", "label-solve"))
    assert solved["accuracy"] > given["accuracy"]


def test_convolutional_kernels_and_zca_work(images: str, capsys) -> None:
    words = ("--kernel", "convnet3", "--depth", "1", "--method", "random", "--zca", "--json")
    found = told(capsys, images, "--per-class", "1", *words)
    assert found["accuracy"] > 1 / 3
    assert found["depth"] is None


def test_images_are_averaged_down_and_settings_chosen_without_the_held_out(
    images: str, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "run"
    words = (images, "--per-class", "1", "--pixels", "4", "--kernel", "convnet3", "--depth", "2")
    more = ("--method", "kmeans", "--float32", "--validation", "50", "--out", str(out), "--json")
    found = told(capsys, *words, *more)
    assert (found["pixels"], found["validation"], found["held_out"]) == (4, 50, 50)
    assert found["accuracy"] > 1 / 3
    distilled, _ = load_distilled(out)
    assert distilled.points.shape == (3, 1, 4, 4)
    assert distilled.preprocessing.pixels == 4
    assert np.asarray(Image.open(out / "points.png")).std() > 1


def test_demonstrations_are_distilled(demos: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    found = told(capsys, demos, "--points", "20", "--depth", "2", *QUICK, "--out", str(out))
    assert found["points"] == 20
    assert len(found["rmse"]) == 2
    assert found["explained"] > 0.3
    assert "accuracy" not in found
    assert not (out / "points.png").exists()
    distilled, _ = load_distilled(out / "last")
    assert not distilled.is_classes
    assert "none/Waves-v0" in (out / "last" / "README.md").read_text()


def test_lines_are_printed_without_json(images: str, capsys) -> None:
    assert distill.main([images, "--per-class", "1", "--method", "random", "--natural"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("3 points of ")
    assert "accuracy" in out
    assert "natural points" in out


def test_points_are_shown_in_the_columns_they_started_in() -> None:
    assert columns(6, 3, np.array([2, 2, 2, 0, 0, 0])) == [[0, 1], [2, 3], [4, 5]]
    assert columns(4, 3, np.array([2, 0, 2, 2])) == [[1], [0, 2, 3]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere", "--json"), "nowhere"),
        (("SET", "--per-class", "2", "--points", "6"), "not both"),
        (("SET", "--per-class", "0"), "--per-class must be at least 1"),
        (("SET", "--per-class", "1000"), "of each class are asked for"),
        (("SET", "--points", "7"), "cannot be shared by 3 classes"),
        (("SET", "--task", "colour"), "the tasks are bar"),
        (("SET", "--kernel", "convnet", "--depth", "4"), "at least 16 x 16"),
        (("SET", "--kernel", "convnet", "--pixels", "4"), "at least 8 x 8"),
        (("SET", "--pixels", "9"), "at least 9 x 9 can be averaged"),
        (("SET", "--pixels", "0"), "--pixels must be at least 1"),
        (("SET", "--validation", "300"), "too few to hold out"),
        (("SET", "--kernel", "rbf"), "kernel"),
        (("SET", "--regulariser=-1"), "regulariser must be at least 0"),
        (("SET", "--held-out", "DEMOS"), "set.json"),
        (("DEMOS", "--per-class", "2"), "give --points"),
        (("DEMOS", "--zca"), "ZCA is for images"),
        (("DEMOS", "--pixels", "4"), "--pixels is of images"),
        (("DEMOS", "--augment"), "augmentation is for images"),
        (("DEMOS", "--task", "bar"), "--task is of image sets"),
        (("DEMOS", "--kernel", "convnet"), r"\(C, H, W\)"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(
    images: str, demos: str, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "run"
    given = [{"SET": images, "DEMOS": demos}.get(word, word) for word in words]
    with pytest.raises((ValueError, OSError), match=message) as caught:
        distill.main([*given, "--out", str(out)])
    assert "\n" not in str(caught.value)
    assert not (out / "last").exists()


def test_a_run_that_diverges_says_so_in_one_line(images: str) -> None:
    with pytest.raises(ValueError, match="lower lr") as caught:
        distill.main([images, "--per-class", "1", *QUICK, "--lr", "1e200"])
    assert "\n" not in str(caught.value)


def test_one_class_and_constant_images_are_refused(tmp_path: Path) -> None:
    data = bars(60)
    rows = np.flatnonzero(data.labels[:, 0] == 2)
    one = write_set(tmp_path / "one", data.take(rows))
    with pytest.raises(ValueError, match="all labels are of one class, 'slanted'"):
        distill.main([str(one)])
    data.images[:] = 7
    flat = write_set(tmp_path / "flat", data)
    with pytest.raises(ValueError, match="all points are equal"):
        distill.main([str(flat), "--per-class", "1"])


@pytest.mark.learning
def test_a_finite_network_learns_from_the_points(images: str, capsys) -> None:
    words = (images, "--per-class", "10", "--method", "kmeans", "--network", "--json")
    found = told(capsys, *words)["network"]
    assert found["distilled"] > 0.4
    assert found["natural"] > 0.4
    assert found["settings"]["width"] == 1024


@pytest.mark.learning
def test_a_finite_convolutional_network_learns_from_the_points(images: str, capsys) -> None:
    words = (images, "--per-class", "5", "--method", "kmeans", "--network", "--json")
    found = told(capsys, *words, "--kernel", "convnet3", "--depth", "1", "--pixels", "6")["network"]
    assert found["distilled"] > 0.4
    assert found["natural"] > 0.4
    assert found["settings"]["width"] == 128


@pytest.mark.learning
@pytest.mark.data
def test_ten_images_of_mnist_tell_88_percent(capsys) -> None:
    if not (data_folder() / "mnist" / "mnist.npz").is_file():
        pytest.skip("MNIST is not here (DECISIVE_DATA)")
    found = told(capsys, "mnist", "--per-class", "1", "--steps", "250", "--lr", "0.2", "--json")
    assert found["points"] == 10
    assert found["held_out"] == 10_000
    # Measured: 89.6% after 400 steps; ten random images give 46%.
    assert found["accuracy"] > 0.88
