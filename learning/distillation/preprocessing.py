"""What is done to points before a kernel sees them: standardising, and regularised ZCA.

Source: Nguyen et al. 2021, "Dataset Distillation with Infinitely Wide Convolutional Networks",
appendix ("regularized ZCA"): images are centred and brought to norm 1 one by one, then decorrelated
by U (S + r mean(S))^-1/2 U^T of their covariance U S U^T.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

ZCA_REGULARISER = 0.1
_EPS = 1e-8


@dataclass(frozen=True)
class Preprocessing:
    """A map from points to the space of the kernel, fitted to data.

    Attributes:
        mean: `(C, 1, 1)` of each channel, or `(D,)` of each number of a state.
        std: likewise.
        whitening: `(d, d)` symmetric matrix of ZCA; None: no whitening.
    """

    mean: Tensor
    std: Tensor
    whitening: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse a map that cannot be."""
        if self.mean.shape != self.std.shape or not bool((self.std > 0).all()):
            raise ValueError("mean and std must be of one shape and std positive")

    def __call__(self, points: Tensor) -> Tensor:
        """Map points `(n, ...)`, in their own precision."""
        scaled = (points - self.mean.to(points)) / self.std.to(points)
        if self.whitening is None:
            return scaled
        flat = _normalised(scaled.flatten(1)) @ self.whitening.to(points)
        return flat.view_as(points)

    def undo(self, points: Tensor) -> Tensor:
        """Images as people know them; after ZCA up to each image's own brightness and contrast."""
        if self.whitening is not None:
            flat = torch.linalg.solve(self.whitening.to(points), points.flatten(1).T).T
            return flat.reshape(points.shape)
        return points * self.std.to(points) + self.mean.to(points)


def fit_preprocessing(
    points: Tensor, zca: bool = False, zca_regulariser: float = ZCA_REGULARISER
) -> Preprocessing:
    """Fit means, deviations and, for images, the whitening matrix.

    Args:
        points: `(N, C, H, W)` images or `(N, D)` states, float32.
        zca: whether to whiten.
        zca_regulariser: in units of the mean eigenvalue.

    Raises:
        ValueError: if the points are constant, or states are to be whitened.
    """
    images = points.ndim == 4
    if zca and not images:
        raise ValueError("ZCA is for images: states have axes of their own; leave it out")
    axes = (0, 2, 3) if images else (0,)
    # In float64 by halves: a sum of 5e7 float32 numbers would be off in its third figure.
    mean = torch.stack([part.double().mean(axes) for part in points.split(8192)])
    weights = torch.tensor([len(part) for part in points.split(8192)], dtype=torch.float64)
    mean = (mean * weights[:, None]).sum(0) / len(points)
    shaped = mean[:, None, None] if images else mean
    squares = torch.stack(
        [(part.double() - shaped).square().mean(axes) for part in points.split(8192)]
    )
    std = ((squares * weights[:, None]).sum(0) / len(points)).sqrt()
    if not bool((std > _EPS).any()):
        raise ValueError("all points are equal: there is nothing to tell them apart by")
    std = torch.where(std > _EPS, std, 1.0)
    if images:
        mean, std = mean[:, None, None], std[:, None, None]
    plain = Preprocessing(mean.float(), std.float())
    if not zca:
        return plain
    if not zca_regulariser > 0:
        raise ValueError(f"zca_regulariser must be positive, got {zca_regulariser}")
    return Preprocessing(plain.mean, plain.std, _whitening(plain, points, zca_regulariser))


def _whitening(plain: Preprocessing, points: Tensor, regulariser: float) -> Tensor:
    d = points[0].numel()
    covariance = torch.zeros(d, d, dtype=torch.float64)
    for part in points.split(8192):
        flat = _normalised(plain(part).flatten(1))
        covariance += (flat.T @ flat).double()
    covariance /= len(points)
    values, vectors = torch.linalg.eigh(covariance)
    ridge = regulariser * covariance.trace() / d
    return ((vectors * (values.clamp_min(0) + ridge).rsqrt()) @ vectors.T).float()


def _normalised(flat: Tensor) -> Tensor:
    """Each row centred and of norm 1; constant rows stay zero."""
    centred = flat - flat.mean(1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True).clamp_min(_EPS)
