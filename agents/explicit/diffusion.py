"""A small diffusion policy: actions are denoised from noise, given the observation.

Trained as DDPM to predict the noise (Ho et al. 2020, eq. 14), with the squared-cosine schedule
(Nichol and Dhariwal 2021, eq. 17), and sampled as DDIM (Song et al. 2021, eq. 12) in few steps.
Source of the idea for robots: Chi et al. 2023, "Diffusion Policy"; here the network is an MLP.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from agents.config import PolicyConfig, check_limits
from agents.encoders import make_activation
from agents.policy import Policy
from agents.sampling import integers, normal
from agents.spec import PolicySpec


@dataclass(frozen=True)
class DiffusionConfig(PolicyConfig):
    """Settings of the diffusion policy.

    Attributes:
        n_train_steps: noise levels in training.
        n_steps: denoising steps at inference.
        eta: DDIM's share of fresh noise per step: 0 draws only the start, 1 is ancestral sampling.
        head_width: width of the denoiser.
        head_depth: residual blocks of the denoiser.
    """

    n_train_steps: int = 100
    n_steps: int = 10
    eta: float = 0.0
    head_width: int = 256
    head_depth: int = 2

    def __post_init__(self) -> None:
        """Rejects impossible combinations."""
        super().__post_init__()
        check_limits(
            self,
            {
                "n_train_steps": (2, 10_000),
                "n_steps": (1, self.n_train_steps),
                "eta": (0.0, 1.0),
                "head_width": (1, 8192),
                "head_depth": (0, 32),
            },
        )


class FilmBlock(nn.Module):
    """Residual block whose hidden units are scaled and shifted by a condition.

    Source: Perez et al. 2018, "FiLM".

    Args:
        width: entries in and out.
        n_condition: entries of the condition.
        activation: `relu`, `silu` or `tanh`.
    """

    def __init__(self, width: int, n_condition: int, activation: str) -> None:
        """Build the block; its condition starts with whatever the linear layer gives."""
        super().__init__()
        self.film = nn.Linear(n_condition, 2 * width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Maps `(B, width)` and `(B, n_condition)` to `(B, width)`."""
        scale, shift = self.film(condition).chunk(2, dim=-1)
        hidden = self.first(self.activation(x)) * (1 + scale) + shift
        out: Tensor = x + self.second(self.activation(hidden))
        return out


def cosine_schedule(n: int) -> Tensor:
    """`(n,)` signal shares alpha-bar, from nearly 1 down to nearly 0."""
    t = (torch.arange(n, dtype=torch.float64) + 1) / n
    alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2).square()
    return (alpha_bar / math.cos(0.008 / 1.008 * math.pi / 2) ** 2).clamp(1e-4, 0.9999).float()


def step_embedding(step: Tensor, size: int, n: int) -> Tensor:
    """Sines and cosines of a step number: `(B,)` in `[0, n)` to `(B, size)`, size even."""
    frequencies = torch.exp(torch.linspace(0, math.log(n), size // 2, device=step.device))
    angle = step[:, None] / n * frequencies * (math.pi / 2)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


class DiffusionPolicy(Policy):
    """Behavioural cloning by denoising.

    Args:
        spec: spaces.
        config: settings.
    """

    method: ClassVar[str] = "diffusion"
    config_class: ClassVar[type[PolicyConfig]] = DiffusionConfig
    config: DiffusionConfig
    alpha_bar: Tensor

    STEP_SIZE = 32

    def __init__(self, spec: PolicySpec, config: DiffusionConfig) -> None:
        """Build the denoiser and its schedule."""
        super().__init__(spec, config)
        width = config.head_width
        n_condition = self.code_dim + self.STEP_SIZE
        self.embed = nn.Linear(self.flat_action_dim + n_condition, width)
        self.blocks = nn.ModuleList(
            [FilmBlock(width, n_condition, config.activation) for _ in range(config.head_depth)]
        )
        self.activation = make_activation(config.activation)
        self.out = nn.Linear(width, self.flat_action_dim)
        self.register_buffer("alpha_bar", cosine_schedule(config.n_train_steps), persistent=False)

    def noise_in(self, noisy: Tensor, step: Tensor, code: Tensor) -> Tensor:
        """Predicts the noise in noisy actions.

        Args:
            noisy: `(B, A)`.
            step: `(B,)` noise level, int64.
            code: `(B, C)`.

        Returns:
            `(B, A)`.
        """
        embedded = step_embedding(step, self.STEP_SIZE, self.config.n_train_steps)
        condition = torch.cat((code, embedded), dim=-1)
        h = self.embed(torch.cat((noisy, condition), dim=-1))
        for block in self.blocks:
            h = block(h, condition)
        noise: Tensor = self.out(self.activation(h))
        return noise

    def objective(
        self, code: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the predicted noise; see `Policy.objective`."""
        step = integers((target.shape[0],), self.config.n_train_steps, generator, target)
        noise = normal(tuple(target.shape), generator, target)
        signal = self.alpha_bar[step][:, None]
        noisy = signal.sqrt() * target + (1 - signal).sqrt() * noise
        loss = nn.functional.mse_loss(self.noise_in(noisy, step, code), noise)
        return loss, {"noise_mse": loss.detach()}

    def predict(self, code: Tensor, generator: torch.Generator, previous: Tensor | None) -> Tensor:
        """Denoises a draw; see `Policy.predict`."""
        config = self.config
        actions = normal((code.shape[0], self.flat_action_dim), generator, code)
        levels = torch.linspace(config.n_train_steps - 1, 0, config.n_steps).round().long().tolist()
        for level, following in zip(levels, [*levels[1:], None], strict=True):
            signal = self.alpha_bar[level]
            step = torch.full((code.shape[0],), level, device=code.device)
            noise = self.noise_in(actions, step, code)
            clean = (actions - (1 - signal).sqrt() * noise) / signal.sqrt()
            clean = clean.clamp(-1, 1)
            if following is None:
                return clean
            # The noise that goes with the clipped estimate.
            noise = (actions - signal.sqrt() * clean) / (1 - signal).sqrt()
            target = self.alpha_bar[following]
            fresh = config.eta * ((1 - target) / (1 - signal) * (1 - signal / target)).sqrt()
            actions = target.sqrt() * clean + (1 - target - fresh**2).clamp_min(0).sqrt() * noise
            if config.eta:
                actions = actions + fresh * normal(tuple(actions.shape), generator, actions)
        raise AssertionError("n_steps is at least 1")
