"""Tables and picture of the retrieval study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from decisive.benchmarks.retrieval_picture import language_map, recall_picture
from decisive.benchmarks.retrieval_study import (
    ARMS,
    PATHS,
    TRANSLATIONS,
    Results,
    Study,
    shares,
)
from envs.captions.words import LANGUAGES
from learning.atomic import write_file

NOTES = (
    "Mean recall in percent: mean of R@1, R@5 and R@10 in both directions, mean of the seeds; in "
    "brackets 95% bootstrap intervals over queries of that mean (1,000 draws, pairs drawn whole). "
    "Pictures and their captions are synthetic; translations and instructions are real."
)
ARM_NAMES = {"images-only": "image-text only", "mural": "with bitext (MURAL)"}
MAP, RECALLS = "languages.png", "recall.png"
_DRAWS = 1000
Table = tuple[list[str], list[list[str]]]


def all_tables(found: Results) -> dict[str, Table]:
    """All tables by their titles."""
    return {
        "Pictures by captions, and captions by pictures": picture_table(found, "images"),
        "The same, captions that say where things are": picture_table(found, "images_with_sides"),
        "Translations, and instructions of one path": text_table(found),
    }


def cells_of(found: Results, arm: str) -> list[dict[str, Any]]:
    """Results of an arm, one a seed, as far as they are there."""
    return [cell for (name, _), cell in found.items() if name == arm and cell is not None]


def per_query(cells: Sequence[dict[str, Any]], *place: str) -> list[np.ndarray]:
    """`(N,)` of each direction: what a query adds to the mean recall, mean over the seeds."""
    directions = []
    for side in (0, 1):
        rows = []
        for cell in cells:
            value: Any = cell
            for key in place:
                value = value[key]
            rows.append(shares(value[side]))
        directions.append(np.mean(rows, axis=0))
    return directions


def interval(directions: Sequence[np.ndarray], seed: int = 0) -> tuple[float, float, float]:
    """Mean recall and its 95% interval over queries; directions of one length drawn as pairs."""
    rng = np.random.default_rng(seed)
    drawn = np.empty(_DRAWS)
    for k in range(_DRAWS):
        rows = {n: rng.integers(n, size=n) for n in {len(one) for one in directions}}
        drawn[k] = fmean(float(one[rows[len(one)]].mean()) for one in directions)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return fmean(float(one.mean()) for one in directions), float(low), float(high)


def _told(values: tuple[float, float, float], sign: str = "") -> str:
    mean, low, high = (100 * value for value in values)
    return f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def picture_table(found: Results, question: str) -> Table:
    """Mean recall by language: both arms, what bitext adds, chance."""
    header = ["trained", *LANGUAGES, "seeds"]
    rows = []
    for arm in ARMS:
        cells = cells_of(found, arm)
        told = [
            _told(interval(per_query(cells, question, language))) if cells else "not run"
            for language in LANGUAGES
        ]
        rows.append([ARM_NAMES[arm], *told, _counted(found, arm)])
    pair = [cells_of(found, arm) for arm in ARMS]
    if all(pair):
        gains = []
        for language in LANGUAGES:
            without, with_ = (per_query(cells, question, language) for cells in pair)
            gains.append([b - a for a, b in zip(without, with_, strict=True)])
        rows.append(["what bitext adds", *(_told(interval(gain), "+") for gain in gains), ""])
    rows.append(["chance", *[_chance(found, question)] * len(LANGUAGES), ""])
    return header, rows


def text_table(found: Results) -> Table:
    """Mean recall of translations and of instructions of one path."""
    questions = [*(f"en-{language}" for language in TRANSLATIONS), PATHS]
    header = ["", *(f"Multi30k {name}" for name in questions[:-1]), "XL-R2R en-zh", "seeds"]
    rows = []
    for arm, name in (*ARM_NAMES.items(), ("baseline", "TF-IDF of character n-grams")):
        cells = cells_of(found, arm)
        told = [
            _told(interval(per_query(cells, "texts", question))) if cells else "not run"
            for question in questions
        ]
        rows.append([name, *told, "" if arm == "baseline" else _counted(found, arm)])
    rows.append(["chance", *(_chance(found, question) for question in questions), ""])
    return header, rows


def _chance(found: Results, question: str) -> str:
    cells = cells_of(found, "baseline")
    return f"{100 * cells[0]['chance'][question]:.2f}" if cells else "not run"


def _counted(found: Results, arm: str) -> str:
    every = [cell for (name, _), cell in found.items() if name == arm]
    return f"{sum(cell is not None for cell in every)} of {len(every)}"


def write(found: Results, study: Study, command: str, folder: Path, work: Path) -> None:
    """Write README.md with all tables, and the pictures that can be drawn."""
    lines = [
        "# Retrieval: do translations help languages without captions?",
        "",
        f"Both arms learn {study.train:,} rendered pictures with English captions (synthetic), "
        f"{study.steps:,} steps; one also learns real translations (Multi30k en-de, en-fr, en-cs; "
        "XL-R2R en-zh). Settings were chosen on validation data. Tests: "
        f"{study.test:,} pictures of other scenes with captions in five languages by templates "
        "(German, French, Czech and Chinese captions are in no training); Multi30k's test of 2016; "
        "XL-R2R's val_unseen, where any instruction of the same path in the other language is "
        "right. Pictures with the same English caption are all right answers.",
        "",
        "```",
        command,
        "```",
    ]
    for title, (header, rows) in all_tables(found).items():
        lines += ["", f"## {title}", "", *_markdown(header, rows)]
    lines += ["", NOTES, "", *_cost(found), ""]
    recall = recall_picture(found)
    if recall:
        write_file(folder / RECALLS, recall)
        lines += [f"![Mean recall by language]({RECALLS})", ""]
    drawn = language_map(work / "mural-0" / "last")
    if drawn is not None:
        write_file(folder / MAP, drawn.picture)
    if drawn is not None or (folder / MAP).is_file():
        lines += [f"![Map of languages]({MAP})", ""]
    if drawn is not None:
        write_file(folder / "languages.md", (drawn.text + "\n").encode())
    if (folder / "languages.md").is_file():
        lines += [(folder / "languages.md").read_text(encoding="utf-8")]
    write_file(folder / "README.md", "\n".join(lines).encode())


def _cost(found: Results) -> list[str]:
    told = []
    for arm, name in ARM_NAMES.items():
        cells = cells_of(found, arm)
        if cells:
            seconds = [f"{cell['train_cpu_seconds']:.0f}" for cell in cells]
            told.append(f"{name} {', '.join(seconds)}")
    if not told:
        return []
    first = next(cell for cell in found.values() if cell is not None)
    commits = sorted({str(cell["commit"]) for cell in found.values() if cell is not None})
    return [
        f"CPU-seconds of training by seed: {'; '.join(told)}. {first['machine']['cpu']}, one "
        f"thread; commits {', '.join(commits)}."
    ]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
