"""Maps of any backbone at its strides, for heads that must know where."""

from typing import Any

from torch import Tensor, nn


def levels(backbone: Any, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides and channels of the maps that `maps` gives, fine to coarse.

    Layers of the backbone that only pooled features pass are taken out: nothing would teach them.

    Args:
        backbone: of the catalogue, without classes; changed.
        name: of it, for the error.

    Raises:
        ValueError: for a network that takes clips.
    """
    if hasattr(backbone.config, "spatial"):
        raise ValueError(f"backbone must take images, {name} takes clips")
    if not hasattr(backbone, "pyramid"):
        return (backbone.stride,), (backbone.width,)
    for layer in ("head", "norm", "pre_logits"):
        if isinstance(getattr(backbone, layer, None), nn.Module):
            setattr(backbone, layer, nn.Identity())
    return backbone.pyramid_strides, backbone.pyramid_widths


def maps(backbone: Any, images: Tensor) -> tuple[Tensor, ...]:
    """Maps `(B, channels, H / stride, W / stride)` of images `(B, C, H, W)`, fine to coarse."""
    if hasattr(backbone, "pyramid"):
        found: tuple[Tensor, ...] = backbone.pyramid(images)
        return found
    return (backbone.feature_map(images),)
