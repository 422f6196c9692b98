"""`decisive data render-tabletop`: labelled pictures and clips of a table, for classifiers."""

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
from numpy.typing import NDArray
from PIL import Image

from decisive import provenance
from decisive.arguments import Flag, check_limits, check_new_folder, parse
from decisive.pictures import GAP, INK, MARGIN, MUTED, Page, Pixels, clipped, save_png
from decisive.workers import in_blocks
from envs.tabletop import clutter, clutter_clips
from envs.tabletop.clutter import NO_LABEL, ClutterConfig, ClutterScenes
from envs.tabletop.clutter_bodies import Split
from envs.tabletop.clutter_clips import N_FRAMES, ClutterClips
from learning.image_set import open_image_set, write_image_set

BLOCK = 16
"""Pictures that a worker draws at a time."""
_TILE = 144
_COLUMNS = 8
_UNASKED = "not asked"
Chunk = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class Arguments:
    """Render labelled pictures of a table, or clips of a moving block.

    Pictures have three tasks: which object is on the table, whether the block is inserted in its
    slot, which zone is full. With --clips there is one, motion: what moves how, which no single
    frame tells. Splits share no scene, distractor or colour. Picture k depends on --size, --split
    and --seed alone, not on --frames or --workers. The folder appears whole or not at all.

    Examples:
      decisive data render-tabletop --out outputs/tabletop/train --frames 20000 --workers 2
      decisive data render-tabletop --out outputs/tabletop/test --split test --frames 2000 \
        --pictures 32
      decisive data render-tabletop --out outputs/clips/train --clips --size 64 --frames 4000
    """

    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write: images.npy, labels.npy and set.json."""
    frames: int = 1000
    """How many pictures, or with --clips how many clips."""
    size: int = 96
    """Pixels of a side."""
    split: Split = "train"
    """Which scenes."""
    seed: int = 0
    """Seed of all pictures."""
    clips: Flag = False
    """Clips of 8 frames instead of pictures."""
    pictures: int = 0
    """Show the first so many with their labels in pictures.png of the folder."""
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

    def config(self) -> ClutterConfig:
        """The scenes."""
        return ClutterConfig(size=self.size, split=self.split, seed=self.seed)


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "data render-tabletop")
    out = check_new_folder(arguments.out, arguments.overwrite)
    began = time.perf_counter()
    render(arguments, out)
    seconds = time.perf_counter() - began
    told = _told(arguments, out, seconds)
    if arguments.json:
        print(json.dumps(told, indent=2))
        return 0
    things = "clips" if arguments.clips else "pictures"
    print(f"{arguments.frames} {things} of {arguments.size} pixels in {seconds:.0f} s: {out}")
    for task, counts in told["counts"].items():
        print(f"{task}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    if told["pictures"] is not None:
        print(told["pictures"])
    return 0


def render(arguments: Arguments, out: Path) -> None:
    """Write the set of images, and the sheet if one is asked for.

    Raises:
        OSError: if a worker process died or the folder cannot be written.
    """
    config, clips = arguments.config(), arguments.clips
    shape: tuple[int, ...] = (config.size, config.size, 3)
    facts = provenance.generated("decisive data render-tabletop", config)
    write_image_set(
        out,
        chunks(config, arguments.frames, clips, arguments.workers),
        n=arguments.frames,
        size=(N_FRAMES, *shape) if clips else shape,
        tasks=clutter_clips.TASKS if clips else clutter.TASKS,
        source=clutter_clips.SOURCE if clips else clutter.SOURCE,
        facts={**facts, "clips": clips},
    )
    if arguments.pictures:
        written = open_image_set(out)
        n = min(arguments.pictures, arguments.frames)
        page = sheet(written.images[:n], written.labels[:n], written.tasks)
        save_png(page, out / "pictures.png")


def chunks(config: ClutterConfig, n: int, clips: bool, workers: int) -> Iterator[Chunk]:
    """Images and labels 0 to n - 1, in order, a block at a time.

    Args:
        config: the scenes.
        n: how many.
        clips: clips instead of pictures.
        workers: processes; what comes out does not depend on it.

    Raises:
        OSError: if a worker process died.
    """
    draw = partial(draw_block, config, clips=clips)
    return in_blocks(draw, n, BLOCK, workers, f"{config.split} {'clips' if clips else 'pictures'}")


def draw_block(config: ClutterConfig, numbers: range, clips: bool) -> Chunk:
    """Pictures or clips of these numbers, `(n, ...)` uint8 and `(n, tasks)` int64."""
    artist: ClutterClips | ClutterScenes = ClutterClips(config) if clips else ClutterScenes(config)
    with artist:
        drawn = [artist.draw(k) for k in numbers]
    return np.stack([image for image, _ in drawn]), np.stack([labels for _, labels in drawn])


def sheet(images: NDArray[np.uint8], labels: NDArray[np.int64], tasks: Any) -> Pixels:
    """Pictures in rows with their labels below; clips one a row.

    Args:
        images: `(n, H, W, 3)` or `(n, T, H, W, 3)`.
        labels: `(n, tasks)`.
        tasks: names of the tasks and of their classes.
    """
    columns = 1 if images.ndim == 5 else min(_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    tiles = [_tile(image) for image in images]
    height, width = tiles[0].shape[:2]
    below = 18 + 15 * len(tasks)
    page = Page(
        2 * MARGIN + columns * (width + GAP) - GAP, 2 * MARGIN + rows * (height + below) - GAP
    )
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * (width + GAP), MARGIN + row * (height + below)
        page.paste(tile, x, y)
        lines = _words(labels[number], tasks)
        for line, text in enumerate(lines):
            color = MUTED if text.endswith(f" {_UNASKED}") else INK
            page.write(x, y + height + 15 * (line + 1), clipped(text, width, 12), 12, color)
    return page.pixels()


def _tile(image: NDArray[np.uint8]) -> Pixels:
    """A picture at the size of the sheet; the frames of a clip in a row."""
    frames = image if image.ndim == 4 else image[None]
    # Whole multiples where possible, so that a pixel stays a pixel.
    height = max(1, round(_TILE / frames.shape[1])) * frames.shape[1]
    size = (round(height * frames.shape[2] / frames.shape[1]), height)
    scaled = [
        np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.NEAREST))
        for frame in frames
    ]
    return np.concatenate(scaled, axis=1)


def _words(labels: NDArray[np.int64], tasks: Any) -> list[str]:
    return [
        f"{task}: {_UNASKED if label == NO_LABEL else classes[label]}"
        for (task, classes), label in zip(tasks.items(), labels.tolist(), strict=True)
    ]


def _told(arguments: Arguments, out: Path, seconds: float) -> dict[str, Any]:
    """What was written, as JSON."""
    written = open_image_set(out)
    counts = {}
    for column, (task, classes) in enumerate(written.tasks.items()):
        values = np.asarray(written.labels[:, column])
        counts[task] = {name: int((values == i).sum()) for i, name in enumerate(classes)}
        counts[task]["no label"] = int((values == NO_LABEL).sum())
    return {
        "path": str(out),
        "frames": arguments.frames,
        "clips": arguments.clips,
        **asdict(arguments.config()),
        "counts": counts,
        "seconds": round(seconds, 2),
        "pictures": str(out / "pictures.png") if arguments.pictures else None,
        "source": written.source,
    }
