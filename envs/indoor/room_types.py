"""What rooms are for: an explicit model of which purposes go together, and its exact inference.

Given a plan, the purposes t of its rooms (corridors apart) follow the tree of its links:

    Q(t) ~ prod_i fit(t_i; size, zone, access) * prod_links affinity(t_i, t_j) * whole(t)

`whole` is zero where a purpose of `ONCE` occurs twice, and multiplies by `LACKING` for each of
`NEEDED` that is missing. Signs of a room's purpose (`SIGNS`: style of its door, floor, colour of
its walls) are drawn given its purpose.

Predictability p: room i shows its purpose and signs under Q with probability p; with probability
1 - p it shows a purpose drawn on its own from the mean of Q's marginals over the rooms of the
plan, and signs drawn on their own, each from what it is for such a room. So the expected number
of rooms of each purpose, and of each sign, is the same for every p, while whatever tells of a
room tells the less the smaller p is (the draw at p is that at a greater p, more often erased).

Sums over purposes are by belief propagation on the tree, in which messages also hold the set of
purposes used so far: exact, so `TypeModel.posterior` is the best that can be known.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from envs.indoor.floor_plan import Plan

Array = NDArray[np.float64]

HALLWAY = "hallway"
"""What corridors are; always known."""

PURPOSES: tuple[str, ...] = (
    "living room", "kitchen", "dining room", "office", "laundry room", "gym",
    "bedroom", "bathroom", "closet",
)  # fmt: skip
"""Purposes of rooms that are not corridors; the position is the index used here."""

ONCE = PURPOSES[:6]
"""At most one of each in a house of predictability 1."""

NEEDED = ("living room", "kitchen", "bedroom", "bathroom")
"""What a house of predictability 1 rarely lacks."""

LACKING = 0.01
"""Weight of a house for each needed purpose it lacks."""

SIZES = (8.0, 15.0)
"""Borders between small, middling and large rooms, in square metres."""


def _symmetric(other: float, rows: str) -> Array:
    """A table of purposes by purposes from its lower left half; `-` is `other`."""
    table = np.full((len(PURPOSES), len(PURPOSES)), other)
    for i, row in enumerate(rows.strip().splitlines()):
        for j, value in enumerate(row.split()[-1 - i :]):
            if value != "-":
                table[i, j] = table[j, i] = float(value)
    return table


def _shares(text: str) -> dict[str, float]:
    """`"oak 90, white 10"` as probabilities."""
    words = [share.rsplit(" ", 1) for share in text.split(", ")]
    return {name: int(percent) / 100 for name, percent in words}


FIT: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float]] = {
    "living room": ((0.01, 0.25, 1.0), (1.0, 0.3, 0.1), 0.05),
    "kitchen": ((0.1, 1.0, 0.35), (1.0, 0.7, 0.1), 0.5),
    "dining room": ((0.03, 1.0, 0.45), (1.0, 0.7, 0.1), 0.6),
    "office": ((0.25, 0.7, 0.06), (0.5, 0.6, 0.3), 0.1),
    "laundry room": ((0.7, 0.25, 0.01), (0.4, 0.7, 0.3), 0.5),
    "gym": ((0.01, 0.35, 0.35), (0.1, 0.3, 0.5), 0.1),
    "bedroom": ((0.03, 1.0, 0.6), (0.08, 0.7, 1.0), 0.05),
    "bathroom": ((1.0, 0.25, 0.01), (0.4, 0.8, 0.9), 1.0),
    "closet": ((0.7, 0.02, 0.002), (0.3, 0.7, 0.8), 1.3),
}
"""Weight of a purpose: for a small, middling and large room; near the entrance, in the middle and
far from it; for a room that is reached through another one."""

JOINED_ELSE, BESIDE_ELSE = 0.02, 0.1
"""Affinity of two purposes that the tables below leave open."""

JOINED = _symmetric(
    JOINED_ELSE,
    """
    living room      -
    kitchen          2    -
    dining room      5    6    -
    office           1    -    -    -
    laundry room     -    3    -    -    -
    gym              -    -    -    -    -    -
    bedroom          -    -    -  0.2    -    -    -
    bathroom         -    -    -    -    1  1.5    4    -
    closet         0.2  0.3    -  0.3  0.5    -    5  0.5    -
    """,
)
"""Affinity of two rooms that a door joins; rows and columns are `PURPOSES`."""

BESIDE = _symmetric(
    BESIDE_ELSE,
    """
    living room      -
    kitchen        1.5    -
    dining room    2.5    3    -
    office         1.5    -  0.7    -
    laundry room     -    2    -    -    -
    gym              -    -    -  0.6    -    -
    bedroom        0.3  0.1 0.15    1  0.3  0.5    1
    bathroom       0.5  0.2  0.3  0.7    2    1  2.5 0.15
    closet           -    -    -    -    -    -    1  0.6    -
    """,
)
"""Affinity of two rooms side by side."""

_SHARES: dict[str, tuple[str, str, str]] = {
    "living room": (
        "walnut 80, oak 10, white 10",
        "planks 85, herringbone 15",
        "cream 70, sage 30",
    ),
    "kitchen": ("walnut 70, grey 20, white 10", "checkers 80, stone 20", "white 60, cream 40"),
    "dining room": ("walnut 90, oak 10", "herringbone 80, planks 20", "sage 70, terracotta 30"),
    "office": ("grey 80, oak 20", "carpet 40, planks 60", "slate 70, sage 30"),
    "laundry room": ("blue 60, white 40", "stone 80, tiles 20", "white 70, sky 30"),
    "gym": ("grey 90, white 10", "rubber 90, planks 10", "slate 50, white 50"),
    "bedroom": ("oak 90, white 10", "carpet 85, planks 15", "sky 40, rose 40, sand 20"),
    "bathroom": ("blue 90, white 10", "tiles 90, stone 10", "wall tiles 85, white 15"),
    "closet": ("white 90, oak 10", "carpet 70, planks 30", "sand 60, white 40"),
}
"""Percentages of the signs of a purpose: style of the door, floor, colour of the walls."""

SIGNS: dict[str, dict[str, dict[str, float]]] = {
    sign: {purpose: _shares(texts[k]) for purpose, texts in _SHARES.items()}
    for k, sign in enumerate(("door", "floor", "wall"))
}
"""Probability of each sign given a room's purpose, where the room is not a random one."""

