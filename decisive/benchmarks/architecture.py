"""`decisive benchmark architecture`: is a searched EfficientNet better than one scaled as a whole?

The training-aware search of EfficientNetV2 (Tan and Le 2021, section 3.3) in small: networks of
some 100 000 parameters on CIFAR-10 at 32 pixels, trained for minutes on a CPU. Kinds of blocks,
kernels, expansions and depths of a base network's stages are searched; the rival is the base
itself, with all its widths and depths scaled alike.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.progress import Meter, progress
from decisive.statistics import wilson_interval
from learning.architecture_search import (
    STRATEGIES,
    Candidate,
    Choice,
    Evaluator,
    ResultFile,
    SearchSpace,
    StageChoice,
    best_within,
    pareto_front,
    result_key,
    search,
)
from learning.atomic import write_file
from learning.augment import horizontal_flip, random_crop
from learning.image_set import cifar10
from perception.efficientnet import (
    EFFICIENTNETS,
    EfficientNet,
    EfficientNetConfig,
    Kind,
    StageConfig,
)
from perception.efficientnet_v2 import EFFICIENTNETS_V2

BASES = {**EFFICIENTNETS, **EFFICIENTNETS_V2}
UNIFORM = ((0.5, 1.0), (0.7, 1.0), (1.0, 1.0), (1.0, 1.5), (1.4, 1.0), (1.4, 1.5))
"""Factors of width and depth that the base is scaled by."""
N_CLASSES = 10
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


# Networks


def space_of(base: EfficientNetConfig) -> SearchSpace:
    """Networks around a base: each stage one block shorter or longer, of either kind.

    Stages after the first that do not shrink the map may go: the paper's search found the last one
    superfluous.
    """
    depths = []
    for number, stage in enumerate(base.stages):
        fewest = 0 if number and stage.stride == 1 else 1
        depths.append(tuple(range(max(fewest, stage.n_blocks - 1), stage.n_blocks + 2)))
    return SearchSpace(tuple(depths))


def choose(base: EfficientNetConfig, choice: Choice) -> EfficientNetConfig:
    """The base with the chosen stages; widths and strides stay."""
    kinds: dict[str, Kind] = {"mbconv": "mbconv", "fused": "fused"}
    stages = tuple(
        replace(
            stage,
            kind=kinds[chosen.kind],
            kernel=chosen.kernel,
            expansion=chosen.expansion,
            n_blocks=chosen.n_blocks,
        )
        for stage, chosen in zip(base.stages, choice, strict=True)
        if chosen.n_blocks
    )
    return replace(base, stages=stages)


def builder(base: EfficientNetConfig, what: Any) -> Callable[[], nn.Module]:
    """Makes a network that is named in JSON: by factors of the base, or by chosen stages."""
    if isinstance(what, Mapping):
        config = base.scaled(what["width"], what["depth"])
    else:
        config = choose(base, tuple(StageChoice(*stage) for stage in what))
    return lambda: EfficientNet(config, N_CLASSES)


def title(what: Any) -> str:
    """A network in a few words: `MB3e6x2` is two MBConv of kernel 3 and expansion 6."""
    if isinstance(what, Mapping):
        return f"width x {what['width']:g}, depth x {what['depth']:g}"
    short = {"mbconv": "MB", "fused": "F"}
    return " ".join(f"{short[k]}{kernel}e{e}x{n}" if n else "-" for k, kernel, e, n in what)


# Data and trainings


@dataclass(frozen=True)
class Examples:
    """Images `(N, 3, 32, 32)` float32 in [0, 1], and classes `(N,)`."""

    images: Tensor
    labels: Tensor


def read_cifar10(folder: Path | None, split: str, numbers: Sequence[int]) -> Examples:
    """Some images of CIFAR-10.

    Args:
        folder: of its files; None: where DECISIVE_DATA says.
        split: `train` or `test`.
        numbers: which ones.

    Raises:
        ValueError: if the file is not there or malformed.
    """
    data = cifar10(folder, split)
    images = torch.from_numpy(data.images[list(numbers)]).permute(0, 3, 1, 2).float() / 255
    return Examples(images.contiguous(), torch.from_numpy(data.labels[list(numbers), 0]))


def _normalised(images: Tensor) -> Tensor:
    return (images - 0.5) / 0.25


def fit(
    model: nn.Module, train: Examples, epochs: int, batch_size: int, lr: float, seed: int
) -> None:
    """Train by SGD: warm-up, then a cosine; crops, flips and smoothed labels."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    n = len(train.labels)
    batches = [
        rows
        for _ in range(epochs)
        for rows in torch.randperm(n, generator=generator)[: n - n % batch_size].split(batch_size)
    ]
    model.train()
    for step, rows in enumerate(batches):
        done = step / len(batches)
        for group in optimizer.param_groups:
            group["lr"] = lr * min(
                5 * (done + 1 / len(batches)), 0.5 + 0.5 * math.cos(math.pi * done)
            )
        images = horizontal_flip(random_crop(train.images[rows], 4, generator), generator)
        logits = model(_normalised(images))
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits, train.labels[rows], label_smoothing=0.1).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, examples: Examples) -> float:
    """Share of images whose class has the largest logit."""
    model.eval()
    pairs = zip(examples.images.split(500), examples.labels.split(500), strict=True)
    right = sum(int((model(_normalised(x)).argmax(1) == y).sum()) for x, y in pairs)
    return right / len(examples.labels)


