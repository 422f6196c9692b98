"""The safety gate's state machine, without ROS and without waiting: the clock is an argument."""

import math
from pathlib import Path

import numpy as np
import pybullet_data
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from robots.gate import SECOND, Decision, Gate, GateConfig, Now
from robots.kinematics import Chain, quaternion_rotation
from robots.safety_filter import Limits

LIMITS = Limits((-1.0,) * 2, (1.0,) * 2, (0.5,) * 2, (50.0,) * 2)
MS = SECOND // 1000
START = 1000 * SECOND


class Cell:
    """A gate, a robot that stands still, and a clock."""

    def __init__(self, **changes: object) -> None:
        self.gate = Gate(GateConfig(**{"limits": LIMITS, "inference_timeout": 0.25, **changes}))  # type: ignore[arg-type]
        self.ros = self.steady = START

    @property
    def now(self) -> Now:
        return Now(self.ros, self.steady)

    def wait(self, ms: float) -> None:
        self.ros += round(ms * MS)
        self.steady += round(ms * MS)

    def observe(self, position: tuple[float, float] = (0.0, 0.0)) -> bool:
        return self.gate.observe(np.array(position), self.ros, self.now)

    def arm(self) -> None:
        for _ in range(3):
            self.wait(5)
            self.observe()
        assert self.gate.arm(self.now) == ""

    def move(self, v: float = 0.1) -> Decision:
        return self.gate.command(np.array([v, 0.0]), self.ros, self.now)

    def cycle(self, ms: float = 20) -> Decision:
        """One period in which everything is well."""
        self.wait(ms)
        self.observe()
        self.gate.infer(self.ros, self.ros, self.now)
        return self.move()

    def stopped_after(self, limit_ms: float, each=lambda: None) -> float | None:
        """Milliseconds until the watchdog stops the robot; None if it does not."""
        for ms in range(5, round(limit_ms) + 5, 5):
            self.wait(5)
            each()
            if self.gate.tick(self.now).stop:
                return ms
        return None


@pytest.fixture
def cell() -> Cell:
    cell = Cell()
    cell.arm()
    for _ in range(5):
        assert cell.cycle().values is not None
    return cell


def test_nothing_passes_before_it_is_armed() -> None:
    cell = Cell()
    cell.observe()
    assert cell.move() == Decision(reasons=("disarmed",))
    assert not cell.gate.tick(cell.now).stop


def test_it_arms_only_with_fresh_observations_in_a_row() -> None:
    cell = Cell()
    assert "not been observed" in cell.gate.arm(cell.now)
    cell.observe()
    assert "1 of 3" in cell.gate.arm(cell.now)
    for _ in range(2):
        cell.wait(5)
        cell.observe()
    cell.wait(200)
    assert "too old" in cell.gate.arm(cell.now)
    cell.observe()
    assert cell.gate.arm(cell.now) == ""
    assert cell.gate.state == "armed"


def test_armed_without_commands_it_rests() -> None:
    cell = Cell()
    cell.arm()
    assert cell.stopped_after(2000, each=cell.observe) is None
    assert cell.gate.state == "armed"


def test_the_watchdog_stops_100_ms_after_the_last_command(cell: Cell) -> None:
    assert cell.stopped_after(1000, each=cell.observe) == 105
    assert (cell.gate.state, cell.gate.why) == ("stopped", "command overdue")


def test_it_stops_when_the_robot_is_no_longer_observed(cell: Cell) -> None:
    def setpoints() -> None:
        cell.gate.infer(cell.ros, cell.ros, cell.now)
        cell.move()

    begin = cell.steady
    while cell.gate.state == "armed":
        cell.wait(5)
        setpoints()
    assert cell.steady - begin <= 105 * MS
    assert cell.gate.why == "observation too old"


