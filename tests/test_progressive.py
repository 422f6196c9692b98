"""Progressive learning and augmentation: schedules, statistics, and what each change does."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from torch import Generator, Tensor, nn

from learning import augment
from learning.augment import (
    OPERATIONS,
    cutmix,
    horizontal_flip,
    mix,
    mixup,
    rand_augment,
    random_crop,
    resize,
)
from learning.progressive import (
    PROGRESSIVE,
    ProgressiveConfig,
    Stage,
    preset,
    reestimate_batch_norm,
    set_dropout,
)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


# Schedules


@pytest.mark.parametrize(
    ("name", "sizes", "magnitudes", "mixup_alpha", "cutmix_alpha", "dropout"),
    [
        ("paper-s", (128, 185, 243, 300), (5, 15), 0, 0, (0.1, 0.3)),
        ("paper-m", (128, 212, 296, 380), (5, 20), 0.2, 0, (0.1, 0.4)),
        ("paper-l", (128, 212, 296, 380), (5, 25), 0.5, 0, (0.1, 0.5)),
        ("released-s", (171, 214, 257, 300), (5, 10), 0, 0, (0.2, 0.2)),
        ("released-m", (192, 256, 320, 384), (5, 15), 0.2, 0.2, (0.3, 0.3)),
        ("released-l", (192, 256, 320, 384), (5, 20), 0.5, 0.5, (0.4, 0.4)),
    ],
)
def test_presets_are_table_6_and_the_released_code(
    name: str,
    sizes: tuple[int, ...],
    magnitudes: tuple[float, float],
    mixup_alpha: float,
    cutmix_alpha: float,
    dropout: tuple[float, float],
) -> None:
    stages = preset(name).stages()
    assert tuple(stage.size for stage in stages) == sizes

    def line(values: tuple[float, float]) -> list[float]:
        return np.linspace(*values, 4).tolist()

    assert [stage.magnitude for stage in stages] == pytest.approx(line(magnitudes))
    assert [stage.mixup for stage in stages] == pytest.approx(line((0, mixup_alpha)))
    assert [stage.cutmix for stage in stages] == pytest.approx(line((0, cutmix_alpha)))
    assert [stage.dropout for stage in stages] == pytest.approx(line(dropout))


def test_the_released_dropout_is_constant_and_its_smallest_size_is_never_shown() -> None:
    for size in "sml":
        released = preset(f"released-{size}")
        assert len({stage.dropout for stage in released.stages()}) == 1
        assert released.size[0] == 128
        assert 128 not in {stage.size for stage in released.stages()}


def test_the_third_stage_of_the_papers_m_is_as_worked_by_hand() -> None:
    expected = Stage(size=296, magnitude=15.0, mixup=0.4 / 3, cutmix=0.0, dropout=0.3)
    stage = preset("paper-m").stage(2)
    assert vars(stage) == pytest.approx(vars(expected))


def test_sizes_can_be_rounded_to_multiples() -> None:
    rounded = replace(preset("paper-s"), multiple=32)
    # 128, 185.3, 242.7 and 300 are 4, 5.8, 7.6 and 9.4 times 32.
    assert [stage.size for stage in rounded.stages()] == [128, 192, 256, 288]


def test_a_single_stage_has_the_last_values() -> None:
    for skip in (False, True):
        config = ProgressiveConfig((64, 96), mixup=(0, 0.5), n_stages=1, skip_smallest=skip)
        assert config.stage(0) == Stage(96, 15.0, 0.5, 0.0, 0.3)


def test_steps_belong_to_quarters_of_the_training() -> None:
    config = preset("paper-s")
    # As the released code: stage i ends at int((i + 1) / 4 * n).
    assert config.ends(10) == (2, 5, 7, 10)
    assert [config.stage_index(k, 10) for k in range(12)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3]


def test_a_training_shorter_than_its_stages_ends_with_the_last() -> None:
    assert [preset("paper-s").stage_index(k, 2) for k in range(2)] == [1, 3]


@given(n_stages=st.integers(1, 7), n_steps=st.integers(1, 500))
def test_stages_follow_each_other_and_share_the_steps_evenly(n_stages: int, n_steps: int) -> None:
    config = ProgressiveConfig((32, 64), n_stages=n_stages)
    indices = [config.stage_index(k, n_steps) for k in range(n_steps)]
    assert indices == sorted(indices)
    assert indices[-1] == n_stages - 1
    counts = [indices.count(i) for i in range(n_stages)]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ProgressiveConfig((300, 128)), r"size must not shrink, got \(300, 128\)"),
        (lambda: ProgressiveConfig((0, 128)), "size must be whole and at least 1, got 0"),
        (lambda: ProgressiveConfig((64, 96), n_stages=0), "n_stages must be whole and at least 1"),
        (lambda: ProgressiveConfig((64, 96), mixup=(-1, 0)), "mixup must be a tuple of two"),
        (lambda: ProgressiveConfig((64, 96), dropout=(0, 1)), "dropout must be below 1"),
        (lambda: preset("paper-s").stage(4), "stage must be 0 to 3, got 4"),
        (lambda: preset("paper-s").stage_index(-1, 5), "step must be at least 0, got -1"),
        (lambda: preset("paper-s").ends(0), "n_steps must be whole and at least 1, got 0"),
        (lambda: preset("paper-xl"), "unknown schedule 'paper-xl'; known: paper-s, paper-m"),
    ],
)
def test_what_is_no_schedule_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_all_presets_have_four_stages_of_magnitudes_that_randaugment_takes() -> None:
    for config in PROGRESSIVE.values():
        assert config.n_stages == 4
        assert all(0 <= stage.magnitude <= 30 for stage in config.stages())


# The model at a change of stage


def test_dropout_is_set_everywhere_and_acts() -> None:
    model = nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.Dropout(0.2)))
    set_dropout(model, 0.0)
    x = torch.ones(1000)
    assert torch.equal(model(x), x)
    set_dropout(model, 0.5)
    assert 0.15 < (model(x) > 0).float().mean() < 0.35  # a quarter outlives both


def test_dropout_that_cannot_be_set_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Linear has no nn\.Dropout"):
        set_dropout(nn.Linear(2, 2), 0.1)
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\), got 1"):
        set_dropout(nn.Dropout(), 1)


def test_statistics_become_the_means_of_those_of_the_batches() -> None:
    layer = nn.BatchNorm1d(2)
    with torch.no_grad():
        layer.running_mean.fill_(7.0)  # type: ignore[union-attr]
    batches = [
        torch.tensor([[0.0, 1.0], [2.0, 5.0]]),
        torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 3.0]]),
    ]
    # Means (1, 3) and (3, 1), unbiased variances (2, 8) and (4, 3).
    assert reestimate_batch_norm(layer, batches) == 1
    torch.testing.assert_close(layer.running_mean, torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(layer.running_var, torch.tensor([3.0, 5.5]))


def test_later_layers_see_what_earlier_ones_normalise_by_each_batch() -> None:
    first, last = nn.BatchNorm1d(1, eps=1e-9), nn.BatchNorm1d(1)
    nn.init.constant_(first.weight, 3.0)
    nn.init.constant_(first.bias, 1.0)
    batches = [torch.tensor([[2.0], [4.0]]), torch.tensor([[10.0], [90.0]])]
    assert reestimate_batch_norm(nn.Sequential(first, nn.Dropout(0.5), last), batches) == 2
    # Each batch becomes -1 and 1, then -2 and 4: no dropout in between. Unbiased variance 18.
    torch.testing.assert_close(last.running_mean, torch.tensor([1.0]))
    torch.testing.assert_close(last.running_var, torch.tensor([18.0]))


def test_reestimation_leaves_parameters_modes_momentum_and_the_generator() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.03), nn.Dropout(0.5))
    model[2].eval()
    before = [p.clone() for p in model.parameters()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    reestimate_batch_norm(model, [torch.ones(2, 3, 4, 4).cumsum(3)])
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert model[1].momentum == 0.03
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("batches", [[], [torch.ones(4, 2), torch.ones(4, 3)]])
def test_a_failed_reestimation_leaves_the_old_statistics(batches: list[Tensor]) -> None:
    layer = nn.BatchNorm1d(2)
    layer(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    with pytest.raises((ValueError, RuntimeError)):
        reestimate_batch_norm(layer, batches)
    assert layer.momentum == 0.1
    assert layer.training
    for name, buffer in layer.named_buffers():
        torch.testing.assert_close(buffer, before[name])


def test_without_batch_normalisation_no_batch_is_looked_at() -> None:
    def fail() -> Tensor:
        raise AssertionError

    assert reestimate_batch_norm(nn.Linear(2, 2), (fail() for _ in range(1))) == 0


# RandAugment

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
WITHOUT_MAGNITUDE = ("autocontrast", "equalize")


def some_images(batch: int = 4, height: int = 20, width: int = 31, seed: int = 0) -> Tensor:
    """Smooth, so that they look like something, on 256 levels."""
    coarse = torch.rand(batch, 3, 5, 7, generator=seeded(seed))
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0.1, 0.9)
    return (smooth * 255).round() / 255


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in WITHOUT_MAGNITUDE])
def test_magnitude_0_changes_nothing(name: str) -> None:
    images = some_images()
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0])
    torch.testing.assert_close(OPERATIONS[name](images, 0.0, sign), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in WITHOUT_MAGNITUDE])
def test_strength_rises_with_magnitude(name: str) -> None:
    images, sign = some_images(8), torch.ones(8)
    changes = [(OPERATIONS[name](images, m, sign) - images).abs().mean() for m in (0.0, 2.5, 9.0)]
    assert changes[0] < 1e-5
    assert changes[0] < changes[1] < changes[2]


@given(
    name=st.sampled_from(list(OPERATIONS)),
    magnitude=st.floats(0, 30),
    sign=st.sampled_from((-1.0, 1.0)),
    channels=st.sampled_from((1, 3, 4)),
    height=st.integers(1, 9),
)
def test_operations_keep_shapes_and_stay_finite(
    name: str, magnitude: float, sign: float, channels: int, height: int
) -> None:
    images = torch.rand(2, channels, height, 6, generator=seeded())
    changed = OPERATIONS[name](images, magnitude, torch.full((2,), sign))
    assert changed.shape == images.shape
    assert -1e-5 <= changed.min() <= changed.max() <= 1 + 1e-5


def test_a_quarter_turn_is_exact() -> None:
    images = torch.rand(2, 3, 7, 7, generator=seeded())
    turned = augment.rotate(images, 30.0, torch.tensor([1.0, -1.0]))
    expected = torch.stack([images[0].rot90(1, (1, 2)), images[1].rot90(-1, (1, 2))])
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-5)


def test_a_turn_of_an_oblong_image_keeps_right_angles() -> None:
    # A bar through the centre of 9 x 15 pixels, turned by 90 degrees, is a bar of the same width.
    images = torch.full((1, 1, 9, 15), 0.5)
    images[:, :, 4, :] = 1.0
    expected = torch.full((9, 15), 0.5)
    expected[:, 7] = 1.0
    turned = augment.rotate(images, 30.0, torch.ones(1))
    torch.testing.assert_close(turned[0, 0], expected, rtol=0, atol=1e-5)


def test_shears_shift_rows_and_columns_by_their_distance_from_the_centre() -> None:
    images = torch.rand(1, 3, 5, 11, generator=seeded())
    # A slope of 1, which is more than RandAugment takes.
    sheared = augment.shear_x(images, 100 / 3, torch.ones(1))
    for row in range(5):
        shift = row - 2
        kept = slice(max(0, -shift), 11 - max(0, shift))
        read = slice(max(0, shift), 11 + min(0, shift))
        torch.testing.assert_close(
            sheared[..., row, kept], images[..., row, read], rtol=0, atol=1e-5
        )
    upright = augment.shear_y(images.mT, 100 / 3, torch.ones(1))
    torch.testing.assert_close(upright, sheared.mT, rtol=0, atol=1e-5)


def test_translation_is_a_thirtieth_a_magnitude_up_to_a_half_and_leaves_grey() -> None:
    images = torch.rand(2, 3, 4, 30, generator=seeded())
    sign = torch.tensor([1.0, -1.0])
    moved = augment.translate_x(images, 3.0, sign)
    torch.testing.assert_close(moved[0, :, :, :-3], images[0, :, :, 3:], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[1, :, :, 3:], images[1, :, :, :-3], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[0, :, :, -3:], torch.full((3, 4, 3), 0.5))
    far = augment.translate_x(images, 30.0, sign)
    torch.testing.assert_close(far[0, :, :, :15], images[0, :, :, 15:], rtol=0, atol=1e-5)
    upright = augment.translate_y(images.mT, 3.0, sign)
    torch.testing.assert_close(upright, moved.mT, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "magnitude", "sign", "pillow", "levels"),
    # Pillow rounds or cuts to whole levels on its way, at most as often as said.
    [
        ("equalize", 0.0, 1, ImageOps.equalize, 0),
        ("autocontrast", 0.0, 1, ImageOps.autocontrast, 1),
        ("posterize", 5.0, 1, lambda image: ImageOps.posterize(image, 6), 0),
        ("posterize", 30.0, 1, lambda image: ImageOps.posterize(image, 4), 0),
        ("solarize", 5.0, 1, lambda image: ImageOps.solarize(image, 128), 0),
        ("solarize", 10.0, 1, ImageOps.invert, 0),
        ("colour", 10.0, -1, lambda image: ImageEnhance.Color(image).enhance(0.1), 2),
        ("colour", 5.0, 1, lambda image: ImageEnhance.Color(image).enhance(1.45), 2),
        ("contrast", 5.0, -1, lambda image: ImageEnhance.Contrast(image).enhance(0.55), 2),
        ("contrast", 10.0, 1, lambda image: ImageEnhance.Contrast(image).enhance(1.9), 2),
        ("brightness", 5.0, 1, lambda image: ImageEnhance.Brightness(image).enhance(1.45), 1),
        ("brightness", 20.0, -1, lambda image: ImageEnhance.Brightness(image).enhance(0.1), 1),
        ("sharpness", 10.0, 1, lambda image: ImageEnhance.Sharpness(image).enhance(1.9), 2),
        ("sharpness", 5.0, -1, lambda image: ImageEnhance.Sharpness(image).enhance(0.55), 2),
    ],
)
def test_colours_are_changed_as_pillow_does(
    name: str,
    magnitude: float,
    sign: int,
    pillow: Callable[[Image.Image], Image.Image],
    levels: int,
) -> None:
    images = some_images(2, 40, 52)
    ours = OPERATIONS[name](images, magnitude, torch.full((2,), float(sign)))
    for image, changed in zip(images, ours, strict=True):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        theirs = torch.tensor(np.array(pillow(Image.fromarray(pixels)))).permute(2, 0, 1)
        assert (changed * 255 - theirs).abs().max() <= levels + 1e-2


def test_channels_of_one_value_survive_autocontrast_and_equalize() -> None:
    images = torch.full((1, 3, 30, 30), 0.4)
    for name in WITHOUT_MAGNITUDE:
        assert torch.equal(OPERATIONS[name](images, 10.0, torch.ones(1)), images)


@given(magnitude=st.floats(0, 30), seed=st.integers(0, 2**31))
def test_randaugment_stays_within_0_and_1_and_repeats_under_a_seed(
    magnitude: float, seed: int
) -> None:
    images = torch.rand(6, 3, 9, 7, generator=seeded())
    kept = images.clone()
    changed = rand_augment(images, magnitude, seeded(seed))
    assert 0 <= changed.min() <= changed.max() <= 1
    assert torch.equal(changed, rand_augment(images, magnitude, seeded(seed)))
    assert torch.equal(images, kept)


def test_each_image_draws_operations_of_its_own_and_all_are_drawn() -> None:
    image = some_images(1, 24, 24)
    changed = rand_augment(image.expand(400, -1, -1, -1), 8.0, seeded(), n_layers=1)
    found = set()
    for name, operation in OPERATIONS.items():
        for sign in (-1.0, 1.0):
            expected = operation(image, 8.0, torch.tensor([sign])).clamp(0, 1)
            same = (changed - expected).abs().amax((1, 2, 3)) < 1e-5
            if same.any():
                found.add((name, sign))
    for name in OPERATIONS:
        # Both directions come up; operations without one are the same in both.
        assert {(name, -1.0), (name, 1.0)} <= found
    twice = rand_augment(image.expand(400, -1, -1, -1), 8.0, seeded(), n_layers=2)
    assert (twice - changed).abs().amax((1, 2, 3)).gt(1e-3).float().mean() > 0.7


@pytest.mark.parametrize("magnitude", [-1.0, 30.5])
def test_another_magnitude_is_refused(magnitude: float) -> None:
    with pytest.raises(ValueError, match="magnitude must be 0 to 30"):
        rand_augment(some_images(), magnitude, seeded())


# Mixing


def targets_of(batch: int, n_classes: int = 5) -> Tensor:
    labels = torch.arange(batch) % n_classes
    return nn.functional.one_hot(labels, n_classes).float()


@given(
    batch=st.integers(1, 9),
    alphas=st.sampled_from([(0.0, 0.0), (0.2, 0.0), (0.0, 1.0), (0.5, 0.5), (0.001, 3.0)]),
    seed=st.integers(0, 2**31),
)
def test_mixed_targets_sum_to_1_and_images_stay_within_0_and_1(
    batch: int, alphas: tuple[float, float], seed: int
) -> None:
    images, targets = torch.rand(batch, 3, 6, 8, generator=seeded()), targets_of(batch)
    mixed, soft = mix(images, targets, *alphas, seeded(seed))
    torch.testing.assert_close(soft.sum(1), torch.ones(batch))
    assert mixed.shape == images.shape
    assert 0 <= mixed.min() <= mixed.max() <= 1 + 1e-6
    again = mix(images, targets, *alphas, seeded(seed))
    assert torch.equal(mixed, again[0])
    assert torch.equal(soft, again[1])
    if not any(alphas):
        assert torch.equal(mixed, images)
        assert torch.equal(soft, targets)


def numbered(batch: int, height: int = 12, width: int = 20) -> tuple[Tensor, Tensor]:
    """Image i is i / batch all over and of class i."""
    value = torch.arange(batch, dtype=torch.double) / batch
    return value.view(-1, 1, 1, 1).expand(-1, 3, height, width), torch.eye(batch).double()


def test_mixup_blends_pixels_and_targets_by_the_same_share_of_at_least_half() -> None:
    images, targets = numbered(40)
    mixed, soft = mixup(images, targets, 0.5, seeded())
    own = soft.diagonal()
    assert (own >= 0.5).all()
    assert own.std() > 0.1
    expected = images * own.view(-1, 1, 1, 1) + images.flip(0) * (1 - own.view(-1, 1, 1, 1))
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(soft.flip(1).diagonal(), 1 - own)


def test_the_share_of_a_targets_class_is_the_share_of_its_pixels_in_cutmix() -> None:
    images, targets = numbered(60)
    mixed, soft = cutmix(images, targets, 1.0, seeded())
    for i in range(60):
        own = (mixed[i, 0] == images[i, 0]).double().mean()
        other = (mixed[i, 0] == images[59 - i, 0]).double().mean()
        assert own + other == 1
        torch.testing.assert_close(soft[i, i], own)
        torch.testing.assert_close(soft[i, 59 - i], other)
    assert len(set(soft.diagonal().tolist())) > 20  # each image has a share of its own


def test_cutmix_pastes_one_rectangle_shaped_as_the_image() -> None:
    images, targets = numbered(60)
    mixed, _ = cutmix(images, targets, 1.0, seeded(1))
    uncut = 0
    for i in range(60):
        pasted = mixed[i, 0] != images[i, 0]
        rows, columns = pasted.any(1), pasted.any(0)
        assert torch.equal(pasted, rows[:, None] & columns)
        for line in (rows, columns):
            assert line.int().diff().clamp(min=0).sum() + line[0] <= 1
        inside = not (rows[0] or rows[-1] or columns[0] or columns[-1])
        if inside and rows.any():
            uncut += 1
            # Sides are the same share of 12 and of 20 pixels, to the even number below.
            assert abs(rows.sum() / 12 - columns.sum() / 20) < 2 / 12
    assert uncut > 5


def test_each_half_is_mixed_in_its_own_way_when_both_act() -> None:
    images, targets = numbered(40)
    mixed, soft = mix(images, targets, 0.5, 0.5, seeded())
    n_values = torch.tensor([len(image[0].unique()) for image in mixed])
    assert (n_values[:20] == 1).all()
    assert (n_values[20:] == 2).sum() > 5
    for i in range(40):
        partner = 19 - i if i < 20 else 59 - i
        assert soft[i, i] + soft[i, partner] == pytest.approx(1)


def test_shares_have_the_moments_and_quantiles_of_the_beta_distribution() -> None:
    many = torch.empty(40_000, 1, 1, 1)
    for alpha in (0.2, 0.5, 1.0, 4.0):
        share = augment._beta(many, alpha, seeded())
        variance = 1 / (4 * (2 * alpha + 1))
        assert share.mean().item() == pytest.approx(0.5, abs=5 * (variance / 40_000) ** 0.5)
        assert share.var().item() == pytest.approx(variance, rel=0.04)
        assert 0 <= share.min() <= share.max() <= 1
    # The arcsine law: a third is below 1 / 4.
    below = (augment._beta(many, 0.5, seeded(1)) < 0.25).double().mean().item()
    assert below == pytest.approx(1 / 3, abs=5 * (2 / 9 / 40_000) ** 0.5)
    assert augment._beta(many, 1e-4, seeded()).isfinite().all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: mixup(x, torch.zeros(4), 0.2, seeded()), r"\(4, K\) floats, got \(4,\)"),
        (lambda x: cutmix(x, torch.zeros(3, 2), 1.0, seeded()), r"got \(3, 2\)"),
        (lambda x: mixup(x, torch.zeros(4, 2).long(), 1.0, seeded()), r"F.one_hot\(labels, K\)"),
        (lambda x: mixup(x, torch.zeros(4, 2), -1.0, seeded()), "alpha must be at least 0"),
        (lambda x: resize(x[0], 4), r"must be \(B, C, H, W\)"),
        (lambda x: horizontal_flip((x * 255).byte(), seeded()), r"floats in \[0, 1\]"),
        (lambda x: random_crop(x, 1, seeded(), (40, 8)), "40 x 8 does not fit into images of 22"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[Tensor], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(some_images())


# Crops, flips, sizes


def test_flips_mirror_about_half_of_the_images() -> None:
    images = torch.rand(1, 3, 4, 5, generator=seeded()).expand(400, -1, -1, -1)
    flipped = horizontal_flip(images, seeded())
    mirrored = (flipped == images.flip(3)).all(dim=(1, 2, 3))
    kept = (flipped == images).all(dim=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 150 < mirrored.sum() < 250
    assert torch.equal(horizontal_flip(images, seeded(), chance=1.0), images.flip(3))
    assert torch.equal(horizontal_flip(images, seeded(), chance=0.0), images)


def test_crops_are_windows_of_the_padded_image_and_all_places_come_up() -> None:
    image = torch.arange(1.0, 25.0).view(1, 1, 4, 6) / 24
    crops = random_crop(image.expand(600, -1, -1, -1), 1, seeded())
    padded = torch.zeros(6, 8)
    padded[1:5, 1:7] = image[0, 0]
    windows = {
        tuple(padded[top : top + 4, left : left + 6].flatten().tolist())
        for top in range(3)
        for left in range(3)
    }
    assert {tuple(crop.flatten().tolist()) for crop in crops} == windows


def test_crops_of_another_size_cut_all_channels_alike() -> None:
    images = torch.rand(5, 1, 6, 8, generator=seeded()).expand(-1, 3, -1, -1)
    crops = random_crop(images, 0, seeded(), (2, 3))
    assert crops.shape == (5, 3, 2, 3)
    assert torch.equal(crops[:, 0], crops[:, 2])
    assert all(value in images[i, 0] for i in range(5) for value in crops[i, 0].flatten())


def test_resizing_to_a_part_averages_and_does_not_alias() -> None:
    board = torch.zeros(1, 1, 32, 48)
    board[..., ::2, ::2] = board[..., 1::2, 1::2] = 1.0
    small = resize(board, (8, 12))
    assert small.shape == (1, 1, 8, 12)
    # Without antialiasing, each new pixel is the mean of only four; here of many, so all are grey.
    assert (small - 0.5).abs().max() < 0.02
    stripes = torch.zeros(1, 1, 16, 16)
    stripes[..., ::4] = 1.0
    assert (resize(stripes, 4) - 0.25).abs().max() < 0.1
    assert (nn.functional.interpolate(stripes, (4, 4), mode="bilinear") - 0.25).abs().max() > 0.2
    assert resize(board, (32, 48)) is board
