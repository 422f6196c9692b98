"""Augmentation of images that are tensors: RandAugment, mixup, CutMix, crops, flips, resizing.

Images are `(B, C, H, W)` floats in [0, 1], targets `(B, K)` floats whose rows sum to 1. Each image
gets draws of its own, all from a passed generator: the same seed gives the same batch.

Sources: Cubuk et al. 2020, "RandAugment"; Zhang et al. 2018, "mixup"; Yun et al. 2019, "CutMix".

Departures from RandAugment as published with EfficientNetV2 (google/automl), in which larger
magnitudes do not mean stronger changes (solarize and posterize blacken or invert at magnitude 0 and
do nothing from 10 or 20 on; colours are the least changed at 5): here magnitude 0 changes nothing,
strength rises with it, and 10 is AutoAugment's strongest of each operation. `autocontrast` and
`equalize` have no magnitude. Invert, cutout and solarize-add are left out. Geometry is bilinear.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

GREY = 0.5
"""Colour of what comes into view from outside the image."""


def resize(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resize with antialiasing: each pixel is the mean of all that it replaces.

    Args:
        images: `(B, C, H, W)`.
        size: pixels a side, or rows and columns.
    """
    _check(images)
    height, width = (size, size) if isinstance(size, int) else size
    if images.shape[-2:] == (height, width):
        return images
    resized = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    return resized.clamp(0, 1)


def horizontal_flip(images: Tensor, generator: Generator, chance: float = 0.5) -> Tensor:
    """Mirror images left to right, each with a chance."""
    _check(images)
    flipped = _uniform(images, generator) < chance
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def random_crop(
    images: Tensor, padding: int, generator: Generator, size: tuple[int, int] | None = None
) -> Tensor:
    """Cut a window of each image, at a place of its own.

    Args:
        images: `(B, C, H, W)`.
        padding: black pixels put around the image first.
        generator: draws the places.
        size: rows and columns of the window; None: those of the images.

    Raises:
        ValueError: if the window is larger than the padded image.
    """
    _check(images)
    height, width = size or images.shape[-2:]
    padded = F.pad(images, (padding,) * 4)
    free_rows, free_columns = padded.shape[-2] - height, padded.shape[-1] - width
    if min(free_rows, free_columns) < 0:
        raise ValueError(
            f"a window of {height} x {width} does not fit into images of "
            f"{padded.shape[-2]} x {padded.shape[-1]} with their padding"
        )
    top = (_uniform(images, generator) * (free_rows + 1)).long().tolist()
    left = (_uniform(images, generator) * (free_columns + 1)).long().tolist()
    # Whole rows are copied, some five times as fast as by an index for each pixel.
    windows = zip(padded, top, left, strict=True)
    return torch.stack([image[:, t : t + height, u : u + width] for image, t, u in windows])


# Mixing images and targets


def mixup(
    images: Tensor, targets: Tensor, alpha: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Blend each image and its target with those of the batch read backwards.

    Args:
        images: `(B, C, H, W)`.
        targets: `(B, K)` shares of classes.
        alpha: of the beta distribution of the share; the larger, the more equal. An image's own
            share is at least a half, as in the published code; 0 leaves all as it is.
        generator: draws the shares.
    """
    _check_targets(images, targets)
    if not alpha:
        return images, targets
    share = _beta(images, alpha, generator)
    own = torch.maximum(share, 1 - share)
    weight = own[:, None, None, None].to(images.dtype)
    return (
        images * weight + images.flip(0) * (1 - weight),
        _blend_targets(targets, own),
    )


def cutmix(
    images: Tensor, targets: Tensor, alpha: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of the batch read backwards into each image.

    Each target has the share of the pixels that its image keeps. (The published code gives all
    targets of a batch the mean share.)

    Args:
        images: `(B, C, H, W)`.
        targets: `(B, K)` shares of classes.
        alpha: of the beta distribution of the share that is kept; 0 leaves all as it is.
        generator: draws shares and places.
    """
    _check_targets(images, targets)
    if not alpha:
        return images, targets
    height, width = images.shape[-2:]
    side = (1 - _beta(images, alpha, generator)).sqrt()
    inside_rows = _span(side, height, _uniform(images, generator))
    inside_columns = _span(side, width, _uniform(images, generator))
    pasted = inside_rows[:, :, None] & inside_columns[:, None, :]
    own = 1 - pasted.double().mean(dim=(1, 2))
    mixed = torch.where(pasted[:, None], images.flip(0), images)
    return mixed, _blend_targets(targets, own)


def mix(
    images: Tensor,
    targets: Tensor,
    mixup_alpha: float,
    cutmix_alpha: float,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """`mixup`, `cutmix` or, if both alphas are above 0, each on one half of the batch.

    Args:
        images: `(B, C, H, W)`.
        targets: `(B, K)` shares of classes.
        mixup_alpha: 0 leaves mixup out.
        cutmix_alpha: 0 leaves CutMix out.
        generator: draws shares and places.
    """
    if not (mixup_alpha and cutmix_alpha):
        images, targets = mixup(images, targets, mixup_alpha, generator)
        return cutmix(images, targets, cutmix_alpha, generator)
    half = len(images) // 2
    first = mixup(images[:half], targets[:half], mixup_alpha, generator)
    second = cutmix(images[half:], targets[half:], cutmix_alpha, generator)
    return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])


