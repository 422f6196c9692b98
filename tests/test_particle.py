"""The particle: its physics, its success test, its expert."""

import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs.fields import slices
from envs.particle import ParticleEnv

envs.register_envs()


def run_expert(env: ParticleEnv, seed: int, mode: Any) -> dict[str, Any]:
    obs, info = env.reset(seed=seed)
    expert = env.expert(mode, seed)
    truncated = False
    while not truncated:
        obs, _, _, truncated, info = env.step(expert.act(obs, info))
    return info


def put(env: ParticleEnv, position: list[float], goals: list[list[float]]) -> None:
    """Begin an episode at a chosen layout."""
    env.reset(seed=0)
    env._position, env._goals = np.array(position), np.array(goals)
    env._velocity = np.zeros(env.n_dims)
    env._nearest = env._distances()


def test_one_control_step_matches_the_recurrence_solved_by_hand() -> None:
    # With e = x - a, (e, v) is multiplied by M = [[1, h], [-10 h, 1 - 5 h]] ten times.
    env = ParticleEnv(n_dims=1)
    put(env, [0.2], [[0.0], [1.0]])
    obs, *_ = env.step(np.array([1.0], np.float32))
    h = 0.005
    e, v = np.linalg.matrix_power([[1, h], [-10 * h, 1 - 5 * h]], 10) @ [0.2 - 1.0, 0.0]
    np.testing.assert_allclose(obs[:2], [1 + e, v], rtol=1e-6)


def test_position_moves_with_the_old_velocity() -> None:
    # Explicit Euler from rest: after one substep v = 10 h (a - x) and x has not moved yet.
    env = ParticleEnv(n_dims=1)
    put(env, [0.0], [[0.0], [1.0]])
    env.step(np.array([1.0], np.float32))
    h, x, v = 0.005, 0.0, 0.0
    for _ in range(10):
        x, v = x + h * v, v + h * (10 * (1 - x) - 5 * v)
    assert env._position[0] == pytest.approx(x, abs=1e-12)
    assert x < 0.5 * 10 * 0.05**2  # slower than the free acceleration


def test_dimensions_do_not_mix() -> None:
    wide, narrow = ParticleEnv(n_dims=3), ParticleEnv(n_dims=1)
    put(wide, [0.1, 0.5, 0.9], [[0.0] * 3, [1.0] * 3])
    put(narrow, [0.5], [[0.0], [1.0]])
    for action in (0.9, 0.2):
        wide.step(np.array([0.0, action, 1.0], np.float32))
        narrow.step(np.array([action], np.float32))
    assert wide._position[1] == narrow._position[0]


@pytest.mark.parametrize("n_dims", [1, 2, 16])
@pytest.mark.parametrize("goal_order", ["fixed", "any"])
@pytest.mark.parametrize("mode", ["consistent", "diverse"])
def test_expert_succeeds_on_every_seed(n_dims: int, goal_order: Any, mode: str) -> None:
    env = ParticleEnv(n_dims=n_dims, goal_order=goal_order)
    results = [run_expert(env, seed, mode)["success"] for seed in range(25)]
    assert all(results)


def test_consistent_expert_ignores_its_seed_and_diverse_takes_both_orders() -> None:
    env = ParticleEnv(goal_order="any")
    obs, info = env.reset(seed=5)
    first = [env.expert("diverse", seed).act(obs, info).tolist() for seed in range(20)]
    assert len({tuple(goal) for goal in first}) == 2
    assert len({tuple(env.expert("consistent", seed).act(obs, info)) for seed in range(5)}) == 1
    fixed = ParticleEnv(goal_order="fixed")
    obs, info = fixed.reset(seed=5)
    assert {tuple(fixed.expert("diverse", s).act(obs, info)) for s in range(20)} == {
        tuple(obs[4:6])
    }


def test_expert_waits_at_the_first_goal_as_long_as_told() -> None:
    env = ParticleEnv()
    env.reset(seed=1)
    at_goal = np.concatenate([env._goals[0], [0, 0], *env._goals]).astype(np.float32)
    expert = env.expert(wait=3)
    targets = [expert.act(at_goal, {}) for _ in range(5)]
    waited = [np.array_equal(target, at_goal[4:6]) for target in targets]
    assert waited == [True, True, True, False, False]


def test_success_needs_both_goals_and_the_second_at_the_end() -> None:
    env = ParticleEnv(n_dims=1)
    put(env, [0.5], [[0.5], [0.52]])
    hold, away = np.array([0.51], np.float32), np.array([0.9], np.float32)
    *_, info = env.step(hold)
    assert info == {"success": True, "score": 1.0}
    for _ in range(20):
        *_, info = env.step(away)
    assert info == {"success": False, "score": 0.5}


def test_second_goal_alone_is_nothing_unless_any_order_counts() -> None:
    for order, score in (("fixed", 0.0), ("any", 0.5)):
        env = ParticleEnv(n_dims=1, goal_order=order)
        put(env, [0.9], [[0.1], [0.9]])
        *_, info = env.step(np.array([0.9], np.float32))
        assert info == {"success": False, "score": score}


def test_any_order_accepts_an_end_at_the_first_goal_and_fixed_does_not() -> None:
    for order, success in (("fixed", False), ("any", True)):
        env = ParticleEnv(n_dims=1, goal_order=order)
        put(env, [0.7], [[0.4], [0.7]])
        for _ in range(40):
            *_, info = env.step(np.array([0.4], np.float32))
        assert info["success"] is success


