"""Areas, their intervals, operating points and calibration, against numbers worked by hand."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.abnormality_scores import (
    Calibration,
    auroc,
    bootstrap_interval,
    calibration_error,
    choose_threshold,
    delong_interval,
    delong_test,
    fit_calibration,
    rates_at,
)

CASES = st.lists(st.integers(-4, 4), min_size=2, max_size=12)


def drawn(seed: int, m: int = 80, n: int = 120, shift: float = 1.0):
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(shift, 1, m), rng.normal(0, 1, n)])
    return scores, np.repeat([1, 0], [m, n])


def test_an_area_worked_by_hand() -> None:
    # Pairs: 3 beats 1 and 2; 2 beats 1 and ties with 2: 3.5 of 4.
    assert auroc([3, 2, 1, 2], [1, 1, 0, 0]) == 3.5 / 4
    assert auroc([3, 2, 1, 2, 99], [1, 1, 0, 0, -1]) == 3.5 / 4
    assert auroc([1, 1, 1], [1, 0, 0]) == 0.5


@given(CASES, CASES)
def test_the_area_is_the_share_of_pairs_in_order(abnormal, normal) -> None:
    pairs = [(a > b) + 0.5 * (a == b) for a, b in product(abnormal, normal)]
    labels = [1] * len(abnormal) + [0] * len(normal)
    value = auroc([*abnormal, *normal], labels)
    assert value == pytest.approx(sum(pairs) / len(pairs))
    # Turned around, and put through a rising function.
    assert auroc([-s for s in (*abnormal, *normal)], labels) == pytest.approx(1 - value)
    assert auroc(np.exp([*abnormal, *normal]), labels) == pytest.approx(value)


def test_delong_worked_by_hand() -> None:
    # Abnormal 3, 2 and 0, normal 1 and 2. Placements of the abnormal: 1, (1 + 0.5) / 2 = 0.75 and
    # 0, mean 7 / 12, variance 13.5 / 24 - ... = 0.270833; of the normal: 2 / 3 and 1.5 / 3 = 0.5,
    # variance (1 / 6)^2 / 2 = 1 / 72. Variance of the area: 0.270833 / 3 + 1 / 144.
    found = delong_interval([3, 2, 0, 1, 2], [1, 1, 1, 0, 0])
    assert found.value == pytest.approx(7 / 12)
    of_abnormal = ((1 - 7 / 12) ** 2 + (0.75 - 7 / 12) ** 2 + (7 / 12) ** 2) / 2
    assert of_abnormal == pytest.approx(0.2708333)
    half = 1.959964 * math.sqrt(of_abnormal / 3 + 1 / 144)
    assert (found.low, found.high) == pytest.approx((max(0, 7 / 12 - half), min(1, 7 / 12 + half)))
    assert (found.n_abnormal, found.n_normal) == (3, 2)


@given(CASES, CASES)
def test_the_variance_is_that_of_the_matrix_of_pairs(abnormal, normal) -> None:
    # DeLong et al. 1988, eqs. 4 to 6, written out over all pairs.
    labels = [1] * len(abnormal) + [0] * len(normal)
    kernel = np.array([[(a > b) + 0.5 * (a == b) for b in normal] for a in abnormal])
    variance = kernel.mean(1).var(ddof=1) / len(abnormal) + kernel.mean(0).var(ddof=1) / len(normal)
    found = delong_interval([*abnormal, *normal], labels, 0.5)
    half = 0.6744897501960817 * math.sqrt(variance)
    assert found.low == pytest.approx(max(0.0, kernel.mean() - half), abs=1e-9)
    assert found.high == pytest.approx(min(1.0, kernel.mean() + half), abs=1e-9)


@pytest.mark.parametrize(("m", "n", "shift"), [(80, 120, 1.0), (300, 60, 0.3), (50, 50, 0.0)])
def test_delong_and_bootstrap_agree(m, n, shift) -> None:
    scores, labels = drawn(1, m, n, shift)
    normal, drawn_anew = delong_interval(scores, labels), bootstrap_interval(scores, labels)
    assert normal.value == drawn_anew.value
    width = normal.high - normal.low
    assert drawn_anew.low == pytest.approx(normal.low, abs=0.1 * width)
    assert drawn_anew.high == pytest.approx(normal.high, abs=0.1 * width)


def test_bootstrap_draws_are_areas_of_drawn_cases() -> None:
    scores, labels = drawn(2, 12, 9)
    scores = np.rint(scores)  # with ties
    found = bootstrap_interval(scores, labels, 0.5, draws=1, seed=3)
    rng = np.random.default_rng(3)
    taken = np.repeat(np.arange(12), rng.multinomial(12, np.full(12, 1 / 12), 1)[0])
    among = np.repeat(12 + np.arange(9), rng.multinomial(9, np.full(9, 1 / 9), 1)[0])
    # Sorted, as the bootstrap counts its normal cases.
    order = np.concatenate([np.arange(12), 12 + np.argsort(scores[12:], kind="stable")])
    rows = order[np.concatenate([taken, among])]
    expected = auroc(scores[rows], labels[rows])
    assert found.low == found.high == pytest.approx(expected)


def test_intervals_hold_the_true_area_as_often_as_they_say() -> None:
    true = 0.5 * (1 + math.erf(0.5))  # of normal scores apart by one: Phi(1 / sqrt 2)
    held = 0
    for seed in range(400):
        scores, labels = drawn(seed, 40, 60)
        found = delong_interval(scores, labels)
        held += found.low <= true <= found.high
    assert 0.91 <= held / 400 <= 0.98


def test_two_scores_of_the_same_cases_are_compared() -> None:
    scores, labels = drawn(3)
    noisy = scores + np.random.default_rng(4).normal(0, 3, len(scores))
    difference, p = delong_test(scores, noisy, labels)
    assert difference == pytest.approx(auroc(scores, labels) - auroc(noisy, labels))
    assert p < 0.01
    assert delong_test(noisy, scores, labels) == pytest.approx((-difference, p))
    assert delong_test(scores, 2 * scores + 1, labels) == (0.0, 1.0)
    # Under no difference p is uniform: a tenth below 0.1.
    small = 0
    for seed in range(300):
        rng = np.random.default_rng((5, seed))
        shared, labels = drawn(seed, 50, 50)
        one, two = (shared + rng.normal(0, 1, 100) for _ in range(2))
        small += delong_test(one, two, labels)[1] < 0.1
    assert 0.06 <= small / 300 <= 0.15


def test_operating_points_worked_by_hand() -> None:
    scores = [0.9, 0.8, 0.4, 0.2, 0.7, 0.3, 0.2, 0.1]
    labels = [1, 1, 1, 1, 0, 0, 0, 0]
    sensitive = choose_threshold(scores, labels, "sensitivity", 0.75)
    assert (sensitive.threshold, sensitive.found, sensitive.passed) == (0.4, 3, 3)
    assert (sensitive.sensitivity, sensitive.specificity) == (0.75, 0.75)
    specific = choose_threshold(scores, labels, "specificity", 1.0)
    assert 0.7 < specific.threshold < 0.7 + 1e-12
    assert (specific.sensitivity, specific.specificity) == (0.5, 1.0)
    all_found = choose_threshold(scores, labels, "sensitivity", 1.0)
    assert (all_found.threshold, all_found.specificity) == (0.2, 0.25)
    # A tied case at the threshold is called abnormal.
    assert rates_at(0.2, scores, labels).passed == 1
    # 0.07 of 100 is 7 cases, though 0.07 * 100 is more than 7 in floats.
    assert choose_threshold(range(200), [0, 1] * 100, "sensitivity", 0.07).found == 7


@given(CASES, CASES, st.floats(0.01, 1), st.sampled_from(["sensitivity", "specificity"]))
def test_a_threshold_reaches_its_rate_and_no_better_one_does(abnormal, normal, rate, aim) -> None:
    scores, labels = [*abnormal, *normal], [1] * len(abnormal) + [0] * len(normal)
    point = choose_threshold(scores, labels, aim, rate)
    other = "specificity" if aim == "sensitivity" else "sensitivity"
    assert getattr(point, aim) >= rate - 1e-9
    for threshold in (*scores, 99):
        rival = rates_at(threshold, scores, labels)
        if getattr(rival, aim) >= rate - 1e-9:
            assert getattr(rival, other) <= getattr(point, other)


def test_calibration_finds_scale_and_offset_again() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * z - 1)))).astype(int)
    found = fit_calibration(z, labels)
    assert (found.scale, found.offset) == pytest.approx((0.5, -1), abs=0.05)
    assert fit_calibration(1000 * z, labels).scale == pytest.approx(found.scale / 1000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-2 * z))).astype(int)
    assert fit_calibration(z, labels, "temperature").scale == pytest.approx(2, rel=0.1)
    assert fit_calibration(z, labels, "temperature").offset == 0.0


def test_calibration_lowers_its_error_and_keeps_the_order() -> None:
    scores, labels = drawn(6, 400, 400)
    sure = 5 * scores
    fitted = fit_calibration(sure, labels)(sure)
    before = calibration_error(Calibration()(sure), labels)
    assert calibration_error(fitted, labels) < 0.5 * before
    assert auroc(fitted, labels) == pytest.approx(auroc(scores, labels))


def test_calibration_of_kinds_that_are_apart_is_bounded() -> None:
    found = fit_calibration([2, 3, 4, -2, -3, -4], [1, 1, 1, 0, 0, 0])
    chances = found([3, -3])
    # Platt's targets are 4 / 5 and 1 / 5 here.
    assert chances == pytest.approx([0.8, 0.2], abs=0.05)


def test_calibration_error_worked_by_hand() -> None:
    # Bins of a half: 0.1 and 0.3 with one of two abnormal, 0.8 with one of one.
    assert calibration_error([0.1, 0.3, 0.8], [0, 1, 1], 2) == pytest.approx((0.6 + 0.2) / 3)
    assert calibration_error([0.0, 1.0, 0.5], [0, 1, -1]) == 0.0
    assert calibration_error([1.0, 1.0], [0, 0]) == 1.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: auroc([1, 2], [1, 1]), "both kinds are needed.* 2 abnormal and 0 normal"),
        (lambda: auroc([1, 2], [0, -1]), "both kinds are needed"),
        (lambda: auroc([], []), "both kinds are needed"),
        (lambda: auroc([1, 2], [1]), r"must be \(N,\)"),
        (lambda: auroc([1, math.nan], [1, 0]), "scores must be finite"),
        (lambda: auroc([1, 2], [1, 3]), "labels must be 1, 0 or -1"),
        (lambda: delong_interval([1, 2], [1, 0]), "two cases of each kind"),
        (lambda: delong_interval([1, 2], [1, 0], 1.0), "confidence"),
        (lambda: bootstrap_interval([1, 2], [1, 0], draws=0), "draws must be"),
        (lambda: bootstrap_interval([1, 2], [1, 0], 0.0), "confidence"),
        (lambda: choose_threshold([1, 2], [1, 0], "sensitivity", 0), "at_least"),
        (lambda: choose_threshold([1, 2], [1, 0], "luck", 0.5), "aim must be"),
        (lambda: choose_threshold([1, 2], [1, 1], "specificity", 0.5), "both kinds"),
        (lambda: fit_calibration([1, 2], [0, 1], "magic"), "kind must be"),
        (lambda: fit_calibration([2, 1, 2, 1], [0, 1, 0, 1]), "logits must be higher"),
        (lambda: Calibration(-1.0), "positive scale"),
        (lambda: calibration_error([1.5], [1]), "from 0 to 1"),
        (lambda: calibration_error([0.5], [-1]), "one at least"),
        (lambda: calibration_error([0.5], [1], 0), "bins"),
    ],
)
def test_what_cannot_be_is_refused(call, said) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def test_scores_of_unlabelled_cases_do_not_matter() -> None:
    assert auroc([2, 1, math.nan], [1, 0, -1]) == 1.0
