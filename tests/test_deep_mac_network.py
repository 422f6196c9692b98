import json
import math
from dataclasses import asdict, replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import perception
from learning.progressive import reestimate_batch_norm
from perception.deep_mac.boxes import box_iou, mask_boxes
from perception.deep_mac.crops import crop_boxes, crop_masks, paste_masks
from perception.deep_mac.heads import MaskHeadConfig
from perception.deep_mac.instances import (
    EMPTY_LOGIT,
    PROPOSAL_JITTER,
    Crops,
    MaskTraining,
    Segmenter,
    Targets,
)
from perception.deep_mac.network import DEEP_MACS, DeepMac, DeepMacConfig, DeepMacMaps

GROUND_TRUTH = MaskTraining()
TINY = DeepMacConfig(
    n_classes=3,
    backbone="efficientnetv2_b0_quarter",
    backbone_options={"drop_path": 0.0, "norm_momentum": 0.1},
    width=8,
    pixel_embedding=4,
    instance_embedding=6,
    head=MaskHeadConfig("conv", 2, 8),
    mask_size=8,
)


def made(seed: int = 0, **changes: Any) -> DeepMac:
    torch.manual_seed(seed)
    return DeepMac(replace(TINY, **changes))


def index(*images: int) -> Tensor:
    return torch.tensor(images, dtype=torch.int64)


def labels(n: int = 5, images: int = 2, size: int = 64, seed: int = 0) -> Targets:
    """Filled boxes at whole pixels; the last instance has no mask."""
    g = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, size // 2, (n, 2), generator=g)
    boxes = torch.cat((corners, corners + torch.randint(8, size // 2, (n, 2), generator=g)), 1)
    rows = torch.arange(size)[:, None]
    columns = torch.arange(size)
    x1, y1, x2, y2 = boxes.T[:, :, None, None]
    masks = (columns >= x1) & (columns < x2) & (rows >= y1) & (rows < y2)
    has_mask = torch.arange(n) < n - 1
    return Targets(
        boxes.float(),
        torch.randint(3, (n,), generator=g),
        torch.arange(n) % images,
        masks & has_mask[:, None, None],
        has_mask,
    )


def total(parts: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(parts.values())).sum()


# Building


def test_it_is_a_segmenter() -> None:
    network: Segmenter = made()
    assert (network.mask_size, network.stride) == (8, 32)
    features = network.features(torch.randn(2, 3, 64, 96))
    assert [m.shape for m in features] == [(2, n, 16, 24) for n in (3, 2, 2, 4, 6)]
    assert len(network.detect(features)) == 2
    masks = network.masks(features, torch.tensor([[3.0, 4.0, 30.0, 40.0]]), index(1))
    assert masks.shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("backbone", "options", "stride"),
    [
        ("efficientnetv2_b0_half", {}, 32),
        ("efficientnet_b0", {"stem_stride": 1}, 16),
        ("coatnet_mini", {}, 16),
        ("coatnet_mini", {"stem_stride": 2}, 32),
    ],
)
def test_every_backbone_is_brought_to_stride_four(
    backbone: str, options: dict[str, Any], stride: int
) -> None:
    network = made(backbone=backbone, backbone_options=options).eval()
    assert network.stride == stride
    with torch.no_grad():
        features = network.features(torch.randn(1, 3, 96, 64))
    assert features.heat.shape == (1, 3, 24, 16)
    assert all(m.isfinite().all() for m in features)


def test_a_backbone_with_one_map_is_brought_to_stride_four() -> None:
    options = {"patch": 16, "image": 64}
    network = made(backbone="vit_micro", backbone_options=options).eval()
    assert network.stride == 16
    with torch.no_grad():
        features = network.features(torch.randn(1, 3, 32, 64))
    assert features.heat.shape == (1, 3, 8, 16)


def test_coatnet_gives_the_last_map_of_each_stride() -> None:
    torch.manual_seed(0)
    model: Any = perception.create("coatnet_mini", n_classes=0, strides=(2, 2, 1, 2)).eval()
    assert model.pyramid_strides == (2, 4, 8)
    assert model.pyramid_widths == (32, 96, 128)
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        maps = model.pyramid(images)
        assert [m.shape for m in maps] == [(1, 32, 16, 24), (1, 96, 8, 12), (1, 128, 4, 6)]
        assert torch.equal(maps[-1], model.feature_map(images))


def test_the_small_one_fits_a_cpu() -> None:
    sizes = {
        name: sum(p.numel() for p in DeepMac(config).parameters())
        for name, config in DEEP_MACS.items()
    }
    assert sizes["deep_mac_mini"] < 0.4e6
    assert sizes["deep_mac_small"] < 2.5e6


def test_a_config_goes_through_json() -> None:
    config = replace(TINY, backbone="coatnet_mini", backbone_options={"depths": (1, 1, 1, 1)})
    read = DeepMacConfig(**json.loads(json.dumps(asdict(config))))
    assert read == config
    assert replace(TINY, head="resnet-4").head == MaskHeadConfig("resnet", 4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"backbone": "resnet50"}, "backbone must be one of .*, got 'resnet50'"),
        ({"n_classes": 0}, "n_classes must be whole and at least 1, got 0"),
        ({"width": 1.5}, "width must be whole and at least 1, got 1.5"),
        ({"mask_size": -1}, "mask_size must be whole"),
        ({"overlap": 1.0}, r"overlap must be in \(0, 1\), got 1.0"),
        ({"mask_loss_weight": math.nan}, "mask_loss_weight must be at least 0, got nan"),
        ({"head": "hourglass-12"}, "unknown mask head 'hourglass-12'"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(TINY, **fields)


def test_backbones_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="must take images, vivit_micro takes clips"):
        made(backbone="vivit_micro", backbone_options={})
    options = {"strides": (1, 2, 1, 1), "stem_stride": 1}
    with pytest.raises(ValueError, match="a stride of 4, 8, 16 and so on, coatnet_mini has 2"):
        made(backbone="coatnet_mini", backbone_options=options)


def test_other_images_are_refused() -> None:
    network = made()
    with pytest.raises(ValueError, match="sides of images must be multiples of 32, got 64 x 72"):
        network.features(torch.zeros(1, 3, 64, 72))
    with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\), got \(3, 64, 64\)"):
        network.features(torch.zeros(3, 64, 64))


