"""A module's parameters laid end to end, so that a step costs a few calls and not a few a tensor.

With small policies the optimiser's bookkeeping is otherwise dearer than the network.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FlatParameters:
    """One long tensor for each kind of parameter; the module's own become views of it.

    The values and the gradients of the module's parameters live in `tensors` and their `grad`; a
    parameter that a loss leaves out has a gradient of zero.
    """

    def __init__(self, module: nn.Module, matrices_apart: bool) -> None:
        """Lay out the trainable parameters of a module that is already on its device.

        Args:
            module: keeps its parameters' names, shapes and values.
            matrices_apart: whether tensors of two axes or more get a tensor of their own, which
                comes first in `tensors` (for weight decay).

        Raises:
            ValueError: if there is nothing to train.
        """
        trainable = [p for p in module.parameters() if p.requires_grad]
        if not trainable:
            raise ValueError(f"{type(module).__name__} has no parameters to train")

        def kind(parameter: nn.Parameter) -> tuple[bool, str]:
            return matrices_apart and parameter.ndim < 2, str(parameter.dtype)

        ordered = sorted(trainable, key=kind)
        self._groups = [list(group) for _, group in itertools.groupby(ordered, kind)]
        self.tensors = [
            nn.Parameter(torch.cat([p.detach().reshape(-1) for p in group]))
            for group in self._groups
        ]
        for flat in self.tensors:
            flat.grad = torch.zeros_like(flat)
        self.attach(self.tensors)
        for parameter, grad in zip(self._members(), self._views(self.grads), strict=True):
            parameter.grad = grad

    @property
    def grads(self) -> list[Tensor]:
        """The gradients of `tensors`."""
        return [flat.grad for flat in self.tensors if flat.grad is not None]

    def attach(self, tensors: Sequence[Tensor]) -> None:
        """Make the module's parameters views of these tensors, shaped like `self.tensors`."""
        for parameter, view in zip(self._members(), self._views(tensors), strict=True):
            parameter.data = view

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        for grad in self.grads:
            grad.zero_()

    def clip_grad(self, largest: float) -> None:
        """Scale the gradients down to a norm of at most `largest`, as `clip_grad_norm_` does."""
        grads = self.grads
        norms = [torch.linalg.vector_norm(grad) for grad in grads]
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        if norm.device.type == "cpu":
            # Looking at the number is free here, and mostly saves the pass; a GPU would wait.
            value = float(norm)
            if value <= largest:
                return
            norm = torch.tensor(value)
        scale = (largest / (norm + 1e-6)).clamp_(max=1.0)
        for grad in grads:
            grad.mul_(scale)

    def intact(self) -> bool:
        """Whether the gradients still are views; a loss that clears them cuts the tie."""
        return all(
            p.grad is not None and p.grad.data_ptr() == view.data_ptr()
            for p, view in zip(self._members(), self._views(self.grads), strict=True)
        )

    def _members(self) -> list[nn.Parameter]:
        return [parameter for group in self._groups for parameter in group]

    def _views(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        views = []
        for group, flat in zip(self._groups, tensors, strict=True):
            parts = flat.detach().split([parameter.numel() for parameter in group])
            views += [part.view(p.shape) for part, p in zip(parts, group, strict=True)]
        return views
