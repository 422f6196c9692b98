"""Real outlines: one rule makes masks of polygons, and pictures are letterboxed with them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from learning.coco_polygons import (
    PADDING,
    letterboxed,
    open_coco_polygons,
    rasterise,
    read_names,
)
from learning.image_set import data_folder

NAMES = "names:\n  1: person\n  17: cat\n  90: stop sign\n"
SQUARE = "17 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"


def make(folder: Path, labels: str = SQUARE, size: tuple[int, int] = (8, 8)) -> Path:
    """One picture of (width, height), its left half black and its right half white."""
    for kind in ("images", "labels"):
        (folder / kind / "val2017").mkdir(parents=True)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, size[0] // 2 :] = 255
    Image.fromarray(pixels).save(folder / "images" / "val2017" / "a.jpg", quality=100)
    (folder / "labels" / "val2017" / "a.txt").write_text(labels)
    (folder / "names.yaml").write_text(NAMES)
    return folder


def corners(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, float)


def test_a_pixel_belongs_where_its_centre_lies() -> None:
    mask = rasterise(corners((1, 1), (4, 1), (4, 3), (1, 3)), (4, 6))
    expected = np.zeros((4, 6), bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(mask, expected)
    # Just before the centre of column 1, just beyond that of column 3: nothing changes.
    nearly = rasterise(corners((0.51, 0.51), (4.49, 0.51), (4.49, 3.49), (0.51, 3.49)), (4, 6))
    np.testing.assert_array_equal(nearly, expected)
    assert rasterise(corners((0.49, 1), (4, 1), (4, 3), (0.49, 3)), (4, 6)).sum() == 8


def test_a_triangle_by_hand() -> None:
    # Legs of 4: the centre of (i, j) is inside where (j + .5) + (i + .5) < 4.
    mask = rasterise(corners((0, 0), (4, 0), (0, 4)), (4, 4))
    expected = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(mask, np.array(expected, bool))


def test_what_is_run_around_twice_is_a_hole() -> None:
    # A square of 6 and one of 2 in it, joined by a bridge there and back: no pixel is lost to it.
    ring = corners(
        *((0, 0), (6, 0), (6, 6), (0, 6), (0, 0)), *((2, 2), (4, 2), (4, 4), (2, 4), (2, 2))
    )
    mask = rasterise(ring, (6, 6))
    expected = np.ones((6, 6), bool)
    expected[2:4, 2:4] = False
    np.testing.assert_array_equal(mask, expected)


def test_what_is_outside_the_picture_is_cut() -> None:
    assert rasterise(corners((-5, -5), (9, -5), (9, 9), (-5, 9)), (4, 6)).all()
    assert not rasterise(corners((7, 0), (9, 0), (9, 4), (7, 4)), (4, 6)).any()
    assert not rasterise(corners((-9, 0), (-7, 0), (-7, 4), (-9, 4)), (4, 6)).any()


@given(
    st.lists(st.tuples(st.integers(-2, 20), st.integers(-2, 20)), min_size=3, max_size=8),
    st.integers(0, 7),
)
def test_neither_the_start_nor_the_direction_matters_and_halves_add_up(points, turn: int) -> None:
    polygon = np.array(points) / 2
    mask = rasterise(polygon, (9, 9))
    np.testing.assert_array_equal(mask, rasterise(np.roll(polygon, turn, 0), (9, 9)))
    # Cut along a diagonal, the two parts make up the whole, whatever centres the cut runs through.
    cut = len(polygon) // 2
    first, second = polygon[: cut + 1], np.concatenate([polygon[cut:], polygon[:1]])
    np.testing.assert_array_equal(mask, rasterise(first, (9, 9)) ^ rasterise(second, (9, 9)))


@given(
    st.tuples(st.floats(20, 60), st.floats(20, 60)),
    st.floats(10, 19),
    st.floats(0, 6.3),
    st.integers(3, 12),
)
def test_the_area_is_that_of_the_polygon(middle, radius: float, angle: float, n: int) -> None:
    turns = angle + 2 * np.pi * np.arange(n) / n
    polygon = np.array(middle) + radius * np.stack([np.cos(turns), np.sin(turns)], 1)
    area = n / 2 * radius**2 * np.sin(2 * np.pi / n)
    # A pixel is wrong only along the border, half of them each way.
    assert rasterise(polygon, (80, 80)).sum() == pytest.approx(area, abs=2 * radius)


def test_a_picture_comes_as_it_is(tmp_path: Path) -> None:
    found = open_coco_polygons(make(tmp_path), "val2017")
    assert (len(found), found.classes) == (1, ("person", "cat", "stop sign"))
    assert found.category_ids == (1, 17, 90)
    assert found.facts["synthetic"] is False
    (scene,) = found
    assert scene.image.shape == (8, 8, 3)
    assert scene.classes.tolist() == [1]
    assert scene.boxes.tolist() == [[2, 2, 6, 6]]
    assert scene.masks.sum() == 16
    assert found[-1].boxes.tolist() == [[2, 2, 6, 6]]
    with pytest.raises(IndexError):
        found[1]


def test_letterboxing_moves_boxes_with_the_picture(tmp_path: Path) -> None:
    # 16 x 8 into 32 x 32: twice as large, 8 rows of grey above and below.
    folder = make(tmp_path, "1 0.5 0 1 0 1 0.5 0.5 0.5", size=(16, 8))
    (scene,) = open_coco_polygons(folder, "val2017", (32, 32))
    assert scene.image.shape == (32, 32, 3)
    assert scene.boxes.tolist() == [[16, 8, 32, 16]]
    assert scene.masks.sum() == 16 * 8
    assert (scene.image[:8] == PADDING).all()
    assert (scene.image[24:] == PADDING).all()
    # The picture is white on its right, and so under the mask.
    assert scene.image[scene.masks[0]].mean() > 240
    assert scene.image[8:24, :14].mean() < 15


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_a_letterboxed_picture_fills_one_side_and_stays_inside(h: int, w: int, H: int, W: int):
    image, corner, shape = letterboxed(Image.new("RGB", (w, h)), (H, W))
    assert image.shape == (H, W, 3)
    assert (corner >= 0).all()
    assert (corner + shape <= (H, W)).all()
    assert shape[0] == H or shape[1] == W
    assert (image == 0).all(-1).sum() == shape.prod()
    assert abs(H - 2 * corner[0] - shape[0]) <= 1
    assert abs(W - 2 * corner[1] - shape[1]) <= 1


def test_what_is_too_thin_for_a_pixel_is_no_instance(tmp_path: Path) -> None:
    labels = f"1 0.5 0 0.55 0 0.55 1 0.5 1\n\n{SQUARE}\n"
    (scene,) = open_coco_polygons(make(tmp_path, labels), "val2017")
    assert scene.classes.tolist() == [1]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("17 0 0 1 0 1", "line 1 must hold x and y of three corners"),
        ("17 0 0 1 0", "three corners or more"),
        (f"{SQUARE}\n17 0 0 1 0 1 1.5", "line 2 must hold x and y"),
        ("17 0 0 1 0 1 nan", "from 0 to 1"),
        ("16 0 0 1 0 1 1", "unknown category 16"),
        ("cat 0 0 1 0 1 1", "must hold numbers: 'cat 0"),
        ("17.0 0 0 1 0 1 1", "must hold numbers"),
    ],
)
def test_malformed_labels_are_refused_in_one_line(tmp_path: Path, labels: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        open_coco_polygons(make(tmp_path, labels), "val2017")
    assert "a.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("", "the first line"),
        ("classes:\n  1: cat\n", "the first line"),
        ("names:\n  1: cat\n  1: dog\n", "line 3"),
        ("names:\n- cat\n", "line 2"),
        ("names:\n  1: !!python/object cat: {}\n", "line 2"),
        ("names:\n  1: 'cat'\n", "line 2"),
        ("names:\n", "one or more"),
    ],
)
def test_other_yaml_is_refused(tmp_path: Path, names: str, said: str) -> None:
    make(tmp_path)
    (tmp_path / "names.yaml").write_text(names)
    with pytest.raises(ValueError, match=said):
        open_coco_polygons(tmp_path, "val2017")


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DECISIVE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"coco128.*DECISIVE_DATA"):
        open_coco_polygons()
    with pytest.raises(ValueError, match="train2017, val2017, got 'test'"):
        open_coco_polygons(split="test")
    with pytest.raises(ValueError, match="size must be"):
        open_coco_polygons(split="val2017", size=(0, 4))
    folder = make(tmp_path / "set")
    with pytest.raises(ValueError, match="no pictures"):
        open_coco_polygons(folder, "train2017")
    (folder / "labels" / "val2017" / "a.txt").unlink()
    with pytest.raises(ValueError, match=r"a\.txt is not there"):
        open_coco_polygons(folder, "val2017")


def test_a_damaged_picture_is_told_when_it_is_read(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "images" / "val2017" / "a.jpg").write_bytes(b"no picture")
    found = open_coco_polygons(folder, "val2017")
    with pytest.raises(ValueError, match=r"a\.jpg: not a picture"):
        found[0]


@pytest.mark.data
@pytest.mark.parametrize(("split", "instances"), [("train2017", 746), ("val2017", 712)])
def test_the_real_set(split: str, instances: int) -> None:
    folder = data_folder() / "coco128"
    if not folder.is_dir():
        pytest.skip("COCO's polygons are not here (DECISIVE_DATA)")
    found = open_coco_polygons(split=split, size=(160, 160))
    assert len(found) == 100
    assert len(found.classes) == 80
    assert len(read_names(folder / "names.yaml")) == 80
    assert sum(map(len, found._polygons)) == instances
    shown = [found[k] for k in range(0, 100, 20)]
    assert all(scene.image.shape == (160, 160, 3) for scene in shown)
    assert sum(map(len, shown)) > 20


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_agree_with_those_of_coco() -> None:
    mask = pytest.importorskip("pycocotools.mask")
    if not (data_folder() / "coco128").is_dir():
        pytest.skip("COCO's polygons are not here (DECISIVE_DATA)")
    found = open_coco_polygons(split="val2017")
    both = either = mine = theirs = 0
    for k in range(0, 100, 10):
        scene = found[k]
        height, width = scene.image.shape[:2]
        for _, polygon in found._polygons[k]:
            code = mask.frPyObjects([(polygon * (width, height)).ravel().tolist()], height, width)
            known = mask.decode(code)[..., 0].astype(bool)
            own = rasterise(polygon * (width, height), (height, width))
            both, either = both + (own & known).sum(), either + (own | known).sum()
            mine, theirs = mine + own.sum(), theirs + known.sum()
    # COCO's own rule rounds corners to fifths of a pixel.
    assert both / either > 0.99
    assert mine / theirs == pytest.approx(1, abs=0.002)