# The study


class Study:
    """Data, base and measurements of one run."""

    def __init__(self, arguments: Arguments) -> None:
        """Read the images and what was measured before."""
        self.arguments = arguments
        self.base = arguments.network
        folder = None if arguments.data is None else Path(arguments.data) / "cifar10"
        rng = np.random.default_rng(arguments.seed)
        numbers = rng.permutation(50_000)[: arguments.images + arguments.held_out].tolist()
        both = read_cifar10(folder, "train", numbers)
        n = arguments.images
        self.train = Examples(both.images[:n], both.labels[:n])
        self.held_out = Examples(both.images[n:], both.labels[n:])
        self._folder = folder
        work = Path(arguments.work or "outputs/benchmarks/architecture")
        self.results = ResultFile(work / "measurements.jsonl")
        size = arguments.batch_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(arguments.seed)
            base = EfficientNet(self.base, N_CLASSES)
        batch = _normalised(self.train.images[:size]), self.train.labels[:size]
        self.evaluator = Evaluator(
            self._score, batch, base, self.results, arguments.plan(), arguments.seed
        )

    def _score(self, model: nn.Module, seed: int) -> float:
        a = self.arguments
        fit(model, self.train, a.epochs, a.batch_size, a.lr, seed)
        return accuracy(model, self.held_out)

    def uniform(self, meter: Meter) -> list[Candidate]:
        """The base, scaled as a whole."""
        found = []
        for width, depth in UNIFORM:
            what = {"width": width, "depth": depth}
            found.append(self.evaluator(what, builder(self.base, what)))
            meter.advance(found[-1].cpu_seconds, title(what))
        return found

    def search(self, cpu_seconds: float, meter: Meter) -> list[Candidate]:
        """What a strategy tries."""
        best = 0.0

        def evaluate(choice: Choice) -> Candidate:
            return self.evaluator([list(stage) for stage in choice], builder(self.base, choice))

        def tell(candidate: Candidate) -> None:
            nonlocal best
            best = max(best, candidate.reward)
            meter.advance(candidate.cpu_seconds, f"best reward {best:.3f}")

        strategy = STRATEGIES[self.arguments.strategy](space_of(self.base), self.arguments.seed)
        return search(strategy, evaluate, cpu_seconds, self.arguments.max_candidates, tell)

    def retrain(self, what: Any, seed: int, allowed: bool) -> Mapping[str, Any] | None:
        """A final training: `accuracy` on test images and `cpu_seconds`.

        Args:
            what: the network.
            seed: of weights and training.
            allowed: whether it may be run; otherwise it is looked up.
        """
        a = self.arguments
        key = result_key("final", a.plan(), a.final_epochs, a.test_images, seed, what)
        row = self.results.get(key)
        if row is None and allowed:
            start = time.process_time()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = builder(self.base, what)()
                fit(model, self.train, a.final_epochs, a.batch_size, a.lr, seed)
            score = accuracy(model, self.test)
            row = {"accuracy": score, "cpu_seconds": time.process_time() - start}
            self.results.add(key, row)
        return row

    def finals(
        self, chosen: Sequence[Any], cpu_seconds: float, meter: Meter
    ) -> tuple[list[dict[str, Any]], float]:
        """Train networks anew, all with one seed before the next.

        Args:
            chosen: which networks.
            cpu_seconds: no training begins after so many.
            meter: told of each.

        Returns:
            of each network its scores on test images, and the CPU-seconds of all.
        """
        scores: list[list[float]] = [[] for _ in chosen]
        cost = 0.0
        for number in range(self.arguments.final_seeds):
            for what, own in zip(chosen, scores, strict=True):
                # Other seeds than the search's, whose luck is a part of what was chosen.
                seed = self.arguments.seed + 1 + number
                row = self.retrain(what, seed, cost < cpu_seconds)
                if row is not None and len(own) == number:
                    own.append(row["accuracy"])
                    cost += row["cpu_seconds"]
                    meter.advance(row["cpu_seconds"], f"final {title(what)}")
        n = self.arguments.test_images
        rows = zip(chosen, scores, strict=True)
        return [{"what": what, **_final(own, n)} for what, own in rows], cost

    @cached_property
    def test(self) -> Examples:
        """Test images, read when they are first needed."""
        # The file is sorted by class: its first images would all be aeroplanes.
        order = np.random.default_rng(self.arguments.seed).permutation(10_000)
        return read_cifar10(self._folder, "test", order[: self.arguments.test_images].tolist())


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


