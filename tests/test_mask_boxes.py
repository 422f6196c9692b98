"""Boxes: overlap, deltas, suppression and RoIAlign against hand-worked numbers and plain loops."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perception.deep_mac import boxes as module
from perception.deep_mac.boxes import (
    batched_nms,
    box_iou,
    check_boxes,
    check_image_index,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    jitter_boxes,
    mask_boxes,
    nms,
    roi_align,
    valid_boxes,
)

NAN, INF = math.nan, math.inf
INVALID = torch.tensor(
    [
        [NAN, 0.0, 4.0, 4.0],
        [0.0, 0.0, INF, 4.0],
        [4.0, 0.0, 0.0, 4.0],  # inverted
        [0.0, 4.0, 4.0, 4.0],  # empty
        [0.0, 0.0, 0.0, 0.0],
    ]
)
SEEDS = st.integers(0, 2**32 - 1)


def random_boxes(n: int, seed: int, span: float = 40.0, whole: bool = False) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, n, 2, generator=rng) * span
    if whole:
        corner, size = corner.floor(), size.floor() + 1
    return torch.cat([corner, corner + size + 0.01 * (not whole)], 1)


def index_of(n: int, image: int = 0) -> Tensor:
    return torch.full((n,), image, dtype=torch.long)


# Checks


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (torch.zeros(4), r"boxes must be \(N, 4\), x1 y1 x2 y2, got \(4,\)"),
        (torch.zeros(2, 5), r"got \(2, 5\)"),
        (torch.zeros(2, 4, dtype=torch.long), "must be floats, in pixels, got torch.int64"),
    ],
)
def test_what_are_no_boxes_is_refused(bad: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_boxes(bad)


def test_indices_of_images_are_checked() -> None:
    boxes = torch.zeros(2, 4)
    check_image_index(torch.tensor([0, 2]), boxes, 3)
    check_image_index(torch.tensor([], dtype=torch.int32), boxes[:0], 0)
    for bad in (torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.zeros(2), index_of(3)):
        with pytest.raises(ValueError, match="image_index must be"):
            check_image_index(bad, boxes, 3)


def test_boxes_that_are_not_finite_inverted_or_empty_are_invalid() -> None:
    assert not valid_boxes(INVALID).any()
    assert valid_boxes(torch.tensor([[-3.0, -3.0, -2.9, 9e9]])).all()
    assert valid_boxes(torch.zeros(0, 4)).shape == (0,)


def test_boxes_are_cut_at_the_borders_of_an_image_of_20_rows_and_30_columns() -> None:
    boxes = torch.tensor(
        [[-5.0, -5.0, 10.0, 10.0], [25.0, 15.0, 99.0, 99.0], [31.0, 2.0, 40.0, 9.0]]
    )
    cut = clip_boxes(boxes, (20, 30))
    assert cut.tolist() == [[0, 0, 10, 10], [25, 15, 30, 20], [30, 2, 30, 9]]
    assert valid_boxes(cut).tolist() == [True, True, False]
    assert clip_boxes(INVALID, (20, 30))[0, 0].isnan()


# Overlap


def test_overlaps_are_the_hand_worked_ones() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 6.0, 6.0]])
    others = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 4.0, 4.0], [4.0, 4.0, 5.0, 5.0]])
    # 16 + 16 - 4 cells of the union, of which 4 are shared; and so on.
    expected = [[1, 1 / 2, 0], [4 / 28, 4 / 20, 1 / 16]]
    torch.testing.assert_close(box_iou(boxes, others), torch.tensor(expected))


def test_invalid_boxes_overlap_nothing_not_even_themselves() -> None:
    everything = torch.cat([INVALID, torch.tensor([[-50.0, -50.0, 50.0, 50.0]])])
    overlap = box_iou(everything, everything)
    assert not overlap[:-1].any()
    assert not overlap[:, :-1].any()
    assert overlap[-1, -1] == 1
    assert box_iou(torch.zeros(0, 4), everything).shape == (0, 6)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, dx=st.integers(-50, 50), dy=st.integers(-50, 50))
def test_overlap_is_symmetric_a_share_and_does_not_depend_on_the_place(
    seed: int, dx: int, dy: int
) -> None:
    boxes, others = random_boxes(6, seed, whole=True), random_boxes(5, seed + 1, whole=True)
    overlap = box_iou(boxes, others)
    assert (overlap >= 0).all()
    assert (overlap <= 1).all()
    assert torch.equal(overlap, box_iou(others, boxes).T)
    shift = torch.tensor([dx, dy, dx, dy])
    assert torch.equal(overlap, box_iou(boxes + shift, others + shift))
    assert torch.equal(box_iou(boxes, boxes).diagonal(), torch.ones(6))


# Jitter


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, share=st.floats(0, 0.499))
def test_jitter_moves_each_side_by_its_share_at_most_and_keeps_boxes_valid(
    seed: int, share: float
) -> None:
    boxes = random_boxes(20, seed)
    moved = jitter_boxes(boxes, share, torch.Generator().manual_seed(seed))
    sizes = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    assert ((moved - boxes).abs() <= share * sizes + 1e-4).all()
    assert valid_boxes(moved).all()


def test_jitter_is_uniform_independent_by_side_and_repeatable() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 120.0]]).repeat(20_000, 1)
    moved = jitter_boxes(boxes, 0.1, torch.Generator().manual_seed(0))
    shares = (moved - boxes) / torch.tensor([20.0, 100.0, 20.0, 100.0])
    # A uniform number in [-.1, .1] has a standard deviation of .1 / sqrt(3).
    torch.testing.assert_close(shares.std(0), torch.full((4,), 0.1 / 3**0.5), rtol=0.02, atol=0)
    assert shares.mean(0).abs().max() < 0.002
    assert (shares.T.corrcoef() - torch.eye(4)).abs().max() < 0.03
    again = jitter_boxes(boxes, 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)
    assert torch.equal(jitter_boxes(boxes, 0.0), boxes)
    with pytest.raises(ValueError, match=r"share must be in \[0, 0.5\), got 0.5"):
        jitter_boxes(boxes, 0.5)


# Deltas


def test_deltas_are_the_hand_worked_ones() -> None:
    reference = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    box = torch.tensor([[5.0, 5.0, 15.0, 45.0]])
    # Centres (5, 10) and (10, 25), sizes (10, 20) and (10, 40).
    expected = torch.tensor([[0.5, 0.75, 0.0, math.log(2)]])
    torch.testing.assert_close(encode_boxes(box, reference), expected)
    weights = (10.0, 10.0, 5.0, 5.0)
    weighted = encode_boxes(box, reference, weights)
    torch.testing.assert_close(weighted, expected * torch.tensor([10.0, 10.0, 5.0, 5.0]))
    torch.testing.assert_close(decode_boxes(weighted, reference, weights), box)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_decoding_undoes_encoding(seed: int) -> None:
    boxes, references = random_boxes(9, seed).double(), random_boxes(9, seed + 1).double()
    ratio = (boxes[:, 2:] - boxes[:, :2]) / (references[:, 2:] - references[:, :2])
    near = (ratio < 60).all(1)
    deltas = encode_boxes(boxes, references, (3.0, 4.0, 5.0, 6.0))
    decoded = decode_boxes(deltas, references, (3.0, 4.0, 5.0, 6.0))
    torch.testing.assert_close(decoded[near], boxes[near])


def test_a_size_grows_by_1000_over_16_at_most() -> None:
    reference = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    grown = decode_boxes(torch.tensor([[0.0, 0.0, 500.0, 500.0]]), reference)
    torch.testing.assert_close(grown, torch.tensor([[-492.0, -492.0, 508.0, 508.0]]))


# Suppression


def naive_nms(boxes: Tensor, scores: Tensor, iou: float) -> list[int]:
    overlap = box_iou(boxes, boxes)
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i)):
        if not any(overlap[i, k] > iou for k in kept):
            kept.append(i)
    return kept


def test_a_box_that_was_dropped_drops_no_other() -> None:
    # Each overlaps the next by 3 / 5: the second falls to the first, and so cannot drop the third.
    boxes = torch.tensor([[0.0, 0.0, 4.0, 1.0], [1.0, 0.0, 5.0, 1.0], [2.0, 0.0, 6.0, 1.0]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]
    assert nms(boxes, torch.tensor([0.7, 0.8, 0.7]), 0.5).tolist() == [1]
    assert nms(boxes, torch.tensor([0.7, 0.8, 0.9]), 0.3).tolist() == [2]
    # Only above the limit, not at it: the first and the third share 2 of 6.
    assert nms(boxes[::2], torch.ones(2), 2 / 6).tolist() == [0, 1]


def test_of_equal_scores_the_lower_index_is_the_better() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(5, 1)
    boxes[3:] += 10
    assert nms(boxes, torch.tensor([0.5, 0.5, 0.5, 0.5, 0.6]), 0.5).tolist() == [4, 0]


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, n=st.integers(0, 25), iou=st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]))
def test_suppression_is_that_of_a_plain_loop(seed: int, n: int, iou: float) -> None:
    boxes = random_boxes(n, seed, span=8, whole=True)
    scores = torch.randint(4, (n,), generator=torch.Generator().manual_seed(seed)) / 4
    assert nms(boxes, scores, iou).tolist() == naive_nms(boxes, scores, iou)


def test_suppression_in_parts_is_that_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SUPPRESSION_CHUNK", 7)
    boxes = random_boxes(150, 3, span=20)
    scores = torch.rand(150, generator=torch.Generator().manual_seed(4))
    kept = naive_nms(boxes, scores, 0.4)
    assert 20 < len(kept) < 100
    assert nms(boxes, scores, 0.4).tolist() == kept


def test_ten_thousand_boxes_in_a_row_keep_every_other_one() -> None:
    # Each overlaps its neighbours by .5 of 2.5, and the next ones by none.
    x = torch.arange(10_000.0)
    boxes = torch.stack([x, torch.zeros_like(x), x + 1.5, torch.ones_like(x)], 1)
    kept = nms(boxes, torch.linspace(1, 0, 10_000), 0.19)
    assert torch.equal(kept, torch.arange(0, 10_000, 2))


def test_invalid_boxes_and_scores_that_are_nan_are_never_kept() -> None:
    good = torch.tensor([[0.0, 0.0, 9.0, 9.0], [20.0, 0.0, 29.0, 9.0]])
    boxes = torch.cat([INVALID, good])
    assert nms(boxes, torch.ones(7), 0.5).tolist() == [5, 6]
    assert nms(good, torch.tensor([NAN, 0.1]), 0.5).tolist() == [1]
    assert nms(boxes[:0], torch.ones(0), 0.5).tolist() == []
    assert nms(boxes[:0], torch.ones(0), 0.5).dtype == torch.long
    with pytest.raises(ValueError, match=r"scores must be \(2,\), got \(3,\)"):
        nms(good, torch.ones(3), 0.5)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, n=st.integers(0, 30))
def test_groups_do_not_see_each_other(seed: int, n: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    boxes = random_boxes(n, seed, span=8, whole=True)
    scores = torch.randint(5, (n,), generator=rng) / 5
    groups = torch.randint(-2, 2, (n,), generator=rng)
    kept = batched_nms(boxes, scores, groups, 0.4)
    expected = []
    for group in groups.unique():
        members = (groups == group).nonzero()[:, 0]
        expected += [int(members[k]) for k in naive_nms(boxes[members], scores[members], 0.4)]
    assert kept.tolist() == sorted(expected, key=lambda i: (-float(scores[i]), i))


def test_high_numbers_of_groups_do_not_round_coordinates() -> None:
    # With an offset of a group number times 100, float32 would lose the tenths of these pixels.
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.4, 0.0, 1.4, 1.0]])  # .6 / 1.4 = .43
    for iou, n_kept in ((0.42, 1), (0.44, 2)):
        groups = torch.full((2,), 10**8)
        assert len(batched_nms(boxes, torch.ones(2), groups, iou)) == n_kept
    with pytest.raises(ValueError, match=r"scores and groups must be \(2,\), got \(2,\) and \(3,"):
        batched_nms(boxes, torch.ones(2), torch.ones(3), 0.5)


# RoIAlign


def slow_roi_align(
    image: list[list[float]], box: list[float], stride: float, size: int, samples: int
) -> list[list[float]]:
    """One channel, sample by sample, in Python's numbers."""
    height, width = len(image), len(image[0])

    def read(x: float, y: float) -> float:
        if not (-1 <= x <= width and -1 <= y <= height):
            return 0.0
        x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
        j, i = int(x), int(y)
        total = 0.0
        for row, part in ((i, 1 - (y - i)), (min(i + 1, height - 1), y - i)):
            for column, share in ((j, 1 - (x - j)), (min(j + 1, width - 1), x - j)):
                total += part * share * image[row][column]
        return total

    x1, y1, x2, y2 = (side / stride - 0.5 for side in box)
    cell_x, cell_y = (x2 - x1) / size, (y2 - y1) / size
    return [
        [
            sum(
                read(
                    x1 + cell_x * (column + (a + 0.5) / samples),
                    y1 + cell_y * (row + (b + 0.5) / samples),
                )
                for a in range(samples)
                for b in range(samples)
            )
            / samples**2
            for column in range(size)
        ]
        for row in range(size)
    ]


