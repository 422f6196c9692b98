"""Makes trainings of the benchmark the shipped policies, with what they scored in their cards.

    python tools/ship.py block-push-multimodal-push-ibc [NAME ...]

A policy is called `<task>-<method>`; it is the training of seed 0 with all demonstrations of the
diverse expert (of the consistent one where the grid has no other), and its score is that of the
grid: 100 episodes that chose nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from agents.registry import CHECKPOINTS
from decisive.benchmarks.cells import Places, read_result
from decisive.benchmarks.recipes import RECIPES, TASKS
from decisive.benchmarks.tabletop import SHIFTS, Cell
from decisive.tables import percent
from learning.checkpoint import read_checkpoint, save_checkpoint

MARK = "\n## Limits\n"


def cells_of(name: str) -> list[Cell]:
    """Cells that may stand behind a name, the preferred one first."""
    recipe = RECIPES[name]
    return [
        Cell(recipe.task, expert, TASKS[recipe.task].recorded, recipe.method, 0)
        for expert in ("diverse", "consistent")
    ]


def scores(cell: Cell, places: Places) -> list[str]:
    """A line for the cell's own world and one for every shift that was run."""
    lines = []
    for shift in ("", *SHIFTS):
        result = read_result(
            Cell(cell.task, cell.expert, cell.demos, cell.method, 0, shift), places
        )
        if result is not None:
            told = result["results"]
            options = {**result["plan"]["options"], **result["plan"]["evaluation_options"]}
            words = "".join(f" --set {key}={value}" for key, value in options.items())
            rate = percent(told["success_rate"], told["success_ci95"])
            score = told["score_mean"]
            partly = ""
            if score is not None and abs(score - told["success_rate"]) > 0.005:
                partly = f", mean score {100 * score:.0f}"
            lines.append(
                f"- success {rate} % of {told['episodes']} unseen episodes{partly}: "
                f"`decisive evaluate --env {told['env']}{words}`"
            )
    return lines


def ship(name: str, places: Places) -> None:
    """Copy one training into the package.

    Raises:
        ValueError: if the grid has no result for it by the present recipe.
    """
    for cell in cells_of(name):
        if read_result(cell, places) is None:
            continue
        document, tensors = read_checkpoint(places.run(cell) / "best")
        card = (places.run(cell) / "best" / "README.md").read_text(encoding="utf-8")
        head, mark, tail = card.partition(MARK)
        if not mark:
            raise ValueError(f"the card of {cell.run} has no section on limits")
        card = f"{head}\n" + "\n".join(scores(cell, places)) + f"\n{mark}{tail}"
        save_checkpoint(CHECKPOINTS / name, document, tensors, card)
        return
    raise ValueError(f"no result for {name}: run its cell of `decisive benchmark tabletop` first")


def main() -> int:
    """Ship the policies named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=sorted(RECIPES), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/tabletop"))
    parser.add_argument("--work", type=Path, default=Path("outputs/benchmarks/tabletop"))
    arguments = parser.parse_args()
    for name in arguments.names:
        try:
            ship(name, Places(arguments.out, arguments.work))
        except (ValueError, OSError) as error:
            print(f"ship: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
