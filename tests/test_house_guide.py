"""A simulated base in a house, and the guide that leads one: without ROS."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.vln.checkpoint import SavedRanker
from agents.vln.navigator import Errand, Navigator, NavigatorConfig
from agents.vln.places import DreamPlace, GraphPlace
from agents.vln.ranker import PathRanker, RankerConfig
from agents.vln.views import view_features
from agents.vln.vocabulary import Vocabulary
from decisive.benchmarks.house_data import FEATURES
from decisive.guesses import Guesser
from envs.indoor.categories import CATEGORIES
from envs.indoor.house import BODY_RADIUS
from robots.driving import DriveConfig, Pose, steer
from ros_nodes.guide import Guide, floor_points, read_graph
from ros_nodes.house_base import TIMEOUT, HouseBase
from world_models.pathdreamer.model import Pathdreamer

SIZE = (32, 64)
TEXT = "go past the table and stop by the bed"


@pytest.fixture(scope="module")
def base() -> HouseBase:
    return HouseBase("house_val_000003")


def ranker(features: tuple[str, ...] = FEATURES) -> SavedRanker:
    torch.manual_seed(3)
    vocabulary = Vocabulary.of([TEXT] * 3)
    config = RankerConfig(len(features), len(vocabulary))
    return SavedRanker(PathRanker(config).eval(), vocabulary, features, {})


# The base


def test_every_way_of_the_graph_is_driven_without_touching_anything(base: HouseBase) -> None:
    graph = base.graph
    ways = [(a, b) for a in range(len(graph)) for b in graph.neighbors[a]]
    for a, b in ways[::7]:
        base.place(a, math.pi / 3)
        start, end = floor_points(graph, [a, b])
        for step in range(3000):
            found = steer(base.pose, start, end, DriveConfig())
            base.command(found.speed, found.turn, step * 0.02)
            base.drive(step * 0.02, 0.02)
            if found.arrived:
                break
        assert found.arrived, (a, b)
        assert base.touched == 0


def test_a_wall_stops_the_base_and_it_can_turn_away(base: HouseBase) -> None:
    base.place(0, 0.5)
    for step in range(400):
        base.command(3.0, 0.0, step * 0.1)
        base.drive(step * 0.1, 0.1)
        assert base.scene.house.free(base.pose[:2], BODY_RADIUS - 1e-3)
    stuck = base.pose
    assert base.touched > 0
    base.command(1.0, 0.0, 50.0)
    base.drive(50.0, 0.1)
    assert math.dist(base.pose[:2], stuck[:2]) < 0.1
    base.command(-1.0, 0.5, 51.0)
    base.drive(51.0, 0.2)
    assert math.dist(base.pose[:2], stuck[:2]) > 0.05
    assert base.pose.yaw == pytest.approx(stuck.yaw + 0.1)


def test_a_velocity_does_not_last_and_nonsense_stops(base: HouseBase) -> None:
    base.place(0, 0.0)
    base.command(0.1, 0.2, 10.0)
    assert base.velocity(10.0 + TIMEOUT) == (0.1, 0.2)
    assert base.velocity(10.01 + TIMEOUT) == (0.0, 0.0)
    base.command(0.1, 0.2, 20.0)
    base.command(math.nan, 0.2, 20.0)
    assert base.velocity(20.0) == (0.0, 0.0)
    with pytest.raises(ValueError, match="has viewpoints 0 to"):
        base.place(len(base.graph), 0.0)


# The guide


def test_a_guide_walks_as_a_navigator_that_knows_what_it_has_visited(base: HouseBase) -> None:
    graph, saved = base.graph, ranker()
    torch.manual_seed(0)
    model = Pathdreamer("small").eval()
    looks = [base.scene.simulator.observe(name, SIZE) for name in graph.viewpoints]
    views = np.stack([view_features(p.semantic, p.depth, len(CATEGORIES)) for p in looks])
    size = (model.config.height, 2 * model.config.height)
    guesser = Guesser(looks.__getitem__, graph.positions, size, model, 2)
    place = DreamPlace(graph.positions, graph.neighbors, views, guesser)
    config = NavigatorConfig(2, None, 4)
    errand = Errand(place, saved.vocabulary.encode(TEXT), math.pi / 2 - 0.7, (5,))
    walk = Navigator(saved.ranker, config).walk(errand)
    guide = Guide(graph, saved, model, 2, config)
    guide.begin(TEXT, 5, 0.7)
    for _ in range(config.max_hops):
        guide.see(looks[guide.history[-1]])
        choice = guide.choose()
        assert choice.path[0] == guide.history[-1]
        assert 0 < choice.probability <= 1
        if choice.stop:
            break
        assert choice.path[1] in graph.neighbors[choice.path[0]]
        guide.go(choice.path[1])
    assert list(guide.history) == walk.path
    # Nothing of the first errand is left in the second.
    guide.begin(TEXT, 1, 0.0)
    assert guide.history == (1,)
    assert not guide._place.views.any()


def test_without_a_model_nothing_is_imagined(base: HouseBase) -> None:
    guide = Guide(base.graph, ranker())
    assert type(guide._place) is GraphPlace
    x, y = base.graph.positions[4, :2]
    assert guide.nearest(Pose(x + 0.1, y, 0.0)) == (4, pytest.approx(0.1))


def test_what_cannot_guide_is_refused(base: HouseBase, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not rank panoramas"):
        Guide(base.graph, ranker(("bed", "table")))
    guide = Guide(base.graph, ranker())
    for text, why in (
        ("?!", "needs words"),
        ("bed " * 10_000, "at most"),
        ("\U00013000", "script"),
    ):
        with pytest.raises(ValueError, match=why):
            guide.begin(text, 0, 0.0)
    file = tmp_path / "here_connectivity.json"
    file.write_text(json.dumps(base.graph.connectivity()))
    assert read_graph(file).viewpoints == base.graph.viewpoints
    file.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="not a connectivity list"):
        read_graph(file)
    with pytest.raises(ValueError, match="a graph is a file"):
        read_graph(tmp_path / "graph.json")


def test_the_most_probable_path_by_a_hop_begins_with_it(base: HouseBase) -> None:
    saved = ranker()
    views = np.random.default_rng(0).random((len(base.graph), 12, len(FEATURES)), np.float32)
    place = GraphPlace(base.graph.positions, base.graph.neighbors, views)
    errand = Errand(place, saved.vocabulary.encode(TEXT), 0.0, (5,))
    ranked = Navigator(saved.ranker, NavigatorConfig(3)).rank([errand])[0]
    shares = ranked.first_hops()
    assert sum(shares.values()) == pytest.approx(1.0)
    best = max(shares, key=shares.__getitem__)
    assert ranked.choice() == (None if best == 5 else best)
    for hop in set(shares) - {5}:
        path = ranked.path_by(hop)
        assert path[:2] == [5, hop]
        same = [
            p
            for node, p in zip(ranked.branches.leaf_nodes, ranked.probabilities, strict=True)
            if ranked.branches.path(int(node)) == path
        ]
        others = [
            p
            for node, p in zip(ranked.branches.leaf_nodes, ranked.probabilities, strict=True)
            if ranked.branches.path(int(node))[1:2] == [hop]
        ]
        assert max(same) == max(others)
