"""Round trips between npz, Minari and robomimic files, and recordings in progress."""

import json
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_demonstrations import EXCERPT, make_demos

from learning.demonstrations import Demonstrations, load_demonstrations
from learning.minari_format import read_minari, write_minari
from learning.minari_store import find_minari
from learning.npz_format import MAX_BYTES, pack_arrays, read_arrays, to_arrays, write_npz
from learning.robomimic_format import read_robomimic, write_robomimic
from learning.shards import Episode, Recording


def pixels(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 36, 40, 3), np.uint8)


def both_kinds() -> Demonstrations:
    plain = make_demos()
    assert plain.final_observations is not None
    return make_demos(
        observations={**plain.observations, "pixels": pixels(10)},
        final_observations={**plain.final_observations, "pixels": pixels(3, 1)},
    )


def only_pixels() -> Demonstrations:
    return make_demos(
        observations={"pixels": pixels(10)}, final_observations={"pixels": pixels(3, 1)}
    )


def assert_same(found: Demonstrations, expected: Demonstrations) -> None:
    np.testing.assert_array_equal(found.actions, expected.actions)
    np.testing.assert_array_equal(found.rewards, expected.rewards)
    np.testing.assert_array_equal(found.episode_offsets, expected.episode_offsets)
    np.testing.assert_array_equal(found.action_low, expected.action_low)
    np.testing.assert_array_equal(found.action_high, expected.action_high)
    assert found.observations.keys() == expected.observations.keys()
    for key, value in expected.observations.items():
        np.testing.assert_array_equal(found.observations[key], value)
        assert found.observations[key].dtype == value.dtype
    if expected.final_observations is None:
        assert found.final_observations is None
    else:
        assert found.final_observations is not None
        for key, value in expected.final_observations.items():
            np.testing.assert_array_equal(found.final_observations[key], value)
    assert found.meta == expected.meta


VARIANTS = {
    "state": make_demos,
    "both": both_kinds,
    "pixels": only_pixels,
    "no final row": lambda: make_demos(final_observations=None),
    "unbounded": lambda: make_demos(action_high=np.full(2, np.inf, np.float32)),
}
variants = pytest.mark.parametrize("variant", VARIANTS)


@variants
@pytest.mark.parametrize("compress", [True, False])
def test_npz_round_trip(tmp_path, variant, compress):
    demos = VARIANTS[variant]()
    write_npz(demos, tmp_path / "a.npz", compress)
    found = load_demonstrations(tmp_path / "a.npz")
    assert_same(found, demos)
    np.testing.assert_array_equal(found.terminated, demos.terminated)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["actions"], demos.actions)


@variants
@pytest.mark.parametrize("compression", [True, False])
def test_minari_round_trip(tmp_path, variant, compression):
    demos = VARIANTS[variant]()
    folder = write_minari(demos, "decisive/test/set-v0", tmp_path, compression=compression)
    found = load_demonstrations(folder)
    assert_same(found, demos)
    np.testing.assert_array_equal(found.terminated, demos.terminated)
    assert list(tmp_path.rglob(".*")) == []


@variants
def test_robomimic_round_trip(tmp_path, variant):
    demos = VARIANTS[variant]()
    write_robomimic(demos, tmp_path / "a.hdf5")
    found = load_demonstrations(tmp_path / "a.hdf5")
    assert_same(found, demos)
    np.testing.assert_array_equal(found.terminated, demos.terminated)


