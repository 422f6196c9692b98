"""Which instance each pixel of a picture belongs to, whoever says so: a network or a simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class InstanceLabels:
    """A label image and the classes of its instances.

    Attributes:
        ids: `(H, W)` integers: 0 where there is no instance, k where instance k is seen.
        classes: name of the class of instance k at `classes[k - 1]`. An instance of which no pixel
            is seen keeps its name.
    """

    ids: NDArray[np.integer]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Reject what no label image is."""
        ids, classes = np.asarray(self.ids), cast(object, self.classes)
        if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"ids must be (H, W) integers, got {ids.shape} {ids.dtype}")
        if not isinstance(classes, tuple | list) or not all(isinstance(c, str) for c in classes):
            raise ValueError(f"classes must be a name for each instance, got {classes!r:.60}")
        if not ids.size:
            raise ValueError(f"ids must have pixels, got {ids.shape}")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high > len(classes):
            raise ValueError(
                f"ids must be 0 to {len(classes)}, the number of classes, got {low} to {high}"
            )
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "classes", tuple(classes))

    def of_class(self, name: str) -> tuple[int, ...]:
        """Ids of the instances of a class."""
        return tuple(k for k, known in enumerate(self.classes, 1) if known == name)
