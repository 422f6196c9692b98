"""`decisive benchmark navigation`: what views of unvisited places are worth to a navigator.

Several arms walk the same instructions with the same ranker and differ in what they know of
viewpoints where they have not been, from nothing (Baseline) to the truth (Ground-Truth).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import tyro

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.benchmarks import (
    dreamed_study,
    house_language_study,
    house_study,
    language_study,
    symbolic_study,
)
from decisive.benchmarks.dreamed_study import DreamedPlan, DreamedStudy
from decisive.benchmarks.house_language_study import HouseLanguagePlan, HouseLanguageStudy
from decisive.benchmarks.house_study import HousePlan, HouseStudy
from decisive.benchmarks.language_study import LanguagePlan, LanguageStudy
from decisive.benchmarks.navigation_picture import success_picture
from decisive.benchmarks.navigation_report import compare, results_rows
from decisive.benchmarks.navigation_study import Study
from decisive.benchmarks.symbolic_study import SymbolicPlan, SymbolicStudy
from learning.atomic import write_file


@dataclass(frozen=True)
class Arguments:
    """Train a world model and a path ranker, and walk with and without views of unvisited places.

    In procedural houses (--world houses; synthetic, nothing to download) the views are panoramas:
    Baseline (the graph alone), guidance (what was seen, projected), Pathdreamer (the mean over
    samples), an oracle that knows how houses are made, and Ground-Truth. On real Room-to-Room
    (--world r2r), whose annotations are looked for in the folder that DECISIVE_DATA names, they are
    lists of objects; --world reverie tells only what to find, in the same buildings. With --world
    dreamed the arms are what a follower has learned in: some real houses, these and dreamed ones,
    all of them real. With --world languages they are what a ranker has learned from on
    Room-to-Room: routes in English, these and translation pairs of other buildings, routes in
    English and Chinese; --language says in which the walks are told. With --world house-languages
    the shipped ranker of procedural houses learns on from the same three, beside itself as it is;
    --views says what it knows of unvisited viewpoints. Every training, and every arm of every seed,
    is one file in --out or --work; what is there is not done again.

    Examples:
      decisive benchmark navigation --world houses --predictability 1 --seeds 3
      decisive benchmark navigation --world houses --told goal --first 60
      decisive benchmark navigation --world r2r --seeds 3 --ranker-seconds 420
      decisive benchmark navigation --world reverie --seeds 3
      decisive benchmark navigation --world languages --language zh --horizon 1
      decisive benchmark navigation --world house-languages --language zh --seeds 1
      decisive benchmark navigation --world sketch --ranker-seconds 20 --views-seconds 10 --seeds 1
    """

    world: str = "houses"
    """houses, dreamed, house-languages, r2r, reverie, languages, or sketch (synthetic, symbolic
    views)."""
    language: str = "zh"
    """With --world languages or house-languages, of the instructions walked: en or zh."""
    views: str = "none"
    """With --world house-languages, what is known of unvisited viewpoints: none or true."""
    split: str | None = None
    """Where the arms walk; test in houses, val_unseen elsewhere, if not given."""
    predictability: float = 1.0
    """Of houses: how much their rooms tell of each other, 0 to 1."""
    told: str = "way"
    """With --world houses, what is told: way (turn by turn) or goal (only where to end)."""
    first: int = 0
    """With --world houses or dreamed, number of the first house that is walked in."""
    seeds: int = 3
    """Trainings, seeds 0 and up."""
    ranker_seconds: float | None = None
    """CPU-seconds of a training of the ranker; 1200 in houses, 200 for dreamed, 240 for languages,
    400 for house-languages, else 180, if not given."""
    views_seconds: float | None = None
    """CPU-seconds of a training of the world model; 1500 in houses, else 60, if not given."""
    horizon: int = 3
    """Hops looked ahead."""
    episodes: int | None = None
    """Only the first so many instructions, not in houses; all if not given."""
    houses: str | None = None
    """Houses that the world model learns in, the ranker learns in, and that are walked in;
    500,200,60 or, for --world dreamed, 500,40,60 if not given. With --world house-languages the
    first count is of houses whose sentences are paired; 200,200,60 if not given."""
    arms: OptionalText = None
    """Only these, separated by commas; all if not given."""
    data: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of data, instead of the one that DECISIVE_DATA names."""
    out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the results; docs/benchmarks/navigation if not given."""
    work: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the trainings; outputs/benchmarks/navigation if not given."""
    workers: int = 1
    """Processes that render houses."""
    json: Flag = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if self.seeds < 1 or self.horizon < 1 or self.workers < 1:
            raise ValueError("seeds, horizon and workers must be at least 1")
        for seconds in (self.ranker_seconds, self.views_seconds):
            if seconds is not None and seconds <= 0:
                raise ValueError("ranker_seconds and views_seconds must be positive")
        if self.world != "house-languages" and self.views != "none":
            raise ValueError("--views is of --world house-languages")
        if self.episodes is not None and self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes}")
        if self.world != "houses" and self.told != "way":
            raise ValueError("--told is of --world houses")
        if self.world not in ("houses", "dreamed") and self.first != 0:
            raise ValueError("--first is of --world houses and dreamed")
        counts = self.house_counts.split(",")
        if len(counts) != 3 or not all(n.isdigit() and int(n) > 1 for n in counts):
            raise ValueError(f"houses must be three counts such as 500,200,60, got {self.houses!r}")
        if int(counts[1]) > int(counts[0]) and self.world != "house-languages":
            raise ValueError("the ranker cannot learn in more houses than the world model")
        known = self.all_arms
        if set(self.chosen) - set(known):
            raise ValueError(f"arms must be of {', '.join(known)}, got {self.arms!r}")
        self.plan()  # refuses what no study can do

    @property
    def house_counts(self) -> str:
        """`houses`, or what stands for it."""
        counts = {"dreamed": "500,40,60", "house-languages": "200,200,60"}
        return self.houses or counts.get(self.world, "500,200,60")

    @property
    def all_arms(self) -> tuple[str, ...]:
        """That the world has."""
        arms = {
            "houses": house_study.ARMS,
            "dreamed": dreamed_study.ARMS,
            "languages": language_study.ARMS,
            "house-languages": house_language_study.ARMS,
        }
        return arms.get(self.world, symbolic_study.ARMS)

    @property
    def chosen(self) -> tuple[str, ...]:
        """That are walked, in their order."""
        named = self.all_arms if self.arms is None else self.arms.split(",")
        return tuple(sorted(named, key=(*self.all_arms, *named).index))

    def plan(self) -> HousePlan | HouseLanguagePlan | LanguagePlan | SymbolicPlan:
        """What decides the result of a seed."""
        if self.world in ("houses", "dreamed"):
            kind = HousePlan if self.world == "houses" else DreamedPlan
            dreamed, learned, walked = (int(n) for n in self.house_counts.split(","))
            return kind(
                predictability=self.predictability,
                split=self.split or "test",
                told=self.told,
                first=self.first,
                horizon=self.horizon,
                dreamed=dreamed,
                learned=learned,
                walked=walked,
                dreamer_seconds=self.views_seconds or kind.dreamer_seconds,
                ranker_seconds=self.ranker_seconds or kind.ranker_seconds,
            )
        if self.world == "house-languages":
            paired, learned, walked = (int(n) for n in self.house_counts.split(","))
            return HouseLanguagePlan(
                split=self.split or "test",
                language=self.language,
                views=self.views,
                horizon=self.horizon,
                predictability=self.predictability,
                learned=learned,
                paired=paired,
                walked=walked,
                ranker_seconds=self.ranker_seconds or HouseLanguagePlan.ranker_seconds,
            )
        if self.world == "languages":
            return LanguagePlan(
                split=self.split or "val_unseen",
                language=self.language,
                horizon=self.horizon,
                episodes=self.episodes,
                ranker_seconds=self.ranker_seconds or 240.0,
            )
        return SymbolicPlan(
            world=self.world,
            split=self.split or "val_unseen",
            horizon=self.horizon,
            episodes=self.episodes,
            ranker_seconds=self.ranker_seconds or 180.0,
            views_seconds=self.views_seconds or 60.0,
        )


