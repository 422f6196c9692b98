"""The contract every tabletop environment keeps, over the registry and over options."""

import hashlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pybullet
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RescaleAction
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import envs
from envs.tabletop.base import MAX_DELTA, TabletopEnv
from envs.tabletop.push_primitive import execute_push
from envs.tabletop.scene import WORKSPACE_HIGH, WORKSPACE_LOW

TABLETOP_IDS = tuple(i for i in envs.ENV_IDS if i.startswith("decisive/Block"))
LIMITS = {
    "decisive/BlockPush-v0": {"delta": 100, "push": 12},
    "decisive/BlockPushMultimodal-v0": {"delta": 200, "push": 24},
    "decisive/BlockInsertion-v0": {"delta": 150, "push": 25},
    "decisive/BlockSorting-v0": {"delta": 240, "push": 48},
}
# Our actions are metres; both checkers would rather have every action in [-1, 1].
RECOMMENDATION = ".*we recommend (using|you to use) a symmetric and normalized.*"


@pytest.fixture(scope="module")
def made() -> Iterator[Any]:
    """Environments by id and options, built once for the module."""
    built: dict[tuple[Any, ...], gymnasium.Env[Any, Any]] = {}

    def make(env_id: str, **options: Any) -> TabletopEnv:
        key = (env_id, *sorted(options.items()))
        if key not in built:
            built[key] = gymnasium.make(env_id, disable_env_checker=True, **options)
        env = built[key].unwrapped
        assert isinstance(env, TabletopEnv)
        return env

    yield make
    for env in built.values():
        env.close()


def roll(env: TabletopEnv, seed: int, n: int, **reset: Any) -> list[np.ndarray]:
    """Observations under random actions drawn from `seed`."""
    rng = np.random.default_rng(seed)
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    rows = [env.reset(seed=seed, **reset)[0]]
    for _ in range(n):
        action = rng.uniform(space.low, space.high).astype(np.float32)
        rows.append(env.step(action)[0])
    return rows


def play(env: TabletopEnv, seed: int, n: int, mode: str = "consistent") -> list[np.ndarray]:
    """Observations under the expert, who touches blocks and fixtures."""
    obs, info = env.reset(seed=seed)
    expert = env.expert(mode, seed)  # type: ignore[arg-type]
    rows = [obs]
    for _ in range(n):
        obs, _, terminated, _, info = env.step(expert.act(obs, info))
        rows.append(obs)
        if terminated:
            break
    return rows


def digest(rows: list[np.ndarray]) -> str:
    return hashlib.sha256(np.stack(rows).tobytes()).hexdigest()


def check_both(env_id: str, **options: Any) -> None:
    env = gymnasium.make(env_id, disable_env_checker=True, render_mode="rgb_array", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=f"(?is){RECOMMENDATION}")
        check_env(env.unwrapped, skip_render_check=True)
        check_env_sb3(RescaleAction(env, np.float32(-1), np.float32(1)), warn=True)
    env.close()


@pytest.mark.parametrize("control", ["delta", "push"])
@pytest.mark.parametrize("env_id", TABLETOP_IDS)
def test_checkers_of_gymnasium_and_sb3_find_nothing(env_id: str, control: str) -> None:
    check_both(env_id, control=control)


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("decisive/BlockPush-v0", {"observation": "pixels"}),
        ("decisive/BlockPushMultimodal-v0", {"observation": "both", "control": "push"}),
        ("decisive/BlockInsertion-v0", {"observation": "pixels", "image_size": (240, 320)}),
        ("decisive/BlockInsertion-v0", {"slots": 2, "clearance": 0.5, "arm": "xarm6"}),
        ("decisive/BlockSorting-v0", {"observation": "both", "n_blocks": 3}),
    ],
)
def test_checkers_find_nothing_with_options(env_id: str, options: dict[str, Any]) -> None:
    check_both(env_id, **options)


@pytest.mark.parametrize("env_id", TABLETOP_IDS)
def test_state_is_what_its_fields_say(made: Any, env_id: str) -> None:
    env = made(env_id)
    obs, _ = env.reset(seed=0)
    assert obs.dtype == np.float32
    assert obs.shape == (sum(field.size for field in env.state_fields),)
    assert [field.name for field in env.state_fields[:2]] == ["target_xy", "effector_xy"]
    start = 0
    for field in env.state_fields:
        values = obs[start : start + field.size]
        start += field.size
        if field.kind in ("yaw4", "heading"):
            assert np.hypot(*values) == pytest.approx(1.0, abs=1e-5), field
        if field.kind == "point":
            assert (np.abs(values - [0.4, 0.0]) < [0.4, 0.6]).all(), field