# Masks


class Recorder(nn.Module):
    """A mask head that keeps what it is shown."""

    def forward(self, crops: Tensor) -> Tensor:
        self.crops = crops
        return crops[:, 0]


def test_the_head_sees_pixels_places_and_the_instance() -> None:
    network = made()
    recorder = network.mask_head = cast(Any, Recorder())
    maps = DeepMacMaps(*(torch.randn(2, n, 16, 16) for n in (3, 2, 2, 4, 6)))
    boxes = torch.tensor([[10.0, 20.0, 31.0, 50.0], [0.0, 0.0, 7.9, 8.1]])
    network.masks(maps, boxes, index(1, 0))
    seen = recorder.crops
    assert seen.shape == (2, 4 + 2 + 6, 8, 8)
    torch.testing.assert_close(seen[:, :4], crop_boxes(maps.pixels, boxes, index(1, 0), 4, 8))
    line = torch.linspace(-1, 1, 8)
    assert torch.equal(seen[0, 4], line.expand(8, 8))
    assert torch.equal(seen[0, 5], line[:, None].expand(8, 8))
    # Centres (20.5, 35) and (3.95, 4.05): columns 5 and 0, rows 8 and 1.
    instances = torch.stack((maps.instances[1, :, 8, 5], maps.instances[0, :, 1, 0]))
    assert torch.equal(seen[:, 6:], instances[:, :, None, None].expand(2, 6, 8, 8))


def test_a_centre_outside_the_image_has_the_nearest_cell() -> None:
    network = made()
    recorder = network.mask_head = cast(Any, Recorder())
    maps = DeepMacMaps(*(torch.randn(1, n, 8, 8) for n in (3, 2, 2, 4, 6)))
    boxes = torch.tensor([[-90.0, 10.0, -30.0, 12.0], [30.0, 30.0, 9e9, 40.0]])
    network.masks(maps, boxes, index(0, 0))
    assert torch.equal(recorder.crops[0, 6:, 0, 0], maps.instances[0, :, 2, 0])
    assert torch.equal(recorder.crops[1, 6:, 0, 0], maps.instances[0, :, 7, 7])


