"""Reading `--set name=value` against constructors."""

import inspect
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisive.options import (
    constructor_parameters,
    env_options,
    known_env_ids,
    make_env,
    parse_options,
    typed_options,
)


class Base:
    def __init__(self, size: tuple[int, int] = (96, 96), noise: float = 0.0):
        pass


class Child(Base):
    def __init__(
        self,
        n: int = 1,
        mode: Literal["a", "b"] = "a",
        name: str | None = None,
        sides: tuple[float, ...] = (),
        flag: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)


KNOWN = constructor_parameters(Child)


def read(*words):
    return typed_options(words, KNOWN, "option")


def test_parameters_of_the_base_class_are_known_too():
    assert list(KNOWN) == ["n", "mode", "name", "sides", "flag", "size", "noise"]
    closed = constructor_parameters(Base)
    assert list(closed) == ["size", "noise"]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("n=3", 3),
        ("noise=2", 2.0),
        ("noise=1e-3", 0.001),
        ("mode=b", "b"),
        ("name=none", None),
        ("name=007", "007"),
        ("name=a=b", "a=b"),
        ("name=12", "12"),
        ("size=(48, 64)", (48, 64)),
        ("size=48,64", (48, 64)),
        ("sides=[1, 2.5]", (1.0, 2.5)),
        ("flag=true", True),
        ("flag=False", False),
    ],
)
def test_values_take_the_annotated_type(word, value):
    (found,) = read(word).values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "word", ["n=true", "n=1.0", "n=x", "noise=true", "mode=c", "size=(1, 2, 3)", "flag=1", "size=4"]
)
def test_values_of_another_type_are_refused(word):
    with pytest.raises(ValueError, match=f"option '{word.partition('=')[0]}' must be"):
        read(word)


def test_the_last_of_a_name_counts():
    assert read("n=1", "n=2") == {"n": 2}


@given(st.text())
def test_any_text_is_read_or_refused_with_a_value_error(text):
    try:
        read(f"n={text}")
    except ValueError:
        return
    assert isinstance(read(f"n={text}")["n"], int)


def test_every_registered_environment_documents_its_options():
    assert "decisive/BlockInsertion-v0" in known_env_ids()
    for env_id in ("decisive/Particle-v0", "decisive/BlockPush-v0"):
        options = env_options(env_id)
        assert "max_episode_steps" in options
        assert all(p.annotation is not inspect.Parameter.empty for p in options.values())


def test_options_are_checked_where_no_words_were_parsed():
    with pytest.raises(ValueError, match="must be int"):
        make_env("decisive/Particle-v0", {"n_dims": "3"})
    with pytest.raises(ValueError, match="unknown option"):
        make_env("decisive/Particle-v0", {"dims": 3})
    env = make_env("decisive/Particle-v0", {"n_dims": 3})
    assert env.action_space.shape == (3,)
    env.close()


def test_words_of_other_projects_environments_are_checked_too():
    assert parse_options("CartPole-v1", ["sutton_barto_reward=true"]) == {
        "sutton_barto_reward": True
    }
