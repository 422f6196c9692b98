"""`decisive benchmark r2r`: agents, submissions, summaries, bad input."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from r2r_cases import DATA, entry, needs_data, street

from decisive.benchmarks.r2r_agents import AGENTS, RandomWalker, find_agent
from decisive.benchmarks.r2r_report import MEANS, Walk, summarize
from decisive.cli import main
from decisive.statistics import wilson_interval
from envs.indoor.metrics import score_path
from envs.indoor.r2r_nav import R2RNavEnv


def building(folder: Path, *entries: dict[str, Any]) -> list[str]:
    """Words of a command line for a building and instructions of our own."""
    (folder / "connectivity").mkdir()
    place = folder / "connectivity" / "case_connectivity.json"
    place.write_text(json.dumps(street().connectivity()))
    (folder / "told.json").write_text(json.dumps(list(entries)))
    told = ["--data", str(folder), "--split", str(folder / "told.json")]
    return ["benchmark", "r2r", *told, "--out", str(folder / "out")]


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What a command prints with --json."""
    assert main([*words, "--json"]) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def test_the_shortest_path_is_perfect_and_its_submission_scores_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = building(tmp_path, entry(), entry(path_id=8, path=["b", "c", "d", "e"]))
    results = run(words, capsys)
    assert (results["episodes"], results["paths"]) == (6, 2)
    assert results["success_rate"] == results["spl"] == results["ndtw"] == 1.0
    assert results["success_ci95"] == list(wilson_interval(6, 6))
    assert results["navigation_error"] == 0.0
    assert results["path_length"] == pytest.approx((4.0 + 6.0) / 2)
    assert results["path_length_ci95"] == [4.0, 6.0]
    for key in ("env", "world", "split", "agent", "seed", "versions", "commit", "command"):
        assert key in results
    assert results["command"].startswith("decisive benchmark r2r --data")
    file = tmp_path / "out" / "submission.json"
    walks = json.loads(file.read_text())
    assert [walk["instr_id"] for walk in walks] == ["7_0", "7_1", "7_2", "8_0", "8_1", "8_2"]
    assert [pose[0] for pose in walks[0]["trajectory"]] == ["a", "b", "c"]
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    again = run([*words, "--score", str(file)], capsys)
    for name in ("success_rate", "oracle_success_rate", *MEANS):
        assert again[name] == results[name]
    assert [row["path_length"] for row in again["per_episode"]] == [4.0] * 3 + [6.0] * 3


def test_the_random_walker_turns_to_one_of_twelve_headings_then_moves_five_times() -> None:
    turns = []
    for seed in range(200):
        walker = RandomWalker()
        walker.reset(R2RNavEnv(), seed)
        actions = []
        while not actions or actions[-1] != 0:
            actions.append(int(walker.act({"candidate_mask": np.ones(16, np.int8)}, {})))
        turns.append(actions.index(1))
        assert actions == [3] * turns[-1] + [1] * 5 + [0]
    assert set(turns) == set(range(12))


def test_the_random_walker_turns_on_until_a_way_is_in_view() -> None:
    env = R2RNavEnv(**AGENTS["random"].options)  # type: ignore[arg-type]
    for seed in range(20):
        obs, info = env.reset(seed=seed)
        walker = RandomWalker()
        walker.reset(env, seed)
        done = False
        while not done:
            obs, _, terminated, truncated, info = env.step(walker.act(obs, info))
            done = terminated or truncated
        places = [pose[0] for pose in info["trajectory"]]
        moves = sum(a != b for a, b in itertools.pairwise(places))
        assert (moves == 5) if terminated else (info["steps"] == 30)


def test_an_agent_repeats_itself_under_a_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", "r2r", "--world", "sketch", "--agent", "random", "--out", str(tmp_path)]
    runs = [run([*words, "--seed", seed], capsys)["per_episode"] for seed in "001"]
    assert runs[0] == runs[1] != runs[2]
    part = run([*words, "--episodes", "7"], capsys)["per_episode"]
    assert len(part) == 7
    assert all(row in runs[0] for row in part)  # an episode is the same, alone or among others


def test_without_goals_there_is_a_submission_and_no_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = entry(path=["a"])
    del secret["distance"]
    words = building(tmp_path, secret)
    results = run([*words, "--agent", "random"], capsys)
    assert results["success_rate"] is None
    assert results["spl"] is results["spl_ci95"] is None
    assert len(json.loads(Path(results["submission"]).read_text())) == 3
    assert main([*words, "--agent", "random"]) == 0
    assert "only the test server can score" in capsys.readouterr().out
    for more in (["--agent", "shortest-path"], ["--score", results["submission"]]):
        assert main([*words, *more]) == 2
        assert "secret" in capsys.readouterr().err


def test_means_and_intervals_by_hand() -> None:
    graph = street()
    walks = [
        Walk("1_0", "1", "case", 3, score_path(graph, "abc", "abc")),
        Walk("1_1", "1", "case", 3, score_path(graph, "a", "abc")),
        Walk("2_0", "2", "case", 6, score_path(graph, "abcdef", "abcdef")),
    ]
    results = summarize(walks)
    assert (results["episodes"], results["paths"], results["steps_mean"]) == (3, 2, 4.0)
    assert results["success_rate"] == pytest.approx(2 / 3)
    assert results["success_ci95"] == list(wilson_interval(2, 3))
    assert results["spl"] == pytest.approx(2 / 3)
    # Two paths, drawn whole: the mean is that of path 1, of path 2, or of all.
    assert results["spl_ci95"] == pytest.approx([0.5, 1.0])
    assert results["navigation_error"] == pytest.approx(4 / 3)
    assert results["navigation_error_ci95"] == pytest.approx([0.0, 2.0])


