import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perception.deep_mac.boxes import box_iou
from perception.deep_mac.centernet import (
    Peaks,
    centre_targets,
    find_peaks,
    focal_loss,
    gaussian_radius,
    pick_detections,
    regression_loss,
)

NAN, INF = math.nan, math.inf
sides = st.floats(0.5, 200)


def whole(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


# Radius


@settings(deadline=None, max_examples=60)
@given(
    width=sides,
    height=sides,
    overlap=st.floats(0.3, 0.95),
    moves=st.tuples(*[st.floats(-1, 1)] * 4),
)
def test_a_box_with_sides_off_by_the_radius_overlaps_enough(
    width: float, height: float, overlap: float, moves: tuple[float, ...]
) -> None:
    radius = gaussian_radius(torch.tensor([[width, height]]).double(), overlap)
    box = torch.tensor([[0.0, 0.0, width, height]]).double()
    corners = [*itertools.product((-1.0, 0.0, 1.0), repeat=4), moves]
    moved = box + radius * torch.tensor(corners).double()
    assert box_iou(box, moved).min() >= overlap - 1e-9


@settings(deadline=None, max_examples=60)
@given(width=sides, height=sides, overlap=st.floats(0.3, 0.95))
def test_the_radius_is_the_largest_such(width: float, height: float, overlap: float) -> None:
    radius = gaussian_radius(torch.tensor([[width, height]]).double(), overlap) * 1.01
    box = torch.tensor([[0.0, 0.0, width, height]]).double()
    signs = torch.tensor([*itertools.product((-1.0, 1.0), repeat=4)]).double()
    assert box_iou(box, box + radius * signs).min() < overlap


def test_the_radius_of_a_square_follows_by_hand() -> None:
    # All sides in: (1 - 2r)^2 = .7. Both others allow more: .0925 when moved, .0976 when grown.
    radius = gaussian_radius(torch.tensor([[1.0, 1.0], [60.0, 60.0]]))
    assert radius.tolist() == pytest.approx([(1 - math.sqrt(0.7)) / 2, 60 * 0.08167], rel=1e-4)


def test_the_widespread_formula_lets_boxes_go_too_far() -> None:
    # Its second case: (2 (w + h) + sqrt(4 (w + h)^2 - 16 (1 - o) w h)) / 2, and the other two.
    w, h, o = 40.0, 60.0, 0.7
    roots = [
        (w + h + math.sqrt((w + h) ** 2 - 4 * w * h * (1 - o) / (1 + o))) / 2,
        (2 * (w + h) + math.sqrt(4 * (w + h) ** 2 - 16 * (1 - o) * w * h)) / 2,
        (-2 * o * (w + h) + math.sqrt(4 * (o * (w + h)) ** 2 + 16 * o * (1 - o) * w * h)) / 2,
    ]
    box = torch.tensor([[0.0, 0.0, w, h]])
    wrong, right = min(roots), gaussian_radius(torch.tensor([[w, h]])).item()
    assert box_iou(box, box + wrong * torch.tensor([1.0, 1.0, 1.0, 1.0])).item() < 0.4
    assert box_iou(box, box + right * torch.tensor([1.0, 1.0, 1.0, 1.0])).item() > 0.7
    assert wrong / right > 2.5


def test_nothing_has_a_radius_of_nothing() -> None:
    assert gaussian_radius(torch.tensor([[0.0, 5.0], [-3.0, 5.0], [0.0, 0.0]])).tolist() == [0] * 3
    assert gaussian_radius(torch.zeros(0, 2)).shape == (0,)
    with pytest.raises(ValueError, match=r"overlap must be in \(0, 1\), got 1"):
        gaussian_radius(torch.ones(1, 2), 1)


# Targets


def test_targets_of_one_box_by_hand() -> None:
    box = torch.tensor([[10.0, 4.0, 40.0, 24.0]])  # centre (25, 14), 30 x 20
    targets = centre_targets(box, whole(1), whole(0), (1, 2, 8, 12), 4)
    assert targets.cells.tolist() == [[0, 3, 6]]
    assert targets.offsets.tolist() == [[0.25, 0.5]]
    assert targets.sizes.tolist() == [[7.5, 5.0]]
    heat = targets.heat
    assert heat.shape == (1, 2, 8, 12)
    assert not heat[0, 0].any()
    assert heat[0, 1, 3, 6] == 1
    assert (heat == 1).sum() == 1
    radius = gaussian_radius(torch.tensor([[7.5, 5.0]])).item()
    sigma = (2 * radius + 1) / 6
    assert heat[0, 1, 3, 7].item() == pytest.approx(math.exp(-1 / (2 * sigma**2)), rel=1e-5)
    assert heat[0, 1, 5, 5].item() == pytest.approx(math.exp(-5 / (2 * sigma**2)), rel=1e-4)
    assert torch.equal(heat[0, 1, :, 5], heat[0, 1, :, 7])


def test_the_heat_of_several_is_the_largest() -> None:
    boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0], [20.0, 12.0, 84.0, 76.0], [0.0, 0.0, 64.0, 64.0]])
    shape = (2, 1, 32, 32)
    together = centre_targets(boxes, whole(0, 0, 0), whole(0, 0, 1), shape, 4).heat
    alone = [centre_targets(b[None], whole(0), whole(0), shape, 4).heat[0] for b in boxes]
    torch.testing.assert_close(together[0], torch.maximum(alone[0], alone[1]))
    torch.testing.assert_close(together[1], alone[2])