@pytest.mark.parametrize("env_id", TABLETOP_IDS)
@pytest.mark.parametrize("arm", ["cylinder", "xarm6"])
def test_episodes_do_not_depend_on_the_episodes_before(made: Any, env_id: str, arm: str) -> None:
    env = made(env_id, arm=arm)
    first = play(env, 3, 25)
    again = play(env, 3, 25)
    play(env, 4, 60)
    roll(env, 5, 3)
    after_others = play(env, 3, 25)
    assert digest(first) == digest(again) == digest(after_others)


def test_whole_pushes_do_not_depend_on_the_episodes_before(made: Any) -> None:
    env = made("decisive/BlockPush-v0", control="push")
    first = play(env, 3, 4)
    play(env, 4, 3)
    assert digest(play(env, 3, 4)) == digest(first)


_NEW_PROCESS = """
import sys
sys.path.insert(0, "tests")
import gymnasium, envs, test_tabletop as t
for env_id in t.TABLETOP_IDS:
    for arm in ("cylinder", "xarm6"):
        env = gymnasium.make(env_id, arm=arm, disable_env_checker=True).unwrapped
        print(t.digest(t.play(env, 3, 25)))
"""


def test_a_new_process_repeats_every_episode_bit_for_bit(made: Any, root: str) -> None:
    """Also: nothing but what is asked for reaches stdout, on creation as on stepping."""
    out = subprocess.check_output(
        [sys.executable, "-c", _NEW_PROCESS], text=True, cwd=root, stderr=subprocess.DEVNULL
    )
    here = [
        digest(play(made(env_id, arm=arm), 3, 25))
        for env_id in TABLETOP_IDS
        for arm in ("cylinder", "xarm6")
    ]
    assert out.splitlines() == here


@pytest.fixture
def root(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.rootpath)


def test_sync_and_async_vectors_agree() -> None:
    results = []
    for mode in ("sync", "async"):
        vector = gymnasium.make_vec("decisive/BlockPush-v0", num_envs=2, vectorization_mode=mode)
        obs, _ = vector.reset(seed=[1, 2])
        vector.action_space.seed(0)
        rows = [obs]
        for _ in range(5):
            obs, reward, _, _, info = vector.step(vector.action_space.sample())
            rows += [obs, np.asarray(reward, np.float32), np.asarray(info["score"], np.float32)]
        vector.close()
        results.append(rows)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts files under /proc")
def test_a_hundred_creations_leak_no_client() -> None:
    def connected() -> int:
        return sum(pybullet.isConnected(i) for i in range(200))

    gymnasium.make("decisive/BlockPush-v0").close()
    files, clients = open_files(), connected()
    for i in range(100):
        # Every fiftieth has the second scene that policy images with the arm are drawn from.
        options = {"arm": "xarm6", "observation": "both"} if i % 50 == 0 else {}
        env = gymnasium.make("decisive/BlockPush-v0", disable_env_checker=True, **options)
        assert connected() > clients
        env.close()
        env.close()  # harmless
    assert connected() == clients
    assert open_files() == files


@pytest.mark.parametrize("control", ["delta", "push"])
@pytest.mark.parametrize("env_id", TABLETOP_IDS)
def test_bad_actions_are_refused_and_change_nothing(made: Any, env_id: str, control: str) -> None:
    env = made(env_id, control=control)
    env.reset(seed=0)
    size = env.action_space.shape[0]
    before = env.scene.block_poses()
    for bad in (np.full(size, np.nan), np.full(size, np.inf)):
        with pytest.raises(ValueError, match="finite"):
            env.step(bad.astype(np.float32))
    for shape in ((size + 1,), (1, size), ()):
        with pytest.raises(ValueError, match=r"shape \(\d,\)"):
            env.step(np.zeros(shape, np.float32))
    np.testing.assert_array_equal(env.scene.block_poses(), before)


def test_actions_outside_the_space_are_clipped(made: Any) -> None:
    env = made("decisive/BlockPush-v0")
    rows = []
    for action in ([MAX_DELTA, -MAX_DELTA], [5.0, -5.0]):
        env.reset(seed=0)
        rows.append(env.step(np.array(action, np.float32))[0])
    np.testing.assert_array_equal(rows[0], rows[1])


