"""Pushing: experts, success, primitives, both arms, perturbations."""

from typing import Any

import numpy as np
import pytest

from envs.fields import slices
from envs.tabletop.base import MAX_LEAD
from envs.tabletop.perturbation import (
    HOLD_STEPS,
    NOMINAL,
    QUIET,
    draw_disturbance,
    draw_variation,
)
from envs.tabletop.push import BlockPushEnv, BlockPushMultimodalEnv
from envs.tabletop.scene import WORK_HEIGHT, Scene

TASKS = (BlockPushEnv, BlockPushMultimodalEnv)


def play(env: BlockPushEnv, mode: str, seed: int) -> tuple[bool, int]:
    """One expert episode on a training seed: success and steps."""
    obs, info = env.reset(seed=seed, options={"stream": "train"})
    expert = env.expert(mode, seed=seed)  # type: ignore[arg-type]
    for step in range(1, 300):
        obs, _, terminated, truncated, info = env.step(expert.act(obs, info))
        if terminated or truncated:
            return bool(info["success"]), step
    raise AssertionError("the episode did not end")


@pytest.mark.parametrize("control", ["delta", "push"])
@pytest.mark.parametrize("mode", ["consistent", "diverse"])
@pytest.mark.parametrize("task", TASKS)
def test_experts_push_every_block_home(task: type[BlockPushEnv], mode: str, control: Any) -> None:
    env = task(control=control)
    assert sum(play(env, mode, seed)[0] for seed in range(8)) >= 7
    env.close()


@pytest.mark.parametrize("control", ["delta", "push"])
def test_the_full_arm_pushes_as_well(control: Any) -> None:
    env = BlockPushEnv(arm="xarm6", control=control)
    assert all(play(env, "consistent", seed)[0] for seed in range(4))
    env.close()


def test_diverse_experts_take_different_ways() -> None:
    env = BlockPushEnv()
    first = []
    for seed in range(6):
        obs, info = env.reset(seed=0)
        expert = env.expert("diverse", seed=seed)
        for _ in range(12):
            obs, _, _, _, info = env.step(expert.act(obs, info))
        first.append(tuple(np.round(obs[:2], 3)))
    assert len(set(first)) >= 2
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_success_is_being_within_the_tolerance(task: type[BlockPushEnv]) -> None:
    env = task()
    env.reset(seed=0)
    for i, (body, zone) in enumerate(zip(env.scene.blocks, env.zones, strict=True)):
        # Crosswise: any block may go to any zone.
        zone = env.zones[(i + 1) % env.n_pairs]
        env.scene.place(body, np.add(zone, (0.9 * env.tolerance, 0.0)), 0.3, 0.015)
    _, reward, terminated, _, info = env.step(np.zeros(2, np.float32))
    assert terminated
    assert info["success"]
    assert info["score"] == 1.0
    assert reward > 1.0
    env.reset(seed=0)
    for body, zone in zip(env.scene.blocks, env.zones, strict=True):
        env.scene.place(body, np.add(zone, (1.2 * env.tolerance, 0.0)), 0.3, 0.015)
    assert not env.step(np.zeros(2, np.float32))[4]["success"]
    env.close()


def test_two_blocks_in_one_zone_are_not_a_success() -> None:
    env = BlockPushMultimodalEnv()
    env.reset(seed=0)
    for body, shift in zip(env.scene.blocks, (-0.021, 0.021), strict=True):
        env.scene.place(body, env.zones[0] + [shift, 0.0], 0.0, 0.015)
    info = env.step(np.zeros(2, np.float32))[4]
    assert not info["success"]
    assert info["score"] == 0.5
    env.close()


def test_the_state_is_what_its_fields_say() -> None:
    env = BlockPushEnv()
    obs, _ = env.reset(seed=3)
    assert isinstance(obs, np.ndarray)
    where = slices(env.state_fields)
    x, y, yaw = env.scene.pose(env.scene.blocks[0])
    assert np.allclose(obs[where["block_xy"]], [x, y], atol=1e-6)
    assert np.allclose(obs[where["block_yaw4"]], [np.cos(4 * yaw), np.sin(4 * yaw)], atol=1e-5)
    assert np.allclose(obs[where["zone_xy"]], env.zones[0], atol=1e-6)
    assert np.allclose(obs[where["target_xy"]], env.start_xy)
    env.close()


