"""MURAL's losses by hand, as the paper prints them, and in chunks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from perception.mural.gradient_cache import backward_in_chunks
from perception.mural.losses import (
    LARGEST_SCALE,
    TaskWeights,
    duplicates,
    sigmoid_loss,
    softmax_loss,
)

X = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
Y = torch.tensor([[0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
ZERO = torch.tensor(0.0, dtype=torch.float64)


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    values = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).double()
    return F.normalize(values, dim=1)


def printed(x: torch.Tensor, y: torch.Tensor, tau: float) -> float:
    """-1/N sum_i log(exp(x_i . y_i / tau) / sum_j exp(x_i . y_j / tau)), term by term."""
    total = 0.0
    for i in range(len(x)):
        terms = [math.exp(float(x[i] @ y[j]) / tau) for j in range(len(y))]
        total += math.log(terms[i] / sum(terms))
    return -total / len(x)


def test_two_pairs_by_hand() -> None:
    # Logits at tau = 1 are [[0.6, 0], [0.8, 1]].
    there = (math.log(1 + math.exp(-0.6)) + math.log(1 + math.exp(-0.2))) / 2
    back = (math.log(1 + math.exp(0.2)) + math.log(1 + math.exp(-1.0))) / 2
    assert float(softmax_loss(X, Y, ZERO)) == pytest.approx(there + back, abs=1e-12)


def test_the_sigmoid_of_two_pairs_by_hand() -> None:
    # s = 2, b = -1: z of pairs 0.2 and 1, of others -1 and 0.6.
    scale, bias = torch.tensor(math.log(2.0)).double(), torch.tensor(-1.0).double()
    sigmoid = [math.log(1 + math.exp(-z)) for z in (0.2, 1.0, 1.0, -0.6)]
    assert float(sigmoid_loss(X, Y, scale, bias)) == pytest.approx(sum(sigmoid) / 2, abs=1e-7)


@pytest.mark.parametrize("tau", [0.07, 0.5, 2.0])
def test_the_softmax_is_the_paper_s_equation_in_both_directions(tau) -> None:
    x, y = unit(5, 3, 1), unit(5, 3, 2)
    scale = torch.tensor(math.log(1 / tau)).double()
    assert float(softmax_loss(x, y, scale)) == pytest.approx(
        printed(x, y, tau) + printed(y, x, tau), rel=1e-6
    )


@given(st.integers(0, 1000), st.integers(2, 6))
def test_losses_do_not_depend_on_order_or_side(seed, n) -> None:
    x, y = unit(n, 4, seed), unit(n, 4, seed + 1)
    scale, bias = torch.tensor(1.5).double(), torch.tensor(-2.0).double()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for loss in (
        lambda a, b: softmax_loss(a, b, scale),
        lambda a, b: sigmoid_loss(a, b, scale, bias),
    ):
        assert torch.allclose(loss(x, y), loss(y, x))
        assert torch.allclose(loss(x, y), loss(x[order], y[order]))


def test_the_temperature_is_held() -> None:
    x, y = unit(4, 3, 0), unit(4, 3, 1)
    held = torch.tensor(math.log(LARGEST_SCALE)).double()
    assert torch.allclose(softmax_loss(x, y, held), softmax_loss(x, y, held + 5))


def test_pairs_that_say_the_same_are_no_negatives() -> None:
    same = duplicates(["a", "b", "a"])
    assert same is not None
    assert same.tolist() == [[False, False, True], [False, False, False], [True, False, False]]
    assert duplicates(["a", "b"], ["c", "d"]) is None
    both = duplicates(["a", "b", "c"], ["x", "y", "y"])
    assert both is not None
    assert both[1, 2]
    x, y = unit(3, 3, 0), unit(3, 3, 1)
    # Without the two others, the first row has the second alone as its negative.
    logits = (x @ y.T)[0, :2]
    other = x @ y.T
    rows = [logits.log_softmax(0)[0], other[1].log_softmax(0)[1], other[2, 1:].log_softmax(0)[1]]
    columns = [
        other[:2, 0].log_softmax(0)[0], other[:, 1].log_softmax(0)[1],
        other[1:, 2].log_softmax(0)[1],
    ]  # fmt: skip
    expected = -torch.stack(rows).mean() - torch.stack(columns).mean()
    assert torch.allclose(softmax_loss(x, y, ZERO, same), expected)
    full = sigmoid_loss(x, y, ZERO, ZERO)
    less = sigmoid_loss(x, y, ZERO, ZERO, same)
    left = F.logsigmoid(-other[0, 2]) + F.logsigmoid(-other[2, 0])
    assert torch.allclose(full - less, -left / 3)


def test_a_diagonal_in_the_mask_changes_nothing() -> None:
    x, y = unit(3, 3, 0), unit(3, 3, 1)
    every = torch.eye(3, dtype=torch.bool)
    assert torch.allclose(softmax_loss(x, y, ZERO, every), softmax_loss(x, y, ZERO))


def test_what_is_no_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="pair each row"):
        softmax_loss(X, Y[:1], ZERO)
    with pytest.raises(ValueError, match="not both 0"):
        TaskWeights(0.0, 0.0)
    with pytest.raises(ValueError, match="0 or more"):
        TaskWeights(-1.0, 1.0)


def towers() -> tuple[nn.Module, nn.Module, nn.Parameter]:
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    two = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4)).double()
    return one, two, nn.Parameter(torch.tensor(2.0).double())


@pytest.mark.parametrize("chunk", [1, 3, 7, 20])
def test_gradients_in_chunks_are_those_of_the_whole_batch(chunk) -> None:
    one, two, scale = towers()
    a, b = torch.randn(20, 5).double(), torch.randn(20, 3).double()
    parameters = [*one.parameters(), *two.parameters(), scale]

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return softmax_loss(F.normalize(x, dim=1), F.normalize(y, dim=1), scale)

    whole = loss(one(a), two(b))
    expected = torch.autograd.grad(whole, parameters)
    sides = [
        [lambda part=part, net=net: net(part) for part in every.split(chunk)]
        for net, every in ((one, a), (two, b))
    ]
    found = backward_in_chunks(sides, loss)
    assert float(found) == pytest.approx(float(whole.detach()), abs=1e-12)
    for parameter, wanted in zip(parameters, expected, strict=True):
        assert parameter.grad is not None
        assert (parameter.grad - wanted).abs().max() < 1e-6


def test_dropout_is_the_same_in_both_passes() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 3)).double()
    a = torch.randn(6, 4).double()
    seen: list[torch.Tensor] = []

    def encode(part: torch.Tensor) -> torch.Tensor:
        seen.append(net(part))
        return seen[-1]

    backward_in_chunks([[lambda: encode(a[:3]), lambda: encode(a[3:])]], lambda x: (x * x).sum())
    assert torch.equal(seen[0], seen[2].detach())
    assert torch.equal(seen[1], seen[3].detach())
    assert not torch.equal(seen[0], seen[1])


def test_a_side_without_chunks_is_refused() -> None:
    with pytest.raises(ValueError, match="one chunk"):
        backward_in_chunks([[]], lambda x: x.sum())
