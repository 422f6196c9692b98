"""`decisive demo`: the main job in minutes, with the policies that come with the package."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, parse
from decisive.demo_jobs import Jobs, Pool
from decisive.evaluation import EvaluationConfig, compare, summarize
from decisive.films import Clip, record, side_by_side, solo
from decisive.pictures import save_png
from learning.atomic import write_file

SORTING_SHARE = 0.4
"""Sorting episodes per insertion episode: they are many times longer."""
FILM_EPISODES = {"insertion": 2, "sorting": 1}
STILL_SIZE = (540, 720)
BEFORE_THE_END = 10
"""The picture shows the frame so many before the last: the block at the mouth of the slot."""
NOTE = "bright: low energy · ring: the decision"


@dataclass(frozen=True)
class Entrant:
    """One policy of a contest: how it is called, and what `--policy` would name it."""

    label: str
    policy: str


@dataclass(frozen=True)
class Contest:
    """Policies on the same episodes.

    Attributes:
        key: short name, also of its files.
        title: one line for people.
        env: environment id.
        options: of the environment.
        entrants: in the order of the columns; the last is the implicit one.
        done_word: what a success is called under a film.
        every: control steps between frames of the film.
        fps: frames per second of the film.
    """

    key: str
    title: str
    env: str
    options: dict[str, Any]
    entrants: tuple[Entrant, ...]
    done_word: str
    every: int = 1
    fps: float = 10.0

    def config(self, entrant: Entrant, seed: int, episodes: int) -> EvaluationConfig:
        """The evaluation of one entrant."""
        return EvaluationConfig(
            self.env, entrant.policy, episodes=episodes, seed=seed, options=dict(self.options)
        )


CONTESTS = (
    Contest(
        "insertion",
        "Insertion with 1 mm to spare, 10 decisions a second",
        "decisive/BlockInsertion-v0",
        {},
        (
            Entrant("scripted expert", "expert"),
            Entrant("explicit (MSE)", "block-insertion-mse"),
            Entrant("implicit (IBC)", "block-insertion-ibc"),
        ),
        "inserted",
        fps=15.0,
    ),
    Contest(
        "sorting",
        "Sorting by whole pushes: one decision commits many steps",
        "decisive/BlockSorting-v0",
        {"control": "push"},
        (
            Entrant("explicit (MSE)", "block-sorting-push-mse"),
            Entrant("mixture (MDN)", "block-sorting-push-mdn"),
            Entrant("implicit (IBC)", "block-sorting-push-ibc"),
        ),
        "all sorted",
        every=3,
        fps=20.0,
    ),
)


@dataclass(frozen=True)
class Arguments:
    """The main job, from trained policies to tables, films and a picture of the energy.

    Block insertion: the scripted expert, an explicit and an implicit policy on the same unseen
    episodes. Then the decisive case, sorting by whole pushes, where an explicit policy that
    averages two good pushes gets a bad one. The films show the first episodes, not chosen ones.

    With --functions instead: explicit and implicit fits of functions with jumps and several values.

    Examples:
      decisive demo
      decisive demo --episodes 100 --workers 4 --out my-demo
      decisive demo --functions
    """

    out: Annotated[str, tyro.conf.arg(metavar="DIR")] = "decisive-demo"
    """Folder for films, pictures and results."""
    episodes: int = 40
    """Insertion episodes of each policy; sorting, which takes longer, gets 0.4 times as many."""
    seed: int = 0
    """Seed of the first episode."""
    workers: int = 2
    """Parallel processes; the results do not depend on it."""
    functions: Flag = False
    """Fit functions instead: jumps and several values, explicit against implicit."""
    no_films: Flag = False
    """Tables only."""
    contest: OptionalText = None
    """Only 'insertion' or only 'sorting'."""
    json: Annotated[Flag, tyro.conf.arg(help="Print one JSON object instead of tables.")] = False

    def __post_init__(self) -> None:
        """Reject what cannot be run."""
        for name, value, least in (
            ("episodes", self.episodes, 1),
            ("workers", self.workers, 1),
            ("seed", self.seed, 0),
        ):
            if value < least:
                raise ValueError(f"--{name} must be at least {least}, got {value}")
        known = [contest.key for contest in CONTESTS]
        if self.contest is not None and self.contest not in known:
            raise ValueError(f"--contest must be one of {', '.join(known)}, got {self.contest!r}")


def main(argv: Sequence[str], contests: Sequence[Contest] = CONTESTS) -> int:
    """Run the verb.

    Args:
        argv: the words after `decisive demo`.
        contests: what to show; another line-up of policies for one's own.
    """
    arguments = parse(Arguments, argv, "demo")
    began = time.perf_counter()
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder, but {out} is a file")
    command = provenance.command("demo", argv)
    if arguments.functions:
        from decisive.functions import fit_all

        report = fit_all(out, arguments.seed, show=not arguments.json)
    else:
        chosen = [c for c in contests if arguments.contest in (None, c.key)]
        check_policies(chosen)
        out.mkdir(parents=True, exist_ok=True)
        report = run(chosen, arguments, out, command)
    report["seconds"] = round(time.perf_counter() - began, 1)
    if arguments.json:
        print(json.dumps(report, indent=2))
        return 0
    print(f"\n{report['seconds']:.0f} s. Files:")
    for name, path in report["files"].items():
        print(f"  {name:<20} {path}")
    return 0


def check_policies(contests: Sequence[Contest]) -> None:
    """Raise `ValueError` before any work if a policy is missing or broken."""
    from decisive.episodes import make_actor

    for contest in contests:
        for entrant in contest.entrants:
            make_actor(entrant.policy)


def run(
    contests: Sequence[Contest], arguments: Arguments, out: Path, command: str
) -> dict[str, Any]:
    """Run contests, print a table as each is complete, write films and results.

    Returns:
        A JSON object: `results` by contest and policy, `comparisons`, and `files` by name.
    """
    report: dict[str, Any] = {"results": {}, "comparisons": {}, "files": {}}
    with Pool(arguments.workers) as pool:
        for contest in contests:
            _play(contest, arguments, pool, out, command, report)
    path = out / "results.json"
    write_file(path, (json.dumps(report, indent=2) + "\n").encode())
    report["files"]["results"] = str(path)
    return report


def _play(
    contest: Contest,
    arguments: Arguments,
    pool: Pool,
    out: Path,
    command: str,
    report: dict[str, Any],
) -> None:
    seed, key = arguments.seed, contest.key
    episodes = arguments.episodes
    if contest.options.get("control") == "push":
        episodes = max(1, round(SORTING_SHARE * episodes))
    configs = [contest.config(entrant, seed, episodes) for entrant in contest.entrants]
    jobs = Jobs(pool)
    # The films come first: their long jobs would else be waited for at the end.
    clips: list[list[Any]] = []
    energy: Any = None
    if not arguments.no_films:
        for number in range(min(FILM_EPISODES.get(key, 1), episodes)):
            clips.append([jobs.add(record, c, seed + number, every=contest.every) for c in configs])
        energy = jobs.add(record, configs[-1], seed, every=contest.every, energy=True)
    rows = [[jobs.episode(config, s) for s in config.seeds] for config in configs]
    jobs.finish(contest.title)
    results = [
        summarize(config, [row.result() for row in own], command)
        for config, own in zip(configs, rows, strict=True)
    ]
    report["results"][key] = {r["policy"]: r for r in results}
    report["comparisons"][key] = [compare(results[-1], other) for other in results[:-1]]
    if not arguments.json:
        tables.show(contest_table(contest, results))
    if arguments.no_films:
        return
    files = {f"{key} film": out / f"{key}.mp4", f"{key} energy": out / f"{key}-energy.mp4"}
    labels = [entrant.label for entrant in contest.entrants]
    shown: list[list[Clip]] = [[future.result() for future in row] for row in clips]
    side_by_side(shown, labels, contest.title, files[f"{key} film"], contest.fps, contest.done_word)
    clip: Clip = energy.result()
    title = f"{contest.title.partition(',')[0].partition(':')[0]}: the energy of an implicit policy"
    solo(clip, title, files[f"{key} energy"], contest.fps, NOTE)
    if key == "insertion":
        files["picture"] = out / "picture.png"
        telling = max(0, len(clip) - BEFORE_THE_END)
        still = pool.submit(
            record, configs[-1], seed, STILL_SIZE, contest.every, energy=True, only=telling
        ).result()
        save_png(still.frame(0), files["picture"])
    report["files"] |= {name: str(path) for name, path in files.items()}


def contest_table(contest: Contest, results: Sequence[dict[str, Any]]) -> Table:
    """The entrants of a contest, one row each."""
    table = Table(title=f"\n{contest.title}", title_justify="left", title_style="bold")
    table.add_column("policy", no_wrap=True)
    scored = contest.options.get("control") == "push"
    headings = ["success", "% [95% CI]", *(["blocks sorted %"] if scored else []), "steps"]
    for heading in [*headings, "ms/action"]:
        table.add_column(heading, justify="right", no_wrap=True)
    for entrant, result in zip(contest.entrants, results, strict=True):
        good = sum(bool(row["success"]) for row in result["per_episode"])
        cells = [
            entrant.label,
            f"{good} of {result['episodes']}",
            tables.percent(result["success_rate"], result["success_ci95"]),
            *([tables.percent(result["score_mean"])] if scored else []),
            f"{result['length_mean']:.1f}",
            f"{result['ms_per_action']['median']:.2f}",
        ]
        table.add_row(*cells, style="bold" if entrant is contest.entrants[-1] else None)
    return table
