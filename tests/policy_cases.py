"""Small data sets, configs and helpers that the policy tests share."""

from typing import Any

import numpy as np
import torch

from agents import Policy
from learning.batches import Batch
from learning.demonstrations import Demonstrations

OBSERVATIONS = ("state", "pixels", "both")
N_STATE = 7
FIELDS = [
    {"name": "block_xy", "size": 2, "kind": "point"},
    {"name": "slot_xy", "size": 2, "kind": "point"},
    {"name": "slot_heading", "size": 2, "kind": "heading"},
    {"name": "phase", "size": 1, "kind": "scalar"},
]
ACTION_FIELDS = [{"name": "delta", "size": 2, "kind": "vector"}]

SMALL: dict[str, dict[str, Any]] = {
    "ibc": {"n_negatives": 8, "head_width": 16, "dfo": {"n_samples": 64}},
    "mse": {},
    "mdn": {"n_components": 3},
    "binned": {"n_bins": 8, "head_width": 16},
    "diffusion": {"n_train_steps": 10, "n_steps": 3, "head_width": 16, "head_depth": 1},
    "kernel": {"points": 20},
}
"""Settings that make every method quick; a new method needs a row."""
STATES_ONLY = ("kernel",)
"""Methods that see states alone, and are fitted without gradients: `test_kernel_policy`."""


def small_config(method: str, **changes: Any) -> dict[str, Any]:
    """A quick config of a method, with changes."""
    base = {"width": 16, "depth": 2, "conv_channels": (4, 4, 4), "random_shift": 2}
    return {**base, **SMALL[method], **changes}


def demonstrations(
    observation: str = "state", n: int = 60, seed: int = 0, action_dim: int = 2
) -> Demonstrations:
    """Random states, and actions that are a function of them; six episodes."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(n, N_STATE)).astype(np.float32)
    yaw = rng.uniform(-np.pi, np.pi, n)
    state[:, 4], state[:, 5] = np.cos(yaw), np.sin(yaw)
    pixels = rng.integers(0, 256, (n, 20, 24, 3), dtype=np.uint8)
    actions = np.tanh(state[:, :action_dim] + 0.3 * rng.normal(size=(n, action_dim)))
    observations: dict[str, np.ndarray] = {"state": state, "pixels": pixels}
    if observation != "both":
        observations = {observation: observations[observation]}
    return Demonstrations(
        observations=observations,
        actions=actions.astype(np.float32),
        rewards=np.zeros(n, np.float32),
        episode_offsets=np.linspace(0, n, 7).astype(np.int64),
        action_low=-np.ones(action_dim, np.float32),
        action_high=np.ones(action_dim, np.float32),
        meta={
            "observation_fields": FIELDS,
            "action_fields": ACTION_FIELDS if action_dim == 2 else [],
        },
    )


def plain(
    states: np.ndarray, actions: np.ndarray, low: float = -1.0, high: float = 1.0
) -> Demonstrations:
    """One-step episodes without fields, such as a regression problem has."""
    n, dim = actions.shape
    return Demonstrations(
        observations={"state": states.astype(np.float32)},
        actions=actions.astype(np.float32),
        rewards=np.zeros(n, np.float32),
        episode_offsets=np.arange(n + 1, dtype=np.int64),
        action_low=np.full(dim, low, np.float32),
        action_high=np.full(dim, high, np.float32),
        meta={},
    )


def batch_of(policy: Policy, demos: Demonstrations, rows: np.ndarray | None = None) -> Batch:
    """The windows of some rows, raw, as the training loop hands them over."""
    rows = np.arange(len(demos)) if rows is None else rows
    windows = demos.windows(policy.config.n_obs_steps, policy.config.horizon)
    return Batch(
        observations={
            key: torch.as_tensor(value[windows.observations[rows]])
            for key, value in demos.observations.items()
        },
        actions=torch.as_tensor(demos.actions[windows.actions[rows]]),
    )


def fit(policy: Policy, demos: Demonstrations, steps: int, rate: float = 3e-3) -> list[float]:
    """Trains with Adam and a cosine schedule; the losses."""
    generator = torch.Generator().manual_seed(1)
    rng = np.random.default_rng(1)
    optimiser = torch.optim.Adam(policy.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    policy.train()
    losses = []
    for _ in range(steps):
        rows = rng.integers(0, len(demos), 128)
        loss, _ = policy.loss(batch_of(policy, demos, rows), generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    policy.eval()
    return losses


def observation_at(demos: Demonstrations, row: int | slice) -> Any:
    """One observation, or several, as an environment would hand them over."""
    parts = {key: value[row] for key, value in demos.observations.items()}
    return parts if len(parts) > 1 else next(iter(parts.values()))