def test_boxes_that_are_none_have_empty_masks() -> None:
    network = made().eval()
    bad = [[math.nan, 0, 8, 8], [0, 0, math.inf, 8], [8, 0, 2, 8], [0, 8, 8, 2], [3, 3, 3, 9]]
    boxes = torch.tensor([*bad, [0, 0, 20, 20]], dtype=torch.float32)
    with torch.no_grad():
        features = network.features(torch.randn(1, 3, 64, 64))
        logits = network.masks(features, boxes, index(*[0] * 6))
    assert (logits[:5] == EMPTY_LOGIT).all()
    assert (logits[5] > EMPTY_LOGIT / 2).all()
    assert not (paste_masks(logits[:5], boxes[:5], 64, 64, logits=True) > 0).any()


def test_no_box_has_no_mask() -> None:
    network = made()
    features = network.features(torch.randn(2, 3, 64, 64))
    assert network.masks(features, torch.zeros(0, 4), index()).shape == (0, 8, 8)


def test_ten_thousand_boxes_are_taken_in_parts() -> None:
    network = made(mask_size=4).eval()
    corners = torch.rand(10_000, 2) * 60 - 10
    boxes = torch.cat((corners, corners + torch.rand(10_000, 2) * 40 - 2), 1)
    images = torch.randint(2, (10_000,))
    with torch.no_grad():
        features = network.features(torch.randn(2, 3, 64, 64))
        logits = network.masks(features, boxes, images)
        some = torch.arange(0, 10_000, 97)
        alone = network.masks(features, boxes[some], images[some])
    assert logits.shape == (10_000, 4, 4)
    torch.testing.assert_close(logits[some], alone, atol=1e-4, rtol=1e-4)


def test_boxes_and_indices_that_do_not_fit_are_refused() -> None:
    network = made()
    features = network.features(torch.randn(2, 3, 64, 64))
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    with pytest.raises(ValueError, match=r"image_index must be in \[0, 2\)"):
        network.masks(features, boxes, index(2))
    with pytest.raises(ValueError, match=r"image_index must be \(1,\)"):
        network.masks(features, boxes, index(0, 0))
    with pytest.raises(ValueError, match=r"boxes must be \(N, 4\)"):
        network.masks(features, boxes[0], index(0))


def test_images_and_boxes_do_not_see_each_other() -> None:
    network = made(head=MaskHeadConfig("hourglass", 10, 8)).eval()
    images = torch.randn(3, 3, 64, 64)
    targets = labels(6, images=3)
    with torch.no_grad():
        together = network.features(images)
        masks = network.masks(together, targets.boxes, targets.image_index)
        found = network.detect(together, threshold=0.0)
        for i in range(3):
            alone = network.features(images[i : i + 1])
            for a, b in zip(together, alone, strict=True):
                torch.testing.assert_close(a[i : i + 1], b, atol=1e-4, rtol=1e-4)
            mine = targets.image_index == i
            own = network.masks(alone, targets.boxes[mine], index(*[0] * int(mine.sum())))
            torch.testing.assert_close(masks[mine], own, atol=1e-4, rtol=1e-4)
            (boxes,) = network.detect(alone, threshold=0.0)
            torch.testing.assert_close(boxes.scores, found[i].scores, atol=1e-4, rtol=1e-4)


def test_pixels_that_are_nan_give_no_detection() -> None:
    network = made().eval()
    images = torch.randn(2, 3, 64, 64)
    images[0, 0, 5, 5] = math.nan
    with torch.no_grad():
        features = network.features(images)
        nothing, something = network.detect(features, threshold=0.0)
    assert len(nothing) == 0
    assert something.scores.isfinite().all()


# Losses


@pytest.mark.parametrize("backbone", ["efficientnetv2_b0_quarter", "coatnet_mini"])
@pytest.mark.parametrize("crops", ["ground-truth", "proposal", "both"])
def test_every_parameter_gets_a_gradient(backbone: str, crops: Crops) -> None:
    options = TINY.backbone_options if "efficient" in backbone else {"depths": (1, 1, 1, 1)}
    network = made(backbone=backbone, backbone_options=options)
    parts = network.losses(torch.randn(2, 3, 64, 64), labels(), MaskTraining(crops))
    assert list(parts) == ["heatmap", "offset", "size", "mask"]
    assert all(part.isfinite() and part > 0 for part in parts.values())
    total(parts).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        # A bias before a normalisation changes nothing, and gets the gradient of rounding.
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("n", [0, 3])
def test_without_a_mask_the_head_gets_gradients_of_zero(n: int) -> None:
    network = made(head=MaskHeadConfig("hourglass", 10, 4))
    targets = labels(max(n, 1))
    targets = replace(targets, has_mask=torch.zeros(max(n, 1), dtype=torch.bool))
    if n == 0:
        values = [getattr(targets, name)[:0] for name in asdict(targets)]
        targets = Targets(*values)
    parts = network.losses(torch.randn(2, 3, 64, 64), targets, MaskTraining("both", 0.1))
    assert parts["mask"].item() == 0
    total(parts).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        if name.startswith(("mask_head", "branches.pixels", "branches.instances")):
            assert not parameter.grad.any(), name
        if name.startswith("branches.heat"):
            assert parameter.grad.any(), name