def main(argv: Sequence[str]) -> int:
    """Run the verb with the words after `navigation`."""
    arguments = parse(Arguments, argv, "benchmark navigation")
    out = Path(arguments.out or "docs/benchmarks/navigation")
    check_writable(out / "results.json")
    command = provenance.command("benchmark", ["navigation", *argv])
    found = {}
    for seed in range(arguments.seeds):
        study = cache(lambda seed=seed: make_study(arguments, seed))
        for arm in arguments.chosen:
            found[arm, seed] = _cell(arguments, study, out, arm, seed, command)
    plan = arguments.plan()
    results = {
        "world": arguments.world,
        "split": plan.split,
        "plan": asdict(plan),
        "arms": compare(found, arguments.chosen),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "command": command,
    }
    text = json.dumps(results, indent=2, default=str)
    write_file(out / f"{_name(arguments)}.json", f"{text}\n".encode())
    write_file(out / f"{_name(arguments, 'all')}.png", _picture(arguments, out))
    if arguments.json:
        print(text)
    else:
        header, rows = results_rows(results["arms"])
        tables.show(tables.plain_table(header, rows, _name(arguments)))
    return 0


def make_study(arguments: Arguments, seed: int) -> Study:
    """Places and trainings of a seed; nothing is trained yet."""
    work = Path(arguments.work or "outputs/benchmarks/navigation")
    plan = arguments.plan()
    if isinstance(plan, DreamedPlan):
        return DreamedStudy(plan, seed, work, arguments.workers)
    if isinstance(plan, HousePlan):
        return HouseStudy(plan, seed, work, arguments.workers)
    if isinstance(plan, HouseLanguagePlan):
        return HouseLanguageStudy(plan, seed, work, arguments.workers)
    data = None if arguments.data is None else Path(arguments.data)
    if isinstance(plan, LanguagePlan):
        return LanguageStudy(plan, seed, work, data)
    return SymbolicStudy(plan, seed, work, data)


