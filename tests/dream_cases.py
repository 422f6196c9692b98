"""Small world models and panoramas, for the tests of what dreams."""

import functools
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pathdreamer_cases
from pathdreamer_cases import TINY, painted_house

from envs.indoor.house import generate_house
from envs.indoor.instructions import r2r_entries
from world_models.pathdreamer.model import Pathdreamer, save_world_model
from world_models.pathdreamer.panoramas import House, write_panoramas

# Spectral norms make loading slow, by seconds.
CONFIG = replace(TINY, image=replace(TINY.image, spectral_norm=False))
SIZE = (TINY.height, 2 * TINY.height)
HOUSE = "house_test_000003"


def tiny(awake: bool = True) -> Pathdreamer:
    """See `pathdreamer_cases.tiny`; quick to load."""
    return pathdreamer_cases.tiny(awake, CONFIG)


@functools.cache
def checkpoint(awake: bool = True) -> str:
    """Folder of a tiny model; one a process."""
    folder = tempfile.TemporaryDirectory(prefix="tiny-dreamer-")
    _KEPT.append(folder)
    save_world_model(tiny(awake), Path(folder.name) / "model")
    return str(Path(folder.name) / "model")


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when Python ends."""


def painted_folder(folder: Path, house: House | None = None) -> str:
    """Panoramas of one's own: a painted house called `flat`."""
    found = house or painted_house(np.random.default_rng(0), "flat")
    write_panoramas(folder, [found], SIZE)
    return str(folder)


def spoil_depth(folder: str, value: float) -> None:
    """Put a value into every panorama of a folder, behind the back of its format."""
    path = Path(folder) / "depth.bin"
    depth = np.fromfile(path, "<f2").reshape(-1, SIZE[0] * SIZE[1])
    depth[:, 7] = value
    depth.tofile(path)


@functools.cache
def instructions_file() -> str:
    """A split of one house, in Room-to-Room's form; one a process."""
    folder = tempfile.TemporaryDirectory(prefix="one-house-")
    _KEPT.append(folder)
    path = Path(folder.name) / "one.json"
    path.write_text(json.dumps(r2r_entries([generate_house(0, "val")], paths=3)))
    return str(path)
