"""Tables and picture of the distillation study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from decisive.benchmarks.distill_picture import success_picture
from decisive.benchmarks.distill_study import (
    EPISODES,
    METHODS,
    PER_CLASS,
    SEEDS,
    SIZES,
    Cell,
)
from decisive.statistics import wilson_interval
from learning.atomic import write_file

Results = Mapping[Cell, dict[str, Any] | None]
Table = tuple[list[str], list[list[str]]]
PICTURE = "insertion.png"
INSERTION = "Insertion from kept demonstrations"
NAMES = {
    "random": "random",
    "kmeans": "k-means (nearest states)",
    "herding": "herding",
    "label-solve": "Label Solve on random points",
    "kip": "KIP",
}
NOTES = {
    INSERTION: (
        f"Success in percent of {EPISODES} episodes for each seed of split and subset, all seeds "
        "together, 95% Wilson interval, which does not know that seeds differ; in brackets behind "
        "it how many seeds were run. Demonstrations and episodes are simulated."
    ),
    "mnist": (
        "Test accuracy in percent: mean of the seeds [least, most]. Settings of KIP were chosen on "
        "10,000 training images."
    ),
    "cifar10": (
        "Test accuracy in percent: mean of the seeds [least, most]. Settings of KIP were chosen on "
        "10,000 training images. The images are a copy that was compressed once more as JPEG."
    ),
}


def of_seeds(found: Results, data: str, method: str, size: int) -> list[dict[str, Any]]:
    """Results of one method and size, as far as they are there."""
    cells = (found.get(Cell(data, method, size, seed)) for seed in SEEDS)
    return [cell for cell in cells if cell is not None]


def pooled(results: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """Success rate of all seeds together, and its 95% interval."""
    good = sum(sum(result["success"]) for result in results)
    n = sum(len(result["success"]) for result in results)
    return good / n, *wilson_interval(good, n)


def all_tables(found: Results) -> dict[str, Table]:
    """All tables by their titles."""
    return {
        INSERTION: insertion_table(found),
        "mnist": image_table(found, "mnist"),
        "cifar10": image_table(found, "cifar10"),
    }


def insertion_table(found: Results) -> Table:
    """Success by method and points kept."""
    header = ["kept by", *(f"{size:,}" for size in SIZES), "all"]
    rows = []
    for method in METHODS:
        told = [_success(of_seeds(found, "insertion", method, size)) for size in SIZES]
        rows.append([NAMES[method], *told, ""])
    rows.append(["everything", "", "", "", _success(of_seeds(found, "insertion", "all", 0))])
    return header, rows


def _success(results: Sequence[Mapping[str, Any]]) -> str:
    if not results:
        return "not run"
    rate, low, high = (100 * value for value in pooled(results))
    return f"{rate:.0f} [{low:.0f}, {high:.0f}] ({len(results)})"


def image_table(found: Results, data: str) -> Table:
    """Accuracy by method and images of each class."""
    header = ["", *(f"{size} of each class" for size in PER_CLASS)]
    rows = []
    for method in METHODS:
        told = []
        for size in PER_CLASS:
            values = [100 * one["accuracy"] for one in of_seeds(found, data, method, size)]
            told.append(_spread(values) if values else "not run")
        rows.append([NAMES[method].replace("states", "images"), *told])
    return header, rows


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f} (one seed)"
    return f"{fmean(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


def write(found: Results, command: str, folder: Path, others: Sequence[str] = ()) -> None:
    """Write README.md with all tables, and the picture if there is anything to draw.

    Args:
        found: results.
        command: that makes them.
        folder: to write to.
        others: cells whose file is no result of the plan.
    """
    lines = [
        "# Distillation: what few points are worth",
        "",
        "Insertion: the policy `kernel` (regression by the kernel of an infinitely wide network) "
        "from 100, 500, 2,000 or all states of 180 demonstrations (200, a tenth held out) of the "
        "consistent expert in `decisive/BlockInsertion-v0`, seen as the recipes of that task see "
        "it. Depth and regulariser were chosen on the stream `select`. Images: the kernel of a "
        "fully connected network with one hidden layer.",
        "",
        "```",
        command,
        "```",
    ]
    for title, (header, rows) in all_tables(found).items():
        lines += ["", f"## {title}", "", *_markdown(header, rows), "", NOTES[title]]
    chosen = _chosen(found)
    if chosen:
        lines += ["", "Settings that the validation images chose:", "", *chosen]
    costs = _costs(found)
    if costs:
        lines += ["", costs]
    if others:
        lines += ["", _not_counted(others)]
    drawn = success_picture(found)
    if drawn is not None:
        write_file(folder / PICTURE, drawn)
        lines += ["", f"![Success by points kept]({PICTURE})"]
    write_file(folder / "README.md", ("\n".join(lines) + "\n").encode())


def _chosen(found: Results) -> list[str]:
    lines = []
    for data in ("mnist", "cifar10"):
        for size in PER_CLASS:
            results = of_seeds(found, data, "kip", size)
            if results:
                told = ", ".join(
                    f"{key} {value:g}" for key, value in results[0]["settings"].items()
                )
                lines.append(f"- {data}, {size} of each class: {told}")
    return lines


def _not_counted(others: Sequence[str]) -> str:
    names = ", ".join(f"[{name}]({name}.json)" for name in others)
    return (
        f"Not counted above are {len(others)} files of cells' names that hold no result of this "
        "plan but what `decisive distill DATA --json` told (docs/distillation.md has it), or what "
        f"an older plan did: {names}. A run of the benchmark replaces them."
    )


def _costs(found: Results) -> str:
    done = [result for result in found.values() if result is not None]
    if not done:
        return ""
    commits = ", ".join(sorted({str(result["commit"]) for result in done}))
    seconds = sum(result["total_cpu_seconds"] for result in done)
    return (
        f"{len(done)} cells of {len(found)}, {seconds / 60:.0f} CPU-minutes on one core; commits "
        f"{commits}."
    )


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