@pytest.mark.parametrize("variant", ["state", "both", "pixels"])
def test_minari_itself_opens_what_we_write(tmp_path, monkeypatch, variant):
    import minari

    demos = VARIANTS[variant]()
    write_minari(demos, "decisive/test/set-v0", tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert list(minari.list_local_datasets()) == ["decisive/test/set-v0"]
    dataset = minari.load_dataset("decisive/test/set-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (3, 10)
    assert "EpisodeData" in repr(dataset[0])
    for index, episode in enumerate(dataset):
        rows = demos.episode(index)
        np.testing.assert_array_equal(episode.actions, demos.actions[rows])
        seen = episode.observations
        for key, value in demos.observations.items():
            found = seen[key] if variant == "both" else seen
            assert len(found) == len(episode.actions) + 1
            np.testing.assert_array_equal(found[:-1], value[rows])
            assert dataset.observation_space.contains(
                {k: v[0] for k, v in seen.items()} if variant == "both" else seen[0]
            )
        assert bool(episode.terminations[-1]) == (index % 2 == 0)
        assert bool(episode.truncations[-1]) == (index % 2 == 1)
    assert load_demonstrations("decisive/test/set-v0").n_episodes == 3


def test_a_known_environment_is_stored_with_its_options(tmp_path, monkeypatch):
    import minari

    demos = make_demos(meta={"env": "CartPole-v1", "env_options": {"sutton_barto_reward": True}})
    write_minari(demos, "decisive/cart-v0", tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    spec = minari.load_dataset("decisive/cart-v0").env_spec
    assert spec.id == "CartPole-v1"
    assert spec.kwargs["sutton_barto_reward"] is True


def test_minari_names_are_found_listed_and_not_overwritten(tmp_path):
    demos = make_demos()
    folder = write_minari(demos, "decisive/test/set-v0", tmp_path)
    assert find_minari("decisive/test/set-v0", tmp_path) == folder
    with pytest.raises(ValueError, match=r"local data sets in .*: decisive/test/set-v0"):
        find_minari("decisive/other-v0", tmp_path)
    with pytest.raises(ValueError, match="exists"):
        write_minari(make_demos((1,)), "decisive/test/set-v0", tmp_path)
    assert read_minari(folder).n_episodes == 3
    write_minari(make_demos((1,)), "decisive/test/set-v0", tmp_path, overwrite=True)
    assert read_minari(folder).n_episodes == 1


@pytest.mark.parametrize("name", ["noversion", "../out-v0", "a b-v0", "", "/tmp/x-v0"])
def test_malformed_minari_ids_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="data set id must be like"):
        write_minari(make_demos(), name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_writing_minari_leaves_the_environment_variable_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    write_minari(make_demos(), "decisive/set-v0", tmp_path)
    assert "MINARI_DATASETS_PATH" not in os.environ


def test_damaged_minari_metadata_is_told(tmp_path):
    folder = write_minari(make_demos(), "decisive/set-v0", tmp_path)
    path = folder / "data" / "metadata.json"
    good = json.loads(path.read_text())
    for change, said in (
        ({"total_episodes": 0}, "at least 1"),
        ({"total_episodes": 2}, "metadata says 2 episodes, the file holds 3"),
        ({"data_format": "arrow"}, "arrow"),
        ({"action_space": '{"type": "Discrete"}'}, "Box"),
        ({"action_space": "["}, "Box"),
        ({"action_space": '{"type": "Box", "low": [0], "high": [1]}'}, r"\(2,\)"),
        ({"decisive": "{"}, "JSON"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(ValueError, match=said) as caught:
            read_minari(folder)
        assert "\n" not in str(caught.value)
    path.write_text("[]")
    with pytest.raises(ValueError, match="JSON object"):
        read_minari(folder)
    path.unlink()
    with pytest.raises(ValueError, match=r"no metadata\.json"):
        read_minari(folder)


def test_minari_actions_outside_the_space_are_clipped_and_counted(tmp_path):
    folder = write_minari(make_demos(), "decisive/set-v0", tmp_path, compression=False)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/actions"][0, 0] = 3.0
    found = read_minari(folder)
    assert found.actions.max() <= 1
    assert found.meta["clipped"] == 1


def test_episodes_with_missing_observations_are_refused(tmp_path):
    folder = write_minari(make_demos(), "decisive/set-v0", tmp_path, compression=False)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/observations"].resize((5, 4))
    with pytest.raises(ValueError, match="episode 1: 5 observations for 5 actions"):
        read_minari(folder)


def test_robomimic_subsets_and_foreign_files(tmp_path):
    path = tmp_path / "foreign.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"robots": "x"}})
        for k in (0, 2, 10):
            group = data.create_group(f"demo_{k}")
            group["actions"] = np.full((3, 2), k / 10)
            group["obs/b_eef"] = np.full((3, 2), 2.0)
            group["obs/a_object"] = np.full((3, 1), 1.0)
            group["obs/camera"] = np.zeros((3, 8, 8, 3), np.uint8)
        file["mask/train"] = np.array([b"demo_0", b"demo_10"])
    demos = load_demonstrations(path)
    assert demos.actions[::3, 0].tolist() == [0, np.float32(0.2), 1]
    assert demos.observations["state"][0].tolist() == [1, 2, 2]
    assert demos.observations["pixels"].shape == (9, 8, 8, 3)
    assert demos.final_observations is None
    assert demos.meta["env"] == "Lift"
    assert demos.meta["observation_keys"] == ["a_object", "b_eef", "camera"]
    assert read_robomimic(path, mask="train").actions[::3, 0].tolist() == [0, 1]
    with pytest.raises(ValueError, match="no mask 'valid'"):
        read_robomimic(path, mask="valid")


def test_our_robomimic_masks_are_written(tmp_path):
    write_robomimic(make_demos(), tmp_path / "a.hdf5", masks={"valid": [1]})
    assert read_robomimic(tmp_path / "a.hdf5", mask="valid").lengths.tolist() == [5]
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert file["data"].attrs["total"] == 10
        assert file["data/demo_1"].attrs["num_samples"] == 5
        assert json.loads(file["data"].attrs["env_args"])["env_name"] == "none/Test-v0"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"timeouts": None, "episode_offsets": None}, "neither 'timeouts' nor 'episode_offsets'"),
        ({"actions": None}, "no array 'actions'"),
        ({"rewards": np.zeros(9)}, "rewards must be"),
        ({"timeouts": np.zeros(3, np.bool_)}, "timeouts must be"),
        ({"episode_offsets": np.array([0, 4, 9])}, "episode_offsets"),
        ({"episode_offsets": np.array([[0, 10]])}, "episode_offsets"),
        ({"action_low": None}, "both"),
        ({"action_low": np.zeros(5)}, r"\(2,\)"),
        ({"meta": np.array("{")}, "JSON"),
        ({"meta": np.array("[1]")}, "object"),
        ({"meta": np.array([1.0])}, "JSON string"),
        ({"observations": np.zeros((10, 2, 2))}, "state"),
        ({"observations": np.full((10, 2), np.inf)}, "infinite"),
        ({"actions": np.zeros(10)}, r"\(N, A\)"),
    ],
)
def test_npz_files_that_do_not_fit_are_refused(tmp_path, changes, said):
    arrays = {**to_arrays(make_demos(final_observations=None)), **changes}
    kept = {name: value for name, value in arrays.items() if value is not None}
    path = tmp_path / "a.npz"
    path.write_bytes(pack_arrays(kept))
    with pytest.raises(ValueError, match=said) as caught:
        load_demonstrations(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_timeouts_and_terminals_cut_episodes(tmp_path):
    arrays = to_arrays(make_demos(final_observations=None))
    del arrays["episode_offsets"]
    arrays["timeouts"][9] = False
    arrays["terminals"][9] = False
    path = tmp_path / "a.npz"
    path.write_bytes(pack_arrays(arrays))
    found = load_demonstrations(path)
    assert found.lengths.tolist() == [3, 5, 2]
    assert found.terminated is not None
    assert found.terminated.tolist() == [True, False, False]


def test_actions_of_another_scale_are_not_clipped_away(tmp_path):
    arrays = to_arrays(make_demos(final_observations=None))
    del arrays["action_low"], arrays["action_high"]
    arrays["actions"] = arrays["actions"] * 100
    path = tmp_path / "a.npz"
    path.write_bytes(pack_arrays(arrays))
    with pytest.raises(ValueError, match="add arrays action_low and action_high"):
        load_demonstrations(path)


def test_object_arrays_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = tmp_path / "a.npz"
    np.savez(path, actions=np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match="object"):
        load_demonstrations(path)
    assert not (tmp_path / "exploded").exists()


def test_zip_bombs_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "bomb.npz"
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**26},), }}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("actions.npy", header + text.ljust(117).encode() + b"\n" + bytes(2**26))
    assert path.stat().st_size < 2**17
    with pytest.raises(ValueError, match="claims"):
        read_arrays(path, max_bytes=2**24)
    # Deflate's own ratio is allowed, a forged size is not.
    data = bytearray(path.read_bytes())
    directory = data.rfind(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="claims 4294967294 bytes"):
        read_arrays(path, MAX_BYTES)


