"""`decisive triage`: scores a folder of images, most abnormal first, for a person to look at."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from decisive import provenance
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.page import PAGE, printable
from decisive.progress import Meter, progress
from decisive.triage_images import Fit, NotReadable, Picture, fit_picture, read_picture
from decisive.triage_page import (
    NOTICE,
    TABLE,
    Row,
    Sheet,
    Shown,
    heat_overlay,
    page_text,
    table_text,
)
from learning.atomic import new_folder

if TYPE_CHECKING:
    from perception.abnormality import Read
    from perception.checkpoint import SavedClassifier

_BATCH = 32
_LISTED = 20
_THUMBNAIL = 224
_QUANTILE = 0.98  # Of the cells of all maps of a page: where a tint is strongest.


@dataclass(frozen=True)
class Arguments:
    """Score all images of a folder by how abnormal they are, and order them for a person.

    DIR is looked through with its subfolders. What cannot be read (damaged or no images, pipes,
    too large ones) is listed with a reason. --out writes a page, index.html, with pictures, scores
    and heat maps, and a table, triage.csv. Without --checkpoint the shipped classifier scores: it
    has learned from rendered parts on a conveyor belt, and knows nothing else. Your own is one with
    a task abnormal: [normal, abnormal], such as decisive benchmark triage or decisive train
    classifier make; further tasks of two classes are scores of findings. Research software, not a
    medical device.

    Examples:
      decisive data render-inspection --out parts --split test --frames 60 --png
      decisive triage parts/frames --out review
      decisive triage frames --checkpoint outputs/benchmarks/triage/all-0/last --out review
      decisive triage frames --checkpoint outputs/benchmarks/triage/all-0/last --json
    """

    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")]
    """Folder of images."""
    checkpoint: Annotated[OptionalText, tyro.conf.arg(metavar="NAME|FOLDER")] = None
    """A classifier with an abnormal task: checkpoint folder, or name of a shipped one; the shipped
    one for triage if there is one."""
    out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the page and the table; made, or replaced if it holds nothing else."""
    top: int = 200
    """Most pictures on the page; the rest is listed."""
    fit: Literal["checkpoint", "stretch", "crop", "pad"] = "checkpoint"
    """How images get the ratio of sides that the network takes; as it was trained if not given."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse a page without sense."""
        if self.top < 0:
            raise ValueError(f"--top must be 0 or more, got {self.top}")


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "triage")
    root = Path(arguments.folder)
    if not root.is_dir():
        raise ValueError(f"no such folder: {printable(arguments.folder)}")
    out = None if arguments.out is None else check_out(Path(arguments.out), root)
    model = Model.load(arguments.checkpoint, arguments.fit)
    names, skipped = list_files(root, out)
    with progress("images", len(names)) as meter:
        rows = score_files(root, names, model, skipped, meter)
    skipped = dict(sorted(skipped.items()))
    if out is not None:
        command = provenance.command("triage", argv)
        _write(out, root, model, rows, skipped, arguments.top, command)
    _tell(arguments, model, rows, skipped, out)
    return 0


@dataclass(frozen=True)
class Model:
    """A classifier for triage.

    Attributes:
        name: as it was asked for.
        saved: the classifier.
        fit: how images get its ratio of sides.
        points: thresholds of its score by name.
    """

    name: str
    saved: SavedClassifier
    fit: Fit
    points: Mapping[str, float]

    @staticmethod
    def load(name: str | None, fit: str = "checkpoint") -> Model:
        """Read a classifier; None takes the shipped one for triage.

        Raises:
            ValueError: if there is none, or it has no abnormal score.
        """
        from perception.abnormality import check_triage
        from perception.checkpoint import load_classifier

        name = _shipped() if name is None else name
        saved = load_classifier(name)
        check_triage(saved)
        if len(saved.mean) not in (1, 3):
            raise ValueError(f"triage reads grey or RGB images, {name} takes {len(saved.mean)}")
        facts = saved.scores.get("triage", {})
        known = dict(facts) if isinstance(facts, Mapping) else {}
        own = known.get("fit", "stretch") if fit == "checkpoint" else fit
        chosen: dict[str, Fit] = {"stretch": "stretch", "crop": "crop", "pad": "pad"}
        if not isinstance(own, str) or own not in chosen:
            raise ValueError(f"{name}: fit must be one of {', '.join(chosen)}, got {own!r}")
        return Model(name, saved, chosen[own], _points(known.get("points", {}), name))

    def look(self, path: Path, side: int) -> Picture:
        """Read a file as this classifier takes it, at least `side` pixels a side if it has them.

        Raises:
            NotReadable: saying why.
        """
        found = read_picture(path, side, 1 if len(self.saved.mean) == 1 else 3)
        return Picture(fit_picture(found.pixels, self.saved.size, self.fit), found.size)

    def read(self, pictures: Sequence[Picture]) -> Read:
        """Scores and maps of pictures."""
        import torch

        from perception.abnormality import read

        # Of different sizes, so one after the other to the size of the network.
        batch = [self.saved.tensor(_channels(picture)[None]) for picture in pictures]
        return read(self.saved, torch.cat(batch))


