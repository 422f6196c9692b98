"""Subsets of natural points that a distilled set has to beat: random, k-means and herding.

All have as many points of each class as of any other, and are found in the space that the kernel
sees, by squared distances there.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from learning.distillation.examples import Draw, Examples

_PART = 4096
"""Rows of distances at a time."""
Chooser = Callable[[Tensor, int, torch.Generator], Tensor]


def random_rows(points: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Any `n` different rows."""
    return torch.randperm(len(points), generator=generator)[:n]


def kmeans(points: Tensor, n: int, generator: torch.Generator, iterations: int = 50) -> Tensor:
    """Centres of `n` clusters.

    k-means++ (Arthur and Vassilvitskii 2007), then Lloyd's iterations until nothing changes. A
    cluster that loses all its points is moved to the point farthest from its centre.

    Args:
        points: `(N, D)`.
        n: clusters, at most N.
        generator: draws the first centres.
        iterations: most iterations.

    Returns:
        `(n, D)`.
    """
    centres = points[_plus_plus(points, n, generator)].clone()
    previous = None
    for _ in range(iterations):
        nearest, distances = _nearest(points, centres)
        if previous is not None and torch.equal(nearest, previous):
            break
        previous = nearest
        counts = torch.bincount(nearest, minlength=n)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = sums / counts.clamp_min(1)[:, None].to(sums)
        for empty in torch.nonzero(counts == 0)[:, 0].tolist():
            far = int(distances.argmax())
            centres[empty] = points[far]
            distances[far] = 0
    return centres


def kmeans_rows(points: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """The row nearest to each centre of k-means, no row twice."""
    centres = kmeans(points, n, generator)
    taken: list[int] = []
    free = torch.ones(len(points), dtype=torch.bool)
    for centre in centres:
        distances = (points - centre).square().sum(1)
        distances[~free] = torch.inf
        taken.append(int(distances.argmin()))
        free[taken[-1]] = False
    return torch.tensor(taken)


def herding_rows(points: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Rows whose running mean stays as near to the mean of all as one more row can bring it.

    Source: Welling 2009, "Herding Dynamical Weights to Learn"; as chosen by Rebuffi et al. 2017,
    "iCaRL", algorithm 4. Nothing is random.
    """
    mean = points.mean(0)
    total = torch.zeros_like(mean)
    taken: list[int] = []
    free = torch.ones(len(points), dtype=torch.bool)
    for step in range(1, n + 1):
        distances = ((total + points) / step - mean).square().sum(1)
        distances[~free] = torch.inf
        taken.append(int(distances.argmin()))
        free[taken[-1]] = False
        total += points[taken[-1]]
    return torch.tensor(taken)


CHOOSERS: dict[str, Chooser] = {
    "random": random_rows,
    "kmeans": kmeans_rows,
    "herding": herding_rows,
}


def choose(examples: Examples, method: str, n: int, seed: int) -> Tensor:
    """Rows of a subset, in the order of the classes.

    Args:
        examples: with points in the space of the kernel.
        method: a key of `CHOOSERS`.
        n: how many points; the same number of each class that occurs.
        seed: of what is random.

    Raises:
        ValueError: if the method is unknown, the classes cannot have equal shares, or a class has
            too few points.
    """
    if method not in CHOOSERS:
        raise ValueError(f"unknown subset {method!r}; known: {', '.join(CHOOSERS)}")
    draw = Draw(examples)
    share, rest = divmod(n, draw.n_kinds)
    if share < 1 or rest:
        raise ValueError(
            f"{n} points cannot be shared by {draw.n_kinds} classes: give a multiple of them"
        )
    fewest = min(len(rows) for rows in draw.kinds)
    if fewest < share:
        raise ValueError(f"{share} points of each class are asked for, one class has {fewest}")
    generator = torch.Generator().manual_seed(seed)
    flat = examples.points.flatten(1)
    return torch.cat([rows[CHOOSERS[method](flat[rows], share, generator)] for rows in draw.kinds])


def _plus_plus(points: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Rows drawn one after the other, in proportion to the squared distance from those before."""
    rows = [int(torch.randint(len(points), (1,), generator=generator))]
    distances = (points - points[rows[0]]).square().sum(1).double()
    for _ in range(n - 1):
        total = distances.cumsum(0)
        if float(total[-1]) == 0:  # all points are taken or equal to one that is
            rest = sorted(set(range(len(points))) - set(rows))
            rows.append(rest[0])
            continue
        at = torch.rand((), generator=generator, dtype=torch.float64) * total[-1]
        rows.append(min(int(torch.searchsorted(total, at, right=True)), len(points) - 1))
        distances = torch.minimum(distances, (points - points[rows[-1]]).square().sum(1).double())
    return torch.tensor(rows)


def _nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each point, and the squared distance to it."""
    lengths = centres.square().sum(1)
    found = []
    for part in points.split(_PART):
        scores = torch.addmm(lengths, part, centres.T, alpha=-2).min(1)
        found.append((scores.indices, scores.values + part.square().sum(1)))
    nearest, distances = zip(*found, strict=True)
    return torch.cat(nearest), torch.cat(distances).clamp_min_(0)
