"""The navigation study: its figures by hand, its resumption, and the follower in Room-to-Room."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from agents.vln.follower import InstructionFollower
from agents.vln.ranker import PathRanker, RankerConfig
from agents.vln.vocabulary import Vocabulary
from decisive.benchmarks import navigation
from decisive.benchmarks.navigation import main
from decisive.benchmarks.navigation_report import MEASURES, compare, results_rows
from decisive.benchmarks.navigation_study import spoken_features
from decisive.benchmarks.r2r_follower import FollowerActor
from decisive.benchmarks.symbolic_study import ARMS as SYMBOLIC_ARMS
from decisive.benchmarks.symbolic_study import SymbolicPlan, SymbolicStudy, headings_of
from envs.indoor.categories import CATEGORIES, ID
from envs.indoor.r2r_data import Instruction
from envs.indoor.sketch_world import SketchWorld

ARMS = ("none", "some", "all")


def result(successes: list[int]) -> dict[str, Any]:
    """Rows of two instructions a path."""
    return {
        "per_episode": [
            {"instr_id": f"{k // 2}_{k % 2}", "path_id": str(k // 2), "success": bool(success)}
            | {name: float(success) for name in MEASURES[1:]}
            for k, success in enumerate(successes)
        ]
    }


def test_gains_and_shares_are_worked_by_hand() -> None:
    rng = np.random.default_rng(0)
    none = rng.random(400) < 0.4
    some = none | (rng.random(400) < 0.3)
    every = some | (rng.random(400) < 0.5)
    found = compare(
        {
            ("none", 0): result(none.tolist()),
            ("some", 0): result(some.tolist()),
            ("all", 0): result(every.tolist()),
        },
        ARMS,
    )
    assert found["none"]["success"] == pytest.approx(none.mean())
    gain = some.mean() - none.mean()
    gap = every.mean() - none.mean()
    assert found["some"]["gain"] == pytest.approx(gain)
    assert found["some"]["share_of_gap"] == pytest.approx(gain / gap)
    low, high = found["some"]["share_of_gap_ci95"]
    assert 0 < low < gain / gap < high < 1
    assert found["some"]["gain_ci95"][0] > 0
    assert "gain" not in found["none"]
    assert found["all"]["over_second"] == pytest.approx(every.mean() - some.mean())
    assert found["all"]["over_second_ci95"][0] > 0
    assert not {"over_second"} & {*found["none"], *found["some"]}
    header, rows = results_rows(found)
    assert len(header) == len(rows[0])
    assert rows[0][4] == "-"
    assert rows[1][4].startswith("+")


def test_seeds_are_averaged_and_shown() -> None:
    found = compare(
        {
            **{("none", seed): result([0, 0, 1, 1]) for seed in (0, 1)},
            **{("some", seed): result([seed, seed, 1, 1]) for seed in (0, 1)},
            **{("all", seed): result([1, 1, 1, 1]) for seed in (0, 1)},
        },
        ARMS,
    )
    assert found["some"]["success"] == 0.75
    assert found["some"]["success_by_seed"] == [0.5, 1.0]
    assert found["some"]["seeds"] == 2
    assert found["some"]["episodes"] == 4


def test_no_share_is_told_of_a_gap_that_may_be_none() -> None:
    same = [1, 0, 1, 0, 1, 0]
    found = compare({(arm, 0): result(same) for arm in ARMS}, ARMS)
    assert found["all"]["gain_ci95"] == [0.0, 0.0]
    assert found["some"]["share_of_gap"] is None
    assert results_rows(found)[1][1][5] == "-"


def test_a_single_arm_is_told_without_a_comparison() -> None:
    found = compare({("none", 0): result([1, 0, 1])}, ("none",))
    assert found["none"]["success"] == pytest.approx(2 / 3)
    assert results_rows(found)[1][0][4:7] == ["-", "-", "-"]


def test_arms_that_walked_other_instructions_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="other instructions"):
        compare({("none", 0): result([1, 0]), ("all", 0): result([1, 0, 1])}, ("none", "all"))


def test_a_view_by_heading_holds_what_is_seen_at_any_elevation() -> None:
    views = np.zeros((1, 36, 41), np.uint8)
    views[0, [2, 12 + 3, 24 + 3], [5, 6, 7]] = 1
    found = headings_of(views)
    assert found.shape == (1, 12, 41)
    assert np.argwhere(found[0]).tolist() == [[2, 5], [3, 6], [3, 7]]


def test_people_say_couch_for_a_sofa() -> None:
    vocabulary = Vocabulary(("couch", "bed", "sofa", "the"))
    spoken = spoken_features(vocabulary)
    numbers = {word: int(vocabulary.encode(word)[0]) for word in vocabulary.words}
    assert spoken[ID["sofa"]] == [numbers["couch"], numbers["sofa"]]
    assert spoken[ID["bed"]] == [numbers["bed"]]
    assert numbers["the"] not in [number for words in spoken.values() for number in words]


@pytest.fixture
def small_follower() -> InstructionFollower:
    vocabulary = Vocabulary(("turn", "left"))
    torch.manual_seed(0)
    config = RankerConfig(len(CATEGORIES), len(vocabulary), width=16, tokens=16)
    return InstructionFollower(PathRanker(config), vocabulary)


def test_a_follower_in_the_environment_walks_as_on_its_own(
    small_follower: InstructionFollower,
) -> None:
    from agents.vln.places import GraphPlace

    env = gymnasium.make("decisive/R2RNav-v0", world="sketch", split="val_unseen")
    actor = FollowerActor(small_follower)
    for seed in range(5):
        obs, info = env.reset(seed=seed)
        actor.reset(env, seed)
        base: Any = env.unwrapped
        views = headings_of(base.world.symbolic_views(info["scan"]))
        place = GraphPlace(base.graph.positions, base.graph.neighbors, views)
        start = base.graph.index(info["viewpoint"])
        alone = small_follower.walk(place, base.instruction.text, start, base.instruction.heading)
        done = False
        while not done:
            obs, _, terminated, truncated, info = env.step(actor.act(obs, info))
            done = terminated or truncated
        walked = [base.graph.index(name) for name, _, _ in info["trajectory"]]
        assert walked[: len(alone.path)] == alone.path
    env.close()


@pytest.mark.learning
def test_a_study_runs_and_what_is_done_is_not_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--world", "sketch", "--seeds", "1", "--episodes", "12", "--horizon", "2"]
    argv += ["--ranker-seconds", "1", "--views-seconds", "0.5", "--json"]
    argv += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main(argv) == 0
    first = json.loads(capsys.readouterr().out)
    assert list(first["arms"]) == list(SYMBOLIC_ARMS)
    assert all(entry["episodes"] == 12 for entry in first["arms"].values())
    # Were anything trained or walked again, this would be called.
    monkeypatch.delattr(navigation, "make_study")
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["arms"] == first["arms"]


@pytest.mark.parametrize(
    "words", [["--seeds", "0"], ["--horizon", "0"], ["--ranker-seconds", "0"], ["--episodes", "0"]]
)
def test_settings_that_cannot_run_are_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"at least|positive"):
        main(words)


def test_a_path_that_comes_back_is_no_lesson_for_the_ranker(tmp_path: Path) -> None:
    plan = SymbolicPlan("sketch", "val_unseen", 2, 4, 1.0, 1.0)
    study = SymbolicStudy(plan, 0, tmp_path)
    lesson = next(one for one in study.world.instructions("train") if len(one.path) > 2)
    first, second = lesson.path[:2]
    back = replace(lesson, instr_id="back", path=(first, second, first, *lesson.path[1:]))

    class Told(SketchWorld):
        def instructions(self, split: str) -> tuple[Instruction, ...]:
            return (lesson, back)

    study.world = Told()
    routes = study._routes(Vocabulary.of([lesson.text]))
    assert [len(route.path) for route in routes] == [len(lesson.path)]
