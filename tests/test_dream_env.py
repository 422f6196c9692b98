"""`decisive/Dream-v0`: Room-to-Room inside a world model."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from dream_cases import SIZE, checkpoint, instructions_file, tiny
from gymnasium.utils.env_checker import check_env

import envs
from decisive.dream_env import DreamEnv
from envs.indoor.r2r_nav import R2RNavEnv
from envs.indoor.worlds import open_world


def make(**options) -> DreamEnv:
    return DreamEnv(model=tiny(), split=instructions_file(), **options)


def play(env: DreamEnv, seed: int, actions: list[int]) -> list[dict]:
    seen = [env.reset(seed=seed)[0]]
    for action in actions:
        seen.append(env.step(action)[0])
    return seen


def same(first: dict, second: dict) -> bool:
    return all(np.array_equal(first[key], second[key]) for key in first)


def test_gymnasium_finds_it_by_name():
    assert "decisive/Dream-v0" in envs.ENV_IDS
    env = gymnasium.make("decisive/Dream-v0", model=checkpoint(), split=instructions_file())
    assert isinstance(env.unwrapped, DreamEnv)
    env.close()


def test_gymnasiums_checks_pass():
    options = {"model": checkpoint(), "split": instructions_file(), "render_mode": "rgb_array"}
    check_env(gymnasium.make("decisive/Dream-v0", **options).unwrapped)


def test_registering_it_loads_no_torch():
    code = (
        "import sys, gymnasium, envs; gymnasium.spec('decisive/Dream-v0')\n"
        "print([m for m in ('torch', 'open3d', 'decisive.dream_env') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_importing_world_models_loads_no_torch_and_offers_the_loader():
    code = (
        "import sys, world_models; print('torch' in sys.modules)\n"
        "from world_models import load_world_model; print(load_world_model.__name__)\n"
        "print(hasattr(world_models, 'nonsense'))"
    )
    told = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert told == ["False", "load_world_model", "False"]


def test_the_start_is_real_and_the_rest_is_dreamed():
    env = make()
    obs, info = env.reset(seed=3)
    real = open_world("houses").simulator(info["scan"])
    start = info["viewpoint"]
    truth = real.observe(start, SIZE)
    np.testing.assert_array_equal(obs["rgb"], truth.rgb)
    np.testing.assert_array_equal(obs["semantic"], truth.semantic)
    assert info["imagined"] == 0
    assert info["dreamed"] == 0
    obs, _, _, _, info = env.step(1)
    assert info["viewpoint"] != start
    assert not np.array_equal(obs["rgb"], real.observe(info["viewpoint"], SIZE).rgb)
    assert 0 < info["imagined"] < 1
    assert info["dreamed"] == 1


def test_a_seed_repeats_the_episode_and_its_dreams():
    env = make()
    first, again, other = (play(env, seed, [1, 1, 2]) for seed in (5, 5, 6))
    assert all(map(same, first, again))
    assert not same(first[1], other[1])


def test_two_episodes_of_one_instruction_are_dreamed_differently():
    env = make()
    name = next(iter(env.instructions))
    views = []
    for seed in (0, 1):
        env.reset(seed=seed, options={"instr_id": name})
        views.append(env.step(1)[0]["depth"])
    assert not np.array_equal(*views)


def test_at_temperature_0_they_are_the_same():
    env = make(temperature=0.0)
    name = next(iter(env.instructions))
    views = []
    for seed in (0, 1):
        env.reset(seed=seed, options={"instr_id": name})
        views.append(env.step(1)[0]["depth"])
    np.testing.assert_array_equal(*views)


def test_whoever_comes_back_sees_what_was_there_before():
    env = make()
    start, info = env.reset(seed=3)
    home = info["viewpoint"]
    there, _, _, _, info = env.step(1)
    back = 1 + info["candidates"].index(home)
    away = info["viewpoint"]
    obs, _, _, _, info = env.step(back)
    np.testing.assert_array_equal(obs["rgb"], start["rgb"])
    assert info["dreamed"] == 1
    obs, *_, info = env.step(1 + info["candidates"].index(away))
    np.testing.assert_array_equal(obs["depth"], there["depth"])


def test_the_ways_are_those_of_the_true_building():
    dream = make()
    real = R2RNavEnv(world="houses", split=instructions_file(), views="none")
    name = next(iter(dream.instructions))
    for env in (dream, real):
        env.reset(seed=0, options={"instr_id": name})
    for action in (1, 2, 1):
        ours, theirs = (env.step(action) for env in (dream, real))
        for key in ("candidates", "candidate_mask", "direction", "instruction"):
            np.testing.assert_array_equal(ours[0][key], theirs[0][key])
        assert ours[4]["distance_to_goal"] == theirs[4]["distance_to_goal"]


def test_the_expert_succeeds_without_looking():
    env = make()
    obs, info = env.reset(seed=1)
    expert = env.expert()
    ended, reward = False, 0.0
    assert isinstance(info["success"], bool)
    while not ended:
        obs, reward, terminated, truncated, info = env.step(expert.act(obs, info))
        ended = terminated or truncated
    assert info["success"] is True
    assert reward == 1
    assert info["metrics"]["spl"] == pytest.approx(1)


def test_writing_into_an_observation_changes_no_dream():
    env = make()
    obs, _ = env.reset(seed=3)
    kept = obs["rgb"].copy()
    obs["rgb"][:] = 0
    obs, *_, _info = env.step(1)
    obs, *_ = env.step(16)  # no such way: one stays
    before = obs["depth"].copy()
    obs["depth"][:] = 0
    obs, *_ = env.step(16)
    np.testing.assert_array_equal(obs["depth"], before)
    again = env.reset(seed=3)[0]
    np.testing.assert_array_equal(again["rgb"], kept)


def test_the_picture_has_the_map_above_what_is_dreamed():
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    env.step(1)
    picture = env.render()
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 480
    assert picture.shape[0] > 576
    assert make().render() is None


def test_another_size_is_dreamed_where_the_model_can():
    env = make(size=(64, 128))
    obs, _ = env.reset(seed=0)
    assert obs["rgb"].shape == (64, 128, 3)
    assert env.observation_space.contains(env.step(1)[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": (50, 100)}, "multiples of"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"render_mode": "human"}, "render_mode must be"),
        ({"world": "nowhere"}, "unknown world"),
        ({"max_episode_steps": 0}, "max_episode_steps must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        make(**options)


def test_an_unknown_model_and_a_world_without_pixels_are_refused():
    with pytest.raises(ValueError, match="no world model 'not-there'"):
        DreamEnv(model="not-there")
    with pytest.raises(ValueError, match="no pixels"):
        DreamEnv(model=tiny(), world="sketch").reset(seed=0)
