"""The offline benchmark: its grid, its data, a cell from end to end, and what the table says."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_d4rl_data import SLIDER, write_minari_set
from test_demonstrations import EXCERPT

from decisive import cli
from decisive.benchmarks import cells as cells_module
from decisive.benchmarks import d4rl, d4rl_report
from decisive.benchmarks.cells import Places, read_result, run_cell
from decisive.benchmarks.d4rl import Cell, core_grid, find_data, full_grid
from decisive.benchmarks.recipes import find_recipe

CELL = Cell("door-human", "mse", 0)


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "results", tmp_path / "work")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of data sets that holds an excerpt of the door demonstrations, and no other."""
    folder = tmp_path / "data/adroit_dapg"
    folder.mkdir(parents=True)
    (folder / "door-human_demos.npz").write_bytes(EXCERPT.read_bytes())
    monkeypatch.setenv("DECISIVE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    d4rl._minari.cache_clear()
    return tmp_path / "data"


@pytest.fixture
def small(monkeypatch):
    """Cells that run in seconds."""
    for method in ("mse", "implicit-bc-rnce", "implicit-bc-rwr", "implicit-bc"):
        recipe = d4rl.RECIPES[f"door-human-{method}"]
        policy = {**recipe.policy, "width": 16}
        if method == "implicit-bc":
            policy["langevin"] = {"n_samples": 4, "n_steps": 3}
        train = {k: v for k, v in recipe.train.items() if k not in ("steps", "cpu_seconds")}
        changed = replace(recipe, policy=policy, train={**train, "steps": 5, "batch_size": 16})
        monkeypatch.setitem(d4rl.RECIPES, f"door-human-{method}", changed)
    monkeypatch.setattr(cells_module, "EPISODES", 2)


def test_the_core_grid_is_what_was_promised():
    cells = core_grid()
    assert len(cells) == len(set(cells)) == len({cell.file for cell in cells}) == 45
    assert {c.task for c in cells} == {
        "door-human",
        *(f"{name}-expert" for name in ("pen", "hammer", "door", "relocate")),
    }
    assert {c.method for c in cells} == {"mse", "implicit-bc", "implicit-bc-rnce"}
    assert {c.seed for c in cells} == {0, 1, 2}
    assert {c.kept for c in cells} == {None, 25}


def test_the_full_grid_begins_with_the_core_and_has_the_seven_rows_of_the_article():
    cells = full_grid()
    assert cells[: len(core_grid())] == core_grid()
    assert len(cells) == len(set(cells))
    assert sum(any(task.published) for task in d4rl.TASKS.values()) == 7
    assert {"mse", "mdn", "diffusion", "implicit-bc", "implicit-bc-rnce"} <= {
        c.method for c in cells
    }
    for cell in cells:
        assert find_recipe(f"{cell.task}-{cell.method}").method == cell.trained_as


def test_methods_of_a_table_have_the_same_network_and_nothing_is_chosen_by_episodes():
    for name, recipe in d4rl.RECIPES.items():
        assert recipe.selection_episodes == 0
        same = ("width", "depth", "activation") if "human" in name else tuple(d4rl._EYES)
        assert {k: recipe.policy[k] for k in same} == {k: d4rl._EYES[k] for k in same}


def test_data_are_found_below_the_folder_or_told_to_be_missing(data):
    assert find_data("door-human") == str(data / "adroit_dapg/door-human_demos.npz")
    with pytest.raises(ValueError, match="no data for pen-human") as error:
        find_data("pen-human")
    assert "adroit_dapg/pen-human_demos.npz" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["mse", "implicit-bc", "implicit-bc-rnce", "implicit-bc-rwr"])
def test_a_cell_trains_scores_and_is_then_done(small, data, places, method):
    cell = replace(CELL, method=method)
    cell.prepare(places, workers=1)
    result = run_cell(cell, places)
    assert read_result(cell, places) == result
    told = result["results"]
    assert told["env"] == "decisive/AdroitDoor-v0"
    assert told["command"] == f"decisive benchmark d4rl --only door-human/{method}/0"
    assert told["normalized_score"] == pytest.approx(
        100 * (told["return_mean"] + 56.512833) / (2880.5693087298737 + 56.512833)
    )
    assert result["training"]["best_score"] is None
    assert all(row["length"] == 200 for row in told["per_episode"])


def test_a_kitchen_of_minaris_is_evaluated_with_minaris_observations(data, places, monkeypatch):
    spec = json.dumps({"id": "FrankaKitchen-v1", "kwargs": {"tasks_to_complete": SLIDER}})
    write_minari_set(data.parent / "sets", "D4RL/kitchen/complete-v2", spec, 59, 9, SLIDER)
    recipe = d4rl.RECIPES["kitchen-complete-mse"]
    train = {"steps": 3, "batch_size": 4, "holdout": 0.0, "tensorboard": False}
    changed = replace(recipe, policy={"width": 8}, train=train)
    monkeypatch.setitem(d4rl.RECIPES, "kitchen-complete-mse", changed)
    monkeypatch.setattr(cells_module, "EPISODES", 1)
    cell = Cell("kitchen-complete", "mse", 0)
    cell.prepare(places, workers=1)
    told = run_cell(cell, places)["results"]
    assert told["env_options"] == {"tasks": "complete", "layout": "minari"}
    assert told["length_mean"] == 280
    assert told["normalized_score"] == 25 * told["return_mean"]


def fake(returns):
    rows = [{"seed": i, "return": float(r)} for i, r in enumerate(returns)]
    return {
        "total_cpu_seconds": 36.0,
        "results": {"per_episode": rows, "commit": "abc", "machine": {"cpu": "test"}},
    }


