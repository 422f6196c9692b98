"""Registration, named fields and random streams."""

import json
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import envs
from envs.fields import Field, from_json, slices, to_json
from envs.seeding import STREAMS, episode_rng

XY = Field("block_xy", 2, "point", "m", "centre of the block")
YAW = Field("block_yaw4", 2, "yaw4", "1", "its yaw")
SIZE = Field("sizes", 3, "scalar", "m", "edges")


def test_every_promised_id_is_registered_once_and_calling_again_is_harmless() -> None:
    envs.register_envs()
    before = {env_id: gymnasium.spec(env_id) for env_id in envs.ENV_IDS}
    envs.register_envs()
    assert {env_id: gymnasium.spec(env_id) for env_id in envs.ENV_IDS} == before
    ours = (
        "Particle",
        "BlockPush",
        "BlockPushMultimodal",
        "BlockInsertion",
        "BlockSorting",
        "R2RNav",
        "HouseNav",
        "Dream",
    )
    d4rls = ("AdroitPen", "AdroitHammer", "AdroitDoor", "AdroitRelocate", "FrankaKitchen")
    assert set(before) == {f"decisive/{name}-v0" for name in ours + d4rls}
    limits = {env_id: before[env_id].max_episode_steps for env_id in envs.D4RL_IDS}
    assert list(limits.values()) == [100, 200, 200, 200, 280]


def test_registering_loads_no_environment_and_no_simulator() -> None:
    code = (
        "import sys, envs; envs.register_envs()\n"
        "print([m for m in sys.modules if m.startswith(('envs.', 'pybullet', 'torch'))])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_slices_follow_each_other() -> None:
    assert slices([XY, SIZE, YAW]) == {
        "block_xy": slice(0, 2),
        "sizes": slice(2, 5),
        "block_yaw4": slice(5, 7),
    }


def test_fields_survive_json() -> None:
    fields = (XY, SIZE, YAW)
    assert from_json(json.loads(json.dumps(to_json(fields)))) == fields


def test_bad_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        slices([XY, XY])
    with pytest.raises(ValueError, match="a point holds 2 numbers, got 3"):
        Field("p", 3, "point", "m", "")
    with pytest.raises(ValueError, match="at least 1"):
        Field("s", 0, "scalar", "m", "")
    with pytest.raises(ValueError, match="kind must be one of"):
        Field("s", 1, "colour", "m", "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "item", [{"name": "x"}, {**to_json([XY])[0], "extra": 1}, {**to_json([XY])[0], "size": "2"}, 3]
)
def test_bad_json_fields_are_refused(item: object) -> None:
    with pytest.raises(ValueError, match=r"must be an object|size must be an int"):
        from_json([item])  # type: ignore[list-item]


def test_evaluate_stream_is_what_gymnasium_draws_from_a_bare_seed() -> None:
    ours, theirs = episode_rng(17), gymnasium.utils.seeding.np_random(17)[0]
    np.testing.assert_array_equal(ours.random(8), theirs.random(8))


@given(st.integers(0, 2**63), st.integers(0, 1000))
def test_no_seed_of_one_stream_reproduces_an_episode_of_another(seed: int, other: int) -> None:
    draws = [episode_rng(s, name).random() for s in {seed, other} for name in STREAMS]
    assert len(set(draws)) == len(draws)


def test_streams_refuse_unknown_names_and_negative_seeds() -> None:
    with pytest.raises(ValueError, match="known streams: evaluate, record, select, train"):
        episode_rng(0, "test")
    with pytest.raises(ValueError, match="non-negative"):
        episode_rng(-1)
