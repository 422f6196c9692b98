"""Attention in bfloat16 by plain products is the attention it stands in for."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from perception import attention as module
from perception.attention import attention


def tensors(batch: int, n_queries: int, n_keys: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(batch, 2, n_queries, 8), *[(batch, 2, n_keys, 8)] * 2, (2, n_queries, n_keys)]
    return [torch.randn(size, generator=generator) for size in sizes]


def gradients(given: list[Tensor], function, dtype: torch.dtype) -> list[Tensor]:
    """The result and the gradients of all that is given, in float32."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in given]
    found = function(*leaves)
    (found.float() * torch.linspace(-1, 1, found.numel()).view(found.shape)).sum().backward()
    return [found.detach().float(), *(leaf.grad.float() for leaf in leaves)]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("block", [1, 500, 2**20])
def test_products_learn_what_the_fused_kernel_learns(block: int, biased: bool, monkeypatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)  # one, two or all samples at a time
    given = tensors(5, 12, 9)[: 4 if biased else 3]

    def reference(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)

    exact = gradients(given, reference, torch.float32)
    for ours, right in zip(gradients(given, attention, torch.bfloat16), exact, strict=True):
        assert (ours - right).abs().max() < 0.02 * right.abs().max()


def test_products_are_for_learning_in_bfloat16_alone(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("products where the fused kernel is as quick or more exact")

    monkeypatch.setattr(module, "_products", refuse)
    query, key, value, _ = tensors(2, 4, 4)
    for dtype in (torch.float32, torch.bfloat16):
        given = [tensor.detach().to(dtype) for tensor in (query, key, value)]
        right = F.scaled_dot_product_attention(*given)
        torch.testing.assert_close(attention(*given), right, rtol=0, atol=0)
        leaves = [tensor.requires_grad_() for tensor in given]
        with torch.no_grad():
            torch.testing.assert_close(attention(*leaves), right, rtol=0, atol=0)
    with pytest.raises(AssertionError, match="products where"):
        attention(*leaves)


def test_an_empty_batch_stays_empty() -> None:
    query = torch.zeros(0, 2, 4, 8, dtype=torch.bfloat16, requires_grad=True)
    assert attention(query, query, query).shape == query.shape
