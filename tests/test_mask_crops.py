import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perception.deep_mac.crops import coordinate_channels, crop_boxes, crop_masks, paste_masks

NAN, INF = math.nan, math.inf
BAD = torch.tensor(
    [
        [NAN, 0.0, 8.0, 8.0],
        [0.0, 0.0, INF, 8.0],
        [8.0, 0.0, 2.0, 8.0],  # inverted
        [0.0, 8.0, 8.0, 2.0],
        [3.0, 3.0, 3.0, 9.0],  # empty
    ]
)


def index(*images: int) -> Tensor:
    return torch.tensor(images, dtype=torch.int64)


def ramps(height: int, width: int, stride: int) -> Tensor:
    """`(1, 2, height, width)`: x and y of each cell's centre, pixels."""
    x = (torch.arange(width) + 0.5) * stride
    y = (torch.arange(height) + 0.5) * stride
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)))[None]


boxes_inside = st.tuples(*[st.floats(4, 60, width=32)] * 4).map(
    lambda s: (min(s[0], s[2]), min(s[1], s[3]), max(s[0], s[2]) + 0.5, max(s[1], s[3]) + 0.5)
)


# Features


@settings(deadline=None, max_examples=40)
@given(box=boxes_inside, size=st.integers(1, 9))
def test_a_crop_reads_the_places_of_its_cells(
    box: tuple[float, float, float, float], size: int
) -> None:
    # Bilinear interpolation of a ramp is exact: what comes out is where it was read.
    crop = crop_boxes(ramps(16, 16, 4), torch.tensor([box]), index(0), 4, size)[0].double()
    shares = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    x = (box[0] + shares * (box[2] - box[0])).clamp(2, 62)  # beyond: the outermost centres
    y = (box[1] + shares * (box[3] - box[1])).clamp(2, 62)
    torch.testing.assert_close(crop[0], x.expand(size, size), atol=1e-3, rtol=0)
    torch.testing.assert_close(crop[1], y[:, None].expand(size, size), atol=1e-3, rtol=0)


def test_a_crop_of_whole_cells_is_these_cells() -> None:
    maps = torch.randn(1, 3, 6, 8)
    crop = crop_boxes(maps, torch.tensor([[8.0, 4.0, 24.0, 20.0]]), index(0), 4, 4)
    torch.testing.assert_close(crop, maps[:, :, 1:5, 2:6])


def test_outside_the_map_its_border_goes_on() -> None:
    maps = torch.arange(4.0).view(1, 1, 2, 2)
    boxes = torch.tensor([[-8.0, -8.0, 0.0, 0.0], [6.0, 100.0, 8.0, 104.0], [-9e9, 0.0, 9e9, 8.0]])
    crops = crop_boxes(maps, boxes, index(0, 0, 0), 4, 2)
    assert crops[0].tolist() == [[[0, 0], [0, 0]]]
    torch.testing.assert_close(crops[1], torch.tensor([[[3.0, 3.0], [3.0, 3.0]]]))
    torch.testing.assert_close(crops[2], torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]))


def test_boxes_of_several_images_read_their_own() -> None:
    maps = torch.randn(5, 3, 10, 12)
    corners = torch.rand(40, 2) * 60 - 10
    boxes = torch.cat((corners, corners + 1 + 30 * torch.rand(40, 2)), 1)
    images = torch.randint(5, (40,))
    crops = crop_boxes(maps, boxes, images, 4, 7)
    for i in range(40):
        alone = crop_boxes(maps[images[i]][None], boxes[i : i + 1], index(0), 4, 7)
        torch.testing.assert_close(crops[i], alone[0], atol=1e-4, rtol=0)


def test_nan_stays_in_its_image() -> None:
    maps = torch.ones(3, 2, 4, 4)
    maps[1] = NAN
    edges = torch.tensor([[0.0, 12.0, 16.0, 16.0], [0.0, 0.0, 16.0, 4.0], [-9.0, -9.0, 30.0, 30.0]])
    crops = crop_boxes(maps, edges.repeat(2, 1), index(0, 0, 0, 2, 2, 2), 4, 8)
    assert torch.equal(crops, torch.ones_like(crops))


def test_crops_of_boxes_that_are_none_are_zero() -> None:
    maps = torch.ones(2, 3, 4, 4)
    boxes = torch.cat((BAD, torch.tensor([[0.0, 0.0, 8.0, 8.0]])))
    for n_maps in (1, 2):
        crops = crop_boxes(maps[:n_maps], boxes, torch.zeros(6, dtype=torch.int64), 4, 5)
        assert not crops[:5].any()
        torch.testing.assert_close(crops[5], torch.ones(3, 5, 5))


def test_no_box_gives_no_crop() -> None:
    for n_maps in (1, 3):
        maps = torch.ones(n_maps, 3, 4, 4, requires_grad=True)
        crops = crop_boxes(maps, torch.zeros(0, 4), index(), 4, 32)
        assert crops.shape == (0, 3, 32, 32)
        crops.sum().backward()
        assert maps.grad is not None
        assert not maps.grad.any()
    assert crop_masks(torch.zeros(0, 8, 9, dtype=torch.bool), torch.zeros(0, 4), 5).shape == (
        (0, 5, 5)
    )
    assert paste_masks(torch.zeros(0, 5, 5), torch.zeros(0, 4), 8, 9).shape == (0, 8, 9)


