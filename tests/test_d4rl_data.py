"""D4RL's HDF5, Minari's D4RL sets, and the names that tell an environment.

D4RL's files are not at hand: those here are written in the same schema, with the human door
demonstrations or with random numbers. No test uses a network: where a download is tested, Minari's
function is replaced by one that fails or that puts a locally written data set in place.
"""

import json
import pickle
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_demonstrations import DATA, EXCERPT

from decisive import cli
from decisive.data_files import is_file_name
from learning import minari_store
from learning.d4rl_tasks import TASKS, dataset_of_name, environment_of_name
from learning.demonstrations import load_demonstrations
from learning.minari_format import read_minari
from learning.npz_format import read_arrays

SIZES = {task.name: (task.n_obs, task.n_actions) for task in TASKS if not task.options}
SLIDER = ["microwave", "kettle", "light switch", "slide cabinet"]
BURNER = ["microwave", "kettle", "bottom burner", "light switch"]


@pytest.fixture(autouse=True)
def own_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    monkeypatch.delenv("MINARI_REMOTE", raising=False)
    monkeypatch.chdir(tmp_path)


def flat_arrays(n_obs=39, n_actions=28, lengths=(4, 3), **changes):
    """Random arrays in D4RL's schema; the first episode ends by itself; None leaves one out."""
    rng = np.random.default_rng(0)
    n = sum(lengths)
    ends = np.cumsum(lengths) - 1
    terminals, timeouts = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    terminals[ends[0]], timeouts[ends[1:]] = True, True
    arrays = {
        "observations": rng.normal(size=(n, n_obs)),
        "actions": rng.uniform(-1, 1, (n, n_actions)),
        "rewards": rng.normal(size=n),
        "terminals": terminals,
        "timeouts": timeouts,
        "infos/qpos": rng.normal(size=(n, 30)),
        "infos/qvel": rng.normal(size=(n, 30)),
        **changes,
    }
    return {name: value for name, value in arrays.items() if value is not None}


def write_d4rl(path, arrays):
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file.create_dataset(name, data=value, compression="gzip")
        file["metadata/algorithm"] = b"human"
    return path


def as_d4rl(source, path):
    """The arrays of an .npz in D4RL's schema."""
    found = read_arrays(source)
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    arrays = {name: found[name] for name in names if name in found}
    arrays.setdefault("terminals", np.zeros(len(arrays["actions"]), np.bool_))
    return write_d4rl(path, arrays)


def assert_equal_rows(found, expected):
    np.testing.assert_array_equal(found.observations["state"], expected.observations["state"])
    np.testing.assert_array_equal(found.actions, expected.actions)
    np.testing.assert_array_equal(found.rewards, expected.rewards)
    np.testing.assert_array_equal(found.episode_offsets, expected.episode_offsets)
    assert found.meta["clipped"] == expected.meta["clipped"]


