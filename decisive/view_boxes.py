"""`decisive view --boxes`: the instances in an image and their masks, or those of given boxes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from decisive.arguments import Flag, OptionalFile, check_writable, parse
from decisive.pictures import Pixels, save_png
from decisive.segment_pictures import Shown, segment_page
from decisive.video import VideoWriter
from decisive.view_tokens import FILM_ENDS, read_film, read_image

if TYPE_CHECKING:
    from perception.deep_mac.checkpoint import SavedSegmenter

_FPS = 10.0
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Arguments:
    r"""Show the things that a segmenter finds in an image, or the masks of boxes from elsewhere.

    One page: the image with masks, boxes and numbers, and a list of them. A film gives a film of
    such pages. --given takes the boxes of any detector, in pixels of the image: a JSON list whose
    items are [x1, y1, x2, y2] or objects {"box": [...], "label": "mug", "score": 0.9}. Loose ones
    are mended by --refine, which draws the given box in white.

    Examples:
      decisive view --boxes --checkpoint outputs/masks --image photo.png
      decisive view --boxes --checkpoint outputs/masks --image photo.png --given boxes.json \
        --refine 2 --out masks.png
      decisive view --boxes --checkpoint outputs/masks --image view.mp4 --out masks.mp4
    """

    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")]
    """A segmenter: checkpoint folder, or name of a shipped one."""
    image: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Image (PNG, JPEG, ...) or film."""
    given: OptionalFile = None
    """JSON file of boxes whose masks are wanted, for an image; the segmenter finds its own if not
    given."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")] = "boxes.png"
    """PNG file; for a film MP4."""
    threshold: float = 0.3
    """Least score of what is shown, from 0 to 1."""
    n: int = 100
    """Most things that are shown."""
    refine: int = 0
    """How many times boxes are made tight around their masks, and masks made again."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse files that do not fit each other."""
        wanted = ".mp4" if self.is_film() else ".png"
        if not self.out.lower().endswith(wanted):
            raise ValueError(f"--out must end in {wanted} for {self.image}, got {self.out}")
        if self.given is not None and self.is_film():
            raise ValueError("--given is for an image; a film has other boxes in every frame")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"--threshold must be in 0..1, got {self.threshold}")
        if self.n < 1:
            raise ValueError(f"--n must be 1 or more, got {self.n}")
        if not 0 <= self.refine <= 10:
            raise ValueError(f"--refine must be in 0..10, got {self.refine}")

    def is_film(self) -> bool:
        """Whether the input is a film."""
        return self.image.lower().endswith(FILM_ENDS)


@dataclass(frozen=True)
class Given:
    """A box from elsewhere.

    Attributes:
        box: `x1, y1, x2, y2`, pixels of the image.
        label: what its detector calls it; may be empty.
        score: from 0 to 1; None says none.
    """

    box: tuple[float, ...]
    label: str = ""
    score: float | None = None


def main(argv: Sequence[str]) -> int:
    """Run the verb; `argv` is without `--boxes`."""
    arguments = parse(Arguments, argv, "view --boxes")
    out = check_writable(arguments.out)
    if not Path(arguments.image).is_file():
        raise ValueError(f"no such file: {arguments.image}")
    given = None if arguments.given is None else read_boxes(arguments.given)
    from perception.deep_mac.checkpoint import load_segmenter

    saved = load_segmenter(arguments.checkpoint)
    if arguments.is_film():
        told = _film(saved, arguments, out)
    else:
        page, told = look(saved, read_image(arguments.image), arguments, given)
        save_png(page, out)
    if arguments.json:
        print(json.dumps({"checkpoint": arguments.checkpoint, "out": str(out), **told}, indent=2))
        return 0
    for number, one in enumerate(told.get("instances", []), 1):
        score = "" if one["score"] is None else f" {100 * one['score']:.0f}%"
        print(f"{number}: {one['name'] or 'box'}{score}, {one['pixels']:,} pixels")
    print(out)
    return 0