Known = Mapping[int, str]
"""Purposes of rooms that are known."""

Signs = Mapping[int, Mapping[str, str]]
"""Signs of rooms that are known: `{room: {"door": "oak"}}`."""

_K = len(PURPOSES)
_STATES = 1 << (len(ONCE) + 2)
_BITS = np.array(
    [1 << k for k in range(len(ONCE))]
    + [1 << (len(ONCE) + j) for j in range(2)]  # bedroom and bathroom, which may occur again
    + [0]
)


class TypeModel:
    """The distribution of the purposes and signs of a plan's rooms."""

    def __init__(self, plan: Plan, predictability: float = 1.0) -> None:
        """Weigh every purpose for every room.

        Args:
            plan: where the rooms are.
            predictability: p, from 0 (every room on its own) to 1.

        Raises:
            ValueError: for a predictability outside [0, 1].
        """
        if not 0.0 <= predictability <= 1.0:
            raise ValueError(f"predictability must be in [0, 1], got {predictability}")
        self.plan, self.p = plan, predictability
        self.rooms = tuple(i for i, corridor in enumerate(plan.corridor) if not corridor)
        """Rooms that have a purpose."""
        self._fit = {room: _fit(plan, room) for room in self.rooms}
        self._near: dict[int, list[tuple[int, Array]]] = {room: [] for room in self.rooms}
        for link in plan.links:
            a, b = link.rooms
            table = JOINED if link.joined else BESIDE
            self._near[a].append((b, table))
            self._near[b].append((a, table))
        self.marginals = np.array(list(self._beliefs({}).values()))
        """`(len(rooms), len(PURPOSES))`: Q's marginals, before any room is made random."""
        self.mean = self.marginals.mean(0)
        """`(len(PURPOSES),)`: of a random room, and of a house's rooms on average for any p."""

    def sample(
        self, rng: np.random.Generator
    ) -> tuple[dict[int, str], dict[int, dict[str, str]], dict[int, bool]]:
        """Draw purposes and signs of all rooms, and which rooms are not random ones.

        The same random numbers are used for every predictability, so houses of one seed differ
        only in the rooms that became random.
        """
        below = (rng.random(len(self.rooms)) < self.p).tolist()
        regular: dict[int, bool] = dict(zip(self.rooms, below, strict=True))
        hidden = self._sample_hidden(rng)
        purposes: dict[int, str] = {}
        signs: dict[int, dict[str, str]] = {}
        for room in self.rooms:
            alone = rng.choice(_K, p=self.mean)
            purposes[room] = PURPOSES[hidden[room] if regular[room] else alone]
            signs[room] = {}
            for sign in SIGNS:
                names, table = sign_table(sign)
                row = table[hidden[room]] if regular[room] else self.mean @ table
                signs[room][sign] = names[_draw(row, rng.random())]
        return purposes, signs, regular

    def posterior(self, room: int, purposes: Known, signs: Signs | None = None) -> Array:
        """P(purpose of a room | plan, purposes and signs that are known), exactly.

        Args:
            room: which room; not a corridor.
            purposes: of other rooms; one for `room` itself and for corridors is ignored.
            signs: of any rooms, `room` itself included.

        Returns:
            `(len(PURPOSES),)`, sums to 1.

        Raises:
            ValueError: for a room without a purpose, or unknown names.
        """
        if room not in self.rooms:
            raise ValueError(f"room must be one of {self.rooms}, got {room}")
        signs = signs or {}
        likely = {
            other: self._likelihood(purposes.get(other), signs.get(other, {}))
            for other in self.rooms
            if other != room and (other in purposes or other in signs)
        }
        belief = self._belief(room, likely, {})
        given, alone = _sign_likelihood(signs.get(room, {}), self.mean)
        weight = self.p * belief * given + (1.0 - self.p) * belief.sum() * self.mean * alone
        return weight / weight.sum()

    def _likelihood(self, purpose: str | None, signs: Mapping[str, str]) -> Array:
        """P(what is known of a room | its purpose under Q)."""
        given, alone = _sign_likelihood(signs, self.mean)
        if purpose is None:
            return self.p * given + (1.0 - self.p) * alone
        if purpose not in PURPOSES:
            raise ValueError(f"purpose must be one of {PURPOSES}, got {purpose!r}")
        index = PURPOSES.index(purpose)
        out = np.full(_K, (1.0 - self.p) * self.mean[index] * alone)
        out[index] += self.p * given[index]
        return out

    def _sample_hidden(self, rng: np.random.Generator) -> dict[int, int]:
        """Draw all purposes from Q, room after room given those before."""
        drawn: dict[int, int] = {}
        for room in self.rooms:
            likely = {other: np.eye(_K)[purpose] for other, purpose in drawn.items()}
            drawn[room] = _draw(self._belief(room, likely, {}), rng.random())
        return drawn

    def _beliefs(self, likely: Mapping[int, Array]) -> dict[int, Array]:
        """Normalised beliefs of all rooms."""
        memo: dict[tuple[int, int], Array] = {}
        beliefs = {room: self._belief(room, likely, memo) for room in self.rooms}
        return {room: belief / belief.sum() for room, belief in beliefs.items()}

    def _belief(
        self, room: int, likely: Mapping[int, Array], memo: dict[tuple[int, int], Array]
    ) -> Array:
        """P(purpose, what is known of other rooms) up to a factor; `likely[room]` is left out."""
        return self._gather(room, -1, {**likely, room: np.ones(_K)}, memo) @ _whole()

    def _gather(
        self,
        room: int,
        parent: int,
        likely: Mapping[int, Array],
        memo: dict[tuple[int, int], Array],
    ) -> Array:
        """`(purposes, sets)`: weight of the part of the tree behind a room, seen from `parent`."""
        if (room, parent) in memo:
            return memo[room, parent]
        total: Array | None = None
        for other, table in self._near[room]:
            if other != parent:
                message = table @ self._gather(other, room, likely, memo)
                total = message if total is None else _join(total, message)
        own = self._fit[room] * likely.get(room, np.ones(_K))
        result = _add_own(total, own)
        if parent >= 0:  # the root's is needed once, and may lack its own likelihood
            memo[room, parent] = result
        return result


