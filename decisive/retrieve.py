"""`decisive retrieve`: images for a sentence in any language, and sentences for an image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from decisive import provenance
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.page import PAGE, printable
from decisive.pictures import Pixels
from decisive.progress import progress
from decisive.retrieve_page import THUMBNAIL, Found, Sheet, page_text, thumbnail
from decisive.retrieve_sources import Source, find_source, list_sources
from decisive.triage_images import NotReadable, read_picture
from learning.atomic import new_folder

if TYPE_CHECKING:
    from torch import Tensor

    from perception.mural.checkpoint import SavedMural
    from perception.mural.index import Match

_BATCH = 64
_LISTED = 20
_MOST_SENTENCES = 100_000
_MOST_BYTES = 64 * 2**20
_QUESTIONS = (
    {"text", "images"},
    {"sentences", "image"},
    {"text", "scene"},
    {"image", "scene"},
)
"""What belongs together."""


@dataclass(frozen=True)
class Arguments:
    r"""Order images by how well they fit a sentence, or sentences by how well they fit an image.

    One embedding serves images and texts in every language (MURAL). The shipped model has learned
    captions of rendered rooms and tables in English, and translations between English and German,
    French, Czech and Chinese; it finds furniture, things on a table and their colours. DIR is
    looked through with its subfolders; what cannot be read is listed with a reason. Pictures of an
    images.npy (image sets, caption sets) are named images.npy[17]. --out writes a page, index.html.

    With --scene, a robot has looked around at viewpoints of a procedural house: where has it seen
    what TEXT says, or the place of a picture (--image)? Answers are viewpoints and headings.

    Examples:
      decisive retrieve "a red sofa in the living room" --images frames --top 5
      decisive retrieve "ein rotes Sofa im Wohnzimmer" --images frames --out found
      decisive retrieve 客厅里有一张红色的沙发 --images frames --json
      decisive retrieve --sentences captions.txt --image frames/0001.png --json
      decisive retrieve "the bathroom" --scene house_test_000003 --out where
      decisive retrieve 浴室里有一个白色的浴缸 --scene house_test_000003 --seen 1,4,7 --json
      decisive retrieve --image frames/0001.png --scene house_test_000003
    """

    text: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="TEXT")] = None
    """What to look for, in any language."""
    images: Annotated[OptionalText, tyro.conf.arg(metavar="DIR")] = None
    """Folder of images to look through."""
    sentences: Annotated[OptionalText, tyro.conf.arg(metavar="FILE")] = None
    """Text file with a sentence a line, to be ordered by --image."""
    image: Annotated[OptionalText, tyro.conf.arg(metavar="FILE")] = None
    """Image that sentences are ordered by; with --scene, whose place is looked for."""
    scene: Annotated[OptionalText, tyro.conf.arg(metavar="HOUSE")] = None
    """Procedural house to look for it in, house_SPLIT_NUMBER."""
    seen: OptionalText = None
    """With --scene: viewpoints that the robot has been to, separated by commas; all if not
    given."""
    by: Literal["colors", "meaning"] = "colors"
    """With --scene and --image: find the place by its colours, or one with the same things."""
    model: Annotated[OptionalText, tyro.conf.arg(metavar="NAME|FOLDER")] = None
    """Checkpoint folder, or name of a shipped model; mural-small if not given."""
    top: int = 10
    """How many to give."""
    out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the page; made, or replaced if it holds nothing else."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse half a question."""
        if self.top < 1:
            raise ValueError(f"--top must be 1 or more, got {self.top}")
        given = {
            name
            for name in ("text", "images", "sentences", "image", "scene")
            if getattr(self, name) is not None
        }
        if given not in _QUESTIONS:
            raise ValueError(
                'give a sentence and a folder ("a red chair" --images DIR), a sentence or an image '
                "and a house (--scene HOUSE), or sentences and an image (--sentences FILE --image "
                "FILE)"
            )
        if self.seen is not None and self.scene is None:
            raise ValueError("--seen names viewpoints of a house: give --scene too")
        if self.by != "colors" and given != {"image", "scene"}:
            raise ValueError("--by is for the place of an image: give --image and --scene")


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        query: sentence, or image.
        ranking: best first.
        n: how many were looked at.
        skipped: what could not be looked at, with reasons.
        notes: what of the query was not read.
    """

    query: str
    ranking: list[Match]
    n: int
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "retrieve")
    if arguments.scene is not None:
        from decisive.retrieve_house import run_house

        return run_house(arguments, provenance.command("retrieve", argv))
    root = None if arguments.images is None else Path(arguments.images)
    if root is not None and not root.is_dir():
        raise ValueError(f"no such folder: {printable(str(root))}")
    out = None if arguments.out is None else check_out(Path(arguments.out), root)

    from perception.mural.checkpoint import load_mural

    model = load_mural(arguments.model)
    if root is not None and arguments.text is not None:
        answer = find_images(model, arguments.text, root, arguments.top, out)
    else:
        answer = find_sentences(
            model, Path(str(arguments.image)), Path(str(arguments.sentences)), arguments.top
        )
    if out is not None:
        _write(out, arguments, answer, provenance.command("retrieve", argv))
    _tell(arguments, answer, out)
    return 0


def find_images(
    model: SavedMural, text: str, root: Path, top: int, leave: Path | None = None
) -> Answer:
    """Images of a folder by how well they fit a text.

    Args:
        model: of both.
        text: in any language.
        root: the folder, with its subfolders.
        top: how many to give.
        leave: a folder that is not looked into.

    Raises:
        ValueError: for a text without any word, or a folder without any image that can be read.
    """
    from perception.mural.index import Index

    query = _embed_query(model, text)
    sources, skipped = list_sources(root, leave)
    if not sources and not skipped:
        raise ValueError(f"no files in {printable(str(root))}; name a folder of images")
    kept, embeddings = embed_files(model, sources, skipped)
    if not kept:
        name, reason = next(iter(skipped.items()))
        raise ValueError(
            f"none of {len(skipped)} files in {printable(str(root))} can be read; the first: "
            f"{printable(name)}: {printable(reason)}"
        )
    ranking = Index(kept, embeddings).search(query, top)[0]
    notes = model.model.tokenizer.notes(text)
    return Answer(text, ranking, len(kept), dict(sorted(skipped.items())), notes)


def find_sentences(model: SavedMural, image: Path, sentences: Path, top: int) -> Answer:
    """Lines of a file by how well they fit an image.

    Raises:
        ValueError: if the image cannot be read, or no line has a word.
        OSError: if the file of sentences cannot be read.
    """
    from perception.mural.index import Index

    try:
        pixels = read_picture(image, model.model.config.size).pixels
    except NotReadable as reason:
        raise ValueError(f"{printable(str(image))}: {printable(str(reason))}") from None
    lines, skipped = read_sentences(model, sentences)
    if not lines:
        raise ValueError(f"no sentence in {printable(str(sentences))}; write one a line")
    embedded = model.embed_text(lines)
    ranking = Index(lines, embedded).search(model.embed_images([pixels]), top)[0]
    return Answer(str(image), ranking, len(lines), skipped)


def _embed_query(model: SavedMural, text: str) -> Tensor:
    if not model.model.tokenizer.split(text):
        raise ValueError(f"TEXT has no word: {text[:40]!r}; say what to look for")
    return model.embed_text([text])


def read_sentences(model: SavedMural, path: Path) -> tuple[list[str], dict[str, str]]:
    """Different lines with a word, and which have none or are not read whole, with reasons.

    Raises:
        ValueError: for a file that is too large.
        OSError: if it cannot be read.
    """
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path} is larger than {_MOST_BYTES // 2**20} MiB; give fewer sentences")
    lines: dict[str, None] = {}
    skipped: dict[str, str] = {}
    tokenizer = model.model.tokenizer
    for number, raw in enumerate(path.read_bytes().split(b"\n"), 1):
        line = raw.decode("utf-8", "replace").strip()
        if not line:
            continue
        notes = tokenizer.notes(raw)
        if not tokenizer.split(line):
            skipped[f"line {number}"] = "no word"
            continue
        if notes:
            skipped[f"line {number}"] = f"read in part: {'; '.join(notes)}"
        lines[line] = None
        if len(lines) > _MOST_SENTENCES:
            raise ValueError(f"{path} has more than {_MOST_SENTENCES:,} sentences; give fewer")
    return list(lines), skipped


def embed_files(
    model: SavedMural, sources: Mapping[str, Source], skipped: dict[str, str]
) -> tuple[list[str], Tensor]:
    """Names of the pictures that can be read and their embeddings; the others go to `skipped`."""
    import torch

    kept: list[str] = []
    parts: list[Tensor] = []
    with progress("images", len(sources)) as meter:
        for batch in _pictures(model, sources, skipped):
            kept += [name for name, _ in batch]
            parts.append(model.embed_images([pixels for _, pixels in batch]))
            meter.advance(len(batch))
    return kept, torch.cat(parts) if parts else torch.zeros(0, model.width)


def _pictures(
    model: SavedMural, sources: Mapping[str, Source], skipped: dict[str, str]
) -> Iterator[list[tuple[str, Pixels]]]:
    batch: list[tuple[str, Pixels]] = []
    for name, source in sources.items():
        try:
            batch.append((name, source.read(model.model.config.size)))
        except NotReadable as reason:
            skipped[name] = str(reason)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def check_out(out: Path, root: Path | None) -> Path:
    """The folder to write, after a test that nothing else is lost.

    Raises:
        ValueError: if it holds files of others, or the images themselves.
        OSError: if it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    others = sorted({path.name for path in out.iterdir()} - {PAGE}) if out.is_dir() else []
    if others:
        raise ValueError(
            f"--out {out} holds other files ({printable(others[0])}); name a new folder"
        )
    if root is not None and root.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"--out {out} holds the images; name another folder")
    check_writable(Path(os.path.abspath(out)).with_name(".retrieve"))
    return out