def refusal(path):
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        load_demonstrations(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_human_door_excerpt_in_d4rls_schema_reads_equal(tmp_path):
    path = as_d4rl(EXCERPT, tmp_path / "door-human-v1.hdf5")
    found, expected = load_demonstrations(path), load_demonstrations(EXCERPT)
    assert_equal_rows(found, expected)
    assert found.meta["format"] == "d4rl"
    assert found.meta["file"] == "door-human-v1.hdf5"
    assert found.meta["d4rl_dataset"] == "door-human-v1"
    assert found.meta["env"] == "decisive/AdroitDoor-v0"
    assert found.final_observations is None
    # A file name that tells nothing leaves the environment open.
    assert "env" not in expected.meta


@pytest.mark.data
def test_the_human_door_demonstrations_keep_their_numbers_in_d4rls_schema(tmp_path):
    source = DATA / "adroit_dapg" / "door-human_demos.npz"
    if not source.is_file():
        pytest.skip("the door demonstrations are absent (set DECISIVE_DATA)")
    expected = load_demonstrations(source)
    found = load_demonstrations(as_d4rl(source, tmp_path / "door-v0_demos_clipped.hdf5"))
    assert (found.n_episodes, len(found), found.meta["clipped"]) == (25, 6729, 10_595)
    assert_equal_rows(found, expected)
    assert found.terminated is not None
    assert not found.terminated.any()
    for demos in (found, expected):
        assert demos.meta["env"] == "decisive/AdroitDoor-v0"
    assert found.meta["d4rl_dataset"] == "door-human-v0"


@pytest.mark.data
@pytest.mark.parametrize("task", ["pen", "hammer", "door", "relocate"])
def test_rollouts_name_their_environment(task):
    source = DATA / "adroit_expert_rollouts" / f"{task}-expert_rollouts.npz"
    if not source.is_file():
        pytest.skip("the Adroit rollouts are absent (set DECISIVE_DATA)")
    assert load_demonstrations(source).meta["env"] == f"decisive/Adroit{task.title()}-v0"


@pytest.mark.parametrize("task", SIZES)
def test_every_task_is_read_in_d4rls_schema(tmp_path, task):
    n_obs, n_actions = SIZES[task]
    kind = "partial" if task == "kitchen" else "human"
    # The kitchen files hold terminals as numbers, and one vector `infos`.
    changes = {"infos/qpos": None, "infos/qvel": None, "infos": np.arange(7)}
    arrays = flat_arrays(n_obs, n_actions, **(changes if task == "kitchen" else {}))
    arrays["terminals"] = arrays["terminals"].astype(np.float32)
    demos = load_demonstrations(write_d4rl(tmp_path / f"{task}-{kind}-v1.h5", arrays))
    assert demos.observations["state"].shape == (7, n_obs)
    assert demos.actions.shape == (7, n_actions)
    assert demos.lengths.tolist() == [4, 3]
    assert demos.terminated is not None
    assert demos.terminated.tolist() == [True, False]
    assert demos.meta["env"] == next(t.env for t in TASKS if t.name == task)
    assert demos.meta["env_options"] == ({"tasks": "partial"} if task == "kitchen" else {})


def test_terminals_and_timeouts_cut_and_an_unfinished_episode_is_kept(tmp_path):
    arrays = flat_arrays(lengths=(3, 2, 4))
    arrays["timeouts"][-1] = False
    demos = load_demonstrations(write_d4rl(tmp_path / "a.hdf5", arrays))
    assert demos.lengths.tolist() == [3, 2, 4]
    assert demos.terminated is not None
    assert demos.terminated.tolist() == [True, False, False]


def test_next_observations_give_the_final_ones(tmp_path):
    following = np.random.default_rng(1).normal(size=(7, 39)).astype(np.float32)
    path = write_d4rl(tmp_path / "a.hdf5", flat_arrays(next_observations=following))
    final = load_demonstrations(path).final_observations
    assert final is not None
    np.testing.assert_array_equal(final["state"], following[[3, 6]])
    write_d4rl(path, flat_arrays(next_observations=following[:, 1:]))
    assert "next_observations must be (7, 39)" in refusal(path)


def test_actions_a_little_too_large_are_clipped_and_counted(tmp_path):
    arrays = flat_arrays()
    arrays["actions"][0, :3] = (1.5, -1.25, 1.0)
    demos = load_demonstrations(write_d4rl(tmp_path / "a.hdf5", arrays))
    assert demos.actions[0, :3].tolist() == [1, -1, 1]
    assert demos.meta["clipped"] == 2
    assert demos.meta["clipped_share"] == 2 / (7 * 28)
    assert demos.meta["clipped_max"] == 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"timeouts": None}, "seams would teach jumps"),
        ({"observations": None}, "no 'observations'"),
        ({"actions": None, "rewards": None}, "no 'actions', 'rewards'"),
        ({"terminals": None}, "no 'terminals'"),
        ({"observations": np.zeros((6, 39))}, "6 rows, expected 7"),
        ({"rewards": np.zeros(6)}, "rewards must be (7,)"),
        ({"timeouts": np.zeros(8, np.bool_)}, "timeouts must be (7,)"),
        ({"actions": np.zeros(7)}, "/actions must have 2 axes"),
        ({"observations": np.zeros((7, 3, 3))}, "/observations must have 2 axes"),
        ({"actions": np.full((7, 28), 9.0)}, "100% of the action values lie outside [-1, 1]"),
        ({"actions": np.full((7, 28), np.nan)}, "actions is NaN or infinite in episode 0, step 0"),
        ({"actions": np.full((7, 28), np.inf)}, "actions is NaN or infinite in episode 0, step 0"),
        ({"rewards": np.full(7, -np.inf)}, "rewards is NaN or infinite"),
        ({"observations": np.full((7, 39), np.nan)}, "state is NaN or infinite"),
        ({"observations": np.full((7, 39), 1e300)}, "too large for float32"),
        ({"actions": np.array([[b"a"] * 28] * 7)}, "actions must be numbers"),
        ({"actions": np.zeros((7, 28), "c8")}, "must hold plain numbers"),
        ({"observations": np.zeros((0, 39)), "actions": np.zeros((0, 28))}, "must be (0,)"),
    ],
)
def test_d4rl_files_that_do_not_fit_are_refused(tmp_path, changes, said):
    assert said in refusal(write_d4rl(tmp_path / "door-human-v1.hdf5", flat_arrays(**changes)))


