"""The safety filter: nothing leaves the limits, and what is within them is not touched."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots.safety_filter import Limits, SafetyFilter, approach_speed

LIMITS = Limits((-0.5, 0.1), (0.5, 0.6), (0.3, 0.4), (2.0, 5.0), hold=0.1)
WILD = st.one_of(st.floats(-1.0, 1.0), st.sampled_from([1e9, -1e9, 0.0, 0.3, -0.3, 1e-12, 1e300]))


def brake(limits: Limits, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Where the robot stops if from now on only the watchdog's slowest braking happens."""
    position, velocity = position.copy(), velocity.copy()
    for _ in range(1000):
        position += velocity * limits.hold
        step = np.array(limits.acceleration) * limits.hold
        velocity = np.sign(velocity) * np.maximum(np.abs(velocity) - step, 0.0)
        if not velocity.any():
            break
    return position


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(WILD, WILD, st.floats(1e-4, 0.1)), min_size=1, max_size=40),
    st.floats(-0.5, 0.5),
    st.floats(0.1, 0.6),
)
def test_any_sequence_stays_within_all_limits(
    commands: list[tuple[float, float, float]], x: float, y: float
) -> None:
    filt = SafetyFilter(LIMITS)
    position, last, elapsed = np.array([x, y]), np.zeros(2), 0.1
    for vx, vy, dt in commands:
        velocity = filt.filter(np.array([vx, vy]), position, elapsed).velocity
        assert (np.abs(velocity) <= np.array(LIMITS.velocity) + 1e-9).all()
        change = np.abs(velocity - last)
        assert (change <= np.array(LIMITS.acceleration) * elapsed + 1e-9).all()
        # The next command comes after dt, which is at most `hold`.
        position = position + velocity * dt
        assert (position >= np.array(LIMITS.low) - 1e-9).all()
        assert (position <= np.array(LIMITS.high) + 1e-9).all()
        last, elapsed = velocity, dt


def test_a_hundred_thousand_random_sequences_never_leave_the_limits() -> None:
    rng = np.random.default_rng(0)
    n = 100_000  # axes know nothing of each other: each is a sequence of its own
    low, high = -rng.uniform(0.0, 1.0, n), rng.uniform(0.0, 1.0, n)
    speed, acceleration = rng.uniform(0.01, 2.0, n), rng.uniform(0.1, 20.0, n)
    limits = [tuple(values.tolist()) for values in (low, high, speed, acceleration)]
    filt = SafetyFilter(Limits(*limits, hold=0.1))
    position, last, elapsed = np.zeros(n), np.zeros(n), 0.1
    for _ in range(40):
        wanted = rng.normal(size=n) * 10.0 ** rng.uniform(-3, 9, n)
        # Some go on in one direction, which is what drives an axis to its end.
        wanted = np.where(rng.random(n) < 0.7, np.abs(wanted), wanted) * np.sign(high - 0.5)
        velocity = filt.filter(wanted, position, elapsed).velocity
        assert (np.abs(velocity) - speed).max() <= 1e-9
        assert (np.abs(velocity - last) - acceleration * elapsed).max() <= 1e-9
        last, elapsed = velocity, 0.1 if rng.random() < 0.2 else rng.uniform(1e-3, 0.1)
        position = position + velocity * elapsed
        assert np.maximum(low - position, position - high).max() <= 1e-9
    assert ((high - position < 0.01) | (position - low < 0.01)).mean() > 0.2  # many got there


def test_it_can_always_brake_before_the_limit_even_when_commands_stop_coming() -> None:
    rng = np.random.default_rng(1)
    filt = SafetyFilter(LIMITS)
    position = np.array([0.0, 0.3])
    for _ in range(3000):
        velocity = filt.filter(rng.choice([-1.0, 1.0], 2), position, 0.1).velocity
        assert (brake(LIMITS, position, velocity) <= np.array(LIMITS.high) + 1e-9).all()
        assert (brake(LIMITS, position, velocity) >= np.array(LIMITS.low) - 1e-9).all()
        position = position + velocity * 0.1


