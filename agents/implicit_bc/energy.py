"""Energy networks: how badly an action fits an encoded observation.

Late fusion: the observation is encoded once; per action there remain one small linear embedding,
`depth` hidden layers and a dot product. That is what makes thousands of candidates affordable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from agents.encoders import make_activation

EnergyFunction = Callable[[Tensor], Tensor]
"""Maps actions `(B, N, A)` to energies `(B, N)`; the codes are bound already."""

ROWS_AT_ONCE = 1024
"""Candidates evaluated together at inference: hidden activations then stay in the L2 cache.
Measured in benchmarks/policy_latency.py."""


class EnergyModel(nn.Module):
    """Energy of actions given a code. Lower is better.

    Args:
        code_dim: entries of the code.
        action_dim: entries of an action.
        width: width of the head.
        depth: hidden layers after the fusion.
        activation: `relu`, `silu` or `tanh`.
    """

    def __init__(
        self, code_dim: int, action_dim: int, width: int, depth: int, activation: str = "relu"
    ) -> None:
        """Build the projection of the code and the head."""
        super().__init__()
        self.code_projection = nn.Linear(code_dim, width)
        # No bias: the projection has one. None at the output either: InfoNCE cannot see a constant.
        self.action_embedding = nn.Linear(action_dim, width, bias=False)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.out = nn.Linear(width, 1, bias=False)
        self.activation = make_activation(activation)
        self._scratch = torch.empty(2, 0, width)

    def hidden_layers(self) -> list[nn.Linear]:
        """The hidden layers, typed."""
        return [layer for layer in self.hidden if isinstance(layer, nn.Linear)]

    def forward(self, code: Tensor, actions: Tensor) -> Tensor:
        """Energies.

        Args:
            code: `(B, C)`.
            actions: `(B, N, A)` normalised.

        Returns:
            `(B, N)`.
        """
        h = self.activation(self.action_embedding(actions) + self.code_projection(code)[:, None])
        for layer in self.hidden:
            h = self.activation(layer(h))
        energy: Tensor = self.out(h).squeeze(-1)
        return energy

    @torch.no_grad()
    def bind(self, code: Tensor) -> BoundEnergy:
        """The energy of given codes as a function of actions, quick and without a graph.

        Equal to `forward` up to rounding.

        Args:
            code: `(B, C)`.

        Returns:
            Function from `(B, N, A)` to `(B, N)`, which also gives gradients.
        """
        return BoundEnergy(self, code)

    def _work_buffers(self, rows: int, like: Tensor) -> Tensor:
        """`(2, rows or more, width)`. Kept: fresh megabytes cost page faults at every decision."""
        kept = self._scratch
        if kept.shape[1] < rows or kept.device != like.device or kept.dtype != like.dtype:
            with torch.inference_mode(False):  # for use inside inference mode and outside
                kept = torch.empty(2, rows, like.shape[1], device=like.device, dtype=like.dtype)
            self._scratch = kept
        return kept


class KnowsGradient(ABC):
    """An energy function that gives its gradient without recording a graph."""

    @abstractmethod
    def __call__(self, actions: Tensor) -> Tensor:
        """Energies `(B, N)` of actions `(B, N, A)`."""

    @abstractmethod
    def with_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Energies `(B, N)` and their gradients `(B, N, A)` at actions `(B, N, A)`."""


