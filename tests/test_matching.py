"""Observations matched in time, and laid out as the policy wants them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robots.matching import (
    SECOND,
    Feature,
    Matcher,
    default_features,
    parse_feature,
    pose_part,
    quaternion_yaw,
)

MS = SECOND // 1000
T0 = 50 * SECOND


def matcher(**changes: float) -> Matcher:
    return Matcher(["a", "b"], **{"max_age": 0.1, "max_skew": 0.05, **changes})


def test_it_waits_for_every_source() -> None:
    found = matcher()
    found.add("a", T0, 1, T0)
    assert found.match(T0) is None
    found.add("b", T0 + MS, 2, T0 + MS)
    matched = found.match(T0 + MS)
    assert matched is not None
    assert matched.values == {"a": 1, "b": 2}
    assert (matched.oldest, matched.newest) == (T0, T0 + MS)


def test_a_match_is_given_once() -> None:
    found = matcher()
    for source in "ab":
        found.add(source, T0, 0, T0)
    assert found.match(T0) is not None
    assert found.match(T0 + MS) is None
    found.add("a", T0 + 10 * MS, 0, T0 + 10 * MS)
    assert found.match(T0 + 10 * MS) is None


def test_of_the_faster_source_the_value_nearest_in_time_is_taken() -> None:
    found = matcher()
    for ms in range(0, 50, 10):
        found.add("a", T0 + ms * MS, ms, T0 + ms * MS)
    found.add("b", T0 + 22 * MS, "b", T0 + 45 * MS)
    matched = found.match(T0 + 45 * MS)
    assert matched is not None
    assert matched.values["a"] == 20


def test_values_too_far_apart_are_no_match() -> None:
    found = matcher(max_skew=0.005)
    found.add("a", T0, 0, T0)
    found.add("b", T0 + 6 * MS, 0, T0 + 6 * MS)
    assert found.match(T0 + 6 * MS) is None


@pytest.mark.parametrize(
    ("shift", "why"), [(-101, "too old"), (51, "from the future"), (0, "out of order")]
)
def test_what_is_late_early_or_repeated_is_refused_and_counted(shift: int, why: str) -> None:
    found = matcher()
    assert found.add("a", T0, 0, T0)
    assert not found.add("a", T0 + shift * MS, 1, T0)
    assert found.rejected == {why: 1}


def test_observations_that_stop_coming_grow_old() -> None:
    found = matcher()
    for source in "ab":
        found.add(source, T0, 0, T0)
    assert found.match(T0 + 101 * MS) is None


def test_a_clock_that_jumps_back_begins_anew() -> None:
    found = matcher()
    for source in "ab":
        found.add(source, T0, "old", T0)
    assert found.match(T0)
    for source in "ab":
        assert found.add(source, 5 * SECOND, "new", 5 * SECOND)
    matched = found.match(5 * SECOND)
    assert matched is not None
    assert set(matched.values.values()) == {"new"}


def test_after_a_reset_what_was_used_is_not_used_again() -> None:
    found = matcher()
    for source in "ab":
        found.add(source, T0, 0, T0)
    assert found.match(T0)
    found.clear(keep_last=True)
    for source in "ab":
        found.add(source, T0, 0, T0)
    assert found.match(T0) is None
    found.clear()
    for source in "ab":
        found.add(source, T0, 0, T0)
    assert found.match(T0) is not None


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(-300, 300), st.integers(0, 40)), max_size=60
    )
)
def test_whatever_arrives_matches_are_fresh_close_and_in_order(events: list) -> None:
    found = matcher()
    now, last = T0, -1
    for source, shift, pause in events:
        now += pause * MS
        found.add(source, now + shift * MS, None, now)
        matched = found.match(now)
        if matched is None:
            continue
        assert matched.newest - matched.oldest <= 0.05 * SECOND
        assert now - matched.oldest <= 0.1 * SECOND + 0.05 * SECOND
        assert matched.newest <= now + 0.05 * SECOND
        assert matched.newest > last
        last = matched.oldest


def test_without_sources_there_is_nothing_to_wait_for() -> None:
    with pytest.raises(ValueError, match="at least one source"):
        Matcher([], 0.1, 0.1)


# Features.


def test_a_feature_reads_as_it_is_written() -> None:
    feature = parse_feature(" block_yaw4 = pose:/objects/block  yaw4 ")
    assert feature == Feature("block_yaw4", "pose", "/objects/block", "yaw4")
    assert parse_feature("target_xy = reference").source == "reference"
    assert parse_feature("effector_xy = joints:joint_states x,y").part == "x,y"
    assert parse_feature("goal = joints:observation goal.0,goal.1").part == "goal.0,goal.1"
    assert parse_feature("effector_xy = fk:joint_states xy").source == "fk"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("block_xy", "reads FIELD"),
        ("block_xy = ", "reads FIELD"),
        ("block_xy = lidar:scan", "one of"),
        ("block_xy = pose", "needs a topic"),
        ("block_xy = pose:objects/block roll", "a pose gives"),
        ("block_xy = fk:joint_states roll", "a pose gives"),
    ],
)
def test_a_feature_that_makes_no_sense_is_refused(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_feature(line)


def test_the_names_of_the_insertion_fields_suggest_their_topics() -> None:
    names = ["target_xy", "effector_xy", "block_xy", "block_yaw4", "slot1_xy", "slot1_heading"]
    features = default_features(names, pixels=True)
    assert [f.source for f in features] == ["reference"] + ["pose"] * 5 + ["image"]
    assert [f.topic for f in features[1:4]] == ["tool_pose", "objects/block", "objects/block"]
    (arm,) = default_features(["effector_xy"], pixels=False, tool="fk:joint_states")
    assert arm == Feature("effector_xy", "fk", "joint_states", "xy")
    with pytest.raises(ValueError, match="no topic is known for the field 'speed'"):
        default_features(["speed"], pixels=False)


@given(st.floats(-math.pi, math.pi))
def test_the_parts_of_a_pose(yaw: float) -> None:
    quaternion = np.array([0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)])
    place = np.array([1.0, 2.0, 3.0])
    assert math.isclose(math.cos(quaternion_yaw(quaternion)), math.cos(yaw), abs_tol=1e-12)
    assert pose_part("xy", place, quaternion) == (1.0, 2.0)
    assert pose_part("position", place, quaternion) == (1.0, 2.0, 3.0)
    expected = [math.cos(yaw), math.sin(yaw)]
    np.testing.assert_allclose(pose_part("heading", place, quaternion), expected, atol=1e-12)
    expected = [math.cos(4 * yaw), math.sin(4 * yaw)]
    np.testing.assert_allclose(pose_part("yaw4", place, quaternion), expected, atol=1e-12)
