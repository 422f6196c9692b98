"""Walking on through places that were not visited: predict, remember, predict from there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from world_models.pathdreamer.batches import stack_guidance
from world_models.pathdreamer.guidance import Guidance, PanoramaLike
from world_models.pathdreamer.memory import MemoryConfig, PointMemory
from world_models.pathdreamer.model import Pathdreamer


@dataclass(frozen=True)
class Dreamed:
    """A predicted panorama; the frames are those of `envs.indoor`, and it can be remembered.

    Attributes:
        rgb: `(H, W, 3)` uint8.
        semantic: `(H, W)` uint8.
        depth: `(H, W)` float32 metres along the ray.
        position: `(3,)` metres.
        guidance: what the memory showed from there; `guidance.valid` is False where the model
            had to imagine.
    """

    rgb: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    depth: NDArray[np.float32]
    position: NDArray[np.float64]
    guidance: Guidance


class Dreamer:
    """A memory that a world model goes on with.

    Of what it dreams, only what the memory did not show is remembered (Koh et al. 2021, section
    3): what was really seen is never overwritten.
    """

    def __init__(
        self,
        model: Pathdreamer,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        memory: MemoryConfig | None = None,
    ) -> None:
        """Start with an empty memory.

        Args:
            model: predicts.
            size: height and width of what is dreamed; what the model is meant for, if None.
            seed: of the latents: another seed is another idea of what cannot be seen.
            temperature: factor of the prior's standard deviation; 0 takes its mean.
            memory: how much is remembered.

        Raises:
            ValueError: for a size that the model cannot predict, or a temperature below 0.
        """
        self.model = model
        self.size = size or (model.config.height, 2 * model.config.height)
        model.config.check_size(*self.size)
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature must be at least 0 and finite, got {temperature}")
        self.temperature = temperature
        self.memory = PointMemory(memory)
        self._generator = torch.Generator().manual_seed(seed)

    def see(self, panorama: PanoramaLike) -> None:
        """Remember what is really seen.

        Raises:
            ValueError: for a panorama that `PointMemory.add` refuses.
        """
        self.memory.add(panorama)

    def dream(self, position: NDArray[np.floating]) -> Dreamed:
        """Go to a position: predict what is seen there, and remember what is new in it.

        Args:
            position: `(3,)` metres, in the frame of what was seen.

        Raises:
            ValueError: for a position that is not three finite numbers.
        """
        found = self.glimpse([position])[0]
        self.memory.add(found, ~found.guidance.valid)
        return found

    def glimpse(self, positions: Sequence[NDArray[np.floating]]) -> list[Dreamed]:
        """Predict what is seen from positions, each for itself, and remember nothing."""
        places = [np.asarray(position, float) for position in positions]
        guidance = [self.memory.guidance(place, self.size) for place in places]
        predicted = self.model.predict(
            stack_guidance(guidance), self._generator, temperature=self.temperature
        )
        assert predicted.rgb is not None
        return [
            Dreamed(rgb, semantic, depth, place, projected)
            for rgb, semantic, depth, place, projected in zip(
                predicted.rgb, predicted.semantic, predicted.depth, places, guidance, strict=True
            )
        ]