def _span(side: Tensor, size: int, place: Tensor) -> Tensor:
    """`(B, size)`: whether a pixel is within `side * size` pixels around a place, cut at edges."""
    half = (side * size / 2).floor()
    centre = (place * size).floor()
    pixel = torch.arange(size, device=side.device)
    return (pixel >= (centre - half)[:, None]) & (pixel < (centre + half)[:, None])


def _blend_targets(targets: Tensor, own: Tensor) -> Tensor:
    weight = own[:, None].to(targets.dtype)
    return targets * weight + targets.flip(0) * (1 - weight)


# RandAugment

Operation = Callable[[Tensor, float, Tensor], Tensor]
"""Images of one operation, its magnitude, and a sign -1 or 1 of each image."""


def rand_augment(
    images: Tensor, magnitude: float, generator: Generator, n_layers: int = 2
) -> Tensor:
    """Change each image by operations drawn from `OPERATIONS`, one after another.

    Args:
        images: `(B, C, H, W)` in [0, 1].
        magnitude: 0 to 30, on the scale of the papers; 10 is AutoAugment's strongest.
        generator: draws the operations and their directions.
        n_layers: operations an image.

    Returns:
        images of the same shape, in [0, 1].

    Raises:
        ValueError: for another magnitude.
    """
    _check(images)
    if not 0 <= magnitude <= 30:
        raise ValueError(f"magnitude must be 0 to 30, got {magnitude}")
    operations = tuple(OPERATIONS.values())
    for _ in range(n_layers):
        chosen = (_uniform(images, generator) * len(operations)).long()
        sign = torch.where(_uniform(images, generator) < 0.5, -1.0, 1.0).to(images.dtype)
        changed = images.clone()
        for number in chosen.unique().tolist():
            mask = chosen == number
            changed[mask] = operations[number](images[mask], magnitude, sign[mask]).clamp(0, 1)
        images = changed
    return images


def rotate(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """Turn about the centre by 3 degrees a magnitude."""
    angle = torch.deg2rad(3 * magnitude * sign)
    cos, sin = angle.cos(), angle.sin()
    return _affine(images, torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2))