def test_the_mask_loss_by_hand() -> None:
    network = made()
    images, targets = torch.randn(2, 3, 64, 64), labels()
    constant = {"weight": torch.zeros_like(network.mask_head.logits.weight)}
    network.mask_head.logits.load_state_dict({**constant, "bias": torch.zeros(1)})
    # All cells are undecided: log 2 each, whatever the masks.
    loss = network.losses(images, targets, GROUND_TRUTH)["mask"].item()
    assert loss == pytest.approx(5 * math.log(2), rel=1e-5)
    # Boxes are filled by their masks: everything is mask, at a logit of 1.
    network.mask_head.logits.load_state_dict({**constant, "bias": torch.ones(1)})
    loss = network.losses(images, targets, GROUND_TRUTH)["mask"].item()
    assert loss == pytest.approx(5 * math.log(1 + math.exp(-1)), rel=1e-4)


def test_the_mask_loss_is_that_of_the_masks_given_the_boxes() -> None:
    network = made().eval()
    images, targets = torch.randn(2, 3, 64, 64), labels()
    with torch.no_grad():
        parts = network.losses(images, targets, GROUND_TRUTH)
        kept = targets.has_mask
        boxes = targets.boxes[kept]
        logits = network.masks(network.features(images), boxes, targets.image_index[kept])
        wanted = crop_masks(targets.masks[kept], boxes, 8)
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((1, 2))
    assert parts["mask"].item() == pytest.approx(5 * each.sum().item() / 4, rel=1e-5)


def test_masks_of_other_classes_are_not_learned_and_their_boxes_are() -> None:
    network = made().eval()
    images, targets = torch.randn(2, 3, 64, 64), labels()
    with torch.no_grad():
        before = network.losses(images, targets, GROUND_TRUTH)
        masks = targets.masks.clone()
        masks[4] = True
        after = network.losses(images, replace(targets, masks=masks), GROUND_TRUTH)
        fewer = Targets(*(getattr(targets, name)[:4] for name in asdict(targets)))
        without = network.losses(images, fewer, GROUND_TRUTH)
    assert before == after
    assert without["mask"] == before["mask"]
    assert without["heatmap"] != before["heatmap"]


def test_labels_with_boxes_that_are_none_teach_nothing() -> None:
    network = made().eval()
    images, targets = torch.randn(2, 3, 64, 64), labels()
    boxes = targets.boxes.clone()
    boxes[0], boxes[1] = math.nan, boxes[1, [2, 1, 0, 3]]
    parts = {}
    for crops in ("ground-truth", "proposal", "both"):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            training = MaskTraining(crops, 0.1)
            parts[crops] = network.losses(
                images, replace(targets, boxes=boxes), training, generator
            )
        assert all(part.isfinite() for part in parts[crops].values())
    rest = Targets(*(getattr(targets, name)[2:] for name in asdict(targets)))
    with torch.no_grad():
        expected = network.losses(images, rest, GROUND_TRUTH)
    assert parts["ground-truth"]["heatmap"] == expected["heatmap"]
    assert parts["ground-truth"]["size"] == expected["size"]


def test_weights_scale_their_parts() -> None:
    images, targets = torch.randn(2, 3, 64, 64), labels()
    weights: dict[str, Any] = {
        "offset_loss_weight": 3.0,
        "size_loss_weight": 0.5,
        "mask_loss_weight": 0.0,
    }
    one = made().losses(images, targets, GROUND_TRUTH)
    other = made(**weights).losses(images, targets, GROUND_TRUTH)
    assert other["heatmap"] == one["heatmap"]
    torch.testing.assert_close(other["offset"], 3 * one["offset"])
    torch.testing.assert_close(other["size"], 5 * one["size"])
    assert other["mask"] == 0


