"""Insertion: the slot's physics, what counts as inserted, and the scripted experts."""

import hashlib
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.experts import cases, measure
from envs.fields import slices
from envs.tabletop.effectors import RADIUS
from envs.tabletop.insertion import (
    CHAMFER,
    DEPTH,
    HOLD_STEPS,
    INSERTED,
    WALL,
    WALL_HEIGHT,
    BlockInsertionEnv,
    in_slot_frame,
    slot_boxes,
)
from envs.tabletop.insertion_primitives import RUN_UP, predict_pushes
from envs.tabletop.push import BLOCK, HALF
from envs.tabletop.scene import SUBSTEPS, WORK_HEIGHT, WORKSPACE_HIGH

Make = Callable[..., BlockInsertionEnv]
CONTACT = HALF + RADIUS
CLEAR = "clearance=1.0"


@pytest.fixture(scope="module")
def make() -> Iterator[Make]:
    """Environments by options, built once for the module."""
    built: dict[tuple[Any, ...], BlockInsertionEnv] = {}

    def get(**options: Any) -> BlockInsertionEnv:
        key = tuple(sorted(options.items()))
        if key not in built:
            built[key] = BlockInsertionEnv(**options)
        return built[key]

    yield get
    for env in built.values():
        env.close()


def to_world(env: BlockInsertionEnv, depth: float, offset: float, slot: int = 0) -> np.ndarray:
    x, y, heading = env.slot_poses[slot]
    cos, sin = math.cos(heading), math.sin(heading)
    return np.array([x + cos * depth - sin * offset, y + sin * depth + cos * offset])


def put_block(
    env: BlockInsertionEnv, depth: float, offset: float = 0.0, yaw: float = 0.0, slot: int = 0
) -> None:
    body = env.scene.blocks[0]
    # Bullet keeps contacts of a body that is put back where it has been: part them first.
    env.scene.place(body, (0.0, 0.0), 0.0, 3.0)
    env.scene.client.performCollisionDetection()
    env.scene.place(
        body,
        to_world(env, depth, offset, slot).tolist(),
        env.slot_poses[slot][2] + yaw,
        BLOCK[2],
    )


def drive(env: BlockInsertionEnv, points: list[tuple[float, float]], speed: float) -> None:
    """Set the finger down at the first point of slot 0's frame and move it on to the others."""
    here = to_world(env, *points[0])
    env.scene.effector.home(np.array([*here, WORK_HEIGHT]))
    for point in points[1:]:
        goal = to_world(env, *point)
        periods = max(1, math.ceil(float(np.linalg.norm(goal - here)) / speed * 10))
        for i in range(1, periods + 1):
            at = here + (goal - here) * i / periods
            env.scene.effector.command(np.array([*at, WORK_HEIGHT]), SUBSTEPS)
            env.scene.step()
        here = goal


def wait(env: BlockInsertionEnv, steps: int) -> list[bool]:
    return [env.step(np.zeros(2, np.float32))[4]["success"] for _ in range(steps)]


# The slot.


def test_slot_is_wider_than_the_block_by_twice_the_clearance() -> None:
    boxes = slot_boxes(0.001)
    walls = [box for box in boxes[1:] if box.yaw == 0.0 and box.half[0] > 0.01]
    gap = min(b.center[1] - b.half[1] for b in walls if b.center[1] > 0) - max(
        b.center[1] + b.half[1] for b in walls if b.center[1] < 0
    )
    assert gap == pytest.approx(2 * HALF + 0.002)
    back = boxes[0]
    assert back.center[0] - back.half[0] == pytest.approx(DEPTH)


def test_chamfer_leaves_a_mouth_wider_by_its_length_on_each_side() -> None:
    lips = [box for box in slot_boxes(0.001)[1:] if box.yaw == 0.0 and box.half[0] < 0.01]
    assert len(lips) == 2
    for lip in lips:
        assert abs(lip.center[1]) - lip.half[1] == pytest.approx(HALF + 0.001 + CHAMFER)
        assert lip.center[0] - lip.half[0] == pytest.approx(0.0)


