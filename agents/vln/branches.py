"""The paths a navigator could take, as trees that share their beginnings.

At each decision one stands at the end of a history and may stop, or go on along any simple path of
up to `horizon` hops. These paths are the branches of a tree whose trunk is the history: what two
paths have in common is computed once. A leaf says either "the route ends here" (any node of the
branches, where one stands now among them) or "the route leads on from here" (the outermost nodes).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agents.vln.places import Array, Place

Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Branches:
    """Paths onward from a viewpoint; node 0 is the viewpoint itself.

    Attributes:
        viewpoints: `(n,)` where each path ends; the nodes are in the order of their depth.
        parents: `(n,)` node before; -1 for node 0.
        depths: `(n,)` hops.
        leaf_nodes: `(m,)` nodes of the leaves.
        leads_on: `(m,)` False: the route ends at that node; True: it leads on from there.
    """

    viewpoints: Ints
    parents: Ints
    depths: Ints
    leaf_nodes: Ints
    leads_on: NDArray[np.bool_]

    def path(self, node: int) -> list[int]:
        """Viewpoints from node 0 to a node."""
        back = []
        while node >= 0:
            back.append(int(self.viewpoints[node]))
            node = int(self.parents[node])
        return back[::-1]

    def leaf_of(self, rest: Sequence[int]) -> int:
        """Leaf that says what a route says, or as much of it as the branches reach.

        Args:
            rest: viewpoints of the route from node 0 to its end.

        Raises:
            ValueError: if the route leaves the branches.
        """
        node, reach = 0, int(self.depths[-1])
        for viewpoint in rest[1 : 1 + reach]:
            below = np.flatnonzero((self.parents == node) & (self.viewpoints == viewpoint))
            if not len(below):
                raise ValueError(f"route {list(rest)} is no simple path of the graph")
            node = int(below[0])
        same = (self.leaf_nodes == node) & (self.leads_on == (len(rest) - 1 > reach))
        if not same.any():
            raise ValueError(f"route {list(rest)} leads on where no way does")
        return int(np.flatnonzero(same)[0])


def branches(
    place: Place, start: int, horizon: int, keep: frozenset[tuple[int, ...]] | None = None
) -> Branches:
    """All simple paths of up to `horizon` hops.

    Args:
        place: gives the neighbours.
        start: where they begin.
        horizon: most hops, at least 1.
        keep: paths (with `start`) that may be extended; None extends all.

    Raises:
        ValueError: for a horizon below 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1 hop, got {horizon}")
    paths: list[tuple[int, ...]] = [(start,)]
    parents: list[int] = [-1]
    leaves: list[tuple[int, bool]] = []
    for node, path in enumerate(paths):  # grows while it is read: breadth first
        leaves.append((node, False))
        onward = [v for v in place.neighbors(path[-1]) if v not in path]
        if len(path) > horizon:
            if onward:
                leaves.append((node, True))
        elif keep is None or path in keep:
            paths.extend((*path, v) for v in onward)
            parents.extend([node] * len(onward))
    return Branches(
        np.array([path[-1] for path in paths]),
        np.array(parents),
        np.array([len(path) - 1 for path in paths]),
        np.array([node for node, _ in leaves]),
        np.array([on for _, on in leaves]),
    )


@dataclass(frozen=True)
class Decision:
    """One choice among paths.

    Attributes:
        place: the building.
        words: `(L,)` numbers of the instruction's words.
        history: viewpoints visited, the present one last.
        heading: in which one looked at the start, radians clockwise from +y.
        branches: paths onward.
        views: `(12, F)` view and its confidence for viewpoints not visited; those that are
            missing are hidden.
        target: index of the right leaf; -1 where it is not known.
    """

    place: Place
    words: NDArray[np.int64]
    history: tuple[int, ...]
    heading: float
    branches: Branches
    views: dict[int, tuple[Array, float]] = field(default_factory=dict)
    target: int = -1


def decisions(
    place: Place,
    words: NDArray[np.int64],
    history: Sequence[int],
    heading: float,
    onward: Branches,
    target: int = -1,
) -> list[Decision]:
    """One choice as the network sees it: once for each sample of what the place imagines.

    Args:
        place: imagines the viewpoints of the branches that were not visited.
        words: see `Decision`.
        history: see `Decision`.
        heading: see `Decision`.
        onward: branches from the last viewpoint of the history.
        target: see `Decision`.

    Returns:
        K decisions; a single one where nothing is imagined.
    """
    unseen = [v for v in dict.fromkeys(onward.viewpoints.tolist()) if v not in history]
    imagined = place.imagine(history, unseen) if unseen else None
    if imagined is None:
        return [Decision(place, words, tuple(history), heading, onward, target=target)]
    return [
        Decision(
            place,
            words,
            tuple(history),
            heading,
            onward,
            dict(zip(unseen, zip(views, confidence.tolist(), strict=True), strict=True)),
            target,
        )
        for views, confidence in zip(imagined.views, imagined.confidence, strict=True)
    ]
