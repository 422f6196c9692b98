"""The table of the triage study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decisive.benchmarks import triage_compare
from decisive.benchmarks.triage_inspection import pointing_table
from decisive.benchmarks.triage_study import Study
from learning.atomic import write_file

NOTES = (
    "Areas under the curve of normal against each condition, on test pictures: the mean of the "
    "seeds, and the 95% DeLong intervals of all of them together (lowest lower to highest upper "
    "end). The border shows nothing of what is asked for and the thumbnail no detail: what they "
    "score may be a shortcut. Research software, not a medical device."
)

POINTING = (
    "Does the largest value of the heat map, enlarged to the picture, lie in the box around the "
    "pixels that the defect changed? Mean of the seeds, and their 95% Wilson intervals together; "
    "beside it the middle of the picture, and the share of the picture that the boxes fill. Boxes "
    "of wrong sizes and parts are as large as the part."
)

_SEEN = {
    "all": "the picture",
    "border": "control: the border alone",
    "thumbnail": "control: 8 x 8 means",
}
Cells = Mapping[str, Sequence[dict[str, Any] | None]]
_WIDEST = 6  # Columns of a table that is not turned.


def table(found: Cells, study: Study) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what was seen, and the area for each condition."""
    header = ["seen", *(_name(name, study) for name in study.conditions), "seeds"]
    rows = [_row(_SEEN[control], results, study, "auroc") for control, results in found.items()]
    return header, rows


def _name(condition: str, study: Study) -> str:
    plain = condition.replace("_", " ")
    return f"{plain} (unseen)" if condition in study.unseen else plain


def _row(
    title: str, results: Sequence[dict[str, Any] | None], study: Study, interval: str
) -> list[str]:
    known = [result for result in results if result is not None]
    areas = [
        _area([result["conditions"][condition][interval] for result in known])
        for condition in study.conditions
    ]
    return [title, *areas, f"{len(known)} of {len(results)}"]


def _area(areas: Sequence[Mapping[str, Any]]) -> str:
    if not areas:
        return "not run"
    mean = np.mean([one["value"] for one in areas])
    low = min(one["ci95"][0] for one in areas)
    high = max(one["ci95"][1] for one in areas)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def queue_table(found: Cells, study: Study) -> tuple[list[str], list[list[str]]]:
    """Mean turnaround of abnormal cases by the classifier's order against the order of arrival."""
    header = ["condition", "queue: arrival", "by threshold (closed form)", "by score",
              "less", "list: random", "by score", "less"]  # fmt: skip
    rows = []
    known = [result for result in found["all"] if result is not None]
    for condition in study.queued if known else ():
        told = [result["conditions"][condition]["turnaround"] for result in known]

        def mean(place: str, order: str, told: Any = told) -> float:
            return float(np.mean([one[place][order]["mean"] for one in told]))

        closed = np.mean([one["closed_form"]["threshold"] for one in told])
        arrival, score = mean("queue", "arrival"), mean("queue", "score")
        drawn, sorted_ = mean("overnight_list", "random"), mean("overnight_list", "score")
        rows.append([
            condition.replace("_", " "), f"{arrival:.2f}",
            f"{mean('queue', 'threshold'):.2f} ({closed:.2f})",
            f"{score:.2f}", f"{100 * (1 - score / arrival):.0f}%",
            f"{drawn:.1f}", f"{sorted_:.1f}", f"{100 * (1 - sorted_ / drawn):.0f}%",
        ])  # fmt: skip
    return header, rows


def write(found: Cells, study: Study, command: str, source: str, folder: Path) -> None:
    """Write README.md: areas, tests, heat maps, turnaround, operating points and calibration."""
    known = [result for result in found["all"] if result is not None]
    header, rows = table(found, study)
    rows = [rows[0], _row("the same, bootstrap", found["all"], study, "auroc_bootstrap"), *rows[1:]]
    lines = [
        "# Triage: normal or abnormal",
        "",
        f"{source}. {study.backbone}, {study.side} pixels a side" + f", {study.epochs:g} epochs.",
        "",
        "```sh",
        command,
        "```",
        "",
        *markdown(*_upright(header, rows)),
        "",
        NOTES,
        "",
        "## Better than the controls?",
        "",
        *markdown(*_upright(*triage_compare.compare_table(found, study))),
        "",
        triage_compare.NOTES,
        "",
        *(_pointing(found, study) if known and "pointing" in known[0] else []),
        *(_what_it_is_worth(found, known, study) if known else []),
    ]
    write_file(folder / "README.md", "\n".join(lines).encode())


def _pointing(found: Cells, study: Study) -> list[str]:
    header, rows = pointing_table(list(found["all"]), study)
    return ["## Where heat maps point", "", *markdown(header, rows), "", POINTING, ""]


def _what_it_is_worth(found: Cells, known: Sequence[dict[str, Any]], study: Study) -> list[str]:
    told = known[0]["conditions"][study.queued[0]]["turnaround"]
    return [
        "## Turnaround of abnormal cases",
        "",
        f"Simulated: {100 * told['prevalence']:.0f}% of the cases are abnormal, drawn from the "
        f"test pictures; one reader, busy {100 * told['utilisation']:.0f}% of the time in the "
        "queue; the list has 100 cases. In reading times. Nabulsi et al. 2021 report 7 to 28% "
        "less, with other data and settings.",
        "",
        *markdown(*queue_table(found, study)),
        "",
        "## Operating points and calibration",
        "",
        "Chosen on the tuning pictures; rates on the test pictures, first seed.",
        "",
        *markdown(*_upright(*points_table(known[0], study))),
        "",
        "Expected calibration error on seen conditions, before and after Platt's scaling: "
        + "; ".join(
            f"{r['calibration_error']['before']:.3f} and {r['calibration_error']['after']:.3f}"
            for r in known
        )
        + " (one pair a seed).",
        "",
    ]


def _upright(
    header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """A table, turned where it would be too wide to be read."""
    if len(header) <= _WIDEST:
        return list(header), [list(row) for row in rows]
    turned = [list(line) for line in zip(header, *rows, strict=True)]
    return turned[0], turned[1:]


def points_table(result: Mapping[str, Any], study: Study) -> tuple[list[str], list[list[str]]]:
    """Sensitivity and specificity of each threshold for each condition."""
    header = ["threshold", *(f"{_name(name, study)}: found, passed" for name in study.conditions)]
    rows = []
    for name, point in result["points"].items():
        row = [f"{name} ({point['threshold']:.2f})"]
        for condition in study.conditions:
            told = result["conditions"][condition]["points"][name]
            row.append(
                f"{told['found']} of {told['n_abnormal']}, {told['passed']} of {told['n_normal']}"
            )
        rows.append(row)
    return header, rows


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]
