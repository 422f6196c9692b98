"""Energy landscapes: the numbers, and that the picture shows them where they are."""

import numpy as np
import pytest
import torch

from agents import make_policy
from agents.implicit_bc.policy import ImplicitPolicy
from decisive.landscape import (
    HALF_BLOCK,
    Landscape,
    action_range,
    best_push_landscape,
    colors,
    draw_landscape,
    implicit,
    landscape,
    paint,
)
from decisive.pictures import ACCENT
from learning.demonstrations import Demonstrations

PUSH_FIELDS = [
    {"name": "start_xy", "size": 2, "kind": "point", "unit": "m", "doc": ""},
    {"name": "push_xy", "size": 2, "kind": "vector", "unit": "m", "doc": ""},
]
FRAME_FIELDS = [
    {"name": "slot_xy", "size": 2, "kind": "point", "unit": "m", "doc": ""},
    {"name": "slot_heading", "size": 2, "kind": "heading", "unit": "1", "doc": ""},
]


def demonstrations(low, high, action_fields=None, n=64):
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, n)
    state = np.column_stack([rng.uniform(0.3, 0.5, (n, 2)), np.cos(angle), np.sin(angle)])
    low, high = np.array(low, np.float32), np.array(high, np.float32)
    middle, reach = (low + high) / 2, (high - low) / 4  # the data fill half of the space
    actions = rng.uniform(middle - reach, middle + reach, (n, len(low)))
    meta = {"observation_fields": FRAME_FIELDS, "action_fields": action_fields or []}
    return Demonstrations(
        {"state": state.astype(np.float32)},
        actions.astype(np.float32),
        np.zeros(n, np.float32),
        np.array([0, n]),
        low,
        high,
        meta,
    )


def make(demos, method="ibc", **settings):
    small = {"width": 16, "depth": 1, **settings}
    if method == "ibc":
        small |= {"head_width": 16, "dfo": {"n_samples": 512, "n_iterations": 4}}
    # Of one untrained network in seven the chosen push is the best everywhere.
    torch.manual_seed(0)
    policy = make_policy(method, demos, small).eval()
    if isinstance(policy, ImplicitPolicy):  # fresh energies are nearly flat
        for parameter in policy.energy.parameters():
            parameter.data *= 4.0
    return policy


@pytest.fixture(scope="module")
def demos():
    return demonstrations([-0.03, -0.02], [0.03, 0.02])


@pytest.fixture(scope="module")
def policy(demos):
    return make(demos)


@pytest.fixture(scope="module")
def pusher():
    demos = demonstrations([0.15, -0.48, -0.15, -0.15], [0.65, 0.48, 0.15, 0.15], PUSH_FIELDS)
    return make(demos)


OBS = np.array([0.4, 0.4, 1.0, 0.0], np.float32)


def test_grid_covers_the_trained_range_rows_first(policy):
    actions, energies = landscape(policy, OBS, n=5)
    low, high = action_range(policy)
    assert actions.shape == (5, 5, 2)
    assert energies.shape == (5, 5)
    np.testing.assert_allclose(actions[0, 0], low)
    np.testing.assert_allclose(actions[-1, -1], high)
    assert np.all(np.diff(actions[:, 0, 0]) > 0)
    assert np.ptp(actions[:, 2, 1]) == 0


def test_range_is_the_data_and_a_margin_inside_the_action_space(policy, demos):
    low, high = action_range(policy)
    assert np.all(low <= demos.actions.min(0))
    assert np.all(high >= demos.actions.max(0))
    assert np.all(low >= demos.action_low)
    assert np.all(high <= demos.action_high)
    assert np.all(high - low < 1.2 * np.ptp(demos.actions, axis=0))


def test_energies_are_those_of_the_policy(policy):
    actions, energies = landscape(policy, OBS, n=7)
    policy.reset(5)
    policy.act(OBS)
    for row, column in ((0, 0), (2, 5), (6, 3)):
        alone = policy.landscape(actions[row, column][None])[0]
        assert energies[row, column] == pytest.approx(alone, abs=1e-4)


def test_no_grid_point_is_better_than_the_decision(policy):
    policy.reset(0)
    chosen = policy.act(OBS)
    _, energies = landscape(policy, n=64)
    assert policy.landscape(chosen[None])[0] <= energies.min() + 0.02 * np.ptp(energies)


def test_without_an_observation_it_needs_a_decision(policy):
    policy.reset(0)
    with pytest.raises(ValueError, match="act"):
        landscape(policy)


def test_explicit_policies_have_no_energy(demos):
    with pytest.raises(ValueError, match=r"implicit policy .* got mse"):
        landscape(make(demos, "mse"), OBS)
    with pytest.raises(ValueError, match="got str"):
        implicit("expert")


def test_more_than_two_entries_need_the_others(pusher):
    with pytest.raises(ValueError, match="`at`"):
        landscape(pusher, OBS)


