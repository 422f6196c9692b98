"""AdamW on flat parameters, without the bookkeeping of an optimiser object."""

from collections.abc import Mapping

import torch
from torch import Tensor

from learning.flat import FlatParameters


class FlatAdamW:
    """torch's fused AdamW kernel, called directly.

    `torch.optim.AdamW.step` collects, groups and hooks at every call: 65 microseconds for one
    tensor, where the functional form takes 42 and the kernel 7 (one core, torch 2.13.0). A test
    holds it to `torch.optim.AdamW`, bit by bit.

    Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".
    """

    def __init__(
        self,
        parameters: FlatParameters,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """Start with empty moments.

        Args:
            parameters: to train; only the first tensor is decayed where there are several (see
                `FlatParameters`).
            weight_decay: share by which a weight shrinks per unit of learning rate.
            betas: decays of the two moments.
            eps: keeps the division finite.
        """
        self._parameters = parameters
        self._decays = [weight_decay if i == 0 else 0.0 for i in range(len(parameters.tensors))]
        self._betas = betas
        self._eps = eps
        self._means = [torch.zeros_like(flat) for flat in parameters.tensors]
        self._squares = [torch.zeros_like(flat) for flat in parameters.tensors]
        self._steps = [
            torch.zeros((), dtype=torch.float32, device=flat.device) for flat in parameters.tensors
        ]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the parameters against their gradients."""
        for index, (flat, grad) in enumerate(
            zip(self._parameters.tensors, self._parameters.grads, strict=True)
        ):
            self._steps[index].add_(1)
            torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
                [flat],
                [grad],
                [self._means[index]],
                [self._squares[index]],
                [],
                [self._steps[index]],
                lr=lr,
                beta1=self._betas[0],
                beta2=self._betas[1],
                weight_decay=self._decays[index],
                eps=self._eps,
                amsgrad=False,
                maximize=False,
            )

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts by name."""
        slots = {"mean": self._means, "square": self._squares, "step": self._steps}
        return {
            f"{name}/{index}": tensor
            for name, tensors in slots.items()
            for index, tensor in enumerate(tensors)
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave.

        Raises:
            KeyError: if a tensor is missing.
            RuntimeError: if one has another shape.
        """
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
