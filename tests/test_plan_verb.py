"""`decisive plan`: what is expected where, searching for it, the room model, bad input."""

import json
import math

import numpy as np
import pytest
from dream_cases import HOUSE, SIZE, checkpoint, painted_folder, spoil_depth, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from decisive import cli, room_fitting
from decisive.plan import Arguments, ranked
from decisive.plan_evaluation import Case, search_house, summarize
from decisive.plan_picture import Finding, draw_plan
from decisive.room_fitting import ROOMS, quality
from decisive.scenes import HouseScene
from decisive.search import (
    Goal,
    at_random,
    by_score,
    chances,
    copied,
    expect,
    look,
    mean_interval,
    nearest_first,
    reach,
    read_goal,
    search,
    true_features,
)
from envs.indoor.categories import CATEGORIES, ID
from envs.indoor.graph import NavigationGraph
from envs.indoor.worlds import open_world
from world_models.pathdreamer.places import (
    Imagined,
    RoomModel,
    class_shares,
    fit_room_model,
    imagine,
    mean_depth,
    read_room_model,
    view_features,
)

HOUSES = open_world("houses")


@pytest.fixture(scope="module")
def house():
    return HouseScene(HOUSE)


def plan(out, *words: str) -> int:
    return cli.main(["plan", "--model", checkpoint(), "--out", str(out), *words])


def corridor() -> NavigationGraph:
    """0 - 1 - 2 - 3 along x, two metres apart, and 4 beside 1."""
    positions = np.array([[0, 0, 1.5], [2, 0, 1.5], [4, 0, 1.5], [6, 0, 1.5], [2, 1, 1.5]], float)
    adjacent = np.zeros((5, 5), bool)
    for i, j in ((0, 1), (1, 2), (2, 3), (1, 4)):
        adjacent[i, j] = adjacent[j, i] = True
    return NavigationGraph("corridor", list("abcde"), positions, adjacent)


# Goals, reach and search.


def test_goals_are_rooms_objects_and_furniture():
    assert read_goal("Living_Room", ROOMS) == Goal("living room", ROOMS.index("living room"))
    assert read_goal("bed", ROOMS) == Goal("bed", None, ID["bed"])
    assert read_goal("tv monitor", ROOMS).category == ID["tv_monitor"]
    assert read_goal("bookcase", ROOMS) == Goal("shelving", None, ID["shelving"])
    with pytest.raises(ValueError, match="unknown goal 'kichen': perhaps 'kitchen'"):
        read_goal("kichen", ROOMS)
    with pytest.raises(ValueError, match="unknown goal 'void'"):
        read_goal("void", ROOMS)


def test_what_is_reached_is_ordered_by_steps_from_what_was_seen():
    graph = corridor()
    assert reach(graph, [0], None) == [[1], [2, 4], [3]]
    assert reach(graph, [0], 2) == [[1], [2, 4]]
    assert reach(graph, [0, 3], None) == [[1, 2], [4]]
    assert reach(graph, range(5), 3) == []


