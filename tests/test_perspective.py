"""Perspective views out of panoramas."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from world_models.pathdreamer.equirectangular import rays
from world_models.pathdreamer.panoramas import Seen
from world_models.pathdreamer.perspective import PerspectiveCamera, perspective


def coloured(height: int = 128, width: int = 256) -> Seen:
    """Colours that tell the direction; a wall at x = 2 in front, nothing elsewhere."""
    directions = rays(height, width).T.reshape(height, width, 3)
    rgb = np.rint((directions + 1) * 127).astype(np.uint8)
    with np.errstate(divide="ignore"):
        depth = np.where(directions[..., 0] > 0.05, 2 / directions[..., 0], 0).astype(np.float32)
    return Seen(rgb, (depth > 0).astype(np.uint8), depth, np.zeros(3))


@settings(deadline=None)
@given(st.floats(-7, 7), st.floats(-1.5, 1.5), st.floats(0.3, 2.0))
def test_a_camera_looks_where_it_says(yaw: float, pitch: float, hfov: float) -> None:
    camera = PerspectiveCamera(yaw, pitch, hfov, (5, 7))
    right, down, forward = camera.axes()
    assert np.cross(right, down) == pytest.approx(forward, abs=1e-9)
    assert forward == pytest.approx(
        [math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)]
    )
    assert camera.rays()[2, 3] == pytest.approx(forward)
    edge = camera.rays()[2, -1] - camera.rays()[2, 0]
    assert np.linalg.norm(edge) == pytest.approx(2 * math.tan(hfov / 2) * 6 / 7)


def test_colours_are_those_of_the_directions() -> None:
    for yaw in (0.0, 1.0, 3.1, -2.0):
        camera = PerspectiveCamera(yaw, 0.2, math.pi / 2, (24, 32))
        wanted = camera.rays()
        wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
        rgb = perspective(coloured(), camera).rgb
        assert np.abs(rgb - (wanted + 1) * 127).max() < 3


def test_a_camera_as_ros_describes_it() -> None:
    """Worked by hand: fx = 4, fy = 2, the principal point at column 1, row 2."""
    k = [4.0, 0.0, 1.0, 0.0, 2.0, 2.0, 0.0, 0.0, 1.0]
    camera = PerspectiveCamera.from_k(k, (4, 6))
    rays_ = camera.rays()
    assert rays_[2, 1] == pytest.approx([1, 0, 0])
    assert rays_[2, 5] == pytest.approx([1, -1, 0])  # four columns to the right
    assert rays_[0, 1] == pytest.approx([1, 0, 1])  # two rows up
    assert camera.k.ravel().tolist() == k
    assert PerspectiveCamera.from_k(np.reshape(k, (3, 3)), (4, 6)) == camera


def test_without_intrinsics_the_principal_point_is_the_middle() -> None:
    camera = PerspectiveCamera(hfov=math.pi / 2, size=(240, 320))
    assert camera.k == pytest.approx(np.array([[160, 0, 159.5], [0, 160, 119.5], [0, 0, 1]]))
    same = PerspectiveCamera(hfov=1.0, size=(240, 320), intrinsics=(160, 160, 159.5, 119.5))
    assert np.allclose(same.rays(), camera.rays())


@settings(deadline=None)
@given(st.floats(-3, 3), st.floats(-1.5, 1.5), st.floats(-7, 7), st.floats(50, 500))
def test_rays_fall_where_k_says(yaw: float, pitch: float, roll: float, focal: float) -> None:
    k = np.array([[focal, 0, 3.2], [0, 0.8 * focal, 1.1], [0, 0, 1]])
    camera = PerspectiveCamera.from_k(k, (5, 7), yaw=yaw, pitch=pitch, roll=roll)
    optical = camera.rays() @ camera.axes().T
    pixels = optical @ k.T
    assert pixels[..., 2] == pytest.approx(np.ones((5, 7)))
    assert pixels[..., 0] == pytest.approx(np.broadcast_to(np.arange(7), (5, 7)), abs=1e-6)
    assert pixels[..., 1] == pytest.approx(np.broadcast_to(np.arange(5)[:, None], (5, 7)), abs=1e-6)


@pytest.mark.parametrize(
    "k",
    [
        [4.0, 0.1, 1.0, 0.0, 2.0, 2.0, 0.0, 0.0, 1.0],
        [4.0, 0.0, 1.0, 0.0, 2.0, 2.0, 0.0, 0.0, 2.0],
        [0.0] * 9,  # how ROS says that a camera is not calibrated
        [1.0, 0.0, 0.0],
    ],
)
def test_other_matrices_are_refused(k: list[float]) -> None:
    with pytest.raises(ValueError, match="K must be"):
        PerspectiveCamera.from_k(k, (4, 6))


def test_roll_lowers_the_right_side() -> None:
    right, down, forward = PerspectiveCamera(roll=math.pi / 2).axes()
    assert forward == pytest.approx([1, 0, 0])
    assert right == pytest.approx([0, 0, -1])
    assert down == pytest.approx([0, 1, 0])


@settings(deadline=None)
@given(st.floats(-3, 3), st.floats(-1.5, 1.5), st.floats(-4, 4))
def test_roll_turns_about_the_optical_axis(yaw: float, pitch: float, roll: float) -> None:
    level, rolled = (
        PerspectiveCamera(yaw, pitch).axes(),
        PerspectiveCamera(yaw, pitch, roll=roll).axes(),
    )
    turn = rolled @ level.T
    cos, sin = math.cos(roll), math.sin(roll)
    assert turn == pytest.approx(np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]), abs=1e-9)


def test_a_half_turn_of_roll_turns_the_picture() -> None:
    camera = PerspectiveCamera(0.4, 0.3, 1.0, (20, 31))
    upright, turned = (perspective(coloured(), c) for c in (camera, replace(camera, roll=math.pi)))
    assert np.abs(upright.rgb[::-1, ::-1].astype(int) - turned.rgb).max() <= 1
    known = np.isfinite(upright.depth) & np.isfinite(turned.depth[::-1, ::-1])
    assert known.mean() > 0.99
    assert turned.depth[::-1, ::-1][known] == pytest.approx(upright.depth[known], rel=0.05)


@settings(deadline=None)
@given(st.integers(-40, 40))
def test_yawing_the_camera_is_rolling_the_panorama(columns: int) -> None:
    rng = np.random.default_rng(3)
    rgb = rng.integers(256, size=(16, 32, 3)).astype(np.uint8)
    depth = rng.uniform(1, 5, size=(16, 32)).astype(np.float32)
    seen = Seen(rgb, (depth * 8).astype(np.uint8), depth, np.zeros(3))
    turned = Seen(
        np.roll(rgb, -columns, axis=1),
        np.roll(seen.semantic, -columns, axis=1),
        np.roll(depth, -columns, axis=1),
        np.zeros(3),
    )
    camera = PerspectiveCamera(0.123, 0.2, 1.0, (6, 8), roll=0.3)
    yawed = replace(camera, yaw=camera.yaw - columns * 2 * math.pi / 32)
    a, b = perspective(turned, camera), perspective(seen, yawed)
    assert np.array_equal(a.semantic, b.semantic)
    assert a.depth == pytest.approx(b.depth, rel=1e-5)
    assert np.abs(a.rgb.astype(int) - b.rgb).max() <= 1


def test_a_wall_is_equally_deep_along_the_axis() -> None:
    view = perspective(coloured(), PerspectiveCamera(0.0, 0.0, 1.2, (24, 32)))
    assert view.depth == pytest.approx(np.full((24, 32), 2.0), rel=0.03)
    assert (view.semantic == 1).all()


def test_depth_that_is_none_is_not_a_number() -> None:
    view = perspective(coloured(), PerspectiveCamera(math.pi, 0.0, 1.0, (4, 6)))
    assert np.isnan(view.depth).all()


@pytest.mark.parametrize(
    "values",
    [
        {"yaw": math.nan},
        {"pitch": 2.0},
        {"roll": math.inf},
        {"hfov": 0.0},
        {"hfov": 3.2},
        {"size": (0, 4)},
        {"intrinsics": (1.0, 0.0, 3.0, 3.0)},
        {"intrinsics": (1.0, 2.0, math.nan, 3.0)},
        {"intrinsics": (1.0, 2.0, 3.0)},
    ],
)
def test_impossible_cameras_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        PerspectiveCamera(**values)  # type: ignore[arg-type]