def test_crops_are_the_hand_worked_ones() -> None:
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    whole = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    for samples in (1, 2):  # either way the mean of four cells
        crop = roi_align(maps, whole, index_of(1), 1, 2, samples)
        assert crop.tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    # The box of one cell, row 2 and column 1, read at its centre; at stride 8 too.
    for stride in (1, 8):
        cell = torch.tensor([[1.0, 2.0, 2.0, 3.0]]) * stride
        assert roi_align(maps, cell, index_of(1), stride, 1, 1).item() == 9
    # A quarter of a cell to the right: a quarter of the way from 9 to 10.
    right = torch.tensor([[1.25, 2.0, 2.25, 3.0]])
    assert roi_align(maps, right, index_of(1), 1, 1, 1).item() == 9.25


def test_points_beyond_a_cell_outside_read_zero_and_nearer_ones_the_border() -> None:
    maps = torch.full((1, 1, 3, 3), 5.0)
    # Cells of 1 pixel with centres at x = -1.5, -.5, .5 and so on; in cells -2, -1, 0.
    box = torch.tensor([[-2.0, 1.0, 6.0, 9.0]])
    crop = roi_align(maps, box, index_of(1), 1, 8, 1)[0, 0]
    assert crop[0].tolist() == [0, 5, 5, 5, 5, 5, 0, 0]
    assert crop[:, 3].tolist() == [5, 5, 5, 0, 0, 0, 0, 0]


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    size=st.integers(1, 4),
    samples=st.integers(1, 3),
    stride=st.sampled_from([1, 4, 8]),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
)
def test_crops_are_those_of_a_plain_loop(
    seed: int, size: int, samples: int, stride: int, height: int, width: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 1, height, width, generator=rng, dtype=torch.float64)
    corner = (torch.rand(3, 2, generator=rng) * 12 - 4) * stride
    boxes = torch.cat([corner, corner + torch.rand(3, 2, generator=rng) * 8 * stride + 0.1], 1)
    index = torch.tensor([0, 1, 1])
    crops = roi_align(maps, boxes, index, stride, size, samples)
    for crop, box, k in zip(crops, boxes.tolist(), index.tolist(), strict=True):
        expected = slow_roi_align(maps[k, 0].tolist(), box, stride, size, samples)
        torch.testing.assert_close(crop[0], torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(
    seed=SEEDS,
    slope_x=st.floats(-2, 2),
    slope_y=st.floats(-2, 2),
    size=st.integers(1, 7),
)
def test_crops_of_a_ramp_are_the_ramp_at_the_centres_of_their_cells(
    seed: int, slope_x: float, slope_y: float, size: int
) -> None:
    stride = 4
    x = (torch.arange(12) + 0.5) * stride
    y = (torch.arange(10)[:, None] + 0.5) * stride
    maps = (slope_x * x + slope_y * y)[None, None].double()
    rng = torch.Generator().manual_seed(seed)
    low = torch.rand(5, 2, generator=rng) * 15 + 2  # between the outermost centres
    boxes = torch.cat([low, low + torch.rand(5, 2, generator=rng) * 18 + 1], 1)
    crops = roi_align(maps, boxes, index_of(5), stride, size)
    centres = (torch.arange(size) + 0.5) / size
    across = boxes[:, :1] + centres * (boxes[:, 2:3] - boxes[:, :1])
    down = boxes[:, 1:2] + centres * (boxes[:, 3:] - boxes[:, 1:2])
    expected = slope_x * across[:, None, :] + slope_y * down[:, :, None]
    torch.testing.assert_close(crops[:, 0], expected.double(), atol=1e-4, rtol=1e-5)


def test_moving_map_and_boxes_by_whole_cells_changes_nothing() -> None:
    rng = torch.Generator().manual_seed(0)
    inner = torch.randn(1, 3, 8, 8, generator=rng)
    maps = torch.zeros(1, 3, 20, 20)
    maps[:, :, 2:10, 3:11] = inner
    moved = maps.roll((7, 4), (2, 3))
    boxes = random_boxes(10, 1, span=30)
    shift = torch.tensor([4, 7, 4, 7]) * 4
    torch.testing.assert_close(
        roi_align(maps, boxes, index_of(10), 4, 5),
        roi_align(moved, boxes + shift, index_of(10), 4, 5),
        atol=1e-5,
        rtol=1e-5,
    )


def test_each_box_reads_its_own_image_and_each_channel_its_own() -> None:
    maps = torch.arange(6.0).view(2, 3, 1, 1).expand(2, 3, 4, 4)
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(3, 1)
    crops = roi_align(maps, box, torch.tensor([1, 0, 1]), 1, 2)
    assert crops.mean((2, 3)).tolist() == [[3, 4, 5], [0, 1, 2], [3, 4, 5]]


def test_crops_are_differentiable_in_the_maps_and_not_in_the_boxes() -> None:
    maps = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    boxes = random_boxes(3, 5, span=20).requires_grad_()
    index = torch.tensor([1, 0, 1])
    assert torch.autograd.gradcheck(lambda x: roi_align(x, boxes, index, 4, 3), maps)
    roi_align(maps, boxes, index, 4, 3).sum().backward()
    assert boxes.grad is None


def test_crops_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, boxes = torch.randn(1, 4, 9, 9), random_boxes(23, 6)
    whole = roi_align(maps, boxes, index_of(23), 4, 3)
    monkeypatch.setattr(module, "_CROP_READS", 5 * 12**2)
    torch.testing.assert_close(roi_align(maps, boxes, index_of(23), 4, 3), whole)


def test_crops_to_invalid_boxes_and_to_boxes_outside_are_zero() -> None:
    maps = torch.ones(1, 2, 5, 5)
    outside = torch.tensor([[90.0, 0.0, 99.0, 9.0], [0.0, -99.0, 9.0, -90.0], [1e30, 0, 2e30, 1]])
    boxes = torch.cat([INVALID, outside, torch.tensor([[0.0, 0.0, 5.0, 5.0]])])
    crops = roi_align(maps, boxes, index_of(len(boxes)), 1, 3)
    assert not crops[:-1].any()
    torch.testing.assert_close(crops[-1], torch.ones(2, 3, 3))
    # A box as large as float32 has is no error; only its points in the map count.
    huge = torch.tensor([[-3e38, -3e38, 3e38, 3e38]])
    assert roi_align(maps, huge, index_of(1), 1, 3).isfinite().all()


def test_no_boxes_give_no_crops_that_a_loss_can_still_be_made_of() -> None:
    maps = torch.ones(2, 3, 5, 5, requires_grad=True)
    crops = roi_align(maps, torch.zeros(0, 4), index_of(0), 4, 7)
    assert crops.shape == (0, 3, 7, 7)
    crops.sum().backward()
    assert maps.grad is not None
    assert not maps.grad.any()


def test_ten_thousand_boxes_are_cropped_at_once() -> None:
    maps = torch.full((1, 8, 40, 40), 2.0)
    boxes = random_boxes(10_000, 7, span=60)
    crops = roi_align(maps, boxes, index_of(10_000), 4, 7)
    torch.testing.assert_close(crops, torch.full((10_000, 8, 7, 7), 2.0))


def test_half_precision_maps_give_half_precision_crops() -> None:
    maps, boxes = torch.rand(1, 2, 9, 9), random_boxes(5, 8, span=30)
    exact = roi_align(maps, boxes, index_of(5), 4, 3)
    rough = roi_align(maps.bfloat16(), boxes, index_of(5), 4, 3)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    "change",
    [
        {"maps": torch.zeros(3, 4, 4)},
        {"size": 0},
        {"samples": 0},
        {"stride": 0},
        {"boxes": torch.zeros(1, 5)},
        {"image_index": torch.tensor([1])},
    ],
)
def test_crops_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        "maps": torch.zeros(1, 3, 4, 4),
        "boxes": torch.zeros(1, 4),
        "image_index": index_of(1),
        "stride": 4,
        "size": 7,
    }
    roi_align(**given)
    with pytest.raises(ValueError, match="must be"):
        roi_align(**(given | change))


# Boxes of masks


def test_the_box_of_a_mask_holds_its_outermost_pixels() -> None:
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, 1, 2] = masks[0, 4, 6] = True  # rows 1 and 4, columns 2 and 6
    masks[2] = True
    assert mask_boxes(masks).tolist() == [[2, 1, 7, 5], [0, 0, 0, 0], [0, 0, 8, 6]]
    assert mask_boxes(masks).dtype == torch.float32
    assert mask_boxes(masks[:0]).shape == (0, 4)
    for bad in (masks[0], masks.float()):
        with pytest.raises(ValueError, match=r"masks must be \(N, H, W\) bool"):
            mask_boxes(bad)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, height=st.integers(1, 9), width=st.integers(1, 9), share=st.floats(0, 0.4))
def test_boxes_of_masks_are_those_of_numpy(
    seed: int, height: int, width: int, share: float
) -> None:
    masks = torch.rand(4, height, width, generator=torch.Generator().manual_seed(seed)) < share
    for box, mask in zip(mask_boxes(masks).tolist(), masks.numpy(), strict=True):
        rows, columns = np.nonzero(mask)
        sides = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if rows.size else []
        assert box == (sides or [0, 0, 0, 0])
