"""How a picture looks: by hand, and whatever the light."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots.color_look import COLUMNS, LEVELS, WIDTH, color_look

RED, BLUE = (200, 10, 10), (10, 10, 200)


def test_colours_are_counted_by_column() -> None:
    picture = np.empty((4, 6, 3), np.uint8)
    picture[:, :2], picture[:, 2:] = RED, BLUE
    look = color_look(picture, balanced=False).reshape(COLUMNS, *[LEVELS] * 3)
    assert look[0, 3, 0, 0] == pytest.approx(3**-0.5)
    assert look[1, 0, 0, 3] == look[2, 0, 0, 3] == pytest.approx(3**-0.5)
    assert np.count_nonzero(look) == 3
    # Mirrored, the middle alone is the same.
    mirrored = color_look(picture[:, ::-1], balanced=False)
    assert float(mirrored @ look.ravel()) == pytest.approx(1 / 3)


def test_another_exposure_and_white_balance_change_little() -> None:
    rng = np.random.default_rng(0)
    room = np.kron(rng.integers(40, 200, (6, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    other = np.kron(rng.integers(40, 200, (6, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    dimmed = (room * np.array([0.9, 0.75, 0.6])).astype(np.uint8)
    balanced = [float(color_look(room) @ color_look(x)) for x in (dimmed, other)]
    plain = [float(color_look(room, False) @ color_look(x, False)) for x in (dimmed, other)]
    assert balanced[0] > 0.85 > balanced[1]
    assert plain[0] < 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(3, 200), st.integers(0, 9), st.booleans())
def test_every_picture_has_a_look_of_length_1(height, width, seed, balanced) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    look = color_look(picture, balanced)
    assert look.shape == (WIDTH,)
    assert np.linalg.norm(look) == pytest.approx(1, abs=1e-5)
    assert float(look @ color_look(picture[::-1], balanced)) > 0.85  # rows do not count


def test_black_and_white_pictures_have_a_look() -> None:
    for value in (0, 255):
        look = color_look(np.full((5, 5, 3), value, np.uint8))
        assert np.linalg.norm(look) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8), np.zeros((4, 2, 3), np.uint8),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(picture) -> None:
    with pytest.raises(ValueError, match="a picture must"):
        color_look(picture)
