"""What every source of panoramas offers: the procedural houses, Matterport3D through Habitat."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from envs.indoor.graph import NavigationGraph


@dataclass(frozen=True)
class Panorama:
    """What is seen from one point, equirectangular; see `envs.indoor.equirectangular`.

    Attributes:
        rgb: `(H, W, 3)` uint8.
        semantic: `(H, W)` uint8, ids of `envs.indoor.categories`; 0 where nothing is known.
        depth: `(H, W)` float32, distance along the ray in metres; 0 where there is none.
        position: `(3,)` of the camera in the world frame, metres.
    """

    rgb: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    depth: NDArray[np.float32]
    position: NDArray[np.float64]


class Simulator(Protocol):
    """A building that can be looked at from its viewpoints, and from anywhere else."""

    @property
    def graph(self) -> NavigationGraph:
        """Where one can stand, and walk to from there."""
        ...

    def observe(self, place: str | NDArray[np.float64], size: tuple[int, int]) -> Panorama:
        """The panorama from a viewpoint or a point.

        Args:
            place: name of a viewpoint, or `(3,)` position of the camera in metres.
            size: `(height, width)` in pixels.

        Raises:
            ValueError: for an unknown viewpoint, a position that is not finite, or a size below
                one pixel.
        """
        ...

    def close(self) -> None:
        """Free what the simulator holds."""
        ...
