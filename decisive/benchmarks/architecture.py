"""`decisive benchmark architecture`: is a searched EfficientNet better than one scaled as a whole?

The training-aware search of EfficientNetV2 (Tan and Le 2021, section 3.3) in small: networks of
some 100 000 parameters on CIFAR-10 at 32 pixels, trained for minutes on a CPU. Kinds of blocks,
kernels, expansions and depths of a base network's stages are searched; the rival is the base
itself, with all its widths and depths scaled alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.benchmarks.architecture_networks import space_of, title
from decisive.benchmarks.architecture_report import picture, results_table
from decisive.benchmarks.architecture_study import Study
from decisive.progress import progress
from learning.architecture_measure import Candidate, best_within, pareto_front
from learning.architecture_search import STRATEGIES
from learning.atomic import write_file
from perception.efficientnet import EFFICIENTNETS, EfficientNetConfig, StageConfig
from perception.efficientnet_v2 import EFFICIENTNETS_V2

BASES = {**EFFICIENTNETS, **EFFICIENTNETS_V2}
NOTE = (
    "CIFAR-10, JPEG re-compressed, 32 px; a small study, no figure of the paper. Networks were "
    "chosen by held-out training images and are compared on test images, trained anew. Intervals "
    "are over test images, trainings held fixed."
)


@dataclass(frozen=True)
class Arguments:
    """Search for an architecture, and compare what is found with scaling the base uniformly.

    Every candidate is trained for --epochs on --images of CIFAR-10 (real photos; looked for in the
    folder that DECISIVE_DATA names) and rewarded by accuracy, measured time of a training step and
    number of parameters. Then, for each uniformly scaled network on the front, the most accurate
    one found that costs no more is trained anew beside it, longer, with other seeds, and both are
    scored on test images. Every measurement is a row of a file in --work: what is there is not done
    again, so the same command goes on after a kill.

    Examples:
      decisive benchmark architecture
      decisive benchmark architecture --strategy random --cpu-minutes 120 --name random
      decisive benchmark architecture --cpu-minutes 2 --images 256 --held-out 500 --epochs 1
    """

    strategy: str = "evolution"
    """evolution (regularised) or random."""
    cpu_minutes: float = 60.0
    """Of everything. No training begins after so many."""
    final_share: float = 0.3
    """Of the minutes; kept for the trainings that are compared in the end."""
    base: str = "efficientnet_b0"
    """Network whose stages are searched, an EfficientNet of either version."""
    width: float = 0.35
    """Of the base's channels."""
    depth: float = 0.5
    """Of the base's blocks."""
    stem_stride: int = 1
    """1 or 2; 2 is the papers', whose images are larger."""
    images: int = 1500
    """Training images."""
    held_out: int = 1500
    """Other training images, which candidates are scored on."""
    test_images: int = 5000
    """That the final trainings are scored on; there are 10 000."""
    epochs: int = 4
    """Of a candidate's training."""
    final_epochs: int = 6
    """Of the final trainings."""
    final_seeds: int = 2
    """Final trainings of each network."""
    batch_size: int = 16
    """Of trainings, and of the training step that is timed. Small: in 4 epochs of 1500 images the
    base came to 23 % with 16 and to 18 % with 64, which tells less between networks."""
    lr: float = 0.05
    """Peak of the learning rate."""
    max_candidates: int | None = None
    """Search no more than these."""
    seed: int = 0
    """Of the search, of the choice of images and of the candidates' trainings."""
    name: str | None = None
    """Of the files of results; the strategy's if not given."""
    data: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of data, instead of the one that DECISIVE_DATA names."""
    out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the results; docs/benchmarks/architecture if not given."""
    work: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the measurements; outputs/benchmarks/architecture if not given."""
    json: Flag = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        for name, known in (("strategy", STRATEGIES), ("base", BASES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}"
                )
        counts = ("images", "held_out", "test_images", "epochs", "final_epochs", "final_seeds")
        for name in (*counts, "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("cpu_minutes", "lr", "width", "depth"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.final_share < 1:
            raise ValueError(f"final_share must be in [0, 1), got {self.final_share}")
        if self.max_candidates is not None and self.max_candidates < 1:
            raise ValueError(f"max_candidates must be at least 1, got {self.max_candidates}")
        if self.images + self.held_out > 50_000 or self.test_images > 10_000:
            raise ValueError(
                "CIFAR-10 has 50000 images to learn from, held-out ones among them, and 10000 "
                f"others, got {self.images} + {self.held_out} and {self.test_images}"
            )
        if self.batch_size > self.images:
            raise ValueError(f"batch_size {self.batch_size} is more than {self.images} images")
        self.network  # noqa: B018  refuses what no network can be

    @property
    def network(self) -> EfficientNetConfig:
        """The base, for short trainings: statistics that keep up with them, nothing dropped."""
        scaled = BASES[self.base].scaled(self.width, self.depth)
        return replace(
            scaled, stem_stride=self.stem_stride, norm_momentum=0.1, dropout=0.0, drop_path=0.0
        )

    def plan(self) -> dict[str, Any]:
        """What decides the accuracy of a candidate and its time."""
        decide = ("base", "width", "depth", "stem_stride", "images", "held_out", "epochs")
        named = {name: getattr(self, name) for name in (*decide, "batch_size", "lr", "seed")}
        # Times are of one processor: those of another are not mixed with them.
        return named | {"cpu": provenance.machine()["cpu"]}


def run(arguments: Arguments) -> dict[str, Any]:
    """Measure, search, train the chosen ones anew; a JSON object of all that was found.

    Raises:
        ValueError: if no time is left to search in.
    """
    torch.set_num_threads(1)
    study = Study(arguments)
    total = 60.0 * arguments.cpu_minutes
    with progress("architecture search", round(total)) as meter:
        uniform = study.uniform(meter)
        spent = _cost(uniform)
        left = total * (1 - arguments.final_share) - spent
        if left <= 0:
            raise ValueError(
                f"the scaled networks alone took {spent / 60:.1f} CPU-minutes: nothing is left to "
                f"search in; give more than {spent / 60 / (1 - arguments.final_share):.1f}"
            )
        found = study.search(left, meter)
        pairs = choose_pairs(uniform, found)
        best = max(found, key=lambda c: c.reward)
        chosen = {title(c.what): c.what for c in (*(c for pair in pairs for c in pair), best)}
        budget = total - spent - _cost(found)
        finals, final_cost = study.finals(list(chosen.values()), budget, meter)
    return {
        "plan": arguments.plan() | asdict(arguments),
        "base": title([_as_list(stage) for stage in study.base.stages]),
        "networks_in_space": space_of(study.base).size,
        "uniform": [asdict(c) for c in uniform],
        "found": [asdict(c) for c in found],
        "fronts": {
            "uniform": [c.what for c in pareto_front(uniform)],
            "found": [c.what for c in pareto_front(found)],
        },
        "best": best.what,
        "pairs": [[u.what, f.what] for u, f in pairs],
        "finals": finals,
        "cpu_seconds": {
            "uniform": _cost(uniform),
            "search": _cost(found),
            "final": final_cost,
        },
    }


def choose_pairs(
    uniform: Sequence[Candidate], found: Sequence[Candidate]
) -> list[tuple[Candidate, Candidate]]:
    """Each scaled network on the front, and the most accurate one found that costs no more.

    Scaled ones that nothing found is as cheap as have no pair.
    """
    rivals = [(own, best_within(found, own)) for own in pareto_front(uniform)]
    return [(own, rival) for own, rival in rivals if rival is not None]


def _cost(candidates: Sequence[Candidate]) -> float:
    return sum(c.cpu_seconds for c in candidates)


def _as_list(stage: StageConfig) -> list[Any]:
    return [stage.kind, stage.kernel, stage.expansion, stage.n_blocks]


def main(argv: Sequence[str]) -> int:
    """Run the verb with the words after `architecture`."""
    arguments = parse(Arguments, argv, "benchmark architecture")
    name = arguments.name or arguments.strategy
    file = Path(arguments.out or "docs/benchmarks/architecture") / f"{name}.json"
    check_writable(file)
    results = run(arguments) | {
        "note": NOTE,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "command": provenance.command("benchmark", ["architecture", *argv]),
    }
    text = json.dumps(results, indent=1)
    write_file(file, f"{text}\n".encode())
    write_file(file.with_suffix(".png"), picture(results))
    if arguments.json:
        print(text)
    else:
        header, rows = results_table(results)
        spent = sum(results["cpu_seconds"].values()) / 60
        heading = f"{len(results['found'])} of {results['networks_in_space']:.3g} networks, "
        tables.show(tables.plain_table(header, rows, f"{heading}{spent:.1f} CPU-minutes"), NOTE)
    return 0
