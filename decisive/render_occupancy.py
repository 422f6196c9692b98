"""`decisive data render-occupancy`: maps of what is occupied, in which things move."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from decisive import provenance
from decisive.arguments import Flag, check_limits, check_new_folder, parse
from decisive.pictures import GAP, HAIRLINE, MARGIN, Page, Pixels, save_png
from decisive.progress import progress
from decisive.workers import in_order
from learning.atomic import new_folder
from learning.grid_files import write_sequence
from learning.grid_sequence import GridSequence

TICK = 0.1
"""Seconds between two frames."""
CELLS = {"house": 0.1, "tabletop": 0.005}
"""Metres of a cell."""
SPLITS = ("train", "val", "test")
SOURCE = "Synthetic: seen from above, with everything known, by `decisive data render-occupancy`"
_BLOCK = 8
_SHOWN = 4
_WALL, _MOVING, _TRAIL = (120, 126, 134), (190, 70, 20), (240, 196, 160)
Maps = tuple[NDArray[np.bool_], NDArray[np.bool_], float, float]
"""What moves `(T, H, W)`, what stands `(H, W)`, and left and top of the grid in metres."""


@dataclass(frozen=True)
class Arguments:
    """Render sequences of maps in which people walk or blocks are pushed, for forecasts.

    --world house: people and carts walk the shortest ways through procedural houses, cells of
    0.1 m; the map is a square around a place of the house. --world tabletop: the scripted expert of
    decisive/BlockSorting-v0 pushes blocks, cells of 5 mm, the whole table. Ten maps a second.
    Every sequence is one file .npz (docs: learning/grid_files.py) with two channels: occupancy,
    what moves or may be moved; and static, walls and furniture. Splits share no house and no
    episode. Sequence k depends on the options, not on --sequences or --workers. The folder appears
    whole or not at all. Synthetic: everything is known, there is no sensor.

    Examples:
      decisive data render-occupancy --out outputs/occupancy/train --sequences 200 --workers 2
      decisive data render-occupancy --out outputs/occupancy/test --sequences 40 --split test
      decisive data render-occupancy --out outputs/pushes/train --world tabletop --sequences 200
    """

    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write: house-00000.npz and so on, set.json, pictures.png."""
    sequences: int = 100
    """How many."""
    world: Literal["house", "tabletop"] = "house"
    """Where."""
    split: Literal["train", "val", "test"] = "train"
    """Which houses or episodes."""
    frames: int = 60
    """Maps of a sequence, ten a second: 60 are one second to see and five to forecast."""
    size: int = 96
    """Cells of a side of a house's map."""
    seed: int = 0
    """Of everything."""
    workers: int = 1
    """Parallel processes."""
    overwrite: Flag = False
    """Replace a folder of this name."""
    json: Flag = False
    """Print one JSON object."""

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered."""
        check_limits(self, sequences=(1, 100_000), frames=(2, 300), size=(16, 512))
        check_limits(self, seed=(0, 2**31 - 1), workers=(1, 64))


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "data render-occupancy")
    out = check_new_folder(arguments.out, arguments.overwrite)
    told = render(arguments, out)
    if arguments.json:
        print(json.dumps(told, indent=2))
    else:
        print(
            f"{told['sequences']} sequences of {told['frames']} maps in {told['seconds']:.0f} s: "
            f"{out}; {100 * told['occupied_share']:.1f} % of the cells are occupied, "
            f"{100 * told['changed_share']:.1f} % change within a second"
        )
    return 0


def render(arguments: Arguments, out: Path) -> dict[str, Any]:
    """Write the folder; what it holds, as JSON values.

    Raises:
        OSError: if a worker process died or the folder cannot be written.
    """
    began = time.perf_counter()
    starts = range(0, arguments.sequences, _BLOCK)
    blocks = [range(start, min(start + _BLOCK, arguments.sequences)) for start in starts]
    occupied, changed, cells = 0.0, 0.0, 0
    shown: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]] = []
    with new_folder(out) as beside, progress("sequences", arguments.sequences) as meter:
        drawn = in_order(partial(draw_block, arguments), blocks, arguments.workers)
        for block, found in zip(blocks, drawn, strict=True):
            for number, maps in zip(block, found, strict=True):
                sequence = as_sequence(arguments, number, maps)
                write_sequence(beside / f"{arguments.world}-{number:05d}.npz", sequence)
                moving = maps[0]
                later = moving[min(10, len(moving) - 1)]
                occupied += float(moving[0].sum())
                changed += float((moving[0] != later).sum())
                cells += moving[0].size
                shown += [maps[:2]] if len(shown) < _SHOWN else []
                meter.advance()
        save_png(page(shown), beside / "pictures.png")
        told = {
            "generator": "decisive data render-occupancy",
            "source": SOURCE,
            "synthetic": True,
            "world": arguments.world,
            "split": arguments.split,
            "sequences": arguments.sequences,
            "frames": arguments.frames,
            "cell": CELLS[arguments.world],
            "shape": list(shown[0][1].shape),
            "seed": arguments.seed,
            "occupied_share": occupied / cells,
            "changed_share": changed / cells,
            "versions": provenance.versions(),
            "commit": provenance.commit(),
        }
        (beside / "set.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return {**told, "path": str(out), "seconds": round(time.perf_counter() - began, 2)}


def as_sequence(arguments: Arguments, number: int, maps: Maps) -> GridSequence:
    """Maps with their channels, times and place."""
    moving, static, left, top = maps
    frames = np.stack([moving, np.broadcast_to(static, moving.shape)], axis=1)
    return GridSequence(
        frames=frames.astype(np.float32),
        channels=("occupancy", "static"),
        times=np.arange(len(frames), dtype=np.int64),
        cell=CELLS[arguments.world],
        name=f"{arguments.world} {arguments.split} {arguments.seed} {number}",
        origin=(left, top),
        tick=TICK,
    )


def draw_block(arguments: Arguments, numbers: range) -> list[Maps]:
    """Sequences of these numbers."""
    with ExitStack() as stack:
        env: Any = None
        if arguments.world == "tabletop":
            from envs.tabletop.sorting import BlockSortingEnv

            env = BlockSortingEnv()
            stack.callback(env.close)
        return [_draw(arguments, number, env) for number in numbers]


def _draw(arguments: Arguments, number: int, env: Any) -> Maps:
    split = SPLITS.index(arguments.split)
    own = np.random.SeedSequence((arguments.seed, split, number))
    rng = np.random.default_rng(own)
    if env is not None:
        from envs.tabletop.occupancy import table_occupancy, table_raster

        raster = table_raster(CELLS["tabletop"])
        moving, static = table_occupancy(env, arguments.frames, raster, int(rng.integers(2**27)))
        return moving, static, raster.left, raster.top
    from envs.indoor.house import generate_house
    from envs.indoor.walkers import house_occupancy
    from envs.rasters import Raster

    house = generate_house(int(rng.integers(2**31)), arguments.split)
    middle = house.graph.positions[int(rng.integers(len(house.graph))), :2]
    cell, size = CELLS["house"], arguments.size
    left, top = middle[0] - size * cell / 2, middle[1] + size * cell / 2
    raster = Raster(float(left), float(top), cell, size, size)
    moving, static = house_occupancy(house, arguments.frames, TICK, raster, rng)
    return moving, static, raster.left, raster.top


def page(shown: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> Pixels:
    """The first map of some sequences, with where things move in the two seconds after it."""
    tiles = [_tile(moving, static) for moving, static in shown]
    height, width = tiles[0].shape[:2]
    sheet = Page(2 * MARGIN + len(tiles) * (width + GAP) - GAP, 2 * MARGIN + height + 22)
    for k, tile in enumerate(tiles):
        x = MARGIN + k * (width + GAP)
        sheet.paste(tile, x, MARGIN)
        frame = (x - 1, MARGIN - 1, x + width, MARGIN + height)
        sheet.draw.rectangle(frame, outline=HAIRLINE)
    words = "dark red: occupied now; light: within the next two seconds; grey: static"
    sheet.write(MARGIN, MARGIN + height + 16, words, 12)
    return sheet.pixels()


def _tile(moving: NDArray[np.bool_], static: NDArray[np.bool_]) -> Pixels:
    image = np.full((*static.shape, 3), 255, np.uint8)
    image[moving[:20].any(axis=0)] = _TRAIL
    image[static] = _WALL
    image[moving[0]] = _MOVING
    scale = max(1, round(320 / image.shape[0]))
    return image.repeat(scale, 0).repeat(scale, 1)
