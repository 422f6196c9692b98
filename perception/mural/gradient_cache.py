"""Large batches in chunks: the gradients of the whole batch, the memory of a chunk.

A contrastive loss needs the embeddings of all pairs at once, but not their networks' activations.
Embeddings are made without a graph, the loss is differentiated as to them, and each chunk is then
run again and given its part of that gradient.
Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Encode = Callable[[], Tensor]
"""Embeddings `(n, D)` of one chunk, with a graph where gradients are enabled."""


def backward_in_chunks(sides: Sequence[Sequence[Encode]], loss: Callable[..., Tensor]) -> Tensor:
    """Add the gradients of a loss over whole batches to the parameters of their encoders.

    The gradients are those of the whole batch where an encoder treats each sample by itself.
    Batch normalisation does not: its means are then those of chunks. Random numbers (dropout) are
    the same in both passes, but others than those of an unchunked batch.

    Args:
        sides: for each argument of the loss, its chunks in order, such as images and texts.
        loss: takes the embeddings `(N, D)` of each side, gives a scalar; its own parameters
            (temperature) get their gradients too.

    Returns:
        The loss, detached.

    Raises:
        ValueError: if a side has no chunk.
    """
    if not sides or not all(sides):
        raise ValueError("each side must have one chunk at least")
    embedded: list[Tensor] = []
    states: list[list[Tensor]] = []
    lengths: list[list[int]] = []
    with torch.no_grad():
        for chunks in sides:
            before, found = [], []
            for encode in chunks:
                before.append(torch.get_rng_state())
                found.append(encode())
            states.append(before)
            lengths.append([len(one) for one in found])
            embedded.append(torch.cat(found))
    leaves = [whole.requires_grad_() for whole in embedded]
    with torch.enable_grad():
        value = loss(*leaves)
        value.backward()
    after = torch.get_rng_state()
    for chunks, before, sizes, leaf in zip(sides, states, lengths, leaves, strict=True):
        if leaf.grad is None:
            continue  # the loss does not depend on this side
        for encode, state, grad in zip(chunks, before, leaf.grad.split(sizes), strict=True):
            torch.set_rng_state(state)
            encode().backward(grad)
    torch.set_rng_state(after)
    return value.detach()