def test_it_stops_two_and_a_half_periods_after_the_last_inference(cell: Cell) -> None:
    """Setpoints that go on are no sign that anybody still looks."""

    def setpoints() -> None:
        cell.observe()
        cell.move()

    assert cell.stopped_after(1000, each=setpoints) == 255
    assert cell.gate.why == "inference overdue"


def test_setpoints_without_any_inference_stop_too() -> None:
    cell = Cell()
    cell.arm()

    def setpoints() -> None:
        cell.observe()
        cell.move()

    assert cell.stopped_after(1000, each=setpoints) == 260


def test_teleoperation_needs_no_inference() -> None:
    cell = Cell(inference_timeout=0.0)
    cell.arm()

    def setpoints() -> None:
        cell.observe()
        cell.move()

    assert cell.stopped_after(1000, each=setpoints) is None


def test_after_a_stop_nothing_passes_until_it_is_armed_again(cell: Cell) -> None:
    cell.stopped_after(1000)
    for _ in range(10):
        assert cell.cycle().values is None
    assert cell.gate.state == "stopped"
    assert cell.gate.arm(cell.now) == ""
    assert cell.cycle().values is not None


def test_a_base_moves_again_by_itself_after_three_fresh_observations() -> None:
    cell = Cell(rearm="automatic")
    cell.arm()
    cell.cycle()
    assert cell.stopped_after(1000) == 105
    states = []
    for _ in range(4):
        cell.wait(20)
        cell.observe()
        states.append(cell.gate.state)
    assert states == ["stopped", "stopped", "armed", "armed"]


def test_a_stop_is_repeated_and_then_silent(cell: Cell) -> None:
    cell.stopped_after(1000)
    stops = 0
    for _ in range(100):
        cell.wait(5)
        stops += cell.gate.tick(cell.now).stop
    assert stops == cell.gate.config.repeats


def test_the_emergency_stop_is_latched_and_needs_a_reset(cell: Cell) -> None:
    assert cell.gate.press_estop().stop
    assert cell.cycle().values is None
    assert "latched" in cell.gate.arm(cell.now)
    cell.gate.disarm()
    assert cell.gate.state == "estop"
    cell.gate.reset_estop()
    assert cell.gate.state == "disarmed"
    cell.cycle()
    cell.cycle()
    cell.cycle()
    assert cell.gate.arm(cell.now) == ""


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_command_that_is_not_finite_stops_the_robot(cell: Cell, bad: float) -> None:
    cell.wait(5)
    cell.observe()
    decision = cell.gate.command(np.array([0.0, bad]), cell.ros, cell.now)
    assert decision.stop
    assert decision.values is None
    assert cell.gate.health.reasons["command not finite"] == 1
    assert cell.gate.state == "stopped"


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["observe", "command", "infer"]),
            st.floats(allow_nan=True, allow_infinity=True),
            st.floats(allow_nan=True, allow_infinity=True),
            st.integers(-500, 500),
        ),
        min_size=1,
        max_size=20,
    )
)
@example([("observe", 0.0, 9e307, 0), ("command", 1e308, -1e308, 0)])
@example([("observe", 0.0, -1.7e308, 0), ("command", 0.0, 0.0, 0)])
def test_whatever_comes_nothing_infinite_goes_out(events: list) -> None:
    cell = Cell()
    cell.arm()
    for kind, x, y, shift in events:
        cell.wait(10)
        stamp = cell.ros + shift * MS
        if kind == "observe":
            cell.gate.observe(np.array([x, y]), stamp, cell.now)
        elif kind == "infer":
            cell.gate.infer(stamp, cell.ros, cell.now)
        else:
            decision = cell.gate.command(np.array([x, y]), stamp, cell.now)
            if decision.values is not None:
                assert np.isfinite(decision.values).all()
                assert (np.abs(decision.values) <= 0.5 + 1e-9).all()
        cell.gate.tick(cell.now)


