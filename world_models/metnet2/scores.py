"""Scores of probabilistic forecasts on grids; maps of scores, NaN where nothing can be scored.

A binned forecast has probabilities `(..., K, H, W)` over bins with edges `(K + 1,)`. Bin 0 is the
dry one: its probability is an atom at the first edge (no rain at all). Within each other bin it is
spread evenly, so that the cumulative distribution F is piecewise linear. What was observed beyond
the last edge is scored as it is.

A cell is not scored where the observation or any of its probabilities is NaN, or `valid` is False:
`numpy.nanmean` of a map is the score.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]
Map = NDArray[np.float32]
_CHUNK = 16_384  # Cells at a time: their arrays stay in the cache.


def crps(
    probabilities: Floats,
    edges: ArrayLike,
    observed: Floats,
    valid: NDArray[np.bool_] | None = None,
) -> Map:
    """Continuous ranked probability score, the exact integral of (F(x) - 1[x >= observed])^2.

    Source: Hersbach 2000, "Decomposition of the Continuous Ranked Probability Score", eq. 1. For a
    forecast that is certain it is the absolute error.

    Args:
        probabilities: `(..., K, H, W)`, sums of 1 over K.
        edges: `(K + 1,)` rising, in the unit of the observation.
        observed: `(..., H, W)`.
        valid: `(..., H, W)` cells that are scored.

    Returns:
        `(..., H, W)` in the unit of the observation, lower is better.

    Raises:
        ValueError: for shapes or edges that do not fit.
    """
    return _by_chunks(_exact, probabilities, edges, observed, valid)


def crps_steps(
    probabilities: Floats,
    edges: ArrayLike,
    observed: Floats,
    valid: NDArray[np.bool_] | None = None,
) -> Map:
    """CRPS as MetNet-2 computes it: a sum over bins of width times (F_b - 1[o <= b])^2.

    Source: Espeholt et al. 2022, "Deep learning for twelve hour precipitation forecasts", methods.
    F_b is the probability up to the upper edge of bin b, with which the observation is compared.

    Args:
        probabilities: as of `crps`.
        edges: as of `crps`.
        observed: as of `crps`.
        valid: as of `crps`.

    Returns:
        `(..., H, W)` in the unit of the observation.

    Raises:
        ValueError: for shapes or edges that do not fit.
    """
    return _by_chunks(_steps, probabilities, edges, observed, valid)


def _exact(p: Floats, edges: Floats, o: Floats) -> Floats:
    """`(n,)` scores of `(K, n)` probabilities."""
    total: Floats = np.maximum(o - edges[-1], 0) + np.maximum(edges[0] - o, 0)
    low = p[0].copy()  # F at the lower edge of a bin
    high = low.copy()
    for k in range(len(p)):
        width = edges[k + 1] - edges[k]
        if k:
            low, high = high, low
            np.add(low, p[k], out=high)
        # The observation splits the bin at the share t: below it F^2 counts, above it (1 - F)^2.
        t = np.clip((o - edges[k]) * (1 / width), 0, 1)
        middle = low + t * (high - low)
        below = low * low + middle * (low + middle)
        rest, end = 1 - middle, 1 - high
        above = rest * rest + end * (rest + end)
        below -= above
        below *= t
        below += above
        below *= width / 3
        total += below
    return total


def _steps(p: Floats, edges: Floats, o: Floats) -> Floats:
    total = 0 * o  # NaN where nothing was observed
    cumulative = np.zeros_like(o)
    for k in range(len(p)):
        cumulative += p[k]
        total += (edges[k + 1] - edges[k]) * (cumulative - (o <= edges[k + 1])) ** 2
    return total


def _by_chunks(
    score: Callable[[Floats, Floats, Floats], Floats],
    probabilities: Floats,
    edges: ArrayLike,
    observed: Floats,
    valid: NDArray[np.bool_] | None,
) -> Map:
    ends = check_forecast(probabilities, edges, observed.shape)
    _check_valid(valid, observed.shape)
    n_bins = len(ends) - 1
    cells = observed.shape[-2] * observed.shape[-1]
    p = probabilities.reshape(-1, n_bins, cells)
    o = observed.reshape(-1, cells)
    found = np.empty(o.shape, np.float32)
    for block in range(len(o)):
        for start in range(0, cells, _CHUNK):
            part = slice(start, start + _CHUNK)
            rows = np.ascontiguousarray(p[block, :, part], np.float32)
            found[block, part] = score(rows, ends, o[block, part].astype(np.float32))
    scored: Map = found.reshape(observed.shape)
    if valid is not None:
        scored[~valid] = np.nan
    return scored


def check_forecast(
    probabilities: Floats, edges: ArrayLike, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Edges as float32.

    Raises:
        ValueError: if they do not rise, or probabilities do not fit them or the observation.
    """
    ends = np.asarray(edges, np.float64)
    if ends.ndim != 1 or len(ends) < 2 or not np.isfinite(ends).all() or (np.diff(ends) <= 0).any():
        raise ValueError("edges must be (K + 1,) finite and rising")
    if len(shape) < 2:
        raise ValueError(f"an observation must be (..., H, W), got {shape}")
    expected = (*shape[:-2], len(ends) - 1, *shape[-2:])
    if probabilities.shape != expected:
        raise ValueError(f"probabilities must be {expected}, got {probabilities.shape}")
    return ends.astype(np.float32)


