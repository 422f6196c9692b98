"""Driving along straight ways: worked by hand, and simulated from anywhere."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from robots.driving import DriveConfig, Pose, move, steer

CONFIG = DriveConfig()
COORDINATE = st.floats(-3.0, 3.0)


def test_it_turns_on_the_spot_first_and_to_the_nearer_side() -> None:
    assert steer(Pose(0, 0, 0), (0, 0), (0, 2), CONFIG) == (0.0, CONFIG.turn, False, 0.0)
    assert steer(Pose(0, 0, 0), (0, 0), (0, -2), CONFIG) == (0.0, -CONFIG.turn, False, 0.0)


def test_it_drives_straight_on_where_it_looks_along_the_way() -> None:
    assert steer(Pose(0.5, 0, 0), (0, 0), (2, 0), CONFIG) == (CONFIG.speed, 0.0, False, 0.0)


def test_it_slows_down_so_that_it_can_brake() -> None:
    speed, turn, arrived, _ = steer(Pose(1.9, 0, 0), (0, 0), (2, 0), CONFIG)
    assert speed == pytest.approx(math.sqrt(2 * 0.3 * 0.1))
    assert (turn, arrived) == (0.0, False)


def test_beside_the_way_it_turns_back_to_it() -> None:
    """0.1 m to the left, it aims 0.4 m ahead: to the right, by atan(1/4)."""
    found = steer(Pose(1.0, 0.1, 0.0), (0, 0), (3, 0), CONFIG)
    assert found.turn == pytest.approx(-2.0 * math.atan2(0.1, 0.4))
    assert found.speed == 0.0  # by more than 0.2 rad
    assert found.off == pytest.approx(0.1)
    near = steer(Pose(1.0, 0.04, 0.0), (0, 0), (3, 0), CONFIG)
    assert near.speed == pytest.approx(0.4 * (1 - math.atan2(0.04, 0.4) / 0.2))


def test_at_the_end_it_stands() -> None:
    found = steer(Pose(2.0, 0.04, 3.0), (0, 0), (2, 0), CONFIG)
    assert found == pytest.approx((0.0, 0.0, True, 0.04))
    assert steer(Pose(1.0, 1.0, 0.0), (1, 1), (1, 1), CONFIG).arrived


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        steer(Pose(bad, 0, 0), (0, 0), (1, 0), CONFIG)
    with pytest.raises(ValueError, match="finite"):
        steer(Pose(0, 0, 0), (0, 0), (bad, 0), CONFIG)


@pytest.mark.parametrize("change", [{"speed": 0.0}, {"arrival": -1.0}, {"turn": math.inf}])
def test_settings_that_never_arrive_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        DriveConfig(**change)


@settings(max_examples=100, deadline=None)
@given(COORDINATE, COORDINATE, st.floats(-math.pi, math.pi))
def test_from_its_start_it_arrives_and_stays_on_the_way(x: float, y: float, yaw: float) -> None:
    pose, fastest = Pose(0.0, 0.0, yaw), 0.0
    for _ in range(600):
        found = steer(pose, (0, 0), (x, y), CONFIG)
        assert found.off < 0.02
        assert abs(found.speed) <= CONFIG.speed
        assert abs(found.turn) <= CONFIG.turn
        fastest = max(fastest, found.speed)
        if found.arrived:
            break
        pose = move(pose, found.speed, found.turn, 0.05)
    assert math.dist(pose[:2], (x, y)) <= CONFIG.arrival
    assert math.hypot(x, y) < 0.5 or fastest > 0.3


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-math.pi, math.pi))
@example(0.0, 5e-324, 0.0)
def test_an_arc_is_as_many_small_ones(speed: float, turn: float, yaw: float) -> None:
    whole = pose = Pose(1.0, 2.0, yaw)
    whole = move(whole, speed, turn, 1.0)
    for _ in range(10):
        pose = move(pose, speed, turn, 0.1)
    assert pose[:2] == pytest.approx(whole[:2], abs=1e-9)
    assert math.remainder(pose.yaw - whole.yaw, math.tau) == pytest.approx(0.0, abs=1e-9)


def test_a_quarter_of_a_circle_by_hand() -> None:
    x, y, yaw = move(Pose(0, 0, 0), math.pi / 2, math.pi / 2, 1.0)  # of radius 1
    assert (x, y, yaw) == pytest.approx((1.0, 1.0, math.pi / 2))