def _name(arguments: Arguments, percent: str | None = None) -> str:
    """Of a result; `percent` stands for another predictability."""
    percent = percent or f"{round(100 * arguments.predictability):03d}"
    world = arguments.world
    if isinstance(arguments.plan(), HousePlan):
        world += f"-p{percent}"
        world += "" if arguments.told == "way" else f"-{arguments.told}"
    if isinstance(arguments.plan(), HouseLanguagePlan):
        world += f"-p{percent}-{arguments.language}-{arguments.views}"
    if isinstance(arguments.plan(), LanguagePlan):
        world += f"-{arguments.language}"
    return f"{world}-{arguments.plan().split}-h{arguments.horizon}"


def _picture(arguments: Arguments, out: Path) -> bytes:
    """Success beside that of the results in the folder which differ in predictability alone."""
    groups: dict[str, Mapping[str, Any]] = {}
    own = json.loads(json.dumps(asdict(arguments.plan())))
    for file in sorted(out.glob(f"{_name(arguments, '???')}.json")):
        known = json.loads(file.read_bytes())
        plan = known.get("plan", {})
        percent = plan.get("predictability")
        if plan == {**own, **({} if percent is None else {"predictability": percent})}:
            seeds = max(entry["seeds"] for entry in known["arms"].values())
            what = arguments.world if percent is None else f"predictability {percent:g}"
            groups[f"{what}\n{seeds} seed{'s' * (seeds > 1)}"] = known["arms"]
    episodes = max(entry["episodes"] for arms in groups.values() for entry in arms.values())
    title = f"{_name(arguments, 'all')}: {episodes} instructions, 95 % intervals over paths"
    return success_picture(groups, title)


def _cell(
    arguments: Arguments,
    study: Callable[[], Study],
    out: Path,
    arm: str,
    seed: int,
    command: str,
) -> Mapping[str, Any]:
    """The result of one arm and one seed; run if it is not there."""
    plan = json.loads(json.dumps(asdict(arguments.plan())))
    file = out / f"{_name(arguments)}-{arm}-{seed}.json"
    if file.exists():
        known = json.loads(file.read_bytes())
        if known["plan"] == plan:
            results: Mapping[str, Any] = known["results"]
            return results
    results = study().walk(arm)
    told = {"plan": plan, "arm": arm, "seed": seed, "command": command, "results": results}
    rows = ",\n".join(json.dumps(row) for row in results["per_episode"])
    slim = {**told, "results": {**results, "per_episode": "@"}}
    write_file(file, json.dumps(slim, indent=1).replace('"@"', f"[\n{rows}\n]").encode())
    return results