@pytest.mark.parametrize("clearance", [0.5, 1.0, 2.5])
def test_a_straight_block_slides_in_to_the_back_wall(make: Make, clearance: float) -> None:
    env = make(clearance=clearance)
    env.reset(seed=0)
    put_block(env, -0.03)
    end = INSERTED - CONTACT
    drive(env, [(-0.03 - CONTACT - 0.003, 0.0), (end, 0.0)], speed=0.06)
    depth, offset, yaw = env.block_in_slot(0)
    assert depth == pytest.approx(INSERTED, abs=0.001)
    assert abs(offset) < clearance / 1000 + 0.0003
    assert abs(yaw) < math.radians(1 + 3 * clearance)


@pytest.mark.parametrize("clearance", [0.5, 1.0])
def test_a_block_turned_by_ten_degrees_does_not_fit(make: Make, clearance: float) -> None:
    env = make(clearance=clearance)
    env.reset(seed=0)
    # Turned, it is wider than the slot: cos 10 + sin 10 times 40 mm is 46.3 mm.
    assert 2 * HALF * (math.cos(0.1745) + math.sin(0.1745)) > 2 * HALF + 2 * clearance / 1000
    body = env.scene.blocks[0]
    env.scene.client.resetBaseVelocity(body, [0, 0, 0], [0, 0, 0])
    put_block(env, INSERTED, yaw=math.radians(10))
    env.scene.client.performCollisionDetection()
    contacts = env.scene.client.getContactPoints(body, env._slot_bodies[0])
    assert min(contact[8] for contact in contacts) < -0.0005


def test_a_straight_block_in_the_slot_touches_no_side_wall(make: Make) -> None:
    env = make(clearance=0.5)
    env.reset(seed=0)
    put_block(env, INSERTED - 0.001)
    env.scene.client.performCollisionDetection()
    contacts = env.scene.client.getContactPoints(env.scene.blocks[0], env._slot_bodies[0])
    assert all(contact[8] > -1e-4 for contact in contacts)


@pytest.mark.parametrize("side", ["left", "right", "back"])
def test_no_shove_through_a_wall_gets_the_block_in(make: Make, side: str) -> None:
    env = make()
    for seed in (0, 1):
        env.reset(seed=seed)
        inner = HALF + env.clearance
        away = inner + WALL + HALF + 0.001
        if side == "back":
            put_block(env, DEPTH + WALL + HALF + 0.001)
            way = [(DEPTH + WALL + 2 * HALF + RADIUS + 0.02, 0.0), (INSERTED + CONTACT, 0.0)]
        else:
            sign = 1.0 if side == "left" else -1.0
            put_block(env, INSERTED, sign * away)
            way = [(INSERTED, sign * (away + CONTACT + 0.02)), (INSERTED, sign * CONTACT)]
        drive(env, way, speed=0.3)
        assert not env.is_inserted()
        env.scene.step(3 * SUBSTEPS)
        assert not env.is_inserted()


def test_a_block_flung_at_the_wall_stays_outside(make: Make) -> None:
    env = make()
    env.reset(seed=0)
    put_block(env, INSERTED, HALF + WALL + HALF + 0.03)
    inward = to_world(env, 0.0, -1.0) - to_world(env, 0.0, 0.0)
    env.scene.client.resetBaseVelocity(env.scene.blocks[0], [*(3.0 * inward), 0.0])
    for _ in range(10):
        env.scene.step()
        assert not env.is_inserted()


def test_walls_are_lower_than_the_block_and_out_of_the_lifted_fingers_way() -> None:
    assert max(box.center[2] + box.half[2] for box in slot_boxes(0.001)) == WALL_HEIGHT
    assert 2 * BLOCK[2] > WALL_HEIGHT


# What counts.


def test_a_block_placed_inside_counts_after_it_has_stayed_three_steps(make: Make) -> None:
    env = make()
    _, info = env.reset(seed=0)
    assert info == {"success": False, "score": 0.0}
    put_block(env, INSERTED)
    assert wait(env, HOLD_STEPS) == [False, False, True]
    assert env._info()["score"] == 1.0


