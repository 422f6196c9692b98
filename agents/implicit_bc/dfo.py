"""Derivative-free optimisation of an energy over a box, for inference and for counter-examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from agents.config import check_limits
from agents.implicit_bc.energy import EnergyFunction
from agents.sampling import normal, uniform


@dataclass(frozen=True)
class DfoConfig:
    """Settings of the optimiser.

    Attributes:
        n_samples: candidates per iteration.
        n_iterations: times that all candidates are evaluated.
        noise_std: deviation of the first perturbation; the box is [-1, 1].
        decay: factor on the deviation per iteration.
    """

    n_samples: int = 1024
    n_iterations: int = 3
    noise_std: float = 0.33
    decay: float = 0.5

    def __post_init__(self) -> None:
        """Rejects settings out of range."""
        check_limits(
            self,
            {
                "n_samples": (1, 2**20),
                "n_iterations": (1, 1000),
                "noise_std": (0.0, 10.0),
                "decay": (0.0, 1.0),
            },
        )


class DfoResult(NamedTuple):
    """What the optimiser found.

    Attributes:
        action: `(B, A)` the candidate of lowest energy among all that were evaluated.
        energy: `(B,)` its energy.
        samples: `(B, N, A)` candidates of the last iteration.
    """

    action: Tensor
    energy: Tensor
    samples: Tensor


def resample(energies: Tensor, generator: torch.Generator) -> Tensor:
    """Systematic resampling in proportion to `exp(-E)`.

    One random number per row places N evenly spaced pointers: each candidate is taken its expected
    number of times, rounded up or down, which has less variance than independent draws.

    Args:
        energies: `(B, N)`.
        generator: source of the pointers' offset.

    Returns:
        `(B, N)` int64 indices, ascending.
    """
    n = energies.shape[1]
    cumulative = torch.softmax(-energies, dim=1).cumsum(dim=1)
    offset = uniform((energies.shape[0], 1), generator, energies)
    pointers = (torch.arange(n, device=energies.device, dtype=energies.dtype) + offset) / n
    return torch.searchsorted(cumulative, pointers).clamp_max_(n - 1)


def dfo(
    energy: EnergyFunction, samples: Tensor, config: DfoConfig, generator: torch.Generator
) -> DfoResult:
    """Minimises an energy over [-1, 1]^A.

    Florence et al. 2021, Algorithm 1: evaluate, resample, perturb, shrink, repeat; then argmin. The
    argmin runs over every candidate of every iteration together with the energy it was given. (The
    released code pairs probabilities from before the last resampling with actions from after it: a
    random draw, 18 to 56 times less precise.)

    Args:
        energy: function from `(B, N, A)` to `(B, N)`.
        samples: `(B, N, A)` first candidates, inside the box.
        config: settings; the number of candidates is that of `samples`.
        generator: source of randomness.

    Returns:
        The best action, its energy and the last candidates.
    """
    std = config.noise_std
    rows = torch.arange(samples.shape[0], device=samples.device)
    energies = energy(samples)
    lowest, index = energies.min(dim=1)
    best = samples[rows, index]
    for _ in range(config.n_iterations - 1):
        chosen = resample(energies, generator)
        samples = torch.gather(samples, 1, chosen[..., None].expand_as(samples))
        # Clipping comes after the noise: outside the box the energy was never trained.
        samples = samples.add_(normal(tuple(samples.shape), generator, samples), alpha=std)
        samples = samples.clamp_(-1, 1)
        std *= config.decay
        energies = energy(samples)
        value, index = energies.min(dim=1)
        better = value < lowest
        best = torch.where(better[:, None], samples[rows, index], best)
        lowest = torch.where(better, value, lowest)
    return DfoResult(best, lowest, samples)