@cache
def sign_table(sign: str) -> tuple[tuple[str, ...], Array]:
    """Names of a kind of sign, and `(len(PURPOSES), names)` probabilities given the purpose.

    Raises:
        ValueError: for an unknown kind.
    """
    if sign not in SIGNS:
        raise ValueError(f"sign must be one of {tuple(SIGNS)}, got {sign!r}")
    names = tuple(sorted({name for row in SIGNS[sign].values() for name in row}))
    table = [[SIGNS[sign][purpose].get(name, 0.0) for name in names] for purpose in PURPOSES]
    return names, np.array(table)


def _sign_likelihood(signs: Mapping[str, str], mean: Array) -> tuple[Array, float]:
    """P(signs | purpose) of a regular room, and P(signs) of a random one."""
    given, alone = np.ones(_K), 1.0
    for sign, name in signs.items():
        names, table = sign_table(sign)
        if name not in names:
            raise ValueError(f"{sign} must be one of {names}, got {name!r}")
        column = table[:, names.index(name)]
        given = given * column
        alone *= float(mean @ column)
    return given, alone


def _fit(plan: Plan, room: int) -> Array:
    """`(purposes,)` weight of each purpose for one room, whatever the others are."""
    size = int(np.searchsorted(SIZES, plan.clear(room).area))
    zone, through = plan.zones[room], plan.through[room]
    weights = []
    for purpose in PURPOSES:
        of_size, of_zone, of_through = FIT[purpose]
        weights.append(of_size[size] * of_zone[zone] * (of_through if through else 1.0))
    return np.array(weights)


