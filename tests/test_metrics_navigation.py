"""Measures of navigation, by hand and by their properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2r_cases import horseshoe, joined, street

from envs.indoor.graph import NavigationGraph
from envs.indoor.metrics import SUCCESS_DISTANCE, normalized_dtw, score_path, spl


def test_the_described_path_itself_scores_full_marks() -> None:
    scores = score_path(street(), "abcd", "abcd")
    assert (scores.navigation_error, scores.path_length) == (0.0, 6.0)
    assert scores.success
    assert scores.oracle_success
    assert (scores.spl, scores.ndtw, scores.sdtw, scores.cls) == (1.0, 1.0, 1.0, 1.0)


def test_a_walk_cut_short_by_hand() -> None:
    # Along a 2 m street to the goal f (10 m away), stopping at e, 2 m before it.
    scores = score_path(street(), "abcde", "abcdef")
    assert scores.navigation_error == pytest.approx(2.0)
    assert scores.success  # 2 m < 3 m
    assert scores.spl == 1.0  # 8 m walked, the shortest way is 10 m: max(10, 8) = 10
    # DTW: five matches at no cost, then f against e: 2 m.
    assert scores.ndtw == pytest.approx(math.exp(-2.0 / (6 * 3.0)))
    # Coverage: five of six covered, f by exp(-2/3).
    coverage = (5 + math.exp(-2.0 / 3.0)) / 6
    expected = coverage * 10.0
    assert scores.cls == pytest.approx(coverage * expected / (expected + abs(expected - 8.0)))


def test_walking_past_the_goal_is_only_an_oracle_success() -> None:
    scores = score_path(street(), "abcdef", "ab")
    assert scores.navigation_error == pytest.approx(8.0)
    assert scores.oracle_error == 0.0
    assert not scores.success
    assert scores.oracle_success
    assert (scores.spl, scores.sdtw) == (0.0, 0.0)


def test_a_detour_halves_spl() -> None:
    # To b and back twice before the goal c: 12 m for 4 m.
    scores = score_path(street(), "abababc", "abc")
    assert scores.success
    assert scores.path_length == pytest.approx(12.0)
    assert scores.spl == pytest.approx(4.0 / 12.0)


def test_success_is_strictly_nearer_than_three_metres() -> None:
    assert not score_path(street(spacing=3.0), "a", "ab").success
    assert not score_path(street(spacing=3.0), "a", "ab").oracle_success
    assert score_path(street(spacing=2.999), "a", "ab").success


def test_distances_do_not_go_through_walls() -> None:
    # f is 1 m from a through the wall, 17 m on foot: with straight lines, as some continuous
    # versions of nDTW have it, this would be a success with nDTW exp(-1 / 3 / 2).
    scores = score_path(horseshoe(), "a", "f")
    assert scores.navigation_error == pytest.approx(17.0)
    assert not scores.success
    assert scores.ndtw == pytest.approx(math.exp(-17.0 / 3.0))
    straight = np.linalg.norm(horseshoe().positions[0] - horseshoe().positions[5])
    assert scores.ndtw < math.exp(-straight / 3.0) / 100


def test_dynamic_time_warping_by_hand() -> None:
    # Costs: rows walked, columns described; the best warping is 1 + 0 + 2 + 1 = 4 along
    # (0,0) (1,1) (2,1) (3,2).
    costs = np.array([[1, 5, 5], [5, 0, 5], [5, 2, 5], [5, 5, 1]], float)
    assert normalized_dtw(costs) == pytest.approx(math.exp(-4.0 / (3 * SUCCESS_DISTANCE)))


def test_order_matters_to_ndtw_and_not_to_coverage() -> None:
    graph = joined(np.array([[0, 0, 0], [9, 0, 0], [4.5, 8, 0]]), [(0, 1), (1, 2), (0, 2)])
    there, back = score_path(graph, "abca", "abca"), score_path(graph, "acba", "abca")
    assert back.ndtw < there.ndtw == 1.0
    assert back.cls == pytest.approx(there.cls)


def test_turning_on_the_spot_changes_nothing() -> None:
    assert score_path(street(), "aaabbcccc", "abcd") == score_path(street(), "abc", "abcd")


def test_standing_at_the_goal_from_the_start_is_no_division_by_zero() -> None:
    scores = score_path(street(), "a", "a")
    assert (scores.spl, scores.ndtw, scores.cls) == (1.0, 1.0, 1.0)
    assert score_path(street(), "aba", "a").spl == 0.0  # success, but nothing is shorter than 0
    assert spl(True, 0.0, 0.0) == 1.0


def test_too_long_a_walk_lowers_cls() -> None:
    # All of abc covered, 4 m expected, 12 m walked: 4 / (4 + 8).
    assert score_path(street(), "abababc", "abc").cls == pytest.approx(1.0 / 3.0)


@pytest.mark.parametrize(
    ("walked", "reference", "message"),
    [
        ("", "ab", "need a viewpoint"),
        ("ab", "", "need a viewpoint"),
        ("az", "ab", "no viewpoint 'z'"),
        ("a", "az", "no viewpoint 'z'"),
        ("ac", "ab", "no way leads straight from a to c"),
        ("ab", "ac", "no way leads straight from a to c"),
    ],
)
def test_paths_that_are_none_are_refused(walked: str, reference: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_path(street(), walked, reference)


@st.composite
def walks(draw: st.DrawFn) -> tuple[NavigationGraph, list[str], list[str]]:
    """A connected graph and two walks from the same start."""
    n = draw(st.integers(2, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    edges = [(int(rng.integers(k)), k) for k in range(1, n)]
    edges += [(0, int(k)) for k in range(2, n) if rng.random() < 0.3 and (0, k) not in edges]
    graph = joined(rng.normal(0.0, 4.0, (n, 3)), edges)

    def walk(steps: int) -> list[str]:
        at, path = 0, ["a"]
        for _ in range(steps):
            at = int(rng.choice(graph.neighbors[at]))
            path.append(graph.viewpoints[at])
        return path

    return graph, walk(draw(st.integers(0, 8))), walk(draw(st.integers(0, 6)))


@given(walks())
def test_measures_keep_their_bounds(case: tuple[NavigationGraph, list[str], list[str]]) -> None:
    graph, walked, reference = case
    scores = score_path(graph, walked, reference)
    for share in (scores.spl, scores.ndtw, scores.sdtw, scores.cls):
        assert 0.0 <= share <= 1.0
    assert scores.spl <= scores.success
    assert scores.sdtw <= scores.ndtw
    assert scores.oracle_error <= scores.navigation_error
    assert scores.oracle_success or not scores.success
    assert scores.path_length >= graph.distance(walked[0], walked[-1]) - 1e-9


@given(walks())
def test_ndtw_is_one_for_the_same_path_only(
    case: tuple[NavigationGraph, list[str], list[str]],
) -> None:
    graph, walked, reference = case
    assert score_path(graph, reference, reference).ndtw == 1.0
    assert (score_path(graph, walked, reference).ndtw == 1.0) == (walked == reference)


@given(walks())
def test_dtw_costs_at_least_what_the_ends_cost(
    case: tuple[NavigationGraph, list[str], list[str]],
) -> None:
    graph, walked, reference = case
    ends = graph.distance(walked[-1], reference[-1])
    scores = score_path(graph, walked, reference)
    assert scores.ndtw <= math.exp(-ends / (3.0 * len(reference))) + 1e-9
