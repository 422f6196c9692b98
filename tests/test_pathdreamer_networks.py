"""Layers and networks of Pathdreamer: sizes, the seam, copying, gradients, all kinds of masks."""

import json
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pathdreamer_cases import TINY
from torch import Tensor, nn

from world_models.pathdreamer.blocks import (
    CircularConv2d,
    CircularConvTranspose2d,
    PartialConv2d,
    ResidualBlock,
    UpsamplingBlock,
    group_norm,
    spectral,
    wrap,
)
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
from world_models.pathdreamer.inputs import (
    NEUTRAL_DEPTH,
    ClassChannels,
    GuidanceBatch,
    depth_logit,
    elevation,
)
from world_models.pathdreamer.structure import StructureGenerator


def some_guidance(
    batch: int = 2, height: int = 32, share: float = 0.4, seed: int = 0, classes: int = 41
) -> GuidanceBatch:
    """Random guidance whose fillings are random too, but equal where it is valid."""
    rng = torch.Generator().manual_seed(seed)
    shape = (batch, height, 2 * height)
    valid = torch.rand(shape, generator=rng) < share
    rgb = torch.rand((batch, 3, *shape[1:]), generator=rng)
    semantic = torch.randint(classes, shape, generator=rng)
    depth = 0.2 + 9 * torch.rand(shape, generator=rng)
    return GuidanceBatch(
        rgb * valid[:, None], semantic * valid, depth * valid, valid, rgb, semantic, depth
    )


