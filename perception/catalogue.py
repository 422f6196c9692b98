"""Every backbone by name."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, Protocol

from torch import Tensor, nn

from perception.coatnet import COATNETS, CoAtNet
from perception.efficientnet import EFFICIENTNETS, EfficientNet
from perception.efficientnet_v2 import EFFICIENTNETS_V2
from perception.spinenet import SPINENETS, SpineNet
from perception.video_transformer import VIDEO_TRANSFORMERS, VideoTransformer
from perception.vision_transformer import VISION_TRANSFORMERS, VisionTransformer


class Backbone(Protocol):
    """What every network of the catalogue offers.

    Attributes:
        config: a frozen dataclass of sizes.
        width: features of a pooled image.
        stride: pixels between the cells of the feature map.
    """

    config: Any
    width: int
    stride: int

    def __call__(self, images: Tensor) -> Tensor:
        """`(B, n_classes)` logits; with no classes what `embed` gives."""
        ...

    def embed(self, images: Tensor) -> Tensor:
        """`(B, width)` pooled features."""
        ...

    def feature_map(self, images: Tensor) -> Tensor:
        """`(B, C, h, w)`; of clips `(B, T, C, h, w)`."""
        ...


_Build = Callable[..., nn.Module]
FAMILIES: tuple[tuple[_Build, Mapping[str, Any]], ...] = (
    (VisionTransformer, VISION_TRANSFORMERS),
    (VideoTransformer, VIDEO_TRANSFORMERS),
    (CoAtNet, COATNETS),
    (EfficientNet, EFFICIENTNETS),
    (EfficientNet, EFFICIENTNETS_V2),
    (SpineNet, SPINENETS),
)
"""Classes and their configurations. A new family is a module, a row here and a test."""


def _rows() -> dict[str, tuple[_Build, Any]]:
    rows: dict[str, tuple[_Build, Any]] = {}
    for build, configs in FAMILIES:
        for name, config in configs.items():
            if name in rows:
                raise ValueError(f"two backbones are called {name!r}")
            rows[name] = build, config
    return rows


_ROWS = _rows()


def names() -> tuple[str, ...]:
    """Of all backbones, family by family."""
    return tuple(_ROWS)


def create(
    name: str, *, n_classes: int = 1000, in_channels: int = 3, **overrides: Any
) -> nn.Module:
    """Make a backbone, untrained, from torch's global random generator.

    Args:
        name: one of `names()`, such as `coatnet_0` or `vit_b16_tokenlearner`.
        n_classes: of the classifier; 0 leaves it out.
        in_channels: of the images.
        **overrides: fields of its configuration, such as `tokens=16, at=0.25`. Those of a video
            transformer's frames go to its `spatial` part.

    Returns:
        A `Backbone`.

    Raises:
        ValueError: for an unknown name or field, or values that cannot be; what is known is listed.
    """
    if name not in _ROWS:
        close = difflib.get_close_matches(name, _ROWS, 3)
        meant = f"perhaps {' or '.join(close)}" if close else f"known: {', '.join(_ROWS)}"
        raise ValueError(f"unknown backbone {name!r}; {meant}")
    build, config = _ROWS[name]
    return build(_changed(config, overrides, name), n_classes, in_channels)


def _changed(config: Any, overrides: Mapping[str, Any], name: str) -> Any:
    known = {field.name for field in fields(config)}
    own = {key: value for key, value in overrides.items() if key in known}
    rest = {key: value for key, value in overrides.items() if key not in known}
    if rest and "spatial" in known:
        own["spatial"] = _changed(own.get("spatial", config.spatial), rest, name)
    elif rest:
        raise ValueError(f"{name} has no {', '.join(rest)}; it has {', '.join(sorted(known))}")
    return replace(config, **own)