def look(
    saved: SavedSegmenter,
    image: Pixels,
    arguments: Arguments,
    given: Sequence[Given] | None = None,
) -> tuple[Pixels, dict[str, Any]]:
    """Ask the network, and draw what it answers.

    Args:
        saved: the segmenter.
        image: `(H, W, 3)` uint8 RGB.
        arguments: what is asked.
        given: boxes whose masks are wanted; None has the network find its own.

    Returns:
        The page, and as JSON each instance's box, name, score and number of pixels.
    """
    found = saved.segment(
        image,
        None if given is None else [one.box for one in given],
        n=arguments.n,
        threshold=arguments.threshold,
        refine=arguments.refine,
    )
    boxes, scores = found.boxes.tolist(), found.scores.tolist()
    if given is None:
        shown = [
            Shown(box, mask, name, score)
            for box, mask, name, score in zip(boxes, found.masks, found.names, scores, strict=True)
        ]
    else:
        shown = [
            Shown(box, mask, one.label, one.score, one.box if arguments.refine else None)
            for box, mask, one in zip(boxes, found.masks, given, strict=True)
        ]
    name = os.path.basename(os.path.normpath(arguments.checkpoint))
    title = f"What {name} finds" if given is None else f"Masks of given boxes by {name}"
    page = segment_page(image, shown, title, _note(saved, arguments, given is None))
    told = [
        {
            "box": [round(side, 2) for side in one.box],
            "name": one.name,
            "score": one.score,
            "pixels": int(one.mask.sum()),
        }
        for one in shown
    ]
    return page, {"instances": told}


def _note(saved: SavedSegmenter, arguments: Arguments, own: bool) -> str:
    height, width = saved.size
    words = [f"seen at {width} x {height} pixels"]
    if own:
        words.append(f"scores from {100 * arguments.threshold:g}%")
    if arguments.refine:
        words.append(f"boxes made tight {arguments.refine} times")
    if not saved.scores:
        words.append("untrained")
    return " · ".join(words)


def read_boxes(path: str) -> list[Given]:
    """Boxes of a JSON file.

    Raises:
        ValueError: one line, if there is none, or it holds something else.
    """
    try:
        if os.path.getsize(path) > _MOST_BYTES:
            raise ValueError(f"{path}: larger than {_MOST_BYTES} bytes; not a list of boxes")
        with open(path, "rb") as file:
            items = json.load(file)
    except FileNotFoundError:
        raise ValueError(f"no such file: {path}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(items, list):
        raise ValueError(f"{path}: must hold a list of boxes, got {type(items).__name__}")
    return [_given(item, f"{path}: item {number}") for number, item in enumerate(items)]


def _given(item: Any, where: str) -> Given:
    fields = item if isinstance(item, dict) else {"box": item}
    box, label, score = fields.get("box"), fields.get("label", ""), fields.get("score")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise ValueError(f"{where} must be [x1, y1, x2, y2] in pixels, got {box!r:.60}")
    if not isinstance(label, str):
        raise ValueError(f"{where}: label must be text, got {label!r:.60}")
    if score is not None and not (_is_number(score) and 0 <= score <= 1):
        raise ValueError(f"{where}: score must be in 0..1, got {score!r:.60}")
    return Given(tuple(map(float, box)), label, None if score is None else float(score))


def _is_number(value: Any) -> bool:
    """A number that float32 can hold; NaN is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _film(saved: SavedSegmenter, arguments: Arguments, out: Path) -> dict[str, Any]:
    """Write a film of pages, as fast as control runs."""
    counts = []
    with VideoWriter(out, fps=_FPS) as film:
        for frame in read_film(arguments.image):
            page, told = look(saved, frame, arguments)
            film.add(page)
            counts.append(len(told["instances"]))
    return {"frames": len(counts), "found": counts}
