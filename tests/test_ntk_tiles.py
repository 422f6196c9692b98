"""Kernels tile by tile: the same numbers and gradients in bounded memory."""

import gc
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learning.distillation import KernelConfig, kernel
from learning.distillation.tiles import pair_bytes, tile_sides, tiles

FC = KernelConfig(2)
CONV = KernelConfig(convs=(1, 1), prepend=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def bound(config: KernelConfig, shape: tuple[int, ...], pairs: int) -> int:
    return pairs * pair_bytes(config, shape, 8)


@pytest.mark.parametrize(
    ("config", "shape", "pairs"), [(FC, (5,), 6), (CONV, (2, 4, 4), 10)], ids=["fc", "conv"]
)
def test_tiles_give_the_numbers_and_gradients_of_one_piece(
    config: KernelConfig, shape: tuple[int, ...], pairs: int
) -> None:
    x = normal(7, *shape).requires_grad_()
    y = normal(5, *shape, seed=1).requires_grad_()
    weights = normal(7, 5, seed=2)
    whole, parts = kernel(config, x, y), kernel(config, x, y, bound(config, shape, pairs))
    assert torch.allclose(parts, whole, rtol=1e-13)
    expected = torch.autograd.grad((whole * weights).sum(), (x, y))
    found = torch.autograd.grad((parts * weights).sum(), (x, y))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("config", "shape", "pairs"), [(FC, (5,), 6), (CONV, (2, 4, 4), 10)], ids=["fc", "conv"]
)
def test_a_matrix_with_itself_is_mirrored_with_its_gradient(
    config: KernelConfig, shape: tuple[int, ...], pairs: int
) -> None:
    x = normal(7, *shape).requires_grad_()
    weights = normal(7, 7, seed=2)
    whole = kernel(config, x)
    parts = kernel(config, x, max_bytes=bound(config, shape, pairs))
    assert torch.allclose(parts, whole, rtol=1e-13)
    (expected,) = torch.autograd.grad((whole * weights).sum(), x)
    (found,) = torch.autograd.grad((parts * weights).sum(), x)
    assert torch.allclose(found, expected, rtol=1e-11, atol=1e-13)


def test_only_the_side_that_needs_a_gradient_gets_one() -> None:
    x, y = normal(6, 5), normal(4, 5, seed=1).requires_grad_()
    found = kernel(FC, x, y, bound(FC, (5,), 6))
    found.sum().backward()
    assert x.grad is None
    (expected,) = torch.autograd.grad(kernel(FC, x, y).sum(), y)
    assert y.grad is not None
    assert torch.allclose(y.grad, expected)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 40))
def test_tiles_cover_a_matrix_once_and_keep_the_bound(n: int, m: int, most: int) -> None:
    sides = tile_sides(n, m, most)
    assert sides[0] * sides[1] <= most
    seen = torch.zeros(n, m)
    for tile in tiles(n, m, sides):
        seen[tile.rows, tile.columns] += 1
    assert bool((seen == 1).all())
    half = torch.zeros(n, n)
    for tile in tiles(n, n, (min(sides),) * 2, symmetric=True):
        half[tile.rows, tile.columns] += 1
        if tile.rows != tile.columns:
            half[tile.columns, tile.rows] += 1
    assert bool((half == 1).all())


def peak_memory() -> int:
    """Most bytes that were resident since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def resident_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_memory_stays_within_its_bound() -> None:
    reset = Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")
    except OSError:
        pytest.skip("this system does not let a process reset its peak of memory")
    most = 2**24
    x = normal(20, 1, 8, 8).requires_grad_()
    gc.collect()
    reset.write_text("5")
    before = resident_memory()
    kernel(CONV, x, max_bytes=most).sum().backward()
    # Without tiles, this takes more than ten times the bound.
    assert 20 * 20 * pair_bytes(CONV, (1, 8, 8), 8) > 10 * most
    assert peak_memory() - before < 1.5 * most


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (normal(2, 3), normal(2, 4), "of one shape, kind and device"),
        (normal(2, 3), normal(2, 3).float(), "of one shape, kind and device"),
        (normal(2, 3).half(), normal(2, 3).half(), "float32 or float64"),
        (normal(2, 3), normal(0, 3), "points on both sides, got 2 and 0"),
        (torch.full((2, 3), torch.nan), torch.ones(1, 3), "finite"),
        (torch.ones(1, 3), torch.full((2, 3), torch.inf), "finite"),
        (normal(2, 3), 1e200 * normal(2, 3), "enormous values; scale them down"),
    ],
)
def test_points_that_do_not_fit_are_refused(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel(FC, x, y)


def test_a_bound_below_one_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="needs at least"):
        kernel(CONV, normal(2, 1, 8, 8), max_bytes=1000)