@given(seen=st.sets(st.integers(0, 18), min_size=1), horizon=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_reach_counts_the_fewest_steps(seen, horizon):
    graph = HOUSES.graph(HOUSE)
    steps = np.where(graph.adjacent, 1.0, math.inf)
    np.fill_diagonal(steps, 0)
    for via in range(len(graph)):
        steps = np.minimum(steps, steps[:, via, None] + steps[via])
    nearest = steps[sorted(seen)].min(axis=0)
    waves = reach(graph, sorted(seen), horizon)
    for hops, wave in enumerate(waves, 1):
        assert wave == np.flatnonzero(nearest == hops).tolist()
    assert sum(map(len, waves)) == ((nearest > 0) & (nearest <= horizon)).sum()


def test_a_search_walks_shortest_ways_and_sees_what_lies_on_them():
    graph = corridor()
    by_chance = by_score(graph, {3: 0.9, 4: 0.1, 1: 0.0, 2: 0.0})
    assert search(graph, 0, {2}, by_chance).metres == 4  # met on the way to 3
    # 3 first; from there 4 (0.1 / 5 m) beats what has no chance; 1 and 2 were passed.
    found = search(graph, 0, {4}, by_chance)
    assert found.metres == pytest.approx(6 + 5)
    assert found.viewpoints == 4
    nearest = search(graph, 0, {3}, nearest_first(graph))
    assert nearest.metres == pytest.approx(2 + 1 + 1 + 2 + 2)
    assert nearest.viewpoints == 4


def test_chance_is_weighed_against_the_way():
    graph = corridor()
    assert by_score(graph, {1: 0.3, 3: 0.6})(0, [1, 2, 3, 4]) == 1
    assert by_score(graph, {1: 0.3, 3: 0.95})(0, [1, 2, 3, 4]) == 3
    assert by_score(graph, {})(0, [1, 2, 3, 4]) == 1  # nothing known: the nearest


def test_a_search_needs_a_goal_elsewhere():
    for goals in (set(), {0}):
        with pytest.raises(ValueError, match="goal elsewhere"):
            search(corridor(), 0, goals, nearest_first(corridor()))


@given(seed=st.integers(0, 99))
def test_no_search_is_shorter_than_the_shortest_way(seed):
    graph = corridor()
    found = search(graph, 0, {3, 4}, at_random(np.random.default_rng(seed)))
    assert found.metres >= 3
    assert 1 < found.viewpoints <= 4


def test_intervals_are_over_groups():
    assert mean_interval([2.0, 2.0], [0, 1]) == (2.0, 2.0, 2.0)
    values = [0.0, 0.0, 1.0, 1.0]
    mean, low, high = mean_interval(values, [0, 0, 1, 1])
    assert (mean, low, high) == (0.5, 0.0, 1.0)  # two houses, each all or nothing
    one = mean_interval(np.arange(400) % 2, range(400))
    half = 1.96 * 0.5 / math.sqrt(400)
    assert one[1] == pytest.approx(0.5 - half, abs=0.012)
    assert one[2] == pytest.approx(0.5 + half, abs=0.012)
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([], [])


def test_summaries_pair_each_search_with_nearest_first():
    def case(house: int, model: float, nearest: float) -> Case:
        ways = {"world model": model, "nearest first": nearest}
        return Case(house, "kitchen", 2.0, dict.fromkeys(ways, 1.0), ways, ways)

    found = summarize([case(0, 3, 5), case(1, 4, 8)])
    assert found["cases"] == 2
    assert found["ways"]["world model"]["metres"][0] == 3.5
    assert found["ways"]["world model"]["metres_saved"] == [3.0, 2.0, 4.0]
    assert found["ways"]["nearest first"]["metres_saved"] == [0.0, 0.0, 0.0]


# Imagining.


def test_views_have_shares_depth_and_how_much_is_new(house):
    views = look(house, [15], SIZE)
    waves = reach(house.graph, [15], 2)
    found = expect(tiny(), house.graph, views, waves, samples=2, seed=0)
    n = sum(map(len, waves))
    assert found.shares.shape == (2, n, len(CATEGORIES))
    assert found.features.shape == (2, n, len(CATEGORIES) + 1)
    np.testing.assert_allclose(found.shares.sum(axis=-1), 1, atol=1e-4)
    assert (found.depth > 0).all()
    assert ((found.unseen > 0) & (found.unseen <= 1)).all()


def test_a_seed_fixes_what_is_imagined_and_samples_differ(house):
    views, waves = look(house, [15], SIZE), reach(house.graph, [15], 2)

    def shares(seed: int, temperature: float = 1.0) -> np.ndarray:
        return expect(tiny(), house.graph, views, waves, 2, seed, temperature).shares

    first = shares(1)
    np.testing.assert_array_equal(first, shares(1))
    assert np.abs(first - shares(2)).max() > 0
    assert np.abs(first[0] - first[1]).max() > 0
    expected = shares(1, temperature=0.0)
    np.testing.assert_allclose(expected[0], expected[1], atol=1e-6)


def test_what_was_dreamed_first_is_remembered_behind_it(house):
    views = look(house, [15], SIZE)
    near, far = house.graph.positions[[14, 6]]
    chained = imagine(tiny(False), views, [[near], [far]], 1).unseen[0, 1]
    alone = imagine(tiny(False), views, [[far]], 1).unseen[0, 0]
    assert chained < alone - 0.01


def test_within_a_wave_nobody_sees_the_others(house):
    views = look(house, [15], SIZE)
    near, far = house.graph.positions[[14, 6]]
    both = imagine(tiny(False), views, [[near, far]], 1)
    alone = imagine(tiny(False), views, [[far]], 1)
    np.testing.assert_allclose(both.shares[0, 1], alone.shares[0, 0], atol=1e-5)


def test_a_model_that_copies_expects_what_the_memory_shows(house):
    views = look(house, [15], SIZE)
    order = [14, 6]
    dreamed = imagine(tiny(False), views, [house.graph.positions[order]], 1)
    seen_only = copied(views, house.graph, order)
    np.testing.assert_allclose(dreamed.unseen, seen_only.unseen, atol=1e-9)
    # Copying with odds of e^4 against each other class blurs the shares, evenly.
    for k in range(2):
        most = seen_only.shares[0, k].argsort()[-3:]
        assert (dreamed.shares[0, k, most] > 0.5 * seen_only.shares[0, k, most]).all()
    np.testing.assert_allclose(dreamed.depth, seen_only.depth, rtol=0.05)


def test_painting_changes_no_numbers_of_the_first_wave(house):
    views = look(house, [15], SIZE)
    places = [house.graph.positions[[14, 6]]]
    plain, painted = (imagine(tiny(), views, places, 1, rgb=rgb) for rgb in (False, True))
    np.testing.assert_allclose(plain.shares, painted.shares, atol=1e-5)


def test_imagining_needs_something_seen_and_a_sample(house):
    views = look(house, [15], SIZE)
    with pytest.raises(ValueError, match="at least one panorama"):
        imagine(tiny(), [], [])
    with pytest.raises(ValueError, match="samples must be at least 1"):
        imagine(tiny(), views, [], 0)
    assert imagine(tiny(), views, [], 2).shares.shape == (2, 0, len(CATEGORIES))


# The room model.


def test_mean_depth_is_over_the_solid_angle():
    depth = np.full((10, 20), 4.0)
    assert mean_depth(depth) == pytest.approx(4)
    depth[:5] = 50.0  # counts as 10 m
    assert mean_depth(depth) == pytest.approx(7)


def test_a_fitted_room_model_tells_rooms_apart():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    shares = rng.dirichlet(np.ones(5), 300) * 0.3
    shares[np.arange(300), labels] += 0.7
    features = view_features(shares, rng.uniform(1, 3, 300))
    model = fit_room_model(features, labels, ("a", "b", "c"))
    found = quality(model, features, labels)
    assert found["accuracy"] > 0.97
    chance = model.probabilities(features)
    np.testing.assert_allclose(chance.sum(axis=1), 1)


def test_a_room_model_survives_its_file(tmp_path):
    model = RoomModel(
        ("a", "b"), np.array([[1.0, 2.0], [0.5, -1.0]]), np.array([0.0, 1.0]), {"k": 1}
    )
    model.write(tmp_path / "rooms.json")
    back = read_room_model(tmp_path / "rooms.json")
    assert back.rooms == model.rooms
    assert back.facts == {"k": 1}
    np.testing.assert_array_equal(back.weights, model.weights)
    with pytest.raises(ValueError, match="looks at 2 features, got 3"):
        back.probabilities(np.zeros((1, 3)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"rooms": ["a"], "weights": [[1], [2]], "bias": [0], "facts": {}}',
        '{"rooms": ["a"], "weights": [[NaN]], "bias": [0], "facts": {}}',
        '{"rooms": ["a"], "weights": [["x"]], "bias": [0], "facts": {}}',
    ],
)
def test_a_broken_room_model_is_refused(text, tmp_path):
    (tmp_path / "rooms.json").write_text(text)
    with pytest.raises(ValueError, match="holds no room model"):
        read_room_model(tmp_path / "rooms.json")


