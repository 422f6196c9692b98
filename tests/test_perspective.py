"""Perspective views out of panoramas."""

import math

import numpy as np
import pytest
from hypothesis import given
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


def test_a_wall_is_equally_deep_along_the_axis() -> None:
    view = perspective(coloured(), PerspectiveCamera(0.0, 0.0, 1.2, (24, 32)))
    assert view.depth == pytest.approx(np.full((24, 32), 2.0), rel=0.03)
    assert (view.semantic == 1).all()


def test_depth_that_is_none_is_not_a_number() -> None:
    view = perspective(coloured(), PerspectiveCamera(math.pi, 0.0, 1.0, (4, 6)))
    assert np.isnan(view.depth).all()


@pytest.mark.parametrize(
    "values",
    [{"yaw": math.nan}, {"pitch": 2.0}, {"hfov": 0.0}, {"hfov": 3.2}, {"size": (0, 4)}],
)
def test_impossible_cameras_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        PerspectiveCamera(**values)  # type: ignore[arg-type]
