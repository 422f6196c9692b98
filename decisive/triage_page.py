"""The page and the table of `decisive triage`: what a person looks at first."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decisive.page import document, escaped, printable, reasons_table, source
from decisive.pictures import Pixels

NOTICE = "Research software, not a medical device."
TABLE = "triage.csv"
RAISES, LOWERS = (213, 60, 0), (0, 114, 178)
"""Vermilion and blue: told apart by colour-blind people."""

_STRENGTH = 0.65


@dataclass(frozen=True)
class Row:
    """A scored file.

    Attributes:
        name: of the file, below the folder; may hold anything that a file system allows.
        rank: 1 for the most abnormal.
        score: abnormal score from 0 to 1.
        findings: scores of findings.
        size: width and height of the file, pixels.
    """

    name: str
    rank: int
    score: float
    findings: Mapping[str, float]
    size: tuple[int, int]


@dataclass(frozen=True)
class Shown:
    """Pictures of a row on the page.

    Attributes:
        picture: `(H, W, 3)` uint8.
        heat: the same with what raises and lowers the score; None without maps.
    """

    picture: Pixels
    heat: Pixels | None = None


@dataclass(frozen=True)
class Sheet:
    """Everything that the page says.

    Attributes:
        folder: what was looked through.
        model: name of the classifier, and what it is.
        rows: by rank.
        skipped: files that were not scored, and why.
        points: thresholds by name.
        shown: pictures of the first rows, by name.
        cells: rows and columns of a heat map; None without.
        command: that made the page.
    """

    folder: str
    model: str
    rows: Sequence[Row]
    skipped: Mapping[str, str]
    points: Mapping[str, float]
    shown: Mapping[str, Shown] = field(default_factory=dict)
    cells: tuple[int, int] | None = None
    command: str = ""


def heat_overlay(picture: Pixels, cells: NDArray[np.floating], scale: float) -> Pixels:
    """The picture in grey, tinted where cells raise or lower the score.

    Args:
        picture: `(H, W, 3)` uint8.
        cells: `(h, w)` logits that cells add; the whole map covers the whole picture.
        scale: logit at which a tint is strongest; the same for all pictures of a page, so that
            they can be compared.
    """
    height, width = picture.shape[:2]
    grown = np.asarray(
        Image.fromarray(cells.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    )
    weight = np.clip(np.abs(grown) / max(scale, 1e-9), 0, 1)[..., None] * _STRENGTH
    tint = np.where(grown[..., None] > 0, RAISES, LOWERS)
    grey = picture.mean(2, keepdims=True)
    return np.rint((1 - weight) * grey + weight * tint).astype(np.uint8)


def table_text(sheet: Sheet) -> str:
    """CSV: a line a file, first those with a score, by rank.

    Names that a spreadsheet would take for a formula begin with `./`, which names the same file.
    """
    findings = sorted({name for row in sheet.rows for name in row.findings})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["rank", "file", "score", *(f"reaches {p}" for p in sheet.points), *findings]
    writer.writerow([_plain(word) for word in (*head, "width", "height", "skipped")])
    for row in sheet.rows:
        reached = [int(row.score >= threshold) for threshold in sheet.points.values()]
        found = [f"{row.findings[name]:.6f}" if name in row.findings else "" for name in findings]
        line = [row.rank, _plain(row.name), f"{row.score:.6f}", *reached, *found, *row.size, ""]
        writer.writerow(line)
    blank = [""] * (len(sheet.points) + len(findings))
    for name, reason in sheet.skipped.items():
        writer.writerow(["", _plain(name), "", *blank, "", "", printable(reason)])
    return out.getvalue()


def _plain(name: str) -> str:
    return f"./{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def page_text(sheet: Sheet) -> str:
    """One HTML file that needs nothing else: no links, no scripts, pictures inside."""
    scored, left = len(sheet.rows), len(sheet.skipped)
    cards = [row for row in sheet.rows if row.name in sheet.shown]
    others = [row for row in sheet.rows if row.name not in sheet.shown]
    note = "<p>These have no score: look at them another way.</p>"
    parts = [
        "<header>",
        "<h1>Most abnormal first</h1>",
        f"<p class=notice><strong>{NOTICE}</strong> A score orders pictures for a person to look "
        "at; it is no finding, and a low one does not say that a picture is normal.</p>",
        f"<p>{scored:,} {_files(scored)} scored in <code>{escaped(sheet.folder)}</code>, "
        f"{left:,} skipped. Classifier: <code>{escaped(sheet.model)}</code>.</p>",
        _points_line(sheet.points),
        _legend(sheet.cells) if cards else "",
        "</header>",
        "<main>",
        *([] if sheet.rows else ["<p class=empty>No picture to show.</p>"]),
        "<ol class=cards>" if cards else "",
        *(_card(row, sheet.shown[row.name], sheet.points) for row in cards),
        "</ol>" if cards else "",
        _others_table(others),
        reasons_table("Skipped", "file", sheet.skipped, note),
        "</main>",
        f"<footer><p>{NOTICE} Made by <code>{escaped(sheet.command)}</code>.</p></footer>",
    ]
    return document("Triage: most abnormal first", _STYLE, parts)


_STYLE = """.notice { border-left: .3rem solid #d53c00; padding: .4rem .8rem; background: #fdf1ec; }
.cards { grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); }
.cards h3 { font-size: .95rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
.rank { margin-right: .4rem; }
.pair { display: flex; gap: .5rem; }
.pair img { width: 50%; min-width: 0; }
.bar { height: .5rem; margin: .5rem 0 .25rem; position: relative; }
.bar span { background: #d53c00; }
.bar i { position: absolute; top: -.2rem; bottom: -.2rem; width: 2px; background: #1c2026; }
.score { margin: 0; }
.raises { color: #d53c00; } .lowers { color: #0072b2; }"""


def _files(n: int) -> str:
    return "file" if n == 1 else "files"


def _points_line(points: Mapping[str, float]) -> str:
    if not points:
        return ""
    told = ", ".join(f"{escaped(name)} from {value:.2f}" for name, value in points.items())
    return (
        f"<p>Thresholds, chosen on a tuning set: {told}. They are the black marks on the bars.</p>"
    )


def _legend(cells: tuple[int, int] | None) -> str:
    if cells is None:
        return "<p class=muted>This classifier has no exact heat maps.</p>"
    return (
        "<p>Beside each picture: what <span class=raises>raises</span> and what "
        "<span class=lowers>lowers</span> its score, in "
        f"{cells[0]} x {cells[1]} cells and on one scale for all pictures. It shows what the "
        "network used, not where a fault is.</p>"
    )


def _card(row: Row, shown: Shown, points: Mapping[str, float]) -> str:
    name = escaped(row.name)
    marks = "".join(f'<i style="left:{100 * value:.2f}%"></i>' for value in points.values())
    reached = [escaped(point) for point, value in points.items() if row.score >= value]
    images = f'<img src="{source(shown.picture)}" alt="{name}">'
    if shown.heat is not None:
        images += f'<img src="{source(shown.heat)}" alt="heat map of {name}">'
    found = "".join(
        f"<br>{escaped(finding)}: {value:.3f}" for finding, value in row.findings.items()
    )
    told = f" reaches {' and '.join(reached)}" if reached and points else ""
    return (
        f"<li><h3><span class=rank>{row.rank}</span><bdi>{name}</bdi></h3>"
        f"<div class=pair>{images}</div>"
        f'<div class=bar><span style="width:{100 * row.score:.2f}%"></span>{marks}</div>'
        f"<p class=score>score {row.score:.3f}<span class=muted>{told}, {_size(row)}</span>"
        f"{found}</p></li>"
    )


def _size(row: Row) -> str:
    return f"{row.size[0]:,} x {row.size[1]:,} pixels"


def _others_table(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lines = [
        "<h2>The rest</h2>",
        "<table><thead><tr><th>rank</th><th>score</th><th>file</th></tr></thead><tbody>",
        *(
            f"<tr><td>{row.rank}</td><td>{row.score:.3f}</td><td><bdi>{escaped(row.name)}</bdi></td></tr>"
            for row in rows
        ),
        "</tbody></table>",
    ]
    return "\n".join(lines)