def test_labels_that_are_no_rooms_are_refused():
    with pytest.raises(ValueError, match="labels must be 0 to 1"):
        fit_room_model(np.zeros((2, 3)), np.array([0, 2]), ("a", "b"))
    with pytest.raises(ValueError, match="need \\(N, F\\) features"):
        fit_room_model(np.zeros((2, 3)), np.array([0]), ("a",))


def test_the_shipped_room_model_knows_a_house_it_never_saw(house):
    model = read_room_model()
    assert model.rooms == ROOMS
    assert model.facts["real"]["accuracy"] > 0.9
    features = true_features(look(house, range(len(house.graph)), (64, 128)))
    labels = np.array(
        [ROOMS.index(house.house.rooms[room].purpose) for room in house.house.viewpoint_rooms]
    )
    assert quality(model, features, labels)["accuracy"] > 0.8


def test_chances_are_probabilities_of_rooms_and_shares_of_objects(house):
    views = look(house, [15], SIZE)
    imagined = expect(tiny(), house.graph, views, [[14], [6]], 3, 0)
    rooms = read_room_model()
    each = sum(chances(Goal(name, k), imagined, rooms) for k, name in enumerate(ROOMS))
    np.testing.assert_allclose(each, 1)
    bed = chances(Goal("bed", None, ID["bed"]), imagined, rooms)
    np.testing.assert_array_equal(bed, imagined.shares[..., ID["bed"]])