@cache
def _whole() -> Array:
    """`(sets,)` weight of a house by the set of purposes it has."""
    weight = np.ones(_STATES)
    for purpose in NEEDED:
        weight[(np.arange(_STATES) & _BITS[PURPOSES.index(purpose)]) == 0] *= LACKING
    return weight


def _join(a: Array, b: Array) -> Array:
    """Weights of two parts of the tree together, `(purposes, sets)` each."""
    first, second = np.flatnonzero(a.sum(0)), np.flatnonzero(b.sum(0))
    pairs, others = np.repeat(first, len(second)), np.tile(second, len(first))
    apart = (pairs & others & ((1 << len(ONCE)) - 1)) == 0
    pairs, others = pairs[apart], others[apart]
    products = a[:, pairs] * b[:, others]
    cells = (pairs | others) + np.arange(_K)[:, None] * _STATES
    total = np.bincount(cells.ravel(), products.ravel(), _K * _STATES)
    return total.astype(np.float64).reshape(_K, _STATES)


def _add_own(total: Array | None, own: Array) -> Array:
    """Add a room of each purpose, of weight `own`, to what is behind it."""
    every = np.arange(_K)
    if total is None:
        out = np.zeros((_K, _STATES))
        out[every, _BITS] = own
        return out
    without, within = _own_masks()
    # What lacks the purpose moves to the set with it; what has it stays, if it may occur again.
    moved = np.take_along_axis(total * without, np.arange(_STATES) & ~_BITS[:, None], axis=1)
    return own[:, None] * (moved * within + total * _again())


@cache
def _own_masks() -> tuple[Array, Array]:
    """`(purposes, sets)`: 1 where a set may be joined by a purpose, and where it holds it after."""
    sets = np.arange(_STATES)
    bits = _BITS[:, None]
    return ((sets & bits) == 0).astype(float), ((sets & bits) == bits).astype(float)


@cache
def _again() -> Array:
    """`(purposes, sets)`: 1 where a set has a purpose already and may have it once more."""
    again = _own_masks()[1].copy()
    again[: len(ONCE)] = 0.0
    again[_BITS == 0] = 0.0
    return again


def _draw(weights: Array, uniform: float) -> int:
    """Index drawn in proportion to weights, by one uniform number."""
    cumulative = np.cumsum(weights)
    return int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
