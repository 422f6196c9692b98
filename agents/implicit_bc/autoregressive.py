"""Autoregressive derivative-free optimisation: one action entry after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from agents.implicit_bc.dfo import DfoConfig, dfo
from agents.implicit_bc.energy import AutoregressiveEnergy, EnergyFunction
from agents.implicit_bc.info_nce import info_nce
from agents.sampling import uniform


def autoregressive_dfo(
    model: AutoregressiveEnergy, code: Tensor, config: DfoConfig, generator: torch.Generator
) -> Tensor:
    """Minimises `E_j(x, y_0 .. y_j)` over `y_j`, for j = 0, 1, ... in turn.

    Each search is one-dimensional, so its cost does not grow with the dimension as that of a joint
    search does; the price is that entry j is final before entry j + 1 is looked at. Source:
    Florence et al. 2021, appendix on autoregressive derivative-free optimisation.

    Args:
        model: conditional energies.
        code: `(B, C)`.
        config: settings of each search.
        generator: source of randomness.

    Returns:
        `(B, A)` actions in the box.
    """
    chosen = code.new_empty(code.shape[0], 0)
    for j in range(len(model.heads)):
        energy = _after(model.head(j).bind(code), chosen[:, None].expand(-1, config.n_samples, -1))
        first = uniform((code.shape[0], config.n_samples, 1), generator, code, -1.0, 1.0)
        chosen = torch.cat((chosen, dfo(energy, first, config, generator).action), dim=1)
    return chosen


def _after(energy: EnergyFunction, prefix: Tensor) -> EnergyFunction:
    """The energy as a function of the last entry alone."""
    return lambda last: energy(torch.cat((prefix, last), dim=-1))


def autoregressive_energies(
    model: AutoregressiveEnergy,
    code: Tensor,
    target: Tensor,
    n_negatives: int,
    generator: torch.Generator,
) -> Tensor:
    """Energies of the expert's entry and of uniform alternatives, after the expert's prefix.

    Args:
        model: conditional energies.
        code: `(B, C)`.
        target: `(B, A)` expert actions.
        n_negatives: alternatives per entry.
        generator: source of the alternatives.

    Returns:
        `(A, B, N + 1)`; column 0 is the expert's.
    """
    others = uniform((*target.shape, n_negatives), generator, target, -1.0, 1.0)
    last = torch.cat((target[..., None], others), dim=2)  # (B, A, N + 1)
    energies = []
    for j in range(target.shape[1]):
        prefix = target[:, None, :j].expand(-1, n_negatives + 1, -1)
        actions = torch.cat((prefix, last[:, j, :, None]), dim=-1)
        energies.append(model.head(j)(code, actions))
    return torch.stack(energies)


def autoregressive_info_nce(energies: Tensor, temperature: float) -> Tensor:
    """Mean InfoNCE loss over entries: `(A, B, N + 1)` to `(B,)`."""
    loss = info_nce(energies.flatten(0, 1), temperature)
    return loss.view(energies.shape[:2]).mean(dim=0)
