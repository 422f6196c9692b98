"""TokenLearner and TokenFuser by numbers worked by hand; see test_vision_transformer for parity."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from perception.token_learner import MIX_EPS, TokenFuser, TokenLearner, Version, as_map

# Two places, one beside the other. A layer norm makes (1, -1) of the first and (-1, 1) of the
# second, whatever their size.
PAIR = torch.tensor([[[[3.0, -3.0], [-1.0, 1.0]]]])


def gelu(x: float) -> float:
    """The approximation by tanh."""
    return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def put(layer: Any, *rows: list[float], bias: list[float] | None = None) -> None:
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))


@torch.no_grad()
def tap(layer: Any, row: int, column: int, *weights: float) -> None:
    """A 3x3 convolution that sees one place only: row 1, column 1 is the middle."""
    assert isinstance(layer, nn.Conv2d)
    layer.weight.zero_()
    layer.weight[0, :, row, column] = torch.tensor(weights)


# By hand


@torch.no_grad()
def test_version_1_1_by_hand() -> None:
    learner = TokenLearner(2, tokens=2, bottleneck=1)
    put(learner.weigh[0], [1.0, 0.0], bias=[0.0])
    put(learner.weigh[3], [1.0], [2.0])
    # Hidden units are gelu(1) and gelu(-1), which differ by 1: the first token gives the first
    # place a weight of sigmoid(1), the second of sigmoid(2).
    first, second = sigmoid(1), sigmoid(2)
    attention = learner.attention(PAIR)
    expected = torch.tensor([[[[first, 1 - first]], [[second, 1 - second]]]])
    torch.testing.assert_close(attention, expected, rtol=1e-5, atol=1e-5)
    # The features as they came are summed: 3 and -1.
    one, two = 0.731059 * 3 - 0.268941, 0.880797 * 3 - 0.119203
    torch.testing.assert_close(learner(PAIR), torch.tensor([[[one, -one], [two, -two]]]))


@torch.no_grad()
@pytest.mark.parametrize("upright", [False, True])
def test_version_1_0_by_hand(upright: bool) -> None:
    learner = TokenLearner(2, tokens=1, version="1.0")
    tap(learner.weigh[0], 1, 1, 1.0, 0.0)
    # The second convolution takes what is right of a place (below it), and 0 outside the map.
    tap(learner.weigh[2], *((2, 1) if upright else (1, 2)), 1.0)
    tap(learner.weigh[4], 1, 1, -10.0)
    tap(learner.weigh[6], 1, 1, 2.0)
    x = PAIR.transpose(1, 2) if upright else PAIR
    first = sigmoid(2 * gelu(-10 * gelu(gelu(-1))))
    assert first == pytest.approx(0.7406, abs=1e-3)
    expected = first * 3 - 0.5  # the second place sees only zeros: sigmoid(0)
    torch.testing.assert_close(
        learner(x), torch.tensor([[[expected, -expected]]]), rtol=1e-5, atol=1e-5
    )
    learner.pool = "mean"
    assert learner(x)[0, 0, 0].item() == pytest.approx(expected / 2, abs=1e-5)


@torch.no_grad()
def test_a_fuser_by_hand() -> None:
    fuser = TokenFuser(2, tokens=1, bottleneck=1)
    put(fuser.mix, [2.0])
    put(fuser.weigh[0], [1.0, 0.0], bias=[0.0])
    put(fuser.weigh[3], [1.0], bias=[0.5])
    # The token (3, -3) is normalised, doubled, and normalised again with the larger epsilon.
    mixed = 2 / math.sqrt(4 + MIX_EPS)
    first, second = (mixed * sigmoid(gelu(sign) + 0.5) for sign in (1, -1))
    out = fuser(torch.tensor([[[3.0, -3.0]]]), PAIR)
    expected = torch.tensor([[[[first, -first], [second, -second]]]])
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_fuser_mixes_tokens_before_it_spreads_them() -> None:
    fuser = TokenFuser(2, tokens=2, bottleneck=1)
    put(fuser.mix, [0.0, 5.0], [0.0, 0.0])  # the first becomes the second; the second nothing
    put(fuser.weigh[0], [0.0, 0.0], bias=[0.0])
    put(fuser.weigh[3], [0.0], [0.0], bias=[0.0, 0.0])
    out = fuser(torch.tensor([[[9.0, -9.0], [-2.0, 2.0]]]), PAIR)
    half = 0.5 * 5 / math.sqrt(25 + MIX_EPS)
    torch.testing.assert_close(out, torch.tensor([-half, half]).expand(1, 1, 2, 2))


# Properties


def learner_of(version: Version, seed: int = 0, **options: Any) -> TokenLearner:
    torch.manual_seed(seed)
    return TokenLearner(6, 3, version, bottleneck=5, **options).eval()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from(["1.0", "1.1"]))
def test_rows_of_any_grid_are_its_map(height: int, width: int, version: Version) -> None:
    learner = learner_of(version)
    x = torch.randn(2, height, width, 6)
    rows, grid = x.flatten(1, 2), (height, width)
    assert torch.equal(learner(rows, grid), learner(x))
    assert torch.equal(learner.attention(rows, grid), learner.attention(x))
    assert learner.attention(x).shape == (2, 3, height, width)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_tokens_are_sums_of_places_by_their_attention(version: Version) -> None:
    learner = learner_of(version)
    x = torch.randn(2, 3, 4, 6)
    expected = torch.einsum("bshw,bhwc->bsc", learner.attention(x), x)
    torch.testing.assert_close(learner(x), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_version_1_1_takes_places_in_any_order(seed: int) -> None:
    learner = learner_of("1.1", seed)
    x = torch.randn(1, 12, 6)
    order = torch.randperm(12)
    torch.testing.assert_close(learner(x[:, order], (4, 3)), learner(x, (3, 4)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_tokens_of_version_1_1_lie_between_the_places(seed: int) -> None:
    x = 3 * torch.randn(2, 12, 6)
    tokens = learner_of("1.1", seed)(x, (3, 4))
    assert (tokens <= x.amax(1, keepdim=True) + 1e-5).all()
    assert (tokens >= x.amin(1, keepdim=True) - 1e-5).all()


@torch.no_grad()
@pytest.mark.parametrize(
    ("version", "pool", "growth"), [("1.0", "sum", 4.0), ("1.0", "mean", 1.0), ("1.1", "sum", 1.0)]
)
def test_only_sums_grow_with_the_resolution(version: Version, pool: str, growth: float) -> None:
    learner = learner_of(version, pool=pool)
    for layer in learner.weigh:
        if isinstance(layer, nn.Conv2d):  # leave what sees one place: no borders to speak of
            layer.weight[..., torch.arange(9).view(3, 3) != 4] = 0
    x = torch.randn(2, 3, 5, 6)
    doubled = x.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(learner(doubled), growth * learner(x))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_maps_of_a_batch_do_not_see_each_other(version: Version) -> None:
    learner, fuser = learner_of(version), TokenFuser(6, 3, 5)
    nn.init.orthogonal_(fuser.mix.weight)
    x = torch.randn(3, 4, 5, 6)

    def run(maps: Tensor) -> Tensor:
        return fuser(learner(maps), maps)

    torch.testing.assert_close(torch.cat([run(x[i : i + 1]) for i in range(3)]), run(x))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_every_parameter_gets_a_gradient(version: Version) -> None:
    learner, fuser = learner_of(version), TokenFuser(6, 3, 5)
    nn.init.orthogonal_(fuser.mix.weight)
    x = torch.randn(2, 4, 5, 6)
    (fuser(learner(x), x) * torch.randn(2, 4, 5, 6)).sum().backward()
    for module in (learner, fuser):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 1e-6, name


# The TokenFuser


@pytest.mark.parametrize("shape", [(2, 12, 6), (2, 3, 4, 6)])
def test_a_new_fuser_says_nothing_in_the_shape_of_the_map(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    fuser = TokenFuser(6, 3)
    out = fuser(torch.randn(2, 3, 6), torch.randn(shape))
    assert torch.equal(out, torch.zeros(shape))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_the_gradient_of_a_new_fuser_is_bounded(seed: int, size: float) -> None:
    # d out / d mixed is at most 1 / sqrt(eps): the norm of zeros is no steeper. What is summed over
    # places, features and tokens is bounded by the norms of its factors (Cauchy and Schwarz).
    torch.manual_seed(seed)
    batch, places, n_tokens, width = 2, 12, 3, 6
    tokens = size * torch.randn(batch, n_tokens, width)
    slope = torch.randn(batch, places, width)
    gradients = {}
    for eps in (MIX_EPS, 1e-6):
        torch.manual_seed(seed)
        fuser = TokenFuser(width, n_tokens, 5, eps=eps)
        (fuser(tokens, torch.ones(batch, places, width)) * slope).sum().backward()
        assert fuser.mix.weight.grad is not None
        gradients[eps] = fuser.mix.weight.grad
    bound = slope.norm() * math.sqrt(places * n_tokens) * math.sqrt(batch * n_tokens * width)
    assert 0 < gradients[MIX_EPS].norm() <= bound / math.sqrt(MIX_EPS)
    # The epsilon of the release makes it a hundred times as large.
    torch.testing.assert_close(gradients[1e-6], 100 * gradients[MIX_EPS], rtol=1e-4, atol=1e-3)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    learner, fuser = TokenLearner(6, 3, dropout=0.5), TokenFuser(6, 3, dropout=0.5)
    nn.init.orthogonal_(fuser.mix.weight)
    x = torch.randn(2, 12, 6)
    tokens = learner(x, (3, 4))
    assert not torch.equal(learner(x, (3, 4)), tokens)
    assert not torch.equal(fuser(tokens, x), fuser(tokens, x))
    assert torch.equal(learner.eval()(x, (3, 4)), learner(x, (3, 4)))
    assert torch.equal(fuser.eval()(tokens, x), fuser(tokens, x))


# Errors


@pytest.mark.parametrize(
    ("shape", "grid"),
    [((2, 12, 6), None), ((2, 12, 6), (2, 5)), ((2, 3, 4, 6), (4, 3)), ((12, 6), (3, 4))],
)
def test_a_grid_that_does_not_fit_is_refused(
    shape: tuple[int, ...], grid: tuple[int, int] | None
) -> None:
    with pytest.raises(ValueError, match=r"with a grid \(h, w\) of N places; got"):
        as_map(torch.zeros(shape), grid)


def test_tokens_and_maps_of_other_sizes_are_refused() -> None:
    fuser = TokenFuser(6, 3)
    with pytest.raises(ValueError, match=r"tokens must be \(B, 3, 6\), got \(2, 4, 6\)"):
        fuser(torch.zeros(2, 4, 6), torch.zeros(2, 12, 6))
    with pytest.raises(ValueError, match=r"original must be .* got \(2, 12, 5\)"):
        fuser(torch.zeros(2, 3, 6), torch.zeros(2, 12, 5))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"tokens": 0}, "tokens and bottleneck must be at least 1, got 0 and 64"),
        ({"version": "1"}, "'1.0' or '1.1', got '1'"),
        ({"pool": "max", "version": "1.0"}, "'sum' or 'mean', got 'max'"),
        ({"pool": "mean"}, "the softmax of version 1.1 is a mean"),
    ],
)
def test_token_learners_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TokenLearner(**{"width": 6, **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [({"bottleneck": 0}, "at least 1, got 6, 3 and 0"), ({"eps": 0.0}, "eps must be positive")],
)
def test_fusers_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TokenFuser(6, 3, **options)