def test_leaving_the_slot_starts_the_count_again(make: Make) -> None:
    env = make()
    env.reset(seed=0)
    put_block(env, INSERTED)
    assert wait(env, 2) == [False, False]
    put_block(env, -0.1)
    assert wait(env, 1) == [False]
    put_block(env, INSERTED)
    assert wait(env, 3) == [False, False, True]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_any_quarter_turn_of_the_block_counts(make: Make, turns: int) -> None:
    env = make()
    env.reset(seed=0)
    put_block(env, INSERTED, yaw=turns * math.pi / 2)
    assert wait(env, HOLD_STEPS)[-1]


def test_four_millimetres_and_five_degrees_are_the_limits(make: Make) -> None:
    env = make(clearance=5.0)
    env.reset(seed=0)
    for depth, yaw, inside in (
        (INSERTED - 0.0035, 0.0, True),
        (INSERTED - 0.0045, 0.0, False),
        (INSERTED, math.radians(4.5), True),
        (INSERTED, math.radians(5.5), False),
        (INSERTED, math.radians(-5.5), False),
    ):
        put_block(env, depth, yaw=yaw)
        assert env.is_inserted() is inside, (depth, yaw)


def test_a_lifted_or_tilted_block_does_not_count(make: Make) -> None:
    env = make()
    env.reset(seed=0)
    client, body = env.scene.client, env.scene.blocks[0]
    put_block(env, INSERTED)
    xy = to_world(env, INSERTED, 0.0)
    flat = client.getBasePositionAndOrientation(body)[1]
    assert env.is_inserted()
    client.resetBasePositionAndOrientation(body, [*xy, BLOCK[2] + WALL_HEIGHT], flat)
    assert not env.is_inserted()
    _, tilted = client.multiplyTransforms(
        [0, 0, 0], flat, [0, 0, 0], client.getQuaternionFromEuler([0.2, 0, 0])
    )
    client.resetBasePositionAndOrientation(body, [*xy, BLOCK[2]], tilted)
    assert not env.is_inserted()


def test_more_than_half_in_scores_half(make: Make) -> None:
    env = make()
    env.reset(seed=0)
    scores = []
    for depth in (-0.01, 0.005, 0.015):
        put_block(env, depth)
        scores.append(env._measure().score)
    assert scores == [0.0, 0.5, 0.5]
    put_block(env, 0.01, HALF + WALL + HALF + 0.01)  # beside the slot
    assert env._measure().score == 0.0


def test_distance_is_to_the_nearest_slots_inserted_position(make: Make) -> None:
    env = make(slots=2)
    env.reset(seed=0)
    for slot in (0, 1):
        put_block(env, INSERTED - 0.05, slot=slot)
        assert env._measure().distance == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("slot", [0, 1])
def test_either_of_two_slots_counts(make: Make, slot: int) -> None:
    env = make(slots=2)
    env.reset(seed=3)
    put_block(env, INSERTED, slot=slot)
    assert wait(env, HOLD_STEPS)[-1]


def test_a_push_that_inserts_succeeds_only_once_the_world_rests(make: Make) -> None:
    env = make(control="push")
    env.reset(seed=0)
    put_block(env, -0.028)
    start = to_world(env, -0.028 - CONTACT - 0.01, 0.0)
    end = to_world(env, INSERTED - CONTACT, 0.0)
    states: list[bool] = []
    env.on_control_step = lambda: states.append(env.is_inserted())
    action = np.concatenate([start, end - start]).astype(np.float32)
    _, _, terminated, _, info = env.step(action)
    env.on_control_step = None
    assert terminated
    assert info["success"]
    assert states[-HOLD_STEPS:] == [True] * HOLD_STEPS
    assert env.scene.tip()[2] > 0.06


def test_an_inserted_block_pulled_out_within_the_same_push_does_not_count(make: Make) -> None:
    env = make(control="push")
    env.reset(seed=0)
    put_block(env, -0.028)
    start = to_world(env, -0.028 - CONTACT - 0.01, 0.0)
    end = to_world(env, INSERTED - CONTACT, 0.0)
    count = 0

    def snatch() -> None:
        nonlocal count
        count += env.is_inserted()
        if count == 2:
            put_block(env, -0.1)

    env.on_control_step = snatch
    info = env.step(np.concatenate([start, end - start]).astype(np.float32))[4]
    env.on_control_step = None
    assert count >= 2
    assert not info["success"]


