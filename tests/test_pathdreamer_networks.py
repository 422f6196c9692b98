"""Networks of Pathdreamer: sizes, the seam, copying, the latent, gradients, all kinds of masks."""

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import pytest
import torch
from pathdreamer_cases import TINY, some_guidance, wake
from torch import Tensor, nn

from world_models.pathdreamer.config import (
    SIZES,
    DiscriminatorConfig,
    ImageConfig,
    PathdreamerConfig,
    StructureConfig,
    size,
)
from world_models.pathdreamer.discriminator import Discriminator
from world_models.pathdreamer.image import ImageGenerator
from world_models.pathdreamer.inputs import GuidanceBatch
from world_models.pathdreamer.structure import StructureGenerator


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@lru_cache
def parameters_of(name: str) -> tuple[int, int]:
    """Parameters of the structure and the image generator of a size, built without memory."""
    config = SIZES[name]
    # Spectral normalisation has no parameters, and takes seconds to set up without memory.
    plain = replace(config, image=replace(config.image, spectral_norm=False))
    with torch.device("meta"):
        return count(StructureGenerator(plain)), count(ImageGenerator(plain))


# Sizes


def test_the_paper_size_has_the_parameters_of_the_release_within_half_a_per_cent() -> None:
    # 235.0 M and 226.8 M in google-research/pathdreamer@351cc2f. Ours has more: its inputs are
    # twice the classes, a mask and the elevation.
    structure, image = parameters_of("paper")
    assert structure == 235_323_563
    assert image == 226_846_179
    assert structure / 235.0e6 == pytest.approx(1, abs=0.005)
    assert image / 226.8e6 == pytest.approx(1, abs=0.005)


def test_the_small_size_fits_into_a_package() -> None:
    structure, image = parameters_of("small")
    assert 1e6 < structure < 3.1e6
    assert 1e6 < image < 3e6
    assert 4 * (structure + image) < 20e6  # bytes of float32


def test_the_base_size_lies_between() -> None:
    for small, base, paper in zip(*map(parameters_of, ("small", "base", "paper")), strict=True):
        assert small < base < paper


def test_spectral_normalisation_adds_no_parameters() -> None:
    plain = replace(TINY, image=replace(TINY.image, spectral_norm=False))
    assert count(ImageGenerator(TINY)) == count(ImageGenerator(plain))


def test_an_unknown_size_lists_the_known() -> None:
    with pytest.raises(ValueError, match="small, base, paper"):
        size("huge")


@pytest.mark.parametrize("name", SIZES)
def test_a_config_survives_json(name: str) -> None:
    text = json.dumps(SIZES[name].to_dict())
    assert PathdreamerConfig.from_dict(json.loads(text)) == SIZES[name]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PathdreamerConfig(height=40), "multiples of 16"),
        (lambda: PathdreamerConfig(n_classes=1), "n_classes"),
        (lambda: PathdreamerConfig(max_depth=float("nan")), "max_depth"),
        (lambda: StructureConfig(width=0), "width"),
        (lambda: StructureConfig(stem_kernel=4), "odd"),
        (lambda: StructureConfig(multipliers=(1, 2)), "multipliers"),  # type: ignore[arg-type]
        (lambda: StructureConfig(encoder_blocks=(1, 1, 0, 1)), "encoder_blocks"),
        (lambda: ImageConfig(upsample_after=(9,)), "upsample_after"),
        (lambda: ImageConfig(upsample_after=(0, 0)), "repeat"),
        (lambda: ImageConfig(modulation_kernel=2), "odd"),
        (lambda: DiscriminatorConfig(layers=0), "layers"),
        (lambda: PathdreamerConfig.from_dict({"colour": 3}), "colour"),
        (lambda: PathdreamerConfig.from_dict({"image": 3}), "object"),
        (lambda: PathdreamerConfig.from_dict({"height": "64"}), "height"),
    ],
)
def test_configs_that_no_network_can_have_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()


# The seam


