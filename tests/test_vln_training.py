"""Training a ranker: what is drawn, what comes out, and what a checkpoint keeps."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from vln_cases import CLASSES, VOCABULARY, grid_place, star_route, tiny_ranker

from agents.vln.branches import branches, decisions
from agents.vln.checkpoint import SavedRanker, load_ranker, save_ranker
from agents.vln.follower import InstructionFollower
from agents.vln.forest import plant
from agents.vln.places import GraphPlace, OraclePlace
from agents.vln.training import Course, CourseConfig, Route, train_ranker, way_back
from learning.checkpoint import CheckpointError, save_checkpoint
from learning.train_config import TrainConfig

WORDS = VOCABULARY.encode("go to the bed")


def grid_route(*kinds: type[GraphPlace]) -> Route:
    """A route over a grid of nine viewpoints: along the first row, then down."""
    plain = grid_place(np.random.default_rng(0))
    neighbors = [plain.neighbors(v) for v in range(9)]
    places = tuple(kind(plain.positions, neighbors, plain.views) for kind in kinds)
    rows, columns = np.divmod(np.arange(9), 3)
    apart = np.abs(rows[:, None] - rows) + np.abs(columns[:, None] - columns)
    return Route(places, 2.0 * apart, WORDS, 0.0, (0, 1, 2, 5, 8))


def test_without_detours_every_decision_lies_on_the_route_and_its_answer_too() -> None:
    route = grid_route(GraphPlace)
    course = Course([route], CourseConfig(per_route=4, detour=0.0), seed=0)
    for drawn in course.draw(80):
        t = len(drawn.history) - 1
        assert drawn.history == route.path[: t + 1]
        leaf = drawn.branches.leaf_nodes[drawn.target]
        ahead = drawn.branches.path(int(leaf))
        assert tuple(ahead) == route.path[t : t + len(ahead)]
        ends = not drawn.branches.leads_on[drawn.target]
        assert ends == (ahead[-1] == route.path[-1])


def test_every_place_along_a_route_and_every_arm_is_drawn() -> None:
    route = grid_route(GraphPlace, OraclePlace)
    drawn = Course([route], CourseConfig(detour=0.0), seed=1).draw(100)
    assert {len(d.history) for d in drawn} == {1, 2, 3, 4, 5}
    assert {bool(d.views) for d in drawn} == {False, True}


def test_after_a_detour_right_is_the_shortest_way_to_the_goal() -> None:
    route = grid_route(GraphPlace)
    drawn = Course([route], CourseConfig(horizons=(1,), detour=1.0), seed=2).draw(100)
    for d in drawn:
        assert d.history[:-1] == route.path[: len(d.history) - 1]
        node = int(d.branches.leaf_nodes[d.target])
        ahead = d.branches.path(node)
        left = [route.distances[v, route.path[-1]] for v in ahead]
        assert left == sorted(left, reverse=True)
        assert len(set(left)) == len(left)


def test_rivals_are_extended_beside_the_right_path() -> None:
    route = grid_route(GraphPlace)
    course = Course([route], CourseConfig(horizons=(3,), rivals=1, detour=0.0), seed=3)
    for d in course.draw(60):
        for depth in (1, 2):
            deeper = d.branches.depths == depth + 1
            assert len(set(d.branches.parents[deeper].tolist())) <= 2
    everything = Course([route], CourseConfig(horizons=(3,), rivals=None, detour=0.0), seed=3)
    most = max(len(d.branches.leaf_nodes) for d in everything.draw(60))
    assert most > max(len(d.branches.leaf_nodes) for d in course.draw(60))


def test_draws_repeat_under_a_seed() -> None:
    route = grid_route(GraphPlace, OraclePlace)

    def drawn(seed: int) -> list[tuple[int, ...]]:
        return [(*d.history, d.target) for d in Course([route], CourseConfig(), seed).draw(30)]

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)


def test_the_way_back_is_shortest_or_refused() -> None:
    route = grid_route(GraphPlace)
    assert way_back(route.places[0], route.distances, 3, 8) in (
        [3, 4, 5, 8],
        [3, 6, 7, 8],
        [3, 4, 7, 8],
    )
    assert way_back(route.places[0], route.distances, 8, 8) == [8]
    with pytest.raises(ValueError, match="no way"):
        way_back(route.places[0], np.full((9, 9), np.inf), 0, 8)


def test_what_cannot_be_drawn_is_refused() -> None:
    for change in ({"horizons": ()}, {"horizons": (0,)}, {"per_route": 0}, {"detour": 1.5}):
        with pytest.raises(ValueError, match=r"horizons|course"):
            CourseConfig(**change)
    with pytest.raises(ValueError, match="rivals"):
        CourseConfig(rivals=-1)
    with pytest.raises(ValueError, match="at least one route"):
        Course([], CourseConfig(), 0)


def test_training_repeats_under_a_seed_and_tells_what_it_did() -> None:
    rng = np.random.default_rng(0)
    routes = [star_route(rng, GraphPlace, OraclePlace) for _ in range(20)]
    config = TrainConfig(steps=3, batch_size=8, log_every=1, seed=4)
    told: list[int] = []
    states = []
    for _ in range(2):
        ranker = tiny_ranker()
        facts = train_ranker(
            ranker, routes, CourseConfig(), config, lambda step, spent, loss: told.append(step)
        )
        assert facts["steps"] == 3
        assert facts["loss"] > 0
        assert not ranker.training
        states.append(ranker.state_dict())
    assert told == [1, 2, 3, 1, 2, 3]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    before = tiny_ranker().state_dict()
    assert any(not torch.equal(states[0][name], before[name]) for name in before)


def test_names_of_features_are_known_before_training() -> None:
    positions = np.array([[0.0, 0, 0], [0, 2, 0], [2, 0, 0]])
    views = np.zeros((3, 12, len(CLASSES)), np.float32)
    views[1, 3, CLASSES.index("bed")] = views[2, 5, CLASSES.index("sofa")] = 1.0
    place = OraclePlace(positions, [[1, 2], [0], [0]], views)
    ranker = tiny_ranker()
    bed = int(VOCABULARY.encode("bed")[0])
    ranker.name_features({CLASSES.index("bed"): [bed]})
    table = ranker.grounding.weight.detach().round()
    assert table[bed].tolist() == [1.0, 0, 0, 0, 0]
    assert float(table.abs().sum()) == 1.0
    (choice,) = decisions(place, WORDS, [0], 0.0, branches(place, 0, 1))
    with torch.inference_mode():
        named = ranker(plant([choice]))
        plain = tiny_ranker()(plant([choice]))
    assert not torch.allclose(named, plain)


def saved() -> SavedRanker:
    return SavedRanker(tiny_ranker(seed=7), VOCABULARY, CLASSES, {"steps": 3})


def test_a_checkpoint_gives_back_the_same_ranker(tmp_path: Path) -> None:
    first = saved()
    save_ranker(tmp_path / "ranker", first, "# Card")
    second = load_ranker(tmp_path / "ranker")
    assert second.vocabulary == VOCABULARY
    assert second.features == CLASSES
    assert second.training == {"steps": 3}
    place = grid_place(np.random.default_rng(0))
    choices = decisions(place, WORDS, [0, 1], 0.0, branches(place, 1, 2))
    with torch.inference_mode():
        assert torch.equal(first.ranker(plant(choices)), second.ranker(plant(choices)))
    follower = InstructionFollower.load(tmp_path / "ranker")
    assert follower.vocabulary == VOCABULARY
    assert {path.name for path in (tmp_path / "ranker").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }


def test_a_ranker_with_a_nan_is_neither_written_nor_read(tmp_path: Path) -> None:
    broken = saved()
    with torch.no_grad():
        broken.ranker.hidden[0] = torch.nan
    with pytest.raises(CheckpointError, match="NaN"):
        save_ranker(tmp_path / "ranker", broken, "")
    assert not (tmp_path / "ranker").exists()


@pytest.mark.parametrize(
    ("part", "value", "complaint"),
    [
        ("method", "ibc", "not a vln-ranker"),
        ("spec", {}, "vocabulary"),
        ("spec", {"vocabulary": VOCABULARY.to_dict(), "features": "bed"}, "names of the features"),
        ("spec", {"vocabulary": VOCABULARY.to_dict(), "features": ["bed"]}, "does not fit"),
        ("config", {}, "must hold"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, part: str, value: object, complaint: str
) -> None:
    save_ranker(tmp_path / "ranker", saved(), "")
    document = json.loads((tmp_path / "ranker" / "config.json").read_text())
    tensors = saved().ranker.state_dict()
    save_checkpoint(tmp_path / "ranker", {**document, part: value}, tensors, "")
    with pytest.raises(CheckpointError, match=complaint) as error:
        load_ranker(tmp_path / "ranker")
    assert "\n" not in str(error.value)
