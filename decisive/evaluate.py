"""`decisive evaluate`: how often does this policy succeed, and how sure are you?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalFile, OptionalText, Settings, check_writable, parse
from decisive.evaluation import EvaluationConfig, compare, evaluate, film
from decisive.options import nested_options, parse_options
from decisive.perceived_summary import SEGMENTER, perception_lines
from learning.atomic import write_file


@dataclass(frozen=True)
class Arguments:
    r"""Run evaluation episodes: success rate with its 95% interval.

    The episodes of a seed are the same for every policy and any number of workers, and none of
    them was ever recorded as a demonstration or used to choose a checkpoint.

    Examples:
      decisive evaluate --env decisive/BlockInsertion-v0 --policy expert --episodes 20
      decisive evaluate --env decisive/BlockInsertion-v0 --policy block-insertion-ibc \
        --compare block-insertion-mse --set slots=2 --workers 2 --out results.json
      decisive evaluate --env decisive/BlockInsertion-v0 --policy block-insertion-ibc \
        --perceived
      decisive evaluate --env decisive/BlockPush-v0 --policy outputs/push --video push.mp4
    """

    env: str
    """Environment id, such as decisive/BlockPush-v0."""
    policy: str
    """Checkpoint folder, name of a shipped policy, 'expert' or 'random'."""
    expert_mode: Literal["consistent", "diverse"] = "consistent"
    """How the expert chooses among equally good ways."""
    episodes: int = 100
    """Number of episodes; their seeds count up from --seed."""
    seed: int = 0
    """Seed of the first episode."""
    stream: Literal["evaluate", "select"] = "evaluate"
    """Seeds to report on, or those to choose settings by: never tune on what you report."""
    set_policy: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")
    ] = ()
    """Setting of the (first) policy that leaves its network alone, such as dfo.n_iterations=6."""
    workers: int = 1
    """Parallel processes; the results do not depend on it."""
    ray: OptionalText = None
    """'local', or the address of a Ray cluster: episodes run there."""
    compare: OptionalText = None
    """A second policy on the same seeds: McNemar test and failure ratio."""
    perceived: Flag = False
    """Show objects only by a camera (masks, depth), and run the exact state on the same seeds."""
    segmenter: OptionalText = None
    """Of --perceived: folder, shipped name (else tabletop-deep-mac), or 'colors': needs none."""
    settings: Settings = ()
    """Environment option, such as slots=2; give --set once for each."""
    video: OptionalFile = None
    """MP4 file for a film of the first episodes."""
    video_episodes: int = 3
    """How many episodes the film shows."""
    out: OptionalFile = None
    """File for the results (JSON). A stopped run with --out continues where it was."""
    json: Annotated[Flag, tyro.conf.arg(help="Print one JSON object instead of a table.")] = False

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.segmenter is not None and not self.perceived:
            raise ValueError("--segmenter is of --perceived")
        if self.perceived and self.compare is not None:
            raise ValueError("--perceived compares with the exact state: leave out --compare")


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "evaluate")
    config = EvaluationConfig(
        env=arguments.env,
        policy=arguments.policy,
        episodes=arguments.episodes,
        seed=arguments.seed,
        options=parse_options(arguments.env, arguments.settings),
        expert_mode=arguments.expert_mode,
        stream=arguments.stream,
        workers=arguments.workers,
        ray=arguments.ray,
    )
    out = None if arguments.out is None else check_writable(arguments.out)
    if arguments.video is not None:
        _check_film(arguments)
    command = provenance.command("evaluate", argv)
    configs = [replace(config, policy_settings=nested_options(arguments.set_policy))]
    if arguments.perceived:
        seen_by = arguments.segmenter or SEGMENTER
        configs = [replace(configs[0], perceived=seen_by), configs[0]]
    elif arguments.compare is not None:
        configs.append(replace(config, policy=arguments.compare))
    results: list[dict[str, Any]] = []
    partials: list[Path] = []
    for number, each in enumerate(configs):
        partial = None if out is None else out.with_name(f".{out.name}.{number}.partial.jsonl")
        results.append(evaluate(each, partial, command))
        partials += [] if partial is None else [partial]
    answer = results[0]
    shown = _named(results) if arguments.perceived else results
    if len(results) == 2:
        answer["comparison"] = {**compare(*shown), "results": results[1]}
    if arguments.video is not None:
        film(configs[0], Path(arguments.video), min(arguments.video_episodes, config.episodes))
    text = json.dumps(answer, indent=2)
    if out is not None:
        write_file(out, f"{text}\n".encode())
        for partial in partials:
            partial.unlink(missing_ok=True)
    if arguments.json:
        print(text)
        return 0
    tables.show(tables.results_table(shown, arguments.env))
    if len(results) == 2:
        tables.show(tables.comparison_line(answer["comparison"]))
    if arguments.perceived:
        tables.show(*_perception(answer["perceived"]))
    for path in (arguments.out, arguments.video):
        if path is not None:
            print(path)
    return 0


def _named(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The two results of one policy under names that tell them apart."""
    states = ("perceived", "exact state")
    return [
        {**result, "policy": f"{result['policy']} ({state})"}
        for result, state in zip(results, states, strict=True)
    ]


def _perception(summary: dict[str, Any]) -> list[object]:
    """Table and sentences about what was perceived."""
    rows = [
        (name, f"{error['median']:.3f} {error['unit']}", f"{error['p95']:.3f} {error['unit']}")
        for name, error in summary["errors"].items()
    ]
    table = tables.plain_table(("pose error", "median", "p95"), rows)
    return [*([table] if rows else []), *perception_lines(summary)]


def _check_film(arguments: Arguments) -> None:
    """Refuse a film that could not be written, before any episode is run."""
    assert arguments.video is not None
    if not arguments.video.endswith(".mp4"):
        raise ValueError(f"a film needs a name ending in .mp4, got {arguments.video}")
    if arguments.video_episodes < 1:
        raise ValueError(f"a film needs at least one episode, got {arguments.video_episodes}")
    check_writable(arguments.video)