def _check_valid(valid: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> None:
    if valid is not None and (valid.dtype != np.bool_ or valid.shape != shape):
        raise ValueError(f"valid must be bool {shape}, got {valid.dtype} {valid.shape}")


def crps_ensemble(members: Floats, observed: Floats, fair: bool = False) -> Map:
    """CRPS of an ensemble: mean |x - o| minus half the mean |x - x'|.

    Source: Gneiting and Raftery 2007, "Strictly Proper Scoring Rules", eq. 21; the fair form
    (Ferro 2014) leaves out the pairs of a member with itself, as if there were more members. One
    member's is the absolute error.

    Args:
        members: `(M, ..., H, W)`.
        observed: `(..., H, W)`.
        fair: whether pairs are of different members; needs two.

    Returns:
        `(..., H, W)` in the unit of the observation; NaN where a member or the observation is.

    Raises:
        ValueError: for shapes that do not fit, or a fair score of one member.
    """
    n = len(members)
    if members.shape[1:] != observed.shape or n < 1:
        raise ValueError(f"members must be (M, *{observed.shape}), got {members.shape}")
    if fair and n < 2:
        raise ValueError("the fair score needs two members or more")
    error = np.abs(members - observed).mean(axis=0, dtype=np.float64)
    # Sum over pairs of |x - x'| from the order: the k-th smallest counts 2 k - n - 1 times.
    ordered = np.sort(members, axis=0)
    spread = np.zeros(observed.shape, np.float64)
    for k in range(n):
        spread += (2 * k - n + 1) * ordered[k]
    pairs = n * (n - 1) if fair else n * n
    return (error - spread / pairs).astype(np.float32)


def exceedance(probabilities: Floats, edges: ArrayLike, threshold: float) -> Map:
    """Probability of a value of at least a threshold.

    Args:
        probabilities: `(..., K, H, W)`.
        edges: `(K + 1,)`.
        threshold: between the first edge and the last; at or below the first all values are.

    Returns:
        `(..., H, W)` in [0, 1].
    """
    shape = (*probabilities.shape[:-3], *probabilities.shape[-2:])
    ends = check_forecast(probabilities, edges, shape)
    if threshold <= ends[0]:
        return np.where(np.isnan(probabilities[..., 0, :, :]), np.nan, 1).astype(np.float32)
    shares = np.clip((ends[1:] - threshold) / np.diff(ends), 0, 1)
    shares[0] = 0.0  # the atom lies at the first edge
    return np.einsum("...khw,k->...hw", probabilities, shares.astype(np.float32))


def exceedance_ensemble(members: Floats, threshold: float) -> Map:
    """Share of the members of at least a threshold, `(..., H, W)`; NaN where a member is."""
    above = (members >= threshold).mean(axis=0, dtype=np.float32)
    above[np.isnan(members).any(axis=0)] = np.nan
    return above


def brier(probability: Floats, event: NDArray[np.floating] | NDArray[np.bool_]) -> Map:
    """Squared error of probabilities of an event (1 where it happened, NaN unknown)."""
    return ((probability - event) ** 2).astype(np.float32)


def log_loss(
    probability: Floats,
    event: NDArray[np.floating] | NDArray[np.bool_],
    least: float = 1e-4,
) -> Map:
    """Negative log likelihood of an event in nats, probabilities kept `least` away from 0 and 1."""
    p = np.clip(np.asarray(probability, np.float64), least, 1 - least)
    happened = np.asarray(event, np.float64)
    return (-(happened * np.log(p) + (1 - happened) * np.log(1 - p))).astype(np.float32)


def occurred(observed: Floats, threshold: float) -> Map:
    """1 where a threshold was reached, 0 where not, NaN where nothing was observed."""
    return np.where(np.isnan(observed), np.nan, observed >= threshold).astype(np.float32)


def csi(probability: Floats, event: Floats, decision: float = 0.5) -> float:
    """Critical success index: hits / (hits + misses + false alarms); NaN if there are none.

    Args:
        probability: of the event, any shape.
        event: 1, 0 or NaN.
        decision: probability at and above which the event is forecast.
    """
    known = ~(np.isnan(probability) | np.isnan(event))
    said, happened = probability[known] >= decision, event[known] > 0
    either = int((said | happened).sum())
    return int((said & happened).sum()) / either if either else float("nan")


def decision_counts(
    probability: Floats, event: Floats, levels: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """What deciding at some probabilities would have given.

    Args:
        probability: of the event, any shape.
        event: 1, 0 or NaN.
        levels: `(N,)` probabilities at and above which the event is forecast.

    Returns:
        `(N,)` how often it was forecast, `(N,)` how often rightly, and how often it happened.
    """
    known = ~(np.isnan(probability) | np.isnan(event))
    p, happened = probability[known], event[known] > 0
    wet = np.sort(p[happened])
    levels = np.asarray(levels)
    said = len(p) - np.searchsorted(np.sort(p), levels, side="left")
    hits = len(wet) - np.searchsorted(wet, levels, side="left")
    return said, hits, len(wet)


def csi_of_counts(
    said: NDArray[np.int64], hits: NDArray[np.int64], happened: int
) -> NDArray[np.float64]:
    """CSI of each level of `decision_counts`; NaN where nothing happened and nothing was said."""
    either = said + happened - hits
    return np.where(either > 0, hits / np.maximum(either, 1), np.nan)


def tune_decision(probability: Floats, event: Floats, candidates: int = 49) -> float:
    """The probability at which deciding gives the best CSI; choose it on other data than the test.

    Args:
        probability: of the event, any shape.
        event: 1, 0 or NaN.
        candidates: evenly spaced in (0, 1).

    Returns:
        The best; the one nearest to 0.5 of equals, and 0.5 if there is no event.
    """
    levels = np.arange(1, candidates + 1) / (candidates + 1)
    return best_level(levels, csi_of_counts(*decision_counts(probability, event, levels)))


def best_level(levels: NDArray[np.float64], index: NDArray[np.float64]) -> float:
    """The level of the greatest CSI; of equals the one nearest to 0.5."""
    index = np.nan_to_num(index)
    best = np.flatnonzero(index == index.max())
    return float(levels[best[np.argmin(np.abs(levels[best] - 0.5))]])
