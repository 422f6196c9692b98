"""Kernel ridge regression: what a few points with their labels say of any other.

    f(X) = K(X, Xs) (K(Xs, Xs) + r tr(K(Xs, Xs)) / n I)^-1 ys

Source: Nguyen et al. 2021, "Dataset Meta-Learning from Kernel Ridge-Regression", eq. 4; the
regulariser r is in units of the mean of the kernel's diagonal, so that it means the same for every
kernel and size.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from learning.distillation.kernel_config import KernelConfig
from learning.distillation.kernels import kernel_diagonal
from learning.distillation.tile_work import TileWork
from learning.distillation.tiles import MAX_BYTES, kernel

REGULARISER = 1e-6


def factor(k_ss: Tensor, regulariser: float = REGULARISER) -> Tensor:
    """Cholesky factor of a kernel matrix with its regulariser.

    Args:
        k_ss: `(n, n)` of the support with itself.
        regulariser: in units of the mean of the diagonal.

    Returns:
        `(n, n)` lower triangular, differentiable.

    Raises:
        ValueError: if the matrix is singular or not finite.
    """
    if not (math.isfinite(regulariser) and regulariser >= 0):
        raise ValueError(f"the regulariser must be at least 0, got {regulariser}")
    n = len(k_ss)
    if not bool(torch.isfinite(k_ss.detach().sum())):
        raise ValueError(
            f"the kernel matrix of {n} support points is not finite: they are too large; scale "
            "them down, or lower lr where they are learned"
        )
    ridge = regulariser * k_ss.trace() / n
    lower, failed = torch.linalg.cholesky_ex(
        k_ss + ridge * torch.eye(n, dtype=k_ss.dtype, device=k_ss.device)
    )
    if int(failed):
        raise ValueError(
            f"the kernel matrix of {n} support points is singular with a regulariser of "
            f"{regulariser:g}; raise it, compute in float64, or leave out points that are equal"
        )
    return lower


def predict(k_ts: Tensor, lower: Tensor, labels: Tensor) -> Tensor:
    """Predictive mean.

    Args:
        k_ts: `(m, n)` kernel between points and support.
        lower: `(n, n)`, from `factor`.
        labels: `(n, C)` of the support.

    Returns:
        `(m, C)`.
    """
    return k_ts @ torch.cholesky_solve(labels, lower)


def solve_labels(k_ts: Tensor, lower: Tensor, targets: Tensor) -> Tensor:
    """Label Solve: the labels with which the support predicts the targets best.

    The least-squares solution of smallest norm: with A = K_ts (K_ss + ridge)^-1, A^+ targets.
    Source: Nguyen et al. 2021, "Dataset Meta-Learning from Kernel Ridge-Regression", eq. 8.

    Args:
        k_ts: `(m, n)` kernel between all targets and the support.
        lower: `(n, n)`, from `factor`.
        targets: `(m, C)` labels of the targets.

    Returns:
        `(n, C)`.
    """
    weights = torch.cholesky_solve(k_ts.T, lower).T
    if len(weights) <= 2 * len(lower):
        return torch.linalg.pinv(weights) @ targets
    # Of many targets only the triangle matters: A = Q R, A^+ = R^+ Q^T.
    q, r = torch.linalg.qr(weights)
    return torch.linalg.pinv(r) @ (q.T @ targets)


@dataclass(frozen=True)
class KernelRidge:
    """A fitted regression. Refitting takes one solve with the stored factor.

    Attributes:
        config: the network of the kernel.
        points: `(n, ...)` support.
        labels: `(n, C)`.
        lower: `(n, n)` factor of its regularised kernel.
        max_bytes: bound on the memory of kernels.
        work: who computes tiles of kernels; None: this process.
    """

    config: KernelConfig
    points: Tensor
    labels: Tensor
    lower: Tensor
    max_bytes: int = MAX_BYTES
    work: TileWork | None = None

    @cached_property
    def weights(self) -> Tensor:
        """`(n, C)`, what the kernel with each point is multiplied by."""
        with torch.inference_mode(False), torch.no_grad():
            return torch.cholesky_solve(self.labels, self.lower)

    @torch.no_grad()
    def mean(self, x: Tensor) -> Tensor:
        """Predictive mean `(m, C)` of points `(m, ...)`."""
        return torch.cat([self._kernel(part) @ self.weights for part in self._parts(x)])

    @torch.no_grad()
    def variance(self, x: Tensor) -> Tensor:
        """Predictive variance `(m,)` of points, in units of the kernel; not below zero.

        That of a Gaussian process whose prior covariance is the kernel. Far from the support it
        nears the kernel's own diagonal.
        """
        found = []
        for part in self._parts(x):
            whitened = torch.linalg.solve_triangular(self.lower, self._kernel(part).T, upper=False)
            found.append(kernel_diagonal(self.config, part) - whitened.square().sum(0))
        return torch.cat(found).clamp_min(0)

    @torch.no_grad()
    def solved(self, x: Tensor, targets: Tensor) -> Tensor:
        """Labels of the support by Label Solve for targets `(m, C)` of points `(m, ...)`."""
        k_ts = torch.cat([self._kernel(part) for part in self._parts(x)])
        return solve_labels(k_ts, self.lower, targets.to(k_ts))

    def _kernel(self, x: Tensor) -> Tensor:
        return kernel(self.config, x, self.points, self.max_bytes, self.work)

    def _parts(self, x: Tensor) -> Iterator[Tensor]:
        """Rows whose kernel with the support stays within the memory, in its precision."""
        row = len(self.points) * self.points.element_size() + x[0].numel() * 8
        # A variance is a small difference of large numbers: not in the float32 that x may be.
        for part in x.split(max(1, min(10_000, self.max_bytes // row))):
            yield part.to(self.points)


@torch.no_grad()
def fit_ridge(
    config: KernelConfig,
    points: Tensor,
    labels: Tensor,
    regulariser: float = REGULARISER,
    max_bytes: int = MAX_BYTES,
    work: TileWork | None = None,
) -> KernelRidge:
    """Fit a regression to a support.

    Args:
        config: the network of the kernel.
        points: `(n, ...)`.
        labels: `(n, C)`.
        regulariser: in units of the mean of the kernel's diagonal.
        max_bytes: bound on the memory of kernels.
        work: who computes tiles of kernels; None: this process.

    Raises:
        ValueError: if shapes do not fit, values are not finite, or the kernel matrix is singular.
    """
    if labels.ndim != 2 or len(labels) != len(points):
        raise ValueError(f"labels must be ({len(points)}, C), got {tuple(labels.shape)}")
    if not bool(torch.isfinite(labels).all()):
        raise ValueError("labels must be finite, got NaN or infinite values")
    lower = factor(kernel(config, points, None, max_bytes, work), regulariser)
    return KernelRidge(config, points, labels.to(points), lower, max_bytes, work)
