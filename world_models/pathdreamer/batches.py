"""What Pathdreamer learns from: walks through houses, and batches of guidance and truth."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from world_models.pathdreamer.inputs import GuidanceBatch
from world_models.pathdreamer.panoramas import PanoramaSet, Seen


class GuidanceArrays(Protocol):
    """Guidance of one panorama as arrays; see `GuidanceBatch` for their meaning.

    Colours are `(H, W, 3)` uint8, ids `(H, W)` uint8, depths `(H, W)` float32, the mask `(H, W)`
    bool.
    """

    @property
    def rgb(self) -> NDArray[np.uint8]: ...  # noqa: D102
    @property
    def semantic(self) -> NDArray[np.uint8]: ...  # noqa: D102
    @property
    def depth(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def valid(self) -> NDArray[np.bool_]: ...  # noqa: D102
    @property
    def filled_rgb(self) -> NDArray[np.uint8]: ...  # noqa: D102
    @property
    def filled_semantic(self) -> NDArray[np.uint8]: ...  # noqa: D102
    @property
    def filled_depth(self) -> NDArray[np.float32]: ...  # noqa: D102


MakeGuidance = Callable[[Sequence[Seen], NDArray[np.float64]], GuidanceArrays]
"""Projects what was seen into the panorama from a position. Pixels of depth 0 are no points."""


@dataclass(frozen=True)
class WalkConfig:
    """Which walks are drawn.

    Attributes:
        context: fewest and most viewpoints that were seen.
        hops: fewest and most steps from the last of them to the one to predict.
        turn: whether the world is turned by a random number of columns about the vertical.
        mirror: whether left and right are exchanged in half of the walks.
    """

    context: tuple[int, int] = (1, 3)
    hops: tuple[int, int] = (1, 3)
    turn: bool = True
    mirror: bool = True

    def __post_init__(self) -> None:
        """Refuse empty ranges."""
        for name in ("context", "hops"):
            least, most = getattr(self, name)
            if not 1 <= least <= most:
                raise ValueError(f"{name} must be (least, most) with 1 <= least, got {least, most}")


@dataclass(frozen=True)
class Example:
    """A walk: what was seen, and what comes next.

    Attributes:
        context: seen viewpoints, in order.
        targets: the viewpoints after them; the last is to be predicted, those between are passed
            through by a roll-out.
        guidance: of the last target, from the context alone.
        draw: uniform in [0, 1), decides whether the example is rolled out.
        room: kind of room of the last target; "" if unknown.
    """

    context: tuple[Seen, ...]
    targets: tuple[Seen, ...]
    guidance: GuidanceArrays
    draw: float
    room: str = ""


@dataclass(frozen=True)
class Truth:
    """The panoramas to predict, as tensors.

    Attributes:
        rgb: `(B, 3, H, W)` float in [0, 1].
        semantic: `(B, H, W)` int64.
        depth: `(B, H, W)` float metres, 0 where there is none.
    """

    rgb: Tensor
    semantic: Tensor
    depth: Tensor

    def to(self, device: torch.device | str) -> "Truth":
        """The same on a device."""
        return Truth(
            *(
                value.to(device, non_blocking=True)
                for value in (self.rgb, self.semantic, self.depth)
            )
        )


def stack_guidance(guidance: Sequence[GuidanceArrays]) -> GuidanceBatch:
    """Guidance of several panoramas of one size, as a batch on the CPU.

    Raises:
        ValueError: for none at all.
    """
    if not guidance:
        raise ValueError("a batch needs at least one guidance, got none")
    return GuidanceBatch(
        rgb=_colours([g.rgb for g in guidance]),
        semantic=_ids([g.semantic for g in guidance]),
        depth=_depths([g.depth for g in guidance]),
        valid=torch.from_numpy(np.stack([g.valid for g in guidance])),
        filled_rgb=_colours([g.filled_rgb for g in guidance]),
        filled_semantic=_ids([g.filled_semantic for g in guidance]),
        filled_depth=_depths([g.filled_depth for g in guidance]),
    ).complete()


def stack_truth(seen: Sequence[Seen]) -> Truth:
    """Panoramas of one size as tensors on the CPU."""
    return Truth(
        _colours([panorama.rgb for panorama in seen]),
        _ids([panorama.semantic for panorama in seen]),
        _depths([panorama.depth for panorama in seen]),
    )


def _colours(arrays: Sequence[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).movedim(-1, 1).float() / 255


def _ids(arrays: Sequence[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).long()


def _depths(arrays: Sequence[NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).float()


def turned(seen: Seen, columns: int) -> Seen:
    """What is seen once the world is turned about the vertical axis through the origin.

    Rolling a panorama to the right by a column turns the world clockwise by `2 pi / W`.

    Args:
        seen: a panorama and its position.
        columns: to roll by.
    """
    width = seen.semantic.shape[1]
    angle = -2 * math.pi * columns / width
    cos, sin = math.cos(angle), math.sin(angle)
    x, y, z = seen.position
    return Seen(
        np.roll(seen.rgb, columns, axis=1),
        np.roll(seen.semantic, columns, axis=1),
        np.roll(seen.depth, columns, axis=1),
        np.array([cos * x - sin * y, sin * x + cos * y, z]),
    )


def mirrored(seen: Seen) -> Seen:
    """What is seen once left and right (+y and -y) are exchanged."""
    return Seen(
        seen.rgb[:, ::-1],
        seen.semantic[:, ::-1],
        seen.depth[:, ::-1],
        seen.position * [1.0, -1.0, 1.0],
    )


def draw_walk(
    data: PanoramaSet, rng: np.random.Generator, config: WalkConfig
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A random walk that never comes back, as numbers of context and targets.

    Where it ends early, at a dead end, the context comes short rather than the targets.

    Raises:
        ValueError: for a set in which no viewpoint has a neighbour.
    """
    starts = data.starts
    if not len(starts):
        raise ValueError("no viewpoint of the set has a neighbour: there is nowhere to walk")
    n_context = int(rng.integers(config.context[0], config.context[1] + 1))
    n_hops = int(rng.integers(config.hops[0], config.hops[1] + 1))
    way = [int(rng.choice(starts))]
    while len(way) < n_context + n_hops:
        onward = [n for n in data.neighbors[way[-1]] if n not in way]
        if not onward:
            break
        way.append(int(rng.choice(onward)))
    first = max(1, len(way) - n_hops)
    return tuple(way[:first]), tuple(way[first:])


