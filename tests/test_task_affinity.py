"""Affinities of tasks: by hand, by both forms, and without a trace in what was measured."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from learning.adamw import FlatAdamW
from learning.flat import FlatParameters
from learning.task_affinity import (
    AffinityMeter,
    affinities,
    first_order,
    flat_step,
    look_ahead,
    optimizer_step,
)

Losses = Callable[[], dict[str, Tensor]]


def quadratics(theta: Tensor) -> Losses:
    """1 + theta^2 and 1 + (theta - 2)^2: at theta = 1, 2 and 2 with gradients 2 and -2."""
    return lambda: {"left": 1 + theta.square().sum(), "right": 1 + (theta - 2).square().sum()}


def test_the_look_ahead_of_two_quadratics_is_as_by_hand() -> None:
    theta = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    step = optimizer_step(torch.optim.SGD([theta], lr=0.1, momentum=0.9), [theta])
    # A step for the left one leads to 0.8: losses 1.64 and 2.44; for the right one to 1.2.
    found = look_ahead(quadratics(theta), [theta], step)
    expected = torch.tensor([[1 - 1.64 / 2, 1 - 2.44 / 2], [1 - 2.44 / 2, 1 - 1.64 / 2]])
    torch.testing.assert_close(found, expected.double(), rtol=0, atol=1e-7)
    # To first order: minus slope times step over loss, 2 * 0.2 / 2 on the diagonal.
    linear = first_order(quadratics(theta), [theta], step)
    torch.testing.assert_close(linear, torch.tensor([[0.2, -0.2], [-0.2, 0.2]]).double())


def test_the_look_ahead_carries_the_momentum() -> None:
    theta = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([theta], lr=0.1, momentum=0.5)
    theta.grad = torch.tensor([-4.0], dtype=torch.float64)
    optimizer.step()  # velocity v = 0.4, theta = 1.4
    with torch.no_grad():
        theta.fill_(1.0)
    step = optimizer_step(optimizer, [theta])
    # m v - lr g: 0.2 - 0.2 = 0 for the left one, 0.2 + 0.2 for the right one, to 1.4.
    found = look_ahead(quadratics(theta), [theta], step)
    expected = [[0.0, 0.0], [1 - 2.96 / 2, 1 - 1.36 / 2]]
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=1e-7)


def test_affinity_is_not_divided_by_the_learning_rate() -> None:
    # The published notebook divides; halving the rate would then leave small steps as they were.
    theta = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    found = [
        look_ahead(
            quadratics(theta), [theta], optimizer_step(torch.optim.SGD([theta], lr=lr), [theta])
        )
        for lr in (1e-3, 5e-4)
    ]
    torch.testing.assert_close(found[0], 2 * found[1], rtol=1e-2, atol=0)


def test_parameters_of_single_tasks_do_not_step() -> None:
    shared = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    own = [nn.Parameter(torch.tensor([2.0], dtype=torch.float64)) for _ in range(2)]

    def losses() -> dict[str, Tensor]:
        return {str(i): 5 + (shared * one).sum() for i, one in enumerate(own)}

    optimizer = torch.optim.SGD([shared, *own], lr=0.1)
    found = look_ahead(losses, [shared], optimizer_step(optimizer, [shared]))
    # The shared one goes from 1 to 0.8, the loss from 7 to 6.6; with own steps it would be lower.
    torch.testing.assert_close(found, torch.full((2, 2), 1 - 6.6 / 7).double())


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
}


class Net(nn.Module):
    """An encoder with everything that could remember a measurement, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 6)
        )
        self.heads = nn.ModuleList([nn.Linear(6, 1), nn.Linear(6, 1)])
        self.x, self.y = torch.randn(16, 4), torch.randn(16, 2)

    def losses(self) -> dict[str, Tensor]:
        features = self.encoder(self.x)
        return {
            f"task {k}": (head(features)[:, 0] - self.y[:, k]).square().mean()
            for k, head in enumerate(self.heads)
        }

    def shared(self) -> list[nn.Parameter]:
        return list(self.encoder.parameters())


