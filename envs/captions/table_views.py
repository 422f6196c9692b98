"""Views of a cluttered table with what they show: which things, in which colours."""

import numpy as np

from envs.captions.facts import Facts, describe
from envs.captions.house_views import Drawn
from envs.captions.sentences import TABLE
from envs.tabletop.clutter_bodies import Split
from envs.tabletop.instances import CLASSES, InstanceConfig, InstanceScenes

LEAST, NOTICED = 0.012, 0.003
"""Shares of the picture: to be told, and to be seen at all."""
_NAMES = {"bunny": "rabbit", "small cube": "cube"}
_UNNAMED = ("shape", "slot")


class TableViews:
    """Draws pictures of a table; keep one for many, and close it."""

    def __init__(self, split: Split, seed: int, size: int) -> None:
        """Connect to the physics engine; nothing is loaded.

        Args:
            split: train, validation or test.
            seed: of all pictures.
            size: pixels of a side, 64 to 512.
        """
        self._scenes = InstanceScenes(InstanceConfig(size, split, seed))

    def close(self) -> None:
        """Disconnect."""
        self._scenes.close()

    def draw(self, k: int) -> Drawn | None:
        """Picture k and its facts; None where nothing in it can be told."""
        picture = self._scenes.draw(k)
        names = [_name(CLASSES[kind]) for kind in picture.classes.tolist()]
        ids = picture.ids.astype(np.int64) - 1
        things = describe(picture.image, ids, names, LEAST, NOTICED)
        return Drawn(picture.image, Facts(TABLE, things)) if things else None


def _name(kind: str) -> str | None:
    return None if kind in _UNNAMED else _NAMES.get(kind, kind)
