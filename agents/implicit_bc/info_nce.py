"""InfoNCE: tell the expert's action from counter-examples."""

from __future__ import annotations

import torch
from torch import Tensor


def info_nce(energy: Tensor, temperature: float = 1.0) -> Tensor:
    """InfoNCE loss of the expert action against its negatives.

    Low energy is good. Source: Florence et al. 2021, "Implicit Behavioral Cloning", section 2. For
    negatives drawn from a density q that is not uniform, pass `energy + log q` (ranking NCE, Ma and
    Collins 2018): otherwise the minimiser is `-log p/q` instead of `-log p`.

    Args:
        energy: `(B, N + 1)`; column 0 is the expert action.
        temperature: energies are divided by it.

    Returns:
        `(B,)` loss in nats; `ln(N + 1)` where all energies are equal.

    Raises:
        ValueError: if there are no negatives.
    """
    if energy.ndim != 2 or energy.shape[1] < 2:
        raise ValueError(
            f"energy must be (B, N + 1) with at least one negative; got {tuple(energy.shape)}"
        )
    logits = -energy / temperature
    return torch.logsumexp(logits, dim=1) - logits[:, 0]


def accuracy(energy: Tensor) -> Tensor:
    """Fraction of rows whose expert action has the lowest energy of all.

    Args:
        energy: `(B, N + 1)`; column 0 is the expert action.

    Returns:
        Scalar in [0, 1]. A tie counts as a miss: a constant energy knows nothing.
    """
    return (energy[:, :1] < energy[:, 1:]).all(dim=1).float().mean()


def expert_rank(energy: Tensor) -> Tensor:
    """Mean fraction of negatives with lower energy than the expert action; 0 is best.

    Args:
        energy: `(B, N + 1)`; column 0 is the expert action.

    Returns:
        Scalar in [0, 1]. Ties count half, so a constant energy scores 0.5.
    """
    expert, negatives = energy[:, :1], energy[:, 1:]
    return ((negatives < expert).float() + 0.5 * (negatives == expert).float()).mean()
