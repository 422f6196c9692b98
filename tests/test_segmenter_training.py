"""Training of segmenters: who has a mask, what moves along, resuming bit by bit, refusals."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmenter_cases import CLASSES, Scenes, discs, tiny
from torch import nn

from learning.instance_set import Scene
from perception.deep_mac.boxes import mask_boxes
from perception.deep_mac.instances import MaskTraining, Targets
from perception.deep_mac.train_batches import (
    GREY,
    SceneBatches,
    kept,
    learned_classes,
    letterbox_scene,
    mirrored,
    moved,
    pixel_statistics,
)
from perception.deep_mac.train_config import SegmenterTrainConfig
from perception.deep_mac.training import train_segmenter

pytestmark = pytest.mark.learning
CPU = torch.device("cpu")


def config(**changes) -> SegmenterTrainConfig:
    values = {
        "steps": 12,
        "batch_size": 4,
        "lr": 0.005,
        "warmup_steps": 2,
        "device": "cpu",
        "tensorboard": False,
        "norm_batches": 2,
        "ema_decay": 0.9,
    }
    return SegmenterTrainConfig(**{**values, **changes})


def batches(data: Scenes | None = None, **changes) -> SceneBatches:
    data = discs() if data is None else data
    return SceneBatches(data, config(**changes), pixel_statistics(data), CPU)


def block(x1: int, y1: int, x2: int, y2: int, size: int = 8) -> tuple[torch.Tensor, Targets]:
    """A white rectangle on black, as a batch of one."""
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[:, y1:y2, x1:x2] = True
    targets = Targets(
        torch.tensor([[x1, y1, x2, y2]]).float(),
        torch.tensor([1]),
        torch.tensor([0]),
        mask,
        torch.tensor([True]),
    )
    return mask.float().expand(1, 3, size, size).clone(), targets


# Pictures, boxes and masks that move


def test_an_enlarged_and_shifted_picture_takes_its_box_and_mask_along() -> None:
    images, targets = block(3, 2, 5, 4)
    # Twice as large about the middle (4, 4), then 1 to the right and 2 down.
    found, told = moved(images, targets, *(torch.tensor([value]) for value in (2.0, 1.0, 2.0)))
    assert told.boxes.tolist() == [[3, 2, 7, 6]]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:6, 3:7] = True
    assert torch.equal(told.masks[0], expected)
    assert torch.equal(found[0, 0] > 0.5, expected)


def test_what_comes_into_view_is_grey_and_of_no_mask() -> None:
    images, targets = block(0, 0, 8, 8)
    found, told = moved(images, targets, *(torch.tensor([value]) for value in (1.0, 3.0, 0.0)))
    assert torch.allclose(found[0, :, :, :3], torch.tensor(GREY))
    assert torch.allclose(found[0, :, :, 3:], torch.tensor(1.0))
    assert told.masks[0].sum(1).tolist() == [5] * 8
    assert kept(told, 0.0, (8, 8)).boxes.tolist() == [[3, 0, 8, 8]]


def test_a_mirrored_picture_takes_its_box_and_mask_along() -> None:
    images, targets = block(1, 2, 3, 7)
    found, told = mirrored(images, targets, torch.tensor([True]))
    assert told.boxes.tolist() == [[5, 2, 7, 7]]
    assert torch.equal(told.masks[0], images[0, 0].flip(-1) > 0)
    assert torch.equal(found[0, 0] > 0, told.masks[0])
    same, as_before = mirrored(images, targets, torch.tensor([False]))
    assert torch.equal(same, images)
    assert torch.equal(as_before.boxes, targets.boxes)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.5, 2),
    st.floats(-9, 9),
    st.floats(-9, 9),
    st.booleans(),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_moved_masks_fill_moved_boxes(
    zoom: float, right: float, down: float, turned: bool, x: int, y: int
) -> None:
    images, targets = block(x, y, x + 9, y + 7, 32)
    found, told = moved(images, targets, *(torch.tensor([v]) for v in (zoom, right, down)))
    found, told = mirrored(found, told, torch.tensor([turned]))
    told = kept(told, 0.0, (32, 32))
    for box, mask in zip(told.boxes, told.masks, strict=True):
        if mask.any():
            # A pixel is of the mask if its centre is: the sides are off by half of one at most.
            assert (mask_boxes(mask[None])[0] - box).abs().max() <= 0.5 + 1e-3
            assert found[0, 0][mask].min() > 0.24  # a quarter at corners, interpolated


def test_instances_that_are_hardly_seen_are_left_out() -> None:
    _, targets = block(0, 0, 4, 4)
    for left, share in ((-2.0, 0.5), (-3.0, 0.25), (-3.1, 0.225)):
        shifted = replace(targets, boxes=targets.boxes + torch.tensor([left, 0, left, 0]))
        assert len(kept(shifted, share - 0.01, (8, 8))) == 1 - (left == -3.1)  # under 1 pixel wide
        assert len(kept(shifted, share + 0.01, (8, 8))) == 0
    hidden = replace(targets, masks=torch.zeros_like(targets.masks))
    assert kept(hidden, 0.0, (8, 8)).has_mask.tolist() == [False]


def test_a_letterboxed_scene_is_in_the_middle() -> None:
    image = np.full((4, 8, 3), 200, np.uint8)
    mask = np.zeros((1, 4, 8), bool)
    mask[0, 1:3, 2:6] = True
    found = letterbox_scene(Scene.from_masks(image, mask, np.array([2])), (16, 16))
    assert found.boxes.tolist() == [[4, 6, 12, 10]]
    assert found.masks.sum() == 32
    assert (found.image[4:12] == 200).all()
    assert (found.image[:4] == 114).all()
    small = letterbox_scene(Scene.from_masks(image, mask, np.array([2])), (4, 4))
    assert small.boxes.tolist() == [[1, 1, 3, 2]] or small.boxes.tolist() == [[1, 2, 3, 3]]
    scene = discs(1)[0]
    assert letterbox_scene(scene, (32, 32)) is scene


# Batches


def test_inputs_have_mean_zero_and_spread_one() -> None:
    images, targets = batches().plain(range(24))
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert images.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    assert len(targets) == sum(map(len, discs()))


def test_a_channel_without_spread_is_left_as_it_is() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :, 1] = 255
    data = Scenes([Scene.from_masks(image, np.zeros((0, 4, 4), bool), np.zeros(0, np.int64))])
    mean, std = pixel_statistics(data)
    assert mean == pytest.approx((0, 0.5, 0))
    assert std == pytest.approx((1, 0.5, 1))


def test_steps_see_every_scene_once_an_epoch_and_are_functions_of_their_number() -> None:
    one, other = batches(batch_size=8), batches(batch_size=8)
    seen = [row for step in range(6) for row in one.rows(step)]
    assert sorted(seen[:24]) == sorted(seen[24:]) == list(range(24))
    assert seen[:24] != seen[24:]
    images, targets = one.train(4)
    again, same = other.train(4)
    assert torch.equal(images, again)
    assert torch.equal(targets.boxes, same.boxes)
    assert not torch.equal(images, one.train(7)[0])


def test_masks_are_known_of_masked_classes_only() -> None:
    images, targets = batches(masked_classes=("red", "blue")).train(0)
    assert {bool(known) for known in targets.has_mask} == {True, False}
    assert torch.equal(targets.has_mask, targets.classes != 1)
    assert not targets.masks[~targets.has_mask].any()
    assert targets.masks[targets.has_mask].flatten(1).any(1).all()
    assert len(images) == 4
    everything = batches().train(0)[1]
    assert everything.has_mask.all()
    # Boxes do not depend on whose masks are known: they are cut at borders, not fitted.
    assert torch.equal(everything.boxes, targets.boxes)
    assert learned_classes(CLASSES, ()).tolist() == [False] * 3
    with pytest.raises(ValueError, match="'yellow'; classes: red, green, blue"):
        batches(masked_classes=("yellow",))


def test_colours_change_and_shapes_stay() -> None:
    still = {"flip": False, "zoom": 0.0, "shift": 0.0}
    plain, jittered = batches(colour=0.0, **still), batches(colour=0.5, **still)
    images, targets = jittered.train(0)
    assert torch.equal(plain.train(0)[0], plain.plain(plain.rows(0))[0])
    assert not torch.equal(images, plain.train(0)[0])
    assert torch.equal(targets.masks, plain.train(0)[1].masks)


def test_scenes_of_several_sizes_need_a_size() -> None:
    data = Scenes([discs(1)[0], discs(1, size=40)[0]])
    with pytest.raises(ValueError, match=r"scene 1 has \(40, 40\) pixels, the first"):
        batches(data).plain([0, 1])
    images, _ = batches(data, size=24).plain([0, 1])
    assert images.shape == (2, 3, 24, 24)


# Masks that are not to be learned from


def head_gradients(masked: tuple[str, ...] | None) -> list[torch.Tensor]:
    model = tiny()
    images, targets = batches(masked_classes=masked).train(0)
    losses = model.losses(images, targets, MaskTraining(), torch.Generator())
    assert (losses["mask"] == 0) == (masked == ())
    torch.stack(list(losses.values())).sum().backward()
    parameters = [*model.mask_head.parameters(), *model.branches["pixels"].parameters()]
    return [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]


def test_the_head_gets_no_gradient_from_classes_without_masks() -> None:
    assert all(not gradient.any() for gradient in head_gradients(()))
    assert all(gradient.any() for gradient in head_gradients(None))


def test_training_without_masks_leaves_the_head_as_it_was(tmp_path: Path) -> None:
    model = tiny()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    plain = config(masked_classes=(), ema_decay=None, weight_decay=0.0, steps=4)
    result = train_segmenter(model, discs(), discs(6, seed=1), plain, tmp_path)
    same = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert {name for name in before if name.startswith("mask_head")} <= same
    assert "branches.heat.0.weight" not in same
    assert list(result.scores["given_boxes"]) == ["unseen"]


# Runs


def test_the_loss_falls_and_scores_tell_seen_and_unseen_apart(tmp_path: Path) -> None:
    held_out = discs(12, seed=1)
    masked = ("red", "green")
    settings = config(steps=60, lr=0.02, masked_classes=masked, log_every=15, ema_decay=None)
    result = train_segmenter(tiny(), discs(), held_out, settings, tmp_path)
    first, last = result.history[0], result.history[-1]
    for name in ("loss", "loss/heatmap", "loss/mask"):
        assert last[name] < 0.7 * first[name], name
    parts = [value for name, value in last.items() if name.startswith("loss/")]
    assert sum(parts) == pytest.approx(last["loss"], rel=1e-4)
    scores = result.scores
    blue = sum(int((scene.classes == 2).sum()) for scene in held_out.scenes)
    assert scores["instances"] == {"seen": sum(map(len, held_out)) - blue, "unseen": blue}
    assert scores["scenes"] == 12
    assert scores["given_boxes"]["seen"] > 0.75
    assert scores["given_boxes"]["unseen"] > 0.5
    assert last["validation/mask_iou_seen"] == pytest.approx(scores["given_boxes"]["seen"])
    found = scores.get("found")
    assert (found is None) == (importlib.util.find_spec("pycocotools") is None)
    if found is not None:
        assert {"box_ap", "mask_ap", "mask_ap_seen", "box_ap_unseen"} <= found.keys()


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    ("ema_decay", "masks"),
    [(None, MaskTraining()), (0.9, MaskTraining("both", 0.1)), (0.9, MaskTraining("proposal"))],
)
def test_a_killed_run_ends_bit_by_bit_the_same(
    tmp_path: Path, ema_decay: float | None, masks: MaskTraining
) -> None:
    data = discs()
    settings = config(ema_decay=ema_decay, masks=masks, save_every=5, log_every=5, validate_every=4)
    whole, killed = tiny(), tiny()
    expected = train_segmenter(whole, data, data, settings, tmp_path / "whole")
    calls: list[int] = []

    def killing(model: nn.Module, folder: Path, training: dict) -> None:
        calls.append(training["step"])
        if training["step"] == 10:
            raise KilledError

    with pytest.raises(KilledError):
        train_segmenter(killed, data, data, settings, tmp_path / "killed", save=killing)
    again = tiny(seed=5)
    found = train_segmenter(again, data, data, settings, tmp_path / "killed")
    assert calls == [5, 10]
    assert found.step == expected.step == 12
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert found.scores == expected.scores
    strip = [{k: v for k, v in row.items() if k != "cpu_seconds"} for row in found.history]
    assert strip == [
        {k: v for k, v in row.items() if k != "cpu_seconds"} for row in expected.history
    ]


def test_a_finished_run_is_scored_again_without_a_step(tmp_path: Path) -> None:
    data = discs()
    first = train_segmenter(tiny(), data, data, config(), tmp_path)
    again = train_segmenter(tiny(seed=4), data, data, config(), tmp_path)
    assert again.scores == first.scores
    assert again.cpu_seconds == first.cpu_seconds


def test_scenes_without_instances_are_no_trouble(tmp_path: Path) -> None:
    empty = discs(6, empty=True)
    result = train_segmenter(tiny(), empty, empty, config(steps=2), tmp_path)
    assert result.scores == {
        "scenes": 6,
        "instances": {"seen": 0, "unseen": 0},
        "given_boxes": {},
    }


def test_averaged_weights_have_statistics_of_their_own(tmp_path: Path) -> None:
    model: Any = tiny()
    data = discs()
    settings = config(ema_decay=0.5, norm_batches=3)
    train_segmenter(model, data, data, settings, tmp_path)
    norm = model.decoder.laterals["4"][1]
    assert isinstance(norm, nn.BatchNorm2d)
    seen: list[torch.Tensor] = []
    hook = norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].mean((0, 2, 3))))
    own = batches(data)
    with torch.no_grad():
        for step in range(12, 15):
            model.features(own.plain(own.rows(step))[0])
    hook.remove()
    torch.testing.assert_close(norm.running_mean, torch.stack(seen).mean(0))


def test_bfloat16_learns_about_the_same(tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        settings = config(steps=2, precision=precision, norm_batches=0, ema_decay=None)
        result = train_segmenter(tiny(), discs(), discs(2), settings, tmp_path / precision)
        losses.append([v for name, v in result.history[-1].items() if name.startswith("loss/")])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


def test_a_budget_in_seconds_ends_the_run(tmp_path: Path) -> None:
    settings = config(steps=None, cpu_seconds=0.2, norm_batches=0, ema_decay=None)
    result = train_segmenter(tiny(), discs(), discs(2, seed=1), settings, tmp_path)
    assert result.step >= 1
    assert 0.2 <= result.cpu_seconds < 5


def test_a_broken_loss_stops_the_run(tmp_path: Path) -> None:
    model: Any = tiny()
    with torch.no_grad():
        model.branches["heat"][2].bias[0] = math.nan
    with pytest.raises(ValueError, match="the loss became nan by step 12; lower lr"):
        train_segmenter(model, discs(), discs(), config(), tmp_path)
    assert not (tmp_path / "train_state.safetensors").exists()


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    data = discs()
    train_segmenter(tiny(), data, data, config(steps=1), tmp_path)
    with pytest.raises(ValueError, match="other config"):
        train_segmenter(tiny(), data, data, config(steps=1, lr=0.01), tmp_path)
    with pytest.raises(ValueError, match="other config"):
        train_segmenter(tiny(), data, data, config(steps=1, masked_classes=("red",)), tmp_path)
    with pytest.raises(ValueError, match="other data"):
        train_segmenter(tiny(), discs(seed=3), data, config(steps=1), tmp_path)
    train_segmenter(tiny(), data, data, config(steps=1, lr=0.01), tmp_path, resume=False)
    other = Scenes(data.scenes, ("red", "blue", "green"))
    with pytest.raises(ValueError, match="must have the classes of the training scenes"):
        train_segmenter(tiny(), data, other, config(), tmp_path / "a")
    with pytest.raises(ValueError, match="the network must have 3 classes, as the scenes, got 2"):
        train_segmenter(tiny(n_classes=2), data, data, config(), tmp_path / "a")
    with pytest.raises(ValueError, match=r"multiples of 4, got \(30, 30\)"):
        train_segmenter(tiny(), data, data, config(size=30), tmp_path / "a")
    with pytest.raises(ValueError, match="scenes are needed, got 24 and 0"):
        train_segmenter(tiny(), data, Scenes([]), config(), tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "size must be at least 1"),
        ({"zoom": -0.1}, "zoom must be at least 0"),
        ({"zoom": math.nan}, "zoom must be at least 0"),
        ({"shift": 1.0}, r"shift must be in \[0, 1\)"),
        ({"colour": -0.1}, r"colour must be in \[0, 1\)"),
        ({"least_seen": 1.5}, r"least_seen must be in \[0, 1\)"),
        ({"norm_batches": -1}, "norm_batches must be at least 0"),
        ({"precision": "half"}, "precision must be"),
        ({"return_temperature": 1.0}, "leave return_temperature None"),
        ({"steps": None}, "a budget is needed"),
    ],
)
def test_bad_settings_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)