POOL = 1024
"""Walks whose projections `Echoes` holds at a time: 90 MB of 32 x 64 pixels."""


class Examples(Dataset[Example]):
    """Endlessly many examples, each a function of the seed and its number alone.

    So a resumed training sees the same ones, and each of several processes its own share.
    """

    def __init__(
        self, data: PanoramaSet, make_guidance: MakeGuidance, config: WalkConfig, seed: int
    ) -> None:
        """Args: where to walk, how to project, which walks, and the seed (not negative)."""
        self.data = data
        self.make_guidance = make_guidance
        self.config = config
        self.seed = seed

    def __getitem__(self, index: int) -> Example:
        """The example of a number."""
        rng = np.random.default_rng([self.seed, index])
        numbers, ahead = draw_walk(self.data, rng, self.config)
        columns = int(rng.integers(self.data.size[1])) if self.config.turn else 0
        mirror = self.config.mirror and bool(rng.integers(2))
        # The origin moves to the target: turning far from it would cost digits of the positions.
        origin = self.data.positions[ahead[-1]]

        def look(number: int) -> Seen:
            seen = self.data.seen(number)
            seen = turned(replace(seen, position=seen.position - origin), columns)
            return mirrored(seen) if mirror else seen

        context = tuple(look(number) for number in numbers)
        targets = tuple(look(number) for number in ahead)
        guidance = self.make_guidance(context, targets[-1].position)
        room = self.data.rooms[ahead[-1]]
        return Example(context, targets, guidance, float(rng.random()), room)


