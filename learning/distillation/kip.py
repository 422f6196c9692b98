"""KIP: gradient descent on a few points, so that a regression on them predicts all others.

Source: Nguyen et al. 2021, "Dataset Meta-Learning from Kernel Ridge-Regression", algorithm 1
(Kernel Inducing Points), and 2021, "Dataset Distillation with Infinitely Wide Convolutional
Networks". Every step is a function of the seed and its number, so that a resumed run goes on bit by
bit.

Departures: the learning rate follows a cosine to zero over the budget (the paper's is constant).
"""

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learning.augment import horizontal_flip, random_crop
from learning.distillation.distilled import Distilled, score
from learning.distillation.examples import Draw, Examples
from learning.distillation.kernel_config import KernelConfig
from learning.distillation.preprocessing import Preprocessing
from learning.distillation.ridge import REGULARISER, factor, fit_ridge, predict
from learning.distillation.tile_work import TileWork
from learning.distillation.tiles import MAX_BYTES, kernel
from learning.run import Run, isolated
from learning.train_config import TrainConfig

SaveFunction = Callable[[Distilled, Path, dict[str, Any]], None]


@dataclass(frozen=True)
class KipConfig(TrainConfig):
    """How to distil; see `TrainConfig` for what is not told here.

    Attributes:
        steps: budget in steps.
        batch_size: targets a step, drawn anew, as many of each class as of any other.
        lr: of Adam, in the space of the kernel and of the labels.
        validate_samples: held-out points that are looked at while it runs; they choose nothing.
        learn_labels: whether labels are learned as well as points.
        augment: whether targets are shifted (and mirrored) anew each time.
        shift: farthest shift of augmentation, as a share of the side.
        flip: whether augmentation mirrors; not for digits and letters.
        regulariser: of the regression, in units of the mean of the kernel's diagonal.
        double: whether to compute in float64.
        max_bytes: bound on the memory of a kernel.
    """

    steps: int | None = 400
    batch_size: int = 1000
    lr: float = 4e-2
    warmup_steps: int = 0
    grad_clip: float | None = None
    ema_decay: float | None = None
    log_every: int = 20
    validate_every: int = 100
    validate_samples: int = 2000
    save_every: int = 100
    tensorboard: bool = False
    learn_labels: bool = True
    augment: bool = False
    shift: float = 0.1
    flip: bool = True
    regulariser: float = REGULARISER
    double: bool = True
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        """Refuse values that cannot distil."""
        super().__post_init__()
        if not 0 <= self.shift < 1:
            raise ValueError(f"shift must be in [0, 1), got {self.shift}")
        if not self.regulariser >= 0:
            raise ValueError(f"the regulariser must be at least 0, got {self.regulariser}")

    @property
    def dtype(self) -> torch.dtype:
        """Of the computation."""
        return torch.float64 if self.double else torch.float32


@dataclass(frozen=True)
class KipResult:
    """What a run gave.

    Attributes:
        distilled: the set.
        step: steps done.
        cpu_seconds: spent in steps (wall seconds on a GPU).
        history: rows of `metrics.jsonl`.
    """

    distilled: Distilled
    step: int
    cpu_seconds: float
    history: list[dict[str, Any]]


class Support(nn.Module):
    """The points that are learned, and their labels."""

    points: Tensor
    labels: Tensor

    def __init__(self, points: Tensor, labels: Tensor, learn_labels: bool) -> None:
        """Start from these.

        Args:
            points: `(n, ...)`.
            labels: `(n, K)`.
            learn_labels: whether labels are learned too.
        """
        super().__init__()
        self.points = nn.Parameter(points.clone())
        if learn_labels:
            self.labels = nn.Parameter(labels.clone())
        else:
            self.register_buffer("labels", labels.clone())


def kip_loss(
    config: KernelConfig,
    support: Support,
    points: Tensor,
    targets: Tensor,
    regulariser: float,
    max_bytes: int = MAX_BYTES,
    work: TileWork | None = None,
) -> Tensor:
    """Half the mean squared error of targets predicted from the support, eq. 7.

    Args:
        config: the network.
        support: what is learned.
        points: `(m, ...)` targets in the space of the kernel.
        targets: `(m, K)`.
        regulariser: in units of the mean of the kernel's diagonal.
        max_bytes: bound on the memory of a kernel.
        work: who computes tiles of kernels; None: this process.
    """
    lower = factor(kernel(config, support.points, None, max_bytes, work), regulariser)
    k_ts = kernel(config, points, support.points, max_bytes, work)
    return 0.5 * (predict(k_ts, lower, support.labels) - targets).square().mean()