def wake(module: nn.Module) -> None:
    """Random weights for a head that starts at zero."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


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
    assert 1e6 < structure < 3e6
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


LAYERS = {
    "conv 3": (lambda: CircularConv2d(8, 8, 3), 1),
    "conv 4": (lambda: CircularConv2d(8, 8, 4), 1),
    "conv 7 stride 2": (lambda: CircularConv2d(8, 8, 7, 2), 2),
    "conv 4 stride 2": (lambda: CircularConv2d(8, 8, 4, 2), 2),
    "transposed 2": (lambda: CircularConvTranspose2d(8, 8, 2), 1),
    "transposed 3": (lambda: CircularConvTranspose2d(8, 8, 3), 1),
    "partial": (lambda: PartialConv2d(8, 8, 3), 1),
    "residual": (lambda: ResidualBlock(8, 16, 2, False), 2),
    "bottleneck": (lambda: ResidualBlock(8, 8, 2, True), 2),
    "upsampling": (lambda: UpsamplingBlock(8, 4, True), 1),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("turns", [1, 3, 5])
def test_a_layer_commutes_with_turning(name: str, turns: int) -> None:
    torch.manual_seed(0)
    make, stride = LAYERS[name]
    layer = make()
    x = torch.randn(2, 8, 6, 12)
    straight = layer(x)
    by = turns * stride
    turned = layer(x.roll(by, dims=-1))
    scale = straight.shape[-1] / x.shape[-1]
    torch.testing.assert_close(
        turned, straight.roll(round(by * scale), dims=-1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kernel", [2, 3, 4, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_of_any_kernel_keeps_the_size_or_halves_it(kernel: int, stride: int) -> None:
    x = torch.randn(1, 2, 8, 16)
    assert CircularConv2d(2, 3, kernel, stride)(x).shape == (1, 3, 8 // stride, 16 // stride)


def test_rows_do_not_wrap() -> None:
    layer = CircularConv2d(1, 1, 3, bias=False)
    nn.init.ones_(layer.weight)
    x = torch.zeros(1, 1, 6, 6)
    x[0, 0, 0, 0] = 1
    seen = layer(x)[0, 0]
    assert seen[0, 5] == 1  # across the seam
    assert seen[5].abs().max() == 0  # not from the zenith to the nadir


def test_wrap_keeps_channels_last() -> None:
    x = torch.randn(2, 8, 4, 6).contiguous(memory_format=torch.channels_last)
    wrapped = wrap(x, 2, 1)
    assert wrapped.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(wrapped[..., 2:-1], x)
    assert torch.equal(wrapped[..., :2], x[..., -2:])
    assert torch.equal(wrapped[..., -1], x[..., 0])
    assert wrap(x, 0, 0) is x


def test_a_transposed_convolution_of_another_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="2 or 3"):
        CircularConvTranspose2d(1, 1, 4)


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


# Partial convolution


def test_a_partial_convolution_worked_by_hand() -> None:
    layer = PartialConv2d(1, 1, 3)
    nn.init.ones_(layer.weight)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, 0.5)
    x = torch.arange(12.0).view(1, 1, 3, 4)
    mask = torch.zeros(1, 1, 3, 4)
    mask[0, 0, 1, 1] = mask[0, 0, 1, 2] = 1  # the values 5 and 6
    found = layer(x, mask)[0, 0]
    # Every window that reaches both: (5 + 6) * 9 / 2 + 0.5; column 3 reaches 6, column 0 reaches 5
    # and, across the seam, nothing else.
    expected = torch.tensor([5 * 9 + 0.5, 11 * 4.5 + 0.5, 11 * 4.5 + 0.5, 6 * 9 + 0.5])
    torch.testing.assert_close(found, expected.expand(3, 4))


def test_a_window_without_a_valid_pixel_gives_zero_and_not_the_bias() -> None:
    layer = PartialConv2d(1, 2, 3)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, 7.0)
    mask = torch.zeros(1, 1, 4, 8)
    mask[..., 0, 0] = 1
    found = layer(torch.randn(1, 1, 4, 8), mask)
    assert found[..., 3, 4].abs().max() == 0
    assert found[..., 1, 7].abs().min() > 0  # reached across the seam


@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_a_partial_convolution_does_not_see_invalid_pixels(seed: int, share: float) -> None:
    torch.manual_seed(seed)
    layer = PartialConv2d(3, 4, 3)
    mask = (torch.rand(1, 1, 4, 6) < share).float()
    x = torch.randn(1, 3, 4, 6)
    other = torch.where(mask > 0, x, 100 * torch.randn(1, 3, 4, 6))
    torch.testing.assert_close(layer(x, mask), layer(other, mask))


def test_a_partial_convolution_of_a_constant_is_that_of_the_full_window() -> None:
    layer = PartialConv2d(1, 1, 3, bias=False)
    mask = (torch.rand(1, 1, 6, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    nn.init.ones_(layer.weight)
    found = layer(torch.full((1, 1, 6, 8), 2.0), mask)
    assert set(found.round().flatten().tolist()) <= {0.0, 18.0}


# Normalisation


def test_normalisation_does_not_look_at_other_samples() -> None:
    net = StructureGenerator(TINY).train()
    wake(net.head)
    guidance = some_guidance(3)
    alone = net(GuidanceBatch(*(getattr(guidance, n)[:1] for n in guidance.__dataclass_fields__)))
    torch.testing.assert_close(net(guidance).logits[:1], alone.logits, rtol=1e-3, atol=1e-3)


def test_normalisation_of_an_input_without_gradient_does_not_end_the_process() -> None:
    # torch 2.13 writes to a null pointer where the input is channels_last.
    norm = group_norm(8)
    x = torch.randn(2, 8, 4, 6).contiguous(memory_format=torch.channels_last)
    norm(x).square().sum().backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.abs().min() > 0


@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (16, 4), (24, 6), (128, 32), (1536, 32)])
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_spectral_normalisation_bounds_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    conv = spectral(CircularConv2d(6, 5, 3))
    for _ in range(50):  # each pass improves the estimate
        conv(torch.zeros(1, 6, 4, 4))
    assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)
    assert not hasattr(spectral(CircularConv2d(1, 1, 3), on=False), "parametrizations")


# What the networks see


def test_learned_vectors_are_a_one_by_one_convolution_of_one_hot_channels() -> None:
    ids = torch.randint(6, (2, 3, 4))
    learned, one_hot = ClassChannels(6, 5), ClassChannels(6, 0)
    assert learned.vectors is not None
    expected = torch.einsum("bkhw,kc->bchw", one_hot(ids), learned.vectors)
    torch.testing.assert_close(learned(ids), expected)
    assert torch.equal(one_hot(ids).argmax(1), ids)


def test_elevation_rises_from_the_nadir_to_the_zenith() -> None:
    rows = elevation(4, 8, torch.device("cpu"))[0, 0, :, 0]
    np.testing.assert_allclose(rows, np.sin(np.radians([67.5, 22.5, -22.5, -67.5])), atol=1e-6)


def test_depth_survives_its_logit() -> None:
    depth = torch.tensor([0.05, 1.0, 5.0, 9.9])
    torch.testing.assert_close(10 * depth_logit(depth, 10.0).sigmoid(), depth)
    assert torch.isfinite(depth_logit(torch.tensor([0.0, 80.0]), 10.0)).all()


def test_a_memory_that_holds_nothing_is_filled_neutrally() -> None:
    empty = GuidanceBatch.empty(1, 4, 8)
    assert not empty.valid.any()
    assert (empty.filled_depth == NEUTRAL_DEPTH).all()
    assert (empty.filled_rgb == 0.5).all()


def test_repeating_lays_samples_of_one_place_side_by_side() -> None:
    guidance = some_guidance(2)
    thrice = guidance.repeat(3)
    assert len(thrice) == 6
    assert torch.equal(thrice.depth[2], guidance.depth[0])
    assert torch.equal(thrice.rgb[3], guidance.rgb[1])


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
    return (seen.logits * torch.randn_like(seen.logits)).mean() + seen.depth.mean() + sum(spread)


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
    sum(
        scale[-1].square().mean() for scale in judge(truth.rgb, truth.semantic, truth.depth)
    ).backward()
    assert not missing(judge)


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
