"""HTML pages that need nothing else: no links, no scripts, pictures inside."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

from PIL import Image

from decisive.pictures import Pixels

PAGE = "index.html"
_QUALITY = 85

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">"""
_STYLE = """body { font: 15px/1.45 system-ui, sans-serif; color: #1c2026; background: #fff; \
margin: 1.5rem; }
header, footer { max-width: 60rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
code { font-size: .9em; overflow-wrap: anywhere; }
.cards { list-style: none; padding: 0; display: grid; gap: 1rem; }
.cards li { border: 1px solid #d0d5db; border-radius: .4rem; padding: .7rem; min-width: 0; }
.cards img { height: 11rem; object-fit: contain; background: #1c2026; }
.rank, .muted { color: #68707a; }
.score { font-variant-numeric: tabular-nums; }
.bar { background: #e8ebef; }
.bar span { display: block; height: 100%; }
table { border-collapse: collapse; max-width: 60rem; }
td, th { border-bottom: 1px solid #d0d5db; padding: .25rem .6rem; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }"""


def printable(text: str) -> str:
    """The text with everything that is not seen, or turns the writing around, spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escaped(text: str) -> str:
    """A text for HTML, in an element or a quoted attribute."""
    return html.escape(printable(text), quote=True)


def document(title: str, style: str, parts: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: of the window.
        style: CSS beside what all pages share.
        parts: HTML of the body; empty ones leave no line.
    """
    head = [_HEAD, f"<title>{escaped(title)}</title>", "<style>", _STYLE, style, "</style>"]
    lines = [*head, "</head>", "<body>", *filter(None, parts), "</body>", "</html>", ""]
    return "\n".join(lines)


def source(pixels: Pixels) -> str:
    """A picture, `(H, W, 3)` uint8, as the `src` of an image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def reasons_table(title: str, named: str, reasons: Mapping[str, str], note: str = "") -> str:
    """What was left out, and why; empty where nothing was.

    Args:
        title: over the table.
        named: what its first column names.
        reasons: by name.
        note: HTML under the title.
    """
    if not reasons:
        return ""
    rows = (
        f"<tr><td><bdi>{escaped(name)}</bdi></td><td>{escaped(reason)}</td></tr>"
        for name, reason in reasons.items()
    )
    head = f"<table><thead><tr><th>{named}</th><th>reason</th></tr></thead><tbody>"
    return "\n".join(filter(None, [f"<h2>{title}</h2>", note, head, *rows, "</tbody></table>"]))