def test_instructions_of_one_path_do_not_narrow_the_interval() -> None:
    graph, rng = street(), np.random.default_rng(0)
    lengths = rng.integers(1, 6, 40)

    def width(copies: int) -> float:
        walks = [
            Walk(f"{k}_{c}", str(k), "case", 1, score_path(graph, "abcdef"[:n], "abcdef"))
            for k, n in enumerate(lengths.tolist())
            for c in range(copies)
        ]
        low, high = summarize(walks)["navigation_error_ci95"]
        return float(high - low)

    assert width(5) == pytest.approx(width(1))
    assert width(1) > 0.5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--agent", "nobody"], "unknown agent 'nobody'; known: shortest-path, random"),
        (["--world", "mars"], "unknown world 'mars'"),
        (["--episodes", "0"], "episodes must be 1 to 3"),
        (["--episodes", "4"], "episodes must be 1 to 3"),
        (["--seed", "-1"], "seed must not be negative"),
        (["--observation", "x"], "observation"),
        (["--split", "valunseen"], "unknown split 'valunseen'; known: train, val_seen"),
        (["--split", "none.json"], "none.json"),
        (["--data", "nowhere"], "set DECISIVE_DATA"),
        (["--score", "none.json"], "none.json"),
        (["--wings"], "wings"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    words = building(tmp_path, entry())
    assert main([*words, *more]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert message in told.err


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (entry(path=["a", "z"]), "no viewpoint 'z'"),
        (entry(path=["a", "c"]), "no way leads straight from a to c"),
        (entry(scan="moon"), "unknown scan 'moon'"),
        (entry(instructions=["go " * 10_000]), "at most 1000 words"),
        (entry(instructions=["\U00010000\U00010001"]), "unknown script"),
        (entry(heading=math.inf), "heading must be finite"),
        ({"scan": "case"}, "lacks 'path_id'"),
        (3, "must be an object"),
    ],
)
def test_broken_instructions_are_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: Any, message: str
) -> None:
    assert main(building(tmp_path, broken)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert message in told
    assert not (tmp_path / "out" / "submission.json").exists()


def test_a_submission_that_jumps_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = building(tmp_path, entry(instructions=["Go."]))
    file = tmp_path / "s.json"
    file.write_text(json.dumps([{"instr_id": "7_0", "trajectory": [["a", 0, 0], ["c", 0, 0]]}]))
    assert main([*words, "--score", str(file)]) == 2
    assert "7_0: case: no way leads straight from a to c" in capsys.readouterr().err


def test_other_benchmarks_keep_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "tabletop", "--list", "--seeds", "1"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed
    assert all(line.endswith("/0") for line in listed)
    assert main(["benchmark", "--seeds", "1", "r2r"]) == 2
    assert "give r2r first: decisive benchmark r2r ..." in capsys.readouterr().err
    assert main(["benchmark", "chess"]) == 2
    assert "r2r" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", "r2r", "--help"])
    assert stop.value.code == 0
    assert "--agent" in capsys.readouterr().out


def test_agents_are_found_by_name() -> None:
    assert set(AGENTS) >= {"shortest-path", "random"}
    for name, agent in AGENTS.items():
        assert find_agent(name) is agent
        R2RNavEnv(**agent.options).close()  # type: ignore[arg-type]


def test_evaluate_runs_expert_and_chance(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--env", "decisive/R2RNav-v0", "--episodes", "10"]
    results = run([*words, "--policy", "expert"], capsys)
    assert results["success_rate"] == results["score_mean"] == results["return_mean"] == 1.0
    results = run([*words, "--policy", "random"], capsys)
    assert results["success_rate"] < 0.5


@needs_data
@pytest.mark.data
@pytest.mark.slow
def test_the_random_agent_is_that_of_the_paper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Anderson et al. 2018 report 16.3 % success, 22.0 % oracle success, 9.23 m error and 9.77 m
    # length on val_unseen (as recalled); three instructions a path make about 3 % noise.
    words = ["benchmark", "r2r", "--data", str(DATA), "--agent", "random", "--out", str(tmp_path)]
    results = run(words, capsys)
    assert results["episodes"] == 2349
    assert results["success_rate"] == pytest.approx(0.163, abs=0.03)
    assert results["oracle_success_rate"] == pytest.approx(0.22, abs=0.03)
    assert results["navigation_error"] == pytest.approx(9.23, abs=0.4)
    assert results["path_length"] == pytest.approx(9.77, abs=0.4)
    best = run([*words[:5], "shortest-path", *words[6:]], capsys)
    assert best["success_rate"] == 1.0
    assert best["spl"] == pytest.approx(1.0)
    assert best["navigation_error"] == 0.0
    assert best["path_length"] == pytest.approx(9.48, abs=0.01)