def test_gradients_reach_the_maps_and_not_the_boxes() -> None:
    maps = torch.randn(2, 1, 8, 8, requires_grad=True)
    boxes = torch.tensor([[3.0, 5.0, 20.0, 30.0], [0.0, 0.0, 4.0, 4.0]], requires_grad=True)
    crop_boxes(maps, boxes, index(0, 1), 4, 6).sum().backward()
    assert boxes.grad is None
    assert maps.grad is not None
    # Each cell is a weighted mean of cells of the map.
    assert maps.grad[0].sum().item() == pytest.approx(36, rel=1e-4)
    assert maps.grad[1, 0, 0, 0].item() == pytest.approx(36, rel=0.4)
    assert not maps.grad[1, 0, 2:].any()


def test_half_precision_maps_are_read_at_exact_places() -> None:
    maps = ramps(64, 64, 4)
    box = torch.tensor([[201.3, 7.9, 207.4, 9.8]])
    exact = crop_boxes(maps, box, index(0), 4, 4)
    half = crop_boxes(maps.bfloat16(), box, index(0), 4, 4)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=1.1, rtol=0)  # of 255 in 8 bits


def test_coordinates_go_from_minus_one_to_one() -> None:
    x, y = coordinate_channels(2, 3)[1]
    assert x.tolist() == [[-1, 0, 1]] * 3
    assert y.tolist() == [[-1] * 3, [0] * 3, [1] * 3]
    assert coordinate_channels(0, 32).shape == (0, 2, 32, 32)


# Masks to crops


def test_a_cell_holds_the_share_of_it_that_is_covered() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1:3, 2:4] = True
    crop = crop_masks(mask, torch.tensor([[1.0, 0.0, 4.0, 4.0]]), 2)
    # Cells are 1.5 x 2: the left ones reach from x = 1 to 2.5, and half a pixel is covered.
    assert crop[0].tolist() == pytest.approx(np.array([[1 / 6, 1 / 2], [1 / 6, 1 / 2]]))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 999),
    box=st.tuples(*[st.floats(-12, 12, width=32)] * 2, *[st.floats(0.25, 20, width=32)] * 2),
    size=st.integers(1, 12),
)
def test_the_mean_of_a_crop_is_the_covered_share_of_the_box(
    seed: int, box: tuple[float, float, float, float], size: int
) -> None:
    mask = torch.rand(1, 9, 11, generator=torch.Generator().manual_seed(seed)) < 0.5
    x1, y1, x2, y2 = box[0], box[1], box[0] + box[2], box[1] + box[3]
    crop = crop_masks(mask, torch.tensor([[x1, y1, x2, y2]], dtype=torch.float64), size)
    columns = np.clip(np.minimum(np.arange(11) + 1, x2) - np.maximum(np.arange(11), x1), 0, None)
    rows = np.clip(np.minimum(np.arange(9) + 1, y2) - np.maximum(np.arange(9), y1), 0, None)
    covered = float(rows @ mask[0].numpy() @ columns)
    assert crop.mean().item() == pytest.approx(covered / ((x2 - x1) * (y2 - y1)), abs=1e-5)
    assert crop.min() >= 0
    assert crop.max() <= 1


def test_fine_patterns_in_large_boxes_are_averaged() -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, :, ::2] = True
    crop = crop_masks(mask, torch.tensor([[0.0, 0.0, 64.0, 64.0]]), 8)
    torch.testing.assert_close(crop, torch.full((1, 8, 8), 0.5))


def test_outside_the_image_and_in_boxes_that_are_none_there_is_no_mask() -> None:
    masks = torch.ones(6, 8, 8, dtype=torch.bool)
    boxes = torch.cat((BAD, torch.tensor([[20.0, 20.0, 30.0, 30.0]])))
    assert not crop_masks(masks, boxes, 4).any()
    half = crop_masks(masks[:1], torch.tensor([[-8.0, 0.0, 8.0, 8.0]]), 4)[0]
    assert half.tolist() == [[0, 0, 1, 1]] * 4


