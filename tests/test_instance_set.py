"""Sets of instances: boxes follow from masks, what is written is read, damage is told in a line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from learning.image_set import open_image_set, write_image_set
from learning.instance_set import (
    InstanceSet,
    JoinedInstances,
    Scene,
    open_instance_set,
    tight_boxes,
    write_instance_set,
)

CLASSES = ("duck", "mug")
SIZE = (4, 6)


def make(n: int = 3) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Picture k has k instances, each a column of pixels."""
    images = np.random.default_rng(0).integers(0, 256, (n, *SIZE, 3), dtype=np.uint8)
    ids = np.zeros((n, *SIZE), np.uint8)
    classes = []
    for k in range(n):
        for j in range(k):
            ids[k, j:, j] = j + 1
        classes.append(np.arange(k, dtype=np.int64) % 2)
    return images, ids, classes


def write(folder: Path, count: int = 3, **changes) -> None:
    images, ids, classes = make(count)
    given = {
        "chunks": [(images[:2], ids[:2], classes[:2]), (images[2:], ids[2:], classes[2:])],
        "n": count,
        "size": SIZE,
        "classes": CLASSES,
        "source": "synthetic noise",
        "facts": {"seed": 0},
    }
    write_instance_set(folder, **{**given, **changes})


def test_boxes_are_tight_around_pixels_and_not_their_centres() -> None:
    masks = np.zeros((3, 5, 7), bool)
    masks[0, 1, 2] = True
    masks[1, 1:4, 2] = masks[1, 3, 2:6] = True
    masks[2] = True
    assert tight_boxes(masks).tolist() == [[2, 1, 3, 2], [2, 1, 6, 4], [0, 0, 7, 5]]
    assert tight_boxes(masks).dtype == np.float32
    assert tight_boxes(masks[:0]).shape == (0, 4)


@given(hnp.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))))
def test_boxes_hold_every_pixel_and_touch_one_on_each_side(masks: np.ndarray) -> None:
    masks = masks[masks.any((1, 2))]
    for (x1, y1, x2, y2), mask in zip(tight_boxes(masks).astype(int), masks, strict=True):
        inside = mask[y1:y2, x1:x2]
        assert inside.sum() == mask.sum()
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


def test_what_has_no_pixel_is_no_instance() -> None:
    ids = np.zeros(SIZE, np.uint8)
    ids[1:3, 2] = 3
    scene = Scene.from_ids(np.zeros((*SIZE, 3), np.uint8), ids, np.array([5, 6, 7]))
    assert (len(scene), scene.classes.tolist()) == (1, [7])
    assert scene.boxes.tolist() == [[2, 1, 3, 3]]
    np.testing.assert_array_equal(scene.masks[0], ids == 3)
    empty = Scene.from_ids(np.zeros((*SIZE, 3), np.uint8), ids, np.empty(0, np.int64))
    assert (empty.boxes.shape, empty.masks.shape) == ((0, 4), (0, *SIZE))


def test_arrays_of_a_scene_that_do_not_fit_are_refused() -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    with pytest.raises(ValueError, match=r"masks must be bool \(2, 4, 6\), got bool \(1, 4, 6\)"):
        Scene.from_masks(image, np.ones((1, *SIZE), bool), np.zeros(2, np.int64))
    wrong: Any = image / 255
    with pytest.raises(ValueError, match=r"image must be uint8 \(H, W, 3\), got float64 \(4, 6, 3"):
        Scene.from_masks(wrong, np.ones((1, *SIZE), bool), np.zeros(1, np.int64))


def test_chunks_come_back_as_scenes(tmp_path: Path) -> None:
    write(tmp_path / "set")
    found = open_instance_set(tmp_path / "set")
    images, ids, classes = make()
    assert isinstance(found, InstanceSet)
    assert isinstance(found.images, np.memmap)
    assert (len(found), found.classes) == (3, CLASSES)
    assert (found.source, found.facts) == ("synthetic noise", {"seed": 0})
    assert found.n_instances.tolist() == [2, 1]
    for k, scene in enumerate(found):
        np.testing.assert_array_equal(scene.image, images[k])
        assert scene.classes.tolist() == classes[k].tolist()
        for j, mask in enumerate(scene.masks):
            np.testing.assert_array_equal(mask, ids[k] == j + 1)
    assert found[2].boxes.tolist() == [[0, 0, 1, 4], [1, 1, 2, 4]]
    assert found[-1].classes.tolist() == found[2].classes.tolist()
    with pytest.raises(IndexError):
        found[3]


def test_a_scene_is_a_copy(tmp_path: Path) -> None:
    write(tmp_path / "set")
    found = open_instance_set(tmp_path / "set")
    scene = found[2]
    scene.image[:], scene.classes[:] = 0, 1
    assert found[2].image.any()
    assert found[2].classes.tolist() == [0, 1]


def with_ids(change) -> list:
    images, ids, classes = make()
    change(ids, classes)
    return [(images, ids, classes)]


def hide(ids: np.ndarray, _: list) -> None:
    ids[2][ids[2] == 2] = 0


def add(ids: np.ndarray, _: list) -> None:
    ids[0, 0, 0] = 1


def relabel(_: np.ndarray, classes: list) -> None:
    classes[2][1] = 2