@given(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
def test_what_is_within_the_limits_passes_bit_for_bit(vx: float, vy: float) -> None:
    verdict = SafetyFilter(LIMITS).filter(np.array([vx, vy]), np.array([0.0, 0.35]), 0.1)
    assert verdict.reasons == ()
    assert verdict.velocity.tolist() == [vx, vy]


def test_it_reaches_the_limit_itself_and_no_further() -> None:
    filt = SafetyFilter(Limits((-1.0,), (1.0,), (0.3,), (2.0,), hold=0.1))
    x = 0.0
    for _ in range(200):
        x += 0.1 * float(filt.filter(np.array([0.3]), np.array([x]), 0.1).velocity[0])
    assert x == pytest.approx(1.0, abs=1e-6)


def test_each_limit_is_named_when_it_acts() -> None:
    filt = SafetyFilter(LIMITS)
    assert filt.filter(np.array([0.0, 0.45]), np.array([0.0, 0.3]), 0.1).reasons == ("velocity",)
    filt.reset()
    assert filt.filter(np.array([0.25, 0.0]), np.array([0.0, 0.3]), 0.1).reasons == (
        "acceleration",
    )
    filt.reset()
    assert filt.filter(np.array([0.1, 0.0]), np.array([0.499, 0.3]), 0.1).reasons == ("position",)


def test_a_robot_outside_is_let_back_in_but_not_further_out() -> None:
    filt = SafetyFilter(LIMITS)
    outside = np.array([0.7, 0.3])
    assert filt.filter(np.array([0.1, 0.0]), outside, 0.1).velocity[0] == 0.0
    assert filt.filter(np.array([-0.1, 0.0]), outside, 0.1).velocity[0] == -0.1


OPEN = Limits((-9.0,) * 2, (9.0,) * 2, (0.5,) * 2, (5.0, 1.0))


@pytest.mark.parametrize(
    ("before", "wanted", "sent"),
    [
        # From rest: the slower axis may gain 0.1 in 0.1 s, and the other in proportion to it.
        ((0.0, 0.0), (0.4, 0.2), (0.2, 0.1)),
        # To rest: the slower loses 0.1 of 0.2, half of it, and so does the other.
        ((0.4, 0.2), (0.0, 0.0), (0.2, 0.1)),
        # Back on the same line: it brakes there too, and does not turn yet.
        ((0.4, 0.2), (-0.2, -0.1), (0.2, 0.1)),
        # The goal is nearer than it can brake: past it, on the line.
        ((0.4, 0.2), (0.02, 0.01), (0.2, 0.1)),
        # A turn that it is too fast for: it brakes on its old way, until the new one is in reach,
        ((0.0, 0.3), (0.4, 0.0), (0.0, 0.2)),
        ((0.0, 0.2), (0.4, 0.0), (0.0, 0.1)),
        # which it then takes, as fast as it may.
        ((0.0, 0.1), (0.4, 0.0), (0.4, 0.0)),
    ],
)
def test_axes_together_keep_to_the_line(
    before: tuple[float, float], wanted: tuple[float, float], sent: tuple[float, float]
) -> None:
    filt = SafetyFilter(OPEN)
    filt.velocity = np.array(before)
    verdict = filt.filter_together(0.1 * np.array(wanted), np.zeros(2), 0.1)
    np.testing.assert_allclose(verdict.velocity, sent, atol=1e-12)
    assert verdict.reasons == (() if sent == wanted else ("acceleration",))


def test_axes_by_themselves_leave_the_line() -> None:
    """What `filter_together` is for."""
    sent = SafetyFilter(OPEN).filter(np.array([0.4, 0.2]), np.zeros(2), 0.1).velocity
    assert sent.tolist() == [0.4, 0.1]


def test_one_axis_near_its_end_slows_the_others_with_it() -> None:
    filt = SafetyFilter(Limits((-1.0,) * 2, (1.0,) * 2, (0.5,) * 2, (5.0,) * 2))
    verdict = filt.filter_together(np.array([0.04, 0.02]), np.array([0.99, 0.0]), 0.1)
    np.testing.assert_allclose(verdict.velocity, [0.1, 0.05], atol=1e-12)  # 0.01 m in 0.1 s
    assert verdict.reasons == ("position",)


def test_an_axis_that_must_not_move_does_not_hinder_the_others() -> None:
    filt = SafetyFilter(Limits((-1.0,) * 2, (1.0,) * 2, (0.5, 0.0), (5.0, 0.0)))
    verdict = filt.filter_together(np.array([0.04, 0.02]), np.zeros(2), 0.1)
    np.testing.assert_allclose(verdict.velocity, [0.4, 0.0], atol=1e-12)
    assert verdict.reasons == ("velocity",)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(WILD, WILD, st.floats(1e-4, 0.1)), min_size=1, max_size=40),
    st.floats(-0.5, 0.5),
    st.floats(0.1, 0.6),
)
def test_axes_together_stay_within_all_limits_too(
    commands: list[tuple[float, float, float]], x: float, y: float
) -> None:
    filt = SafetyFilter(LIMITS)
    position, last, elapsed = np.array([x, y]), np.zeros(2), 0.1
    for vx, vy, dt in commands:
        velocity = filt.filter_together(np.array([vx, vy]) * elapsed, position, elapsed).velocity
        assert (np.abs(velocity) <= np.array(LIMITS.velocity) + 1e-9).all()
        assert (np.abs(velocity - last) <= np.array(LIMITS.acceleration) * elapsed + 1e-9).all()
        position = position + velocity * dt
        assert (position >= np.array(LIMITS.low) - 1e-9).all()
        assert (position <= np.array(LIMITS.high) + 1e-9).all()
        last, elapsed = velocity, dt