def test_wanted_masks_are_exact_where_all_else_is_in_half_precision() -> None:
    masks, boxes = torch.rand(2, 9, 9) < 0.5, torch.tensor([[0.3, 0.0, 7.1, 8.0], [1, 2, 9, 9]])
    exact = crop_masks(masks, boxes, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(crop_masks(masks, boxes, 5), exact)


def test_many_masks_are_cropped_in_parts() -> None:
    masks = torch.rand(300, 128, 128) < 0.3
    boxes = torch.tensor([[10.0, 20.0, 90.0, 70.0]]).expand(300, 4)
    crops = crop_masks(masks, boxes, 8)
    torch.testing.assert_close(crops[299:], crop_masks(masks[299:], boxes[299:], 8))


# Crops to masks


def test_pixels_are_interpolated_between_cells() -> None:
    mask = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    pasted = paste_masks(mask, torch.tensor([[1.0, 1.0, 5.0, 3.0]]), 4, 6)[0]
    line = [0, 0, 0.25, 0.75, 1, 0]
    assert pasted.tolist() == [[0] * 6, line, line, [0] * 6]


@settings(deadline=None, max_examples=60)
@given(
    box=st.tuples(*[st.floats(-40, 40, width=32)] * 4),
    size=st.sampled_from([1, 2, 7, 32]),
)
def test_a_full_mask_fills_the_pixels_whose_centre_is_in_the_box(
    box: tuple[float, float, float, float], size: int
) -> None:
    pasted = paste_masks(torch.ones(1, size, size), torch.tensor([box]), 12, 15)[0]
    x, y = torch.arange(15) + 0.5, torch.arange(12) + 0.5
    inside = ((x >= box[0]) & (x < box[2])) & ((y >= box[1]) & (y < box[3]))[:, None]
    torch.testing.assert_close(pasted, inside.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("radius", [5.0, 14.0, 60.0])
def test_pasting_undoes_cropping(radius: float) -> None:
    # Boxes of fewer, of about as many and of more pixels than the 32 cells.
    x = torch.arange(160) + 0.5
    mask = (((x - 71.3) ** 2 + (x[:, None] - 76.8) ** 2) < radius**2)[None]
    box = torch.tensor([[71.3, 76.8, 71.3, 76.8]]) + radius * torch.tensor([-1.1, -1.1, 1.2, 1.1])
    pasted = paste_masks(crop_masks(mask, box, 32), box, 160, 160) > 0.5
    overlap = (pasted & mask).sum() / (pasted | mask).sum()
    assert overlap > 0.97


def test_small_boxes_average_their_cells() -> None:
    stripes = torch.zeros(1, 32, 32)
    stripes[:, :, ::2] = 1
    pasted = paste_masks(stripes, torch.tensor([[2.0, 2.0, 10.0, 10.0]]), 12, 12)[0, 2:10, 2:10]
    assert (pasted - 0.5).abs().max() < 0.13


def test_logits_are_pasted_as_probabilities() -> None:
    logits, box = torch.randn(1, 8, 8), torch.tensor([[1.0, 2.0, 30.0, 20.0]])
    assert torch.equal(
        paste_masks(logits, box, 24, 32, logits=True), paste_masks(logits.sigmoid(), box, 24, 32)
    )


def test_boxes_that_are_none_or_elsewhere_have_empty_masks() -> None:
    elsewhere = [[-9.0, 0.0, 0.0, 5.0], [16.0, 0.0, 20.0, 5.0], [0.0, -1e30, 5.0, -1e29]]
    boxes = torch.cat((BAD, torch.tensor([*elsewhere, [4.6, 4.6, 5.4, 5.4]])))
    assert not paste_masks(torch.ones(9, 8, 8), boxes, 16, 16).any()


def test_a_box_larger_than_the_image_shows_its_middle() -> None:
    mask = torch.zeros(1, 32, 32)
    mask[:, :, 16:] = 1
    pasted = paste_masks(mask, torch.tensor([[-1e5, -1e5, 1e5 + 8, 1e5]]), 8, 8)[0]
    assert ((pasted > 0.49) & (pasted < 0.51)).all()


def test_ten_thousand_boxes_are_pasted() -> None:
    corners = torch.rand(10_000, 2) * 40 - 5
    boxes = torch.cat((corners, corners + 0.1 + torch.rand(10_000, 2) * 20), 1)
    boxes[::7] = BAD[torch.arange(len(boxes[::7])) % 5]
    pasted = paste_masks(torch.ones(10_000, 4, 4), boxes, 32, 32)
    assert pasted.shape == (10_000, 32, 32)
    assert not pasted[::7].any()
    i = int(pasted.flatten(1).sum(1).argmax())
    area = (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])
    assert pasted[i].sum().item() == pytest.approx(area.item(), rel=0.15)


# Shapes


def test_other_shapes_are_refused() -> None:
    maps, boxes = torch.zeros(1, 2, 4, 4), torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"maps must be \(B, C, h, w\), got \(2, 4, 4\)"):
        crop_boxes(maps[0], boxes, index(0, 0, 0), 4)
    with pytest.raises(ValueError, match=r"boxes must be \(N, 4\)"):
        crop_boxes(maps, boxes[0], index(0), 4)
    with pytest.raises(ValueError, match="boxes must be floats"):
        crop_boxes(maps, boxes.long(), index(0, 0, 0), 4)
    with pytest.raises(ValueError, match=r"masks must be .*3 boxes, got \(2, 4, 4\)"):
        crop_masks(torch.zeros(2, 4, 4), boxes, 8)
    with pytest.raises(ValueError, match=r"masks must be .*3 boxes, got \(2, 4, 4\)"):
        paste_masks(torch.zeros(2, 4, 4), boxes, 8, 8)