def test_no_box_and_boxes_that_are_none_are_no_objects() -> None:
    empty = centre_targets(torch.zeros(0, 4), whole(), whole(), (2, 3, 4, 5), 4)
    assert empty.cells.shape == (0, 3)
    assert not empty.heat.any()
    bad = torch.tensor(
        [
            [NAN, 0, 8, 8],
            [0, 0, INF, NAN],
            [8, 0, 2, 8],
            [3, 3, 3, 9],
            [-9, 0, -1, 8],
            [40, 0, 50, 9],
            [2, 2, 10, 10],
        ]
    )
    classes, images = whole(*[0] * 7), whole(*[0] * 7)
    targets = centre_targets(bad.float(), classes, images, (1, 1, 8, 8), 4)
    assert targets.cells.tolist() == [[0, 1, 1]]


def test_boxes_are_cut_at_the_border() -> None:
    boxes = torch.tensor([[-8.0, 0.0, 8.0, 8.0], [31.999, 0.0, 99.0, 8.0]])
    targets = centre_targets(boxes, whole(0, 0), whole(0, 0), (1, 1, 8, 8), 4)
    assert targets.cells.tolist() == [[0, 1, 1], [0, 1, 7]]
    assert targets.sizes[0].tolist() == [2, 2]


def test_classes_and_images_that_are_not_there_are_refused() -> None:
    box, shape = torch.tensor([[0.0, 0.0, 8.0, 8.0]]), (2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"classes must be in \[0, 3\), got 3 to 3"):
        centre_targets(box, whole(3), whole(0), shape, 4)
    with pytest.raises(ValueError, match=r"classes must be in \[0, 3\), got -1"):
        centre_targets(box, whole(-1), whole(0), shape, 4)
    with pytest.raises(ValueError, match=r"image_index must be in \[0, 2\)"):
        centre_targets(box, whole(0), whole(2), shape, 4)
    with pytest.raises(ValueError, match=r"classes must be \(1,\), got \(2,\)"):
        centre_targets(box, whole(0, 0), whole(0), shape, 4)


# Losses


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_focal_loss_by_hand() -> None:
    heat = torch.tensor([[[[1.0, 0.5, 0.0]]]])
    logits = torch.tensor([[[[logit(0.8), logit(0.4), logit(0.1)]]]])
    expected = -(0.2**2 * math.log(0.8) + 0.5**4 * 0.4**2 * math.log(0.6) + 0.1**2 * math.log(0.9))
    assert focal_loss(logits, heat).item() == pytest.approx(expected, rel=1e-5)
    # Over the number of centres, of which there are two here.
    twice = focal_loss(torch.cat((logits, logits)), torch.cat((heat, heat)))
    assert twice.item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_without_a_centre_is_a_sum() -> None:
    logits = torch.full((1, 1, 2, 2), logit(0.1))
    expected = -4 * 0.1**2 * math.log(0.9)
    assert focal_loss(logits, torch.zeros(1, 1, 2, 2)).item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_is_finite_however_wrong_the_logits_are() -> None:
    heat = torch.tensor([[[[1.0, 0.0]]]])
    logits = torch.tensor([[[[-200.0, 200.0]]]], requires_grad=True)
    loss = focal_loss(logits, heat)
    loss.backward()
    assert loss.item() == pytest.approx(400)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert focal_loss(torch.tensor([[[[30.0, -30.0]]]]), heat) < 1e-9


def test_regression_loss_by_hand() -> None:
    maps = torch.zeros(2, 2, 3, 3, requires_grad=True)
    cells = torch.tensor([[0, 1, 2], [1, 0, 0]])
    loss = regression_loss(maps, cells, torch.tensor([[1.0, -2.0], [0.5, 0.5]]))
    assert loss.item() == pytest.approx((1 + 2 + 0.5 + 0.5) / 2)
    loss.backward()
    assert maps.grad is not None
    assert maps.grad[0, :, 1, 2].tolist() == [-0.5, 0.5]
    assert maps.grad.count_nonzero() == 4
    none = regression_loss(maps, cells[:0], torch.zeros(0, 2))
    assert none.item() == 0
    none.backward()


# Peaks