def test_a_header_that_claims_more_than_its_member_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000, 9), }".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("actions.npy", b"\x93NUMPY\x01\x00v\x00" + text.encode() + bytes(64))
    with pytest.raises(ValueError, match="claims shape"):
        read_arrays(path)


@pytest.mark.parametrize("keep", [0, 1, 30, 1000, 20_000])
def test_truncated_npz_is_one_clear_line(tmp_path, keep):
    path = tmp_path / "a.npz"
    path.write_bytes(EXCERPT.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"a\.npz") as caught:
        load_demonstrations(path)
    assert "\n" not in str(caught.value)


def episode(length: int, value: float, terminated: bool = True) -> Episode:
    return Episode(
        {
            "state": np.full((length + 1, 2), value, np.float32)
            + np.arange(length + 1)[:, None] / 10
        },
        np.full((length, 1), value / 10, np.float32),
        np.ones(length, np.float32),
        terminated,
    )


LOW, HIGH = -np.ones(1, np.float32), np.ones(1, np.float32)


def test_a_recording_goes_on_where_it_stopped(tmp_path):
    work = tmp_path / "work"
    recording = Recording(work, {"env": "x", "seed": 1})
    recording.append([episode(3, 1), None, episode(2, 2, False)])
    recording.append([None])
    recording.append([])
    again = Recording(work, {"seed": 1, "env": "x"})
    assert (again.attempts, again.kept, again.failed) == (4, 2, 2)
    again.append([episode(1, 3)])
    demos = again.demonstrations(LOW, HIGH, {"env": "x"})
    assert demos.lengths.tolist() == [3, 2, 1]
    np.testing.assert_allclose(demos.observations["state"][:, 0], [1, 1.1, 1.2, 2, 2.1, 3], 1e-6)
    assert demos.final_observations is not None
    np.testing.assert_allclose(demos.final_observations["state"][:, 0], [1.3, 2.2, 3.1], 1e-6)
    assert demos.terminated is not None
    assert demos.terminated.tolist() == [True, False, True]
    assert demos.meta == {"env": "x", "attempts": 5, "failed_episodes": 2}


