"""The benchmark of task groups: cells are kept and not mixed, and the report is as by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from task_cases import squares, write

from decisive.benchmarks import task_groups, task_groups_report
from decisive.benchmarks.task_groups import all_cells
from decisive.benchmarks.task_groups_report import correlations, costs, evidence, true_gains

TASKS = ("a", "b", "c")
# Losses by group: a and b help each other, c harms b, and a alone loses nothing beside c.
LOSSES: dict[tuple[str, ...], tuple[float, ...]] = {
    ("a",): (1.0,),
    ("b",): (2.0,),
    ("c",): (4.0,),
    ("a", "b"): (0.5, 1.5),
    ("a", "c"): (1.0, 4.4),
    ("b", "c"): (3.0, 3.0),
    ("a", "b", "c"): (0.8, 2.2, 3.6),
}
MATRIX = [[9.0, 3.0, -1.0], [4.0, 9.0, 2.0], [1.0, -2.0, 9.0]]


def results(missing: tuple[str, ...] = ()) -> Any:
    found = {}
    for group, losses in LOSSES.items():
        measured = {
            name: {"matrix": MATRIX, "measurements": 5, "cpu_seconds": seconds}
            for name, seconds in (("look-ahead", 4.0), ("first-order", 2.0))
        }
        whole = len(group) == 3
        found[group, 0] = {
            "losses": dict(zip(group, losses, strict=True)),
            "affinities": measured if whole else {},
            "cpu_seconds": 10.0 * len(group) + 6.0 * whole,
            "steps": 7,
            "machine": {"cpu": "some", "cores": 2},
            "versions": {"torch": "2"},
            "commit": "abc",
        }
    if missing:
        found[missing, 0] = None
    return found


def test_true_gains_are_shares_of_what_a_task_loses_alone() -> None:
    truth = true_gains(TASKS, [0], results())
    rows = dict(zip(truth.groups, truth.values.tolist(), strict=True))
    assert [rows[(j,)][j] for j in range(3)] == [0.0] * 3
    assert rows[0, 1][:2] == pytest.approx([0.5, 0.25])
    assert rows[1, 2][1:] == pytest.approx([-0.5, 0.25])
    assert rows[0, 1, 2] == pytest.approx([0.2, -0.1, 0.1])


def test_rank_correlations_are_over_the_groups_that_a_task_is_in() -> None:
    from learning.task_affinity_groups import group_scores

    truth = true_gains(TASKS, [0], results())
    found = correlations(group_scores(MATRIX), truth, TASKS)
    # a: foretold 4, 1, 2.5 beside b, c and both; true 0.5, 0, 0.2: the same order.
    assert found["a"] == pytest.approx(1.0)
    # b: foretold 3, -2, 0.5; true 0.25, -0.5, -0.1: the same. c: -1, 2, 0.5; -0.1, 0.25, 0.1.
    assert found["b"] == pytest.approx(1.0)
    assert found["mean"] == pytest.approx(1.0)
    reverse = correlations(group_scores((-np.array(MATRIX)).tolist()), truth, TASKS)
    assert reverse["mean"] == pytest.approx(-1.0)
    flat = correlations(group_scores(np.ones((3, 3))), truth, TASKS)
    assert flat["mean"] is None


def test_choices_are_judged_by_true_gains() -> None:
    told = evidence(TASKS, 1, results())
    choices = {(c["groups_allowed"], c["way"]): c for c in told["choices"]}
    best = choices[2, "exhaustive"]
    # {a, b} and {b, c}, where c gains a quarter: (0.5 + 0.25 + 0.25) / 3.
    assert best["chosen"] == "a+b; b+c"
    assert best["gain"] == pytest.approx(1 / 3)
    ours = choices[2, "look-ahead"]
    assert ours["chosen"] == "a+b; b+c"
    assert ours["regret"] == pytest.approx(0.0, abs=1e-12)
    assert choices[1, "look-ahead"]["gain"] == pytest.approx((0.2 - 0.1 + 0.1) / 3)
    # Alone tasks gain nothing; their own affinities are the largest, so three stand alone.
    assert choices[3, "look-ahead, diagonal"]["chosen"] == "a; b; c"
    assert choices[3, "look-ahead, diagonal"]["regret"] == pytest.approx(1 / 3)
    # a|bc, b|ac and c|ab.
    chance = ((-0.5 + 0.25) / 3 + (0.0 - 0.1) / 3 + (0.5 + 0.25) / 3) / 3
    assert choices[2, "chance"]["gain"] == pytest.approx(chance)
    assert all(c["regret"] >= -1e-12 for c in told["choices"])


def test_costs_leave_out_what_was_measured_for_the_other_way() -> None:
    found = costs(TASKS, [0], results())
    assert found["all tasks together, nothing measured"] == 30.0
    assert (found["look-ahead"], found["first-order"]) == (34.0, 32.0)
    assert found["pairs"] == 3 * 10 + 3 * 20
    assert found["exhaustive"] == 30 + 60 + 30


def test_seeds_are_averaged_and_one_without_all_groups_is_not_judged() -> None:
    both = results()
    for (group, _), one in results().items():
        both[group, 1] = {**one, "losses": {t: 2 * x for t, x in one["losses"].items()}}
    told = evidence(TASKS, 2, both)
    assert told["cells"] == {"done": 14, "of": 14, "seeds_complete": [0, 1]}
    both[("b",), 1] = None
    assert evidence(TASKS, 2, both)["cells"]["seeds_complete"] == [0]


def test_without_all_groups_tables_say_not_run(tmp_path: Path) -> None:
    told = evidence(TASKS, 1, results(missing=("b", "c")))
    assert told["cells"] == {"done": 6, "of": 7, "seeds_complete": []}
    assert told["affinity"]["look-ahead"]["matrix"] == MATRIX
    (_, _, cells), (_, header, _) = task_groups_report.tables_of(told)
    assert cells == [["6", "7"]]
    assert header == ["not run"]
    task_groups_report.write(told, results(missing=("b", "c")), "decisive x", "source", tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "not run" in text
    assert not (tmp_path / "gains.png").exists()


def test_the_report_is_written_with_a_picture(tmp_path: Path) -> None:
    told = evidence(TASKS, 1, results())
    task_groups_report.write(told, results(), "decisive x", "Synthetic: source", tmp_path)
    text = (tmp_path / "README.md").read_text()
    for said in ("Synthetic: source", "decisive x", "a+b; b+c", "gains.png", "commit abc"):
        assert said in text
    with Image.open(tmp_path / "gains.png") as page:
        assert page.width > 800
    costs_of = {row[0]: row[1:] for row in task_groups_report.tables_of(told)[-1][2]}
    assert costs_of["look-ahead"] == ["34", "3.5", "2.6"]


def test_all_groups_of_five_tasks_are_31_cells_and_all_together_come_first() -> None:
    cells = all_cells(("a", "b", "c", "d", "e"), 2)
    assert len(cells) == 62
    assert cells[0].name == "a+b+c+d+e-0"
    assert cells[1].name == "a-0"
    assert len({cell.name for cell in cells}) == 62
    for tasks in (("a",), tuple("abcdefghi")):
        with pytest.raises(ValueError, match="2 to 8 tasks are needed"):
            all_cells(tasks, 1)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    only = ("depth", "count")
    train = write(tmp_path / "train", squares(8, tasks=only))
    held_out = write(tmp_path / "held", squares(4, seed=1, tasks=only))
    found = ["--data", train, "--held-out", held_out, "--steps", "2", "--every", "1"]
    return [*found, "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--json"]


def test_cells_are_trained_once_kept_and_not_mixed(
    words: list[str], tmp_path: Path, capsys, monkeypatch
) -> None:
    assert task_groups.main([*words, "--only", "depth-*"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["cells"] == {"done": 1, "of": 3, "seeds_complete": []}
    assert task_groups.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cells"] == {"done": 3, "of": 3, "seeds_complete": [0]}
    names = sorted(path.stem for path in (tmp_path / "out").glob("*.json"))
    assert names == ["count-0", "depth+count-0", "depth-0"]
    cell = json.loads((tmp_path / "out" / "depth+count-0.json").read_text())
    assert set(cell["affinities"]) == {"look-ahead", "first-order"}
    assert not json.loads((tmp_path / "out" / "depth-0.json").read_text())["affinities"]

    def refuse(*_: object) -> None:
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(task_groups, "run_cell", refuse)
    assert task_groups.main([*words, "--table"]) == 0
    assert json.loads(capsys.readouterr().out) == told
    assert task_groups.main([word for word in words if word != "--json"]) == 0
    assert "Cost of choosing" in capsys.readouterr().out
    words[words.index("--steps") + 1] = "3"
    with pytest.raises(ValueError, match=r"other settings \(train\)"):
        task_groups.main(words)


def test_what_cannot_run_is_refused(words: list[str]) -> None:
    for more, said in (
        (("--seeds", "0"), "--seeds must be 1 to 10"),
        (("--every", "0"), "--every must be at least 1"),
        (("--only", "nothing"), "no cell fits 'nothing'; names are like depth"),
        (("--data", "/nowhere"), "no set of tasks in this folder"),
    ):
        with pytest.raises(ValueError, match=said):
            task_groups.main([*words, *more])