def maps_of(boxes: Tensor, classes: Tensor, shape: tuple[int, int, int, int]) -> list[Tensor]:
    """What a perfect network says of one image."""
    targets = centre_targets(boxes, classes, torch.zeros_like(classes), shape, 4)
    heat = (targets.heat * 0.98 + 0.01).logit()
    offsets, sizes = torch.zeros(1, 2, *shape[2:]), torch.zeros(1, 2, *shape[2:])
    _, rows, columns = targets.cells.T
    offsets[0, :, rows, columns] = targets.offsets.T
    sizes[0, :, rows, columns] = targets.sizes.T
    return [heat, offsets, sizes]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 9999))
def test_boxes_are_found_again(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # One in each quarter of the image, so that no centre is hidden by another's heat.
    corners = torch.tensor([[2.0, 2.0], [66.0, 2.0], [2.0, 66.0], [66.0, 66.0]])
    sizes = 10 + 46 * torch.rand(4, 2, generator=generator)
    boxes = torch.cat((corners, corners + sizes), 1)
    classes = torch.randint(3, (4,), generator=generator)
    peaks = find_peaks(*maps_of(boxes, classes, (1, 3, 32, 32)), stride=4)
    (found,) = pick_detections(peaks, 0.5)
    assert len(found) == 4
    order = box_iou(boxes, found.boxes).argmax(1)
    torch.testing.assert_close(found.boxes[order], boxes, atol=1e-3, rtol=0)
    assert torch.equal(found.classes[order], classes)


def test_peaks_by_hand() -> None:
    heat = torch.full((1, 2, 4, 6), -9.0)
    heat[0, 0, 1, 1], heat[0, 0, 1, 2] = 1.0, 0.9  # the second is beside a higher one
    heat[0, 1, 1, 2] = 2.0  # of another class: not hidden
    heat[0, 0, 3, 5] = 0.0
    offsets, sizes = torch.full((1, 2, 4, 6), 0.5), torch.full((1, 2, 4, 6), 1.0)
    offsets[0, 0, 1, 2], sizes[0, 0, 1, 2] = 0.25, 2.0
    sizes[0, :, 3, 5] = torch.tensor([4.0, 8.0])
    peaks = find_peaks(heat, offsets, sizes, stride=8, n=3)
    assert peaks.classes.tolist() == [[1, 0, 0]]
    assert peaks.scores[0].tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in (2, 1, 0)])
    assert peaks.boxes[0].tolist() == [
        [(2.25 - 1) * 8, 8, (2.25 + 1) * 8, 16],
        [8, 8, 16, 16],
        [(5.5 - 2) * 8, 0, 48, 32],  # cut at the border
    ]
    (found,) = pick_detections(peaks, 0.6)
    assert found.scores.tolist() == peaks.scores[0, :2].tolist()


def test_images_have_their_own_peaks() -> None:
    heat = torch.randn(3, 2, 8, 8)
    offsets, sizes = torch.rand(3, 2, 8, 8), torch.rand(3, 2, 8, 8) * 5
    together = find_peaks(heat, offsets, sizes, 4, 10)
    for i in range(3):
        alone = find_peaks(heat[i : i + 1], offsets[i : i + 1], sizes[i : i + 1], 4, 10)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i], b[0])


def test_no_more_peaks_than_cells() -> None:
    peaks = find_peaks(*(torch.randn(1, n, 2, 2) for n in (1, 2, 2)), stride=4, n=100)
    assert peaks.scores.shape == (1, 4)
    (found,) = pick_detections(peaks, 0.0)
    assert len(found) <= 1  # all cells are neighbours


def test_boxes_without_an_area_are_not_found() -> None:
    maps = [torch.full((1, 1, 8, 8), 3.0), torch.zeros(1, 2, 8, 8), torch.full((1, 2, 8, 8), -1.0)]
    assert len(pick_detections(find_peaks(*maps, stride=4), 0.05)[0]) == 0
    maps[2] = torch.full((1, 2, 8, 8), NAN)
    assert len(pick_detections(find_peaks(*maps, stride=4), 0.05)[0]) == 0


def test_maps_of_nan_find_nothing() -> None:
    maps = [torch.full((2, n, 8, 8), NAN) for n in (1, 2, 2)]
    for part in maps:
        part[1] = 1.0
    nothing, something = pick_detections(find_peaks(*maps, stride=4), 0.05)
    assert len(nothing) == 0
    assert len(something) > 0


def test_scores_below_the_threshold_are_left_out() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 4.0, 4.0]] * 3])
    peaks = Peaks(boxes, torch.tensor([[0.9, 0.3, 0.0]]), torch.zeros(1, 3, dtype=torch.int64))
    assert [len(pick_detections(peaks, t)[0]) for t in (0.0, 0.3, 0.31, 0.95)] == [2, 2, 1, 0]