def test_wrong_lengths_are_refused_and_the_watchdog_does_the_rest(cell: Cell) -> None:
    cell.wait(5)
    decision = cell.gate.command(np.zeros(3), cell.ros, cell.now)
    assert decision == Decision(reasons=("command of wrong length",))
    assert cell.gate.state == "armed"
    assert cell.stopped_after(1000, each=cell.observe) == 100


@pytest.mark.parametrize(
    ("shift", "why"), [(-150, "too old"), (+150, "from the future"), (-25, "out of order")]
)
def test_stamps_that_are_wrong_are_refused(cell: Cell, shift: int, why: str) -> None:
    cell.wait(20)
    cell.observe()
    stamp = cell.ros + shift * MS
    assert cell.gate.command(np.zeros(2), stamp, cell.now).reasons == (f"command {why}",)
    position = np.zeros(2)
    cell.wait(1)
    assert not cell.gate.observe(position, cell.ros + (shift - 1) * MS, cell.now)
    assert cell.gate.health.reasons[f"observation {why}"] == 1


def test_a_command_sent_twice_is_sent_twice_and_does_not_feed_the_watchdog(cell: Cell) -> None:
    first = cell.cycle()
    stamp = cell.ros
    for _ in range(3):
        cell.wait(5)
        again = cell.gate.command(np.array([0.1, 0.0]), stamp, cell.now)
        assert again.values is not None
        assert first.values is not None
        assert again.values.tolist() == first.values.tolist()
    assert cell.stopped_after(1000, each=cell.observe) == 90


def test_a_clock_that_jumps_back_resets_what_is_remembered(cell: Cell) -> None:
    """A simulation began anew: its stamps are small, and fresh."""
    cell.ros -= 500 * SECOND
    assert cell.observe()
    cell.wait(20)
    assert cell.observe()
    assert cell.gate.infer(cell.ros, cell.ros, cell.now)
    assert cell.move().values is not None


def test_a_paused_clock_stops_the_robot(cell: Cell) -> None:
    """Stamps stand still, time does not."""
    begin = cell.steady
    while not cell.gate.tick(cell.now).stop:
        cell.steady += 5 * MS
        cell.observe()
        cell.move()
    assert cell.steady - begin <= 105 * MS


def test_observations_of_one_inference_must_belong_together(cell: Cell) -> None:
    cell.wait(5)
    assert not cell.gate.infer(cell.ros - 80 * MS, cell.ros, cell.now)
    assert cell.gate.health.reasons["inference skewed"] == 1
    assert not cell.gate.infer(cell.ros - 180 * MS, cell.ros, cell.now)


def test_what_was_seen_by_a_camera_may_be_older_than_the_robots_position() -> None:
    cell = Cell(inference_max_age=0.3)
    cell.arm()
    seen = cell.ros - 250 * MS
    assert cell.gate.infer(seen, seen + 20 * MS, cell.now)
    cell.wait(100)
    assert not cell.gate.infer(cell.ros - 310 * MS, cell.ros - 290 * MS, cell.now)
    assert cell.gate.health.reasons["inference too old"] == 1
    assert not cell.gate.observe(np.zeros(2), cell.ros - 150 * MS, cell.now)
    assert cell.gate.health.reasons["observation too old"] == 1


def test_reordered_observations_do_not_count_as_fresh() -> None:
    cell = Cell()
    for shift in (0, -20, 5):
        cell.wait(5)
        cell.gate.observe(np.zeros(2), cell.ros + shift * MS, cell.now)
    assert "1 of 3" in cell.gate.arm(cell.now)


# Positions, for joint controllers.


def joints(**changes: object) -> Cell:
    limits = Limits((-1.0,) * 2, (1.0,) * 2, (0.5,) * 2, (5.0,) * 2)
    cell = Cell(limits=limits, positions=True, inference_timeout=0.0, **changes)
    cell.arm()
    return cell


