"""Sources of counter-examples. A new one is a function, a row here and a name in the config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.implicit_bc.config import NEGATIVES, ImplicitConfig
from agents.implicit_bc.dfo import dfo
from agents.implicit_bc.energy import EnergyFunction
from agents.implicit_bc.langevin import langevin
from agents.implicit_bc.proposal import AnyMixture
from agents.sampling import uniform


@dataclass(frozen=True)
class Context:
    """What a source may look at.

    Attributes:
        target: `(B, A)` expert actions; tells batch, dimension and device.
        energy: current energy of the batch, `(B, N, A)` to `(B, N)`, differentiable.
        mixture: Gaussian part of the proposal, where there is one.
        config: settings.
    """

    target: Tensor
    energy: EnergyFunction
    mixture: AnyMixture | None
    config: ImplicitConfig


Source = Callable[[Context, int, torch.Generator], Tensor]
"""Draws `(B, n, A)` counter-examples, without gradients."""


def from_uniform(context: Context, n: int, generator: torch.Generator) -> Tensor:
    """Uniform over the box."""
    n_rows, dim = context.target.shape
    return uniform((n_rows, n, dim), generator, context.target, -1.0, 1.0)


def from_dfo(context: Context, n: int, generator: torch.Generator) -> Tensor:
    """Where derivative-free optimisation of the current energy ends up."""
    first = from_uniform(context, n, generator)
    return dfo(context.energy, first, context.config.counter_dfo, generator).samples


def from_langevin(context: Context, n: int, generator: torch.Generator) -> Tensor:
    """Where Langevin chains on the current energy end up."""
    first = from_uniform(context, n, generator)
    return langevin(context.energy, first, context.config.langevin, generator).samples


def from_proposal(context: Context, n: int, generator: torch.Generator) -> Tensor:
    """Draws from the Gaussian part of the learned proposal."""
    assert context.mixture is not None
    return context.mixture.sample(n, generator)


SOURCES: dict[str, Source] = {
    "uniform": from_uniform,
    "dfo": from_dfo,
    "langevin": from_langevin,
    "proposal": from_proposal,
}
assert tuple(SOURCES) == NEGATIVES


@torch.no_grad()
def draw_negatives(context: Context, generator: torch.Generator) -> Tensor:
    """Counter-examples from all sources, in their shares.

    Args:
        context: what the sources may look at.
        generator: source of randomness.

    Returns:
        `(B, n_negatives, A)`.
    """
    config = context.config
    parts: list[Tensor] = []
    left, share_left = config.n_negatives, 1.0
    for name, _ in config.negatives:
        share = config.share(name)
        # Rounding what is left keeps the total exact.
        n = min(left, round(left * share / share_left))
        if n:
            parts.append(SOURCES[name](context, n, generator))
        left, share_left = left - n, max(share_left - share, 1e-12)
    return torch.cat(parts, dim=1)