def shear_x(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """Shift rows by 0.03 of their distance from the centre a magnitude."""
    one, zero = torch.ones_like(sign), torch.zeros_like(sign)
    slope = 0.03 * magnitude * sign
    return _affine(images, torch.stack([one, slope, zero, one], 1).view(-1, 2, 2))


def shear_y(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """Shift columns by 0.03 of their distance from the centre a magnitude."""
    one, zero = torch.ones_like(sign), torch.zeros_like(sign)
    slope = 0.03 * magnitude * sign
    return _affine(images, torch.stack([one, zero, slope, one], 1).view(-1, 2, 2))


def translate_x(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """Shift by a thirtieth of the width a magnitude, half of it at most.

    The published code has 10 pixels a magnitude at all sizes, which is that much of 300 pixels, but
    would empty images of 128.
    """
    return _affine(images, None, _shift(magnitude, sign, (1, 0)))


def translate_y(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """Shift by a thirtieth of the height a magnitude, half of it at most."""
    return _affine(images, None, _shift(magnitude, sign, (0, 1)))


def autocontrast(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """Stretch each channel to [0, 1]; magnitude and sign do not matter."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (images - low) / span.where(span > 0, 1), images)


def equalize(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """Make all of 256 grey levels of each channel about equally frequent, as Pillow does.

    Magnitude and sign do not matter.
    """
    batch, channels, height, width = images.shape
    level = (images * 255).round().int().view(batch * channels, height * width)
    # Levels of all channels in a row, 256 for each.
    place = level + 256 * torch.arange(len(level), device=images.device).int()[:, None]
    counts = torch.bincount(place.view(-1), minlength=256 * len(level)).view(-1, 256)
    # Pixels a step of the new scale: all but those of the brightest level, in 255 parts.
    brightest = level.amax(1, keepdim=True).long()
    step = (height * width - counts.gather(1, brightest)) // 255
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    new = table.to(images.dtype).div(255).view(-1).index_select(0, place.view(-1)).view_as(images)
    return torch.where(step.view(batch, channels, 1, 1) > 0, new, images)


def posterize(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """Keep the first bits of 8: one fewer for every 2.5 of magnitude, 4 at least."""
    dropped = min(round(0.4 * magnitude), 4)
    if not dropped:
        return images
    cell = 2**dropped
    return (images * 255).round().div(cell).floor() * (cell / 255)


def solarize(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """Invert what is brighter than a threshold, which sinks from 1 to 0 at magnitude 10."""
    # 256 levels, so that at magnitude 0 none is at the threshold, and at 10 all are.
    return torch.where(images * 255 >= 256 * (1 - magnitude / 10), 1 - images, images)


def colour(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """More (sign 1) or less colour."""
    return _enhance(images, _luma(images), magnitude, sign)


def contrast(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """More or less contrast, about the mean of the grey image."""
    return _enhance(images, _luma(images).mean((1, 2, 3), keepdim=True), magnitude, sign)


def brightness(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """Brighter or darker."""
    return _enhance(images, torch.zeros_like(images), magnitude, sign)


def sharpness(images: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """Sharper or smoother, but for the outermost pixels."""
    if min(images.shape[-2:]) < 3:
        return images
    # The mean of nine pixels, the middle one counting five times; by sums of rows and columns, four
    # times as fast as a convolution.
    inner = images[..., 1:-1, 1:-1]
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    nine = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = (nine + 4 * inner) / 13
    return _enhance(images, smooth, magnitude, sign)


OPERATIONS: dict[str, Operation] = {
    "rotate": rotate,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "posterize": posterize,
    "solarize": solarize,
    "colour": colour,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
}
"""What `rand_augment` draws from."""


def _enhance(images: Tensor, plain: Tensor, magnitude: float, sign: Tensor) -> Tensor:
    """Away from a plain image or towards it, by 0.09 a magnitude; 0.1 of an image is left."""
    factor = (1 + 0.09 * magnitude * sign).clamp(min=0.1)[:, None, None, None]
    return (plain + factor * (images - plain)).clamp(0, 1)


def _luma(images: Tensor) -> Tensor:
    """`(B, 1, H, W)`: weights of ITU-R 601 for three channels, else the mean."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    weights = images.new_tensor([0.299, 0.587, 0.114])
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def _shift(magnitude: float, sign: Tensor, axis: tuple[int, int]) -> Tensor:
    """`(B, 2)`: shares of width and height."""
    return min(magnitude / 30, 0.5) * sign[:, None] * sign.new_tensor(axis)


def _affine(images: Tensor, matrix: Tensor | None, shift: Tensor | None = None) -> Tensor:
    """Show at each pixel what `matrix` and `shift` point to.

    Args:
        images: `(B, C, H, W)`.
        matrix: `(B, 2, 2)` on (x, y) in pixels from the centre.
        shift: `(B, 2)` shares of width and height.
    """
    batch, _, height, width = images.shape
    theta = images.new_zeros(batch, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    if matrix is not None:
        # affine_grid counts in halves of the width and of the height.
        scale = images.new_tensor([[1, height / width], [width / height, 1]])
        theta[:, :, :2] = matrix * scale
    if shift is not None:
        theta[:, :, 2] = 2 * shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    # Outside is 0 for grid_sample, so grey is moved there and back.
    return F.grid_sample(images - GREY, grid, align_corners=False) + GREY


# Draws


def _uniform(images: Tensor, generator: Generator) -> Tensor:
    """A number in [0, 1) for each image."""
    return torch.rand(len(images), generator=generator, device=generator.device).to(images.device)


def _beta(images: Tensor, alpha: float, generator: Generator) -> Tensor:
    """A share for each image, from Beta(alpha, alpha).

    `torch.distributions.Beta` would draw from the global generator. A Student t with 2 alpha
    degrees of freedom, z * sqrt(2 alpha) with z from two uniform numbers (Bailey 1994, "Polar
    generation of random variates with the t-distribution"), is mapped onto it.
    """
    if alpha < 0:
        raise ValueError(f"alpha must be at least 0, got {alpha}")
    first, second = _uniform(images, generator).double(), _uniform(images, generator).double()
    z = (first ** (-1 / alpha) - 1).sqrt() * (2 * math.pi * second).cos()
    return (1 + z.atan().sin()) / 2  # z / sqrt(1 + z^2), also where z is infinite


def _check(images: Tensor) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images must be (B, C, H, W) floats in [0, 1], got {tuple(images.shape)} "
            f"of {images.dtype}"
        )


def _check_targets(images: Tensor, targets: Tensor) -> None:
    _check(images)
    if targets.ndim != 2 or len(targets) != len(images) or not targets.is_floating_point():
        raise ValueError(
            f"targets must be ({len(images)}, K) floats, got {tuple(targets.shape)} of "
            f"{targets.dtype}; make labels so by F.one_hot(labels, K).float()"
        )