def test_object_arrays_and_links_are_refused(tmp_path):
    path = write_d4rl(tmp_path / "a.hdf5", flat_arrays(rewards=None))
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", data=["x"] * 7, dtype=h5py.string_dtype())
    assert "plain numbers" in refusal(path)
    write_d4rl(tmp_path / "b.hdf5", flat_arrays())
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file["rewards"] = h5py.ExternalLink("b.hdf5", "/rewards")
    assert "external link" in refusal(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_one_line(tmp_path, share):
    path = write_d4rl(tmp_path / "a.hdf5", flat_arrays())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "corrupt or truncated HDF5" in refusal(path)


def test_a_pickle_called_npz_is_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.mkdir, (tmp_path / "exploded",)

    path = tmp_path / "door-human_demos.npz"
    path.write_bytes(pickle.dumps({"observations": Bomb()}))
    assert "corrupt or truncated .npz" in refusal(path)
    assert not (tmp_path / "exploded").exists()


def test_hdf5_of_neither_layout_is_told_what_is_read(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["episode_0/actions"] = np.zeros((2, 2))
    said = refusal(tmp_path / "a.hdf5")
    assert "no group 'data' of robomimic's layout and no 'observations' of D4RL's" in said
    assert "episode_0" in said


@pytest.mark.parametrize(
    ("stem", "dataset"),
    [
        ("door-human-v1", "door-human-v1"),
        ("door-v0_demos_clipped", "door-human-v0"),
        ("door-human-v0_demos_clipped", "door-human-v0"),
        ("pen-demos-v0-bc-combined", "pen-cloned-v0"),
        ("pen-v0_expert_clipped", "pen-expert-v0"),
        ("hammer-cloned-v1", "hammer-cloned-v1"),
        ("relocate-expert_rollouts", "relocate-expert"),
        ("kitchen_complete-v0", "kitchen-complete-v0"),
        ("kitchen-mixed-v0", "kitchen-mixed-v0"),
        ("mini_kitchen_microwave_kettle_light_slider-v0", "kitchen-complete-v0"),
        ("kitchen_microwave_kettle_light_slider-v0", "kitchen-partial-v0"),
        ("kitchen_microwave_kettle_bottomburner_light-v0", "kitchen-mixed-v0"),
        ("door_excerpt", None),
        ("my-door-human", None),
        ("kitchen-human", None),
        ("hopper-expert-v2", None),
        ("", None),
    ],
)
def test_names_tell_the_data_set(stem, dataset):
    assert dataset_of_name(stem) == dataset


def test_a_name_counts_only_where_the_sizes_agree(tmp_path):
    assert environment_of_name("pen-human-v1", 45, 24)["env"] == "decisive/AdroitPen-v0"
    assert environment_of_name("pen-human-v1", 39, 28) == {}
    assert environment_of_name("notes", 45, 24) == {}
    assert environment_of_name("kitchen-mixed-v0", 59, 9) == {
        "env": "decisive/FrankaKitchen-v0",
        "env_options": {"layout": "minari", "tasks": "mixed"},
    }
    meta = load_demonstrations(write_d4rl(tmp_path / "pen-human-v1.hdf5", flat_arrays())).meta
    assert not {"env", "d4rl_dataset"} & set(meta)


def test_npz_files_speak_for_themselves_before_their_names_do(tmp_path):
    arrays = {n: v for n, v in flat_arrays().items() if not n.startswith("infos")}
    path = tmp_path / "door-human.npz"
    np.savez(path, **arrays)
    assert load_demonstrations(path).meta["env"] == "decisive/AdroitDoor-v0"
    np.savez(path, **arrays, meta=np.array('{"expert": "me"}'))
    assert load_demonstrations(path).meta == {"expert": "me"}


def test_robomimics_conversion_of_d4rl_names_its_environment(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "door-expert-v1"})
        data["demo_0/actions"] = np.zeros((3, 28))
        data["demo_0/obs/flat"] = np.zeros((3, 39))
    assert load_demonstrations(tmp_path / "a.hdf5").meta["env"] == "decisive/AdroitDoor-v0"


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}{task.n_obs}")
def test_the_sizes_are_those_of_our_environments(task):
    pytest.importorskip("gymnasium_robotics")
    from decisive.options import make_env

    options = {**task.options, "tasks": "mixed"} if task.name == "kitchen" else task.options
    env = make_env(task.env, options)
    assert env.observation_space.shape == (task.n_obs,)
    assert env.action_space.shape == (task.n_actions,)
    env.close()


