"""Deep-MARC: anchors, levels, matching, sampling by hand; losses, gradients, bad input, a fit."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from perception.deep_mac.boxes import box_iou, mask_boxes, valid_boxes
from perception.deep_mac.crops import paste_masks
from perception.deep_mac.heads import MaskHeadConfig
from perception.deep_mac.instances import (
    EMPTY_LOGIT,
    Crops,
    Detections,
    MaskTraining,
    Segmenter,
    Targets,
)
from perception.deep_mac.proposals import (
    FeaturePyramid,
    ProposalConfig,
    ProposalMaps,
    RegionProposals,
    box_levels,
    crop_pyramid,
    make_anchors,
    match_anchors,
    sample,
)
from perception.deep_mac.two_stage import (
    BOX_WEIGHTS,
    DEEP_MARCS,
    DeepMarc,
    DeepMarcConfig,
    DeepMarcMaps,
)

NAN = math.nan
TINY = DeepMarcConfig(
    n_classes=3,
    backbone="efficientnetv2_b0_quarter",
    backbone_options={"drop_path": 0.0, "norm_momentum": 0.1},
    width=16,
    proposals=ProposalConfig(anchor_scale=4.0, per_level=64, kept=32, sampled=64),
    canonical=64.0,
    box_width=32,
    sampled=32,
    head=MaskHeadConfig("hourglass", 10, 4),
    mask_crop=8,
)
SPINE = replace(
    TINY,
    backbone="spinenet_mini",
    backbone_options={"levels": (2, 5), "scale": 0.0625, "endpoint_width": 16, "stem_width": 8},
)
SEEDS = st.integers(0, 2**32 - 1)
BOXES = torch.tensor([[8.0, 8.0, 40.0, 30.0], [30.0, 20.0, 60.0, 60.0], [4.0, 30.0, 24.0, 60.0]])


@lru_cache
@torch.inference_mode(False)  # who asks first may be in it, and those that learn get the same model
def tiny(config: Any = "efficientnet") -> DeepMarc:
    """In evaluation, its statistics of normalisation not those that it is born with."""
    torch.manual_seed(0)
    model = DeepMarc(SPINE if config == "spinenet" else TINY)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.features(pictures(4))
    nn.init.normal_(model.box_head.classes.weight, std=0.3)
    nn.init.normal_(model.mask_branch.head.logits.weight, std=0.3)
    return model.eval()


def pictures(n: int, side: int = 64) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(n))


def known(has_mask: Sequence[bool] = (True, True, True)) -> Targets:
    """Boxes filled by their masks; two of image 0, one of image 1."""
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    image_index = torch.tensor([0, 0, 1])
    return Targets(BOXES, torch.tensor([0, 2, 1]), image_index, masks, torch.tensor(has_mask))


def none() -> Targets:
    empty = torch.zeros(0, dtype=torch.long)
    masks = torch.zeros(0, 64, 64, dtype=torch.bool)
    return Targets(torch.zeros(0, 4), empty, empty, masks, empty.bool())


def losses(
    model: DeepMarc, targets: Targets, crops: Crops = "ground-truth", seed: int = 0
) -> dict[str, Tensor]:
    return model.losses(
        pictures(2), targets, MaskTraining(crops), torch.Generator().manual_seed(seed)
    )


# Anchors


def test_anchors_lie_around_the_centres_of_cells_row_by_row() -> None:
    config = ProposalConfig(anchor_scale=4.0, ratios=(1.0, 4.0), octaves=(1.0,))
    anchors = make_anchors(config, 8, 2, 3)
    assert anchors.shape == (12, 4)
    # At (4, 4): 32 x 32 pixels, and 16 wide and 64 high.
    assert anchors[:2].tolist() == [[-12, -12, 20, 20], [-4, -28, 12, 36]]
    assert (anchors[2] - anchors[0]).tolist() == [8, 0, 8, 0]  # the next column
    assert (anchors[6] - anchors[0]).tolist() == [0, 8, 0, 8]  # the next row


def test_anchors_of_all_ratios_have_one_area_and_octaves_scale_it() -> None:
    anchors = make_anchors(ProposalConfig(octaves=(1.0, 2.0)), 4, 1, 1)
    width, height = (anchors[:, 2:] - anchors[:, :2]).T
    torch.testing.assert_close(width * height, torch.tensor([32.0] * 3 + [64.0] * 3) ** 2)
    torch.testing.assert_close(height / width, torch.tensor([0.5, 1.0, 2.0]).repeat(2))


def test_anchors_find_labels_by_the_rules_of_faster_r_cnn() -> None:
    labels = torch.tensor([[0.0, 0.0, 10.0, 10.0], [100.0, 0.0, 110.0, 10.0]])
    anchors = torch.tensor(
        [
            [0.0, 0.0, 10.0, 8.0],  # IoU .8
            [0.0, 0.0, 10.0, 5.0],  # .5: neither
            [0.0, 0.0, 10.0, 2.0],  # .2
            [104.0, 0.0, 114.0, 10.0],  # 6 / 14 with the second, of which it is the best
            [109.0, 0.0, 119.0, 10.0],  # 1 / 19
            [500.0, 0.0, 510.0, 10.0],
        ]
    )
    wanted, nearest = match_anchors(anchors, labels, ProposalConfig())
    assert wanted.tolist() == [1, -1, 0, 1, 0, 0]
    assert nearest[wanted > 0].tolist() == [0, 1]
    wanted, _ = match_anchors(anchors, labels[:0], ProposalConfig())
    assert wanted.tolist() == [0] * 6


def test_a_label_that_no_anchor_touches_makes_none_positive() -> None:
    anchors = make_anchors(ProposalConfig(), 4, 2, 2)
    far = torch.tensor([[900.0, 900.0, 910.0, 910.0]])
    assert not match_anchors(anchors, far, ProposalConfig())[0].any()


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 40), share=st.floats(0.05, 1))
def test_samples_have_few_positives_and_negatives_fill_up(seed: int, n: int, share: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    wanted = torch.randint(-1, 2, (30,), generator=rng)
    positive, negative = sample(wanted, n, share, torch.Generator().manual_seed(seed))
    assert (wanted[positive] == 1).all()
    assert (wanted[negative] == 0).all()
    assert len({*positive.tolist(), *negative.tolist()}) == len(positive) + len(negative)
    n_positive, n_negative = int((wanted == 1).sum()), int((wanted == 0).sum())
    assert len(positive) == min(n_positive, int(n * share))
    assert len(negative) == min(n_negative, n - len(positive))
    again = sample(wanted, n, share, torch.Generator().manual_seed(seed))
    assert torch.equal(again[0], positive)
    assert torch.equal(again[1], negative)


def test_every_anchor_may_be_sampled() -> None:
    rng = torch.Generator().manual_seed(0)
    drawn = [sample(torch.zeros(10), 3, 0.5, rng)[1] for _ in range(60)]
    assert set(torch.cat(drawn).tolist()) == set(range(10))


# Proposals


def said(objectness: list[float], anchors: Tensor, counts: tuple[int, ...]) -> ProposalMaps:
    logits = torch.tensor([objectness])
    return ProposalMaps(logits, torch.zeros(1, len(anchors), 4), anchors, counts)


def test_proposals_are_cut_to_the_image_suppressed_within_levels_and_ranked() -> None:
    anchors = torch.tensor(
        [
            [0.0, 0.0, 10.0, 10.0],
            [0.0, 0.0, 10.0, 9.0],  # overlaps the first by .9
            [15.0, 15.0, 30.0, 30.0],  # reaches out of the image
            [0.0, 0.0, 10.0, 10.0],  # the first again, of another level
            [50.0, 50.0, 60.0, 60.0],  # outside
        ]
    )
    region = RegionProposals(ProposalConfig(), (4, 8), 8)
    found = said([1.0, 2.0, 0.0, 1.5, 9.0], anchors, (3, 2))
    proposals = region.propose(found, (20, 25))[0].tolist()
    assert proposals == [[0, 0, 10, 9], [0, 0, 10, 10], [15, 15, 25, 20]]
    few = RegionProposals(ProposalConfig(per_level=1), (4, 8), 8).propose(found, (20, 25))[0]
    assert few.tolist() == [[0, 0, 10, 9]]  # the other level's best one lies outside
    assert len(RegionProposals(ProposalConfig(kept=2), (4, 8), 8).propose(found, (20, 25))[0]) == 2


def test_losses_of_proposals_are_the_hand_worked_ones() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    region = RegionProposals(ProposalConfig(), (4,), 8)
    label = torch.tensor([[1.0, 0.0, 11.0, 10.0]])  # IoU 9 / 11; a tenth of the width to the right
    objectness, deltas = region.losses(said([0.0, 0.0], anchors, (2,)), [label], None)
    assert objectness.item() == pytest.approx(math.log(2))
    # Smooth L1 of .1, below 1 / 9: .5 * .1^2 * 9, over two anchors.
    assert deltas.item() == pytest.approx(0.5 * 0.01 * 9 / 2, rel=1e-4)
    objectness, deltas = region.losses(said([30.0, -30.0], anchors, (2,)), [anchors[:1]], None)
    assert objectness.item() == pytest.approx(0, abs=1e-9)
    assert deltas.item() == 0
    nothing = region.losses(said([0.0, 0.0], anchors, (2,)), [label[:0]], None)
    assert nothing[0].item() == pytest.approx(math.log(2))
    assert nothing[1].item() == 0


def test_channels_of_a_cell_become_its_anchors() -> None:
    region = RegionProposals(ProposalConfig(ratios=(1.0, 2.0)), (4,), 4)
    for layer in (region.hidden, region.objectness, region.deltas):
        nn.init.zeros_(layer.weight)
    with torch.no_grad():
        assert region.objectness.bias is not None
        assert region.deltas.bias is not None
        region.objectness.bias.copy_(torch.tensor([1.0, 2.0]))
        region.deltas.bias.copy_(torch.arange(8.0))
    found = region([torch.zeros(1, 4, 2, 3)])
    assert found.counts == (12,)
    assert found.objectness[0].tolist() == [1.0, 2.0] * 6
    assert found.deltas[0, :2].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


# The pyramid


@pytest.mark.parametrize(
    ("backbone", "options", "strides", "n_cropped"),
    [
        ("efficientnetv2_b0_quarter", {}, (4, 8, 16, 32, 64), 4),
        ("coatnet_mini", {"depths": (1, 1, 1, 1)}, (4, 8, 16, 32), 3),
        ("vit_micro", {"patch": 16, "image": 64}, (4, 8, 16, 32), 3),  # one map, upsampled
    ],
)
def test_a_pyramid_has_maps_of_one_width_at_all_strides(
    backbone: str, options: dict[str, Any], strides: tuple[int, ...], n_cropped: int
) -> None:
    pyramid = FeaturePyramid(backbone, options, 12, 4, 1)
    assert (pyramid.strides, pyramid.n_cropped, pyramid.width) == (strides, n_cropped, 12)
    maps = pyramid(pictures(2))
    assert [tuple(x.shape) for x in maps] == [(2, 12, 64 // s, 64 // s) for s in strides]
    assert torch.equal(maps[-1], maps[-2][:, :, ::2, ::2])
    sum(x.sum() * (i + 1) for i, x in enumerate(maps)).backward()  # type: ignore[union-attr]
    unused = [n for n, p in pyramid.named_parameters() if p.grad is None]
    assert not unused


def test_a_spinenet_is_its_own_pyramid() -> None:
    pyramid = tiny("spinenet").pyramid
    images = pictures(2)
    with torch.no_grad():
        own, found = pyramid.backbone.pyramid(images), pyramid(images)
    assert pyramid.strides == (4, 8, 16, 32)
    assert all(torch.equal(a, b) for a, b in zip(own, found, strict=True))


def test_backbones_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="backbone must take images, vivit_micro takes clips"):
        FeaturePyramid("vivit_micro", {}, 8, 4, 1)
    with pytest.raises(ValueError, match="must be powers of 2 and reach 64, got "):
        FeaturePyramid("efficientnetv2_b0_quarter", {}, 8, 64, 0)


def test_boxes_of_224_pixels_are_cropped_at_stride_16() -> None:
    sides = torch.tensor([1.0, 111.0, 112.0, 223.0, 224.0, 447.0, 448.0, 9000.0])
    boxes = torch.stack([0 * sides, 0 * sides, sides, sides], 1)
    assert box_levels(boxes, (4, 8, 16, 32), 224.0).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert box_levels(boxes, (8, 16), 224.0).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert box_levels(boxes / 2, (4, 8, 16, 32), 112.0).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    # The area counts: 112 x 448 is as good as 224 x 224.
    assert box_levels(torch.tensor([[0.0, 0, 112, 448]]), (4, 8, 16), 224.0).tolist() == [2]
    bad = torch.tensor([[NAN, 0, 1, 1], [9, 9, 0, 0], [0, 0, math.inf, 1]])
    assert box_levels(bad, (4, 8), 224.0)[:2].tolist() == [0, 0]


def test_crops_of_a_pyramid_come_in_the_order_of_the_boxes() -> None:
    maps = [torch.full((2, 1, 64 // stride, 64 // stride), float(stride)) for stride in (4, 8, 16)]
    for x in maps:
        x[1] *= -1
    sides = torch.tensor([60.0, 8.0, 30.0, 8.0, 59.0])
    boxes = torch.stack([0 * sides, 0 * sides, sides, sides], 1)
    index = torch.tensor([0, 1, 0, 0, 1])
    crops = crop_pyramid(maps, (4, 8, 16), boxes, index, 3, canonical=56.0)
    torch.testing.assert_close(crops.mean((1, 2, 3)), torch.tensor([16.0, -4, 8, 4, -16]))
    assert crop_pyramid(maps, (4, 8, 16), boxes[:0], index[:0], 3).shape == (0, 1, 3, 3)


# The network


def test_small_ones_are_small_and_the_default_is_mask_r_cnns() -> None:
    with torch.device("meta"):
        for config in DEEP_MARCS.values():
            model = DeepMarc(config)
            assert sum(p.numel() for p in model.parameters()) <= 3_000_000
            assert model.mask_size == 64
        model = DeepMarc(DeepMarcConfig(n_classes=80))
    assert model.config.head == MaskHeadConfig("hourglass", 52, 64)
    assert model.box_head.first.weight.shape == (1024, 256 * 7 * 7)
    assert model.box_head.deltas.weight.shape == (4 * 80, 1024)
    assert model.pyramid.strides == (4, 8, 16, 32, 64)
    # Four parameters a weight of the last 1x1 convolution: the body's 2 * 64 channels, doubled.
    assert model.mask_branch.upsample.weight.shape == (128, 128, 2, 2)


@pytest.mark.parametrize("name", ["efficientnet", "spinenet"])
def test_what_comes_out_has_the_shapes_said(name: str) -> None:
    model = tiny(name)
    segmenter: Segmenter = model
    assert (segmenter.mask_size, segmenter.stride) == (16, 32)
    with torch.inference_mode():
        features = segmenter.features(pictures(2, 96))
        found = segmenter.detect(features, n=7, threshold=0.0)
        masks = segmenter.masks(features, BOXES, torch.tensor([0, 0, 1]))
    assert masks.shape == (3, 16, 16)
    assert len(found) == 2
    for one in found:
        assert isinstance(one, Detections)
        assert len(one) == 7
        assert one.boxes.dtype == one.scores.dtype == torch.float32
        assert valid_boxes(one.boxes).all()
        assert one.boxes.min() >= 0
        assert one.boxes.max() <= 96
        assert torch.equal(one.scores, one.scores.sort(descending=True).values)
        assert set(one.classes.tolist()) <= {0, 1, 2}


def test_detections_have_scores_of_the_threshold_and_do_not_overlap_within_a_class() -> None:
    model = tiny()
    with torch.inference_mode():
        features = model.features(pictures(2))
        everything = model.detect(features, 1000, 0.0)[0]
        limit = float(everything.scores.median())
        found = model.detect(features, 1000, limit)[0]
    assert 0 < len(found) < len(everything)
    assert found.scores.min() >= limit
    for label in range(3):
        overlap = box_iou(*[found.boxes[found.classes == label]] * 2)
        assert not (overlap.fill_diagonal_(0) > 0.5).any()


@pytest.mark.parametrize("agnostic", [False, True])
def test_detections_are_proposals_refined_for_their_class(agnostic: bool) -> None:
    model = DeepMarc(replace(TINY, agnostic_boxes=agnostic)).eval()
    proposals = torch.tensor([[0.0, 0.0, 10.0, 10.0], [40.0, 40.0, 50.0, 50.0]])
    scores = torch.tensor([[0.0, 0.7, 0.1, 0.2], [0.6, 0.0, 0.02, 0.38]])
    deltas = torch.zeros(2, 1 if agnostic else 3, 4)
    deltas[0, 0 if agnostic else 1] = torch.tensor([1.0, 0.0, 0.0, 0.0])  # a tenth, by its weight
    assert BOX_WEIGHTS[0] == 10
    found = model._pick(proposals, scores, deltas, (64, 64), 10, 0.05)
    torch.testing.assert_close(found.scores, torch.tensor([0.7, 0.6, 0.1]))
    assert found.classes.tolist() == [1, 0, 2]
    torch.testing.assert_close(found.boxes[0], torch.tensor([1.0, 0.0, 11.0, 10.0]))
    torch.testing.assert_close(found.boxes[1], proposals[1])
    x = 1.0 if agnostic else 0.0
    torch.testing.assert_close(found.boxes[2], torch.tensor([x, 0.0, 10.0 + x, 10.0]))


def test_a_mask_has_twice_the_cells_of_its_crop_and_no_class() -> None:
    model = tiny()
    with torch.inference_mode():
        features = model.features(pictures(1))
        both = model.masks(features, BOXES[:1].repeat(2, 1), torch.zeros(2, dtype=torch.long))
    assert both.shape[-1] == 2 * TINY.mask_crop
    torch.testing.assert_close(both[0], both[1])
    # Four cells of a mask come of one of the crop: by different weights, so they differ.
    assert (both[0, ::2, ::2] - both[0, 1::2, 1::2]).abs().max() > 1e-4


def test_images_of_a_batch_do_not_mix_in_evaluation() -> None:
    model, images = tiny(), pictures(3)
    with torch.inference_mode():
        together = model.features(images)
        alone = model.features(images[1:2])
        for a, b in zip(together.maps, alone.maps, strict=True):
            torch.testing.assert_close(a[1:2], b, rtol=1e-4, atol=1e-4)
        ours = model.masks(together, BOXES, torch.tensor([1, 0, 1]))[[0, 2]]
        theirs = model.masks(alone, BOXES[[0, 2]], torch.zeros(2, dtype=torch.long))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
        one, other = model.detect(together)[1], model.detect(alone)[0]
    assert len(one) > 0
    torch.testing.assert_close(one.scores, other.scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet", "spinenet"])
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = DeepMarc(SPINE if name == "spinenet" else TINY).train()
    sum(losses(model, known(), "both").values()).backward()  # type: ignore[union-attr]
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


# Losses


def test_losses_have_their_names_and_weights() -> None:
    torch.manual_seed(0)
    model = DeepMarc(TINY).eval()
    assert model.mask_branch.head.logits.bias is not None
    nn.init.zeros_(model.mask_branch.head.logits.bias)
    nn.init.zeros_(model.mask_branch.head.logits.weight)
    plain = losses(model, known())
    assert list(plain) == ["objectness", "proposal_boxes", "classes", "boxes", "mask"]
    assert all(part.isfinite() and part > 0 for part in plain.values())
    # Undecided masks, and anchors of which nothing is known yet.
    assert plain["mask"].item() == pytest.approx(math.log(2), abs=0.05)
    assert plain["objectness"].item() == pytest.approx(math.log(2), abs=0.05)
    model.config = replace(TINY, loss_weights=(2.0, 3.0, 4.0, 5.0, 6.0))
    for weight, name in zip((2, 3, 4, 5, 6), plain, strict=True):
        torch.testing.assert_close(losses(model, known())[name], weight * plain[name])


def test_losses_repeat_themselves_under_a_seed() -> None:
    model = tiny()
    one, same, other = (losses(model, known(), "both", seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_losses_are_float32_under_autocast_and_close_to_exact_ones() -> None:
    exact = losses(tiny(), known())
    with torch.autocast("cpu", torch.bfloat16):
        rough = losses(tiny(), known())
    assert {part.dtype for part in rough.values()} == {torch.float32}
    for name in ("objectness", "classes", "mask"):
        torch.testing.assert_close(rough[name], exact[name], rtol=0.05, atol=0.02)


@pytest.mark.parametrize("targets", [none(), known((False, False, False))])
def test_without_masks_the_head_gets_gradients_of_zero(targets: Targets) -> None:
    torch.manual_seed(0)
    model = DeepMarc(TINY).train()
    parts = losses(model, targets)
    assert parts["mask"].item() == 0
    assert all(part.isfinite() for part in parts.values())
    sum(parts.values()).backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name.startswith("mask_branch"):
            assert not parameter.grad.any(), name


def test_masks_are_learned_of_those_that_may_be_and_boxes_of_all() -> None:
    model, targets = tiny(), known((True, False, False))
    spoiled = dataclasses.replace(targets, masks=targets.masks.clone())
    spoiled.masks[1:] = ~spoiled.masks[1:]
    one, same = losses(model, targets), losses(model, spoiled)
    assert all(torch.equal(one[name], same[name]) for name in one)
    spoiled.masks[0] = ~spoiled.masks[0]
    assert not torch.equal(losses(model, spoiled)["mask"], one["mask"])
    everything = losses(model, known())
    assert torch.equal(one["boxes"], everything["boxes"])
    assert not torch.equal(one["mask"], everything["mask"])


def test_the_loss_of_a_mask_is_the_cross_entropy_of_its_crop() -> None:
    model, targets = tiny(), known((True, False, False))
    with torch.no_grad():
        features = model.features(pictures(2))
        logits = model.masks(features, BOXES[:1], torch.tensor([0]))
        # The mask fills its box: all cells are wanted.
        expected = nn.functional.softplus(-logits).mean()
        torch.testing.assert_close(losses(model, targets)["mask"], expected)


def test_labels_with_invalid_boxes_teach_nothing() -> None:
    model, good = tiny(), known()
    boxes = torch.cat([BOXES[:1], torch.tensor([[NAN, 0.0, 9.0, 9.0], [9.0, 9.0, 1.0, 1.0]])])
    boxes = torch.cat([boxes, BOXES[1:]])
    rows = torch.tensor([0, 0, 0, 1, 2])
    mixed = Targets(
        boxes,
        good.classes[rows],
        good.image_index[rows],
        good.masks[rows],
        good.has_mask[rows],
    )
    ours, theirs = losses(model, mixed), losses(model, good)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# What masks are trained on


def training_boxes(
    crops: Crops, jitter: float = 0.0, proposals: Sequence[Tensor] | None = None, n: int = 3
) -> Tensor:
    rows = torch.arange(n) % 3
    targets = known()
    many = Targets(*(getattr(targets, f.name)[rows] for f in dataclasses.fields(targets)))
    of_image = [(many.image_index == image).nonzero()[:, 0] for image in range(2)]
    proposals = [torch.zeros(0, 4)] * 2 if proposals is None else proposals
    training = MaskTraining(crops, jitter)
    return tiny().training_boxes(
        proposals, many, of_image, training, torch.Generator().manual_seed(0)
    )


def test_crops_to_the_labels_are_exact_or_jittered() -> None:
    assert torch.equal(training_boxes("ground-truth"), BOXES)
    moved = training_boxes("ground-truth", 0.1)
    sizes = (BOXES[:, 2:] - BOXES[:, :2]).repeat(1, 2)
    assert ((moved - BOXES).abs() <= 0.1 * sizes + 1e-4).all()
    assert (moved != BOXES).all()


def test_crops_to_proposals_are_to_those_that_fit_the_label_best() -> None:
    shift = torch.tensor([2.0, 0.0, 2.0, 0.0])
    far = torch.tensor([[0.0, 0.0, 5.0, 5.0]])
    found = [torch.cat([far, BOXES[1:2] + shift]), far]
    boxes = training_boxes("proposal", 0.0, found)
    assert torch.equal(boxes[1], BOXES[1] + shift)
    # The others have none, and get their own box moved, but not by much.
    overlap = box_iou(boxes, BOXES).diagonal()
    assert (overlap[[0, 2]] >= 0.5).all()
    assert (overlap[[0, 2]] < 1).all()
    # One of several that fit is drawn at random.
    several = torch.stack([BOXES[2] + k * torch.tensor([1.0, 0, 1, 0]) for k in range(4)])
    drawn = {tuple(training_boxes("proposal", 0.0, [far, several[k:]])[2].tolist()) for k in (0, 1)}
    assert drawn <= {tuple(box) for box in several.tolist()}


def test_both_takes_about_one_half_of_each() -> None:
    boxes = training_boxes("both", n=600)
    exact = (boxes == BOXES.repeat(200, 1)).all(1).float().mean()
    assert 0.4 < exact < 0.6


# Bad input


def test_boxes_of_no_use_get_empty_masks() -> None:
    model = tiny()
    bad = torch.tensor(
        [
            [NAN, 0.0, 9.0, 9.0],
            [9.0, 9.0, 1.0, 1.0],
            [5.0, 5.0, 5.0, 9.0],
            [0.0, 0.0, math.inf, 9.0],
        ]
    )
    outside = torch.tensor([[900.0, 900.0, 950.0, 950.0], [-1e30, 0.0, 1e30, 9.0]])
    index = torch.zeros(7, dtype=torch.long)
    with torch.inference_mode():
        features = model.features(pictures(1))
        masks = model.masks(features, torch.cat([bad, outside, BOXES[:1]]), index)
        alone = model.masks(features, BOXES[:1], index[:1])
    assert (masks[:4] == EMPTY_LOGIT).all()
    assert masks.isfinite().all()
    torch.testing.assert_close(masks[6:], alone)


def test_no_boxes_give_no_masks() -> None:
    with torch.inference_mode():
        features = tiny().features(pictures(1))
        masks = tiny().masks(features, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert masks.shape == (0, 16, 16)


def test_ten_thousand_boxes_are_taken_in_parts() -> None:
    model = tiny()
    rng = torch.Generator().manual_seed(0)
    corner = torch.rand(10_000, 2, generator=rng) * 60
    boxes = torch.cat([corner, corner + torch.rand(10_000, 2, generator=rng) * 30 + 1], 1)
    index = torch.randint(2, (10_000,), generator=rng)
    rows = torch.tensor([0, 255, 256, 5000, 9999])
    with torch.inference_mode():
        small = DeepMarcMaps(model.features(pictures(2)).maps, (64, 64))
        masks = model.masks(small, boxes, index)
        few = model.masks(small, boxes[rows], index[rows])
    assert masks.shape == (10_000, 16, 16)
    torch.testing.assert_close(masks[rows], few, rtol=1e-3, atol=1e-4)


def test_an_image_with_a_pixel_that_is_nan_has_no_detections_and_spoils_no_other() -> None:
    model, images = tiny(), pictures(2)
    spoiled = images.clone()
    spoiled[0] = NAN
    with torch.inference_mode():
        clean = model.detect(model.features(images))
        found = model.detect(model.features(spoiled))
    assert len(found[0]) == 0
    assert len(found[1]) == len(clean[1]) > 0
    torch.testing.assert_close(found[1].scores, clean[1].scores)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: tiny().features(torch.zeros(1, 3, 64, 70)), "multiples of 32, got 64 x 70"),
        (lambda: tiny().features(torch.zeros(1, 4, 64, 64)), r"must be \(B, 3, H, W\)"),
        (lambda: losses(tiny(), replace(known(), classes=torch.tensor([0, 1, 3]))), r"in \[0, 3\)"),
        (lambda: losses(tiny(), replace(known(), image_index=torch.tensor([0, 1, 2]))), "got 0 to"),
        (lambda: losses(tiny(), replace(known(), boxes=torch.zeros(3, 5))), r"must be \(N, 4\)"),
        (lambda: replace(TINY, n_classes=0), "n_classes must be whole and at least 1, got 0"),
        (lambda: replace(TINY, backbone="resnet"), "backbone must be one of vit_ti16, "),
        (lambda: replace(TINY, finest=6), "finest must be a power of 2, got 6"),
        (lambda: replace(TINY, n_extra=5), "n_extra must be from 0 to 4, got 5"),
        (lambda: replace(TINY, canonical=0.0), "canonical must be above 0, got 0.0"),
        (lambda: replace(TINY, positive_share=0.0), r"positive_share must be in \(0, 1\]"),
        (lambda: replace(TINY, head="hourglass-11"), "unknown mask head 'hourglass-11'"),
        (lambda: replace(TINY, loss_weights=(1.0,)), "loss_weights must be 5 numbers from 0"),
        (lambda: replace(TINY, loss_weights=(1.0, 1, 1, 1, -1)), "loss_weights must be 5"),
        (lambda: ProposalConfig(ratios=()), "ratios must be numbers above 0"),
        (lambda: ProposalConfig(octaves=(0.0,)), "octaves must be numbers above 0"),
        (lambda: ProposalConfig(anchor_scale=0.0), "anchor_scale must be above 0"),
        (lambda: ProposalConfig(negative_iou=0.8), r"in \(0, 1\], the second no less"),
        (lambda: ProposalConfig(kept=0), "kept must be whole and at least 1"),
        (lambda: ProposalConfig(suppression_iou=1.1), r"suppression_iou must be in \(0, 1\]"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_a_configuration_survives_json() -> None:
    for config in (TINY, SPINE, *DEEP_MARCS.values()):
        values = json.loads(json.dumps(dataclasses.asdict(config)))
        values["proposals"] = ProposalConfig(**values["proposals"])
        assert DeepMarcConfig(**values) == config


# Learning


def scenes(n: int, side: int) -> tuple[Tensor, Targets]:
    """Red discs and blue diamonds on noise, two in each picture."""
    rng = torch.Generator().manual_seed(1)
    images = torch.rand(n, 3, side, side, generator=rng) * 0.2
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    masks, classes = [], []
    for image in images:
        for half in range(2):
            dx, dy, size = torch.rand(3, generator=rng).tolist()
            dx = x - side * (0.22 + 0.06 * dx + half * 0.5)
            dy = y - side * (0.25 + 0.5 * dy)
            kind = len(masks) % 3 % 2
            radius = side * (0.14 + 0.06 * size)
            mask = (dx.abs() + dy.abs() < radius) if kind else (dx**2 + dy**2 < radius**2)
            colour = torch.tensor([[1.0, 0.2, 0.2], [0.2, 0.2, 1.0]])[kind]
            image[:, mask] += colour[:, None]
            masks.append(mask)
            classes.append(kind)
    found = torch.stack(masks)
    index = torch.arange(n).repeat_interleave(2)
    has_mask = torch.ones(2 * n, dtype=torch.bool)
    return images * 3 - 1, Targets(mask_boxes(found), torch.tensor(classes), index, found, has_mask)


@pytest.mark.learning
def test_three_pictures_are_learned_by_heart() -> None:
    torch.manual_seed(1)
    config = replace(TINY, backbone="efficientnetv2_b0_half", n_classes=2, width=24, mask_crop=16)
    model = DeepMarc(replace(config, box_width=64, sampled=64))
    images, targets = scenes(3, 64)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(75):
        optimiser.zero_grad()
        sum(model.losses(images, targets, MaskTraining(), rng).values()).backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
    model.eval()
    with torch.inference_mode():
        features = model.features(images)
        for image, found in enumerate(model.detect(features, threshold=0.75)):
            of_image = targets.image_index == image
            assert len(found) == 2
            overlap, nearest = box_iou(targets.boxes[of_image], found.boxes).max(1)
            assert overlap.min() > 0.6
            assert torch.equal(found.classes[nearest], targets.classes[of_image])
        logits = model.masks(features, targets.boxes, targets.image_index)
        masks = paste_masks(logits, targets.boxes, 64, 64, logits=True) > 0.5
    shared, either = (masks & targets.masks).sum((1, 2)), (masks | targets.masks).sum((1, 2))
    assert (shared / either).min() > 0.7
    # Better than to call the whole box an object.
    whole = torch.zeros_like(masks)
    for mask, box in zip(whole, targets.boxes.long().tolist(), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = True
    filled = (whole & targets.masks).sum((1, 2)) / (whole | targets.masks).sum((1, 2))
    assert (shared / either > filled).all()
