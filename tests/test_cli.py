"""The command line: verbs, bad input, exit codes."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from decisive import __version__, cli

ROOT = Path(__file__).resolve().parents[1]


def test_help_lists_every_verb_with_one_line(capsys):
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, verb in cli.VERBS.items():
        assert any(line.split()[:1] == [name] and verb.summary in line for line in lines)
    assert cli.main([]) == 0
    assert cli.main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_setup_and_package_agree_on_the_version():
    assert f'version="{__version__}"' in (ROOT / "setup.py").read_text()


@pytest.mark.parametrize(("name", "verb"), cli.VERBS.items(), ids=cli.VERBS)
def test_every_verb_has_a_main_and_help_with_an_example(name, verb, capsys):
    module = importlib.import_module(verb.module)
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert not stop.value.code
    assert f"decisive {name}" in capsys.readouterr().out


def test_help_loads_neither_torch_nor_a_simulator():
    code = (
        "import sys; from decisive.cli import main; main(['--help'])\n"
        "heavy = {'torch', 'pybullet', 'gymnasium', 'numpy', 'tyro', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_unknown_verb_names_the_known_ones(capsys):
    assert cli.main(["evalute"]) == 2
    error = capsys.readouterr().err
    assert "'evalute'" in error
    assert "evaluate" in error
    assert error.count("\n") == 1


def refused(capsys, *words):
    """Run a bad command; its one line on stderr."""
    assert cli.main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith(f"decisive {words[0]}: ")
    assert captured.out == ""
    return captured.err


PARTICLE = ("evaluate", "--env", "decisive/Particle-v0")


def test_unknown_environment_lists_the_known(capsys):
    error = refused(capsys, "evaluate", "--env", "decisive/Blockpush-v0", "--policy", "random")
    assert "did you mean 'decisive/BlockPush-v0'" in error
    assert "decisive/Particle-v0" in error


def test_missing_module_of_an_environment_is_one_line(capsys):
    error = refused(capsys, "evaluate", "--env", "no_such_module:A-v0", "--policy", "random")
    assert "no_such_module" in error


def test_unknown_option_lists_the_known_with_defaults(capsys):
    error = refused(capsys, *PARTICLE, "--policy", "random", "--set", "ndims=3")
    assert "did you mean 'n_dims'" in error
    assert "goal_order=fixed" in error


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("n_dims=two", "must be int"),
        ("n_dims=1.5", "must be int"),
        ("n_dims=true", "must be int"),
        ("goal_order=random", "one of 'fixed', 'any'"),
        ("n_dims", "name=value"),
        ("=3", "name=value"),
        ("n_dims=0", "at least 1"),
        ("max_episode_steps=x", "int or none"),
    ],
)
def test_option_of_the_wrong_type_says_what_was_expected(setting, expected, capsys):
    assert expected in refused(capsys, *PARTICLE, "--policy", "random", "--set", setting)


def test_zero_episodes_and_workers_are_refused(capsys):
    assert "episodes" in refused(capsys, *PARTICLE, "--policy", "random", "--episodes", "0")
    assert "workers" in refused(capsys, *PARTICLE, "--policy", "random", "--workers", "0")
    assert "seed" in refused(capsys, *PARTICLE, "--policy", "random", "--seed", "-1")


def test_missing_and_misspelt_arguments_are_one_line(capsys):
    error = refused(capsys, *PARTICLE, "--polcy", "random")
    assert "--policy" in error
    assert "--polcy" in error
    assert "│" not in error
    assert "invalid choice" in refused(
        capsys, *PARTICLE, "--policy", "expert", "--expert-mode", "lazy"
    )


def test_unwritable_output_is_found_before_any_episode(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    out = tmp_path / "file" / "results.json"
    refused(capsys, *PARTICLE, "--policy", "random", "--out", str(out))
    refused(capsys, *PARTICLE, "--policy", "random", "--out", str(tmp_path))
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_film_needs_an_mp4_name(tmp_path, capsys):
    words = (*PARTICLE, "--policy", "random", "--video", str(tmp_path / "film.gif"))
    assert ".mp4" in refused(capsys, *words)
    words = (*PARTICLE, "--policy", "random", "--video", str(tmp_path / "f.mp4"))
    assert "at least one" in refused(capsys, *words, "--video-episodes", "0")


def test_environment_without_an_expert_says_so(capsys):
    error = refused(capsys, "evaluate", "--env", "CartPole-v1", "--policy", "expert")
    assert "CartPole-v1 has no scripted expert" in error


def test_evaluate_prints_one_json_object_and_writes_the_same(tmp_path, capsys):
    out = tmp_path / "results.json"
    words = [*PARTICLE, "--policy", "expert", "--episodes", "3", "--json", "--out", str(out)]
    assert cli.main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert printed["command"].startswith("decisive evaluate --env decisive/Particle-v0")
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_evaluate_prints_a_table_and_a_comparison(capsys):
    words = [*PARTICLE, "--policy", "expert", "--compare", "random", "--episodes", "4"]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "100.0 [51.0, 100.0]" in printed
    assert "McNemar exact p = 0.125" in printed


def test_an_interrupt_ends_with_status_130(monkeypatch, capsys):
    import decisive.evaluate

    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(decisive.evaluate, "main", interrupted)
    assert cli.main(["evaluate"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_python_dash_m_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "decisive", "nonsense"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_errors_of_gymnasium_are_one_line_and_bugs_are_not_hidden(monkeypatch, capsys):
    import gymnasium

    def raising(error):
        def main(words):
            raise error

        return main

    broken = gymnasium.error.DependencyNotInstalled("pygame is not installed")
    monkeypatch.setattr("decisive.evaluate.main", raising(broken))
    assert cli.main(["evaluate"]) == 2
    assert capsys.readouterr().err == "decisive evaluate: pygame is not installed\n"
    monkeypatch.setattr("decisive.evaluate.main", raising(KeyError("ours")))
    with pytest.raises(KeyError):
        cli.main(["evaluate"])
