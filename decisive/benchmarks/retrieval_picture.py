"""Pictures of the retrieval study: recall by language, and a map of languages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decisive.benchmarks.retrieval_study import ARMS, Results, shares
from envs.captions.words import LANGUAGES

COLORS = {"en": "#1c2026", "de": "#D55E00", "fr": "#0072B2", "cs": "#009E73", "zh": "#CC79A7"}
_ARM_COLORS = {"images-only": "#9aa3ad", "mural": "#0072B2"}
_ARM_LABELS = {"images-only": "image-text only", "mural": "with bitext (MURAL)"}
_SENTENCES = 250  # Dots of each language.
_JOINED = 3  # Sentences whose translations are joined by lines.


class Drawn(NamedTuple):
    """A map and what it shows, in Markdown."""

    picture: bytes
    text: str


def recall_picture(found: Results) -> bytes:
    """Mean recall of pictures by language, a dot a seed, PNG; empty without results."""
    cells = {
        arm: [cell for (name, _), cell in found.items() if name == arm and cell is not None]
        for arm in ARMS
    }
    if not any(cells.values()):
        return b""
    figure, (axes,) = _figure(1, (7.2, 4.0))
    for place, (arm, results) in enumerate(cells.items()):
        if not results:
            continue
        values = [[_recall(cell["images"][language]) for cell in results] for language in LANGUAGES]
        x = np.arange(len(LANGUAGES)) + 0.36 * (place - 0.5)
        means = [float(np.mean(row)) for row in values]
        axes.bar(x, means, 0.34, color=_ARM_COLORS[arm], label=_ARM_LABELS[arm])
        for at, row in zip(x, values, strict=True):
            axes.plot([at] * len(row), row, "o", color="#1c2026", markersize=3)
    base = found.get(("baseline", 0))
    if base is not None:
        axes.axhline(
            100 * base["chance"]["images"], color="#D55E00", linestyle="--", label="chance"
        )
    names = ["en (captions)", *(f"{name} (none)" for name in LANGUAGES[1:])]
    axes.set_xticks(range(len(LANGUAGES)), names)
    axes.set_ylabel("mean recall, %")
    axes.set_title("Rendered pictures found by captions, and back (dots: seeds)")
    axes.legend(frameon=False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    return _png(figure)


def _recall(directions: Sequence[str]) -> float:
    return 100 * float(np.mean([shares(one).mean() for one in directions]))


def language_map(folder: Path) -> Drawn | None:
    """A map of Multi30k's test sentences in four languages, and distances; None without a model.

    Left: the first two principal components of the sentences' embeddings (head for translations);
    translations of one sentence are joined by lines. Right: classical scaling (Torgerson 1952) of
    the distances of the languages' means.
    """
    if not (folder / "config.json").is_file():
        return None
    from learning.bitext import MULTI30K_LANGUAGES, multi30k_lines
    from perception.mural.checkpoint import load_mural

    saved = load_mural(folder)
    lines = multi30k_lines(MULTI30K_LANGUAGES, "test")
    embedded = {
        language: saved.embed_text(texts, "text-text").numpy().astype(np.float64)
        for language, texts in zip(MULTI30K_LANGUAGES, lines, strict=True)
    }
    figure, (left, right) = _figure(2, (11.0, 5.0))
    _draw_sentences(left, embedded)
    means = {language: rows.mean(0) for language, rows in embedded.items()}
    places, kept = scaled(list(means.values()))
    for (x, y), language in zip(places, means, strict=True):
        right.plot(x, y, "o", color=COLORS[language], markersize=10)
        right.annotate(language, (x, y), textcoords="offset points", xytext=(9, 6), fontsize=12)
    right.set_title(f"Means of the languages, classical scaling ({100 * kept:.0f}% kept)")
    right.set_aspect("equal", "datalim")
    right.margins(0.25)
    return Drawn(_png(figure), map_text(embedded))


def _draw_sentences(axes: Any, embedded: Mapping[str, NDArray[np.float64]]) -> None:
    every = np.concatenate(list(embedded.values()))
    centre = every.mean(0)
    _, values, axes_found = np.linalg.svd(every - centre, full_matrices=False)
    share = (values[:2] ** 2).sum() / (values**2).sum()
    flat = {name: (rows - centre) @ axes_found[:2].T for name, rows in embedded.items()}
    for name, rows in flat.items():
        some = rows[:_SENTENCES]
        axes.plot(*some.T, "o", color=COLORS[name], markersize=2.5, alpha=0.35, label=name)
    for k in _spread(next(iter(flat.values())), _JOINED):
        corners = np.stack([rows[k] for rows in flat.values()])
        axes.plot(*np.concatenate([corners, corners[:1]]).T, color="#1c2026", linewidth=1.2)
        for name, corner in zip(flat, corners, strict=True):
            axes.plot(*corner, "o", color=COLORS[name], markersize=7, markeredgecolor="#1c2026")
    axes.set_title(
        f"Multi30k test sentences, first two principal components ({100 * share:.0f}%);\n"
        "lines join a sentence with its translations"
    )
    axes.legend(frameon=False, markerscale=3)


def _spread(points: NDArray[np.float64], n: int) -> list[int]:
    """Points far from each other: one at the rim, then always the farthest from the others."""
    chosen = [int(np.linalg.norm(points - points.mean(0), axis=1).argmax())]
    while len(chosen) < n:
        away = np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(1)
        chosen.append(int(away.argmax()))
    return chosen


def scaled(means: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], float]:
    """Places `(n, 2)` whose distances are those of the means as well as can be, and how well.

    Returns:
        Places, and the share of the squared distances that two axes keep.
    """
    points = np.stack(means)
    centred = points - points.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    total = float((values**2).sum())
    kept = float((values[:2] ** 2).sum()) / total if total > 0 else 1.0
    return left[:, :2] * values[:2], kept


def map_text(embedded: Mapping[str, NDArray[np.float64]]) -> str:
    """What the map shows, in Markdown: cosines of translations and others, distances of means."""
    names = list(embedded)
    rows = ["| | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for first in names:
        cells = []
        for second in names:
            if first == second:
                cells.append("")
                continue
            x, y = embedded[first], embedded[second]
            same = float((x * y).sum(1).mean())
            other = float((x @ y.T).sum() - (x * y).sum()) / (len(x) * (len(x) - 1))
            away = float(np.linalg.norm(x.mean(0) - y.mean(0)))
            cells.append(f"{same:.2f} / {other:.2f} / {away:.2f}")
        rows.append(f"| {first} | " + " | ".join(cells) + " |")
    apart = {
        name: float(
            np.mean([np.linalg.norm(embedded[name].mean(0) - rows.mean(0))
                     for other, rows in embedded.items() if other != name])
        )
        for name in names
    }  # fmt: skip
    middle = min(apart, key=lambda name: apart[name])
    spread = float(np.mean([np.linalg.norm(rows - rows.mean(0), axis=1).mean()
                            for rows in embedded.values()]))  # fmt: skip
    return "\n".join(
        [
            "Multi30k's test sentences, one training (seed 0): cosine of translations / cosine of "
            "other sentences / distance of the languages' means.",
            "",
            *rows,
            "",
            f"The mean distance of a sentence to its language's mean is {spread:.2f}; that of the "
            f"languages' means to each other is {np.mean(list(apart.values())):.2f}, so left "
            "the languages lie on each other, and the distances right are small ones. In "
            f"the middle of the languages is {middle}, {apart[middle]:.2f} from the others on "
            "average.",
        ]
    )


def _figure(panels: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, np.atleast_1d(figure.subplots(1, panels))


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()
