"""Recall of a retrieval in both directions, over queries; and chance beside it."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CUTOFFS = (1, 5, 10)
"""k of the recalls whose mean is the mean recall (Karpathy and Fei-Fei 2015, and MURAL)."""

Ranks = NDArray[np.int64]


def ranks(
    queries: Tensor, items: Tensor, query_keys: Sequence[Hashable], item_keys: Sequence[Hashable]
) -> Ranks:
    """For each query, how many wrong items fit it better than the best right one, or as well.

    An item is right if its key is the query's: two pictures with the same caption are both right.

    Args:
        queries: `(N, D)` of length 1.
        items: `(M, D)` of length 1.
        query_keys: N keys.
        item_keys: M keys.

    Returns:
        `(N,)`, 0 where a right item comes first. Equal scores count against.

    Raises:
        ValueError: if a query has no right item.
    """
    return ranks_of(queries @ items.T, query_keys, item_keys)


def ranks_of(
    scores: Tensor, query_keys: Sequence[Hashable], item_keys: Sequence[Hashable]
) -> Ranks:
    """The same, from `(N, M)` scores."""
    numbers: dict[Hashable, int] = {}
    there = torch.tensor([numbers.setdefault(key, len(numbers)) for key in item_keys])
    missing = next((key for key in query_keys if key not in numbers), None)
    if missing is not None:
        raise ValueError(f"no right item for the query {missing!r:.60}")
    wanted = torch.tensor([numbers[key] for key in query_keys])
    right = wanted[:, None] == there[None, :]
    best = scores.masked_fill(~right, float("-inf")).amax(1, keepdim=True)
    # What is not a number fits nothing, and is never right.
    better = ~(scores < best) & ~right
    return better.sum(1).numpy().astype(np.int64)


def mean_recall(*directions: Ranks) -> float:
    """Mean of R@1, R@5 and R@10 over directions, from 0 to 1."""
    return float(np.mean([[(one < k).mean() for k in CUTOFFS] for one in directions]))


def recalls(found: Ranks) -> dict[str, float]:
    """R@1, R@5 and R@10 of one direction."""
    return {f"R@{k}": float((found < k).mean()) for k in CUTOFFS}


def chance_mean_recall(query_keys: Sequence[Hashable], item_keys: Sequence[Hashable]) -> float:
    """Expected mean recall of one direction where items come in random order.

    With r right ones of M, none is among the first k with probability C(M - r, k) / C(M, k).
    """
    total = len(item_keys)
    counts: dict[Hashable, int] = {}
    for key in item_keys:
        counts[key] = counts.get(key, 0) + 1
    values = []
    for key in query_keys:
        wrong = total - counts[key]
        for k in CUTOFFS:
            draws = np.arange(min(k, total))
            values.append(1.0 - float(np.prod(np.maximum(wrong - draws, 0) / (total - draws))))
    return float(np.mean(values))


def bootstrap_mean_recall(
    directions: Sequence[Ranks], draws: int = 1000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean recall over queries; pairs are drawn together.

    Args:
        directions: ranks of each direction. Those of one length are drawn by the same rows: query i
            of one direction and query i of the other are the two sides of a pair.
        draws: of the bootstrap.
        seed: of the draws.
        confidence: coverage.
    """
    rng = np.random.default_rng(seed)
    hits = [np.mean([one < k for k in CUTOFFS], axis=0) for one in directions]
    found = np.empty(draws)
    for draw in range(draws):
        rows = {n: rng.integers(n, size=n) for n in {len(one) for one in hits}}
        found[draw] = np.mean([one[rows[len(one)]].mean() for one in hits])
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)