def trained(name: str, steps: int) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = Net()
    optimizer = OPTIMIZERS[name](net.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack(list(net.losses().values())).sum().backward()
        optimizer.step()
    return net, optimizer


def everything(net: Net, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return copy.deepcopy(
        {
            "tensors": dict(net.state_dict()),
            "gradients": [p.grad for p in net.parameters()],
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
    )


def assert_equal(first: Any, second: Any) -> None:
    if isinstance(first, Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    else:
        assert first == second


@pytest.mark.parametrize("method", ["look-ahead", "first-order"])
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_measurement_leaves_everything_bit_by_bit(name: str, steps: int, method: Any) -> None:
    net, optimizer = trained(name, steps)
    before = everything(net, optimizer)
    step = optimizer_step(optimizer, net.shared())
    found = affinities(net.losses, net.shared(), step, method, net)
    assert found.shape == (2, 2)
    assert found.abs().min() > 0
    assert_equal(everything(net, optimizer), before)
    # And the optimiser goes on as one that was never asked.
    other, their = trained(name, steps)
    for model, rule in ((net, optimizer), (other, their)):
        torch.manual_seed(5)
        rule.zero_grad()
        torch.stack(list(model.losses().values())).sum().backward()
        rule.step()
    assert_equal(dict(net.state_dict()), dict(other.state_dict()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_step_is_the_one_the_optimiser_takes(name: str) -> None:
    net, optimizer = trained(name, 3)
    shared = net.shared()
    gradients = [torch.randn_like(p) for p in shared]
    foretold = optimizer_step(optimizer, shared)(gradients)
    before = [p.detach().clone() for p in shared]
    optimizer.zero_grad()
    for parameter, gradient in zip(shared, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()
    for old, parameter, part in zip(before, shared, foretold, strict=True):
        assert torch.equal(parameter.detach() - old, part)


def test_a_step_on_flat_parameters_is_the_one_of_the_training_loop() -> None:
    torch.manual_seed(0)
    net = Net()
    parameters = FlatParameters(net, matrices_apart=True)
    optimizer = FlatAdamW(parameters, weight_decay=0.1)
    for _ in range(3):
        parameters.zero_grad()
        torch.stack(list(net.losses().values())).sum().backward()
        optimizer.step(1e-3)
    shared = net.shared()
    gradients = [torch.randn_like(p) for p in shared]
    tensors = [*parameters.tensors, *parameters.grads, *optimizer.state().values()]
    kept = [one.detach().clone() for one in tensors]
    foretold = flat_step(parameters, optimizer, shared, 1e-3, grad_clip=1.0)(gradients)
    assert all(map(torch.equal, tensors, kept))
    assert parameters.intact()

    before = [p.detach().clone() for p in shared]
    parameters.zero_grad()
    for parameter, gradient in zip(shared, gradients, strict=True):
        assert parameter.grad is not None
        parameter.grad.copy_(gradient)
    parameters.clip_grad(1.0)
    optimizer.step(1e-3)
    for old, parameter, part in zip(before, shared, foretold, strict=True):
        assert torch.equal(parameter.detach() - old, part)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), momentum=st.sampled_from([0.0, 0.9]))
def test_the_look_ahead_tends_to_its_first_order_form(seed: int, momentum: float) -> None:
    torch.manual_seed(seed)
    theta = nn.Parameter(torch.randn(5, dtype=torch.float64))
    frames = [torch.randn(5, 5, dtype=torch.float64) for _ in range(3)]

    def losses() -> dict[str, Tensor]:
        return {str(k): 1 + (a @ theta).tanh().square().sum() for k, a in enumerate(frames)}

    gaps = []
    for lr in (1e-3, 1e-4):
        optimizer = torch.optim.SGD([theta], lr=lr, momentum=momentum)
        if momentum:
            buffer = torch.linspace(-1, 1, 5, dtype=torch.float64)
            optimizer.state[theta]["momentum_buffer"] = buffer
        step = optimizer_step(optimizer, [theta])
        exact = look_ahead(losses, [theta], step)
        gaps.append(float((exact - first_order(losses, [theta], step)).abs().max()) / lr)
    # What is left is of second order: divided by the rate it shrinks as the rate does.
    assert gaps[1] <= 0.2 * gaps[0] + 1e-9


def test_tasks_that_share_nothing_do_not_move_each_other() -> None:
    first, second = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    optimizer = torch.optim.SGD([first, second], lr=0.1)

    def losses() -> dict[str, Tensor]:
        return {"a": 1 + first.square().sum(), "b": 1 + second.square().sum()}

    for method in (look_ahead, first_order):
        found = method(losses, [first, second], optimizer_step(optimizer, [first, second]))
        assert found[0, 1] == found[1, 0] == 0
        assert found.diagonal().min() > 0


def test_dropout_draws_alike_before_and_after_the_step() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.ones(64, dtype=torch.float64))

    def losses() -> dict[str, Tensor]:
        kept = torch.nn.functional.dropout(weight, 0.5).sum()
        return {"a": 100 + kept, "b": 200 + kept}

    step = optimizer_step(torch.optim.SGD([weight], lr=1e-9), [weight])
    # With other masks the loss would change by whole numbers.
    assert look_ahead(losses, [weight], step).abs().max() < 1e-6


def test_a_meter_gives_the_mean_and_goes_through_a_state_dict() -> None:
    meter = AffinityMeter(2)
    with pytest.raises(ValueError, match="no affinity was measured"):
        meter.mean()
    meter.add(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 0.5)
    other = AffinityMeter(2)
    other.load_state_dict(meter.state_dict())
    other.add(torch.tensor([[3.0, 2.0], [1.0, 0.0]]), 0.25)
    assert other.mean().tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert (int(other.count), float(other.seconds)) == (2, 0.75)
    with pytest.raises(ValueError, match="at least 2 tasks, got 1"):
        AffinityMeter(1)


def test_what_cannot_be_measured_is_refused() -> None:
    theta = nn.Parameter(torch.ones(1))
    step = optimizer_step(torch.optim.SGD([theta], lr=0.1), [theta])
    method: Any = "guess"
    with pytest.raises(ValueError, match="method must be one of look-ahead, first-order"):
        affinities(quadratics(theta), [theta], step, method)
    with pytest.raises(ValueError, match="must share parameters, got none"):
        look_ahead(quadratics(theta), [], step)
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="loss of bad must be positive and finite"):
            look_ahead(lambda bad=bad: {"bad": theta.sum() * 0 + bad}, [theta], step)
