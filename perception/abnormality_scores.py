"""How well scores tell abnormal cases from normal ones: areas, operating points, calibration.

Labels are 1 for abnormal, 0 for normal and -1 where nothing is known; cases of the last kind are
left out everywhere.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from learning.image_set import UNLABELLED

Floats = NDArray[np.float64]
_SLACK = 1e-9  # 0.07 of 100 is 7.000000000000001 in floats.
_CHUNK = 2**22  # Numbers that a bootstrap holds at one time.


@dataclass(frozen=True)
class Auroc:
    """Area under the receiver operating characteristic, with its interval.

    Attributes:
        value: chance that an abnormal case scores above a normal one, ties counted as a half.
        low: lower end of the interval.
        high: upper end.
        n_abnormal: abnormal cases.
        n_normal: normal cases.
    """

    value: float
    low: float
    high: float
    n_abnormal: int
    n_normal: int


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """The area alone; see `Auroc`.

    Raises:
        ValueError: if scores and labels do not fit, or one of the two kinds is missing.
    """
    abnormal, normal = split_scores(scores, labels)
    return float(_placements(abnormal, normal)[0].mean())


def delong_interval(scores: ArrayLike, labels: ArrayLike, confidence: float = 0.95) -> Auroc:
    """The area and a normal interval with DeLong's variance, cut at 0 and 1.

    Source: DeLong, DeLong and Clarke-Pearson 1988, "Comparing the Areas under Two or More
    Correlated Receiver Operating Characteristic Curves"; placements by searching sorted scores.
    Where the kinds are apart without overlap the variance is 0 and the interval has no width: it
    then says nothing about other cases.

    Args:
        scores: `(N,)`, high for abnormal.
        labels: `(N,)` of 1, 0 and -1.
        confidence: coverage, in (0, 1).

    Raises:
        ValueError: as `auroc`, or with fewer than two cases of a kind.
    """
    z = _quantile(confidence)
    abnormal, normal = split_scores(scores, labels)
    parts = _placements(abnormal, normal)
    value, half = float(parts[0].mean()), z * math.sqrt(_variance(*parts))
    return Auroc(value, max(0.0, value - half), min(1.0, value + half), len(abnormal), len(normal))


def delong_test(first: ArrayLike, second: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Whether two scores of the same cases have different areas.

    Source: DeLong et al. 1988, for two correlated curves.

    Args:
        first: `(N,)` scores.
        second: `(N,)` other scores of the same cases.
        labels: `(N,)` of 1, 0 and -1.

    Returns:
        The first area less the second, and the two-sided p value of no difference (1 where neither
        the difference nor its variance is more than rounding).

    Raises:
        ValueError: as `delong_interval`.
    """
    one = _placements(*split_scores(first, labels))
    two = _placements(*split_scores(second, labels))
    difference = float(one[0].mean() - two[0].mean())
    # The variance of a difference is that of the differences of the placements.
    variance = _variance(one[0] - two[0], one[1] - two[1])
    if variance < 1e-18:
        return difference, 1.0 if abs(difference) < _SLACK else 0.0
    z = abs(difference) / math.sqrt(variance)
    return difference, 2 * NormalDist().cdf(-z)


