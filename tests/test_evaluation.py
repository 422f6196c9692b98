"""Evaluation: the same rows whatever the workers, resumable, comparable."""

import json
import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from decisive.episodes import Episode, ExpertActor, RandomActor, run_episode
from decisive.evaluation import (
    EpisodeLog,
    EvaluationConfig,
    compare,
    evaluate,
    film,
    fingerprint,
    summarize,
)
from decisive.options import make_env, parse_options
from decisive.statistics import wilson_interval

PARTICLE = EvaluationConfig("decisive/Particle-v0", "random", episodes=6, seed=3)
PUSH = EvaluationConfig("decisive/BlockPush-v0", "expert", episodes=4, expert_mode="diverse")


def test_results_hold_every_promised_key():
    results = evaluate(replace(PARTICLE, policy="expert"), command="decisive evaluate ...")
    promised = {
        *("env", "policy", "episodes", "seed", "success_rate", "success_ci95", "return_mean"),
        *("return_std", "length_mean", "ms_per_action", "versions", "commit", "command"),
        "per_episode",
    }
    assert promised <= set(results)
    assert set(results["ms_per_action"]) == {"median", "p95"}
    assert json.loads(json.dumps(results)) == results
    assert results["success_ci95"] == list(wilson_interval(6, 6))
    assert [row["seed"] for row in results["per_episode"]] == [3, 4, 5, 6, 7, 8]
    returns = [row["return"] for row in results["per_episode"]]
    assert results["return_mean"] == pytest.approx(np.mean(returns))
    assert results["return_std"] == pytest.approx(np.std(returns))
    assert results["length_mean"] == 50.0


@pytest.mark.parametrize("config", [PARTICLE, PUSH], ids=["particle", "push"])
def test_rows_do_not_depend_on_the_number_of_workers(config):
    alone = evaluate(config)
    together = evaluate(replace(config, workers=2))
    assert alone["per_episode"] == together["per_episode"]


def test_an_episode_does_not_depend_on_those_before_it():
    config = replace(PUSH, episodes=3)
    three = evaluate(config)["per_episode"]
    last = evaluate(replace(config, seed=2, episodes=1))["per_episode"]
    assert three[2:] == last


def test_streams_of_one_seed_differ():
    env = make_env("decisive/Particle-v0")
    first = [run_episode(env, ExpertActor(), 0, s) for s in ("evaluate", "select", "record")]
    again = run_episode(env, ExpertActor(), 0, "select")
    assert len({episode.total_reward for episode in first}) == 3
    assert again.row() == first[1].row()


def test_random_actions_are_a_function_of_the_seed():
    env = make_env("decisive/Particle-v0")
    actor = RandomActor()
    runs = [run_episode(env, actor, seed).row() for seed in (1, 2, 1)]
    assert runs[0] == runs[2]


def test_times_are_kept_for_every_decision():
    env = make_env("decisive/Particle-v0")
    episode = run_episode(env, ExpertActor(), 0)
    assert len(episode.act_ms) == episode.length == 50
    assert all(ms > 0 for ms in episode.act_ms)


def test_environment_that_reports_no_success_has_no_rate():
    results = evaluate(EvaluationConfig("CartPole-v1", "random", episodes=2))
    assert results["success_rate"] is None
    assert results["success_ci95"] is None
    assert results["score_mean"] is None
    assert results["return_mean"] > 0


