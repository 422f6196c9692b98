"""Layers that backbones share."""

import pytest
import torch

from perception.layers import StochasticDepth, check_images


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = StochasticDepth(0.25)
    x = torch.ones(4000, 3, 2)
    out = layer(x)
    values = out.flatten(1)
    assert (values == values[:, :1]).all()
    assert values.unique().tolist() == pytest.approx([0.0, 4 / 3])
    # Four standard errors of a share of 4,000.
    assert abs((values[:, 0] == 0).float().mean() - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_stochastic_depth_does_nothing_in_evaluation_or_at_rate_0() -> None:
    x = torch.randn(5, 2)
    assert StochasticDepth(0.9).eval()(x) is x
    assert StochasticDepth(0.0).train()(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_no_chance_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate must be in"):
        StochasticDepth(rate)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(3, 8, 8), r"must be \(B, 3, H, W\), got \(3, 8, 8\)"),
        (torch.zeros(2, 4, 8, 8), r"got \(2, 4, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), r"got \(0, 3, 8, 8\)"),
        (torch.zeros(2, 3, 0, 8), r"got \(2, 3, 0, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "must be floats, got torch.uint8"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_images(images)


def test_images_of_other_channels_can_be_asked_for() -> None:
    check_images(torch.zeros(1, 1, 5, 7), channels=1)