def bootstrap_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Auroc:
    """The area and a percentile interval; cases of each kind are drawn anew, as many as there are.

    Args:
        scores: `(N,)`, high for abnormal.
        labels: `(N,)` of 1, 0 and -1.
        confidence: coverage, in (0, 1).
        draws: how many.
        seed: of the draws.

    Raises:
        ValueError: as `auroc`, or without draws.
    """
    _quantile(confidence)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    abnormal, normal = split_scores(scores, labels)
    normal = np.sort(normal)
    below = np.searchsorted(normal, abnormal, "left")
    up_to = np.searchsorted(normal, abnormal, "right")
    rng = np.random.default_rng(seed)
    m, n = len(abnormal), len(normal)
    areas: list[Floats] = []
    most = max(1, _CHUNK // (m + n))
    for start in range(0, draws, most):
        count = min(most, draws - start)
        taken = rng.multinomial(m, np.full(m, 1 / m), count).astype(np.float64)
        among = np.zeros((count, n + 1))
        among[:, 1:] = rng.multinomial(n, np.full(n, 1 / n), count).cumsum(1)
        areas.append((taken * (among[:, below] + among[:, up_to])).sum(1) / (2 * m * n))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(areas), [tail, 1 - tail])
    return Auroc(auroc(scores, labels), float(low), float(high), m, n)


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what it does to some cases.

    Attributes:
        threshold: cases of at least this score are called abnormal.
        found: abnormal cases called abnormal.
        n_abnormal: abnormal cases.
        passed: normal cases called normal.
        n_normal: normal cases.
    """

    threshold: float
    found: int
    n_abnormal: int
    passed: int
    n_normal: int

    @property
    def sensitivity(self) -> float:
        """Share of the abnormal cases that are called so."""
        return self.found / self.n_abnormal

    @property
    def specificity(self) -> float:
        """Share of the normal cases that are called so."""
        return self.passed / self.n_normal


def rates_at(threshold: float, scores: ArrayLike, labels: ArrayLike) -> OperatingPoint:
    """What a threshold does, such as on other cases than those it was chosen on."""
    abnormal, normal = split_scores(scores, labels)
    found, passed = int((abnormal >= threshold).sum()), int((normal < threshold).sum())
    return OperatingPoint(float(threshold), found, len(abnormal), passed, len(normal))


def choose_threshold(
    scores: ArrayLike,
    labels: ArrayLike,
    aim: Literal["sensitivity", "specificity"],
    at_least: float,
) -> OperatingPoint:
    """The threshold that reaches one rate and gives up as little as possible of the other.

    Args:
        scores: `(N,)` of a tuning set, on which nothing else is claimed.
        labels: `(N,)` of 1, 0 and -1.
        aim: which rate to reach.
        at_least: the rate, in (0, 1].

    Raises:
        ValueError: as `auroc`, or for another aim or rate.
    """
    if aim not in ("sensitivity", "specificity"):
        raise ValueError(f"aim must be sensitivity or specificity, got {aim!r}")
    if not 0 < at_least <= 1:
        raise ValueError(f"at_least must be in (0, 1], got {at_least}")
    abnormal, normal = split_scores(scores, labels)
    cases = abnormal if aim == "sensitivity" else normal
    needed = max(1, math.ceil(at_least * len(cases) - _SLACK))
    if aim == "sensitivity":
        threshold = float(np.sort(abnormal)[-needed])
    else:
        threshold = float(np.nextafter(np.sort(normal)[needed - 1], math.inf))
    return rates_at(threshold, scores, labels)


@dataclass(frozen=True)
class Calibration:
    """Scores to chances: `sigmoid(scale * logit + offset)`.

    Attributes:
        scale: positive; the inverse of the temperature.
        offset: added to the logit; 0 for a temperature alone.
    """

    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would turn the order of the cases around."""
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.offset)):
            raise ValueError(
                "a calibration needs a positive scale and a finite offset, "
                f"got {self.scale} and {self.offset}"
            )

    def __call__(self, logits: ArrayLike) -> Floats:
        """Chances `(N,)` of logits `(N,)`."""
        return _sigmoid(self.scale * np.asarray(logits, np.float64) + self.offset)


def fit_calibration(
    logits: ArrayLike,
    labels: ArrayLike,
    kind: Literal["platt", "temperature"] = "platt",
    iterations: int = 100,
) -> Calibration:
    """Fit scale and offset, or the scale alone, by likelihood on a tuning set.

    Sources: Platt 1999, "Probabilistic outputs for support vector machines", section 2.2, with its
    targets a little inside 0 and 1, which bound the fit where the kinds are apart; Guo et al. 2017,
    "On Calibration of Modern Neural Networks", section 4.2, for the temperature.

    Args:
        logits: `(N,)`.
        labels: `(N,)` of 1, 0 and -1.
        kind: which.
        iterations: Newton steps at most.

    Raises:
        ValueError: as `auroc`, for another kind, or if the logits do not rise with the labels.
    """
    if kind not in ("platt", "temperature"):
        raise ValueError(f"kind must be platt or temperature, got {kind!r}")
    abnormal, normal = split_scores(logits, labels)
    m, n = len(abnormal), len(normal)
    x = np.concatenate([abnormal, normal])
    target = np.concatenate([np.full(m, (m + 1) / (m + 2)), np.full(n, 1 / (n + 2))])
    # One unit of spread makes Newton's steps independent of the size of the logits.
    unit = float(x.std()) or 1.0
    features = np.stack([x / unit, np.ones_like(x)], 1)
    if kind == "temperature":
        features = features[:, :1]
    weights = _logistic_fit(features, target, iterations)
    scale = float(weights[0]) / unit
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(
            "logits must be higher for abnormal cases to be calibrated, "
            f"but the best scale is {scale:.3g}; the area is {auroc(logits, labels):.3f}"
        )
    return Calibration(scale, float(weights[1]) if kind == "platt" else 0.0)


