"""A tiny dual encoder, pictures of coloured squares with captions, and translations of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch

from learning.bitext import Bitext
from learning.caption_set import CaptionSet
from perception.mural.checkpoint import SavedMural, save_mural
from perception.mural.model import DualEncoder, MuralConfig
from perception.mural.text import TextConfig
from perception.mural.tokenizer import TokenizerConfig
from perception.mural.training import MuralData

TINY = MuralConfig(
    text=TextConfig(
        TokenizerConfig(buckets=512, max_words=16), table_width=12, width=16, layers=1, inner=8,
        heads=2,
    ),
    backbone="vit_micro",
    backbone_options={"patch": 8, "width": 16, "depth": 1, "heads": 2},
    size=32,
    width=8,
)  # fmt: skip

COLORS = {
    "red": ("rot", (220, 30, 30)), "green": ("grün", (30, 170, 40)),
    "blue": ("blau", (30, 50, 220)), "yellow": ("gelb", (230, 220, 40)),
    "white": ("weiß", (245, 245, 245)), "black": ("schwarz", (15, 15, 15)),
}  # fmt: skip
"""English, German, and how it looks."""


def tiny_model(config: MuralConfig = TINY, seed: int = 0) -> DualEncoder:
    torch.manual_seed(seed)
    return DualEncoder(config)


def tiny_saved(seed: int = 0) -> SavedMural:
    model = tiny_model(seed=seed).eval()
    return SavedMural(model, (0.5,) * 3, (0.25,) * 3, ("en", "de"), ("en",), {"images-en": 0.5})


def save_tiny(folder: Path) -> None:
    save_mural(folder, tiny_saved(), "# A tiny dual encoder")


def squares(n: int, seed: int = 0, languages: tuple[str, ...] = ("en",)) -> CaptionSet:
    """Pictures of 32 pixels, left and right half in two colours."""
    rng = np.random.default_rng(seed)
    pairs = list(itertools.permutations(COLORS, 2))
    images = np.empty((n, 32, 32, 3), np.uint8)
    said: dict[str, list[tuple[str, ...]]] = {language: [] for language in languages}
    for k in range(n):
        left, right = pairs[int(rng.integers(len(pairs)))]
        images[k, :, :16], images[k, :, 16:] = COLORS[left][1], COLORS[right][1]
        images[k] = np.clip(images[k] + rng.normal(0, 8, (32, 32, 3)), 0, 255)
        if "en" in said:
            said["en"].append((f"{left} on the left, {right} on the right",))
        if "de" in said:
            said["de"].append((f"{COLORS[left][0]} links, {COLORS[right][0]} rechts",))
    return CaptionSet(
        images, {name: tuple(rows) for name, rows in said.items()}, "Synthetic squares", {}
    )


def translations(n: int, seed: int = 0) -> Bitext:
    """Sentences about colours in English and German."""
    rng = np.random.default_rng(seed)
    names = list(COLORS)
    rows = rng.integers(len(names), size=(n, 2)).tolist()
    first = tuple(f"{names[a]} is left and {names[b]} is right" for a, b in rows)
    second = tuple(
        f"{COLORS[names[a]][0]} ist links und {COLORS[names[b]][0]} ist rechts" for a, b in rows
    )
    return Bitext(("en", "de"), first, second, "Made up")


def tiny_data(bitext: bool = True) -> MuralData:
    return MuralData(
        squares(96, 0), squares(40, 1, ("en", "de")),
        [translations(200)] if bitext else [], [translations(40, 1)] if bitext else [],
    )  # fmt: skip
