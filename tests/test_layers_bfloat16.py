"""Convolutions that learn by way of float32 give what torch's own give, and learn as exactly."""

import pytest
import torch
from torch import Tensor, nn

from perception.layers import Conv2d


def learned(layer: nn.Conv2d, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Result, gradient of the images and gradient of the weights, under autocast."""
    leaf = images.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(leaf)
    assert found.dtype == torch.bfloat16
    (found.float() * torch.linspace(-1, 1, found.numel()).view(found.shape)).sum().backward()
    weight = layer.weight.grad
    layer.zero_grad()
    return found.detach().float(), leaf.grad.float(), weight


@pytest.mark.parametrize("size", [(9, 12), (2, 5)])
@pytest.mark.parametrize(
    ("kernel", "stride", "groups"), [(3, 2, 8), (5, 2, 8), (3, 1, 8), (5, 1, 8), (3, 2, 1)]
)
def test_it_learns_what_float32_learns(
    kernel: int, stride: int, groups: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = Conv2d(8, 8, kernel, stride, kernel // 2, groups=groups)
    images = torch.randn(3, 8, *size).to(torch.bfloat16)
    exact = images.float().requires_grad_()
    result = layer(exact)
    (result * torch.linspace(-1, 1, result.numel()).view(result.shape)).sum().backward()
    right = (result.detach(), exact.grad, layer.weight.grad)
    layer.zero_grad()
    for ours, other in zip(learned(layer, images), right, strict=True):
        assert (ours - other).abs().max() < 0.02 * other.abs().max()


def test_only_what_learns_slowly_in_bfloat16_goes_by_float32() -> None:
    images, small = torch.randn(2, 8, 6, 6), torch.randn(2, 8, 6, 2)
    quick, strided = Conv2d(8, 8, 3, 1, 1, groups=8), Conv2d(8, 8, 3, 2, 1, groups=8)
    large, dense = Conv2d(8, 8, 5, 1, 2, groups=8), Conv2d(8, 8, 5, 2, 2)
    layers = (quick, strided, large, dense)
    assert not any(layer._slow(images) for layer in layers)  # float32
    with torch.autocast("cpu", torch.bfloat16):
        assert [layer._slow(images) for layer in layers] == [False, True, True, False]
        assert [layer._slow(small) for layer in layers] == [True, True, True, False]
        with torch.no_grad():
            assert not strided._slow(images)
            right = nn.Conv2d.forward(strided, images)
            torch.testing.assert_close(strided(images), right, rtol=0, atol=0)
        strided.requires_grad_(False)
        assert not strided._slow(images)