def narrow(_: np.ndarray, classes: list) -> None:
    classes[1] = classes[1].astype(np.int32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 4}, "4 pictures together, got 3"),
        ({"n": 2}, "2 pictures"),
        ({"size": (4, 5)}, r"\(4, 5, 3\)"),
        ({"classes": ("duck",)}, "classes must be 0 to 0, got 0 to 1"),
        ({"classes": ("duck", "duck")}, "different names"),
        ({"facts": {"bad": float("nan")}}, "JSON"),
        ({"chunks": with_ids(hide)}, "picture 2 has an instance 2 without a pixel"),
        ({"chunks": with_ids(add)}, "picture 0 has an instance 1 of 0"),
        ({"chunks": with_ids(relabel)}, "classes must be 0 to 1, got 0 to 2"),
        ({"chunks": with_ids(narrow)}, "classes of picture 1 must be int64"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_old_set_stays(
    tmp_path: Path, changes: dict, message: str
) -> None:
    write(tmp_path / "set", count=5)
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "set", **changes)
    assert len(open_instance_set(tmp_path / "set")) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_set_without_an_instance_is_one(tmp_path: Path) -> None:
    images, ids, _ = make(1)
    chunks = [(images, ids, [np.empty(0, np.int64)])]
    write(tmp_path / "set", chunks=chunks, n=1)
    (scene,) = open_instance_set(tmp_path / "set")
    assert len(scene) == 0


def document(folder: Path, **changes) -> None:
    told = json.loads((folder / "set.json").read_text())
    (folder / "set.json").write_text(json.dumps({**told, **changes}))


DAMAGES = {
    "cut pictures": lambda f: (f / "images.npy").write_bytes((f / "images.npy").read_bytes()[:-9]),
    "grey pictures": lambda f: np.save(f / "images.npy", np.zeros((3, 4, 6), np.uint8)),
    "ids of another size": lambda f: np.save(f / "ids.npy", np.zeros((3, 6, 4), np.uint8)),
    "wide ids": lambda f: np.save(f / "ids.npy", np.zeros((3, 4, 6), np.int64)),
    "an object": lambda f: np.save(f / "ids.npy", np.array([{}], object), allow_pickle=True),
    "falling starts": lambda f: np.save(f / "first.npy", np.array([0, 2, 1, 3])),
    "too few starts": lambda f: np.save(f / "first.npy", np.array([0, 3])),
    "unknown class": lambda f: np.save(f / "classes.npy", np.array([0, 1, 9])),
    "no classes": lambda f: (f / "classes.npy").unlink(),
    "no JSON": lambda f: (f / "set.json").write_text("{"),
    "a list": lambda f: (f / "set.json").write_text("[1]"),
    "another format": lambda f: document(f, format=2),
    "numbers for names": lambda f: document(f, classes=[1, 2]),
    "nothing": lambda f: [path.unlink() for path in list(f.iterdir())],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_damaged_folders_are_refused_in_one_line(tmp_path: Path, damage) -> None:
    write(tmp_path / "set")
    damage(tmp_path / "set")
    with pytest.raises(ValueError, match="set") as caught:
        open_instance_set(tmp_path / "set")
    assert "\n" not in str(caught.value)


def test_an_id_beyond_the_instances_is_refused_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "set")
    ids = np.load(tmp_path / "set" / "ids.npy")
    ids[1, 0, 0] = 9
    np.save(tmp_path / "set" / "ids.npy", ids)
    found = open_instance_set(tmp_path / "set")
    assert len(found[2]) == 2
    with pytest.raises(ValueError, match="picture 1 has an instance 9 of 1"):
        found[1]


def test_sets_of_images_and_of_instances_are_not_taken_for_each_other(tmp_path: Path) -> None:
    write(tmp_path / "instances")
    chunk = np.zeros((1, 4, 6, 3), np.uint8), np.zeros((1, 1), np.int64)
    write_image_set(tmp_path / "images", [chunk], 1, (4, 6, 3), {"a": ("b", "c")}, "", {})
    with pytest.raises(ValueError, match="not a set of instances"):
        open_instance_set(tmp_path / "images")
    with pytest.raises(ValueError, match=r"labels\.npy is not there"):
        open_image_set(tmp_path / "instances")


def test_joined_sets_are_one_with_the_classes_of_all(tmp_path: Path) -> None:
    write(tmp_path / "first")
    write(tmp_path / "second", classes=("effector", "duck"))
    first, second = (open_instance_set(tmp_path / name) for name in ("first", "second"))
    whole = JoinedInstances([first, second])
    assert whole.classes == ("duck", "mug", "effector")
    assert len(whole) == 6
    for k, scene in enumerate(whole):
        own = (first, second)[k // 3]
        np.testing.assert_array_equal(scene.image, own[k % 3].image)
        np.testing.assert_array_equal(scene.masks, own[k % 3].masks)
        names = [own.classes[number] for number in own[k % 3].classes]
        assert [whole.classes[number] for number in scene.classes] == names
    assert whole[-1].classes.tolist() == whole[5].classes.tolist() == [2, 0]
    with pytest.raises(IndexError):
        whole[6]


def test_joined_sets_can_be_given_their_classes(tmp_path: Path) -> None:
    write(tmp_path / "one")
    only = open_instance_set(tmp_path / "one")
    assert JoinedInstances([only], ("mug", "slot", "duck"))[2].classes.tolist() == [2, 0]
    with pytest.raises(ValueError, match="must have those of all sets, got no 'mug'"):
        JoinedInstances([only], ("duck",))
    with pytest.raises(ValueError, match="one set or more"):
        JoinedInstances([])