@pytest.mark.parametrize("columns", [16, 48])
def test_the_structure_generator_commutes_with_turning(columns: int) -> None:
    torch.manual_seed(0)
    net = StructureGenerator(TINY)
    wake(net.head)
    guidance = some_guidance()
    noise = torch.randn(net.latent_shape(2, *guidance.size))
    straight = net(guidance, noise)
    turned = net(guidance.roll(columns), noise.roll(columns // 16, dims=-1))
    assert straight.logits.std() > 0.5
    torch.testing.assert_close(
        turned.logits, straight.logits.roll(columns, dims=-1), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(
        turned.depth, straight.depth.roll(columns, dims=-1), rtol=1e-3, atol=1e-3
    )


def test_the_image_generator_commutes_with_turning() -> None:
    torch.manual_seed(0)
    net = ImageGenerator(TINY).eval()
    wake(net.head)
    guidance = some_guidance()
    semantic, depth = guidance.filled_semantic, guidance.filled_depth
    straight = net(guidance, semantic, depth)
    turned = net(guidance.roll(12), semantic.roll(12, dims=-1), depth.roll(12, dims=-1))
    assert (straight - guidance.filled_rgb).std() > 0.1
    torch.testing.assert_close(turned, straight.roll(12, dims=-1), rtol=1e-3, atol=1e-4)


def test_the_discriminator_commutes_with_turning() -> None:
    # The release pads 4x4 convolutions of stride 2 so that the width changes from 2 n to n + 1.
    torch.manual_seed(0)
    net = Discriminator(TINY).eval()
    rgb, semantic, depth = (
        torch.rand(1, 3, 32, 64),
        torch.randint(41, (1, 32, 64)),
        torch.rand(1, 32, 64),
    )
    stride = TINY.discriminator.stride
    straight = net(rgb, semantic, depth)
    turned = net(*(value.roll(stride, dims=-1) for value in (rgb, semantic, depth)))
    for one, other in zip(straight, turned, strict=True):
        for before, after in zip(one, other, strict=True):
            by = stride * before.shape[-1] // 64
            torch.testing.assert_close(after, before.roll(by, dims=-1), rtol=1e-3, atol=1e-4)


# Copying


def test_an_untrained_structure_generator_copies_the_filled_guidance() -> None:
    guidance = some_guidance()
    seen = StructureGenerator(TINY)(guidance)
    assert torch.equal(seen.logits.argmax(1), guidance.filled_semantic)
    torch.testing.assert_close(seen.depth, guidance.filled_depth)


def test_an_untrained_image_generator_copies_the_filled_guidance() -> None:
    guidance = some_guidance()
    painted = ImageGenerator(TINY)(guidance, guidance.filled_semantic, guidance.filled_depth)
    torch.testing.assert_close(painted, guidance.filled_rgb)


@pytest.mark.parametrize("name", ["small", "base"])
def test_every_size_copies_at_first(name: str) -> None:
    config = SIZES[name]
    guidance = some_guidance(1, 32 if name == "base" else 16)
    with torch.no_grad():
        seen = StructureGenerator(config)(guidance)
    assert torch.equal(seen.logits.argmax(1), guidance.filled_semantic)


# The latent


def test_temperature_scales_how_far_the_latent_is_from_the_mean() -> None:
    net = StructureGenerator(TINY)
    guidance = some_guidance(1)
    noise = torch.randn(net.latent_shape(1, *guidance.size))
    cold, warm, hot = (net(guidance, noise, t).z for t in (0.0, 1.0, 2.0))
    torch.testing.assert_close(cold, net(guidance).z)
    torch.testing.assert_close(hot - cold, 2 * (warm - cold))
    assert (warm - cold).std() > 0.1


def test_the_latent_changes_what_is_predicted() -> None:
    net = StructureGenerator(TINY)
    wake(net.head)
    guidance = some_guidance(1)
    shape = net.latent_shape(1, *guidance.size)
    one, other = net(guidance, z=torch.zeros(shape)), net(guidance, z=torch.ones(shape))
    assert (one.logits - other.logits).abs().max() > 1e-3


def test_the_posterior_sees_the_truth_and_the_prior_does_not() -> None:
    net = StructureGenerator(TINY)
    guidance, truth, other = (some_guidance(1, seed=seed) for seed in (0, 1, 2))
    first, second = net(guidance, truth=truth), net(guidance, truth=other)
    assert first.posterior is not None
    assert second.posterior is not None
    assert torch.equal(first.prior.mean, second.prior.mean)
    assert not torch.allclose(first.posterior.mean, second.posterior.mean)
    assert torch.equal(first.z, first.posterior.mean)


def test_no_gradient_goes_into_how_the_truth_is_encoded() -> None:
    net = StructureGenerator(TINY)
    seen = net(some_guidance(1), truth=some_guidance(1, seed=1))
    assert seen.posterior is not None
    seen.posterior.mean.sum().backward()
    assert all(parameter.grad is None for parameter in net.encoder.parameters())


def test_a_generator_without_a_latent_works() -> None:
    config = replace(TINY, structure=replace(TINY.structure, latent=0))
    net = StructureGenerator(config)
    seen = net(some_guidance(1), truth=some_guidance(1, seed=1))
    assert seen.z.shape == (1, 0, 2, 4)


def test_noise_and_sizes_that_do_not_fit_are_refused() -> None:
    net = StructureGenerator(TINY)
    with pytest.raises(ValueError, match=r"noise must be \(1, 4, 2, 4\)"):
        net(some_guidance(1), torch.zeros(1, 4, 2, 5))
    with pytest.raises(ValueError, match="multiples of 16"):
        net(some_guidance(1, height=24))
    with pytest.raises(ValueError, match="multiples of 16"):
        ImageGenerator(TINY)(some_guidance(1, 24), *[torch.zeros(1, 24, 48).long()] * 2)


# Gradients


def missing(module: nn.Module) -> list[str]:
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is None or not bool((parameter.grad != 0).any())
    ]


def structure_sum(net: StructureGenerator, guidance: GuidanceBatch, truth: GuidanceBatch) -> Tensor:
    seen = net(guidance, torch.randn(net.latent_shape(len(guidance), *guidance.size)), truth=truth)
    assert seen.posterior is not None
    spread = [part.square().mean() for part in (seen.prior.mean, seen.prior.log_variance)]
    told = 0.0 if net.summary is None else net.summary.shown(guidance).square().mean()
    logits = (seen.logits * torch.randn_like(seen.logits)).mean()
    return logits + seen.depth.mean() + sum(spread) + told


@pytest.mark.parametrize("config", [TINY, SIZES["small"]], ids=["tiny", "small"])
def test_every_parameter_receives_a_gradient(config: PathdreamerConfig) -> None:
    torch.manual_seed(0)
    guidance, truth = some_guidance(1, seed=0), some_guidance(1, share=1.0, seed=1)
    structure, image = StructureGenerator(config), ImageGenerator(config)
    # The heads start at zero, and let nothing through at the very first step.
    wake(structure.head)
    wake(image.head)
    structure_sum(structure, guidance, truth).backward()
    image(guidance, truth.semantic, truth.depth).square().mean().backward()
    assert not missing(structure)
    assert not missing(image)
    judge = Discriminator(config)
    scales = judge(truth.rgb, truth.semantic, truth.depth)
    torch.stack([scale[-1].square().mean() for scale in scales]).sum().backward()
    assert not missing(judge)


def test_the_cells_of_a_summary_count_what_is_seen_and_what_fills_the_holes() -> None:
    summary = StructureGenerator(SIZES["small"]).summary
    assert summary is not None
    guidance = some_guidance(2, seed=4)
    n = SIZES["small"].n_classes
    cells = summary.cells(guidance)
    assert cells.shape[2:] == (8, 16)
    height, width = guidance.size
    pixel = (slice(0, height // 8), slice(3 * width // 16, 4 * width // 16))  # row 0, column 3
    valid = guidance.valid[1][pixel]
    for k in range(n):
        seen = ((guidance.semantic[1][pixel] == k) & valid).float().mean()
        filled = ((guidance.filled_semantic[1][pixel] == k) & ~valid).float().mean()
        torch.testing.assert_close(cells[1, k, 0, 3], seen)
        torch.testing.assert_close(cells[1, n + k, 0, 3], filled)
    torch.testing.assert_close(cells[1, 2 * n, 0, 3], valid.float().mean())
    torch.testing.assert_close(cells[:, : 2 * n].sum(1), torch.ones(2, 8, 16))
    # The mean colour of each class that was seen, in a cell that has two pixels of it or none.
    colours = cells[:, -3 * n :].unflatten(1, (3, n))
    for k in range(n):
        mask = (guidance.semantic[1][pixel] == k) & valid
        rgb = guidance.rgb[1][:, pixel[0], pixel[1]][:, mask]
        expected = rgb.mean(1) - 0.5 if mask.any() else torch.zeros(3)
        torch.testing.assert_close(colours[1, :, k, 0, 3], expected)


def test_another_summary_is_another_picture_everywhere() -> None:
    torch.manual_seed(0)
    net = StructureGenerator(SIZES["small"]).eval()
    wake(net.head)
    guidance = some_guidance(2)
    net.trust.factors.data.fill_(0.5)
    before = net(guidance).logits
    assert net.summary is not None
    assert net.trust is not None
    assert net.summary.shown(guidance).shape == (2, SIZES["small"].n_classes)
    cast(Any, net.summary.pooled[1]).bias.data += 3.0
    after = net(guidance).logits
    assert ((after - before).abs().amax(dim=1) > 0).float().mean() > 0.99
    # Its weights do not learn from the pixels.
    after.sum().backward()
    assert all(p.grad is None for p in net.summary.parameters())


def test_turning_on_the_spot_by_a_cell_does_not_change_what_is_told() -> None:
    torch.manual_seed(0)
    summary = StructureGenerator(SIZES["small"]).eval().summary
    assert summary is not None
    guidance = some_guidance(2)
    # Two cells: the second stage has half the columns.
    turned = guidance.roll(guidance.size[1] // 8)
    torch.testing.assert_close(summary(turned), summary(guidance))


def test_at_the_very_first_step_the_heads_receive_a_gradient() -> None:
    torch.manual_seed(0)
    net = StructureGenerator(TINY)
    structure_sum(net, some_guidance(1), some_guidance(1, share=1.0, seed=1)).backward()
    assert not missing(net.head)


# Masks


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_is_finite_where_nothing_or_everything_was_seen(share: float) -> None:
    torch.manual_seed(0)
    guidance = some_guidance(1, share=share) if share else GuidanceBatch.empty(1, 32, 64)
    structure, image = StructureGenerator(TINY), ImageGenerator(TINY)
    wake(structure.head)
    wake(image.head)
    seen = structure(guidance, truth=some_guidance(1, share=1.0, seed=1))
    painted = image(guidance, seen.logits.argmax(1), seen.depth)
    (seen.logits.mean() + seen.depth.mean() + painted.mean()).backward()
    for value in (seen.logits, seen.depth, painted):
        assert torch.isfinite(value).all()
    assert (seen.depth > 0).all()
    for net in (structure, image):
        for name, parameter in net.named_parameters():
            assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_colours_of_invalid_pixels_do_not_matter() -> None:
    # In the release a pixel of colour 0 counts as a hole; here the mask alone tells.
    torch.manual_seed(0)
    net = ImageGenerator(TINY).eval()
    wake(net.head)
    guidance = some_guidance(1)
    noisy = torch.where(guidance.valid[:, None], guidance.rgb, torch.rand_like(guidance.rgb))
    one, other = (
        net(replace(guidance, rgb=rgb), guidance.filled_semantic, guidance.filled_depth)
        for rgb in (guidance.rgb, noisy)
    )
    torch.testing.assert_close(one, other)


def test_a_black_pixel_that_was_seen_is_no_hole() -> None:
    torch.manual_seed(0)
    net = ImageGenerator(TINY).eval()
    wake(net.head)
    guidance = some_guidance(1, share=1.0)
    black = replace(guidance, rgb=torch.zeros_like(guidance.rgb))
    unseen = replace(black, valid=torch.zeros_like(guidance.valid))
    one, other = (net(g, guidance.filled_semantic, guidance.filled_depth) for g in (black, unseen))
    assert (one - other).abs().max() > 1e-3


def test_depth_beyond_the_largest_is_taken_for_the_largest() -> None:
    config = replace(TINY, max_depth=4.0)
    guidance = some_guidance(1)
    seen = StructureGenerator(config)(guidance)
    assert seen.depth.max() <= 4.0
    near = guidance.filled_depth < 3.9
    torch.testing.assert_close(seen.depth[near], guidance.filled_depth[near])
