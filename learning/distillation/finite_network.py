"""Whether distilled points also teach a finite network: gradient descent on them, from scratch.

Source: Nguyen et al. 2021, "Dataset Distillation with Infinitely Wide Convolutional Networks",
appendix (transfer): width 1024, standard parameterisation, squared error, momentum 0.9, all points
in one batch, L2, and a learning rate in units of the largest stable one, read off the network's own
tangent kernel.

Departure: L2 is 1e-2, not 1e-3. What the network says before it is trained is as large as the
labels, and few points correct it only where they are: a weight decay that fades it within a
thousand steps makes up for the paper's five thousand.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from learning.distillation.examples import Examples
from learning.distillation.kernel_config import KernelConfig
from learning.run import isolated

Start = Callable[[nn.Linear | nn.Conv2d], nn.Module]
_KERNEL_POINTS = 50
_POWER_STEPS = 30


@dataclass(frozen=True)
class FiniteConfig:
    """How to train a finite network on few points.

    Attributes:
        width: units, or channels, of a hidden layer.
        steps: of gradient descent, all points in each.
        rate: peak learning rate over the largest stable one; a cosine takes it to zero.
        momentum: of the descent.
        l2: weight of the squared norm of all parameters, halved.
        seed: of the first weights.
        threads: torch threads.
    """

    width: int = 1024
    steps: int = 1000
    rate: float = 0.5
    momentum: float = 0.9
    l2: float = 1e-2
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        if self.width < 1 or self.steps < 1 or self.threads < 1:
            raise ValueError("width, steps and threads must be at least 1")
        if not self.rate > 0 or not 0 <= self.momentum < 1 or not self.l2 >= 0:
            raise ValueError("rate must be positive, momentum in [0, 1) and l2 at least 0")


def finite_network(
    kernel: KernelConfig, shape: tuple[int, ...], n_out: int, config: FiniteConfig
) -> nn.Module:
    """The network of a kernel at a finite width.

    Weights start with a standard deviation of `w_std / sqrt(fan in)` and biases with `b_std`.

    Args:
        kernel: which network.
        shape: of a point, `(C, H, W)` for a convolutional one.
        n_out: numbers it tells.
        config: its width, and the seed of its weights.
    """
    kernel.check_shape(shape)
    generator = torch.Generator().manual_seed(config.seed)

    def started(layer: nn.Linear | nn.Conv2d) -> nn.Module:
        fan_in = layer.weight[0].numel()
        nn.init.normal_(layer.weight, 0, kernel.w_std / math.sqrt(fan_in), generator)
        assert layer.bias is not None
        nn.init.normal_(layer.bias, 0, kernel.b_std, generator)
        return layer

    if kernel.convs:
        layers, n_features = _convolutional(kernel, shape, config.width, started)
    else:
        widths = [math.prod(shape), *[config.width] * kernel.depth]
        layers, n_features = [nn.Flatten()], widths[-1]
        for before, after in pairwise(widths):
            layers += [started(nn.Linear(before, after)), nn.ReLU()]
    return nn.Sequential(*layers, started(nn.Linear(n_features, n_out)))


def _convolutional(
    kernel: KernelConfig, shape: tuple[int, ...], width: int, started: Start
) -> tuple[list[nn.Module], int]:
    """All layers but the last, and how many numbers they make of an image."""
    channels, height, columns = shape
    layers: list[nn.Module] = []
    for layer in kernel.layers:
        if layer == "pool":
            layers.append(nn.AvgPool2d(2))
            height, columns = height // 2, columns // 2
            continue
        layers += [started(nn.Conv2d(channels, width, 3, padding=1)), nn.ReLU()]
        channels = width
    if kernel.head == "mean":
        return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()], width
    return [*layers, nn.Flatten()], width * height * columns


def train_finite(
    kernel: KernelConfig, points: Tensor, labels: Tensor, config: FiniteConfig
) -> nn.Module:
    """Train the network of a kernel on few points.

    Args:
        kernel: which network.
        points: `(n, ...)` in the space of the kernel.
        labels: `(n, K)`.
        config: how.

    Returns:
        The network, float32, in evaluation mode.

    Raises:
        ValueError: if the points do not fit the network or the loss became NaN.
    """
    x, y = points.float(), labels.float()
    with isolated(config.threads):
        network = finite_network(kernel, tuple(x.shape[1:]), y.shape[1], config)
        peak = config.rate * largest_rate(network, x, config.momentum)
        optimizer = torch.optim.SGD(network.parameters(), lr=peak, momentum=config.momentum)
        loss = torch.zeros(())
        for step in range(config.steps):
            for group in optimizer.param_groups:
                group["lr"] = peak * 0.5 * (1 + math.cos(math.pi * step / config.steps))
            optimizer.zero_grad()
            size = torch.stack([p.square().sum() for p in network.parameters()]).sum()
            loss = 0.5 * (network(x) - y).square().mean() + 0.5 * config.l2 * size
            loss.backward()
            optimizer.step()
        if not bool(torch.isfinite(loss)):
            raise ValueError("the finite network diverged; lower its rate")
    return network.eval()


def largest_rate(network: nn.Module, x: Tensor, momentum: float) -> float:
    """The learning rate from which descent on half the mean squared error diverges.

    At first order outputs move by minus the rate times the tangent kernel over the number of
    outputs; with momentum m that is stable below 2 (1 + m) n / lambda, lambda being the largest
    eigenvalue of the kernel, found here by power iteration on at most 50 points.

    Args:
        network: at its first weights.
        x: `(n, ...)` points.
        momentum: of the descent.
    """
    some = x[torch.linspace(0, len(x) - 1, min(len(x), _KERNEL_POINTS)).long()]
    parameters = [p.detach() for p in network.parameters()]
    names = [name for name, _ in network.named_parameters()]

    def outputs(*values: Tensor) -> Tensor:
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), some)

    pulled = torch.func.vjp(outputs, *parameters)
    found, pull = pulled[0], pulled[1]
    vector = torch.ones_like(found) / math.sqrt(found.numel())
    eigenvalue = 1.0
    for _ in range(_POWER_STEPS):
        moved = torch.func.jvp(outputs, tuple(parameters), pull(vector))[1]
        eigenvalue = float(moved.norm())
        vector = moved / eigenvalue
    # Of all points, the largest eigenvalue is that of some, times their share, roughly.
    eigenvalue *= len(x) / len(some)
    return 2 * (1 + momentum) * x.shape[0] * found.shape[1] / eigenvalue


@torch.no_grad()
def _outputs(network: nn.Module, points: Tensor) -> Tensor:
    return torch.cat([network(part.float()) for part in points.split(1024)])


def score_finite(
    kernel: KernelConfig, points: Tensor, labels: Tensor, held_out: Examples, config: FiniteConfig
) -> float:
    """Train a network on few points; its accuracy, or explained share of the variance.

    Args:
        kernel: which network.
        points: `(n, ...)` in the space of the kernel.
        labels: `(n, K)`.
        held_out: with points in the same space.
        config: how to train.
    """
    found = _outputs(train_finite(kernel, points, labels, config), held_out.points)
    if held_out.classes is not None:
        return float((found.argmax(1) == held_out.classes).double().mean())
    truth = held_out.targets
    return float(1 - (found - truth).square().sum() / (truth - truth.mean(0)).square().sum())