class MeanEnergy(KnowsGradient):
    """The mean of several energies.

    Args:
        parts: at least one.
    """

    def __init__(self, parts: Sequence[KnowsGradient]) -> None:
        """Keep the parts."""
        self._parts = parts

    def __call__(self, actions: Tensor) -> Tensor:
        """Mean energies."""
        return torch.stack([part(actions) for part in self._parts]).mean(dim=0)

    def with_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean energies and gradients."""
        energies, gradients = zip(*(p.with_gradient(actions) for p in self._parts), strict=True)
        return torch.stack(energies).mean(dim=0), torch.stack(gradients).mean(dim=0)


class BoundEnergy(KnowsGradient):
    """The energy of given codes as a function of actions; see `EnergyModel.bind`.

    Weights are read once, so it is for one decision, not to be kept; work buffers belong to the
    model, so one thread may use it.

    Args:
        model: the network.
        code: `(B, C)`.
    """

    def __init__(self, model: EnergyModel, code: Tensor) -> None:
        """Read the weights and project the codes."""
        self._model = model
        self._embedding = model.action_embedding.weight.t()
        self._layers = [(layer.weight.t(), layer.bias) for layer in model.hidden_layers()]
        self._out = model.out.weight[0]
        self._base: Tensor = model.code_projection(code)
        self._in_place = _in_place(model.activation)

    @torch.no_grad()
    def __call__(self, actions: Tensor) -> Tensor:
        """Energies `(B, N)` of actions `(B, N, A)`."""
        n_rows, n, dim = actions.shape
        # Few candidates: several observations together. Many: one observation in parts.
        group = max(1, min(n_rows, ROWS_AT_ONCE // n))
        part = min(n, ROWS_AT_ONCE)
        buffers = self._model._work_buffers(group * part, self._base)
        energies = self._base.new_empty(n_rows, n)
        for row in range(0, n_rows, group):
            bias = self._base[row : row + group]
            for start in range(0, n, part):
                block = actions[row : row + group, start : start + part]
                g, m = block.shape[0], block.shape[1]
                h, spare = buffers[0, : g * m], buffers[1, : g * m]
                flat = block.reshape(g * m, dim)
                if g == 1:
                    torch.addmm(bias[0], flat, self._embedding, out=h)
                else:
                    torch.mm(flat, self._embedding, out=h)
                    h.view(g, m, -1).add_(bias[:, None])
                self._in_place(h)
                for weight, shift in self._layers:
                    torch.addmm(shift, h, weight, out=spare)
                    self._in_place(spare)
                    h, spare = spare, h
                energies[row : row + group, start : start + part] = torch.mv(h, self._out).view(
                    g, m
                )
        return energies

    @torch.no_grad()
    def with_gradient(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Energies `(B, N)` and their gradients `(B, N, A)` at actions `(B, N, A)`.

        By hand: recording a graph and walking it back costs several times the arithmetic of a
        head this small, at every step of a chain.
        """
        n_rows, n, dim = actions.shape
        activation = self._model.activation
        inputs = (actions.reshape(-1, dim) @ self._embedding).view(n_rows, n, -1)
        layer_input = inputs.add_(self._base[:, None]).view(n_rows * n, -1)
        before = [layer_input]
        for weight, shift in self._layers:
            layer_input = torch.addmm(shift, activation(layer_input), weight)
            before.append(layer_input)
        energies = torch.mv(activation(layer_input), self._out)
        gradient = self._out * _slope(activation, before[-1])
        for (weight, _), x in zip(reversed(self._layers), reversed(before[:-1]), strict=True):
            gradient = (gradient @ weight.t()).mul_(_slope(activation, x))
        gradient = gradient @ self._embedding.t()
        return energies.view(n_rows, n), gradient.view(n_rows, n, dim)


class AutoregressiveEnergy(nn.Module):
    """One energy per action entry: `E_j(x, y_0 .. y_j)`.

    Source: Florence et al. 2021, appendix on autoregressive derivative-free optimisation.

    Args:
        code_dim: entries of the code, shared by all heads.
        action_dim: entries of an action, and number of heads.
        width: width of each head.
        depth: hidden layers of each head.
        activation: `relu`, `silu` or `tanh`.
    """

    def __init__(
        self, code_dim: int, action_dim: int, width: int, depth: int, activation: str = "relu"
    ) -> None:
        """Build one head per entry."""
        super().__init__()
        self.heads = nn.ModuleList(
            [EnergyModel(code_dim, j + 1, width, depth, activation) for j in range(action_dim)]
        )

    def head(self, j: int) -> EnergyModel:
        """The model of entry `j`."""
        model = self.heads[j]
        assert isinstance(model, EnergyModel)
        return model

    def forward(self, code: Tensor, actions: Tensor) -> Tensor:
        """Sum of the conditional energies: `(B, C)` and `(B, N, A)` to `(B, N)`."""
        energies = [self.head(j)(code, actions[..., : j + 1]) for j in range(len(self.heads))]
        return torch.stack(energies).sum(dim=0)


def constrain_spectral_norm(module: nn.Module) -> None:
    """Bounds the spectral norm of every linear and convolutional weight in a module by one.

    Source: Miyato et al. 2018; the paper's D4RL models use it.

    Args:
        module: changed in place.
    """
    for child in list(module.modules()):
        if isinstance(child, nn.Linear | nn.Conv2d) and not hasattr(child, "parametrizations"):
            spectral_norm(child)


def _slope(activation: nn.Module, x: Tensor) -> Tensor:
    """Derivative of an activation."""
    if isinstance(activation, nn.ReLU):
        return (x > 0).to(x.dtype)
    if isinstance(activation, nn.Tanh):
        return 1 - torch.tanh(x).square_()
    assert isinstance(activation, nn.SiLU)
    gate = torch.sigmoid(x)
    return gate * (1 + x * (1 - gate))


def _in_place(activation: nn.Module) -> Callable[[Tensor], Tensor]:
    if isinstance(activation, nn.ReLU):
        return torch.relu_
    if isinstance(activation, nn.Tanh):
        return torch.tanh_
    assert isinstance(activation, nn.SiLU)
    return lambda x: nn.functional.silu(x, inplace=True)
