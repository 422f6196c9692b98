"""`decisive benchmark dreams`: how good a world model is, hop by hop, in houses it has not seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.progress import progress
from decisive.statistics import group_draws
from learning.atomic import write_file

if TYPE_CHECKING:
    from world_models.pathdreamer.evidence import Key, WalkScores

MEASURES = ("depth_mae", "miou", "accuracy", "rgb_mae", "rgb_psnr")
_RESAMPLES = 300
_SHOWN = ("depth_mae", "miou")


@dataclass(frozen=True)
class Arguments:
    """Score world models against repeating the last panorama and against nearest-fill.

    From one real panorama up to six hops are dreamed, each from the dreams before it. Pixels that
    the real panorama shows are scored apart from those that it does not (holes). Several models of
    other seeds are averaged; intervals are bootstrapped over houses.

    Examples:
      decisive benchmark dreams --model pathdreamer-houses
      decisive benchmark dreams --model outputs/a --model outputs/b --height 32 --name coarse
    """

    model: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME")] = ()
    """Checkpoint folder or shipped world model; once for each. pathdreamer-houses if none."""
    split: str = "test"
    """Of the houses."""
    houses: int = 60
    """The first so many."""
    predictability: float = 1.0
    """Of the houses."""
    walks: int = 2
    """In each house."""
    height: int | None = None
    """Rows of the panoramas; what the model is meant for if not given."""
    seed: int = 0
    """Of walks and draws."""
    workers: int = 1
    """Processes that render houses."""
    panoramas: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "outputs/panoramas"
    """Where rendered houses are kept."""
    name: str = "dreams"
    """Of the file of results."""
    out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the results; docs/benchmarks/dreams if not given."""
    json: Flag = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if min(self.houses, self.walks, self.workers) < 1:
            raise ValueError("houses, walks and workers must be at least 1")


def main(argv: Sequence[str]) -> int:
    """Run the verb with the words after `dreams`."""
    arguments = parse(Arguments, argv, "benchmark dreams")
    file = Path(arguments.out or "docs/benchmarks/dreams") / f"{arguments.name}.json"
    check_writable(file)
    results = run(arguments)
    results |= {
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "command": provenance.command("benchmark", ["dreams", *argv]),
    }
    text = json.dumps(results, indent=1)
    write_file(file, f"{text}\n".encode())
    if arguments.json:
        print(text)
    else:
        _show(results)
    return 0


def run(arguments: Arguments) -> dict[str, Any]:
    """Score every model; results by method, where, hop and measure."""
    import torch

    from decisive.rendering import panoramas_of
    from world_models.pathdreamer.evidence import diversity, revisits, score_walks
    from world_models.pathdreamer.model import load_world_model

    torch.set_num_threads(1)
    names = arguments.model or ("pathdreamer-houses",)
    models = [load_world_model(name) for name in names]
    height = arguments.height or models[0].config.height
    data = panoramas_of(
        Path(arguments.panoramas),
        arguments.split,
        range(arguments.houses),
        arguments.predictability,
        (height, 2 * height),
        arguments.workers,
    )
    scored, spread, back = [], [], []
    with progress("dreaming", len(models) * arguments.houses) as meter:
        for model in models:
            scored.append(score_walks(model, data, arguments.walks, arguments.seed, meter.advance))
            spread.append(asdict(diversity(model, data, arguments.seed)))
            back.append(revisits(model, data, arguments.seed))
    return {
        "models": list(names),
        "split": arguments.split,
        "predictability": arguments.predictability,
        "size": [height, 2 * height],
        "houses": arguments.houses,
        "walks": len(scored[0]),
        "scores": summarize(scored),
        "diversity_by_model": spread,
        "revisits_by_model": back,
    }


def summarize(scored: Sequence[Sequence[WalkScores]]) -> list[dict[str, Any]]:
    """Rows of method, where and hop: each measure, its interval over houses, and by model.

    Args:
        scored: of each model, on the same walks.
    """
    keys: list[Key] = list(dict.fromkeys(key for walk in scored[0] for key in walk.scores))
    houses = sorted({walk.house for walk in scored[0]})
    n = len(houses)
    draws = group_draws(n, _RESAMPLES)
    rows = []
    for method, where, hop in sorted(keys, key=lambda key: (key[2], key[1], key[0])):
        by_model = [_by_house(walks, houses, (method, where, hop)) for walks in scored]
        plain = [_weighted(parts, [1.0] * n) for parts in by_model]
        drawn = [[_weighted(parts, row) for row in draws] for parts in by_model]
        row: dict[str, Any] = {"method": method, "where": where, "hop": hop}
        for measure in MEASURES:
            if any(measure not in one for one in plain):
                continue
            means = np.mean([[one.get(measure, np.nan) for one in many] for many in drawn], axis=0)
            row[measure] = float(np.mean([one[measure] for one in plain]))
            row[f"{measure}_ci95"] = np.nanquantile(means, (0.025, 0.975)).tolist()
            row[f"{measure}_by_model"] = [one[measure] for one in plain]
        rows.append(row)
    return rows


def _by_house(walks: Sequence[WalkScores], houses: Sequence[str], key: Key) -> list[Any]:
    """One sum for each house; None where no walk came so far."""
    from world_models.pathdreamer.scores import StructureScores

    found: list[Any] = []
    for house in houses:
        own = [walk.scores[key] for walk in walks if walk.house == house and key in walk.scores]
        found.append(StructureScores.weighted(own, [1.0] * len(own)) if own else None)
    return found


def _weighted(parts: Sequence[Any], weights: Sequence[float]) -> dict[str, float]:
    from world_models.pathdreamer.scores import StructureScores

    there = [(part, float(w)) for part, w in zip(parts, weights, strict=True) if part and w]
    if not there:
        return {}
    return StructureScores.weighted(*map(list, zip(*there, strict=True))).results()


def _show(results: dict[str, Any]) -> None:
    for measure in _SHOWN:
        hops = sorted({row["hop"] for row in results["scores"]})
        header = ["where", "method", *(f"hop {hop}" for hop in hops)]
        cells: dict[tuple[str, str], dict[int, str]] = {}
        for row in results["scores"]:
            if measure in row:
                low, high = row[f"{measure}_ci95"]
                told = f"{row[measure]:.3f} [{low:.3f}, {high:.3f}]"
                cells.setdefault((row["where"], row["method"]), {})[row["hop"]] = told
        rows = [[*key, *(told.get(hop, "-") for hop in hops)] for key, told in cells.items()]
        tables.show(tables.plain_table(header, rows, measure))
    for label in ("diversity_by_model", "revisits_by_model"):
        print(label.removesuffix("_by_model"), json.dumps(results[label]))
