"""Demonstrations as points of a kernel: what a policy sees, and which of it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from agents.encoders import ObservationEncoder
from learning.batches import Batch
from learning.distillation.examples import Examples
from learning.distillation.kernel_config import KernelConfig
from learning.distillation.ridge import fit_ridge
from learning.distillation.subsets import choose

if TYPE_CHECKING:
    from agents.policy import Policy
    from learning.demonstrations import Demonstrations

_PART = 8192
"""Rows that are looked at together."""


class FlatEncoder(ObservationEncoder):
    """Hands on what a policy's eyes see, without a network.

    Args:
        n_in: entries of a history.
    """

    def __init__(self, n_in: int) -> None:
        """Build nothing."""
        torch.nn.Module.__init__(self)
        self.n_out = n_in

    def forward(
        self, observations: dict[str, Tensor], generator: torch.Generator | None = None
    ) -> Tensor:
        """`(B, T * D)` of states `(B, T, D)`."""
        return observations["state"].flatten(1)


@torch.no_grad()
def points_of(policy: Policy, demos: Demonstrations) -> tuple[Tensor, Tensor]:
    """Demonstrations as a policy sees them.

    Args:
        policy: whose eyes, normalisers and encoder are used.
        demos: with the spaces of its spec.

    Returns:
        `(N, F)` float32 points and `(N, horizon * A)` float64 normalised actions, a row for every
        action taken.

    Raises:
        ValueError: if a value is not finite, or the spaces differ.
    """
    windows = demos.windows(policy.config.n_obs_steps, policy.config.horizon)
    if not len(demos):
        raise ValueError("demonstrations must hold at least one action; got none")
    if "state" not in demos.observations:
        raise ValueError("a kernel needs observations `state`; these demonstrations have none")
    for name, rows in (("states", demos.observations["state"]), ("actions", demos.actions)):
        if not np.isfinite(rows).all():
            raise ValueError(f"{name} of the demonstrations must be finite; got NaN or infinity")
    was_training, generator = policy.training, torch.Generator()
    policy.eval()
    seen, done = [], []
    for start in range(0, len(demos), _PART):
        part = slice(start, start + _PART)
        states = torch.as_tensor(demos.observations["state"][windows.observations[part]])
        actions = torch.as_tensor(demos.actions[windows.actions[part]])
        code, target = policy._prepare(Batch({"state": states}, actions), generator)
        seen.append(code.float())
        done.append(target.double())
    policy.train(was_training)
    return torch.cat(seen), torch.cat(done)


def as_examples(points: Tensor, labels: Tensor, source: str) -> Examples:
    """Points with continuous labels, for `learning.distillation`; labels are centred.

    Args:
        points: `(N, F)`.
        labels: `(N, K)`.
        source: one line: what the points are.

    Raises:
        ValueError: if all labels are equal.
    """
    offset = labels.double().mean(0)
    centred = labels.double() - offset
    if not bool((centred.abs() > 1e-9).any()):
        raise ValueError("all actions are equal: there is nothing to predict")
    names = tuple(f"action {k}" for k in range(labels.shape[1]))
    return Examples(
        points.float(),
        centred.float(),
        None,
        names,
        offset.float(),
        torch.ones(labels.shape[1]),
        source,
    )


@torch.no_grad()
def kept(
    network: KernelConfig,
    points: Tensor,
    labels: Tensor,
    n: int,
    keep: str,
    solve: bool,
    regulariser: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Few of many points.

    Args:
        network: of the kernel.
        points: `(N, F)`.
        labels: `(N, K)`.
        n: how many to keep; 0, or N and more: all.
        keep: a key of `learning.distillation.subsets.CHOOSERS`.
        solve: whether labels are solved for.
        regulariser: of the regression.
        seed: of what is random.

    Returns:
        `(n, F)` and `(n, K)` float64.

    Raises:
        ValueError: if the kernel matrix is singular, or labels are all equal.
    """
    examples = as_examples(points, labels, "demonstrations")
    labels = labels.double()
    if n == 0 or n >= len(points):
        return points, labels
    rows = choose(examples, keep, n, seed)
    if not solve:
        return points[rows], labels[rows]
    mean = labels.mean(0)
    ridge = fit_ridge(network, points[rows].double(), labels[rows] - mean, regulariser)
    return points[rows], ridge.solved(points, labels - mean) + mean