def test_positions_start_where_the_robot_is_however_far_the_first_target() -> None:
    cell = joints()
    last = np.zeros(2)
    for _ in range(200):
        cell.wait(20)
        cell.observe()
        decision = cell.gate.command(np.array([1e9, -3.0]), None, cell.now)
        assert decision.values is not None
        assert (np.abs(decision.values - last) <= 0.5 * 0.1 + 1e-9).all()
        last = decision.values
    assert last.tolist() == pytest.approx([1.0, -1.0], abs=1e-6)


def test_a_smooth_way_of_positions_passes_untouched() -> None:
    cell = joints()
    for i in range(50):
        cell.wait(20)
        cell.observe()
        wanted = 0.2 * np.array([1.0, -1.0]) * (1 - math.cos(i * 0.05))
        decision = cell.gate.command(wanted, None, cell.now)
        assert decision.reasons == ()
        assert decision.values is not None
        assert decision.values.tolist() == wanted.tolist()


def chunk(cell: Cell, start: float, speed: float) -> Decision:
    times = np.arange(1, 6) * 0.02
    positions = np.stack([start + speed * times, np.zeros(5)], axis=1)
    return cell.gate.trajectory(positions, times, None, cell.now)


def test_trajectory_chunks_follow_each_other_untouched() -> None:
    cell = joints()
    x = 0.0
    for speed in (0.05, 0.1, 0.15, 0.1):
        decision = chunk(cell, x, speed)
        assert decision.reasons == ()
        for _ in range(20):
            cell.wait(5)
            cell.observe((x, 0.0))
            assert not cell.gate.tick(cell.now).stop
        x += speed * 0.1


def test_a_trajectory_that_leaps_is_slowed_down() -> None:
    cell = joints()
    decision = chunk(cell, 0.8, 0.0)
    assert "acceleration" in decision.reasons
    assert decision.values is not None
    steps = np.diff(decision.values[:, 0], prepend=0.0)
    assert (np.abs(steps) <= 0.5 * 0.02 + 1e-9).all()
    assert (np.abs(np.diff(steps, prepend=0.0)) <= 5.0 * 0.02**2 + 1e-9).all()


def test_a_way_that_is_too_fast_is_gone_slower_and_in_the_same_direction() -> None:
    cell = Cell(
        limits=Limits((-1.0,) * 2, (1.0,) * 2, (0.5,) * 2, (50.0,) * 2),
        positions=True,
        inference_timeout=0.0,
    )
    cell.arm()
    decision = cell.gate.trajectory(np.array([[0.4, 0.1]]), np.array([0.1]), None, cell.now)
    assert decision.values is not None
    np.testing.assert_allclose(decision.values, [[0.05, 0.0125]], atol=1e-12)
    assert decision.reasons == ("velocity",)


def test_the_watchdog_counts_from_the_end_of_a_chunk() -> None:
    cell = joints()
    chunk(cell, 0.0, 0.1)
    assert cell.stopped_after(1000, each=cell.observe) == 205


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ([0.02, 0.02], "times not increasing"),
        ([-0.1, 0.1], "times not increasing"),
        ([0.1, 5.0], "points too far apart"),
        ([0.02], "command of wrong length"),
        ([math.nan, 0.1], "times not increasing"),
    ],
)
def test_trajectories_without_sense_are_refused(times: list[float], why: str) -> None:
    cell = joints()
    decision = cell.gate.trajectory(np.zeros((2, 2)), np.array(times), None, cell.now)
    assert decision == Decision(reasons=(why,))


def test_a_trajectory_that_is_not_finite_stops_the_robot() -> None:
    cell = joints()
    positions = np.array([[0.0, 0.0], [math.nan, 0.0]])
    assert cell.gate.trajectory(positions, np.array([0.02, 0.04]), None, cell.now).stop


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(-1.7e308), min_size=3, max_size=30),
    st.integers(1, 100),
)
def test_any_positions_stay_within_all_limits(targets: list[float], ms: int) -> None:
    cell = joints()
    last, velocity = 0.0, 0.0
    for target in targets:
        cell.wait(ms)
        cell.observe()
        decision = cell.gate.command(np.array([target, 0.0]), None, cell.now)
        assert decision.values is not None
        dt = min(ms / 1000, 0.1) if last or velocity else None
        moved = decision.values[0]
        assert -1.0 - 1e-9 <= moved <= 1.0 + 1e-9
        if dt is not None:
            speed = (moved - last) / dt
            assert abs(speed) <= 0.5 + 1e-6
            velocity = speed
        last = moved