@given(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
def test_what_axes_may_do_together_passes_bit_for_bit(vx: float, vy: float) -> None:
    way = np.array([vx, vy]) * 0.1
    verdict = SafetyFilter(LIMITS).filter_together(way, np.array([0.0, 0.35]), 0.1)
    assert verdict.reasons == ()
    assert verdict.velocity.tolist() == (way / 0.1).tolist()


@pytest.mark.parametrize("distance", [0.0, 0.004, 0.02, 0.0200001, 0.06, 0.1999, 3.0])
def test_the_approach_speed_stops_exactly_at_the_limit(distance: float) -> None:
    # Braking by hand: v T + (v - a T) T + ... with T = 0.1, a = 2.
    speed = float(approach_speed(np.array([distance]), np.array([2.0]), 0.1)[0])
    travelled, v = 0.0, speed
    while v > 0:
        travelled += v * 0.1
        v -= 0.2
    assert travelled == pytest.approx(distance, abs=1e-9)


def test_without_a_limit_the_approach_speed_is_none() -> None:
    speeds = approach_speed(np.array([math.inf, -1.0]), np.array([2.0, 2.0]), 0.1)
    assert speeds.tolist() == [math.inf, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    # np.clip and min/max let NaN through without a word.
    filt = SafetyFilter(LIMITS)
    with pytest.raises(ValueError, match="finite"):
        filt.filter(np.array([0.0, bad]), np.array([0.0, 0.3]), 0.1)
    with pytest.raises(ValueError, match="finite"):
        filt.filter(np.zeros(2), np.array([bad, 0.3]), 0.1)
    assert not filt.velocity.any()


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \(2,\)"):
        SafetyFilter(LIMITS).filter(np.zeros(3), np.zeros(2), 0.1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"low": (0.0,)}, "one number for every axis"),
        ({"velocity": (math.nan, 1.0)}, "velocity limits"),
        ({"velocity": (-0.1, 1.0)}, "velocity limits"),
        ({"acceleration": (0.0, 1.0)}, "may move but not accelerate"),
        ({"low": (0.6, 0.1)}, "low must not exceed high"),
        ({"low": (math.nan, 0.1)}, "position limits"),
        ({"hold": 0.0}, "hold"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(change: dict, said: str) -> None:
    values = {
        "low": LIMITS.low,
        "high": LIMITS.high,
        "velocity": LIMITS.velocity,
        "acceleration": LIMITS.acceleration,
    }
    with pytest.raises(ValueError, match=said):
        Limits(**{**values, **change})
