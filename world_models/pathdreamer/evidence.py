"""How good a world model is hop by hop, on walks through houses it has not seen.

From one panorama that was really seen, up to six hops are dreamed, each from the dreams before it.
Pixels count as *seen* where the real panorama, projected, shows something, and as *hole* elsewhere.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from world_models.pathdreamer.batches import WalkConfig, draw_walk
from world_models.pathdreamer.dreamer import Dreamed, Dreamer
from world_models.pathdreamer.guidance import Guidance, make_guidance
from world_models.pathdreamer.model import Pathdreamer
from world_models.pathdreamer.panoramas import PanoramaSet, Seen
from world_models.pathdreamer.scores import StructureScores

HOPS = 6
METHODS = ("repeat-last", "nearest-fill", "model", "sample")
"""The seen panorama as it is; each pixel as the nearest that is seen; the mean of the latent at
every hop; a draw of it."""
WHERE = ("hole", "seen")

Key = tuple[str, str, int]
"""Method, where, and hop (1 to `HOPS`)."""


@dataclass(frozen=True)
class WalkScores:
    """Sums over one walk, and the house it is in."""

    house: str
    scores: dict[Key, StructureScores]


def score_walks(
    model: Pathdreamer,
    data: PanoramaSet,
    per_house: int,
    seed: int,
    advance: Callable[[], None] = lambda: None,
) -> list[WalkScores]:
    """Walks through every house of a set.

    Args:
        model: in evaluation mode.
        data: houses that it has not seen.
        per_house: walks in each.
        seed: of the walks and of the draws.
        advance: called after each house.
    """
    found = []
    for name, _ in data.houses:
        for way in _ways(data.part([name]), per_house, seed):
            found.append(WalkScores(name, _score_way(model, data, way, seed)))
        advance()
    return found


def _ways(house: PanoramaSet, count: int, seed: int) -> Iterable[tuple[int, ...]]:
    """Walks of up to `HOPS` hops, the start first."""
    walks = WalkConfig(context=(1, 1), hops=(HOPS, HOPS))
    for number in range(count):
        start, ahead = draw_walk(house, np.random.default_rng([seed, number]), walks)
        yield (*start, *ahead)


def _score_way(
    model: Pathdreamer, data: PanoramaSet, way: Sequence[int], seed: int
) -> dict[Key, StructureScores]:
    first, truth = data.seen(way[0]), [data.seen(number) for number in way[1:]]
    places = [one.position for one in truth]
    dreams = {
        "model": dream_along(model, first, places, seed, temperature=0.0),
        "sample": dream_along(model, first, places, seed),
    }
    scores: dict[Key, StructureScores] = {}
    for hop, real in enumerate(truth):
        guidance = make_guidance([first], real.position)
        answers: dict[str, Seen | Dreamed] = {
            "repeat-last": first,
            "nearest-fill": _filled(guidance, real.position),
            **{name: dreamed[hop] for name, dreamed in dreams.items()},
        }
        for where, mask in (("hole", ~guidance.valid), ("seen", guidance.valid)):
            for name, answer in answers.items():
                scores[name, where, hop + 1] = _scored(answer, real, mask, model.config.n_classes)
    return scores


def dream_along(
    model: Pathdreamer,
    first: Seen,
    places: Sequence[NDArray[np.float64]],
    seed: int,
    temperature: float = 1.0,
) -> list[Dreamed]:
    """Dream places one after another, from one panorama that was seen."""
    dreamer = Dreamer(model, first.semantic.shape, seed, temperature)
    dreamer.see(first)
    return [dreamer.dream(place) for place in places]


def _filled(guidance: Guidance, position: NDArray[np.float64]) -> Seen:
    return Seen(guidance.filled_rgb, guidance.filled_semantic, guidance.filled_depth, position)


def _scored(
    answer: Seen | Dreamed, real: Seen, mask: NDArray[np.bool_], n_classes: int
) -> StructureScores:
    scores = StructureScores(n_classes)
    inside = torch.from_numpy(mask)[None]
    scores.add(
        _ids(answer.semantic),
        torch.from_numpy(answer.depth)[None],
        _ids(real.semantic),
        torch.from_numpy(real.depth)[None],
        inside,
    )
    scores.add_colours(_colours(answer.rgb), _colours(real.rgb), inside)
    return scores


def _ids(semantic: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(semantic.astype(np.int64))[None]


def _colours(rgb: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(rgb).movedim(-1, 0)[None].float() / 255


# What the latent is for.


@dataclass(frozen=True)
class Diversity:
    """Samples of one place against each other and against the truth; means over places.

    Attributes:
        disagreement: share of pixels in which two samples name different classes, by `WHERE`.
        depth_spread: metres, standard deviation over the samples, by `WHERE`.
        covered: accuracy in holes of the best of 1, 2, 4... samples, chosen with the truth at hand.
        covered_depth: depth error in holes of the best of as many, metres.
    """

    disagreement: dict[str, float]
    depth_spread: dict[str, float]
    covered: dict[int, float]
    covered_depth: dict[int, float]


def diversity(
    model: Pathdreamer, data: PanoramaSet, seed: int, samples: int = 8, hops: int = 2
) -> Diversity:
    """How samples differ, `hops` away from one panorama that was seen; a place in each house."""
    differ: dict[str, list[float]] = {where: [] for where in WHERE}
    spread: dict[str, list[float]] = {where: [] for where in WHERE}
    right: list[NDArray[np.float64]] = []
    off: list[NDArray[np.float64]] = []
    for name, _ in data.houses:
        way = next(iter(_ways(data.part([name]), 1, seed)))[: hops + 1]
        first, real = data.seen(way[0]), data.seen(way[-1])
        dreamer = Dreamer(model, first.semantic.shape, seed)
        dreamer.see(first)
        ideas = [dreamer.glimpse([real.position])[0] for _ in range(samples)]
        ids, depths = (np.stack([getattr(i, n) for i in ideas]) for n in ("semantic", "depth"))
        hole = ~ideas[0].guidance.valid
        if not hole.any():
            continue
        for where, mask in (("hole", hole), ("seen", ~hole)):
            if mask.any():
                differ[where].append(float((ids[1:] != ids[:-1])[:, mask].mean()))
                spread[where].append(float(depths.std(0)[mask].mean()))
        known = hole & (real.semantic > 0) & (real.depth > 0)
        if known.any():
            right.append((ids == real.semantic)[:, known].mean(1))
            off.append(np.abs(depths - real.depth)[:, known].mean(1))
    counts = [2**k for k in range(samples.bit_length()) if 2**k <= samples]
    return Diversity(
        {where: float(np.mean(values)) for where, values in differ.items()},
        {where: float(np.mean(values)) for where, values in spread.items()},
        {n: float(np.mean([row[:n].max() for row in right])) for n in counts},
        {n: float(np.mean([row[:n].min() for row in off])) for n in counts},
    )


def revisits(model: Pathdreamer, data: PanoramaSet, seed: int) -> dict[str, float]:
    """Whether a dreamed place looks the same when one comes back to it; a walk in each house.

    Two hops are dreamed, then the first place again: with the memory, and without what was dreamed.

    Returns:
        `agreement` of classes (share of all pixels) and `depth_change` (metres), and both
        `_without` a memory of the dreams.
    """
    rows = []
    for name, _ in data.houses:
        way = next(iter(_ways(data.part([name]), 1, seed)))[:3]
        if len(way) < 3:
            continue
        first, *ahead = (data.seen(number) for number in way)
        dreamer = Dreamer(model, first.semantic.shape, seed)
        dreamer.see(first)
        before = dreamer.dream(ahead[0].position)
        dreamer.dream(ahead[1].position)
        after = dreamer.dream(ahead[0].position)
        sober = Dreamer(model, first.semantic.shape, seed + 1)
        sober.see(first)
        other = sober.dream(ahead[0].position)
        rows.append([*_change(before, after), *_change(before, other)])
    names = ("agreement", "depth_change", "agreement_without", "depth_change_without")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def _change(one: Dreamed, other: Dreamed) -> tuple[float, float]:
    return (
        float((one.semantic == other.semantic).mean()),
        float(np.abs(one.depth - other.depth).mean()),
    )