@pytest.mark.parametrize("arm", ["cylinder", "xarm6"])
def test_the_measured_effector_follows_the_command(arm: Any) -> None:
    env = BlockPushEnv(arm=arm)
    env.reset(seed=0)
    for step in range(12):
        angle = 0.5 * step
        env.step((0.012 * np.array([np.cos(angle), np.sin(angle)])).astype(np.float32))
        assert np.hypot(*(env.scene.tip()[:2] - env.target)) < 0.006
        assert abs(env.scene.tip()[2] - WORK_HEIGHT) < 0.003
    env.close()


def test_the_command_never_runs_away_from_a_finger_that_is_stuck() -> None:
    env = BlockPushEnv()
    env.reset(seed=0)
    for _ in range(30):
        env.step(np.array([0.03, 0.03], np.float32))
        assert np.abs(env.target - env.scene.tip()[:2]).max() <= MAX_LEAD + 1e-6
    env.close()


def test_an_empty_push_moves_nothing() -> None:
    env = BlockPushEnv(control="push")
    before, _ = env.reset(seed=0)
    after, *_ = env.step(np.array([0.4, 0.0, 0.0, 0.0], np.float32))
    assert np.allclose(before, after, atol=1e-4)
    env.close()


def test_frames_inside_a_push_are_called_for() -> None:
    env = BlockPushEnv(control="push")
    env.reset(seed=0)
    ticks = []
    env.on_control_step = lambda: ticks.append(env.scene.tip()[2])
    env.step(np.array([0.3, 0.2, 0.1, 0.0], np.float32))
    assert len(ticks) >= 8
    assert min(ticks) < 0.01 < 0.05 < max(ticks)
    env.close()


def test_variations_grow_with_their_level_and_are_nominal_at_zero() -> None:
    assert draw_variation(0.0, np.random.default_rng(0)) == NOMINAL
    for level in (0.2, 1.0):
        for seed in range(50):
            drawn = draw_variation(level, np.random.default_rng(seed))
            assert abs(drawn.friction - 1) <= 0.5 * level
            assert 2**-level <= drawn.mass <= 2**level
            assert max(map(abs, drawn.camera_offset)) <= 0.015 * level
            assert drawn.action_delay in (0, 1)
            assert 0 <= drawn.observation_noise <= 0.0015 * level


def test_disturbances_come_at_their_rate() -> None:
    rng = np.random.default_rng(0)
    assert draw_disturbance(0.0, 1, rng) is QUIET
    drawn = [draw_disturbance(0.1, 2, rng) for _ in range(4000)]
    events = [event for event in drawn if event is not QUIET]
    assert 0.08 < len(events) / len(drawn) < 0.12
    holds = [event.hold_steps for event in events if event.shove_block < 0]
    assert 0.4 < len(holds) / len(events) < 0.6
    assert set(holds) == set(range(HOLD_STEPS[0], HOLD_STEPS[1] + 1))


def test_a_hold_keeps_the_finger_where_it_is() -> None:
    env = BlockPushEnv(disturb=1.0)
    env.reset(seed=0)
    held = 0
    for _ in range(30):
        before = env.target.copy()
        env.step(np.array([0.01, 0.0], np.float32))
        held += bool(np.allclose(env.target, before, atol=1e-9))
    assert held >= 10
    env.close()


def test_an_action_delay_of_one_step_shifts_the_motion() -> None:
    for seed in range(40):
        env = BlockPushEnv(randomize=1.0)
        env.reset(seed=seed)
        delay = env.variation.action_delay
        env.step(np.array([0.02, 0.0], np.float32))
        moved = env.target[0] - env.start_xy[0]
        env.close()
        assert moved == pytest.approx(0.02 * (1 - delay), abs=1e-4)
        if delay:
            return
    raise AssertionError("forty draws without a delay")


def test_a_scene_names_the_arms_it_knows() -> None:
    with pytest.raises(ValueError, match=r"cylinder.*xarm6.*got 'ur5'"):
        Scene("ur5")
