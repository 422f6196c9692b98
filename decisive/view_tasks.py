"""`decisive view --tasks`: all that multi-task networks say of an image, on one page."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from decisive.arguments import Flag, check_writable, parse
from decisive.pictures import GAP, INK, MARGIN, MUTED, Page, Pixels, clipped, save_png
from decisive.task_tiles import class_colors, class_overlay, tile
from decisive.view_tokens import read_image

if TYPE_CHECKING:
    from perception.multi_task_checkpoint import SavedTasks

_HEIGHT, _WIDEST, _LEAST = 220, 440, 110
_HEAD, _TITLE, _LINE = 34, 20, 18


@dataclass(frozen=True)
class Arguments:
    """Show what the tasks of multi-task networks say of an image, beside it on one page.

    Classes as colours over the image, with a legend; distances white where near; directions as
    colours (red x, green y, blue z); edges dark; numbers below.

    Examples:
      decisive view --tasks --checkpoint tabletop-tasks --image photo.png
      decisive view --tasks --checkpoint outputs/seer --image photo.png --out tasks.png --json
    """

    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")]
    """Multi-task networks: checkpoint folder, or name of shipped ones."""
    image: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Image (PNG, JPEG, ...)."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")] = "tasks.png"
    """PNG file."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse other files."""
        if not self.out.lower().endswith(".png"):
            raise ValueError(f"--out must end in .png, got {self.out}")


def main(argv: Sequence[str]) -> int:
    """Run the verb; `argv` is without `--tasks`."""
    arguments = parse(Arguments, argv, "view --tasks")
    out = check_writable(arguments.out)
    if not Path(arguments.image).is_file():
        raise ValueError(f"no such file: {arguments.image}")
    from perception.multi_task_checkpoint import load_tasks

    saved = load_tasks(arguments.checkpoint)
    name = os.path.basename(os.path.normpath(arguments.checkpoint))
    page, told = look(saved, read_image(arguments.image), name)
    save_png(page, out)
    if arguments.json:
        print(json.dumps({"checkpoint": arguments.checkpoint, "out": str(out), **told}, indent=2))
        return 0
    for task, words in told["tasks"].items():
        print(f"{task}: {words}")
    print(out)
    return 0


def look(saved: SavedTasks, image: Pixels, name: str) -> tuple[Pixels, dict[str, Any]]:
    """Ask the networks, and draw what they answer.

    Args:
        saved: the networks.
        image: `(H, W, 3)` uint8 RGB.
        name: of the networks, for the title.

    Returns:
        The page, and in words what each task says.
    """
    answers = {task: answer[0] for task, answer in saved.ask(image[None]).items()}
    told = {task: _words(saved, task, answer) for task, answer in answers.items()}
    height, width = _shown_size(image)
    column = max(width, _LEAST)
    maps = [("picture", image), *_maps(saved, image, answers)]
    kinds = {task: target.kind for task, target in saved.targets.items()}
    seen = [len(np.unique(answers[task])) for task, kind in kinds.items() if kind == "classes"]
    numbers = [f"{task}: {told[task]}" for task, kind in kinds.items() if kind == "numbers"]
    top = MARGIN + _HEAD + _TITLE
    below = top + height + GAP
    lines = max([1, *seen, len(numbers)])
    page = Page(2 * MARGIN + len(maps) * (column + GAP) - GAP, below + lines * _LINE + MARGIN)
    end = page.write(MARGIN, MARGIN + 18, f"What {name} says", 16, INK, True)
    note = f"seen at {saved.size[0]} x {saved.size[1]} pixels"
    page.write(end + 12, MARGIN + 18, note + ("" if saved.scores else " · untrained"), 12, MUTED)
    for k, (title, drawn) in enumerate(maps):
        left = MARGIN + k * (column + GAP)
        page.write(left, top - 6, title, 13)
        # What networks see is coarse, and is shown so.
        smooth = Image.Resampling.NEAREST if k else Image.Resampling.LANCZOS
        page.paste(np.asarray(Image.fromarray(drawn).resize((width, height), smooth)), left, top)
        if kinds.get(title) == "classes":
            _legend(page, saved.targets[title].names, answers[title], left, below + 8, column)
            continue
        for row, words in enumerate([told[title]] if k else numbers):
            page.write(left, below + 8 + row * _LINE, clipped(words, column, 12), 12, MUTED)
    return page.pixels(), {"tasks": told}


def _shown_size(image: Pixels) -> tuple[int, int]:
    scale = min(_HEIGHT / image.shape[0], _WIDEST / image.shape[1])
    return max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))


def _maps(
    saved: SavedTasks, image: Pixels, answers: dict[str, NDArray[Any]]
) -> list[tuple[str, Pixels]]:
    """Title and picture of each map."""
    drawn = []
    for task, target in saved.targets.items():
        if target.kind == "classes":
            drawn.append((task, class_overlay(image, answers[task])))
        elif target.dense:
            drawn.append((task, tile(target.kind, answers[task])))
    return drawn


def _legend(
    page: Page,
    names: Sequence[str],
    classes: NDArray[np.uint8],
    left: float,
    top: float,
    width: float,
) -> None:
    """Colour, name and share of the classes that are seen, most first."""
    shares = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
    order = [int(k) for k in np.argsort(-shares, kind="stable") if shares[k] > 0]
    for row, k in enumerate(order):
        y = top + row * _LINE
        color = tuple(class_colors(np.array([[k]], np.uint8))[0, 0].tolist())
        page.draw.rectangle((left, y - 10, left + 10, y), fill=color)
        page.write(left + 16, y, clipped(names[k], width - 64, 12), 12, INK)
        page.write(left + width, y, f"{100 * shares[k]:.1f}%", 12, MUTED, anchor="rs")


def _words(saved: SavedTasks, task: str, answer: NDArray[Any]) -> str:
    """What a task says, on one line."""
    target = saved.targets[task]
    if target.kind == "classes":
        seen = np.bincount(answer.ravel(), minlength=len(target.names))
        order = np.argsort(-seen, kind="stable")
        return ", ".join(
            f"{target.names[k]} {100 * seen[k] / answer.size:.1f}%" for k in order if seen[k]
        )
    if target.kind == "mask":
        return f"{100 * float((answer > 0.5).mean()):.1f}% of the pixels"
    if target.kind == "directions":
        x, y, z = answer.mean((0, 1)).tolist()
        return f"mean ({x:.2f}, {y:.2f}, {z:.2f})"
    unit = f" {target.unit}" if target.unit else ""
    if target.kind == "values":
        return f"{answer.min():.3f} to {answer.max():.3f}{unit}"
    return ", ".join(
        f"{x:.2f}{unit} {name}" for x, name in zip(answer.tolist(), target.names, strict=True)
    )