# What masks are cropped to in training


def maps_that_find(boxes: Tensor, images: Tensor, scores: Tensor) -> DeepMacMaps:
    """Of images of 64 x 64, of one class; centres in cells of their own."""
    heat = torch.full((2, 1, 16, 16), -20.0)
    offsets, sizes = torch.zeros(2, 2, 16, 16), torch.zeros(2, 2, 16, 16)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 8
    columns, rows = centres.floor().long().T
    heat[images, 0, rows, columns] = scores.logit()
    offsets[images, :, rows, columns] = centres - centres.floor()
    sizes[images, :, rows, columns] = (boxes[:, 2:] - boxes[:, :2]) / 4
    return DeepMacMaps(heat, offsets, sizes, torch.zeros(2, 4, 16, 16), torch.zeros(2, 6, 16, 16))


def targets_of(boxes: list[list[int]], images: list[int]) -> Targets:
    n = len(boxes)
    return Targets(
        torch.tensor(boxes, dtype=torch.float32),
        index(*[0] * n),
        index(*images),
        torch.zeros(n, 64, 64, dtype=torch.bool),
        torch.ones(n, dtype=torch.bool),
    )


def test_ground_truth_crops_are_the_labels() -> None:
    network, targets = made(), labels()
    maps = network.features(torch.randn(2, 3, 64, 64))
    boxes = network.training_boxes(maps, targets, GROUND_TRUTH)
    assert torch.equal(boxes, targets.boxes)
    jittered = network.training_boxes(maps, targets, MaskTraining("ground-truth", 0.2))
    sides = (targets.boxes[:, 2:] - targets.boxes[:, :2]).repeat(1, 2)
    moved = (jittered - targets.boxes).abs() / sides
    assert moved.max() <= 0.2
    assert moved.min() > 0


def test_proposals_are_matched_with_the_labels_that_they_overlap_most() -> None:
    targets = targets_of(
        [[0, 0, 40, 40], [16, 0, 56, 40], [40, 44, 60, 64], [0, 0, 40, 40]], [0, 0, 0, 1]
    )
    found = torch.tensor(
        [
            [6.0, 0.0, 46.0, 40.0],  # IoU with the first .739, with the second .6
            [0.0, 0.0, 36.0, 40.0],  # .9 with the first, but a lower score
            [20.0, 0.0, 56.0, 40.0],  # the second's
            [50.0, 44.0, 64.0, 64.0],  # .417 with the third
            [1.0, 4.0, 37.0, 36.0],  # of the other image
        ]
    )
    scores = torch.tensor([0.9, 0.8, 0.3, 0.99, 0.2])
    maps = maps_that_find(found, index(0, 0, 0, 0, 1), scores)
    boxes = made().training_boxes(maps, targets, MaskTraining("proposal"))
    torch.testing.assert_close(boxes[[0, 1, 3]], found[[0, 2, 4]], atol=1e-3, rtol=0)
    # Nothing was found of the third: near its label, and not on it.
    iou = box_iou(boxes[2:3], targets.boxes[2:3]).item()
    assert 0.5 <= iou < 1


def test_boxes_in_place_of_proposals_overlap_by_half() -> None:
    # The worst case: all sides too far in.
    assert (1 - 2 * PROPOSAL_JITTER) ** 2 >= 0.5
    targets = targets_of([[0, 0, 30, 30]] * 400, [0] * 400)
    none = maps_that_find(torch.zeros(0, 4), index(), torch.zeros(0))
    boxes = made().training_boxes(none, targets, MaskTraining("proposal"))
    iou = box_iou(boxes, targets.boxes[:1])
    assert iou.min() >= 0.5
    assert iou.max() > 0.9
    assert iou.mean() < 0.85


def test_both_takes_one_or_the_other() -> None:
    targets = targets_of([[0, 0, 30, 30]] * 400, [0] * 400)
    found = torch.tensor([[1.0, 0.0, 31.0, 28.0]])
    maps = maps_that_find(found, index(0), torch.tensor([0.9]))
    generator = torch.Generator().manual_seed(0)
    boxes = made().training_boxes(maps, targets, MaskTraining("both"), generator)
    # The first of equal labels is the match, and all are equal: each has it.
    labelled = (boxes == targets.boxes).all(1)
    proposed = torch.isclose(boxes, found, atol=1e-3).all(1)
    assert (labelled ^ proposed).all()
    assert 150 < int(labelled.sum()) < 250
    again = made().training_boxes(maps, targets, MaskTraining("both"), generator.manual_seed(0))
    assert torch.equal(boxes, again)


