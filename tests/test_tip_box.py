"""The box of the tip: no command of joints leads the tip out of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pybullet_data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots.gate import SECOND, Gate, GateConfig, Now
from robots.kinematics import Chain
from robots.safety_filter import Limits
from robots.tip_box import TipBox

XARM = Path(pybullet_data.getDataPath()) / "xarm" / "xarm6_robot_white.urdf"
CHAIN = Chain.from_urdf(XARM, "world", "link6", tool=(0.0, 0.0, 0.12))
HOME = np.array([0.0, -0.20, -0.90, 0.0, 1.10, 0.0])
TIP = CHAIN.forward(HOME)[:3, 3]
BOX = TipBox(CHAIN, tuple(TIP - 0.08), tuple(TIP + 0.08))
LIMITS = Limits(tuple(CHAIN.low), tuple(CHAIN.high), (1.0,) * 6, (30.0,) * 6, hold=0.1)


def outside(joints: np.ndarray) -> float:
    """Metres by which the tip is out of the box."""
    tips = CHAIN.forward(joints)[..., :3, 3]
    return float(np.maximum(np.array(BOX.low) - tips, tips - np.array(BOX.high)).max())


class Arm:
    """A gate and an arm that does what passes, evenly from point to point."""

    def __init__(self) -> None:
        config = GateConfig(LIMITS, positions=True, max_age=0.2, box=BOX)
        self.gate, self.time = Gate(config), 1000 * SECOND
        self.joints = HOME.copy()
        self.worst = -math.inf
        self.passed = 0
        for _ in range(3):
            self.wait(0.01)
        assert self.gate.arm(self.now) == ""

    @property
    def now(self) -> Now:
        return Now(self.time, self.time)

    def wait(self, seconds: float) -> None:
        self.time += round(seconds * SECOND)
        self.gate.observe(self.joints, self.time, self.now)

    def go(self, points: np.ndarray) -> None:
        for point in points:
            way = np.linspace(self.joints, point, 200)
            self.worst = max(self.worst, outside(way))
            self.joints = point.copy()
        self.passed += 1

    def command(self, wanted: np.ndarray, seconds: float) -> bool:
        self.wait(seconds)
        decision = self.gate.command(wanted, None, self.now)
        if decision.values is not None:
            self.go(decision.values[None])
        return decision.stop

    def chunk(self, wanted: np.ndarray, seconds: float) -> bool:
        self.wait(seconds)
        times = np.arange(1, len(wanted) + 1) * 0.02
        decision = self.gate.trajectory(wanted, times, None, self.now)
        if decision.values is not None:
            self.go(decision.values)
            self.wait(times[-1])
        return decision.stop


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([0.01, 0.1, 1.0, 1e6]))
def test_no_commands_lead_the_tip_out_of_its_box(seed: int, chunks: bool, size: float) -> None:
    rng, arm = np.random.default_rng(seed), Arm()
    drift = rng.normal(size=6) * 0.03  # one direction leads to the wall in the end
    for _ in range(25):
        target = arm.joints + drift + rng.normal(size=6) * min(size, 0.1)
        if size > 1 and rng.random() < 0.2:
            target = rng.normal(size=6) * size
        if chunks:
            stopped = arm.chunk(np.linspace(arm.joints, target, 6)[1:], 0.02)
        else:
            stopped = arm.command(target, 0.02)
        if stopped:
            assert arm.gate.why == "workspace"
            break
    assert arm.worst <= BOX.resolution / 2


def test_a_way_within_the_box_passes_and_one_to_its_wall_stops() -> None:
    arm = Arm()
    pose, joints = CHAIN.forward(HOME), HOME.copy()
    stopped = False
    for _ in range(200):
        pose[1, 3] += 0.002
        joints = CHAIN.inverse(pose, joints)
        stopped = arm.command(joints, 0.04)
        if stopped:
            break
    assert stopped
    # Every point up to the wall has passed, and none beyond.
    assert 38 <= arm.passed <= 40
    assert arm.worst <= 1e-6
    assert arm.gate.health.changed == 0
    assert arm.gate.health.reasons["stop: workspace"] == 1


def test_the_way_counts_and_not_only_its_end() -> None:
    """Both ends are in the box, and an arm that turns between them leaves it."""
    radius = math.hypot(*TIP[:2])
    box = TipBox(CHAIN, (-1.0, -1.0, -1.0), (radius * 0.95, 1.0, 2.0))
    start, end = HOME.copy(), HOME.copy()
    start[0], end[0] = -0.5, 0.5
    for joints in (start, end):
        assert CHAIN.forward(joints)[0, 3] < box.high[0]
    assert box.is_left(start, end)
    assert not box.is_left(start, start)


def test_a_point_outside_in_the_middle_of_a_chunk_stops_all_of_it() -> None:
    arm = Arm()
    out = HOME.copy()
    out[1] += 0.4
    points = np.array([HOME + 0.001, out, HOME])
    box = TipBox(CHAIN, tuple(TIP - 0.01), tuple(TIP + 0.01))
    gate = Gate(GateConfig(Limits(LIMITS.low, LIMITS.high, (30.0,) * 6, (9e3,) * 6), True, box=box))
    for i in range(3):
        gate.observe(HOME, arm.time + i, Now(arm.time + i, arm.time + i))
    assert gate.arm(arm.now) == ""
    decision = gate.trajectory(points, np.array([0.02, 0.06, 0.1]), None, arm.now)
    assert decision.stop
    assert decision.values is None


def test_where_the_tip_starts_does_not_count_but_no_way_leads_further_out() -> None:
    box = TipBox(CHAIN, tuple(TIP - [0.08, 0.08, -0.001]), tuple(TIP + 0.08))
    lifted, pose = HOME.copy(), CHAIN.forward(HOME)
    pose[2, 3] += 0.05
    lifted = CHAIN.inverse(pose, HOME)
    assert box.is_left(HOME, HOME + np.array([0, 0, 0, 0, 0, 0.1]))
    assert not box.is_left(lifted, lifted + np.array([0.01, 0, 0, 0, 0, 0]))


@pytest.mark.parametrize("end", [np.full(6, 1e9), np.full(6, math.inf), np.full(6, math.nan)])
def test_a_way_that_nobody_can_go_is_out(end: np.ndarray) -> None:
    assert BOX.is_left(HOME, end)


@pytest.mark.parametrize(
    ("low", "high", "resolution"),
    [
        ((0.0, 0.0), (1.0, 1.0), 0.01),
        ((0.0, 0.0, 1.0), (1.0, 1.0, 1.0), 0.01),
        ((0.0, 0.0, math.nan), (1.0, 1.0, 1.0), 0.01),
        ((0.0,) * 3, (1.0,) * 3, 0.0),
    ],
)
def test_a_box_that_holds_nothing_is_refused(low: tuple, high: tuple, resolution: float) -> None:
    with pytest.raises(ValueError, match=r"low < high|coordinates|positive"):
        TipBox(CHAIN, low, high, resolution)


def test_a_box_belongs_to_joints_and_to_no_velocities() -> None:
    with pytest.raises(ValueError, match="6 joints"):
        GateConfig(LIMITS, positions=False, box=BOX)
    with pytest.raises(ValueError, match="6 joints"):
        GateConfig(Limits((0.0,), (1.0,), (1.0,), (1.0,)), positions=True, box=BOX)
