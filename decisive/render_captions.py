"""`decisive data render-captions`: pictures of houses and tables with captions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from decisive import provenance
from decisive.arguments import Flag, check_limits, check_new_folder, parse
from decisive.pictures import GAP, MARGIN, Page, Pixels, clipped, save_png
from decisive.workers import in_blocks
from envs.captions.house_views import Drawn, draw_house_view
from envs.captions.sentences import captions
from envs.captions.table_views import TableViews
from envs.captions.words import LANGUAGES
from envs.tabletop.clutter_bodies import Split
from learning.caption_set import CaptionSet, Chunk, open_caption_set, write_caption_set

BLOCK = 32
"""Pictures that a worker draws at a time: whole houses of four views."""
SOURCE = (
    "Synthetic: the project's own procedural houses and tabletop scenes (meshes of pybullet_data, "
    "zlib licence), captioned by templates from what the renderer shows"
)
_HOUSE_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_TILE = 192
_COLUMNS = 6


@dataclass(frozen=True)
class Arguments:
    """Render pictures of houses and tables with captions from what is really seen.

    Half of the pictures are views into procedural houses, half are tables with things on them. A
    caption tells the place and up to three things that are the only ones of their name in sight,
    with the colour that most of their pixels have. English captions come in four phrasings, with
    and without sides; the test split also has the same in German, French, Czech and Chinese, by
    templates. All of it is synthetic. Splits share no house, shape or paint. Picture k depends on
    --size, --split and --seed alone. The folder appears whole or not at all.

    Examples:
      decisive data render-captions --out outputs/captions/train --images 4000
      decisive data render-captions --out outputs/captions/test --images 1000 --split test \
        --pictures 12
    """

    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write: images.npy, captions.json and set.json."""
    images: int = 4000
    """How many pictures."""
    size: int = 64
    """Pixels of a side, 64 to 512."""
    split: Split = "train"
    """Which scenes; test has captions in five languages."""
    seed: int = 0
    """Seed of all pictures."""
    pictures: int = 0
    """Show the first so many with their captions in pictures.png of the folder."""
    workers: int = 1
    """Parallel processes."""
    overwrite: Flag = False
    """Replace a folder of this name."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered."""
        check_limits(self, images=(1, None), workers=(1, None), pictures=(0, 100))
        check_limits(self, size=(64, 512), seed=(0, 999))


@dataclass(frozen=True)
class Scenes:
    """Which pictures; those of a split and a seed are always the same.

    Attributes:
        size: pixels of a side.
        split: train, validation or test.
        seed: of all pictures.
    """

    size: int = 64
    split: Split = "train"
    seed: int = 0

    @property
    def languages(self) -> tuple[str, ...]:
        """Of the captions."""
        return LANGUAGES if self.split == "test" else LANGUAGES[:1]


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "data render-captions")
    out = check_new_folder(arguments.out, arguments.overwrite)
    began = time.perf_counter()
    scenes = Scenes(arguments.size, arguments.split, arguments.seed)
    written = render(scenes, arguments.images, out, arguments.workers)
    if arguments.pictures:
        shown = min(arguments.pictures, arguments.images)
        save_png(page(written, shown), out / "pictures.png")
    told: dict[str, Any] = {
        "path": str(out), "images": len(written), **asdict(scenes),
        "languages": list(scenes.languages),
        "seconds": round(time.perf_counter() - began, 2),
        "pictures": str(out / "pictures.png") if arguments.pictures else None,
        "source": written.source,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(told, indent=2))
        return 0
    languages = ", ".join(scenes.languages)
    print(f"{len(written)} pictures with captions ({languages}) in {told['seconds']:.0f} s: {out}")
    print(f"for example: {written.captions['en'][0][0]}")
    return 0


def render(scenes: Scenes, n: int, out: Path, workers: int = 1) -> CaptionSet:
    """Write n pictures with captions, and open them.

    Raises:
        OSError: if a worker process died or the folder cannot be written.
    """
    facts = provenance.generated("decisive data render-captions", scenes)
    size = (scenes.size, scenes.size)
    write_caption_set(out, chunks(scenes, n, workers), n, size, scenes.languages, SOURCE, facts)
    return open_caption_set(out)


def chunks(scenes: Scenes, n: int, workers: int) -> Iterator[Chunk]:
    """Pictures 0 to n - 1 and their captions, in order, a block at a time."""
    draw = partial(draw_block, scenes)
    return in_blocks(draw, n, BLOCK, workers, f"{scenes.split} pictures")


def draw_block(scenes: Scenes, numbers: range) -> Chunk:
    """Pictures of these numbers with captions: in turn four of a house and four of a table."""
    table = TableViews(scenes.split, scenes.seed, scenes.size)
    try:
        drawn = [_draw(scenes, table, k) for k in numbers]
    finally:
        table.close()
    images = np.stack([one.image for one in drawn])
    return images, {
        language: [_said(one, language) for one in drawn] for language in scenes.languages
    }


def _said(drawn: Drawn, language: str) -> tuple[str, ...]:
    return tuple(text for sides in (False, True) for text in captions(drawn.facts, language, sides))


def _draw(scenes: Scenes, table: TableViews, k: int) -> Drawn:
    group, place = divmod(k, 8)
    if place < 4:
        split = _HOUSE_SPLITS[scenes.split]
        return draw_house_view(4 * group + place, split, scenes.seed, scenes.size)
    # Where nothing can be told, the next table of the same number: few need a second.
    number = (4 * group + place - 4) * 100
    found = next(filter(None, map(table.draw, range(number, number + 100))), None)
    if found is None:
        raise RuntimeError(f"tables {number} to {number + 99} show nothing that can be told")
    return found


def page(data: CaptionSet, n: int) -> Pixels:
    """The first n pictures in rows, each with a caption in every language.

    Chinese is left to `captions.json`: the type that comes with matplotlib has no letters for it.
    """
    languages = [language for language in data.captions if language != "zh"]
    tall = _TILE + 16 * (len(languages) + 1)
    rows = -(-n // _COLUMNS)
    sheet = Page(2 * MARGIN + _COLUMNS * (_TILE + GAP), 2 * MARGIN + rows * (tall + GAP))
    for k in range(n):
        row, column = divmod(k, _COLUMNS)
        x, y = MARGIN + column * (_TILE + GAP), MARGIN + row * (tall + GAP)
        scale = max(1, _TILE // data.images.shape[1])
        sheet.paste(np.asarray(data.images[k]).repeat(scale, 0).repeat(scale, 1), x, y)
        for line, language in enumerate(languages):
            text = clipped(data.captions[language][k][0], _TILE, 10)
            sheet.write(x, y + _TILE + 14 + 16 * line, text, 10)
    return sheet.pixels()
