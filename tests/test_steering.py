"""Steering a slippery finger around and behind a square block."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.tabletop.effectors import RADIUS
from envs.tabletop.push_experts import axis_push
from envs.tabletop.scene import WORKSPACE_HIGH, WORKSPACE_LOW, Scene
from envs.tabletop.steering import (
    TURN_CONSTANT,
    Circle,
    face_headings,
    limit_step,
    navigate,
    nearest_face,
    push_face,
    see_face,
    wrap_angle,
)

HALF = 0.02
angles = st.floats(-10.0, 10.0)


@given(angles)
def test_wrapped_angles_point_the_same_way(angle: float) -> None:
    wrapped = wrap_angle(angle)
    assert -math.pi <= wrapped < math.pi
    assert math.isclose(math.cos(wrapped), math.cos(angle), abs_tol=1e-9)
    assert math.isclose(math.sin(wrapped), math.sin(angle), abs_tol=1e-9)


@given(angles)
def test_the_four_faces_are_a_quarter_turn_apart(yaw: float) -> None:
    headings = face_headings(yaw)
    for a, b in pairwise(headings):
        assert math.isclose(abs(wrap_angle(b - a)), math.pi / 2, abs_tol=1e-9)


@given(angles, angles)
def test_the_nearest_face_is_within_an_eighth_turn(yaw: float, heading: float) -> None:
    block = (0.4, 0.0, yaw)
    first = face_headings(yaw)[nearest_face(block, heading)]
    second = face_headings(yaw)[nearest_face(block, heading, 1)]
    assert abs(wrap_angle(heading - first)) <= math.pi / 4 + 1e-9
    assert abs(wrap_angle(heading - second)) <= math.pi / 2 + 1e-9


@given(angles, st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.integers(0, 3))
def test_a_face_sees_the_finger_where_point_puts_it(
    yaw: float, along: float, across: float, index: int
) -> None:
    block = (0.4, -0.1, yaw)
    at = see_face(np.zeros(2), block, index).point(along, across)
    face = see_face(at, block, index)
    assert math.isclose(face.along, along, abs_tol=1e-9)
    assert math.isclose(face.across, across, abs_tol=1e-9)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.001, 0.1))
def test_steps_are_no_longer_than_their_limit(x: float, y: float, longest: float) -> None:
    delta = limit_step(np.array([x, y]), longest)
    assert np.hypot(*delta) <= longest + 1e-9
    assert np.cross(np.append(delta, 0), [x, y, 0])[2] == pytest.approx(0, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 2 * math.pi), st.floats(0, 2 * math.pi), st.sampled_from([-1, 0, 1]))
def test_navigation_arrives_and_stays_out_of_the_disc(a: float, b: float, side: int) -> None:
    disc = Circle((0.4, 0.0), 0.05)
    center = np.array(disc.center)
    finger = center + 0.09 * np.array([math.cos(a), math.sin(a)])
    goal = center + 0.09 * np.array([math.cos(b), math.sin(b)])
    closest = math.inf
    for _ in range(60):
        finger = finger + navigate(finger, goal, [disc], side)
        closest = min(closest, float(np.hypot(*(finger - center))))
    assert np.allclose(finger, goal, atol=1e-6)
    assert closest > disc.radius - 0.004


def test_navigation_goes_round_on_the_side_it_is_told() -> None:
    disc = Circle((0.4, 0.0), 0.05)
    start, goal = np.array([0.3, 0.0]), np.array([0.5, 0.0])
    for side in (-1, 1):
        finger, widest = start.copy(), 0.0
        for _ in range(40):
            finger = finger + navigate(finger, goal, [disc], side)
            widest = finger[1] if abs(finger[1]) > abs(widest) else widest
        # Counter-clockwise around the disc, from its left to its right, is below it.
        assert np.sign(widest) == -side


def push(offset: float, steps: int = 6) -> tuple[float, float]:
    """Pushes a block with the contact `offset` to the left of its centre; its advance and turn."""
    scene = Scene()
    try:
        scene.add_block((HALF, HALF, 0.015), "blue")
        scene.freeze()
        scene.place(scene.blocks[0], (0.4, 0.0), 0.0, 0.015)
        target = np.array([0.4 - HALF - RADIUS - 0.002, offset, 0.004])
        scene.effector.home(target)
        for _ in range(steps):
            target[0] += 0.008
            scene.effector.command(target, 24)
            scene.step()
        x, _, yaw = scene.pose(scene.blocks[0])
        return x - 0.4, yaw
    finally:
        scene.close()


def test_a_slippery_finger_turns_the_block_like_a_unicycle() -> None:
    """Curvature is minus offset over the turn constant, within the model's third."""
    advance, straight = push(0.0)
    assert advance == pytest.approx(0.046, abs=0.006)
    assert abs(straight) < 0.02
    for offset in (0.004, -0.004):
        advance, turn = push(offset, 4)
        assert np.sign(turn) == -np.sign(offset)
        assert abs(turn) == pytest.approx(abs(offset) / TURN_CONSTANT * advance, rel=0.5)


def test_push_face_walks_around_before_it_pushes() -> None:
    block = (0.4, 0.0, 0.0)
    ahead = np.array([0.5, 0.0])  # on the far side of the face that is to be pushed
    face = see_face(ahead, block, 0)
    delta = push_face(ahead, face, HALF, 0.0, 0.015)
    assert np.hypot(*delta) <= 0.028 + 1e-9
    behind = face.point(-(HALF + RADIUS + 0.002), 0.0)
    delta = push_face(behind, see_face(behind, block, 0), HALF, 0.0, 0.015)
    assert delta[0] > 0.01
    assert abs(delta[1]) < 1e-9


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-math.pi, math.pi),
    st.floats(-0.15, 0.15),
    st.floats(-0.15, 0.15),
    st.integers(0, 1000),
)
def test_an_axis_push_brings_the_block_closer(yaw: float, dx: float, dy: float, seed: int) -> None:
    block = np.array([0.4, 0.0, yaw])
    goal = np.add(block[:2], (dx, dy))
    if np.hypot(dx, dy) < 0.02:
        return
    push = axis_push(block, goal, HALF, np.zeros((0, 2)), np.random.default_rng(seed))
    moved = push[2:] * (1 - 0.010 / np.hypot(*push[2:]))  # less the run-up
    assert np.hypot(*(goal - block[:2] - moved)) < np.hypot(dx, dy)
    assert np.hypot(*(push[:2] - block[:2])) > HALF + RADIUS


def test_an_axis_push_never_starts_on_another_block_nor_outside_the_workspace() -> None:
    block, goal = np.array([0.4, 0.0, 0.0]), np.array([0.5, 0.0])
    other = np.array([[0.36, 0.0]])  # right where the best push would start
    push = axis_push(block, goal, HALF, other, None)
    assert np.hypot(*(push[:2] - other[0])) > HALF + RADIUS
    edge = np.array([0.19, 0.0, 0.0])
    push = axis_push(edge, np.array([0.3, 0.0]), HALF, np.zeros((0, 2)), None)
    assert (push[:2] >= WORKSPACE_LOW).all()
    assert (push[:2] <= WORKSPACE_HIGH).all()
