"""The fence around a base: it comes to rest inside, whatever it is told."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots.driving import Pose, move
from robots.fence import Fence
from robots.gate import SECOND, Gate, GateConfig, Now
from robots.safety_filter import Limits

FASTEST, TURN, BRAKING, HOLD = 0.7, 1.3, 1.5, 0.1
FENCE = Fence((-1.0, -2.0), (3.0, 2.0), TURN, BRAKING, HOLD)
FREE = (-math.inf,) * 6, (math.inf,) * 6
LIMITS = Limits(*FREE, (FASTEST, 0, 0, 0, 0, TURN), (BRAKING, 0, 0, 0, 0, 20.0), HOLD)


def outside(pose: Pose) -> float:
    """Metres beyond the fence."""
    return max(-1.0 - pose.x, pose.x - 3.0, -2.0 - pose.y, pose.y - 2.0)


def armed() -> Gate:
    return Gate(GateConfig(LIMITS, fence=FENCE, max_age=0.2, command_timeout=1.0))


def told(gate: Gate, pose: Pose, speed: float, turn: float, now: int) -> tuple[float, float]:
    """What the gate sends on a command, given what it was shown."""
    moment = Now(now, now)
    gate.observe(np.array([pose.x, pose.y, 0, 0, 0, pose.yaw]), now, moment)
    if gate.state != "armed":
        for k in range(3):
            later = Now(now + k + 1, now + k + 1)
            gate.observe(np.array([pose.x, pose.y, 0, 0, 0, pose.yaw]), now + k + 1, later)
        assert not gate.arm(later)
        now, moment = now + 3, later
    gate.infer(now, now, moment)
    decision = gate.command(np.array([speed, 0, 0, 0, 0, turn]), now, moment)
    assert decision.values is not None, decision
    return float(decision.values[0]), float(decision.values[5])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), period=st.sampled_from([0.02, 0.05, 0.1]))
def test_no_sequence_of_commands_leads_a_base_out(seed: int, period: float) -> None:
    rng = np.random.default_rng(seed)
    gate, pose, now = armed(), Pose(1.0, 0.0, float(rng.uniform(-4, 4))), SECOND
    speed = turn = 0.0
    for step in range(150):
        if step % int(rng.integers(1, 12)) == 0:
            speed, turn = rng.uniform(-2, 2), rng.uniform(-3, 3)
        sent = told(gate, pose, speed, turn, now)
        pose = move(pose, *sent, period)
        now += round(period * SECOND) + 4
        assert outside(pose) < 1e-6
    assert gate.health.stops == 0


def test_far_from_the_fence_a_command_passes_bit_for_bit() -> None:
    gate = armed()
    told(gate, Pose(1.0, 0.0, 0.3), 0.0, 0.0, SECOND)
    assert told(gate, Pose(1.0, 0.0, 0.3), 0.0123, 0.456, SECOND + SECOND // 10) == (0.0123, 0.456)
    assert gate.health.changed == 0


@pytest.mark.parametrize(
    ("pose", "wanted", "limit"),
    [
        (Pose(2.99, 0.0, 0.0), 0.5, 0.1),  # straight at it
        (Pose(2.99, 0.0, math.pi), -0.5, 0.1),  # the same, backward
        (Pose(3.5, 0.0, 0.0), 0.5, 0.0),  # outside, and on outward
    ],
)
def test_speed_towards_the_fence_is_what_can_be_braked(
    pose: Pose, wanted: float, limit: float
) -> None:
    found = FENCE.speed(wanted, pose)
    assert abs(found) <= limit
    assert math.copysign(1.0, found) == math.copysign(1.0, wanted)


def test_away_from_the_fence_and_from_outside_inward_it_may_go() -> None:
    assert FENCE.speed(0.5, Pose(2.99, 0.0, math.pi)) == 0.5
    assert FENCE.speed(0.5, Pose(3.5, 0.0, math.pi)) == 0.5
    assert FENCE.speed(-0.5, Pose(2.99, 0.0, 0.0)) == -0.5
    assert FENCE.speed(0.0, Pose(9.0, 9.0, 1.0)) == 0.0


def test_what_was_gone_since_the_pose_counts() -> None:
    pose = Pose(2.8, 0.0, 0.0)
    assert FENCE.speed(0.7, pose, 0.15) < FENCE.speed(0.7, pose, 0.0) <= 0.7
    assert FENCE.speed(0.7, pose, 0.21) == 0.0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"low": (0.0, 0.0), "high": (0.0, 1.0)}, "less than high"),
        ({"low": (math.nan, 0.0)}, "finite"),
        ({"braking": 0.0}, "can brake"),
    ],
)
def test_fences_without_sense_are_refused(change: dict, why: str) -> None:
    whole = {"low": (-1.0, -1.0), "high": (1.0, 1.0), "turn": 1.0, "braking": 1.0, "hold": 0.1}
    with pytest.raises(ValueError, match=why):
        Fence(**{**whole, **change})


def test_a_fence_is_for_bases_only() -> None:
    sideways = Limits(*FREE, (0.7, 0.1, 0, 0, 0, 1.0), (1.5, 1.0, 0, 0, 0, 2.0), HOLD)
    with pytest.raises(ValueError, match="drives forward and turns"):
        GateConfig(sideways, fence=FENCE)
    walled = Limits((-1.0,) * 6, (1.0,) * 6, LIMITS.velocity, LIMITS.acceleration, HOLD)
    with pytest.raises(ValueError, match="its fence only"):
        GateConfig(walled, fence=FENCE)
