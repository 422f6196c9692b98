"""Pathdreamer: both generators together, made, asked, saved and loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from learning.checkpoint import find_shipped, list_checkpoints, load_module, save_module
from world_models.pathdreamer.config import PathdreamerConfig, size
from world_models.pathdreamer.image import ImageGenerator
from world_models.pathdreamer.inputs import GuidanceBatch
from world_models.pathdreamer.structure import StructureGenerator

METHOD = "pathdreamer"
CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
"""Where shipped world models lie, one folder each."""


@dataclass(frozen=True)
class Prediction:
    """Predicted panoramas.

    Attributes:
        semantic: `(B, H, W)` uint8, the most probable ids.
        depth: `(B, H, W)` float32 metres along the ray, always positive.
        rgb: `(B, H, W, 3)` uint8; None where it was not asked for.
        probabilities: `(B, K, H, W)` float32 of the classes; None where not asked for.
        z: `(B, Z, h, w)` float32, the latent that they were made from.
    """

    semantic: NDArray[np.uint8]
    depth: NDArray[np.float32]
    rgb: NDArray[np.uint8] | None
    probabilities: NDArray[np.float32] | None
    z: NDArray[np.float32]


class Pathdreamer(nn.Module):
    """World model for indoor places: what a panorama from a point not yet visited will show.

    Source: Koh et al. 2021, "Pathdreamer: A World Model for Indoor Navigation".

    Attributes:
        config: sizes.
        structure: predicts semantics and depth.
        image: paints them.
    """

    def __init__(self, config: PathdreamerConfig | str = "small") -> None:
        """Build from torch's global random generator: call `torch.manual_seed` first.

        Args:
            config: sizes, or the name of some in `SIZES`.

        Raises:
            ValueError: for an unknown name.
        """
        super().__init__()
        self.config = size(config) if isinstance(config, str) else config
        self.structure = StructureGenerator(self.config)
        self.image = ImageGenerator(self.config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def noise(self, batch: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Standard normal noise for the latent of panoramas of a size.

        Drawn on the generator's device, so that a seed gives the same on every machine.
        """
        shape = self.structure.latent_shape(batch, *size)
        return torch.randn(shape, generator=generator, device=generator.device).to(self.device)

    @torch.inference_mode()
    def predict(
        self,
        guidance: GuidanceBatch,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        z: Tensor | None = None,
        rgb: bool = True,
        probabilities: bool = False,
    ) -> Prediction:
        """Predict what is seen at the places that the guidance was projected to.

        For several samples of one place give `guidance.repeat(n)`.

        Args:
            guidance: a batch, on any device.
            generator: draws the latent; None takes the mean of the prior, the same at every call.
            temperature: factor of the prior's standard deviation.
            z: the latent itself, `(B, Z, h, w)`, instead of drawing it.
            rgb: whether to paint too; structure alone takes about half the time.
            probabilities: whether to return those of the classes.

        Raises:
            ValueError: for a size that the strides do not divide, or a temperature below 0.
        """
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature must be at least 0 and finite, got {temperature}")
        self.config.check_size(*guidance.size)
        training = self.training
        self.eval()
        guidance = guidance.to(self.device)
        noise = None
        if generator is not None and z is None:
            noise = self.noise(len(guidance), guidance.size, generator)
        if z is not None:
            z = z.to(self.device)
        seen = self.structure(guidance, noise, temperature, z=z)
        semantic = seen.logits.argmax(dim=1)
        picture = self.image(guidance, semantic, seen.depth) if rgb else None
        self.train(training)
        return Prediction(
            semantic=semantic.to("cpu", torch.uint8).numpy(),
            depth=seen.depth.cpu().numpy(),
            rgb=None if picture is None else to_bytes(picture),
            probabilities=seen.logits.softmax(dim=1).cpu().numpy() if probabilities else None,
            z=seen.z.float().cpu().numpy(),
        )


def to_bytes(picture: Tensor) -> NDArray[np.uint8]:
    """`(B, 3, H, W)` colours in [0, 1] to `(B, H, W, 3)` uint8; what lies outside is clamped."""
    return (picture.clamp(0, 1) * 255).round().to("cpu", torch.uint8).movedim(1, -1).numpy()


def save_world_model(
    model: Pathdreamer,
    folder: str | Path,
    training: Mapping[str, Any] | None = None,
    card: str = "",
    half: bool = False,
) -> None:
    """Write a checkpoint folder, replacing an older one in one step.

    Args:
        model: what to save.
        folder: where to.
        training: JSON values on how it was trained.
        card: model card, Markdown.
        half: stores float16, half the bytes; what is loaded computes in float32 again.

    Raises:
        CheckpointError: if a weight is not finite.
        OSError: if the folder cannot be written.
    """
    document = {
        "method": METHOD,
        "config": model.config.to_dict(),
        "spec": {},
        "training": dict(training or {}),
    }
    save_module(folder, document, model, card or _plain_card(model), _build, half=half)


def load_world_model(path_or_name: str | Path) -> Pathdreamer:
    """Read a checkpoint folder, or a shipped world model by its name.

    Args:
        path_or_name: a folder, or a name in `shipped_world_models()`.

    Returns:
        The model, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: if there is no such folder or name (the shipped ones are listed), or the
            checkpoint is broken; a `ValueError` with one clear line.
    """
    folder = find_shipped(path_or_name, shipped_world_models(), "world model")
    return load_module(folder, _build, METHOD)[0]


def _build(document: Mapping[str, Any]) -> Pathdreamer:
    return Pathdreamer(PathdreamerConfig.from_dict(document["config"]))


def shipped_world_models() -> dict[str, Path]:
    """Folders of the shipped world models by name."""
    found = list_checkpoints(CHECKPOINTS)
    return {name: path for name, path in found.items() if name.startswith(METHOD)}


def _plain_card(model: Pathdreamer) -> str:
    structure, image = (
        sum(parameter.numel() for parameter in part.parameters()) / 1e6
        for part in (model.structure, model.image)
    )
    return (
        f"# Pathdreamer\n\nStructure generator {structure:.2f} M parameters, image generator "
        f"{image:.2f} M, for panoramas of {model.config.height} x {2 * model.config.height}.\n"
    )
