"""Function fits: what is measured, and that an implicit fit keeps the branches."""

import numpy as np
import pytest
from PIL import Image

from decisive.functions import (
    FUNCTIONS,
    METHODS,
    N_TRAIN,
    STEPS,
    Fit,
    draw,
    error_table,
    fit,
)

STEP, PIECES, HYPERBOLA, CIRCLE = range(4)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.name)
def test_samples_lie_on_a_branch(function):
    x, y = function.sample(200, np.random.default_rng(0))
    assert np.all((x >= -1) & (x <= 1))
    assert np.abs(y).max() <= 1.2
    assert np.abs(function.branches(x) - y[:, None]).min(axis=1).max() == 0.0


@pytest.mark.parametrize("number", [HYPERBOLA, CIRCLE])
def test_multi_valued_samples_use_both_branches(number):
    _, y = FUNCTIONS[number].sample(200, np.random.default_rng(0))
    assert 60 < (y > 0).sum() < 140


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.name)
def test_a_perfect_prediction_has_no_error(function):
    x = np.linspace(-1, 1, 101)
    assert function.error(x, function.branches(x)[:, -1]) == 0.0


def test_the_mean_of_two_branches_is_as_wrong_as_it_is_far():
    x = np.linspace(-1, 1, 101)
    gap = np.abs(FUNCTIONS[HYPERBOLA].branches(x)[:, 0]).mean()
    assert FUNCTIONS[HYPERBOLA].error(x, np.zeros(101)) == pytest.approx(gap)


def test_only_points_near_a_jump_count_where_there_are_jumps():
    function = FUNCTIONS[STEP]
    x = np.array([-0.9, -0.05, 0.05, 0.9])
    exact = function.branches(x)[:, 0]
    assert function.error(x, exact + np.array([1.0, 0.0, 0.0, 1.0])) == 0.0
    assert function.error(x, exact + np.array([0.0, 0.2, 0.4, 0.0])) == pytest.approx(0.3)


@pytest.mark.parametrize("number", [STEP, PIECES])
def test_jumps_are_where_the_function_jumps(number):
    function = FUNCTIONS[number]
    for jump in function.jumps:
        left, right = function.branches(np.array([jump - 1e-6, jump + 1e-6]))[:, 0]
        assert abs(right - left) > 0.15
    x = np.linspace(-1, 1, 2001)
    steep = np.abs(np.diff(function.branches(x)[:, 0])) > 0.1
    assert steep.sum() == len(function.jumps)


def test_a_fit_is_a_function_of_its_arguments():
    first, second = fit(CIRCLE, "mse", 3, steps=20), fit(CIRCLE, "mse", 3, steps=20)
    np.testing.assert_array_equal(first.test_y, second.test_y)
    other = fit(CIRCLE, "mse", 4, steps=20)
    assert not np.array_equal(first.x, other.x)
    assert len(first.x) == N_TRAIN
    assert first.energy is None


def test_the_implicit_fit_keeps_branches_that_regression_averages():
    implicit, explicit = fit(CIRCLE, "ibc", 0, steps=250), fit(CIRCLE, "mse", 0, steps=250)
    assert explicit.error > 0.2
    assert implicit.error < explicit.error / 3
    inner = np.abs(implicit.test_x) < 0.7
    assert np.abs(implicit.test_y[inner]).min() > 0.4  # never between the branches
    assert implicit.energy is not None
    assert implicit.energy.min() == 0.0
    assert implicit.span[0] < -0.85
    assert implicit.span[1] > 0.85


def made_up():
    x = np.linspace(-1, 1, 20)
    energy = np.abs(np.linspace(-1, 1, 30))[:, None] * np.ones((1, 25)) * 20
    return {
        (number, method): Fit(
            x, np.zeros(20), x, 0.1 * x, 0.25, energy if method == "ibc" else None, (-1.0, 1.0)
        )
        for number in range(len(FUNCTIONS))
        for method in METHODS
    }


def test_the_picture_has_a_panel_a_fit(tmp_path):
    path = tmp_path / "functions.png"
    draw(made_up(), path)
    picture = np.asarray(Image.open(path).convert("RGB"))
    red = np.abs(picture.astype(int) - (213, 64, 10)).max(axis=2) < 60
    height, width = red.shape
    for row in range(len(FUNCTIONS)):
        for column in range(len(METHODS)):
            part = red[
                row * height // 4 : (row + 1) * height // 4,
                column * width // 3 : (column + 1) * width // 3,
            ]
            assert part.sum() > 20, (row, column)
    assert [p.name for p in tmp_path.iterdir()] == ["functions.png"]


def test_the_table_names_every_function_and_method():
    table = error_table(made_up())
    assert table.row_count == len(FUNCTIONS)
    headers = [str(column.header) for column in table.columns]
    assert all(label in headers for label in METHODS.values())
    assert set(STEPS) == set(METHODS)
