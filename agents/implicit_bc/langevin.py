"""Langevin dynamics on an energy over a box: for counter-examples and for inference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from agents.config import check_limits
from agents.implicit_bc.energy import EnergyFunction, KnowsGradient
from agents.sampling import normal

NOISE_SCALINGS = ("sqrt", "linear")


@dataclass(frozen=True)
class LangevinConfig:
    """Settings of a chain.

    Attributes:
        n_samples: chains per observation at inference.
        n_steps: steps of a chain.
        step_size: first step size (lambda).
        final_step_size: last step size.
        power: power of the polynomial schedule between the two.
        noise: deviation of the noise, used in every chain: training, inference, refinement.
        noise_scaling: `sqrt` adds `sqrt(lambda) noise w`, so that with noise 1 and small steps the
            chain samples `exp(-E)` (Welling and Teh 2011, eq. 4); `linear` adds `lambda noise w` as
            Florence et al. 2021 print it, which samples something much sharper.
        delta_clip: largest change per entry and step from the gradient (`sqrt`), or of the whole
            step (`linear`, as released), in units of the half range; None for no limit.
        refine: whether inference runs a second chain at the final step size.
    """

    n_samples: int = 512
    n_steps: int = 50
    step_size: float = 0.1
    final_step_size: float = 1e-5
    power: float = 2.0
    noise: float = 1.0
    noise_scaling: str = "sqrt"
    delta_clip: float | None = 0.1
    refine: bool = True

    def __post_init__(self) -> None:
        """Rejects settings out of range."""
        check_limits(
            self,
            {
                "n_samples": (1, 2**20),
                "n_steps": (1, 10_000),
                "step_size": (1e-12, 10.0),
                "final_step_size": (1e-12, 10.0),
                "power": (0.0, 10.0),
                "noise": (0.0, 10.0),
            },
        )
        if self.noise_scaling not in NOISE_SCALINGS:
            raise ValueError(
                f"noise_scaling must be one of {', '.join(NOISE_SCALINGS)}; "
                f"got {self.noise_scaling!r}"
            )
        if self.delta_clip is not None and not self.delta_clip > 0:
            raise ValueError(f"delta_clip must be positive or None; got {self.delta_clip}")


class LangevinResult(NamedTuple):
    """End of a chain.

    Attributes:
        samples: `(B, N, A)` last positions.
        action: `(B, A)` the lowest-energy position among all visited.
        energy: `(B,)` its energy.
    """

    samples: Tensor
    action: Tensor
    energy: Tensor


def step_sizes(config: LangevinConfig) -> list[float]:
    """Polynomial schedule from `step_size` to `final_step_size`, both included."""
    first, last, n = config.step_size, config.final_step_size, config.n_steps
    return [(first - last) * (1 - k / max(1, n - 1)) ** config.power + last for k in range(n)]


def action_gradient(
    energy: EnergyFunction, actions: Tensor, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """Energy and its gradient with respect to the actions.

    Args:
        energy: differentiable function from `(B, N, A)` to `(B, N)`, or one that
            knows its gradient.
        actions: `(B, N, A)`.
        create_graph: whether the gradient is to be differentiated again.

    Returns:
        `(B, N)` energies and `(B, N, A)` gradients.
    """
    if isinstance(energy, KnowsGradient) and not create_graph:
        return energy.with_gradient(actions)
    with torch.inference_mode(False), torch.enable_grad():
        at = actions.clone().detach().requires_grad_()
        values = energy(at)
        (gradient,) = torch.autograd.grad(values.sum(), at, create_graph=create_graph)
    return values if create_graph else values.detach(), gradient


def langevin_step(
    actions: Tensor,
    gradient: Tensor,
    step_size: float,
    config: LangevinConfig,
    generator: torch.Generator,
) -> Tensor:
    """One step: `y - lambda/2 dE/dy + sqrt(lambda) noise w`, clipped to the box.

    Args:
        actions: `(B, N, A)` positions y.
        gradient: `(B, N, A)` dE/dy.
        step_size: lambda.
        config: settings.
        generator: source of w.

    Returns:
        `(B, N, A)` new positions.
    """
    drift = gradient * (-0.5 * step_size)
    noise = normal(tuple(actions.shape), generator, actions) * config.noise
    clip = config.delta_clip
    if config.noise_scaling == "linear":
        drift = drift + noise * step_size
        return (actions + (drift if clip is None else drift.clamp(-clip, clip))).clamp(-1, 1)
    if clip is not None:
        drift = drift.clamp(-clip, clip)
    return (actions + drift + noise * math.sqrt(step_size)).clamp(-1, 1)


def langevin(
    energy: EnergyFunction,
    samples: Tensor,
    config: LangevinConfig,
    generator: torch.Generator,
    sizes: list[float] | None = None,
) -> LangevinResult:
    """Runs chains.

    Args:
        energy: differentiable function from `(B, N, A)` to `(B, N)`.
        samples: `(B, N, A)` first positions.
        config: settings.
        generator: source of randomness.
        sizes: step sizes; None for the schedule of the config.

    Returns:
        Last positions, and the best position visited.
    """
    rows = torch.arange(samples.shape[0], device=samples.device)
    best, lowest = samples[:, 0], samples.new_full(samples.shape[:1], torch.inf)
    for size in step_sizes(config) if sizes is None else sizes:
        energies, gradient = action_gradient(energy, samples)
        best, lowest = _keep_best(best, lowest, samples, energies, rows)
        samples = langevin_step(samples, gradient, size, config, generator)
    with torch.no_grad():
        best, lowest = _keep_best(best, lowest, samples, energy(samples), rows)
    return LangevinResult(samples, best, lowest)


def minimise(
    energy: EnergyFunction, samples: Tensor, config: LangevinConfig, generator: torch.Generator
) -> LangevinResult:
    """Inference: a chain on the schedule, then, if asked for, one at the final step size.

    Args:
        energy: differentiable function from `(B, N, A)` to `(B, N)`.
        samples: `(B, N, A)` first positions.
        config: settings.
        generator: source of randomness.

    Returns:
        Last positions, and the best position that either chain visited.
    """
    first = langevin(energy, samples, config, generator)
    if not config.refine:
        return first
    sizes = [config.final_step_size] * config.n_steps
    second = langevin(energy, first.samples, config, generator, sizes)
    better = second.energy < first.energy
    return LangevinResult(
        second.samples,
        torch.where(better[:, None], second.action, first.action),
        torch.where(better, second.energy, first.energy),
    )


def gradient_penalty(energy: EnergyFunction, actions: Tensor, margin: float = 1.0) -> Tensor:
    """Keeps the energy from getting steeper than Langevin steps can follow.

    `mean max(0, |dE/dy|_inf - margin)^2`. Source: Florence et al. 2021, appendix on gradient
    penalties, at the final positions of the chain.

    Args:
        energy: differentiable function from `(B, N, A)` to `(B, N)`.
        actions: `(B, N, A)`.
        margin: gradient that goes unpunished.

    Returns:
        Scalar, differentiable in the parameters of the energy.
    """
    _, gradient = action_gradient(energy, actions, create_graph=True)
    excess: Tensor = gradient.abs().amax(dim=-1) - margin
    return excess.clamp_min(0).square().mean()


def _keep_best(
    best: Tensor, lowest: Tensor, samples: Tensor, energies: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    value, index = energies.min(dim=1)
    better = value < lowest
    return torch.where(better[:, None], samples[rows, index], best), torch.where(
        better, value, lowest
    )
