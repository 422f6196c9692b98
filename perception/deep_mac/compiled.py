"""The costly half of a segmenter on the fast runtime: from the image to the maps.

What comes after, detections and masks of boxes, depends on what is found and stays with torch.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perception.deep_mac.checkpoint import SavedSegmenter
from perception.deep_mac.instances import Detections, Segmenter
from perception.runtime import Compiled, Report, RuntimeConfig, compile_model


def compile_segmenter(
    saved: SavedSegmenter, config: RuntimeConfig | None = None
) -> tuple[SavedSegmenter, Report]:
    """Compile what makes the maps of an image. The segmenter itself stays as it is.

    Args:
        saved: a segmenter in evaluation mode.
        config: how to run it; None takes the defaults. Nothing is compared, so it runs in float32
            unless bfloat16 is forced.

    Returns:
        One that answers the same, for images and boxes as before, and what runs. It can be neither
        trained nor saved.

    Raises:
        ValueError: for a model in training mode, or a backend that is not installed or cannot run
            the model where it is.
    """
    model, report = compile_features(saved.model, saved.size, config)
    return replace(saved, model=model), report


def compile_features(
    model: Segmenter, size: tuple[int, int], config: RuntimeConfig | None = None
) -> tuple[Segmenter, Report]:
    """The same of a network alone, for images of one height and width.

    Raises:
        ValueError: as `compile_segmenter`.
    """
    example = np.zeros((1, 3, *size), np.float32)
    shown = torch.from_numpy(example).to(next(model.parameters()).device)
    with torch.inference_mode():
        template = model.features(shown)
    compiled = compile_model(_Flat(model).train(model.training), example, config)
    return _CompiledSegmenter(model, compiled, template), compiled.report


class _Flat(nn.Module):
    """All maps of an image in one row, which is what the runtime takes."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, n)`."""
        maps = _maps(self.model.features(images))
        return torch.cat([one.flatten(1) for one in maps], 1)


class _CompiledSegmenter(Segmenter):
    """A segmenter of one size of image, for inference only."""

    def __init__(self, model: Segmenter, compiled: Compiled, template: Any) -> None:
        super().__init__()
        self.model = model
        self.config, self.mask_size, self.stride = model.config, model.mask_size, model.stride
        self._compiled, self._template = compiled, template
        self.eval()

    def features(self, images: Tensor) -> Any:
        """Of `(B, 3, H, W)` images of the compiled size."""
        rows = torch.from_numpy(self._compiled(images.cpu().numpy())).to(images.device)
        shapes = [one.shape[1:] for one in _maps(self._template)]
        parts = rows.split([shape.numel() for shape in shapes], 1)
        maps = [part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
        return _filled(self._template, iter(maps))

    def detect(self, features: Any, n: int = 100, threshold: float = 0.05) -> list[Detections]:
        """As the model does."""
        return self.model.detect(features, n, threshold)

    def masks(self, features: Any, boxes: Tensor, image_index: Tensor) -> Tensor:
        """As the model does."""
        return self.model.masks(features, boxes, image_index)


def _maps(features: Any) -> list[Tensor]:
    """The tensors in nested tuples, in order."""
    if isinstance(features, Tensor):
        return [features]
    if isinstance(features, tuple):
        return [one for part in features for one in _maps(part)]
    return []


def _filled(template: Any, maps: Iterator[Tensor]) -> Any:
    """Tuples like the template's, with other tensors."""
    if isinstance(template, Tensor):
        return next(maps)
    if isinstance(template, tuple):
        parts = [_filled(part, maps) for part in template]
        # A named tuple takes its fields one by one.
        return type(template)(*parts) if hasattr(template, "_fields") else tuple(parts)
    return template