# State and layout.


def test_state_names_the_slots_so_that_either_can_be_a_frame(make: Make) -> None:
    env = make()
    names = [field.name for field in env.state_fields]
    assert names == [
        "target_xy",
        "effector_xy",
        "block_xy",
        "block_yaw4",
        "slot1_xy",
        "slot1_heading",
        "slot2_xy",
        "slot2_heading",
    ]
    kinds = {field.name: field.kind for field in env.state_fields}
    assert kinds["slot1_xy"] == "point"
    assert kinds["slot1_heading"] == "heading"


def test_one_and_two_slots_share_one_layout(make: Make) -> None:
    one, two = make(), make(slots=2)
    assert one.state_fields == two.state_fields
    at = slices(one.state_fields)
    state, _ = one.reset(seed=5)
    assert isinstance(state, np.ndarray)
    np.testing.assert_array_equal(state[at["slot1_xy"]], state[at["slot2_xy"]])
    np.testing.assert_array_equal(state[at["slot1_heading"]], state[at["slot2_heading"]])
    state, _ = two.reset(seed=5)
    assert isinstance(state, np.ndarray)
    # A rigid pair: mouths 380 mm apart, opening towards each other.
    gap = state[at["slot1_xy"]] - state[at["slot2_xy"]]
    assert np.linalg.norm(gap) == pytest.approx(0.38, abs=1e-5)
    np.testing.assert_allclose(state[at["slot1_heading"]], -state[at["slot2_heading"]], atol=1e-6)
    np.testing.assert_allclose(state[at["slot1_heading"]], gap / 0.38, atol=1e-5)


def test_state_holds_the_blocks_pose(make: Make) -> None:
    env = make()
    env.reset(seed=1)
    env.scene.place(env.scene.blocks[0], (0.4, 0.1), 0.3, BLOCK[2])
    state, at = env._state(), slices(env.state_fields)
    np.testing.assert_allclose(state[at["block_xy"]], [0.4, 0.1], atol=1e-6)
    np.testing.assert_allclose(state[at["block_yaw4"]], [math.cos(1.2), math.sin(1.2)], atol=1e-6)


def test_the_slots_frame_has_its_origin_at_the_mouth_and_x_inwards() -> None:
    slot = np.array([0.5, 0.1, math.pi / 2])
    depth, offset, yaw = in_slot_frame((0.48, 0.13, math.pi / 2 + 0.1 + math.pi), slot)
    assert (depth, offset, yaw) == pytest.approx((0.03, 0.02, 0.1))


