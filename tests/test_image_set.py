"""Sets of images: what is written is read, what is damaged is refused in one line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from learning.image_set import (
    ImageSet,
    cifar10,
    data_folder,
    mnist,
    open_image_set,
    write_image_set,
)

TASKS = {"colour": ("red", "green", "blue"), "shape": ("cube", "ball")}


def make(n: int = 5, size: tuple[int, ...] = (4, 6, 3)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *size), dtype=np.uint8)
    labels = np.stack([rng.integers(-1, 3, n), rng.integers(-1, 2, n)], axis=1)
    return images, labels


def write(folder: Path, count: int = 5, shape: tuple[int, ...] = (4, 6, 3), **changes) -> None:
    images, labels = make(count, shape)
    given = {
        "chunks": [(images[:2], labels[:2]), (images[2:], labels[2:])],
        "n": count,
        "size": shape,
        "tasks": TASKS,
        "source": "synthetic noise",
        "facts": {"seed": 0},
    }
    write_image_set(folder, **{**given, **changes})


@pytest.mark.parametrize("size", [(4, 6, 3), (2, 4, 6, 1)])
def test_chunks_come_back_as_one_set(tmp_path: Path, size: tuple[int, ...]) -> None:
    write(tmp_path / "set", shape=size)
    found = open_image_set(tmp_path / "set")
    images, labels = make(size=size)
    assert np.array_equal(found.images, images)
    assert isinstance(found.images, np.memmap)
    assert found.labels.tolist() == labels.tolist()
    assert found.tasks == TASKS
    assert list(found.tasks) == list(TASKS)
    assert (found.source, found.facts) == ("synthetic noise", {"seed": 0})
    assert (len(found), found.n_classes, found.is_clips) == (5, 5, len(size) == 4)


def test_taken_rows_keep_their_labels_and_order(tmp_path: Path) -> None:
    write(tmp_path / "set")
    found = open_image_set(tmp_path / "set").take([3, 0])
    images, labels = make()
    assert np.array_equal(found.images, images[[3, 0]])
    assert found.labels.tolist() == labels[[3, 0]].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 6}, "6 images together, got 5"),
        ({"n": 4}, "4 images"),
        ({"size": (4, 5, 3)}, r"\(4, 5, 3\)"),
        ({"tasks": {"colour": ("red", "green", "blue")}}, r"int64 \(2, 1\)"),
        ({"tasks": {**TASKS, "shape": ("cube",)}}, "two or more"),
        ({"facts": {"bad": float("nan")}}, "JSON"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_old_set_stays(
    tmp_path: Path, changes: dict, message: str
) -> None:
    write(tmp_path / "set", count=3)
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "set", **changes)
    assert len(open_image_set(tmp_path / "set")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_labels_beyond_the_classes_are_refused() -> None:
    images, labels = make()
    labels[1, 1] = 2
    with pytest.raises(ValueError, match="'shape' must be -1 to 1"):
        ImageSet(images, labels, TASKS, "", {})


def damage_images(folder: Path) -> None:
    data = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(data[:-40])


def damage_labels(folder: Path) -> None:
    np.save(folder / "labels.npy", np.zeros((5, 2), np.int32))


def damage_objects(folder: Path) -> None:
    np.save(folder / "labels.npy", np.array([{}], object), allow_pickle=True)


def damage_json(folder: Path) -> None:
    (folder / "set.json").write_text("{")


def damage_format(folder: Path) -> None:
    told = json.loads((folder / "set.json").read_text())
    (folder / "set.json").write_text(json.dumps({**told, "format": 2}))


def damage_tasks(folder: Path) -> None:
    told = json.loads((folder / "set.json").read_text())
    (folder / "set.json").write_text(json.dumps({**told, "tasks": ["colour", "shape"]}))


def remove_labels(folder: Path) -> None:
    (folder / "labels.npy").unlink()


def remove_all(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        damage_images,
        damage_labels,
        damage_objects,
        damage_json,
        damage_format,
        damage_tasks,
        remove_labels,
        remove_all,
    ],
)
def test_damaged_folders_are_refused_in_one_line(tmp_path: Path, damage) -> None:
    write(tmp_path / "set")
    damage(tmp_path / "set")
    with pytest.raises(ValueError, match="set") as caught:
        open_image_set(tmp_path / "set")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [cifar10, mnist])
def test_missing_public_data_name_the_variable(tmp_path: Path, monkeypatch, read) -> None:
    monkeypatch.setenv("DECISIVE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="DECISIVE_DATA"):
        read(split="test")
    with pytest.raises(ValueError, match="train or test, got 'validation'"):
        read(split="validation")


def test_cifar10_is_decoded_and_balanced() -> None:
    if not (data_folder() / "cifar10" / "test.npz").is_file():
        pytest.skip("CIFAR-10 is not here (DECISIVE_DATA)")
    found = cifar10(split="test")
    assert found.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(found.labels[:, 0]).tolist() == [1000] * 10
    assert found.tasks["object"][:2] == ("airplane", "automobile")
    # The means of the red, green and blue of the test images as published: 0.494, 0.485, 0.450.
    assert found.images.mean(axis=(0, 1, 2)) / 255 == pytest.approx([0.494, 0.485, 0.450], abs=5e-3)


def test_mnist_has_one_channel() -> None:
    if not (data_folder() / "mnist" / "mnist.npz").is_file():
        pytest.skip("MNIST is not here (DECISIVE_DATA)")
    found = mnist(split="test")
    assert found.images.shape == (10_000, 28, 28, 1)
    # LeCun's test set holds 980 zeros and 1135 ones.
    assert np.bincount(found.labels[:, 0])[:2].tolist() == [980, 1135]


def test_a_damaged_public_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "mnist.npz").write_bytes(os.urandom(64))
    with pytest.raises(ValueError, match=r"mnist\.npz"):
        mnist(tmp_path, "test")
