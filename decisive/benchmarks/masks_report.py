"""Tables of `decisive benchmark masks`, of whatever cells are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decisive.benchmarks.masks_arms import JITTER, QUALITIES, Arm, CocoArm, Crops, Recipe
from decisive.benchmarks.masks_intervals import PARTS, Results, by_seed, combined, mean_of
from decisive.benchmarks.masks_picture import picture
from learning.atomic import write_file

NOT_RUN = "not run"
Row = list[str]


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        title: above it.
        notes: below the title.
        header: of the columns.
        rows: as many words each.
    """

    title: str
    notes: str
    header: Row
    rows: list[Row]

    def lines(self) -> list[str]:
        """Markdown."""
        rows = [self.header, ["---"] * len(self.header), *self.rows]
        return [f"## {self.title}", "", self.notes, "", *(f"| {' | '.join(r)} |" for r in rows), ""]


def tables(results: Results) -> list[Table]:
    """All tables; arms that were not run say so."""
    return [heads(results), contrasts(results), box_quality(results), photographs(results)]


def _arms(results: Results) -> list[Arm]:
    return list(dict.fromkeys(c.arm for c in results if isinstance(c.arm, Arm)))


def _given(cells: Sequence[Mapping[str, Any]]) -> Row:
    """Mean IoU in true boxes, seen and unseen."""
    return [_mean(cell["given_boxes"].get(part) for cell in cells) for part in PARTS]


def _mean(values: Iterable[float | None]) -> str:
    """Over seeds, in percent; `-` where there is none."""
    told = mean_of([value for value in values if value is not None])
    return "-" if told is None else told.text()


def _crops(arm: Arm) -> str:
    """In a word that fits a screen."""
    name = "true" if arm.crops == "ground-truth" else arm.crops
    return f"{name}, jitter {arm.jitter:g}" if arm.jitter else name


def heads(results: Results) -> Table:
    """Every arm on scenes: masks in true boxes, and of what the network finds by itself."""
    header = ["detector", "masks", "crops", "head", "seeds", "IoU seen", "IoU unseen"]
    header += ["AP seen", "AP unseen", "box AP", "M MAC", "CPU-s"]
    rows = []
    for arm in _arms(results):
        cells = list(by_seed(results, arm).values())
        named = [arm.detector, arm.masked, _crops(arm), arm.head, str(len(cells))]
        rows.append(named + (_scores(cells) if cells else [NOT_RUN] + ["-"] * 6))
    notes = (
        "IoU: of masks in the true boxes; AP: COCO's of masks, over IoU .5 to .95, of what the "
        "network finds itself; both in percent, means over classes. Crops: true boxes (ground "
        "truth) or proposals of the detector. Seen are classes with masks in "
        "training; with masks of all classes there are no others. M MAC: million multiply-adds of "
        "the head for one box (counted on Deep-MAC's crops). CPU-s: of training steps."
    )
    return Table("Heads, crops and classes", notes, header, rows)


def _scores(cells: Sequence[Mapping[str, Any]]) -> Row:
    found = [cell["found"] for cell in cells]
    return [
        *_given(cells),
        *(_mean(told.get(f"mask_ap_{part}") for told in found) for part in PARTS),
        _mean(told.get("box_ap") for told in found),
        f"{cells[0]['head']['multiply_adds'] / 1e6:.0f}",
        f"{sum(cell['cpu_seconds'] for cell in cells) / len(cells):.0f}",
    ]


def contrasts(results: Results) -> Table:
    """Differences of mean IoU in true boxes."""
    rows = []
    for title, weights in _contrasts(results):
        told = [combined(results, weights, part) for part in PARTS]
        seeds = max((one.seeds for one in told if one is not None), default=0)
        shown = [NOT_RUN if one is None else one.text(sign=True) for one in told]
        rows.append([title, str(seeds), *shown])
    notes = (
        "Percentage points of mean IoU in true boxes, 95 % intervals in brackets: Student's over "
        "seeds, paired by seed; with a star, of one seed, a bootstrap over the test scenes, which "
        "tells nothing about other trainings."
    )
    return Table("Differences", notes, ["difference", "seeds", "seen", "unseen"], rows)


def _contrasts(results: Results) -> list[tuple[str, dict[Arm | CocoArm, float]]]:
    """Titles and weights of the arms."""
    known = _arms(results)
    told: list[tuple[str, dict[Arm | CocoArm, float]]] = []
    pairs = (
        ("hourglass-52", "resnet-4"),
        ("hourglass-20", "resnet-4"),
        ("hourglass-20", "resnet-4-wide"),
        ("hourglass-52", "resnet-4-wide"),
    )
    for detector in dict.fromkeys(arm.detector for arm in known):

        def at(crops: Crops, head: str, detector: str = detector, jitter: float = 0.0) -> Arm:
            return Arm(detector, "half", crops, head, jitter)

        crops_named: tuple[Crops, ...] = ("ground-truth", "proposal")
        for deep, shallow in pairs:
            if at("ground-truth", deep) not in known or at("ground-truth", shallow) not in known:
                continue
            parts: list[dict[Arm | CocoArm, float]] = [
                {at(crops, deep): 1.0, at(crops, shallow): -1.0} for crops in crops_named
            ]
            told += [
                (f"{detector}: {deep} - {shallow}, {crops} crops", own)
                for crops, own in zip(crops_named, parts, strict=True)
            ]
            apart = {arm: -weight for arm, weight in parts[1].items()}
            told.append((f"{detector}: first less second of the two above", {**parts[0], **apart}))
        for head in dict.fromkeys(arm.head for arm in known if arm.detector == detector):
            told.append(
                (
                    f"{detector}: ground-truth - proposal crops, {head}",
                    {at("ground-truth", head): 1.0, at("proposal", head): -1.0},
                )
            )
            if (loose := at("ground-truth", head, jitter=JITTER)) in known:
                title = f"{detector}: jitter {JITTER:g} - none, {head}"
                told.append((title, {loose: 1.0, at("ground-truth", head): -1.0}))
    return told


