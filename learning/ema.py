"""Exponential moving average of parameters, which acts in place of the last, noisy ones."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Moving average of a module's parameters; buffers are the module's own.

    The decay is warmed up, `min(decay, (1 + t) / (10 + t))` after t updates, so that the average of
    a short training is not stuck at the initial weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start from the module's present parameters.

        Args:
            module: the module to follow.
            decay: in [0, 1); 0 keeps no memory.

        Raises:
            ValueError: if the decay is outside [0, 1).
        """
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.names = [name for name, _ in module.named_parameters()]
        self._live = list(module.parameters())
        self._average = [parameter.detach().clone() for parameter in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the live parameters.

        Args:
            step: number of updates made before this one.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        # One fused call for all tensors: a loop of lerp_ costs a few microseconds for each.
        torch._foreach_lerp_(self._average, self._live, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Exchange the live parameters for the averaged ones inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Tensor]:
        """Averaged parameters by name."""
        return dict(zip(self.names, self._average, strict=True))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the averaged parameters from `state()` of an equal module."""
        for name, average in zip(self.names, self._average, strict=True):
            average.copy_(state[name])

    def _swap(self) -> None:
        for index, parameter in enumerate(self._live):
            average = self._average[index]
            self._average[index] = parameter.data
            parameter.data = average
