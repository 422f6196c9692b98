"""Recording demonstrations: clean labels, own seeds, the same data whatever the workers."""

import json
from dataclasses import replace

import minari
import numpy as np
import pytest

from decisive import cli
from decisive.options import make_env
from decisive.recording import RecordConfig, _until, record, record_episode
from learning.demonstrations import load_demonstrations

PUSH = RecordConfig("decisive/BlockPush-v0", expert="diverse", episodes=12, noise=0.002)


@pytest.fixture(autouse=True)
def own_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


@pytest.fixture(scope="module")
def pushes(tmp_path_factory):
    return record(PUSH, tmp_path_factory.mktemp("pushes") / "staging")


def same(first, second):
    assert first.observations.keys() == second.observations.keys()
    for key, value in first.observations.items():
        np.testing.assert_array_equal(value, second.observations[key])
    np.testing.assert_array_equal(first.actions, second.actions)
    np.testing.assert_array_equal(first.rewards, second.rewards)
    np.testing.assert_array_equal(first.episode_offsets, second.episode_offsets)
    assert first.meta["attempts"] == second.meta["attempts"]
    assert first.meta["failed_episodes"] == second.meta["failed_episodes"]


def test_data_do_not_depend_on_the_number_of_workers(pushes, tmp_path):
    same(pushes, record(replace(PUSH, workers=2), tmp_path / "staging"))


def test_meta_tells_what_was_recorded(pushes):
    assert pushes.n_episodes == 12
    meta = pushes.meta
    assert (meta["env"], meta["expert"], meta["noise"]) == (PUSH.env, "diverse", 0.002)
    assert meta["attempts"] == 12 + meta["failed_episodes"]
    env = make_env(PUSH.env)
    assert sum(f["size"] for f in meta["observation_fields"]) == env.observation_space.shape[0]
    assert [f["kind"] for f in meta["action_fields"]] == ["vector"]
    assert pushes.observations["state"].shape[1:] == env.observation_space.shape
    env.close()


def test_labels_are_the_clean_actions_of_an_expert_that_sees_the_noise():
    env = make_env(PUSH.env)
    clean = record_episode(env, "consistent", 0, 0.0)
    noisy = record_episode(env, "consistent", 0, 0.003)
    obs, info = env.reset(seed=0, options={"stream": "record"})
    expert = env.unwrapped.expert(mode="consistent", seed=0)
    np.testing.assert_array_equal(noisy.actions[0], expert.act(obs, info))
    np.testing.assert_array_equal(noisy.actions[0], clean.actions[0])
    np.testing.assert_array_equal(noisy.observations["state"][0], obs)
    # What was executed was not the label: the commanded position is elsewhere.
    step = noisy.observations["state"][1][:2] - noisy.observations["state"][0][:2]
    assert np.abs(step - noisy.actions[0]).max() > 1e-4
    still = clean.observations["state"][1][:2] - clean.observations["state"][0][:2]
    np.testing.assert_allclose(still, clean.actions[0], atol=1e-6)
    env.close()


def test_no_evaluation_seed_starts_like_a_recorded_episode(pushes):
    env = make_env(PUSH.env)
    starts = {row.tobytes() for row in pushes.observations["state"][pushes.episode_offsets[:-1]]}
    assert len(starts) == pushes.n_episodes
    for seed in range(30):
        assert env.reset(seed=seed)[0].tobytes() not in starts
    env.close()


def test_a_recording_that_was_stopped_goes_on(pushes, tmp_path, monkeypatch):
    import decisive.recording as module

    staging = tmp_path / "staging"
    whole = module._record_block
    seen = []

    def stopped(config, first):
        seen.append(first)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return whole(config, first)

    monkeypatch.setattr(module, "_record_block", stopped)
    with pytest.raises(KeyboardInterrupt):
        record(PUSH, staging)
    same(pushes, record(PUSH, staging))
    assert seen == [0, 10, 10]


def test_failed_episodes_are_left_out_and_counted(tmp_path):
    # Too short for the far ones: the expert fails at some seeds.
    config = replace(PUSH, options={"max_episode_steps": 40}, episodes=8, noise=0.0)
    demos = record(config, tmp_path / "staging")
    assert demos.n_episodes == 8
    assert demos.meta["failed_episodes"] > 0
    assert demos.meta["attempts"] == 8 + demos.meta["failed_episodes"]
    assert demos.terminated.all()
    assert demos.lengths.max() <= 40


def test_an_expert_that_always_fails_is_refused(tmp_path):
    config = replace(PUSH, options={"max_episode_steps": 2})
    with pytest.raises(ValueError, match="succeeded in 0 of 50 episodes"):
        record(config, tmp_path / "staging")
    assert list(tmp_path.iterdir()) == [], "what can never be gone on with is not kept"


def test_a_block_is_cut_after_the_last_success_that_is_needed():
    episode = object()
    block = [None, episode, None, episode, None, episode]
    assert _until(block, 1) == block[:2]
    assert _until(block, 2) == block[:4]
    assert _until(block, 9) == block


def test_pixels_are_recorded_as_they_are_seen(tmp_path):
    config = RecordConfig(
        PUSH.env, {"observation": "both", "image_size": (24, 32)}, episodes=1, noise=0.0
    )
    demos = record(config, tmp_path / "staging")
    assert demos.observations["pixels"].shape == (len(demos), 24, 32, 3)
    assert demos.observations["pixels"].dtype == np.uint8
    assert set(demos.observations) == {"state", "pixels"}


