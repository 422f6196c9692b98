"""`decisive data render-inspection`: pictures of sound and defective parts on a conveyor belt."""

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
from PIL import Image

from decisive import provenance
from decisive.arguments import Flag, check_limits, check_new_folder, parse
from decisive.pictures import GAP, INK, MARGIN, Page, Pixels, clipped, save_png
from decisive.render_tabletop import BLOCK
from decisive.triage_set import (
    FRAMES,
    Chunk,
    InspectionSet,
    open_inspection_set,
    write_inspection_set,
)
from decisive.workers import in_blocks
from envs.tabletop.inspection import (
    CONDITIONS,
    SOURCE,
    TASKS,
    InspectionConfig,
    InspectionScenes,
    Split,
)

_TILE = 160
_COLUMNS = 8
_OUTLINE = (204, 121, 167)


@dataclass(frozen=True)
class Arguments:
    r"""Render pictures of parts on a conveyor belt: half are sound, half have a defect.

    Defects are changes of the parts' meshes, or things on them. --split train and tune have four
    kinds (chip, missing hole or pin, stain, foreign thing), test has four more that no training
    sees (scratch, bent, wrong size, wrong part). Beside the labels lies where each defect is seen.
    Splits share no scene, no colour and no foreign thing. Picture k depends on --size, --split,
    --seed, --abnormal and --pairs alone, not on --frames or --workers. The folder appears whole or
    not at all.

    Examples:
      decisive data render-inspection --out outputs/inspection/train --frames 3000 --pairs
      decisive data render-inspection --out outputs/inspection/test --split test --frames 200 \
        --png --pictures 32
      decisive triage outputs/inspection/test/frames --out review
    """

    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write: images.npy, labels.npy, conditions.npy, defects.npy and set.json."""
    frames: int = 1000
    """How many pictures."""
    size: int = 128
    """Pixels of a side, 64 to 512."""
    split: Split = "train"
    """Which scenes: train, tune or test."""
    seed: int = 0
    """Seed of all pictures."""
    abnormal: float = 0.5
    """Share of defective parts."""
    pairs: Flag = False
    """Show each layout twice, without its defect and with it."""
    png: Flag = False
    """Write each picture as a file too: frames/CONDITION/NUMBER.png."""
    pictures: int = 0
    """Show the first so many, the defects outlined, in pictures.png of the folder."""
    workers: int = 1
    """Parallel processes."""
    overwrite: Flag = False
    """Replace a folder of this name."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered."""
        check_limits(self, frames=(1, None), workers=(1, None), pictures=(0, 400))
        self.config()

    def config(self) -> InspectionConfig:
        """The scenes."""
        return InspectionConfig(self.size, self.split, self.seed, self.abnormal, self.pairs)


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "data render-inspection")
    out = check_new_folder(arguments.out, arguments.overwrite)
    began = time.perf_counter()
    render(arguments.config(), out, arguments.frames, arguments.workers, arguments.png)
    written = open_inspection_set(out)
    if arguments.pictures:
        save_png(sheet(written, arguments.pictures), out / "pictures.png")
    told = _told(arguments, written, time.perf_counter() - began)
    if arguments.json:
        print(json.dumps(told, indent=2))
        return 0
    print(
        f"{arguments.frames} pictures of {arguments.size} pixels in {told['seconds']:.0f} s: {out}"
    )
    print(", ".join(f"{name} {count}" for name, count in told["counts"].items()))
    for place in (told["frames_folder"], told["pictures"]):
        if place is not None:
            print(place)
    return 0


def render(
    config: InspectionConfig, out: Path, n: int, workers: int = 1, png: bool = False
) -> None:
    """Write the first n pictures of some scenes.

    Raises:
        OSError: if a worker process died or the folder cannot be written.
    """
    facts = provenance.generated("decisive data render-inspection", config)
    write_inspection_set(
        out, chunks(config, n, workers), n, config.size, TASKS, CONDITIONS, SOURCE, facts, png
    )


def chunks(config: InspectionConfig, n: int, workers: int) -> Iterator[Chunk]:
    """Pictures 0 to n - 1, in order, a block at a time; they do not depend on `workers`.

    Raises:
        OSError: if a worker process died.
    """
    draw = partial(draw_block, config)
    return in_blocks(draw, n, BLOCK, workers, f"{config.split} pictures")


def draw_block(config: InspectionConfig, numbers: range) -> Chunk:
    """Pictures of these numbers."""
    with InspectionScenes(config) as scenes:
        drawn = [scenes.draw(k) for k in numbers]
    return (
        np.stack([one.image for one in drawn]),
        np.stack([one.labels() for one in drawn]),
        np.array([CONDITIONS.index(one.condition) for one in drawn], np.int64),
        np.stack([one.mask for one in drawn]),
    )


def sheet(pictures: InspectionSet, n: int) -> Pixels:
    """The first pictures in rows, their defects outlined, the condition below."""
    n = min(n, len(pictures))
    size = pictures.defects.shape[1]
    side = size * max(1, round(_TILE / size))
    columns = min(_COLUMNS, n)
    rows = -(-n // columns)
    page = Page(2 * MARGIN + columns * (side + GAP) - GAP, 2 * MARGIN + rows * (side + 26) - GAP)
    for number, name in enumerate(pictures.folders[:n].tolist()):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * (side + GAP), MARGIN + row * (side + 26)
        page.paste(outlined(pictures.images.images[number], pictures.defects[number], side), x, y)
        page.write(x, y + side + 15, clipped(name.replace("_", " "), side, 12), 12, INK)
    return page.pixels()


def outlined(image: Pixels, mask: Any, side: int) -> Pixels:
    """A picture enlarged to `side` pixels, with a line around a mask, outside of it.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool.
        side: pixels; a multiple of H and W keeps pixels whole.
    """
    large = np.array(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))
    grown = np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST))
    wide = np.pad(grown, 2)
    near = np.zeros_like(grown)
    for dy in range(5):
        for dx in range(5):
            near |= wide[dy : dy + side, dx : dx + side]
    large[near & ~grown] = _OUTLINE
    return large


def _told(arguments: Arguments, written: InspectionSet, seconds: float) -> dict[str, Any]:
    """What was written, as JSON."""
    counts = np.bincount(written.conditions, minlength=len(written.names)).tolist()
    out = Path(arguments.out)
    return {
        "path": str(out),
        "frames": arguments.frames,
        **asdict(arguments.config()),
        "counts": dict(zip(written.names, counts, strict=True)),
        "seconds": round(seconds, 2),
        "frames_folder": str(out / FRAMES) if arguments.png else None,
        "pictures": str(out / "pictures.png") if arguments.pictures else None,
        "source": written.images.source,
    }
