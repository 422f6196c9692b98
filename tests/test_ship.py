"""Shipping: a training of the grid becomes a policy of the package, its card with its scores."""

import json
from dataclasses import replace

import pytest

from agents import load_policy
from decisive.benchmarks import recipes
from decisive.benchmarks.cells import Places, run_cell
from decisive.benchmarks.tabletop import Cell
from tools import ship


@pytest.fixture
def places(tmp_path, monkeypatch):
    task = replace(recipes.TASKS["particle-2"], recorded=5)
    recipe = replace(
        recipes.RECIPES["particle-2-mse"],
        policy={"width": 16},
        train={"steps": 20, "evaluations": 1, "tensorboard": False},
        selection_episodes=1,
    )
    monkeypatch.setitem(recipes.TASKS, "particle-2", task)
    monkeypatch.setitem(recipes.RECIPES, "particle-2-mse", recipe)
    monkeypatch.setattr("decisive.benchmarks.cells.EPISODES", 3)
    monkeypatch.setattr(ship, "CHECKPOINTS", tmp_path / "checkpoints")
    return Places(tmp_path / "results", tmp_path / "work")


def test_a_shipped_policy_tells_what_it_scored(places, tmp_path):
    cell = Cell("particle-2", "consistent", 5, "mse", 0)
    cell.prepare(places, workers=1)
    result = run_cell(cell, places)
    ship.ship("particle-2-mse", places)
    folder = tmp_path / "checkpoints" / "particle-2-mse"
    card = (folder / "README.md").read_text()
    assert card.count("## Limits") == 1
    assert "of 3 unseen episodes: `decisive evaluate --env decisive/Particle-v0" in card
    assert "--set n_dims=2" in card
    rate = 100 * result["results"]["success_rate"]
    assert f"success {rate:.1f} [" in card
    assert load_policy(folder).method == "mse"
    assert json.loads((folder / "config.json").read_text())["training"]["episodes"] == 5


def test_what_was_not_run_is_not_shipped(places, tmp_path):
    with pytest.raises(ValueError, match="run its cell"):
        ship.ship("particle-2-mse", places)
    assert not (tmp_path / "checkpoints").exists()
