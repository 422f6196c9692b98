"""COCO's annotations: polygons, run lengths and boxes alone, and what is no such file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from segmenter_cases import tiny

from learning.coco_annotations import CocoAnnotations, _of_runs, _runs
from learning.coco_polygons import open_coco_polygons
from learning.image_set import data_folder
from perception.deep_mac.instances import MaskTraining
from perception.deep_mac.train_batches import SceneBatches, letterbox_scene, pixel_statistics
from perception.deep_mac.train_config import SegmenterTrainConfig

CATEGORIES = [{"id": 7, "name": "mug"}, {"id": 3, "name": "gear"}]
SQUARE = [2, 1, 6, 1, 6, 5, 2, 5]
SIZE = (8, 12)
"""Height and width of the picture."""


def annotation(category: int = 7, **told: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 5, "category_id": category, "iscrowd": 0, **told}


def document(*annotations: dict[str, Any]) -> dict[str, Any]:
    image = {"id": 5, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}
    return {"images": [image], "categories": CATEGORIES, "annotations": list(annotations)}


def write(folder: Path, *annotations: dict[str, Any], **changes: Any) -> Path:
    """A file of annotations beside a picture whose left half is black and whose right is white."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:, SIZE[1] // 2 :] = 255
    Image.fromarray(pixels).save(folder / "a.png")
    file = folder / "labels.json"
    file.write_text(json.dumps({**document(*annotations), **changes}))
    return file


def test_polygons_are_parts_of_one_instance(tmp_path: Path) -> None:
    parts = [SQUARE, [8, 0, 10, 0, 10, 8, 8, 8], [5, 3, 7, 3, 7, 7, 5, 7]]
    found = CocoAnnotations(write(tmp_path, annotation(3, segmentation=parts)), masks=True)
    assert (len(found), found.classes, found.category_ids) == (1, ("gear", "mug"), (3, 7))
    scene = found[-1]
    assert scene.image.shape == (*SIZE, 3)
    assert scene.image[0, 5].tolist() == [0, 0, 0]
    assert scene.image[0, 6].tolist() == [255, 255, 255]
    assert scene.classes.tolist() == [0]
    expected = np.zeros(SIZE, bool)
    expected[1:5, 2:6] = expected[:, 8:10] = expected[3:7, 5:7] = True
    np.testing.assert_array_equal(scene.masks, expected[None])
    assert scene.boxes.tolist() == [[2, 0, 10, 8]]
    with pytest.raises(IndexError):
        found[1]


