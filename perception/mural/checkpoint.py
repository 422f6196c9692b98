"""A dual encoder with everything needed to use it: embeddings of texts and of images.

A checkpoint is a folder of `config.json`, `model.safetensors` and a card `README.md`, as everywhere
in this project (see `learning.checkpoint`). Loading runs no code from it.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from learning.checkpoint import as_tuple, find_shipped, list_checkpoints, load_saved, save_module
from perception.mural.model import DualEncoder, MuralConfig, Task
from perception.mural.text import TextConfig
from perception.mural.tokenizer import TokenizerConfig

METHOD = "mural"
CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""Where shipped dual encoders lie, one folder each."""
SHIPPED = "mural-small"
"""The one that is taken where none is named."""

MAX_SIDE = 16_384
"""Pixels of the longest side that an image may have."""
_BATCH = 256


@dataclass(frozen=True)
class SavedMural:
    """A dual encoder, what its images must look like and what it learned from.

    Attributes:
        model: the network, in evaluation mode.
        mean: of each channel, of values from 0 to 1; subtracted.
        std: of each channel; divided by.
        languages: of the texts that it learned from; others it has never seen.
        captioned: languages that had captions of images.
        scores: held-out, JSON values; empty means untrained.
    """

    model: DualEncoder = field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    languages: tuple[str, ...] = ()
    captioned: tuple[str, ...] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse preprocessing that cannot be."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ValueError(f"{name} must be three finite numbers, got {values}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        return self.model.config.width

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str | bytes], task: Task = "image-text") -> Tensor:
        """Embeddings of texts in any language.

        Args:
            texts: each with a word at least; see `perception.mural.tokenizer.clean`.
            task: `image-text` to find images, `text-text` to find texts that say the same.

        Returns:
            `(B, width)` float32 of length 1, on the CPU; `(0, width)` for no texts.

        Raises:
            TypeError: for a single text instead of a list.
            ValueError: for a text without any word, by its number.
        """
        if isinstance(texts, str | bytes):
            raise TypeError("give a list of texts: [text]")
        tokens = self.model.tokenizer
        tokens.check(texts)
        device = self.model.text.norm.weight.device
        parts = [
            self.model.encode_text(tokens(texts[start : start + _BATCH]).to(device), task)
            for start in range(0, len(texts), _BATCH)
        ]
        return torch.cat(parts).float().cpu() if parts else torch.zeros(0, self.width)

    @torch.inference_mode()
    def embed_images(self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> Tensor:
        """Embeddings of images.

        Args:
            images: `(B, H, W, 3)` uint8 RGB of any size, or a list of `(H, W, 3)` of several sizes;
                resized without keeping the ratio of their sides.

        Returns:
            `(B, width)` float32 of length 1, on the CPU; `(0, width)` for no images.

        Raises:
            ValueError: for other kinds or shapes.
        """
        many = [images] if isinstance(images, np.ndarray) else [image[None] for image in images]
        for pixels in many:
            _check_pixels(pixels)
        parts = [
            self.model.encode_image(inputs) for inputs in map(self.inputs, self._batches(many))
        ]
        return torch.cat(parts).float().cpu() if parts else torch.zeros(0, self.width)

    def _batches(self, many: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        for pixels in many:
            for start in range(0, len(pixels), _BATCH):
                yield pixels[start : start + _BATCH]

    def inputs(self, pixels: NDArray[np.uint8]) -> Tensor:
        """What the image tower takes: `(B, 3, size, size)`, normalised, on its device."""
        device = self.model.text.norm.weight.device
        images = torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2).float() / 255
        size = self.model.config.size
        if images.shape[2:] != (size, size):
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (self.mean, self.std))
        return (images.clamp(0, 1) - mean) / std


def save_mural(folder: str | Path, saved: SavedMural, card: str, half: bool = False) -> None:
    """Write a checkpoint folder, replacing an older one in one step.

    Args:
        folder: where to.
        saved: what to save.
        card: model card, Markdown.
        half: whether weights are written with 16 bits, half the size; they are read as 32 again.

    Raises:
        CheckpointError: if a weight is not finite (beyond 65,504 if halved).
        OSError: if the folder cannot be written.
    """
    document = {
        "method": METHOD,
        "config": dataclasses.asdict(saved.model.config),
        "spec": {
            "mean": list(saved.mean),
            "std": list(saved.std),
            "languages": list(saved.languages),
            "captioned": list(saved.captioned),
        },
        "training": {"scores": dict(saved.scores)},
    }
    save_module(folder, document, saved.model, card, _build, half=half)


def load_mural(path_or_name: str | Path | None = None) -> SavedMural:
    """Read a checkpoint folder, or a shipped dual encoder by its name.

    Args:
        path_or_name: a folder, a training run holding `best` or `last`, or a name in
            `shipped_murals()`; None takes `SHIPPED`.

    Returns:
        The dual encoder, in evaluation mode and on the CPU.

    Raises:
        CheckpointError: if there is no such folder or name (the shipped ones are listed), or the
            checkpoint is broken; a `ValueError` with one clear line.
    """
    shipped = shipped_murals()
    folder = find_shipped(SHIPPED if path_or_name is None else path_or_name, shipped, METHOD)
    return load_saved(folder, _build, _read, METHOD)


def shipped_murals() -> dict[str, Path]:
    """Folders of the dual encoders that come with the package, by name."""
    return list_checkpoints(CHECKPOINTS)


def read_config(values: Mapping[str, Any]) -> MuralConfig:
    """The configuration of JSON values, as `dataclasses.asdict` gives them.

    Raises:
        TypeError: for fields that it has not.
        ValueError: for values that it refuses.
    """
    text = dict(values["text"])
    tokens = TokenizerConfig(**text.pop("tokens"))
    options = {name: as_tuple(value) for name, value in values["backbone_options"].items()}
    changed = {"text": TextConfig(tokens, **text), "backbone_options": options}
    return MuralConfig(**{**values, **changed})


def _build(document: Mapping[str, Any]) -> DualEncoder:
    try:
        return DualEncoder(read_config(document["config"]))
    except KeyError as error:
        raise ValueError(f"the config of a dual encoder must hold {error}") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"not the config of a dual encoder: {error}") from None


def _read(model: DualEncoder, document: Mapping[str, Any]) -> SavedMural:
    spec = document["spec"]
    return SavedMural(
        model=model,
        mean=tuple(spec["mean"]),
        std=tuple(spec["std"]),
        languages=tuple(spec["languages"]),
        captioned=tuple(spec["captioned"]),
        scores=document["training"].get("scores", {}),
    )


def _check_pixels(pixels: NDArray[np.uint8]) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or not pixels.size:
        raise ValueError(
            f"images must be uint8 (B, H, W, 3), got {pixels.dtype} {pixels.shape}; a single image "
            "takes image[None]"
        )
    if max(pixels.shape[1:3]) > MAX_SIDE:
        raise ValueError(
            f"images must have sides of at most {MAX_SIDE} pixels, got {pixels.shape}; shrink them"
        )


def count_parameters(config: MuralConfig) -> dict[str, int]:
    """Parameters of the whole and of its towers, counted without memory for them."""
    with torch.device("meta"):
        model = DualEncoder(config)
    parts: dict[str, nn.Module] = {"all": model, "text": model.text, "image": model.image}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
