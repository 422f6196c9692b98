"""What a symbolic world model may know, what it answers, and that it learns."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.checkpoint import CheckpointError, save_checkpoint
from learning.train_config import TrainConfig
from world_models.symbolic_training import draw_questions, load_views, save_views, train_views
from world_models.symbolic_views import (
    SymbolicViews,
    SymbolicViewsConfig,
    ask,
    join,
    views_loss,
)


class Line:
    """Viewpoints in a row, two metres apart, that remembers which were looked at."""

    def __init__(self, views: np.ndarray, turn: float = 0.0) -> None:
        steps = 2.0 * np.arange(len(views))
        self.positions = np.stack(
            [steps * math.sin(turn), steps * math.cos(turn), np.zeros(len(views))], axis=1
        )
        self.views = views
        self.looked: set[int] = set()

    def neighbors(self, viewpoint: int) -> list[int]:
        return [v for v in (viewpoint - 1, viewpoint + 1) if 0 <= v < len(self.views)]

    def look(self, viewpoint: int) -> np.ndarray:
        self.looked.add(viewpoint)
        return self.views[viewpoint]


def random_line(seed: int, n: int = 5) -> Line:
    return Line(np.random.default_rng(seed).random((n, 12, 3)).astype(np.float32))


def tiny(seed: int = 0) -> SymbolicViews:
    torch.manual_seed(seed)
    return SymbolicViews(SymbolicViewsConfig(3, width=16, sources=2)).eval()


def test_only_visited_viewpoints_are_looked_at() -> None:
    line = random_line(0)
    views = tiny().predict(line, [1, 2], [0, 3, 4])
    assert views.shape == (3, 12, 3)
    assert ((views > 0) & (views < 1)).all()
    assert line.looked == {1, 2}


def test_the_nearest_visited_viewpoints_are_asked() -> None:
    line = random_line(0)
    questions = ask(line, [0, 1, 2], [4], sources=2)
    np.testing.assert_array_equal(questions.views[0].numpy(), line.views[[2, 1]])
    assert questions.known.tolist() == [[True, True]]


def test_a_source_too_few_is_padded_and_padding_says_nothing() -> None:
    line = random_line(0)
    model = tiny()
    questions = ask(line, [1], [3], sources=2)
    assert questions.known.tolist() == [[True, False]]
    noisy = questions.views.clone()
    noisy[:, 1] = 7.0
    other = type(questions)(noisy, questions.sources, questions.known, questions.targets)
    torch.testing.assert_close(model(questions), model(other))


@settings(max_examples=12, deadline=None)
@given(turns=st.integers(1, 11), seed=st.integers(0, 50))
def test_turning_the_world_turns_the_answer(turns: int, seed: int) -> None:
    line = random_line(seed)
    turned = Line(np.roll(line.views, turns, axis=1), turns * math.pi / 6.0)
    model = tiny()
    plain = model.predict(line, [0, 1], [3, 2])
    np.testing.assert_allclose(
        np.roll(plain, turns, axis=1), model.predict(turned, [0, 1], [3, 2]), atol=1e-4
    )


def test_an_untrained_network_says_how_often_a_feature_is_seen() -> None:
    rate = np.array([0.01, 0.2, 0.6], np.float32)
    torch.manual_seed(0)
    model = SymbolicViews(SymbolicViewsConfig(3), rate)
    views = model.predict(random_line(0), [0], [1, 2])
    np.testing.assert_allclose(views.mean((0, 1)), rate, rtol=0.3)


def test_every_parameter_receives_a_gradient() -> None:
    line = random_line(0)
    model = tiny().train()
    questions = join([ask(line, [0, 1], [2, 3], 2), ask(line, [4], [2], 2)])
    views_loss(model, questions, torch.from_numpy(line.views[[2, 3, 2]])).backward()
    for name, parameter in model.named_parameters():
        if name != "keys.bias":  # adds the same to every logit of a softmax
            assert parameter.grad is not None, name
            assert (parameter.grad != 0).any(), name


def test_it_learns_that_what_was_ahead_is_behind_once_one_has_passed_it() -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = SymbolicViews(SymbolicViewsConfig(2, width=32, sources=1))
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)

    def draw(n: int) -> tuple[list[Line], list[int]]:
        lines, classes = [], []
        for _ in range(n):
            kind = int(rng.integers(2))
            views = np.zeros((2, 12, 2), np.float32)
            views[0, 0, kind] = views[1, 6, kind] = 1.0
            turn = int(rng.integers(12))
            lines.append(Line(np.roll(views, turn, axis=1), turn * math.pi / 6.0))
            classes.append(kind)
        return lines, classes

    for _ in range(150):
        lines, _ = draw(16)
        questions = join([ask(line, [0], [1], 1) for line in lines])
        truth = torch.from_numpy(np.stack([line.views[1] for line in lines]))
        optimiser.zero_grad()
        views_loss(model, questions, truth).backward()
        optimiser.step()
    for line in draw(20)[0]:
        assert np.abs(model.predict(line, [0], [1])[0] - line.views[1]).max() < 0.3


@pytest.mark.parametrize(("visited", "unseen"), [([], [1]), ([0], [])])
def test_nothing_asked_or_nothing_known_is_refused(visited: list[int], unseen: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        ask(random_line(0), visited, unseen, 2)


def test_a_config_survives_json_and_impossible_ones_are_refused() -> None:
    config = SymbolicViewsConfig(41, width=32)
    assert SymbolicViewsConfig.from_dict(config.to_dict()) == config
    for values in ({}, {**config.to_dict(), "width": 33}, {**config.to_dict(), "heads": 0}):
        with pytest.raises(ValueError, match="must"):
            SymbolicViewsConfig.from_dict(values)
    with pytest.raises(ValueError, match="integers"):
        SymbolicViewsConfig.from_dict({**config.to_dict(), "width": "32"})


def test_questions_are_about_what_was_not_visited_within_three_hops() -> None:
    line = random_line(0, n=9)
    questions, truth = draw_questions([line], 30, 2, np.random.default_rng(0))
    assert len(truth) == len(questions.known)
    for views, known, seen in zip(questions.views, questions.known, truth, strict=True):
        rows = [int(np.flatnonzero((line.views == v.numpy()).all((1, 2)))[0]) for v in views[known]]
        target = int(np.flatnonzero((line.views == seen.numpy()).all((1, 2)))[0])
        assert target not in rows
        assert min(abs(target - row) for row in rows) <= 3
    with pytest.raises(ValueError, match="at least one way"):
        draw_questions([random_line(0, n=1)], 1, 2, np.random.default_rng(0))


def test_training_lowers_the_loss_and_a_checkpoint_gives_back_the_same_model(
    tmp_path: Path,
) -> None:
    line = random_line(1, n=4)
    model = tiny()
    first = train_views(model, [line], TrainConfig(steps=1, batch_size=4))["loss"]
    facts = train_views(model, [line], TrainConfig(steps=60, batch_size=4, lr=5e-3))
    assert facts["steps"] == 60
    assert facts["loss"] < first
    save_views(tmp_path / "model", model, facts, "# Card")
    again = load_views(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(line, [0], [2]), model.predict(line, [0], [2]))


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    document = {"method": "ibc", "config": {}, "spec": {}, "training": {}}
    save_checkpoint(tmp_path / "other", document, {"a": torch.zeros(1)}, "")
    with pytest.raises(CheckpointError, match="not a symbolic-views"):
        load_views(tmp_path / "other")
    save_checkpoint(
        tmp_path / "other", {**document, "method": "symbolic-views"}, {"a": torch.zeros(1)}, ""
    )
    with pytest.raises(CheckpointError, match="integers"):
        load_views(tmp_path / "other")