def box_quality(results: Results) -> Table:
    """IoU of masks on boxes of falling quality, classes without masks in training."""
    qualities = ["1.0", *map(str, QUALITIES)]
    header = ["detector", "crops", "head", "boxes", "seeds", *qualities]
    rows = []
    for arm in _arms(results):
        if arm.masked != "half":
            continue
        cells = list(by_seed(results, arm).values())
        for manner in ("loosened", "refined", "shifted") if cells else (NOT_RUN,):
            every = [cell["by_box_quality"] for cell in cells]
            # At 1 there is one manner.
            curves = [{"1.0": own["loosened"]["1.0"], **own[manner]} for own in every]
            told = [_mean(own.get(q, {}).get("unseen") for own in curves) for q in qualities]
            rows.append([arm.detector, _crops(arm), arm.head, manner, str(len(cells)), *told])
    notes = (
        "Classes without masks in training; mean IoU in percent by the IoU of the given boxes with "
        "the true ones. Loosened boxes hold the true one, shifted ones have its size; refined: "
        "loosened ones, each replaced once by the tight box of its mask."
    )
    return Table("IoU by the quality of given boxes", notes, header, rows)


def photographs(results: Results) -> Table:
    """The check on COCO: before and after it was learned from, and from random weights."""
    header = ["network", "head", "seeds", "IoU seen", "IoU unseen", "unseen, loose boxes", "CPU-s"]
    arms = list(dict.fromkeys(c.arm for c in results if isinstance(c.arm, CocoArm)))
    rows: list[Row] = []
    for arm in sorted(arms, key=lambda arm: (arm.start == "random", arm.head)):
        cells = list(by_seed(results, arm).values())
        if arm.start == "scenes":
            as_they_are = [cell["before"] for cell in cells]
            rows.append([*_photograph_row("of scenes, as it is", arm.head, as_they_are), "-"])
        name = "then learned from photographs" if arm.start == "scenes" else "from random weights"
        spent = f"{sum(c['cpu_seconds'] for c in cells) / len(cells):.0f}" if cells else "-"
        rows.append([*_photograph_row(name, arm.head, cells), spent])
    coco = next(
        (r for c, r in results.items() if isinstance(c.arm, CocoArm) and r is not None), None
    )
    if coco is not None:
        filled = coco["filled_boxes"]
        told = [f"{100 * filled[part]:.1f}" if part in filled else "-" for part in PARTS]
        rows.append(["masks that fill the true boxes", "-", "-", *told, "-", "-"])
    notes = (
        "Real photographs: 100 of COCO to learn masks of every second class from, in true boxes; "
        "100 others to be scored by, in given boxes, mean over the classes that occur. Few "
        "instances of most classes: one check, no result of the paper. Networks of scenes, as they "
        "are, have seen no mask of either half. Loose boxes: loosened to an IoU of .7."
    )
    return Table("Photographs", notes, header, rows)


def _photograph_row(name: str, head: str, cells: Sequence[Mapping[str, Any]]) -> Row:
    if not cells:
        return [name, head, "0", NOT_RUN, "-", "-"]
    return [
        name,
        head,
        str(len(cells)),
        *_given(cells),
        _mean(cell["by_box_quality"]["loosened"]["0.7"].get("unseen") for cell in cells),
    ]


def write(results: Results, recipe: Recipe, command: str, folder: Path) -> None:
    """Write README.md and, where there is a result, box-quality.png."""
    done = [result for result in results.values() if result is not None]
    spent = sum(result["total_cpu_seconds"] for result in done)
    lines = [
        "# Instance masks: depth of the head, and the boxes it learns in",
        "",
        f"Networks trained for {recipe.steps:,} steps of 8 on {recipe.scenes:,} synthetic scenes "
        f"of {recipe.size} pixels, scored by {recipe.test_scenes:,} of other shapes and colours; "
        "boxes of 14 classes are learned, masks of every second one (`half`), of the others "
        "(`other-half`) or of `all`. Small networks and short trainings: no figure of the paper "
        "(Birodkar et al. 2021, arXiv 2104.00613) is reproduced here. Means over seeds, from two "
        "seeds up with 95 % t intervals.",
        "",
        f"{len(done)} of {len(results)} cells were run, in {spent / 60:.0f} CPU-minutes.",
        "",
    ]
    for table in tables(results):
        lines += table.lines()
    pixels = picture(results)
    if pixels:
        write_file(folder / "box-quality.png", pixels)
        lines += ["![IoU of masks over the IoU of given boxes](box-quality.png)", ""]
    lines += ["```", command, "```", ""]
    write_file(folder / "README.md", "\n".join(lines).encode())
