"""Exponential moving average of parameters, which acts in place of the last, noisy ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from learning.flat import FlatParameters


class Ema:
    """Moving average of a module's trainable parameters; buffers are the module's own.

    The decay is warmed up, `min(decay, (1 + t) / (10 + t))` after t updates, so that the average of
    a short training is not stuck at the initial weights.
    """

    def __init__(self, parameters: FlatParameters, decay: float) -> None:
        """Start from the present parameters.

        Args:
            parameters: of the module to follow.
            decay: in [0, 1); 0 keeps no memory.

        Raises:
            ValueError: if the decay is outside [0, 1).
        """
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {decay}")
        self.decay = decay
        self._live = parameters
        self.tensors = [flat.detach().clone() for flat in parameters.tensors]

    @torch.no_grad()
    def restart(self) -> None:
        """Start anew from the present parameters."""
        for average, live in zip(self.tensors, self._live.tensors, strict=True):
            average.copy_(live)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the live parameters.

        Args:
            step: number of updates made before this one.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, live in zip(self.tensors, self._live.tensors, strict=True):
            average.lerp_(live, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the module the averaged parameters inside the block."""
        self._live.attach(self.tensors)
        try:
            yield
        finally:
            self._live.attach(self._live.tensors)
