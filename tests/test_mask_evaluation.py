"""Scores of segmenters: average precision by hand, boxes of known quality, classes apart."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from learning.instance_set import Scene
from perception.deep_mac.average_precision import CocoScorer
from perception.deep_mac.evaluation import (
    MANNERS,
    QUALITIES,
    Found,
    class_mean,
    coco_scores,
    evaluate_given_boxes,
    evaluate_segmenter,
    iou_by_box_quality,
    worsened_boxes,
)
from perception.deep_mac.instances import Detections

pytest.importorskip("pycocotools")
NAMES = ("duck", "mug", "slot")
SIZE = 40
Box = tuple[int, int, int, int]


def rectangle(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def scene_of(*things: tuple[int, Box]) -> Scene:
    """Rectangles of a class each."""
    masks = np.stack([rectangle(*box) for _, box in things])
    kinds = np.array([kind for kind, _ in things])
    return Scene.from_masks(np.zeros((SIZE, SIZE, 3), np.uint8), masks, kinds)


def found_of(*things: tuple[int, float, Box]) -> Found:
    """Class, score and rectangle."""
    return Found(
        np.array([box for _, _, box in things], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in things], np.float32),
        np.array([kind for kind, _, _ in things], np.int64),
        np.array([rectangle(*box) for *_, box in things], bool).reshape(-1, SIZE, SIZE),
    )


LEFT, RIGHT, LOW = (2, 2, 12, 12), (20, 2, 30, 12), (5, 20, 25, 36)


# Average precision


def test_what_is_all_right_scores_one() -> None:
    scenes = [scene_of((0, LEFT), (0, RIGHT), (2, LOW)), scene_of((2, LEFT))]
    found = [
        found_of((0, 0.3, RIGHT), (2, 0.9, LOW), (0, 0.8, LEFT)),
        found_of((2, 0.5, LEFT)),
    ]
    told = coco_scores(scenes, found, NAMES)
    measures = ("box_ap", "box_ap50", "mask_ap", "mask_ap50")
    assert [told[name] for name in measures] == pytest.approx([1, 1, 1, 1])
    assert {name: own["n"] for name, own in told["classes"].items()} == {"duck": 2, "slot": 2}


def test_what_is_missed_ends_the_recall() -> None:
    told = coco_scores([scene_of((0, LEFT), (0, RIGHT))], [found_of((0, 0.9, LEFT))], NAMES)
    # Precision is 1 at the recalls 0, .01, ..., .50 and 0 at the 50 others.
    assert told["mask_ap"] == pytest.approx(51 / 101)
    assert told["box_ap50"] == pytest.approx(51 / 101)


def test_a_duplicate_is_wrong_and_costs_what_comes_after_it() -> None:
    scenes = [scene_of((0, LEFT), (0, RIGHT))]
    last = found_of((0, 0.9, LEFT), (0, 0.8, RIGHT), (0, 0.7, LEFT))
    assert coco_scores(scenes, [last], NAMES)["mask_ap"] == pytest.approx(1)
    between = found_of((0, 0.9, LEFT), (0, 0.7, RIGHT), (0, 0.8, LEFT))
    # The second duck is found by the third detection: precision 2 / 3 beyond a recall of .5.
    expected = (51 + 50 * 2 / 3) / 101
    assert coco_scores(scenes, [between], NAMES)["mask_ap"] == pytest.approx(expected)
    assert coco_scores(scenes, [between], NAMES)["box_ap"] == pytest.approx(expected)


@pytest.mark.parametrize(("width", "counted"), [(4, 0), (5, 1), (6, 3), (7, 5), (8, 7), (9, 9)])
def test_an_iou_counts_up_to_its_threshold(width: int, counted: int) -> None:
    # A part of a square of 10: the IoU is width / 10, the thresholds .5, .55, ..., .95.
    scenes, found = [scene_of((1, LEFT))], [found_of((1, 0.9, (2, 2, 2 + width, 12)))]
    told = coco_scores(scenes, found, NAMES)
    assert told["mask_ap"] == pytest.approx(counted / 10)
    assert told["box_ap"] == pytest.approx(counted / 10)
    assert told["mask_ap50"] == pytest.approx(float(counted > 0))


def test_boxes_and_masks_are_scored_apart() -> None:
    found = found_of((0, 0.9, LEFT))
    half = replace(found, masks=found.masks & (np.arange(SIZE) < 7))
    told = coco_scores([scene_of((0, LEFT))], [half], NAMES)
    assert told["box_ap"] == pytest.approx(1)
    assert told["mask_ap"] == pytest.approx(0.1)
    nothing = replace(found, masks=np.zeros_like(found.masks))
    assert coco_scores([scene_of((0, LEFT))], [nothing], NAMES)["mask_ap"] == 0


def test_classes_count_alike_and_are_averaged_apart() -> None:
    scenes = [scene_of((0, LEFT), (0, RIGHT), (1, LOW)), scene_of((2, LEFT))]
    found = [found_of((0, 0.9, LEFT), (0, 0.8, RIGHT), (2, 0.7, LOW)), found_of()]
    told = coco_scores(scenes, found, NAMES)
    own = told["classes"]
    assert {name: own[name]["mask_ap"] for name in NAMES} == {"duck": 1, "mug": 0, "slot": 0}
    assert told["mask_ap"] == pytest.approx(1 / 3)
    assert class_mean(own, "mask_ap", {"duck", "slot"}) == pytest.approx(1 / 2)
    assert class_mean(own, "mask_ap", {"slot"}) == 0
    assert math.isnan(class_mean(own, "mask_ap", {"plank"}))


def test_nothing_is_printed_and_pictures_may_be_empty(capsys) -> None:
    empty = Scene.from_masks(
        np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((0, SIZE, SIZE), bool), np.empty(0, np.int64)
    )
    scenes, found = [empty, scene_of((0, LEFT))], [found_of(), found_of((0, 0.9, LEFT))]
    assert coco_scores(scenes, found, NAMES)["mask_ap"] == pytest.approx(1)
    # A detection where there is nothing comes first, and halves the precision.
    wrong = [found_of((0, 0.95, LOW)), found[1]]
    assert coco_scores(scenes, wrong, NAMES)["mask_ap"] == pytest.approx(1 / 2)
    assert coco_scores(scenes, [found_of(), found_of()], NAMES)["mask_ap"] == 0
    with pytest.raises(ValueError, match="needs a true instance"):
        coco_scores([empty], [found_of()], NAMES)
    assert capsys.readouterr().out == ""


def test_what_does_not_fit_is_refused() -> None:
    scenes, right = [scene_of((0, LEFT))], found_of((0, 0.9, LEFT))
    for few in ([], [right, right]):
        with pytest.raises(ValueError, match="as many as scenes"):
            coco_scores(scenes, few, NAMES)
    with pytest.raises(ValueError, match="have no names"):
        coco_scores(scenes, [right])
    with pytest.raises(ValueError, match="1 boxes, scores and masks of 40 x 40 pixels"):
        coco_scores(scenes, [replace(right, masks=right.masks[:, :20])], NAMES)
    with pytest.raises(ValueError, match="must be finite"):
        coco_scores(scenes, [replace(right, scores=np.array([np.nan]))], NAMES)
    with pytest.raises(ValueError, match=r"classes must be 0 to 2: \[3\]"):
        coco_scores(scenes, [replace(right, classes=np.array([3]))], NAMES)


def test_without_pycocotools_one_line_says_so(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(ValueError, match="needs pycocotools"):
        CocoScorer(NAMES)


# Boxes of known quality


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    both = np.maximum(sides, 0).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return both / (areas[0] + areas[1] - both)


@given(
    st.integers(0, 2**20),
    st.floats(0.3, 1.0),
    st.sampled_from(MANNERS),
)
def test_boxes_get_worse_to_the_very_iou(seed: int, quality: float, manner) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (6, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 35, (6, 2))], 1).astype(np.float32)
    worse = worsened_boxes(boxes, quality, manner, (100, 100), np.random.default_rng(seed))
    again = worsened_boxes(boxes, quality, manner, (100, 100), np.random.default_rng(seed))
    np.testing.assert_array_equal(worse, again)
    assert worse.dtype == np.float32
    exact = boxes.astype(np.float64), worse.astype(np.float64)
    np.testing.assert_allclose(iou(*exact), quality, atol=1e-5)
    sides, own = worse[:, 2:] - worse[:, :2], boxes[:, 2:] - boxes[:, :2]
    if manner == "loosened":
        assert (worse[:, :2] <= boxes[:, :2] + 1e-4).all()
        assert (worse[:, 2:] >= boxes[:, 2:] - 1e-4).all()
        assert (worse[sides.max(1) < 99] > -1e-3).all()
        assert (worse[sides.max(1) < 99] < 100 + 1e-3).all()
    else:
        np.testing.assert_allclose(sides, own, atol=1e-4)
        # A box that could be moved the other way is not moved out of the picture.
        step = np.abs(worse[:, :2] - boxes[:, :2])
        room = (boxes[:, :2] > step + 1e-3) | (100 - boxes[:, 2:] > step + 1e-3)
        assert ((worse[:, :2] > -1e-3) & (worse[:, 2:] < 100 + 1e-3))[room].all()


def test_boxes_get_worse_to_all_sides() -> None:
    boxes = np.tile(np.array([[40, 40, 60, 50]], np.float32), (400, 1))
    for manner, sign in zip(MANNERS, (-1, 1), strict=True):
        moved = worsened_boxes(boxes, 0.5, manner, (100, 100), np.random.default_rng(0)) - boxes
        # Grown boxes grow as much to the left as to the right, moved ones move as often.
        np.testing.assert_allclose(moved[:, :2].mean(0), sign * moved[:, 2:].mean(0), atol=0.4)
        assert (moved.std(0) > 0.8).all()
        assert np.abs(moved).max() < 20
        if manner == "shifted":
            assert np.abs(moved.mean(0)).max() < 0.5
    with pytest.raises(ValueError, match="IoU of 0"):
        worsened_boxes(boxes, 0.0, "loosened", (100, 100), np.random.default_rng(0))


# Segmenters


class Filled(nn.Module):
    """Finds what it was told of, in the order of the pictures; its masks fill their boxes."""

    config = None
    mask_size, stride = 16, 4

    def __init__(self, found: list[Detections] = []) -> None:  # noqa: B006
        super().__init__()
        self.found, self.first, self.calls = found, 0, 0

    def features(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        assert images.dtype == torch.float32
        return images

    def detect(self, features: torch.Tensor, n: int = 100, threshold: float = 0.05):
        start, self.first = self.first, self.first + len(features)
        return self.found[start : self.first]

    def masks(self, features, boxes: torch.Tensor, image_index: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        assert len(image_index) == len(boxes)
        assert (image_index.diff() >= 0).all()
        return torch.full((len(boxes), 16, 16), 9.0)

    def losses(self, images, targets, training, generator=None):
        raise NotImplementedError


def same(images: torch.Tensor) -> torch.Tensor:
    assert 0 <= images.min() <= images.max() <= 1
    return images


def detections(*things: tuple[int, float, Box]) -> Detections:
    found = found_of(*things)
    return Detections(*map(torch.from_numpy, (found.boxes, found.scores, found.classes)))


SCENES = [scene_of((0, LEFT), (1, LOW)), scene_of((2, RIGHT)), scene_of((0, RIGHT), (0, LEFT))]


def test_a_segmenter_is_scored_by_what_it_finds() -> None:
    model = Filled(
        [
            detections((0, 0.9, LEFT), (1, 0.8, LOW)),
            detections(),
            detections((0, 0.7, RIGHT)),
        ]
    ).train()
    told = evaluate_segmenter(model, same, SCENES, NAMES, batch_size=2)
    assert model.training
    assert model.calls == 2
    own = told["classes"]
    assert own["mug"]["mask_ap"] == own["mug"]["box_ap"] == pytest.approx(1)
    assert own["slot"]["mask_ap"] == 0
    # Two ducks of three: recalls to .66.
    assert own["duck"]["mask_ap"] == pytest.approx(67 / 101)
    assert told["mask_ap"] == pytest.approx((1 + 0 + 67 / 101) / 3)


def test_given_boxes_are_scored_by_their_masks() -> None:
    hollow = scene_of((0, LEFT), (1, LOW))
    mask = hollow.masks[1] & ~rectangle(10, 24, 18, 32)
    hollow = Scene.from_masks(hollow.image, np.stack([hollow.masks[0], mask]), hollow.classes)
    told = evaluate_given_boxes(Filled(), same, [hollow, SCENES[1]], NAMES)
    # 64 of 320 pixels of the box are a hole.
    assert told["classes"]["mug"]["mask_iou"] == pytest.approx(0.8)
    assert told["classes"]["mug"]["mask_ap"] == pytest.approx(0.7)
    assert told["classes"]["duck"]["mask_iou"] == pytest.approx(1)
    assert told["mask_iou"] == pytest.approx((1 + 0.8 + 1) / 3)
    assert told["mask_ap"] == pytest.approx((1 + 0.7 + 1) / 3)
    assert "box_ap" not in told


def test_pictures_of_several_sizes_are_not_put_in_one_batch() -> None:
    wide = Scene.from_masks(
        np.zeros((20, 44, 3), np.uint8), np.ones((1, 20, 44), bool), np.array([1])
    )
    model = Filled()
    told = evaluate_given_boxes(model, same, [SCENES[0], wide, wide, SCENES[1]], NAMES)
    assert model.calls == 3
    assert told["mask_iou"] == pytest.approx(1)


def test_pictures_without_instances_are_no_trouble() -> None:
    empty = Scene.from_masks(
        np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((0, SIZE, SIZE), bool), np.empty(0, np.int64)
    )
    told = evaluate_given_boxes(Filled(), same, [empty, SCENES[1], empty], NAMES, batch_size=1)
    assert told["mask_iou"] == pytest.approx(1)
    found = [detections(), detections((2, 0.9, RIGHT))]
    told = evaluate_segmenter(Filled(found), same, [empty, SCENES[1]], NAMES, batch_size=1)
    assert told["mask_ap"] == pytest.approx(1)


def test_masks_that_fill_their_boxes_are_as_good_as_these() -> None:
    masks = np.zeros((2, 100, 100), bool)
    masks[0, 20:80, 25:75] = masks[1, 30:70, 20:80] = True
    scene = Scene.from_masks(np.zeros((100, 100, 3), np.uint8), masks, np.array([0, 2]))
    told = iou_by_box_quality(Filled(), same, [scene] * 12, ("slot",), NAMES, batch_size=4)
    for manner in MANNERS:
        assert list(told[manner]) == ["1.0", *map(str, QUALITIES)]
        for group in ("seen", "unseen"):
            assert told[manner]["1.0"][group] == pytest.approx(1)
            for quality in QUALITIES:
                # Boxes end between pixels, masks do not.
                assert told[manner][str(quality)][group] == pytest.approx(quality, abs=0.01)


def test_quality_depends_on_the_seed_and_not_on_batches() -> None:
    first, second, third = (
        iou_by_box_quality(
            Filled(), same, SCENES, (), NAMES, qualities=(0.7,), seed=seed, batch_size=size
        )
        for seed, size in ((0, 1), (0, 3), (1, 3))
    )
    assert str(first) == str(second) != str(third)
    assert math.isnan(first["shifted"]["0.7"]["unseen"])