def write_minari_set(base, dataset_id, spec, n_obs=39, n_actions=28, goals=()):
    """A data set in the schema of Minari's D4RL sets, float64 as they are."""
    rng = np.random.default_rng(0)
    folder = base / dataset_id / "data"
    folder.mkdir(parents=True)
    with h5py.File(folder / "main_data.hdf5", "w") as file:
        for index, length in enumerate((4, 3)):
            group = file.create_group(f"episode_{index}")
            group.attrs["id"], group.attrs["total_steps"] = index, length
            group["actions"] = rng.uniform(-1, 1, (length, n_actions))
            group["rewards"] = rng.normal(size=length)
            group["terminations"] = np.zeros(length, np.bool_)
            group["truncations"] = np.arange(length) == length - 1
            rows = rng.normal(size=(length + 1, n_obs))
            group["observations/observation" if goals else "observations"] = rows
            for goal in goals:
                for kind in ("achieved_goal", "desired_goal"):
                    group[f"observations/{kind}/{goal}"] = np.zeros((length + 1, 2))
            group["infos/qpos"] = rng.normal(size=(length + 1, 30))
    box = {"type": "Box", "dtype": "float64", "shape": [n_actions]}
    box |= {"low": [-1.0] * n_actions, "high": [1.0] * n_actions}
    metadata = {
        "total_episodes": 2,
        "total_steps": 7,
        "data_format": "hdf5",
        "dataset_id": dataset_id,
        "action_space": json.dumps(box),
        "env_spec": spec if isinstance(spec, str) else json.dumps(spec),
    }
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder.parent


