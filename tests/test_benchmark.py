"""The benchmark: its grid, resuming, and the table with what was not run."""

import json
import time
from dataclasses import replace

import pytest

from decisive import cli
from decisive.benchmark import choose
from decisive.benchmarks import cells as cells_module
from decisive.benchmarks import recipes, report, tabletop
from decisive.benchmarks.cells import Places, read_result, run_cell, run_cells
from decisive.benchmarks.tabletop import Cell, core_grid, full_grid

CELL = Cell("particle-2", "diverse", 4, "mse", 0)


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "results", tmp_path / "work")


@pytest.fixture
def small(monkeypatch):
    """A cell that runs in seconds."""
    recipe = replace(
        recipes.RECIPES["particle-2-mse"],
        policy={"width": 16},
        train={"steps": 20, "evaluations": 1, "tensorboard": False},
        selection_episodes=1,
    )
    monkeypatch.setitem(recipes.RECIPES, "particle-2-mse", recipe)
    monkeypatch.setattr(cells_module, "EPISODES", 3)
    monkeypatch.setitem(
        recipes.TASKS, "particle-2", replace(recipes.TASKS["particle-2"], recorded=5)
    )


def test_the_core_grid_is_what_was_promised():
    cells = core_grid()
    assert len(cells) == len(set(cells)) == len({cell.file for cell in cells})
    promised = {(task, 500): {0, 1, 2} for task in tabletop.CORE_TASKS}
    promised |= {(t, 100): {0} for t in tabletop.CORE_TASKS if t != "block-sorting"}
    for (task, demos), wanted in promised.items():
        for method in ("mse", "mdn", "ibc"):
            seeds = {
                c.seed
                for c in cells
                if (c.task, c.expert, c.demos, c.method) == (task, "diverse", demos, method)
            }
            assert seeds == wanted
    assert any(cell.expert == "consistent" for cell in cells)
    assert {"control": "push"} in [dict(recipes.TASKS[c.task].options) for c in cells]


def test_the_most_telling_cells_come_first():
    first = core_grid()[: 3 * len(tabletop.CORE_TASKS)]
    assert {(c.expert, c.demos, c.seed) for c in first} == {("diverse", 500, 0)}
    assert {c.task for c in first} == set(tabletop.CORE_TASKS)


def test_the_full_grid_begins_with_the_core():
    assert full_grid()[: len(core_grid())] == core_grid()
    assert {cell.shift for cell in full_grid()} == {"", *tabletop.SHIFTS}
    assert len(full_grid()) == len(set(full_grid()))
    names = {f"{cell.task}-{cell.method}" for cell in full_grid()}
    assert names <= set(recipes.RECIPES)


def test_cells_are_chosen_by_the_beginning_of_their_names():
    cells = core_grid()
    chosen = choose(cells, ["block-push/diverse-500", "*/ibc/2"])
    assert {c.method for c in chosen if c.task == "block-push" and c.demos == 500} == {
        *tabletop.CORE_METHODS
    }
    assert all(c.task == "block-push" or (c.method, c.seed) == ("ibc", 2) for c in chosen)
    assert choose(cells, []) == cells
    with pytest.raises(ValueError, match="no cell is named 'block'"):
        choose(cells, ["block"])


def test_a_cell_records_trains_evaluates_and_is_then_done(small, places):
    CELL.prepare(places, workers=1)
    assert read_result(CELL, places) is None
    result = run_cell(CELL, places)
    written = (places.results / CELL.file).read_text()
    assert json.loads(written) == result
    assert written.count("\n") < 100
    assert read_result(CELL, places) == result
    assert result["results"]["episodes"] == 3
    assert [row["seed"] for row in result["results"]["per_episode"]] == [0, 1, 2]
    assert result["training"]["steps"] == 20
    assert result["results"]["command"] == f"decisive benchmark tabletop --only {CELL.name}"
    config = json.loads((places.run(CELL) / "best" / "config.json").read_text())
    assert config["training"]["episodes"] == 4
    assert sorted(p.name for p in (places.work / "data").iterdir()) == ["particle-2-diverse.npz"]