def _final(by_seed: Sequence[float], n_images: int) -> dict[str, Any]:
    if not by_seed:
        return {"accuracy": None, "accuracy_ci95": None, "accuracy_by_seed": []}
    rate = mean(by_seed)
    interval = wilson_interval(round(rate * n_images), n_images)
    return {
        "accuracy": rate,
        "accuracy_ci95": list(interval),
        "accuracy_by_seed": list(by_seed),
    }


# Reporting


def results_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each scaled network and, below it, what was found at its cost; the best."""
    header = ["network", "step time", "parameters", "held-out %", "test % [95% CI]", "gain"]
    measured = {json.dumps(c["what"]): c for c in (*results["uniform"], *results["found"])}
    finals = {json.dumps(f["what"]): f for f in results["finals"]}

    def row(label: str, what: Any, rival: Any = None) -> list[str]:
        known, final = measured[json.dumps(what)], finals.get(json.dumps(what))
        told, gain = "not run", "-"
        if final and final["accuracy_by_seed"]:
            seeds = len(final["accuracy_by_seed"])
            told = tables.percent(final["accuracy"], final["accuracy_ci95"])
            told += f", {seeds} seed{'s'[: seeds > 1]}"
        if rival is not None:
            gain = _gain(final, finals.get(json.dumps(rival)))
        return [
            f"{label}: {title(what)}",
            f"{known['step_ratio']:.2f}",
            f"{known['n_parameters']:,}",
            tables.percent(known["accuracy"]),
            told,
            gain,
        ]

    rows = []
    for scaled, found in results["pairs"]:
        rows += [row("scaled", scaled), row("found", found, scaled)]
    return header, [*rows, row("best reward", results["best"])]


def _gain(final: Mapping[str, Any] | None, rival: Mapping[str, Any] | None) -> str:
    """Points that a network is better than another, in trainings of the same seeds."""
    if not final or not rival:
        return "-"
    # One of them may have been trained once more than the other when the time was up.
    both = list(zip(final["accuracy_by_seed"], rival["accuracy_by_seed"], strict=False))
    return f"{100 * mean(a - b for a, b in both):+.1f}" if both else "-"


def picture(results: Mapping[str, Any]) -> bytes:
    """Accuracy over step time and over parameters, both fronts as lines; PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    costs = (("step_ratio", "step time, base = 1"), ("n_parameters", "parameters"))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, (cost, label) in zip((left, right), costs, strict=True):
        for number, kind in enumerate(("found", "uniform")):
            points = [(c[cost], 100 * c["accuracy"]) for c in results[kind]]
            front = _front_line(points)
            style = {"color": f"C{number}", "marker": "os"[number]}
            axes.plot(*zip(*points, strict=True), linestyle="", alpha=0.35, **style)
            name = {"found": "searched", "uniform": "scaled uniformly"}[kind]
            axes.plot(*zip(*front, strict=True), drawstyle="steps-post", label=name, **style)
        axes.set_xlabel(label)
    right.set_xscale("log")  # sizes differ by tens, times by twos
    right.legend(fontsize=8)
    left.set_ylabel("accuracy %, held-out, short trainings")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _front_line(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, accuracy): those more accurate than all that cost no more, by cost."""
    line: list[tuple[float, float]] = []
    for cost, height in sorted(points, key=lambda p: (p[0], -p[1])):
        if not line or height > line[-1][1]:
            line.append((cost, height))
    return line


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