@pytest.mark.parametrize("task", ["pen", "hammer", "door", "relocate"])
def test_minaris_adroit_sets_name_our_environment(tmp_path, task):
    spec = {"id": f"AdroitHand{task.title()}-v1", "kwargs": {}}
    folder = write_minari_set(tmp_path / "sets", f"D4RL/{task}/human-v2", spec, *SIZES[task])
    demos = load_demonstrations(f"D4RL/{task}/human-v2")
    assert demos.meta["env"] == f"decisive/Adroit{task.title()}-v0"
    assert demos.meta["env_options"] == {}
    assert demos.meta["dataset_id"] == f"D4RL/{task}/human-v2"
    assert demos.observations["state"].dtype == np.float32
    assert demos.lengths.tolist() == [4, 3]
    assert demos.final_observations is not None
    assert load_demonstrations(folder / "data" / "main_data.hdf5").meta == demos.meta


@pytest.mark.parametrize(
    ("kind", "goals"), [("complete", SLIDER), ("partial", SLIDER), ("mixed", BURNER)]
)
def test_minaris_kitchen_sets_name_tasks_and_layout(tmp_path, kind, goals):
    spec = {"id": "FrankaKitchen-v1", "kwargs": {"tasks_to_complete": goals}}
    write_minari_set(tmp_path / "sets", f"D4RL/kitchen/{kind}-v2", spec, 59, 9, goals)
    demos = load_demonstrations(f"D4RL/kitchen/{kind}-v2")
    assert demos.observations["state"].shape == (7, 59)
    assert demos.meta["env"] == "decisive/FrankaKitchen-v0"
    assert demos.meta["env_options"] == {"layout": "minari", "tasks": kind}


@pytest.mark.parametrize(
    "spec",
    [
        {"id": "AdroitHandPen-v1"},
        {"id": "PointMaze-v3"},
        {"kwargs": [3]},
        {"id": "FrankaKitchen-v1", "kwargs": {"tasks_to_complete": ["microwave"]}},
    ],
)
def test_specifications_of_others_name_no_environment(tmp_path, spec):
    assert "env" not in read_minari(write_minari_set(tmp_path, "x/y-v0", spec)).meta


@pytest.mark.parametrize("spec", ["{", "[1]"])
def test_damaged_specifications_are_one_line(tmp_path, spec):
    with pytest.raises(ValueError, match="env_spec") as caught:
        read_minari(write_minari_set(tmp_path, "x/y-v0", spec))
    assert "\n" not in str(caught.value)


@pytest.fixture
def server(monkeypatch):
    """Pretends that the server of the data sets answers, so that only Minari is asked."""
    monkeypatch.setattr(minari_store, "_check_remote", lambda remote: None)


def test_a_set_that_is_not_local_is_downloaded_and_read(tmp_path, monkeypatch, server, capsys):
    source = write_minari_set(tmp_path / "away", "D4RL/door/human-v2", {"id": "AdroitHandDoor-v1"})
    asked = []

    def download(dataset_id):
        asked.append(dataset_id)
        print("progress")
        shutil.copytree(source, minari_store.minari_root() / dataset_id)

    monkeypatch.setattr("minari.download_dataset", download)
    words = ["data", "info", "D4RL/door/human-v2", "--json"]
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["meta"]["env"] == "decisive/AdroitDoor-v0"
    assert "asking hf://farama-minari" in captured.err
    assert "progress" in captured.err
    assert cli.main(words) == 0
    assert capsys.readouterr().err == ""
    assert asked == ["D4RL/door/human-v2"]
    names = {path.name for path in (tmp_path / "sets").rglob("*")}
    assert names == {"D4RL", "door", "human-v2", "data", "main_data.hdf5", "metadata.json"} | {
        "namespace_metadata.json"
    }


