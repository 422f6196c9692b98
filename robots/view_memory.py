"""What a robot has seen and from where, bounded: embeddings of camera pictures with their poses.

One view is kept of each cell of position and heading, the newest, so that standing still fills
nothing and what has changed is seen anew; of more than `most` cells the one goes that was seen
longest ago. Poses are those of the camera, in one frame: metres, radians, z up (REP-103).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Cell = tuple[int, int, int, int]
_UNIT = 1e-3  # Greatest difference of an embedding's length from 1.


@dataclass(frozen=True)
class ViewMemoryConfig:
    """How much is kept.

    Attributes:
        cell: metres of a cell's side.
        headings: sectors of a turn; the first is around +x.
        most: views that are kept at most.
    """

    cell: float = 0.5
    headings: int = 12
    most: int = 5_000

    def __post_init__(self) -> None:
        """Refuse a memory that could hold nothing, or has no bound."""
        if not (self.cell > 0 and math.isfinite(self.cell)):
            raise ValueError(f"cell must be positive and finite metres, got {self.cell}")
        if not 1 <= self.headings <= 360:
            raise ValueError(f"headings must be 1 to 360, got {self.headings}")
        if not 1 <= self.most <= 1_000_000:
            raise ValueError(f"most must be 1 to 1,000,000, got {self.most}")


class Sight(NamedTuple):
    """Where a camera was when it saw something.

    Attributes:
        x: metres.
        y: metres.
        z: metres.
        yaw: radians counter-clockwise from +x, of where it looked.
        stamp: when, nanoseconds; a sight of an earlier time never replaces one of a later.
        label: a word for people, such as a viewpoint's name.
    """

    x: float
    y: float
    z: float
    yaw: float
    stamp: int = 0
    label: str = ""


class Recalled(NamedTuple):
    """A view that is remembered.

    Attributes:
        sight: from where it was seen.
        score: dot product with what was asked for, -1 to 1.
    """

    sight: Sight
    score: float


class ViewMemory:
    """Embeddings of length 1 by the cells that they were seen from."""

    def __init__(self, width: int, config: ViewMemoryConfig | None = None) -> None:
        """Remember nothing yet.

        Args:
            width: numbers of an embedding.
            config: how much is kept.

        Raises:
            ValueError: for less than one number.
        """
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.config = config or ViewMemoryConfig()
        self.replaced = 0
        """Views that a newer one of their cell has replaced."""
        self.dropped = 0
        """Views that had to go because there were too many, and those that came too late."""
        self._width = width
        self._rows: OrderedDict[Cell, int] = OrderedDict()  # that seen longest ago first
        self._embeddings = np.zeros((0, width), np.float32)
        self._sights: list[Sight] = []

    def __len__(self) -> int:
        """Number of views."""
        return len(self._rows)

    @property
    def sights(self) -> tuple[Sight, ...]:
        """Of all views, those seen longest ago first."""
        return tuple(self._sights[row] for row in self._rows.values())

    def cell_of(self, sight: Sight) -> Cell:
        """Cell of position and heading; a position of 0 and a heading of 0 are in the middle."""
        x, y, z = (math.floor(value / self.config.cell + 0.5) for value in sight[:3])
        sector = math.floor(sight.yaw / math.tau * self.config.headings + 0.5)
        return x, y, z, sector % self.config.headings

    def add(self, embedding: ArrayLike, sight: Sight) -> bool:
        """Remember a view.

        Args:
            embedding: `(width,)` of length 1.
            sight: from where it was seen.

        Returns:
            Whether it is kept: not if its cell has a later one.

        Raises:
            ValueError: for another shape or length, or a pose that is not finite.
        """
        vector = self._checked(embedding)
        if not all(map(math.isfinite, sight[:4])):
            raise ValueError(f"a sight must be finite, got {sight}")
        cell = self.cell_of(sight)
        row = self._rows.get(cell)
        if row is not None and sight.stamp < self._sights[row].stamp:
            self.dropped += 1
            return False
        self.replaced += row is not None
        row = self._free_row() if row is None else row
        self._embeddings[row], self._sights[row] = vector, sight
        self._rows[cell] = row
        self._rows.move_to_end(cell)
        return True

    def rank(self, query: ArrayLike, k: int) -> list[Recalled]:
        """The k views that fit best, best first; all of them if there are fewer.

        Args:
            query: `(width,)` of length 1.
            k: how many, 1 or more.

        Raises:
            ValueError: for another shape, length or k.
        """
        if k < 1:
            raise ValueError(f"k must be 1 or more, got {k}")
        vector = self._checked(query)
        rows = np.fromiter(self._rows.values(), np.intp, len(self._rows))
        scores = self._embeddings[rows] @ vector
        # Of equal ones, the newest first.
        order = len(rows) - 1 - np.argsort(-scores[::-1], kind="stable")[:k]
        return [Recalled(self._sights[rows[i]], float(scores[i])) for i in order]

    def clear(self) -> None:
        """Forget all views; the counts stay."""
        self._rows.clear()
        self._sights.clear()
        self._embeddings = np.zeros((0, self._width), np.float32)

    def _checked(self, embedding: ArrayLike) -> NDArray[np.float32]:
        vector = np.asarray(embedding, np.float32)
        if vector.shape != (self._width,):
            raise ValueError(f"an embedding must be ({self._width},), got {vector.shape}")
        length = float(np.linalg.norm(vector))
        if not abs(length - 1.0) <= _UNIT:
            raise ValueError(f"an embedding must have length 1, got {length:g}")
        return vector

    def _free_row(self) -> int:
        """A row for one more view; that of the one seen longest ago, where there is no other."""
        if len(self._rows) >= self.config.most:
            self.dropped += 1
            return self._rows.popitem(last=False)[1]
        row = len(self._sights)
        if row == len(self._embeddings):
            more = min(max(64, row), self.config.most - row)
            self._embeddings = np.concatenate(
                [self._embeddings, np.zeros((more, self._width), np.float32)]
            )
        self._sights.append(Sight(0.0, 0.0, 0.0, 0.0))
        return row
