"""Walking by a ranker: paths ahead, beams, samples, and staying on the graph."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vln_cases import CLASSES, VOCABULARY, decision, grid_place, star, tiny_ranker

from agents.vln.branches import branches, decisions
from agents.vln.follower import InstructionFollower
from agents.vln.forest import plant
from agents.vln.navigator import Errand, Navigator, NavigatorConfig
from agents.vln.places import DreamPlace, GraphPlace, Imagined, OraclePlace, Place

WORDS = VOCABULARY.encode("go to the bed")


def errand(place: Place, *history: int) -> Errand:
    return Errand(place, WORDS, 0.0, history)


def test_the_branches_of_a_square_are_worked_by_hand() -> None:
    square = GraphPlace(
        np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]),
        [[1, 3], [0, 2], [1, 3], [0, 2]],
        np.zeros((4, 12, 1), np.float32),
    )
    found = branches(square, 0, 3)
    paths = {tuple(found.path(node)) for node in range(len(found.viewpoints))}
    expected = {(0,), (0, 1), (0, 3), (0, 1, 2), (0, 3, 2), (0, 1, 2, 3), (0, 3, 2, 1)}
    assert paths == expected
    # Round the square there is no way on without coming back to where one was.
    assert not found.leads_on.any()
    assert len(found.leaf_nodes) == 7
    assert branches(square, 0, 2).leads_on.sum() == 2


def test_the_leaf_of_a_route_says_whether_it_ends_within_reach() -> None:
    place = grid_place(np.random.default_rng(0))
    onward = branches(place, 0, 2)
    for rest, leads_on in (([0], False), ([0, 1], False), ([0, 1, 4], False), ([0, 1, 4, 7], True)):
        leaf = onward.leaf_of(rest)
        assert onward.path(int(onward.leaf_nodes[leaf])) == rest[:3]
        assert onward.leads_on[leaf] == leads_on


def test_a_route_off_the_graph_has_no_leaf() -> None:
    onward = branches(grid_place(np.random.default_rng(0)), 0, 2)
    with pytest.raises(ValueError, match="no simple path"):
        onward.leaf_of([0, 8])
    with pytest.raises(ValueError, match="no simple path"):
        onward.leaf_of([0, 1, 0])


def test_a_horizon_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon"):
        branches(grid_place(np.random.default_rng(0)), 0, 0)
    for change in ({"horizon": 0}, {"beam": 0}, {"max_hops": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            NavigatorConfig(**change)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 100), horizon=st.integers(1, 3))
def test_a_beam_of_full_width_ranks_like_no_beam(seed: int, horizon: int) -> None:
    place = grid_place(np.random.default_rng(seed), place=OraclePlace)
    ranker = tiny_ranker(seed=seed)
    whole = Navigator(ranker, NavigatorConfig(horizon)).rank([errand(place, 0, 1)])[0]
    wide = Navigator(ranker, NavigatorConfig(horizon, beam=1000)).rank([errand(place, 0, 1)])[0]
    assert np.array_equal(whole.branches.viewpoints, wide.branches.viewpoints)
    np.testing.assert_allclose(whole.probabilities, wide.probabilities, atol=1e-6)


def test_a_beam_extends_so_many_paths_and_no_more() -> None:
    place = grid_place(np.random.default_rng(0), 4, 4, OraclePlace)
    ranked = Navigator(tiny_ranker(), NavigatorConfig(3, beam=2)).rank([errand(place, 5)])[0]
    for depth in (1, 2):
        deeper = ranked.branches.depths == depth + 1
        assert len(set(ranked.branches.parents[deeper].tolist())) == 2
    assert ranked.probabilities.sum() == pytest.approx(1.0)


def test_a_beam_plans_a_whole_route() -> None:
    place = grid_place(np.random.default_rng(0), 5, 5)
    ranked = Navigator(tiny_ranker(), NavigatorConfig(8, beam=3)).rank([errand(place, 12)])[0]
    path, _ = ranked.best()
    assert len(path) - 1 <= 8
    assert all(b in place.neighbors(a) for a, b in itertools.pairwise(path))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), horizon=st.integers(1, 3), start=st.integers(0, 8))
def test_a_walk_never_leaves_the_graph_and_ends(seed: int, horizon: int, start: int) -> None:
    place = grid_place(np.random.default_rng(seed))
    config = NavigatorConfig(horizon, beam=seed % 3 or None, max_hops=6)
    walk = Navigator(tiny_ranker(seed=seed), config).walk(errand(place, start))
    assert walk.path[0] == start
    assert len(walk.path) - 1 <= 6
    assert all(b in place.neighbors(a) for a, b in itertools.pairwise(walk.path))
    assert len(walk.seconds) == len(walk.path) - (not walk.stopped)


@pytest.mark.parametrize("beam", [None, 2])
def test_walks_side_by_side_are_the_walks_one_by_one(beam: int | None) -> None:
    rng = np.random.default_rng(0)
    places = [grid_place(rng), grid_place(rng, 2, 5, OraclePlace)]
    navigator = Navigator(tiny_ranker(), NavigatorConfig(2, beam=beam, max_hops=5))
    errands = [errand(places[k % 2], k) for k in range(7)]
    together = navigator.walk_all(errands, batch=3)
    assert [walk.path for walk in together] == [navigator.walk(one).path for one in errands]


def test_where_no_way_leaves_one_stops() -> None:
    alone = GraphPlace(np.zeros((1, 3)), [[]], np.zeros((1, 12, len(CLASSES)), np.float32))
    walk = Navigator(tiny_ranker()).walk(errand(alone, 0))
    assert walk.path == [0]
    assert walk.stopped


def test_only_viewpoints_that_were_visited_are_looked_at() -> None:
    positions, neighbors, views, _ = star(np.random.default_rng(0))
    looked: set[int] = set()

    class Watched(GraphPlace):
        def look(self, viewpoint: int) -> np.ndarray:
            looked.add(viewpoint)
            return super().look(viewpoint)

    place = Watched(positions, neighbors, views)
    Navigator(tiny_ranker()).rank([errand(place, 2, 0)])[0]
    assert looked == {2, 0}


def test_what_is_asked_of_a_world_model_is_what_was_not_visited_near_first() -> None:
    asked: list[tuple[list[int], list[int]]] = []
    place = grid_place(np.random.default_rng(0))

    def dream(here: GraphPlace, visited: Sequence[int], unseen: Sequence[int]) -> Imagined:
        asked.append((list(visited), list(unseen)))
        n = len(unseen)
        return Imagined(np.zeros((1, n, 12, len(CLASSES)), "f4"), np.full((1, n), 0.5, "f4"))

    dreaming = DreamPlace(
        place.positions, [place.neighbors(v) for v in range(9)], place.views, dream
    )
    Navigator(tiny_ranker(), NavigatorConfig(2)).rank([errand(dreaming, 0, 1)])[0]
    assert asked == [([0, 1], [2, 4, 3, 5, 7])]


def test_the_probability_is_the_mean_over_what_is_imagined() -> None:
    rng = np.random.default_rng(4)
    place = grid_place(rng)
    ideas = rng.random((3, 9, 12, len(CLASSES))).astype(np.float32)

    def dreaming(chosen: np.ndarray) -> DreamPlace:
        def dream(here: GraphPlace, visited: Sequence[int], unseen: Sequence[int]) -> Imagined:
            views = chosen[:, list(unseen)]
            return Imagined(views, np.full(views.shape[:2], 0.5, np.float32))

        return DreamPlace(
            place.positions, [place.neighbors(v) for v in range(9)], place.views, dream
        )

    navigator = Navigator(tiny_ranker(), NavigatorConfig(2))
    one_by_one = [
        navigator.rank([errand(dreaming(ideas[k : k + 1]), 0, 1)])[0].probabilities
        for k in range(3)
    ]
    together = navigator.rank([errand(dreaming(ideas), 0, 1)])[0]
    np.testing.assert_allclose(together.probabilities, np.mean(one_by_one, 0), atol=1e-6)
    assert np.abs(one_by_one[0] - one_by_one[1]).max() > 1e-6


def test_the_first_hop_gathers_the_paths_that_begin_with_it() -> None:
    place = grid_place(np.random.default_rng(0))
    ranked = Navigator(tiny_ranker(), NavigatorConfig(3)).rank([errand(place, 4)])[0]
    shares = ranked.first_hops()
    assert set(shares) == {4, *place.neighbors(4)}
    assert sum(shares.values()) == pytest.approx(1.0)
    stop = ranked.branches.leaf_of([4])
    assert shares[4] == pytest.approx(ranked.probabilities[stop])


def test_a_follower_looks_one_hop_ahead_and_imagines_nothing() -> None:
    place = grid_place(np.random.default_rng(0), place=OraclePlace)
    plain = GraphPlace(place.positions, [place.neighbors(v) for v in range(9)], place.views)
    follower = InstructionFollower(tiny_ranker(), VOCABULARY)
    navigator = Navigator(tiny_ranker(), NavigatorConfig(1))
    hop = follower.choose(place, "go to the bed", [0, 1], 0.0)
    assert hop == navigator.choose(errand(plain, 0, 1))
    walk = follower.walk(place, "go to the bed", 0)
    assert all(b in place.neighbors(a) for a, b in itertools.pairwise(walk.path))
    with pytest.raises(ValueError, match="at least one word"):
        follower.choose(place, " ", [0], 0.0)


def test_ways_up_are_told_from_ways_down_and_a_ladder_keeps_the_heading() -> None:
    positions = np.array([[0.0, 0, 0], [0, 2, 1], [0, 2, 4]])
    views = np.zeros((3, 12, len(CLASSES)), np.float32)
    place = GraphPlace(positions, [[1], [0, 2], [1]], views)
    forest = plant([decision(place, (0, 1), 1, heading=math.pi)])
    start, stair, next_level = (level.step.numpy() for level in forest.levels)
    assert start[0].tolist() == pytest.approx([1, 0, 0, 0, 1, 0, 0, 1 / 8])
    # One turns round: the start looked back, and climbs a metre.
    assert stair[0].tolist() == pytest.approx([-1, 0, 5**0.5 / 3, 1, 0, 0, 1 / 8, 2 / 8], abs=1e-6)
    back, up = next_level
    assert back[:6].tolist() == pytest.approx([-1, 0, 5**0.5 / 3, -1, 0, 1], abs=1e-6)
    assert up[:6].tolist() == pytest.approx([1, 0, 1, 3, 0, 0], abs=1e-6)


def test_shapes_that_do_not_agree_are_refused() -> None:
    views = np.zeros((2, 12, 3), np.float32)
    with pytest.raises(ValueError, match="positions"):
        GraphPlace(np.zeros((2, 2)), [[1], [0]], views)
    with pytest.raises(ValueError, match="views"):
        GraphPlace(np.zeros((2, 3)), [[1], [0]], views[:, :6])
    with pytest.raises(ValueError, match="finite"):
        GraphPlace(np.full((2, 3), np.nan), [[1], [0]], views)
    with pytest.raises(ValueError, match="views"):
        Imagined(views, np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="confidence"):
        Imagined(views[None], np.ones(2, np.float32))
    with pytest.raises(ValueError, match="at least one decision"):
        plant([])
    with pytest.raises(ValueError, match="as many"):
        InstructionFollower(tiny_ranker(), type(VOCABULARY)(("go",)))


def test_samples_become_decisions_that_share_the_rest() -> None:
    place = grid_place(np.random.default_rng(0), place=OraclePlace)
    onward = branches(place, 1, 1)
    (only,) = decisions(place, WORDS, [0, 1], 0.0, onward, 2)
    assert only.target == 2
    assert set(only.views) == {2, 4}
    assert all(confidence == 1.0 for _, confidence in only.views.values())
