"""The smallest policy that the training loop takes; also run as a process of its own."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from learning.batches import Batch
from learning.demonstrations import Demonstrations
from learning.loop import TrainConfig, TrainResult, train


def tiny_demos(seed: int = 0) -> Demonstrations:
    """Twenty episodes whose action is a linear function of two observations."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 15, 20)
    state = rng.normal(size=(int(lengths.sum()), 3)).astype(np.float32)
    return Demonstrations(
        observations={"state": state},
        actions=np.clip(state[:, :2] * [0.3, -0.2], -1, 1).astype(np.float32),
        rewards=np.ones(len(state), np.float32),
        episode_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        action_low=-np.ones(2, np.float32),
        action_high=np.ones(2, np.float32),
        meta={"env": "none/Tiny-v0"},
    )


class TinyPolicy(nn.Module):
    """Regression from two observations, with random noise from both kinds of generator."""

    n_obs_steps: int = 2
    horizon: int = 1

    def __init__(self, width: int = 16, dropout: float = 0.0, noise: float = 0.01) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, 2)
        )
        self.noise = noise
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def predict(self, batch: Batch) -> Tensor:
        """`(B, 2)` actions."""
        return self.net(batch.observations["state"].flatten(1))

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of slightly noisy labels."""
        self.seen += 1
        labels = batch.actions[:, 0]
        noise = torch.randn(labels.shape, generator=generator, device=labels.device)
        loss = (self.predict(batch) - labels - self.noise * noise).square().mean()
        return loss, {"size": loss.detach()}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Largest error of the batch."""
        return {"error": float((self.predict(batch) - batch.actions[:, 0]).abs().max())}


def run(out: Path, plain: bool = False) -> TrainResult:
    """A short training, always the same; `plain` leaves out what differs between processes."""
    torch.manual_seed(0)
    policy = TinyPolicy(dropout=0.0 if plain else 0.1, noise=0.0 if plain else 0.01)
    config = TrainConfig(
        steps=200 if plain else 1500,
        batch_size=32,
        save_every=50,
        log_every=50,
        tensorboard=False,
        device="cpu",
    )
    return train(policy, tiny_demos(), config, out, evaluate=lambda model: 1.0)


if __name__ == "__main__":
    run(Path(sys.argv[1]), plain="--plain" in sys.argv)
