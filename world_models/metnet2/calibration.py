"""Whether what is forecast with 30 % happens in 30 % of the cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram; counts of several forecasts add up.

    Attributes:
        counts: `(B,)` cases by forecast probability, in bins of equal width over [0, 1].
        forecast: `(B,)` sums of the probabilities.
        happened: `(B,)` cases in which the event happened.
    """

    counts: NDArray[np.int64]
    forecast: NDArray[np.float64]
    happened: NDArray[np.float64]

    def __add__(self, other: Reliability) -> Reliability:
        """Both taken together."""
        return Reliability(
            self.counts + other.counts,
            self.forecast + other.forecast,
            self.happened + other.happened,
        )

    @property
    def points(self) -> NDArray[np.float64]:
        """`(B, 2)` mean probability and frequency of each bin; NaN where it is empty."""
        n = np.where(self.counts > 0, self.counts, 1)
        found = np.stack([self.forecast / n, self.happened / n], axis=1)
        found[self.counts == 0] = np.nan
        return found

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean distance of frequency and probability over all cases."""
        total = int(self.counts.sum())
        if not total:
            return float("nan")
        return float(np.abs(self.forecast - self.happened).sum() / total)


def reliability(probability: Floats, event: Floats, bins: int = 10) -> Reliability:
    """Counts of a reliability diagram.

    Args:
        probability: of an event, any shape, in [0, 1].
        event: 1 where it happened, 0 where not; NaN in either is not counted.
        bins: of equal width; a probability on an edge counts in the upper bin, 1 in the last.

    Raises:
        ValueError: for shapes that differ, or no probabilities.
    """
    if probability.shape != event.shape or bins < 1:
        raise ValueError(
            f"probability and event must be of one shape, got {probability.shape} and "
            f"{event.shape}; bins must be at least 1, got {bins}"
        )
    known = ~(np.isnan(probability) | np.isnan(event))
    p, happened = probability[known].astype(np.float64), event[known].astype(np.float64)
    if p.size and not -1e-5 <= p.min() <= p.max() <= 1 + 1e-5:
        raise ValueError(f"probabilities must be in [0, 1], got {p.min()} to {p.max()}")
    place = np.clip((p * bins).astype(np.int64), 0, bins - 1)
    return Reliability(
        np.bincount(place, minlength=bins).astype(np.int64),
        np.bincount(place, p, minlength=bins).astype(np.float64),
        np.bincount(place, happened, minlength=bins).astype(np.float64),
    )
