"""`decisive benchmark r2r`: an agent on every instruction of a split, or a submission scored."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.benchmarks.r2r_agents import find_agent
from decisive.benchmarks.r2r_report import Walk, results_table, summarize
from decisive.options import make_env
from decisive.progress import progress
from decisive.statistics import median_and_p95
from envs.indoor.metrics import score_path
from envs.indoor.r2r_data import Instruction, Trajectory, dump_submission, read_submission
from envs.indoor.r2r_nav import R2RNavEnv
from learning.atomic import write_file

ENV = "decisive/R2RNav-v0"


@dataclass(frozen=True)
class Arguments:
    """Run an agent on the instructions of a Room-to-Room split, or score a submission.

    Needs the Room-to-Room annotations and graphs, in the folder that DECISIVE_DATA names; images
    are not needed. --out gets submission.json, as the test server takes it, and results.json.
    --world sketch and --world houses need no data at all; they are synthetic.

    Agents: shortest-path (knows the goal), random (that of the Room-to-Room paper: a random
    heading, then five moves straight on).

    Examples:
      decisive benchmark r2r --split val_unseen --agent shortest-path --json
      decisive benchmark r2r --split val_unseen --agent random --seed 1 --out outputs/random
      decisive benchmark r2r --split my_instructions.json --agent shortest-path
      decisive benchmark r2r --split val_unseen --score outputs/random/submission.json
    """

    split: str = "val_unseen"
    """train, val_seen, val_unseen, test (no goals: a submission, but no scores), or a JSON file in
    Room-to-Room's form."""
    agent: str = "shortest-path"
    """Name of the agent."""
    score: Annotated[OptionalText, tyro.conf.arg(metavar="FILE")] = None
    """Score this submission; no agent is run."""
    world: str = "r2r"
    """r2r; reverie (the same buildings, told only what to find); sketch or houses (synthetic, need
    no data)."""
    data: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of data, instead of the one that DECISIVE_DATA names."""
    observation: Literal["symbolic", "pixels", "none"] | None = None
    """What is seen; what the agent needs if not given."""
    episodes: int | None = None
    """Only so many instructions, drawn with --seed; all if not given."""
    seed: int = 0
    """Seed of the agent: instruction number k gets SEED + k."""
    out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the two files; outputs/benchmarks/r2r/AGENT-SPLIT if not given."""
    json: Flag = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the verb with the words after `r2r`."""
    arguments = parse(Arguments, argv, "benchmark r2r")
    if arguments.seed < 0:
        raise ValueError(f"seed must not be negative, got {arguments.seed}")
    who = arguments.agent if arguments.score is None else Path(arguments.score).stem
    split = Path(arguments.split).name.split(".")[0]
    folder = Path(arguments.out or f"outputs/benchmarks/r2r/{who}-{split}")
    results_file = check_writable(folder / "results.json")
    submission_file = folder / "submission.json"
    if arguments.score is None:
        walks, trajectories, times = run_agent(arguments)
        write_file(submission_file, dump_submission(trajectories))
        median, p95 = median_and_p95(times)
        facts: dict[str, Any] = {
            "agent": arguments.agent,
            "submission": str(submission_file),
            "ms_per_action": {"median": round(median, 4), "p95": round(p95, 4)},
        }
    else:
        walks = score_submission(arguments)
        facts = {"agent": arguments.score, "submission": arguments.score}
    results = {
        "env": ENV,
        "world": arguments.world,
        "split": arguments.split,
        **facts,
        "seed": arguments.seed,
        **summarize(walks),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "command": provenance.command("benchmark", ["r2r", *argv]),
        "machine": provenance.machine(),
        "per_episode": [walk.row() for walk in walks],
    }
    text = json.dumps(results, indent=2)
    write_file(results_file, f"{text}\n".encode())
    if arguments.json:
        print(text)
        return 0
    tables.show(results_table(results, f"Room-to-Room, {arguments.world} {arguments.split}"))
    if results["success_rate"] is None:
        print("the goals of this split are secret: only the test server can score the submission")
    print(results["submission"])
    print(results_file)
    return 0


def run_agent(
    arguments: Arguments,
) -> tuple[list[Walk], dict[str, Trajectory], list[float]]:
    """Walk every instruction chosen.

    Args:
        arguments: which agent, on what.

    Returns:
        The walks, their trajectories by `instr_id`, and the wall time of each decision in
        milliseconds.

    Raises:
        ValueError: for an unknown agent, world or split, or data that are not what they should be.
    """
    agent = find_agent(arguments.agent)
    options = {**_env_options(arguments), **agent.options}
    if arguments.observation is not None:
        options["views"] = arguments.observation
    made = make_env(ENV, options)
    env: Any = made.unwrapped
    actor = agent.make()
    walks: list[Walk] = []
    trajectories: dict[str, Trajectory] = {}
    times: list[float] = []
    try:
        chosen = _choose(env, arguments)
        with progress(f"{arguments.agent} on {arguments.split}", len(chosen)) as meter:
            for number, instruction in chosen:
                seed = arguments.seed + number
                obs, info = made.reset(seed=seed, options={"instr_id": instruction.instr_id})
                actor.reset(made, seed)
                done = False
                while not done:
                    start = time.perf_counter()
                    action = actor.act(obs, info)
                    times.append((time.perf_counter() - start) * 1e3)
                    obs, _, terminated, truncated, info = made.step(action)
                    done = terminated or truncated
                trajectories[instruction.instr_id] = info["trajectory"]
                walks.append(_walk(instruction, info["steps"], env.scores()))
                good = sum(walk.scores is not None and walk.scores.success for walk in walks)
                meter.advance(note=f"{good} succeeded")
    finally:
        made.close()
    return walks, trajectories, times


def score_submission(arguments: Arguments) -> list[Walk]:
    """Score a submission file.

    Raises:
        ValueError: for a file of another form, an instruction that it lacks, or a walk that the
            graph does not allow.
    """
    assert arguments.score is not None
    made = make_env(ENV, {**_env_options(arguments), "views": "none"})
    env: Any = made.unwrapped
    chosen = [instruction for _, instruction in _choose(env, arguments)]
    if not all(instruction.has_goal for instruction in chosen):
        raise ValueError(f"the goals of split {arguments.split!r} are secret: it cannot be scored")
    walks = []
    for name, walked in read_submission(Path(arguments.score), chosen).items():
        instruction = env.instructions[name]
        graph = env.world.graph(instruction.scan)
        try:
            scores = score_path(graph, walked, instruction.path)
        except ValueError as error:
            raise ValueError(f"{arguments.score}, {name}: {error}") from None
        walks.append(_walk(instruction, len(walked) - 1, scores))
    return walks


def _env_options(arguments: Arguments) -> dict[str, Any]:
    return {"world": arguments.world, "split": arguments.split, "data": arguments.data}


def _choose(env: R2RNavEnv, arguments: Arguments) -> list[tuple[int, Instruction]]:
    """Numbered instructions of the split, all or a draw of them, in the order of the file."""
    numbered = list(enumerate(env.instructions.values()))
    if arguments.episodes is None:
        return numbered
    if not 1 <= arguments.episodes <= len(numbered):
        raise ValueError(f"episodes must be 1 to {len(numbered)}, got {arguments.episodes}")
    rng = np.random.default_rng(arguments.seed)
    chosen = np.sort(rng.choice(len(numbered), arguments.episodes, replace=False))
    return [numbered[k] for k in chosen.tolist()]


def _walk(instruction: Instruction, steps: int, scores: Any) -> Walk:
    return Walk(instruction.instr_id, instruction.path_id, instruction.scan, steps, scores)
