"""Motion of a pattern: known shifts and turns come out, and things arrive from where they were."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metnet2_cases import rain

from world_models.metnet2.motion import (
    MotionConfig,
    blur,
    displacements,
    estimate_motion,
    pool_known,
    resize_field,
    sources,
    warp,
    warp_part,
)

QUICK = MotionConfig(window=16.0, levels=(8, 4, 2))


def motion(velocity: tuple[float, float], **more: bool) -> torch.Tensor:
    frames = torch.from_numpy(rain(5, (96, 96), velocity, **more).frames[:, 0])
    return estimate_motion(torch.log1p(frames), [300 * k for k in range(5)], 300, QUICK)


@pytest.mark.parametrize("velocity", [(0.0, 0.0), (2.0, 0.0), (-3.0, 1.5), (0.7, -4.0)])
def test_a_known_shift_is_found(velocity):
    found = motion(velocity)[:, 8:-8, 8:-8].mean((1, 2))
    assert np.allclose(found.numpy(), velocity, atol=0.15)


def test_unknown_cells_do_not_hold_the_motion_back():
    found = motion((2.0, 1.0), unknown=True)
    assert np.allclose(found[:, 8:-8, 8:-8].mean((1, 2)).numpy(), (2.0, 1.0), atol=0.15)


def test_velocities_refer_to_the_step_that_is_asked_for():
    frames = torch.log1p(torch.from_numpy(rain(4, (96, 96), (2.0, 0.0)).frames[:, 0]))
    twice = estimate_motion(frames, [0, 300, 600, 900], 600, QUICK)[:, 8:-8, 8:-8]
    assert np.allclose(twice.mean((1, 2)).numpy(), (4.0, 0.0), atol=0.3)


def test_a_missing_frame_does_not_change_the_velocity():
    frames = torch.log1p(torch.from_numpy(rain(5, (96, 96), (1.5, 1.0)).frames[:, 0]))
    found = estimate_motion(frames[[0, 1, 3, 4]], [0, 300, 900, 1200], 300, QUICK)
    assert np.allclose(found[:, 8:-8, 8:-8].mean((1, 2)).numpy(), (1.5, 1.0), atol=0.15)


def test_a_turn_is_found():
    y, x = np.mgrid[:96, :96] - 47.5
    rng = np.random.default_rng(0)
    centres, omega = rng.uniform(-45, 45, (60, 2)), 0.03
    frames = np.zeros((4, 96, 96), np.float32)
    for k in range(4):
        c, s = math.cos(omega * k), math.sin(omega * k)
        for cx, cy in centres:
            apart = (x - c * cx + s * cy) ** 2 + (y - s * cx - c * cy) ** 2
            frames[k] += np.exp(-apart / 18).astype(np.float32)
    config = MotionConfig(window=10.0, levels=(8, 4, 2))
    found = estimate_motion(torch.from_numpy(frames), [0, 1, 2, 3], 1, config).numpy()
    middle = slice(8, 40)
    expected_x, expected_y = -omega * y[::2, ::2], omega * x[::2, ::2]
    assert np.abs(found[0] - expected_x)[middle, middle].mean() < 0.15
    assert np.abs(found[1] - expected_y)[middle, middle].mean() < 0.15


def test_no_rain_has_no_motion():
    found = estimate_motion(torch.zeros(3, 40, 40), [0, 1, 2], 1, QUICK)
    assert torch.equal(found, torch.zeros_like(found))


def test_nothing_known_has_no_motion():
    found = estimate_motion(torch.full((3, 40, 40), math.nan), [0, 1, 2], 1, QUICK)
    assert torch.equal(found, torch.zeros_like(found))


def test_a_uniform_motion_carries_by_its_multiple():
    velocity = torch.tensor([1.5, -0.5])[:, None, None].expand(2, 10, 12).contiguous()
    found = displacements(velocity, [3.0, 0.5, 0.0])
    for k, steps in enumerate((3.0, 0.5, 0.0)):
        assert torch.allclose(found[k], velocity * steps, atol=1e-5)


def test_a_turning_motion_carries_along_circles():
    # A quarter turn around the middle: what arrives on the right was above or below it.
    y, x = torch.meshgrid(torch.arange(61.0) - 30, torch.arange(61.0) - 30, indexing="ij")
    omega = math.pi / 2 / 12
    velocity = torch.stack([-omega * y, omega * x])
    found = displacements(velocity, [12.0])[0]
    # At (20, 0) after a quarter turn comes what was at (0, -20): it has come (20, 20).
    assert found[0, 30, 50] == pytest.approx(20, abs=0.1)
    assert found[1, 30, 50] == pytest.approx(20, abs=0.1)


def test_warping_takes_what_is_where_it_comes_from():
    planes = torch.arange(20.0).reshape(1, 4, 5)
    way = torch.zeros(2, 4, 5)
    way[0] = 1.0
    moved = warp(planes, way)
    assert torch.allclose(moved[0, :, 1:], planes[0, :, :-1])
    assert torch.equal(moved[0, :, 0], torch.zeros(4))
    half = warp(planes, way * 0.5)
    assert torch.allclose(half[0, :, 1:], planes[0, :, 1:] - 0.5)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 8), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99)
)
def test_a_part_is_warped_as_the_whole(top, left, rows, columns, seed):
    rng = np.random.default_rng(seed)
    planes = torch.from_numpy(rng.normal(size=(2, 17, 18)).astype(np.float32))
    way = torch.from_numpy(rng.normal(0, 6, (2, 17, 18)).astype(np.float32))
    whole = warp_part(planes, way)
    part = warp_part(planes, way[:, top : top + rows, left : left + columns], (top, left))
    assert torch.allclose(part, whole[:, top : top + rows, left : left + columns], atol=1e-6)
    assert torch.allclose(whole, warp(planes, way), atol=1e-4)


def test_sources_far_outside_are_none():
    assert sources(torch.full((2, 4, 4), 100.0), (0, 0), (20, 20)) is None


def test_blur_keeps_sums_and_widths():
    field = torch.zeros(1, 41, 41)
    field[0, 20, 20] = 1
    wide = blur(field, 3.0)[0]
    offsets = torch.arange(41.0) - 20
    assert float(wide.sum()) == pytest.approx(1, abs=1e-5)
    assert float((wide.sum(0) * offsets**2).sum()) == pytest.approx(9, rel=0.03)


def test_means_are_of_known_cells():
    frames = torch.tensor([[[1.0, math.nan], [3.0, math.nan]]])
    means, known = pool_known(frames, 2)
    assert float(means) == 2
    assert float(known) == 1
    assert float(pool_known(torch.full((1, 2, 2), math.nan), 2)[1]) == 0


def test_finer_fields_keep_their_place():
    field = torch.arange(6.0).reshape(1, 1, 6).expand(2, 3, 6)
    fine = resize_field(field, (12, 23))
    assert fine.shape == (2, 12, 23)
    # The middle of coarse cell k is at 4 k + 1.5 of the fine ones.
    assert float(fine[0, 5, 9]) == pytest.approx((9 - 1.5) / 4)


@pytest.mark.parametrize(
    "changes",
    [{"window": 0.0}, {"levels": (8, 3)}, {"levels": ()}, {"frames": 1}, {"iterations": 0}],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ValueError, match=r"must|needs"):
        MotionConfig(**changes)


def test_times_that_do_not_rise_are_refused():
    with pytest.raises(ValueError, match="rise"):
        estimate_motion(torch.zeros(2, 8, 8), [0, 0], 1, QUICK)
