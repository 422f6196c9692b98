"""`decisive distill`: a few points that teach as much as a whole data set."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from decisive import provenance
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.options import nested_options
from decisive.progress import progress
from decisive.statistics import wilson_interval

if TYPE_CHECKING:
    import torch

    from agents.kernel_ridge import KernelPolicy
    from decisive.distill_data import Prepared
    from learning.distillation.distilled import Distilled, Scores
    from learning.distillation.kernel_config import KernelConfig
    from learning.distillation.kip import KipConfig
    from learning.distillation.tile_work import TileWork

Method = Literal["kip", "label-solve", "random", "kmeans", "herding"]
Kernel = Literal["fc", "convnet", "convnet3", "myrtle5", "myrtle7", "myrtle10"]
NATURAL_MOST = 5000
CHANNELS = 128
"""Of a finite convolutional network, for a CPU; the paper has 1,024."""
CONVOLUTIONAL_L2 = 1e-3
"""Of its training. Weights fade layer by layer: on 2,000 training images that were held out, ten
natural ones of 8 x 8 pixels taught 20% with the 1e-2 that is good for flat networks, and 47%."""
TILES = "tiles"
"""Folder of finished tiles of a run on Ray, until it is over."""
Name = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
Setting = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")]


@dataclass(frozen=True)
class Arguments:
    r"""Distil a data set to a few points: what a kernel learns from them it can tell of all others.

    DATA is mnist or cifar10 in the folder that DECISIVE_DATA names, a folder of labelled images as
    `decisive data render-tabletop` writes it, or demonstrations: a Minari data set or a file.

    Methods: kip learns points, and labels, by gradient descent; label-solve keeps natural points
    and finds the best labels in closed form; random, kmeans and herding are natural points as they
    are. Scores are of held-out data, which choose nothing. Convolutional kernels take the square of
    an image's pixels in time and memory: on a CPU they are for small images, which --pixels makes
    of large ones (the set remembers, and takes large ones). Points that finite networks shall learn
    from too are best made with --regulariser 1e-2.

    With --policy, demonstrations are distilled as the policy `kernel` sees them, and the policy is
    written beside the set: `decisive evaluate --policy FOLDER/policy`. With --ray, tiles of kernels
    and their backward passes are computed on a Ray cluster, which changes no number by more than
    rounding; tiles that are finished survive a kill.

    Examples:
      decisive distill mnist --per-class 10 --json
      decisive distill mnist --per-class 1 --natural --out outputs/mnist-10
      decisive distill cifar10 --per-class 10 --steps 300 --batch 5000 --zca --out outputs/cifar
      decisive distill mnist --per-class 1 --pixels 8 --kernel convnet --float32 --batch 100 \
        --steps 200 --out outputs/mnist-conv
      decisive distill outputs/tabletop/train --task object --per-class 5 --method label-solve
      decisive distill insertion-demos --points 500 --out outputs/insertion-500
      decisive distill insertion-demos --points 500 --method label-solve --policy --depth 2 \
        --regulariser 1e-4 --set-policy frame=slot1 --set-policy relations=True --out outputs/few
      decisive distill cifar10 --per-class 1 --kernel convnet --ray HOST:6379 --out outputs/conv
    """

    data: Name
    """What to distil."""
    per_class: int | None = None
    """Points of each class; 10 if neither this nor --points is given."""
    points: int | None = None
    """Points altogether; the way to say it for demonstrations."""
    method: Method = "kip"
    """How."""
    kernel: Kernel = "fc"
    """The network, infinitely wide."""
    depth: int | None = None
    """Hidden layers of fc (1), or poolings of convnet and convnet3 (3)."""
    kind: Literal["ntk", "nngp"] = "ntk"
    """Tangent kernel, or that of the network before training."""
    steps: int = 1000
    """Steps of kip."""
    lr: float = 0.1
    """Peak learning rate of kip."""
    batch: int = 1000
    """Targets a step of kip."""
    learn_labels: bool = True
    """Whether kip learns labels too."""
    augment: Flag = False
    """Let kip shift the targets by up to --shift of the side (and mirror them, but for digits)."""
    shift: float = 0.04
    """Farthest shift of --augment, as a share of the side."""
    zca: Flag = False
    """Decorrelate the pixels of images first."""
    pixels: int | None = None
    """Average images down to so many pixels a side first."""
    regulariser: float = 1e-6
    """Of the regression, in units of the mean of the kernel's diagonal."""
    start: Literal["random", "kmeans", "herding"] = "random"
    """Natural points that kip starts from and label-solve keeps."""
    task: OptionalText = None
    """Which task of an image set with several."""
    held_out: Annotated[OptionalText, tyro.conf.arg(metavar="DATA")] = None
    """Images or demonstrations to be scored by; else the test images of mnist and cifar10, or a
    tenth of DATA."""
    validation: int | None = None
    """Be scored by so many of DATA, drawn and held out, instead: to choose settings by."""
    natural: Flag = False
    """Tell how many natural points are worth as much: scores random subsets of growing size."""
    network: Flag = False
    """Train a finite network on the points and on as many natural ones: 1024 units wide, or 128
    channels."""
    seed: int = 0
    """Seed of the start, the batches and the split."""
    float32: Flag = False
    """Compute kip, label-solve and scores in float32: about twice as fast, less exact."""
    device: str = "cpu"
    """Where kip computes: cpu, cuda or auto."""
    policy: Flag = False
    """Distil demonstrations as the policy `kernel` sees them, and write it to FOLDER/policy."""
    set_policy: Setting = ()
    """Of --policy: its setting, such as frame=slot1 or gate=hold; once for each."""
    ray: OptionalText = None
    """'local', or the address of a Ray cluster: kernels are computed there."""
    workers: int = 1
    """Of --ray local: processes."""
    memory: int = 512
    """MiB that kernels may take beside points and results."""
    out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the run: `last` is the distilled set; a stopped run goes on. Nothing is kept if
    not given."""
    fresh: Flag = False
    """Start afresh instead of going on with what is in the folder."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.per_class is not None and self.points is not None:
            raise ValueError("give --per-class or --points, not both")
        if self.set_policy and not self.policy:
            raise ValueError("--set-policy is of --policy")
        counts = ("per_class", "points", "memory", "steps", "batch", "workers", "pixels")
        for name in (*counts, "validation"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, got {self.seed}")


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "distill")
    if arguments.out is not None:
        place = Path(arguments.out)
        check_writable(place.parent / f".{place.name}.probe")

    from decisive.distill_data import prepare, prepare_validation
    from learning.distillation.kernel_config import named_kernel

    kernel = named_kernel(arguments.kernel, arguments.depth, arguments.kind)
    policy = None
    if arguments.policy:
        data, policy = _seen(arguments, kernel)
    else:
        data = prepare(
            arguments.data,
            arguments.held_out,
            arguments.task,
            arguments.zca,
            arguments.seed,
            arguments.pixels,
        )
    if arguments.validation is not None:
        data = prepare_validation(data, arguments.validation)
    kernel.check_shape(tuple(data.train_points.shape[1:]))
    command = provenance.command("distill", argv)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(arguments.out or scratch)
        told = run(arguments, kernel, data, out, command, policy)
    told["path"] = None if arguments.out is None else str(Path(arguments.out) / "last")
    print(json.dumps(told, indent=2) if arguments.json else lines(told))
    return 0