@pytest.mark.parametrize("slots", [1, 2])
def test_every_start_is_reachable_and_free(make: Make, slots: int) -> None:
    env = make(slots=slots)
    for seed in range(60):
        _, info = env.reset(seed=seed)
        assert not info["success"]
        x, y, _ = env.scene.pose(env.scene.blocks[0])
        # The effector never stands on the block, and the block on no wall.
        assert math.hypot(x - 0.25, y) > HALF * math.sqrt(2) + RADIUS
        assert all(env.block_in_slot(i)[0] < -0.06 for i in range(slots))
        for slot in range(slots):
            assert (np.abs(to_world(env, DEPTH, 0.0, slot)) < WORKSPACE_HIGH).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clearance": 0.1}, "clearance must be 0.2 to 5.0 mm"),
        ({"clearance": math.nan}, "clearance must be"),
        ({"slots": 3}, "slots must be 1 or 2"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlockInsertionEnv(**options)


# Experts.


def test_the_model_of_pushing_agrees_with_the_simulator(make: Make) -> None:
    env = make()
    env.reset(seed=0)
    env.slot_poses = np.array([[0.52, 0.0, 0.0]])  # the frame; the walls stay where they are
    for across, tilt in ((0.0, 0.0), (0.006, 0.0), (-0.006, 0.1)):
        pushes = predict_pushes((-0.2, 0.0, 0.0), np.array([0.0]), np.array([tilt]))
        index = int(np.argmin(np.abs(np.linspace(-0.012, 0.012, len(pushes.start)) - across)))
        step = int(np.argmin(np.abs(pushes.travel - 0.04 - RUN_UP)))
        start = pushes.start[index]
        end = start + pushes.travel[step] * pushes.direction[index]
        env.scene.place(env.scene.blocks[0], (0.32, 0.0), 0.0, BLOCK[2])
        drive(env, [tuple(start), tuple(end)], speed=0.15)
        x, y, yaw = env.block_in_slot(0)
        np.testing.assert_allclose([x, y], pushes.poses[index, step, :2], atol=0.004)
        assert abs(yaw - pushes.poses[index, step, 2]) < 0.15


def play(env: BlockInsertionEnv, seed: int, mode: str) -> tuple[bool, int, str]:
    """Success, steps and a digest of the observations, on the stream experts were tuned on."""
    obs, info = env.reset(seed=seed, options={"stream": "train"})
    expert = env.expert(mode, seed)  # type: ignore[arg-type]
    digest, steps, over = hashlib.sha256(), 0, False
    while not over:
        action = expert.act(obs, info)
        assert action.dtype == np.float32
        assert env.action_space.contains(action)
        obs, _, terminated, truncated, info = env.step(action)
        assert isinstance(obs, np.ndarray)
        digest.update(obs.tobytes())
        steps, over = steps + 1, terminated or truncated
    return info["success"], steps, digest.hexdigest()


@pytest.mark.parametrize("mode", ["consistent", "diverse"])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("control", ["delta", "push"])
def test_the_expert_inserts(make: Make, control: str, slots: int, mode: str) -> None:
    env = make(control=control, slots=slots)
    results = [play(env, seed, mode) for seed in range(10)]
    assert sum(success for success, _, _ in results) >= 9
    assert np.median([steps for _, steps, _ in results]) < (70 if control == "delta" else 13)


def test_the_expert_on_the_arm_inserts(make: Make) -> None:
    env = make(arm="xarm6", clearance=0.5)
    assert sum(play(env, seed, "diverse")[0] for seed in range(5)) >= 4


def test_consistent_experts_take_the_nearest_slot_and_diverse_ones_both(make: Make) -> None:
    env = make(slots=2)
    env.reset(seed=0)
    put_block(env, -0.15, slot=1)
    assert env.expert("consistent")._style.slot == 1
    assert {env.expert("diverse", seed)._style.slot for seed in range(10)} == {0, 1}


def test_an_unknown_mode_is_refused(make: Make) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="mode must be 'consistent' or 'diverse'"):
        env.expert("bold")  # type: ignore[arg-type]


@pytest.mark.parametrize("control", ["delta", "push"])
def test_an_episode_repeats_bit_for_bit_in_a_new_process(make: Make, control: str) -> None:
    env = make(control=control, slots=2)
    play(env, 8, "diverse")  # what came before must not matter
    here = play(env, 7, "diverse")[2]
    program = (
        "from test_insertion import play, BlockInsertionEnv;"
        f"print(play(BlockInsertionEnv(control={control!r}, slots=2), 7, 'diverse')[2])"
    )
    paths = f"import sys; sys.path[:0] = {[*sys.path, 'tests']!r};"
    done = subprocess.run(
        [sys.executable, "-c", paths + program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == here


def test_the_benchmark_of_experts_covers_every_form_and_filters_by_words() -> None:
    every = cases()
    assert len({case.name for case in every}) == len(every)
    assert {case.options["arm"] for case in every} == {"cylinder", "xarm6"}
    chosen = cases(["insertion", "push", "slots=2", "clearance=0.5"])
    assert len(chosen) == 4  # two arms, two modes
    assert all(case.options["control"] == "push" for case in chosen)
    assert cases(["insertion", "slots=7"]) == []


def test_the_benchmark_measures_success_with_its_interval() -> None:
    (row,) = measure(
        cases(["insertion", "cylinder", "delta", "diverse", "slots=1", CLEAR])[:1], 2, 1
    )
    assert row["episodes"] == 2
    assert row["success_ci95"][0] <= row["success_rate"] <= row["success_ci95"][1]
    assert row["steps_median"] > 10
    assert len(row["failed_seeds"]) == 2 - round(2 * row["success_rate"])
