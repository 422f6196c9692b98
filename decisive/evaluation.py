"""Evaluation episodes in parallel, with the same rows whatever the number of workers.

Every episode is a function of (environment, options, policy, seed) alone. Finished rows are kept
in a file beside the results, so an evaluation that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from decisive import provenance
from decisive.episodes import BUILT_IN, Episode, PolicyActor, Runner, run_episodes
from decisive.options import env_class, make_env
from decisive.progress import progress
from decisive.statistics import failure_ratio, median_and_p95, paired_test, wilson_interval
from decisive.video import VideoWriter
from decisive.workers import process_pool

if TYPE_CHECKING:
    from agents.policy import Policy

EXPERT_MODES = ("consistent", "diverse")


@dataclass(frozen=True)
class EvaluationConfig:
    """What to evaluate.

    Attributes:
        env: environment id.
        policy: checkpoint folder, shipped name, `expert` or `random`.
        episodes: how many; their seeds are `seed`, `seed + 1`, ...
        seed: seed of the first.
        options: environment options by name, typed.
        expert_mode: for the policy `expert`: `consistent` or `diverse`.
        stream: stream of seeds; all but `evaluate` are for choosing, never for reporting.
        policy_settings: settings of a learned policy to change, nested as its config is.
        workers: parallel processes.
        ray: `local`, or the address of a Ray cluster; `None` for processes of this machine.
        perceived: what tells the objects where the policy sees them only by a camera: a segmenter
            (folder or shipped name) or `colors`; `None` gives it the exact state.
    """

    env: str
    policy: str
    episodes: int = 100
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    expert_mode: str = "consistent"
    stream: str = "evaluate"
    policy_settings: dict[str, Any] = field(default_factory=dict)
    workers: int = 1
    ray: str | None = None
    perceived: str | None = None

    def __post_init__(self) -> None:
        """Reject what cannot be run."""
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.expert_mode not in EXPERT_MODES:
            raise ValueError(f"expert mode must be one of {EXPERT_MODES}, got {self.expert_mode!r}")
        if self.perceived is not None:
            from decisive.perceived import check_perceived

            check_perceived(self.env, self.policy, self.perceived, self.ray)

    @property
    def seeds(self) -> range:
        """The seeds of the episodes."""
        return range(self.seed, self.seed + self.episodes)

    def runner(self, render_mode: str | None = None) -> Runner:
        """Environment and actor of this evaluation."""
        return Runner(
            self.env,
            self.options,
            self.policy,
            self.expert_mode,
            self.stream,
            render_mode,
            self.policy_settings,
            self.perceived,
        )


def evaluate(
    config: EvaluationConfig, partial: Path | None = None, command: str = ""
) -> dict[str, Any]:
    """Run the episodes and sum them up.

    Args:
        config: what to run.
        partial: where finished rows are kept meanwhile; an equal evaluation that was stopped
            continues from there. The caller removes it once the results are safe.
        command: the command line, for the record.

    Returns:
        The results: see `summarize`.

    Raises:
        ValueError: for an unknown environment, option or policy, or where they do not fit.
        OSError: if a worker process died.
    """
    done: dict[int, Episode] = {}
    log = None
    if partial is not None:
        log = EpisodeLog(partial, fingerprint(config))
        done = log.read()
    missing = [seed for seed in config.seeds if seed not in done]
    state = "" if config.perceived is None else ", perceived"
    title = f"{config.policy} in {config.env}{state}"
    with progress(title, config.episodes) as meter:
        meter.advance(config.episodes - len(missing))
        for episode in _run(config, missing):
            done[episode.seed] = episode
            if log is not None:
                log.append(episode)
            good = sum(bool(e.success) for e in done.values())
            meter.advance(note=f"{good} succeeded")
    return summarize(config, [done[seed] for seed in config.seeds], command)


def _run(config: EvaluationConfig, seeds: list[int]) -> Iterator[Episode]:
    """Run the episodes of some seeds, in any order."""
    if not seeds:
        return
    if config.ray is not None:
        from decisive.cluster import run_on_ray

        yield from run_on_ray(config, seeds)
        return
    if config.workers == 1 or len(seeds) == 1:
        runner = config.runner()
        try:
            yield from (runner.run(seed) for seed in seeds)
        finally:
            runner.close()
        return
    workers = min(config.workers, len(seeds))
    with process_pool(workers, partial(_start_worker, config)) as pool:
        try:
            for future in as_completed([pool.submit(_run_in_worker, seed) for seed in seeds]):
                yield future.result()
        except BrokenProcessPool as error:
            raise OSError(
                "a worker process died (out of memory?); the same command with --out continues "
                "from the finished episodes"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


class _Worker:
    """State of a worker process: what to run, and the runner once it is built."""

    config: EvaluationConfig | None = None
    runner: Runner | None = None


def _start_worker(config: EvaluationConfig) -> None:
    _Worker.config = config


def _run_in_worker(seed: int) -> Episode:
    # Built here and not in the initializer, whose errors the pool would not pass on.
    if _Worker.runner is None:
        assert _Worker.config is not None, "the pool starts every worker with _start_worker"
        _Worker.runner = _Worker.config.runner()
    return _Worker.runner.run(seed)


def evaluate_module(
    policy: Policy,
    env_id: str,
    options: dict[str, Any],
    episodes: int,
    seed: int = 0,
    stream: str = "select",
) -> list[Episode]:
    """Run episodes of a policy in memory, in this process: for choosing checkpoints.

    The policy is left in the mode (training or evaluation) it came in.
    """
    env = make_env(env_id, options)
    was_training = policy.training
    policy.eval()
    try:
        return list(run_episodes(env, PolicyActor(policy), range(seed, seed + episodes), stream))
    finally:
        policy.train(was_training)
        env.close()


def summarize(
    config: EvaluationConfig, episodes: list[Episode], command: str = ""
) -> dict[str, Any]:
    """The results of an evaluation, in the form promised to users.

    Args:
        config: what was run.
        episodes: in the order of their seeds.
        command: the command line, for the record.

    Returns:
        A JSON object: `env`, `env_options`, `policy`, `episodes`, `seed`, `success_rate`,
        `success_ci95` (Wilson), `score_mean`, `return_mean`, `return_std`, `length_mean`,
        `ms_per_action`, `versions`, `commit`, `command`, `machine`, `per_episode`;
        `normalized_score` where the environment defines one; and `perceived` where a camera showed
        the objects (see `decisive.perceived_summary`). What the environment does not report is
        null.
    """
    outcomes = [e.success for e in episodes if e.success is not None]
    successes = sum(outcomes)
    known = len(outcomes) == len(episodes)
    scores = [e.score for e in episodes if e.score is not None]
    returns = np.array([e.total_reward for e in episodes])
    times = [ms for e in episodes for ms in e.act_ms]
    median, p95 = median_and_p95(times)
    results: dict[str, Any] = {
        "env": config.env,
        "env_options": dict(config.options),
        "policy": config.policy,
        "episodes": len(episodes),
        "seed": config.seed,
        "success_rate": successes / len(episodes) if known else None,
        "success_ci95": list(wilson_interval(successes, len(episodes))) if known else None,
        "score_mean": sum(scores) / len(scores) if len(scores) == len(episodes) else None,
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "length_mean": float(np.mean([e.length for e in episodes])),
        "ms_per_action": {"median": round(median, 4), "p95": round(p95, 4)},
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "command": command,
        "machine": {**provenance.machine(), "workers": config.workers},
        "per_episode": [e.row() for e in episodes],
    }
    if config.policy == "expert":
        results["expert_mode"] = config.expert_mode
    if config.policy_settings:
        results["policy_settings"] = dict(config.policy_settings)
    if config.stream != "evaluate":
        results["stream"] = config.stream
    if config.perceived is not None:
        from decisive.perceived_summary import summarize_perception

        results["perceived"] = summarize_perception(config.perceived, episodes)
    normalized = _normalized_score(config, results["return_mean"])
    if normalized is not None:
        results["normalized_score"] = normalized
    return results


def compare(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Paired comparison of two results on the same seeds.

    Returns:
        A JSON object: the two policies, the counts of pairs, McNemar's exact p, and how many
        times more often the second fails than the first, with its 95% interval.
    """
    seeds = [[row["seed"] for row in r["per_episode"]] for r in (first, second)]
    if seeds[0] != seeds[1]:
        raise ValueError("a paired comparison needs the same seeds in both results")
    outcomes = [[bool(row["success"]) for row in r["per_episode"]] for r in (first, second)]
    test = paired_test(*outcomes)
    n = len(outcomes[0])
    ratio = failure_ratio(n - sum(outcomes[0]), n, n - sum(outcomes[1]), n)
    return {
        "policies": [first["policy"], second["policy"]],
        "both": test.both,
        "only_first": test.only_first,
        "only_second": test.only_second,
        "neither": test.neither,
        "mcnemar_p": test.p,
        "failure_ratio": ratio.ratio,
        "failure_ratio_ci95": [ratio.low, ratio.high],
    }


