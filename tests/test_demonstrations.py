"""Demonstrations: episodes, windows, splits, joins, and what is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.demonstrations import (
    Demonstrations,
    as_float32,
    clip_actions,
    concatenate,
    load_demonstrations,
)
from learning.summary import summary

EXCERPT = Path(__file__).parent / "data" / "door_excerpt.npz"
DATA = Path(os.environ.get("DECISIVE_DATA", Path(__file__).parents[1] / "../shared/data"))


def make_demos(lengths=(3, 5, 2), dim=2, state=4, seed=0, **changes) -> Demonstrations:
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    values = {
        "observations": {"state": rng.normal(size=(n, state)).astype(np.float32)},
        "actions": rng.uniform(-1, 1, (n, dim)).astype(np.float32),
        "rewards": rng.normal(size=n).astype(np.float32),
        "episode_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "action_low": -np.ones(dim, np.float32),
        "action_high": np.ones(dim, np.float32),
        "meta": {"env": "none/Test-v0", "seed": seed},
        "final_observations": {"state": rng.normal(size=(len(lengths), state)).astype(np.float32)},
        "terminated": np.arange(len(lengths)) % 2 == 0,
    }
    return Demonstrations(**{**values, **changes})


def test_episodes_are_the_rows_between_offsets():
    demos = make_demos()
    assert demos.n_episodes == 3
    assert len(demos) == 10
    assert demos.lengths.tolist() == [3, 5, 2]
    assert demos.episode(1) == slice(3, 8)


def test_first_episodes_are_kept_whole():
    demos = make_demos()
    first = demos.episodes(2)
    assert first.lengths.tolist() == [3, 5]
    np.testing.assert_array_equal(first.actions, demos.actions[:8])
    assert first.final_observations is not None
    assert len(first.final_observations["state"]) == 2
    for n in (0, 4):
        with pytest.raises(ValueError, match=r"1\.\.3"):
            demos.episodes(n)


def test_selection_keeps_order_and_flags():
    demos = make_demos()
    chosen = demos.select([2, 0])
    assert chosen.lengths.tolist() == [2, 3]
    np.testing.assert_array_equal(chosen.rewards, np.r_[demos.rewards[8:], demos.rewards[:3]])
    assert chosen.terminated is not None
    assert chosen.terminated.tolist() == [True, True]
    with pytest.raises(ValueError, match="at least one"):
        demos.select([])
    with pytest.raises(ValueError, match=r"0\.\.2"):
        demos.select([3])


def test_windows_stop_at_the_ends_of_their_episode():
    windows = make_demos().windows(n_obs_steps=3, horizon=4)
    assert windows.observations[0].tolist() == [0, 0, 0]
    assert windows.observations[4].tolist() == [3, 3, 4]
    assert windows.observations[7].tolist() == [5, 6, 7]
    assert windows.actions[0].tolist() == [0, 1, 2, 2]
    assert windows.actions[6].tolist() == [6, 7, 7, 7]
    assert windows.actions[9].tolist() == [9, 9, 9, 9]
    assert windows.actions.dtype == np.int64


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    n_obs_steps=st.integers(1, 4),
    horizon=st.integers(1, 5),
)
def test_no_window_leaves_its_episode(lengths, n_obs_steps, horizon):
    demos = make_demos(tuple(lengths))
    windows = demos.windows(n_obs_steps, horizon)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    assert (episode[windows.observations] == episode[:, None]).all()
    assert (episode[windows.actions] == episode[:, None]).all()
    rows = np.arange(len(demos))
    np.testing.assert_array_equal(windows.observations[:, -1], rows)
    np.testing.assert_array_equal(windows.actions[:, 0], rows)
    assert (np.diff(windows.observations, axis=1) >= 0).all()


def test_windows_need_at_least_one_step():
    with pytest.raises(ValueError, match="at least 1"):
        make_demos().windows(0, 1)


def test_split_holds_whole_episodes_out_and_repeats_itself():
    demos = make_demos(tuple([2] * 20))
    kept, held = demos.split(0.25, seed=1)
    assert held is not None
    assert (kept.n_episodes, held.n_episodes) == (15, 5)
    both = np.sort(np.concatenate([kept.rewards, held.rewards]))
    np.testing.assert_array_equal(both, np.sort(demos.rewards))
    again = demos.split(0.25, seed=1)[1]
    assert again is not None
    np.testing.assert_array_equal(again.actions, held.actions)
    other = demos.split(0.25, seed=2)[1]
    assert other is not None
    assert not np.array_equal(other.actions, held.actions)


def test_split_holds_at_least_one_and_never_all():
    assert make_demos((2, 2)).split(0.01, 0)[1] is not None
    kept, held = make_demos((2, 2)).split(0.99, 0)
    assert held is not None
    assert kept.n_episodes == held.n_episodes == 1
    assert make_demos((4,)).split(0.5, 0)[1] is None
    assert make_demos().split(0.0, 0)[1] is None
    with pytest.raises(ValueError, match="fraction"):
        make_demos().split(1.0, 0)


def test_joined_sets_keep_what_they_agree_on():
    first, second = make_demos((2, 3), seed=0), make_demos((4,), seed=1)
    joined = concatenate([first, second])
    assert joined.lengths.tolist() == [2, 3, 4]
    np.testing.assert_array_equal(joined.actions[5:], second.actions)
    assert joined.meta["env"] == "none/Test-v0"
    assert "seed" not in joined.meta
    assert joined.meta["parts"] == [first.meta, second.meta]
    assert joined.final_observations is not None
    assert len(joined.final_observations["state"]) == 3
    assert concatenate([first]) is first


def test_joining_forgets_final_rows_that_one_part_lacks():
    joined = concatenate([make_demos(), make_demos(final_observations=None, terminated=None)])
    assert joined.final_observations is None
    assert joined.terminated is None


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (make_demos(dim=3), "actions"),
        (make_demos(state=5), "observations"),
        (make_demos(action_high=np.full(2, 2.0, np.float32)), "action_high"),
        (
            make_demos(meta={"observation_fields": [{"name": "x", "size": 2, "kind": "point"}]}),
            "observation_fields",
        ),
    ],
)
def test_sets_of_other_spaces_are_not_joined(other, named):
    with pytest.raises(ValueError, match=f"data set 2 has other {named}"):
        concatenate([make_demos(), other])
    with pytest.raises(ValueError, match="at least one"):
        concatenate([])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"actions": np.zeros((9, 2), np.float32)}, "number of rows 9"),
        ({"actions": np.zeros((10, 2))}, "float32"),
        ({"actions": np.full((10, 2), 2, np.float32)}, "outside the action space"),
        ({"rewards": np.zeros((10, 1), np.float32)}, "rewards must be"),
        ({"observations": {}}, "'state' or 'pixels'"),
        ({"observations": {"lidar": np.zeros((10, 2), np.float32)}}, "'state' or 'pixels'"),
        ({"observations": {"state": np.zeros((9, 4), np.float32)}}, "9 rows, expected 10"),
        ({"observations": {"pixels": np.zeros((10, 4), np.uint8)}}, "uint8"),
        ({"final_observations": {"pixels": np.zeros((3, 8, 8, 3), np.uint8)}}, "keys"),
        ({"final_observations": {"state": np.zeros((3, 5), np.float32)}}, "shape"),
        ({"final_observations": {"state": np.full((3, 4), np.nan, np.float32)}}, "NaN"),
        ({"terminated": np.zeros(2, np.bool_)}, "terminated"),
        ({"episode_offsets": np.array([0, 3, 8])}, "0 to 8"),
        ({"episode_offsets": np.array([0, 3, 3, 10])}, "episode 1 is empty"),
        ({"episode_offsets": np.array([0.0, 10.0])}, "int64"),
        ({"episode_offsets": np.array([0])}, "no episodes"),
        ({"action_low": np.full(2, 2, np.float32)}, "exceed"),
        ({"action_low": np.zeros(3, np.float32)}, "action_low must be"),
        ({"meta": {"x": object()}}, "JSON"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, said):
    with pytest.raises(ValueError, match=said) as caught:
        make_demos(**changes)
    assert "\n" not in str(caught.value)


def test_a_nan_is_found_with_its_episode_and_step():
    demos = make_demos()
    state = demos.observations["state"].copy()
    state[6, 1] = np.nan
    with pytest.raises(ValueError, match="state is NaN or infinite in episode 1, step 3"):
        replace(demos, observations={"state": state})


def test_clipping_counts_values_outside():
    low, high = np.array([-1.0, -np.inf]), np.array([1.0, np.inf])
    clipped, counts = clip_actions(np.array([[1.5, 99.0], [-1.25, 0.0], [0.5, -7.0]]), low, high)
    assert clipped.tolist() == [[1.0, 99.0], [-1.0, 0.0], [0.5, -7.0]]
    assert counts == {"clipped": 2, "clipped_share": 2 / 6, "clipped_max": 0.5}


def test_numbers_too_large_for_float32_are_refused():
    with pytest.raises(ValueError, match="too large"):
        as_float32(np.array([1e300]), "x")
    with pytest.raises(ValueError, match="numbers"):
        as_float32(np.array(["a"]), "x")


def test_the_excerpt_of_human_demonstrations_loads_clipped():
    demos = load_demonstrations(EXCERPT)
    assert demos.n_episodes == 2
    assert demos.actions.shape == (80, 28)
    assert demos.observations["state"].shape == (80, 39)
    assert np.abs(demos.actions).max() == 1.0
    with np.load(EXCERPT, allow_pickle=False) as raw:
        assert demos.meta["clipped"] == int((np.abs(raw["actions"]) > 1).sum()) > 0


@pytest.mark.data
def test_the_human_door_demonstrations_load():
    path = DATA / "adroit_dapg" / "door-human_demos.npz"
    if not path.is_file():
        pytest.skip("the door demonstrations are absent (set DECISIVE_DATA)")
    demos = load_demonstrations(path)
    assert (demos.n_episodes, len(demos)) == (25, 6729)
    assert (demos.lengths.min(), demos.lengths.max()) == (223, 300)
    assert demos.meta["clipped_share"] == pytest.approx(0.056, abs=5e-4)
    assert demos.meta["clipped_max"] == pytest.approx(0.366, abs=5e-4)


@pytest.mark.data
def test_every_set_of_adroit_rollouts_loads():
    files = sorted((DATA / "adroit_expert_rollouts").glob("*.npz"))
    if not files:
        pytest.skip("the Adroit rollouts are absent (set DECISIVE_DATA)")
    shapes = {path.name.split("-")[0]: load_demonstrations(path).actions.shape for path in files}
    assert shapes == {
        "door": (10_000, 28),
        "hammer": (10_000, 26),
        "pen": (9_875, 24),
        "relocate": (10_000, 30),
    }


def test_unknown_names_list_the_known(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"local data sets in .*: none"):
        load_demonstrations("decisive/nothing-v0")


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"neither \.npz nor HDF5"):
        load_demonstrations(path)


def test_summary_tells_quartiles_and_clipping():
    demos = make_demos((2, 2, 2), rewards=np.array([0, 1, 0, 2, 0, 3], np.float32))
    told = summary(demos)
    assert told["episodes"] == 3
    assert told["steps"] == 6
    assert told["return"] == {"min": 1, "q25": 1.5, "median": 2, "q75": 2.5, "max": 3}
    assert told["length"]["median"] == 2
    assert told["terminated_share"] == pytest.approx(2 / 3)
    assert told["clipped_share"] == 0
    assert summary(load_demonstrations(EXCERPT))["clipped_share"] > 0
    json.dumps(told, allow_nan=False)


def test_summary_of_unbounded_actions_is_json():
    told = summary(make_demos(action_high=np.full(2, np.inf, np.float32)))
    assert told["actions"]["high"] == [None, None]
    json.dumps(told, allow_nan=False)
