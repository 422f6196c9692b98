"""Kernel ridge regression and Label Solve, against their formulas."""

import pytest
import torch
from torch import Tensor

from learning.distillation import KernelConfig, kernel, kernel_diagonal
from learning.distillation.ridge import factor, fit_ridge, solve_labels

CONFIG = KernelConfig(2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_the_mean_is_the_formula() -> None:
    points, labels, x = normal(6, 4), normal(6, 3, seed=1), normal(5, 4, seed=2)
    k = kernel(CONFIG, points)
    ridge = 0.1 * k.trace() / 6 * torch.eye(6)
    expected = kernel(CONFIG, x, points) @ torch.linalg.inv(k + ridge) @ labels
    assert torch.allclose(fit_ridge(CONFIG, points, labels, 0.1).mean(x), expected, rtol=1e-9)


def test_by_hand_one_point_is_shrunk_by_the_regulariser() -> None:
    # K (K + r K)^-1 y = y / (1 + r), whatever the kernel.
    point = normal(1, 4)
    found = fit_ridge(CONFIG, point, torch.tensor([[3.0]], dtype=torch.float64), 0.5).mean(point)
    assert float(found) == pytest.approx(2.0, abs=1e-12)


def test_without_a_regulariser_it_passes_through_its_points() -> None:
    points, labels = normal(8, 4), normal(8, 2, seed=1)
    assert torch.allclose(fit_ridge(CONFIG, points, labels, 0.0).mean(points), labels, rtol=1e-8)


def test_the_regulariser_means_the_same_at_every_scale() -> None:
    config = KernelConfig(1, b_std=0.0)
    points, labels, x = normal(6, 4), normal(6, 1, seed=1), normal(3, 4, seed=2)
    small = fit_ridge(config, points, labels, 1e-2).mean(x)
    large = fit_ridge(config, 100 * points, labels, 1e-2).mean(100 * x)
    assert torch.allclose(small, large, rtol=1e-9)


def test_the_variance_is_that_of_the_conditional_gaussian() -> None:
    points, x = normal(5, 4), normal(3, 4, seed=1)
    found = fit_ridge(CONFIG, points, normal(5, 1), 1e-2).variance(x)
    joint = kernel(CONFIG, torch.cat((x, points)))
    joint[3:, 3:] += 1e-2 * joint[3:, 3:].trace() / 5 * torch.eye(5)
    # The conditional covariance is the inverse of a block of the inverse.
    expected = torch.linalg.inv(torch.linalg.inv(joint)[:3, :3]).diagonal()
    assert torch.allclose(found, expected, rtol=1e-8)


def test_the_variance_tells_near_from_far() -> None:
    points = normal(20, 4)
    ridge = fit_ridge(CONFIG, points, normal(20, 1), 1e-8)
    near = ridge.variance(points)
    far = ridge.variance(10 * normal(5, 4, seed=3))
    assert float(near.max()) < 1e-5
    assert float(far.min()) > 1.0
    assert bool((far <= kernel_diagonal(CONFIG, 10 * normal(5, 4, seed=3))).all())


def test_predictions_do_not_depend_on_the_memory() -> None:
    points, labels, x = normal(6, 4), normal(6, 2, seed=1), normal(50, 4, seed=2)
    whole = fit_ridge(CONFIG, points, labels)
    parts = fit_ridge(CONFIG, points, labels, max_bytes=600)
    assert torch.allclose(parts.mean(x), whole.mean(x), rtol=1e-10)
    assert torch.allclose(parts.variance(x), whole.variance(x), rtol=1e-7)


@pytest.mark.parametrize("m", [9, 200])
def test_solved_labels_are_the_best_there_are(m: int) -> None:
    points, x, targets = normal(6, 4), normal(m, 4, seed=1), normal(m, 3, seed=2)
    ridge = fit_ridge(CONFIG, points, normal(6, 3, seed=3), 1e-3)
    best = ridge.solved(x, targets)
    weights = torch.cholesky_solve(kernel(CONFIG, x, points).T, ridge.lower).T
    # The gradient of the squared error vanishes.
    assert float((weights.T @ (weights @ best - targets)).abs().max()) < 1e-9
    given = (ridge.mean(x) - targets).square().sum()
    refit = (fit_ridge(CONFIG, points, best, 1e-3).mean(x) - targets).square().sum()
    assert float(refit) < float(given)


def test_of_all_best_labels_the_smallest_are_taken() -> None:
    # Fewer targets than points: many labels fit exactly, and any other is the smallest plus
    # something at right angles to it.
    points, x, targets = normal(8, 4), normal(3, 4, seed=1), normal(3, 2, seed=2)
    k = kernel(CONFIG, points)
    lower = factor(k, 1e-3)
    k_ts = kernel(CONFIG, x, points)
    found = solve_labels(k_ts, lower, targets)
    weights = torch.cholesky_solve(k_ts.T, lower).T
    assert torch.allclose(weights @ found, targets, atol=1e-9)
    null = torch.linalg.svd(weights).Vh[3:]
    assert float((null @ found).abs().max()) < 1e-9


def test_equal_points_without_a_regulariser_are_refused_in_one_line() -> None:
    points = normal(1, 4).expand(3, 4)
    with pytest.raises(ValueError, match="3 support points is singular") as caught:
        fit_ridge(CONFIG, points, normal(3, 1), 0.0)
    assert "\n" not in str(caught.value)
    # With one, they share their labels.
    labels = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    found = fit_ridge(CONFIG, points, labels, 1e-6).mean(points[:1])
    assert float(found) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    ("labels", "regulariser", "message"),
    [
        (normal(3, 1), 1e-6, r"labels must be \(4, C\)"),
        (torch.full((4, 1), torch.nan, dtype=torch.float64), 1e-6, "labels must be finite"),
        (normal(4, 1), -1.0, "regulariser must be at least 0"),
        (normal(4, 1), float("nan"), "regulariser must be at least 0"),
    ],
)
def test_what_makes_no_regression_is_refused(
    labels: Tensor, regulariser: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_ridge(CONFIG, normal(4, 4), labels, regulariser)