# Export and learning


def test_it_can_be_exported_for_any_number_of_boxes() -> None:
    network = made(mask_size=16, head=MaskHeadConfig("hourglass", 10, 4)).eval()

    class Masks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor, boxes: Tensor, images_of: Tensor) -> tuple[Tensor, ...]:
            features = network.features(images)
            masks = self.network.mask_logits(features, boxes, images_of)
            return (masks, *self.network.peaks(features, 10))

    images = torch.randn(1, 3, 64, 64)
    boxes = torch.tensor([[0.0, 0.0, 20.0, 30.0], [9.0, 9.0, 3.0, 20.0], [-5.0, 30.0, 90.0, 60.0]])
    n = torch.export.Dim("n", min=1, max=4096)
    exported = torch.export.export(
        Masks(), (images, boxes, index(0, 0, 0)), dynamic_shapes=({}, {0: n}, {0: n})
    ).module()
    for some in (boxes, boxes[2:], boxes.repeat(3, 1)):
        zeros = torch.zeros(len(some), dtype=torch.int64)
        with torch.no_grad():
            for a, b in zip(
                exported(images, some, zeros), Masks()(images, some, zeros), strict=True
            ):
                torch.testing.assert_close(a, b)


def discs_and_squares(n: int, size: int, seed: int) -> tuple[Tensor, Targets]:
    """Images of noise with two things each, discs greenish (0) and squares reddish (1)."""
    g = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(n, 3, size, size, generator=g)
    x = torch.arange(size) + 0.5
    masks, classes = [], []
    for image in images:
        for side in range(2):
            radius, shift, height, kind = torch.rand(4, generator=g).tolist()
            radius, square = 6 + 6 * radius, kind < 0.5
            dx = x - (size * (0.27 + 0.46 * side) + 6 * shift - 3)
            dy = (x - size * (0.25 + 0.5 * height))[:, None]
            distance = torch.maximum(dx.abs(), dy.abs()) if square else torch.hypot(dx, dy)
            mask = distance < radius
            colour = 2 * torch.rand(3, 1, 1, generator=g) - 1
            colour[0 if square else 1] += 1
            image.copy_(torch.where(mask, colour + 0.1 * image, image))
            masks.append(mask)
            classes.append(int(square))
    stacked = torch.stack(masks)
    targets = Targets(
        mask_boxes(stacked),
        index(*classes),
        torch.arange(n).repeat_interleave(2),
        stacked,
        torch.ones(2 * n, dtype=torch.bool),
    )
    return images, targets


@pytest.mark.learning
def test_it_learns_to_find_things_and_their_masks() -> None:
    torch.manual_seed(0)
    head = MaskHeadConfig("hourglass", 10, 8)
    network = DeepMac(replace(DEEP_MACS["deep_mac_mini"], n_classes=2, head=head, width=24))
    images, targets = discs_and_squares(8, 64, seed=0)
    n_steps = 80
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 10, (n_steps - step) / 30)
        optimizer.zero_grad()
        total(network.losses(images, targets, GROUND_TRUTH)).backward()
        optimizer.step()
    reestimate_batch_norm(network, [images])
    network.eval()
    with torch.no_grad():
        features = network.features(images)
        logits = network.masks(features, targets.boxes, targets.image_index)
        found = network.detect(features, threshold=0.5)
    masks = paste_masks(logits, targets.boxes, 64, 64, logits=True) > 0.5
    both, either = masks & targets.masks, masks | targets.masks
    iou = both.sum((1, 2)) / either.sum((1, 2))
    assert iou.mean() > 0.9
    assert iou.min() > 0.8  # Of a disc, of which a full box would have .785.
    for i, detections in enumerate(found):
        mine = targets.image_index == i
        overlap = box_iou(targets.boxes[mine], detections.boxes)
        assert len(detections) == 2
        assert overlap.amax(1).min() > 0.7
        assert torch.equal(detections.classes[overlap.argmax(1)], targets.classes[mine])