def test_half_written_shards_do_not_count(tmp_path):
    recording = Recording(tmp_path, {})
    recording.append([episode(2, 1)])
    (tmp_path / ".shard-00000001-1-1.npz.abc.new").write_bytes(b"PK half")
    assert Recording(tmp_path, {}).attempts == 1


def test_another_recording_is_not_continued(tmp_path):
    Recording(tmp_path, {"env": "x", "seed": 1})
    with pytest.raises(ValueError, match="seed 1, now 2"):
        Recording(tmp_path, {"env": "x", "seed": 2})


def test_a_missing_shard_is_told(tmp_path):
    recording = Recording(tmp_path, {})
    recording.append([episode(2, 1)])
    recording.append([episode(2, 2)])
    next(tmp_path.glob("shard-00000000*")).unlink()
    with pytest.raises(ValueError, match="attempt 0 is missing"):
        Recording(tmp_path, {})


def test_a_finished_recording_is_one_minari_set(tmp_path):
    recording = Recording(tmp_path / "work", {})
    with pytest.raises(ValueError, match="no episode"):
        recording.demonstrations(LOW, HIGH, {})
    recording.append([None, episode(2, 1), episode(4, 2)])
    target = recording.finish("decisive/set-v0", LOW, HIGH, {}, episodes=1, root=tmp_path / "sets")
    assert not (tmp_path / "work").exists()
    assert load_demonstrations(target).lengths.tolist() == [2]
    assert load_demonstrations(target).meta["failed_episodes"] == 1


def test_episodes_of_mismatched_lengths_are_refused():
    with pytest.raises(ValueError, match="expected one more"):
        Episode({"state": np.zeros((2, 1))}, *(np.zeros((2, 1)), np.zeros(2)), True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 actions and 3 rewards"):
        Episode({}, np.zeros((2, 1), np.float32), np.zeros(3, np.float32), True)


def test_the_excerpt_says_where_it_is_from():
    assert "Apache-2.0" in (Path(EXCERPT).parent / "README.md").read_text()