def _logistic_fit(features: Floats, target: Floats, iterations: int) -> Floats:
    """Newton's method, its steps halved while they do not lower the loss."""

    def loss(weights: Floats) -> float:
        z = features @ weights
        return float((np.logaddexp(0, z) - target * z).sum())

    weights = np.zeros(features.shape[1])
    for _ in range(iterations):
        chance = _sigmoid(features @ weights)
        slope = features.T @ (chance - target)
        curve = (features * (chance * (1 - chance))[:, None]).T @ features
        step = np.linalg.solve(curve + 1e-12 * np.eye(len(weights)), slope)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-12:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    return weights


def calibration_error(chances: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error: how far chances are from shares of abnormal cases.

    Source: Guo et al. 2017, eq. 3, with the chance of the abnormal class as the confidence: bins of
    equal width, their gaps weighed by their cases.

    Args:
        chances: `(N,)` from 0 to 1.
        labels: `(N,)` of 1, 0 and -1.
        bins: how many.

    Raises:
        ValueError: if there is no labelled case, or a chance outside 0..1.
    """
    values, truth = _checked(chances, labels)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if not len(values) or values.min() < 0 or values.max() > 1:
        raise ValueError("chances must be from 0 to 1, and one at least must have a label")
    place = np.minimum((values * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, values - truth, bins)
    return float(np.abs(gaps).sum() / len(values))


def split_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """Scores of the abnormal and of the normal cases.

    Raises:
        ValueError: if they do not fit, or one of the two kinds is missing.
    """
    values, truth = _checked(scores, labels)
    abnormal, normal = values[truth == 1], values[truth == 0]
    if not len(abnormal) or not len(normal):
        raise ValueError(
            "both kinds are needed to compare them, got "
            f"{len(abnormal)} abnormal and {len(normal)} normal cases"
        )
    return abnormal, normal


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    values, truth = np.asarray(scores, np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape:
        raise ValueError(
            f"scores and labels must be (N,) each, got {values.shape} and {truth.shape}"
        )
    if not np.isin(truth, (UNLABELLED, 0, 1)).all():
        raise ValueError(f"labels must be 1, 0 or {UNLABELLED}, got {np.unique(truth)[:5]}")
    known = truth != UNLABELLED
    if not np.isfinite(values[known]).all():
        raise ValueError("scores must be finite, got NaN or infinite values")
    return values[known], truth[known].astype(np.int64)


def _placements(abnormal: Floats, normal: Floats) -> tuple[Floats, Floats]:
    """Of each abnormal case the share of normal ones below it; of each normal one of those above.

    Ties count as halves.
    """
    return _share_below(normal, abnormal), 1 - _share_below(abnormal, normal)


def _share_below(reference: Floats, values: Floats) -> Floats:
    ordered = np.sort(reference)
    counted = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return counted / (2 * len(ordered))


def _variance(of_abnormal: Floats, of_normal: Floats) -> float:
    m, n = len(of_abnormal), len(of_normal)
    if min(m, n) < 2:
        raise ValueError(f"a variance needs two cases of each kind, got {m} abnormal, {n} normal")
    return float(of_abnormal.var(ddof=1) / m + of_normal.var(ddof=1) / n)


def _sigmoid(z: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(0.5 * z))


def _quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)
