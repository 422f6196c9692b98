"""`decisive data render-tasks`: pictures of a table with the targets of five perception tasks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from decisive import provenance
from decisive.arguments import Flag, check_limits, check_new_folder, parse
from decisive.pictures import GAP, INK, MARGIN, Page, Pixels, save_png
from decisive.render_tabletop import BLOCK
from decisive.task_tiles import tile
from decisive.workers import in_blocks
from envs.tabletop.clutter_bodies import SOURCE, Split
from envs.tabletop.task_pictures import CLASSES, TaskPictureConfig, TaskScenes

if TYPE_CHECKING:
    from perception.multi_task_set import TaskSet

_TILE = 128
Chunk = tuple[NDArray[np.uint8], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Arguments:
    r"""Render pictures of a table with the targets of five perception tasks (synthetic).

    segmentation: what each pixel shows. depth: metres along the optical axis. normals: which way
    the surface faces. edges: where a thing ends. count: how many things are seen. Splits share no
    scene and no colour, but for those that meshes have of their own. Picture k depends on --size,
    --split and --seed alone, not on --frames or --workers. The folder appears whole or not at all.

    Examples:
      decisive data render-tasks --out outputs/tasks/train --frames 2000 --workers 2
      decisive data render-tasks --out outputs/tasks/test --split test --frames 500 --pictures 6
      decisive group-tasks --data outputs/tasks/train --held-out outputs/tasks/test --groups 2
    """

    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write: images.npy, one .npy a task, and set.json."""
    frames: int = 1000
    """How many pictures."""
    size: int = 64
    """Pixels of a side, 64 to 512."""
    split: Split = "train"
    """Which scenes."""
    seed: int = 0
    """Seed of all pictures."""
    pictures: int = 0
    """Show the first so many with their targets in pictures.png of the folder."""
    workers: int = 1
    """Parallel processes."""
    overwrite: Flag = False
    """Replace a folder of this name."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered."""
        check_limits(self, frames=(1, None), workers=(1, None), pictures=(0, 100))
        self.config()

    def config(self) -> TaskPictureConfig:
        """The scenes."""
        return TaskPictureConfig(self.size, self.split, self.seed)


def main(argv: Sequence[str]) -> int:
    """Run the verb with the words after `render-tasks`."""
    arguments = parse(Arguments, argv, "data render-tasks")
    out = check_new_folder(arguments.out, arguments.overwrite)
    began = time.perf_counter()
    written = render(arguments, out)
    pictures = out / "pictures.png" if arguments.pictures else None
    counts = np.asarray(written.arrays["count"])
    told = {
        "path": str(out),
        "frames": arguments.frames,
        **asdict(arguments.config()),
        "tasks": list(written.targets),
        "mean_count": round(float(counts.mean()), 3),
        "seconds": round(time.perf_counter() - began, 2),
        "pictures": None if pictures is None else str(pictures),
        "source": written.source,
    }
    if arguments.json:
        print(json.dumps(told, indent=2))
        return 0
    print(
        f"{arguments.frames} pictures of {arguments.size} pixels, {told['mean_count']:.1f} things "
        f"in each, targets of {', '.join(told['tasks'])} in {told['seconds']:.0f} s: {out}"
    )
    if pictures is not None:
        print(pictures)
    return 0


def render(arguments: Arguments, out: Path) -> TaskSet:
    """Write the set, and the page if one is asked for.

    Raises:
        OSError: if a worker process died or the folder cannot be written.
    """
    from perception.multi_task_set import Target, open_task_set, write_task_set

    config = arguments.config()
    facts = provenance.generated("decisive data render-tasks", config)
    targets = {
        "segmentation": Target("classes", CLASSES),
        "depth": Target("values", unit="metres"),
        "normals": Target("directions"),
        "edges": Target("mask"),
        "count": Target("numbers", ("things",)),
    }
    drawn = chunks(config, arguments.frames, arguments.workers)
    size = (config.size, config.size)
    write_task_set(out, drawn, arguments.frames, size, targets, SOURCE, facts)
    written = open_task_set(out)
    if arguments.pictures:
        save_png(page(written, min(arguments.pictures, arguments.frames)), out / "pictures.png")
    return written


def chunks(config: TaskPictureConfig, n: int, workers: int) -> Iterator[Chunk]:
    """Pictures 0 to n - 1 with their targets, in order, a block at a time.

    Args:
        config: the scenes.
        n: how many.
        workers: processes; what comes out does not depend on it.

    Raises:
        OSError: if a worker process died.
    """
    draw = partial(draw_block, config)
    return in_blocks(draw, n, BLOCK, workers, f"{config.split} pictures")


def draw_block(config: TaskPictureConfig, numbers: range) -> Chunk:
    """Pictures of these numbers, `(n, H, W, 3)`, and their targets by task."""
    with TaskScenes(config) as artist:
        drawn = [artist.draw(k) for k in numbers]
    targets: dict[str, NDArray[Any]] = {
        "segmentation": np.stack([one.segmentation for one in drawn]),
        "depth": np.stack([one.depth for one in drawn]),
        "normals": np.stack([one.normals for one in drawn]).astype(np.float16),
        "edges": np.stack([one.edges for one in drawn]),
        "count": np.array([[one.count] for one in drawn], np.float32),
    }
    return np.stack([one.image for one in drawn]), targets


def page(data: TaskSet, n: int) -> Pixels:
    """The first pictures, one a row, each with its targets beside it."""
    titles = ("picture", "segmentation", "depth", "normals", "edges")
    step = _TILE + GAP
    sheet = Page(2 * MARGIN + len(titles) * step - GAP, 2 * MARGIN + 20 + n * (step + 12))
    for column, title in enumerate(titles):
        sheet.write(MARGIN + column * step, MARGIN + 12, title, 13)
    for k in range(n):
        y = MARGIN + 20 + k * (step + 12)
        for column, shown in enumerate(_tiles(data, k)):
            sheet.paste(_enlarged(shown), MARGIN + column * step, y)
        count = int(data.arrays["count"][k, 0])
        sheet.write(MARGIN, y + _TILE + 14, f"{k}: {count} thing{'s'[: count != 1]}", 12, INK)
    return sheet.pixels()


def _tiles(data: TaskSet, k: int) -> list[NDArray[np.uint8]]:
    maps = [(target, data.arrays[task][k]) for task, target in data.targets.items()]
    shown = [tile(target.kind, np.asarray(one)) for target, one in maps if target.dense]
    return [np.asarray(data.images[k]), *shown]


def _enlarged(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """About `_TILE` pixels a side: whole multiples where it is smaller, every n-th pixel else."""
    scale, step = max(1, _TILE // len(tile)), max(1, len(tile) // _TILE)
    return tile.repeat(scale, 0).repeat(scale, 1)[::step, ::step][:_TILE, :_TILE]
