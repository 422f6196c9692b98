"""`decisive data render-instances`: pictures of a table with a mask for everything on it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from decisive import provenance
from decisive.arguments import Flag, check_limits, check_new_folder, parse
from decisive.pictures import GAP, INK, MARGIN, PAPER, Page, Pixels, clipped, font, save_png
from decisive.render_tabletop import BLOCK
from decisive.workers import in_blocks
from envs.tabletop import insertion_views, instances
from envs.tabletop.clutter_bodies import Split
from envs.tabletop.insertion_views import InsertionConfig, InsertionViews
from envs.tabletop.instances import InstanceConfig, InstanceScenes
from learning.instance_set import Chunk, Scene, open_instance_set, write_instance_set

_TILE = 320
_COLUMNS = 4
_TINT = 0.4
_COLORS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""The palette of Okabe and Ito, which colour-blind people can tell apart."""
Config = InstanceConfig | InsertionConfig


@dataclass(frozen=True)
class Arguments:
    """Render pictures of a table with a mask, a box and a class for everything on it.

    --scenes clutter: two to eight things on a painted table, which hide each other in part.
    --scenes insertion: block, slot and effector of decisive/BlockInsertion-v0 from the camera of
    its pixel policies, or with --camera robot from the one that measures (4:3, --size columns).
    Splits share no scene, no unnamed shape and no colour, but for the colours that meshes and the
    environment have of their own. Picture k depends on the options that say what is shown, not on
    --frames or --workers. The folder appears whole or not at all.

    Examples:
      decisive data render-instances --out outputs/instances/train --frames 4000 --workers 2
      decisive data render-instances --out outputs/instances/test --split test --frames 500 \
        --size 320 --pictures 16
      decisive data render-instances --out outputs/insertion/train --scenes insertion --size 320 \
        --frames 2000
    """

    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write: images.npy, ids.npy, first.npy, classes.npy and set.json."""
    frames: int = 1000
    """How many pictures."""
    size: int = 128
    """Pixels of a side, 64 to 512."""
    split: Split = "train"
    """Which scenes."""
    seed: int = 0
    """Seed of all pictures."""
    scenes: Literal["clutter", "insertion"] = "clutter"
    """What is rendered."""
    arm: Literal["cylinder", "xarm6"] = "cylinder"
    """Of insertion scenes: the bare cylinder, or the arm that carries it."""
    camera: Literal["policy", "robot"] = "policy"
    """Of insertion scenes."""
    pictures: int = 0
    """Show the first so many with their masks in pictures.png of the folder."""
    workers: int = 1
    """Parallel processes."""
    overwrite: Flag = False
    """Replace a folder of this name."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered."""
        check_limits(self, frames=(1, None), workers=(1, None), pictures=(0, 100))
        if self.scenes == "clutter" and (self.arm, self.camera) != ("cylinder", "policy"):
            raise ValueError("--arm and --camera are of --scenes insertion")
        self.config()

    def config(self) -> Config:
        """The scenes."""
        if self.scenes == "clutter":
            return InstanceConfig(self.size, self.split, self.seed)
        return InsertionConfig(self.size, self.split, self.seed, self.arm, self.camera)


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "data render-instances")
    out = check_new_folder(arguments.out, arguments.overwrite)
    began = time.perf_counter()
    render(arguments, out)
    told = _told(arguments, out, time.perf_counter() - began)
    if arguments.json:
        print(json.dumps(told, indent=2))
        return 0
    print(
        f"{arguments.frames} pictures of {arguments.size} pixels with {told['instances']} "
        f"instances in {told['seconds']:.0f} s: {out}"
    )
    print(", ".join(f"{name} {count}" for name, count in told["counts"].items()))
    if told["pictures"] is not None:
        print(told["pictures"])
    return 0


def render(arguments: Arguments, out: Path) -> None:
    """Write the set of instances, and the page if one is asked for.

    Raises:
        OSError: if a worker process died or the folder cannot be written.
    """
    config = arguments.config()
    module = instances if isinstance(config, InstanceConfig) else insertion_views
    facts = provenance.generated("decisive data render-instances", config)
    write_instance_set(
        out,
        chunks(config, arguments.frames, arguments.workers),
        n=arguments.frames,
        size=_shape(config),
        classes=module.CLASSES,
        source=module.SOURCE,
        facts={**facts, "scenes": arguments.scenes},
    )
    if arguments.pictures:
        written = open_instance_set(out)
        shown = range(min(arguments.pictures, arguments.frames))
        save_png(page([written[k] for k in shown], written.classes), out / "pictures.png")