POSITIVE = st.tuples(*[st.floats(0.1, 5.0)] * 3)
PLACE = st.tuples(*[st.floats(-1.0, 1.0)] * 3)


def together(limits: Limits) -> Cell:
    """A gate of three joints that stand at 0."""
    cell = Cell(limits=limits, positions=True, inference_timeout=0.0)
    for _ in range(3):
        cell.wait(5)
        cell.gate.observe(np.zeros(3), cell.ros, cell.now)
    assert cell.gate.arm(cell.now) == ""
    return cell


def sent(cell: Cell, target: tuple[float, ...], ms: float) -> np.ndarray:
    """What is let through of a position, so long after the last."""
    cell.wait(ms)
    cell.gate.observe(np.zeros(3), cell.ros, cell.now)
    decision = cell.gate.command(np.array(target), None, cell.now)
    assert decision.values is not None
    return decision.values


@settings(max_examples=60, deadline=None)
@given(PLACE, POSITIVE, POSITIVE, st.lists(st.integers(1, 80), min_size=2, max_size=20))
def test_the_way_to_a_far_position_is_straight(
    target: tuple[float, ...],
    velocity: tuple[float, ...],
    acceleration: tuple[float, ...],
    times: list[int],
) -> None:
    """Within 1e-9 rad of the line, whatever the limits: starts, stops, and what is overshot."""
    cell = together(Limits((-20.0,) * 3, (20.0,) * 3, velocity, acceleration))
    goal = np.array(target)
    length = float(np.linalg.norm(goal))
    for ms in [*times, *[20] * 10]:
        place = sent(cell, target, ms)
        along = float(place @ goal) / length if length else 0.0
        off = place - along * goal / length if length else place
        assert np.abs(off).max() < 1e-9


def test_a_far_position_is_reached_and_kept() -> None:
    cell = together(Limits((-20.0,) * 3, (20.0,) * 3, (0.5, 1.0, 2.0), (1.0, 5.0, 2.0)))
    ways = np.array([sent(cell, (0.8, -0.5, 0.1), 20) for _ in range(400)])
    np.testing.assert_allclose(ways[-100:], np.tile((0.8, -0.5, 0.1), (100, 1)), atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(PLACE | st.tuples(*[st.floats(-1e9, 1e9)] * 3), min_size=2, max_size=30),
    POSITIVE,
    POSITIVE,
    st.lists(st.integers(1, 99), min_size=30, max_size=30),
    st.booleans(),
)
def test_joints_together_stay_within_all_limits(
    targets: list[tuple[float, ...]],
    velocity: tuple[float, ...],
    acceleration: tuple[float, ...],
    times: list[int],
    steady: bool,
) -> None:
    cell = together(Limits((-0.5,) * 3, (0.8,) * 3, velocity, acceleration))
    last, speed = np.zeros(3), np.zeros(3)
    for i, (target, ms) in enumerate(zip(targets, times, strict=False)):
        ms = times[0] if steady else ms
        place = sent(cell, target, ms)
        dt = ms / 1000 if i else 0.1
        now = (place - last) / dt
        assert (place >= -0.5).all()
        assert (place <= 0.8).all()
        assert (np.abs(now) <= np.array(velocity) + 1e-6).all()
        # Where times vary, an axis may have to stand still at its end at once.
        at_end = ((place <= -0.5) | (place >= 0.8)) & (not steady)
        bound = np.array(acceleration) * dt + 1e-6
        assert (np.abs(now - speed) <= bound)[~at_end].all()
        last, speed = place, now