def film(config: EvaluationConfig, path: Path, episodes: int) -> None:
    """Film the first episodes of an evaluation; they run once more, to the same end.

    Args:
        config: what to run.
        path: MP4 file.
        episodes: how many.
    """
    runner = config.runner(render_mode="rgb_array")
    env = runner.env
    try:
        with VideoWriter(path, float(env.metadata.get("render_fps", 10))) as writer:

            def add(_: object = None) -> None:
                writer.add(_frame(env))

            # One step of push control is seconds long: the tabletop can show the inside of it.
            base: Any = env.unwrapped
            inside = hasattr(base, "on_control_step")
            if inside:
                base.on_control_step = add
            for seed in range(config.seed, config.seed + episodes):
                runner.run(seed, on_step=None if inside else add)
                writer.add(_frame(env), repeat=max(1, round(writer.fps / 2)))
    finally:
        runner.close()


def _frame(env: gym.Env[Any, Any]) -> NDArray[np.uint8]:
    frame: Any = env.render()
    return np.asarray(frame, np.uint8)


class EpisodeLog:
    """Rows of finished episodes, one JSON line each, below a line that says what they are of."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        """Name the file and what it belongs to. Nothing is written before the first row."""
        self.path = path
        self.header = header

    def read(self) -> dict[int, Episode]:
        """Finished episodes by seed; none if the file is of another evaluation.

        A last line cut short by a kill is dropped, and the file is rewritten without it.
        """
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, UnicodeDecodeError):
            lines = []
        rows = list(_json_lines(lines))
        if not rows or rows[0] != self.header:
            self.path.unlink(missing_ok=True)
            return {}
        try:
            episodes = [Episode.from_json(row) for row in rows[1:]]
        except (KeyError, TypeError, ValueError):
            self.path.unlink()
            return {}
        if len(rows) != len(lines):
            self.path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return {episode.seed: episode for episode in episodes}

    def append(self, episode: Episode) -> None:
        """Add one finished episode."""
        fresh = not self.path.exists()
        with self.path.open("a", encoding="utf-8") as file:
            if fresh:
                file.write(json.dumps(self.header) + "\n")
            file.write(json.dumps(episode.to_json()) + "\n")


def _json_lines(lines: Iterable[str]) -> Iterator[Any]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def fingerprint(config: EvaluationConfig) -> dict[str, Any]:
    """What rows of two evaluations must share to be exchangeable."""
    facts: dict[str, Any] = {
        "env": config.env,
        "options": config.options,
        "policy": config.policy,
        "weights": policy_digest(config.policy),
        "policy_settings": config.policy_settings,
        "expert_mode": config.expert_mode,
        "stream": config.stream,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
    if config.perceived is not None:
        facts["perceived"] = [config.perceived, segmenter_digest(config.perceived)]
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=str))  # tuples become lists
    return plain


def policy_files(policy: str) -> dict[str, bytes]:
    """The files of a policy's checkpoint by name; none for the built-in ones."""
    if policy in BUILT_IN:
        return {}
    from agents import shipped_policies

    place = Path(policy)
    if place.is_file():
        return {place.name: place.read_bytes()}
    return _checkpoint_files(place if place.is_dir() else shipped_policies().get(policy, place))


def policy_digest(policy: str) -> str:
    """SHA-256 of a policy's checkpoint, to tell a retrained one from the one before."""
    return _digest(policy_files(policy))


def segmenter_digest(segmenter: str) -> str:
    """The same of what tells the objects; of nothing where their colours do."""
    from decisive.perceived import find_segmenter
    from decisive.perceived_summary import COLORS

    if segmenter == COLORS:
        return _digest({})
    return _digest(_checkpoint_files(find_segmenter(segmenter)))


def _checkpoint_files(place: Path) -> dict[str, bytes]:
    from learning.checkpoint import CONFIG_FILE, TENSORS_FILE, find_checkpoint

    folder = find_checkpoint(place)
    names = (CONFIG_FILE, TENSORS_FILE)
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _normalized_score(config: EvaluationConfig, return_mean: float) -> float | None:
    """The normalised score of a mean return where the environment has a method for it (D4RL)."""
    if not hasattr(env_class(config.env), "normalized_score"):
        return None
    env = make_env(config.env, config.options)
    base: Any = env.unwrapped
    try:
        return float(base.normalized_score(return_mean))
    finally:
        env.close()