def distil(
    kernel_config: KernelConfig,
    train: Examples,
    held_out: Examples,
    preprocessing: Preprocessing,
    first: Tensor,
    config: KipConfig,
    out: str | Path,
    resume: bool = True,
    *,
    save: SaveFunction | None = None,
    progress: bool | None = None,
    work: TileWork | None = None,
) -> KipResult:
    """Distil examples to a few points.

    Writes `out/train_state.safetensors`, `out/metrics.jsonl` and, by `save`, `out/last`. Called
    again with the same arguments after a kill, it goes on where the last saved state was.

    Args:
        kernel_config: the network.
        train: what to stand for.
        held_out: what to be scored by while it runs; it chooses nothing.
        preprocessing: from their points to the space of the kernel.
        first: rows of `train` that the support starts as.
        config: how to distil.
        out: folder of the run, made if absent.
        resume: whether to go on with a run found there.
        save: writes a set, `save(distilled, folder, training)`; None writes none.
        progress: whether to draw a bar; None where standard output is a terminal.
        work: who computes tiles of kernels; None: this process. It changes no number.

    Raises:
        ValueError: if points do not fit the network, the kernel matrix becomes singular, or `out`
            holds another run.
        OSError: if `out` cannot be written.
    """
    kernel_config.check_shape(tuple(preprocessing(train.points[:1]).shape[1:]))
    if config.augment and not train.is_images:
        raise ValueError("augmentation is for images; leave it out")
    with isolated(config.threads):
        run = _Run(kernel_config, train, held_out, preprocessing, first, config, Path(out), save)
        run.work = work
        run.start(resume)
        history = run.train(progress)
        return KipResult(run.distilled(), run.at.step, run.at.seconds, history)


class _Run(Run[KipConfig]):
    work: TileWork | None = None

    def __init__(
        self,
        kernel_config: KernelConfig,
        train: Examples,
        held_out: Examples,
        preprocessing: Preprocessing,
        first: Tensor,
        config: KipConfig,
        out: Path,
        save: SaveFunction | None,
    ) -> None:
        self.kernel, self.data, self.preprocessing = kernel_config, train, preprocessing
        self.draw, self.save = Draw(train), save
        self.prepared = None if config.augment else preprocessing(train.points)
        self.held = held_out.take(
            Draw(held_out).rows(
                min(config.validate_samples, len(held_out)), generator_of(config.seed, -1)
            )
        )
        self.held_points = preprocessing(self.held.points)
        start = train.take(first)
        points = preprocessing(start.points).to(config.dtype)
        support = Support(points, start.targets.to(config.dtype), config.learn_labels)
        identity = {
            "kernel": [repr(kernel_config)],
            "data": fingerprint(train),
            "first points": zlib.crc32(points.numpy().tobytes()),
        }
        super().__init__(support, config, out, identity, "float32")

    @property
    def support(self) -> Support:
        assert isinstance(self.model, Support)
        return self.model

    def step(self, fraction: float) -> dict[str, Tensor]:
        if not bool(torch.isfinite(self.support.points.detach().sum())):
            raise ValueError(f"the points left all bounds by step {self.at.step}; lower lr")
        points, targets = self._batch(self.at.step)
        config = self.config
        loss = kip_loss(
            self.kernel,
            self.support,
            points,
            targets,
            config.regulariser,
            config.max_bytes,
            self.work,
        )
        self.descend(loss, fraction)
        return {"loss": loss.detach()}

    def validate(self) -> dict[str, float]:
        config = self.config
        ridge = fit_ridge(
            self.kernel,
            self.support.points.detach(),
            self.support.labels.detach(),
            config.regulariser,
            config.max_bytes,
            self.work,
        )
        found = score(ridge, self.held, self.held_points)
        name = "accuracy" if found.accuracy is not None else "explained"
        return {f"validation/{name}": found.value}

    def checkpoint(self) -> None:
        if self.save is not None:
            self.save(self.distilled(), self.out / "last", self.facts())

    def distilled(self) -> Distilled:
        """The set as it stands."""
        return Distilled(
            points=self.support.points.detach().cpu().clone(),
            labels=self.support.labels.detach().cpu().clone(),
            kernel=self.kernel,
            preprocessing=self.preprocessing,
            names=self.data.names,
            is_classes=self.data.classes is not None,
            offset=self.data.offset,
            scale=self.data.scale,
            regulariser=self.config.regulariser,
        )

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        config, generator = self.config, generator_of(self.config.seed, step)
        rows = self.draw.rows(config.batch_size, generator)
        if self.prepared is not None:
            points = self.prepared[rows]
        else:
            points = self.preprocessing(self._augmented(self.data.points[rows], generator))
        points = points.to(self.device, config.dtype)
        return points, self.data.targets[rows].to(self.device, config.dtype)

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        side = min(images.shape[-2:])
        images = random_crop(images, round(self.config.shift * side), generator)
        return horizontal_flip(images, generator) if self.config.flip else images


def generator_of(seed: int, step: int) -> torch.Generator:
    """The random numbers of a step; step -1 is before all."""
    digest = hashlib.sha256(f"{seed}:{step}".encode()).digest()
    # Of a seed, torch's generator for CPUs heeds 32 bits.
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


def fingerprint(examples: Examples) -> list[Any]:
    """Tells examples apart without reading all of their points."""
    some = torch.linspace(0, len(examples) - 1, min(len(examples), 16)).round().long()
    points = zlib.crc32(examples.points[some].numpy().tobytes())
    return [list(examples.points.shape), points, zlib.crc32(examples.targets.numpy().tobytes())]