def test_a_failed_download_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, server, capsys):
    write_minari_set(tmp_path / "sets", "D4RL/pen/human-v2", {})
    before = sorted((tmp_path / "sets").rglob("*"))

    def download(dataset_id):
        (minari_store.minari_root() / dataset_id / "data").mkdir(parents=True)
        raise RuntimeError("the line\nbroke")

    monkeypatch.setattr("minari.download_dataset", download)
    assert cli.main(["data", "info", "D4RL/door/human-v2"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    note, line = captured.err.splitlines()
    assert "is not here" in note
    assert "could not be downloaded from hf://farama-minari: the line broke" in line
    assert "D4RL/pen/human-v2" in line
    assert sorted((tmp_path / "sets").rglob("*")) == before


def test_without_a_network_the_line_comes_at_once(tmp_path, monkeypatch, capsys):
    # A closed port of this machine; with no client installed, that is the line instead.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert cli.main(["data", "info", "D4RL/door/human-v2"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "cannot be reached" in captured.err or "not installed" in captured.err
    assert "local data sets in" in captured.err
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize(
    "name", ["decisive/mine-v0", "door-human-v2", "outputs/mine-v0", "a/b", "../x/y-v0", "/x/y-v0"]
)
def test_other_names_are_looked_for_here_alone(tmp_path, monkeypatch, name):
    def refuse(dataset_id, root):
        raise AssertionError("asked a server")

    (tmp_path / "outputs").mkdir()
    monkeypatch.setattr(minari_store, "download_minari", refuse)
    with pytest.raises(ValueError, match="no file, folder or Minari data set"):
        load_demonstrations(name)


def test_info_shows_quartiles_and_the_score(tmp_path, capsys):
    path = as_d4rl(EXCERPT, tmp_path / "door-human-v1.h5")
    assert cli.main(["data", "info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("min ", "q25 ", "median ", "q75 ", "max ", "clipped"))
    assert "D4RL score" in shown
    assert cli.main(["data", "info", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    mean = load_demonstrations(path).rewards.sum() / 2
    expected = 100 * (mean + 56.512833) / (2880.5693087298737 + 56.512833)
    assert told["d4rl_score"] == pytest.approx(expected, rel=1e-4)
    assert cli.main(["data", "info", str(EXCERPT), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["d4rl_score"] is None


def test_h5_is_a_file_name_to_read_and_to_write(tmp_path, capsys):
    assert is_file_name("a.h5")
    path = as_d4rl(EXCERPT, tmp_path / "door-human-v1.h5")
    assert cli.main(["data", "export", str(path), str(tmp_path / "out.h5")]) == 0
    capsys.readouterr()
    again = load_demonstrations(tmp_path / "out.h5")
    assert_equal_rows(again, load_demonstrations(path))
    assert again.meta == load_demonstrations(path).meta
    assert cli.main(["data", "import", str(path), "door-human-v1"]) == 0
    assert load_demonstrations("door-human-v1").meta == again.meta


@pytest.mark.parametrize(
    ("verb", "made"),
    [
        (["train", "--method", "mse", "--steps", "1", "--out", "run", "--data"], "run"),
        (["data", "import"], "sets"),
    ],
)
def test_bad_data_end_a_verb_in_one_line_and_nothing_is_written(tmp_path, capsys, verb, made):
    path = str(write_d4rl(tmp_path / "door-human-v1.hdf5", flat_arrays(actions=np.zeros(7))))
    words = [*verb, path] if verb[0] == "train" else [*verb, path, "mine"]
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert "/actions must have 2 axes" in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / made).exists()


@pytest.mark.parametrize("changes", [{"n_actions": 3}, {"n_obs": 5}], ids=["actions", "state"])
def test_training_refuses_data_of_other_sizes_than_the_environment_they_name(
    tmp_path, capsys, changes
):
    sizes = {"n_obs": 8, "n_actions": 2, **changes}
    arrays = {n: v for n, v in flat_arrays(**sizes).items() if not n.startswith("infos")}
    np.savez(tmp_path / "a.npz", **arrays, meta=np.array('{"env": "decisive/Particle-v0"}'))
    words = ["train", "--data", "a.npz", "--method", "mse", "--steps", "1", "--out", "run"]
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert "the data name decisive/Particle-v0 as their environment" in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