class Scored(gym.Env):
    """One step; defines a normalised score, as D4RL's tasks do."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {"success": False}

    def step(self, action):
        return np.zeros(1, np.float32), 5.0, True, False, {"success": True, "score": math.nan}

    def normalized_score(self, score):
        return 100.0 * score / 20.0


def test_normalised_score_is_given_where_one_is_defined():
    gym.register("test/Scored-v0", entry_point=Scored)
    try:
        results = evaluate(EvaluationConfig("test/Scored-v0", "random", episodes=2))
    finally:
        del gym.registry["test/Scored-v0"]
    assert results["normalized_score"] == 25.0
    assert results["score_mean"] is None
    assert "normalized_score" not in evaluate(replace(PARTICLE, episodes=1))


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_stopped_evaluation_goes_on_where_it_was(tmp_path):
    log = tmp_path / "partial.jsonl"
    whole = evaluate(PARTICLE)
    evaluate(replace(PARTICLE, episodes=4), partial=log)
    # Mark a finished row: if it comes back, it was not run again.
    rows = rows_of(log)
    rows[2]["return"] = 12345.0
    cut = '{"seed": 5, "succ'  # and the line that a kill cut short
    log.write_text("".join(json.dumps(row) + "\n" for row in rows[:4]) + cut)
    resumed = evaluate(PARTICLE, partial=log)
    assert resumed["per_episode"][1]["return"] == 12345.0
    assert resumed["per_episode"][0] == whole["per_episode"][0]
    assert resumed["per_episode"][2:] == whole["per_episode"][2:]
    assert len(rows_of(log)) == 1 + PARTICLE.episodes


def test_rows_of_another_evaluation_are_not_reused(tmp_path):
    log = tmp_path / "partial.jsonl"
    evaluate(replace(PARTICLE, options={"n_dims": 3}), partial=log)
    assert evaluate(PARTICLE, partial=log)["per_episode"] == evaluate(PARTICLE)["per_episode"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]\n", b"{}\n", b"null\nnull\n"])
def test_a_spoilt_log_is_started_anew(content, tmp_path):
    path = tmp_path / "partial.jsonl"
    path.write_bytes(content)
    assert EpisodeLog(path, fingerprint(PARTICLE)).read() == {}


def test_a_log_with_a_spoilt_row_is_started_anew(tmp_path):
    path = tmp_path / "partial.jsonl"
    header = json.dumps(fingerprint(PARTICLE))
    path.write_text(f'{header}\n{{"seed": 1}}\n')
    assert EpisodeLog(path, fingerprint(PARTICLE)).read() == {}


def test_an_episode_survives_json():
    episode = Episode(7, True, 0.5, 1.25, 3, (0.1, 0.2, 0.3))
    assert Episode.from_json(json.loads(json.dumps(episode.to_json()))) == episode


def with_outcomes(policy, outcomes):
    config = replace(PARTICLE, policy=policy, episodes=len(outcomes))
    episodes = [Episode(s, ok, None, 0.0, 1, (1.0,)) for s, ok in enumerate(outcomes, config.seed)]
    return summarize(config, episodes)


def test_comparison_counts_pairs_and_failures():
    first = with_outcomes("a", [True] * 9 + [False])
    second = with_outcomes("b", [True] * 2 + [False] * 7 + [True])
    found = compare(first, second)
    assert (found["both"], found["only_first"], found["only_second"]) == (2, 7, 1)
    assert found["mcnemar_p"] == pytest.approx(18 / 256)
    assert found["failure_ratio"] == pytest.approx(7.0)
    assert found["failure_ratio_ci95"][0] < 7.0 < found["failure_ratio_ci95"][1]


def test_comparison_of_different_seeds_is_refused():
    with pytest.raises(ValueError, match="same seeds"):
        compare(with_outcomes("a", [True] * 3), with_outcomes("b", [True] * 4))


def test_a_film_shows_every_step_of_every_episode(tmp_path):
    import imageio_ffmpeg

    path = tmp_path / "film.mp4"
    film(replace(PARTICLE, policy="expert"), path, episodes=2)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert frames == 2 * (51 + 10)  # a reset, 50 steps, and half a second of the end at 20 fps
    assert seconds == pytest.approx(frames / 20, abs=0.06)


def test_options_reach_the_environment():
    options = parse_options("decisive/Particle-v0", ["n_dims=3", "max_episode_steps=7"])
    assert options == {"n_dims": 3, "max_episode_steps": 7}
    config = replace(PARTICLE, options=options, episodes=1)
    assert evaluate(config)["length_mean"] == 7.0