def test_a_cell_that_was_stopped_goes_on(small, places, monkeypatch):
    CELL.prepare(places, workers=1)
    import decisive.evaluation

    whole = decisive.evaluation.evaluate

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(decisive.evaluation, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_cell(CELL, places)
    weights = places.run(CELL) / "best" / "model.safetensors"
    trained = weights.stat().st_mtime_ns
    monkeypatch.setattr(decisive.evaluation, "evaluate", whole)
    run_cell(CELL, places)
    assert weights.stat().st_mtime_ns == trained


def test_a_result_of_another_recipe_is_out_of_date(small, places, monkeypatch):
    CELL.prepare(places, workers=1)
    run_cell(CELL, places)
    old = recipes.RECIPES["particle-2-mse"]
    changed = replace(old, policy={"width": 8})
    monkeypatch.setitem(recipes.RECIPES, "particle-2-mse", changed)
    assert read_result(CELL, places) is None
    result = run_cell(CELL, places)
    assert result["plan"] == CELL.plan()
    config = json.loads((places.run(CELL) / "best" / "config.json").read_text())
    assert config["config"]["width"] == 8


def test_a_shift_evaluates_the_same_training_under_other_options(small, places, monkeypatch):
    monkeypatch.setitem(tabletop.SHIFTS, "short", {"max_episode_steps": 7})
    CELL.prepare(places, workers=1)
    run_cell(CELL, places)
    weights = places.run(CELL) / "best" / "model.safetensors"
    trained = weights.stat().st_mtime_ns
    shifted = run_cell(replace(CELL, shift="short"), places)
    assert weights.stat().st_mtime_ns == trained
    assert shifted["results"]["length_mean"] == 7.0


def fake(cell, outcomes, score=None):
    rows = [{"seed": i, "success": ok} for i, ok in enumerate(outcomes)]
    return {
        "total_cpu_seconds": 36.0,
        "results": {
            "per_episode": rows,
            "score_mean": score,
            "commit": "abc",
            "machine": {"cpu": "test"},
        },
    }


def test_the_table_pools_seeds_and_says_what_was_not_run():
    cells = [
        Cell("block-push", "diverse", 500, m, s) for m in ("mse", "mdn", "ibc") for s in (0, 1)
    ]
    results = dict.fromkeys(cells)
    results[cells[0]] = fake(cells[0], [True] * 2 + [False] * 8)
    results[cells[1]] = fake(cells[1], [True] * 4 + [False] * 6)
    results[cells[4]] = fake(cells[4], [True] * 9 + [False], score=0.95)
    header, (row,) = report.table(results)
    told = dict(zip(header, row, strict=True))
    assert told["mdn"] == "not run"
    assert told["mse"].startswith("30.0 [")
    assert "seeds" not in told["mse"]
    assert told["ibc"].startswith("90.0 [")
    assert "score 95" in told["ibc"]
    assert told["ibc"].endswith("(1 of 2 seeds)")
    # Only training seed 0 has both: 8 failures against 1, 7 pairs against 0.
    assert told["fails MSE/IBC"].startswith("8.0 [")
    assert told["IBC-MSE p"] == "0.016 (7:0)"
    assert told["IBC-MDN p"] == "-"
    text = report.markdown(results, "Title", "decisive benchmark tabletop")
    assert "3 of 6 cells run, 0.03 CPU-hours" in text
    assert "not run" in text


def test_the_verb_lists_runs_and_tabulates(small, places, monkeypatch, capsys):
    import decisive.benchmark as verb

    grid = [CELL, replace(CELL, method="mdn")]
    suite = replace(verb.SUITES["tabletop"], core=lambda: grid, full=lambda: grid)
    monkeypatch.setitem(verb.SUITES, "tabletop", suite)
    # Worker processes would not see the small recipe: run the cells here.
    monkeypatch.setattr(verb, "run_cells", run_here)
    base = ["benchmark", "tabletop", "--out", str(places.results), "--work", str(places.work)]
    assert cli.main([*base, "--list"]) == 0
    assert capsys.readouterr().out.count("not run") == 2
    assert cli.main([*base, "--only", "particle-2/*/mse"]) == 0
    assert "particle, 2 dimensions" in capsys.readouterr().out
    assert "| not run |" in (places.results / "README.md").read_text()
    assert cli.main([*base, "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0].startswith("done")
    assert listed[1].startswith("not run")


def run_here(cells, places, workers, deadline, on_done):
    for cell in cells:
        cell.prepare(places, workers=1)
        on_done(cell, run_cell(cell, places), "")
    return []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tabletop", "--only", "nothing"], "no cell is named"),
        (["tabletop", "--core", "--full"], "--core"),
        (["tabletop", "--workers", "0"], "workers"),
        (["kitchen"], "tabletop"),
    ],
)
def test_bad_benchmarks_are_one_line(words, expected, capsys):
    assert cli.main(["benchmark", *words]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1


def test_no_cell_is_begun_after_the_deadline(places):
    done = []
    cells = [CELL, replace(CELL, seed=1)]
    errors = run_cells(cells, places, 2, time.monotonic() - 1.0, lambda c, r, e: done.append(c))
    assert errors == done == []
    assert not places.work.exists()


def test_a_cell_whose_data_cannot_be_recorded_does_not_stop_the_others(small, places, monkeypatch):
    broken = recipes.Task("decisive/Particle-v0", "broken", {"max_episode_steps": 2}, 0.0)
    monkeypatch.setitem(recipes.TASKS, "particle-1", broken)
    done = []
    cells = [replace(CELL, task="particle-1"), replace(CELL, task="particle-1", seed=1)]
    errors = run_cells(cells, places, 1, None, lambda c, r, e: done.append((c, r)))
    assert [error.partition(":")[0] for error in errors] == [cell.name for cell in cells]
    assert "succeeded in 0 of 50" in errors[0]
    assert done == [(cells[0], None), (cells[1], None)]


@pytest.mark.slow
def test_cells_run_in_parallel_processes_and_failures_are_told(places):
    # Two minutes of CPU: the recipe as it stands, since workers do not see a patched one.
    cells = [Cell("particle-1", "diverse", 40, "mse", seed) for seed in (0, 1)]
    cells.append(replace(cells[0], demos=10**6))
    done = {}
    errors = run_cells(cells, places, 2, None, lambda c, r, e: done.setdefault(c, r))
    assert set(done) == set(cells)
    assert len(errors) == 1
    assert cells[2].name in errors[0]
    for cell in cells[:2]:
        assert read_result(cell, places) == done[cell]
