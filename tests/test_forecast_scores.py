"""Scores of probabilistic forecasts: by hand, by quadrature, and as pysteps computes them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from world_models.metnet2 import scores
from world_models.metnet2.calibration import reliability

VALUES = json.loads((Path(__file__).parent / "data" / "pysteps_values.json").read_text())
GOLDEN = VALUES["scores"]
EDGES = (0.0, 1.0, 2.0, 4.0)


def cell(*values: float) -> np.ndarray:
    """`(K, 1, 1)`, or `(1, 1)` of one value."""
    found = np.array(values, np.float32)
    return found.reshape(1, 1) if len(values) == 1 else found.reshape(-1, 1, 1)


def crps(probabilities: np.ndarray, observed: float, edges: tuple[float, ...] = EDGES) -> float:
    return float(scores.crps(probabilities, edges, cell(observed))[0, 0])


# CRPS of bins.


def test_certainly_dry_costs_the_absolute_error():
    for observed in (0.0, 0.25, 1.0, 3.0, 9.0):
        assert crps(cell(1, 0, 0), observed) == pytest.approx(observed)


def test_dry_in_half_the_cases_by_hand():
    # F = 1/2 up to 1, then a line to 1 at 2. Observed 0: (1/2)^2 + integral of (1 - F)^2 = 1/12.
    assert crps(cell(0.5, 0.5, 0), 0.0) == pytest.approx(0.25 + 1 / 12)
    # Observed 1: F^2 below it, 1/4, and the same above.
    assert crps(cell(0.5, 0.5, 0), 1.0) == pytest.approx(0.25 + 1 / 12)
    # Observed 1.5, where F = 3/4: the integral of F^2 from 1 is [F^3 / 3 / slope], slope 1/2.
    below = (0.75**3 - 0.5**3) / 3 / 0.5
    above = (0.25**3) / 3 / 0.5
    assert crps(cell(0.5, 0.5, 0), 1.5) == pytest.approx(0.25 + below + above)


def test_evenly_spread_over_one_bin_is_the_uniform_distribution():
    # CRPS of U(a, b) at its middle is (b - a) / 12, at its end (b - a) / 3.
    assert crps(cell(0, 0, 1), 3.0) == pytest.approx(2 / 12)
    assert crps(cell(0, 0, 1), 4.0) == pytest.approx(2 / 3)
    assert crps(cell(0, 0, 1), 2.0) == pytest.approx(2 / 3)


def test_what_is_observed_beyond_the_edges_is_scored_as_it_is():
    assert crps(cell(0, 0, 1), 7.0) == pytest.approx(2 / 3 + 3)
    assert crps(cell(0, 1, 0), -2.0) == pytest.approx(2 + 1 + 1 / 3)


def test_paper_form_by_hand():
    # F at the upper edges: 0.5, 1, 1. Observed 1.5: 1[o <= b] is 0, 1, 1.
    found = scores.crps_steps(cell(0.5, 0.5, 0), EDGES, cell(1.5))
    assert float(found[0, 0]) == pytest.approx(1 * 0.25 + 0 + 0)
    found = scores.crps_steps(cell(0.2, 0.3, 0.5), EDGES, cell(3.0))
    assert float(found[0, 0]) == pytest.approx(1 * 0.04 + 1 * 0.25 + 2 * 0)


def test_both_forms_agree_on_fine_bins():
    edges = np.linspace(0, 20, 2001)
    p = np.random.default_rng(0).random((2000, 3, 4)).astype(np.float32)
    p /= p.sum(axis=0)
    observed = np.random.default_rng(1).uniform(0, 20, (3, 4)).astype(np.float32)
    exact = scores.crps(p, edges, observed)
    np.testing.assert_allclose(scores.crps_steps(p, edges, observed), exact, atol=0.02)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_crps_is_the_integral_of_the_squared_difference(data):
    k = data.draw(st.integers(1, 6))
    widths = data.draw(hnp.arrays(np.float64, k, elements=st.floats(0.05, 3)))
    edges = np.concatenate([[0.0], np.cumsum(widths)])
    weights = data.draw(hnp.arrays(np.float64, k, elements=st.floats(0, 1)))
    weights = weights + 1e-3
    p = (weights / weights.sum()).astype(np.float32).reshape(k, 1, 1)
    observed = float(np.float32(data.draw(st.floats(-1, float(edges[-1]) + 2))))
    x = np.linspace(-2, edges[-1] + 3, 200_001)
    at_edges = np.cumsum(p[:, 0, 0], dtype=np.float64)
    cdf = np.interp(x, edges[1:], at_edges)
    cdf[x < edges[1]] = at_edges[0]
    cdf[x < edges[0]] = 0
    cdf[x >= edges[-1]] = 1
    expected = np.trapezoid((cdf - (x >= observed)) ** 2, x)
    assert crps(p, observed, tuple(edges)) == pytest.approx(expected, abs=3e-4)


def test_crps_is_proper_the_truth_scores_best():
    rng = np.random.default_rng(2)
    truth = np.array([0.4, 0.3, 0.3])
    bins = rng.choice(3, 200_000, p=truth)
    spread = rng.uniform(np.take(EDGES[:-1], bins), np.take(EDGES[1:], bins))
    observed = np.where(bins == 0, 0.0, spread).astype(np.float32)[None]

    def mean(p: tuple[float, ...]) -> float:
        field = np.broadcast_to(np.array(p, np.float32)[:, None, None], (3, *observed.shape))
        return float(scores.crps(field, EDGES, observed).mean(dtype=np.float64))

    best = mean((0.4, 0.3, 0.3))
    for other in ((0.5, 0.25, 0.25), (0.3, 0.35, 0.35), (0.4, 0.4, 0.2), (0.4, 0.2, 0.4)):
        assert mean(other) > best


def test_nothing_is_scored_where_nothing_is_known():
    p = np.full((2, 3, 2, 2), 1 / 3, np.float32)
    p[0, 1, 0, 1] = np.nan
    observed = np.ones((2, 2, 2), np.float32)
    observed[1, 0, 0] = np.nan
    valid = np.ones((2, 2, 2), np.bool_)
    valid[1, 1, 1] = False
    for score in (scores.crps, scores.crps_steps):
        found = np.isnan(score(p, EDGES, observed, valid))
        assert np.argwhere(found).tolist() == [[0, 0, 1], [1, 0, 0], [1, 1, 1]]


def test_blocks_and_chunks_change_nothing():
    rng = np.random.default_rng(3)
    p = rng.random((2, 3, 130, 140)).astype(np.float32)
    p /= p.sum(axis=1, keepdims=True)
    observed = rng.uniform(0, 5, (2, 130, 140)).astype(np.float32)
    whole = scores.crps(p, EDGES, observed)
    for block, row in ((0, 3), (1, 129)):
        one = scores.crps(p[block, :, row : row + 1], EDGES, observed[block, row : row + 1])
        np.testing.assert_array_equal(whole[block, row : row + 1], one)


@pytest.mark.parametrize(
    ("p", "edges", "words"),
    [
        (np.ones((2, 1, 1)), EDGES, r"probabilities must be \(3, 1, 1\)"),
        (np.ones((3, 1, 1)), (0.0, 2.0, 1.0, 3.0), "rising"),
        (np.ones((3, 1, 1)), (0.0, 1.0, 2.0, float("inf")), "finite"),
    ],
)
def test_shapes_and_edges_that_do_not_fit_are_refused(p, edges, words):
    with pytest.raises(ValueError, match=words):
        scores.crps(p, edges, cell(1.0))
    with pytest.raises(ValueError, match="valid must be bool"):
        scores.crps(np.ones((3, 1, 1)), EDGES, cell(1.0), np.ones((1, 1)))


# Ensembles.


def test_crps_of_members_by_hand():
    members = np.array([1.0, 2.0, 4.0])[:, None, None]
    # |x - 2|: 1, 0, 2; pairs 1-2, 1-4, 2-4: 1, 3, 2, each twice among nine.
    found = scores.crps_ensemble(members, cell(2.0))
    assert float(found[0, 0]) == pytest.approx(1 - 12 / 18)
    fair = scores.crps_ensemble(members, cell(2.0), fair=True)
    assert float(fair[0, 0]) == pytest.approx(1 - 12 / 12)


def test_one_member_is_scored_by_its_absolute_error():
    found = scores.crps_ensemble(np.array([[[3.0]]]), cell(1.25))
    assert float(found[0, 0]) == 1.75
    with pytest.raises(ValueError, match="two members"):
        scores.crps_ensemble(np.array([[[3.0]]]), cell(1.0), fair=True)
    with pytest.raises(ValueError, match="members must be"):
        scores.crps_ensemble(np.ones((2, 3, 3)), np.ones((2, 2)))


def test_many_members_of_a_binned_forecast_score_as_it_does():
    rng = np.random.default_rng(4)
    p = np.array([0.35, 0.25, 0.4], np.float32)
    bins = rng.choice(3, 4000, p=p / p.sum())
    spread = rng.uniform(np.take(EDGES[:-1], bins), np.take(EDGES[1:], bins))
    members = np.where(bins == 0, 0.0, spread)[:, None, None]
    for observed in (0.0, 1.7, 3.2):
        ours = crps(p.reshape(3, 1, 1), observed)
        theirs = float(scores.crps_ensemble(members, cell(observed), fair=True)[0, 0])
        assert theirs == pytest.approx(ours, abs=0.03)


@settings(max_examples=40, deadline=None)
@given(
    members=hnp.arrays(np.float64, (5, 2, 3), elements=st.floats(0, 50)),
    observed=hnp.arrays(np.float64, (2, 3), elements=st.floats(0, 50)),
    order=st.permutations(range(5)),
)
def test_order_of_members_changes_nothing_and_pairs_count_as_written(members, observed, order):
    found = scores.crps_ensemble(members, observed)
    again = scores.crps_ensemble(members[list(order)], observed)
    np.testing.assert_allclose(again, found, atol=1e-5)
    pairs = np.abs(members[:, None] - members[None]).mean(axis=(0, 1))
    expected = np.abs(members - observed).mean(axis=0) - pairs / 2
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_member_that_says_nothing_leaves_the_cell_out():
    members = np.ones((3, 2, 2))
    members[1, 0, 1] = np.nan
    observed = np.ones((2, 2))
    observed[1, 0] = np.nan
    assert np.isnan(scores.crps_ensemble(members, observed)).tolist() == [[0, 1], [1, 0]]
    assert np.isnan(scores.exceedance_ensemble(members, 0.5)).tolist() == [[0, 1], [0, 0]]


# Parity.


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{len(case['members'])} members")
def test_scores_are_those_of_pysteps(case):
    members, observed = np.array(case["members"]), np.array(case["observed"])
    threshold = case["threshold"]
    found = scores.crps_ensemble(members, observed)
    assert float(found.mean(dtype=np.float64)) == pytest.approx(case["crps"], rel=1e-6)
    probability = scores.exceedance_ensemble(members, threshold)
    event = scores.occurred(observed, threshold)
    assert scores.csi(probability, event) == pytest.approx(case["csi"])
    diagram = reliability(probability, event, bins=10)
    forecast, frequency = (
        np.array([np.nan if v is None else v for v in row]) for row in case["reliability"]
    )
    # An edge lies in the bin below for pysteps, above for us: compare where none is on one.
    if len(members) == 1:
        assert diagram.counts[[0, -1]].tolist() == [case["counts"][0], case["counts"][-1]]
        np.testing.assert_allclose(diagram.points[[0, -1], 1], frequency[[0, -1]])
        np.testing.assert_allclose(diagram.points[[0, -1], 0], forecast[[0, -1]])


def test_a_member_that_equals_the_observation_counts_as_the_integral_says():
    # pysteps 1.21.5 leaves out the intervals beside such a member: dry members of a dry cell with
    # one wet one, |x - o| on average 2/3 less half of the pairs' 8/9, cost nothing there.
    case = VALUES["ties"]
    assert case["crps"] == 0.0
    found = scores.crps_ensemble(np.array(case["members"]), np.array(case["observed"]))
    assert float(found[0, 0]) == pytest.approx(2 / 3 - 4 / 9)


# Thresholds.


def test_exceedance_by_hand():
    p = cell(0.5, 0.3, 0.2)
    expected = {-1.0: 1.0, 0.0: 1.0, 0.5: 0.5, 1.0: 0.5, 1.5: 0.35, 2.0: 0.2, 3.0: 0.1, 4.0: 0.0}
    for threshold, probability in expected.items():
        found = scores.exceedance(p, EDGES, threshold)
        assert float(found[0, 0]) == pytest.approx(probability), threshold


def test_exceedance_of_what_is_not_said_is_not_said():
    p = np.stack([cell(0.5, 0.3, 0.2)] * 2, axis=0)
    p[1] = np.nan
    for threshold in (0.0, 1.5):
        assert np.isnan(scores.exceedance(p, EDGES, threshold)).reshape(-1).tolist() == [0, 1]


def test_brier_and_log_loss_by_hand():
    probability, event = np.array([0.0, 0.3, 0.8, 1.0]), np.array([0.0, 1.0, np.nan, 0.0])
    found = scores.brier(probability, event)
    np.testing.assert_allclose(found, [0, 0.49, np.nan, 1])
    found = scores.log_loss(probability, event, least=1e-3)
    np.testing.assert_allclose(
        found, [-math.log(1 - 1e-3), -math.log(0.3), np.nan, -math.log(1e-3)], rtol=1e-6
    )


def test_csi_by_hand():
    probability = np.array([0.9, 0.6, 0.5, 0.4, 0.1, np.nan])
    event = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    # Said at 0.5: three, two rightly; one missed.
    assert scores.csi(probability, event) == pytest.approx(2 / 4)
    assert scores.csi(probability, event, decision=0.3) == pytest.approx(3 / 4)
    assert math.isnan(scores.csi(np.zeros(3), np.zeros(3)))


def test_the_best_decision_is_found():
    rng = np.random.default_rng(5)
    probability = rng.random(20_000) ** 2
    event = (rng.random(20_000) < probability).astype(float)
    levels = np.arange(1, 50) / 50
    best = scores.tune_decision(probability, event)
    values = [scores.csi(probability, event, level) for level in levels]
    assert scores.csi(probability, event, best) == pytest.approx(max(values))
    assert best < 0.5  # rare events are worth being said before they are probable
    assert scores.tune_decision(np.zeros(3), np.zeros(3)) == 0.5


# Calibration.


def test_reliability_by_hand():
    probability = np.array([0.05, 0.15, 0.1, 0.95, 1.0, np.nan])
    event = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    found = reliability(probability, event)
    assert found.counts.tolist() == [1, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    np.testing.assert_allclose(found.points[1], [0.125, 0.5])
    np.testing.assert_allclose(found.points[9], [0.975, 1.0])
    assert np.isnan(found.points[4]).all()
    # |0.05 - 0| + |0.25 - 1| + |1.95 - 2|, of five cases.
    assert found.expected_error == pytest.approx((0.05 + 0.75 + 0.05) / 5)


def test_a_calibrated_forecast_has_hardly_an_error_and_parts_add_up():
    rng = np.random.default_rng(6)
    probability = rng.random((2, 50_000))
    event = (rng.random((2, 50_000)) < probability).astype(float)
    whole = reliability(probability, event)
    assert whole.expected_error < 0.01
    parts = reliability(probability[0], event[0]) + reliability(probability[1], event[1])
    assert parts.counts.tolist() == whole.counts.tolist()
    assert parts.expected_error == pytest.approx(whole.expected_error)
    late = reliability(np.clip(probability * 1.3, 0, 1), event)
    assert late.expected_error > 0.1


def test_nothing_known_has_no_calibration_error():
    assert math.isnan(reliability(np.full(3, np.nan), np.ones(3)).expected_error)
    with pytest.raises(ValueError, match="one shape"):
        reliability(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        reliability(np.array([1.5]), np.ones(1))
