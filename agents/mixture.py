"""Gaussian mixtures over normalised actions, as a network head.

Used by the mixture density policy and, as a proposal, by the implicit one.
Source: Bishop 1994, "Mixture Density Networks".
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agents.encoders import make_activation
from agents.sampling import normal, uniform

LOG_2PI = math.log(2 * math.pi)

FEW = 8
"""Up to so many actions per row the density is computed the direct way."""


class Mixture(NamedTuple):
    """A batch of mixtures with diagonal covariance.

    Attributes:
        log_weights: `(B, K)` log probabilities of the components.
        means: `(B, K, A)`.
        log_stds: `(B, K, A)`.
    """

    log_weights: Tensor
    means: Tensor
    log_stds: Tensor

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density.

        Args:
            actions: `(B, N, A)`.

        Returns:
            `(B, N)` in nats.
        """
        if actions.shape[1] <= FEW:
            scaled = (actions[:, :, None] - self.means[:, None]) * torch.exp(-self.log_stds)[
                :, None
            ]
            norm = self.log_stds.sum(-1) + 0.5 * LOG_2PI * actions.shape[-1] - self.log_weights
            return torch.logsumexp(-0.5 * scaled.square().sum(-1) - norm[:, None], dim=-1)
        # It cancels digits (about 1e-7 / std^2), so likelihood training does not go this way.
        weights, constant = self.quadratic()
        features = torch.cat((actions * actions, actions), dim=-1)
        return torch.logsumexp(torch.baddbmm(constant, features, weights), dim=-1)

    def quadratic(self) -> tuple[Tensor, Tensor]:
        """The components' log densities as a linear map of `(a * a, a)`.

        Expanding the square makes them one matrix product instead of a `(B, N, K, A)` tensor.

        Returns:
            Weights `(B, 2 A, K)` and constants `(B, 1, K)`.
        """
        precision = torch.exp(-2 * self.log_stds)
        scaled = precision * self.means
        constant = (
            self.log_weights
            - self.log_stds.sum(-1)
            - 0.5 * (scaled * self.means).sum(-1)
            - 0.5 * LOG_2PI * self.means.shape[-1]
        )
        return torch.cat((-0.5 * precision, scaled), dim=-1).mT, constant[:, None]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws.

        Args:
            n: draws per row.
            generator: source of the draws.

        Returns:
            `(B, n, A)`.
        """
        cumulative = self.log_weights.exp().cumsum(dim=-1)
        pick = uniform((cumulative.shape[0], n), generator, cumulative)
        component = torch.searchsorted(cumulative, pick).clamp_max_(cumulative.shape[1] - 1)
        index = component[..., None].expand(-1, -1, self.means.shape[-1])
        means, stds = self.means.gather(1, index), self.log_stds.gather(1, index).exp()
        return means + stds * normal(tuple(means.shape), generator, means)

    def modes(self) -> Tensor:
        """`(B, K, A)` means of all components."""
        return self.means

    def cloned(self) -> Mixture:
        """A copy made of ordinary tensors: those of inference mode have no gradients."""
        return Mixture(*(part.clone() for part in self))

    def likeliest_mean(self) -> Tensor:
        """Mean of the component with the highest density at its own mean, `(B, A)`."""
        peak = self.log_weights - self.log_stds.sum(-1)
        best = peak.argmax(dim=-1)
        return self.means[torch.arange(len(best), device=best.device), best]


class MixtureHead(nn.Module):
    """Maps codes to mixtures.

    Args:
        n_in: entries of the code.
        action_dim: entries of an action.
        n_components: Gaussians per mixture.
        min_std: smallest standard deviation, normalised action units: without a floor the
            likelihood is unbounded, and components collapse onto single demonstrations.
        hidden: width of one hidden layer, or 0 for none.
        activation: activation of the hidden layer.
        n_linear: if not 0, the means are linear in the last `n_linear` entries of the code (the
            state itself, where a code carries it) and in nothing else, which makes a mixture of
            linear experts (Jacobs et al. 1991, "Adaptive Mixtures of Local Experts").
    """

    def __init__(
        self,
        n_in: int,
        action_dim: int,
        n_components: int,
        min_std: float,
        hidden: int = 0,
        activation: str = "relu",
        n_linear: int = 0,
    ) -> None:
        """Build the head, its means spread over the bounds."""
        super().__init__()
        self.n_components, self.action_dim, self.min_std = n_components, action_dim, min_std
        self.n_linear = n_linear
        layers: list[nn.Module] = []
        if hidden:
            layers = [nn.Linear(n_in, hidden), make_activation(activation)]
        n_means = n_components * action_dim
        last = nn.Linear(hidden or n_in, n_components + n_means * (1 if n_linear else 2))
        self.layers = nn.Sequential(*layers, last)
        self.means = nn.Linear(n_linear, n_means) if n_linear else None
        # Means start spread over the bounds, or all components learn the same thing.
        with torch.no_grad():
            spread = torch.linspace(-0.8, 0.8, n_components) if n_components > 1 else torch.zeros(1)
            order = torch.stack(
                [spread.roll(i * max(1, n_components // 3)) for i in range(action_dim)], dim=-1
            )
            last.weight.mul_(0.1)
            if self.means is None:
                last.bias[n_components : n_components + n_means] = order.flatten()
            else:
                self.means.bias.copy_(order.flatten())

    def forward(self, code: Tensor) -> Mixture:
        """Maps `(B, C)` codes to mixtures over `A`-dimensional actions."""
        k, a = self.n_components, self.action_dim
        if self.means is None:
            weights, means, stds = self.layers(code).split((k, k * a, k * a), dim=-1)
        else:
            weights, stds = self.layers(code).split((k, k * a), dim=-1)
            means = self.means(code[..., -self.n_linear :])
        std = nn.functional.softplus(stds.unflatten(-1, (k, a))) + self.min_std
        return Mixture(weights.log_softmax(dim=-1), means.unflatten(-1, (k, a)), std.log())
