"""What is done to points before a kernel sees them: fewer pixels, standardising, regularised ZCA.

Source: Nguyen et al. 2021, "Dataset Distillation with Infinitely Wide Convolutional Networks",
appendix ("regularized ZCA"): images are centred and brought to norm 1 one by one, then decorrelated
by U (S + r mean(S))^-1/2 U^T of their covariance U S U^T.
"""

from dataclasses import dataclass, replace

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
        pixels: side that larger images are averaged down to first; None: they stay as they are.
    """

    mean: Tensor
    std: Tensor
    whitening: Tensor | None = None
    pixels: int | None = None

    def __post_init__(self) -> None:
        """Refuse a map that cannot be."""
        if self.mean.shape != self.std.shape or not bool((self.std > 0).all()):
            raise ValueError("mean and std must be of one shape and std positive")
        if self.pixels is not None and (self.pixels < 1 or self.mean.ndim != 3):
            raise ValueError(f"pixels must be at least 1, and of images, got {self.pixels}")

    def __call__(self, points: Tensor) -> Tensor:
        """Map points `(n, ...)`, in their own precision."""
        if self.pixels is not None:
            points = averaged(points, self.pixels)
        scaled = (points - self.mean.to(points)) / self.std.to(points)
        if self.whitening is None:
            return scaled
        flat = _normalised(scaled.flatten(1)) @ self.whitening.to(points)
        return flat.view_as(points)

    def undo(self, points: Tensor) -> Tensor:
        """Images as people know them, of the size that the kernel sees.

        After ZCA they are so up to each image's own brightness and contrast.
        """
        if self.whitening is not None:
            flat = torch.linalg.solve(self.whitening.to(points), points.flatten(1).T).T
            return flat.reshape(points.shape)
        return points * self.std.to(points) + self.mean.to(points)


def averaged(images: Tensor, pixels: int) -> Tensor:
    """Images of fewer pixels, each the mean of the area that it covers.

    Args:
        images: `(n, C, H, W)`.
        pixels: side of the result.

    Returns:
        `(n, C, pixels, pixels)`; the images themselves if that is their size.

    Raises:
        ValueError: if they have fewer pixels than that.
    """
    if images.ndim != 4 or min(images.shape[2:]) < pixels:
        raise ValueError(
            f"images of (C, H, W) of at least {pixels} x {pixels} can be averaged down to that, "
            f"got {tuple(images.shape[1:])}"
        )
    if images.shape[2:] == (pixels, pixels):
        return images
    rows, columns = (_areas(side, pixels).to(images) for side in images.shape[2:])
    return rows @ images @ columns.T


def _areas(side: int, pixels: int) -> Tensor:
    """`(pixels, side)` shares of the old pixels of a row in each new one, float64."""
    edges = torch.arange(pixels + 1, dtype=torch.float64) * (side / pixels)
    old = torch.arange(side, dtype=torch.float64)
    ends = torch.minimum(edges[1:, None], old + 1)
    starts = torch.maximum(edges[:-1, None], old)
    return (ends - starts).clamp_min(0) * (pixels / side)


def fit_preprocessing(
    points: Tensor,
    zca: bool = False,
    zca_regulariser: float = ZCA_REGULARISER,
    pixels: int | None = None,
) -> Preprocessing:
    """Fit means, deviations and, for images, the whitening matrix.

    Args:
        points: `(N, C, H, W)` images or `(N, D)` states, float32.
        zca: whether to whiten.
        zca_regulariser: in units of the mean eigenvalue.
        pixels: side that images are averaged down to first; None: they stay as they are.

    Raises:
        ValueError: if the points are constant, states are to be whitened, or images to be
            averaged down have too few pixels.
    """
    images = points.ndim == 4
    if zca and not images:
        raise ValueError("ZCA is for images: states have axes of their own; leave it out")
    if pixels is not None:
        fitted = fit_preprocessing(averaged(points, pixels), zca, zca_regulariser)
        return replace(fitted, pixels=pixels)
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
