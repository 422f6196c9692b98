"""The path ranker: what its scores depend on, and that it learns to look for what is named."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vln_cases import CLASSES, VOCABULARY, decision, grid_place, star_route, tiny_ranker

from agents.vln.branches import Decision, branches, decisions
from agents.vln.forest import plant
from agents.vln.places import GraphPlace, OraclePlace
from agents.vln.ranker import PathRanker, RankerConfig, log_softmax_within, ranking_loss
from agents.vln.training import CourseConfig, Route, train_ranker
from learning.train_config import TrainConfig


def weights(ranker: PathRanker, *choices: Decision) -> np.ndarray:
    with torch.inference_mode():
        return ranker(plant(choices)).numpy()


def test_every_parameter_receives_a_gradient() -> None:
    place = grid_place(np.random.default_rng(0), place=OraclePlace)
    onward = branches(place, 4, 2)
    text = "go to the bed , the zebra by the sofa sink plant table"
    rest = onward.path(int(onward.leaf_nodes[5]))
    choices = [
        decision(place, (3, 4), 2, text=text, target=onward.leaf_of(rest)),
        dataclasses.replace(decision(place, (3, 4), 2, text=text, target=0), views={}),
    ]
    ranker = tiny_ranker().train()
    ranking_loss(ranker, plant(choices)).backward()
    for name, parameter in ranker.named_parameters():
        assert parameter.grad is not None, name
        if name == "text.embedding.weight":
            used = np.unique(VOCABULARY.encode(text))
            assert (parameter.grad[used] != 0).any(1).all()
        else:
            assert (parameter.grad != 0).any(), name


def test_a_decision_weighs_the_same_alone_and_in_company() -> None:
    rng = np.random.default_rng(1)
    places = [grid_place(rng), grid_place(rng, 2, 4, OraclePlace)]
    choices = [
        decision(places[0], (0, 1, 4), 3, text="go"),
        decision(places[1], (2,), 1, text="go to the sofa to the plant"),
        decision(places[1], (2, 3, 7), 2, heading=2.0),
    ]
    ranker = tiny_ranker()
    together = weights(ranker, *choices)
    alone = np.concatenate([weights(ranker, choice) for choice in choices])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_candidates_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    place = grid_place(rng, place=OraclePlace)
    shuffled = OraclePlace(
        place.positions,
        [rng.permutation(place.neighbors(v)).tolist() for v in range(len(place.positions))],
        place.views,
    )
    ranker = tiny_ranker()
    by_path = []
    for building in (place, shuffled):
        choice = decision(building, (4,), 2)
        onward = choice.branches
        by_path.append(
            {
                (*onward.path(int(node)), bool(on)): weight
                for node, on, weight in zip(
                    onward.leaf_nodes, onward.leads_on, weights(ranker, choice), strict=True
                )
            }
        )
    assert by_path[0].keys() == by_path[1].keys()
    for path, weight in by_path[0].items():
        assert weight == pytest.approx(by_path[1][path], abs=1e-5)


def test_what_is_hidden_cannot_change_a_weight() -> None:
    place = grid_place(np.random.default_rng(2))
    changed = place.views.copy()
    changed[[v for v in range(9) if v not in (0, 1)]] = 0.123
    other = GraphPlace(place.positions, [place.neighbors(v) for v in range(9)], changed)
    ranker = tiny_ranker()
    same = weights(ranker, decision(other, (0, 1), 3))
    np.testing.assert_array_equal(weights(ranker, decision(place, (0, 1), 3)), same)


def test_a_view_of_no_confidence_is_hidden() -> None:
    place = grid_place(np.random.default_rng(2))
    hidden = decision(place, (0, 1), 2)
    unsure = dataclasses.replace(hidden, views={4: (np.ones((12, len(CLASSES)), "f4"), 0.0)})
    ranker = tiny_ranker()
    np.testing.assert_array_equal(weights(ranker, hidden), weights(ranker, unsure))
    sure = dataclasses.replace(hidden, views={4: (np.ones((12, len(CLASSES)), "f4"), 1.0)})
    assert np.abs(weights(ranker, hidden) - weights(ranker, sure)).max() > 1e-4


def test_views_of_visited_viewpoints_and_imagined_ones_count() -> None:
    rng = np.random.default_rng(3)
    place = grid_place(rng, place=OraclePlace)
    ranker = tiny_ranker()
    before = weights(ranker, decision(place, (0, 1), 2))
    for viewpoint in (0, 1, 2):
        views = place.views.copy()
        views[viewpoint] = rng.random((12, len(CLASSES)))
        other = OraclePlace(place.positions, [place.neighbors(v) for v in range(9)], views)
        assert np.abs(weights(ranker, decision(other, (0, 1), 2)) - before).max() > 1e-4


@settings(max_examples=12, deadline=None)
@given(turns=st.integers(1, 11), seed=st.integers(0, 100))
def test_turning_the_world_changes_nothing(turns: int, seed: int) -> None:
    place = grid_place(np.random.default_rng(seed), place=OraclePlace)
    angle = turns * math.pi / 6.0  # clockwise, as headings grow
    c, s = math.cos(angle), math.sin(angle)
    turned = OraclePlace(
        place.positions @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) + [3.0, -2.0, 0.5],
        [place.neighbors(v) for v in range(9)],
        np.roll(place.views, turns, axis=1),
    )
    ranker = tiny_ranker()
    first = weights(ranker, decision(place, (0, 3, 4), 2, heading=0.4))
    second = weights(ranker, decision(turned, (0, 3, 4), 2, heading=0.4 + angle))
    np.testing.assert_allclose(first, second, atol=2e-4)


def test_left_is_told_from_right_and_one_heading_from_another() -> None:
    place = grid_place(np.random.default_rng(0), place=OraclePlace)
    mirrored = OraclePlace(
        place.positions * [-1.0, 1.0, 1.0], [place.neighbors(v) for v in range(9)], place.views
    )
    rolled = OraclePlace(
        place.positions, [place.neighbors(v) for v in range(9)], np.roll(place.views, 3, axis=1)
    )
    ranker = tiny_ranker()
    plain = weights(ranker, decision(place, (0, 3, 4), 2))
    for other in (mirrored, rolled):
        assert np.abs(weights(ranker, decision(other, (0, 3, 4), 2)) - plain).max() > 1e-4


def test_the_order_of_the_words_counts() -> None:
    place = grid_place(np.random.default_rng(0), place=OraclePlace)
    ranker = tiny_ranker()
    first = weights(ranker, decision(place, (0, 1), 2, text="go to the bed the sofa"))
    second = weights(ranker, decision(place, (0, 1), 2, text="go to the sofa the bed"))
    assert np.abs(first - second).max() > 1e-5


def test_the_softmax_is_taken_within_each_decision() -> None:
    logs = log_softmax_within(torch.tensor([0.0, 0.0, 5.0, 1000.0]), torch.tensor([0, 0, 1, 1]), 2)
    assert logs[:2].exp().tolist() == pytest.approx([0.5, 0.5])
    assert logs[2:].exp().tolist() == pytest.approx([0.0, 1.0])


def test_the_softmax_agrees_with_torch_and_passes_gradients() -> None:
    weights = torch.randn(6, dtype=torch.float64, requires_grad=True)
    group = torch.tensor([0, 0, 0, 1, 1, 1])
    expected = torch.cat([weights[:3].log_softmax(0), weights[3:].log_softmax(0)])
    torch.testing.assert_close(log_softmax_within(weights, group, 2), expected)
    assert torch.autograd.gradcheck(lambda w: log_softmax_within(w, group, 2), weights)


def test_a_decision_without_an_answer_cannot_be_trained_on() -> None:
    choice = decision(grid_place(np.random.default_rng(0)))
    with pytest.raises(ValueError, match="target"):
        ranking_loss(tiny_ranker(), plant([choice]))


@pytest.mark.parametrize(
    "change", [{"width": 7}, {"tokens": 6}, {"features": 0}, {"dropout": 1.0}, {"heads": 0}]
)
def test_impossible_sizes_are_refused(change: dict[str, float]) -> None:
    values = RankerConfig(5, 20).to_dict() | change
    with pytest.raises(ValueError, match=r"must be|multiple"):
        RankerConfig.from_dict(values)


def test_a_config_survives_json_and_strangers_are_refused() -> None:
    config = RankerConfig(5, 20, width=48)
    assert RankerConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="must hold"):
        RankerConfig.from_dict(config.to_dict() | {"colour": 1})
    with pytest.raises(ValueError, match="number"):
        RankerConfig.from_dict(config.to_dict() | {"width": None})


def share_right(ranker: PathRanker, routes: list[Route], arm: int) -> float:
    """Share of first decisions whose most probable leaf ends at the goal."""
    right = []
    for route in routes:
        place = route.places[arm]
        onward = branches(place, route.path[0], 1)
        choice = decisions(place, route.words, route.path[:1], route.heading, onward)
        best = int(weights(ranker, *choice).argmax())
        right.append(onward.path(int(onward.leaf_nodes[best])) == list(route.path))
    return float(np.mean(right))


@pytest.mark.learning
def test_a_ranker_finds_what_is_named_in_unseen_places_and_is_at_chance_without_views() -> None:
    rng = np.random.default_rng(0)
    routes = [star_route(rng, GraphPlace, OraclePlace) for _ in range(1500)]
    unseen = [star_route(rng, GraphPlace, OraclePlace) for _ in range(200)]
    ranker = tiny_ranker()
    course = CourseConfig(horizons=(1,), per_route=1, detour=0.0)
    config = TrainConfig(steps=150, batch_size=32, lr=1e-2, ema_decay=0.98, warmup_steps=20)
    train_ranker(ranker, routes, course, config)
    assert share_right(ranker, unseen, 1) >= 0.9
    # One of four ends; four standard errors of 200 draws.
    assert share_right(ranker, unseen, 0) == pytest.approx(0.25, abs=0.125)