def test_slice_keeps_the_other_entries(pusher):
    at = np.array([0.4, 0.1, 0.05, -0.05], np.float32)
    actions, _ = landscape(pusher, OBS, n=6, dims=(2, 3), at=at)
    assert np.all(actions[..., :2] == at[:2])
    assert np.ptp(actions[..., 2]) > 0.1
    assert np.ptp(actions[..., 3]) > 0.1


def test_best_push_is_never_worse_than_the_chosen_one(pusher):
    pusher.reset(0)
    chosen = pusher.act(OBS)
    best = best_push_landscape(pusher, chosen, n=8, directions=8)
    chosen_push = landscape(pusher, None, 8, (0, 1), chosen)
    assert np.all(best.energies <= chosen_push.energies + 1e-5)
    assert np.any(best.energies < chosen_push.energies - 1e-3)
    again = pusher.landscape(best.actions.reshape(-1, 4)).reshape(8, 8)
    np.testing.assert_allclose(again, best.energies, atol=1e-4)


def test_range_in_a_frame_holds_for_every_turn():
    fields = [{"name": "delta_xy", "size": 2, "kind": "vector", "unit": "m", "doc": ""}]
    turned = make(demonstrations([-0.03, -0.02], [0.03, 0.02], fields), frame="slot")
    low, high = action_range(turned)
    np.testing.assert_allclose(low, [-0.015, -0.015], rtol=0.35)
    np.testing.assert_allclose(low, -high)


def test_paint_is_brightest_at_the_minimum_and_darkest_beyond_the_span():
    energies = np.full((4, 4), 50.0, np.float32)
    energies[1, 2] = 3.0
    picture = paint(energies, 40, 40, span=10.0)
    lightness = picture.astype(int).sum(axis=2)
    row, column = np.unravel_index(lightness.argmax(), lightness.shape)
    assert (row // 10, column // 10) == (1, 2)
    assert tuple(picture[35, 5]) == tuple(colors()[0])


def test_paint_does_not_care_for_a_constant():
    energies = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    np.testing.assert_array_equal(paint(energies, 16, 16), paint(energies + 7, 16, 16))


def test_paint_shows_the_unreachable_as_darkest():
    energies = np.zeros((4, 4), np.float32)
    energies[0] = np.inf
    picture = paint(energies, 40, 40)
    assert tuple(picture[2, 20]) == tuple(colors()[0])
    assert tuple(picture[35, 20]) == tuple(colors()[-1])
    assert np.all(paint(np.full((2, 2), np.inf, np.float32), 8, 8) == colors()[0])


def bowl(n=32, low=-0.03, high=0.03):
    axis = np.linspace(low, high, n, dtype=np.float32)
    actions = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    return Landscape(actions, (1e4 * ((actions - 0.01) ** 2).sum(-1)).astype(np.float32))


def centre_of(picture, color, tolerance=40):
    near = np.abs(picture.astype(int) - color).max(axis=2) < tolerance
    return np.argwhere(near).mean(axis=0)


@pytest.mark.parametrize(("dx", "dy"), [(0.02, 0.02), (-0.02, 0.02), (0.02, -0.02)])
def test_ring_is_down_for_positive_x_and_right_for_positive_y(dx, dy):
    chosen = np.array([dx, dy], np.float32)
    picture = draw_landscape(bowl(), chosen, (300, 300), "title")
    assert picture.shape == (300, 300, 3)
    assert picture.dtype == np.uint8
    row, column = centre_of(picture, ACCENT)
    middle = centre_of(draw_landscape(bowl(), np.zeros(2, np.float32), (300, 300), "t"), ACCENT)
    assert np.sign(row - middle[0]) == np.sign(dx)
    assert np.sign(column - middle[1]) == np.sign(dy)


def test_a_decision_outside_the_map_is_marked_on_its_edge():
    far = np.array([1.0, 0.0], np.float32)
    row, _ = centre_of(draw_landscape(bowl(), far, (300, 300), "t"), ACCENT)
    assert 200 < row < 300


def test_blocks_are_outlined_where_they_lie():
    n = 16
    xs, ys = np.linspace(0.2, 0.6, n), np.linspace(-0.2, 0.2, n)
    actions = np.stack(np.meshgrid(xs, ys, indexing="ij"), -1).astype(np.float32)
    grid = Landscape(actions, np.linspace(0, 100, n * n, dtype=np.float32).reshape(n, n))
    chosen, block = np.array([0.2, -0.2]), np.array([[0.5, 0.1]], np.float32)
    without = draw_landscape(grid, chosen, (300, 300), "t", ("x", "y"), origin=False)
    outlined = draw_landscape(grid, chosen, (300, 300), "t", ("x", "y"), origin=False, points=block)
    changed = np.argwhere((without != outlined).any(axis=2))
    height, width = np.ptp(changed, axis=0)
    side = 0.4 / (2 * HALF_BLOCK)
    assert height == pytest.approx(width, abs=2)
    assert 300 / side > height > 100 / side
    middle = changed.mean(axis=0)
    assert middle[0] > 150
    assert middle[1] > 160