def _seen(arguments: Arguments, kernel: KernelConfig) -> tuple[Prepared, KernelPolicy]:
    """Demonstrations as the policy sees them."""
    from decisive.distill_policy import prepare_seen

    for name in ("task", "held_out", "zca", "augment", "pixels", "validation"):
        if getattr(arguments, name):
            raise ValueError(f"--{name.replace('_', '-')} does not go with --policy")
    if kernel.convs:
        raise ValueError("--policy is of fully connected kernels: say --kernel fc")
    settings = {
        "depth": kernel.depth,
        "kind": kernel.kind,
        "regulariser": arguments.regulariser,
        "seed": arguments.seed,
        **nested_options(arguments.set_policy),
    }
    return prepare_seen(arguments.data, settings)


def run(
    arguments: Arguments,
    kernel: KernelConfig,
    data: Prepared,
    out: Path,
    command: str,
    policy: KernelPolicy | None = None,
) -> dict[str, Any]:
    """Distil, score, write and tell.

    Args:
        arguments: of the verb.
        kernel: the network.
        data: what to distil.
        out: folder to write to.
        command: as the user gave it.
        policy: that sees the points, to be written too.
    """
    from decisive.distill_card import write
    from decisive.distill_cluster import tile_work
    from learning.distillation.distilled import score

    began = time.process_time()
    finished = out / TILES
    with tile_work(
        arguments.ray, arguments.workers, None if arguments.out is None else finished
    ) as work:
        distilled, facts = make(arguments, kernel, data, out, work)
        facts["cpu_seconds"] = round(facts.get("cpu_seconds", time.process_time() - began), 2)
        ridge = distilled.ridge(_precision(arguments), arguments.memory * 2**20, work)
        scores = score(ridge, data.held_out, data.held_out_points)
    told = _told(arguments, distilled, facts, scores)
    if arguments.natural:
        told["natural"] = natural(arguments, kernel, data, scores.value, len(distilled))
    if arguments.network:
        told["network"] = finite(arguments, distilled, data)
    told["versions"], told["commit"] = provenance.versions(), provenance.commit()
    if arguments.out is not None:
        told["pictures"] = write(out, distilled, told, data, command)
        if policy is not None:
            from decisive.distill_policy import write_policy

            told["policy"] = write_policy(policy, distilled, out, told, data, command)
        shutil.rmtree(finished, ignore_errors=True)
    return told