@pytest.mark.parametrize("env_id", TABLETOP_IDS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observation": "touch"}, "'state', 'pixels', 'both'"),
        ({"arm": "panda"}, "'cylinder', 'xarm6'"),
        ({"control": "torque"}, "'delta', 'push'"),
        ({"disturb": 1.5}, r"in \[0, 1\]"),
        ({"randomize": -0.1}, r"in \[0, 1\]"),
        ({"max_episode_steps": 0}, "at least 1"),
    ],
)
def test_unknown_options_are_refused_with_the_known_ones(
    env_id: str, options: dict[str, Any], message: str
) -> None:
    entry_point = gymnasium.spec(env_id).entry_point
    assert isinstance(entry_point, str)
    with pytest.raises(ValueError, match=message):
        gymnasium.envs.registration.load_env_creator(entry_point)(**options)


@pytest.mark.parametrize("env_id", TABLETOP_IDS)
def test_streams_of_seeds_never_meet(made: Any, env_id: str) -> None:
    env = made(env_id)
    names = ("evaluate", "record", "select", "train")
    starts = [env.reset(seed=7, options={"stream": name})[0] for name in names]
    for i, a in enumerate(starts):
        for b in starts[:i]:
            assert np.abs(a - b).max() > 1e-3
    np.testing.assert_array_equal(env.reset(seed=7)[0], starts[0])
    with pytest.raises(ValueError, match="known streams: evaluate"):
        env.reset(seed=7, options={"stream": "test"})


@pytest.mark.parametrize("control", ["delta", "push"])
@pytest.mark.parametrize("env_id", TABLETOP_IDS)
def test_default_limits_are_the_documented_ones(env_id: str, control: str) -> None:
    env = gymnasium.make(env_id, control=control, disable_env_checker=True)
    env.reset(seed=0)
    still = np.zeros(env.action_space.shape or (), np.float32)
    ends = [env.step(still)[2:4] for _ in range(LIMITS[env_id][control])]
    assert ends[-1] == (False, True)
    assert not any(truncated for _, truncated in ends[:-1])
    env.close()


@pytest.mark.parametrize("limit", [3, 130])
def test_make_shortens_and_lengthens_episodes(limit: int) -> None:
    env = gymnasium.make("decisive/BlockPush-v0", max_episode_steps=limit, disable_env_checker=True)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[3] for _ in range(limit)]
    assert ends == [False] * (limit - 1) + [True]
    env.close()


def test_limit_of_the_constructor_counts(made: Any) -> None:
    from envs.tabletop.push import BlockPushEnv

    env = BlockPushEnv(max_episode_steps=2)
    env.reset(seed=0)
    assert [env.step(np.zeros(2, np.float32))[3] for _ in range(2)] == [False, True]
    env.close()


@pytest.mark.parametrize("env_id", TABLETOP_IDS)
def test_pictures_have_the_promised_shapes(env_id: str) -> None:
    env = gymnasium.make(
        env_id,
        observation="both",
        image_size=(48, 64),
        render_mode="rgb_array",
        render_size=(60, 80),
        disable_env_checker=True,
    )
    obs, _ = env.reset(seed=1)
    assert obs["pixels"].shape == (48, 64, 3)
    assert obs["pixels"].dtype == np.uint8
    frame = env.render()
    assert isinstance(frame, np.ndarray)
    assert frame.shape == (60, 80, 3)
    assert frame.dtype == np.uint8
    assert obs["pixels"].std() > 5
    assert frame.std() > 5
    other, _ = env.reset(seed=2)
    assert (other["pixels"] != obs["pixels"]).any(), "the picture shows where the blocks are"
    env.close()


def test_policy_images_never_show_the_arm(made: Any) -> None:
    pictures = []
    for arm in ("cylinder", "xarm6"):
        env = made("decisive/BlockPush-v0", arm=arm, observation="pixels")
        pictures.append(env.reset(seed=1)[0].astype(int))
    different = np.abs(pictures[0] - pictures[1]).max(axis=-1) > 8
    assert different.mean() < 0.002, "the two arms look the same but for the finger's millimetres"


def test_a_window_without_a_screen_is_refused_and_ends_nothing(monkeypatch: Any) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(ValueError, match="DISPLAY is not set"):
        gymnasium.make("decisive/BlockPush-v0", render_mode="human")