def _channels(picture: Picture) -> Any:
    pixels = picture.pixels
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _shipped() -> str:
    from perception.abnormality import check_triage
    from perception.checkpoint import load_classifier, shipped_classifiers

    fitting = []
    for name in shipped_classifiers():
        try:
            check_triage(load_classifier(name))
        except ValueError:
            continue
        fitting.append(name)
    if len(fitting) != 1:
        told = f"one of {', '.join(fitting)}" if fitting else "none is shipped"
        raise ValueError(
            f"name a classifier by --checkpoint ({told}; decisive benchmark triage makes one)"
        )
    return fitting[0]


def _points(found: Any, name: str) -> dict[str, float]:
    if not isinstance(found, Mapping):
        raise ValueError(f"{name}: thresholds must be an object, got {type(found).__name__}")
    for point, value in found.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise ValueError(f"{name}: threshold {point!r} must be in 0..1, got {value!r}")
    return {str(point): float(value) for point, value in found.items()}


def check_out(out: Path, root: Path) -> Path:
    """The folder to write, after a test that nothing else is lost.

    Raises:
        ValueError: if it holds files of others, or the images themselves.
        OSError: if it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    if out.is_dir():
        others = sorted({path.name for path in out.iterdir()} - {PAGE, TABLE})
        if others:
            raise ValueError(
                f"--out {out} holds other files ({printable(others[0])}); name a new folder"
            )
    if root.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"--out {out} holds the images; name another folder")
    check_writable(Path(os.path.abspath(out)).with_name(".triage"))
    return out


def list_files(root: Path, leave: Path | None = None) -> tuple[list[str], dict[str, str]]:
    """All files below a folder, sorted, and what cannot be looked into, with reasons.

    Links to folders are not followed: they can lead in circles.

    Args:
        root: the folder.
        leave: a folder that is not looked into.
    """
    left = None if leave is None else leave.resolve()
    names: list[str] = []
    skipped: dict[str, str] = {}

    def failed(error: OSError) -> None:
        place = os.path.relpath(error.filename or root, root)
        skipped[place] = f"folder cannot be read ({error.strerror})"

    for place, folders, files in os.walk(root, onerror=failed):
        for folder in list(folders):
            path = Path(place, folder)
            if path.is_symlink():
                skipped[os.path.relpath(path, root)] = "link to a folder, not followed"
            if path.is_symlink() or path.resolve() == left:
                folders.remove(folder)
        names += [os.path.relpath(os.path.join(place, file), root) for file in files]
    return sorted(names), skipped


def score_files(
    root: Path, names: Sequence[str], model: Model, skipped: dict[str, str], meter: Meter
) -> list[Row]:
    """Scored files, most abnormal first, equal ones by name; the others go to `skipped`.

    Raises:
        ValueError: if the classifier gives a score that is no number.
    """
    from perception.abnormality import TASK

    found: list[tuple[float, str, dict[str, float], tuple[int, int]]] = []
    for part in _batches(root, names, model, skipped, meter):
        logits = {
            task: values.tolist() for task, values in model.read(part.pictures).logits.items()
        }
        for place, name in enumerate(part.names):
            own = {task: values[place] for task, values in logits.items()}
            if not all(map(math.isfinite, own.values())):
                raise ValueError(f"{model.name} gives no number for {printable(name)}")
            found.append((own.pop(TASK), name, own, part.pictures[place].size))
    found.sort(key=lambda one: (-one[0], one[1]))
    return [
        Row(name, rank, sigmoid(z), {task: sigmoid(v) for task, v in own.items()}, size)
        for rank, (z, name, own, size) in enumerate(found, 1)
    ]


@dataclass(frozen=True)
class _Part:
    names: list[str]
    pictures: list[Picture]


def _batches(
    root: Path, names: Sequence[str], model: Model, skipped: dict[str, str], meter: Meter
) -> Iterator[_Part]:
    part = _Part([], [])
    for name in names:
        try:
            picture = model.look(root / name, max(model.saved.size))
        except NotReadable as reason:
            skipped[name] = str(reason)
        else:
            part.names.append(name)
            part.pictures.append(picture)
        meter.advance()
        if len(part.names) == _BATCH:
            yield part
            part = _Part([], [])
    if part.names:
        yield part


def sigmoid(z: float) -> float:
    """`1 / (1 + exp(-z))`, for any z."""
    return 0.5 * (1 + math.tanh(0.5 * z))


def _write(
    out: Path,
    root: Path,
    model: Model,
    rows: Sequence[Row],
    skipped: Mapping[str, str],
    top: int,
    command: str,
) -> None:
    shown, cells = picture_rows(root, model, rows[:top])
    trained = "" if model.saved.scores else ", untrained"
    told = f"{model.name} ({model.saved.backbone}, {model.saved.size[1]} x {model.saved.size[0]}"
    sheet = Sheet(
        folder=str(root), model=f"{told} pixels, {model.fit}{trained})", rows=rows,
        skipped=skipped, points=model.points, shown=shown, cells=cells, command=command,
    )  # fmt: skip
    page, table = page_text(sheet), table_text(sheet)
    with new_folder(out) as beside:
        # Names that are no Unicode (lone surrogates) are spelled out.
        (beside / PAGE).write_bytes(page.encode("utf-8", "backslashreplace"))
        (beside / TABLE).write_bytes(table.encode("utf-8", "backslashreplace"))


def picture_rows(
    root: Path, model: Model, rows: Sequence[Row]
) -> tuple[dict[str, Shown], tuple[int, int] | None]:
    """Pictures of the rows, with heat maps of one scale where the classifier has exact ones.

    A file that has changed meanwhile and cannot be read any more has no picture.
    """
    pictures: dict[str, Any] = {}
    maps: dict[str, Any] = {}
    side = max(_THUMBNAIL, *model.saved.size)
    for row in rows:
        try:
            seen = model.look(root / row.name, max(model.saved.size))
            pictures[row.name] = _thumbnail(model.look(root / row.name, side))
        except NotReadable:
            continue
        found = model.read([seen]).maps
        if found is not None:
            maps[row.name] = found[0].float().numpy()
    if not maps:
        return {name: Shown(picture) for name, picture in pictures.items()}, None
    strengths = np.concatenate([np.abs(one).ravel() for one in maps.values()])
    scale = float(np.quantile(strengths, _QUANTILE))
    shown = {
        name: Shown(picture, heat_overlay(picture, maps[name], scale))
        for name, picture in pictures.items()
    }
    height, width = next(iter(maps.values())).shape
    return shown, (height, width)


def _thumbnail(picture: Picture) -> Any:
    from PIL import Image

    image = Image.fromarray(picture.pixels).convert("RGB")
    image.thumbnail((2 * _THUMBNAIL, 2 * _THUMBNAIL))
    return np.asarray(image)


def _tell(
    arguments: Arguments,
    model: Model,
    rows: Sequence[Row],
    skipped: Mapping[str, str],
    out: Path | None,
) -> None:
    if arguments.json:
        told = {
            "checkpoint": model.name,
            "shipped": arguments.checkpoint is None,
            "folder": arguments.folder,
            "n": len(rows),
            "scores": {row.name: row.score for row in rows},
            "ranks": {row.name: row.rank for row in rows},
            "findings": {row.name: dict(row.findings) for row in rows if row.findings},
            "points": dict(model.points),
            "skipped": dict(skipped),
            "out": None if out is None else str(out),
            "notice": NOTICE,
        }
        print(json.dumps(told, indent=2))
        return
    if arguments.checkpoint is None:
        print(f"{model.name} scores, the shipped classifier; name your own by --checkpoint")
    for row in rows[:_LISTED]:
        print(f"{row.rank:>5}  {row.score:.3f}  {printable(row.name)}")
    if len(rows) > _LISTED:
        print(f"       and {len(rows) - _LISTED:,} more")
    for name, reason in list(skipped.items())[:_LISTED]:
        print(f"skipped  {printable(name)}: {printable(reason)}")
    print(f"{len(rows):,} scored, {len(skipped):,} skipped. {NOTICE}")
    if out is not None:
        print(out / PAGE)