def table_way(chain: Chain, rng: np.random.Generator) -> np.ndarray:
    """`(T, 6)` joints of an arm whose tip is led along the table, 50 times a second."""
    pose = np.eye(4)
    pose[:3, :3] = quaternion_rotation([1.0, 0.0, 0.0, 0.0])
    place, joints = np.array([0.35, 0.0]), np.array([0.0, -0.35, -0.95, 0.0, 1.3, 0.0])
    way = []
    for goal in place + np.cumsum(rng.uniform(-0.03, 0.03, (6, 2)), axis=0):
        for share in np.arange(16) / 16:
            pose[:3, 3] = (*(place + share * (goal - place)), 0.004)
            joints = chain.inverse(pose, joints)
            way.append(joints)
        place = goal
    return np.array(way)


def test_setpoints_that_come_late_leave_the_tip_at_its_height() -> None:
    """A busy machine holds some up, and they come all at once; joint by joint it was 1 mm."""
    file = Path(pybullet_data.getDataPath()) / "xarm/xarm6_robot_white.urdf"
    chain = Chain.from_urdf(file, "link_base", "link6", (0.0, 0.0, 0.12))
    limits = Limits(tuple(chain.low), tuple(chain.high), (1.0,) * 6, (50.0,) * 6)
    rng = np.random.default_rng(0)
    way = table_way(chain, rng)
    cell = Cell(limits=limits, positions=True, inference_timeout=0.0, command_timeout=1.0)
    for _ in range(3):
        cell.wait(5)
        cell.gate.observe(way[0], cell.ros, cell.now)
    cell.gate.arm(cell.now)
    late = np.where(rng.random(len(way)) < 0.05, rng.uniform(30, 250, len(way)), 0.0)
    times = np.maximum.accumulate(20.0 * np.arange(len(way)) + late)
    sent = []
    for place, ms in zip(way, np.diff(times, prepend=0.0), strict=True):
        cell.wait(max(ms, 0.1))
        cell.gate.observe(way[0], cell.ros, cell.now)
        decision = cell.gate.command(place, None, cell.now)
        assert decision.values is not None
        sent.append(decision.values)
    assert cell.gate.health.reasons["acceleration"] > 5
    assert np.abs(chain.forward(np.array(sent))[:, 2, 3] - 0.004).max() < 0.0001


def test_a_trajectory_sent_twice_is_sent_twice() -> None:
    """A simulator that waits has asked again, because an answer was lost."""
    cell = joints()
    for _ in range(2):
        decision = cell.gate.trajectory(np.zeros((1, 2)), np.array([0.1]), cell.ros, cell.now)
        assert decision.values is not None
        assert decision.reasons == ()
    assert cell.gate.health.passed == 1
    late = cell.gate.trajectory(np.zeros((1, 2)), np.array([0.1]), cell.ros - 1, cell.now)
    assert late.reasons == ("command out of order",)


def test_positions_begin_anew_where_a_simulator_has_put_the_robot() -> None:
    for way in ("chunks", "single"):
        cell = joints()
        chunk(cell, 0.0, 0.1)
        cell.wait(150)
        cell.observe((-0.7, 0.0))
        cell.gate.forget()
        if way == "chunks":
            assert chunk(cell, -0.7, 0.05).reasons == ()
        else:
            decision = cell.gate.command(np.array([-0.699, 0.0]), None, cell.now)
            assert decision.reasons == ()


@pytest.mark.parametrize(
    "change",
    [
        {"command_timeout": 0.0},
        {"command_timeout": math.nan},
        {"max_age": 0.0},
        {"inference_max_age": -1.0},
        {"max_skew": -1.0},
        {"rearm": "sometimes"},
        {"fresh": 0},
    ],
)
def test_settings_that_would_never_stop_or_never_move_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=r"must be|at least|positive"):
        GateConfig(limits=LIMITS, **change)
