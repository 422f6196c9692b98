"""The vision benchmark: every arm runs, cells are kept and not mixed, tables say what lacks."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decisive import cli
from decisive.benchmarks import vision, vision_report, vision_tables
from decisive.benchmarks.vision_tables import TABLES, PooledTokens, arms, build, config_of
from learning import image_set
from learning.image_set import ImageSet, write_image_set


def noise(n: int, size: tuple[int, ...]) -> ImageSet:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, *size), dtype=np.uint8)
    labels = (np.arange(n) % 2)[:, None]
    return ImageSet(images, labels, {"side": ("left", "right")}, "synthetic noise", {"n": n})


@pytest.fixture
def words(tmp_path: Path, monkeypatch):
    """Command lines of a trial of one step, without the real data."""
    monkeypatch.setattr(image_set, "cifar10", lambda split: noise(12, (32, 32, 3)))

    def small(*given: Any) -> Any:
        return replace(config_of(*given), batch_size=2, norm_batches=1)

    monkeypatch.setattr(vision_tables, "config_of", small)
    monkeypatch.setattr(vision, "step_seconds", lambda *_: {"train": 1.0, "inference": 0.5})

    def make(table: str, *more: str) -> list[str]:
        found = ["benchmark", "vision", "--table", table, "--seeds", "1", "--steps", "1"]
        found += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), *more]
        if table in ("video", "progressive"):
            size = (2, 32, 32, 3) if table == "video" else (32, 32, 3)
            for name, n in (("train", 12), ("held", 8)):
                data = noise(n, size)
                chunks = [(data.images, data.labels)]
                write_image_set(
                    tmp_path / table / name, chunks, n, size, data.tasks, data.source, data.facts
                )
            found += ["--data", str(tmp_path / table / "train")]
            found += ["--held-out", str(tmp_path / table / "held")]
        return found

    return make


@pytest.mark.parametrize("table", TABLES)
def test_every_arm_of_a_table_runs(tmp_path: Path, words, table: str, capsys) -> None:
    assert cli.main([*words(table, "--core", "--json"), "--test-images", "8"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row[0] for row in told["rows"]] == [arm.name for arm in arms(table, True)]
    assert all(row[1] == "1" for row in told["rows"])
    assert (tmp_path / "out" / table / "accuracy.png").is_file()
    assert "synthetic noise" in (tmp_path / "out" / table / "README.md").read_text()


def test_cells_are_kept_and_those_of_other_settings_refused(
    tmp_path: Path, words, capsys, monkeypatch
) -> None:
    told = words("tokens", "--core", "--only", "plain-0", "--test-images", "8", "--json")
    assert cli.main(told) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[1][1:3] == ["0", "not run"]
    assert rows[0][7] == "1.00"

    def refuse(*_: object) -> None:
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(vision, "run_cell", refuse)
    assert cli.main(told) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == rows
    text = (tmp_path / "out" / "tokens" / "README.md").read_text()
    told_again = "vision --table tokens --core --seeds 1 --steps 1 --test-images 8\n"
    assert told_again in text  # the whole table's, not --only
    told[told.index("--steps") + 1] = "2"
    assert cli.main(told) != 0
    assert "other settings (steps)" in capsys.readouterr().err


def test_a_table_goes_on_with_images_that_another_commit_rendered() -> None:
    arguments = vision.Arguments("progressive", data="train", held_out="held")
    cell = vision.Cell(arms("progressive", True)[0], 0)

    def told(**facts: Any) -> dict[str, Any]:
        data = replace(noise(8, (32, 32, 3)), facts={"seed": 1, "commit": "a"} | facts)
        return vision.plan(cell, arguments, data, data)

    assert told(commit="b", versions={"numpy": "3"}) == told()
    assert told(seed=2) != told()


def test_the_control_takes_means_over_a_fixed_grid() -> None:
    maps = torch.arange(64.0).view(1, 64, 1)
    tokens = PooledTokens()(maps, (8, 8))
    # Rows 0 to 3 and columns 0 and 1 of an 8 x 8 grid: the mean of 8 r + c is 12.5.
    assert tokens.shape == (1, 8, 1)
    assert tokens[0, 0, 0] == 12.5
    assert tokens[0, 7, 0] == 63 - 12.5


def test_learned_and_averaged_tokens_save_as_much_and_more_the_earlier() -> None:
    found = {arm.name: arm for arm in arms("tokens", True)}
    example = torch.zeros(1, 3, 32, 32)
    cost = {}
    for name, arm in found.items():
        with torch.device("meta"):
            model = build(arm, 10, 3)
        cost[name] = vision.multiply_adds(model, example.to("meta"))
    assert cost["learned-at-0.25"] < cost["learned-at-0.5"] < cost["learned-at-0.75"]
    assert cost["learned-at-0.75"] < cost["plain"]
    for at in ("0.25", "0.5", "0.75"):
        assert cost[f"averaged-at-{at}"] == pytest.approx(cost[f"learned-at-{at}"], rel=0.1)


def test_layouts_have_the_same_parameters_and_multiply_adds_within_4_percent() -> None:
    for arm in arms("layouts", True):
        with torch.device("meta"):
            model = build(arm, 10, 3).eval()
        n = sum(parameter.numel() for parameter in model.parameters())
        assert n == pytest.approx(0.69e6, rel=0.04), arm.name
        macs = vision.multiply_adds(model, torch.empty(1, 3, 32, 32, device="meta"))
        assert macs == pytest.approx(22e6, rel=0.04), arm.name


def test_arms_of_the_progressive_table_see_as_many_images() -> None:
    steps = {config_of(arm, 1000, 0, None).steps for arm in arms("progressive", True)}
    assert len(steps) == 1


def test_intervals_are_students() -> None:
    # Mean 2, standard deviation 1, three values: 4.303 / sqrt(3) either way.
    assert vision_report.mean_interval([1, 2, 3]) == pytest.approx((2, -0.4843, 4.4843), abs=1e-3)
    with pytest.raises(ValueError, match="needs 2 to 10 values, got 1"):
        vision_report.mean_interval([1.0])


def test_tables_ask_for_the_images_they_need(capsys) -> None:
    assert cli.main(["benchmark", "vision", "--table", "video"]) != 0
    assert "--held-out" in capsys.readouterr().err


def test_a_step_is_timed_forward_and_backward() -> None:
    model = torch.nn.Linear(256, 256)
    found = vision.step_seconds(model, torch.ones(512, 256), repeats=3)
    assert found["train"] > found["inference"] > 0
    assert not model.training


def test_both_frames_of_reference_are_compared_and_one_seed_has_an_interval_of_images() -> None:
    def cell(right: int, macs: int) -> dict[str, Any]:
        scores = {"tasks": {"side": {"right": right, "n": 100, "accuracy": right / 100}}}
        return {
            "scores": scores,
            "train_scores": {"tasks": {"side": {"accuracy": 0.9}}, "loss": 0.25},
            "parameters": 1234,
            "multiply_adds": macs,
            "seconds": {"train": macs / 10, "inference": macs / 20},
            "cpu_seconds": 7.0,
        }

    found = {
        "plain": [cell(80, 10), cell(90, 10)],
        "few": [cell(50, 4), None],
        "none": [None, None],
    }
    _, rows = vision_report.table(found)
    # Mean 85, standard deviation sqrt(50): 12.706 * sqrt(50) / sqrt(2) = 63.5 either way.
    assert rows[0][:5] == ["plain", "2", "85.0 [21.5, 148.5]", "90.0", "5.0"]
    # Wilson's interval of 50 of 100 is 40.4 to 59.6.
    assert rows[1][1:3] == ["1", "50.0 [40.4, 59.6]"]
    assert rows[1][5:9] == ["0.250", "1,234", "0.40", "0.40"]
    assert rows[2][1:3] == ["0", "not run"]
    # Only seed 0 has both: 50 for 80, at 4 / 10 of the multiply-adds.
    _, compared = vision_report.differences(found, [("few", "plain"), ("none", "plain")])
    assert compared == [["few", "plain", "1", "-30.0", "0.40", "1.00"]]


@pytest.mark.parametrize("table", TABLES)
def test_pairs_that_are_compared_are_arms_of_the_table(table: str) -> None:
    names = {arm.name for arm in arms(table, True)}
    pairs = vision_tables.contrasts(table)
    assert names == {name for pair in pairs for name in pair}