def test_letterboxing_moves_everything(tmp_path: Path) -> None:
    # 12 x 8 into 24 x 24: twice as large, four rows of grey above and below.
    runs = {"size": list(SIZE), "counts": [8 * 2, 8 * 4, 8 * 6]}
    file = write(
        tmp_path,
        annotation(segmentation=[SQUARE]),
        annotation(segmentation=runs),
        annotation(3, bbox=[1, 2, 3.5, 40], segmentation=[]),
    )
    scene = CocoAnnotations(file, (24, 24))[0]
    assert scene.boxes.tolist() == [[4, 6, 12, 14], [4, 4, 12, 20], [2, 8, 9, 20]]
    assert scene.masks.sum((1, 2)).tolist() == [64, 128, 0]
    assert scene.classes.tolist() == [1, 1, 0]
    as_it_is = CocoAnnotations(file)[0]
    assert as_it_is.boxes.tolist() == [[2, 1, 6, 5], [2, 0, 6, 8], [1, 2, 4.5, 8]]
    later = letterbox_scene(as_it_is, (24, 24))
    for mine, theirs in (
        (later.boxes, scene.boxes),
        (later.masks, scene.masks),
        (later.image, scene.image),
    ):
        np.testing.assert_array_equal(mine, theirs)


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_run_lengths_are_those_of_pycocotools(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    runs = _runs("it", code["counts"].decode(), mask.size)
    np.testing.assert_array_equal(_of_runs(runs, mask.shape), mask)


@given(st.integers(1, 30), st.integers(1, 3000))
def test_long_runs_too(height: int, width: int) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[:, width // 3 : width // 2] = mask[-1:, -1:] = 1
    runs = _runs("it", coco.encode(mask)["counts"].decode(), mask.size)
    np.testing.assert_array_equal(_of_runs(runs, mask.shape), mask.astype(bool))


def test_a_box_alone_teaches_the_detector_and_no_mask(tmp_path: Path) -> None:
    boxed = annotation(3, bbox=[1, 1, 6, 5])
    crowd = annotation(iscrowd=1, segmentation={"size": list(SIZE), "counts": [96]})
    file = write(tmp_path, annotation(segmentation=[SQUARE]), boxed, crowd)
    found = CocoAnnotations(file, (32, 32))
    assert (found.n_instances, found.n_boxes, found.n_crowds) == (2, 1, 1)
    assert "1 of 2 instances with a box and no mask, 1 crowds left out" in found.source
    config = SegmenterTrainConfig(steps=1, batch_size=1, device="cpu", flip=False)
    batches = SceneBatches(found, config, pixel_statistics(found), torch.device("cpu"))
    for images, targets in (batches.train(0), batches.plain([0])):
        assert targets.has_mask.tolist() == [True, False]
        assert targets.classes.tolist() == [1, 0]
        assert targets.masks.flatten(1).any(1).tolist() == [True, False]
        assert images.shape == (1, 3, 32, 32)
    # The mask's loss is that without the boxed instance; the detector's is not.
    alone = CocoAnnotations(write(tmp_path, annotation(segmentation=[SQUARE])), (32, 32))
    others = SceneBatches(alone, config, pixel_statistics(found), torch.device("cpu"))
    model = tiny(n_classes=2).eval()
    both, one = (
        model.losses(*one.plain([0]), MaskTraining(), torch.Generator().manual_seed(0))
        for one in (batches, others)
    )
    assert float(both["mask"].detach()) == pytest.approx(float(one["mask"].detach()), rel=1e-6)
    assert abs(float(both["size"].detach()) - float(one["size"].detach())) > 1e-3
    with pytest.raises(ValueError, match="annotation 1 has a box and no mask"):
        CocoAnnotations(write(tmp_path, boxed), masks=True)


def test_what_is_too_thin_is_left_out(tmp_path: Path) -> None:
    thin = annotation(segmentation=[[2, 2.6, 6, 2.6, 6, 2.9]])
    scene = CocoAnnotations(write(tmp_path, thin, annotation(segmentation=[SQUARE])))[0]
    assert scene.boxes.tolist() == [[2, 1, 6, 5]]
    assert len(CocoAnnotations(write(tmp_path))[0]) == 0


@pytest.mark.parametrize(
    ("file", "picture"),
    [
        ("labels.json", "images/a.png"),
        ("annotations/instances_train.json", "train/a.png"),
        ("annotations/instances_train.json", "images/train/a.png"),
        ("annotations/labels.json", "images/a.png"),
        ("annotations/labels.json", "a.png"),
    ],
)
def test_pictures_are_found_where_tools_put_them(tmp_path: Path, file: str, picture: str) -> None:
    for name in (file, picture):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    written = write(tmp_path, annotation(segmentation=[SQUARE]))
    (tmp_path / "a.png").rename(tmp_path / picture)
    written.rename(tmp_path / file)
    assert len(CocoAnnotations(tmp_path / file)[0]) == 1


def test_a_picture_lies_as_it_was_labelled(tmp_path: Path) -> None:
    file = write(tmp_path, annotation(segmentation=[SQUARE]))
    turned = Image.new("RGB", (SIZE[0], SIZE[1]))
    exif = Image.Exif()
    exif[0x0112] = 6  # stands on its right side, as phones write upright pictures
    turned.putpixel((0, SIZE[1] - 1), (255, 0, 0))
    turned.save(tmp_path / "a.png", exif=exif)
    scene = CocoAnnotations(file)[0]
    assert scene.image.shape == (*SIZE, 3)
    assert scene.image[0, 0].tolist() == [255, 0, 0]
    # Labelled by a tool that does not look at the tag.
    stored = Image.new("RGB", SIZE[::-1])
    stored.putpixel((0, 0), (255, 0, 0))
    stored.save(tmp_path / "a.png", exif=exif)
    assert CocoAnnotations(file)[0].image[0, 0].tolist() == [255, 0, 0]
    turned.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: 12 x 8 pixels, in the annotations 8 x 12"):
        CocoAnnotations(file)[0]
    whole = (tmp_path / "a.png").read_bytes()
    for damaged in (b"no picture", whole[:50], whole[:37] + b"\0\0\0\0" + whole[41:]):
        (tmp_path / "a.png").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.png: not a picture"):
            CocoAnnotations(file)[0]
    # PostScript, whose decoder starts a program, is not even looked at.
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 8\n%%EOF\n")
    with pytest.raises(ValueError, match=r"a\.png: not a picture \(cannot identify"):
        CocoAnnotations(file)[0]


IMAGE = {"id": 5, "file_name": "a.png"}


@pytest.mark.parametrize(
    ("annotations", "changes", "said"),
    [
        ([], {"images": []}, "it has no images"),
        ([], {"images": None}, "images must be a list of objects"),
        ([], {"annotations": [3]}, "annotations must be a list of objects"),
        ([], {"images": [IMAGE, IMAGE]}, "whole numbers of their own as id, got 5"),
        ([], {"images": [{"id": 5}]}, "image 5 needs a file_name"),
        ([], {"images": [{**IMAGE, "file_name": "../a.png"}]}, "below the folder of pictures"),
        ([], {"images": [{**IMAGE, "file_name": "/a.png"}]}, "below the folder of pictures"),
        ([], {"images": [{**IMAGE, "file_name": "b.png"}]}, r"its first picture, b\.png, is in"),
        ([], {"images": [IMAGE, {"id": 6, "file_name": "b.png"}]}, r"is missing, .*b\.png"),
        ([], {"images": [{**IMAGE, "height": 8}]}, r"height and width of \(8, None\)"),
        ([], {"categories": []}, "classes must be different names"),
        ([], {"categories": [{"id": "a", "name": "mug"}]}, "of their own as id, got 'a'"),
        ([], {"categories": [{"id": 1}]}, "category 1 needs a name"),
        ([annotation(9)], {}, "annotation 1 is of an unknown category 9"),
        ([annotation(image_id=True)], {}, "annotation 1 is of an unknown image True"),
        ([annotation()], {}, "neither a mask nor a box with an area, got None"),
        ([annotation(bbox=[1, 1, 0, 3])], {}, "neither a mask nor a box with an area"),
        ([annotation(bbox=[1, 1, float("nan"), 3])], {}, "neither a mask nor a box"),
        ([annotation(segmentation=[[1, 2, 3, 4]])], {}, "x and y of three corners or more"),
        ([annotation(segmentation=[[1, 2, 3, 4, 5]])], {}, "x and y of three corners or more"),
        ([annotation(segmentation=["1234567"])], {}, "x and y of three corners or more"),
        ([annotation(segmentation=[[1, 2, 3, 4, 5, 1e300]])], {}, "x and y of three corners"),
        ([annotation(segmentation="mask")], {}, "must have polygons or run lengths"),
        ([annotation(segmentation={"size": [8], "counts": [96]})], {}, "needs the size"),
        ([annotation(segmentation={"size": [1 << 40, 8], "counts": []})], {}, "needs the size"),
        ([annotation(segmentation={"size": [8, 12], "counts": [95]})], {}, "up to 96 pixels"),
        ([annotation(segmentation={"size": [8, 12], "counts": [97, -1]})], {}, "up to 96 pixels"),
        ([annotation(segmentation={"size": [8, 12], "counts": "zz"})], {}, "up to 96 pixels"),
        ([annotation(segmentation={"size": [8, 12], "counts": ""})], {}, "up to 96 pixels"),
        ([annotation(segmentation={"size": [8, 12], "counts": "o" * 99})], {}, "up to 96 pixels"),
        ([annotation(segmentation={"size": [8, 12], "counts": 96})], {}, "up to 96 pixels"),
    ],
)
def test_what_is_no_file_of_annotations_is_refused(
    tmp_path: Path, annotations: list[dict[str, Any]], changes: dict[str, Any], said: str
) -> None:
    file = write(tmp_path, *annotations, **changes)
    with pytest.raises(ValueError, match=said) as stop:
        CocoAnnotations(file)
    assert str(stop.value).startswith(f"{file}: ")
    assert "\n" not in str(stop.value)


def test_runs_of_another_size_than_the_picture_are_refused(tmp_path: Path) -> None:
    runs = {"size": [12, 8], "counts": [50, 46]}
    found = CocoAnnotations(write(tmp_path, annotation(segmentation=runs)))
    with pytest.raises(ValueError, match=r"annotation 1 is of \(12, 8\) pixels, its picture of"):
        found[0]


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    with pytest.raises(ValueError, match=r"labels\.json: No such file"):
        CocoAnnotations(file)
    for text, said in (("{", "not JSON"), ("[" * 100_000, "not JSON"), ("[]", "one JSON object")):
        file.write_text(text)
        with pytest.raises(ValueError, match=said):
            CocoAnnotations(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not JSON"):
        CocoAnnotations(file)
    with pytest.raises(ValueError, match="size must be"):
        CocoAnnotations(file, (0, 4))


@pytest.mark.data
def test_real_outlines_come_out_the_same_either_way(tmp_path: Path) -> None:
    folder = data_folder() / "coco128"
    if not folder.is_dir():
        pytest.skip("COCO's polygons are not here (DECISIVE_DATA)")
    known = open_coco_polygons(split="val2017", size=(160, 160))
    (tmp_path / "images").symlink_to(folder / "images" / "val2017")
    images, annotations = [], []
    for k, name in enumerate(known.names[:10]):
        with Image.open(folder / "images" / "val2017" / f"{name}.jpg") as picture:
            width, height = picture.size
        images.append({"id": k, "file_name": f"{name}.jpg", "height": height, "width": width})
        for kind, polygon in known._polygons[k]:
            corners = (polygon * (width, height)).ravel().tolist()
            told = {"image_id": k, "category_id": known.category_ids[kind]}
            annotations.append({**told, "id": len(annotations), "segmentation": [corners]})
    named = zip(known.category_ids, known.classes, strict=True)
    categories = [{"id": number, "name": name} for number, name in named]
    file = tmp_path / "labels.json"
    told = {"images": images, "categories": categories, "annotations": annotations}
    file.write_text(json.dumps(told))
    found = CocoAnnotations(file, (160, 160), masks=True)
    assert (found.classes, found.n_instances) == (known.classes, len(annotations))
    differing = every = 0
    for k in range(10):
        mine, theirs = found[k], known[k]
        np.testing.assert_array_equal(mine.image, theirs.image)
        np.testing.assert_array_equal(mine.classes, theirs.classes)
        differing += int((mine.masks ^ theirs.masks).sum())
        every += int(theirs.masks.sum())
    # Centres that an edge runs through, to rounding.
    assert differing <= every / 1e4
