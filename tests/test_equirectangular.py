"""Panoramas: which way their pixels look."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.indoor.equirectangular import azimuth_of, directions, heading_of, pixels


def test_the_middle_looks_along_x_and_left_of_it_is_y() -> None:
    rays = directions(64, 128)
    assert rays[31:33, 63:65].mean((0, 1)) == pytest.approx([1, 0, 0], abs=1e-3)
    assert rays[31:33, 31:33].mean((0, 1)) == pytest.approx([0, 1, 0], abs=1e-3)
    assert rays[0, :, 2].min() > 0.99
    assert rays[-1, :, 2].max() < -0.99


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_ray_falls_into_its_own_pixel(height: int, width: int) -> None:
    rays = directions(height, width)
    assert np.linalg.norm(rays, axis=-1) == pytest.approx(np.ones((height, width)))
    row, column = pixels(rays * 3.7, height, width)
    assert (row == np.arange(height)[:, None]).all()
    assert (column == np.arange(width)).all()


def test_columns_to_the_left_lie_counter_clockwise() -> None:
    rays = directions(8, 16)
    quarter_turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    assert np.roll(rays, 4, axis=1) == pytest.approx(rays @ quarter_turn.T)


def test_pixels_at_the_poles_and_the_seam_are_inside() -> None:
    row, column = pixels(
        np.array([[0, 0, 1.0], [0, 0, -1.0], [-1.0, 0, 0], [-1.0, -0.0, 0]]), 8, 16
    )
    assert list(row[:2]) == [0, 7]
    assert ((column >= 0) & (column < 16)).all()


@given(st.floats(-20, 20))
def test_headings_and_azimuths_are_inverse(angle: float) -> None:
    assert math.cos(azimuth_of(heading_of(angle)) - angle) == pytest.approx(1.0)


def test_heading_zero_is_along_y_and_turns_clockwise() -> None:
    assert azimuth_of(0.0) == pytest.approx(math.pi / 2)
    assert azimuth_of(math.pi / 2) == pytest.approx(0.0)
