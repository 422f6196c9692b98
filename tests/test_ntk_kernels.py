"""Kernels of infinitely wide networks: closed forms, neural-tangents' numbers, wide networks."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from learning.distillation import (
    KERNELS,
    KernelConfig,
    hidden_layers,
    kernel,
    kernel_diagonal,
    kernel_tile,
    named_kernel,
)
from learning.distillation.arc_cosine import blocks, relu_moments
from learning.distillation.products import products
from learning.distillation.spatial import convolve, covariance, flatten, pool, same_position

VALUES = json.loads((Path(__file__).parent / "data" / "ntk_values.json").read_text())
CASES = VALUES["cases"]
NETWORKS = {
    "fc1": KernelConfig(1),
    "fc3": KernelConfig(3),
    "convnet": KernelConfig(convs=(1, 1), prepend=True),
    "convnet3": KernelConfig(convs=(1, 1)),
    "myrtle": KernelConfig(convs=(1, 2), head="mean"),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def points(config: KernelConfig, n: int, seed: int = 0) -> Tensor:
    return normal(n, 2, 5, 4, seed=seed) if config.convs else normal(n, 6, seed=seed)


# Values


def test_one_hidden_layer_by_hand() -> None:
    # Without biases and with weights of variance 2, a point of mean square 1/2 has covariance 1.
    # Equal points: Sigma' = 2 * 1/2 = 1, Theta' = 1 + 2 * 1/2 * 1 = 2.
    # At right angles: Sigma' = 2 / (2 pi), and Theta' = Sigma', for Theta was 0.
    # Opposite ones never fire together: 0.
    config = KernelConfig(1, b_std=0.0)
    x = torch.eye(2, dtype=torch.float64)
    others = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    ntk = kernel(config, x[:1], others)[0].tolist()
    assert ntk == pytest.approx([2, 1 / math.pi, 0], abs=1e-12)
    nngp = kernel(replace(config, kind="nngp"), x[:1], others)[0].tolist()
    assert nngp == pytest.approx([1, 1 / math.pi, 0], abs=1e-12)


def test_two_hidden_layers_at_sixty_degrees_by_hand() -> None:
    # cos 60 = 1/2: kappa_0 = (pi - pi/3) / pi = 2/3, kappa_1 = (sin 60 + 2 pi / 3 / 2) / pi.
    def kappa_1(c: float) -> float:
        return (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi

    first = kappa_1(0.5)
    theta = first + 2 / 3 * 0.5
    second = kappa_1(first)
    theta = second + (math.pi - math.acos(first)) / math.pi * theta
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[0.5, math.sqrt(0.75)]], dtype=torch.float64)
    assert float(kernel(KernelConfig(2, b_std=0.0), x, y)) == pytest.approx(theta, abs=1e-12)


def test_a_linear_network_has_the_linear_kernel() -> None:
    x, y = normal(3, 5), normal(4, 5, seed=1)
    found = kernel(KernelConfig(0, w_std=2.0, b_std=0.5), x, y)
    assert torch.allclose(found, 4 * x @ y.T / 5 + 0.25, atol=1e-12)


def test_a_convolution_of_one_pixel_is_a_dense_layer_with_a_ninth_of_the_weights() -> None:
    x, y = normal(3, 4, 1, 1), normal(2, 4, 1, 1, seed=1)
    config = KernelConfig(convs=(1,), head="mean", b_std=0.0)
    # Both layers are dense on four channels; eight of nine weights of the first meet the padding.
    dense = kernel(KernelConfig(1, b_std=0.0), x, y)
    assert torch.allclose(9 * kernel(config, x, y), dense, rtol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['name']}-{c['network']['kind']}")
def test_values_agree_with_neural_tangents(case: dict) -> None:
    assert VALUES["neural-tangents"] == "0.6.5"
    config = KernelConfig(**{**case["network"], "convs": tuple(case["network"]["convs"])})
    x, y, expected = (torch.tensor(case[key], dtype=torch.float64) for key in ("x", "y", "values"))
    assert torch.allclose(kernel(config, x, y), expected, rtol=1e-6, atol=1e-6)
    single = kernel(config, x.float(), y.float()).double()
    # Where points coincide, float32 knows the angle to the root of its rounding only.
    assert torch.allclose(single, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["fc1", "fc3"])
def test_the_kernel_is_what_a_wide_network_has(name: str) -> None:
    config, width, nets = NETWORKS[name], 1000, 4
    x = normal(3, 6)
    total = torch.zeros(3, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(nets):
        sizes = [6, *[width] * config.depth, 1]
        weights = [
            torch.randn(b, a, generator=generator, dtype=torch.float64).requires_grad_()
            for a, b in pairwise(sizes)
        ]
        biases = [
            torch.randn(b, generator=generator, dtype=torch.float64).requires_grad_()
            for b in sizes[1:]
        ]
        rows = []
        for point in x:
            h = point
            for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                h = h if number == 0 else h.relu()
                h = config.w_std / math.sqrt(len(h)) * weight @ h + config.b_std * bias
            rows.append(
                torch.cat([g.flatten() for g in torch.autograd.grad(h.sum(), weights + biases)])
            )
        jacobian = torch.stack(rows)
        total += jacobian @ jacobian.T / nets
    assert torch.allclose(total, kernel(config, x), rtol=0.1, atol=0.1)


def test_the_convolutional_kernel_is_what_a_wide_network_has() -> None:
    config, width, nets = NETWORKS["convnet3"], 160, 6
    x = normal(2, 2, 5, 4)
    total = torch.zeros(2, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    for _ in range(nets):
        first, second = draw(width, 2, 3, 3), draw(width, width, 3, 3)
        last, biases = draw(width), [draw(width), draw(width), draw(1)]
        rows = []
        for image in x:
            h = image[None]
            for weight, bias in zip((first, second), biases[:2], strict=True):
                scale = config.w_std / math.sqrt(9 * h.shape[1])
                h = scale * F.conv2d(h, weight, padding=1) + config.b_std * bias[:, None, None]
                h = F.avg_pool2d(h.relu(), 2)
            h = config.w_std / math.sqrt(width) * (last * h.flatten()).sum()
            h = h + config.b_std * biases[2].sum()
            found = torch.autograd.grad(h, [first, second, last, *biases])
            rows.append(torch.cat([g.flatten() for g in found]))
        jacobian = torch.stack(rows)
        total += jacobian @ jacobian.T / nets
    # 5 x 4 pixels are pooled to 2 x 2 and to one: flattening leaves one position.
    assert torch.allclose(total, kernel(config, x), rtol=0.08, atol=0.05)


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_the_diagonal_is_that_of_the_matrix(config: KernelConfig, kind: str) -> None:
    config = replace(config, kind=kind)
    x = points(config, 4)
    assert torch.allclose(kernel_diagonal(config, x), kernel(config, x).diagonal(), rtol=1e-7)


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_matrices_are_symmetric_and_positive(config: KernelConfig) -> None:
    x = points(config, 6)
    found = kernel(config, x)
    assert torch.allclose(found, found.T, rtol=1e-12)
    assert float(torch.linalg.eigvalsh(found).min()) > 1e-4
    y = points(config, 3, seed=1)
    assert torch.allclose(kernel(config, x, y), kernel(config, y, x).T, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 3))
def test_without_biases_the_kernel_scales_as_its_points(a: float, b: float, depth: int) -> None:
    config = KernelConfig(depth, b_std=0.0)
    x, y = normal(3, 5), normal(3, 5, seed=1)
    assert torch.allclose(
        kernel(config, a * x, b * y), a * b * kernel(config, x, y), rtol=1e-9, atol=0
    )


# Gradients


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_gradients_are_those_of_finite_differences(config: KernelConfig, kind: str) -> None:
    config = replace(config, kind=kind)
    x = points(config, 2).requires_grad_()
    y = points(config, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: kernel(config, a, b), (x, y), fast_mode=True)


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_at_coincident_points_the_gradient_is_the_mean_of_both_sides(config: KernelConfig) -> None:
    x = points(config, 1)
    y = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(kernel(config, x, y).sum(), y)
    assert torch.isfinite(found).all()
    step = 1e-6 * points(config, 1, seed=1)
    ahead, behind = (float(kernel(config, x, x + sign * step)) for sign in (1, -1))
    expected = (ahead - behind) / 2
    assert float((found * step).sum()) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("b_std", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_finite_at_zero_and_at_opposite_points(
    name: str, b_std: float, dtype: torch.dtype
) -> None:
    config = replace(NETWORKS[name], b_std=b_std)
    x = points(config, 3).to(dtype)
    x[0] = 0
    x[2] = -x[1]
    x.requires_grad_()
    found = kernel(config, x)
    (grad,) = torch.autograd.grad(found.sum(), x)
    assert torch.isfinite(found).all()
    assert torch.isfinite(grad).all()


# Parts


def test_moments_agree_with_a_sample() -> None:
    covariance = torch.tensor([[1.5, 0.6], [0.6, 0.8]], dtype=torch.float64)
    sample = normal(400_000, 2) @ torch.linalg.cholesky(covariance).T
    s, theta = covariance[:1, 1:], torch.ones(1, 1, dtype=torch.float64)
    sx, sy = covariance[0, 0].sqrt()[None, None], covariance[1, 1].sqrt()[None, None]
    moment, carried = relu_moments(s, theta, sx, sy)
    assert carried is not None
    both = sample.relu().prod(1).mean()
    assert float(moment) / (2 * math.pi) == pytest.approx(float(both), rel=0.01)
    fire = (sample > 0).all(1).double().mean()
    assert float(carried) / (2 * math.pi) == pytest.approx(float(fire), rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_those_of_matrices(dtype: torch.dtype) -> None:
    x, y = normal(7, 30).to(dtype), normal(5, 30, seed=1).to(dtype)
    x.requires_grad_()
    found = products(x, y.requires_grad_(), 0.5, 2.0)
    assert torch.allclose(found, 0.5 * x @ y.T + 2, rtol=1e-5)
    weights = normal(7, 5, seed=2).to(dtype)
    grads = torch.autograd.grad((found * weights).sum(), (x, y))
    assert torch.allclose(grads[0], 0.5 * weights @ y, rtol=1e-4, atol=1e-5)
    assert torch.allclose(grads[1], 0.5 * weights.T @ x, rtol=1e-4, atol=1e-5)


def test_a_dense_layer_done_in_passing_is_the_dense_layer() -> None:
    x, y = normal(4, 6), normal(3, 6, seed=1)
    s = (x @ y.T).requires_grad_()
    theta = normal(4, 3, seed=2).requires_grad_()
    sx = x.norm(dim=1, keepdim=True).requires_grad_()
    sy = y.norm(dim=1)[None].requires_grad_()
    inputs = (s, theta, sx, sy)
    moment, carried = relu_moments(*inputs)
    assert carried is not None
    expected = 0.7 * moment + 0.2, 0.7 * moment + 0.2 + 0.7 * carried
    found = relu_moments(*inputs, (0.7, 0.2))
    weights = normal(2, 4, 3, seed=3)
    totals = []
    for pair in (expected, found):
        assert pair[1] is not None
        total = (weights[0] * pair[0] + weights[1] * pair[1]).sum()
        totals.append((total, *torch.autograd.grad(total, inputs, retain_graph=True)))
    for one, other in zip(*totals, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(1, 40))
def test_blocks_cover_an_array_once(shape: list[int], most: int) -> None:
    seen = torch.zeros(shape)
    for block in blocks(seen.shape, most):
        seen[block] += 1
        assert seen[block].is_contiguous()
    assert bool((seen == 1).all())


def test_a_convolution_adds_positions_that_are_shifted_alike() -> None:
    s = normal(3, 4, 2, 5, 2)
    padded = torch.zeros(5, 6, 4, 7, 2, dtype=torch.float64)
    padded[1:4, 1:5, 1:3, 1:6] = s
    expected = torch.zeros_like(s)
    for i in range(3):
        for j in range(3):
            expected += padded[i : i + 3, i : i + 4, j : j + 2, j : j + 5]
    found = convolve(s, 9.0, torch.tensor(0.5, dtype=torch.float64))
    assert torch.allclose(found, expected + 0.5, rtol=1e-12)


def test_pooling_averages_sixteen_pairs_and_drops_what_is_left_over() -> None:
    s = normal(5, 4, 3, 2, 3)
    found = pool(s)
    assert found.shape == (2, 2, 1, 1, 3)
    assert torch.allclose(found[1, 0, 0, 0], s[2:4, 0:2, 0:2, 0:2].mean((0, 1, 2, 3)))


def test_layers_are_differentiated_right() -> None:
    s = normal(3, 3, 2, 4, 2).requires_grad_()
    base = normal(3, 3, 2, 4, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: convolve(a, 2.0, b), (s, base))
    assert torch.autograd.gradcheck(pool, (s,))


@pytest.mark.parametrize("channels", [1, 3])
def test_covariances_of_images_are_products_of_pixels(channels: int) -> None:
    x = normal(3, channels, 2, 4).requires_grad_()
    y = normal(2, channels, 2, 4, seed=1).requires_grad_()
    expected = torch.einsum("ichw,jcab->hawbij", x, y) / channels
    assert torch.allclose(covariance(x, y), expected, rtol=1e-12)
    assert torch.autograd.gradcheck(covariance, (x, y))


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("sides", [(5, 9), (9, 5)])
def test_layers_at_once_are_the_layers_one_by_one(
    depth: int, kind: str, sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(KernelConfig(depth), kind=kind)
    x, y = normal(sides[0], 6), normal(sides[1], 6, seed=1)
    y[0], y[1], y[2] = x[1], 0, -x[2]
    expected = kernel_tile(config, x, y.clone().requires_grad_()).detach()
    for size in (1, 200, 2**17):  # blocks of a row, of some rows, of all
        monkeypatch.setattr(hidden_layers, "BLOCK_BYTES", size)
        assert torch.allclose(kernel_tile(config, x, y), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("depth", [1, 3])
def test_single_precision_is_right_to_a_millionth(depth: int) -> None:
    x, y = normal(60, 784), normal(50, 784, seed=1)
    exact = kernel(KernelConfig(depth), x, y)
    found = kernel(KernelConfig(depth), x.float(), y.float()).double()
    assert torch.allclose(found, exact, rtol=1e-6, atol=1e-6)


def test_equal_positions_are_found() -> None:
    images = normal(2, 3, 4)
    s = torch.einsum("ihw,iab->hawbi", images, images)
    assert torch.allclose(same_position(s), images.square().permute(1, 2, 0))
    pairs = torch.einsum("ihw,jab->hawbij", images, images)
    assert torch.allclose(flatten(pairs), images.flatten(1) @ images.flatten(1).T / 12)


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": -1}, "depth must be at least 0"),
        ({"convs": (1, 0)}, "convs must be at least 1"),
        ({"prepend": True}, "of convolutional networks"),
        ({"convs": (1,), "head": "max"}, "flatten or mean"),
        ({"kind": "rbf"}, "ntk or nngp"),
        ({"w_std": 0.0}, "w_std must be positive"),
        ({"b_std": math.nan}, "b_std must be at least 0"),
    ],
)
def test_networks_that_do_not_exist_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KernelConfig(**settings)


def test_named_networks_have_the_depth_that_is_asked_for() -> None:
    assert named_kernel("fc", 3).depth == 3
    assert named_kernel("convnet", 2).convs == (1, 1)
    assert named_kernel("convnet").prepend
    assert KERNELS["myrtle10"].convs == (2, 3, 3)
    with pytest.raises(ValueError, match="known: fc, convnet"):
        named_kernel("rbf")
    with pytest.raises(ValueError, match="depth of myrtle5 is fixed"):
        named_kernel("myrtle5", 2)


def test_images_must_be_large_enough_for_the_poolings() -> None:
    with pytest.raises(ValueError, match=r"at least 8 x 8 for 3 poolings, got \(1, 7, 9\)"):
        kernel(KERNELS["convnet"], normal(1, 1, 7, 9))
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        kernel(KERNELS["convnet"], normal(2, 9))


def test_a_tile_is_a_function_of_its_points_alone() -> None:
    config = NETWORKS["convnet"]
    x, y = points(config, 4), points(config, 4, seed=1)
    whole = kernel_tile(config, x, y)
    assert torch.allclose(kernel_tile(config, x[1:3], y[2:]), whole[1:3, 2:], rtol=1e-13)
