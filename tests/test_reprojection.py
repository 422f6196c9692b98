"""Reprojection: each pixel is one real, nearest point; holes take the nearest pixel's channels."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from envs.indoor import equirectangular as env_panoramas
from world_models.pathdreamer.equirectangular import flat_pixels, rays
from world_models.pathdreamer.guidance import Points, make_guidance, project, unproject
from world_models.pathdreamer.panoramas import Seen
from world_models.pathdreamer.reprojection import nearest_points, nearest_valid

SIZE = (8, 16)


def cloud(*points: tuple[float, float, float], rgb: object = None, ids: object = None) -> Points:
    n = len(points)
    colours = np.array(rgb if rgb is not None else [[9, 9, 9]] * n).reshape(-1, 3)
    classes = np.array(ids if ids is not None else [1] * n).reshape(-1, 1)
    return Points(
        np.array(points, np.float32).reshape(-1, 3).T.copy(),
        np.concatenate([colours, classes], axis=1).astype(np.uint8),
    )


def brute_force(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.int64]:
    number = np.full(size, -1, np.int64)
    nearest = np.full(size, math.inf)
    for k, point in enumerate(points.T):
        depth = float(np.linalg.norm(point))
        if not 0 < depth < math.inf:
            continue
        row, column = env_panoramas.pixels(point.astype(float), *size)
        if depth < nearest[row, column]:
            nearest[row, column], number[row, column] = depth, k
    return number


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_every_pixel_is_the_nearest_point_of_it(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = SIZE
    # Directions well inside the pixels: on their borders single precision may differ.
    row, column = rng.integers(height, size=n), rng.integers(width, size=n)
    directions = rays(height, width)[:, row * width + column]
    # Whole numbers of millimetres: no two distances that only rounding tells apart.
    points = (directions * rng.permutation(np.arange(1, n + 1)).astype(np.float32)).astype("f4")
    number, depth = nearest_points(points, np.zeros(3), SIZE)
    assert np.array_equal(number, brute_force(points, SIZE))
    hit = number >= 0
    assert np.linalg.norm(points[:, number[hit]], axis=0) == pytest.approx(depth[hit])
    assert (depth[~hit] == 0).all()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_order_of_points_does_not_matter(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(3, n)).astype(np.float32)
    order = rng.permutation(n)
    number, depth = nearest_points(points, np.zeros(3), SIZE)
    mixed, same = nearest_points(np.ascontiguousarray(points[:, order]), np.zeros(3), SIZE)
    assert np.array_equal(depth, same)
    assert np.array_equal(np.where(mixed >= 0, order[mixed], -1), number)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(1, 80), st.integers(1, 150), st.integers(0, 2**32 - 1))
def test_any_size_and_depth_is_as_by_brute_force(
    height: int, width: int, n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    directions = rays(height, width)[:, rng.integers(height * width, size=n)]
    # Apart from each other by at least a hundredth, whatever single precision makes of them.
    depth = 10.0 ** rng.permutation(np.linspace(-15, 15, n))
    points = (directions * depth).astype(np.float32)
    for bad in (math.nan, math.inf, -math.inf, 0.0, 3e38):
        points[:, rng.random(n) < 0.05] = bad
    reach = np.where(np.abs(points).max(0) < 1e18, points, np.nan)
    number, found = nearest_points(points, np.zeros(3), (height, width))
    assert np.array_equal(number, brute_force(reach, (height, width)))
    hit = number >= 0
    expected = np.linalg.norm(points[:, number[hit]].astype(float), axis=0)
    assert found[hit] == pytest.approx(expected, rel=1e-6)
    assert (found[~hit] == 0).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 2100), st.integers(0, 2**32 - 1))
@example(1, 1, 0)
@example(1, 1023, 0)
@example(2, 512, 0)
@example(1, 1025, 0)
@example(3, 2048, 0)
def test_every_pixel_has_a_place_of_its_own(height: int, width: int, seed: int) -> None:
    n = height * width
    order = np.random.default_rng(seed).permutation(n)
    points = np.ascontiguousarray(rays(height, width)[:, order] * np.float32(2))
    number, depth = nearest_points(points, np.zeros(3), (height, width))
    assert number.flags.c_contiguous
    assert depth.flags.c_contiguous
    assert np.array_equal(order[number.ravel()], np.arange(n))
    assert depth == pytest.approx(2.0)


def test_of_equally_distant_points_the_first_is_seen() -> None:
    points = cloud((1, 0.1, 0), (1, 0.1, 0)).positions
    number, _ = nearest_points(points, np.zeros(3), SIZE)
    assert set(number.ravel()) == {-1, 0}


def test_of_equals_far_apart_in_a_long_cloud_the_first_is_seen() -> None:
    points = np.full((3, 100_000), np.nan, np.float32)
    points[:, [7, 32_768, 65_535, 99_999]] = np.array([[1], [0.1], [0.2]])
    number, _ = nearest_points(points, np.zeros(3), SIZE)
    assert set(number.ravel()) == {-1, 7}
    number, _ = nearest_points(points[:, ::-1].copy(), np.zeros(3), SIZE)
    assert set(number.ravel()) == {-1, 0}


def test_repeated_calls_agree_bit_by_bit() -> None:
    points = np.random.default_rng(5).normal(size=(3, 50_000)).astype(np.float32)
    camera = np.array([0.3, -0.2, 0.1])
    first, again = (nearest_points(points, camera, (32, 64)) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_panoramas_are_those_of_the_environments() -> None:
    for height, width in ((8, 16), (5, 7), (64, 128)):
        expected = env_panoramas.directions(height, width)
        assert rays(height, width).T.reshape(height, width, 3) == pytest.approx(expected, abs=1e-6)
    vectors = np.random.default_rng(0).normal(size=(20_000, 3))
    row, column = env_panoramas.pixels(vectors, 64, 128)
    pixel, squared = flat_pixels(torch.from_numpy(vectors.T.astype(np.float32)), 64, 128)
    # Single precision decides otherwise within a hair of a border.
    assert (pixel.numpy() != row * 128 + column).mean() < 2e-4
    assert squared.numpy() == pytest.approx((vectors**2).sum(1), rel=1e-6)


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 9000))
def test_borders_of_the_panorama_are_inside(height: int, width: int) -> None:
    border = [(-2, 0, 0), (-2, -0.0, 0), (0, 0, 1), (0, 0, -1), (-0.0, -0.0, -3), (-1, -1e-38, 0)]
    offsets = torch.tensor(border, dtype=torch.float32).T.contiguous()
    pixel = flat_pixels(offsets, height, width)[0].numpy()
    assert ((pixel >= 0) & (pixel < height * width)).all()
    row, column = np.divmod(pixel, width)
    assert row[2:5].tolist() == [0, height - 1, height - 1]
    assert column[:2].tolist() == [0, width - 1]


def test_more_points_than_are_taken_at_a_time_are_all_seen() -> None:
    rng = np.random.default_rng(4)
    points = rng.normal(size=(3, 70_000)).astype(np.float32)
    points[:, 40_000] = np.nan
    number, depth = nearest_points(points, np.zeros(3), (32, 64))
    parts = [
        nearest_points(points[:, k : k + 1003], np.zeros(3), (32, 64))
        for k in range(0, 70_000, 1003)
    ]
    rows, columns = np.indices((32, 64))
    far = np.array([np.where(n >= 0, d, np.inf) for n, d in parts])
    first = far.argmin(0)
    expected = np.array([n for n, _ in parts])[first, rows, columns] + 1003 * first
    seen = np.isfinite(far.min(0))
    assert np.array_equal(depth, np.where(seen, far.min(0), 0))
    assert np.array_equal(number, np.where(seen, expected, -1))
    assert 0.9 < seen.mean() < 1  # both happen


@pytest.mark.slow
def test_no_threads_are_started() -> None:
    """Workers that were forked would wait for them for ever, and busy machines slow them down."""
    program = (
        "import os, numpy, torch; torch.set_num_threads(2)\n"
        "from world_models.pathdreamer.reprojection import nearest_points\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "before, points = count(), numpy.random.default_rng(0).normal(size=(3, 70_000))\n"
        "points[:, 7] = numpy.nan\n"
        "nearest_points(points.astype('f4'), numpy.zeros(3), (64, 128))\n"
        "assert count() == before, (before, count())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@settings(deadline=None)
@given(st.integers(0, 12), st.sampled_from([0.0, 0.01]))
def test_what_is_further_than_the_limit_is_not_seen(metres: int, more: float) -> None:
    points = (rays(*SIZE)[:, 64:74] * np.arange(1, 11)).astype(np.float32)
    number, depth = nearest_points(points, np.zeros(3), SIZE, metres + 0.5 + more)
    assert set(number.ravel().tolist()) == {-1, *range(min(metres, 10))}
    assert depth.max() == pytest.approx(min(metres, 10))


def test_the_limit_itself_is_seen_and_the_next_number_is_not() -> None:
    points = cloud((3, 0, 0)).positions
    near = float(np.nextafter(np.float32(3), np.float32(0)))
    assert (nearest_points(points, np.zeros(3), SIZE, 3.0)[0] == 0).sum() == 1
    assert (nearest_points(points, np.zeros(3), SIZE, near)[0] == -1).all()


@pytest.mark.parametrize("limit", [0.0, -1.0, 1e-30, math.nan])
def test_a_limit_of_nothing_shows_nothing(limit: float) -> None:
    points = cloud((1, 0.1, 0), (1e-18, 0, 0), (3e-23, 0, 0), (0, 0, 0)).positions
    number, depth = nearest_points(points, np.zeros(3), SIZE, limit)
    assert (number == -1).all()
    assert (depth == 0).all()


def test_no_label_or_colour_is_made_up() -> None:
    """The release takes the greatest class and colour channels among the points near the front."""
    both = cloud((2, 0.1, 0.1), (2.05, 0.1, 0.1), rgb=[[200, 0, 10], [0, 100, 250]], ids=[3, 30])
    seen = project(both, np.zeros(3), SIZE)
    assert seen.valid.sum() == 1
    assert seen.rgb[seen.valid].tolist() == [[200, 0, 10]]
    assert seen.semantic[seen.valid].tolist() == [3]


@pytest.mark.parametrize("bad", [(math.nan, 0, 1), (math.inf, 0, 1), (0, 0, 0), (0, 0, 99)])
def test_points_that_cannot_be_seen_leave_no_trace(bad: tuple[float, float, float]) -> None:
    """The release writes them to pixel 0."""
    good = (1.0, 0.1, 0.1)
    seen = project(cloud(bad, good), np.zeros(3), SIZE, max_depth=10.0)
    alone = project(cloud(good), np.zeros(3), SIZE)
    assert np.array_equal(seen.valid, alone.valid)
    assert not seen.valid[0, 0]
    assert np.array_equal(seen.depth, alone.depth)


def test_nothing_seen_is_not_far_away_and_black_is_seen() -> None:
    """The release: depth 1.0 for both, and RGB 0 for a hole."""
    seen = project(cloud((9.99, 0.1, 0.1), rgb=[[0, 0, 0]]), np.zeros(3), SIZE)
    assert seen.valid.sum() == 1
    assert seen.depth[seen.valid][0] == pytest.approx(9.99, rel=1e-3)
    assert (seen.depth[~seen.valid] == 0).all()


def test_an_empty_cloud_is_all_holes() -> None:
    seen = project(Points.none(), np.zeros(3), SIZE)
    assert not seen.valid.any()
    assert not seen.filled_rgb.any()
    assert not seen.filled_depth.any()


def test_poles_and_seam_are_inside() -> None:
    number, _ = nearest_points(
        cloud((0, 0, 2), (0, 0, -2), (-2, 0, 0), (-2, -0.0, 0.5)).positions, np.zeros(3), SIZE
    )
    assert set(number.ravel()) == {-1, 0, 1, 2, 3}
    assert (number[0] == 0).sum() == 1
    assert (number[-1] == 1).sum() == 1


def test_unproject_then_project_returns_the_panorama() -> None:
    rng = np.random.default_rng(1)
    seen = Seen(
        rng.integers(256, size=(16, 32, 3)).astype(np.uint8),
        rng.integers(1, 41, size=(16, 32)).astype(np.uint8),
        rng.uniform(0.5, 8, size=(16, 32)).astype(np.float32),
        np.array([3.0, -20.0, 1.5]),
    )
    again = make_guidance([seen], seen.position)
    assert again.valid.all()
    assert np.array_equal(again.rgb, seen.rgb)
    assert np.array_equal(again.semantic, seen.semantic)
    assert again.depth == pytest.approx(seen.depth, rel=1e-4)


@pytest.mark.parametrize("hole", [math.nan, 0.0, -1.0, math.inf])
def test_depth_that_is_none_is_no_point(hole: float) -> None:
    depth = np.full((4, 8), 2.0, np.float32)
    depth[1, 2] = hole
    seen = Seen(np.zeros((4, 8, 3), np.uint8), np.ones((4, 8), np.uint8), depth, np.zeros(3))
    points = unproject(seen)
    assert len(points) == 31
    assert np.isfinite(points.positions).all()


def test_what_does_not_fit_is_refused() -> None:
    rgb, ids, depth = np.zeros((4, 8, 3), "u1"), np.zeros((4, 8), "u1"), np.ones((4, 8), "f4")
    with pytest.raises(ValueError, match="needs rgb"):
        unproject(Seen(rgb, ids[:3], depth, np.zeros(3)))
    with pytest.raises(ValueError, match="three finite"):
        unproject(Seen(rgb, ids, depth, np.array([0, math.nan, 0])))
    with pytest.raises(ValueError, match="at least one panorama"):
        make_guidance([], np.zeros(3))
    with pytest.raises(ValueError, match="three finite"):
        nearest_points(np.zeros((3, 1), np.float32), np.array([math.nan, 0, 0]), SIZE)
    with pytest.raises(ValueError, match="float32"):
        nearest_points(np.zeros((3, 1)), np.zeros(3), SIZE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one pixel"):
        nearest_points(np.zeros((3, 1), np.float32), np.zeros(3), (0, 4))


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 13), st.integers(0, 2**32 - 1))
def test_holes_take_the_nearest_pixel_round_the_seam(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    valid = rng.random((height, width)) < rng.random()
    source = nearest_valid(valid)
    if not valid.any():
        assert (source == -1).all()
        return
    rows, columns = np.nonzero(valid)
    for i in range(height):
        for j in range(width):
            across = np.abs(columns - j)
            squared = (rows - i) ** 2 + np.minimum(across, width - across) ** 2
            y, x = divmod(int(source[i, j]), width)
            gap = min(abs(x - j), width - abs(x - j))
            assert valid[y, x]
            assert (y - i) ** 2 + gap**2 == squared.min()


def test_filled_channels_come_from_one_pixel() -> None:
    seen = project(
        cloud((1, 0.1, 0.1), (-1, 0.1, 0.1), rgb=[[1, 2, 3], [4, 5, 6]], ids=[7, 8]),
        np.zeros(3),
        SIZE,
    )
    pairs = {
        (tuple(rgb.tolist()), int(label))
        for rgb, label in zip(
            seen.filled_rgb.reshape(-1, 3), seen.filled_semantic.ravel(), strict=True
        )
    }
    assert pairs == {((1, 2, 3), 7), ((4, 5, 6), 8)}
    assert (seen.filled_depth > 0).all()
