"""How to train, and the learning rate that follows from it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: budget in steps; None leaves it to `cpu_seconds`. Only such runs resume bit by bit.
        cpu_seconds: budget in CPU-seconds of training steps (validation, evaluation and saving are
            not counted; wall seconds on a GPU). With both, the first to be spent ends the run.
        batch_size: windows a step, over all processes together.
        lr: peak learning rate of AdamW; a cosine takes it to zero over the budget.
        weight_decay: of tensors with two axes or more (biases and scales are left alone).
        warmup_steps: steps over which the learning rate rises linearly.
        grad_clip: largest norm of the gradient; None does not clip.
        ema_decay: decay of the averaged weights that are evaluated and saved; None: no average.
        holdout: share of episodes held out for validation.
        return_temperature: draws episodes in proportion to the exponential of their standardised
            return over this (reward-weighted regression); None draws all alike.
        log_every: steps between rows of loss.
        validate_every: steps between held-out metrics.
        validate_samples: most held-out windows looked at each time.
        evaluate_every: steps between evaluations; None spreads `evaluations` over the budget.
        evaluations: how many evaluations where `evaluate_every` is None.
        save_every: steps between saved states.
        seed: of the data order, the held-out split and the loss's random numbers.
        threads: torch threads a process; two spinning threads on a busy core cost 30 times one.
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.
        tensorboard: whether to write TensorBoard event files.
    """

    steps: int | None = None
    cpu_seconds: float | None = None
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 100
    grad_clip: float | None = 1.0
    ema_decay: float | None = 0.999
    holdout: float = 0.05
    return_temperature: float | None = None
    log_every: int = 100
    validate_every: int = 500
    validate_samples: int = 2048
    evaluate_every: int | None = None
    evaluations: int = 10
    save_every: int = 1000
    seed: int = 0
    threads: int = 1
    device: str = "auto"
    tensorboard: bool = True

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        if self.steps is None and self.cpu_seconds is None:
            raise ValueError("a budget is needed: give steps or cpu_seconds")
        for name in ("steps", "cpu_seconds", "grad_clip", "evaluate_every", "return_temperature"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        for name in ("batch_size", "log_every", "validate_every", "validate_samples", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr must be positive, got {self.lr}")
        if self.weight_decay < 0 or self.warmup_steps < 0 or self.evaluations < 1:
            raise ValueError("weight_decay and warmup_steps must be >= 0, evaluations >= 1")
        if self.threads < 1 or self.seed < 0:
            raise ValueError("threads must be at least 1 and seed not negative")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout must be in [0, 1), got {self.holdout}")


def learning_rate(config: TrainConfig, step: int, fraction: float) -> float:
    """Learning rate at a step: a linear rise, then a cosine to zero over the budget.

    Args:
        config: holds the peak and the length of the rise.
        step: steps done before.
        fraction: share of the budget spent before.
    """
    rise = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.lr * rise * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