def _shape(config: Config) -> tuple[int, int]:
    return config.shape if isinstance(config, InsertionConfig) else (config.size, config.size)


def chunks(config: Config, n: int, workers: int) -> Iterator[Chunk]:
    """Pictures 0 to n - 1 with ids and classes, in order, a block at a time.

    Args:
        config: the scenes.
        n: how many.
        workers: processes; what comes out does not depend on it.

    Raises:
        OSError: if a worker process died.
    """
    draw = partial(draw_block, config)
    return in_blocks(draw, n, BLOCK, workers, f"{config.split} pictures")


def draw_block(config: Config, numbers: range) -> Chunk:
    """Pictures of these numbers, `(n, H, W, 3)`, their ids and their classes."""
    artist: InstanceScenes | InsertionViews = (
        InstanceScenes(config) if isinstance(config, InstanceConfig) else InsertionViews(config)
    )
    with artist:
        drawn = [artist.draw(k) for k in numbers]
    return (
        np.stack([one.image for one in drawn]),
        np.stack([one.ids for one in drawn]),
        [one.classes for one in drawn],
    )


def page(scenes: Sequence[Scene], classes: Sequence[str]) -> Pixels:
    """Pictures in rows, with outline, tint and name of every instance.

    Args:
        scenes: of one size.
        classes: names.
    """
    tiles = [overlay(scene, classes) for scene in scenes]
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].shape[:2]
    below = 18 + GAP
    sheet = Page(
        2 * MARGIN + columns * (width + GAP) - GAP, 2 * MARGIN + rows * (height + below) - GAP
    )
    for number, (scene, tile) in enumerate(zip(scenes, tiles, strict=True)):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * (width + GAP), MARGIN + row * (height + below)
        sheet.paste(tile, x, y)
        names = [classes[int(kind)] for kind in scene.classes]
        sheet.write(x, y + height + 15, clipped(f"{number}: {', '.join(names)}", width, 12), 12)
    return sheet.pixels()


def overlay(scene: Scene, classes: Sequence[str], side: int = _TILE) -> Pixels:
    """A picture with its instances drawn over it, enlarged by a whole number.

    Args:
        scene: what is drawn.
        classes: names.
        side: about how many pixels the result is high.

    Returns:
        `(H, W, 3)` uint8. Outlines lie within the instances, one pixel wide.
    """
    # Whole multiples, so that a pixel stays a pixel.
    scale = max(1, round(side / scene.image.shape[0]))
    image = _enlarged(scene.image, scale).astype(np.float32)
    for number, mask in enumerate(_enlarged(one, scale) for one in scene.masks):
        color = np.array(_COLORS[number % len(_COLORS)], np.float32)
        image[mask] = (1 - _TINT) * image[mask] + _TINT * color
        image[mask & ~_inner(mask)] = color
    sheet = Page(image.shape[1], image.shape[0])
    sheet.paste(np.rint(image).astype(np.uint8), 0, 0)
    height, width = image.shape[:2]
    for box, kind in zip((scene.boxes * scale).tolist(), scene.classes, strict=True):
        name, face = classes[int(kind)], font(11)
        place = _name_place(box, face.getlength(name), width)
        sheet.draw.text(
            place, name, fill=PAPER, font=face, anchor="mm", stroke_width=2, stroke_fill=INK
        )
    return sheet.pixels()[:height, :width]


def _name_place(box: Sequence[float], length: float, width: int) -> tuple[float, float]:
    """Middle of a name: in the box if there is room, else above it, or below at the upper edge."""
    x1, y1, x2, y2 = box
    x = min(max((x1 + x2) / 2, length / 2 + 2), width - length / 2 - 2)
    if x2 - x1 > length and y2 - y1 > 36:
        return x, (y1 + y2) / 2
    return x, y1 - 8 if y1 > 20 else y2 + 8


def _enlarged(pixels: NDArray[Any], scale: int) -> NDArray[Any]:
    return pixels.repeat(scale, 0).repeat(scale, 1)


def _inner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose four neighbours all belong to the mask; beyond the picture all do."""
    wide = np.pad(mask, 1, mode="edge")
    return wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]


def _told(arguments: Arguments, out: Path, seconds: float) -> dict[str, Any]:
    """What was written, as JSON."""
    written = open_instance_set(out)
    counts = dict(zip(written.classes, written.n_instances.tolist(), strict=True))
    return {
        "path": str(out),
        "frames": arguments.frames,
        "scenes": arguments.scenes,
        **asdict(arguments.config()),
        "instances": sum(counts.values()),
        "counts": counts,
        "seconds": round(seconds, 2),
        "pictures": str(out / "pictures.png") if arguments.pictures else None,
        "source": written.source,
    }