def test_verb_writes_a_data_set_that_minari_opens(capsys):
    words = ["record", "--env", "decisive/Particle-v0", "--episodes", "3", "--out", "particle"]
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "particle-v0"
    assert (told["episodes"], told["failed"], told["rows"]) == (3, 0, 150)
    dataset = minari.load_dataset("particle-v0")
    assert dataset.total_episodes == 3
    assert dataset.recover_environment().unwrapped.n_dims == 2
    assert cli.main(words) == 2
    assert "exists" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_verb_writes_files_too(suffix, tmp_path, capsys):
    out = tmp_path / f"particle{suffix}"
    words = ["record", "--env", "decisive/Particle-v0", "--set", "n_dims=3", "--out", str(out)]
    assert cli.main([*words, "--episodes", "2"]) == 0
    demos = load_demonstrations(out)
    assert demos.meta["env_options"] == {"n_dims": 3}
    assert demos.actions.shape == (100, 3)
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    assert cli.main([*words, "--episodes", "2"]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--episodes", "0"], "episodes"),
        (["--workers", "0"], "workers"),
        (["--seed", "-3"], "seed"),
        (["--noise", "-1"], "noise"),
        (["--noise", "nan"], "noise"),
        (["--out", "bad name"], "--out must be"),
        (["--env", "CartPole-v1"], "no scripted expert"),
    ],
)
def test_bad_recordings_are_one_line(words, expected, capsys):
    base = ["record", "--env", "decisive/Particle-v0", "--out", "x", "--episodes", "2"]
    assert cli.main([*base, *words]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1


def test_data_verb_shows_exports_and_imports(tmp_path, capsys):
    out = tmp_path / "particle.npz"
    base = ["record", "--env", "decisive/Particle-v0", "--episodes", "3"]
    assert cli.main([*base, "--out", str(out)]) == 0
    assert cli.main(["data", "import", str(out), "particle", "--license", "CC0-1.0"]) == 0
    assert (
        cli.main(["data", "export", "particle-v0", str(tmp_path / "two.hdf5"), "--episodes", "2"])
        == 0
    )
    capsys.readouterr()
    assert cli.main(["data", "info", str(tmp_path / "two.hdf5"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["episodes"], told["steps"]) == (2, 100)
    assert told["meta"]["license"] == "CC0-1.0"
    assert cli.main(["data", "info", "particle-v0"]) == 0
    printed = capsys.readouterr().out
    assert "decisive/Particle-v0" in printed
    assert "(8,) float32" in printed


def test_a_name_without_a_version_is_found_as_it_was_typed(capsys):
    # The README's first two lines: record --out push-diverse, then data info push-diverse.
    words = ["--env", "decisive/Particle-v0", "--episodes", "2", "--out", "push-diverse"]
    assert cli.main(["record", *words]) == 0
    assert cli.main(["data", "info", "push-diverse"]) == 0
    assert load_demonstrations("push-diverse").n_episodes == 2


def test_import_refuses_an_environment_of_other_spaces(tmp_path, capsys):
    out = tmp_path / "particle.npz"
    words = ["--env", "decisive/Particle-v0", "--episodes", "2", "--out", str(out)]
    assert cli.main(["record", *words]) == 0
    assert cli.main(["data", "import", str(out), "mine", "--env", "decisive/BlockPush-v0"]) == 2
    error = capsys.readouterr().err
    assert "(8,)" in error
    assert "(10,)" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "minari" / "mine-v0").exists()


@pytest.mark.parametrize(
    "meta",
    [
        {"env": 3},
        {"env_options": "slots=2"},
        {"observation_fields": [{"name": 1}]},
        {"action_fields": {"name": "delta_xy"}},
    ],
)
def test_meta_of_other_types_is_refused_where_it_is_read(meta, tmp_path):
    path = tmp_path / "odd.npz"
    np.savez(
        path,
        observations=np.zeros((4, 2)),
        actions=np.zeros((4, 1)),
        rewards=np.zeros(4),
        timeouts=np.array([False, True, False, True]),
        meta=json.dumps(meta),
    )
    with pytest.raises(ValueError, match=f"odd.npz.*meta '{next(iter(meta))}' must be"):
        load_demonstrations(path)


def test_import_can_name_the_environment(tmp_path, capsys):
    out = tmp_path / "arrays.npz"
    rng = np.random.default_rng(0)
    np.savez(
        out,
        observations=rng.normal(size=(20, 12)).astype(np.float32),
        actions=rng.uniform(size=(20, 3)).astype(np.float32),
        rewards=np.zeros(20, np.float32),
        timeouts=np.arange(20) % 10 == 9,
    )
    words = ["data", "import", str(out), "mine", "--env", "decisive/Particle-v0"]
    assert cli.main([*words, "--set", "n_dims=3"]) == 0
    assert load_demonstrations("mine-v0").meta["env_options"] == {"n_dims": 3}
    assert cli.main(["data", "import", str(out), "other", "--set", "n_dims=3"]) == 2
    assert "--set needs --env" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show"], "expected one of info, export, import"),
        (["info", "no-such-data-v0"], "no-such-data-v0"),
        (["export", "no-such-data-v0", "x.txt"], "ending in .npz or .hdf5"),
        (["import", "no-such-file.npz", "x"], "no-such-file.npz"),
    ],
)
def test_bad_data_commands_are_one_line(words, expected, capsys):
    assert cli.main(["data", *words]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1


def test_data_without_an_action_shows_its_usage(capsys):
    assert cli.main(["data"]) == 0
    assert "decisive data export" in capsys.readouterr().out