def test_episode_ends_after_fifty_steps_or_as_told() -> None:
    def length(env: gymnasium.Env) -> int:
        env.reset(seed=0)
        for count in range(1, 200):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            assert not terminated
            if truncated:
                return count
        raise AssertionError("the episode never ended")

    assert length(gymnasium.make("decisive/Particle-v0")) == 50
    assert length(gymnasium.make("decisive/Particle-v0", max_episode_steps=20)) == 20
    longer = gymnasium.make("decisive/Particle-v0", max_episode_steps=120)
    assert length(longer) == 120
    assert longer.spec is not None
    assert length(gymnasium.make(longer.spec)) == 120
    assert length(ParticleEnv(max_episode_steps=7)) == 7


def test_same_seed_and_actions_repeat_bit_for_bit_in_a_new_process() -> None:
    code = (
        "import numpy as np; from envs.particle import ParticleEnv\n"
        "env = ParticleEnv(n_dims=4); env.reset(seed=11); rng = np.random.default_rng(2)\n"
        "print(b''.join(env.step(rng.random(4))[0].tobytes() for _ in range(50)).hex())"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(runs[0]) > 50 * 16 * 4


def test_streams_give_other_episodes_and_evaluate_is_the_bare_seed() -> None:
    env = ParticleEnv()
    bare, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3, options={"stream": "evaluate"})
    recorded, _ = env.reset(seed=3, options={"stream": "record"})
    np.testing.assert_array_equal(bare, again)
    assert not np.any(bare[4:] == recorded[4:])


def test_unseeded_resets_go_on_with_the_generator() -> None:
    env = ParticleEnv()
    first, _ = env.reset(seed=3)
    second, _ = env.reset()
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("options", [{}, {"hide_velocity": True}, {"n_dims": 7}])
def test_gymnasium_finds_nothing_to_warn_about(options: dict[str, Any]) -> None:
    env = gymnasium.make("decisive/Particle-v0", render_mode="rgb_array", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space.shape == (sum(f.size for f in env.unwrapped.state_fields),)


def test_fields_say_where_everything_is() -> None:
    env = ParticleEnv(n_dims=3, hide_velocity=True)
    obs, _ = env.reset(seed=0)
    where = slices(env.state_fields)
    assert list(where) == ["agent_position", "first_goal", "second_goal"]
    np.testing.assert_allclose(obs[where["second_goal"]], env._goals[1], rtol=1e-6)
    np.testing.assert_allclose(obs[where["agent_position"]], env._position, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.booleans(), min_size=50, max_size=50))
def test_no_driving_leaves_the_observation_space(seed: int, pushes: list[bool]) -> None:
    env = ParticleEnv(n_dims=1)
    env.reset(seed=seed)
    for push in pushes:
        obs, *_ = env.step(np.array([float(push)], np.float32))
        assert env.observation_space.contains(obs)


def test_actions_outside_the_space_are_clipped() -> None:
    env = ParticleEnv()
    env.reset(seed=0)
    inside, *_ = env.step(np.array([1.0, 0.0], np.float32))
    env.reset(seed=0)
    outside, *_ = env.step(np.array([7.0, -3.0], np.float32))
    np.testing.assert_array_equal(inside, outside)


@pytest.mark.parametrize("action", [[np.nan, 0.5], [0.5], [[0.5, 0.5]], [np.inf, 0.0]])
def test_bad_actions_are_refused_with_their_expected_shape(action: list[Any]) -> None:
    env = ParticleEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action must be \(2,\) finite numbers"):
        env.step(np.array(action))


@pytest.mark.parametrize(
    "options",
    [
        {"n_dims": 0},
        {"goal_order": "sometimes"},
        {"render_mode": "ansi"},
        {"max_episode_steps": 0},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ParticleEnv(**options)


def test_misuse_is_told_apart() -> None:
    env = ParticleEnv()
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="needs a seed"):
        env.reset(options={"stream": "record"})
    with pytest.raises(ValueError, match="unknown stream 'eval'; known streams: evaluate"):
        env.reset(seed=0, options={"stream": "eval"})
    with pytest.raises(ValueError, match="got \\['seed'\\]"):
        env.reset(seed=0, options={"seed": 3})
    with pytest.raises(ValueError, match="mode"):
        env.expert(mode="careless")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="wait"):
        env.expert(wait=-1)


@pytest.mark.parametrize("n_dims", [1, 2, 5])
def test_picture_shows_the_particle_where_it_is(n_dims: int) -> None:
    env = ParticleEnv(n_dims=n_dims, render_mode="rgb_array", render_size=(120, 160))
    put(env, [0.0] * n_dims, [[1.0] * n_dims, [0.5] * n_dims])
    image = env.render()
    assert image is not None
    assert image.shape == (120, 160, 3)
    assert image.dtype == np.uint8
    rows, columns = np.nonzero((image == (0x21, 0x21, 0x21)).all(axis=2))
    expected_row = 120 - 6 - (0.5 * 108 if n_dims == 1 else 0)
    assert abs(rows.mean() - expected_row) < 2
    assert abs(columns.mean() - 6) < 2
    assert ParticleEnv().render() is None
