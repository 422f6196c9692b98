"""Distilled demonstrations as a policy: `decisive distill --policy`, `decisive train --method
kernel`, and the benchmark's bookkeeping."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distill_cases import bars, waves, write_set

from agents import load_policy
from agents.kernel_ridge import KernelPolicy
from decisive import distill, train
from decisive.benchmarks import distill as benchmark
from decisive.benchmarks import distill_report
from decisive.benchmarks.distill_study import (
    KIP_IMAGES,
    METHODS,
    SIZES,
    Cell,
    chosen_trial,
    core_cells,
    full_cells,
)
from decisive.distill_data import Prepared, prepare, prepare_validation
from learning.distillation import load_distilled
from learning.npz_format import write_npz


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("waves") / "waves.npz"
    write_npz(dataclasses.replace(waves(30), meta={}), path)
    return str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_set(tmp_path_factory.mktemp("bars") / "set", bars(200)))


def told(capsys: Any, *words: str) -> dict[str, Any]:
    assert distill.main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("method", ["random", "label-solve", "kip"])
def test_distilled_demonstrations_are_a_policy(
    demos: str, tmp_path: Path, capsys: Any, method: str
) -> None:
    out = tmp_path / "run"
    words = (demos, "--points", "40", "--method", method, "--policy", "--steps", "20")
    more = ("--depth", "2", "--regulariser", "1e-4", "--batch", "100", "--lr", "0.02")
    found = told(capsys, *words, *more, "--set-policy", "gate=flag", "--out", str(out))
    assert found["policy"] == str(out / "policy")
    policy = load_policy(out / "policy")
    assert isinstance(policy, KernelPolicy)
    assert (policy.config.points, policy.config.depth) == (40, 2)
    assert policy.threshold is not None
    distilled, _ = load_distilled(out / "last")
    assert torch.equal(policy.points, distilled.points)
    held = waves(30, seed=3)
    error = policy.act(held.observations["state"]) - held.actions
    assert 1 - error.var() / held.actions.var() > 0.5
    card = (out / "policy" / "README.md").read_text()
    assert "# Kernel policy from distilled demonstrations" in card
    assert "agents.load_policy" in card


def test_learned_points_and_solved_actions_tell_more_than_random_ones(
    demos: str, capsys: Any
) -> None:
    words = (demos, "--points", "12", "--policy", "--regulariser", "1e-4", "--steps", "150")
    explained = {
        method: told(capsys, *words, "--batch", "200", "--method", method)["explained"]
        for method in ("random", "label-solve", "kip")
    }
    assert explained["random"] < explained["kip"]
    assert explained["random"] < explained["label-solve"]


def test_train_fits_a_kernel_policy_without_steps(demos: str, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "kernel"
    words = ["--data", demos, "--method", "kernel", "--set-policy", "points=60", "--json"]
    assert train.main([*words, "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["step"] == 0
    assert found["best_score"] is None
    (row,) = found["history"]
    assert row["validation/explained"] > 0.7
    assert 0 <= row["validation/beyond"] < 0.2
    policy = load_policy(out)
    assert policy.method == "kernel"
    assert len(policy.points) == 60  # type: ignore[arg-type]
    assert "kernel policy" in (out / "last" / "README.md").read_text()
    assert json.loads((out / "metrics.jsonl").read_text())["step"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set-policy", "gate=hold"), "--set-policy is of --policy"),
        (("--policy", "--held-out", "DEMOS"), "--held-out does not go with --policy"),
        (("--policy", "--zca"), "--zca does not go with --policy"),
        (("--policy", "--kernel", "convnet"), "fully connected kernels: say --kernel fc"),
        (("--policy", "--set-policy", "gate=hold"), "displacements"),
        (("--policy", "--set-policy", "eyes=2"), "unknown settings eyes"),
        (("--policy", "--workers", "0"), "--workers must be at least 1"),
        (("--policy", "--points", "100000"), "points of each class are asked for"),
    ],
)
def test_bad_input_is_one_clear_line(
    demos: str, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "run"
    given = [demos if word == "DEMOS" else word for word in words]
    with pytest.raises((ValueError, OSError), match=message) as caught:
        distill.main([demos, *given, "--out", str(out)])
    assert "\n" not in str(caught.value)
    assert not (out / "last").exists()


def test_images_are_no_policy(images: str) -> None:
    with pytest.raises((ValueError, OSError), match=r"\S") as caught:
        distill.main([images, "--policy"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("budget", [("--steps", "10"), ("--cpu-minutes", "1")])
def test_a_budget_for_a_kernel_policy_is_refused(
    demos: str, tmp_path: Path, budget: tuple[str, str]
) -> None:
    words = ["--data", demos, "--method", "kernel", *budget, "--out", str(tmp_path / "run")]
    with pytest.raises(ValueError, match="kernel takes no training steps"):
        train.main(words)
    assert not (tmp_path / "run").exists()


# The benchmark.


def test_validation_images_are_of_the_training_set(images: str) -> None:
    data = prepare(images, None, None, False, 0)
    found = prepare_validation(data, 30)
    assert isinstance(found, Prepared)
    assert (len(found.train), len(found.held_out)) == (len(data.train) - 30, 30)
    rows = {row.numpy().tobytes() for row in data.train.points}
    assert all(row.numpy().tobytes() in rows for row in found.held_out.points)
    tested = {row.numpy().tobytes() for row in data.held_out.points}
    assert not any(row.numpy().tobytes() in tested for row in found.held_out.points)
    again = prepare_validation(data, 30)
    assert torch.equal(again.held_out.points, found.held_out.points)
    np.testing.assert_allclose(found.train_points.mean((0, 2, 3)), 0, atol=1e-4)


def test_cells_have_names_of_their_own_and_the_core_comes_first() -> None:
    cells = full_cells()
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    assert cells[: len(core_cells())] == core_cells()
    assert cells[0].name == "insertion--all--all--0"
    assert "insertion--kip--2000--0" in names
    assert "insertion--kip--2000--0" not in [cell.name for cell in core_cells()]


def test_settings_are_chosen_by_validation_alone() -> None:
    test = Cell("mnist", "kip", 1, 2)
    n = len(KIP_IMAGES["mnist"])
    trials = [Cell("mnist", "kip", 1, 0, number) for number in range(n)]
    found: dict[Cell, Any] = {trial: {"accuracy": 0.5} for trial in trials}
    found[trials[3]] = {"accuracy": 0.8}
    found[test] = {"accuracy": 0.1}
    assert chosen_trial(test, found) == 3
    found[trials[5]] = None
    assert chosen_trial(test, found) is None


def results() -> dict[Cell, Any]:
    """Some cells as if they were run; numbers made up."""
    found: dict[Cell, Any] = dict.fromkeys(full_cells())
    facts = {"total_cpu_seconds": 3.0, "commit": "abc"}
    for seed in (0, 1):
        success = [True] * 60 + [False] * 40
        found[Cell("insertion", "kip", 100, seed)] = {"success": success, **facts}
        found[Cell("mnist", "kip", 1, seed)] = {
            "accuracy": 0.88 + 0.02 * seed,
            "settings": {"lr": 0.1},
            **facts,
        }
    found[Cell("insertion", "all", 0, 0)] = {"success": [True] * 100, "points": 7600, **facts}
    return found


def test_tables_say_what_was_not_run() -> None:
    tables = distill_report.all_tables(results())
    header, rows = tables[distill_report.INSERTION]
    assert header == ["kept by", "100", "500", "2,000", "all"]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["KIP"] == ["60 [53, 67] (2)", "not run", "not run", ""]
    assert by_name["everything"][-1] == "100 [96, 100] (1)"
    assert len(rows) == len(METHODS) + 1
    assert len(header) == len(SIZES) + 2
    _, rows = tables["mnist"]
    assert {row[0]: row[1] for row in rows}["KIP"] == "89.0 [88.0, 90.0]"


def test_the_page_and_its_picture_are_written(tmp_path: Path) -> None:
    from PIL import Image

    distill_report.write(results(), "decisive benchmark distill", tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "not run" in page
    assert "lr 0.1" in page
    assert "5 cells of" in page
    assert np.asarray(Image.open(tmp_path / distill_report.PICTURE)).std() > 1


def test_the_benchmark_lists_and_refuses(tmp_path: Path, capsys: Any) -> None:
    words = ["--out", str(tmp_path), "--only", "mnist--kip--1", "--seeds", "1"]
    assert benchmark.main([*words, "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "not run  mnist--kip--1--try0"
    assert lines[-1] == "not run  mnist--kip--1--0"  # not those of mnist--kip--10
    with pytest.raises(ValueError, match="no cell begins with 'svhn'"):
        benchmark.main(["--only", "svhn"])
    with pytest.raises(ValueError, match="--seeds must be 1 to 3"):
        benchmark.main(["--seeds", "4"])


def test_files_that_are_no_results_are_told_apart_and_named(tmp_path: Path, capsys: Any) -> None:
    words = ["--out", str(tmp_path), "--only", "mnist--random--1", "--seeds", "2"]
    # What `decisive distill --json` prints, under the name of a cell.
    (tmp_path / "mnist--random--1--1.json").write_text(json.dumps({"accuracy": 0.43}))
    assert benchmark.main([*words, "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["not run  mnist--random--1--0", "other    mnist--random--1--1"]
    assert benchmark.main([*words, "--table"]) == 0
    page = (tmp_path / "README.md").read_text()
    assert "Not counted above are 1 files" in page
    assert "[mnist--random--1--1](mnist--random--1--1.json)" in page
    assert "| random | not run | not run | not run |" in page


def test_a_result_of_another_plan_is_not_taken(tmp_path: Path) -> None:
    cell = Cell("insertion", "random", 100, 0)
    path = tmp_path / f"{cell.name}.json"
    path.write_text(json.dumps({"plan": cell.plan(), "success_rate": 1.0}))
    assert benchmark.read(cell, tmp_path) is not None
    for other in ({"accuracy": 1.0}, ["accuracy", 1.0]):
        path.write_text(json.dumps(other))
        assert benchmark.read(cell, tmp_path) is None
    path.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        benchmark.read(cell, tmp_path)
