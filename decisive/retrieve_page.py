"""The page of `decisive retrieve`: what was found, with pictures and scores."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from decisive.pictures import Pixels
from decisive.triage_page import escaped

PAGE = "index.html"
THUMBNAIL = 224
"""Pixels of the shorter side of pictures on the page, about."""
_QUALITY = 85


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
    asked = "" if sheet.picture is None else f'<img src="{_source(sheet.picture)}" alt="query">'
    parts = [
        _HEAD,
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
        "" if sheet.plan is None else f'<img class=plan src="{_source(sheet.plan)}" alt="plan">',
        "<ol class=cards>",
        *(_card(rank, found) for rank, found in enumerate(sheet.found, 1)),
        "</ol>",
        _skipped_table(sheet.skipped),
        "</main>",
        f"<footer><p>Made by <code>{escaped(sheet.command)}</code>.</p></footer>",
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(part for part in parts if part)


_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Retrieved: best fit first</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2026; background: #fff; margin: 1.5rem; }
header, footer { max-width: 60rem; }
header img { max-height: 14rem; image-rendering: pixelated; }
.plan { max-width: 100%; max-height: 40rem; margin: 0 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.query { border-left: .3rem solid #0072b2; padding: .4rem .8rem; background: #eef5fa;
  font-size: 1.15rem; overflow-wrap: anywhere; max-height: 12rem; overflow: auto; }
code { font-size: .9em; overflow-wrap: anywhere; }
.cards { list-style: none; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }
.cards li { border: 1px solid #d0d5db; border-radius: .4rem; padding: .7rem; min-width: 0; }
.cards img { width: 100%; height: 11rem; object-fit: contain; background: #1c2026; }
.cards p { margin: .4rem 0 0; overflow-wrap: anywhere; }
.rank, .muted { color: #68707a; }
.score { font-variant-numeric: tabular-nums; }
.bar { height: .4rem; background: #e8ebef; margin-top: .5rem; }
.bar span { display: block; height: 100%; background: #0072b2; }
table { border-collapse: collapse; max-width: 60rem; }
td, th { border-bottom: 1px solid #d0d5db; padding: .25rem .6rem; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
</style>
</head>
<body>"""


def _card(rank: int, found: Found) -> str:
    name = escaped(found.name)
    image = ""
    if found.picture is not None:
        image = f'<img src="{_source(found.picture)}" alt="{name}">'
    width = 100 * min(max(found.score, 0.0), 1.0)
    return (
        f'<li>{image}<div class=bar><span style="width:{width:.2f}%"></span></div>'
        f"<p class=score><span class=rank>{rank}</span> {found.score:+.3f}</p>"
        f"<p dir=auto><bdi>{name}</bdi></p></li>"
    )


def _skipped_table(skipped: Mapping[str, str]) -> str:
    if not skipped:
        return ""
    rows = (
        f"<tr><td><bdi>{escaped(name)}</bdi></td><td>{escaped(reason)}</td></tr>"
        for name, reason in skipped.items()
    )
    return "\n".join(
        [
            "<h2>Not looked at, or in part</h2>",
            "<table><thead><tr><th>what</th><th>reason</th></tr></thead><tbody>",
            *rows,
            "</tbody></table>",
        ]
    )


def _source(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
