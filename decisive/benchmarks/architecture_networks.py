"""Networks of `decisive benchmark architecture`, and their short trainings on CIFAR-10."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learning.architecture_search import Choice, SearchSpace, StageChoice
from learning.augment import horizontal_flip, random_crop
from learning.image_set import cifar10
from perception.efficientnet import EfficientNet, EfficientNetConfig, Kind

N_CLASSES = 10


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


def normalised(images: Tensor) -> Tensor:
    """Values in [0, 1] as the networks take them, in [-2, 2]."""
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
        logits = model(normalised(images))
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits, train.labels[rows], label_smoothing=0.1).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, examples: Examples) -> float:
    """Share of images whose class has the largest logit."""
    model.eval()
    pairs = zip(examples.images.split(500), examples.labels.split(500), strict=True)
    right = sum(int((model(normalised(x)).argmax(1) == y).sum()) for x, y in pairs)
    return right / len(examples.labels)
