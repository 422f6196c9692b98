"""The study on procedural houses: what each arm may know, and a run of the whole."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.vln.places import GraphPlace, Imagined
from agents.vln.views import view_features
from agents.vln.vocabulary import Vocabulary
from decisive.benchmarks.dreamed_study import ARMS, DreamedPlan, DreamedStudy
from decisive.benchmarks.house_data import FEATURES, HouseSet, graph_of
from decisive.benchmarks.house_guesses import RecordedPlace, within
from decisive.benchmarks.house_oracle import CONFIDENCE, Oracle, bank_of, seen_rooms
from decisive.benchmarks.navigation import main
from decisive.guesses import DREAMED, GUIDED, Guesser
from decisive.rendering import draw_house
from envs.indoor.categories import CATEGORIES
from envs.indoor.house import House, generate_house
from envs.indoor.room_types import PURPOSES, TypeModel
from world_models.pathdreamer.guidance import make_guidance
from world_models.pathdreamer.model import Pathdreamer
from world_models.pathdreamer.panoramas import PanoramaSet

SIZE = (32, 64)
N = len(CATEGORIES)


@pytest.fixture(scope="module")
def house() -> House:
    return generate_house(3, "val")


@pytest.fixture(scope="module")
def data() -> PanoramaSet:
    return PanoramaSet.of_houses([draw_house(3, "val", 1.0, SIZE)])


@pytest.fixture(scope="module")
def span(data: PanoramaSet) -> range:
    return data.houses[0][1]


@pytest.fixture(scope="module")
def views(data: PanoramaSet, span: range) -> Any:
    return np.stack(
        [view_features(data.semantic[k], data.depth[k].astype(np.float32), N) for k in span]
    )


@pytest.fixture(scope="module")
def place(house: House, views: Any) -> GraphPlace:
    return GraphPlace(house.graph.positions, house.graph.neighbors, views)


@pytest.fixture(scope="module")
def dreamer() -> Pathdreamer:
    torch.manual_seed(0)
    model = Pathdreamer("small").eval()
    for parameter in model.structure.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # an untrained one copies, whatever the latent
    return model


def test_a_house_is_the_same_from_its_panoramas(house: House, data: PanoramaSet) -> None:
    graph = graph_of(data, house.name)
    assert graph.viewpoints == house.graph.viewpoints
    np.testing.assert_allclose(graph.distances, house.graph.distances, atol=1e-9)


def test_what_lies_within_some_hops_comes_near_first() -> None:
    chain = [(1,), (0, 2), (1, 3, 4), (2,), (2,)]
    assert within(chain, 0, 1) == [1]
    assert within(chain, 1, 2) == [0, 2, 3, 4]
    assert within(chain, 3, 9) == [2, 1, 4, 0]


def test_the_guidance_arm_sees_what_was_projected_and_no_more(
    data: PanoramaSet, span: range, place: GraphPlace
) -> None:
    near = place.neighbors(0)[0]
    found = Guesser.of_house(data, span)(place, [0], [near])
    guidance = make_guidance([data.seen(span[0])], data.positions[span[near]])
    expected = view_features(guidance.semantic, guidance.depth, N, guidance.valid)
    np.testing.assert_array_equal(found.views[0, 0], expected)
    assert found.confidence.tolist() == [[np.float32(GUIDED)]]
    assert 0 < found.views[0, 0, :, -1].mean() < 1


def test_ideas_of_a_place_differ_and_stay_when_asked_again_or_in_company(
    data: PanoramaSet, span: range, place: GraphPlace, dreamer: Pathdreamer
) -> None:
    near = within(place._neighbors, 0, 2)[:3]
    alone = Guesser.of_house(data, span, dreamer, 3)(place, [0], near[1:2])
    guesser = Guesser.of_house(data, span, dreamer, 3)
    together = guesser(place, [0], near)
    assert together.views.shape == (3, 3, 12, len(FEATURES))
    np.testing.assert_allclose(together.views[:, 1], alone.views[:, 0], atol=1e-5)
    np.testing.assert_array_equal(guesser(place, [0], near).views, together.views)
    assert np.abs(together.views[0] - together.views[1]).max() > 1e-3
    assert (together.confidence == np.float32(DREAMED)).all()
    other = Guesser.of_house(data, span, dreamer, 3, seed=1)(place, [0], near)
    assert np.abs(other.views - together.views).max() > 1e-3


def test_recorded_guesses_hold_for_their_history_only(place: GraphPlace, views: Any) -> None:
    record = RecordedPlace(place.positions, place._neighbors, views)
    assert record.imagine([0], [1]) is None
    guess = Imagined(views[None, [1, 2]], np.full((1, 2), 0.5, np.float32))
    record.record([0, 3], [1, 2], guess)
    assert record.imagine([0], [1]) is None
    found = record.imagine([3, 0], [5, 2])
    assert found is not None
    np.testing.assert_array_equal(found.views[0, 1], views[2])
    assert found.confidence.tolist() == [[0.0, 0.5]]


# The oracle


@pytest.fixture(scope="module")
def bank(views: Any) -> Any:
    plain = {purpose: np.zeros((1, *views.shape[1:]), np.float32) for purpose in PURPOSES}
    return plain


def test_one_sees_the_room_one_stands_in_and_not_the_whole_house(
    house: House, data: PanoramaSet, span: range
) -> None:
    seen = seen_rooms(house, data, span)
    assert all(house.viewpoint_rooms[k] in rooms for k, rooms in enumerate(seen))
    assert max(map(len, seen)) < len(house.rooms)


def test_the_oracle_knows_the_truth_of_rooms_that_were_seen(
    house: House, data: PanoramaSet, span: range, views: Any, bank: Any, place: GraphPlace
) -> None:
    seen = seen_rooms(house, data, span)
    oracle = Oracle(house, views, seen, bank, samples=2)
    everywhere = list(range(len(house.graph)))
    found = oracle(place, everywhere, everywhere)
    np.testing.assert_array_equal(found.views, np.stack([views, views]))
    assert (found.confidence == np.float32(CONFIDENCE)).all()


def test_the_oracle_draws_from_the_exact_posterior(
    house: House, data: PanoramaSet, span: range, views: Any, bank: Any
) -> None:
    oracle = Oracle(house, views, seen_rooms(house, data, span), bank, samples=600)
    model = TypeModel(house.plan, house.predictability)
    known = frozenset(model.rooms[2:])
    ideas = oracle.purposes(known)
    signs = {room: {"door": house.rooms[room].signs["door"]} for room in model.rooms}
    told = {room: house.rooms[room].purpose for room in known}
    assert all(idea[room] == purpose for idea in ideas for room, purpose in told.items())
    for room in model.rooms[:2]:
        exact = model.posterior(room, told, signs)
        drawn = np.array([[idea[room] == purpose for purpose in PURPOSES] for idea in ideas])
        error = np.sqrt(exact * (1 - exact) / len(ideas))
        assert (np.abs(drawn.mean(0) - exact) <= 4 * error + 1e-9).all()


def test_a_bank_holds_views_of_every_purpose_or_says_which_is_missing(
    house: House, views: Any
) -> None:
    with pytest.raises(ValueError, match="give more houses"):
        bank_of([(house, views)])
    houses = [generate_house(seed) for seed in range(8)]
    many = [(one, np.zeros((len(one.graph), 12, 4), np.float32)) for one in houses]
    assert set(bank_of(many)) == set(PURPOSES)


# The whole


def test_instructions_are_written_once_and_start_in_their_house(tmp_path: Path) -> None:
    houses = HouseSet("val", 1.0, 2, 2, 2, 32, tmp_path)
    lessons = houses.lessons
    assert len({one.path_id for one in lessons}) == 4
    assert len(lessons) == 12
    again = HouseSet("val", 1.0, 2, 2, 2, 32, tmp_path)
    assert again.lessons == lessons
    assert {one.scan for one in lessons} == set(houses.spans)
    for one in lessons:
        houses.graph(one.scan).length(one.path)  # raises where a step is no edge


def test_a_dreamed_house_shows_what_its_route_meets_and_of_the_truth_the_start_only(
    tmp_path: Path, dreamer: Pathdreamer
) -> None:
    plan = DreamedPlan(dreamed=2, learned=1, walked=2, paths=(2, 1), more=1, more_paths=1)
    study = DreamedStudy(plan, 0, tmp_path)
    study._study.__dict__["dreamer"] = dreamer
    vocabulary = Vocabulary.of(one.text for one in study.more.lessons)
    truth = study._real(vocabulary, study.more)
    dreamed = study._dreamed(vocabulary)
    assert len(dreamed) == len(truth) == 3
    for real, guess in zip(truth, dreamed, strict=True):
        assert real.path == guess.path
        (there,), (place,) = real.places, guess.places
        assert isinstance(there, GraphPlace)
        assert isinstance(place, GraphPlace)
        start, *rest = real.path
        np.testing.assert_array_equal(place.views[start], there.views[start])
        beside = {n for viewpoint in real.path for n in place.neighbors(viewpoint)}
        for viewpoint in range(len(place.views)):
            met = viewpoint in beside | set(rest)
            assert place.views[viewpoint].any() == (met or viewpoint == start)
            if viewpoint != start:
                assert not np.array_equal(place.views[viewpoint], there.views[viewpoint])
    # The last arm learns in as many routes, all of them real.
    with pytest.raises(ValueError, match="walk in those of test"):
        DreamedStudy(replace(plan, split="val"), 0, tmp_path)


@pytest.mark.learning
@pytest.mark.slow
def test_followers_learn_in_real_and_in_dreamed_houses(tmp_path: Path) -> None:
    plan = DreamedPlan(
        dreamed=40, learned=2, walked=2, paths=(2, 1), more=2, more_paths=1, horizon=2,
        dreamer_seconds=2.0, ranker_seconds=2.0,
    )  # fmt: skip
    study = DreamedStudy(plan, 0, tmp_path)
    for arm in ARMS:
        results = study.walk(arm)
        assert len(results["per_episode"]) == 6
        assert (study.folder / arm).is_dir()
    # What is trained is not trained again.
    again = DreamedStudy(plan, 0, tmp_path).walk(ARMS[1])
    assert again["training"] == study.follower(ARMS[1]).training


@pytest.mark.learning
@pytest.mark.slow
def test_a_study_in_houses_runs_and_what_is_done_is_not_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--world", "houses", "--houses", "40,4,2", "--seeds", "1", "--horizon", "2"]
    argv += ["--ranker-seconds", "2", "--views-seconds", "2", "--json"]
    argv += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main(argv) == 0
    first = json.loads(capsys.readouterr().out)
    assert all(entry["episodes"] == 18 for entry in first["arms"].values())
    assert len(first["arms"]) == 5
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["arms"] == first["arms"]


@pytest.mark.parametrize(
    "words",
    [
        ["--houses", "3"],
        ["--houses", "10,20,5"],
        ["--arms", "psychic"],
        ["--workers", "0"],
        ["--split", "train"],
        ["--predictability", "2"],
    ],
)
def test_settings_of_houses_that_cannot_run_are_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"must|cannot|houses of val or test"):
        main(["--world", "houses", *words])
