"""`decisive group-tasks`: groups from a matrix or from a training, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from task_cases import squares, write

from decisive import cli
from decisive.group_tasks import read_matrix
from learning.task_affinity_groups import Budget, group_scores, select_by_enumeration

HAND = {
    "tasks": ["depth", "count", "edges"],
    "affinity": [[9.0, -2.0, 4.0], [-3.0, 9.0, -1.0], [4.0, -2.0, 9.0]],
}


@pytest.fixture(autouse=True)
def verb(monkeypatch) -> None:
    row = cli.Verb("decisive.group_tasks", "which tasks should share a network")
    monkeypatch.setitem(cli.VERBS, "group-tasks", row)


@pytest.fixture
def matrix(tmp_path: Path) -> str:
    (tmp_path / "matrix.json").write_text(json.dumps(HAND))
    return str(tmp_path / "matrix.json")


def group(*words: str) -> int:
    return cli.main(["group-tasks", *words])


def test_the_groups_are_printed_as_json(matrix: str, capsys) -> None:
    assert group(matrix, "--groups", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["groups"] == [["depth", "edges"], ["count"]]
    assert told["serves"] == [["depth", "edges"], ["count"]]
    assert told["served_by"] == {"depth": 0, "count": 1, "edges": 0}
    assert told["value"] == pytest.approx(8 / 3)
    assert (told["cost"], told["solo"], told["tasks"]) == (2.0, "zero", HAND["tasks"])
    best = select_by_enumeration(group_scores(HAND["affinity"]), Budget(groups=2))
    assert told["value"] == pytest.approx(best.value)


def test_lines_tell_who_only_learns_beside(matrix: str, capsys) -> None:
    assert group(matrix, "--groups", "2", "--solo", "never") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "depth, edges"
    assert lines[1].startswith("count  (with ")
    assert lines[1].endswith(" to learn beside)")
    assert lines[2].startswith("mean score ")


def test_a_cost_limits_the_networks(matrix: str, capsys) -> None:
    words = ("--network-cost", "6", "--task-cost", "0.5", "--json")
    assert group(matrix, "--cost", "7.5", *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["groups"], told["cost"]) == ([["depth", "count", "edges"]], 7.5)
    assert group(matrix, "--cost", "13.5", *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["groups"], told["cost"]) == ([["depth", "edges"], ["count"]], 13.5)


def test_a_plain_list_will_do_and_solo_may_be_a_number(tmp_path: Path, capsys) -> None:
    (tmp_path / "plain.json").write_text(json.dumps(HAND["affinity"]))
    words = (str(tmp_path / "plain.json"), "--groups", "3", "--json")
    assert group(*words, "--solo", "5") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["groups"] == [["task 0"], ["task 1"], ["task 2"]]
    assert (told["value"], told["solo"]) == (5.0, 5.0)
    assert group(*words, "--solo", "diagonal") == 0
    assert json.loads(capsys.readouterr().out)["value"] == 9.0


def test_the_matrix_is_drawn_with_the_groups(matrix: str, tmp_path: Path, capsys) -> None:
    place = tmp_path / "deep" / "groups.png"
    assert group(matrix, "--groups", "2", "--picture", str(place), "--json") == 0
    assert json.loads(capsys.readouterr().out)["picture"] == str(place)
    with Image.open(place) as page:
        pixels = np.asarray(page.convert("RGB"), int)
    red = (pixels[..., 0] > pixels[..., 2] + 40).mean()
    blue = (pixels[..., 2] > pixels[..., 0] + 40).mean()
    assert min(red, blue) > 0.01  # both harm and help are in the matrix


def small(tmp_path: Path) -> tuple[str, ...]:
    train = write(tmp_path / "train", squares(8))
    held_out = write(tmp_path / "held", squares(4, seed=1))
    words = ("--data", train, "--held-out", held_out, "--out", str(tmp_path / "run"))
    return (*words, "--backbone", "efficientnetv2_b0_quarter", "--every", "1")


def test_without_a_matrix_it_trains_measures_and_draws(tmp_path: Path, capsys) -> None:
    words = small(tmp_path)
    assert group(*words, "--groups", "2", "--steps", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert set().union(*told["groups"]) == set(squares(1).targets)
    training = told["training"]
    assert (training["steps"], training["measurements"]) == (2, 2)
    assert 0 < training["measuring_cpu_seconds"] < training["cpu_seconds"]
    assert set(training["held_out_losses"]) == set(squares(1).targets)
    assert training["command"].startswith("decisive group-tasks")
    out = tmp_path / "run"
    assert json.loads((out / "groups.json").read_text()) == told
    with Image.open(out / "groups.png") as page:
        assert page.width > 300
    # What was measured is a MATRIX.json itself.
    assert group(str(out / "affinity.json"), "--groups", "2", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["groups"], again["value"]) == (told["groups"], told["value"])
    # The finished run is taken up, and only the choice is made anew.
    assert group(*words, "--groups", "3", "--steps", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["affinity"] == told["affinity"]
    assert group(*words, "--groups", "2", "--steps", "3") == 2
    assert "holds a run with other config" in capsys.readouterr().err


def test_a_budget_of_minutes_ends_and_the_first_order_form_is_measured(
    tmp_path: Path, capsys
) -> None:
    words = (*small(tmp_path), "--groups", "1", "--method", "first-order")
    threads = torch.get_num_threads()
    assert group(*words, "--cpu-minutes", "0.01", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["training"]["method"] == "first-order"
    assert len(told["groups"]) == 1
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([[1.0, 2.0]], "square matrix, got shape (1, 2)"),
        ([[1.0, 2.0], [3.0]], "square matrix of numbers"),
        ({"tasks": ["a", "b"], "affinity": [[1.0, float("nan")], [0.0, 1.0]]}, "finite, got nan"),
        ([[1.0]], "2 to 12 tasks, got 1"),
        ({"tasks": ["a", "a"], "affinity": [[1, 0], [0, 1]]}, "'a' is there twice"),
        ({"tasks": ["a"], "affinity": [[1, 0], [0, 1]]}, "2 names, one for each row, got 1"),
        ({"tasks": ["a", 3], "affinity": [[1, 0], [0, 1]]}, "list of names"),
        ({"names": ["a"]}, '"tasks" and "affinity"'),
        ("text", "square matrix"),
    ],
)
def test_a_malformed_matrix_ends_with_one_line(tmp_path, capsys, document: Any, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    assert group(str(path), "--groups", "1", "--picture", str(tmp_path / "x.png")) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


def test_what_cannot_be_grouped_ends_with_one_line(matrix: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "broken.json").write_text("{")
    only = ("depth", "count")
    one = write(tmp_path / "one", squares(4, tasks=("depth",)))
    two = write(tmp_path / "two", squares(4, tasks=only))
    train = ("--held-out", two, "--out", str(tmp_path / "run"))
    for words, said in (
        ((matrix,), "--groups K, or --cost C"),
        ((matrix, "--groups", "4"), "at most the number of tasks, 3, got 4"),
        ((matrix, "--groups", "0"), "groups must be at least 1, got 0"),
        ((matrix, "--cost", "0.5"), "cost must be at least 1"),
        ((matrix, "--groups", "2", "--solo", "maybe"), "zero, diagonal, never or a number"),
        ((matrix, "--groups", "2", "--solo", "nan"), "solo must be finite"),
        ((matrix, "--groups", "2", "--picture", "x.jpg"), "must name a .png"),
        ((matrix, "--groups", "2", "--data", two), "either MATRIX.json or --data"),
        (("--groups", "2"), "give --data, --held-out, --out"),
        (("--groups", "2", "--data", two, *train, "--every", "0"), "--every must be at least 1"),
        (("--groups", "3", "--data", two, *train), "the number of tasks, 2, got 3"),
        (("--groups", "1", "--data", one, *train), "one task; grouping needs two or more"),
        (("--groups", "1", "--data", str(tmp_path), *train), "no set of tasks in this folder"),
        (("--groups", "1", "--data", two, *train, "--backbone", "x"), "backbone must be one of"),
        ((str(tmp_path / "broken.json"), "--groups", "1"), "not JSON"),
        ((str(tmp_path / "nothing.json"), "--groups", "1"), "nothing.json"),
    ):
        assert group(*words) == 2, words
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "run" / "run").exists()


def test_a_matrix_of_megabytes_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_text(" " * (2**20 + 1))
    with pytest.raises(ValueError, match="not a matrix of affinities"):
        read_matrix(tmp_path / "large.json")


def test_the_help_teaches(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        group("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for said in ("MATRIX.json", "--solo", "--cost", "--cpu-minutes", "Examples:"):
        assert said in text