class Echoes(Dataset[Example]):
    """The same walks several times over, turned and mirrored anew each time.

    A small network's step costs less than the projection that it learns from. `POOL` walks come up
    in one order after another before the next are drawn. What comes out is a function of the seed
    and the number alone, as in `Examples`, and cannot be rolled out: there is no context.

    Source: Choi et al. 2019, "Faster Neural Network Training with Data Echoing".
    """

    def __init__(self, examples: Examples, times: int) -> None:
        """Args: where the walks come from, and how often each comes up."""
        self.examples = examples
        self.times = times
        straight = replace(examples.config, turn=False, mirror=False)
        self._straight = Examples(examples.data, examples.make_guidance, straight, examples.seed)
        self._order: int | None = None
        self._walks = np.zeros(0, np.int64)
        self._kept: dict[int, Example] = {}

    def __getitem__(self, index: int) -> Example:
        """The example of a number."""
        seed, config = self.examples.seed, self.examples.config
        order, at = divmod(index, POOL)
        if order != self._order:
            if self._order is None or order // self.times != self._order // self.times:
                self._kept = {}
            self._order = order
            self._walks = np.random.default_rng([seed, order]).permutation(POOL)
        walk = order // self.times * POOL + int(self._walks[at])
        if walk not in self._kept:
            found = self._straight[walk]
            target, guidance = _around_twice(found.targets[-1]), _around_twice(found.guidance)
            self._kept[walk] = replace(found, context=(), targets=(target,), guidance=guidance)
        kept = self._kept[walk]
        rng = np.random.default_rng([seed, index])
        columns = int(rng.integers(self.examples.data.size[1])) if config.turn else 0
        mirror = config.mirror and bool(rng.integers(2))
        target = _from(kept.targets[-1], columns, mirror)
        return replace(kept, targets=(target,), guidance=_from(kept.guidance, columns, mirror))


def _around_twice(panorama: Any) -> Any:
    """Every image twice, one beside the other, so that turning it is to look at a part."""
    return _each_image(panorama, lambda image: np.concatenate([image, image], axis=1))


def _from(doubled: Any, columns: int, mirror: bool) -> Any:
    """What `_around_twice` doubled, rolled to the right and then perhaps mirrored: views."""
    width = doubled.semantic.shape[1] // 2
    part = slice(width - columns, 2 * width - columns)
    step = slice(None, None, -1 if mirror else 1)
    return _each_image(doubled, lambda image: image[:, part][:, step])


def _each_image(panorama: Any, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
    images = {item.name: getattr(panorama, item.name) for item in fields(panorama)}
    return replace(
        panorama, **{name: change(image) for name, image in images.items() if image.ndim > 1}
    )


class _Share:
    """Numbers of the examples of this process, batch after batch from a step on."""

    def __init__(self, step: int, batch_size: int, rank: int, world: int) -> None:
        self.step, self.batch_size, self.rank, self.world = step, batch_size, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.world
        step = self.step
        while True:
            first = step * self.batch_size + self.rank * share
            yield list(range(first, first + share))
            step += 1


def batches(
    examples: Dataset[Example],
    batch_size: int,
    step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Iterator[list[Example]]:
    """Batches of examples, endlessly.

    Args:
        examples: where they come from.
        batch_size: over all processes.
        step: the batch to begin with.
        rank: number of this process.
        world: how many processes share each batch.
        workers: processes that prepare examples ahead; 0 prepares them here, as they are taken.

    Raises:
        ValueError: if the batch cannot be shared out equally.
    """
    if batch_size % world:
        raise ValueError(f"batch_size {batch_size} must be a multiple of {world} processes")
    numbers = _Share(step, batch_size, rank, world)
    if not workers:
        return ([examples[index] for index in share] for share in numbers)
    loader: DataLoader[Example] = DataLoader(
        examples,
        batch_sampler=numbers,
        num_workers=workers,
        collate_fn=list,
    )
    return iter(loader)