@pytest.mark.slow
def test_fitting_writes_a_room_model(tmp_path, capsys):
    out = tmp_path / "rooms.json"
    words = ["--houses", "2", "--held-out", "1", "--height", "32", "--horizon", "1"]
    assert room_fitting.main([*words, "--model", checkpoint(), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "real views" in told
    assert "dreamed views" in told
    model = read_room_model(out)
    assert model.rooms == ROOMS
    assert model.weights.shape == (len(ROOMS), len(CATEGORIES) + 1)
    assert {"command", "real", "dreamed"} <= set(model.facts)


# The verb.


def test_the_verb_ranks_what_was_not_seen_and_draws_it(tmp_path, capsys):
    out = tmp_path / "plan.png"
    assert plan(out, "--goal", "bedroom", "--seen", "15,14", "--samples", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    graph = HOUSES.graph(HOUSE)
    waves = reach(graph, [15, 14], 3)
    rows = told["ranking"]
    assert {row["viewpoint"] for row in rows} == {index for wave in waves for index in wave}
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    for row in rows:
        assert row["viewpoint"] in waves[row["steps"] - 1]
        assert row["distance"] == pytest.approx(graph.distances[14, row["viewpoint"]], abs=1e-3)
    assert {"command", "commit", "seconds", "picture"} <= set(told)
    with Image.open(out) as picture:
        assert min(picture.size) > 500


def test_the_table_tells_the_truth_beside_the_guess(tmp_path, capsys):
    words = ("--seen", "15", "--horizon", "1", "--samples", "1", "--walk", "1")
    assert plan(tmp_path / "p.png", "--goal", "bed", *words) == 0
    told = capsys.readouterr().out
    assert "share of the view %" in told
    assert f"{HOUSE}_006" in told
    assert "bedroom" in told
    assert str(tmp_path / "p.png") in told


def test_panoramas_of_ones_own_can_be_searched(tmp_path, capsys):
    folder = painted_folder(tmp_path / "mine")
    words = ("--images", folder, "--goal", "kitchen", "--seen", "0", "--json")
    assert plan(tmp_path / "p.png", *words) == 0
    assert "truth" not in json.loads(capsys.readouterr().out)["ranking"][0]
    spoil_depth(folder, np.nan)
    assert plan(tmp_path / "q.png", *words) == 2
    assert "depth must be finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name what is looked for"),
        (("--goal", "swimming pool"), "unknown goal 'swimming pool'"),
        (("--goal", "bed", "--scene", "castle"), "unknown scan 'castle'"),
        (("--goal", "bed", "--seen", "99"), "has no viewpoint '99'"),
        (("--goal", "bed", "--seen", "1 2 1.5"), "must be viewpoints"),
        (("--goal", "bed", "--seen", ",".join(map(str, range(19)))), "was seen already"),
        (("--goal", "bed", "--horizon", "0"), "horizon must be at least 1"),
        (("--goal", "bed", "--samples", "0"), "samples must be at least 1"),
        (("--goal", "bed", "--walk", "-1"), "must not be negative"),
        (("--goal", "bed", "--temperature", "-1"), "temperature must be at least 0"),
        (("--evaluate", "0"), "evaluate must be at least 1"),
        (("--evaluate", "1", "--predictability", "2"), "predictability must be in"),
        (("--evaluate", "1"), "the file ends in .json"),
        (("--goal", "bed", "--model", "not-there"), "no world model 'not-there'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(words, said, tmp_path, capsys):
    assert plan(tmp_path / "p.png", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_picture_needs_the_name_of_one(tmp_path, capsys):
    assert plan(tmp_path / "p.txt", "--goal", "bed") == 2
    assert "ending in .png" in capsys.readouterr().err


def test_searches_of_a_house_repeat_themselves_and_never_beat_the_shortest_way():
    arguments = Arguments(evaluate=1, model=checkpoint(), samples=1, horizon=2)
    cases = search_house(arguments, 1)
    assert cases == search_house(arguments, 1)
    assert cases
    for case in cases:
        assert set(case.metres) == {
            "world model",
            "guidance only",
            "nearest first",
            "random order",
        }
        assert min(case.metres.values()) >= case.shortest - 1e-9
        assert all(0 <= share <= 1 for share in case.first.values())


def test_objects_are_searched_for_where_they_are_really_seen(house):
    arguments = Arguments(evaluate=1, goal="toilet", model=checkpoint(), samples=1, horizon=1)
    for case in search_house(arguments, 1):
        assert case.goal == "toilet"
        assert case.shortest > 0
    views = np.array([view.semantic for view in look(house, [15, 6], (64, 128))])
    assert class_shares(views, len(CATEGORIES))[:, ID["toilet"]].max() > 0


@pytest.mark.slow
def test_the_evaluation_does_not_depend_on_the_workers(tmp_path, capsys):
    found = []
    for workers in ("1", "2"):
        words = ("--evaluate", "2", "--samples", "1", "--horizon", "1", "--workers", workers)
        assert plan(tmp_path / f"{workers}.json", *words, "--json") == 0
        found.append(json.loads(capsys.readouterr().out))
        assert json.loads((tmp_path / f"{workers}.json").read_text()) == found[-1]
    assert found[0]["ways"] == found[1]["ways"]


def test_the_picture_shows_a_graph_where_there_is_no_plan(tmp_path):
    from decisive.scenes import open_scene

    scene = open_scene(None, painted_folder(tmp_path / "mine"))
    imagined = Imagined(np.full((1, 2, 41), 1 / 41), np.ones((1, 2)), np.ones((1, 2)))
    goal = Goal("bed", None, ID["bed"])
    rows = ranked(goal, scene, [0], [[1], [2]], imagined, np.array([[0.1, 0.4]]))
    assert [row["viewpoint"] for row in rows] == [2, 1]
    picture = draw_plan(Finding(scene, goal, [0], rows, {}))
    assert picture.std() > 0


def test_spread_is_over_the_samples(house):
    imagined = Imagined(np.full((2, 1, 41), 1 / 41), np.ones((2, 1)), np.ones((2, 1)))
    row = ranked(Goal("bed", None, 11), house, [15], [[14]], imagined, np.array([[0.2], [0.4]]))[0]
    assert row["score"] == pytest.approx(0.3)
    assert row["spread"] == pytest.approx(0.1)
