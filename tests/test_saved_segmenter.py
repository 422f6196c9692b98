"""Segmenters on disk: boxes to and fro, masks in pixels of the image, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmenter_cases import CLASSES, saved, tiny
from torch import Tensor, nn

from learning.checkpoint import CheckpointError
from perception.deep_mac import checkpoint
from perception.deep_mac.checkpoint import load_segmenter, save_segmenter
from perception.deep_mac.instances import Detections
from perception.deep_mac.segments import View, tightened
from perception.deep_mac.two_stage import DEEP_MARCS, DeepMarc


@dataclass(frozen=True)
class MiddleConfig:
    n_classes: int = 3


class Middle(nn.Module):
    """Says that the middle of every box is its mask, and that the picture has two things."""

    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        self.config = MiddleConfig()
        self.mask_size, self.stride = 16, 8
        self.weight = nn.Parameter(torch.zeros(1))
        self.share = share
        self.seen: list[Tensor] = []

    def features(self, images: Tensor) -> Tensor:
        return images

    def detect(self, features: Tensor, n: int = 100, threshold: float = 0.05) -> list[Detections]:
        boxes = torch.tensor([[8.0, 12, 24, 20], [0, 0, 32, 3], [2, 12, 6, 20]])
        scores, classes = torch.tensor([0.9, 0.6, 0.4]), torch.tensor([2, 1, 0])
        kept = (scores >= threshold).nonzero()[:n, 0]
        return [Detections(boxes[kept], scores[kept], classes[kept])]

    def masks(self, features: Tensor, boxes: Tensor, image_index: Tensor) -> Tensor:
        assert torch.isfinite(boxes).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        self.seen.append(boxes)
        edge = round(self.mask_size * (1 - self.share) / 2)
        logits = torch.full((len(boxes), self.mask_size, self.mask_size), -9.0)
        logits[:, edge : self.mask_size - edge, edge : self.mask_size - edge] = 9.0
        return logits


def picture(height: int = 40, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def middle(share: float = 0.5, **changes: Any) -> Any:
    return saved(Middle(share), **changes)


# Boxes to the network and back


def test_given_boxes_reach_the_network_in_its_pixels() -> None:
    segmenter = middle()
    # 80 x 40 pixels become 32 x 16 in the middle of 32 x 32: factor 0.4, 8 rows of grey above.
    found = segmenter.segment(picture(), [[10, 20, 30, 40], [-20, 0, 40, 20]])
    expected = torch.tensor([[4.0, 16, 12, 24], [0, 8, 16, 16]])
    torch.testing.assert_close(segmenter.model.seen[0], expected)
    assert found.boxes.tolist() == [[10, 20, 30, 40], [-20, 0, 40, 20]]
    assert found.classes.tolist() == [-1, -1]
    assert found.names == ("", "")
    assert found.scores.tolist() == [1, 1]
    assert found.masks.shape == (2, 40, 80)
    expected_mask = np.zeros((40, 80), bool)
    expected_mask[25:35, 15:25] = True
    np.testing.assert_array_equal(found.masks[0], expected_mask)


def test_detections_come_back_in_pixels_of_the_image() -> None:
    found = middle().segment(picture(), threshold=0.5)
    # The second one is in the grey above the letterboxed picture.
    assert found.boxes.tolist() == [[20, 10, 60, 30]]
    assert found.names == ("blue",)
    assert found.classes.tolist() == [2]
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.masks[0, 15:25, 30:50].all()
    assert found.masks.sum() == 10 * 20
    assert len(middle().segment(picture(), threshold=0.0)) == 2
    assert len(middle().segment(picture(), threshold=0.0, n=1)) == 1
    assert len(middle().segment(picture(), threshold=0.95)) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 8), st.integers(1, 8))
def test_boxes_come_back_from_every_letterbox(height: int, width: int, h: int, w: int) -> None:
    view = View(np.zeros((height, width, 3), np.uint8), (8 * h, 8 * w))
    assert view.image.shape == (8 * h, 8 * w, 3)
    boxes = torch.tensor([[0.0, 0, width, height], [1.5, 0.25, 7, 9]])
    there = view.there(boxes)
    assert there[0, :2].min() >= -1e-3
    assert bool((there[0, 2:] <= torch.tensor([8.0 * w, 8.0 * h]) + 1e-3).all())
    torch.testing.assert_close(view.back(there), boxes, atol=2e-3, rtol=1e-4)


def test_pixels_are_normalised() -> None:
    segmenter = middle(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0), size=(8, 8))
    image = np.full((8, 8, 3), (255, 51, 0), np.uint8)
    found = segmenter._inputs(image)
    assert found.shape == (1, 3, 8, 8)
    assert found[0, :, 0, 0].tolist() == pytest.approx([1, -0.6, -0.5])


# Refinement


def test_tight_boxes_are_those_of_the_masks() -> None:
    logits = torch.full((3, 4, 4), -1.0)
    logits[0, 1:3, 0] = 1.0
    logits[2] = 1.0
    boxes = torch.tensor([[10.0, 20, 18, 28]]).expand(3, 4)
    assert tightened(boxes, logits).tolist() == [
        [10, 22, 12, 26],
        [10, 20, 18, 28],  # nothing there: the box stays
        [10, 20, 18, 28],
    ]
    assert tightened(boxes[:0], logits[:0]).shape == (0, 4)


def test_refinement_asks_again_with_tight_boxes() -> None:
    segmenter = middle()
    found = segmenter.segment(picture(), [[0, 0, 80, 40], [90, 0, 99, 9]], refine=2)
    assert [tuple(round(v, 2) for v in seen[0].tolist()) for seen in segmenter.model.seen] == [
        (0, 8, 32, 24),
        (8, 12, 24, 20),
        (12, 14, 20, 18),
    ]
    # A half, and a half of it: the second box is outside and stays.
    np.testing.assert_allclose(found.boxes, [[30, 15, 50, 25], [90, 0, 99, 9]])
    assert found.masks[0].sum() == 10 * 4  # rows whose centres are in 17.5 to 22.5
    assert not found.masks[1].any()


def test_refinement_of_detections() -> None:
    found = middle().segment(picture(), threshold=0.5, refine=1)
    np.testing.assert_allclose(found.boxes, [[30, 15, 50, 25]])


# Bad input


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), np.zeros((0, 4), np.float32)])
def test_no_boxes_are_no_masks(boxes: Any) -> None:
    found = saved().segment(picture(), boxes)
    assert found.boxes.shape == (0, 4)
    assert found.masks.shape == (0, 40, 80)
    assert (len(found), found.names) == (0, ())
    assert len(saved().segment(picture(), boxes, refine=2)) == 0


def test_boxes_that_hold_nothing_keep_their_place_with_an_empty_mask() -> None:
    boxes = [
        [100, 0, 140, 20],  # right of it
        [30, 30, 10, 10],  # inverted
        [10, 10, 10, 30],  # no width
        [10, 10, 30, 30],
        [-1e30, -1e30, 1e30, 1e30],  # all of it and much more
        [0, 0, 1e-30, 1e-30],
    ]
    for segmenter in (middle(), saved()):
        found = segmenter.segment(picture(), boxes, refine=1)
        assert found.masks.shape == (6, 40, 80)
        assert not found.masks[:3].any()
        assert np.isfinite(found.boxes).all()
    assert middle().segment(picture(), boxes).masks.any((1, 2)).tolist() == [
        False,
        False,
        False,
        True,
        True,
        False,
    ]


def test_ten_thousand_boxes_have_masks() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(-10, 40, (10_000, 2))
    found = saved().segment(picture(40, 40), np.concatenate([low, low + 9], 1))
    assert found.masks.shape == (10_000, 40, 40)


def test_masks_that_fill_the_memory_are_refused_or_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint, "MAX_MASK_BYTES", 2 * 40 * 80)
    boxes = np.tile([0.0, 0, 9, 9], (3, 1))
    with pytest.raises(ValueError, match=r"masks of 3 boxes in an image of 80 x 40 .* 2 boxes at"):
        middle().segment(picture(), boxes)
    assert len(middle().segment(picture(), boxes[:2])) == 2
    assert len(middle().segment(picture(), threshold=0.0)) <= 2


def test_parts_of_many_masks_give_what_all_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = np.array([[0.0, 0, 40, 40], [5, 5, 25, 30], [50, 0, 20, 9], [40, 10, 80, 40]])
    whole = saved().segment(picture(), boxes)
    monkeypatch.setattr(checkpoint, "_PASTED", 1)
    np.testing.assert_array_equal(saved().segment(picture(), boxes).masks, whole.masks)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, np.nan, 1]], "boxes must be finite, got .* in row 0"),
        ([[0, 0, 1, 1], [0, 0, np.inf, 1]], "in row 1"),
        ([[0, 0, 1e300, 1]], "finite"),
        ([0, 0, 9, 9], r"\(K, 4\), x1 y1 x2 y2, got \(4,\)"),
        (np.zeros((2, 5)), r"\(K, 4\), x1 y1 x2 y2, got \(2, 5\)"),
        (np.zeros((0, 3)), r"got \(0, 3\)"),
        ([[0, 0, 9], [0, 0, 9, 9]], "rows of different lengths"),
        (np.zeros((2, 4), bool), "numbers of pixels, got bool"),
        (np.zeros((2, 4), complex), "numbers of pixels, got complex128"),
        ([["0", "0", "9", "9"]], "numbers of pixels"),
        ([[10**400, 0, 9, 9]], "numbers of pixels"),
        ("boxes", r"got \(\)"),
    ],
)
def test_bad_boxes_are_refused(boxes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        saved().segment(picture(), boxes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "uint8 array .* got float32"),
        (np.full((8, 8, 3), np.nan), "got float64"),
        (np.zeros((8, 8, 3), bool), "got bool"),
        ([[[0, 0, 0]]], "got list"),
        (np.zeros((8, 8), np.uint8), r"\(H, W, 3\), got \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"\(H, W, 3\), got \(8, 8, 4\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), "one image at a time"),
        (np.zeros((0, 8, 3), np.uint8), "must have pixels"),
        (np.zeros((8, 0, 3), np.uint8), "must have pixels"),
        (np.zeros((1, 20_000, 3), np.uint8), "at most 16384 pixels"),
        (np.zeros((20_000, 1, 3), np.uint8), "at most 16384 pixels"),
    ],
)
def test_bad_images_are_refused(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        saved().segment(image)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"n": 0}, "n must be a whole number from 1 up, got 0"),
        ({"n": 1.5}, "n must be"),
        ({"refine": -1}, "refine must be a whole number from 0 up"),
        ({"threshold": 1.1}, r"threshold must be in \[0, 1\]"),
        ({"threshold": np.nan}, "threshold must be"),
        ({"threshold": 10**400}, "threshold must be"),
        ({"threshold": "high"}, "threshold must be"),
    ],
)
def test_bad_wishes_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        saved().segment(picture(), **asked)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((1, 3000, 3), np.uint8),
        np.zeros((2000, 2, 3), np.uint8),
        picture(64, 64)[::-1, ::2],
    ],
)
def test_images_of_any_shape_are_taken(image: np.ndarray) -> None:
    height, width = image.shape[:2]
    found = saved().segment(image, threshold=0.0, n=5)
    assert found.masks.shape == (len(found), height, width)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [width, height, width, height]).all()
    assert saved().segment(image, [[0, 0, width, height]]).masks.shape == (1, height, width)


# On disk


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ()}, "classes must be"),
        ({"classes": ("a", "a", "b")}, "classes must be"),
        ({"masked_classes": ("yellow",)}, "masked_classes must be classes, got 'yellow'"),
        ({"size": (0, 16)}, "size must be"),
        ({"size": (16,)}, "size must be"),
        ({"size": (32, 30)}, r"multiples of 4 pixels, got \(32, 30\)"),
        ({"mean": (0.5,)}, "mean must be three"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"mean": (0.0, float("nan"), 0.0)}, "mean must be three finite"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(saved(), **changes)


def test_a_segmenter_comes_back_as_it_was(tmp_path: Path) -> None:
    one = saved(
        mean=(0.4, 0.5, 0.6), masked_classes=("red",), scores={"given_boxes": {"seen": 0.8}}
    )
    save_segmenter(tmp_path / "s", one, "# Masks\n")
    other = load_segmenter(tmp_path / "s")
    assert not other.model.training
    assert other.model.config == one.model.config
    for name in ("architecture", "classes", "size", "mean", "std", "masked_classes", "scores"):
        assert getattr(other, name) == getattr(one, name)
    found = [s.segment(picture(), threshold=0.0, n=7) for s in (one, other)]
    assert len(found[0]) == 7
    for name in ("boxes", "scores", "classes", "masks"):
        np.testing.assert_array_equal(getattr(found[1], name), getattr(found[0], name))
    assert (tmp_path / "s" / "README.md").read_text() == "# Masks\n"


def test_a_two_stage_segmenter_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = DEEP_MARCS["deep_marc_small"]
    model = DeepMarc(replace(small, n_classes=3, backbone="efficientnetv2_b0_quarter", width=16))
    size = (model.stride * 2, model.stride * 2)
    one = saved(model, architecture="deep_marc", size=size)
    save_segmenter(tmp_path / "s", one, "")
    other = load_segmenter(tmp_path / "s")
    assert other.model.config == model.config
    boxes = [[0, 0, 30, 30], [5, 5, 70, 35]]
    found = [s.segment(picture(), boxes) for s in (one, other)]
    np.testing.assert_array_equal(found[1].masks, found[0].masks)
    for name, value in model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value), name


@pytest.mark.parametrize("changes", [{"classes": ("a", "b")}, {"architecture": "deep_marc"}])
def test_what_could_not_be_read_back_is_not_written(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"n_classes is 3 of 2|not the config of a segmenter"):
        save_segmenter(tmp_path / "s", replace(saved(), **changes), "")
    other = tiny()
    other.mask_head = tiny(seed=1, mask_size=8, width=8, pixel_embedding=6).mask_head
    with pytest.raises(CheckpointError, match="other names or shapes"):
        save_segmenter(tmp_path / "s", saved(other), "")
    assert not (tmp_path / "s").exists()


def test_an_unknown_name_lists_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINTS", tmp_path)
    save_segmenter(tmp_path / "tabletop", saved(), "")
    assert load_segmenter("tabletop").classes == CLASSES
    with pytest.raises(CheckpointError, match=r"no segmenter 'tabeltop'.*shipped: tabletop"):
        load_segmenter("tabeltop")


def _drop(part: str, key: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: document[part].pop(key)


def _set(part: str, key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document[part].update({key: value})


def _network(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["config"]["network"].update({key: value})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop("spec", "classes"), "classes"),
        (_drop("config", "architecture"), "architecture"),
        (_drop("config", "network"), "network"),
        (_set("config", "architecture", "mask_rcnn"), "unknown architecture 'mask_rcnn'; known"),
        (_set("config", "network", []), "not the config of a segmenter"),
        (_network("widht", 8), "widht"),
        (_network("width", "wide"), "width must be whole"),
        (_network("backbone", "resnet"), "backbone must be one of"),
        (_network("head", {"kind": "hourglass", "depth": 11}), "depth of a head"),
        (_network("head", {"sort": "hourglass"}), "sort"),
        (_network("n_classes", 4), "n_classes is 4 of 3 classes"),
        (_network("width", 16), "must be"),
        (_network("width", 10**5), "must be"),
        (_network("width", 10**9), "overflow"),
        (_set("spec", "size", 16), "not the config of a segmenter"),
        (_set("spec", "size", [32, 30]), "multiples of 4"),
        (_set("spec", "std", [1, 1, 0]), "std must be positive"),
        (_set("spec", "mean", ["a", 0, 0]), "mean must be three finite"),
        (_set("spec", "classes", ["a", "b"]), "n_classes is 3 of 2"),
        (_set("spec", "classes", ["a", 1, "b"]), "classes must be"),
        (lambda document: document.update(method="ibc"), "holds 'ibc', not a segmenter"),
    ],
)
def test_a_broken_document_gives_one_line(
    damage: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    save_segmenter(tmp_path / "s", saved(), "")
    path = tmp_path / "s" / "config.json"
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=message) as error:
        load_segmenter(tmp_path / "s")
    assert "\n" not in str(error.value)