def test_the_table_shows_scores_gaps_published_figures_and_what_is_missing(data):
    cells = [
        Cell(t, m, s)
        for t in ("pen-human", "door-human")
        for m in ("mse", "implicit-bc", "implicit-bc-rnce")
        for s in (0, 1)
    ]
    results = dict.fromkeys(cells)
    results[Cell("door-human", "mse", 0)] = fake([0.0, 100.0])
    results[Cell("door-human", "mse", 1)] = fake([200.0, 300.0])
    results[Cell("door-human", "implicit-bc-rnce", 0)] = fake([300.0, 400.0])
    header, rows = d4rl_report.table(results)
    pen, door = (dict(zip(header, row, strict=True)) for row in rows)
    assert pen["mse"] == pen["implicit-bc"] == "no data"
    assert (pen["CQL (published)"], pen["IBC (published)"]) == ("1214", "2586")
    scale = 100 / (2880.5693087298737 + 56.512833)
    low, high = (scale * (mean + 56.512833) for mean in (50.0, 250.0))
    assert door["mse"] == f"{(low + high) / 2:.1f} ± {(high - low) / 2**0.5:.1f} (150)"
    assert door["implicit-bc"] == "not run"
    assert door["implicit-bc-rnce"].endswith("(1 seed) (350)")
    # Paired on training seed 0 alone: 300 more in both episodes.
    assert door["better IBC - MSE"] == f"{300 * scale:+.1f} ± 0.0"
    assert "1 were run here; in 1 of them" in d4rl_report.verdict(results)
    told = d4rl_report.summary(results)
    assert told["door-human"]["better_implicit"] == "implicit-bc-rnce"
    assert told["pen-human"]["ours"]["mse"] == "no data"
    assert told["kitchen-mixed"]["published_returns"]["CQL"] == 2.0
    assert "S4RL" not in told["kitchen-mixed"]["published_returns"]


def test_a_count_leaves_out_rows_without_data(data):
    assert "Of the article's seven rows 0 were run here" in d4rl_report.verdict(
        dict.fromkeys(core_grid())
    )


def test_the_verb_filters_runs_and_writes_table_numbers_and_picture(
    small, data, places, monkeypatch, capsys
):
    import decisive.benchmark as verb

    def run_here(cells, places, workers, deadline, on_done):
        for cell in cells:
            on_done(cell, run_cell(cell, places), "")
        return []

    monkeypatch.setattr(verb, "run_cells", run_here)  # workers would not see the small recipes
    base = ["benchmark", "d4rl", "--out", str(places.results), "--work", str(places.work)]
    chosen = ["--tasks", "door-human", "--methods", "mse,implicit-bc-rwr", "--seeds", "1"]
    assert cli.main([*base, *chosen, "--list"]) == 0
    assert capsys.readouterr().out.split("\n")[:2] == [
        "not run  door-human/mse/0",
        "not run  door-human/implicit-bc-rwr/0",
    ]
    assert cli.main([*base, *chosen]) == 0
    assert "IBC - MSE" in " ".join(capsys.readouterr().out.split())
    assert (places.results / "scores.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((places.results / "summary.json").read_bytes())
    assert told["door-human"]["ours"]["mse"]["seeds"] == [0]
    assert "no data" in (places.results / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--tasks", "door"], "unknown task 'door'"),
        (["--methods", "ibc"], "unknown method 'ibc'"),
        (["--seeds", "0"], "seeds must be at least 1"),
    ],
)
def test_bad_filters_are_one_line(words, expected, capsys):
    assert cli.main(["benchmark", "d4rl", *words]) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert told.count("\n") == 1


def test_tasks_without_data_say_so_once_asked_and_fail_nothing(data, places, monkeypatch, capsys):
    asked = []

    def offline(name, root):
        asked.append(name)
        raise ValueError(f"{name}: no network")

    monkeypatch.setattr("learning.minari_store.download_minari", offline)
    d4rl._minari.cache_clear()
    base = ["benchmark", "d4rl", "--out", str(places.results), "--work", str(places.work)]
    assert cli.main([*base, "--tasks", "pen-human", "--methods", "mse,mdn"]) == 0
    told = capsys.readouterr()
    assert asked == ["D4RL/pen/human-v2"]
    assert told.err.count("no data for pen-human") == 6
    assert "no network" in told.err
    assert "no data" in told.out
    d4rl._minari.cache_clear()


def test_return_weights_favour_good_episodes():
    from learning.batches import BatchOrder, return_weights
    from learning.demonstrations import load_demonstrations

    demos = load_demonstrations(EXCERPT)
    returns = np.add.reduceat(demos.rewards, demos.episode_offsets[:-1])
    weights = return_weights(demos, 1.0).numpy()
    good = int(returns.argmax())
    assert weights[demos.episode(good)] == pytest.approx(1.0)
    # Two episodes are one standard deviation either side of their mean.
    assert weights[demos.episode(1 - good)] == pytest.approx(np.exp(-2.0))
    order = BatchOrder(len(demos), len(demos), 0, weights=return_weights(demos, 0.05))
    rows = order.rows(3).numpy()
    assert len(rows) == len(demos)
    lower, upper = demos.episode_offsets[good : good + 2]
    assert ((rows >= lower) & (rows < upper)).all()
    np.testing.assert_array_equal(
        rows, BatchOrder(len(demos), len(demos), 0, weights=return_weights(demos, 0.05)).rows(3)
    )
