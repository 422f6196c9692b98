"""`decisive train`: from demonstrations to a checkpoint that evaluates and explains itself."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents import load_policy
from decisive import cli
from decisive.benchmarks.recipes import RECIPES, TASKS, find_recipe
from decisive.episodes import resettle
from decisive.options import make_env, merged, nested_options
from decisive.recording import RecordConfig, record
from decisive.training import Selection
from learning.demonstrations import concatenate
from learning.npz_format import write_npz

ROOT = Path(__file__).resolve().parents[1]
# Human demonstrations whose file names no environment.
HUMAN = ROOT / "tests" / "data" / "door_excerpt.npz"


@pytest.fixture(scope="module")
def particle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("particle")
    demos = record(RecordConfig("decisive/Particle-v0", episodes=12), folder / "staging")
    write_npz(demos, folder / "particle.npz")
    return folder / "particle.npz"


def train(*words):
    return cli.main(["train", *map(str, words)])


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_trained_policy_evaluates_the_same_with_any_number_of_workers(particle, tmp_path, capsys):
    out = tmp_path / "run"
    words = ("--data", particle, "--method", "mdn", "--steps", "40", "--selection-episodes", "2")
    assert train(*words, "--out", out, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["step"] == 40
    assert told["folder"] == str(out / "best")
    base = ["evaluate", "--env", "decisive/Particle-v0", "--policy", str(out), "--episodes", "4"]
    rows = []
    for workers in ("1", "2"):
        assert cli.main([*base, "--workers", workers, "--json"]) == 0
        rows.append(json.loads(capsys.readouterr().out)["per_episode"])
    assert rows[0] == rows[1]
    card = (out / "best" / "README.md").read_text()
    assert "decisive train --data" in card
    assert "12 episodes, 600 actions" in card
    assert "CC0-1.0" in card
    assert "40 steps" in card
    assert "## Limits" in card
    assert "stream `select`" in card
    assert config_of(out / "best")["training"]["command"].startswith("decisive train")


def test_settings_reach_the_policy_and_the_training(particle, tmp_path):
    out = tmp_path / "run"
    words = ("--data", particle, "--method", "ibc", "--out", out, "--selection-episodes", "0")
    settings = ("--set-policy", "width=16", "--set-policy", "dfo.n_samples=32")
    training = ("--set-train", "batch_size=8", "--set-train", "lr=0.01", "--seed", "7")
    assert train(*words, *settings, *training, "--steps", "3", "--episodes", "5") == 0
    config = config_of(out / "last")
    assert config["config"]["width"] == 16
    assert config["config"]["dfo"]["n_samples"] == 32
    assert config["training"]["train"]["batch_size"] == 8
    assert config["training"]["train"]["lr"] == 0.01
    assert config["training"]["train"]["seed"] == 7
    assert config["training"]["episodes"] == 5
    assert not (out / "best").exists()


def test_a_recipe_gives_what_the_command_line_does_not(particle, tmp_path):
    out = tmp_path / "run"
    words = ("--data", particle, "--recipe", "particle-2-ibc", "--out", out)
    assert train(*words, "--steps", "2", "--selection-episodes", "0") == 0
    config = config_of(out / "last")
    recipe = find_recipe("particle-2-ibc")
    assert config["method"] == "ibc"
    plain = json.loads(json.dumps(dict(recipe.policy)))
    assert plain
    assert merged(config["config"], plain) == config["config"]
    assert config["training"]["train"]["cpu_seconds"] is None
    assert config["training"]["train"]["batch_size"] == recipe.train["batch_size"]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(particle, tmp_path):
    weights = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        words = ("--data", particle, "--method", "mse", "--steps", "3", "--seed", seed)
        assert train(*words, "--selection-episodes", "0", "--out", tmp_path / name) == 0
        weights.append((tmp_path / name / "last" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_a_finished_run_is_not_trained_again_unless_afresh(particle, tmp_path, capsys):
    words = ("--data", particle, "--method", "mse", "--steps", "3", "--selection-episodes", "0")
    out = tmp_path / "run"
    assert train(*words, "--out", out) == 0
    first = (out / "train_state.safetensors").stat().st_mtime_ns
    assert train(*words, "--out", out) == 0
    assert (out / "train_state.safetensors").stat().st_mtime_ns == first
    assert train(*words, "--out", out, "--seed", "5") == 2
    assert "holds a run with other config" in capsys.readouterr().err
    assert train(*words, "--out", out, "--seed", "5", "--fresh") == 0


def test_several_data_sets_are_joined_and_their_worlds_take_turns(tmp_path):
    base = RecordConfig("decisive/BlockPush-v0", episodes=2)
    other = replace(base, options={"max_episode_steps": 90})
    demos = [record(c, tmp_path / f"staging{i}") for i, c in enumerate((base, other))]
    selection = Selection.of(concatenate(demos), 4)
    assert selection is not None
    assert selection.worlds == [(base.env, {}), (base.env, {"max_episode_steps": 90})]
    again = Selection.of(concatenate([demos[0], demos[0]]), 4)
    assert again is not None
    assert again.worlds == [(base.env, {})]
    assert Selection.of(demos[0], 0) is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--method", "lstm"], "known: ibc"),
        ([], "name a method"),
        (["--recipe", "nope"], "block-push-ibc"),
        (["--recipe", "block-push-ibc", "--method", "mse"], "trains ibc, not mse"),
        (["--method", "mse", "--set-policy", "widht=3"], "known: "),
        (["--method", "mse", "--set-policy", "width"], "name=value"),
        (["--method", "mse", "--set-policy", "width=0"], "width"),
        (["--method", "mse", "--set-train", "rate=3"], "unknown training setting"),
        (["--method", "mse", "--set-train", "batch_size=many"], "must be int"),
        (["--method", "mse", "--steps", "0"], "steps"),
        (["--method", "mse", "--episodes", "99"], "99"),
        (["--method", "mse", "--data", "no-such-v0"], "no-such-v0"),
        (["--method", "mse", "--selection-episodes", "-1"], "selection episodes"),
    ],
)
def test_bad_trainings_are_one_line_and_write_nothing(words, expected, particle, tmp_path, capsys):
    out = tmp_path / "run"
    assert train("--data", particle, "--out", out, *words) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert not (out / "last").exists()


def test_a_policy_that_does_not_fit_the_environment_is_told_so(particle, tmp_path, capsys):
    out = tmp_path / "run"
    words = ("--data", particle, "--method", "mse", "--steps", "1", "--selection-episodes", "0")
    assert train(*words, "--out", out) == 0
    capsys.readouterr()
    base = ["evaluate", "--policy", str(out), "--episodes", "1", "--env"]
    assert cli.main([*base, "decisive/Particle-v0", "--set", "n_dims=3"]) == 2
    assert "acts in 2 dimensions" in capsys.readouterr().err
    assert cli.main([*base, "decisive/Particle-v0", "--set", "hide_velocity=true"]) == 2
    assert "needs the observation 'state' of shape (8,)" in capsys.readouterr().err
    (out / "last" / "model.safetensors").write_bytes(b"broken")
    assert cli.main([*base, "decisive/Particle-v0"]) == 2
    error = capsys.readouterr().err
    assert "model.safetensors" in error
    assert error.count("\n") == 1


def test_settings_that_leave_the_network_alone_can_be_changed_afterwards(
    particle, tmp_path, capsys
):
    out = tmp_path / "run"
    words = ("--data", particle, "--method", "ibc", "--steps", "5", "--selection-episodes", "0")
    assert train(*words, "--set-policy", "width=16", "--out", out) == 0
    capsys.readouterr()
    base = ["evaluate", "--env", "decisive/Particle-v0", "--policy", str(out), "--json"]
    base += ["--episodes", "1", "--stream", "select"]
    assert cli.main([*base, "--set-policy", "dfo.n_samples=16"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["policy_settings"] == {"dfo": {"n_samples": 16}}
    assert told["stream"] == "select"
    changed = resettle(load_policy(out), {"dfo": {"n_samples": 16}})
    assert changed.config.dfo.n_samples == 16
    assert changed.config.dfo.n_iterations == load_policy(out).config.dfo.n_iterations
    for name, weight in load_policy(out).state_dict().items():
        assert weight.equal(changed.state_dict()[name])
    assert not changed.training
    assert cli.main([*base, "--set-policy", "width=32"]) == 2
    assert "change the network" in capsys.readouterr().err
    assert cli.main([*base, "--set-policy", "widht=32"]) == 2
    assert "unknown settings widht" in capsys.readouterr().err
    assert cli.main([*base, "--policy", "random", "--set-policy", "width=3"]) == 2
    assert "for learned policies" in capsys.readouterr().err


def test_human_demonstrations_train_without_an_environment(tmp_path, capsys):
    out = tmp_path / "door"
    words = ("--data", HUMAN, "--method", "mse", "--steps", "5", "--out", out)
    assert train(*words) == 0
    assert "no episodes" in capsys.readouterr().out
    assert config_of(out / "last")["spec"]["action_dim"] == 28


def test_every_recipe_is_one_that_its_policy_and_task_take():
    from agents import POLICIES
    from agents.config import config_from_dict
    from learning.loop import TrainConfig

    for name, recipe in RECIPES.items():
        assert name == f"{recipe.task}-{recipe.method}"
        config_from_dict(POLICIES[recipe.method].config_class, dict(recipe.policy))
        TrainConfig(**recipe.train)
    budgets = {r.task: set() for r in RECIPES.values()}
    for recipe in RECIPES.values():
        budgets[recipe.task].add(recipe.train["cpu_seconds"])
    assert all(len(seconds) == 1 for seconds in budgets.values()), "a starved baseline"


@pytest.mark.parametrize("name", TASKS)
def test_every_task_of_the_recipes_can_be_made(name):
    env = make_env(TASKS[name].env, TASKS[name].options)
    assert isinstance(env.action_space.shape, tuple)
    env.close()


def test_dotted_names_nest_and_merge():
    words = ["width=64", "dfo.n_samples=256", "dfo.decay=0.5", "inference=langevin"]
    tree = nested_options(words)
    assert tree == {
        "width": 64,
        "dfo": {"n_samples": 256, "decay": 0.5},
        "inference": "langevin",
    }
    base = {"dfo": {"n_samples": 1, "noise_std": 0.2}, "depth": 2}
    assert merged(base, tree)["dfo"] == {"n_samples": 256, "noise_std": 0.2, "decay": 0.5}
    assert base == {"dfo": {"n_samples": 1, "noise_std": 0.2}, "depth": 2}
    for bad in ("a.=1", ".a=1", "a..b=1"):
        with pytest.raises(ValueError, match="name=value"):
            nested_options([bad])
    with pytest.raises(ValueError, match="at once"):
        nested_options(["a=1", "a.b=2"])


@pytest.mark.slow
def test_two_processes_train_by_torchrun(particle, tmp_path):
    out = tmp_path / "run"
    words = ["--data", str(particle), "--method", "mse", "--steps", "4", "--out", str(out)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "decisive", "train", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("4 steps in") == 1
    assert config_of(out / "best")["training"]["step"] == 4


def test_selection_scores_are_reproducible_and_higher_for_the_better(particle):
    from agents import make_policy
    from learning.demonstrations import load_demonstrations

    demos = load_demonstrations(particle)
    policy = make_policy("mse", demos, {"width": 8})
    selection = Selection.of(demos, 2)
    assert selection is not None
    first = selection(policy)
    assert 0.0 <= first <= 1.0
    assert selection(policy) == first
    assert policy.training
    selection.close()
    assert np.isfinite(first)
