"""Inter-task affinity: what a training step for one task does to the loss of another.

Source: Fifty et al. 2021, "Efficiently Identifying Task Groupings for Multi-Task Learning"
(arXiv 2109.04617), and its published code (google-research, `tag/celeba/CelebA.ipynb`), which adds
the optimiser's momentum to the look-ahead and divides the affinity by the learning rate. Here it is
not divided, as in the paper.

Affinity `(T, T)`: row i is the task that steps, column j the task whose loss is looked at,

    Z[i, j] = 1 - L_j(shared + step_i, own_j) / L_j(shared, own_j),

positive where a step for i makes j better. `step_i` is what the optimiser itself would do next if
task i alone had a gradient, momentum and preconditioning included; parameters of single tasks stay.
`look_ahead` computes this with a forward pass a task. `first_order` needs none: it takes
`-<grad L_j, step_i> / L_j`, to which the look-ahead tends as steps become small. Both leave
parameters, gradients, buffers, random numbers and the optimiser bit by bit as they were.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from learning.adamw import FlatAdamW
from learning.flat import FlatParameters

Losses = Callable[[], Mapping[str, Tensor]]
"""The loss of each task, scalars, by the present parameters and always on the same batch."""
Step = Callable[[Sequence[Tensor]], list[Tensor]]
"""From gradients of the shared parameters to how the next step would change them."""
Method = Literal["look-ahead", "first-order"]


def affinities(
    losses: Losses,
    shared: Sequence[Tensor],
    step: Step,
    method: Method = "look-ahead",
    module: nn.Module | None = None,
) -> Tensor:
    """Affinity of all pairs of tasks, on one batch.

    Args:
        losses: computes the losses; called once, and once more for each task of a look-ahead.
        shared: parameters that all tasks use.
        step: such as `optimizer_step` gives.
        method: `look-ahead` or `first-order`.
        module: whose buffers, such as statistics of batch normalisation, are put back afterwards.

    Returns:
        `(T, T)` float64 on the CPU; row i steps, column j is looked at.

    Raises:
        ValueError: for an unknown method, no parameters, or a loss that is not positive and finite.
    """
    measures = {"look-ahead": look_ahead, "first-order": first_order}
    if method not in measures:
        raise ValueError(f"method must be one of {', '.join(measures)}, got {method!r}")
    return measures[method](losses, shared, step, module)


def look_ahead(
    losses: Losses, shared: Sequence[Tensor], step: Step, module: nn.Module | None = None
) -> Tensor:
    """Affinities as the paper defines Z, with the momentum of its code; see `affinities`."""
    with _kept_buffers(module):
        before, gradients = _task_gradients(losses, shared)
    rows = []
    for gradient in gradients:
        with (
            _moved(shared, step(gradient)),
            _kept_buffers(module),
            _same_draws(shared),
            torch.no_grad(),
        ):
            after = torch.stack([loss.double() for loss in losses().values()])
        rows.append(1 - after / before)
    return torch.stack(rows).cpu()


def first_order(
    losses: Losses, shared: Sequence[Tensor], step: Step, module: nn.Module | None = None
) -> Tensor:
    """The linear part of the look-ahead, from one backward pass a task; see `affinities`."""
    with _kept_buffers(module):
        before, gradients = _task_gradients(losses, shared)
    steps = torch.stack([_flat(step(gradient)) for gradient in gradients])
    slopes = torch.stack([_flat(gradient) for gradient in gradients])
    return -(steps @ slopes.T / before).cpu()


def optimizer_step(optimizer: torch.optim.Optimizer, shared: Sequence[Tensor]) -> Step:
    """What a torch optimiser would do next, found out by letting it, and undoing it.

    So it is exact for every optimiser that steps without a closure: SGD with momentum, which the
    paper uses, Adam with its preconditioner, and others, weight decay included. Hooks of the
    optimiser run.

    Args:
        optimizer: holds `shared`, and may hold more parameters, which then have no gradient.
        shared: parameters that all tasks use.
    """

    def step(gradients: Sequence[Tensor]) -> list[Tensor]:
        with _undone(optimizer):
            for parameter, gradient in zip(shared, gradients, strict=True):
                parameter.grad = gradient.clone()
            return _changes(shared, lambda: optimizer.step())

    return step


def flat_step(
    parameters: FlatParameters,
    optimizer: FlatAdamW,
    shared: Sequence[Tensor],
    lr: float,
    grad_clip: float | None = None,
) -> Step:
    """What a training of `learning.run` would do next, with the gradient clipped as it is there.

    Args:
        parameters: of the training.
        optimizer: of the training.
        shared: members of `parameters` that all tasks use; the others have a gradient of zero.
        lr: learning rate of the step.
        grad_clip: largest norm of the gradient; None does not clip.
    """

    def step(gradients: Sequence[Tensor]) -> list[Tensor]:
        touched = [*parameters.tensors, *parameters.grads, *optimizer.state().values()]
        with _kept(touched):
            parameters.zero_grad()
            for parameter, gradient in zip(shared, gradients, strict=True):
                assert parameter.grad is not None
                parameter.grad.copy_(gradient)
            if grad_clip is not None:
                parameters.clip_grad(grad_clip)
            return _changes(shared, lambda: optimizer.step(lr))

    return step


class AffinityMeter(nn.Module):
    """The mean of affinities over a training.

    Its totals are buffers: registered in the network that is trained, they are saved and resumed
    with it.
    """

    total: Tensor
    count: Tensor
    seconds: Tensor

    def __init__(self, n_tasks: int) -> None:
        """Start with nothing measured.

        Raises:
            ValueError: for fewer than two tasks: there is no pair.
        """
        super().__init__()
        if n_tasks < 2:
            raise ValueError(f"affinity needs at least 2 tasks, got {n_tasks}")
        self.register_buffer("total", torch.zeros(n_tasks, n_tasks, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seconds", torch.zeros((), dtype=torch.float64))

    def add(self, affinity: Tensor, seconds: float = 0.0) -> None:
        """Take up what `affinities` gave, and what it cost."""
        self.total += affinity.to(self.total)
        self.count += 1
        self.seconds += seconds

    def mean(self) -> Tensor:
        """`(T, T)` float64 on the CPU.

        Raises:
            ValueError: if nothing was measured.
        """
        if not int(self.count):
            raise ValueError(
                "no affinity was measured: train for more steps, or measure more often"
            )
        return (self.total / self.count).cpu()


def _task_gradients(losses: Losses, shared: Sequence[Tensor]) -> tuple[Tensor, list[list[Tensor]]]:
    """`(T,)` float64 losses, and of each the gradient of the shared parameters."""
    if not shared:
        raise ValueError("tasks must share parameters, got none")
    with _same_draws(shared), torch.enable_grad():
        found = losses()
        values = torch.stack([loss.detach().double() for loss in found.values()])
        for task, value in zip(found, values.tolist(), strict=True):
            if not 0 < value < float("inf"):
                raise ValueError(f"the loss of {task} must be positive and finite, got {value}")
        gradients = []
        for loss in found.values():
            parts = torch.autograd.grad(loss, list(shared), retain_graph=True, allow_unused=True)
            gradients.append(
                [
                    torch.zeros_like(p) if g is None else g
                    for p, g in zip(shared, parts, strict=True)
                ]
            )
    return values, gradients


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().reshape(-1) for part in parts]).double()


@torch.no_grad()
def _changes(shared: Sequence[Tensor], act: Callable[[], object]) -> list[Tensor]:
    before = [parameter.detach().clone() for parameter in shared]
    act()
    return [p.detach() - old for p, old in zip(shared, before, strict=True)]


# Nothing of a measurement may be left behind


@contextmanager
def _kept(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Values as before after the block."""
    copies = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)


@contextmanager
def _kept_buffers(module: nn.Module | None) -> Iterator[None]:
    with _kept([] if module is None else list(module.buffers())):
        yield


@contextmanager
def _moved(shared: Sequence[Tensor], change: Sequence[Tensor]) -> Iterator[None]:
    """Parameters after a step, inside the block."""
    with _kept(shared):
        with torch.no_grad():
            for parameter, part in zip(shared, change, strict=True):
                parameter.add_(part)
        yield


@contextmanager
def _same_draws(shared: Sequence[Tensor]) -> Iterator[None]:
    """Every block begins with the same random numbers, which are put back: dropout draws alike."""
    devices = {p.device.index or 0 for p in shared if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)):
        yield


@contextmanager
def _undone(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Parameters, gradients and state as before after the block; inside, no gradients."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters]
    states = {p: dict(optimizer.state[p]) for p in parameters if p in optimizer.state}
    tensors = [v for state in states.values() for v in state.values() if isinstance(v, Tensor)]
    for parameter in parameters:
        parameter.grad = None
    try:
        with _kept([*parameters, *tensors]):
            yield
    finally:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
            optimizer.state.pop(parameter, None)
            if parameter in states:
                optimizer.state[parameter] = states[parameter]