def make(
    arguments: Arguments,
    kernel: KernelConfig,
    data: Prepared,
    out: Path,
    work: TileWork | None = None,
) -> tuple[Distilled, dict[str, Any]]:
    """The distilled set, and how it came to be."""
    from learning.distillation.distilled import Distilled
    from learning.distillation.kip import distil
    from learning.distillation.ridge import fit_ridge
    from learning.distillation.subsets import choose

    method = arguments.method
    started = method if method in ("random", "kmeans", "herding") else arguments.start
    prepared = data.train.at(data.train_points)
    first = choose(prepared, started, _count(arguments, data), arguments.seed)
    if method == "kip":
        result = distil(
            kernel,
            data.train,
            data.held_out,
            data.preprocessing,
            first,
            _kip_config(arguments, data),
            out,
            resume=not arguments.fresh,
            progress=False if arguments.json else None,
            work=work,
        )
        return result.distilled, {"steps": result.step, "cpu_seconds": result.cpu_seconds}
    kept = prepared.take(first)
    points, labels = kept.points.to(_precision(arguments)), kept.targets.double()
    if method == "label-solve":
        ridge = fit_ridge(
            kernel, points, labels, arguments.regulariser, arguments.memory * 2**20, work
        )
        labels = ridge.solved(prepared.points, prepared.targets)
    distilled = Distilled(
        points,
        labels,
        kernel,
        data.preprocessing,
        data.train.names,
        data.train.classes is not None,
        data.train.offset,
        data.train.scale,
        arguments.regulariser,
    )
    return distilled, {}


def _precision(arguments: Arguments) -> torch.dtype:
    import torch

    return torch.float32 if arguments.float32 else torch.float64


def _count(arguments: Arguments, data: Prepared) -> int:
    if arguments.points is not None:
        return arguments.points
    if data.train.classes is None:
        if arguments.per_class is not None:
            raise ValueError("demonstrations have no classes: give --points")
        return 100
    kinds = len(data.train.classes.unique())
    return (10 if arguments.per_class is None else arguments.per_class) * kinds


def _kip_config(arguments: Arguments, data: Prepared) -> KipConfig:
    from learning.distillation.kip import KipConfig

    return KipConfig(
        steps=arguments.steps,
        lr=arguments.lr,
        batch_size=arguments.batch,
        learn_labels=arguments.learn_labels,
        augment=arguments.augment,
        shift=arguments.shift,
        # A mirrored digit is another sign.
        flip=data.mirrors,
        regulariser=arguments.regulariser,
        double=not arguments.float32,
        max_bytes=arguments.memory * 2**20,
        seed=arguments.seed,
        device=arguments.device,
    )