@pytest.mark.parametrize("size", [(0, 0), (-1, 4), (96, 100_000), (96,), (96.5, 96)])
@pytest.mark.parametrize("name", ["image_size", "render_size"])
def test_pictures_of_impossible_sizes_are_refused(name: str, size: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be two whole numbers in \[8, 2048\]"):
        gymnasium.make("decisive/BlockPush-v0", **{name: size})


@pytest.mark.parametrize(
    "option", [{"disturb": 0.5}, {"randomize": 1.0}], ids=["disturb", "randomize"]
)
@pytest.mark.parametrize("env_id", TABLETOP_IDS)
def test_perturbations_change_trajectories_but_not_starts(
    made: Any, env_id: str, option: dict[str, float]
) -> None:
    calm, rough = made(env_id), made(env_id, **option)
    calm.reset(seed=3)
    rough.reset(seed=3)
    np.testing.assert_array_equal(calm.scene.block_poses(), rough.scene.block_poses())
    one, two, three = roll(calm, 3, 12), roll(rough, 3, 12), roll(rough, 3, 12)
    assert digest(two) == digest(three), "perturbations are seeded"
    assert digest(one) != digest(two)


def test_shoves_move_blocks_and_holds_stop_the_effector(made: Any) -> None:
    env = made("decisive/BlockPush-v0", disturb=1.0)
    moved, held = 0.0, 0
    for seed in range(20):
        env.reset(seed=seed)
        start, target = env.scene.block_poses(), env.target.copy()
        env.step(np.array([0.0, 0.02], np.float32))
        moved = max(moved, float(np.abs(env.scene.block_poses() - start)[:, :2].max()))
        held += bool((env.target == target).all())
    assert 0.002 < moved < 0.05
    assert 3 < held < 17


@pytest.mark.parametrize("arm", ["cylinder", "xarm6"])
def test_a_push_that_lands_on_a_block_is_lost(made: Any, arm: str) -> None:
    env = made("decisive/BlockPush-v0", arm=arm, control="push")
    env.reset(seed=2)
    before = env.scene.block_poses()[0]
    env.step(np.array([*before[:2], 0.1, 0.1], np.float32))
    after = env.scene.block_poses()[0]
    assert np.hypot(*(after - before)[:2]) < 0.004
    assert env.scene.is_upright(env.scene.blocks[0], 0.015)


@pytest.mark.parametrize("arm", ["cylinder", "xarm6"])
def test_a_push_in_the_open_goes_where_it_says_and_lifts(made: Any, arm: str) -> None:
    env = made("decisive/BlockPush-v0", arm=arm, control="push")
    env.reset(seed=2)
    before = env.scene.block_poses()
    seconds: list[float] = []
    end = execute_push(env.scene, np.array([0.30, 0.30, 0.10, 0.05]), lambda: seconds.append(0.1))
    np.testing.assert_allclose(end, [0.40, 0.35], atol=0.002)
    assert env.scene.tip()[2] > 0.05
    np.testing.assert_allclose(env.scene.block_poses(), before, atol=1e-3)
    assert 0.5 < sum(seconds) < 4.0


def test_the_commanded_position_stays_on_the_table_and_near_the_effector(made: Any) -> None:
    env = made("decisive/BlockPush-v0")
    env.reset(seed=0)
    for _ in range(40):
        env.step(np.array([-MAX_DELTA, MAX_DELTA], np.float32))
    np.testing.assert_allclose(env.target, [WORKSPACE_LOW[0], WORKSPACE_HIGH[1]], atol=1e-9)
    np.testing.assert_allclose(env.scene.tip()[:2], env.target, atol=2e-3)


@pytest.mark.parametrize("control", ["delta", "push"])
@pytest.mark.parametrize("env_id", TABLETOP_IDS)
def test_experts_act_inside_the_space_and_info_says_how_far(
    made: Any, env_id: str, control: str
) -> None:
    env = made(env_id, control=control)
    for mode in ("consistent", "diverse"):
        obs, info = env.reset(seed=11)
        expert = env.expert(mode=mode, seed=5)
        best = 0.0
        for _ in range(6 if control == "push" else 40):
            assert type(info["success"]) is bool
            assert 0.0 <= info["score"] <= 1.0
            action = expert.act(obs, info)
            assert action.dtype == np.float32
            assert env.action_space.contains(action)
            obs, reward, terminated, truncated, info = env.step(action)
            assert type(terminated) is bool
            assert type(truncated) is bool
            assert np.isfinite(reward)
            assert terminated == info["success"]
            best += reward
            if terminated:
                break
        assert best > 0.05, "the expert makes progress"
    with pytest.raises(ValueError, match="'consistent' or 'diverse', got 'drunk'"):
        env.expert(mode="drunk")


@pytest.mark.parametrize("env_id", TABLETOP_IDS)
def test_diverse_experts_repeat_themselves_under_a_seed_and_differ_between_seeds(
    made: Any, env_id: str
) -> None:
    env = made(env_id)

    def actions(seed: int) -> np.ndarray:
        obs, info = env.reset(seed=1)
        expert = env.expert("diverse", seed)
        rows = []
        for _ in range(12):
            rows.append(expert.act(obs, info))
            obs, _, _, _, info = env.step(rows[-1])
        return np.stack(rows)

    runs = [actions(seed) for seed in (1, 1, 2, 3, 4)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert len({run.tobytes() for run in runs}) > 2
