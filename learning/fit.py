"""Short trainings that keep nothing on the disk; `learning.run` is for those that must resume."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from learning.adamw import FlatAdamW
from learning.ema import Ema
from learning.flat import FlatParameters
from learning.train_config import TrainConfig, learning_rate

Progress = Callable[[int, float, float], None]
"""Called with the step, the share of the budget spent and the mean loss since the last call."""


def fit(
    module: nn.Module,
    draw_loss: Callable[[], Tensor],
    config: TrainConfig,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Train a module in place; it ends with the averaged weights, in evaluation mode.

    Args:
        module: all of its parameters learn.
        draw_loss: the loss of the next batch.
        config: budget, learning rate, weight decay, clipping, average.
        progress: called every `config.log_every` steps.

    Returns:
        `steps`, `cpu_seconds` and `loss` (mean over the last tenth of the steps).
    """
    parameters = FlatParameters(module, matrices_apart=config.weight_decay > 0)
    optimizer = FlatAdamW(parameters, config.weight_decay)
    average = None if config.ema_decay is None else Ema(parameters, config.ema_decay)
    losses: list[float] = []
    began, spent = time.process_time(), 0.0
    module.train()
    while spent < 1:
        loss = draw_loss()
        parameters.zero_grad()
        loss.backward()
        if config.grad_clip is not None:
            parameters.clip_grad(config.grad_clip)
        optimizer.step(learning_rate(config, len(losses), spent))
        if average is not None:
            average.update(len(losses))
        losses.append(float(loss.detach()))
        spent = max(
            len(losses) / (config.steps or math.inf),
            (time.process_time() - began) / (config.cpu_seconds or math.inf),
        )
        if progress is not None and len(losses) % config.log_every == 0:
            progress(len(losses), spent, _mean(losses[-config.log_every :]))
    if average is not None:
        with torch.no_grad():
            for live, mean in zip(parameters.tensors, average.tensors, strict=True):
                live.copy_(mean)
    module.eval()
    return {
        "steps": float(len(losses)),
        "cpu_seconds": time.process_time() - began,
        "loss": _mean(losses[-max(1, len(losses) // 10) :]),
    }


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