def natural(
    arguments: Arguments, kernel: KernelConfig, data: Prepared, value: float, n: int
) -> dict[str, Any]:
    """How many natural points score as high, and the curve that says so."""
    from learning.distillation.examples import Draw
    from learning.distillation.natural import growing_sizes, natural_curve, natural_equivalent

    train = data.train.at(data.train_points)
    kinds = Draw(train).n_kinds
    fewest = min(len(rows) for rows in Draw(train).kinds) * kinds
    sizes = growing_sizes(n, kinds, min(NATURAL_MOST, fewest))
    seeds = (arguments.seed, arguments.seed + 1, arguments.seed + 2)
    with progress("natural subsets", len(sizes) * len(seeds)) as meter:
        curve = natural_curve(
            kernel,
            train,
            data.held_out.at(data.held_out_points),
            sizes,
            seeds,
            arguments.regulariser,
            arguments.memory * 2**20,
            meter.advance,
        )
    equal = natural_equivalent(value, curve)
    return {
        "equivalent": None if equal is None else round(equal),
        "more_than": sizes[-1] if equal is None else None,
        "curve": [{"points": one.points, "scores": list(one.values)} for one in curve],
    }


def finite(arguments: Arguments, distilled: Distilled, data: Prepared) -> dict[str, Any]:
    """What finite networks learn from the points, and from as many natural ones."""
    from dataclasses import asdict, replace

    from learning.distillation.finite_network import FiniteConfig, score_finite
    from learning.distillation.subsets import choose

    config = FiniteConfig(seed=arguments.seed)
    if distilled.kernel.convs:
        config = replace(config, width=CHANNELS, l2=CONVOLUTIONAL_L2)
    prepared = data.train.at(data.train_points)
    kept = prepared.take(choose(prepared, "random", len(distilled), arguments.seed))
    held = data.held_out.at(data.held_out_points)
    return {
        "distilled": score_finite(
            distilled.kernel, distilled.points, distilled.labels, held, config
        ),
        "natural": score_finite(distilled.kernel, kept.points, kept.targets, held, config),
        "settings": asdict(config),
    }


def _told(
    arguments: Arguments, distilled: Distilled, facts: dict[str, Any], scores: Scores
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "data": arguments.data,
        "method": arguments.method,
        "kernel": arguments.kernel,
        "depth": distilled.kernel.depth if not distilled.kernel.convs else None,
        "kind": arguments.kind,
        "points": len(distilled),
        "bytes": len(distilled) * 4 * (distilled.points[0].numel() + distilled.labels.shape[1]),
        "seed": arguments.seed,
        "held_out": scores.n,
    }
    if scores.right is not None:
        told["accuracy"] = scores.accuracy
        told["accuracy_ci95"] = list(wilson_interval(scores.right, scores.n))
    if scores.rmse is not None:
        told["explained"], told["rmse"] = scores.explained, list(scores.rmse)
    settings = ("learn_labels", "augment", "zca", "regulariser", "start", "lr", "batch", "float32")
    more = [name for name in ("pixels", "validation") if getattr(arguments, name) is not None]
    return told | facts | {name: getattr(arguments, name) for name in (*settings, *more)}


def lines(told: dict[str, Any]) -> str:
    """What is printed."""
    head = f"{told['points']} points of {told['data']} by {told['method']} ({told['kernel']})"
    if "accuracy" in told:
        low, high = told["accuracy_ci95"]
        result = f"accuracy {100 * told['accuracy']:.2f}% [{100 * low:.2f}, {100 * high:.2f}]"
    else:
        result = f"explained variance {100 * told['explained']:.1f}%"
    rows = [
        f"{head}: {result} of {told['held_out']:,} held-out points, "
        f"{told['cpu_seconds']:.1f} CPU-seconds"
    ]
    if "natural" in told:
        found = told["natural"]
        many = found["equivalent"]
        worth = f"{many:,}" if many is not None else f"more than {found['more_than']:,}"
        rows.append(f"worth {worth} natural points")
    if "network" in told:
        both = told["network"]
        rows.append(
            f"a finite network: {100 * both['distilled']:.1f}% from these, "
            f"{100 * both['natural']:.1f}% from as many natural points"
        )
    paths = [told.get("policy"), told["path"]]
    return "\n".join(rows + [path for path in paths if path is not None])
