"""The page of `decisive retrieve`: what was found, with pictures and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from decisive.page import document, escaped, reasons_table, source
from decisive.pictures import Pixels

THUMBNAIL = 224
"""Pixels of the shorter side of pictures on the page, about."""


@dataclass(frozen=True)
class Found:
    """A file or a sentence that was found.

    Attributes:
        name: file below the folder, or sentence; may hold anything.
        score: dot product of the embeddings, -1 to 1.
        picture: `(H, W, 3)` uint8; None for sentences and what cannot be read any more.
    """

    name: str
    score: float
    picture: Pixels | None = None


@dataclass(frozen=True)
class Sheet:
    """Everything that the page says.

    Attributes:
        query: sentence, or name of an image.
        picture: of the image that was asked with; None for a sentence.
        place: folder or file that was looked through.
        model: its name.
        found: best first.
        n: how many were looked at.
        skipped: what was not, and why.
        notes: what of the query was not read.
        command: that made the page.
        plan: `(H, W, 3)` uint8: where what was found is; None where that is no question.
    """

    query: str
    picture: Pixels | None
    place: str
    model: str
    found: Sequence[Found]
    n: int
    skipped: Mapping[str, str]
    notes: Sequence[str] = field(default_factory=tuple)
    command: str = ""
    plan: Pixels | None = None


def thumbnail(pixels: Pixels) -> Pixels:
    """A picture of `(H, W)` or `(H, W, 3)` as it goes onto the page."""
    image = Image.fromarray(pixels).convert("RGB")
    image.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
    return np.asarray(image)


def page_text(sheet: Sheet) -> str:
    """One HTML file that needs nothing else: no links, no scripts, pictures inside."""
    asked = "" if sheet.picture is None else f'<img src="{source(sheet.picture)}" alt="query">'
    parts = [
        "<header>",
        "<h1>Best fit first</h1>",
        f"<p class=query dir=auto><bdi>{escaped(sheet.query)}</bdi></p>",
        asked,
        *(f"<p class=muted>Note: {escaped(note)}.</p>" for note in sheet.notes),
        f"<p>{sheet.n:,} looked at in <code>{escaped(sheet.place)}</code>, "
        f"{len(sheet.skipped):,} listed below with a reason. Model: "
        f"<code>{escaped(sheet.model)}</code>. Scores order; they are no probabilities.</p>",
        "</header>",
        "<main>",
        "" if sheet.plan is None else f'<img class=plan src="{source(sheet.plan)}" alt="plan">',
        "<ol class=cards>",
        *(_card(rank, found) for rank, found in enumerate(sheet.found, 1)),
        "</ol>",
        reasons_table("Not looked at, or in part", "what", sheet.skipped),
        "</main>",
        f"<footer><p>Made by <code>{escaped(sheet.command)}</code>.</p></footer>",
    ]
    return document("Retrieved: best fit first", _STYLE, parts)


_STYLE = """header img { max-height: 14rem; image-rendering: pixelated; }
.plan { max-width: 100%; max-height: 40rem; margin: 0 0 1rem; }
.query { border-left: .3rem solid #0072b2; padding: .4rem .8rem; background: #eef5fa;
  font-size: 1.15rem; overflow-wrap: anywhere; max-height: 12rem; overflow: auto; }
.cards { grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }
.cards img { width: 100%; }
.cards p { margin: .4rem 0 0; overflow-wrap: anywhere; }
.bar { height: .4rem; margin-top: .5rem; }
.bar span { background: #0072b2; }"""


def _card(rank: int, found: Found) -> str:
    name = escaped(found.name)
    image = ""
    if found.picture is not None:
        image = f'<img src="{source(found.picture)}" alt="{name}">'
    width = 100 * min(max(found.score, 0.0), 1.0)
    return (
        f'<li>{image}<div class=bar><span style="width:{width:.2f}%"></span></div>'
        f"<p class=score><span class=rank>{rank}</span> {found.score:+.3f}</p>"
        f"<p dir=auto><bdi>{name}</bdi></p></li>"
    )
