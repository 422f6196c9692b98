"""Layers of Pathdreamer: the seam, partial convolution, normalisation, what networks see."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pathdreamer_cases import TINY, some_guidance, wake
from torch import nn

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
from world_models.pathdreamer.inputs import (
    NEUTRAL_DEPTH,
    ClassChannels,
    GuidanceBatch,
    depth_logit,
    elevation,
)
from world_models.pathdreamer.structure import StructureGenerator

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