def _write(out: Path, arguments: Arguments, answer: Answer, command: str) -> None:
    root = None if arguments.images is None else Path(arguments.images)
    found = [
        Found(
            match.name,
            match.score,
            None if root is None else _thumbnail(find_source(root, match.name)),
        )
        for match in answer.ranking
    ]
    sheet = Sheet(
        query=answer.query,
        picture=None if root is not None else _thumbnail(Source(Path(answer.query))),
        place=str(root if root is not None else arguments.sentences),
        model=arguments.model or "mural-small",
        found=found,
        n=answer.n,
        skipped=answer.skipped,
        notes=answer.notes,
        command=command,
    )
    with new_folder(out) as beside:
        # Names that are no Unicode (lone surrogates) are spelled out.
        (beside / PAGE).write_bytes(page_text(sheet).encode("utf-8", "backslashreplace"))


def _thumbnail(source: Source) -> Pixels | None:
    """A small picture of a file; None if it has changed meanwhile and cannot be read any more."""
    try:
        return thumbnail(source.read(THUMBNAIL))
    except NotReadable:
        return None


def _tell(arguments: Arguments, answer: Answer, out: Path | None) -> None:
    key = "file" if arguments.images is not None else "text"
    if arguments.json:
        told: dict[str, Any] = {
            **asdict(answer),
            "ranking": [
                {"rank": rank, key: match.name, "score": match.score}
                for rank, match in enumerate(answer.ranking, 1)
            ],
            "model": arguments.model or "mural-small",
            "out": None if out is None else str(out),
        }
        print(json.dumps(told, indent=2))
        return
    for rank, match in enumerate(answer.ranking, 1):
        print(f"{rank:>5}  {match.score:+.3f}  {printable(match.name)}")
    for name, reason in list(answer.skipped.items())[:_LISTED]:
        print(f"skipped  {printable(name)}: {printable(reason)}")
    for note in answer.notes:
        print(f"note: {note}")
    left = f"{len(answer.skipped):,} skipped"
    print(f"{answer.n:,} looked at, {left}")
    if out is not None:
        print(out / PAGE)
