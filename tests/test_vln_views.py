"""Features of views: headings, shares, what is not known."""

import math

import numpy as np
import pytest

from agents.vln.views import HALF_SHARE, n_features, view_features

SIZE = (32, 64)


def one_hot(ids: np.ndarray, n: int) -> np.ndarray:
    return np.eye(n, dtype=np.float32)[ids].transpose(2, 0, 1)


def test_heading_0_looks_along_y_and_3_along_x() -> None:
    ids = np.zeros(SIZE, np.uint8)
    ids[:, SIZE[1] // 2 - 1 : SIZE[1] // 2 + 1] = 3  # the middle column looks along +x
    ids[:, SIZE[1] // 4 - 1 : SIZE[1] // 4 + 1] = 4  # towards the left lies +y
    found = view_features(ids, np.ones(SIZE), 5)
    assert found.shape == (12, n_features(5))
    assert found[:, 3].argmax() == 3
    assert np.count_nonzero(found[:, 3]) == 1
    assert found[:, 4].argmax() == 0
    assert np.count_nonzero(found[:, 4]) == 1


def test_a_class_that_covers_a_heading_has_a_share_of_one() -> None:
    found = view_features(np.full(SIZE, 2), np.full(SIZE, 5.0), 4)
    assert found[:, 2] == pytest.approx(1 / (1 + HALF_SHARE), rel=1e-5)
    assert found[:, 4] == pytest.approx(0.5, rel=1e-5)  # 5 of 10 metres
    assert found[:, 5] == pytest.approx(1.0, rel=1e-5)


def test_shares_are_of_solid_angle() -> None:
    ids = np.zeros(SIZE, np.int64)
    ids[: SIZE[0] // 6] = 1  # from the zenith to 60 degrees up: 1 - sin(60 degrees) of a half
    found = view_features(ids, np.ones(SIZE), 2)[0, 1]
    edge = math.sin(math.pi / 2 - math.pi * (SIZE[0] // 6) / SIZE[0])
    share = (1 - edge) / 2
    assert found == pytest.approx(share / (share + HALF_SHARE), rel=1e-4)


def test_certain_probabilities_are_worth_as_much_as_ids() -> None:
    rng = np.random.default_rng(0)
    ids, depth = rng.integers(0, 6, SIZE), rng.uniform(0, 12, SIZE)
    np.testing.assert_allclose(
        view_features(one_hot(ids, 6), depth, 6), view_features(ids, depth, 6), atol=1e-5
    )


def test_pixels_not_known_count_for_no_class() -> None:
    valid = np.zeros(SIZE, bool)
    found = view_features(np.full(SIZE, 2, np.uint8), np.zeros(SIZE), 4, valid)
    assert not found.any()
    valid[:, : SIZE[1] // 2] = True
    half = view_features(np.full(SIZE, 2), np.zeros(SIZE), 4, valid)
    assert half[:, 5].sum() == pytest.approx(6.0, rel=1e-4)


def test_rolling_a_panorama_by_a_heading_rolls_its_features() -> None:
    rng = np.random.default_rng(1)
    ids, depth = rng.integers(0, 6, (24, 48)), rng.uniform(0, 9, (24, 48))
    right = view_features(np.roll(ids, 4, 1), np.roll(depth, 4, 1), 6)
    np.testing.assert_allclose(right, np.roll(view_features(ids, depth, 6), 1, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("classes", "depth"),
    [
        (np.zeros((32, 60), int), np.zeros(SIZE)),
        (np.full(SIZE, 9), np.zeros(SIZE)),
        (np.zeros((3, *SIZE)), np.zeros(SIZE)),
    ],
)
def test_what_does_not_fit_is_refused(classes: np.ndarray, depth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must"):
        view_features(classes, depth, 5)
